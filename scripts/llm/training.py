"""One training, of an adapter or of all weights: thin over TRL's SFTTrainer, with checkpoints bound to their settings.

An adapter means both here, since both are the same two files (`llm.full`).
"""

import copy
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, concatenate_datasets
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback, set_seed
from transformers.integrations import TensorBoardCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from trl import SFTConfig

from common.files import UserError, read_json, read_jsonl, sha256_file, sha256_json, write_json
from common.job import Sigterm, versions
from llm.adapters import write_adapter
from llm.attention import decoder
from llm.chat import Chat, load_chat
from llm.checkpoints import Checkpoints, best_checkpoint, last_checkpoint, step_of
from llm.fit import prove_loss, settle
from llm.full import WRITTEN, make_trainable
from llm.fused import fuse
from llm.labels import IGNORED, Limits, build_dataset, check_labels, check_learnt, padding
from llm.load import device, fuse_kernels, load_model, machine, named
from llm.memory import EXPERTS
from llm.options import linear_layers, lora_config, towers_of, training_arguments
from llm.packing import collate, keep_apart, share
from llm.processes import serve
from llm.shared import Row
from llm.step_graphs import StepGraphs
from llm.trainer import FullTrainer, Trainer, mark


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train, and on what; plain values, so that processes on several GPUs can be told.

    lora: any key of PEFT's LoraConfig; {} where all weights are trained.
    training: options of TRL's SFTConfig, by its names; and of ours, which `study.schema` describes: `method`, `rows`,
        `loss_on`, `truncate`, `mode`, `share_prefix`, `early_stopping_patience` and `report_to`.
    replay: `fraction`, rows to replay for each row of `prompts`, rounded up and added to them, drawn among them by the
        sampler; and `kl`, the weight of the KL term (see `llm.trainer.Trainer`). None: no replay.
    """

    prompts: str  # rendered training prompts
    audit: str  # the report of `audit_labels` on them
    record: str  # of the model
    adapter_dir: str  # for adapter_model.safetensors and adapter_config.json
    report: str  # train.json
    precision: str  # as models.<name>.precision
    training: Mapping[str, Any]
    lora: Mapping[str, Any] = field(default_factory=dict)
    accept_defect: Sequence[str] = ()  # defects (`llm.labels.DEFECTS`) of the rows with which to go on
    validation: str | None = None  # rendered prompts to evaluate on; needed unless eval_strategy is no
    tracker_dir: str | None = None  # where a tracker (report_to) keeps its files
    rows: int | None = None  # train on the first so many rows; None: all
    chosen: str | None = None  # the rows to train on, of `choose_rows`; None: all
    kept_steps: Sequence[int] = ()  # after which the adapter is kept, in steps/<step>/ beside the report
    replay: Mapping[str, float] | None = None
    quantization: Mapping[str, Any] = field(default_factory=dict)  # keys of BitsAndBytesConfig
    identity: Mapping[str, Any] | None = None  # what of the settings checkpoints belong to; None: all of them
    replay_prompts: str | None = None  # of `render_replay`, of which the first ones are replayed
    replay_audit: str | None = None  # the report of `audit_labels` on them
    divided: bool | None = None  # whether the processes divide the model's layers; None: if it outgrows one GPU

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, for the report."""
        further = [name for name in ("lora", "replay", "quantization") if getattr(self, name)]
        return {name: getattr(self, name) for name in ("precision", "training", *further)}

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.training.get("method") == "full"

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie until the adapter is written."""
        return Path(self.report).parent / "checkpoints"


def train(plan: Plan) -> dict[str, Any]:
    """Train one adapter, or finish what a killed job began; the report, which is written too.

    Checkpoints lie beside the report, in checkpoints/, until the adapter is written. A resumed training ends with the
    same weights as an uninterrupted one: data order, optimizer, schedule and random states go on where they were. Of
    several processes, all but the first return {}. Settings that the libraries refuse, labels that are not what was
    audited, kept steps that are not reached, and losses that are not finite are UserErrors.
    """
    rows, replayed, held_out = read_rows(plan)
    base, sigterm = read_json(plan.record), Sigterm()
    arguments = training_arguments(plan.training, plan.precision, plan.checkpoints)
    chat = load_chat(base)
    limits = Limits(arguments.max_length, bool(plan.training.get("truncate")), plan.accept_defect)
    dataset, meant = tokenise(chat, rows, limits.cut_at)
    if replayed:
        dataset, meant = concatenate_datasets([dataset, build_dataset(chat, replayed)]), meant + replayed
    if plan.replay and plan.replay["kl"]:
        dataset = dataset.add_column("replay", [False] * len(rows) + [True] * len(replayed))
    evaluated, meant_there = tokenise(chat, held_out, limits.cut_at) if held_out else (None, [])
    keep = Checkpoints(plan.checkpoints / "kept", plan.kept_steps, base["source"], sigterm)
    trainer, how = make_trainer(plan, arguments, chat, (dataset, evaluated), keep)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]

    # What really enters the loss: the trainer's own rows through the trainer's own collator.
    checked = check_labels(chat, trainer.train_dataset, trainer.data_collator, meant, limits)
    if meant_there:
        check_labels(chat, trainer.eval_dataset, trainer.data_collator, meant_there, limits)

    prove_loss(trainer, base["source"])
    resumed = find_checkpoint(plan, arguments, keep)
    if not how["padded"]:
        found = settle(trainer, plan.training, plan.checkpoints / "passes.json")
        trainer.use(found)
        how |= found | {"shared_tokens": len(trainer.start)}
    if takes_graphs(trainer, how):
        trainer.graphs = StepGraphs(trainer.model)
    last, spent = optimise(plan, trainer, resumed, sigterm)
    trainer.accelerator.wait_for_everyone()
    state = read_json(last / "trainer_state.json")
    results = results_of(state)
    if arguments.process_index != 0:
        return {}
    keep.publish(Path(plan.report).parent / "steps", state["global_step"])
    best = best_checkpoint(last) if arguments.load_best_model_at_end else None
    report = {
        **identity(plan),
        "rows": checked["rows"],
        "adapter_sha256": write_adapter(best or last, plan.adapter_dir, base["source"]),
        "trainable_parameters": sum(p.numel() for p in trained),
        "all_parameters": all_parameters(trainer.model),
        "adapted_layers": adapted_layers(trainer.model),
        "adapter_dtype": str(WRITTEN[plan.precision] if plan.full else trained[0].dtype).removeprefix("torch."),
        **results,
        "best_step": state["best_global_step"] if best else None,
        "audit": checked,
        **{key: read_json(plan.audit)[key] for key in ("failed", "accepted")},
        **machine(),
        **how,
        "step_graphs": {"tokens": trainer.graphs.tokens, "reason": trainer.graphs.reason} if trainer.graphs else None,
        "resumed_from_step": step_of(resumed) if resumed else None,
        **spent,
    }
    if plan.chosen:
        report["chosen"] = {key: value for key, value in read_json(plan.chosen).items() if key != "ids"}
    if replayed:
        sha256 = sha256_file(plan.replay_prompts)
        report["replay"] = {"rows": len(replayed), "prompts_sha256": sha256, "of": plan.replay}
    write_json(plan.report, report)
    shutil.rmtree(plan.checkpoints)
    return report


def all_parameters(model: PreTrainedModel) -> int:
    """How many parameters a model has, those of its adapter among them; of 4 bits each counts as one."""
    if hasattr(model, "get_nb_trainable_parameters"):
        # Of a weight of 4 bits that is divided among processes, PEFT counts the numbers as which its bytes are held.
        divided = [m for m in model.modules() if getattr(m, "quant_state", None) and isinstance(m.weight, DTensor)]
        uncounted = sum(module.quant_state.shape.numel() - module.weight.numel() for module in divided)
        return model.get_nb_trainable_parameters()[1] + uncounted
    return sum(p.numel() for p in model.parameters())


def adapted_layers(model: PreTrainedModel) -> list[str]:
    """The names of the layers that have an adapter, without their places; none where all weights are trained."""
    adapted = (name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
    return sorted({name.removesuffix(".base_layer").rpartition(".")[2] for name in adapted})


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


def read_rows(plan: Plan) -> tuple[list[dict], list[dict], list[dict]]:
    """The rendered rows to train on, to replay and to evaluate on; without replay or evaluation, none of these."""
    rows, strategy = audited(plan.prompts, plan.audit, "prompts"), plan.training.get("eval_strategy", "no")
    if plan.rows is not None and plan.rows > len(rows):
        raise UserError(f"train_questions: found {plan.rows}, expected at most {len(rows)}, or null for all.")
    rows = rows[: plan.rows]
    if plan.chosen:
        ids = set(read_json(plan.chosen)["ids"])
        rows = [row for row in rows if row["id"] in ids]
        if len(rows) != len(ids):
            raise UserError(
                f"{plan.chosen}: found {len(ids)} rows, of which {len(rows)} are in {plan.prompts}. Run `snakemake -R "
                "choose_rows`."
            )
    held_out, replayed = [], []
    if strategy != "no":
        held_out = audited(plan.validation, plan.audit, "validation_prompts") if plan.validation else []
        if not held_out:
            raise UserError(
                f"training.eval_strategy: found {strategy}, but there are no validation rows. Set the target's "
                'validation, or eval_strategy to "no".'
            )
    check_learnt([*rows, *held_out], plan.training.get("loss_on", "completion"))
    if plan.replay:
        replayed = rows_to_replay(plan.replay_prompts, plan.replay_audit, plan.replay["fraction"], len(rows))
    return rows, replayed, held_out


def rows_to_replay(prompts: str, audit: str, fraction: float, rows: int) -> list[dict]:
    """The rendered rows that are replayed beside so many rows of the target: the first ones of the file."""
    found, needed = audited(prompts, audit, "prompts"), math.ceil(fraction * rows)
    if len(found) < needed:
        raise UserError(
            f"replay.fraction: {fraction} of {rows} rows are {needed}, but {prompts} has {len(found)}. Lower the "
            "fraction, or let the task of role replay have more questions or a larger source."
        )
    return found[:needed]


def audited(prompts: str, audit: str, name: str) -> list[dict]:
    """Read rendered rows; a UserError if the audit was made for others."""
    if read_json(audit)["sha256"].get(name) != sha256_file(prompts):
        raise UserError(f"{audit}: made for other prompts than {prompts}. Run `snakemake -R audit_labels`.")
    return read_jsonl(prompts)


def tokenise(chat: Chat, rows: list[dict], cut_at: int | None) -> tuple[Dataset, list[dict]]:
    """Rows cut at so many tokens, and those that have a label left then; SFTTrainer drops the others."""
    dataset = build_dataset(chat, rows, cut_at)
    return dataset, [row for row, labels in zip(rows, dataset["labels"], strict=True) if set(labels) != {IGNORED}]


def make_trainer(
    plan: Plan, arguments: SFTConfig, chat: Chat, datasets: tuple[Dataset, Dataset | None], keep: Checkpoints
) -> tuple[Trainer, dict[str, Any]]:
    """Load the model and put it into a trainer; also how it computes, for the report."""
    # Before the model: PEFT draws the adapter's weights at random (the trainer seeds once more, right before that).
    set_seed(arguments.seed)
    rows = [*zip(datasets[0]["input_ids"], datasets[0]["labels"], strict=True)]
    across = "processes" if divides(plan, arguments, max(len(ids) for ids, _ in rows)) else ""
    model = load_model(read_json(plan.record), plan.precision, plan.quantization, across)
    model.config.use_cache = False  # of no use in training
    text = model.config.get_text_config()  # in which TRL looks for the experts by one name alone
    if not hasattr(text, "num_experts") and (found := [getattr(text, name, None) for name in EXPERTS]) and any(found):
        text.num_experts = next(filter(None, found))
    # Packed rows kept apart, or padded batches as they are in TRL.
    noisy = arguments.neftune_noise_alpha is not None
    padded, proof = "neftune_noise_alpha scales its noise by the length of rows", {}
    if not noisy:
        padded, proof = keep_apart(model, rows)
    start, shared = shared_prefix(plan, model, rows, padded)
    # Liger's kernels are not tried beside weights in fp32.
    kernels = "" if padded or plan.full else fuse_kernels(model)
    rows_per_step = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    if padded:
        print(f"Rows are padded and not packed: {padded}.", flush=True)
    elif device().type == "cuda":
        arguments.gradient_checkpointing = False  # unless memory needs it: see `llm.fit`
    collator, kl = None if padded else collate, plan.replay["kl"] if plan.replay else 0.0
    if kl:
        collator = partial(mark, collator or padding(chat))
    patience = plan.training.get("early_stopping_patience")
    try:
        make, base = trainable(plan, model)
        trainer = make(
            model=model,
            args=arguments,
            train_dataset=datasets[0],
            eval_dataset=datasets[1],
            processing_class=chat.tokenizer,
            data_collator=collator,
            callbacks=[keep, *([EarlyStoppingCallback(patience)] if patience is not None else [])],
        )
    except ValueError as error:  # PEFT's, of layers that it cannot adapt
        raise UserError(f"training: TRL or PEFT refuses this model with these settings ({error}).") from None
    trainer.kl, trainer.start, trainer.base = kl, start, base
    if arguments.fp16:  # TRL makes an adapter beside nf4 bf16, which a scaled loss cannot have
        for weight in trainer.model.parameters():
            weight.data = weight.data.float() if weight.requires_grad else weight.data
    how = {"padded": padded, "packing_proof": proof, "shared_prefix": shared, "kernels": kernels}
    how["fused_layers"] = fuse(trainer.model, learning=True)
    how["rows_per_step"], how["processes"] = rows_per_step, arguments.world_size
    how["divided_layers"] = sum(isinstance(module, FSDPModule) for module in model.modules()) - trainer.divided
    return trainer, how


def takes_graphs(trainer: Trainer, how: Mapping[str, Any]) -> bool:
    """Whether small steps may be computed by CUDA graphs: on one GPU, all adapted layers fused, and no experts.

    Which expert computes a token is a choice of the host, and a graph has no choices. Where activations are computed
    twice, no memory is left for one.
    """
    adapted = sum(isinstance(module, LoraLayer) for module in decoder(trainer.model).modules())
    choices = any(getattr(trainer.model.config.get_text_config(), name, None) for name in EXPERTS)
    plain = not choices and not how.get("gradient_checkpointing") and trainer.args.world_size == 1
    return not how["padded"] and plain and 0 < adapted == how["fused_layers"]


def divides(plan: Plan, arguments: SFTConfig, longest: int) -> bool:
    """Whether the processes divide the model's layers among them; the longest row has so many tokens."""
    if plan.divided is not None or arguments.world_size == 1:
        return bool(plan.divided)
    from llm.sharded import outgrows  # imports torch.distributed's

    # Neither can be divided: what does not fit is said when it is measured.
    if plan.full or plan.precision == "int8":
        return False
    if not outgrows(read_json(Path(read_json(plan.record)["path"]) / "config.json"), plan.settings, longest):
        return False
    print(f"The model outgrows one GPU: {arguments.world_size} processes hold a part of each layer.", flush=True)
    return True


