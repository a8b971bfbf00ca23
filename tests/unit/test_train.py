"""Training: the loss is that of the gold SQL, a killed run ends bit for bit where an uninterrupted one does."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_model import audit, make_model, render, write_splits
from trl import SFTTrainer

from _chat import load_chat
from _files import UserError, read_json, read_jsonl, sha256_file, write_json
from _model import load_adapter, load_model
from train import last_checkpoint, lora_config, train, training_arguments

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


@pytest.fixture(scope="module", autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_splits(folder)
    record = make_model(folder / "model")
    render(folder, record, "train")
    audit(folder, record)
    return folder


def arguments(study, variant, precision="fp32", lora=LORA, training=TRAINING):
    return {
        "prompts": str(study / "prompts/train.jsonl"),
        "audit": str(study / "audit_labels.json"),
        "record": str(study / "model.json"),
        "adapter_dir": str(study / variant / "adapter"),
        "report": str(study / variant / "train.json"),
        "precision": precision,
        "lora": lora,
        "training": training,
    }


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
import train
from huggingface_hub import constants
assert constants.HF_HUB_OFFLINE
torch.set_num_threads(2)
where, arguments = sys.argv[1], json.loads(sys.argv[2])
def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
class Between(train.LogWithSave):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 5:
            kill()
if where == "between":
    train.LogWithSave = Between
elif where == "saving":
    save = train.SFTTrainer._save_rng_state
    train.SFTTrainer._save_rng_state = lambda self, path: kill() if self.state.global_step == 6 else save(self, path)
elif where == "writing":
    train.write_adapter = kill
train.train(**arguments)
"""


def killed(study, variant, where):
    """Run the training in a process of its own that is killed at `where`."""
    scripts = Path(sys.modules["train"].__file__).parent
    command = [sys.executable, "-c", KILLED, where, json.dumps(arguments(study, variant))]
    done = subprocess.run(command, cwd=scripts, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout


def test_killed_again_and_again_ends_with_the_same_bits(study, whole, capfd):
    variant = study / "killed"
    killed(study, "killed", "between")  # within an epoch, a step after a checkpoint
    assert sorted(path.name for path in variant.glob("checkpoints/*-*")) == ["checkpoint-2", "checkpoint-4"]
    assert not (variant / "adapter").exists()
    said = killed(study, "killed", "saving")  # while a checkpoint is written
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
    with pytest.raises(UserError, match="Halve per_device_train_batch_size"):
        train(**arguments(study, "full"))


def test_nf4_without_gpu(study, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"models.tiny.precision: precision nf4 needs a CUDA GPU"):
        train(**arguments(study, "nf4", precision="nf4"))


def test_unknown_precision(study):
    with pytest.raises(UserError, match="found 'fp8', expected one of fp32, bf16, nf4"):
        train(**arguments(study, "fp8", precision="fp8"))


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("max_seq_length", 512, r"training.max_seq_length: no such option .* Did you mean max_length"),
        ("packing", True, "training.packing: set by the workflow to False"),
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
