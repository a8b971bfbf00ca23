"""The proof that the prefix engine computes what a model means: it is held against the model's own forward pass.

No list says which models the engine is right for. Before it answers, it continues the shortest and the longest prompt
of a run, and the longest one filled up to the length of the longest answer, by a few tokens. Then the model itself
reads prompt and answer in one pass, with its own attention and without a cache, and gives its logits for the same
tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from llm.attention import core, failed, replaceable
from llm.prefix_engine import PrefixEngine, SharedPrefix

STEPS = 4
# How far log-probabilities may lie apart. In fp32: any single one, and more where logits are large, as rounding is. In
# half precision: by the norm of a row's logits, of which rounding alone changes one to five percent.
FP32, ROUNDING, HALF = 1e-4, 1e-5, 0.1


def prove(engine: PrefixEngine, prompts: Sequence[list[int]]) -> tuple[str, dict[str, Any]]:
    """Why the engine does not compute what its model means, "" if it does; and what was compared, for the report."""
    facts = {"prompts": 0, "steps": 0, "difference": 0.0}
    if not replaceable(engine.model):
        return "its attention cannot be replaced", facts
    try:
        for group in {0, min(range(len(engine.groups)), key=lambda g: len(prompts[engine.groups[g][-1]]))}:
            rows = _rows(engine, group, prompts)
            try:
                ours, theirs = _compared(engine, group, rows)
            except torch.cuda.OutOfMemoryError:  # a row at a time, as the engine may have to answer
                pairs = [_compared(engine, group, [row]) for row in rows]
                ours, theirs = map(torch.cat, zip(*pairs, strict=True))
            difference, allowed = distance(ours, theirs, core(engine.model).dtype)
            facts["prompts"] += len(rows)
            facts["steps"] = ours.shape[1]
            facts["difference"] = max(facts["difference"], difference)
            if not difference <= allowed:  # nor is nan
                return f"its logits differ by {difference:.2g}, more than {allowed:.2g}", facts
    except Exception as error:  # whatever a model does with an attention and a cache that are not its own
        return failed(error), facts
    return "", facts


def _rows(engine: PrefixEngine, group: int, prompts: Sequence[list[int]]) -> list[list[int]]:
    """The longest prompt of a group, filled up to where its answer may end, itself, and the shortest one."""
    longest, shortest = (prompts[engine.groups[group][place]] for place in (0, -1))
    own = longest[len(engine.prefixes[group]) :]
    missing = max(0, engine.new - STEPS)
    filled = longest + (own * (missing // len(own) + 1))[:missing]
    return [filled, longest, shortest]


def _compared(engine: PrefixEngine, group: int, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits of the first tokens of each row's answer, (rows, steps, vocabulary): the engine's, the model's own."""
    new, prefix = min(STEPS, engine.new), engine.prefixes[group]
    kept: list[torch.Tensor] = []
    shared = SharedPrefix(engine.model, prefix, [-1], len(rows), engine.lengths[group])  # which no token stops
    try:
        first, ids = shared.generate(rows, new, kept)
    finally:
        shared.close()
    ours = torch.stack([first, *(step[: len(rows)] for step in kept)], dim=1)
    theirs = [own_logits(engine.model, row + said[: new - 1], new) for row, said in zip(rows, ids, strict=True)]
    return ours, torch.stack(theirs)


@torch.inference_mode()
def own_logits(model: PreTrainedModel, ids: list[int], count: int) -> torch.Tensor:
    """The logits in fp32 (count, vocabulary) after the last `count` ids of a text, by the model itself."""
    given = torch.tensor([ids], device=model.device)
    return core(model)(input_ids=given, use_cache=False, logits_to_keep=count).logits[0, -count:].float()


def distance(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype) -> tuple[float, float]:
    """How far logits (rows, steps, vocabulary) that a model gives in `dtype` lie apart, and how far they may."""
    if dtype == torch.float32:
        a, b = ours.log_softmax(-1), theirs.log_softmax(-1)
        return (a - b).abs().max().item(), FP32 + ROUNDING * theirs.abs().max().item()
    a, b = (x - x.mean(-1, keepdim=True) for x in (ours, theirs))
    return ((a - b).norm(dim=(1, 2)) / b.norm(dim=(1, 2))).max().item(), HALF