def trainable(plan: Plan, model: PreTrainedModel) -> tuple[Callable[..., Trainer], PreTrainedModel | None]:
    """What makes the trainer of an adapter, or of all weights, and the model as it was, if its KL term needs a copy.

    All weights are those of the language model, embeddings and head among them, and not those of towers beside it.
    """
    if not plan.full:
        return partial(Trainer, peft_config=lora_config(plan.lora, model)), None
    base = copy.deepcopy(model).requires_grad_(False) if plan.replay and plan.replay["kl"] else None
    make_trainable(model, towers_of(model, linear_layers(model)))
    return partial(FullTrainer, precision=plan.precision), base


def shared_prefix(
    plan: Plan, model: PreTrainedModel, rows: Sequence[Row], padded: str
) -> tuple[list[int], dict[str, Any]]:
    """What rows begin with and is computed once, [] if they are computed whole; and why, for the report."""
    why = "rows are padded" if padded else whole(plan, model)
    if why:
        print(f"Rows are computed whole: {why}.", flush=True)
        return [], {"reason": why}
    start, facts = share(model, rows)
    if start and plan.lora.get("lora_dropout"):
        facts["dropout"] = "the rows of a micro-batch share one draw on the shared tokens"
    said = f"The first {len(start)} tokens of rows are computed once in each micro-batch."
    print(said if start else f"Rows are computed whole: {facts['reason']}.", flush=True)
    return start, facts


