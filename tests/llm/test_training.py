"""Training: the loss is that of the gold SQL, a killed run ends bit for bit where an uninterrupted one does."""

import json
import os
import shutil
import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from trl import SFTTrainer

import _forks
from common.files import UserError, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from llm import training as module
from llm.adapters import load_adapter
from llm.chat import load_chat
from llm.checkpoints import best_checkpoint, last_checkpoint
from llm.labels import build_dataset
from llm.load import load_model
from llm.options import lora_config, training_arguments
from llm.trainer import EpochLengths
from tiny_model import audit, make_model, render, write_splits

pytestmark = pytest.mark.usefixtures("two_threads")

LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["v_proj", "q_proj"]}
# 12 rows: 3 steps an epoch, so that step 5 lies within the second one and step 7 within the third.
TRAINING = {
    "learning_rate": 0.01,
    "max_steps": 7,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "optim": "adamw_torch",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "warmup_steps": 0.1,
    "lr_scheduler_type": "cosine",
    "max_length": 1024,
    "gradient_checkpointing": False,
    "save_steps": 2,
    "logging_steps": 3,
    "seed": 42,
}
ADAPTER = ("adapter_model.safetensors", "adapter_config.json")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_splits(folder)
    record = make_model(folder / "model")
    render(folder, record, "train")
    audit(folder, record)
    return folder


# The validation rows have words that the training rows lack: the better those are learnt, the worse these.
EVALUATED = TRAINING | {
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "max_steps": 12,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_steps": 4,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_loss",
    "early_stopping_patience": 2,
    "per_device_eval_batch_size": 2,
    "train_sampling_strategy": "group_by_length",
    "report_to": "tensorboard",
    "logging_steps": 1,
}


def make_evaluated(folder):
    """Write a study with validation rows, up to its audit, and return its folder."""
    write_splits(folder, validation=5)
    rows = read_jsonl(folder / "splits/validation.jsonl")
    write_jsonl(
        folder / "splits/validation.jsonl", [row | {"query": f"zebra ! xylophone {i}"} for i, row in enumerate(rows)]
    )
    record = make_model(folder / "model")
    for split in ("train", "validation"):
        render(folder, record, split)
    audit(folder, record)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return make_evaluated(tmp_path_factory.mktemp("evaluated"))


def arguments(study, variant, precision="fp32", lora=LORA, training=TRAINING):
    validation = study / "prompts/validation.jsonl"
    more = {"validation": str(validation), "tracker_dir": str(study / "tensorboard" / variant)}
    return (more if validation.is_file() else {}) | {
        "prompts": str(study / "prompts/train.jsonl"),
        "audit": str(study / "audit_labels.json"),
        "record": str(study / "model.json"),
        "adapter_dir": str(study / variant / "adapter"),
        "report": str(study / variant / "train.json"),
        "precision": precision,
        "lora": lora,
        "training": training,
    }


def train(**plan):
    """Train, and return the report."""
    return module.train(module.Plan(**plan))


def adapter(study, variant):
    return [(study / variant / "adapter" / name).read_bytes() for name in ADAPTER]


@pytest.fixture(scope="module")
def whole(study):
    """The variant of a training that nothing interrupted."""
    train(**arguments(study, "whole"))
    return "whole"


def test_report(study, whole):
    report = read_json(study / whole / "train.json")
    assert report["steps"] == 7
    assert report["trainable_parameters"] == 2 * 4 * ((32 + 32) + (32 + 16))  # 2 layers, r 4, q and v
    assert report["data_sha256"] == sha256_file(study / "prompts/train.jsonl")
    assert report["model"]["sha256"] == read_json(study / "model.json")["sha256"]
    assert report["settings"] == {"precision": "fp32", "lora": LORA, "training": TRAINING}
    assert report["audit"]["checked"] == 12
    assert report["adapter_sha256"][ADAPTER[0]] == sha256_file(study / whole / "adapter" / ADAPTER[0])
    assert [entry["step"] for entry in report["history"]] == [2, 3, 4, 6, 7]
    assert report["history"][-1]["loss"] < report["history"][0]["loss"]
    assert report["adapter_dtype"] == "float32"
    assert not (study / whole / "checkpoints").exists()


