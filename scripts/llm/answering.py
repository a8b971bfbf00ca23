"""A model answers prompts: choose an engine, go batch by batch, keep each answer, share the work among GPUs."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from common.files import UserError, read_json, read_jsonl, sha256_file, sha256_json, write_json, write_jsonl
from common.job import Sigterm, versions
from llm.adapters import file_hashes, load_adapter, prove
from llm.chat import Chat, load_chat
from llm.decoding import Decoding, Encoded, Engine
from llm.generate_engine import GenerateEngine
from llm.groups import alike, deal, longest_first
from llm.load import load_model, machine, named, set_greedy
from llm.memory import CPU_ROWS
from llm.partial import Partial, share_paths
from llm.prefix_engine import PrefixEngine, fitting_rows, supports
from llm.processes import run, serve
from llm.reading import decode_new, option_tokens, read_answers

# Prompts on which a ready-made adapter is held against its base.
PROVEN_ON = 8
# What answers the share of one GPU.
PROGRAM = (sys.executable, "-m", "llm.answering")


@dataclass(frozen=True, slots=True)
class Job:
    """What to answer, and with what; plain values, so that a process on another GPU can be told."""

    prompts: str  # rendered: JSON lines with `id`, `prompt` and, of a multiple-choice question, `options`
    record: str  # of the model
    adapter: str | None  # folder of the LoRA adapter, None for the base model
    decoding: Decoding
    identity: Mapping[str, Any] | None = None  # what of the decoding answers belong to; None: all that has an effect


class Asked(NamedTuple):
    """A job's model record, its chat, and its prompts in tokens."""

    record: dict
    chat: Chat
    prompts: list[Encoded]
    options: dict[str, list[int]]  # tokens of each option of the multiple-choice questions; {} for free text


def read(job: Job) -> Asked:
    """Read what a job asks.

    Raises:
        UserError: no prompts, or a prompt with the wrong number of BOS.
    """
    record = read_json(job.record)
    chat = load_chat(record)
    rows = read_jsonl(job.prompts)
    prompts = [Encoded(row["id"], chat.encode(row["prompt"])[0]) for row in rows]
    if not prompts:
        raise UserError(f"{job.prompts}: found no prompts, expected at least 1. Let the task ask more questions.")
    for prompt in prompts:
        chat.check_bos(*prompt)
    options = dict.fromkeys(option for row in rows for option in row.get("options", ()))
    return Asked(record, chat, prompts, option_tokens(chat, tuple(options)))


def load(
    record: dict,
    chat: Chat,
    adapter: str | Path | None,
    decoding: Decoding,
    look: Callable[[PreTrainedModel], None] | None = None,
) -> PreTrainedModel:
    """Load what answers: the model of a record with its adapter, if any, set to greedy decoding."""
    model = load_model(record, decoding.precision, decoding.quantization)
    if adapter is not None:
        model = load_adapter(model, adapter, decoding.merge_adapters, decoding.strength, look)
    set_greedy(model, chat, decoding.max_new_tokens)
    return model


def choose(model: PreTrainedModel, chat: Chat, prompts: Sequence[list[int]], decoding: Decoding) -> Engine:
    """The prefix engine if it computes what the model means, else `generate`; the engine's facts say why."""
    reason = "answers are drawn at random" if decoding.do_sample else supports(model)
    if decoding.reads_tokens:
        reason = "the tokens so far change what comes next"
    if not reason:
        engine = PrefixEngine(model, chat.stop_ids, prompts, decoding.max_new_tokens)
        if all(engine.prefixes):
            return engine
        reason = "prompts begin unlike"
    return GenerateEngine(model, chat, prompts, decoding, reason)


def rows_that_fit(model: PreTrainedModel, engine: Engine) -> int:
    """How many prompts a batch may have: what the GPU's free memory takes, or `CPU_ROWS`."""
    if model.device.type != "cuda":
        return CPU_ROWS
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    return fitting_rows(model, engine.longest, free)


