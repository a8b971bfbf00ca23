"""A model's tokenizer and chat template: prompts as text, completions, the tokens that begin, end and pad a sequence.

Everything that chat models disagree on is found out here once, by rendering probes, and recorded in reports.
"""

import os

# Nothing here may reach a network: models come from folders. To be set before huggingface_hub is imported.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import re
import statistics
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from common.files import UserError

# Many templates print today's date unless they are given one: the prompts would change overnight.
DATE = date(2024, 7, 26)
# A thought as templates write it, with nothing in it, or opened for the model to fill; Gemma 4 has a channel for it.
THOUGHT = re.compile(r"\s*(?:<(?P<tag>[^<>/\s]+)>\s*(?P<end></(?P=tag)>\s*)?|<\|channel>thought\s*<channel\|>\s*)")
EMPTY_THOUGHT = re.compile(r"(?:<(?P<tag>[^<>/\s]+)>\s*</(?P=tag)>|<\|channel>thought\s*<channel\|>)\s*\Z")

# What a template may raise besides Jinja's own errors: `{{ question + 1 }}`, or one that includes itself.
FAULTS = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
# What no turn of a conversation says.
ELSEWHERE = "0c9f41e7-another-turn"

# How models name the tokens they keep for padding or in reserve, in order of preference.
PAD_NAMES = ("pad", "reserved", "unused", "unk")


class Turn(NamedTuple):
    """What one side of a conversation says."""

    role: str  # system, user or assistant
    text: str


