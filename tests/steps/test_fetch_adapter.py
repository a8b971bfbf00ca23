"""Ready-made adapters, from a folder and from a hub: where they are put, what is refused, the proof that they act."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

from _loopback import COMMIT, Hub, use
from common.files import ADAPTER_FILES, UserError, read_json, read_jsonl, sha256_file
from fetch_adapter import fetch_adapter
from llm.adapters import load_adapter
from llm.answering import Job, predict
from llm.decoding import Decoding
from llm.load import load_model
from tiny_model import make_model, render, write_splits

WEIGHTS, CONFIG = ADAPTER_FILES
LORA = {"r": 4, "target_modules": ["v_proj", "q_proj"], "init_lora_weights": False, "task_type": "CAUSAL_LM"}
SETTINGS = {"precision": "fp32", "batch_size": 4, "max_new_tokens": 4, "prove": True}


def save(model, config, folder: Path) -> Path:
    torch.manual_seed(1)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A model, prompts, and an adapter whose configuration names a folder of another machine."""
    folder = tmp_path_factory.mktemp("made")
    write_splits(folder, test=10)
    record = make_model(folder / "model")
    render(folder, record, "test")
    save(load_model(read_json(record), "fp32"), LoraConfig(**LORA), folder / "public")
    edit(folder / "public", base_model_name_or_path="/home/someone/tiny")
    return folder


@pytest.fixture
def public(made, tmp_path) -> Path:
    """A copy of the adapter, to be spoilt."""
    return Path(shutil.copytree(made / "public", tmp_path / "public"))


def edit(folder: Path, **values) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def fetch(made: Path, out: Path, source: str, revision: str | None = None) -> dict:
    fetch_adapter("public", {"source": source, "revision": revision}, made / "model.json", out / "fetch_adapter.json")
    return read_json(out / "fetch_adapter.json")