def test_adapter_files_name_no_machine_path(study, whole):
    config = read_json(study / whole / "adapter" / ADAPTER[1])
    assert config["base_model_name_or_path"] == "example/tiny"
    assert config["target_modules"] == ["q_proj", "v_proj"]
    assert str(study) not in json.dumps(config)


def test_adapter_changes_the_model(study, whole):
    record = read_json(study / "model.json")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        base = load_model(record, "fp32")(ids).logits
        tuned = load_adapter(load_model(record, "fp32"), study / whole / "adapter")(ids).logits
    assert not torch.allclose(base, tuned, atol=1e-2)


def test_loss_is_that_of_the_gold_sql_alone(study):
    """The loss of the first step against one computed here, over the completions' tokens and no others."""
    training = {**TRAINING, "per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "max_steps": 1}
    train(**arguments(study, "loss", lora={**LORA, "lora_dropout": 0.0}, training=training))
    record = read_json(study / "model.json")
    chat, model, total, count = load_chat(record), load_model(record, "fp32"), 0.0, 0
    for row in read_jsonl(study / "prompts/train.jsonl"):
        prompt, completion = chat.encode(row["prompt"], row["completion"])
        with torch.no_grad():  # a fresh adapter changes nothing: its B is zero
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(completion), reduction="sum").item()
        count += len(completion)
    assert read_json(study / "loss/train.json")["history"][0]["loss"] == pytest.approx(total / count, rel=1e-4)


KILLED = """
import json, os, signal, sys
import torch
from llm import trainer, training
from huggingface_hub import constants
assert constants.HF_HUB_OFFLINE
torch.set_num_threads(2)
where, at, arguments = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
class Between(training.Checkpoints):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == at:
            kill()
if where == "between":
    training.Checkpoints = Between
elif where == "saving":
    save = trainer.SFTTrainer._save_rng_state
    trainer.SFTTrainer._save_rng_state = lambda self, path: kill() if self.state.global_step == at else save(self, path)
elif where == "writing":
    training.write_adapter = kill
elif where == "keeping":
    training.Checkpoints.on_save = lambda self, args, state, control, **_: kill() if state.global_step == at else None
training.train(training.Plan(**arguments))
"""


def killed(study, variant, where, at=0, training=TRAINING, precision="fp32", more=None):
    """Run the training in a process of its own that is killed at `where`, between or saving at step `at`."""
    given = arguments(study, variant, precision, training=training) | (more or {})
    done = _forks.run(KILLED, where, str(at), json.dumps(given))
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.ci
def test_killed_again_and_again_ends_with_the_same_bits(study, whole, capfd):
    variant = study / "killed"
    killed(study, "killed", "between", 5)  # within an epoch, a step after a checkpoint
    assert sorted(path.name for path in variant.glob("checkpoints/*-*")) == ["checkpoint-2", "checkpoint-4"]
    assert not (variant / "adapter").exists()
    said = killed(study, "killed", "saving", 6)  # while a checkpoint is written
    assert "checkpoint-4: resuming." in said
    assert (variant / "checkpoints/checkpoint-6").exists()
    said = killed(study, "killed", "writing")  # after the last step, before the adapter
    assert "checkpoint-6: incomplete" in said
    assert "checkpoint-4: resuming." in said
    train(**arguments(study, "killed"))
    assert adapter(study, "killed") == adapter(study, whole)
    ours, theirs = read_json(variant / "train.json"), read_json(study / whole / "train.json")
    assert ours["history"] == theirs["history"]
    assert ours["resumed_from_step"] == 7
    assert not (variant / "checkpoints").exists()


