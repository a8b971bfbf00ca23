"""Rows that begin alike: their prefix is computed once in a micro-batch, and each row's own tokens after it.

In a study with few-shot prompts all rows have the same examples before their questions. Keys and values of a token
depend on the tokens before it alone, so those of the prefix are the same in all rows. A micro-batch is the prefix
once and then the rest of each row; attention gathers the prefix's keys and values before each rest's own
(`llm.packing`). Gradients of the prefix's keys and values are the sum over the rows, added up in fp32.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch

from llm.labels import IGNORED

Row = tuple[list[int], list[int]]  # ids and labels
# The share of all tokens that must not need to be computed: below it, the proof and the gathering are not worth it.
LEAST = 0.1


def room(row: Row) -> int:
    """How many of a row's first tokens may be shared: no label is predicted from any of them.

    The last one of a prefix would have to predict another token in each row, and a label on the prefix would
    count once for each row that has it there.
    """
    ids, labels = row
    first = next((place for place, label in enumerate(labels) if place and label != IGNORED), len(ids))
    return max(0, first - 1)


def find_prefix(rows: Sequence[Row]) -> list[int]:
    """The ids with which rows begin alike, such that the most tokens need not be computed; [] if nothing is gained.

    Among the sorted rows, those that share n tokens are neighbours: what is sought is the largest rectangle below the
    lengths that neighbours share. Rows that begin otherwise, such as replayed ones, are computed whole.
    """
    ordered = sorted(ids[: room((ids, labels))] for ids, labels in rows)
    heights, saved, found = [_alike(a, b) for a, b in pairwise(ordered)], 0, []
    open_since: list[tuple[int, int]] = []  # places and heights of rectangles that may still grow
    for place, height in enumerate([*heights, 0]):
        start = place
        while open_since and open_since[-1][1] >= height:
            start, level = open_since.pop()
            if (place - start) * level > saved:
                saved, found = (place - start) * level, ordered[start][:level]
        open_since.append((start, height))
    return found if saved >= LEAST * sum(len(ids) for ids, _ in rows) else []


def _alike(a: list[int], b: list[int]) -> int:
    """How many tokens two rows share at their start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def taken(rows: Sequence[Row], start: Sequence[int]) -> list[int]:
    """How many tokens each row of a micro-batch takes from the prefix `start`: all of it or, computed whole, none.

    Where fewer than two rows begin so, none does.
    """
    count, start = len(start), list(start)
    given = [
        count if len(ids) > count and ids[:count] == start and labels[1 : count + 1].count(IGNORED) == count else 0
        for ids, labels in rows
    ]
    return given if sum(map(bool, given)) > 1 else [0] * len(rows)


class _Gather(torch.autograd.Function):
    """Keys or values, those of the prefix repeated before each row's own."""

    @staticmethod
    def forward(ctx, x, keys, own, copies):
        ctx.save_for_backward(own, copies)
        return x.index_select(0, keys)

    @staticmethod
    def backward(ctx, gradient):
        own, copies = ctx.saved_tensors
        found = gradient.index_select(0, own)
        # In an order that is always the same, which adding up in place on a GPU is not.
        found[: copies.shape[1]] = gradient[copies].sum(0, dtype=torch.float32)
        return found, None, None, None


def gather(x: torch.Tensor, keys: torch.Tensor, own: torch.Tensor, copies: torch.Tensor) -> torch.Tensor:
    """Repeat the keys (or values) of the prefix before those of each row that has it.

    Args:
        x: (tokens, heads, head size), the prefix's first.
        keys: which of them each gathered one is, (gathered).
        own: the gathered one in which a token is seen in its own row, (tokens); the prefix is a row too.
        copies: the gathered ones of each token of the prefix, (rows that have it + 1, tokens of the prefix).

    Returns:
        (gathered, heads, head size).
    """
    return _Gather.apply(x, keys, own, copies)


def layout(lengths: Sequence[int], given: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The indices of `gather`, for rows of so many own tokens that take so many from the prefix."""
    count = max(given)
    start = torch.arange(count)
    keys, own, copies = [start], [start], [start]
    tokens = seen = count
    for length, before in zip(lengths, given, strict=True):
        if before:
            keys.append(start)
            copies.append(start + seen)
        keys.append(torch.arange(tokens, tokens + length))
        own.append(torch.arange(seen + before, seen + before + length))
        tokens, seen = tokens + length, seen + before + length
    return torch.cat(keys), torch.cat(own), torch.stack(copies)
