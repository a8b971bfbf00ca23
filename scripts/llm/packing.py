"""Training rows packed one behind another in a micro-batch: no padding, and each row attends to itself alone.

On a GPU in half precision, attention is PyTorch's variable-length FlashAttention (`torch.nn.attention.varlen`), which
is told where each row ends; elsewhere it is computed row by row. Anything else in most decoders works on single tokens
and takes positions, which begin at 0 with each row. Whether that is so is tried on the model itself (`keep_apart`).
Where rows begin alike, that prefix can be computed once (`llm.shared`), which is tried too (`share`).
"""

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from llm.attention import decoder, failed, refuse, replaceable, takes_flash
from llm.labels import IGNORED
from llm.shared import Row, find_prefix, gather, layout, room, taken

NAME = "rows_apart"
# PyTorch before 2.12 takes fewer heads of keys than of queries without being told.
GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}

# How far hidden states, losses and gradients of packed rows may lie from those of each row alone, by the norm.
FP32, HALF = 1e-4, 0.1
FIRST = 8  # tokens of a row that are held against others by themselves: what leaks from the row before shows there


def attend(  # noqa: PLR0913 - transformers' signature
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    cu_seq_lens_k: torch.Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    shared_keys: tuple[torch.Tensor, ...] | None = None,
    **others,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row of a micro-batch: its last token sees all of the row, the one before one less.

    Args:
        query, key, value: (1, heads, tokens, head size); there may be fewer heads of keys and values.
        sliding_window: tokens that a token sees, itself included; None = all before it.
        cu_seq_lens_q: where each row's queries begin, and the number of tokens; int32, (rows + 1).
        cu_seq_lens_k: the same of its keys, once those of the shared prefix are gathered before each row's own.
        max_length_q, max_length_k: queries and keys of the longest row.
        shared_keys: the indices of `llm.shared.gather`, if rows have a shared prefix.

    Returns:
        (1, tokens, query heads, head size), and no weights.
    """
    refuse(others)
    if torch.is_autocast_enabled(query.device.type):  # beside weights in fp32, values alone are in half precision
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = (x.to(dtype) for x in (query, key, value))
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    if shared_keys is not None:
        key, value = (gather(x, *shared_keys) for x in (key, value))
    if takes_flash(query):
        window = (sliding_window - 1 if sliding_window else -1, 0)
        out = varlen_attn(
            query, key, value, cu_seq_lens_q, cu_seq_lens_k, max_length_q, max_length_k,
            scale=scaling, window_size=window, **GROUPED,
        )  # fmt: skip
        return out[None], None
    rows = []
    bounds = (itertools.pairwise(lengths.tolist()) for lengths in (cu_seq_lens_q, cu_seq_lens_k))
    for (start, end), (first, last) in zip(*bounds, strict=True):
        q, k, v = (x.transpose(0, 1)[None] for x in (query[start:end], key[first:last], value[first:last]))
        before, mask = (last - first) - (end - start), None
        if before or (sliding_window and last - first > sliding_window):
            mask = torch.ones(end - start, last - first, dtype=torch.bool, device=q.device).tril(before)
            mask = mask.triu(before - sliding_window + 1) if sliding_window else mask
        how = {"attn_mask": mask, "is_causal": mask is None, "scale": scaling}
        row = F.scaled_dot_product_attention(q, k, v, **how, enable_gqa=True)
        rows.append(row[0].transpose(0, 1))
    return torch.cat(rows)[None], None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


class Seen(NamedTuple):
    """What a model makes of a row: hidden states, and the gradient of the losses by the embeddings, (tokens, width).

    Of a shared prefix, the gradient is that of the losses of all rows that have it.
    """

    hidden: torch.Tensor
    gradient: torch.Tensor
    losses: torch.Tensor  # (labels)


def keep_apart(model: PreTrainedModel, rows: Sequence[Row]) -> tuple[str, dict[str, Any]]:
    """Make the model attend within rows only: why it cannot, "" if it does; and what was compared, for the report.

    It is tried on the longest and the shortest of the `rows` to train on. Packed together, they must have the hidden
    states, losses and gradients that the model gives to each alone, with its own attention. And another text in the row
    before must change nothing. Where the memory is too small for these rows, the beginnings of them are tried.
    """
    if not replaceable(model):
        return "its attention cannot be replaced", {}
    before = decoder(model).config._attn_implementation

    def differs(pair: Sequence[Row]) -> tuple[str, dict[str, Any]]:
        decoder(model).set_attn_implementation(before)
        return _differs(model, pair)

    reason, facts = _tried(differs, rows)
    decoder(model).set_attn_implementation(before if reason else NAME)
    return reason, facts


def share(model: PreTrainedModel, rows: Sequence[Row]) -> tuple[list[int], dict[str, Any]]:
    """The prefix that rows share, [] if they must be computed whole; and why, and what was compared.

    The model must keep rows apart (`keep_apart`). It is tried on the longest and the shortest of the rows with the
    prefix, beside one that begins otherwise: each must have the hidden states and losses that it has without a
    shared prefix, and the gradients must be the same.
    """
    start = find_prefix(rows)
    alike = [row for row, count in zip(rows, taken(rows, start), strict=True) if count]
    if not alike:
        return [], {"reason": "too few tokens are the same in all rows"}
    reason, facts = _tried(lambda pair: _shared_differs(model, pair, start), alike)
    return [] if reason else start, {"reason": reason, "proof": facts}


def _tried(
    compared: Callable[[Sequence[Row]], tuple[str, dict[str, Any]]], rows: Sequence[Row]
) -> tuple[str, dict[str, Any]]:
    """What comes of comparing the longest and the shortest row; of shorter ones where memory is too small."""
    order = sorted(rows, key=lambda row: len(row[0]))
    pair = [order[-1], order[0]]
    while True:
        try:
            return compared(pair)
        except torch.cuda.OutOfMemoryError as error:
            reason, place = failed(error), int(len(pair[0][0]) < len(pair[1][0]))
            ids = pair[place][0][: len(pair[place][0]) // 2]  # its labels may be gone: half of it is then learnt
            if len(ids) < 4:
                return reason, {}
            pair[place] = (ids, [IGNORED] * (len(ids) // 2) + ids[len(ids) // 2 :])
        except Exception as error:  # whatever a model does with an attention that is not its own
            return failed(error), {}


def _differs(model: PreTrainedModel, pair: Sequence[Row]) -> tuple[str, dict[str, Any]]:
    """Why packing a pair of rows changes what the model makes of them, "" if it does not; and by how much."""
    alone = [_seen(model, [row])[0] for row in pair]
    allowed = FP32 if model.dtype == torch.float32 else HALF
    decoder(model).set_attn_implementation(NAME)
    packed = _seen(model, pair)
    ids, labels = pair[0]
    other = _seen(model, [([*ids[1:], ids[0]], labels), pair[1]])
    found = max(map(_distance, packed, alone))
    leaked = _distance(other[1], packed[1])
    facts = {"rows_tokens": [len(ids) for ids, _ in pair], "difference": found, "leaked": leaked}
    if not leaked <= allowed:
        return f"its rows see each other in one micro-batch ({leaked:.2g}, more than {allowed:.2g})", facts
    if not found <= allowed:
        return f"it computes packed rows otherwise ({found:.2g}, more than {allowed:.2g})", facts
    return "", facts


def _shared_differs(model: PreTrainedModel, pair: Sequence[Row], start: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """Why the prefix `start` changes what the model makes of a pair of rows, "" if not; and by how much."""
    allowed = FP32 if model.dtype == torch.float32 else HALF
    start = start[: min(map(room, pair))]  # the beginning of a row may not have all of it
    ids, labels = pair[1]
    rows = [*pair, ([*ids[1:], ids[0]], labels)]  # the last one begins otherwise
    alike = [place for place, count in enumerate(taken(rows, start)) if count]
    if not alike:
        return "the beginnings of rows, all that the memory can take, have too few tokens of the prefix", {}
    whole, shared = _seen(model, rows), _seen(model, rows, start)
    on_start = sum(whole[place].gradient[: len(start)] for place in alike)
    for place in alike:
        whole[place].gradient[: len(start)] = on_start
    found = max(map(_distance, shared, whole))
    facts = {"rows_tokens": [len(ids) for ids, _ in pair], "shared_tokens": len(start), "difference": found}
    if not found <= allowed:
        return f"it computes a shared prefix otherwise ({found:.2g}, more than {allowed:.2g})", facts
    return "", facts


def _distance(one: Seen, other: Seen) -> float:
    """How far apart a row was seen: the largest part of a norm by which hidden states, gradient or losses differ."""
    pairs = [(one.hidden, other.hidden), (one.hidden[:FIRST], other.hidden[:FIRST])]
    pairs += [(one.gradient, other.gradient), (one.losses, other.losses)]
    return max(((a - b).norm() / b.norm().clamp(min=1e-20)).item() for a, b in pairs)


def _seen(model: PreTrainedModel, rows: Sequence[Row], start: Sequence[int] = ()) -> list[Seen]:
    """What the model makes of rows, packed if there are several, with the prefix `start` computed once."""
    inputs = pack(rows, model.device, start)
    labels = inputs.pop("labels")[0]
    if len(rows) == 1:
        inputs = {"input_ids": inputs["input_ids"]}
    kept = (labels != IGNORED).nonzero()[:, 0]
    with _watched(model) as (embedded, hidden):
        logits = model(**inputs, use_cache=False, logits_to_keep=kept - 1).logits[0]
    if len(logits) != len(kept):  # a model that does not know of `logits_to_keep`
        logits = logits[kept - 1]
    losses = F.cross_entropy(logits.float(), labels[kept], reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), embedded)
    found, given = [], taken(rows, start)
    ends = itertools.accumulate((len(ids) - n for (ids, _), n in zip(rows, given, strict=True)), initial=max(given))
    for (first, end), count in zip(itertools.pairwise(ends), given, strict=True):
        places = torch.tensor([*range(count), *range(first, end)], device=labels.device)
        own = (kept >= first) & (kept < end)
        hers = hidden[0][0, places].detach().float(), gradient[0, places].float()
        found.append(Seen(*hers, losses[own].detach()))
    return found


@contextmanager
def _watched(model: PreTrainedModel) -> Iterator[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """The embeddings and the last hidden states of a forward pass, which needs no gradient of a weight."""
    embedded: list[torch.Tensor] = []
    hidden: list[torch.Tensor] = []
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    hooks = [
        model.get_input_embeddings().register_forward_hook(lambda _, __, out: embedded.append(out.requires_grad_())),
        decoder(model).register_forward_hook(lambda _, __, out: hidden.append(out.last_hidden_state)),
    ]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield embedded, hidden
    finally:
        for weight in learning:
            weight.requires_grad_(True)
        for hook in hooks:
            hook.remove()


def pack(rows: Sequence[Row], device: torch.device | str = "cpu", start: Sequence[int] = ()) -> dict:
    """Make one micro-batch as a model takes it: all tensors (1, tokens), with where each row begins.

    The prefix `start` comes once, before the rows, and those that have it (`llm.shared.taken`) follow without it.
    """
    given = taken(rows, start)
    count = max(given)
    first = [0] if count else []  # the prefix is a row too
    rests = [(row[0][n:], row[1][n:]) for row, n in zip(rows, given, strict=True)]
    queries = [count] * len(first) + [len(ids) for ids, _ in rests]
    keys = [count] * len(first) + [len(ids) for ids, _ in rows]
    found = {
        "input_ids": torch.tensor([[*start[:count], *(token for ids, _ in rests for token in ids)]]),
        # Without the first label of each row, which nothing before it may predict.
        "labels": torch.tensor([[*[IGNORED] * count, *(label for _, row in rests for label in (IGNORED, *row[1:]))]]),
        "position_ids": torch.tensor(
            [[place for n, k in zip([*first, *given], keys, strict=True) for place in range(n, k)]]
        ),
        "cu_seq_lens_q": torch.tensor([0, *itertools.accumulate(queries)], dtype=torch.int32),
        "cu_seq_lens_k": torch.tensor([0, *itertools.accumulate(keys)], dtype=torch.int32),
    }
    found = {key: value.to(device) for key, value in found.items()}
    if count:
        found["shared_keys"] = tuple(x.to(device) for x in layout([len(ids) for ids, _ in rests], given))
    return found | {"max_length_q": max(queries), "max_length_k": max(keys)}


def collate(examples: Sequence[dict]) -> dict:
    """Make one micro-batch of examples, which have `input_ids` and `labels`; `llm.labels.rows_of` gives them back."""
    return pack([(list(example["input_ids"]), list(example["labels"])) for example in examples])


def divide(rows: Sequence[Row], tokens: int, processes: int = 1, start: Sequence[int] = ()) -> list[list[list[Row]]]:
    """Divide the rows of a step among processes, and each process's rows into micro-batches of at most `tokens` tokens.

    The longest row goes first, each to where the fewest tokens are: micro-batches are then about equally full. Every
    process gets the same number of them, since the processes meet in each; one without rows gets a row without labels.
    A row longer than `tokens` is a micro-batch of its own. The prefix `start` counts once in each micro-batch.
    """
    given = dict(zip(range(len(rows)), taken(rows, start), strict=True))

    def size(part: Sequence[int]) -> int:
        return sum(len(rows[i][0]) - given[i] for i in part) + max((given[i] for i in part), default=0)

    def evenly(places: Sequence[int], count: int) -> list[list[int]]:
        parts: list[list[int]] = [[] for _ in range(count)]
        for i in places:
            min(parts, key=size).append(i)
        return parts

    order = sorted(range(len(rows)), key=lambda i: given[i] - len(rows[i][0]))
    shares = evenly(order, processes)
    for count in itertools.count(1):
        divided = [evenly(share, count) for share in shares]
        if all(size(part) <= tokens or len(part) == 1 for parts in divided for part in parts):
            break
    ids = rows[order[-1]][0]
    return [[[rows[i] for i in part] or [(ids, [IGNORED] * len(ids))] for part in parts] for parts in divided]
