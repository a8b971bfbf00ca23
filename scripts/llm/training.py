"""The training of one adapter: thin over TRL's SFTTrainer, with checkpoints that belong to their settings."""

import os

# Passes differ in length; memory that is cut into fixed pieces would run out early.
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

import difflib
import itertools
import json
import math
import pickle
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset, concatenate_datasets
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback, set_seed
from transformers.integrations.liger import apply_liger_kernel
from transformers.trainer_pt_utils import LengthGroupedSampler, safe_globals
from transformers.utils import is_liger_kernel_available
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from common.files import (
    ADAPTER_FILES,
    UserError,
    atomic_write,
    read_json,
    read_jsonl,
    sha256_file,
    sha256_json,
    write_json,
)
from common.job import Sigterm, versions
from llm.chat import load_chat
from llm.checkpoints import SaveOnSigterm
from llm.labels import IGNORED, build_dataset, check_labels, check_target, rows_of, with_labels
from llm.load import device, load_model, machine
from llm.packing import Collator, keep_apart, pack, passes

# Keys of `training` that SFTConfig does not get.
OUR_KEYS = ("mode", "truncate", "early_stopping_patience", "report_to")
# Of the GPU's memory, for what is not measured: libraries, and pieces too small to be used.
SPARE = 0.06
# A pass of more tokens is no faster for it.
MOST_TOKENS = 16384


def training_arguments(training: dict[str, Any], precision: str, checkpoints: str | Path) -> SFTConfig:
    """Return TRL's arguments: the study's `training` keys as they are, and what this workflow fixes.

    Raises:
        UserError: a key that SFTConfig does not have, one that the workflow sets itself, or a value it refuses.
    """
    cuda = device().type == "cuda"
    strategy = training.get("eval_strategy", "no")
    fixed = {
        "output_dir": str(checkpoints),
        # Weights in fp32 compute in fp32; else autocast to bf16 around fp32 adapter weights. fp16 overflows in models
        # that were made in bf16.
        "bf16": precision != "fp32",
        "fp16": False,
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        # Rows of a packed batch would attend to each other without a varlen attention kernel.
        "packing": False,
        "padding_free": False,
        "completion_only_loss": True,
        "assistant_only_loss": False,
        # An evaluation must not lie between a checkpoint and the next step: a resumed run would leave it out.
        "save_strategy": "epoch" if strategy == "epoch" else "steps",
        "save_only_model": False,
        # The evaluations without a better one so far.
        "restore_callback_states_from_checkpoint": training.get("early_stopping_patience") is not None,
        # A loss of nan must be seen, not averaged away.
        "logging_nan_inf_filter": False,
        "push_to_hub": False,
        "disable_tqdm": False,
    }
    names = {field.name for field in fields(SFTConfig) if field.init}
    _check_evaluation(training, strategy)
    if training.get("report_to", "none") not in ("none", "tensorboard"):
        raise UserError(f"training.report_to: found {training['report_to']!r}, expected none or tensorboard.")
    optim = str(training.get("optim", ""))
    if not cuda and any(part in optim for part in ("8bit", "32bit", "bnb", "paged", "lion", "ademamix")):
        raise UserError(
            f"training.optim: {optim} is an optimizer of bitsandbytes, which needs a CUDA GPU, and none is visible. "
            "Set it to adamw_torch."
        )
    for key in training:
        if key == "fp16":
            raise UserError(
                "training.fp16: half precision overflows in models that were made in bf16. Remove the key and set "
                "models.<name>.precision to bf16."
            )
        if key in fixed:
            raise UserError(f"training.{key}: set by the workflow to {fixed[key]!r}. Remove the key.")
        if key not in names and key not in OUR_KEYS:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"training.{key}: no such option of TRL's SFTConfig.{hint}")
    options = {"save_total_limit": 2} | {key: value for key, value in training.items() if key not in OUR_KEYS}
    if strategy != "steps":
        options.pop("eval_steps", None)
    try:
        # The study's report_to is served by a callback of ours, whose folder does not move with the checkpoints.
        return SFTConfig(**options, **fixed, report_to="none")
    except (ValueError, TypeError) as error:
        raise UserError(f"training: SFTConfig refuses these values ({error}).") from None


