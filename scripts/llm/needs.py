"""What a job on a device needs, before it runs: bytes of memory, and seconds by the device's measured rates.

Memory is estimated as llm/memory.py says. Seconds are the least time in which the device could do the job, times what
this workflow was measured to need of that.
"""

import math
from dataclasses import dataclass, field, replace

from llm import memory as _memory
from llm.memory import Shape, gb
from llm.rates import Device

# Times the least time, as benchmarks/results has it: answering; training in optimizer steps of `LARGE_STEP` tokens and
# more, and in smaller ones.
ANSWERING, TRAINING, TRAINING_SMALL = 2.3, 1.9, 4.2
LARGE_STEP = 7000
CPU_ROWS = 32
# Tokens in one forward pass of the prompts, and those that take the time of one step:
# `llm.prefix_engine.PREFILL_TOKENS` and `llm.groups.STEP_TOKENS` (importing these takes seconds).
AT_ONCE, STEP = 16384, 256
ROUND = 64


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

    def answering_bytes(self, rows: int, tokens: int, shared: int) -> float:
        prefix = _memory.row(self.shape, shared, _memory.element(self.precision))
        return _memory.answering(self.shape, self.precision, rows, tokens, AT_ONCE) + prefix


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


def with_replay(prompts: Prompts, replayed: Prompts, fraction: float) -> Prompts:
    """The prompts of a training that mixes in a fraction of replayed rows."""
    number = math.ceil(fraction * prompts.count)
    total = prompts.count + number
    mean = (prompts.count * prompts.mean + number * replayed.mean) / total
    longest = max(prompts.longest, replayed.longest)
    return Prompts(total, mean, longest, prompts.counted and replayed.counted)


def training_rows(prompts: Prompts, training: dict) -> float:
    """How many rows a training passes through the model."""
    rows = prompts.count * training["num_train_epochs"]
    if training["max_steps"] > 0:
        rows = training["max_steps"] * training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    return rows


def training_seconds(target: Target, tokens: float, step: float, twice: bool) -> float | None:
    """The time of a training: forward, and backward to the activations only, 2 operations a weight and token.

    Args:
        target: what is trained, and on what.
        tokens: in all.
        step: tokens in an optimizer step.
        twice: whether the activations are computed twice (gradient checkpointing).
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


def train_need(target: Target, settings: dict, spider: Prompts, replayed: Prompts | None) -> Need:
    """What the training of one adapter needs."""
    lora, training, replay = settings["lora"], settings["training"], settings.get("replay")
    prompts = with_replay(spider, replayed, replay["fraction"]) if replay else spider
    need = target.training_bytes(lora, training, (tokens := min(prompts.longest, training["max_length"])))
    mean = min(prompts.mean, training["max_length"])
    total = training_rows(prompts, training) * mean
    step = mean * training["per_device_train_batch_size"] * training["gradient_accumulation_steps"]
    twice = training["gradient_checkpointing"]
    if target.device.cuda:  # only where it must be
        once = _memory.training_activations(target.shape, target.precision, lora, tokens, checkpointing=False)
        twice = sum(need.values()) - need["activations"] + once > target.device.memory
    # With a KL term, each replayed row goes through the model a second time, and through the base.
    again = 1.5 * (total - total * spider.count * spider.mean / (prompts.count * prompts.mean))
    passed = total + (again if replay and replay["kl"] else 0)
    return Need(prompts, total, sum(need.values()), training_seconds(target, passed, step, twice))


def answer_need(target: Target, prompts: Prompts, batch: int | str, new: int) -> tuple[Need, float]:
    """What answering prompts needs, in batches that fit, and the bytes of one prompt at a time."""
    device, tokens = target.device, -(-(prompts.rest + new) // ROUND) * ROUND
    shared = max(beginning for _, beginning in prompts.groups)

    def memory(rows: int) -> float:
        return target.answering_bytes(rows, tokens, shared)

    if batch == "auto" and device.cuda:  # as many as fit
        batch = next((rows for rows in range(512, 0, -1) if memory(rows) <= device.memory), 1)
    rows = min(CPU_ROWS if batch == "auto" else batch, prompts.count)
    # A batch that is too large for a GPU is halved until it fits.
    while device.cuda and rows > 1 and memory(rows) > device.memory:
        rows //= 2
    seconds = answering_seconds(target, prompts, rows, new)
    return Need(prompts, prompts.count * prompts.mean, memory(rows), seconds), memory(1)


def remedies(target: Target, settings: dict, tokens: int) -> tuple[list[tuple[str, float]], bool]:
    """The changes that need less memory, each by itself and then all, with what they need; and if all fit."""
    lora, training, cuda = settings["lora"], settings["training"], target.device.cuda

    def total(precision: str = target.precision, tokens: int = tokens, **changed) -> float:
        return sum(replace(target, precision=precision).training_bytes(lora, training | changed, tokens).values())

    batch = training["per_device_train_batch_size"]
    rows = batch * training["gradient_accumulation_steps"]
    tried: dict[str, dict] = {}
    # On a GPU both are done where they must be.
    if not cuda and not training["gradient_checkpointing"]:
        tried["training.gradient_checkpointing: true"] = {"gradient_checkpointing": True}
    if not cuda and batch > 1:
        text = f"training.per_device_train_batch_size: 1, gradient_accumulation_steps: {rows}"
        tried[text] = {"per_device_train_batch_size": 1}
    if cuda and target.precision != "nf4":
        tried[f"models.{target.name}.precision: nf4"] = {"precision": "nf4"}
    shorter = f"a max_length of {tokens // 2} with fewer spider.shots, or prompt.schema: compact"
    tried[shorter] = {"tokens": tokens // 2}
    if training["eval_strategy"] != "no" and training["per_device_eval_batch_size"] > 1:
        tried["training.per_device_eval_batch_size: 1"] = {"per_device_eval_batch_size": 1}
    tried = {text: changed for text, changed in tried.items() if total(**changed) < total()}
    every = total(**{key: value for changed in tried.values() for key, value in changed.items()})
    return [*((text, total(**changed)) for text, changed in tried.items()), ("all of these", every)], (
        every <= target.device.memory
    )


def too_large(target: Target, variant: str, settings: dict, need: Need) -> str:
    """Say that a training cannot fit, what needs the memory, and what to change."""
    tokens = min(need.prompts.longest, settings["training"]["max_length"])
    found = target.training_bytes(settings["lora"], settings["training"], tokens)
    parts = ", ".join(f"{part} {gb(size)}" for part, size in found.items())
    changes, fits = remedies(target, settings, tokens)
    return (
        f"train {target.name}/{variant}: needs {gb(need.memory)} GB ({parts}), {target.device.name} has "
        f"{gb(target.device.memory)}. What it would need with"
        + "".join(f"\n    {text}: {gb(least)} GB" for text, least in changes)
        + ("" if fits else "\n    A larger GPU, or a smaller model, is needed.")
    )


def not_here(target: Target, optims: set[str]) -> list[str]:
    """A sentence for each setting that a CPU cannot have."""
    if target.device.cuda:
        return []
    special = [f"training.optim: {one}" for one in optims if any(part in one for part in ("8bit", "32bit", "paged"))]
    nf4 = [f"models.{target.name}.precision: nf4"] if target.precision == "nf4" else []
    return [
        f"{one} needs a CUDA GPU and none is visible. For another machine add --memory-gb." for one in nf4 + special
    ]
