"""The code of a step is its file and every module of the project that it imports, in turn; nothing else."""

import re
import shutil
from pathlib import Path

import pytest

from common import code

REPO = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A copy of the project's code, of which digests are taken."""
    for name in ("scripts", "custom_metrics"):
        shutil.copytree(REPO / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "SCRIPTS", tmp_path / "scripts")
    return tmp_path


def digests(*steps: str) -> list[str]:
    code.digest.cache_clear()
    code.imported.cache_clear()
    return [code.digest(step) for step in steps]


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("custom_metrics/compare.py", {"score", "tables"}),
        ("custom_metrics/worker.py", {"score"}),
        ("scripts/analysis/compare.py", {"tables"}),
        ("scripts/present/words.pt.yaml", {"tables", "figures"}),
        ("scripts/present/templates/report.en.md.j2", {"tables", "figures"}),
        ("scripts/steps/score.py", {"score"}),
        ("scripts/llm/training.py", set()),
        ("scripts/steps/train.py", set()),
    ],
)
def test_an_edit_changes_the_steps_that_use_the_file(copy, file, changed):
    steps = ("score", "tables", "figures")
    before = digests(*steps)
    with (copy / file).open("a", encoding="utf-8") as stream:
        stream.write("\n# edited\n")
    after = digests(*steps)
    assert {step for step, old, new in zip(steps, before, after, strict=True) if old != new} >= changed
    if not changed:
        assert after == before


def test_where_the_project_lies_changes_nothing(copy):
    ours = digests("score")
    code.SCRIPTS = REPO / "scripts"
    assert digests("score") == ours


def test_every_rule_that_counts_or_shows_follows_its_code():
    """Left of the records no rule does, or a checkout would train everything again."""
    with_code, without = set(), set()
    for file in (REPO / "rules").glob("*.smk"):
        for params, step in re.findall(
            r"params:\n((?:(?!script:).*\n)+?) *script:\n *\"\.\./scripts/steps/(\w+)\.py\"", file.read_text()
        ):
            (with_code if f'code.digest("{step}")' in params else without).add(step)
    assert with_code == {
        "score", "tables", "cost", "tables_page", "answers", "conclude", "figures", "report", "compare_published",
        "harness_table", "recommend", "export_recommended", "index", "import_answers",
        "certify", "gold", "noise", "repair", "deepeval_tests",
    }  # fmt: skip
    assert without == {
        "fetch_model", "fetch_adapter", "fetch_data", "fetch_harness", "fetch_answers", "prepare", "render",
        "audit_labels", "choose_rows", "train", "soup", "predict", "harness", "run_sql",
    }  # fmt: skip
