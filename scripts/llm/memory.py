"""How much memory a job needs, from the shape of its model, the one place where that is estimated; what a device has.

Bytes, with e = 4 in fp32 and 2 otherwise, h the width, I that of the MLP, k that of the keys, V the vocabulary:

    weights      e a parameter, those of all experts included. In nf4, 0.516 for those of the blocks' linear layers: 4
                 bits, an 8-bit constant for each 64 of them, and 32 bits for each 256 constants (Dettmers et al. 2023,
                 arXiv:2305.14314, section 3). Embeddings and head stay in bf16, and the largest layer is held in bf16
                 while it is computed with. In training, the constants are kept in 32 bits too (`llm.fused`). In int8, 1
                 for those, and 32 bits for each output (arXiv:2208.07339).
    keys, values 2 k layers e a token
    adapter      r (inputs + outputs) parameters for each layer it is on, in fp32 (nf4 and int8: bf16), as many for the
                 gradient, and the optimizer's state: twice as many for Adam, of 1 byte with the 8-bit optimizers
    all weights  in full fine-tuning, in place of an adapter: 4 a parameter for the weight, 4 for its gradient, and the
                 optimizer's state as above; in half precision 2 more, for the copy that it computes with (Micikevicius
                 et al. 2018, arXiv:1710.03740); for a KL term, the weights of the base besides. Not held to a peak
    activations  of a block and token, kept for the backward pass: e times 2 h (the inputs of both normalisations), two
                 of the queries and of the keys (queries, keys, values, the attention's output; its scores are never
                 kept, Dao et al. 2022, arXiv:2205.14135) and 2 I (gate and up; Liger's kernels compute the rest again,
                 without them it is I more, and 4 h for the normalisations). A frozen layer needs no input, one with an
                 adapter does: e a number, once for layers of the same input; with dropout e + 1 for each layer, a copy
                 and a mask. With gradient checkpointing, h e a block and token, and one block's activations (Chen et
                 al. 2016, arXiv:1604.06174). On top, while gradients flow, (I + h) e a token.
    logits       none worth counting in training: the head and its loss are computed in pieces. 12 V a row in answering
    other        1e9, for CUDA's context, the allocator's gaps, and what is not counted here
    spare        6% of the whole in training, which `llm.fit` leaves unused

A training on a GPU takes the memory that is there: it makes its micro-batches larger, and uses gradient checkpointing
only where it must. What it *needs* is one micro-batch of its longest row with checkpointing, whatever a study's batch
is. A model whose rows cannot be packed (`llm.packing.keep_apart`) needs more than is said here.
tests/llm/test_memory.py holds both parts to peaks in benchmarks/results.
"""

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from timeit import repeat
from typing import Any

from common.files import read_json, write_json
from common.weights import QUANTISED

OTHER = 1e9
SPARE = 0.06
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
# What a study does not say.
VOCABULARY = 128_000
# How answers are computed (`llm.prefix_engine`, `llm.answering`): tokens in one forward pass of the prompts, enough to
# fill a GPU and few enough for its activations; what cache lengths are rounded up to, so that a run captures few CUDA
# graphs; prompts a batch where there is no GPU whose memory could say.
PREFILL_TOKENS = 16384
ROUND = 64
CPU_ROWS = 32


