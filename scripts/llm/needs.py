"""What a job on a device needs, before it runs: bytes of memory, and seconds by the device's measured rates.

Memory is estimated as llm/memory.py says. Seconds are the least time in which the device could do the job, times what
this workflow was measured to need of that.
"""

import math
import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from timeit import repeat
from typing import Any

from common.files import read_json, write_json
from llm import memory as _memory
from llm.memory import CPU_ROWS, PREFILL_TOKENS, ROUND, Shape, gb

# Times the least time, as benchmarks/results has it: answering; training in optimizer steps of `LARGE_STEP` tokens and
# more, and in smaller ones.
ANSWERING, TRAINING, TRAINING_SMALL = 2.3, 1.9, 4.2
LARGE_STEP = 7000


@dataclass(frozen=True)
class Device:
    """What jobs run on: its memory in bytes, and its rates (operations and bytes a second), {} where unknown."""

    name: str
    memory: float
    cuda: bool
    flops: dict[str, float]
    bandwidth: float | None


@dataclass(frozen=True)
class Target:
    """A model in one precision on one device; `read` says whether its shape is read, not estimated."""

    name: str
    shape: Shape
    precision: str
    device: Device
    read: bool = True

    @property
    def flops(self) -> float | None:
        return self.device.flops.get("fp32" if self.precision == "fp32" else "bf16")

    def training_bytes(self, lora: dict, training: dict, tokens: int) -> dict[str, float]:
        settings = {"precision": self.precision, "lora": lora, "training": training}
        return _memory.training(self.shape, settings, tokens, self.device.cuda)


@dataclass
class Prompts:
    """How many prompts, and their tokens: in the mean and of the longest.

    Of those to be answered also `groups`, the number of prompts of each group that is answered together and with how
    many tokens all of it begin, and `rest`, the tokens of the longest prompt without this shared prefix.
    """

    count: int
    mean: float
    longest: int
    counted: bool
    groups: list[tuple[int, int]] = field(default_factory=list)
    rest: int = 0


@dataclass(frozen=True)
class Need:
    """What a job needs: tokens in all, bytes of memory, seconds if they can be told."""

    prompts: Prompts
    tokens: float
    memory: float
    seconds: float | None


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
        source = torch.empty(copied, dtype=torch.uint8, device=where)
        target = torch.empty_like(source)
        known[name] = {"flops": flops, "bandwidth": rate(lambda: target.copy_(source), wait, 2 * copied)}
        write_json(calibration, known)
    return Device(name, memory, cuda, known[name]["flops"], known[name]["bandwidth"])


def with_replay(prompts: Prompts, replayed: Prompts, fraction: float) -> Prompts:
    """The prompts of a training that mixes in a fraction of replayed rows."""
    number = math.ceil(fraction * prompts.count)
    total = prompts.count + number
    mean = (prompts.count * prompts.mean + number * replayed.mean) / total
    longest = max(prompts.longest, replayed.longest)
    return Prompts(total, mean, longest, prompts.counted and replayed.counted)


def training_seconds(target: Target, tokens: float, step: float, twice: bool) -> float | None:
    """The time of a training: forward, and backward to the activations only, 2 operations a weight and token.

    There are `tokens` in all and `step` in an optimizer step; activations are computed once or `twice` (gradient
    checkpointing).
    """
    if target.flops is None:
        return None
    operations = (6 if twice else 4) * target.shape.block_parameters
    return (TRAINING if step >= LARGE_STEP else TRAINING_SMALL) * tokens * operations / target.flops


def answering_seconds(target: Target, prompts: Prompts, rows: int, new: int) -> float | None:
    """The time of answering if every answer is of the longest: see `limit` in benchmarks/inference.py."""
    if target.flops is None or not target.device.bandwidth:
        return None
    shape, element = target.shape, _memory.element(target.precision)
    shared = sum(number * beginning for number, beginning in prompts.groups)
    own = prompts.count * prompts.mean - shared
    once = sum(beginning for _, beginning in prompts.groups)
    prefill = 2 * shape.block_parameters * (own + once) / target.flops
    batches = sum(math.ceil(number / rows) for number, _ in prompts.groups)  # none has prompts of two groups
    cache = prompts.count * _memory.row(shape, round(own / prompts.count + new), element)
    read = batches * _memory.weights(shape, target.precision) + cache
    return ANSWERING * (prefill + new * read / target.device.bandwidth)


