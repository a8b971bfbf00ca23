"""Training rows packed one behind another in a micro-batch: no padding, and each row attends to itself alone.

On a GPU in half precision, attention is PyTorch's variable-length FlashAttention (`torch.nn.attention.varlen`), which
is told where each row ends; elsewhere it is computed row by row. Anything else in most decoders works on single tokens
and takes positions, which begin at 0 with each row. Whether that is so is tried on the model itself (`keep_apart`).
"""

import inspect
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from llm.attention import decoder, failed, refuse, replaceable, takes_flash
from llm.labels import IGNORED

NAME = "rows_apart"
# PyTorch before 2.12 takes fewer heads of keys than of queries without being told.
GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}

Row = tuple[list[int], list[int]]  # ids and labels

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
    max_length_q: int | None = None,
    **others,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row of a micro-batch.

    Args:
        query, key, value: (1, heads, tokens, head size); there may be fewer heads of keys and values.
        sliding_window: tokens that a token sees, itself included; None = all before it.
        cu_seq_lens_q: where each row begins, and the number of tokens; int32, (rows + 1).
        max_length_q: tokens of the longest row.

    Returns:
        (1, tokens, query heads, head size), and no weights.
    """
    refuse(others)
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    window = (sliding_window - 1 if sliding_window else -1, 0)
    if takes_flash(query):
        out = varlen_attn(
            query, key, value, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q,
            scale=scaling, window_size=window, **GROUPED,
        )  # fmt: skip
        return out[None], None
    rows = []
    for start, end in itertools.pairwise(cu_seq_lens_q.tolist()):
        q, k, v = (x[start:end].transpose(0, 1)[None] for x in (query, key, value))
        mask = None
        if sliding_window and end - start > sliding_window:
            mask = torch.ones(end - start, end - start, dtype=torch.bool, device=q.device).tril().triu(window[0] * -1)
        how = {"attn_mask": mask, "is_causal": mask is None, "scale": scaling}
        row = F.scaled_dot_product_attention(q, k, v, **how, enable_gqa=True)
        rows.append(row[0].transpose(0, 1))
    return torch.cat(rows)[None], None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, lambda *_, **__: None)


class Seen(NamedTuple):
    """What a model makes of a row: hidden states, and the gradient of the losses by the embeddings, (tokens, width)."""

    hidden: torch.Tensor
    gradient: torch.Tensor
    losses: torch.Tensor  # (labels)


def keep_apart(model: PreTrainedModel, rows: Sequence[Row]) -> tuple[str, dict[str, Any]]:
    """Make the model attend within rows only: why it cannot, "" if it does; and what was compared, for the report.

    It is tried on the longest and the shortest of the `rows` to train on. Packed together, they must have the hidden
    states, losses and gradients that the model gives to each alone, with its own attention. And another text in the row
    before must change nothing. Where the memory is too small for the longest row, half of it is tried.
    """
    if not replaceable(model):
        return "its attention cannot be replaced", {}
    order = sorted(rows, key=lambda row: len(row[0]))
    pair = [order[-1], order[0]]
    before = decoder(model).config._attn_implementation
    while True:
        decoder(model).set_attn_implementation(before)
        try:
            reason, facts = _differs(model, pair)
        except torch.cuda.OutOfMemoryError as error:
            reason, facts = failed(error), {}
            longest = pair[0][0]
            if len(longest) > 2 * len(pair[1][0]):
                pair[0] = (longest[: len(longest) // 2],) * 2  # its labels may be gone: all are then learnt
                continue
        except Exception as error:  # whatever a model does with an attention that is not its own
            reason, facts = failed(error), {}
        decoder(model).set_attn_implementation(before if reason else NAME)
        return reason, facts


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


def _distance(one: Seen, other: Seen) -> float:
    """How far apart a row was seen: the largest part of a norm by which hidden states, gradient or losses differ."""
    pairs = [(one.hidden, other.hidden), (one.hidden[:FIRST], other.hidden[:FIRST])]
    pairs += [(one.gradient, other.gradient), (one.losses, other.losses)]
    return max(((a - b).norm() / b.norm().clamp(min=1e-20)).item() for a, b in pairs)


def _seen(model: PreTrainedModel, rows: Sequence[Row]) -> list[Seen]:
    """What the model makes of rows, packed if there are several."""
    inputs = pack(rows, model.device)
    labels = inputs.pop("labels")[0]
    if len(rows) == 1:
        inputs = {"input_ids": inputs["input_ids"]}
    starts = [0, *itertools.accumulate(len(ids) for ids, _ in rows)]
    kept = (labels != IGNORED).nonzero()[:, 0]
    with _watched(model) as (embedded, hidden):
        logits = model(**inputs, use_cache=False, logits_to_keep=kept - 1).logits[0]
    if len(logits) != len(kept):  # a model that does not know of `logits_to_keep`
        logits = logits[kept - 1]
    losses = F.cross_entropy(logits.float(), labels[kept], reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), embedded)
    found = []
    for start, end in itertools.pairwise(starts):
        own = (kept >= start) & (kept < end)
        found.append(
            Seen(hidden[0][0, start:end].detach().float(), gradient[0, start:end].float(), losses[own].detach())
        )
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


def pack(rows: Sequence[Row], device: torch.device | str = "cpu") -> dict:
    """Make one micro-batch as a model takes it: all tensors (1, tokens), with where each row begins."""
    lengths = [len(ids) for ids, _ in rows]
    starts, longest = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32), max(lengths)
    found = {
        "input_ids": torch.tensor([[token for ids, _ in rows for token in ids]]),
        # Without the first label of each row, which nothing before it may predict.
        "labels": torch.tensor([[label for _, row in rows for label in (IGNORED, *row[1:])]]),
        "position_ids": torch.tensor([[place for length in lengths for place in range(length)]]),
        "cu_seq_lens_q": starts,
        "cu_seq_lens_k": starts,
    }
    return {key: value.to(device) for key, value in found.items()} | {"max_length_q": longest, "max_length_k": longest}


def collate(examples: Sequence[dict]) -> dict:
    """Make one micro-batch of examples, which have `input_ids` and `labels`; `llm.labels.rows_of` gives them back."""
    return pack([(list(example["input_ids"]), list(example["labels"])) for example in examples])


def divide(rows: Sequence[Row], tokens: int, processes: int = 1) -> list[list[list[Row]]]:
    """Divide the rows of a step among processes, and each process's rows into micro-batches of at most `tokens` tokens.

    The longest row goes first, each to where the fewest tokens are: micro-batches are then about equally full. Every
    process gets the same number of them, since the processes meet in each; one without rows gets a row without labels.
    A row longer than `tokens` is a micro-batch of its own.
    """

    def size(part: Sequence[Row]) -> int:
        return sum(len(ids) for ids, _ in part)

    def evenly(rows: Sequence[Row], count: int) -> list[list[Row]]:
        parts: list[list[Row]] = [[] for _ in range(count)]
        for row in rows:
            min(parts, key=size).append(row)
        return parts

    order = sorted(rows, key=lambda row: -len(row[0]))
    shares = evenly(order, processes)
    for count in itertools.count(1):
        divided = [evenly(share, count) for share in shares]
        if all(size(part) <= tokens or len(part) == 1 for parts in divided for part in parts):
            break
    ids = order[-1][0]
    return [[part or [(ids, [IGNORED] * len(ids))] for part in parts] for parts in divided]
