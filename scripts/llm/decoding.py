"""How answers are decoded: greedily, or drawn at random with random numbers of each question's own."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import transformers
from transformers import LogitsProcessor, LogitsProcessorList

from common.files import UserError

# What changes the logits of the next token, by its key in GenerationConfig and in the order of transformers. Those that
# depend on the tokens so far do so in greedy decoding too.
OF_TOKENS = {
    "repetition_penalty": transformers.RepetitionPenaltyLogitsProcessor,
    "no_repeat_ngram_size": transformers.NoRepeatNGramLogitsProcessor,
}
OF_DRAWING = {
    "temperature": transformers.TemperatureLogitsWarper,
    "top_k": transformers.TopKLogitsWarper,
    "top_p": transformers.TopPLogitsWarper,
    "min_p": transformers.MinPLogitsWarper,
    "typical_p": transformers.TypicalLogitsWarper,
    "epsilon_cutoff": transformers.EpsilonLogitsWarper,
    "eta_cutoff": transformers.EtaLogitsWarper,
}


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a model answers: the settings of a prediction."""

    precision: str  # as models.<name>.precision
    max_new_tokens: int
    batch_size: int | str  # prompts a batch, at most, or "auto": as many as fit
    do_sample: bool = False  # draw each token at random instead of taking the likeliest
    temperature: float = 1.0
    top_p: float = 1.0  # draw among the likeliest tokens of this probability (Holtzman et al. 2020, arXiv:1904.09751)
    seed: int = 42
    merge_adapters: bool = False
    prove: bool = False  # that the adapter acts, before it answers: one that was made elsewhere
    # Further keys of GenerationConfig: of `OF_TOKENS`, and with do_sample of `OF_DRAWING`.
    generation: Mapping[str, float] = field(default_factory=dict)
    quantization: Mapping[str, Any] = field(default_factory=dict)  # keys of BitsAndBytesConfig
    other_batches: bool = False  # than the same prompts would have otherwise, to find what batches change
    strength: float = 1.0  # what the adapter adds to the weights is multiplied by this (`llm.adapters.load_adapter`)

    def effective(self, adapted: bool) -> dict[str, Any]:
        """The settings that have an effect on answers, with an adapter or without."""
        names = ["precision", "batch_size", "max_new_tokens"]
        names += ["do_sample", "temperature", "top_p", "seed"] if self.do_sample else []
        names += ["merge_adapters"] if self.merge_adapters and adapted else []
        names += ["strength"] if self.strength != 1 else []
        names += ["other_batches"] if self.other_batches else []
        names += ["quantization"] if self.quantization else []
        found = {name: getattr(self, name) for name in names}
        generation = {key: value for key, value in self.generation.items() if self.do_sample or key in OF_TOKENS}
        return found | ({"generation": generation} if generation else {})

    @property
    def reads_tokens(self) -> bool:
        """Whether the next token depends on which tokens came before by more than the model's logits."""
        return bool(self.generation.keys() & OF_TOKENS.keys())

    def processors(self, ids: Sequence[str], max_new_tokens: int | None = None) -> LogitsProcessorList:
        """What `generate`'s greedy decoding does to the logits of the questions `ids`, one a row."""
        given = {"temperature": float(self.temperature), "top_p": self.top_p, **self.generation}
        made = {**OF_TOKENS, **(OF_DRAWING if self.do_sample else {})}
        try:
            found = [kind(given[key]) for key, kind in made.items() if key in given]
        except ValueError as error:
            raise UserError(f"inference: transformers refuses these values ({error}).") from None
        draw = [Draw(ids, self.seed, max_new_tokens or self.max_new_tokens)] if self.do_sample else []
        return LogitsProcessorList([*found, *draw])


class Draw(LogitsProcessor):
    """Draw each next token from the distribution, and leave `generate` no choice but that token.

    Each question has its own random numbers, one for each token, of a generator that is seeded with the SHA-256 of the
    study's seed and the question's id. So an answer does not depend on its batch, on the order, or on a kill.
    """

    def __init__(self, ids: Sequence[str], seed: int, max_new_tokens: int):
        rows = []
        for name in ids:
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
            rows.append(torch.rand(max_new_tokens, generator=generator, dtype=torch.float64))
        self.uniform = torch.stack(rows, dim=1)  # (tokens, questions)
        self.position = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Make `scores` (questions, vocabulary) minus infinity but for one token a row: the CDF inverted."""
        at = "cpu" if scores.device.type == "mps" else scores.device  # Apple's GPUs have no fp64
        cumulated = scores.to(at).double().softmax(dim=-1).cumsum(dim=-1)
        wanted = self.uniform[self.position].to(at)[:, None] * cumulated[:, -1:]
        drawn = torch.searchsorted(cumulated, wanted, right=True).clamp(max=scores.shape[-1] - 1)
        self.position += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn.to(scores.device), 0.0)


class Encoded(NamedTuple):
    """A prompt to continue: the id of its question, and its tokens."""

    id: str
    tokens: list[int]


class Engine(Protocol):
    """Continues batches of prompts; made for all prompts of a run."""

    groups: list[list[int]]  # the places of the prompts in the order in which they are answered; no batch mixes groups
    longest: int  # tokens that the cache keeps of the longest prompt and its answer

    def answer(self, batch: Sequence[Encoded], group: int, rows: int) -> tuple[torch.Tensor, list[list[int]]]:
        """Continue a batch of a group, of which a full batch has so many `rows`.

        Returns:
            The logits of each prompt's first new token, (prompts, vocabulary) in fp32, and its new tokens. What follows
            a stop token means nothing.
        """

    def facts(self) -> dict[str, Any]: ...  # how prompts are continued, for the report

    def close(self) -> None: ...  # gives memory back