# How configurations call the number of a layer's experts.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class Shape:
    """What the memory of a decoder depends on."""

    hidden: int
    intermediate: int
    layers: int
    queries: int  # heads x head size
    keys: int  # heads of keys (and of values) x head size
    vocabulary: int
    tied: bool = False  # embeddings and head are the same
    experts: int = 0  # of a layer, each an MLP of `expert` width; each token goes through `routed` of them
    expert: int = 0
    routed: int = 0
    sparse: int = 0  # layers with experts; in the others the MLP has the width `intermediate`

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """Read a model's config.json; of one that also sees or hears, the part about its language model."""
        tied = config.get("tie_word_embeddings", False)
        config = {"tie_word_embeddings": tied} | (config.get("text_config") or config)
        heads, hidden = config["num_attention_heads"], config["hidden_size"]
        size = config.get("head_dim") or hidden // heads
        queries, keys = heads * size, (config.get("num_key_value_heads") or heads) * size
        layers, tied = config["num_hidden_layers"], config["tie_word_embeddings"]
        experts = next((config[key] for key in EXPERTS if config.get(key)), 0)
        if not experts:
            return cls(hidden, config["intermediate_size"], layers, queries, keys, config["vocab_size"], tied)
        expert = config.get("moe_intermediate_size") or config["intermediate_size"]
        routed = config.get("num_experts_per_tok") or config.get("moe_k") or 1
        shared = config.get("shared_expert_intermediate_size") or 0
        always = shared / expert + (config.get("n_shared_experts") or config.get("num_shared_experts") or 0)
        sparse = layers - (config.get("first_k_dense_replace") or 0) - len(config.get("mlp_only_layers") or ())
        sizes = (math.ceil(experts + always), expert, math.ceil(routed + always), sparse)
        dense = config.get("intermediate_size") or expert
        return cls(hidden, dense, layers, queries, keys, config["vocab_size"], tied, *sizes)

    @classmethod
    def like(cls, parameters: float, vocabulary: int | None = None) -> "Shape":
        """The shape that a model of so many parameters has if it is proportioned like Llama 3 8B.

        That is h / 128 blocks of 13 h^2 parameters, and two matrices of the vocabulary. Small models tie the two, which
        leaves more for the blocks, and are deeper.
        """
        vocabulary = vocabulary or VOCABULARY
        h = min(range(128, 1 << 15, 128), key=lambda h: abs(13 * h**2 * (h / 128) + 2 * vocabulary * h - parameters))
        return cls(h, 7 * h // 2, h // 128, h, h // 4, vocabulary)

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of a block's linear layers, which experts are not."""
        h, i = self.hidden, self.intermediate
        attention = {
            "q_proj": (h, self.queries),
            "k_proj": (h, self.keys),
            "v_proj": (h, self.keys),
            "o_proj": (self.queries, h),
        }
        if self.sparse == self.layers:
            return attention
        return attention | {"gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h)}

    @property
    def block_parameters(self) -> int:
        """Parameters of all blocks' linear layers, which experts are not."""
        every = self.layers * sum(a * b for a, b in self.linear.values())
        return every - (self.sparse % self.layers) * 3 * self.hidden * self.intermediate

    @property
    def expert_parameters(self) -> int:
        """Parameters of all experts."""
        return self.sparse * self.experts * 3 * self.hidden * self.expert

    @property
    def widest(self) -> int:
        """The width of the MLPs that a token goes through in a block, at most."""
        return max(self.intermediate if self.sparse < self.layers else 0, self.routed * self.expert)

    @property
    def parameters(self) -> int:
        """All parameters, but for those of normalisations and biases."""
        return self.block_parameters + self.expert_parameters + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def adapted(self, modules: Sequence[str] | str) -> list[str]:
        """A block's linear layers that lora.target_modules means; of a regular expression, those that it names."""
        if isinstance(modules, str):
            return [name for name in self.linear if modules == "all-linear" or name in modules]
        return [module for module in modules if module in self.linear]

    def adapter_parameters(self, r: int, modules: Sequence[str] | str) -> int:
        """Parameters of a LoRA adapter on these layers."""
        return self.layers * r * sum(sum(self.linear[module]) for module in self.adapted(modules))


def element(precision: str) -> int:
    """The bytes of a number that is computed with."""
    return 4 if precision == "fp32" else 2


def weights(shape: Shape, precision: str, gpus: int = 1) -> float:
    """The bytes of the model, or of one of its parts where several GPUs divide its layers (`llm.sharded`)."""
    if precision == "int8":
        outputs = shape.layers * sum(b for _, b in shape.linear.values())
        return shape.block_parameters + 4 * outputs + 2 * (shape.parameters - shape.block_parameters)
    blocks = shape.block_parameters + shape.expert_parameters
    # Two layers are gathered at a time: one computes, and the next is on its way.
    gathered = 2 * blocks / shape.layers if gpus > 1 else 0
    if precision != "nf4":
        return (blocks / gpus + gathered + shape.parameters - blocks) * element(precision)
    largest = max(a * b for a, b in shape.linear.values())
    held = shape.block_parameters * (0.5 / gpus + NF4 - 0.5) + gathered / 2  # each process has all constants
    return held + 2 * (shape.parameters - shape.block_parameters + largest)


def unquantised(source: str, name: str, shape: Shape, precision: str) -> list[str]:
    """A sentence if experts are left as they are: linear layers are quantised, and experts are one tensor a layer."""
    if precision not in QUANTISED or not shape.expert_parameters:
        return []
    part, whole = (gb(2 * number) for number in (shape.expert_parameters, shape.parameters))
    return [
        f"models.{name}.precision: {precision} quantises linear layers alone, and of the {whole} GB of {source} in "
        f"bf16 {part} GB are experts, which it leaves as they are. Set it to bf16, or take a model without experts."
    ]


def row(shape: Shape, tokens: int, bytes_each: int) -> int:
    """The bytes of the keys and values of `tokens` tokens."""
    return 2 * shape.layers * shape.keys * tokens * bytes_each


def prompt_activations(shape: Shape, tokens: int, bytes_each: int) -> int:
    """The most bytes of activations at once while `tokens` tokens go through a block."""
    return tokens * (3 * shape.widest + 8 * shape.hidden) * bytes_each


def logits(shape: Shape) -> int:
    """The bytes of a row's logits in fp32, three times: they are compared and kept."""
    return 3 * 4 * shape.vocabulary


def answering(shape: Shape, precision: str, rows: int, tokens: int, at_once: int) -> float:
    """The bytes that answering needs, but for the keys and values of a shared prefix (`row`), which exist once.

    A batch has so many `rows`, each at most `tokens` of prompt and answer without the shared prefix; one forward pass
    of prompts has at most `at_once` tokens.
    """
    e = element(precision)
    activations = prompt_activations(shape, min(at_once, rows * tokens), e)
    return weights(shape, precision) + rows * (row(shape, tokens, e) + logits(shape)) + activations + OTHER


def training_activations(
    shape: Shape, precision: str, lora: Mapping[str, Any] | None, tokens: int, checkpointing: bool
) -> float:
    """The bytes of activations of `tokens` tokens, forward and backward, computed twice if `checkpointing`.

    Without `lora` all weights are trained: each layer needs its input, and what is between the layers is in fp32.
    """
    e, h, i = element(precision), shape.hidden, shape.widest
    block = (2 * h + 2 * shape.queries + 2 * shape.keys + 2 * i) * e
    if precision == "fp32" or lora is None:  # without Liger's kernels
        block += (4 * h + i) * e
    if lora is None:
        lora = {"target_modules": list(shape.linear), "lora_dropout": 0.0}
        block += 6 * h * (4 - e)
    adapted = shape.adapted(lora["target_modules"])
    if lora["lora_dropout"]:
        block += sum(shape.linear[module][0] for module in adapted) * (e + 1)
    else:
        # o_proj's is the attention's output, which is kept anyway.
        same = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"down_proj"})
        block += sum(shape.linear[min(layers)][0] for layers in same if layers & set(adapted)) * e
    kept = shape.layers * h * e + block if checkpointing else shape.layers * block
    return tokens * (kept + (i + h) * e)


