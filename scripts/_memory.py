"""How much memory a job needs, from the shape of its model; the one place where that is estimated.

Bytes, with e = 4 in fp32 and 2 in bf16 and nf4, h the width, I that of the MLP, k that of the keys, V the vocabulary:

    weights      e a parameter. In nf4, 0.516 for those of the blocks' linear layers: 4 bits, an 8-bit constant for each
                 64 of them, and 32 bits for each 256 constants (Dettmers et al. 2023, arXiv:2305.14314, section 3).
                 Embeddings and head stay in bf16, and the largest layer is held in bf16 while it is computed with.
    keys, values 2 k layers e a token
    adapter      r (inputs + outputs) parameters for each layer it is on, in fp32 (nf4: bf16), as many for the gradient,
                 and the optimizer's state: twice as many for Adam, of 1 byte with the 8-bit optimizers
    activations  of a block and token, kept for the backward pass: (8 h + 2 k + 4 I) e. With a frozen base these are the
                 two normalisations' inputs in fp32, the inputs of the linear layers, queries, keys, values, the
                 attention's output, and gate, up and product of the MLP; attention scores are never kept (Dao et al.
                 2022, arXiv:2205.14135). Dropout keeps a copy and a mask of the input of each layer with an adapter.
                 With gradient checkpointing, h e a block and token, and one block's activations (Chen et al. 2016,
                 arXiv:1604.06174).
    logits       14 V a token in training: themselves, their fp32 copy, its softmax, the gradient; 12 V a row in
                 answering
    other        1e9, for CUDA's context, the allocator's gaps, and what is not counted here

Only the answering part has been compared with measurements: tests/unit/test_memory.py holds it to the peaks in
benchmarks/results. The training part has not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OTHER = 1e9
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
# What a study does not say.
VOCABULARY = 128_000


def element(precision: str) -> int:
    """Return the bytes of a number that is computed with."""
    return 4 if precision == "fp32" else 2


@dataclass(frozen=True)
class Shape:
    """What the memory of a decoder depends on."""

    hidden: int
    intermediate: int
    layers: int
    queries: int  # heads x head size
    keys: int  # heads of keys (and of values) x head size
    vocabulary: int
    tied: bool  # embeddings and head are the same

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Shape":
        """Read a model's config.json."""
        heads = config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // heads
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            queries=heads * size,
            keys=(config.get("num_key_value_heads") or heads) * size,
            vocabulary=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
        )

    @classmethod
    def like(cls, parameters: float, vocabulary: int | None = None) -> "Shape":
        """Return the shape that a model of so many parameters has if it is proportioned like Llama 3 8B.

        That is h / 128 blocks of 13 h^2 parameters, and two matrices of the vocabulary. Small models tie the two, which
        leaves more for the blocks, and are deeper.
        """
        vocabulary = vocabulary or VOCABULARY

        def total(hidden: int) -> float:
            return 13 * hidden**2 * (hidden / 128) + 2 * vocabulary * hidden

        hidden = next(h for h in range(128, 1 << 20, 128) if total(h + 128) > parameters)
        return cls(hidden, 7 * hidden // 2, hidden // 128, hidden, hidden // 4, vocabulary, False)

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of a block's linear layers."""
        h, i = self.hidden, self.intermediate
        return {
            "q_proj": (h, self.queries),
            "k_proj": (h, self.keys),
            "v_proj": (h, self.keys),
            "o_proj": (self.queries, h),
            "gate_proj": (h, i),
            "up_proj": (h, i),
            "down_proj": (i, h),
        }

    @property
    def block_parameters(self) -> int:
        """Parameters of all blocks' linear layers."""
        return self.layers * sum(a * b for a, b in self.linear.values())

    @property
    def parameters(self) -> int:
        """All parameters, but for those of normalisations and biases."""
        return self.block_parameters + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def adapter_parameters(self, r: int, modules: Sequence[str]) -> int:
        """Parameters of a LoRA adapter on these layers."""
        return self.layers * r * sum(sum(self.linear[module]) for module in modules if module in self.linear)


def weights(shape: Shape, precision: str) -> float:
    """Return the bytes of the model."""
    if precision != "nf4":
        return shape.parameters * element(precision)
    largest = max(a * b for a, b in shape.linear.values())
    return shape.block_parameters * NF4 + 2 * (shape.parameters - shape.block_parameters + largest)


def row(shape: Shape, tokens: int, bytes_each: int) -> int:
    """Return the bytes of the keys and values of `tokens` tokens."""
    return 2 * shape.layers * shape.keys * tokens * bytes_each


def prompt_activations(shape: Shape, tokens: int, bytes_each: int) -> int:
    """Return the most bytes of activations that exist at once while `tokens` tokens go through a block."""
    return tokens * (3 * shape.intermediate + 8 * shape.hidden) * bytes_each


def logits(shape: Shape) -> int:
    """Return the bytes of a row's logits in fp32, three times: they are compared and kept."""
    return 3 * 4 * shape.vocabulary


def answering(shape: Shape, precision: str, rows: int, tokens: int, at_once: int, shared: int = 0) -> float:
    """Return the bytes that answering needs.

    Args:
        shape, precision: of the model.
        rows: prompts a batch.
        tokens: of the longest prompt and its answer, without what is shared.
        at_once: tokens in one forward pass of the prompts, at most.
        shared: tokens with which all prompts begin, whose keys and values exist once.
    """
    e = element(precision)
    activations = prompt_activations(shape, min(at_once, rows * tokens), e)
    cache = rows * (row(shape, tokens, e) + logits(shape)) + row(shape, shared, e)
    return weights(shape, precision) + cache + activations + OTHER


def training(
    shape: Shape, precision: str, lora: Mapping[str, Any], options: Mapping[str, Any], tokens: int
) -> dict[str, float]:
    """Return the bytes that training needs, by what needs them.

    Args:
        shape, precision: of the model.
        lora: r, lora_dropout, target_modules.
        options: per_device_train_batch_size, gradient_checkpointing, optim, and, if eval_strategy is not "no",
            per_device_eval_batch_size.
        tokens: of the longest row; a batch is padded to it.
    """
    e, modules = element(precision), lora["target_modules"]
    adapter = shape.adapter_parameters(lora["r"], modules)
    number = 2 if precision == "nf4" else 4
    state = 2 * (1 if "8bit" in options["optim"] else number)
    block = (8 * shape.hidden + 2 * shape.keys + 4 * shape.intermediate) * e
    if lora["lora_dropout"]:
        block += sum(shape.linear[module][0] * (e + 1) for module in modules if module in shape.linear)
    kept = shape.layers * block
    if options["gradient_checkpointing"]:
        kept = shape.layers * shape.hidden * e + block
    rows = options["per_device_train_batch_size"]
    evaluated = options["per_device_eval_batch_size"] if options["eval_strategy"] != "no" else 0
    return {
        "weights": weights(shape, precision),
        "adapter": adapter * (2 * number + state),
        "activations": rows * tokens * kept,
        "logits": max(rows, evaluated) * tokens * 14 * shape.vocabulary,
        "other": OTHER,
    }


def gb(size: float) -> str:
    """Write bytes as GB of 10^9, rounded up to one digit after the point."""
    return f"{math.ceil(size / 1e8) / 10:.1f}"