@dataclass(frozen=True)
class Chat:
    """A tokenizer and what its chat template does."""

    tokenizer: PreTrainedTokenizerBase
    source: str  # the model's name, for messages
    system_role: str  # "own" if the template renders a system turn, "folded" if its text goes into the user turn
    bos: int | None  # BOS tokens a prompt must hold, 1 or 0; None if the template begins every turn with it (SmolLM2)
    bos_text: str  # what to put before the rendered text: the BOS token where the template leaves it to the tokenizer
    end_of_turn: str  # the token that ends the assistant's turn
    end_of_turn_id: int
    closing: str  # what a conversation lacks behind its last answer, up to the end of turn (GLM: the next turn's name)
    stop_ids: tuple[int, ...]  # at which generation stops: those of the generation config and the end of turn
    max_tokens: int | None  # of the model's context, None if its config names none
    thought: "Thought"
    date: str | None  # that the template prints, None if it prints none

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The text of a prompt: BOS and the turns of a conversation, up to where the answer or a thought begins."""
        return self._rendered(turns) + ("" if self.thought.tokens else self.thought.prefill)

    def _rendered(self, turns: Sequence[Turn], answer: str | None = None) -> str:
        messages, thinking = _messages(turns, self.system_role), bool(self.thought.tokens)
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        closing = "" if answer is None else self.closing
        return self.bos_text + _render(self.tokenizer, messages, answer is None, thinking) + closing

    def completion(self, turns: Sequence[Turn], answer: str) -> str:
        """The text that follows `prompt` when the assistant says `answer`, end-of-turn token included.

        A model that thinks first learns to think nothing, since no row has a thought. If the template renders the
        prompt or the answer differently in a conversation, that is a UserError.
        """
        whole, thought = self._rendered(turns, answer), self.thought
        prompt = self._rendered(turns).removesuffix(thought.opened)
        prompt += thought.prefill if whole.startswith(prompt + thought.prefill) else ""  # not all show empty thoughts
        if not whole.startswith(prompt):
            raise UserError(
                f"{self.source}: its chat template renders a prompt differently once it is answered. The prompt ends "
                f"in {prompt[-80:]!r}, the conversation has {whole[max(0, len(prompt) - 80) : len(prompt)]!r} there."
            )
        tail = whole[len(prompt) :]
        answer = answer if answer in tail else answer.strip()  # many templates do so
        before, said, rest = tail.partition(answer)
        after, ended, _ = rest.partition(self.end_of_turn)
        if not (said and ended) or before.strip() or after.strip():
            raise UserError(
                f"{self.source}: its chat template changes an answer. Found {tail!r}, expected {answer!r} and "
                f"{self.end_of_turn!r}."
            )
        # Gemma's template goes on with a newline that the model never has to say: cut right after the end of turn.
        return (thought.prefill if thought.tokens else "") + before + said + after + ended

    def said(self, turns: Sequence[Turn]) -> list[list[int]]:
        """Where in `prompt` each turn of the assistant stands, end-of-turn token included: characters from, up to.

        Found by putting another text in the place of each; a template that changes such a turn, or ends it otherwise
        than an answer, is a UserError.
        """
        prompt, found = self.prompt(turns), []
        for place, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            other = self.prompt([*turns[:place], Turn("assistant", ELSEWHERE), *turns[place + 1 :]])
            start = other.find(ELSEWHERE)
            text = turn.text if prompt.startswith(turn.text, max(start, 0)) else turn.text.strip()  # many do so
            end = prompt.find(self.end_of_turn, start + len(text)) + len(self.end_of_turn)
            between = prompt[start + len(text) : end - len(self.end_of_turn)]
            same = start >= 0 and prompt[:start] == other[:start] and prompt.startswith(text, start)
            if not same or end < start + len(text) or between.strip():
                raise UserError(
                    f"{self.source}: its chat template changes an earlier turn of the assistant, or ends it otherwise "
                    f"than with {self.end_of_turn!r}. Found {prompt[max(start, 0) :][: len(turn.text) + 40]!r}, "
                    f"expected {turn.text!r}. Set training.loss_on to completion or text."
                )
            found.append([start, end])
        return found

    def within(self, prompt: str, spans: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each token of a prompt belongs to one of the `spans` of `said`."""
        if not self.tokenizer.is_fast:
            raise UserError(
                f"{self.source}: its tokenizer does not say which characters a token stands for. Set training.loss_on "
                "to completion or text."
            )
        given = self.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [any(first < end and start < last for start, end in spans) for first, last in given]

    def encode(self, prompt: str, completion: str = "") -> tuple[list[int], list[int]]:
        """The token ids of a prompt, as inference sees them, and of the completion that follows it.

        Both texts are tokenised as one where that leaves the prompt's ids as they are (SentencePiece would put a space
        before a text on its own), else each by itself.
        """
        encode = partial(self.tokenizer.encode, add_special_tokens=False)
        prompt_ids = encode(prompt)
        if not completion:
            return prompt_ids, []
        both = encode(prompt + completion)
        if both[: len(prompt_ids)] == prompt_ids:
            return prompt_ids, both[len(prompt_ids) :]
        return prompt_ids, encode(completion)

    def decode(self, new: list[int]) -> tuple[str, int, bool]:
        """New tokens up to the first stop token: the text, how many tokens these are, and whether a stop came."""
        stop = next((place for place, token_id in enumerate(new) if token_id in self.stop_ids), None)
        new = new if stop is None else new[: stop + 1]
        # Cleaning up would join "a , b" and " 's": what a model wrote in a string literal must stay.
        text = self.tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text, len(new), stop is not None

    def option_tokens(self, options: Sequence[str]) -> dict[str, list[int]]:
        """The ids that stand for each option: "A" alone and with the space before it, where each is one token.

        Tokenisers differ: byte-level BPE has "A" and "ĠA", SentencePiece "A" and "▁A". Only the forms that all options
        have are taken, so that none is favoured; if there is none, that is a UserError.
        """
        if not options:
            return {}
        tokenizer, vocabulary = self.tokenizer, self.tokenizer.get_vocab()
        forms = [[vocabulary.get(before + option) for option in options] for before in ("", "Ġ", "▁")]
        for before in ("", " "):
            encoded = [tokenizer.encode(before + option, add_special_tokens=False) for option in options]
            forms.append([ids[0] if len(ids) == 1 else None for ids in encoded])
        forms = [form for form in forms if None not in form]
        if not forms:
            named = f"{', '.join(options[:-1])} and {options[-1]}"
            raise UserError(f"{self.source}: its tokenizer has no single token for the letters {named}.")
        return {option: sorted({form[i] for form in forms}) for i, option in enumerate(options)}

    def check_bos(self, row: str, ids: Sequence[int]) -> None:
        """Refuse a prompt, of the question `row`, that does not begin with as many BOS as it must."""
        bos_id, expected = self.tokenizer.bos_token_id, 1 if self.bos is None else self.bos
        # A token that begins every turn stands at the start of later ones too: it is counted before the first alone.
        found = len(list(takewhile(bos_id.__eq__, ids))) if self.bos is None else list(ids).count(bos_id)
        if found != expected or (expected and ids[0] != bos_id):
            raise UserError(
                f"prompt of {row}: found {found} BOS tokens ({self.tokenizer.bos_token!r}), expected {expected} at "
                f"its start. Look for the token in the row's text and in the chat template of {self.source}."
            )

    def facts(self) -> dict[str, Any]:
        """What was found out about the template and the tokenizer, for a report."""
        return {
            "system_role": self.system_role,
            "bos_token": self.tokenizer.bos_token,
            "bos_per_prompt": self.bos,
            "bos_added_to_template": bool(self.bos_text),
            "end_of_turn_token": self.end_of_turn,
            "end_of_turn_id": self.end_of_turn_id,
            "eos_token": self.tokenizer.eos_token,
            "pad_token": self.tokenizer.pad_token,
            "pad_id": self.tokenizer.pad_token_id,
            "stop_ids": list(self.stop_ids),
            "max_tokens": self.max_tokens,
            "date": self.date,
            "thinking_tokens": self.thought.tokens,
            "prefill": "" if self.thought.tokens else self.thought.prefill,
        }