def answer_all(
    prompts: Sequence[Encoded],
    groups: Sequence[Sequence[int]],
    answer: Callable[[list[Encoded], int, int], list[dict[str, Any]]],
    partial: Partial,
    batch_size: int,
) -> int:
    """Answer all prompts that `partial` does not hold yet; the batch size at the end.

    If the GPU's memory is too small for a batch, the batch is halved and tried again, and stays so.

    Args:
        prompts, groups: of the run, and the places of those to answer, in this order; no batch mixes groups.
        answer: is given a batch, its group, and the size of a full batch of that group.
        partial, batch_size: where the answers go, and prompts a batch, at most.

    Raises:
        UserError: one prompt alone does not fit the GPU's memory, or SIGTERM came; the answers so far are kept.
    """
    if partial.batch_size is not None:
        batch_size = min(batch_size, partial.batch_size)
    every = [(number, prompts[i]) for number, group in enumerate(groups) for i in group]
    left = [(number, prompt) for number, prompt in every if prompt.id not in partial.rows]
    total = len(every)
    with tqdm(total=total, initial=total - len(left), desc="answers", mininterval=2) as progress, Sigterm() as sigterm:
        while left:
            group = left[0][0]
            batch = [prompt for number, prompt in left[:batch_size] if number == group]
            answers = None
            with suppress(torch.cuda.OutOfMemoryError):
                answers = answer(batch, group, min(batch_size, len(groups[group])))
            if answers is None and batch_size == 1:
                raise UserError(
                    f"prompt of {batch[0].id}: its {len(batch[0].tokens)} tokens do not fit the GPU's memory. Set "
                    "models.<name>.precision to nf4, or use a larger GPU."
                )
            if answers is None:  # the error, which kept the tensors alive, is gone
                torch.cuda.empty_cache()
                batch_size = max(1, min(batch_size, len(batch)) // 2)
                print(f"Out of GPU memory: going on with batches of {batch_size}.", flush=True)
                continue
            partial.add([{"id": prompt.id, **a} for prompt, a in zip(batch, answers, strict=True)], batch_size)
            left = left[len(batch) :]
            progress.update(len(batch))
            if sigterm.came and left:
                raise UserError(
                    f"answers: stopped by SIGTERM (preemption or time limit) after {total - len(left)} of {total}. "
                    "They are kept; the next attempt goes on from there."
                )
    return batch_size


def answer_here(
    job: Job, asked: Asked, partial: Partial, names: Sequence[str], batch_size: int | str
) -> dict[str, Any]:
    """Answer the questions `names` on this process's GPU, those in `partial` excepted; how it was done.

    All prompts of the job are given: what they have in common, and the longest, decide how each is computed.
    """
    record, chat, prompts, tokens = asked
    decoding, wanted = job.decoding, set(names)
    proof: dict[str, Any] = {}

    def look(adapted: PreTrainedModel) -> None:
        if decoding.prove:
            proof["adapter_acts"] = prove(adapted, [prompt.tokens for prompt in prompts[:PROVEN_ON]], job.adapter)

    model = load(record, chat, job.adapter, decoding, look)
    engine = choose(model, chat, [prompt.tokens for prompt in prompts], decoding)
    mine = [[i for i in group if prompts[i].id in wanted] for group in engine.groups]
    if batch_size == "auto":
        # As many batches as must be, of one size: the last one takes as long as a full one.
        batches = -(-len(wanted) // rows_that_fit(model, engine))
        batch_size = -(-len(wanted) // batches)
        print(f"Batches of {batch_size} prompts.", flush=True)

    def answer(batch: list[Encoded], group: int, rows: int) -> list[dict[str, Any]]:
        return read_answers(chat, tokens, *engine.answer(batch, group, rows))

    done_before, start = len(partial.rows), time.perf_counter()
    with torch.inference_mode():
        batch_size = answer_all(prompts, mine, answer, partial, min(batch_size, len(prompts)))
    seconds = time.perf_counter() - start
    engine.close()
    answered = len(partial.rows) - done_before
    gpu = {**machine(), "batch_size": batch_size, "questions": answered, "seconds": round(seconds, 3)}
    return {**engine.facts(), **proof, "gpus": [gpu]}


def answer_share(job: dict, answers: str, bound_to: str, names: list[str], batch_size: int | str) -> None:
    """Answer one GPU's share of the questions into the file `answers`; the rest as `answer_here`."""
    work = Job(**job | {"decoding": Decoding(**job["decoding"])})
    partial = Partial(Path(answers), bound_to)
    try:
        partial.note(answer_here(work, read(work), partial, names, batch_size))
    finally:
        partial.close(remove=False)


def answer_on(
    gpus: Sequence[str], job: Job, prompts: Sequence[Encoded], partial: Partial, answers: str | Path
) -> dict[str, Any]:
    """Answer what `partial` does not hold yet on several GPUs, a process on each; how it was done."""
    decoding, size = job.decoding, job.decoding.batch_size
    if partial.batch_size is not None and size != "auto":
        size = partial.batch_size
    tokens = [prompt.tokens for prompt in prompts]
    whole = [longest_first(tokens, range(len(tokens)))]
    groups = whole if decoding.do_sample else alike(tokens, decoding.max_new_tokens)
    left = [[prompts[i].id for i in group if prompts[i].id not in partial.rows] for group in groups]
    shares, size = deal(left, len(gpus), size)
    paths = [Path(f"{answers}.partial.gpu{number}.jsonl") for number in range(len(shares))]
    given = {"job": asdict(job), "bound_to": partial.bound_to, "batch_size": size}
    jobs = [given | {"answers": str(path), "names": share} for path, share in zip(paths, shares, strict=True)]
    run(PROGRAM, gpus, jobs, [{"OMP_NUM_THREADS": str(torch.get_num_threads())}] * len(jobs))
    each = [partial.collect(path) for path in paths]
    return {**each[0], "gpus": [gpu for one in each for gpu in one["gpus"]]}


def predict(job: Job, answers: str | Path, report: str | Path, gpus: Sequence[str] = ()) -> None:
    """Answer a prompts file; write the answers, in the order of the prompts, and the report.

    `<answers>.partial.jsonl` holds the answers so far, and `<answers>.partial.gpu<N>.jsonl` those of each of several
    GPUs. The next run of the job collects them, on however many GPUs.

    Answers are JSON lines as `llm.reading.read_answers` has them, with `id`. Several GPUs share the questions.

    Raises:
        UserError: no prompts, a prompt with the wrong number of BOS, a precision that this machine cannot do, the
            process of a GPU that was killed.
    """
    base, chat, prompts, tokens = asked = read(job)
    names = [prompt.id for prompt in prompts]
    identity = {
        "settings": job.decoding.effective(job.adapter is not None),
        "prompts_sha256": sha256_file(job.prompts),
        "model": named(base),
        "adapter_sha256": None if job.adapter is None else file_hashes(job.adapter),
        "versions": versions(),
    }
    made_of = identity | ({} if job.identity is None else {"settings": job.identity}) | {"on": machine()["device"]}
    partial = Partial(Path(f"{answers}.partial.jsonl"), sha256_json(made_of))
    finished = False
    try:
        for path in share_paths(answers):
            partial.collect(path)
        done_before, how = len(partial.rows), {"gpus": []}
        if done_before < len(names) and len(gpus) > 1:
            how = answer_on(gpus, job, prompts, partial, answers)
        elif done_before < len(names):
            how = answer_here(job, asked, partial, names, job.decoding.batch_size)
        answered = [partial.rows[name] for name in names]
        write_jsonl(answers, answered)
        here, used = machine(), how["gpus"]
        seconds = max((gpu["seconds"] for gpu in used), default=0.0)
        letters = {option: chat.tokenizer.convert_ids_to_tokens(ids) for option, ids in tokens.items()}
        write_json(
            report,
            {
                **identity,
                **({"letter_tokens": letters} if letters else {}),
                **how,
                "template": chat.facts(),
                "answers_sha256": sha256_file(answers),
                "questions": len(names),
                # A model that never ends its turn shows here; answers by letter have no such count.
                "finished": None if letters else sum(row["finished"] for row in answered),
                "batch_size_used": partial.batch_size,
                "device": here["device"],
                "peak_memory_mib": max([gpu["peak_memory_mib"] for gpu in used] or [here["peak_memory_mib"]]),
                "answered_before_resuming": done_before,
                "seconds": seconds,
                "questions_per_second": round((len(names) - done_before) / seconds, 3) if seconds else None,
            },
        )
        finished = True
    finally:
        partial.close(remove=finished)


def one_by_one(record: dict, adapter: str | Path | None, decoding: Decoding) -> Callable[[str], tuple[str, bool]]:
    """Load a model, and return what answers one prompt: the text, and whether the model ended it.

    Where answers are drawn at random, the prompt takes the place of a question's id: a question has one answer.
    """
    disable_progress_bar()  # of loading weights
    chat = load_chat(record)
    model = load(record, chat, adapter, decoding)

    def answer(prompt: str) -> tuple[str, bool]:
        tokens, _ = chat.encode(prompt)
        engine = choose(model, chat, [tokens], decoding)
        try:
            with torch.inference_mode():
                _, (new,) = engine.answer([Encoded(prompt, tokens)], 0, 1)
        finally:
            engine.close()
        text, _, finished = decode_new(chat, new)
        return text, finished

    return answer


if __name__ == "__main__":
    sys.exit(serve(answer_share))