def _check_evaluation(training: dict[str, Any], strategy: str) -> None:
    """Raise a UserError for keys about evaluation that contradict each other."""
    limit, patience = training.get("save_total_limit", 2), training.get("early_stopping_patience")
    if limit is not None and limit < 2:
        raise UserError(
            f"training.save_total_limit: found {limit}, expected at least 2: a checkpoint that a kill has cut needs "
            "one before it."
        )
    if strategy == "no" and training.get("load_best_model_at_end"):
        raise UserError(
            'training.load_best_model_at_end: needs evaluations, found eval_strategy: "no". Set it to steps.'
        )
    if patience is not None and not training.get("load_best_model_at_end"):
        raise UserError(
            f"training.early_stopping_patience: found {patience}, expected null without load_best_model_at_end: the "
            "last weights are by then the worse ones. Set load_best_model_at_end to true."
        )


def lora_config(lora: dict[str, Any], model: torch.nn.Module) -> LoraConfig:
    """Return PEFT's configuration of the adapter.

    Raises:
        UserError: a target module that the model does not have; the message lists those it has.
    """
    modules = lora["target_modules"]
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    if not isinstance(modules, str):
        unknown = [m for m in modules if not any(name == m or name.endswith(f".{m}") for name in linear)]
        if unknown:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise UserError(f"lora.target_modules: found {', '.join(unknown)}, expected linear layers: {known}.")
        modules = sorted(modules)
    try:
        return LoraConfig(**{**lora, "target_modules": modules}, bias="none", task_type="CAUSAL_LM")
    except (ValueError, TypeError) as error:
        raise UserError(f"lora: LoraConfig refuses these values ({error}).") from None


def fuse_kernels(model: PreTrainedModel) -> str:
    """Put Liger's fused norms, rotations and gates into a model in half precision on a GPU; return "liger" if it did.

    The head and its loss are TRL's own fused ones.
    """
    if device().type != "cuda" or model.dtype == torch.float32 or not is_liger_kernel_available():
        return ""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return ""
    apply_liger_kernel(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})
    return "liger"


def last_checkpoint(folder: Path, bound_to: str) -> Path | None:
    """Return the newest complete checkpoint made with the settings whose hash is `bound_to`, and delete all others.

    The best checkpoint that it knows of is kept too. A job killed while it writes leaves a checkpoint whose files are
    missing or cut; the one before is then taken. Checkpoints of other settings, data or library versions are wiped.
    """
    mark = folder / "settings.json"
    try:
        made_with = json.loads(mark.read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        made_with = None
    if made_with != bound_to:
        if list(folder.glob("checkpoint-*")):
            print(f"{folder}: found checkpoints of other settings; deleted.", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        write_json(mark, {"sha256": bound_to})
        return None
    found, best = None, None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.partition("-")[2])):
        if found is None and _complete(checkpoint) and _complete(best_checkpoint(checkpoint) or checkpoint):
            found, best = checkpoint, best_checkpoint(checkpoint)
        elif checkpoint != best:
            print(f"{checkpoint}: {'older' if found else 'incomplete, deleted; the one before is used'}.", flush=True)
            shutil.rmtree(checkpoint)
    return found


def best_checkpoint(checkpoint: Path) -> Path | None:
    """Return the checkpoint with the best evaluation up to `checkpoint`, None if there was no evaluation."""
    step = read_json(checkpoint / "trainer_state.json")["best_global_step"]
    return checkpoint.with_name(f"checkpoint-{step}") if step else None