@pytest.mark.long
def test_a_killed_run_goes_on_with_other_run_keys_and_not_with_another_identity(study, whole, capsys):
    """Checkpoints belong to the identity: what it leaves out may change between two attempts."""
    killed(study, "edited", "between", 5, more={"identity": {"learning_rate": 0.01}})
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    edited = TRAINING | {"logging_steps": 1, "save_steps": 3} | sizes
    train(**arguments(study, "edited", training=edited), identity={"learning_rate": 0.01})
    assert "checkpoint-4: resuming." in capsys.readouterr().out
    assert adapter(study, "edited")[1] == adapter(study, whole)[1]
    ours, theirs = (read_json(study / name / "train.json") for name in ("edited", whole))
    assert (ours["steps"], ours["rows_per_step"]) == (theirs["steps"], theirs["rows_per_step"])
    assert ours["settings"]["training"] == edited
    assert ours["history"][-1]["loss"] == pytest.approx(theirs["history"][-1]["loss"], abs=1e-3)
    killed(study, "edited", "between", 5, more={"identity": {"learning_rate": 0.01}})
    train(**arguments(study, "edited"), identity={"learning_rate": 0.02})
    assert "found checkpoints of other settings; deleted." in capsys.readouterr().out


def kept(study, variant, step):
    return [(study / variant / f"steps/{step}" / name).read_bytes() for name in ADAPTER]


@pytest.fixture(scope="module")
def with_steps(study):
    """The variant of a training that keeps the adapters of some steps: at a checkpoint, between two, and the last."""
    train(**arguments(study, "with_steps"), kept_steps=[2, 5, 7])
    return "with_steps"


def test_kept_steps_are_those_of_the_same_training(study, whole, with_steps):
    # Keeping them changes nothing of the training.
    assert adapter(study, with_steps) == adapter(study, whole) == kept(study, with_steps, 7)
    assert sorted(path.name for path in (study / with_steps / "steps").iterdir()) == ["2", "5", "7"]
    assert len({kept(study, with_steps, step)[0] for step in (2, 5, 7)}) == 3
    assert kept(study, with_steps, 5)[1] == adapter(study, whole)[1]
    assert not (study / with_steps / "checkpoints").exists()
    # Step 2 is that of a run that was killed after it.
    killed(study, "until3", "between", 3)
    weights = (study / "until3/checkpoints/checkpoint-2/adapter_model.safetensors").read_bytes()
    assert kept(study, with_steps, 2)[0] == weights


@pytest.mark.long
def test_killed_with_kept_steps_ends_with_the_same_bits(study, with_steps):
    more = {"kept_steps": [2, 5, 7]}
    killed(study, "killed_kept", "between", 6, more=more)
    assert "resuming" in killed(study, "killed_kept", "saving", 7, more=more)
    train(**arguments(study, "killed_kept"), **more)
    for step in (2, 5, 7):
        assert kept(study, "killed_kept", step) == kept(study, with_steps, step)


@pytest.mark.long
def test_killed_before_a_checkpoint_was_kept_goes_on_from_it(study, with_steps, capsys):
    killed(study, "unkept", "keeping", 2, more={"kept_steps": [2]})
    train(**arguments(study, "unkept"), kept_steps=[2])
    assert "checkpoint-2: resuming." in capsys.readouterr().out
    assert kept(study, "unkept", 2) == kept(study, with_steps, 2)
    assert adapter(study, "unkept") == adapter(study, with_steps)


@pytest.mark.long
def test_a_step_that_a_killed_training_has_passed_starts_it_over(study, with_steps, capsys):
    killed(study, "passed", "between", 5, more={"kept_steps": [2]})
    train(**arguments(study, "passed"), kept_steps=[3])
    assert "lack a step that is to be kept; starting over." in capsys.readouterr().out
    assert adapter(study, "passed") == adapter(study, with_steps)
    assert [path.name for path in (study / "passed/steps").iterdir()] == ["3"]


def test_a_step_that_is_never_reached_is_refused(study):
    with pytest.raises(UserError, match=r"evaluation.checkpoints: found 8, but this training has 7 optimizer steps"):
        train(**arguments(study, "late"), kept_steps=[8])


