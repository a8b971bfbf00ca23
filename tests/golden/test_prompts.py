"""The prompts of all studies are, byte for byte, those that the code before the redesign rendered.

`prompts.json` holds the settings of each study, with and without the method of its report, as they act on the demo's
data and tokenizer: fewer rows, examples by their number, the demo's subjects. Settings that several studies share stand
once. The hashes were made by the code at commit 78045af. Who changes a prompt on purpose writes them anew.
"""

import json
import shutil
from pathlib import Path

import pytest

from common.files import read_json, sha256_file, write_json
from extend_shots import extend_shots
from fetch_replay import fetch_replay
from prepare_mmlu import prepare_mmlu
from prepare_replay import prepare_replay
from prepare_spider import prepare_spider
from render_mmlu import render_mmlu
from render_replay import render_replay
from render_spider import render_spider
from tasks import mmlu, spider

CASES = json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))


def named(kind: str) -> list:
    return [pytest.param(case, id=", ".join(case["studies"])) for case in CASES[kind]]


@pytest.fixture(scope="module")
def data(repo, tmp_path_factory) -> Path:
    """The demo's data, and a record of its tokenizer, in a model whose context no prompt is too long for."""
    folder, demo = tmp_path_factory.mktemp("data"), repo / "resources/demo"
    counts = {"train_spider": 864, "train_others": 72, "dev": 256}
    spider.fetch({"source": str(demo / "spider_data"), "sha256": None, "counts": counts}, folder / "spider")
    options = {"source": str(demo / "mmlu"), "revision": None, "sha256": None, "subjects": 3}
    mmlu.fetch(options, folder / "mmlu")
    shutil.copytree(demo / "model", folder / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    config = read_json(folder / "model/config.json")
    write_json(folder / "model/config.json", config | {"max_position_embeddings": 1_000_000})
    write_json(folder / "record.json", {"name": "demo", "path": str(folder / "model"), "source": "demo"})
    return folder


def test_every_study_is_here(repo):
    studies = {path.stem for path in (repo / "studies").glob("*.yaml")}
    for kind in ("text_to_sql", "multiple_choice"):
        assert studies <= {name for case in CASES[kind] for name in case["studies"]}


@pytest.mark.parametrize("case", named("text_to_sql"))
def test_text_to_sql(case, data, tmp_path):
    prepare_spider(data / "spider", case["prepare"], tmp_path)
    found = {f"{path.stem}_rows": sha256_file(path) for path in tmp_path.glob("*.jsonl")}
    tables = {name: data / f"spider/{name}.json" for name in ("tables", "manifest")}
    (tmp_path / "prompts").mkdir()
    for split in ("train", "validation", "dev", *(f"dev_shots{number}" for number in case["further_shots"])):
        name, _, number = split.partition("_shots")
        inputs = {"rows": tmp_path / f"{name}.jsonl", "shots": tmp_path / "shots.jsonl", "record": data / "record.json"}
        if number:
            drawn = {"shots": inputs["shots"], "train": tmp_path / "train.jsonl", "tables": tables["tables"]}
            inputs["shots"] = tmp_path / f"shots{number}.jsonl"
            extend_shots(drawn, int(number), case["prepare"]["seed"], inputs["shots"])
        prompts = tmp_path / f"prompts/{split}.jsonl"
        render_spider(inputs | tables, split, prompts, case["dev" if name == "dev" else "train"])
        found[split] = sha256_file(prompts)
    assert found == case["sha256"]


@pytest.mark.parametrize("case", named("multiple_choice"))
def test_multiple_choice(case, data, tmp_path):
    questions, prompts = tmp_path / "questions.jsonl", tmp_path / "prompts.jsonl"
    prepare_mmlu(data / "mmlu", case["prepare"], questions, tmp_path / "manifest.json")
    render_mmlu(questions, data / "record.json", prompts, **case["render"])
    assert {"rows": sha256_file(questions), "prompts": sha256_file(prompts)} == case["sha256"]


@pytest.mark.parametrize("case", named("replay"))
def test_replay(case, data, repo, tmp_path):
    source, rows, prompts = (tmp_path / f"{name}.jsonl" for name in ("source", "rows", "prompts"))
    fetch_replay({"source": str(repo / "resources/demo/replay.csv")}, source, tmp_path / "source.json")
    prepare_replay(source, data / "mmlu", case["prepare"], rows, tmp_path / "rows.json")
    render_replay(rows, data / "record.json", prompts, **case["render"])
    found = {"source": sha256_file(source), "rows": sha256_file(rows), "prompts": sha256_file(prompts)}
    assert found == case["sha256"]
