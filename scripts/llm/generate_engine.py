"""The engine for whatever the prefix engine cannot do: transformers' `generate` on padded batches."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
from transformers import LogitsProcessor, PreTrainedModel

from llm.chat import Chat
from llm.decoding import Decoding, Encoded
from llm.groups import longest_first
from llm.proof import distance, own_logits


class GenerateEngine:
    """An `llm.decoding.Engine`: a model set to greedy decoding; `reason`, for the report, says why it is this one."""

    def __init__(
        self, model: PreTrainedModel, chat: Chat, prompts: Sequence[list[int]], decoding: Decoding, reason: str
    ):
        self.model, self.chat, self.decoding, self.reason = model, chat, decoding, reason
        places = longest_first(prompts, range(len(prompts)))
        self.groups = [places]
        # Processors also read the tokens that fill a row up, and some models do: then no row may be filled up.
        if decoding.reads_tokens or not self._padding_is_ignored([prompts[places[0]], prompts[places[-1]]]):
            self.groups = [list(group) for _, group in groupby(places, lambda place: len(prompts[place]))]
        self.longest = max(map(len, prompts)) + decoding.max_new_tokens

    def _padding_is_ignored(self, prompts: Sequence[list[int]]) -> bool:
        """Whether two prompts have the logits in one batch that the model gives to each alone."""
        if len(prompts[0]) == len(prompts[1]):
            return True
        with torch.inference_mode():
            first, _ = self._generate([Encoded("", prompt) for prompt in prompts], max_new_tokens=1)
            alone = [own_logits(self.model, prompt, 1) for prompt in prompts]
        difference, allowed = distance(first[:, None], torch.stack(alone), self.model.dtype)
        if difference > allowed:
            print(f"Padding changes logits by {difference:.2g}: batches have prompts of one length each.", flush=True)
        return difference <= allowed

    def answer(self, batch: Sequence[Encoded], group: int, rows: int) -> tuple[torch.Tensor, list[list[int]]]:
        return self._generate(batch)

    def _generate(self, batch: Sequence[Encoded], **options: Any) -> tuple[torch.Tensor, list[list[int]]]:
        # Padded on the left, the last position is every prompt's own last token.
        ids = {"input_ids": [prompt.tokens for prompt in batch]}
        padded = self.chat.tokenizer.pad(ids, padding_side="left", return_tensors="pt").to(self.model.device)
        first, names = First(), [prompt.id for prompt in batch]
        processors = self.decoding.processors(names, options.get("max_new_tokens"))
        processors.insert(0, first)
        sequences = self.model.generate(**padded, logits_processor=processors, **options)
        return first.logits, sequences[:, padded["input_ids"].shape[1] :].tolist()

    def facts(self) -> dict[str, Any]:
        return {"decoder": f"generate ({self.reason})"}

    def close(self) -> None:
        pass  # it keeps no memory


class ThinkingEngine(GenerateEngine):
    """Has a model think first: a thought of limited length, and then the answer behind it, both by `generate`.

    A thought that does not end in time, or is not begun, is ended for the model.
    """

    def __init__(self, model: PreTrainedModel, chat: Chat, prompts: Sequence[list[int]], decoding: Decoding):
        super().__init__(model, chat, prompts, decoding, "it thinks before it answers")
        self.longest += chat.thought.tokens
        self.lengths: list[int] = []  # of thoughts, in tokens
        self.cut = 0

    def answer(self, batch: Sequence[Encoded], group: int, rows: int) -> tuple[torch.Tensor, list[list[int]]]:
        thought, tokenizer = self.chat.thought, self.chat.tokenizer
        encode = partial(tokenizer.encode, add_special_tokens=False)
        limits = {"max_new_tokens": thought.tokens, "stop_strings": [thought.end], "tokenizer": tokenizer}
        continued = []
        for prompt, new in zip(batch, self._generate(batch, **limits)[1], strict=True):
            ids = new[: next((i for i, token in enumerate(new) if token in self.quiet), len(new))]
            ended = thought.end in tokenizer.decode(ids)
            self.cut += not ended
            self.lengths.append(len(ids))
            continued.append(Encoded(prompt.id, prompt.tokens + ids + encode(thought.after if ended else self.ending)))
        return self._generate(continued)

    @property
    def quiet(self) -> set[int]:
        """The ids that are no part of a thought: stop tokens and padding."""
        return {*self.chat.stop_ids, self.chat.tokenizer.pad_token_id}

    @property
    def ending(self) -> str:
        """What ends a thought that has not ended by itself."""
        thought = self.chat.thought
        return ("\n" if thought.end.startswith("</") else "") + thought.end + thought.after

    def facts(self) -> dict[str, Any]:
        spent = {"limit": self.chat.thought.tokens, "tokens": sum(self.lengths), "cut": self.cut}
        return super().facts() | {"thoughts": spent}


class First(LogitsProcessor):
    """Keeps the logits of the first new token; `output_logits` would keep those of all steps in memory."""

    logits: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Change nothing."""
        if self.logits is None:
            self.logits = scores.float().clone()
        return scores