def _complete(checkpoint: Path) -> bool:
    """Return whether all files of a checkpoint can be read. The trainer writes trainer_state.json last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
        with safe_open(checkpoint / "adapter_model.safetensors", "pt") as tensors:
            tensors.keys()
        torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
        torch.load(checkpoint / "scheduler.pt", weights_only=True)
        with safe_globals():
            torch.load(checkpoint / "rng_state.pth", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError):
        return False
    return True


class LogWithSave(TrainerCallback):
    """Log whenever a checkpoint is saved, and save one at each evaluation.

    The trainer's running mean of the loss is not part of a checkpoint. Emptied at each of them, it is the same in a
    run that was interrupted as in one that was not. The best evaluation must have its checkpoint, and training may stop
    at any of them.
    """

    def on_step_end(self, args, state, control, **kwargs):
        """Ask for a checkpoint if this step will be evaluated, and for a log entry if it will be saved."""
        control.should_save |= control.should_evaluate
        control.should_log |= control.should_save
        return control

    def on_epoch_end(self, args, state, control, **kwargs):
        """Ask for a log entry if this epoch will be saved."""
        control.should_log |= control.should_save
        return control


class KeepSteps(TrainerCallback):
    """Keep the adapter of some optimizer steps, each in a folder of its number, whatever checkpoints are deleted.

    Args:
        folder: where; inside the folder of the checkpoints, so that it outlives a kill and goes with other settings.
        steps: which.
        source: the base model's, for `write_adapter`.
    """

    def __init__(self, folder: Path, steps: Sequence[int], source: str):
        self.folder, self.steps, self.source = folder, set(steps), source

    def missing(self, until: int) -> list[int]:
        """Return the steps up to this one of which no adapter is kept."""
        # The configuration is written last.
        return [s for s in sorted(self.steps) if s <= until and not (self.folder / f"{s}/adapter_config.json").exists()]

    def on_train_begin(self, args, state, control, **kwargs):
        """Refuse steps that this training does not have."""
        late = [step for step in sorted(self.steps) if step > state.max_steps]
        if late:
            raise UserError(
                f"training.kept_steps: found {late[0]}, but this training has {state.max_steps} optimizer steps. "
                "Remove it, or lower it."
            )

    def on_step_end(self, args, state, control, **kwargs):
        """Ask for a checkpoint of a step that is to be kept."""
        control.should_save |= state.global_step in self.steps
        return control

    def on_save(self, args, state, control, **kwargs):
        """Keep the adapter of the checkpoint just written."""
        if state.is_world_process_zero:
            self.keep(Path(args.output_dir, f"checkpoint-{state.global_step}"))

    def keep(self, checkpoint: Path) -> None:
        """Keep the adapter of a checkpoint, if it is one of a step that is to be kept."""
        step = int(checkpoint.name.partition("-")[2])
        if step in self.steps:
            write_adapter(checkpoint, self.folder / str(step), self.source)


class EpochLengths(LengthGroupedSampler):
    """Rows of about the same length together, in an order that is drawn for each epoch by itself.

    transformers draws it from the global generator, whose state at the start of an epoch a run that is resumed within
    that epoch does not know.
    """

    def __init__(self, *args, seed: int, **kwargs):
        super().__init__(*args, **kwargs, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch next; the trainer calls it."""
        self.generator.manual_seed(self.seed + epoch)


class Marking:
    """Makes a batch by another collator, and says of each of its rows whether it is replayed, where examples do."""

    def __init__(self, collator):
        self.collator = collator

    def __call__(self, examples: Sequence[dict]) -> dict:
        """Return the batch, with `replay`, bool (rows), if the examples have it."""
        batch = self.collator([{key: example[key] for key in ("input_ids", "labels")} for example in examples])
        marks = [example["replay"] for example in examples if "replay" in example]
        return batch | ({"replay": torch.tensor(marks)} if marks else {})


