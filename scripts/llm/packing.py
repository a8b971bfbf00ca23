"""Training rows packed one behind another in a micro-batch: no padding, and each row attends to itself alone.

On a GPU in half precision, attention is PyTorch's variable-length FlashAttention (`torch.nn.attention.varlen`), which
is told where each row ends; elsewhere it is computed row by row. Anything else in a decoder works on single tokens and
takes positions, which begin at 0 with each row.
"""

import inspect
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from llm.labels import IGNORED

NAME = "rows_apart"
# PyTorch before 2.12 takes fewer heads of keys than of queries without being told.
GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}

Row = tuple[list[int], list[int]]  # ids and labels


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
    **_,
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
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))
    window = (sliding_window - 1 if sliding_window else -1, 0)
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
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


def obstacle(model: PreTrainedModel) -> str:
    """Why rows of this model cannot be kept apart in a micro-batch; "" if they can."""
    config = model.config.get_text_config()
    if not model._supports_flash_attn or not model._can_set_attn_implementation():
        return "its attention cannot be replaced"
    if getattr(config, "attn_logit_softcapping", None):
        return "it caps attention scores, which the kernel does not"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    return ""


def keep_apart(model: PreTrainedModel) -> str:
    """Make the model attend within rows only: why it cannot, "" if it does.

    It is tried on the model itself: what stands in another row of a micro-batch must change no bit of a row.
    """
    if found := obstacle(model):
        return found
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    first, second = [5, 6, 7, 8], [9, 10, 11]

    @torch.no_grad()
    def hidden(*rows: list[int]) -> torch.Tensor:
        """The hidden states of the last row."""
        inputs = pack([(row, row) for row in rows], model.device)
        del inputs["labels"]
        return model.base_model(**inputs, use_cache=False).last_hidden_state[0, -len(rows[-1]) :].float()

    alone, beside, beside_other = hidden(second), hidden(first, second), hidden(first[::-1], second)
    # In a micro-batch of another length a matrix product may be rounded otherwise.
    if torch.equal(beside, beside_other) and (alone - beside).norm() <= 0.05 * alone.norm():
        return ""
    model.set_attn_implementation(before)
    return "its rows see each other in one micro-batch"


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
