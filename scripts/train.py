"""Train one LoRA adapter: thin over TRL's SFTTrainer, with checkpoints that belong to their settings."""

import difflib
import json
import math
import pickle
import shutil
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback, set_seed
from transformers.trainer_pt_utils import safe_globals
from trl import SFTConfig, SFTTrainer

from _chat import load_chat
from _files import UserError, atomic_write, read_json, read_jsonl, sha256_file, sha256_json, write_json
from _job import job, versions
from _labels import build_dataset, check_labels
from _model import device, load_model, machine


def training_arguments(training: dict[str, Any], precision: str, checkpoints: str | Path) -> SFTConfig:
    """Return TRL's arguments: the study's `training` keys as they are, and what this workflow fixes.

    Raises:
        UserError: a key that SFTConfig does not have, one that the workflow sets itself, or a value it refuses.
    """
    cuda = device().type == "cuda"
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
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_total_limit": 2,
        "save_only_model": False,
        "load_best_model_at_end": False,
        # A loss of nan must be seen, not averaged away.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "push_to_hub": False,
        "disable_tqdm": False,
    }
    names = {field.name for field in fields(SFTConfig) if field.init}
    for key in training:
        if key in fixed:
            raise UserError(f"training.{key}: set by the workflow to {fixed[key]!r}. Remove the key.")
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UserError(f"training.{key}: no such option of TRL's SFTConfig.{hint}")
    try:
        return SFTConfig(**training, **fixed)
    except (ValueError, TypeError) as error:
        raise UserError(f"training: SFTConfig refuses these values ({error}).") from None


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


def last_checkpoint(folder: Path, bound_to: str) -> Path | None:
    """Return the newest complete checkpoint made with the settings whose hash is `bound_to`, and delete all others.

    A job killed while it writes leaves a checkpoint whose files are missing or cut; the one before is then taken.
    Checkpoints of other settings, data or library versions are wiped.
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
    found = None
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.partition("-")[2])):
        if found is None and _complete(checkpoint):
            found = checkpoint
        else:
            print(f"{checkpoint}: {'older' if found else 'incomplete, deleted; the one before is used'}.", flush=True)
            shutil.rmtree(checkpoint)
    return found


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
    """Log whenever a checkpoint is saved.

    The trainer's running mean of the loss is not part of a checkpoint. Emptied at each of them, it is the same in a
    run that was interrupted as in one that was not.
    """

    def on_step_end(self, args, state, control, **kwargs):
        """Ask for a log entry if this step will be saved."""
        control.should_log |= control.should_save
        return control


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
    return {name: sha256_file(folder / name) for name in ("adapter_model.safetensors", "adapter_config.json")}


def train(
    prompts: str,
    audit: str,
    record: str,
    adapter_dir: str | Path,
    report: str,
    precision: str,
    lora: dict[str, Any],
    training: dict[str, Any],
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
        training: options of TRL's SFTConfig, by its names.

    Raises:
        UserError: settings that TRL or PEFT refuse, labels that are not the gold SQL, or a loss that is not finite.
    """
    checkpoints = Path(report).parent / "checkpoints"
    base = read_json(record)
    rows = read_jsonl(prompts)
    data = sha256_file(prompts)
    if read_json(audit)["sha256"]["prompts"] != data:
        raise UserError(f"{audit}: made for other prompts than {prompts}. Run `snakemake -R audit_labels`.")
    settings = {"precision": precision, "lora": lora, "training": training}
    arguments = training_arguments(training, precision, checkpoints)
    # Before the model: PEFT draws the adapter's weights at random (the trainer seeds once more, right before that).
    set_seed(arguments.seed)
    chat = load_chat(base)
    model = load_model(base, precision)
    model.config.use_cache = False  # of no use in training
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=build_dataset(chat, rows),
        processing_class=chat.tokenizer,
        peft_config=lora_config(lora, model),
        callbacks=[LogWithSave()],
    )
    # Proof on what really enters the loss: the trainer's own rows through the trainer's own collator.
    checked = check_labels(chat, trainer.train_dataset, trainer.data_collator, rows, arguments.max_length)

    bound_to = sha256_json(
        {"settings": settings, "data": data, "model": base["sha256"], "versions": versions(), "on": machine()["device"]}
    )
    resumed = last_checkpoint(checkpoints, bound_to)
    state = read_json(resumed / "trainer_state.json") if resumed else {"global_step": 0, "max_steps": None}
    seconds, first_step, tokens = 0.0, state["global_step"], 0
    # Asked to resume from its last step, the trainer could do one more.
    if first_step != state["max_steps"]:
        if resumed:
            print(f"{resumed}: resuming.", flush=True)
        start = time.perf_counter()
        try:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        except torch.cuda.OutOfMemoryError as error:
            raise UserError(
                f"training: out of GPU memory ({error}). Halve per_device_train_batch_size and double "
                "gradient_accumulation_steps, or set gradient_checkpointing to true."
            ) from None
        seconds = time.perf_counter() - start
        tokens = next(e["num_tokens"] for e in reversed(trainer.state.log_history) if "num_tokens" in e)
        resumed = checkpoints / f"checkpoint-{trainer.state.global_step}"
        state = read_json(resumed / "trainer_state.json")

    history = [_entry(entry) for entry in state["log_history"] if "loss" in entry]
    for entry in history:
        if not math.isfinite(entry["loss"]):
            raise UserError(f"training: the loss at step {entry['step']} is {entry['loss']}. Lower learning_rate.")
    files = write_adapter(resumed, Path(adapter_dir), base["source"])
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    write_json(
        report,
        {
            "settings": settings,
            "model": {key: base[key] for key in ("name", "source", "revision", "commit", "sha256")},
            "data_sha256": data,
            "rows": len(rows),
            "adapter_sha256": files,
            "trainable_parameters": sum(p.numel() for p in trained),
            "all_parameters": trainer.model.get_nb_trainable_parameters()[1],
            "adapter_dtype": str(trained[0].dtype).removeprefix("torch."),
            "steps": state["global_step"],
            "epochs": state["epoch"],
            "history": history,
            "audit": checked,
            "versions": versions(),
            **machine(),
            "resumed_from_step": first_step or None,
            "train_seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1) if seconds else None,
        },
    )
    shutil.rmtree(checkpoints)


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry.get(key) for key in ("step", "loss", "learning_rate", "grad_norm", "mean_token_accuracy")}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        torch.set_num_threads(snakemake.threads)
        train(
            prompts=snakemake.input.prompts,
            audit=snakemake.input.audit,
            record=snakemake.input.record,
            adapter_dir=Path(snakemake.output.report).parent / "adapter",
            report=snakemake.output.report,
            **snakemake.params.settings,
        )
