"""What the records of one run become: the values, numbers, caveats and links that were looked at and kept."""

import json
import lzma
import os
import platform
import re
import shutil
import tarfile
from collections import Counter
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from _folders import labels
from _runs import forked
from common.files import read_json, write_json
from present.values import read_table
from study.read import read_yaml, resolve
from study.unfold import stage
from tasks.registry import KINDS
from tests.golden.make_expected import collect

HERE = Path(__file__).parent
STUDIES = ("demo-full", "demo")
PYTHON = "3.11.7"  # with which the expected values were made
# The records have no run that repeats another one.
OFF = "evaluation={noise_floor: false}"
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
        # Python 3.11 has filters from 3.11.4 on.
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        old = path.relative_to(folder).as_posix()
        new = next((re.sub(*one, old) for one in PLACES if re.match(one[0], old)), old)
        new = re.sub(r"(?<=/)(lr[\d.]+)(?=[@/]|\.(tsv|log)$)", lambda match: named[match[1]], new)
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        path.rename(folder / new)
    # The archive has no databases; they are in the repository.
    KINDS["spider"].fetch(stage(resolve(study), "spider", "fetch"), folder / "data/spider/source")
    splits = read_json(folder / "data/spider/manifest.json")
    for name, split in splits["splits"].items():
        about = split | {"settings": splits["settings"]}
        write_json(folder / f"data/spider/{'test' if name == 'dev' else name}.json", about)
    for path in folder.glob("prompts/*/spider_audit.json"):
        audit = read_json(path)
        write_json(path, audit | {"test_rows_in_train": audit.pop("dev_rows_in_train")})
    # What the metric says of the answers is tested elsewhere.
    (folder / "tables").mkdir(exist_ok=True)
    for suffix in ("json", "xml"):
        (folder / f"tables/deepeval_tests.{suffix}").touch()


@pytest.fixture(scope="module")
def folder(copy_repo) -> Path:
    """A copy of the repository with what this code makes of the records; `pt` has `demo-full` in Portuguese.

    `demo` is the part of `demo-full` that has no further runs.
    """
    folder = copy_repo("golden")
    for study in STUDIES:
        unpack(folder / "results" / study)
    for path in (folder / "results").rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))
    both = ["--cores", "2", "--rerun-triggers", "mtime", "-q"]
    full = [*both, "--configfile", "studies/demo-full.yaml", "--config", OFF]
    results = folder / "results/demo-full"

    def run(**runs: list[str]) -> None:
        for done in forked(folder, runs).values():
            assert done.returncode == 0, done.stdout[-8000:]

    run(pt=[*full, "report={language: pt}"], demo=[*both, "--config", OFF])
    for path in written(results):
        (folder / "pt" / path.relative_to(results)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "pt" / path.relative_to(results))
    shutil.copy(results / "report.md", results / "report.pt.md")
    shown = ["tables", "gold", "cost", "recommend", "conclude", "tables_page", "answers", "figures", "report"]
    run(en=[*full, "-R", *shown, "export_recommended"])
    return folder


def written(results: Path) -> list[Path]:
    """All that a person reads of a study."""
    pages = ("report.md", "answer.md", "README.md", "tables.html", "recommended/README.md")
    return [*(results / name for name in pages), *sorted((results / "tables").glob("*.md"))]


@pytest.fixture(scope="module")
def found(folder) -> dict:
    return {study: json.loads(json.dumps(collect(folder / "results" / study))) for study in STUDIES}


@pytest.fixture(scope="module")
def expected() -> dict:
    return json.loads(lzma.decompress((HERE / "expected.json.xz").read_bytes()))


def difference(ours: dict, theirs: dict, place: str) -> str:
    """Say which numbers a page lost and which it has besides, "" if it has what it should."""
    lost, more = Counter(theirs) - Counter(ours), Counter(ours) - Counter(theirs)
    return f"{place}: lost {dict(lost)}, besides {dict(more)}" if lost or more else ""


@pytest.mark.parametrize("study", STUDIES)
def test_values_of_all_tables_are_equal(found, expected, study):
    ours, theirs = found[study]["csv"], expected[study]["csv"]
    assert set(ours) == set(theirs)
    for name, text in theirs.items():
        assert ours[name].splitlines() == text.splitlines(), name


@pytest.mark.parametrize("study", STUDIES)
def test_the_page_of_costs_has_the_values_of_its_file(folder, study):
    tables = folder / "results" / study / "tables"
    frame, page = read_table(tables / "cost.csv"), (tables / "cost.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| demo")]
    assert len(rows) == len(frame)
    shown = pd.DataFrame(rows).iloc[:, 3:].replace("n/a", "nan").replace(",", "", regex=True).astype(float)
    values = frame[["seconds", "tokens_per_second", "rows_per_second", "peak_memory_mib", "gpu_hours", "cpu_hours"]]
    digits = (0, 0, 1, 1, 3, 3)
    for (_, cells), (name, column), places in zip(shown.items(), values.items(), digits, strict=True):
        column = column / 1024 if name == "peak_memory_mib" else column
        assert cells.tolist() == pytest.approx(column.tolist(), abs=0.51 * 10.0**-places, nan_ok=True)
    assert [run for _, run, *_ in rows] == frame["variant"].tolist()