def train_need(target: Target, settings: dict, learnt: Prompts, replayed: Prompts | None = None) -> Need:
    """What the training of one adapter needs."""
    lora, training, replay = settings["lora"], settings["training"], settings.get("replay")
    prompts = with_replay(learnt, replayed, replay["fraction"]) if replay else learnt
    tokens, mean = (min(length, training["max_length"]) for length in (prompts.longest, prompts.mean))
    need = target.training_bytes(lora, training, tokens)
    step = mean * training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    total = training["num_train_epochs"] * prompts.count * mean
    if training["max_steps"] > 0:
        total = training["max_steps"] * step
    twice = training["gradient_checkpointing"]
    if target.device.cuda:  # only where it must be
        once = _memory.training_activations(target.shape, target.precision, lora, tokens, checkpointing=False)
        twice = sum(need.values()) - need["activations"] + once > target.device.memory
    # With a KL term, each replayed row goes through the model a second time, and through the base.
    again = 1.5 * (total - total * learnt.count * learnt.mean / (prompts.count * prompts.mean))
    passed = total + (again if replay and replay["kl"] else 0)
    return Need(prompts, total, sum(need.values()), training_seconds(target, passed, step, twice))


def answer_need(target: Target, prompts: Prompts, batch: int | str, new: int) -> tuple[Need, float]:
    """What answering prompts needs, in batches that fit, and the bytes of one prompt at a time."""
    device, shape, tokens = target.device, target.shape, -(-(prompts.rest + new) // ROUND) * ROUND
    prefix = _memory.row(shape, max(beginning for _, beginning in prompts.groups), _memory.element(target.precision))

    def memory(rows: int) -> float:
        return _memory.answering(shape, target.precision, rows, tokens, PREFILL_TOKENS) + prefix

    if batch == "auto" and device.cuda:  # as many as fit
        batch = next((rows for rows in range(512, 0, -1) if memory(rows) <= device.memory), 1)
    rows = min(CPU_ROWS if batch == "auto" else batch, prompts.count)
    # A batch that is too large for a GPU is halved until it fits.
    while device.cuda and rows > 1 and memory(rows) > device.memory:
        rows //= 2
    seconds = answering_seconds(target, prompts, rows, new)
    return Need(prompts, prompts.count * prompts.mean, memory(rows), seconds), memory(1)


def too_large(target: Target, variant: str, settings: dict, need: Need, shorter: str) -> str:
    """Say that a training cannot fit, what needs the memory, and which changes, each by itself and all, need less.

    `shorter` names the keys by which prompts become shorter.
    """
    lora, training, cuda = settings["lora"], settings["training"], target.device.cuda
    longest = min(need.prompts.longest, training["max_length"])

    def parts(precision: str = target.precision, tokens: int = longest, **changed) -> dict[str, float]:
        return replace(target, precision=precision).training_bytes(lora, training | changed, tokens)

    def total(changed: dict) -> float:
        return sum(parts(**changed).values())

    batch = training["per_device_train_batch_size"]
    rows = batch * training["gradient_accumulation_steps"]
    tried: dict[str, dict] = {}
    if cuda:  # its micro-batches are as small as they must be, with gradient checkpointing
        tried[f"models.{target.name}.precision: nf4"] = {"precision": "nf4"}
    else:
        tried["training.gradient_checkpointing: true"] = {"gradient_checkpointing": True}
        text = f"training.per_device_train_batch_size: 1, gradient_accumulation_steps: {rows}"
        tried[text] = {"per_device_train_batch_size": 1}
    text = f"a max_length of {longest // 2}" + (f" with {shorter}" if shorter else "")
    tried[text] = {"tokens": longest // 2}
    if training["eval_strategy"] != "no":
        tried["training.per_device_eval_batch_size: 1"] = {"per_device_eval_batch_size": 1}
    tried = {text: changed for text, changed in tried.items() if total(changed) < total({})}
    tried["all of these"] = {key: value for changed in tried.values() for key, value in changed.items()}
    found = ", ".join(f"{part} {gb(size)}" for part, size in parts().items())
    lines = [
        f"train {target.name}/{variant}: needs {gb(need.memory)} GB ({found}), {target.device.name} has "
        f"{gb(target.device.memory)}. What it would need with",
        *(f"    {text}: {gb(total(changed))} GB" for text, changed in tried.items()),
    ]
    if total(tried["all of these"]) > target.device.memory:
        lines.append("    A larger GPU, or a smaller model, is needed.")
    return "\n".join(lines)


def not_here(target: Target, optims: set[str]) -> list[str]:
    """A sentence for each setting that a CPU cannot have."""
    if target.device.cuda:
        return []
    special = [f"training.optim: {one}" for one in optims if any(part in one for part in ("8bit", "32bit", "paged"))]
    nf4 = [f"models.{target.name}.precision: nf4"] if target.precision == "nf4" else []
    return [
        f"{one} needs a CUDA GPU and none is visible. For another machine add --memory-gb." for one in nf4 + special
    ]