def test_a_step_after_an_early_stop_is_refused(evaluated):
    with pytest.raises(
        UserError, match=r"evaluation.checkpoints: found 12, but the training stopped early, after step"
    ):
        train(**arguments(evaluated, "early_kept", training=EVALUATED), kept_steps=[2, 12])


@pytest.fixture(scope="module")
def stopped(evaluated):
    """The variant of a training that stops early, not interrupted by anything else."""
    train(**arguments(evaluated, "stopped", training=EVALUATED))
    return "stopped"


def test_evaluation_stops_early_and_the_best_checkpoint_is_taken(evaluated, stopped):
    report = read_json(evaluated / stopped / "train.json")
    losses = {entry["step"]: entry["eval_loss"] for entry in report["eval_history"]}
    assert list(losses) == [2, 4, 6]
    assert report["best_step"] == min(losses, key=losses.get) == 2
    assert (report["steps"], report["stopped_early"]) == (6, True)
    assert report["validation_sha256"] == sha256_file(evaluated / "prompts/validation.jsonl")
    assert report["settings"]["training"] == EVALUATED
    # The adapter is the one with that loss on the validation rows, not the last one.
    record = read_json(evaluated / "model.json")
    chat, model = load_chat(record), load_adapter(load_model(record, "fp32"), evaluated / stopped / "adapter")
    total, batches = 0.0, 0
    rows = build_dataset(chat, read_jsonl(evaluated / "prompts/validation.jsonl")).to_list()
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100).item()
        batches += (labels != -100).sum().item()
    assert total / batches == pytest.approx(losses[2], rel=0.02)  # the trainer's is the mean of its batches' means
    assert abs(losses[6] - losses[2]) > 0.03 * losses[2]


@pytest.mark.ci
@pytest.mark.long
def test_killed_with_evaluation_ends_with_the_same_bits(evaluated, stopped):
    variant = evaluated / "killed"
    killed(evaluated, "killed", "between", 5, EVALUATED)  # the last checkpoint is not the best
    assert sorted(path.name for path in variant.glob("checkpoints/*-*")) == ["checkpoint-2", "checkpoint-4"]
    said = killed(evaluated, "killed", "saving", 6, EVALUATED)  # while the checkpoint of the stop is written
    assert "checkpoint-4: resuming." in said
    assert (variant / "checkpoints/checkpoint-6").exists()
    said = killed(evaluated, "killed", "writing", training=EVALUATED)  # stopped, but before the adapter
    assert "checkpoint-6: incomplete" in said
    assert "checkpoint-4: resuming." in said
    assert best_checkpoint(variant / "checkpoints/checkpoint-6") == variant / "checkpoints/checkpoint-2"
    train(**arguments(evaluated, "killed", training=EVALUATED))
    assert adapter(evaluated, "killed") == adapter(evaluated, stopped)
    ours, theirs = read_json(variant / "train.json"), read_json(evaluated / stopped / "train.json")
    for key in ("history", "eval_history", "best_step", "steps", "stopped_early"):
        assert ours[key] == theirs[key]
    assert ours["resumed_from_step"] == 6
    # Steps 5 and 6 were logged by the killed runs too.
    events = EventAccumulator(str(evaluated / "tensorboard/killed")).Reload()
    for tag, key, history in (("train/loss", "loss", "history"), ("eval/loss", "eval_loss", "eval_history")):
        expected = [(entry["step"], pytest.approx(entry[key])) for entry in ours[history]]
        assert [(event.step, event.value) for event in events.Scalars(tag)] == expected


@pytest.mark.long
def test_killed_in_a_later_epoch_with_evaluation_after_each(evaluated):
    """Grouped by length, the order of a resumed epoch is that of the uninterrupted one."""
    training = TRAINING | {
        "max_steps": 8,
        "eval_strategy": "epoch",
        "eval_steps": 50,  # the default of a study, unused
        "train_sampling_strategy": "group_by_length",
    }
    train(**arguments(evaluated, "epochs", training=training))
    report = read_json(evaluated / "epochs/train.json")
    assert [entry["step"] for entry in report["eval_history"]] == [3, 6, 8]
    assert (report["best_step"], report["stopped_early"]) == (None, False)
    killed(evaluated, "epochs-killed", "between", 7, training)
    train(**arguments(evaluated, "epochs-killed", training=training))
    again = read_json(evaluated / "epochs-killed/train.json")
    assert again["resumed_from_step"] == 6
    assert (again["history"], again["eval_history"]) == (report["history"], report["eval_history"])
    assert adapter(evaluated, "epochs-killed") == adapter(evaluated, "epochs")


