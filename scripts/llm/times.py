"""How long a job takes on a device: the least time in which the device could do it, times what was measured of that."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from llm import memory as _memory
from llm.groups import alike, common_prefix
from llm.memory import Device, Shape

# Times the least time, as benchmarks/results has it: answering; training in optimizer steps of `LARGE_STEP` tokens and
# more, and in smaller ones.
ANSWERING, TRAINING, TRAINING_SMALL = 2.3, 1.9, 4.2
LARGE_STEP = 7000
# Before a job on a GPU computes, it imports (7 to 11 s, measured on the H100) and loads a model of 8 B (2 to 9 s).
START_S = 14
# Of what sharing a prefix saves in such steps, the part that is seen in time (docs/speed.md).
SHARED = 0.85


@dataclass(frozen=True)
class Target:
    """A model in one precision on one device; `read` says whether its shape is read, not estimated."""

    name: str
    shape: Shape
    precision: str
    device: Device
    read: bool = True

    @property
    def flops(self) -> float:
        return self.device.flops.get("fp32" if self.precision == "fp32" else "bf16", math.nan)


@dataclass
class Prompts:
    """How many prompts, and their tokens, in the mean and of the longest; `counted`, not estimated."""

    count: int
    mean: float
    longest: int
    counted: bool
    # Of those to be answered: the prompts of each group that is answered together, and with how many tokens all of a
    # group begin; the tokens of the longest prompt without this shared prefix.
    groups: list[tuple[int, int]] = field(default_factory=list)
    rest: int = 0
    begin: int = 0  # of rows to train on: the tokens with which all begin


def gathered(prompts: Sequence[Sequence], new: int, each: float = 1) -> Prompts | None:
    """The tokens of prompts, of which `each` elements are a token; None if there are no prompts.

    With `new`, the tokens of an answer at most, the groups in which they are answered are found too.
    """
    if not prompts:
        return None
    lengths = [round(len(one) / each) for one in prompts]
    found = Prompts(len(lengths), statistics.mean(lengths), max(lengths), each == 1)
    if not new:
        return replace(found, begin=round(len(common_prefix(prompts)) / each))
    for group in alike(prompts, round(new * each)):
        shared = round(len(common_prefix([prompts[i] for i in group])) / each)
        found.groups.append((len(group), shared))
        found.rest = max(found.rest, *(lengths[i] - shared for i in group))
    return found


def training_seconds(target: Target, tokens: float, step: float, twice: bool, full: bool = False) -> float:
    """The time of a training: forward, and backward to the activations only, 2 operations a weight and token.

    There are `tokens` in all and `step` in an optimizer step; activations are computed once or `twice` (gradient
    checkpointing). In `full` fine-tuning the gradients of the weights come on top.
    """
    operations = ((6 if twice else 4) + (2 if full else 0)) * target.shape.block_parameters
    return (TRAINING if step >= LARGE_STEP else TRAINING_SMALL) * tokens * operations / target.flops


def answering_seconds(target: Target, prompts: Prompts, rows: int, new: int) -> float:
    """The time of answering if every answer is of the longest: see `limit` in benchmarks/inference.py."""
    shape, element = target.shape, _memory.element(target.precision)
    own = prompts.count * prompts.mean - sum(number * beginning for number, beginning in prompts.groups)
    once = sum(beginning for _, beginning in prompts.groups)
    prefill = 2 * shape.block_parameters * (own + once) / target.flops
    batches = sum(math.ceil(number / rows) for number, _ in prompts.groups)  # none has prompts of two groups
    cache = prompts.count * _memory.row(shape, round(own / prompts.count + new), element)
    read = batches * _memory.weights(shape, target.precision) + cache
    return ANSWERING * (prefill + new * read / target.device.bandwidth)
