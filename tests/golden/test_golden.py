"""What the records of one run become: the same values, numbers, caveats and links as before the redesign."""

import json
import lzma
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from tests.golden.make_expected import collect

HERE = Path(__file__).parent
STUDIES = ("demo-full", "demo")
# Numbers that a page no longer prints, or prints besides, each with its reason. Nothing else may differ.
LESS = {("demo", "card"): Counter(["1.000"])}  # a p value of 1
PIPELINE = Counter("1234567")  # the steps of the pipeline are a numbered list
MORE = {
    ("demo", "card"): Counter("1"),
    ("demo", "report en 1"): PIPELINE,
    ("demo-full", "report en 1"): PIPELINE,
    ("demo-full", "report pt 1"): PIPELINE,
}


@pytest.fixture(scope="module")
def found(copy_repo, snakemake) -> dict:
    """What this code makes of the records: `demo` is the part of `demo-full` that has no further runs."""
    folder = copy_repo("golden")
    for study in STUDIES:
        with tarfile.open(HERE / "demo-full.tar.xz") as archive:
            archive.extractall(folder / "results" / study, filter="data")
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
    ours, theirs = found[study]["csv"], expected[study]["csv"]
    assert set(ours) == set(theirs)
    for name, text in theirs.items():
        assert ours[name].splitlines() == text.splitlines(), name


@pytest.mark.parametrize("study", STUDIES)
def test_numbers_of_all_pages_are_equal(found, expected, study):
    wrong = [difference(found[study]["card"], expected[study]["card"], (study, "card"))]
    for name, theirs in expected[study]["markdown"].items():
        wrong.append(difference(found[study]["markdown"][name], theirs, (study, name)))
    for language, parts in expected[study]["report"].items():
        ours = found[study]["report"][language]
        assert ours.keys() == parts.keys(), "the report has other sections"
        wrong += [difference(ours[part], parts[part], (study, f"report {language} {part}")) for part in parts]
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("study", STUDIES)
def test_no_link_is_lost(found, expected, study):
    for page, links in expected[study]["links"].items():
        assert set(links) <= set(found[study]["links"][page]), page


@pytest.mark.parametrize("study", STUDIES)
def test_no_dagger_is_lost(found, expected, study):
    for page, count in expected[study]["daggers"].items():
        assert found[study]["daggers"][page] >= count, page
