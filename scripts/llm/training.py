"""The training of one adapter: thin over TRL's SFTTrainer, with checkpoints that belong to their settings."""

import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset, concatenate_datasets
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed
from trl import SFTConfig

from common.files import UserError, read_json, read_jsonl, sha256_file, sha256_json, write_json
from common.job import Sigterm, versions
from llm.adapters import write_adapter
from llm.chat import Chat, load_chat
from llm.checkpoints import Checkpoints, best_checkpoint, last_checkpoint
from llm.fit import settle
from llm.labels import Limits, build_dataset, check_labels, check_target, padding, with_labels
from llm.load import device, fuse_kernels, load_model, machine, named
from llm.options import lora_config, training_arguments
from llm.packing import collate, keep_apart
from llm.processes import serve
from llm.trainer import Marking, Trainer


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train, and on what; plain values, so that processes on several GPUs can be told.

    training: options of TRL's SFTConfig, by its names; and `truncate` (cut rows at max_length), `mode` (faithful, the
        default: each optimizer step has the rows that the study says; fast: as many as one micro-batch takes, in fewer
        steps), `early_stopping_patience` (stop after so many evaluations without a better one; None = never) and
        `report_to` (none or tensorboard).
    replay: `fraction`, rows to replay for each row of `prompts`, rounded up and added to them, drawn among them by the
        sampler; and `kl`, the weight of the KL term (see `llm.trainer.Trainer`). None: no replay.
    """

    prompts: str  # rendered training prompts
    audit: str  # the report of `audit_labels` on them
    record: str  # of the model
    adapter_dir: str  # for adapter_model.safetensors and adapter_config.json
    report: str  # train.json
    precision: str  # fp32, bf16 or nf4
    lora: Mapping[str, Any]  # any key of PEFT's LoraConfig
    training: Mapping[str, Any]
    train_target: str = "sql"  # or prompt, where completions are meant to be empty
    accept_defect: Sequence[str] = ()  # defects (`llm.labels.DEFECTS`) of the rows with which to go on
    validation: str | None = None  # rendered prompts to evaluate on; needed unless eval_strategy is no
    tensorboard_dir: str | None = None
    kept_steps: Sequence[int] = ()  # after which the adapter is kept, in steps/<step>/ beside the report
    replay: Mapping[str, float] | None = None
    quantization: Mapping[str, Any] = field(default_factory=dict)  # keys of BitsAndBytesConfig, with nf4
    identity: Mapping[str, Any] | None = None  # what of the settings checkpoints belong to; None: all of them
    replay_prompts: str | None = None  # of `render_replay`, of which the first ones are replayed
    replay_audit: str | None = None  # the report of `audit_labels` on them

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, for the report."""
        further = [name for name in ("replay", "quantization") if getattr(self, name)]
        return {name: getattr(self, name) for name in ("precision", "lora", "training", *further)}

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie until the adapter is written."""
        return Path(self.report).parent / "checkpoints"


class Rows(NamedTuple):
    """Rendered rows; `replayed` and `held_out` are empty if there are none."""

    train: list[dict]
    replayed: list[dict]
    held_out: list[dict]


class Tokens(NamedTuple):
    """Rows as the trainer takes them, and the rendered rows of those that have a label left."""

    dataset: Dataset | None
    meant: list[dict]


def train(plan: Plan) -> dict[str, Any]:
    """Train one adapter, or finish what a killed job began.

    Checkpoints lie beside the report, in checkpoints/, until the adapter is written. A resumed training ends with the
    same weights as an uninterrupted one: data order, optimizer, schedule and random states go on where they were.

    Returns:
        The report, which is written too; {} in all but the first of several processes.

    Raises:
        UserError: settings that TRL or PEFT refuse, a kept step that the training does not reach, labels that are not
            the gold SQL, or a loss that is not finite.
    """
    rows, base = read_rows(plan), read_json(plan.record)
    arguments = training_arguments(plan.training, plan.precision, plan.checkpoints)
    chat, sigterm = load_chat(base), Sigterm()
    limits = Limits(arguments.max_length, bool(plan.training.get("truncate")), plan.accept_defect)
    tokens, held_out = tokenise(plan, rows, chat, limits.cut_at)
    keep = Checkpoints(plan.checkpoints / "kept", plan.kept_steps, base["source"], sigterm)
    trainer, how = make_trainer(plan, arguments, chat, (tokens.dataset, held_out.dataset), keep)

    # What really enters the loss: the trainer's own rows through the trainer's own collator.
    checked = check_labels(chat, trainer.train_dataset, trainer.data_collator, tokens.meant, limits)
    if held_out.meant:
        check_labels(chat, trainer.eval_dataset, trainer.data_collator, held_out.meant, limits)

    resumed = find_checkpoint(plan, arguments, keep)
    first_step = read_json(resumed / "trainer_state.json")["global_step"] if resumed else 0
    if not how["padded"]:
        found = settle(trainer, plan.training, plan.checkpoints / "passes.json")
        trainer.use(found)
        how |= found
    last, spent = optimise(plan, trainer, resumed, sigterm)
    trainer.accelerator.wait_for_everyone()
    state = read_json(last / "trainer_state.json")
    results = results_of(state)
    if arguments.process_index != 0:
        return {}
    keep.publish(Path(plan.report).parent / "steps", state["global_step"])
    best = best_checkpoint(last) if arguments.load_best_model_at_end else None
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    report = {
        **identity(plan),
        "rows": checked["rows"],
        "adapter_sha256": write_adapter(best or last, plan.adapter_dir, base["source"]),
        "trainable_parameters": sum(p.numel() for p in trained),
        "all_parameters": trainer.model.get_nb_trainable_parameters()[1],
        "adapter_dtype": str(trained[0].dtype).removeprefix("torch."),
        **results,
        "best_step": state["best_global_step"] if best else None,
        "audit": checked,
        **{key: read_json(plan.audit)[key] for key in ("failed", "accepted")},
        **machine(),
        **how,
        "resumed_from_step": first_step or None,
        **spent,
    }
    if rows.replayed:
        sha256 = sha256_file(plan.replay_prompts)
        report["replay"] = {"rows": len(rows.replayed), "prompts_sha256": sha256, "of": plan.replay}
    write_json(plan.report, report)
    shutil.rmtree(plan.checkpoints)
    return report


def identity(plan: Plan) -> dict[str, Any]:
    """What an adapter was made of, for its report."""
    evaluated = plan.training.get("eval_strategy", "no") != "no"
    return {
        "settings": plan.settings,
        "model": named(read_json(plan.record)),
        "data_sha256": sha256_file(plan.prompts),
        "validation_sha256": sha256_file(plan.validation) if evaluated else None,
        "versions": versions(),
    }


def read_rows(plan: Plan) -> Rows:
    """Read the rows, and hold them against their audits.

    Raises:
        UserError: an audit of other prompts, no validation rows, a completion where there should be none, or the other
            way round; as `rows_to_replay`.
    """
    rows, strategy = read_jsonl(plan.prompts), plan.training.get("eval_strategy", "no")
    check_audited(plan.audit, "prompts", plan.prompts)
    check_target(rows, plan.train_target)
    held_out, replayed = [], []
    if strategy != "no":
        held_out = read_jsonl(plan.validation) if plan.validation else []
        if not held_out:
            raise UserError(
                f"training.eval_strategy: found {strategy}, but there are no validation rows. Set the target's "
                'validation, or eval_strategy to "no".'
            )
        check_audited(plan.audit, "validation_prompts", plan.validation)
        check_target(held_out, plan.train_target)
    if plan.replay:
        replayed = rows_to_replay(plan.replay_prompts, plan.replay_audit, plan.replay["fraction"], len(rows))
    return Rows(rows, replayed, held_out)


def rows_to_replay(prompts: str, audit: str, fraction: float, rows: int) -> list[dict]:
    """The rendered rows that are replayed beside so many rows of the target: the first ones of the file.

    Raises:
        UserError: there are too few, or the audit is of other prompts.
    """
    check_audited(audit, "prompts", prompts)
    found, needed = read_jsonl(prompts), math.ceil(fraction * rows)
    if len(found) < needed:
        raise UserError(
            f"replay.fraction: {fraction} of {rows} rows are {needed}, but {prompts} has {len(found)}. Lower the "
            "fraction, or let the task of role replay have more questions or a larger source."
        )
    return found[:needed]


def check_audited(audit: str, name: str, prompts: str) -> None:
    """Refuse an audit that was made for other prompts."""
    if read_json(audit)["sha256"].get(name) != sha256_file(prompts):
        raise UserError(f"{audit}: made for other prompts than {prompts}. Run `snakemake -R audit_labels`.")


def tokenise(plan: Plan, rows: Rows, chat: Chat, cut_at: int | None) -> tuple[Tokens, Tokens]:
    """Tokenise the rows to train on and those held out; those of text-to-SQL are cut at so many tokens."""
    dataset = build_dataset(chat, rows.train, cut_at)
    meant = with_labels(dataset, rows.train) + rows.replayed
    if rows.replayed:
        dataset = concatenate_datasets([dataset, build_dataset(chat, rows.replayed)])
    if plan.replay and plan.replay["kl"]:
        dataset = dataset.add_column("replay", [False] * len(rows.train) + [True] * len(rows.replayed))
    held_out = build_dataset(chat, rows.held_out, cut_at) if rows.held_out else None
    return Tokens(dataset, meant), Tokens(held_out, with_labels(held_out, rows.held_out) if held_out else [])


def make_trainer(
    plan: Plan, arguments: SFTConfig, chat: Chat, datasets: tuple[Dataset, Dataset | None], keep: Checkpoints
) -> tuple[Trainer, dict[str, Any]]:
    """Load the model and put it into a trainer; also how it computes, for the report."""
    # Before the model: PEFT draws the adapter's weights at random (the trainer seeds once more, right before that).
    set_seed(arguments.seed)
    model = load_model(read_json(plan.record), plan.precision, plan.quantization)
    model.config.use_cache = False  # of no use in training
    # Packed rows kept apart, or padded batches as they are in TRL.
    noisy = arguments.neftune_noise_alpha is not None
    padded = "neftune_noise_alpha scales its noise by the length of rows" if noisy else keep_apart(model)
    kernels = "" if padded else fuse_kernels(model)
    rows_per_step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    if padded:
        print(f"Rows are padded and not packed: {padded}.", flush=True)
    elif device().type == "cuda":
        arguments.gradient_checkpointing = False  # unless memory needs it: see `llm.fit`
    collator = None if padded else collate
    kl = plan.replay["kl"] if plan.replay else 0.0
    if kl:
        collator = Marking(collator or padding(chat))
    patience = plan.training.get("early_stopping_patience")
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=datasets[0],
        eval_dataset=datasets[1],
        processing_class=chat.tokenizer,
        data_collator=collator,
        peft_config=lora_config(plan.lora, model),
        callbacks=[keep, *([EarlyStoppingCallback(patience)] if patience is not None else [])],
    )
    trainer.kl = kl
    how = {"padded": padded, "kernels": kernels, "rows_per_step": rows_per_step, "processes": arguments.world_size}
    return trainer, how


def find_checkpoint(plan: Plan, arguments: SFTConfig, keep: Checkpoints) -> Path | None:
    """The checkpoint from which to go on; those of other settings, data, models or machines are deleted."""
    replayed = sha256_file(plan.replay_prompts) if plan.replay else None
    settings = plan.settings if plan.identity is None else plan.identity
    made_of = identity(plan) | {"settings": settings, "replay": replayed, "on": machine()["device"]}
    bound_to = sha256_json(made_of)
    with arguments.main_process_first(local=False):
        resumed = last_checkpoint(plan.checkpoints, bound_to)
        if resumed:
            keep.keep(resumed)  # a job may have been killed before it did
        # Steps that were not yet to be kept when the training passed them.
        if resumed and keep.missing(int(resumed.name.partition("-")[2])):
            print(f"{plan.checkpoints}: lack a step that is to be kept; starting over.", flush=True)
            shutil.rmtree(plan.checkpoints)
            resumed = last_checkpoint(plan.checkpoints, bound_to)
    return resumed


def optimise(plan: Plan, trainer: Trainer, resumed: Path | None, sigterm: Sigterm) -> tuple[Path, dict[str, Any]]:
    """Train to the end: the last checkpoint, and the time that it took.

    Raises:
        UserError: out of GPU memory, or tensorboard is not installed.
    """
    state = read_json(resumed / "trainer_state.json") if resumed else {"global_step": 0}
    # Asked to resume from its last step, the trainer could do one more.
    if resumed and state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]:
        return resumed, {"train_seconds": 0.0, "tokens_per_second": None}
    if resumed:
        print(f"{resumed}: resuming.", flush=True)
    if plan.training.get("report_to") == "tensorboard":
        trainer.add_callback(tensorboard(Path(plan.tensorboard_dir), state["global_step"]))
    start = time.perf_counter()
    try:
        with sigterm:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    except torch.cuda.OutOfMemoryError as error:
        remedy = "Set models.<name>.precision to nf4, or shorten the prompts."
        if trainer.micro_batch_tokens is None:
            remedy = (
                "Halve per_device_train_batch_size and double gradient_accumulation_steps, or set "
                "gradient_checkpointing to true."
            )
        raise UserError(f"training: out of GPU memory ({error}). {remedy}") from None
    seconds = time.perf_counter() - start
    tokens = next(e["num_tokens"] for e in reversed(trainer.state.log_history) if "num_tokens" in e)
    last = plan.checkpoints / f"checkpoint-{trainer.state.global_step}"
    return last, {"train_seconds": round(seconds, 3), "tokens_per_second": round(tokens / seconds, 1)}


def tensorboard(folder: Path, first_step: int) -> TrainerCallback:
    """The callback that logs to `folder`; what a killed run logged after `first_step` is dropped from view.

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


def results_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Steps, epochs and losses of a finished training.

    Raises:
        UserError: a loss is not finite.
    """
    history, evaluations = [], []
    keys = ("step", "loss", "learning_rate", "grad_norm", "mean_token_accuracy")
    for entry in state["log_history"]:
        loss = entry.get("loss", entry.get("eval_loss", 0.0))
        if not math.isfinite(loss):
            raise UserError(f"training: the loss at step {entry['step']} is {loss}. Lower learning_rate.")
        if "loss" in entry:
            replayed = {key: entry[key] for key in ("replay_kl", "replay_loss") if key in entry}
            history.append({key: entry.get(key) for key in keys} | replayed)
        if "eval_loss" in entry:
            evaluations.append({key: entry.get(key) for key in ("step", "eval_loss", "eval_mean_token_accuracy")})
    return {
        "steps": state["global_step"],
        "epochs": state["epoch"],
        "history": history,
        "eval_history": evaluations,
        "stopped_early": state["global_step"] < state["max_steps"],
    }


if __name__ == "__main__":
    sys.exit(serve(lambda **plan: train(Plan(**plan))))