def test_grouped_batches_have_rows_of_like_length():
    lengths = [length for length in range(1, 41) for _ in range(4)]
    sampler = EpochLengths(4, lengths=lengths, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == list(range(160))
    batches = [[lengths[i] for i in orders[1][start : start + 4]] for start in range(0, 160, 4)]
    spreads = [max(batch) - min(batch) for batch in batches]
    assert sum(spreads) / len(spreads) < 8  # of 40; at random it is about 24
    other = EpochLengths(4, lengths=lengths, seed=2)
    assert list(other) != orders[0]


def test_a_checkpoint_whose_best_one_is_gone_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "llm.checkpoints._complete", lambda checkpoint, processes: (checkpoint / "trainer_state.json").is_file()
    )
    folder = tmp_path / "checkpoints"
    last_checkpoint(folder, "a")
    for step, best in ((2, 2), (4, 2), (6, 2), (8, 5)):
        write_json(folder / f"checkpoint-{step}/trainer_state.json", {"best_global_step": best})
    assert last_checkpoint(folder, "a") == folder / "checkpoint-6"
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-6"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"eval_steps": 3}, "SFTConfig refuses these values .*a round multiple of the evaluation steps"),
        (
            {"optim": "paged_adamw_32bit"},
            "optim: paged_adamw_32bit is an optimizer of bitsandbytes, which",
        ),
        ({"optim": "adamw_8bit"}, "optim: adamw_8bit is an optimizer of bitsandbytes, which needs a CUDA"),
        ({"optim": "adam"}, "SFTConfig refuses these values"),
    ],
)
def test_options_that_contradict_or_cannot_be(tmp_path, monkeypatch, changes, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    training_arguments(EVALUATED, "fp32", tmp_path)
    with pytest.raises(UserError, match=found):
        training_arguments(EVALUATED | changes, "fp32", tmp_path)


def test_options_of_evaluation_reach_sftconfig(tmp_path):
    args = training_arguments(EVALUATED | {"save_total_limit": 3}, "fp32", tmp_path)
    assert (args.eval_strategy, args.eval_steps, args.save_total_limit) == ("steps", 2, 3)
    assert (args.load_best_model_at_end, args.greater_is_better) == (True, False)
    assert (args.train_sampling_strategy, args.per_device_eval_batch_size) == ("group_by_length", 2)
    assert args.report_to == []
    assert args.restore_callback_states_from_checkpoint
    plain = training_arguments(TRAINING, "fp32", tmp_path)
    assert (plain.eval_strategy, plain.save_total_limit, plain.train_sampling_strategy) == ("no", 2, "random")


def test_no_validation_rows(study):
    training = TRAINING | {"eval_strategy": "steps"}
    with pytest.raises(UserError, match=r"training.eval_strategy: found steps, but there are no validation rows"):
        train(**arguments(study, "none", training=training))


def test_audit_of_other_validation_prompts(evaluated, tmp_path):
    report = read_json(evaluated / "audit_labels.json")
    del report["sha256"]["validation_prompts"]
    write_json(tmp_path / "audit.json", report)
    with pytest.raises(UserError, match=r"made for other prompts than .*validation\.jsonl"):
        train(**arguments(evaluated, "other", training=EVALUATED) | {"audit": str(tmp_path / "audit.json")})


@pytest.fixture(scope="module")
def prompt_only(tmp_path_factory):
    """A study that trains on its prompts, as published ones did, and cuts its rows."""
    folder = tmp_path_factory.mktemp("prompt_only")
    write_splits(folder)
    record = make_model(folder / "model")
    render(folder, record, "train", loss_on="prompt")
    audit(folder, record, loss_on="prompt", accept_defect=["target_not_in_loss"])
    return folder


def mean_loss(study, texts):
    """The mean loss of the untrained model's tokens, of texts that are divided into what is not learnt and what is.

    Each is (learnt, not learnt, learnt, …); that of an empty text has no token.
    """
    record = read_json(study / "model.json")
    chat, model, total, count = load_chat(record), load_model(record, "fp32"), 0.0, 0
    for parts in texts:
        pieces = [chat.tokenizer.encode(part, add_special_tokens=False) for part in parts]
        ids = [token for piece in pieces for token in piece]
        seen = torch.tensor([place % 2 == 0 for place, piece in enumerate(pieces) for _ in piece][1:])
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        total, count = total + losses[seen].sum().item(), count + int(seen.sum())
    return total / count


def test_a_tracker_of_transformers_gets_the_losses(study, tmp_path, monkeypatch):
    """Its files lie in the folder of the run, unless the user has said where; one that is not installed is named."""
    seen = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            seen.append((os.environ["WANDB_DIR"], logs))

    given = arguments(study, "tracked", training=TRAINING | {"report_to": "wandb", "max_steps": 4, "save_steps": 4})
    given["tracker_dir"] = str(tmp_path / "trackers/wandb/m/run")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    with pytest.raises(UserError, match=r"training\.report_to: wandb is not installed or cannot start"):
        train(**given)
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "wandb", Tracker)
    train(**given)
    monkeypatch.delenv("WANDB_DIR")
    assert [logs["loss"] for _, logs in seen if "loss" in logs] == [
        entry["loss"] for entry in read_json(study / "tracked/train.json")["history"]
    ]
    assert {folder for folder, _ in seen} == {str((tmp_path / "trackers/wandb/m/run").resolve())}
    monkeypatch.setenv("WANDB_DIR", "mine")
    module.tracker("wandb", tmp_path / "other", 0)
    assert os.environ["WANDB_DIR"] == "mine"


