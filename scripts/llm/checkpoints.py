"""Checkpoints: bound to the settings that made them, kept at some steps, and saved when the job is asked to end."""

import json
import pickle
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback
from transformers.trainer_pt_utils import safe_globals

from common.files import ADAPTER_FILES, UserError, read_json, write_json
from common.job import STOPPED, Sigterm
from llm.adapters import copy_file, write_adapter


def last_checkpoint(folder: Path, bound_to: str, processes: int = 1) -> Path | None:
    """The newest complete checkpoint made with the settings whose hash is `bound_to`; all others are deleted.

    The best checkpoint that it knows of is kept too. A job killed while it writes leaves a checkpoint whose files are
    missing or cut; the one before is then taken. Checkpoints of other settings, data or library versions, or of another
    number of processes, are wiped.
    """
    mark, ours, whole = folder / "settings.json", None, partial(_complete, processes=processes)
    with suppress(OSError, ValueError):
        ours = json.loads(mark.read_text())
    if ours != {"sha256": bound_to}:
        if list(folder.glob("checkpoint-*")):
            print(f"{folder}: found checkpoints of other settings; deleted.", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        write_json(mark, {"sha256": bound_to})
        return None
    found, best = None, None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True):
        if found is None and whole(checkpoint) and whole(best_checkpoint(checkpoint) or checkpoint):
            found, best = checkpoint, best_checkpoint(checkpoint)
        elif checkpoint != best:
            why = "incomplete, or of another number of processes; deleted, the one before is used"
            print(f"{checkpoint}: {'older' if found else why}.", flush=True)
            shutil.rmtree(checkpoint)
    return found


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was saved."""
    return int(checkpoint.name.partition("-")[2])


def best_checkpoint(checkpoint: Path) -> Path | None:
    """The checkpoint with the best evaluation up to `checkpoint`, None if there was no evaluation."""
    step = read_json(checkpoint / "trainer_state.json")["best_global_step"]
    return checkpoint.with_name(f"checkpoint-{step}") if step else None


def _complete(checkpoint: Path, processes: int) -> bool:
    """Whether all files of a checkpoint can be read. The first process writes trainer_state.json last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
        with safe_open(checkpoint / "adapter_model.safetensors", "pt") as tensors:
            tensors.keys()
        torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
        torch.load(checkpoint / "scheduler.pt", weights_only=True)
        with safe_globals():
            for name in ("",) if processes == 1 else (f"_{rank}" for rank in range(processes)):
                torch.load(checkpoint / f"rng_state{name}.pth", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError):
        return False
    return True


class Checkpoints(TrainerCallback):
    """When a checkpoint is saved, and what is kept of it.

    Each evaluation gets a checkpoint, since the best one must have its own and training may stop at any. So does each
    step whose adapter is to be kept, and the step in which SIGTERM came; the training then ends with a UserError.
    (transformers' own `enable_jit_checkpoint` saves within a step, when random states have moved on but weights have
    not, and marks the training as finished: a resumed run would end elsewhere, or at once.)

    Whenever a checkpoint is due, there is a log entry; after SIGTERM there is none, so that the losses of a run do not
    tell where it was stopped. What was summed up since the last entry is kept by `llm.trainer.Trainer`.

    The adapters of `steps` are kept, whatever checkpoints are deleted, in `folder`, each by its step's number. It
    lies inside the folder of the checkpoints, so that it outlives a kill and goes with other settings.
    """

    def __init__(self, folder: Path, steps: Sequence[int], source: str, sigterm: Sigterm):
        self.folder, self.steps, self.source, self.sigterm = folder, set(steps), source, sigterm

    def on_train_begin(self, args, state, control, **kwargs):
        """Refuse steps that this training does not have."""
        if late := [step for step in self.steps if step > state.max_steps]:
            raise UserError(
                f"evaluation.checkpoints: found {min(late)}, but this training has {state.max_steps} optimizer steps. "
                "Remove it, or lower it."
            )

    def on_step_end(self, args, state, control, **kwargs):
        control.should_save |= control.should_evaluate or state.global_step in self.steps
        control.should_log |= control.should_save
        # If a checkpoint comes after the evaluation of the epoch, that must not be left out.
        if self.sigterm.came and not (args.save_strategy == "epoch" and float(state.epoch).is_integer()):
            control.should_save = True
        return control

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_log |= control.should_save
        return control

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.keep(Path(args.output_dir, f"checkpoint-{state.global_step}"))
        if self.sigterm.came and not control.should_training_stop:
            raise UserError(
                f"training: {STOPPED} (preemption or time limit) after step {state.global_step} of "
                f"{state.max_steps}. A checkpoint is saved; the next attempt goes on from there."
            )

    def keep(self, checkpoint: Path) -> None:
        """Keep the adapter of a checkpoint, if it is one of a step that is to be kept."""
        step = step_of(checkpoint)
        if step in self.steps:
            write_adapter(checkpoint, self.folder / str(step), self.source)

    def missing(self, until: int) -> list[int]:
        """The steps up to this one of which no adapter is kept."""
        # The configuration is written last.
        return [s for s in sorted(self.steps) if s <= until and not (self.folder / f"{s}/adapter_config.json").exists()]

    def publish(self, folder: Path, steps_done: int) -> None:
        """Copy what was kept to `folder`, each step's adapter in a folder of its number."""
        if self.missing(max(self.steps, default=0)):
            raise UserError(
                f"evaluation.checkpoints: found {max(self.steps)}, but the training stopped early, after step "
                f"{steps_done}. Remove it, or set early_stopping_patience to null."
            )
        for step in self.steps:
            for name in ADAPTER_FILES:
                copy_file(self.folder / str(step) / name, folder / str(step) / name)