class Thought(NamedTuple):
    """Where a template has a model think before it answers."""

    tokens: int = 0  # that a model may think, 0 if it answers at once
    opened: str = ""  # with which a prompt ends, but which a conversation has not: an opened or an empty thought
    prefill: str = ""  # an empty thought, or what ends one: behind the prompt of a model that is to answer at once

    @property
    def end(self) -> str:
        """What a model says at the end of its thought: a closing tag, or the name of the channel of answers."""
        tags = re.findall(r"</[^<>]+>|<channel\|>", self.prefill)
        return tags[-1] if tags else self.prefill.strip()

    @property
    def after(self) -> str:
        """What follows that, before the answer."""
        return self.prefill.rpartition(self.end)[2]


def load_chat(record: dict) -> Chat:
    """Load the tokenizer of a model record and find out what its chat template does.

    It pads with a token that is no stop token, so that a model still learns to stop. A tokenizer or template that
    cannot be used is a UserError.
    """
    path = Path(record["path"])
    if not path.is_dir():
        raise UserError(f"model {record['name']}: {path} is no folder. Run `snakemake -R fetch_model`.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
        raise UserError(f"{path}: cannot load config and tokenizer ({error}). Check models.{record['name']}.") from None
    if not tokenizer.chat_template:
        raise UserError(
            f"{path}: the tokenizer has no chat template, expected an instruction-tuned model. Set "
            f"models.{record['name']}.source to one, or add a chat_template.jinja to the folder."
        )
    source = record["source"]
    system_role, bos, stops = (
        _system_role(tokenizer, source),
        _bos(tokenizer, source),
        _configured_stop_ids(path, config),
    )
    end = _end_of_turn(tokenizer, source, stops)
    stop_ids = tuple(sorted({*stops, end[1]}))
    _set_pad(tokenizer, source, stop_ids)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    thought, dated = _thought(tokenizer, source, record.get("thinking", 0)), _date(tokenizer)
    return Chat(tokenizer, source, system_role, *bos, *end, stop_ids, context, thought, dated)


def check_context(chat: Chat, row: str, tokens: int, new_tokens: int, remedy: str) -> None:
    """Refuse a prompt, of the question `row`, that with what follows does not fit the model's context."""
    if chat.max_tokens is not None and tokens + new_tokens > chat.max_tokens:
        raise UserError(
            f"prompt of {row}: found {tokens} tokens and {new_tokens} to follow, expected at most {chat.max_tokens} "
            f"in all, the context of {chat.source}. Nothing is cut off silently. {remedy}"
        )


def token_counts(counts: Sequence[int]) -> dict[str, float] | None:
    """Minimum, median, 95th percentile (nearest rank) and maximum of token counts; None if there are none."""
    if not counts:
        return None
    p95 = sorted(counts)[-(-95 * len(counts) // 100) - 1]
    return {"min": min(counts), "median": statistics.median(counts), "p95": p95, "max": max(counts)}


def _messages(turns: Sequence[Turn], system_role: str) -> list[dict[str, str]]:
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    if system_role == "folded" and messages[0]["role"] == "system":
        system, user, *rest = messages
        return [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest]
    return messages


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    answer_follows: bool = True,
    thinking: bool = False,
    today: date = DATE,
) -> str:
    """Render messages; templates that know of thoughts do so by one of three names."""
    given = {"add_generation_prompt": answer_follows, "enable_thinking": thinking, "thinking": thinking}
    given |= {} if thinking else {"thinking_budget": 0}
    dated = {"date_string": today.strftime("%d %b %Y"), "strftime_now": today.strftime}
    return tokenizer.apply_chat_template(messages, tokenize=False, **given, **dated)


def _date(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The date that the template is given, None if it prints none."""
    messages = [{"role": "user", "content": "x"}]
    other = _render(tokenizer, messages, today=date(1999, 12, 31))
    return None if _render(tokenizer, messages) == other else DATE.isoformat()


def _thought(tokenizer: PreTrainedTokenizerBase, source: str, tokens: int) -> Thought:
    """Find out where the template has the model think, with so many tokens or, with 0, not at all."""
    answer = "SELECT 1"
    messages = [{"role": "user", "content": "x"}]
    prompt = _render(tokenizer, messages, thinking=tokens > 0)
    whole = _render(tokenizer, [*messages, {"role": "assistant", "content": answer}], False, tokens > 0)
    same = next(
        (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), min(len(prompt), len(whole))
    )
    same -= prompt[:same].endswith("<")  # <think> and </think>
    # What a conversation has before an answer: an empty thought, or the name of the channel of answers.
    before = whole[same:].partition(answer)[0] if answer in whole[same:] else ""
    if same == len(prompt) and before.strip():
        return Thought(tokens, "", before)
    found = THOUGHT.fullmatch(prompt[same:])
    if found and found["tag"] and not found["end"]:
        return Thought(tokens, prompt[same:], before if before.strip() else f"\n</{found['tag']}>\n\n")
    if not tokens:
        return Thought(0, prompt[same:]) if found else Thought()
    # Models that begin a thought by themselves, and whose prompt ends it where they shall answer at once.
    if same == len(prompt) and (empty := EMPTY_THOUGHT.search(_render(tokenizer, messages))):
        return Thought(tokens, "", empty.group())
    raise UserError(
        f"models, thinking: the chat template of {source} has no place for a thought. Set it to false, or take a "
        "model that thinks."
    )


def _system_role(tokenizer: PreTrainedTokenizerBase, source: str) -> str:
    """ "own" if the template has a system turn, "folded" if it refuses, drops or folds a system text."""
    system, user = "Speak in rhymes.", "What is rain?"
    turns = [Turn("system", system), Turn("user", user)]
    try:
        folded = _render(tokenizer, _messages(turns, "folded"))
    except FAULTS as error:
        raise UserError(f"{source}: its chat template cannot render a user turn ({error}).") from None
    if user not in folded:
        raise UserError(f"{source}: its chat template leaves the user's text out. It rendered {folded!r}.")
    try:
        own = _render(tokenizer, _messages(turns, "own"))
    except TemplateError:  # Gemma: "System role not supported"; early Mistral: "Conversation roles must alternate"
        return "folded"
    return "own" if own != folded and own.count(system) == 1 and user in own else "folded"


def _bos(tokenizer: PreTrainedTokenizerBase, source: str) -> tuple[int | None, str]:
    """How many BOS tokens a prompt must hold, and the text to put before the rendered one to have them.

    None for the number if the token begins every turn: then it is one of the template, which knows where it belongs.
    """
    if tokenizer.bos_token_id is None:
        return 0, ""
    rendered = tokenizer.encode(_render(tokenizer, _messages([Turn("user", "x")], "own")), add_special_tokens=False)
    found = rendered.count(tokenizer.bos_token_id)
    adds = tokenizer.bos_token_id in tokenizer.encode("x")
    if found > 1 and not adds and rendered[0] == tokenizer.bos_token_id != rendered[1]:
        return None, ""
    if found > 1:
        raise UserError(f"{source}: its chat template renders {found} BOS tokens, expected 1 or none.")
    if found == 1:
        return 1, ""
    return (1, tokenizer.bos_token) if adds else (0, "")


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, source: str, stops: Collection[int]) -> tuple[str, int, str]:
    """Text and id of the first special token that the template puts after an answer; and what the last answer lacks.

    Where nothing follows the last answer, that is what begins the next turn, if generation stops there (GLM).
    """
    answer = "SELECT 1"
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": answer}]
    special = {*tokenizer.all_special_ids, *(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)}
    found = []
    for more in ([], messages[:1]):
        try:
            _, said, after = _render(tokenizer, [*messages, *more], answer_follows=False).rpartition(answer)
        except TemplateError:  # of more than one question
            break
        found.append(after if said else "")
        for token_id in tokenizer.encode(found[-1], add_special_tokens=False):
            if token_id in special and (not more or token_id in stops):
                token = tokenizer.convert_ids_to_tokens(token_id)
                return token, token_id, after.partition(token)[0] + token if more else ""
            if token_id in special:
                break
    raise UserError(
        f"{source}: its chat template renders no end-of-turn token after an answer, found {found[0]!r}. A model "
        "trained on it would never stop. Mend the template."
    )


def _configured_stop_ids(path: Path, config: Any) -> set[int]:
    """The EOS ids of generation_config.json, or of config.json where there is none."""
    stop = None
    with suppress(OSError):
        stop = GenerationConfig.from_pretrained(path, local_files_only=True).eos_token_id
    if stop is None:
        stop = config.get_text_config().eos_token_id
    return set() if stop is None else {stop} if isinstance(stop, int) else set(stop)


def _set_pad(tokenizer: PreTrainedTokenizerBase, source: str, stop_ids: Sequence[int]) -> None:
    """Give the tokenizer a pad token that is neither a stop token nor BOS. The embeddings are not resized."""
    taken = {*stop_ids, tokenizer.bos_token_id}
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id not in taken:
        return
    added = sorted(tokenizer.added_tokens_decoder.items())
    free = [str(token) for i, token in added if token.special and i not in taken]
    named = [token for name in PAD_NAMES for token in free if name in token.lower()]
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id not in taken:  # whatever its name: SmolLM2
        named.append(tokenizer.unk_token)
    if not named:
        raise UserError(
            f"{source}: its tokenizer has no token to pad with that is not a stop token (found pad token "
            f"{tokenizer.pad_token!r}, stop ids {list(stop_ids)}). Set pad_token in its tokenizer_config.json."
        )
    tokenizer.pad_token = named[0]
