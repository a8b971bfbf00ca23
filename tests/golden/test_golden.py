"""What the records of one run become: the same values, numbers, caveats and links as before the redesign."""

import csv
import io
import json
import lzma
import os
import re
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from _folders import labels
from common.files import read_json, write_json
from study.read import read_yaml
from tests.golden.make_expected import collect

HERE = Path(__file__).parent
STUDIES = ("demo-full", "demo")
# Numbers that a page no longer prints, or prints besides, each with its reason. Nothing else may differ.
LESS = {("demo", "card"): Counter(["1.000"])}  # a p value of 1
PIPELINE = Counter("1234567")  # the steps of the pipeline are a numbered list
MORE = {("demo", "card"): Counter("1")}
for place in (("demo", "report en"), ("demo-full", "report en"), ("demo-full", "report pt")):
    MORE[place[0], f"{place[1]} 1"] = PIPELINE
    # Captions of figures do not repeat the level of the intervals, and the section on statistics alone says that the
    # minimum detectable effect is found with 80% probability.
    LESS[place[0], f"{place[1]} 2"] = Counter({"95": 6 if place[0] == "demo" else 13, "80": 1})
    # How many contrasts can be distinguished is a number, not "one".
    MORE[place[0], f"{place[1]} 4"] = Counter("1")
    # The caption of the checkpoints' figure names its model, Biderman et al. (2024), as Snakemake's report did.
    MORE[place[0], f"{place[1]} 2"] = Counter({"2024": 2} if place[0] == "demo-full" else {})

# The page of costs had a row a run, with the hours of its jobs added up. It has a row a job now, as its file has: each
# with its hours, rows a second also of training, and the name of its run, which may hold a number.
SUMS = {"0.090": 1, "0.091": 1}
HOURS = {"0.000": 5, "0.002": 1, "0.003": 2, "0.005": 2, "0.081": 1, "0.083": 1, "4.1": 1, "5.1": 1}
LESS |= {("demo", "cost.md"): Counter(SUMS), ("demo-full", "cost.md"): Counter(SUMS | {"0.009": 4, "0.010": 3})}
FURTHER = {"0.000": 12, "0.003": 9, "0.006": 1, "0.007": 6, "0.25": 1, "0.5": 1, "0.75": 1}
MORE |= {("demo", "cost.md"): Counter(HOURS), ("demo-full", "cost.md"): Counter(HOURS | FURTHER)}

# The expected tables have the names from before tasks had theirs. What they are called now, of files, columns and
# values, and the columns that came in, each with its value and the column before which it stands. Every other value is
# as it was.
FILES = {"execution_accuracy": "spider"}
COLUMNS = {"measure": "task", "semantics": "criterion", "n_spider": "n_target", "n_mmlu": "n_yardstick"}
VALUES = {"execution_accuracy": "spider", "execution accuracy fell": "accuracy fell"}
ADDED = {
    "exchange": ("task", "mmlu", "gain_pp"),
    "databases": ("task", "spider", "db_id"),
    "errors": ("task", "spider", "error_class"),
    "confusion": ("task", "spider", "base_class"),
}


def with_tasks(tables: dict[str, str]) -> dict[str, list[str]]:
    """The lines of the expected CSV files with the names of today."""
    found = {}
    for file, text in tables.items():
        name = file.removesuffix(".csv")
        head, *rows = csv.reader(io.StringIO(text))
        rows = [[VALUES.get(cell, cell) for cell in row] for row in rows]
        head = [COLUMNS.get(column, column) for column in head]
        if name in ADDED:
            column, value, before = ADDED[name]
            place = head.index(before)
            head, *rows = (
                [*row[:place], new, *row[place:]]
                for row, new in zip([head, *rows], [column, *[value] * len(rows)], strict=True)
            )
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([head, *rows])
        found[f"{FILES.get(name, name)}.csv"] = out.getvalue().splitlines()
    return found


# Where the files of the records lay then, and where they lie now.
PLACES = [
    (r"data/models/", r"models/"),
    (r"data/(spider|mmlu)/", r"data/\1/source/"),
    (r"data/splits/dev\.", r"data/spider/test."),
    (r"data/splits/", r"data/spider/"),
    (r"data/mmlu_suite/questions", r"data/mmlu/test"),
    (r"data/mmlu_suite/manifest", r"data/mmlu/test"),
    (r"runs/(\w+)/prompts/dev", r"prompts/\1/spider_test"),
    (r"runs/(\w+)/prompts/mmlu", r"prompts/\1/mmlu_test"),
    (r"runs/(\w+)/prompts/", r"prompts/\1/spider_"),
    (r"runs/(\w+)/audit_labels", r"prompts/\1/spider_audit"),
    (r"(runs/.*)/predict_(\w+)\.json", r"\1/\2_predict.json"),
]


