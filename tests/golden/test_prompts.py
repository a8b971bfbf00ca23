"""The prompts of all studies are, byte for byte, those that the code before the redesign rendered.

`prompts.json` holds the settings of each study, with and without the method of its report, as they act on the demo's
data and tokenizer: fewer rows, examples by their number, the demo's subjects. Settings that several studies share stand
once. The hashes were made by the code at commit 78045af. Who changes a prompt on purpose writes them anew.

That code wrote the database beside each prompt and no options beside those of multiple choice, all questions of dev,
and a file for each number of few-shot examples: the tests write its files from today's and compare these.
"""

import json
import shutil
from pathlib import Path

import pytest

from common.files import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from prepare import prepare
from render import render
from tasks import mmlu, replay, spider
from tasks.mmlu import grouped

CASES = json.loads(Path(__file__).with_name("prompts.json").read_text(encoding="utf-8"))


def named(kind: str) -> list:
    return [pytest.param(case, id=", ".join(case["studies"])) for case in CASES[kind]]


@pytest.fixture(scope="module")
def data(repo, tmp_path_factory) -> Path:
    """The demo's data, and a record of its tokenizer, in a model whose context no prompt is too long for."""
    folder, demo = tmp_path_factory.mktemp("data"), repo / "resources/demo"
    counts = {"train_spider": 864, "train_others": 72, "dev": 256}
    about = {"name": "tasks.spider", "sha256": None}
    spider.fetch(about | {"source": str(demo / "spider_data"), "counts": counts}, folder / "spider")
    about = {"name": "tasks.mmlu", "sha256": None, "revision": None}
    mmlu.fetch(about | {"source": str(demo / "mmlu"), "subjects": 3}, folder / "mmlu")
    shutil.copytree(demo / "model", folder / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    config = read_json(folder / "model/config.json")
    write_json(folder / "model/config.json", config | {"max_position_embeddings": 1_000_000})
    write_json(folder / "record.json", {"name": "demo", "path": str(folder / "model"), "source": "demo"})
    return folder


def test_every_study_is_here(repo):
    # But for the one that has answers alone, and those with the words of a report: test_published_prompts.py.
    others = {"published-systems", "cunha", "freitas", "ribeiro"}
    studies = {path.stem for path in (repo / "studies").glob("*.yaml")} - others
    for kind in ("text_to_sql", "multiple_choice"):
        assert studies <= {name for case in CASES[kind] for name in case["studies"]}


def hash_of(rows: list[dict], path: Path) -> str:
    write_jsonl(path, rows)
    return sha256_file(path)


def words(repo: Path, name: str) -> Path:
    return repo / f"resources/prompts/{name}.jinja"


@pytest.mark.parametrize("case", named("text_to_sql"))
def test_text_to_sql(case, data, repo, tmp_path):
    about, old = {"kind": "spider", "name": "tasks.spider"}, tmp_path / "old.jsonl"
    asked = {key: case["dev"].pop(key) for key in ("questions", "exclude_databases")}
    every, found = {"questions": None, "exclude_databases": []}, {}
    for part, options in {"dev": every, "test": asked, **dict.fromkeys(spider.PARTS[:3], case["prepare"])}.items():
        rows = tmp_path / f"{part}.jsonl"
        prepare(data / "spider", part.replace("dev", "test"), about | options, rows)
        found[f"{part}_rows"] = sha256_file(rows)
    del found["test_rows"]
    number = case["prepare"]["shots"] if isinstance(case["prepare"]["shots"], int) else len(case["prepare"]["shots"])
    found["shots_rows"] = hash_of(read_jsonl(tmp_path / "shots.jsonl")[:number], old)
    databases = {row["id"]: row["db_id"] for part in spider.PARTS for row in read_jsonl(tmp_path / f"{part}.jsonl")}
    shown = {f"test_shots{further}": further for further in case["further_shots"]}
    for part, shots in {**dict.fromkeys(("train", "validation", "test"), number), **shown}.items():
        inputs = {
            "rows": tmp_path / f"{part.partition('_')[0]}.jsonl",
            "shots": tmp_path / "shots.jsonl",
            "manifest": data / "spider/manifest.json",
            "record": data / "record.json",
        }
        settings = dict(case["dev" if part.startswith("test") else "train"])
        assert settings.pop("style") == "default"
        prompts = tmp_path / f"prompts_{part}.jsonl"
        render(inputs, words(repo, "text_to_sql"), about | settings | {"shots": shots}, prompts)
        rows = [{"id": row["id"], "db_id": databases[row["id"]], **row} for row in read_jsonl(prompts)]
        found[part.replace("test", "dev")] = hash_of(rows, old)
    assert found == case["sha256"]


@pytest.mark.parametrize("case", named("multiple_choice"))
def test_multiple_choice(case, data, repo, tmp_path):
    questions, prompts = tmp_path / "questions.jsonl", tmp_path / "prompts.jsonl"
    about = {"kind": "mmlu", "name": "tasks.mmlu"}
    prepare(data / "mmlu", "test", about | case["prepare"], questions)
    inputs = {"rows": questions, "record": data / "record.json", "manifest": data / "mmlu/manifest.json"}
    render(inputs, words(repo, "choice"), about | case["render"], prompts)
    rows = read_jsonl(prompts)
    assert {"".join(row.pop("options")) for row in rows} == {"ABCD"}
    # The name of a row's category stood in it; now it is put beside the answer when that is scored.
    categories = {one: name for name, of in grouped(case["prepare"]["categories"]).items() for one in of}
    drawn = [{"id": row["id"], "subject": row["subject"], "category": categories[row["subject"]]} | row
             for row in read_jsonl(questions)]  # fmt: skip
    write_jsonl(questions, drawn)
    found = {"rows": sha256_file(questions), "prompts": hash_of(rows, tmp_path / "old.jsonl")}
    assert found == case["sha256"]


@pytest.mark.parametrize("case", named("replay"))
def test_replay(case, data, repo, tmp_path):
    rows, prompts = (tmp_path / f"{name}.jsonl" for name in ("drawn", "prompts"))
    about = {"kind": "replay", "name": "tasks.general"}
    source = {"source": str(repo / "resources/demo/replay.csv"), "revision": None, "sha256": None}
    replay.fetch(about | source, tmp_path)
    prepare(tmp_path, "train", about | case["prepare"] | {"yardsticks": ["mmlu"]}, rows, [data / "mmlu"])
    inputs = {"rows": rows, "record": data / "record.json", "manifest": tmp_path / "manifest.json"}
    render(inputs, words(repo, "replay"), about | case["render"], prompts)
    files = {"source": tmp_path / "rows.jsonl", "rows": rows, "prompts": prompts}
    assert {name: sha256_file(file) for name, file in files.items()} == case["sha256"]
