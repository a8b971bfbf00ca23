"""A model answers prompts: choose an engine, go batch by batch, keep each answer, share the work among GPUs."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from common.files import UserError, read_json, read_jsonl, sha256_file, sha256_json, write_json, write_jsonl
from common.job import STOPPED, Sigterm, versions
from llm import memory as _memory
from llm.adapters import file_hashes, load_adapter, merged, prove
from llm.chat import Chat, load_chat
from llm.decoding import Decoding, Encoded, Engine
from llm.generate_engine import GenerateEngine, ThinkingEngine
from llm.groups import alike, deal, longest_first, other_batches
from llm.load import load_model, machine, named, set_greedy
from llm.memory import CPU_ROWS, Shape
from llm.partial import Partial, share_paths
from llm.prefix_engine import PrefixEngine, fitting_rows
from llm.processes import run, serve
from llm.proof import prove as prove_engine

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
    maybe_none: bool = False  # whether there may be no prompts: of a second round, which none may need


class Asked(NamedTuple):
    """A job's model record, its chat, and its prompts in tokens."""

    record: dict
    chat: Chat
    prompts: list[Encoded]
    options: dict[str, list[int]]  # tokens of each option of the multiple-choice questions; {} for free text


def read(job: Job) -> Asked:
    """Read what a job asks; a UserError if there are no prompts, or one has the wrong number of BOS."""
    record, rows = read_json(job.record), read_jsonl(job.prompts)
    if not rows and not job.maybe_none:
        raise UserError(f"{job.prompts}: found no prompts, expected at least 1. Let the task ask more questions.")
    chat = load_chat(record)
    prompts = [Encoded(row["id"], chat.encode(row["prompt"])[0]) for row in rows]
    for prompt in prompts:
        chat.check_bos(*prompt)
    options = dict.fromkeys(option for row in rows for option in row.get("options", ()))
    return Asked(record, chat, prompts, chat.option_tokens(tuple(options)))