@pytest.mark.parametrize("loss_on", ["text", "assistant"])
def test_the_loss_is_on_what_the_study_says(loss_on, tmp_path, monkeypatch, capsys):
    """The losses of the first step and of the validation rows are those of these tokens; the log says what follows."""
    write_splits(tmp_path, validation=3)
    record = make_model(tmp_path / "model")
    for part in ("train", "validation"):
        render(tmp_path, record, part, "text_to_sql_turns", loss_on=loss_on)
    audit(tmp_path, record, loss_on=loss_on)
    training = TRAINING | {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "max_steps": 1}
    training |= {"loss_on": loss_on, "learning_rate": 1e-9, "eval_strategy": "steps", "eval_steps": 1}
    given = arguments(tmp_path, "run", lora={**LORA, "lora_dropout": 0.0}, training=training)
    monkeypatch.setattr(module, "device", lambda: torch.device("cuda"))
    if loss_on == "text":  # the rows' common beginning has a loss in each of them
        plan = module.Plan(**given)
        assert module.shared_prefix(plan, None, [], "") == (
            [],
            {"reason": "the loss covers what rows share (training.loss_on: text)"},
        )
        assert "Rows are computed whole: the loss covers what rows share" in capsys.readouterr().out
    monkeypatch.undo()
    train(**given)
    found = read_json(tmp_path / "run/train.json")

    def divided(row):
        cuts = [0, *(place for span in row["learnt"] for place in span)]
        if loss_on == "text":
            return [row["prompt"] + row["completion"]]
        parts = [row["prompt"][start:end] for start, end in zip(cuts, [*cuts[1:], None], strict=True)]
        return ["", *parts, row["completion"]]

    for part, loss in (("train", found["history"][0]["loss"]), ("validation", found["eval_history"][0]["eval_loss"])):
        rows = read_jsonl(tmp_path / f"prompts/{part}.jsonl")
        assert loss == pytest.approx(mean_loss(tmp_path, map(divided, rows)), rel=1e-4)


