"""The studies by name: they are valid, and what they would train is what the reports say they trained."""

import copy
import math
from pathlib import Path

import pytest
import torch
import yaml
from peft import get_peft_model
from transformers import MistralConfig, MistralForCausalLM

import _config
from _access import check_access
from _files import UserError, read_jsonl
from _published import check_table, findings
from fetch_spider import fetch_spider
from prepare_spider import prepare_spider
from train import lora_config, training_arguments

REPO = Path(__file__).parents[2]
SCHEMA = _config.read_schema(REPO / "rules/config.schema.yaml")
SMOKE = _config.read_schema(REPO / "rules/smoke.yaml")
FILES = sorted((REPO / "studies").glob("*.yaml"))
NAMES = ["assignment", "souza", "ribeiro", "freitas", "cunha"]


def read(name: str) -> dict:
    return yaml.safe_load((REPO / f"studies/{name}.yaml").read_text(encoding="utf-8"))


def study(name: str, face: str = "corrected", scale: str = "full") -> dict:
    return _config.check(_config.unfold(read(name) | {"face": face, "scale": scale}, SMOKE, name), SCHEMA, name)


def every_face():
    for path in FILES:
        faces = read(path.stem).get("faces", {})
        for face in ("corrected", *(["as_reported"] if "as_reported" in faces else [])):
            yield path.stem, face


def test_the_assignment_and_the_four_reports_are_here():
    assert set(NAMES) <= {path.stem for path in FILES}
    assert {name for name, face in every_face() if face == "as_reported"} == set(NAMES) - {"assignment"}


@pytest.mark.parametrize("scale", ["full", "smoke"])
@pytest.mark.parametrize(("name", "face"), list(every_face()))
def test_every_study_is_valid(name, face, scale):
    config = study(name, face, scale)
    assert config["study"] == name
    settings = _config.settings(config)
    runs = [run["variant"] for run in settings["tables"]["runs"]]
    assert runs[0] == "base"
    assert len(runs) >= (2 if scale == "smoke" or name.startswith(("freitas", "demo")) else 3)
    # A study whose own name is no defect says which of its method are.
    assert bool(config["known_defects"]) == (face == "as_reported")
    for model in config["models"].values():
        pinned = model["revision"] is not None and len(model["revision"]) == 40
        assert pinned or Path(REPO, model["source"]).is_dir()


@pytest.mark.parametrize("name", NAMES)
def test_smoke_changes_the_model_and_numbers_only(name):
    full, smoke = (study(name, scale=scale) for scale in ("full", "smoke"))
    assert _config.label(smoke) == f"{name}-smoke"
    for section in ("prompt", "scoring", "tables", "published", "accept_defect"):
        assert smoke[section] == full[section]
    assert smoke["spider"]["source"] == full["spider"]["source"]
    assert smoke["mmlu"]["categories"] == full["mmlu"]["categories"]


@pytest.mark.parametrize("name", NAMES)
def test_the_trainer_takes_every_argument(name, tmp_path, monkeypatch):
    # The optimizers of bitsandbytes are refused without a GPU, at the start of a training.
    for settings in _config.settings(study(name, scale="smoke"))["train"].values():
        for run in settings.values():
            arguments = training_arguments(run["training"], run["precision"], tmp_path)
            assert arguments.learning_rate == run["training"]["learning_rate"]


def test_trainer_arguments_of_the_reports():
    souza, ribeiro, freitas, cunha = (study(name)["training"] for name in NAMES[1:])
    assert souza["learning_rate"] == [1e-4, 5e-5]
    assert (souza["weight_decay"], souza["max_grad_norm"], souza["warmup_steps"]) == (0.001, 0.3, 0.03)
    assert ribeiro["learning_rate"] == [2e-4, 5e-4]
    assert (ribeiro["lr_scheduler_type"], ribeiro["optim"]) == ("linear", "adamw_torch_fused")
    assert ribeiro["warmup_steps"] == 2
    # The corrected face cuts no row.
    lengths = {name: study(name, "as_reported")["training"]["max_length"] for name in ("ribeiro", "cunha")}
    assert lengths == {"ribeiro": 1024, "cunha": 512}
    assert freitas["optim"] == "paged_adamw_32bit"
    assert (freitas["eval_strategy"], freitas["eval_steps"]) == ("steps", 200)
    assert freitas["load_best_model_at_end"] is True
    assert cunha["max_steps"] == [50, 200]
    assert cunha["learning_rate"] == 2e-4


