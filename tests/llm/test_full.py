"""Full fine-tuning: all weights are trained, and whatever takes an adapter takes them in its place."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from common.files import UserError, read_json, sha256_file, write_json
from llm import training as module
from llm.adapters import average, load_adapter, merge_into, merged
from llm.full import WRITTEN
from llm.load import load_model
from llm.training import Plan
from tests.llm.test_checkpoints import train_and_terminate
from tests.llm.test_training import EVALUATED, TRAINING, adapter, arguments, killed, make_evaluated, train
from tiny_model import audited_study
from train import train_on

pytestmark = pytest.mark.usefixtures("two_threads")

FULL = TRAINING | {"method": "full"}
IDS = torch.arange(20)[None]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    audited_study(folder)
    return folder


def full(study, variant, training=FULL, precision="fp32", **more):
    """Train all weights, and return the report; of a study, each variant once."""
    if not (study / variant / "train.json").exists():
        train(**arguments(study, variant, precision, {}, training) | more)
    return read_json(study / variant / "train.json")


def base(study, precision="fp32"):
    return load_model(read_json(study / "model.json"), precision)


def weights(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """A study whose model has one matrix for embeddings and head, and its training of all weights."""
    folder = tmp_path_factory.mktemp("tied")
    record = read_json(audited_study(folder))
    model = AutoModelForCausalLM.from_pretrained(record["path"])
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(record["path"])
    full(folder, "tied")
    return folder


def test_every_weight_is_trained_and_written_under_its_own_name(study):
    report, before = full(study, "whole"), weights(base(study))
    after = load_file(study / "whole/adapter/adapter_model.safetensors")
    assert after.keys() == before.keys()
    assert not [name for name in before if torch.equal(before[name], after[name])]
    assert report["trainable_parameters"] == report["all_parameters"] == sum(map(torch.numel, after.values()))
    assert (report["adapted_layers"], report["adapter_dtype"]) == ([], "float32")
    assert report["settings"] == {"precision": "fp32", "training": FULL}
    assert report["history"][-1]["loss"] < report["history"][0]["loss"]
    config = read_json(study / "whole/adapter/adapter_config.json")
    assert config == {"base_model_name_or_path": "example/tiny", "peft_type": "FULL", "precision": "fp32"}
    assert not (study / "whole/checkpoints").exists()


def test_the_first_step_is_that_of_adamw_on_the_gradient_of_the_loss(study):
    """One step against torch's own optimizer, on all rows at once, with the loss that the report has."""
    training = FULL | {"max_steps": 1, "per_device_train_batch_size": 12, "gradient_accumulation_steps": 1}
    training |= {"lr_scheduler_type": "constant", "warmup_steps": 0, "max_grad_norm": 0.0, "learning_rate": 1e-3}
    report = full(study, "step", training)
    plan, model = Plan(**arguments(study, "step", "fp32", {}, training)), base(study)
    chat = module.load_chat(read_json(plan.record))
    rows, _, _ = module.read_rows(plan)
    dataset, _ = module.tokenise(chat, rows, None)
    losses = []
    for row in dataset:
        logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row["labels"][1:]), reduction="none"))
    labels = sum((loss != 0).sum() for loss in losses)
    loss = sum(loss.sum() for loss in losses) / labels
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    loss.backward()
    optimizer.step()
    assert report["history"][0]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    found = load_file(study / "step/adapter/adapter_model.safetensors")
    # Adam's first step has the sign of the gradient, whose rounding shows where it is all but 0.
    near = [(found[name] - weight).abs().lt(1e-4).float().mean() for name, weight in weights(model).items()]
    assert min(near) > 0.97


def test_it_answers_with_its_own_weights_and_at_a_strength_with_those_between(study):
    full(study, "whole")
    folder, own = study / "whole/adapter", weights(base(study))
    tuned = load_file(folder / "adapter_model.safetensors")
    for strength in (0.0, 0.25, 1.0):
        found = weights(load_adapter(base(study), folder, strength=strength))
        for name, weight in found.items():
            torch.testing.assert_close(weight, own[name] + strength * (tuned[name] - own[name]))
    beside = load_adapter(base(study), folder)
    assert merged(beside, folder) is beside
    assert torch.equal(load_adapter(base(study), folder, merge=True)(IDS).logits, beside(IDS).logits)
    assert not torch.allclose(base(study)(IDS).logits, beside(IDS).logits, atol=1e-2)