class Trainer(SFTTrainer):
    """TRL's trainer, but for the sampler that groups by length, for the passes of a step, and for replayed rows.

    With `tokens_per_pass`, a batch is all the rows of an optimizer step, in each process. They are divided into passes
    of at most so many tokens, which changes the gradient by rounding only: the loss is the sum over the step's labels
    divided by their number.

    With `kl`, the loss at each label of a replayed row is its cross entropy and `kl` times KL(base || tuned) there; the
    sum is divided by the same number, that of all the step's labels. The term is computed in passes of its own, of
    these rows alone and of logits at their labels alone; the base is the model with its adapter switched off.
    """

    tokens_per_pass: int | None = None
    kl: float = 0.0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Of this process, since the last log: sums over the labels of replayed rows, and how many these were.
        self._replayed = {"kl": 0.0, "loss": 0.0, "labels": 0}

    def get_train_dataloader(self):
        """Return the loader; each process sees every row of a step, since `training_step` divides them."""
        loader = super().get_train_dataloader()
        if self.tokens_per_pass and isinstance(loader.batch_sampler, BatchSamplerShard):
            loader.batch_sampler.num_processes, loader.batch_sampler.process_index = 1, 0
        return loader

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Compute the gradient of one step, in passes; out of GPU memory, in smaller ones from then on."""
        marks = inputs.pop("replay", None)
        rows = rows_of(inputs) if self.tokens_per_pass or marks is not None else []
        replayed = [] if marks is None else list(itertools.compress(rows, marks.tolist()))
        if not self.tokens_per_pass:
            term = self._diverge(model, [[row] for row in replayed], num_items_in_batch)
            return term + super().training_step(model, inputs, num_items_in_batch)
        labels = sum(label != IGNORED for _, row in rows for label in row)
        while True:
            try:
                return self._step(model, rows, replayed, torch.tensor(labels, device=self.args.device))
            except torch.cuda.OutOfMemoryError:
                longest = max(len(ids) for ids, _ in rows)
                if self.args.world_size > 1 or self.tokens_per_pass <= longest:
                    raise
                self.tokens_per_pass = max(longest, self.tokens_per_pass // 2)
                print(f"Out of GPU memory: going on with {self.tokens_per_pass} tokens a pass.", flush=True)
            model.zero_grad()
            torch.cuda.empty_cache()

    def _step(self, model, rows, replayed, labels):
        def divide(rows):
            return passes(rows, self.tokens_per_pass, self.args.world_size)[self.args.process_index]

        loss = self._diverge(model, divide(replayed) if replayed else [], labels)
        divided = divide(rows)
        for number, part in enumerate(divided, 1):
            # The processes add up their gradients once.
            waiting = self.accelerator.no_sync(model) if number < len(divided) else nullcontext()
            with waiting:
                loss += super().training_step(model, pack(part, self.args.device), labels)
        return loss

    def _diverge(self, model, parts, labels):
        """Add the gradient of the KL term to the model's, and return the term.

        Args:
            model: as accelerate has wrapped it.
            parts: passes of replayed rows, those of this process.
            labels: how many the step has, in all rows and processes.
        """
        inner, device = self.accelerator.unwrap_model(model), self.args.device
        term = torch.zeros((), device=device)
        for part in parts:
            batch = pack(part, device)
            targets = batch.pop("labels")[0]
            at = (targets != IGNORED).nonzero()[:, 0]
            if not len(at):
                continue
            if not self.tokens_per_pass:  # attention that knows nothing of rows in one pass
                batch = {"input_ids": batch["input_ids"]}
            given = batch | {"logits_to_keep": at - 1, "use_cache": False}
            # By the model without its wrapper: processes with other numbers of passes do not wait for each other here,
            # and add these gradients up with those of their last pass.
            with self.accelerator.no_sync(model), self.compute_loss_context_manager():
                inner.eval()
                with torch.no_grad(), inner.disable_adapter():
                    base = inner(**given).logits[0].float().log_softmax(-1)
                inner.train()
                tuned = inner(**given).logits[0].float().log_softmax(-1)
                divergence = F.kl_div(tuned, base, reduction="sum", log_target=True)
                # Gradients are averaged over the processes.
                loss = self.kl * divergence / labels * self.args.world_size
                self.accelerator.backward(loss)
            term += loss.detach()
            self._replayed["kl"] += divergence.item()
            self._replayed["loss"] += F.nll_loss(tuned.detach(), targets[at], reduction="sum").item()
            self._replayed["labels"] += len(at)
        return term

    def log(self, logs, start_time=None):
        """Log the means over the labels of the rows replayed since the last log beside the loss: KL, cross entropy."""
        if self.kl and "loss" in logs:
            sums = torch.tensor([*self._replayed.values()], dtype=torch.float64, device=self.args.device)
            kl, loss, labels = self.accelerator.reduce(sums, "sum").tolist()
            if labels:
                logs |= {"replay_kl": kl / labels, "replay_loss": loss / labels}
            self._replayed = dict.fromkeys(self._replayed, 0)
        super().log(logs, start_time)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if "replay" not in self._signature_columns:
            self._signature_columns.append("replay")

    def _get_train_sampler(self, train_dataset=None):
        sampler = super()._get_train_sampler(train_dataset)
        if isinstance(sampler, LengthGroupedSampler):
            sampler = EpochLengths(sampler.batch_size, lengths=sampler.lengths, seed=self.args.seed)
        return sampler


def fit(trainer: Trainer) -> dict[str, Any]:
    """Return how many tokens a pass may have, and whether it must compute activations twice (checkpointing).

    On a GPU, two passes of rows of the training set are measured: memory grows linearly with tokens. Only if the
    longest row does not fit otherwise, activations are computed twice. On a CPU, a pass has as many tokens as
    per_device_train_batch_size of the longest rows.

    Raises:
        UserError: the longest row does not fit into the GPU's memory.
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
            peaks = [_peak(trainer, size) for size in sizes]
        torch.cuda.empty_cache()
        # Gradients have been there in the measured passes; two states of each weight have not.
        free, total = torch.cuda.mem_get_info()
        allowed = min(torch.cuda.memory_allocated() + free, torch.cuda.get_per_process_memory_fraction() * total)
        usable = (1 - SPARE) * allowed - 8 * trainable
        if peaks[0] is None or peaks[0] > usable:
            continue
        tokens = sizes[0]
        if peaks[1] is not None and peaks[1] > peaks[0]:
            slope = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
            tokens += int((usable - peaks[0]) / slope)
        return {"tokens_per_pass": min(tokens, max(MOST_TOKENS, longest)), "gradient_checkpointing": checkpointing}
    raise UserError(
        f"training: a row of {longest} tokens does not fit into the GPU's memory, not even with gradient "
        "checkpointing. Set models.<name>.precision to nf4, or shorten the prompts."
    )