def whole(plan: Plan, model: PreTrainedModel) -> str:
    """Why rows are computed whole, whatever they share; "" if what they begin with may be computed once."""
    if not plan.training.get("share_prefix", True):
        return "training.share_prefix is false"
    if (loss_on := plan.training.get("loss_on", "completion")) in ("text", "prompt"):
        return f"the loss covers what rows share (training.loss_on: {loss_on})"
    if getattr(model.config, "output_router_logits", False):
        return "its routers have a loss over all tokens"
    return ""


def find_checkpoint(plan: Plan, arguments: SFTConfig, keep: Checkpoints) -> Path | None:
    """The checkpoint from which to go on; those of other settings, data, models or machines are deleted."""
    replayed = sha256_file(plan.replay_prompts) if plan.replay else None
    settings = plan.settings if plan.identity is None else plan.identity
    chosen = {"chosen": sha256_file(plan.chosen)} if plan.chosen else {}
    bound_to = {"settings": settings, "replay": replayed, "on": machine()["device"]} | chosen
    bound_to = sha256_json(identity(plan) | bound_to)
    with arguments.main_process_first(local=False):
        resumed = last_checkpoint(plan.checkpoints, bound_to, arguments.world_size)
        if resumed:
            keep.keep(resumed)  # a job may have been killed before it did
        # Steps that were not yet to be kept when the training passed them.
        if resumed and keep.missing(step_of(resumed)):
            print(f"{plan.checkpoints}: lack a step that is to be kept; starting over.", flush=True)
            shutil.rmtree(plan.checkpoints)
            resumed = last_checkpoint(plan.checkpoints, bound_to, arguments.world_size)
    return resumed


