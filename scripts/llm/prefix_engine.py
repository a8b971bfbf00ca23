"""Greedy decoding of many prompts at a time that share a prefix, as fast as the GPU allows.

What is done once instead of once a prompt or once a step:

* The shared prefix (system text and few-shot examples) is computed once. Its keys and values stay apart: all rows'
  queries meet them in one matrix product, and the cache holds only what differs between rows.
* For the flash kernels, prompts stand one behind another without padding, and a step reads of the cache what each row
  has filled. Elsewhere rows are padded on the right, so that causal attention needs no mask. The two parts of an
  attention (shared prefix, own rest) are joined by their log-sum-exp, which is exact (Dao et al. 2022,
  arXiv:2205.14135, section 3.1).
* One step of decoding is captured as a CUDA graph: the host launches one graph, not a thousand kernels.

A layer with a sliding window attends to its row's tokens with a mask in place of the flash kernels. A window at least
as long as prompt and answer is none. On the CPU, and in fp32, the same steps run with plain matrix products and without
graphs. Whether all this computes what a model means is not known beforehand: `llm.proof` tries it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, Cache, PreTrainedModel

from llm import memory as _memory
from llm.attention import core, decoder, refuse, takes_flash
from llm.decoding import Encoded
from llm.groups import alike, common_prefix
from llm.load import device
from llm.memory import CPU_ROWS, PREFILL_TOKENS, ROUND, Shape

NAME = "shared_prefix"
# Steps between two looks at whether all rows have stopped; a look waits for the GPU.
LOOK = 8


class Packed(NamedTuple):
    """Prompts one behind another in a forward pass, without padding."""

    starts: torch.Tensor  # where each begins, and the number of tokens; int32, (prompts + 1)
    longest: int
    slots: torch.Tensor  # the places of their tokens in the cache, rows of it one behind another, (tokens)


@dataclass
class State:
    """What the attention of the running forward pass reads and writes: keys and values, layer by layer."""

    phase: str = "prefix"  # prefix, prompts or step
    prefix: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)  # (heads, prefix, head size) each
    keys: list[torch.Tensor] = field(default_factory=list)  # (rows, heads, length, head size)
    values: list[torch.Tensor] = field(default_factory=list)
    rows: slice | None = None  # of the prompts in this pass
    packed: Packed | None = None  # these prompts, where the flash kernels take them so
    before: int = 0  # tokens of the shared prefix
    most: int = 0  # tokens of a row, at most: a window as long as that is none
    length: int = 0  # of the cache that a step looks at
    place: torch.Tensor | None = None  # (rows,) where a step writes
    # By window and GPU, what a step sees of the prefix and the cache, as 0 or -inf: (rows, 1, 1, before + length).
    visible: dict[tuple[int | None, torch.device], torch.Tensor] = field(default_factory=dict)
    # By GPU, how many places of the cache each row of a step has filled: (rows,), as the flash kernels take it.
    filled: dict[torch.device, torch.Tensor] = field(default_factory=dict)

    def used(self, device: torch.device) -> torch.Tensor:
        if device not in self.filled:
            self.filled[device] = (self.place.to(device) + 1).int()
        return self.filled[device]

    def seen(self, window: int | None, device: torch.device) -> torch.Tensor:
        if (window, device) not in self.visible:
            own = torch.arange(self.before + self.length, device=device)
            newest = (self.place.to(device) + self.before)[:, None]
            seen = (own <= newest) & (own > newest - (window or self.most + 1))
            zeros = torch.zeros(seen.shape, device=device)
            self.visible[window, device] = zeros.masked_fill_(~seen, -torch.inf)[:, None, None]
        return self.visible[window, device]


_state = State()


class _Cache(Cache):
    """Hands new keys and values to the state; the model sees an ordinary cache."""

    def __init__(self) -> None:
        super().__init__(layers=[])

    def get_seq_length(self, *_, **__) -> int:
        return 0

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_, **__):
        if _state.phase == "prefix":
            _state.prefix.append((keys[0].clone(), values[0].clone()))
        elif _state.packed:
            for held, new in ((_state.keys, keys), (_state.values, values)):
                _flat(held[layer])[_state.packed.slots] = new[0].transpose(0, 1)
        elif _state.phase == "prompts":
            _state.keys[layer][_state.rows, :, : keys.shape[2]] = keys
            _state.values[layer][_state.rows, :, : keys.shape[2]] = values
        else:
            every, place = torch.arange(keys.shape[0], device=keys.device), _state.place.to(keys.device)
            _state.keys[layer][every, :, place] = keys[:, :, 0]
            _state.values[layer][every, :, place] = values[:, :, 0]
            return _state.keys[layer], _state.values[layer]
        return keys, values


def _attention(  # noqa: PLR0913
    module, query, key, value, attention_mask=None, scaling=None, sliding_window=None, **others
):
    """Attention as transformers calls it: query (rows, heads, tokens, size), fewer heads in key and value."""
    refuse(others)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if sliding_window and sliding_window < _state.most else None
    if _state.phase == "step" and takes_flash(query) and not window:
        out = _flash_step(query, key, value, _state.prefix[module.layer_idx], scaling)
    elif _state.phase == "step":
        key, value = key[:, :, : _state.length], value[:, :, : _state.length]
        out = _step(query, key, value, _state.prefix[module.layer_idx], scaling, _state.seen(window, query.device))
    elif window:
        out = _windowed(query, key, value, None if _state.phase == "prefix" else module.layer_idx, scaling, window)
    elif _state.phase == "prefix":
        out, _ = _part(query, key, value, scaling, True)
    else:
        own, own_lse = _packed(query, key, value, scaling) if _state.packed else _part(query, key, value, scaling, True)
        shared, shared_lse = _part(query, *(x[None] for x in _state.prefix[module.layer_idx]), scaling, False)
        out = _joint(own, shared, torch.sigmoid(own_lse - shared_lse)[..., None])
    return out.transpose(1, 2).contiguous(), None


def _grow(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Repeat the heads of keys or values, (rows, few heads, ...) to (rows, heads, ...)."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1) if tensor.shape[1] != heads else tensor


def _part(query, key, value, scaling, causal: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention to keys, each row its own or all rows the same ones, and the log-sum-exp (rows, heads, tokens)."""
    if takes_flash(query):
        q, k, v = (x.expand(len(query), -1, -1, -1).transpose(1, 2) for x in (query, key, value))
        lengths = q.shape[1], k.shape[1]
        flash = torch.ops.aten._flash_attention_forward
        out, sums, *_ = flash(q, k, v, None, None, *lengths, 0.0, causal, False, scale=scaling)
        return out.transpose(1, 2), sums
    key, value = _grow(key, query.shape[1]), _grow(value, query.shape[1])
    scores = (query @ key.transpose(-1, -2)).float() * scaling
    if causal:
        future = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return scores.softmax(dim=-1).to(value.dtype) @ value, scores.logsumexp(dim=-1)