def test_the_mean_of_several_is_that_of_their_weights(study, tmp_path):
    for variant, seed in (("whole", 42), ("other", 43)):
        full(study, variant, FULL | {"seed": seed})
    folders = [study / variant / "adapter" for variant in ("whole", "other")]
    average(folders, study / "model.json", tmp_path)
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    found = weights(load_adapter(base(study), tmp_path))
    for name, weight in found.items():
        torch.testing.assert_close(weight, (one[name] + other[name]) / 2)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_no_mean_of_all_weights_and_of_an_adapter(study, tmp_path):
    full(study, "whole")
    train(**arguments(study, "lora"))
    with pytest.raises(UserError, match="full fine-tuning and adapters have no mean"):
        average([study / "whole/adapter", study / "lora/adapter"], study / "model.json", tmp_path)


def test_a_stopped_training_ends_with_the_same_bits(study, monkeypatch, capfd):
    full(study, "kept", kept_steps=[4])
    monkeypatch.setattr(
        "tests.llm.test_checkpoints.arguments", lambda *a, training: arguments(*a, lora={}, training=training)
    )
    train_and_terminate(study, "stopped", FULL, 5, monkeypatch)
    assert {path.name for path in (study / "stopped/checkpoints/checkpoint-5").glob("*model*")} == {
        "adapter_model.safetensors"
    }
    train(**arguments(study, "stopped", "fp32", {}, FULL), kept_steps=[])
    assert "checkpoint-5: resuming." in capfd.readouterr().out
    assert adapter(study, "stopped") == adapter(study, "kept")
    histories = [read_json(study / variant / "train.json")["history"] for variant in ("stopped", "kept")]
    assert histories[0][-1] == histories[1][-1]
    step = study / "kept/steps/4"
    assert sha256_file(step / "adapter_model.safetensors") != sha256_file(
        study / "kept/adapter/adapter_model.safetensors"
    )
    assert load_adapter(base(study), step)(IDS).logits.isfinite().all()


@pytest.mark.long
def test_the_best_checkpoint_is_written(tmp_path):
    study = make_evaluated(tmp_path)
    training = EVALUATED | {"method": "full", "report_to": "none", "early_stopping_patience": None}
    report = full(study, "best", training, kept_steps=[2, 12])
    losses = {entry["step"]: entry["eval_loss"] for entry in report["eval_history"]}
    assert report["best_step"] == min(losses, key=losses.get) < 12
    written = (study / "best/adapter/adapter_model.safetensors").read_bytes()
    assert written != (study / "best/steps/12/adapter_model.safetensors").read_bytes()


