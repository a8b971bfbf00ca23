"""A finished study, packed and verified: what is changed in the archive is found and named, and nothing else is."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from _folders import folder
from common.download import extract
from common.files import read_json, write_json
from prepare import prepare
from study import read
from study.read import read_yaml
from study.unfold import stage
from tasks.registry import KINDS
from tests.golden.test_golden import unpack
from verify import Findings, get_data, lay_out, run_rules

REPO = Path(__file__).parents[2]
CRATE = "ro-crate-metadata.json"
BASE, TUNED = "runs/demo/base", f"runs/demo/{folder(read_yaml(REPO / 'config.yaml'), 'lr0.012')}"


def command(study: Path, name: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    """Run one of the two commands in a copy of the repository."""
    return subprocess.run(
        [sys.executable, f"scripts/{name}.py", *arguments],
        cwd=study,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def study(copy_repo, snakemake_forked) -> Path:
    """A copy of the repository with the demo, of which the answers are those of the goldens."""
    copy = copy_repo("bundle")
    results = copy / "results/demo"
    unpack(results)
    # The goldens have no run that repeats another one.
    file = copy / "config.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("noise_floor: true", "noise_floor: false"), "utf-8")
    # What the code of those days wrote otherwise.
    config = read.resolve(read_yaml(REPO / "config.yaml"))
    KINDS["mmlu"].fetch(stage(config, "mmlu", "fetch"), results / "data/mmlu/source")
    for task in ("spider", "mmlu"):
        source = results / f"data/{task}/source"
        prepare(source, "test", stage(config, task, "test"), results / f"data/{task}/test.jsonl")
    for path in results.rglob("spider.csv"):
        path.unlink()
    for path in results.rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))
    done = snakemake_forked(copy, "--rerun-triggers", "mtime", "-q")
    assert done.returncode == 0, done.stdout[-8000:]
    return copy


@pytest.fixture(scope="module")
def bundle(study) -> Path:
    done = command(study, "bundle")
    assert done.returncode == 0, done.stderr
    return study / "results/demo.zip"


def contents(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def changed(archive: Path, target: Path, edits: dict[str, Callable[[str], str]], hashes: bool) -> Path:
    """Write the archive with edited files; with `hashes` its metadata follow them, as a forger's would."""
    files = contents(archive)
    for name, edit in edits.items():
        text = files[name].decode()
        files[name] = edit(text).encode()
        assert files[name].decode() != text, name
    if hashes:
        crate = json.loads(files[CRATE])
        for one in crate["@graph"]:
            if one["@type"] == "File":
                one["sha256"] = hashlib.sha256(files[one["@id"]]).hexdigest()
        files[CRATE] = json.dumps(crate).encode()
    with zipfile.ZipFile(target, "w") as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return target


def cell(row: int, column: str, value: str) -> Callable[[str], str]:
    """An edit of one cell of a CSV file; rows are counted from 0."""

    def edit(text: str) -> str:
        head, *rows = csv.reader(io.StringIO(text, newline=""))
        rows[row][head.index(column)] = value
        csv.writer(out := io.StringIO(newline=""), lineterminator="\n").writerows([head, *rows])
        return out.getvalue()

    return edit


def without(line: int) -> Callable[[str], str]:
    """An edit that drops a line, counted from 0."""
    return lambda text: "".join(one for number, one in enumerate(text.splitlines(True)) if number != line)


def test_equal_results_are_equal_bytes_and_every_file_is_listed_with_its_hash(study, bundle):
    again = command(study, "bundle", "--out", "results/again.zip")
    assert again.returncode == 0, again.stderr
    assert (study / "results/again.zip").read_bytes() == bundle.read_bytes()
    files = contents(bundle)
    crate = json.loads(files.pop(CRATE))
    listed = {one["@id"]: one["sha256"] for one in crate["@graph"] if one["@type"] == "File"}
    assert listed == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    root = next(one for one in crate["@graph"] if one["@id"] == "./")
    assert {"name", "description", "datePublished", "license", "hasPart"} <= root.keys()
    assert crate["@graph"][0]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}