def training(
    shape: Shape, settings: Mapping[str, Any], tokens: int, cuda: bool = True, gpus: int = 1
) -> dict[str, float]:
    """The bytes that training needs at least, by what needs them; the longest row has so many `tokens`.

    On a GPU a micro-batch may be that one row, with checkpointing if need be. Of an adapter on several `gpus` that
    divide the model's layers, it is what each of them needs.
    """
    precision, lora, options = settings["precision"], settings.get("lora"), settings["training"]
    number = 2 if precision in QUANTISED else 4
    state = 2 * (1 if "8bit" in options["optim"] else number)
    if lora is None:
        copies = 0 if precision == "fp32" else 2 * shape.parameters
        base = weights(shape, precision) if settings.get("replay", {}).get("kl") else 0
        needed = {"weights": 4 * shape.parameters + copies + base}
        needed["gradients and optimizer"] = shape.parameters * (4 + state)
    else:
        adapter = shape.adapter_parameters(lora["r"], lora["target_modules"])
        constants = 4 / 64 * shape.block_parameters if precision == "nf4" and gpus == 1 else 0
        base = weights(shape, precision, gpus) + constants
        needed = {"weights": base, "adapter": adapter * (2 * number + state)}
    rows = 1 if cuda else options["per_device_train_batch_size"]
    twice = cuda or options["gradient_checkpointing"]
    activations = training_activations(shape, precision, lora, rows * tokens, checkpointing=twice)
    if options["eval_strategy"] != "no":
        evaluated = options["per_device_eval_batch_size"] * tokens
        activations = max(activations, prompt_activations(shape, evaluated, element(precision)))
    needed |= {"activations": activations, "other": OTHER}
    return needed | {"spare": sum(needed.values()) * SPARE / (1 - SPARE)}


def gb(size: float) -> str:
    """Write bytes as GB of 10^9, rounded up to one digit after the point."""
    return f"{math.ceil(size / 1e8) / 10:.1f}"


@dataclass(frozen=True)
class Device:
    """What jobs run on: its memory in bytes, and its rates (operations by precision, and bytes copied, a second)."""

    name: str
    memory: float
    cuda: bool
    flops: dict[str, float] = field(default_factory=dict)
    bandwidth: float = math.nan


def rate(function: Callable[[], Any], wait: Callable[[], None], work: float) -> float:
    """`work` a second: the median of five calls, after one that is not counted."""
    seconds = repeat(lambda: (function(), wait()), number=1, repeat=6)
    return work / statistics.median(seconds[1:])


def this_device(calibration: Path) -> Device:
    """The first visible GPU, or this CPU with two threads, with the rates that the file `calibration` keeps."""
    import torch

    cuda = torch.cuda.is_available()
    if cuda:
        name, memory = torch.cuda.get_device_name(0), float(torch.cuda.mem_get_info(0)[1])
    else:
        torch.set_num_threads(2)  # as the rules have it
        name, memory = "cpu, 2 threads", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    known = read_json(calibration) if calibration.exists() else {}
    if name not in known:
        where, wait = ("cuda", torch.cuda.synchronize) if cuda else ("cpu", lambda: None)
        side, copied = (8192, 2**30) if cuda else (1024, 2**27)
        flops = {}
        for precision, dtype in (("fp32", torch.float32), *([("bf16", torch.bfloat16)] if cuda else [])):
            a, b = (torch.randn(side, side, device=where, dtype=dtype) for _ in range(2))
            flops[precision] = rate(lambda a=a, b=b: a @ b, wait, 2 * side**3)
        source, target = (torch.empty(copied, dtype=torch.uint8, device=where) for _ in range(2))
        known[name] = {"flops": flops, "bandwidth": rate(lambda: target.copy_(source), wait, 2 * copied)}
        write_json(calibration, known)
    return Device(name, memory, cuda, **known[name])