def _peak(trainer: Trainer, tokens: int) -> int | None:
    """Return the most bytes of GPU memory in one pass of `tokens`, None if there was not enough."""
    rows, left = [], tokens
    by_length = sorted(trainer.train_dataset, key=lambda row: -len(row["input_ids"]))
    for row in itertools.cycle(by_length):
        ids = list(row["input_ids"])[:left]
        rows.append((ids, list(ids)))
        left -= len(ids)
        if left == 0:
            break
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    trainer.model.train()  # with dropout, and checkpointing, which is off in evaluation
    # The other processes wait meanwhile: the loss must not ask them for their part of its metrics.
    trainer.accelerator.gather_for_metrics = lambda tensor: tensor
    try:
        with trainer.accelerator.autocast():
            trainer.compute_loss(trainer.model, pack(rows, trainer.args.device), num_items_in_batch=tokens).backward()
        return torch.cuda.max_memory_allocated()
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        del trainer.accelerator.gather_for_metrics
        trainer.model.zero_grad(set_to_none=True)
        trainer._metrics["train"].clear()
        trainer._total_train_tokens = 0


def tensorboard(folder: Path, first_step: int) -> TrainerCallback:
    """Return the callback that logs to `folder`; what a killed run logged after `first_step` is dropped from view.

    Raises:
        UserError: the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # imports as much as training itself does
    except ImportError:
        raise UserError(
            "training.report_to: tensorboard is not installed. Install requirements.txt, or set it to none."
        ) from None
    from transformers.integrations import TensorBoardCallback

    if first_step == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of other settings
    return TensorBoardCallback(SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else None))


def write_adapter(checkpoint: Path, folder: Path, source: str) -> dict[str, str]:
    """Write the adapter of a checkpoint as files that are the same, bit for bit, wherever they were made.

    Returns:
        The SHA-256 of each file by its name.

    Raises:
        UserError: a weight is not finite, so the training has diverged.
    """
    config = read_json(checkpoint / "adapter_config.json")
    config["base_model_name_or_path"] = source  # not the folder on this machine
    # PEFT keeps modules as a set, whose order changes from process to process.
    config = {
        key: sorted(value) if key == "target_modules" and isinstance(value, list) else value
        for key, value in config.items()
    }
    with safe_open(checkpoint / "adapter_model.safetensors", "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - no mapping, it cannot be iterated over
            if not tensors.get_tensor(name).isfinite().all():
                raise UserError(f"training: weight {name} is not finite: the training diverged. Lower learning_rate.")
    with atomic_write(folder / "adapter_model.safetensors", "wb") as stream:
        stream.write((checkpoint / "adapter_model.safetensors").read_bytes())
    write_json(folder / "adapter_config.json", config)
    return {name: sha256_file(folder / name) for name in ADAPTER_FILES}


def train(
    prompts: str,
    audit: str,
    record: str,
    adapter_dir: str | Path,
    report: str,
    precision: str,
    lora: dict[str, Any],
    training: dict[str, Any],
    train_target: str = "sql",
    accept_defect: Sequence[str] = (),
    validation: str | None = None,
    tensorboard_dir: str | Path | None = None,
    kept_steps: Sequence[int] = (),
    replay: dict[str, float] | None = None,
    replay_prompts: str | None = None,
    replay_audit: str | None = None,
) -> None:
    """Train one adapter, or finish what a killed job began.

    Checkpoints lie beside the report, in checkpoints/, until the adapter is written. A resumed training ends with the
    same weights as an uninterrupted one: data order, optimizer, schedule and random states go on where they were.

    Args:
        prompts: rendered training prompts.
        audit: the report of `audit_labels` on them.
        record: the model record.
        adapter_dir: the folder for adapter_model.safetensors and adapter_config.json.
        report: train.json.
        precision: fp32, bf16 or nf4.
        lora: r, lora_alpha, lora_dropout, target_modules.
        training: options of TRL's SFTConfig, by its names; and `truncate` (cut rows at max_length), `mode` (faithful,
            the default: each optimizer step has the rows that the study says; fast: as many as one pass takes, in
            fewer steps), `early_stopping_patience` (stop after so many evaluations without a better one; None = never)
            and `report_to` (none or tensorboard).
        train_target: sql, or prompt where completions are meant to be empty.
        accept_defect: defects (`llm.labels.DEFECTS`) of the rows with which to go on.
        validation: rendered validation prompts to evaluate on; needed unless eval_strategy is no.
        tensorboard_dir: where TensorBoard's logs go.
        kept_steps: optimizer steps after which the adapter is kept, in steps/<step>/ beside the report.
        replay: `fraction`, rows to replay for each row of `prompts`, rounded up and added to them, drawn among them by
            the sampler; and `kl`, the weight of the KL term (see `Trainer`). None: no replay.
        replay_prompts: prompts of `render_replay`, of which the first ones are replayed.
        replay_audit: the report of `audit_replay` on them.

    Raises:
        UserError: settings that TRL or PEFT refuse, a kept step that the training does not reach, labels that are not
            the gold SQL, or a loss that is not finite.
    """
    checkpoints = Path(report).parent / "checkpoints"
    base = read_json(record)
    rows = read_jsonl(prompts)
    data = sha256_file(prompts)
    audited = read_json(audit)
    if audited["sha256"]["prompts"] != data:
        raise UserError(f"{audit}: made for other prompts than {prompts}. Run `snakemake -R audit_labels`.")
    check_target(rows, train_target)
    held_out, held_out_data = None, None
    if training.get("eval_strategy", "no") != "no":
        held_out = read_jsonl(validation) if validation else []
        if not held_out:
            raise UserError(
                f"training.eval_strategy: found {training['eval_strategy']}, but there are no validation rows. Set "
                'spider.validation, or eval_strategy to "no".'
            )
        held_out_data = sha256_file(validation)
        if audited["sha256"].get("validation_prompts") != held_out_data:
            raise UserError(f"{audit}: made for other prompts than {validation}. Run `snakemake -R audit_labels`.")
        check_target(held_out, train_target)
    settings = {"precision": precision, "lora": lora, "training": training} | ({"replay": replay} if replay else {})
    replayed = rows_to_replay(replay_prompts, replay_audit, replay["fraction"], len(rows)) if replay else []
    arguments = training_arguments(training, precision, checkpoints)
    # Before the model: PEFT draws the adapter's weights at random (the trainer seeds once more, right before that).
    set_seed(arguments.seed)
    chat = load_chat(base)
    model = load_model(base, precision)
    model.config.use_cache = False  # of no use in training
    truncate, patience = bool(training.get("truncate")), training.get("early_stopping_patience")
    # Passes of rows kept apart, or padded batches as they are in TRL.
    padded = keep_apart(model)
    kernels = "" if padded else fuse_kernels(model)
    rows_per_step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    if padded:
        print(f"Rows are padded and not packed: {padded}.", flush=True)
    elif device().type == "cuda":
        arguments.gradient_checkpointing = False  # unless memory needs it: see `fit`
    cut_at = arguments.max_length if truncate else None
    dataset = build_dataset(chat, rows, cut_at)
    meant = with_labels(dataset, rows) + replayed
    kl = replay["kl"] if replay else 0.0
    if replayed:
        dataset = concatenate_datasets([dataset, build_dataset(chat, replayed)])
    collator = None if padded else Collator()
    if kl:
        dataset = dataset.add_column("replay", [False] * len(rows) + [True] * len(replayed))
        collator = Marking(collator or DataCollatorForLanguageModeling(pad_token_id=chat.tokenizer.pad_token_id))
    held_out_dataset = build_dataset(chat, held_out, cut_at) if held_out else None
    sigterm = Sigterm()
    keep = KeepSteps(checkpoints / "kept", kept_steps, base["source"])
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=held_out_dataset,
        processing_class=chat.tokenizer,
        data_collator=collator,
        peft_config=lora_config(lora, model),
        callbacks=[SaveOnSigterm(sigterm), keep, LogWithSave()]
        + ([EarlyStoppingCallback(patience)] if patience is not None else []),
    )

    trainer.kl = kl

    # Proof on what really enters the loss: the trainer's own rows through the trainer's own collator.
    def check(found: Dataset, meant: list[dict]) -> dict[str, Any]:
        return check_labels(chat, found, trainer.data_collator, meant, arguments.max_length, truncate, accept_defect)

    checked = check(trainer.train_dataset, meant)
    if held_out:
        check(trainer.eval_dataset, with_labels(held_out_dataset, held_out))

    identity = {"settings": settings, "data": data, "model": base["sha256"], "versions": versions()}
    if replay:
        identity["replay"] = sha256_file(replay_prompts)
    bound_to = sha256_json({**identity, "validation": held_out_data, "on": machine()["device"]})
    with arguments.main_process_first(local=False):
        resumed = last_checkpoint(checkpoints, bound_to)
        if resumed:
            keep.keep(resumed)  # a job may have been killed before it did
        # Steps that were not yet to be kept when the training passed them.
        if resumed and keep.missing(int(resumed.name.partition("-")[2])):
            print(f"{checkpoints}: lack a step that is to be kept; starting over.", flush=True)
            shutil.rmtree(checkpoints)
            resumed = last_checkpoint(checkpoints, bound_to)
    how = {"padded": padded, "kernels": kernels, "rows_per_step": rows_per_step, "processes": arguments.world_size}
    if not padded:
        how |= _set_passes(trainer, training, checkpoints / "passes.json", rows_per_step)
    state = read_json(resumed / "trainer_state.json") if resumed else {"global_step": 0}
    seconds, first_step, tokens = 0.0, state["global_step"], 0
    # Asked to resume from its last step, the trainer could do one more.
    if not (resumed and state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]):
        if resumed:
            print(f"{resumed}: resuming.", flush=True)
        if training.get("report_to") == "tensorboard":
            trainer.add_callback(tensorboard(Path(tensorboard_dir), first_step))
        start = time.perf_counter()
        try:
            with sigterm:
                trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"training: out of GPU memory ({error}). "
                + (
                    "Halve per_device_train_batch_size and double gradient_accumulation_steps, or set "
                    "gradient_checkpointing to true."
                    if padded
                    else "Set models.<name>.precision to nf4, or shorten the prompts."
                )
            ) from None
        seconds = time.perf_counter() - start
        tokens = next(e["num_tokens"] for e in reversed(trainer.state.log_history) if "num_tokens" in e)
        resumed = checkpoints / f"checkpoint-{trainer.state.global_step}"
        state = read_json(resumed / "trainer_state.json")

    history = [_entry(entry) for entry in state["log_history"] if "loss" in entry]
    evaluations = [_evaluation(entry) for entry in state["log_history"] if "eval_loss" in entry]
    for entry in history + evaluations:
        loss = entry.get("loss", entry.get("eval_loss"))
        if not math.isfinite(loss):
            raise UserError(f"training: the loss at step {entry['step']} is {loss}. Lower learning_rate.")
    best = best_checkpoint(resumed) if arguments.load_best_model_at_end else None
    trainer.accelerator.wait_for_everyone()
    if arguments.process_index != 0:
        return
    if keep.missing(max(kept_steps, default=0)):
        raise UserError(
            f"training.kept_steps: found {max(kept_steps)}, but the training stopped early, after step "
            f"{state['global_step']}. Remove it, or set early_stopping_patience to null."
        )
    for step in kept_steps:
        for name in ADAPTER_FILES:
            with atomic_write(Path(report).parent / "steps" / str(step) / name, "wb") as stream:
                stream.write((keep.folder / str(step) / name).read_bytes())
    files = write_adapter(best or resumed, Path(adapter_dir), base["source"])
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    write_json(
        report,
        {
            "settings": settings,
            "model": {key: base[key] for key in ("name", "source", "revision", "commit", "sha256")},
            "data_sha256": data,
            "validation_sha256": held_out_data,
            "rows": checked["rows"],
            **(
                {"replay": {"rows": len(replayed), "prompts_sha256": identity["replay"], "of": replay}}
                if replay
                else {}
            ),
            "adapter_sha256": files,
            "trainable_parameters": sum(p.numel() for p in trained),
            "all_parameters": trainer.model.get_nb_trainable_parameters()[1],
            "adapter_dtype": str(trained[0].dtype).removeprefix("torch."),
            "steps": state["global_step"],
            "epochs": state["epoch"],
            "history": history,
            "eval_history": evaluations,
            "best_step": state["best_global_step"] if best else None,
            "stopped_early": state["global_step"] < state["max_steps"],
            "audit": checked,
            "failed": audited["failed"],
            "accepted": audited["accepted"],
            "versions": versions(),
            **machine(),
            **how,
            "resumed_from_step": first_step or None,
            "train_seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        },
    )
    shutil.rmtree(checkpoints)


def _set_passes(trainer: Trainer, training: dict[str, Any], file: Path, rows_per_step: int) -> dict[str, Any]:
    """Set how the trainer computes a step, as `file` says or else as it is found now, and return it.

    A training that is resumed goes on as it began.
    """
    arguments = trainer.args
    with arguments.main_process_first(local=False):
        if not file.is_file():
            found = fit(trainer)
            if training.get("mode") == "fast":
                lengths = [len(ids) for ids in trainer.train_dataset["input_ids"]]
                fitting = arguments.world_size * found["tokens_per_pass"] * len(lengths) // sum(lengths)
                rows_per_step = max(rows_per_step, fitting)
            write_json(file, found | {"rows_per_step": rows_per_step})
    found = read_json(file)
    before = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    trainer.tokens_per_pass = found["tokens_per_pass"]
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = found["rows_per_step"], 1
    trainer._train_batch_size = found["rows_per_step"]
    trainer.accelerator.gradient_accumulation_steps = 1
    if arguments.max_steps > 0:  # as many rows as in steps of the study's size
        arguments.max_steps = math.ceil(arguments.max_steps * before / found["rows_per_step"])
    arguments.gradient_checkpointing = found["gradient_checkpointing"]
    if arguments.bf16:
        # Autocast makes bf16 of what PEFT has made fp32.
        for module in trainer.model.modules():
            if isinstance(module, BaseTunerLayer):
                module.cast_input_dtype_enabled = False
    return found


def rows_to_replay(prompts: str, audit: str, fraction: float, rows: int) -> list[dict]:
    """Return the rendered rows that are replayed beside so many text-to-SQL rows: the first ones of the file.

    Raises:
        UserError: there are too few, or the audit is of other prompts.
    """
    if read_json(audit)["sha256"]["prompts"] != sha256_file(prompts):
        raise UserError(f"{audit}: made for other prompts than {prompts}. Run `snakemake -R audit_replay`.")
    found, needed = read_jsonl(prompts), math.ceil(fraction * rows)
    if len(found) < needed:
        raise UserError(
            f"replay.fraction: {fraction} of {rows} text-to-SQL rows are {needed}, but {prompts} has {len(found)}. "
            "Lower the fraction, raise replay.questions, or use a larger replay.source."
        )
    return found[:needed]


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    replayed = {key: entry[key] for key in ("replay_kl", "replay_loss") if key in entry}
    keys = ("step", "loss", "learning_rate", "grad_norm", "mean_token_accuracy")
    return {key: entry.get(key) for key in keys} | replayed


def _evaluation(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry.get(key) for key in ("step", "eval_loss", "eval_mean_token_accuracy")}