def test_lora_parameters_of_ribeiro():
    lora = study("ribeiro")["lora"]
    with torch.device("meta"):
        model = MistralForCausalLM(
            MistralConfig(
                vocab_size=32000,
                hidden_size=4096,
                intermediate_size=14336,
                num_hidden_layers=32,
                num_attention_heads=32,
                num_key_value_heads=8,
            )
        )
        adapted = get_peft_model(model, lora_config(lora, model))
    assert adapted.get_nb_trainable_parameters()[0] == 1_703_936


@pytest.fixture(scope="module")
def spider(shared_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("spider")
    counts = {"train_spider": 7000, "train_others": 1659, "dev": 1034}
    fetch_spider(str(shared_data / "spider/spider_data.zip"), None, counts, out)
    return {name: out / f"{name}.json" for name in ("train_spider", "train_others", "dev", "tables")}


def steps_an_epoch(rows: int, training: dict) -> int:
    """As the trainer counts them: the last batch and the last group of an epoch may be smaller."""
    batches = math.ceil(rows / training["per_device_train_batch_size"])
    return math.ceil(batches / training["gradient_accumulation_steps"])


def split(spider, name, out):
    config = study(name)
    prepare_spider(spider, **_config.settings(config)["prepare_spider"], out_dir=out)
    return config["training"], {path.stem: len(read_jsonl(path)) for path in out.glob("*.jsonl")}


def test_souza_has_the_rows_and_steps_of_its_report(spider, tmp_path):
    training, rows = split(spider, "souza", tmp_path)
    assert (rows["train"], rows["validation"]) == (6924, 1732)
    assert steps_an_epoch(rows["train"], training) == 1731


@pytest.mark.parametrize(("name", "steps", "epochs"), [("ribeiro", 876, 2), ("cunha", 1750, 1)])
def test_steps_of_the_reports(name, steps, epochs, spider, tmp_path):
    training, rows = split(spider, name, tmp_path)
    # The few-shot rows and their copies, which the reports left in, are out: a step or two less at the most.
    assert 6980 <= rows["train"] <= 7000
    assert steps - 4 <= epochs * steps_an_epoch(rows["train"], training) <= steps
    assert epochs * steps_an_epoch(7000, training) == steps


def test_freitas_batch_is_that_of_875_steps_an_epoch():
    assert steps_an_epoch(7000, study("freitas")["training"]) == 875


def impossible(name: str) -> set[tuple]:
    published = study(name)["published"]
    rows = [row for table in published["tables"] for row in check_table(table, published["subjects"])]
    assert rows
    return {(r["table"], r["kind"], r["variant"], r["column"]) for r in rows if r["possible"] is False}


def test_what_arithmetic_finds_in_the_reports():
    # Percent changes that are differences of percentages, and nothing else.
    assert impossible("souza") == {("Table I", "change", v, "all") for v in ("lr0.0001", "lr0.00005")}
    # The overall changes do not follow from the overall means; the single ones do not follow from the category means.
    wrong = impossible("ribeiro")
    assert {("Table III", "change", v, "all") for v in ("lr0.0002", "lr0.0005")} <= wrong
    assert not {row for row in wrong if row[0] == "Table II" or row[1] == "accuracy"}
    assert impossible("cunha") == set()


def test_what_else_is_odd_about_souza():
    config = study("souza")
    text = " ".join(findings(config["published"], 1034))
    assert "899 questions, but the official split has 1034" in text
    assert "econometrics stands under humanities; the benchmark has it under social_sciences" in text
    assert "world_religions stands under social_sciences; the benchmark has it under humanities" in text


def test_a_changed_figure_is_found():
    published = copy.deepcopy(study("cunha")["published"])
    table = next(table for table in published["tables"] if table["measure"] == "execution_accuracy")
    table["accuracy"]["base"]["all"] += 0.3
    assert any(row["possible"] is False for row in check_table(table, published["subjects"]))


def test_a_gated_model_without_a_token(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"huggingface\.co/meta-llama/Meta-Llama-3-8B-Instruct.*HF_TOKEN|HF_TOKEN"):
        check_access(study("souza")["models"])
    check_access(study("small-smollm2-135m")["models"])