def refused(made: Path, tmp_path: Path, source: Path | str, revision: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        fetch(made, tmp_path / "out", str(source), revision)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_a_folder_is_laid_out_as_a_trained_adapter(made, tmp_path):
    report = fetch(made, tmp_path, str(made / "public"))
    adapter = tmp_path / "adapter"
    assert sorted(path.name for path in adapter.iterdir()) == sorted(ADAPTER_FILES)
    assert (adapter / WEIGHTS).read_bytes() == (made / "public" / WEIGHTS).read_bytes()
    config = read_json(adapter / CONFIG)
    assert (config["base_model_name_or_path"], config["target_modules"]) == ("example/tiny", ["q_proj", "v_proj"])
    assert report["adapter_sha256"] == {name: sha256_file(adapter / name) for name in ADAPTER_FILES}
    assert report["files"][CONFIG]["sha256"] == sha256_file(made / "public" / CONFIG)
    assert (report["name"], report["source"], report["revision"]) == ("public", str(made / "public"), None)
    ids = torch.arange(20)[None]
    record = read_json(made / "model.json")
    ours, theirs = (load_adapter(load_model(record, "fp32"), place) for place in (adapter, made / "public"))
    assert torch.equal(ours(ids).logits, theirs(ids).logits)


@pytest.mark.parametrize(
    "kind",
    [{"use_rslora": True}, {"use_dora": True}, {"rank_pattern": {"q_proj": 7}}, {"target_modules": "all-linear"}],
)
def test_kinds_of_lora(made, tmp_path, kind):
    folder = save(load_model(read_json(made / "model.json"), "fp32"), LoraConfig(**LORA | kind), tmp_path / "public")
    edit(folder, base_model_name_or_path="example/tiny")
    fetch(made, tmp_path / "out", str(folder))
    answers = answer(made, tmp_path / "out/adapter", tmp_path)
    assert answers["adapter_acts"]["largest_change"] > 0


def test_a_hub_repository(made, tmp_path, monkeypatch):
    files = {name: (made / "public" / name).read_bytes() for name in ADAPTER_FILES}
    hub = Hub(files | {"README.md": b"# hello", "training_args.bin": b"pickle"})
    with use(hub, tmp_path / "cache", monkeypatch):
        report = fetch(made, tmp_path / "out", "hub:owner/model", COMMIT)
        assert report["revision"] == COMMIT
        assert not any("training_args" in path for _, path in hub.seen), "what is not wanted is not downloaded"
        assert report["adapter_sha256"] == fetch(made, tmp_path / "folder", str(made / "public"))["adapter_sha256"]


def test_a_branch_of_the_hub_is_refused(made, tmp_path):
    assert "A branch name moves with time" in refused(made, tmp_path, "hub:owner/model", "main")


def test_pickled_weights_are_refused(made, public, tmp_path, monkeypatch):
    (public / WEIGHTS).rename(public / "adapter_model.bin")
    assert "Pickled weights (adapter_model.bin) are not read" in refused(made, tmp_path, public)
    files = {path.name: path.read_bytes() for path in public.iterdir()}
    with use(Hub(files), tmp_path / "cache", monkeypatch):
        found = refused(made, tmp_path, "hub:owner/model", COMMIT)
    assert found.startswith(f"adapters.public.source: hub:owner/model has no {WEIGHTS}.")


def test_cut_weights_are_refused(made, public, tmp_path):
    os.truncate(public / "adapter_model.safetensors", 1000)
    said = refused(made, tmp_path, public)
    assert re.search(r"adapter_model\.safetensors: cut or damaged.* Get the file again", said)


def test_no_folder(made, tmp_path):
    assert f"has no {WEIGHTS}" in refused(made, tmp_path, tmp_path / "nothing")


def spoil(change) -> Callable[[Path], None]:
    def spoilt(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS)

    return spoilt


def first(weights: dict) -> str:
    return min(weights)


SPOILT = {
    "another base": (
        lambda folder: edit(folder, base_model_name_or_path="example/other"),
        "was made for example/other, but models.tiny.source is example/tiny",
    ),
    "another shape": (
        spoil(lambda weights: weights.update({first(weights): torch.zeros(4, 31)})),
        r"does not fit example/tiny: found \(4, 31\) for .*, expected \(4, 32\)",
    ),
    "a weight less": (spoil(lambda weights: weights.pop(first(weights))), r"found nothing for .*, expected \(4, 32\)"),
    "a weight more": (
        spoil(lambda weights: weights.update({"lm_head.weight": torch.zeros(2)})),
        r"found \(2,\) for lm_head.weight, expected nothing",
    ),
    "another rank": (lambda folder: edit(folder, r=3), "does not fit example/tiny"),
    "no such layer": (lambda folder: edit(folder, target_modules=["nothing"]), "PEFT cannot put this adapter on"),
    "not finite": (
        spoil(lambda weights: weights[first(weights)].fill_(float("nan"))),
        r"weight .* is not finite",
    ),
    "changed base": (lambda folder: edit(folder, init_lora_weights="pissa"), "began as pissa, which changes"),
    "other layers": (lambda folder: edit(folder, layer_replication=[[0, 2]]), "has layer_replication, so it does not"),
    "no object": (lambda folder: (folder / CONFIG).write_text("[]"), "config.json: found no JSON object, expected one"),
    "cut weights": (
        lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]),
        "adapter_model.safetensors: cut or damaged: found .* bytes, expected .* by its head",
    ),
    "no pattern": (lambda folder: edit(folder, target_modules="*_proj"), r"PEFT cannot .*\(nothing to repeat"),
    "code": (lambda folder: edit(folder, megatron_config={"a": 1}, megatron_core="os"), "has megatron_config"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_does_not_fit_is_refused(made, public, tmp_path, kind):
    change, message = SPOILT[kind]
    change(public)
    assert re.search(message, refused(made, tmp_path, public))


def test_another_kind_of_adapter_is_refused(made, tmp_path):
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    folder = save(load_model(read_json(made / "model.json"), "fp32"), config, tmp_path / "prompt")
    assert "is an adapter of the kind PROMPT_TUNING, expected LORA" in refused(made, tmp_path, folder)


def answer(made: Path, adapter: Path, out: Path, **settings) -> dict:
    """Answer with an adapter; the report."""
    decoding = Decoding(**SETTINGS | settings)
    job = Job(str(made / "prompts/test.jsonl"), str(made / "model.json"), str(adapter), decoding)
    predict(job, out / "answers.jsonl", out / "report.json")
    return read_json(out / "report.json")


def test_an_adapter_that_acts_is_proven_to(made, tmp_path):
    report = answer(made, made / "public", tmp_path / "beside")
    assert report["adapter_acts"]["prompts"] == 8
    assert report["adapter_acts"]["largest_change"] > 0.001
    merged = answer(made, made / "public", tmp_path / "merged", merge_adapters=True)
    assert merged["adapter_acts"] == report["adapter_acts"]
    assert "prove" not in report["settings"]
    plain = answer(made, made / "public", tmp_path / "trained", prove=False)
    assert "adapter_acts" not in plain
    assert read_jsonl(tmp_path / "trained/answers.jsonl") == read_jsonl(tmp_path / "beside/answers.jsonl")


@pytest.mark.parametrize("settings", [{}, {"merge_adapters": True}], ids=["beside", "merged"])
def test_an_adapter_that_does_nothing_answers_nothing(made, public, tmp_path, settings):
    """Its file is whole and fits, but it was never trained: B is 0."""
    weights = load_file(public / WEIGHTS)
    save_file({name: w * ("lora_A" in name) for name, w in weights.items()}, public / WEIGHTS)
    fetch(made, tmp_path / "out", str(public))
    with pytest.raises(UserError, match=r"adapter: does nothing. On 8 of the study's prompts"):
        answer(made, tmp_path / "out/adapter", tmp_path, **settings)
    assert not (tmp_path / "answers.jsonl").exists()
