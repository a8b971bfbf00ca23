"""The loop that both prediction scripts share: batches of prompts of like length, each kept once it is answered."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from common.files import UserError, read_json, read_jsonl, sha256_file, sha256_json, write_json, write_jsonl
from common.job import Sigterm, versions
from llm.chat import Chat, load_chat
from llm.load import load_adapter, load_model, machine, set_greedy
from llm.prefix_engine import Engine, alike, common_prefix, fitting_rows, supports
from llm.shards import deal, partial_path, partial_paths, run

# Prompts a batch where there is no GPU whose memory could say.
CPU_ROWS = 32

# Reads a batch's answers off: (chat, logits of the first new token or None, new ids of each prompt) -> one dict a
# prompt, without its id.
Read = Callable[[Chat, torch.Tensor | None, list[list[int]]], list[dict[str, Any]]]


def pad_left(chat: Chat, prompts: list[list[int]], device: torch.device) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `attention_mask`, both (prompts, longest prompt), padded on the left.

    So the last position is every prompt's own last token. `generate` counts positions from the mask.
    """
    longest = max(map(len, prompts))
    pad = chat.tokenizer.pad_token_id
    ids = [[pad] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }


class Draw(LogitsProcessor):
    """Draw each next token from the distribution, and leave `generate` no choice but that token.

    Each question has random numbers of its own, one for each token, from a generator that is seeded with the SHA-256
    of the study's seed and the question's id. So an answer is the same in whatever batch and order it is made, and
    after whatever kill; `generate` itself would draw all rows of a batch from one generator.

    Args:
        ids: the questions of the batch, one a row.
        seed: inference.seed.
        max_new_tokens: tokens to generate, at most.
    """

    def __init__(self, ids: list[str], seed: int, max_new_tokens: int):
        rows = []
        for name in ids:
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
            rows.append(torch.rand(max_new_tokens, generator=generator, dtype=torch.float64))
        self.uniform = torch.stack(rows, dim=1)  # (tokens, questions)
        self.position = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `scores` (questions, vocabulary) as minus infinity but for one token a row: the CDF inverted."""
        cumulated = scores.double().softmax(dim=-1).cumsum(dim=-1)
        wanted = self.uniform[self.position].to(scores.device)[:, None] * cumulated[:, -1:]
        drawn = torch.searchsorted(cumulated, wanted, right=True).clamp(max=scores.shape[-1] - 1)
        self.position += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def sampling(ids: list[str], max_new_tokens: int, temperature: float, top_p: float, seed: int) -> LogitsProcessorList:
    """Return what makes greedy decoding of a batch draw its tokens: temperature, then top-p, then the draw.

    top-p keeps the likeliest tokens that together have that probability (Holtzman et al. 2020, arXiv:1904.09751).
    """
    return LogitsProcessorList(
        [TemperatureLogitsWarper(float(temperature)), TopPLogitsWarper(top_p), Draw(ids, seed, max_new_tokens)]
    )


class Decoder:
    """Continues batches of prompts: by the prefix engine where that computes what the model means, else by `generate`.

    Args:
        model, chat: the model, set to greedy decoding, and its tokenizer.
        encoded: the ids of all prompts of the run; what those of a group (`prefix_engine.alike`) have in common is
            computed once. `groups` has the number of each one's group.
        max_new_tokens: tokens to generate, at most.
        first_logits: whether the logits of the first new token are wanted.
        draw: given the ids of the questions of a batch, what draws their tokens; None for greedy decoding.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        chat: Chat,
        encoded: list[list[int]],
        max_new_tokens: int,
        first_logits: bool,
        draw: Callable[[list[str]], LogitsProcessorList] | None,
    ):
        self.model, self.chat, self.max_new_tokens, self.draw = model, chat, max_new_tokens, draw
        self.first_logits = first_logits
        # Why `generate` is used; "" if it is not.
        self.plain = "answers are drawn at random" if draw else supports(model)
        members = [list(range(len(encoded)))] if self.plain else alike(encoded, max_new_tokens)
        alikes = [[encoded[i] for i in group] for group in members]
        self.prefixes = [common_prefix(group) for group in alikes]
        # Of each group, the longest prompt's tokens without the beginning.
        self.rests = [max(map(len, group)) - len(prefix) for group, prefix in zip(alikes, self.prefixes, strict=True)]
        self.groups = numbers(members)
        self.engine: Engine | None = None
        self.engine_is_for: tuple[int, int] | None = None
        if not self.plain and not all(self.prefixes):
            self.plain = "prompts begin unlike"

    def __call__(
        self, batch: list[list[int]], names: list[str], group: int, rows: int
    ) -> tuple[torch.Tensor | None, list[list[int]]]:
        """Return the logits of each prompt's first new token (prompts, vocabulary), if wanted, and its new ids.

        `rows` is the size of a full batch of the group. The last one is smaller but is computed in as many rows, so
        that an answer does not depend on where a run was interrupted.
        """
        if self.plain:
            return self._generate(batch, names)
        try:
            if self.engine_is_for != (group, rows):
                self.close()
                self.engine = Engine(
                    self.model,
                    self.prefixes[group],
                    list(self.chat.stop_ids),
                    rows,
                    self.rests[group],
                    self.max_new_tokens,
                )
                self.engine_is_for = group, rows
            return self.engine.generate(batch)
        except torch.cuda.OutOfMemoryError:
            self.close()
            raise

    def _generate(self, batch: list[list[int]], names: list[str]) -> tuple[torch.Tensor | None, list[list[int]]]:
        given: dict[str, Any] = pad_left(self.chat, batch, self.model.device)
        if self.draw:
            given["logits_processor"] = self.draw(names)
        out = self.model.generate(**given, output_logits=self.first_logits, return_dict_in_generate=True)
        first = out.logits[0].float() if self.first_logits else None
        return first, out.sequences[:, given["input_ids"].shape[1] :].tolist()

    def fitting_rows(self) -> int:
        """Return how many prompts a batch may have: what the GPU's free memory takes, or `CPU_ROWS`."""
        if self.model.device.type != "cuda":
            return CPU_ROWS
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        # `generate` keeps the shared beginning in every row.
        whole = zip(self.prefixes, self.rests, strict=True)
        longest = max(rest + (len(prefix) if self.plain else 0) for prefix, rest in whole)
        return fitting_rows(self.model, longest + self.max_new_tokens, free)

    def close(self) -> None:
        """Give the engine's memory back."""
        if self.engine is not None:
            self.engine.close()
            self.engine = self.engine_is_for = None

    def facts(self) -> dict[str, Any]:
        """Return how prompts are continued, for the report."""
        if self.plain:
            return {"decoder": f"generate ({self.plain})"}
        shared = [len(self.prefixes[group]) for group in self.groups]
        return {
            "decoder": "shared beginning computed once",
            "shared_beginnings": len(self.prefixes),
            "shared_tokens": round(sum(shared) / len(shared), 1),  # of a prompt, on average
        }