@pytest.mark.parametrize("study", STUDIES)
def test_numbers_of_all_pages_are_equal(found, expected, study):
    card = Counter(found[study]["card"])
    made_by = card.pop(platform.python_version(), 0)  # the card names the Python of who made it
    card[PYTHON] += made_by
    wrong = [difference(card, expected[study]["card"], f"{study}, card")]
    for name, theirs in expected[study]["markdown"].items():
        wrong.append(difference(found[study]["markdown"][name], theirs, f"{study}, {name}"))
    for language, parts in expected[study]["report"].items():
        ours = found[study]["report"][language]
        assert ours.keys() == parts.keys(), "the report has other sections"
        wrong += [difference(ours[part], parts[part], f"{study}, report {language} {part}") for part in parts]
    assert not any(wrong), "\n".join(filter(None, wrong))


@pytest.mark.parametrize("study", STUDIES)
def test_no_link_is_lost(found, expected, study):
    for page, links in expected[study]["links"].items():
        assert set(links) <= set(found[study]["links"][page]), page


@pytest.mark.parametrize("study", STUDIES)
def test_no_dagger_is_lost(found, expected, study):
    for page, count in expected[study]["daggers"].items():
        assert found[study]["daggers"][page] >= count, page


# What is no prose: code, styles, pictures, tags, addresses, hashes, the head of a model card, names of runs, versions.
NO_PROSE = re.compile(
    r"^(`{3,}).*?^\1|`[^`]*`|<(script|style|svg)\b.*?</\2>|<[^>]+>|https?://\S+|\]\([^)]*\)|^---\n.*?^---$"
    r"|\b[0-9a-f]{12,64}\b|\b[a-z]+[\d.]*(-\w+)?@\w[\w.]*|\b[a-z]+\d[\d.]*|\b\d+\.\d+\.\d+(\+\w+)?|arXiv:[\d.]+",
    re.DOTALL | re.MULTILINE,
)


def slips(page: str, language: str) -> dict[str, list[str]]:
    """The numbers, p values, signs and caveats of a page that are not written as all others are."""
    text = unescape(NO_PROSE.sub(" ", page.replace("<wbr>", ""))).replace("\\", "").replace("\N{NO-BREAK SPACE}", " ")
    thousands = "." if language == "pt" else ","
    wrong = {
        "a hyphen in place of a minus": r"(?<![\w.\-/:])-\d[\d.,]*",
        "a p value": r"\bp ?[=<>](?! ?(?:0[.,]\d{3}|1)\b).{,6}|\bp[=<>]|\bp [=<]\d",
        "a mark of decimals": rf"\d\{thousands}\d(?!\d\d(?!\d))[\d.,]*",
        "no zero before the mark": r"(?<![\d\w])[.,]\d+",
        "a unit": r"\d %|\dpp\b|\d  pp",
        "an interval": r"\[[+\N{MINUS SIGN}]?\d+[.,]\d+[,;] ?[+\N{MINUS SIGN}]?\d",
        "a sign": r"[+\N{MINUS SIGN}] \d",
        "a dagger": r"[^\s(>]\N{DAGGER}|\N{DAGGER}(?=\w)",
        "what is missing": r"\b(nan|None|NaN|inf)\b",
    }
    found = {what: sorted({match[0] for match in re.finditer(pattern, text)}) for what, pattern in wrong.items()}
    return {what: texts for what, texts in found.items() if texts}


@pytest.mark.parametrize(
    "text",
    [
        "-0.7 pp",
        "p=0.05",
        "p = 0.05",
        "p < .001",
        "3,5%",
        "43 %",
        "3.2pp",
        "[1.2, 3.4]",
        "+ 3.0",
        "lost\N{DAGGER}",
        "nan",
    ],
)
def test_what_is_written_otherwise_is_found(text):
    assert slips(f"It is {text} here.", "en")
    assert not slips("\N{MINUS SIGN}0.7 pp (\N{MINUS SIGN}1.2 to +3.4), p = 0.042, 1,034 of 95%, lost \N{DAGGER}", "en")
    assert not slips("\N{MINUS SIGN}0,7 pp, p < 0,001, 1.034 de 95%, perda \N{DAGGER}", "pt")


@pytest.mark.parametrize("language", ["en", "pt"])
def test_numbers_p_values_signs_and_caveats_are_written_in_one_way(folder, language):
    results = folder / ("pt" if language == "pt" else "results/demo-full")
    pages = written(results)
    assert len(pages) > 15
    found = {path.name: slips(path.read_text(encoding="utf-8"), language) for path in pages}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