def optimise(plan: Plan, trainer: Trainer, resumed: Path | None, sigterm: Sigterm) -> tuple[Path, dict[str, Any]]:
    """Train to the end: the last checkpoint, and the time that it took."""
    if resumed:
        # Asked to resume from its last step, the trainer could do one more.
        control = read_json(resumed / "trainer_state.json")["stateful_callbacks"]["TrainerControl"]
        if control["args"]["should_training_stop"]:
            return resumed, {"train_seconds": 0.0, "tokens_per_second": None}
        print(f"{resumed}: resuming.", flush=True)
        trainer.go_on_from(resumed)
    if (name := plan.training.get("report_to", "none")) != "none":
        trainer.add_callback(tracker(name, Path(plan.tracker_dir), step_of(resumed) if resumed else 0))
    start = time.perf_counter()
    try:
        with sigterm:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    except torch.cuda.OutOfMemoryError as error:
        less = "training.method to lora" if plan.full else "models.<name>.precision to nf4"
        remedy = f"Set {less}, or shorten the prompts."
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


# Where trackers look for the folder of their files; what the user has set stays.
FOLDERS = {
    "wandb": "WANDB_DIR",
    "trackio": "TRACKIO_DIR",
    "swanlab": "SWANLAB_LOG_DIR",
    "comet_ml": "COMET_OFFLINE_DIRECTORY",
}


