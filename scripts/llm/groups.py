"""Which prompts are answered together: groups that begin alike, their order, and each GPU's share. No torch here."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

# Tokens of prompts that take the time of one step of decoding, which reads all weights for one token a row: a GPU's
# operations a second by its bytes a second, 295 for an H100 in bf16.
STEP_TOKENS = 256


def common_prefix(prompts: Sequence[list[int]]) -> list[int]:
    """The longest prefix that all prompts share and that leaves each of them at least one token."""
    first, last = min(prompts), max(prompts)
    limit = min(map(len, prompts)) - 1
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), limit)
    return first[: min(length, limit)]


def alike(prompts: Sequence[list[int]], max_new_tokens: int) -> list[list[int]]:
    """Divide the prompts, named by their places, into groups that share a prefix, so that all take little time.

    The questions of one subject share its few-shot examples, those of all subjects only their first words. A group
    computes its prefix once. But no batch mixes groups, so each group costs about one batch of decoding steps more.
    Where prefixes branch, a branch becomes a group if that saves more than joining the others. The group with the
    longest prompt comes first, and within it the longest prompt: what does not fit the memory should show at once.
    """
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    shared = [len(common_prefix([prompts[a], prompts[b]])) for a, b in pairwise(order)]
    price = max_new_tokens * STEP_TOKENS

    def best(start: int, end: int) -> tuple[int, list[list[int]]]:
        """How many tokens need not be computed, less the price of the groups; and the groups."""
        inner = shared[start : end - 1]
        least = min(inner, default=0)
        whole = len(inner) * least - price, [order[start:end]]
        if sum(inner) - least - 2 * price <= whole[0]:
            return whole  # no two groups can save more
        cuts = [start, *(start + i + 1 for i, length in enumerate(inner) if length == least), end]
        saved, joined, groups = -price - least, [], []
        for first, last in pairwise(cuts):
            own, found = best(first, last)
            apart = own > (last - first) * least
            saved += own if apart else (last - first) * least
            groups += found if apart else []
            joined += [] if apart else order[first:last]
        return (saved, [joined, *groups]) if joined else (saved + price + least, groups)

    groups = [longest_first(prompts, group) for group in best(0, len(order))[1]]
    return sorted(groups, key=lambda group: (-len(prompts[group[0]]), min(group)))


def longest_first(prompts: Sequence[list[int]], places: Iterable[int]) -> list[int]:
    """Sort the places of prompts: sorted by length, batches have little padding."""
    return sorted(places, key=lambda i: (-len(prompts[i]), i))


def other_batches(groups: Sequence[Sequence[int]], batch_size: int) -> tuple[list[list[int]], int]:
    """Order the prompts of each group otherwise: the order, and the size of a batch, which is half of `batch_size`.

    Neighbours come into different batches, so that prompts have others beside them, and of other lengths. The longest
    one stays first. Batches of one prompt become batches of two.
    """
    size = min(batch_size, max(map(len, groups))) // 2 or 2
    apart = [-(-len(group) // size) for group in groups]
    return [
        [one for start in range(step) for one in group[start::step]] for group, step in zip(groups, apart, strict=True)
    ], size


def deal(groups: Sequence[Sequence[str]], gpus: int, batch_size: int | str) -> tuple[list[list[str]], int | str]:
    """Deal the questions, by group and longest first, to the GPUs: the ids of each one's, and the size of a batch.

    With a fixed `batch_size`, the questions are cut into the batches that one GPU would make, and the batches are
    dealt out. If there are fewer batches than GPUs, the batches become smaller. With "auto" the questions are dealt out
    one by one, and each GPU makes batches that fit its memory. No batch mixes groups.
    """
    if batch_size != "auto":
        batch_size = min(batch_size, -(-sum(map(len, groups)) // gpus))
    unit = 1 if batch_size == "auto" else batch_size
    batches = [group[start : start + unit] for group in groups for start in range(0, len(group), unit)]
    shares = [[one for batch in batches[gpu::gpus] for one in batch] for gpu in range(gpus)]
    return [share for share in shares if share], batch_size