def unpack(folder: Path) -> None:
    """Lay the records of `demo-full.tar.xz` into a study's folder as the rules of today do."""
    study = read_yaml(HERE.parents[1] / "studies/demo-full.yaml")
    named = {label: own for own, label in labels(study).items()}
    with tarfile.open(HERE / "demo-full.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        old = path.relative_to(folder).as_posix()
        new = next((re.sub(*one, old) for one in PLACES if re.match(one[0], old)), old)
        new = re.sub(r"(?<=/)(lr[\d.]+)(?=[@/]|\.(tsv|log)$)", lambda match: named[match[1]], new)
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        path.rename(folder / new)
    splits = read_json(folder / "data/spider/manifest.json")
    for name, split in splits["splits"].items():
        about = split | {"settings": splits["settings"]}
        write_json(folder / f"data/spider/{'test' if name == 'dev' else name}.json", about)
    for path in folder.glob("prompts/*/spider_audit.json"):
        audit = read_json(path)
        write_json(path, audit | {"test_rows_in_train": audit.pop("dev_rows_in_train")})


@pytest.fixture(scope="module")
def found(copy_repo, snakemake) -> dict:
    """What this code makes of the records: `demo` is the part of `demo-full` that has no further runs."""
    folder = copy_repo("golden")
    for study in STUDIES:
        unpack(folder / "results" / study)
    for path in (folder / "results").rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))
    full = ["--configfile", "studies/demo-full.yaml", "--rerun-triggers", "mtime", "-q"]
    results = folder / "results/demo-full"

    def run(*arguments: str) -> None:
        done = snakemake(folder, *arguments)
        assert done.returncode == 0, done.stdout[-8000:]

    run(*full, "--config", "report={language: pt}")
    shutil.copy(results / "report.md", results / "report.pt.md")
    run(*full, "-R", "tables", "cost", "recommend", "tables_page", "answers", "figures", "report", "export_recommended")
    run("--rerun-triggers", "mtime", "-q")
    return {study: json.loads(json.dumps(collect(folder / "results" / study))) for study in STUDIES}


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads(lzma.decompress((HERE / "expected.json.xz").read_bytes()))


def difference(ours: dict, theirs: dict, place: tuple[str, str]) -> str:
    """Say which numbers a page lost and which it has besides, "" if it has what it should."""
    lost = Counter(theirs) - Counter(ours) - LESS.get(place, Counter())
    more = Counter(ours) - Counter(theirs) - MORE.get(place, Counter())
    return f"{place}: lost {dict(lost)}, besides {dict(more)}" if lost or more else ""


@pytest.mark.parametrize("study", STUDIES)
def test_values_of_all_tables_are_equal(found, expected, study):
    ours, theirs = found[study]["csv"], with_tasks(expected[study]["csv"])
    assert set(ours) == set(theirs)
    for name, lines in theirs.items():
        assert ours[name].splitlines() == lines, name


@pytest.mark.parametrize("study", STUDIES)
def test_numbers_of_all_pages_are_equal(found, expected, study):
    wrong = [difference(found[study]["card"], expected[study]["card"], (study, "card"))]
    for name, theirs in expected[study]["markdown"].items():
        ours = found[study]["markdown"][f"{FILES.get(Path(name).stem, Path(name).stem)}.md"]
        wrong.append(difference(ours, theirs, (study, name)))
    for language, parts in expected[study]["report"].items():
        ours = found[study]["report"][language]
        assert ours.keys() == parts.keys(), "the report has other sections"
        wrong += [difference(ours[part], parts[part], (study, f"report {language} {part}")) for part in parts]
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("study", STUDIES)
def test_no_link_is_lost(found, expected, study):
    for page, links in expected[study]["links"].items():
        ours = set(found[study]["links"][page])
        assert {re.sub("execution_accuracy", FILES["execution_accuracy"], link) for link in links} <= ours, page


@pytest.mark.parametrize("study", STUDIES)
def test_no_dagger_is_lost(found, expected, study):
    for page, count in expected[study]["daggers"].items():
        assert found[study]["daggers"][f"{FILES.get(Path(page).stem, Path(page).stem)}.md"] >= count, page