def test_prompt_as_target(prompt_only):
    """The loss of the first step is that of all tokens of the prompts."""
    training = TRAINING | {"per_device_train_batch_size": 12, "gradient_accumulation_steps": 1, "max_steps": 1}
    given = arguments(prompt_only, "run", lora={**LORA, "lora_dropout": 0.0}, training=training)
    with pytest.raises(UserError, match=r"not what training.loss_on: completion renders"):
        train(**given)
    with pytest.raises(UserError, match=r"completion is empty.*says accept_defect: \[target_not_in_loss\]"):
        train(**(given := given | {"training": training | {"loss_on": "prompt"}}))
    train(**given, accept_defect=["target_not_in_loss"])
    rows = read_jsonl(prompt_only / "prompts/train.jsonl")
    expected = mean_loss(prompt_only, [(row["prompt"], "") for row in rows])
    report = read_json(prompt_only / "run/train.json")
    assert report["history"][0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert report["failed"] == report["accepted"] == ["target_not_in_loss"]


def test_cut_rows(study, tmp_path):
    """Rows without any SQL left are left out, cut ones are trained on as far as they go."""
    shutil.copytree(study / "prompts", tmp_path / "prompts")
    shutil.copytree(study / "splits", tmp_path / "splits")
    shutil.copytree(study / "data", tmp_path / "data")
    shutil.copy(study / "model.json", tmp_path)
    rows = read_jsonl(tmp_path / "prompts/train.jsonl")
    max_length = max(row["prompt_tokens"] for row in rows)
    meant = [row for row in rows if row["prompt_tokens"] < max_length]
    assert 0 < len(meant) < len(rows)
    options = {"truncate": True, "accept_defect": ["truncated"]}
    report = read_json(audit(tmp_path, tmp_path / "model.json", max_length, **options))
    assert report["without_target"] == len(rows) - len(meant)
    training = TRAINING | {"max_length": max_length, "truncate": True, "max_steps": 2}
    given = arguments(tmp_path, "cut", training=training)
    with pytest.raises(UserError, match=r"expected at most training.max_length.*accept_defect: \[truncated\]"):
        train(**given)
    train(**given, accept_defect=["truncated"])
    report = read_json(tmp_path / "cut/train.json")
    assert report["rows"] == len(meant)
    assert report["audit"]["label_tokens"] == sum(
        min(row["completion_tokens"], max_length - row["prompt_tokens"]) for row in meant
    )
    assert report["failed"] == ["truncated"]


def test_checkpoints_of_other_settings_are_wiped(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    assert last_checkpoint(folder, "a") is None
    (folder / "checkpoint-4").mkdir()
    assert last_checkpoint(folder, "b") is None
    assert not (folder / "checkpoint-4").exists()
    assert "other settings" in capsys.readouterr().out


def test_another_seed_gives_another_adapter(study, whole):
    train(**arguments(study, "seed", training={**TRAINING, "seed": 43}))
    assert adapter(study, "seed")[0] != adapter(study, whole)[0]


def test_gradient_checkpointing_changes_nothing_but_memory(study, whole):
    train(**arguments(study, "gc", training={**TRAINING, "gradient_checkpointing": True}))
    losses = [[e["loss"] for e in read_json(study / v / "train.json")["history"]] for v in ("gc", whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_bf16(study):
    train(**arguments(study, "bf16", precision="bf16"))
    report = read_json(study / "bf16/train.json")
    assert report["adapter_dtype"] == "float32"
    assert load_model(read_json(study / "model.json"), "bf16").dtype == torch.bfloat16


def test_diverged_training_is_refused(study):
    training = {**TRAINING, "learning_rate": 1e30, "lr_scheduler_type": "constant", "warmup_steps": 0}
    with pytest.raises(UserError, match="Lower learning_rate"):
        train(**arguments(study, "diverged", training=training))
    assert not (study / "diverged/adapter").exists()


def test_out_of_gpu_memory(study, monkeypatch):
    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SFTTrainer, "training_step", full)
    with pytest.raises(UserError, match="precision to nf4"):
        train(**arguments(study, "full"))


def test_nf4_without_gpu(study, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"models.tiny.precision: precision nf4 needs a CUDA GPU"):
        train(**arguments(study, "nf4", precision="nf4"))


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("max_seq_length", 512, "SFTConfig refuses these values .*max_seq_length"),
        ("packing", True, "SFTConfig refuses these values .*packing"),
        ("fp16", True, "SFTConfig refuses these values .*fp16"),
        ("lr_scheduler_type", "cosinus", "SFTConfig refuses these values"),
    ],
)
def test_bad_training_options(tmp_path, key, value, found):
    with pytest.raises(UserError, match=found):
        training_arguments({**TRAINING, key: value}, "fp32", tmp_path)


def test_training_options_reach_sftconfig(tmp_path):
    args = training_arguments({**TRAINING, "neftune_noise_alpha": 5.0}, "fp32", tmp_path)
    assert (args.learning_rate, args.neftune_noise_alpha) == (0.01, 5.0)
    assert (args.bf16, args.gradient_checkpointing) == (False, False)
    assert args.get_warmup_steps(100) == 10  # below 1 it is a share of the steps
    assert training_arguments(TRAINING, "bf16", tmp_path).bf16 is True


def test_target_module_that_is_not_there(study):
    model = load_model(read_json(study / "model.json"), "fp32")
    with pytest.raises(UserError, match=r"found q_prj, expected linear layers: .*down_proj.*q_proj"):
        lora_config({**LORA, "target_modules": ["q_prj", "v_proj"]}, model)


def test_audit_of_other_prompts(study, tmp_path):
    report = read_json(study / "audit_labels.json")
    report["sha256"]["prompts"] = "0" * 64
    write_json(tmp_path / "audit.json", report)
    with pytest.raises(UserError, match="made for other prompts"):
        train(**{**arguments(study, "other"), "audit": str(tmp_path / "audit.json")})


def test_labels_are_checked_on_the_trainers_own_rows(study, tmp_path):
    """With a max_length that the audit never saw, the trainer would cut rows: it must not come to a step."""
    longest = read_json(study / "audit_labels.json")["longest_row_tokens"]
    training = {**TRAINING, "max_length": longest - 1}
    with pytest.raises(UserError, match=rf"found {longest} tokens, expected at most training.max_length"):
        train(**arguments(study, "cut", training=training))
    shutil.rmtree(study / "cut", ignore_errors=True)


def test_some_of_the_rows_are_trained_on_in_the_order_of_all(study, tmp_path):
    prompts = read_jsonl(study / "prompts/train.jsonl")
    ids = [row["id"] for row in prompts][1::2]
    about = {"name": "6", "settings": {"count": 6, "seed": 42}, "rows": 6, "of": 12, "ids_sha256": "x"}
    write_json(tmp_path / "rows.json", about | {"ids": ids[::-1]})
    training = {key: value for key, value in TRAINING.items() if key != "max_steps"} | {"num_train_epochs": 1}
    given = arguments(study, "chosen", training=training | {"rows": about["settings"]})
    plan = module.Plan(**given, chosen=str(tmp_path / "rows.json"))
    assert [row["id"] for row in module.read_rows(plan)[0]] == ids
    report = module.train(plan)
    # Steps are those of the rows that are trained on, and so is the proof of what enters the loss.
    assert (report["rows"], report["audit"]["checked"], report["steps"]) == (6, 6, 2)
    assert report["chosen"] == about
    assert report["data_sha256"] == sha256_file(study / "prompts/train.jsonl")


def test_rows_that_are_not_there_are_refused(study, tmp_path):
    write_json(tmp_path / "rows.json", {"ids": ["train_spider-00003", "other"]})
    plan = module.Plan(**arguments(study, "refused"), chosen=str(tmp_path / "rows.json"))
    with pytest.raises(UserError, match=r"found 2 rows, of which 1 are in .*\. Run `snakemake -R choose_rows`"):
        module.read_rows(plan)