def decode_new(chat: Chat, new: list[int]) -> tuple[str, int, bool]:
    """Return the text of generated ids up to the first stop token, how many ids that is, and whether one came."""
    for position, token_id in enumerate(new):
        if token_id in chat.stop_ids:
            new = new[: position + 1]
            break
    finished = bool(new) and new[-1] in chat.stop_ids
    # Cleaning up would join "a , b" and " 's": what a model wrote in a string literal must stay.
    text = chat.tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text, len(new), finished


class Partial:
    """The answers so far, in a file beside the output that outlives a killed job.

    Its first line says what the answers belong to; each other line is one batch, flushed to disk as it is finished.
    A last line cut by a kill is dropped, so its batch is answered again, as the same batch. The last line of a process
    that answered a share of the questions says how it did so: `facts`.
    """

    def __init__(self, path: Path, bound_to: str):
        self.path, self.bound_to = path, bound_to
        self.facts: dict[str, Any] = {}
        self.rows: dict[str, dict] = {}
        self.batch_size: int | None = None
        good = 0
        if path.exists():
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError
                    entry = json.loads(line)
                except ValueError:
                    print(f"{path}: its last line is cut and is dropped.", flush=True)
                    break
                if good == 0 and entry != {"bound_to": bound_to}:
                    print(f"{path}: answers to other prompts or settings found; starting over.", flush=True)
                    break
                good += len(line)
                if "rows" in entry:
                    self.rows |= {row["id"]: row for row in entry["rows"]}
                    self.batch_size = entry["batch_size"]
                self.facts = entry.get("facts", {})
        path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = path.open("r+b" if path.exists() else "w+b")
        self.stream.truncate(good)
        self.stream.seek(good)
        if good == 0:
            self._write({"bound_to": bound_to})

    def add(self, rows: list[dict], batch_size: int) -> None:
        """Keep the answers of one batch."""
        self.rows |= {row["id"]: row for row in rows}
        self.batch_size = batch_size
        self._write({"rows": rows, "batch_size": batch_size})

    def note(self, facts: dict[str, Any]) -> None:
        """Keep how the answers were made."""
        self._write({"facts": facts})

    def collect(self, path: Path) -> dict[str, Any]:
        """Take over the answers of another process, delete its file, and return its `facts`."""
        other = Partial(path, self.bound_to)
        fresh = [row for name, row in other.rows.items() if name not in self.rows]
        if fresh:
            self.add(fresh, min(size for size in (self.batch_size, other.batch_size) if size is not None))
        other.close(remove=True)
        return other.facts

    def _write(self, entry: dict) -> None:
        self.stream.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self.stream.flush()
        os.fsync(self.stream.fileno())

    def close(self, remove: bool) -> None:
        """Close the file; delete it if its answers are written elsewhere."""
        self.stream.close()
        if remove:
            self.path.unlink()