def load(asked: Asked, adapter: str | Path | None, decoding: Decoding) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load what answers: the model with its adapter, if any, set to greedy decoding; the proof that that acts."""
    across = "gpus" if outgrows(asked, decoding) else ""
    if across:
        print("The model outgrows one GPU: its layers are on several, one after the other.", flush=True)
    model, proof = load_model(asked.record, decoding.precision, decoding.quantization, across), {}
    if adapter is not None:
        model = load_adapter(model, adapter, strength=decoding.strength)
        if decoding.prove:
            prompts = [prompt.tokens for prompt in asked.prompts[:PROVEN_ON]]
            proof = {"adapter_acts": prove(model, prompts, adapter)}
        if decoding.merge_adapters:
            model = merged(model, adapter)
        else:
            from llm.fused import fuse  # imports PEFT, as loading an adapter does

            fuse(model, learning=False)
    set_greedy(model, asked.chat, decoding.max_new_tokens)
    return model, proof


def outgrows(asked: Asked, decoding: Decoding) -> bool:
    """Whether to answer the longest prompt alone needs more memory than one of the several GPUs here has."""
    count = torch.cuda.device_count()
    if count < 2:
        return False
    try:
        shape = Shape.of(read_json(Path(asked.record["path"]) / "config.json"))
    except KeyError:  # of a shape that nothing is known of
        return False
    tokens = max((len(prompt.tokens) for prompt in asked.prompts), default=0) + decoding.max_new_tokens
    needed = _memory.answering(shape, decoding.precision, 1, tokens, tokens)
    return needed > min(torch.cuda.get_device_properties(gpu).total_memory for gpu in range(count))


def choose(model: PreTrainedModel, chat: Chat, prompts: Sequence[list[int]], decoding: Decoding) -> Engine:
    """The prefix engine if it computes what the model means, else `generate`; log and facts of the engine say why."""
    if chat.thought.tokens:
        return ThinkingEngine(model, chat, prompts, decoding)
    reason = "answers are drawn at random" if decoding.do_sample else ""
    if getattr(model, "is_loaded_in_8bit", False):
        reason = "weights of 8 bits look for outliers, which a CUDA graph cannot"
    if decoding.reads_tokens:
        reason = "the tokens so far change what comes next"
    if not reason:
        engine = PrefixEngine(model, chat.stop_ids, prompts, decoding.max_new_tokens)
        if all(engine.prefixes):
            reason, engine.proof = prove_engine(engine, prompts)
            if not reason:
                return engine
            print(f"Prompts are answered by generate: the shared prefix is not for this model; {reason}.", flush=True)
        else:
            reason = "prompts begin unlike"
    return GenerateEngine(model, chat, prompts, decoding, reason)


def read_answers(
    chat: Chat, tokens: Mapping[str, list[int]], first: torch.Tensor, new: Sequence[list[int]]
) -> list[dict[str, Any]]:
    """Read the answers to a batch of prompts from what `Engine.answer` gives, and the `tokens` of each option.

    Returns:
        For each prompt: `answer`, `tokens` (the stop token counted) and `finished`; with options: `logprobs` (of the
        first token over the whole vocabulary, before any generation setting, summed over an option's tokens),
        `prediction` (the likeliest option) and `generated` (the text).
    """
    if not tokens:
        return [dict(zip(("answer", "tokens", "finished"), chat.decode(ids), strict=True)) for ids in new]
    first = first.log_softmax(dim=-1)
    scores = torch.stack([first[:, ids].logsumexp(dim=-1) for ids in tokens.values()], dim=-1).tolist()
    return [
        {
            "logprobs": dict(zip(tokens, row, strict=True)),
            "prediction": max(zip(row, tokens, strict=True), key=lambda pair: pair[0])[1],
            "generated": chat.decode(ids)[0],
        }
        for row, ids in zip(scores, new, strict=True)
    ]


def answer_all(
    prompts: Sequence[Encoded],
    groups: Sequence[Sequence[int]],
    answer: Callable[[list[Encoded], int, int], list[dict[str, Any]]],
    partial: Partial,
    batch_size: int,
) -> int:
    """Answer all prompts in `groups`, by their places and in this order, that `partial` does not hold yet.

    No batch mixes groups. `answer` is given a batch, its group, and the size of a full batch of that group. If the
    GPU's memory is too small for a batch, the batch is halved and tried again, and stays so.

    Returns:
        The size of a batch at the end.

    Raises:
        UserError: one prompt alone does not fit the GPU's memory, or SIGTERM came; the answers so far are kept.
    """
    if partial.batch_size is not None:
        batch_size = min(batch_size, partial.batch_size)
    every = [(number, prompts[i]) for number, group in enumerate(groups) for i in group]
    left, total = [(number, prompt) for number, prompt in every if prompt.id not in partial.rows], len(every)
    with tqdm(total=total, initial=total - len(left), desc="answers", mininterval=2) as progress, Sigterm() as sigterm:
        while left:
            group = left[0][0]
            batch, answers = [prompt for number, prompt in left[:batch_size] if number == group], None
            with suppress(torch.cuda.OutOfMemoryError):
                answers = answer(batch, group, min(batch_size, len(groups[group])))
            if answers is None:  # the error, which kept the tensors alive, is gone
                if batch_size == 1:
                    raise UserError(
                        f"prompt of {batch[0].id}: its {len(batch[0].tokens)} tokens do not fit the GPU's memory. Set "
                        "models.<name>.precision to nf4, or use a larger GPU."
                    )
                torch.cuda.empty_cache()
                batch_size = max(1, min(batch_size, len(batch)) // 2)
                print(f"Out of GPU memory: going on with batches of {batch_size}.", flush=True)
                continue
            partial.add([{"id": prompt.id, **a} for prompt, a in zip(batch, answers, strict=True)], batch_size)
            left = left[len(batch) :]
            progress.update(len(batch))
            if sigterm.came and left:
                raise UserError(
                    f"answers: {STOPPED} (preemption or time limit) after {total - len(left)} of {total}. "
                    "They are kept; the next attempt goes on from there."
                )
    return batch_size


def answer_here(
    job: Job, asked: Asked, partial: Partial, names: Sequence[str], batch_size: int | str
) -> dict[str, Any]:
    """Answer the questions `names` on this process's GPU, those in `partial` excepted; how it was done.

    All prompts of the job are given: what they have in common, and the longest, decide how each is computed.
    """
    wanted, tokens = set(names), [prompt.tokens for prompt in asked.prompts]
    model, proof = load(asked, job.adapter, job.decoding)
    engine = choose(model, asked.chat, tokens, job.decoding)
    mine = [[i for i in group if asked.prompts[i].id in wanted] for group in engine.groups]
    if batch_size == "auto":
        # As many batches as must be, of one size: the last one takes as long as a full one.
        most = CPU_ROWS
        if model.device.type == "cuda":
            torch.cuda.empty_cache()
            gpus = {weight.device for weight in model.parameters()}
            free = len(gpus) * min(torch.cuda.mem_get_info(gpu)[0] for gpu in gpus)
            most = fitting_rows(model, engine.longest, free)
        batches = -(-len(wanted) // most)
        batch_size = -(-len(wanted) // batches)
        print(f"Batches of {batch_size} prompts.", flush=True)
    if job.decoding.other_batches:
        mine, batch_size = other_batches(mine, batch_size)

    def answer(batch: list[Encoded], group: int, rows: int) -> list[dict[str, Any]]:
        return read_answers(asked.chat, asked.options, *engine.answer(batch, group, rows))

    done_before, start = len(partial.rows), time.perf_counter()
    with torch.inference_mode():
        batch_size = answer_all(asked.prompts, mine, answer, partial, min(batch_size, len(tokens)))
    seconds = round(time.perf_counter() - start, 3)
    engine.close()
    answered = len(partial.rows) - done_before
    gpu = {**machine(), "batch_size": batch_size, "questions": answered, "seconds": seconds}
    return {**engine.facts(), **proof, "gpus": [gpu]}


def answer_share(job: dict, answers: str, bound_to: str, names: list[str], batch_size: int | str) -> None:
    """Answer one GPU's share of the questions into the file `answers`; the rest as `answer_here`."""
    work, partial = Job(**job | {"decoding": Decoding(**job["decoding"])}), Partial(Path(answers), bound_to)
    try:
        partial.note(answer_here(work, read(work), partial, names, batch_size))
    finally:
        partial.close(remove=False)


def answer_on(
    gpus: Sequence[str], job: Job, prompts: Sequence[Encoded], partial: Partial, answers: str | Path
) -> dict[str, Any]:
    """Answer what `partial` does not hold yet on several GPUs, a process on each; how it was done."""
    size, tokens = job.decoding.batch_size, [prompt.tokens for prompt in prompts]
    if partial.batch_size is not None and size != "auto":
        size = partial.batch_size
    groups = [longest_first(tokens, range(len(tokens)))]
    if not job.decoding.do_sample:
        groups = alike(tokens, job.decoding.max_new_tokens)
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

    Answers are JSON lines as `read_answers` has them, with `id`. Several GPUs share the questions.
    `<answers>.partial.jsonl` holds the answers so far, and `<answers>.partial.gpu<N>.jsonl` those of each of several
    GPUs. The next run of the job collects them, on however many GPUs.
    """
    asked = read(job)
    names = [prompt.id for prompt in asked.prompts]
    identity = {
        "settings": job.decoding.effective(job.adapter is not None),
        "prompts_sha256": sha256_file(job.prompts),
        "model": named(asked.record),
        "adapter_sha256": None if job.adapter is None else file_hashes(job.adapter),
        "versions": versions(),
        **({"thinking_tokens": asked.chat.thought.tokens} if asked.chat.thought.tokens else {}),
    }
    made_of = identity | ({} if job.identity is None else {"settings": job.identity}) | {"on": machine()["device"]}
    partial = Partial(Path(f"{answers}.partial.jsonl"), sha256_json(made_of))
    finished = False
    try:
        for path in share_paths(answers):
            partial.collect(path)
        done_before, how = len(partial.rows), {"gpus": []}
        if done_before < len(names) and len(gpus) > 1 and not outgrows(asked, job.decoding):
            how = answer_on(gpus, job, asked.prompts, partial, answers)
        elif done_before < len(names):
            how = answer_here(job, asked, partial, names, job.decoding.batch_size)
        answered = [partial.rows[name] for name in names]
        write_jsonl(answers, answered)
        here, used = machine(), how["gpus"]
        seconds = max((gpu["seconds"] for gpu in used), default=0.0)
        letters = {option: asked.chat.tokenizer.convert_ids_to_tokens(ids) for option, ids in asked.options.items()}
        facts = {
            **({"letter_tokens": letters} if letters else {}),
            "template": asked.chat.facts(),
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
        }
        write_json(report, identity | how | facts)
        finished = True
    finally:
        partial.close(remove=finished)


def one_by_one(record: dict, adapter: str | Path | None, decoding: Decoding) -> Callable[[str], tuple[str, bool]]:
    """Load a model, and return what answers one prompt: the text, and whether the model ended it.

    Where answers are drawn at random, the prompt takes the place of a question's id: a question has one answer.
    """
    disable_progress_bar()  # of loading weights
    chat = load_chat(record)
    model, _ = load(Asked(record, chat, [], {}), adapter, replace(decoding, prove=False))

    def answer(prompt: str) -> tuple[str, bool]:
        tokens, _ = chat.encode(prompt)
        engine = choose(model, chat, [tokens], decoding)
        try:
            with torch.inference_mode():
                _, (new,) = engine.answer([Encoded(prompt, tokens)], 0, 1)
        finally:
            engine.close()
        text, _, finished = chat.decode(new)
        return text, finished

    return answer


if __name__ == "__main__":
    sys.exit(serve(answer_share))
