"""The layers of a model that learns as CUDA graphs: thousands of kernels, forward and backward, started as one.

In a small step the host needs longer to start the kernels than the GPU to compute them. A CUDA graph is the list of
them, for tensors of one shape at fixed addresses. So that few shapes occur, a micro-batch is filled up with a row of
its own, of which nothing is learnt and which no other row sees. A shape that comes often gets a graph. It is tried
first: on the same rows in another order, hidden states and gradients must be those that the model has without it.

A graph keeps its gradients where they are. A second micro-batch of the same step would overwrite those of the first, so
only steps of one micro-batch are computed so.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten
from transformers import PreTrainedModel

from llm.attention import decoder, failed
from llm.labels import IGNORED
from llm.packing import HALF, pack
from llm.shared import Row

ROUND = 256  # tokens: a micro-batch is filled up to a multiple of them
MOST_TOKENS = 8192  # of a micro-batch: computing more of them takes longer than starting the kernels
OFTEN = 3  # times that a shape must have come: a graph takes as long to make as some steps
MOST_GRAPHS = 16  # each takes some MiB for its list; the memory for activations is one for all


class StepGraphs:
    """The CUDA graphs of a model's layers, which are used within `filled` alone.

    Attributes:
        tokens: of the micro-batches that have a graph, one for each graph.
        reason: why there are none any more; "" while they may be used.
    """

    def __init__(self, model: PreTrainedModel):
        self.decoder = decoder(model)
        self.weights = [weight for weight in self.decoder.parameters() if weight.requires_grad]
        self.tokens: list[int] = []
        self.reason = ""
        self._came: Counter[tuple] = Counter()
        self._graphs: dict[tuple, Callable[..., torch.Tensor]] = {}
        self._pool: tuple[int, int] | None = None
        self._other: Callable[[], dict] | None = None
        self._plain = self.decoder.forward
        self.decoder.forward = self._forward

    @contextmanager
    def filled(self, rows: Sequence[Row], device: torch.device, start: Sequence[int], most: int) -> Iterator[dict]:
        """The rows as one micro-batch (`llm.packing.pack`), for which the model may use a graph.

        It is filled up, but where it would have more than `MOST_TOKENS`, or more than half of `most`, those that the
        memory takes: a graph keeps the memory that it needs, and other micro-batches need theirs.
        """
        batch = fill(rows, device, start)
        if self.reason or batch["input_ids"].shape[1] > min(most // 2, MOST_TOKENS):
            yield pack(rows, device, start)
            return
        self._other = partial(fill, rows[::-1], device, start)
        try:
            yield batch
        finally:
            self._other = None

    def give_up(self, reason: str) -> None:
        """Go on without graphs, and free their memory."""
        self.reason, self._pool = reason, None
        self._graphs.clear()
        self.decoder.forward = self._plain
        torch.cuda.empty_cache()
        print(f"Steps are computed without CUDA graphs from now on: {reason}.", flush=True)

    def _forward(self, *positional, **given) -> Any:
        if self._other and given.get("input_ids") is None:
            self.give_up("its layers are given embeddings, and no ids")
        if self._other is None or self.reason:
            return self._plain(*positional, **given)
        leaves, form = tree_flatten(given)
        tensors = [x for x in leaves if torch.is_tensor(x)]
        shape = (str(form), *((x.shape, x.dtype) if torch.is_tensor(x) else repr(x) for x in leaves))
        self._came[shape] += 1
        if shape not in self._graphs:
            if self._came[shape] < OFTEN or len(self._graphs) == MOST_GRAPHS:
                return self._plain(**given)
            device = given["input_ids"].device
            drawn = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
            try:
                self._make(shape, given)
            except Exception as error:  # whatever a model does that a graph cannot take
                if drawn is not None:
                    _put_generator_back(device, drawn)
                self.give_up(failed(error))
                return self._plain(**given)
        return self._output(last_hidden_state=self._graphs[shape](*tensors, *self.weights))

    def _make(self, shape: tuple, given: dict[str, Any]) -> None:
        """Make the graph of a shape, and try it; raise RuntimeError if it computes otherwise."""
        leaves, form = tree_flatten(given)
        places = [place for place, x in enumerate(leaves) if torch.is_tensor(x)]

        def compute(*inputs: torch.Tensor) -> torch.Tensor:
            """The last hidden states; the weights, which come last, are there for their gradients."""
            filled = dict(zip(places, inputs, strict=False))
            out = self._plain(**tree_unflatten([filled.get(place, x) for place, x in enumerate(leaves)], form))
            if [*out] != ["last_hidden_state"]:
                raise RuntimeError(f"its layers give {', '.join(out)}")
            self._output = type(out)
            return out.last_hidden_state

        other = self._other()
        changed = tree_flatten({name: other.get(name, x) for name, x in given.items()})[0]
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        meant = self._seen(compute, [changed[place] for place in places])
        # The state of the random generator is put back: a training that goes on from a checkpoint draws the same.
        with _same_draws(given["input_ids"]):
            graph = torch.cuda.make_graphed_callables(
                compute,
                (*(leaves[place].clone() for place in places), *self.weights),
                num_warmup_iters=1,
                allow_unused_input=True,
                pool=self._pool,
            )
        found = self._seen(graph, [changed[place] for place in places])
        apart = max(((a - b).norm() / b.norm().clamp(min=1e-20)).item() for a, b in zip(found, meant, strict=True))
        if not apart <= HALF:
            raise RuntimeError(f"a graph computes otherwise ({apart:.2g}, more than {HALF:.2g})")
        self._graphs[shape] = graph
        self.tokens.append(given["input_ids"].shape[1])

    def _seen(self, compute: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The hidden states of a micro-batch and the gradients of half their squares, of each weight."""
        with _same_draws(inputs[0]):
            out = compute(*inputs, *self.weights)
            hidden = out.detach().clone()  # Liger's kernels write into the gradient that they are given
            gradients = torch.autograd.grad(out, self.weights, hidden.clone(), allow_unused=True)
        return [hidden.float(), *(x.float().clone() for x in gradients if x is not None)]


def fill(rows: Sequence[Row], device: torch.device | str, start: Sequence[int]) -> dict:
    """Pack rows (`llm.packing.pack`) with one more, of which nothing is learnt, up to a multiple of `ROUND` tokens.

    The lengths of the longest row, which are numbers and no tensors, are bounds that hold for any rows.
    """
    tokens = pack(rows, start=start)["input_ids"].shape[1]
    more = ROUND - tokens % ROUND  # one at least: with as many rows, shapes are the same
    batch = pack([*rows, ([rows[0][0][-1]] * more, [IGNORED] * more)], device, start)
    return batch | {"max_length_q": tokens + more, "max_length_k": tokens + more + len(start)}


@contextmanager
def _same_draws(where: torch.Tensor) -> Iterator[None]:
    """Leave the random generators as they are, and autocast without a cache, of which a graph would keep addresses."""
    kind = where.device.type
    dtype, on = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    devices = [where.device] if where.is_cuda else []
    with torch.random.fork_rng(devices=devices), torch.autocast(kind, dtype, enabled=on, cache_enabled=False):
        yield


def _put_generator_back(device: torch.device, state: torch.Tensor) -> None:
    """Give a GPU's random generator a state: a failed capture leaves one that draws within graphs alone."""
    fresh = torch.Generator(device)
    fresh.set_state(state)
    torch.cuda.default_generators[device.index or 0].graphsafe_set_state(fresh.graphsafe_get_state())
