"""How large micro-batches may be, and whether activations must be computed twice: measured on the GPU."""

import os

# Micro-batches differ in length; memory that is cut into fixed pieces would run out early.
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from common.files import UserError, read_json, write_json
from llm.attention import failed
from llm.labels import IGNORED
from llm.load import device
from llm.memory import SPARE
from llm.packing import HALF, pack
from llm.shared import Row, taken
from llm.trainer import FullTrainer, Trainer

# A micro-batch of more tokens is no faster for it.
MOST_TOKENS = 16384


def settle(trainer: Trainer, training: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """How the trainer is to compute a step, as `Trainer.use` takes it.

    That is tokens_per_pass, of which a micro-batch computes at most so many; shared_tokens, those with which its rows
    begin; gradient_checkpointing; and rows_per_step. It is measured once and kept in `file`: a training that is resumed
    goes on as it began. With `mode: fast`, a step has as many rows as fit a micro-batch.
    """
    arguments = trainer.args
    # A divided model is measured by all processes together.
    together = fit(trainer) if trainer.divided and not file.is_file() else None
    with arguments.main_process_first(local=False):
        if not file.is_file():
            found, rows = (
                together or fit(trainer),
                arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps,
            )
            if training.get("mode") == "fast":
                all_rows = rows_in(trainer)
                given = taken(all_rows, trainer.start)
                own = sum(len(ids) for ids, _ in all_rows) - sum(given)
                left = found["tokens_per_pass"] - max(given)
                rows = max(rows, arguments.world_size * left * len(all_rows) // own)
            write_json(file, found | {"shared_tokens": len(trainer.start), "rows_per_step": rows})
    return {"shared_tokens": 0} | read_json(file)


def prove_loss(trainer: Trainer, source: str) -> None:
    """Refuse a model whose losses TRL, which computes the head by itself, computes otherwise than the model.

    Held against each other are the mean losses of the shortest row, as far apart as rounding leaves them. Nothing of
    this is left in the trainer.
    """
    ids, labels = min(rows_in(trainer), key=lambda row: len(row[0]))
    batch = trainer.data_collator([{"input_ids": ids, "labels": labels}])
    batch = {key: x.to(trainer.args.device) if torch.is_tensor(x) else x for key, x in batch.items()}
    learnt = torch.tensor([i for i, label in enumerate(labels) if i and label != IGNORED])
    model, refused = trainer.model, f"training: TRL cannot train {source}"
    remedy = "Take a model of another family: docs/families.md lists those that were tried."
    if trainer.aux_loss_enabled:
        remedy = "Set training.router_aux_loss_coef to 0, which leaves out the loss of its routers."
    model.eval()
    try:
        with torch.no_grad(), trainer.measuring(), trainer.accelerator.autocast():
            _, found = trainer.compute_loss(model, dict(batch), return_outputs=True)
            logits = model(**{key: x for key, x in batch.items() if key != "labels"}, use_cache=False).logits[0]
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            return  # which training itself will say
        raise UserError(f"{refused} ({failed(error)}). {remedy}") from None
    finally:
        model.train()
    if getattr(found, "log_probs", None) is None:  # the model's own forward
        return
    theirs = -(found.log_probs.sum() / found.label_mask.sum()).item()
    meant = torch.nn.functional.cross_entropy(logits[learnt - 1].float().cpu(), torch.tensor(labels)[learnt]).item()
    if not abs(theirs - meant) <= (HALF if trainer.args.bf16 or trainer.args.fp16 else 1e-3) * max(1, meant):
        raise UserError(f"{refused}: its loss is {theirs:.4g}, and by the model itself {meant:.4g}. {remedy}")


def rows_in(trainer: Trainer) -> list[Row]:
    """The rows of the training set."""
    data = trainer.train_dataset
    return [*zip(data["input_ids"], data["labels"], strict=True)]


def fit(trainer: Trainer) -> dict[str, Any]:
    """Measure how many tokens a micro-batch may have, and whether it must compute activations twice (checkpointing).

    On a GPU, two micro-batches of rows of the training set are measured: memory grows linearly with the tokens that are
    computed. Only if the longest row does not fit otherwise, activations are computed twice; if it does not then, that
    is a UserError. On a CPU, a micro-batch has as many tokens as per_device_train_batch_size of the longest rows.
    """
    arguments, model = trainer.args, trainer.model
    longest = max(map(len, trainer.train_dataset["input_ids"]))
    if device().type != "cuda":
        rows = arguments.per_device_train_batch_size
        return {"tokens_per_pass": rows * longest, "gradient_checkpointing": arguments.gradient_checkpointing}
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        with torch.random.fork_rng(devices=[device()]):
            sizes = (max(longest, 1024), 2 * max(longest, 1024))
            peaks = [peak(trainer, size) for size in sizes]
        torch.cuda.empty_cache()
        # The measured peaks hold the gradients, but not the optimizer's two states of each weight.
        free, total = torch.cuda.mem_get_info()
        allowed = min(torch.cuda.memory_allocated() + free, torch.cuda.get_per_process_memory_fraction() * total)
        usable = (1 - SPARE) * allowed - 8 * trainable
        if trainer.divided:
            peaks, usable = agree(peaks, usable)
        if peaks[0] is None or peaks[0] > usable:
            continue
        tokens = sizes[0]
        if peaks[1] is not None and peaks[1] > peaks[0]:
            slope = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
            tokens += int((usable - peaks[0]) / slope)
        return {"tokens_per_pass": min(tokens, max(MOST_TOKENS, longest)), "gradient_checkpointing": checkpointing}
    remedy = "Set models.<name>.precision to nf4, "
    if isinstance(trainer, FullTrainer):
        remedy = "Set training.method to lora, "
    elif not getattr(model, "is_loaded_in_8bit", False):
        remedy += (
            f"give the job {2 * arguments.world_size} GPUs (--set-resources train:gpu={2 * arguments.world_size}), "
        )
    raise UserError(
        f"training: a row of {longest} tokens does not fit into the GPU's memory, not even with gradient "
        f"checkpointing. {remedy}or shorten the prompts."
    )


def agree(peaks: Sequence[int | None], usable: float) -> tuple[list[int | None], float]:
    """The largest peaks that any process has measured, None where one had too little memory, and the least usable."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, (*peaks, usable))
    *every, least = zip(*found, strict=True)
    return [None if None in of_all else max(of_all) for of_all in every], min(least)


def peak(trainer: Trainer, tokens: int) -> int | None:
    """Measure the most bytes of GPU memory in a micro-batch that computes `tokens`, None if there was not enough.

    Of rows with a shared prefix, those that come first are taken: their gathered keys and values need memory too,
    and the shorter a row's rest, the more of it for each of its tokens. Without one, the longest rows are taken.
    """
    data, start = rows_in(trainer), list(trainer.start)
    given = taken(data, start)
    if start:
        rests = [ids[n:] for (ids, _), n in zip(data, given, strict=True) if n]
    else:
        rests = sorted((ids for ids, _ in data), key=len, reverse=True)
    rows, left = [], tokens - len(start)
    following = itertools.cycle(rests)
    while left > 0:
        rest = next(following)[:left]
        rows.append((start + rest, [IGNORED] * (len(start) + 1) + rest[1:]))
        left -= len(rest)
    batch = pack(rows, trainer.args.device, start)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer.model.train()  # with dropout, and checkpointing, which is off in evaluation
    try:
        with trainer.measuring(), trainer.accelerator.autocast():
            trainer.compute_loss(trainer.model, batch, num_items_in_batch=tokens).backward()
        return torch.cuda.max_memory_allocated()
    except torch.cuda.OutOfMemoryError:
        return None