def numbers(groups: list[list[int]]) -> list[int]:
    """Return the number of each prompt's group."""
    of = {place: number for number, group in enumerate(groups) for place in group}
    return [of[place] for place in range(len(of))]


def in_order(encoded: list[list[int]], groups: list[int]) -> list[int]:
    """Return the places of the prompts in the order in which they are answered: group by group, the longest first."""
    return sorted(range(len(encoded)), key=lambda i: (groups[i], -len(encoded[i]), i))


def answer_all(
    rows: list[dict],
    encoded: list[list[int]],
    groups: list[int],
    answer: Callable[[list[list[int]], list[str], int, int], list[dict[str, Any]]],
    partial: Partial,
    batch_size: int,
) -> int:
    """Answer all prompts that `partial` does not hold yet, and return the batch size at the end.

    A batch is of one group; `groups` has the number of each prompt's. `answer` is given the token ids of a batch of
    prompts, the ids of their rows, their group, and the size of a full batch of that.

    Sorted by length, a batch has little padding; longest first, a batch too large for the memory shows at once. On
    CUDA out of memory the batch is halved and tried again, and stays so.

    Raises:
        UserError: one prompt alone does not fit the GPU's memory, or SIGTERM came; the answers so far are kept.
    """
    if partial.batch_size is not None:
        batch_size = min(batch_size, partial.batch_size)
    left = [i for i in in_order(encoded, groups) if rows[i]["id"] not in partial.rows]
    total, sizes = len(rows), Counter(groups)
    with tqdm(total=total, initial=total - len(left), desc="answers", mininterval=2) as progress, Sigterm() as sigterm:
        while left:
            group = groups[left[0]]
            chunk = [i for i in left[:batch_size] if groups[i] == group]
            answers, full = None, min(batch_size, sizes[group])
            try:
                answers = answer([encoded[i] for i in chunk], [rows[i]["id"] for i in chunk], group, full)
            except torch.cuda.OutOfMemoryError:
                if batch_size == 1:
                    raise UserError(
                        f"prompt of {rows[chunk[0]]['id']}: its {len(encoded[chunk[0]])} tokens do not fit the GPU's "
                        "memory. Set models.<name>.precision to nf4, or use a larger GPU."
                    ) from None
            if answers is None:  # outside the except block, whose error would keep the tensors alive
                torch.cuda.empty_cache()
                batch_size = max(1, min(batch_size, len(chunk)) // 2)
                print(f"Out of GPU memory: going on with batches of {batch_size}.", flush=True)
                continue
            partial.add([{"id": rows[i]["id"], **a} for i, a in zip(chunk, answers, strict=True)], batch_size)
            left = left[len(chunk) :]
            progress.update(len(chunk))
            if sigterm.came and left:
                raise UserError(
                    f"answers: stopped by SIGTERM (preemption or time limit) after {total - len(left)} of {total}. "
                    "They are kept; the next attempt goes on from there."
                )
    return batch_size


def load_prompts(prompts: str, record: str) -> tuple[dict, list[dict], Chat, list[list[int]]]:
    """Return the model record, the rows of the prompts file, the chat, and the ids of each prompt.

    Raises:
        UserError: no prompts, or a prompt with the wrong number of BOS.
    """
    base, rows = read_json(record), read_jsonl(prompts)
    if not rows:
        raise UserError(
            f"{prompts}: found no prompts, expected at least 1. See spider.dev_questions and mmlu.categories."
        )
    chat = load_chat(base)
    encoded = []
    for row in rows:
        ids, _ = chat.encode(row["prompt"])
        chat.check_bos(row["id"], ids)
        encoded.append(ids)
    return base, rows, chat, encoded


def answer_here(
    base: dict,
    rows: list[dict],
    chat: Chat,
    encoded: list[list[int]],
    partial: Partial,
    names: list[str],
    task: str,
    adapter_dir: str | Path | None,
    merge: bool,
    precision: str,
    batch_size: int | str,
    max_new_tokens: int,
    first_logits: bool,
    drawn: dict[str, Any] | None,
    strength: float,
) -> dict[str, Any]:
    """Answer the questions `names` on this process's card, those in `partial` excepted, and return how it was done.

    All prompts are given, not those questions alone: what they have in common, and the longest, decide how each is
    computed.
    """
    read, _ = import_module(task).prepare(chat)
    model = load_model(base, precision)
    if adapter_dir is not None:
        model = load_adapter(model, adapter_dir, merge, strength)
    set_greedy(model, chat, max_new_tokens)

    def draw(names: list[str]) -> LogitsProcessorList:
        return sampling(names, max_new_tokens, **drawn)

    decoder = Decoder(model, chat, encoded, max_new_tokens, first_logits, draw if drawn else None)
    wanted = set(names)
    mine = [i for i, row in enumerate(rows) if row["id"] in wanted]
    if batch_size == "auto":
        # As many batches as must be, of one size: the last one takes as long as a full one.
        batches = -(-len(mine) // decoder.fitting_rows())
        batch_size = -(-len(mine) // batches)
        print(f"Batches of {batch_size} prompts.", flush=True)
    done_before, start = len(partial.rows), time.perf_counter()
    with torch.inference_mode():
        batch_size = answer_all(
            [rows[i] for i in mine],
            [encoded[i] for i in mine],
            [decoder.groups[i] for i in mine],
            lambda *batch: read(chat, *decoder(*batch)),
            partial,
            min(batch_size, len(rows)),
        )
    seconds = time.perf_counter() - start
    decoder.close()
    card = {
        **machine(),
        "batch_size": batch_size,
        "questions": len(partial.rows) - done_before,
        "seconds": round(seconds, 3),
    }
    return {**decoder.facts(), "cards": [card]}


def answer_share(prompts: str, record: str, answers: str, bound_to: str, threads: int, **job) -> None:
    """Answer one card's share of the questions into the file `answers`; the rest as `answer_here`."""
    torch.set_num_threads(threads)
    partial = Partial(Path(answers), bound_to)
    try:
        partial.note(answer_here(*load_prompts(prompts, record), partial, **job))
    finally:
        partial.close(remove=False)


def predict(
    prompts: str,
    record: str,
    adapter_dir: str | Path | None,
    answers: str,
    report: str,
    precision: str,
    batch_size: int | str,
    max_new_tokens: int,
    task: str,
    first_logits: bool = False,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 42,
    merge_adapters: bool = False,
    strength: float = 1.0,
    cards: Sequence[str] = (),
) -> None:
    """Answer a prompts file and write answers, in the order of the prompts, and the report.

    Args:
        prompts: rendered prompts: JSON lines with `id` and `prompt`.
        record: the model record.
        adapter_dir: folder of the LoRA adapter, None for the base model.
        answers, report: the files to write. `<answers>.partial.jsonl` holds the answers so far, and
            `<answers>.partial.card<N>.jsonl` those of each of several cards.
        precision: fp32, bf16 or nf4.
        batch_size: prompts a batch, at most, or "auto" (see `Decoder.fitting_rows`).
        max_new_tokens: tokens to generate, at most.
        task: the module whose function `prepare`, given the chat, returns what reads answers off (`Read`), and facts
            for the report.
        first_logits: whether that wants the logits of the first new token.
        do_sample: draw each token at random instead of taking the likeliest.
        temperature, top_p, seed: of the drawing (see `sampling` and `Draw`); of no effect without it.
        merge_adapters: whether the adapter is merged into the weights (see `llm.load.load_adapter`).
        strength: what the adapter adds to the weights is multiplied by this.
        cards: as `common.gpus.take` returned them; several share the questions (see `llm.shards`).

    Raises:
        UserError: no prompts, a prompt with the wrong number of BOS, a precision that this machine cannot do, a
            temperature or top_p that nothing can be drawn with, the process of a card that was killed.
    """
    if do_sample and temperature <= 0:
        raise UserError(
            f"inference.temperature: found {temperature}, expected more than 0. For 0, set do_sample to false."
        )
    if do_sample and not 0 < top_p <= 1:
        raise UserError(f"inference.top_p: found {top_p}, expected more than 0 and at most 1.")
    base, rows, chat, encoded = load_prompts(prompts, record)
    _, facts = import_module(task).prepare(chat)
    settings = {"precision": precision, "batch_size": batch_size, "max_new_tokens": max_new_tokens}
    drawn = {"temperature": temperature, "top_p": top_p, "seed": seed} if do_sample else None
    if drawn:
        settings |= {"do_sample": True, **drawn}
    if merge_adapters and adapter_dir is not None:
        settings |= {"merge_adapters": True}
    if strength != 1:
        settings |= {"strength": strength}
    adapter = None
    if adapter_dir is not None:
        names = ("adapter_model.safetensors", "adapter_config.json")
        adapter = {name: sha256_file(Path(adapter_dir) / name) for name in names}
    identity = {
        "settings": settings,
        "prompts_sha256": sha256_file(prompts),
        "model": {key: base[key] for key in ("name", "source", "revision", "commit", "sha256")},
        "adapter_sha256": adapter,
        "versions": versions(),
    }
    bound_to = sha256_json({**identity, "on": machine()["device"]})
    partial = Partial(Path(f"{answers}.partial.jsonl"), bound_to)
    try:
        for path in partial_paths(answers):
            partial.collect(path)
        done_before = len(partial.rows)
        left = [row["id"] for row in rows if row["id"] not in partial.rows]
        job = {
            "task": task,
            "merge": merge_adapters,
            "adapter_dir": None if adapter_dir is None else str(adapter_dir),
            "precision": precision,
            "max_new_tokens": max_new_tokens,
            "first_logits": first_logits,
            "drawn": drawn,
            "strength": strength,
        }
        how: dict[str, Any] = {"cards": []}
        if left and len(cards) > 1:
            size = batch_size if partial.batch_size is None or batch_size == "auto" else partial.batch_size
            groups = numbers([list(range(len(rows)))] if drawn else alike(encoded, max_new_tokens))
            ordered: list[list[str]] = [[] for _ in range(max(groups) + 1)]
            for i in in_order(encoded, groups):
                if rows[i]["id"] not in partial.rows:
                    ordered[groups[i]].append(rows[i]["id"])
            shares, size = deal(ordered, len(cards), size)
            shared = {"prompts": prompts, "record": record, "bound_to": bound_to, "threads": torch.get_num_threads()}
            paths = [partial_path(answers, number) for number in range(len(shares))]
            run(
                cards,
                [
                    {**job, **shared, "batch_size": size, "answers": str(path), "names": share}
                    for path, share in zip(paths, shares, strict=True)
                ],
            )
            each = [partial.collect(path) for path in paths]
            how = {**each[0], "cards": [card for one in each for card in one["cards"]]}
        elif left:
            names = [row["id"] for row in rows]
            how = answer_here(base, rows, chat, encoded, partial, names, batch_size=batch_size, **job)
        answered = [partial.rows[row["id"]] for row in rows]
        write_jsonl(answers, answered)
        here, used = machine(), how["cards"]
        seconds = max((card["seconds"] for card in used), default=0.0)
        write_json(
            report,
            {
                **identity,
                **facts,
                **how,
                "template": chat.facts(),
                "answers_sha256": sha256_file(answers),
                "questions": len(rows),
                # A model that never ends its turn shows here; answers by letter have no such count.
                "finished": sum(row["finished"] for row in answered) if "finished" in answered[0] else None,
                "batch_size_used": partial.batch_size,
                "device": here["device"],
                "peak_memory_mib": max([card["peak_memory_mib"] for card in used] or [here["peak_memory_mib"]]),
                "answered_before_resuming": done_before,
                "seconds": seconds,
                "questions_per_second": round((len(rows) - done_before) / seconds, 3) if seconds else None,
            },
        )
    except BaseException:
        partial.close(remove=False)
        raise
    partial.close(remove=True)
