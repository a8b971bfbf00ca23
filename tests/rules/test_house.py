"""What holds the house together: lengths of files, who imports torch, who formats numbers, the words of the field."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
LONGEST = 500
# As `make size` counts: no tests, benchmarks, studies, demo data; the sentences of report and words apart.
CODE = re.compile(r"\.(py|smk|html|js|css|typ|j2)$|^Snakefile$")
NOT_CODE = re.compile(r"^(tests|studies|benchmarks|resources/demo)/")
HEAVY = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "liger_kernel")
# The word that the field does not use, and the one that it does.
OLD_WORDS = {
    # A model card is a card; benchmarks/cards.py keeps its name.
    r"(?<!model )\b(?<![-_/])cards?\b(?!\.py|\.md|\()": "GPU",
    r"solved examples?": "few-shot examples",
    r"shared beginnings?": "shared prefix",
    r"detectable differences?": "minimum detectable effect",
    r"(?<!hugging )\bfaces?\b": "protocol",
    r"\bevaluation\.(strengths|steps)\b|\btraining\.kept_steps\b": "evaluation.interpolate, evaluation.checkpoints",
}


def tracked(pattern: str = "") -> list[Path]:
    """List the files in version control, and those that will be, whose path matches."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return sorted({REPO / name for name in listed if re.search(pattern, name) and (REPO / name).is_file()})


def code() -> list[Path]:
    return [path for path in tracked(CODE.pattern) if not NOT_CODE.match(str(path.relative_to(REPO)))]


def test_there_is_code_to_hold():
    assert len(code()) > 60


@pytest.mark.parametrize("path", code(), ids=lambda path: str(path.relative_to(REPO)))
def test_no_file_is_longer_than_its_room(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def imports(path: Path) -> set[str]:
    """Return the modules that a Python file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_model_libraries_are_imported_in_their_room_alone():
    found = {
        f"{path.relative_to(REPO)}: {name}"
        for path in tracked(r"^(scripts|custom_metrics)/.*\.py$")
        if path.parent.name != "llm"
        for name in imports(path)
        if name.partition(".")[0] in HEAVY
    }
    assert found == set()


def test_nothing_is_imported_by_a_name_made_at_run_time():
    for path in tracked(r"^scripts/.*\.py$"):
        assert not re.search(r"\bimport_module\b|__import__\(", path.read_text(encoding="utf-8")), path


WORDS = tracked(r"^(README|CONTRIBUTING)\.md$|^docs/.*\.md$|^(scripts|rules)/.*\.(py|smk|yaml|j2|js|html)$")


@pytest.mark.parametrize("path", WORDS, ids=lambda path: str(path.relative_to(REPO)))
def test_words_are_those_of_the_field(path):
    # What took the place of a key that is gone must name that key.
    text = re.sub(r"(?ms)^GONE = \{.*?^\}", "", path.read_text(encoding="utf-8"))
    found = {
        f"{match[0]} -> {new}" for old, new in OLD_WORDS.items() for match in re.finditer(old, text, re.IGNORECASE)
    }
    assert found == set()
