"""The studies by name: they are valid, and what they would train is what the reports say they trained."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from _rules import settings
from common.access import check_access
from common.files import UserError, read_json, read_jsonl
from llm.options import lora_config, training_arguments
from prepare import prepare
from study import read, unfold
from tasks import mmlu as mmlu_task
from tasks import spider as spider_task

REPO = Path(__file__).parents[2]
FILES = sorted((REPO / "studies").glob("*.yaml"))
NAMES = ["assignment", "souza", "ribeiro", "freitas", "cunha"]


def raw(name: str) -> dict:
    return read.read_yaml(REPO / f"studies/{name}.yaml")


def study(name: str, protocol: str = "corrected", scale: str = "full") -> dict:
    return read.resolve(raw(name), {"protocol": protocol, "scale": scale}, name)


def slices(name: str, protocol: str = "corrected", scale: str = "full") -> dict:
    return settings(raw(name) | {"protocol": protocol, "scale": scale})


def every_protocol():
    for path in FILES:
        protocols = raw(path.stem).get("protocols", {})
        for protocol in ("corrected", *(["as_reported"] if "as_reported" in protocols else [])):
            yield path.stem, protocol


def test_the_assignment_and_the_four_reports_are_here():
    assert set(NAMES) <= {path.stem for path in FILES}
    assert {name for name, protocol in every_protocol() if protocol == "as_reported"} == set(NAMES) - {"assignment"}


@pytest.mark.parametrize("scale", ["full", "smoke"])
@pytest.mark.parametrize(("name", "protocol"), list(every_protocol()))
def test_every_study_is_valid(name, protocol, scale):
    if name == "published-systems" and scale == "smoke":  # answers cannot be made fewer
        return
    config = study(name, protocol, scale)
    assert config["study"] == name
    runs = [run["variant"] for run in slices(name, protocol, scale)["tables"]["runs"]]
    assert runs[0] == "base"
    assert len(runs) >= (2 if scale == "smoke" or name.startswith(("freitas", "demo")) else 3)
    # A study whose own name is no defect says which of its method are.
    assert bool(config["known_defects"]) == (protocol == "as_reported")
    for model in (config["models"][name] for name in unfold.loaded(config)):
        pinned = model["revision"] is not None and len(model["revision"]) == 40
        assert pinned or Path(REPO, model["source"]).is_dir()


@pytest.mark.parametrize("name", NAMES)
def test_smoke_changes_the_model_and_numbers_only(name):
    full, smoke = (study(name, scale=scale) for scale in ("full", "smoke"))
    assert unfold.label(smoke) == f"{name}-smoke"
    for section in ("tables", "published", "accept_defect"):
        assert smoke[section] == full[section]
    target, yardstick = (
        {key for key in full["tasks"][task] if smoke["tasks"][task][key] != full["tasks"][task][key]}
        for task in ("spider", "mmlu")
    )
    assert target <= {"train_questions", "validation", "questions", "max_new_tokens"}
    assert "questions_per_category" in yardstick or name == "cunha"
    assert yardstick <= {"questions_per_category", "questions"}


# What the trainer is given, of each report as it was run: the arguments that the report or its code states.
STATED = {
    "souza": {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 4,
        "weight_decay": 0.001,
        "max_grad_norm": 0.3,
        "warmup_steps": 0.03,
        "lr_scheduler_type": "cosine",
    },
    "ribeiro": {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "warmup_steps": 2,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",
        "max_length": 1024,
        "seed": 42,
    },
    "freitas": {
        "num_train_epochs": 5,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "weight_decay": 0.01,
        "warmup_steps": 0.03,
        "lr_scheduler_type": "cosine",
        "eval_strategy": "steps",
        "eval_steps": 200,
        "save_steps": 200,
        "save_total_limit": 3,
        "logging_steps": 50,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "gradient_checkpointing": True,
        "train_sampling_strategy": "group_by_length",
        "max_length": 1024,
        "seed": 42,
    },
    "cunha": {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 4,
        "learning_rate": 2e-4,
        "max_length": 512,
        "weight_decay": 0.001,
        "max_grad_norm": 0.3,
        "warmup_steps": 0.03,
        "lr_scheduler_type": "cosine",
        "train_sampling_strategy": "group_by_length",
    },
    "assignment": {"seed": (1, 2, 3), "learning_rate": (2e-4, 5e-5)},
}
SWEPT = {
    "souza": ("learning_rate", {1e-4, 5e-5}),
    "ribeiro": ("learning_rate", {2e-4, 5e-4}),
    "freitas": ("learning_rate", {1e-4}),
    "cunha": ("max_steps", {50, 200}),
    "assignment": ("learning_rate", {2e-4, 5e-5}),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_the_trainer_is_given(name, tmp_path):
    protocol = "corrected" if name == "assignment" else "as_reported"
    (runs,) = slices(name, protocol)["train"].values()
    swept, values = SWEPT[name]
    found = []
    for run in runs.values():
        training = run["training"]
        if name == "freitas":
            assert training["optim"] == "paged_adamw_32bit"
            assert training["early_stopping_patience"] is not None
            assert training["report_to"] == "tensorboard"
            # The optimizers of bitsandbytes are refused without a GPU, at the start of a training.
            training = training | {"optim": "adamw_torch"}
        arguments = training_arguments(training, run["precision"], tmp_path)
        found.append(getattr(arguments, swept))
        assert (arguments.bf16, arguments.fp16) == (True, False)
        for key, value in STATED[name].items():
            effective = getattr(arguments, key)
            assert effective in value if isinstance(value, tuple) else effective == value, key
    assert set(found) == values
    assert len(found) == (6 if name == "assignment" else len(values))


def test_warmup_is_a_share_of_the_steps(tmp_path):
    (runs,) = slices("souza")["train"].values()
    for run in runs.values():
        # 0.03 of 1,731 steps, rounded up, as the report's warmup_ratio was.
        assert training_arguments(run["training"], "nf4", tmp_path).get_warmup_steps(1731) == 52


# Model, study, whose adapter has so many parameters: r x (inputs + outputs) of each layer that is named. Only Ribeiro's
# report prints its own, 1.7 million (II-C).
LORA = [
    ("assignment", "llama", 41_943_040),
    ("souza", "llama", 20_971_520),
    ("cunha", "llama", 20_971_520),
    ("ribeiro", "mistral", 1_703_936),
    ("freitas", "gemma", 460_800),
]


def meta_model(kind: str) -> torch.nn.Module:
    """Return Llama-3-8B, Mistral-7B or gemma-2b without any weights."""
    eight = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    with torch.device("meta"):
        if kind == "llama":
            return LlamaForCausalLM(LlamaConfig(**eight, num_key_value_heads=8, vocab_size=128256))
        if kind == "mistral":
            return MistralForCausalLM(MistralConfig(**eight, num_key_value_heads=8, vocab_size=32000))
        return GemmaForCausalLM(
            GemmaConfig(
                hidden_size=2048,
                intermediate_size=16384,
                num_hidden_layers=18,
                num_attention_heads=8,
                num_key_value_heads=1,
                head_dim=256,
                vocab_size=256000,
            )
        )


@pytest.mark.parametrize(("name", "kind", "expected"), LORA)
def test_parameters(name, kind, expected):
    config = study(name)
    model = meta_model(kind)
    (facts,) = config["models"].values()
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 2) == facts["parameters"]
    assert model.config.vocab_size == facts["vocabulary"]
    with torch.device("meta"):
        adapted = get_peft_model(model, lora_config(config["lora"], model))
    trained, everything = adapted.get_nb_trainable_parameters()
    assert trained == expected
    if name == "ribeiro":
        # As its report prints it: 0.0235% of 7.24 billion.
        assert round(100 * trained / everything, 4) == 0.0235


@pytest.fixture(scope="module")
def spider(shared_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("spider")
    counts = {"train_spider": 7000, "train_others": 1659, "dev": 1034}
    source = str(shared_data / "spider/spider_data.zip")
    spider_task.fetch({"name": "tasks.spider", "source": source, "sha256": None, "counts": counts}, out)
    return out


@pytest.fixture(scope="module")
def mmlu(shared_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("mmlu")
    source = str(shared_data / "mmlu/mmlu_data.tar.gz")
    about = {"name": "tasks.mmlu", "revision": None, "sha256": None}
    mmlu_task.fetch(about | {"source": source, "subjects": 57}, out)
    return out


def steps_an_epoch(rows: int, training: dict) -> int:
    """As the trainer counts them: the last batch and the last group of an epoch may be smaller."""
    batches = math.ceil(rows / training["per_device_train_batch_size"])
    return math.ceil(batches / training["gradient_accumulation_steps"])


def split(spider, name, out, protocol="corrected"):
    config = study(name, protocol)
    for part, options in slices(name, protocol)["prepare_spider"].items():
        prepare(spider, part, options, out / f"{part}.jsonl")
    rows = {path.stem: len(read_jsonl(path)) for path in out.glob("*.jsonl")}
    return config["training"], rows | {"shots": len(read_json(out / "shots.json")["set_aside"])}


def test_souza_has_the_rows_and_steps_of_its_report(spider, tmp_path):
    training, rows = split(spider, "souza", tmp_path)
    assert (rows["train"], rows["validation"]) == (6924, 1732)
    assert steps_an_epoch(rows["train"], training) == 1731


# The three few-shot rows, which two reports left in, are out; that changes no number of steps.
@pytest.mark.parametrize(
    ("name", "epochs", "steps", "shots"), [("ribeiro", 2, 876, 3), ("cunha", 1, 1750, 0), ("freitas", 5, 5 * 875, 3)]
)
def test_rows_and_steps_of_the_reports(name, epochs, steps, shots, spider, tmp_path):
    training, rows = split(spider, name, tmp_path, "as_reported")
    assert rows["shots"] == shots
    assert 6995 <= rows["train"] + shots <= 7000
    assert training["num_train_epochs"] == epochs
    assert epochs * steps_an_epoch(rows["train"], training) == steps
    # Freitas stops by dev; the two others look at nothing while they train.
    assert rows["validation"] == (1034 if name == "freitas" else 0)


@pytest.mark.parametrize(("name", "rows"), [("freitas", 7000), ("assignment", 8659)])
def test_whole_databases_are_set_aside_where_the_study_is_ours(name, rows, spider, tmp_path):
    _, found = split(spider, name, tmp_path)
    assert found["train"] + found["validation"] + found["shots"] == rows
    assert rows / 10 - 3 <= found["validation"] < rows / 8
    databases = [{row["db_id"] for row in read_jsonl(tmp_path / f"{part}.jsonl")} for part in ("train", "validation")]
    assert databases[0].isdisjoint(databases[1])


@pytest.mark.parametrize(("name", "protocol"), [run for run in every_protocol() if run[0] in NAMES])
def test_questions_of_the_reports(name, protocol, shared_data, mmlu, tmp_path):
    config = study(name, protocol)
    prepare(mmlu, "test", slices(name, protocol)["prepare_mmlu"]["test"], tmp_path / "questions.jsonl")
    found = read_json(tmp_path / "questions.json")
    if name == "ribeiro":
        # All test questions of 39 subjects; his fourth table gives the sizes of six of them.
        assert len(found["by_subject"]) == 39
        sizes = config["published"]["tables"][2]["n"]
        assert {subject: found["by_subject"][subject] for subject in sizes} == sizes
        assert found["rows"] == 8922
    else:
        assert sorted(found["by_subject"].values()) == [50, 50, 50]
    rows = read_jsonl(tmp_path / "questions.jsonl")
    if name == "cunha":
        with (shared_data / "cunha/mmlu_base.jsonl").open(encoding="utf-8") as stream:
            asked = {json.loads(line)["question"].strip() for line in stream}
        assert {row["question"].strip() for row in rows} == asked
        if protocol == "as_reported":  # its examples stand in the words of its prompt
            assert not any(row["shots"] for row in rows)
            return
    assert {len(row["shots"]) for row in rows} == {4}
    shown = {json.dumps(row["shots"]) for row in rows}
    own = len(found["by_subject"])
    assert len(shown) == (1 if protocol == "as_reported" and name in ("souza", "ribeiro") else own)


GATED = [path.stem for path in FILES if any(model.get("gated") for model in raw(path.stem)["models"].values())]


def test_which_studies_need_a_licence():
    assert sorted(GATED) == sorted(NAMES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_gated_model_needs_a_token(path, monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    models = study(path.stem)["models"]
    if path.stem not in GATED:
        check_access(models)
        return
    (source,) = (model["source"] for model in models.values())
    with pytest.raises(UserError) as caught:
        check_access(models)
    for words in (f"https://huggingface.co/{source}", "HF_TOKEN", "Nothing was started"):
        assert words in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    check_access(models)


FETCH = """
import json, sys, time
from common.files import UserError
from fetch_model import fetch_model
found = {}
for study, name, source, revision in json.load(sys.stdin):
    start = time.monotonic()
    try:
        fetch_model(name, source, revision, f"out/{study}.json")
    except UserError as error:
        found[study] = {"error": str(error), "seconds": time.monotonic() - start}
print(json.dumps(found))
"""


def test_without_a_network_each_model_step_ends_with_a_sentence(tmp_path):
    models = [
        (path.stem, name, model["source"], model["revision"])
        for path in FILES
        for name, model in study(path.stem)["models"].items()
        if model["revision"]
    ]
    environment = {
        key: value for key, value in os.environ.items() if "OFFLINE" not in key and not key.lower().endswith("_proxy")
    }
    # Nothing listens there: whatever address is asked for, the connection is refused.
    environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "HF_TOKEN": "hf_x"}
    environment |= {"HF_HOME": str(tmp_path / "hub")}
    process = subprocess.run(
        [sys.executable, "-c", FETCH],
        input=json.dumps(models),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60 * len(models),
    )
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert set(found) == {study for study, *_ in models}
    assert len(found) >= 9
    for study_name, _, source, _ in models:
        assert found[study_name]["error"].startswith(f"{source}: the hub cannot be reached")
        assert "Go online and run again, or give a local folder as source." in found[study_name]["error"]
    assert not (tmp_path / "out").exists()
    # No part of a model either.
    assert [
        path.name for path in (tmp_path / "hub").rglob("*") if path.suffix in (".safetensors", ".json", ".incomplete")
    ] == []