def tracker(name: str, folder: Path, first_step: int) -> TrainerCallback:
    """The callback that logs to a tracker, whose files are in `folder`.

    In TensorBoard, what a killed run logged after `first_step` is dropped from view; elsewhere what goes on after a
    kill is a run of its own.
    """
    if first_step == 0:
        shutil.rmtree(folder, ignore_errors=True)  # of other settings
    try:
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter  # imports as much as training itself does

            return TensorBoardCallback(SummaryWriter(str(folder), purge_step=first_step + 1 if first_step else None))
        folder.mkdir(parents=True, exist_ok=True)
        if name in FOLDERS:
            os.environ.setdefault(FOLDERS[name], str(folder.resolve()))
        elif name == "mlflow":
            os.environ.setdefault("MLFLOW_TRACKING_URI", folder.resolve().as_uri())
        return INTEGRATION_TO_CALLBACK[name]()
    except (ImportError, RuntimeError) as error:  # RuntimeError: transformers' own, of what is not installed
        raise UserError(
            f"training.report_to: {name} is not installed or cannot start ({error}). Install it, or set it to none."
        ) from None


def results_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Steps, epochs and losses of a finished training; a UserError if a loss is not finite."""
    found: dict[str, list] = {"history": [], "eval_history": []}
    keys = ("step", "loss", "learning_rate", "grad_norm", "mean_token_accuracy")
    for entry in state["log_history"]:
        loss = entry.get("loss", entry.get("eval_loss", 0.0))
        if not math.isfinite(loss):
            raise UserError(f"training: the loss at step {entry['step']} is {loss}. Lower learning_rate.")
        if "loss" in entry:
            replayed = {key: entry[key] for key in ("replay_kl", "replay_loss") if key in entry}
            found["history"].append({key: entry.get(key) for key in keys} | replayed)
        if "eval_loss" in entry:
            evaluated = {key: entry.get(key) for key in ("step", "eval_loss", "eval_mean_token_accuracy")}
            found["eval_history"].append(evaluated)
    stopped = state["global_step"] < state["max_steps"]
    return {"steps": state["global_step"], "epochs": state["epoch"], **found, "stopped_early": stopped}


if __name__ == "__main__":
    sys.exit(serve(lambda **plan: train(Plan(**plan))))
