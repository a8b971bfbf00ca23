"""The engine for whatever the prefix engine cannot do: transformers' `generate` on padded batches."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from transformers import LogitsProcessor, PreTrainedModel

from llm.chat import Chat
from llm.decoding import Decoding, Encoded
from llm.groups import longest_first


class GenerateEngine:
    """An `llm.decoding.Engine`: a model set to greedy decoding; `reason`, for the report, says why it is this one."""

    def __init__(
        self, model: PreTrainedModel, chat: Chat, prompts: Sequence[list[int]], decoding: Decoding, reason: str
    ):
        self.model, self.chat, self.decoding, self.reason = model, chat, decoding, reason
        places = longest_first(prompts, range(len(prompts)))
        self.groups = [places]
        if decoding.reads_tokens:  # also those that fill a row up, so that no row may be filled up
            self.groups = [list(group) for _, group in groupby(places, lambda place: len(prompts[place]))]
        self.longest = max(map(len, prompts)) + decoding.max_new_tokens

    def answer(self, batch: Sequence[Encoded], group: int, rows: int) -> tuple[torch.Tensor, list[list[int]]]:
        # Padded on the left, the last position is every prompt's own last token.
        ids = {"input_ids": [prompt.tokens for prompt in batch]}
        padded = self.chat.tokenizer.pad(ids, padding_side="left", return_tensors="pt").to(self.model.device)
        first, processors = First(), self.decoding.processors([prompt.id for prompt in batch])
        processors.insert(0, first)
        sequences = self.model.generate(**padded, logits_processor=processors)
        return first.logits, sequences[:, padded["input_ids"].shape[1] :].tolist()

    def facts(self) -> dict[str, Any]:
        return {"decoder": f"generate ({self.reason})"}

    def close(self) -> None:
        pass  # it keeps no memory


class First(LogitsProcessor):
    """Keeps the logits of the first new token; `output_logits` would keep those of all steps in memory."""

    logits: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Change nothing."""
        if self.logits is None:
            self.logits = scores.float().clone()
        return scores