def test_half_precision_trains_in_fp32_and_writes_half(study):
    gentle = FULL | {"learning_rate": 1e-3}
    report = full(study, "bf16", gentle, "bf16")
    assert (report["adapter_dtype"], report["padded"]) == ("bfloat16", "")
    whole = full(study, "gentle", gentle)
    losses = [[entry["loss"] for entry in one["history"]] for one in (report, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    found = load_file(study / "bf16/adapter/adapter_model.safetensors")
    assert {weight.dtype for weight in found.values()} == {torch.bfloat16}
    model = load_adapter(base(study, "bf16"), study / "bf16/adapter")
    assert torch.equal(model.lm_head.weight, found["lm_head.weight"])


def test_a_tied_head_is_trained_with_the_embeddings(tied):
    report = full(tied, "tied")
    found = load_file(tied / "tied/adapter/adapter_model.safetensors")
    assert "lm_head.weight" not in found
    assert report["trainable_parameters"] == sum(map(torch.numel, found.values()))
    model = load_adapter(base(tied), tied / "tied/adapter")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert torch.equal(model.lm_head.weight, found["model.embed_tokens.weight"])


def test_exported_it_is_a_model_that_transformers_load(tied, tmp_path):
    for strength in (1.0, 0.5):
        folder = tmp_path / f"exported{strength}"
        folder.mkdir()
        for file in (tied / "tied/adapter").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        merge_into(read_json(tied / "model.json"), "fp32", folder, strength)
        assert not list(folder.glob("adapter*"))
        expected = load_adapter(base(tied), tied / "tied/adapter", strength=strength)(IDS).logits
        assert torch.equal(AutoModelForCausalLM.from_pretrained(folder).eval()(IDS).logits, expected)


@pytest.mark.parametrize("padded", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_kl_term_is_that_of_the_model_as_it_was(study, tmp_path, monkeypatch, padded):
    """Before the first step the model is the base, so the term is 0; after it no more."""
    if padded:
        monkeypatch.setattr(module, "keep_apart", lambda *_: ("as in this test", {}))
    prompts, audit = Path(study / "prompts/train.jsonl"), study / "audit_labels.json"
    given = {"replay": {"fraction": 0.5, "kl": 1.0}, "replay_prompts": str(prompts), "replay_audit": str(audit)}
    report = full(study, f"kl{padded}", FULL | {"logging_steps": 1}, **given)
    terms = [entry["replay_kl"] for entry in report["history"] if "replay_kl" in entry]
    assert terms[0] == pytest.approx(0.0, abs=1e-6)
    assert max(terms) > 1e-3


def test_a_damaged_file_is_named(study, tmp_path):
    full(study, "whole")
    for file in (study / "whole/adapter").iterdir():
        (tmp_path / file.name).write_bytes(
            file.read_bytes()[:-100] if file.suffix == ".safetensors" else file.read_bytes()
        )
    with pytest.raises(UserError, match=r"cut or damaged: found .* the adapter is then trained anew"):
        load_adapter(base(study), tmp_path)


def test_weights_of_another_model_are_refused(study, tmp_path):
    torch.manual_seed(0)
    from safetensors.torch import save_file

    save_file({"model.norm.weight": torch.ones(3)}, tmp_path / "adapter_model.safetensors")
    write_json(tmp_path / "adapter_config.json", {"peft_type": "FULL", "precision": "fp32"})
    with pytest.raises(UserError, match=r"has a weight model.norm.weight, \(3,\), which the model has not"):
        load_adapter(base(study), tmp_path)


def test_a_diverged_training_is_refused(study):
    training = FULL | {"learning_rate": 1e30, "lr_scheduler_type": "constant", "warmup_steps": 0}
    with pytest.raises(UserError, match="Lower learning_rate"):
        full(study, "diverged", training)
    assert not (study / "diverged/adapter").exists()


@pytest.mark.long
def test_killed_while_a_checkpoint_is_written_it_ends_with_the_same_bits(study):
    full(study, "whole")
    killed(study, "killed", "saving", 6, training=FULL, more={"lora": {}})
    full(study, "killed")
    assert read_json(study / "killed/train.json")["resumed_from_step"] == 4
    assert adapter(study, "killed") == adapter(study, "whole")


@pytest.mark.long
def test_two_processes_train_as_one(study):
    """Each has the whole model and its share of a step's rows; they add up their gradients."""
    full(study, "one", FULL | {"max_steps": 3, "learning_rate": 1e-3})
    train_on(["0", "1"], arguments(study, "two", "fp32", {}, FULL | {"max_steps": 3, "learning_rate": 1e-3}))
    one, two = (read_json(study / variant / "train.json") for variant in ("one", "two"))
    assert two["processes"] == 2
    losses = [[entry["loss"] for entry in report["history"]] for report in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_all_weights_are_trained_in_fp32_and_answer_in_their_precision(study, precision):
    report = full(study, f"gpu-{precision}", precision=precision)
    assert report["device"] == torch.cuda.get_device_name(0)
    written = str(WRITTEN[precision]).removeprefix("torch.")
    assert (report["padded"], report["adapter_dtype"], report["fused_layers"]) == ("", written, 0)
    losses = [entry["loss"] for entry in report["history"]]
    assert losses[-1] < losses[0]
    assert losses[0] == pytest.approx(full(study, "gpu-fp32")["history"][0]["loss"], rel=0.01)
    folder = study / f"gpu-{precision}/adapter"
    written = load_file(folder / "adapter_model.safetensors")
    assert {weight.dtype for weight in written.values()} == {WRITTEN[precision]}
    model = load_adapter(base(study, precision), folder)
    with torch.inference_mode():
        assert model(IDS.cuda()).logits.isfinite().all()