def test_it_has_all_that_the_numbers_are_made_of_and_no_weights_or_databases(study, bundle):
    names = set(contents(bundle))
    for name in ("config.yaml", "index.csv", "README.md", "versions.json", "report.pdf", "tables/settings.csv"):
        assert name in names
    for run in (BASE, TUNED):
        for task in ("spider", "mmlu"):
            assert {f"{run}/{task}_answers.jsonl", f"{run}/{task}.csv", f"{run}/{task}_predict.json"} <= names
    assert {"prompts/demo/spider_test.jsonl", "data/spider/test.jsonl", f"{TUNED}/train.json"} <= names
    assert not [name for name in names if name.endswith((".safetensors", ".sqlite", "_rows.jsonl", ".html"))]
    assert str(study).encode() not in b"".join(contents(bundle).values())
    assert "path" not in json.loads(contents(bundle)["models/demo.json"])


def test_an_untouched_bundle_is_verified_without_model_libraries(study, bundle, tmp_path):
    for library in ("torch", "transformers", "trl", "peft"):
        (tmp_path / f"{library}.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = command(study, "verify", str(bundle), "--data", "results/demo/data", PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All numbers agree." in done.stdout
    assert "256 questions of spider were made anew" in done.stdout
    assert "Records: 7 files" in done.stdout  # of two tasks in three runs, and what the gold queries are worth


def answered(text: str) -> str:
    """Another answer to the fourth question."""
    rows = [json.loads(line) for line in text.splitlines()]
    rows[3]["answer"] = "SELECT 'another'"
    return "".join(json.dumps(row) + "\n" for row in rows)


# What is changed together with its hash, as a forger would, and what without.
HASHED = {
    f"{BASE}/spider_answers.jsonl": answered,
    f"{TUNED}/spider_answers.jsonl": without(7),
    f"{BASE}/mmlu.csv": cell(4, "correct", "2"),
    f"{TUNED}/mmlu.csv": without(5),
    "data/spider/gold.csv": cell(0, "open", "unknown"),
    "tables/regression.csv": cell(0, "n", "9999"),
    "tables/flips.csv": without(2),
    "tables/mmlu.md": lambda text: text.replace("| base ", "| best ", 1),
    "data/spider/test.json": lambda text: json.dumps(json.loads(text) | {"sha256": "0" * 64}),
}
UNHASHED = {
    "tables/cost.csv": cell(0, "seconds", "1"),
    "report.md": lambda text: text.replace("a", "b", 1),
    "data/mmlu/test.jsonl": lambda text: text.replace('"question": "', '"question": "Well, ', 1),
}


@pytest.fixture(scope="module")
def forged(study, bundle, tmp_path_factory) -> list[str]:
    """What is said to differ in a bundle that was changed, most of it together with its hash."""
    folder = tmp_path_factory.mktemp("forged")
    half = changed(bundle, folder / "half.zip", HASHED, hashes=True)
    whole = changed(half, folder / "whole.zip", UNHASHED, hashes=False)
    # Of one task only; the data of the other are fetched.
    (folder / "data").mkdir()
    (folder / "data/mmlu").symlink_to(study / "results/demo/data/mmlu")
    done = command(study, "verify", str(whole), "--data", str(folder / "data"))
    assert done.returncode == 1, done.stderr
    assert "questions of spider were made anew" in done.stdout
    return [line.removeprefix("DIFFERS  ") for line in done.stdout.splitlines() if line.startswith("DIFFERS")]


def test_whatever_was_changed_is_named_though_the_hashes_were_changed_too(bundle, forged):
    files = {name: content.decode() for name, content in contents(bundle).items() if name.endswith((".jsonl", ".csv"))}
    another, dropped = (
        json.loads(files[f"{run}/spider_answers.jsonl"].splitlines()[line])["id"]
        for run, line in ((BASE, 3), (TUNED, 7))
    )
    graded = [row["id"] for row in csv.DictReader(io.StringIO(files[f"{BASE}/mmlu.csv"]))]

    def says(*words: str) -> bool:
        return any(all(word in line for word in words) for line in forged)

    assert says(f"{BASE}/spider.csv, {another}, answer", "SELECT 'another'")
    assert says(f"{BASE}/spider_predict.json", "answers_sha256")
    assert says(f"{TUNED}/spider.csv, {dropped}, answer", "'' made anew")
    assert says(f"{BASE}/mmlu.csv, {graded[4]}, correct: '2' in the bundle")
    assert says(f"{TUNED}/mmlu.csv, {graded[4]}: is not in the bundle")
    assert says("data/spider/gold.csv, dev-00000, open: 'unknown' in the bundle")
    assert says("tables/regression.csv, line 2", "n: '9999' in the bundle")
    assert says("tables/flips.csv, line 3", "of the table made anew: is not in the bundle")
    assert says("tables/mmlu.md, line 5, Run: 'best' in the bundle, 'base' made anew")
    assert says("data/spider/test.json, sha256: found 0000")
    rows = {line.split(", ")[1] for line in forged if line.startswith(f"{TUNED}/spider.csv, ")}
    assert rows == {dropped}


def test_a_file_that_was_changed_alone_is_named_by_its_hash_and_a_question_by_its_data(forged):
    by_hash = {line.partition(",")[0] for line in forged if re.search(", sha256 [0-9a-f]{64}, but ", line)}
    assert by_hash == {*UNHASHED}
    assert any(line.startswith("tables/cost.csv, line 2") for line in forged)
    assert any(re.match(r"data/mmlu/test\.jsonl, \S+, question: ", line) for line in forged)


def test_data_that_may_not_be_passed_on_are_not_and_can_be_verified_by_who_has_them(study, bundle):
    done = command(study, "bundle", "--out", "results/closed.zip", "--licence", "spider=none", "--licence", "mmlu=none")
    assert done.returncode == 0, done.stderr
    asked = [json.loads(line) for line in contents(bundle)["data/spider/test.jsonl"].decode().splitlines()]
    whole = b"\n".join(contents(study / "results/closed.zip").values()).decode("latin-1")
    assert asked[0]["question"] in b"\n".join(contents(bundle).values()).decode("latin-1")
    assert not [row["id"] for row in asked if row["question"] in whole]
    assert all(row["id"] in whole for row in asked)
    offline = command(study, "verify", "results/closed.zip", "--offline")
    assert offline.returncode == 0, offline.stdout + offline.stderr
    assert "NOT CHECKED  spider: its data are not there (nothing is fetched with --offline)" in offline.stdout
    assert "NOT CHECKED  The tables were not computed anew" in offline.stdout


@pytest.fixture
def unpacked(bundle, tmp_path) -> tuple[dict, Path]:
    """The study of the bundle, and the folder of its files."""
    extract(bundle, tmp_path / "bundle")
    return read.resolve(read_yaml(tmp_path / "bundle/config.yaml")), tmp_path / "bundle"


def test_data_that_are_not_to_be_had_or_are_others_are_said(study, unpacked, tmp_path):
    config, files = unpacked
    config["tasks"]["spider"]["source"] = str(tmp_path / "gone")
    folders = get_data(config, files, None, tmp_path / "fetched", found := Findings())
    assert folders == {}  # MMLU's answers are scored from the bundle alone
    (said,) = found.unchecked
    assert re.match(
        r"spider: its data are not there \(.*gone.*\), so its answers were not scored anew\. Fetch them", said
    )
    source = shutil.copytree(study / "results/demo/data/mmlu/source", tmp_path / "data/mmlu/source")
    manifest = read_json(source / "manifest.json")
    name = next(iter(manifest["files"]))
    manifest["files"][name] = {"sha256": "0"}
    write_json(source / "manifest.json", manifest)
    folders = get_data(config, files, tmp_path / "data", None, found := Findings())
    assert folders == {"mmlu": source}
    assert found.different == {"data/mmlu/source/manifest.json": [f"{name}: the data that are there have another hash"]}


def test_a_job_that_fails_is_named_with_its_sentence(unpacked, tmp_path):
    config, files = unpacked
    with (files / f"{BASE}/mmlu_answers.jsonl").open("a", encoding="utf-8") as stream:
        stream.write("no JSON\n")
    laid_out = lay_out(config, files, {}, tmp_path / "work")
    (said,) = run_rules(config, laid_out, [f"{BASE}/mmlu.csv"], 1)
    assert re.match(r"score_mmlu/.*\.log: .*mmlu_answers\.jsonl, line 151: not valid JSON", said)


def test_what_cannot_be_packed_is_refused_with_a_sentence(study):
    table = study / "results/demo/tables/flips.csv"
    kept = table.read_bytes()
    table.unlink()
    try:
        refused = command(study, "bundle", "--out", "results/never.zip")
    finally:
        table.write_bytes(kept)
        os.utime(table, (1.8e9, 1.8e9))
    assert refused.returncode == 1
    assert "results/demo: not finished" in refused.stderr
    assert not (study / "results/never.zip").exists()
    unknown = command(study, "bundle", "--licence", "sipder=MIT")
    assert unknown.returncode == 1
    assert "--licence: found sipder=MIT, expected TASK=LICENCE" in unknown.stderr