def _packed(query, key, value, scaling) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_part`, of prompts one behind another, each of which sees itself alone; the tokens are those of one row."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    starts, longest, _ = _state.packed
    flash = torch.ops.aten._flash_attention_forward
    out, sums, *_ = flash(q, k, v, starts, starts, longest, longest, 0.0, True, False, scale=scaling)
    return out.transpose(0, 1)[None], sums[None]


def _flat(cache: torch.Tensor) -> torch.Tensor:
    """The keys or values of all rows, (rows, heads, length, size), one behind another: (rows * length, heads, size)."""
    return cache.transpose(1, 2).reshape(-1, cache.shape[1], cache.shape[3])


def _joint(own: torch.Tensor, shared: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The two parts of an attention, with the weight of a row's own."""
    if takes_flash(own):  # one kernel in place of four
        return torch.lerp(shared, own, weight.to(own.dtype))
    return (own * weight + shared * (1 - weight)).to(own.dtype)


def _windowed(query, key, value, layer: int | None, scaling, window: int) -> torch.Tensor:  # noqa: PLR0913
    """Attention to the `window` newest tokens, of a row or of what the shared prefix, if there is one, ends in."""
    if layer is not None:
        start = max(0, _state.before - window + 1)
        end = [x[None, :, start:].expand(len(query), -1, -1, -1) for x in _state.prefix[layer]]
        key, value = (torch.cat(pair, dim=2) for pair in zip(end, (key, value), strict=True))
    places = torch.arange(key.shape[2], device=query.device)
    newest = places[-query.shape[2] :, None]
    seen = (places <= newest) & (places > newest - window)
    heads = query.shape[1]
    return F.scaled_dot_product_attention(query, _grow(key, heads), _grow(value, heads), seen, scale=scaling)


def _flash_step(query, key, value, prefix, scaling) -> torch.Tensor:
    """As `_step`, by the flash kernels: of the cache they read what each row has filled, and nothing else.

    The query heads that share a head of keys stand one after another, as if they were tokens of a row.
    """
    rows, heads, _, size = query.shape
    few, length = key.shape[1], key.shape[2]
    group, device = heads // few, query.device
    tokens = query.view(rows, few, group, size).transpose(1, 2).reshape(-1, few, size)
    starts = (torch.arange(rows + 1, device=device, dtype=torch.int32) * count for count in (group, length))
    flash, numbers = torch.ops.aten._flash_attention_forward, (group, length, 0.0, False, False)
    used = {"scale": scaling, "seqused_k": _state.used(device)}
    own, own_sums, *_ = flash(tokens, _flat(key), _flat(value), *starts, *numbers, **used)
    shared, shared_sums = _part(tokens.transpose(0, 1)[None], *(x[None] for x in prefix), scaling, False)
    out = _joint(own, shared[0].transpose(0, 1), torch.sigmoid(own_sums - shared_sums[0]).T[..., None])
    return out.view(rows, group, few, size).transpose(1, 2).reshape(rows, heads, 1, size)


def _step(query, key, value, prefix, scaling, visible) -> torch.Tensor:  # noqa: PLR0913
    """Attention of one new token a row: to the shared prefix in one product, to its own rest row by row."""
    rows, heads, _, size = query.shape
    few, (shared_key, shared_value) = key.shape[1], prefix
    grouped = query.view(rows, few, heads // few, size)
    shared = grouped.transpose(0, 1).reshape(few, -1, size) @ shared_key.transpose(-1, -2)
    shared = shared.view(few, rows, heads // few, -1).transpose(0, 1)
    own = grouped @ key.transpose(-1, -2)
    scores = torch.cat((shared.float(), own.float()), dim=-1) * scaling + visible
    weights = scores.softmax(dim=-1).to(value.dtype)
    length = shared_key.shape[1]
    first = weights[..., :length].transpose(0, 1).reshape(few, -1, length) @ shared_value
    out = first.view(few, rows, heads // few, size).transpose(0, 1) + weights[..., length:] @ value
    return out.reshape(rows, heads, 1, size)


AttentionInterface.register(NAME, _attention)


def row_bytes(model: PreTrainedModel, tokens: int) -> int:
    """The bytes that the keys and values of `tokens` tokens of one row take."""
    return _memory.row(Shape.of(core(model).config.to_dict()), tokens, core(model).dtype.itemsize)


def fitting_rows(model: PreTrainedModel, tokens: int, free: int) -> int:
    """How many rows of `tokens` tokens, prompt and answer without what all share, fit `free` bytes of memory.

    A tenth is left for what `llm.memory` does not count. At most 512: beyond that nothing gets faster. Of a model whose
    configuration does not tell its shape, as many as on a CPU.
    """
    try:
        shape = Shape.of(core(model).config.to_dict())
    except KeyError:
        return CPU_ROWS
    activations = _memory.prompt_activations(shape, PREFILL_TOKENS, core(model).dtype.itemsize)
    row = row_bytes(model, -(-tokens // ROUND) * ROUND) + _memory.logits(shape)
    return max(1, min(512, int((0.9 * free - activations) // row)))


class PrefixEngine:
    """An `llm.decoding.Engine`: prompts in groups that share a prefix (`llm.groups.alike`), a `SharedPrefix` for each.

    A group's last batch is smaller than the others but is computed in as many rows, so that an answer does not depend
    on where a run was interrupted.
    """

    def __init__(
        self, model: PreTrainedModel, stop_ids: Sequence[int], prompts: Sequence[list[int]], max_new_tokens: int
    ):
        self.model, self.stop_ids, self.new = model, stop_ids, max_new_tokens
        self.groups = alike(prompts, max_new_tokens)
        self.prefixes = [common_prefix([prompts[i] for i in group]) for group in self.groups]
        # Of each group, what the cache keeps of the longest prompt, the first one, and its answer.
        groups = zip(self.groups, self.prefixes, strict=True)
        self.lengths = [len(prompts[group[0]]) - len(prefix) + self.new for group, prefix in groups]
        self.longest = max(self.lengths)
        self.open: dict[tuple[int, int], SharedPrefix] = {}  # by group and rows, one at most
        self.proof: dict[str, Any] = {}  # of `llm.proof`

    def answer(self, batch: Sequence[Encoded], group: int, rows: int) -> tuple[torch.Tensor, list[list[int]]]:
        try:
            if (group, rows) not in self.open:
                self.close()
                made = SharedPrefix(self.model, self.prefixes[group], self.stop_ids, rows, self.lengths[group])
                self.open[group, rows] = made
            return self.open[group, rows].generate([prompt.tokens for prompt in batch], self.new)
        except torch.cuda.OutOfMemoryError:
            self.close()
            raise

    def facts(self) -> dict[str, Any]:
        shared = sum(len(prefix) * len(group) for prefix, group in zip(self.prefixes, self.groups, strict=True))
        return {
            "decoder": "shared prefix computed once",
            "shared_beginnings": len(self.prefixes),
            "shared_tokens": round(shared / sum(map(len, self.groups)), 1),  # of a prompt, on average
            "proof": self.proof,
        }

    def close(self) -> None:
        while self.open:
            self.open.popitem()[1].close()


class SharedPrefix:
    """Greedy decoding of prompts that begin with `prefix`, one token at least, until one of `stop_ids`.

    The model is in evaluation mode, with or without a LoRA adapter. A batch has `rows` prompts at most, the longest one
    and its answer `length` tokens without the prefix.
    """

    def __init__(self, model: PreTrainedModel, prefix: list[int], stop_ids: Sequence[int], rows: int, length: int):
        global _state
        self.model, self.rows = core(model), rows
        self.device = self.model.device
        self.stop = torch.tensor(sorted(stop_ids), device=self.device)
        self.attention = decoder(self.model).config._attn_implementation
        decoder(self.model).set_attn_implementation(NAME)
        self.last: torch.Tensor | None = None  # (rows,) the token of each row whose logits are wanted; None: the last
        self.hook = self.model.get_output_embeddings().register_forward_pre_hook(self._narrow)
        self.prefix_length, self.length = len(prefix), -(-length // ROUND) * ROUND
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        # A CUDA graph is of one GPU, the first.
        self.placed = {weight.device for weight in self.model.parameters()} != {device()}
        self.pool = torch.cuda.graph_pool_handle() if self.device.type == "cuda" else None
        self.cache = _Cache()
        _state = self.state = State(before=len(prefix), most=len(prefix) + length)
        try:
            self._allocate(prefix)
        except BaseException:
            self.close()
            raise

    @torch.inference_mode()
    def _allocate(self, prefix: list[int]) -> None:
        """Compute the shared prefix, and make the tensors that every batch uses."""
        ids = torch.tensor([prefix], device=self.device)
        self._forward(ids, torch.arange(len(prefix), device=self.device)[None])
        for layer in self.state.prefix:
            for held, one in zip((self.state.keys, self.state.values), layer, strict=True):
                # Token by token where the flash kernels read it, else head by head; seen as heads of tokens in both.
                shape, flash = (self.rows, self.length, one.shape[0], one.shape[-1]), takes_flash(one)
                order = shape if flash else (shape[0], shape[2], shape[1], shape[3])
                made = torch.zeros(order, dtype=one.dtype, device=one.device)
                held.append(made.transpose(1, 2) if flash else made)
        config = self.model.config.get_text_config()
        window = getattr(config, "sliding_window", None) or self.state.most
        self.packs = window >= self.state.most and all(takes_flash(key) for key, _ in self.state.prefix)
        zeros = partial(torch.zeros, dtype=torch.long, device=self.device)
        self.token, self.state.place = zeros(self.rows), zeros(self.rows)
        self.out, self.count = zeros(self.rows, self.length), zeros(1)
        self.done = zeros(self.rows, dtype=torch.bool)

    def close(self) -> None:
        """Give the cache back, and the model its own attention."""
        global _state
        _state = self.state = State()
        self.graphs.clear()
        self.hook.remove()
        decoder(self.model).set_attn_implementation(self.attention)

    def _narrow(self, head: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Give the head one hidden state a row; the model scales and caps the logits of that as it always does."""
        hidden = given[0]
        if self.last is None:
            one = hidden[:, -1]
        elif self.state.packed:
            one = hidden[0, self.last.to(hidden.device)]
        else:
            one = hidden[torch.arange(len(hidden), device=hidden.device), self.last.to(hidden.device)]
        return (one[:, None], *given[1:])

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The logits (rows, vocabulary) of one token a row."""
        # A mask with four dimensions is passed on as it is: no mask is built, and the attention here needs none.
        mask = torch.empty(1, 1, 1, 1, dtype=torch.bool, device=self.device)
        logits = self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self.cache, use_cache=True
        ).logits
        return logits[:, 0]

    @torch.inference_mode()
    def generate(
        self, prompts: list[list[int]], max_new_tokens: int, kept: list[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, list[list[int]]]:
        """The logits of each prompt's first new token (prompts, vocabulary) in fp32, and the new ids.

        The ids of a row may go on after its stop token; what follows it means nothing. The logits of each further token
        (rows, vocabulary) are added to `kept`.
        """
        global _state
        _state = self.state
        rests = [prompt[self.prefix_length :] for prompt in prompts]
        first = self._prompts(rests)
        count = len(prompts)
        for tensor in (self.token, self.state.place, self.out):
            tensor.zero_()
        self.token[:count] = self.out[:count, 0] = first.argmax(dim=-1)
        self.state.place[:count] = torch.tensor([len(rest) for rest in rests], device=self.device)
        self.done.fill_(True)
        self.done[:count] = torch.isin(self.token[:count], self.stop)
        self.count.fill_(1)
        needed = max(map(len, rests)) + max_new_tokens
        self.state.phase, self.state.length = "step", self.length
        if not self.packs:  # what is read of the cache is one length for all rows
            self.state.length = min(self.length, -(-needed // ROUND) * ROUND)
        for step in range(1, max_new_tokens):
            if (step - 1) % LOOK == 0 and bool(self.done.all()):
                break
            self._run_step()
            if kept is not None:
                kept.append(self.logits.float().clone())
        return first, self.out[:count, :max_new_tokens].tolist()

    def _prompts(self, rests: list[list[int]]) -> torch.Tensor:
        """Fill the cache with the prompts, a few at a time, and return the logits of each one's last token."""
        self.state.phase = "prompts"
        found, start = [], 0
        while start < len(rests):
            longest, total, end = len(rests[start]), len(rests[start]), start + 1
            while end < len(rests):
                longest, total = max(longest, len(rests[end])), total + len(rests[end])
                if (total if self.packs else longest * (end + 1 - start)) > PREFILL_TOKENS:
                    break
                end += 1
            self.state.rows, chunk = slice(start, end), rests[start:end]
            found.append(self._forward(*(self._pack(chunk, start) if self.packs else self._pad(chunk))).float())
            start = end
        self.last = self.state.packed = None
        return torch.cat(found)

    def _pad(self, chunk: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The ids and positions of prompts as rows of one length, (prompts, tokens) each."""
        longest = max(map(len, chunk))
        ids = torch.tensor([rest + [0] * (longest - len(rest)) for rest in chunk], device=self.device)
        positions = torch.arange(self.prefix_length, self.prefix_length + longest, device=self.device)[None]
        self.last = torch.tensor([len(rest) - 1 for rest in chunk], device=self.device)
        return ids, positions.expand(len(chunk), -1)

    def _pack(self, chunk: list[list[int]], first: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The ids and positions of prompts one behind another, (1, tokens) each; `first` is the row of the first."""
        lengths = [len(rest) for rest in chunk]
        places = torch.cat([torch.arange(length) for length in lengths]).to(self.device)
        rows = torch.repeat_interleave(torch.arange(first, first + len(chunk)), torch.tensor(lengths)).to(self.device)
        starts = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=self.device)
        self.state.packed = Packed(starts, max(lengths), rows * self.length + places)
        self.last = starts[1:] - 1
        ids = torch.tensor([[token for rest in chunk for token in rest]], device=self.device)
        return ids, (places + self.prefix_length)[None]

    def _run_step(self) -> None:
        if self.device.type != "cuda" or self.placed:
            self._step()
            return
        graph = self.graphs.get(self.state.length)
        if graph is None:
            # Capturing runs nothing, but warming up does: what it changes is put back.
            kept = [(t, t.clone()) for t in (self.token, self.state.place, self.done, self.out, self.count)]
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                self._step()
                self._step()
            torch.cuda.current_stream().wait_stream(stream)
            for tensor, value in kept:
                tensor.copy_(value)
            graph = self.graphs[self.state.length] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                self._step()
        graph.replay()

    def _step(self) -> None:
        """Feed the newest token of each row and take the likeliest next one; all results go into fixed tensors."""
        self.state.visible.clear()
        self.state.filled.clear()
        positions = (self.state.place + self.prefix_length)[:, None]
        self.logits = self._forward(self.token[:, None], positions)
        self.token.copy_(self.logits.float().argmax(dim=-1))
        self.out.index_copy_(1, self.count, self.token[:, None])
        self.done.logical_or_(torch.isin(self.token, self.stop))
        self.count.add_(1)
        # A finished row goes on writing into its last slot, never past the end of the cache.
        self.state.place.add_(1).clamp_(max=self.length - 1)
