"""Catalogue, words and numbers: what one place names no other lacks, and nobody else writes numbers."""

import ast
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest

from custom_metrics.judge import ERROR_CLASSES, SEMANTICS
from present import catalogue
from present.catalogue import COLUMNS, FIGURES, TABLES, names
from present.format import LANGUAGES, Say, read_words
from present.values import CLASSES

SCRIPTS = Path(__file__).parents[2] / "scripts"


# What tables say beside their notes.
OTHER_WORDS = ["title", "short", "besides", "kept", "seed_sd", "prompted", "change", "accuracy", "all"]


def texts(words, place=""):
    """Every text of nested words, by its place."""
    if isinstance(words, list):  # one, many
        words = dict(enumerate(words))
    if isinstance(words, dict):
        return {key: text for name, value in words.items() for key, text in texts(value, f"{place}/{name}").items()}
    return {place: words}


def filled(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_the_languages_have_the_same_words_and_fill_in_the_same():
    english = texts(read_words("en"))
    assert all(isinstance(text, str) for text in english.values())
    for language in LANGUAGES:
        other = texts(read_words(language))
        assert other.keys() == english.keys()
        assert all(filled(other[key]) == filled(text) for key, text in english.items())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_table_and_figure_has_its_words(language):
    say = Say(language)
    own = say.words["tables"]
    assert set(own) == {table.key for table in TABLES}
    assert all(say.word(f"figures.{figure.key}.title") for figure in FIGURES)
    for table in TABLES:
        notes = [*table.notes.split(), *([table.empty] if table.empty else [])]
        assert all(key in own[table.key] or key in say.words["notes"] for key in notes)
        assert {key for key in own[table.key] if isinstance(own[table.key][key], str)} <= {*notes, *OTHER_WORDS}
        assert say.heading(table.key, name="x")
        assert callable(table.shown)
    for column in COLUMNS.values():
        assert say.word(f"columns.{column.heading or column.key}")
        assert callable(getattr(say, column.format))


def test_criteria_and_classes_are_those_of_the_metric():
    assert tuple(read_words("en")["criteria"]) == tuple(SEMANTICS)
    assert CLASSES == ERROR_CLASSES


def test_a_study_has_what_it_asks_for():
    conditions = ("recommend", "harness", "published", "seeds", "strength", "step", "shots", "ways", "trained")
    has = dict.fromkeys([*conditions, "noise", "repair"], False)
    has |= {"tasks": {"spider": "sql", "bird": "sql", "mmlu": "choice"}, "sql": True}
    compared, single = ["settings", "contrasts", "transitions"], ["regression", "flips"]
    of_sql = [*compared, "spider", "bird", "databases", "mmlu", "errors", *single, "confusion"]
    assert names(TABLES, has, "tables") == of_sql
    without = has | {"tasks": {"own": "match", "mmlu": "choice"}, "sql": False}
    assert names(TABLES, without, "tables") == [*compared, "mmlu", "own", *single]
    # What the way from base to adapter costs, where it is evaluated.
    assert "equal_gain" in names(TABLES, has | {"ways": True}, "tables")
    assert "recommendation" not in names(TABLES, has)
    assert "recommendation" in names(TABLES, has | {"recommend": True})
    plain = ["tradeoff", "differences", "hardness", "databases", "error_flow", "loss"]
    assert names(FIGURES, has | {"trained": True}) == plain
    assert names(FIGURES, has) == plain[:-1]  # of answers that were given elsewhere
    assert "equal_gain" in names(FIGURES, has | {"ways": True})
    assert names(FIGURES, dict.fromkeys(has, True) | {"tasks": has["tasks"]}) == [figure.key for figure in FIGURES]


def test_the_rules_read_the_catalogue_without_pandas():
    code = "import sys, present.catalogue; sys.exit('pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, check=True)
    assert catalogue.__doc__


# Where a format makes no number of a result, and why.
ALLOWED = {
    "present/format.py": {",.{digits}f", ".{digits}g", "g"},  # the one place
    # The numbers of a key, padded.
    "present/plots.py": {"\\u2007>{len(str(len(key)))}"},
}
# Numbers in names, such as dev-00042, and bytes.
PADDED = re.compile(r"#?0\d[dxX]")


def formats(path):
    """The format of every number that a file writes, where it is no plain text."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            found.append(ast.unparse(node.format_spec).removeprefix("f'").removesuffix("'"))
        elif isinstance(node, ast.Attribute) and node.attr == "format" and isinstance(node.value, ast.Constant):
            found.append(node.value.value)
    return found


def test_no_number_is_written_elsewhere():
    found = {
        f"{folder}/{path.name}": {spec for spec in formats(path) if not PADDED.fullmatch(spec)}
        for folder in ("present", "steps")
        for path in sorted((SCRIPTS / folder).glob("*.py"))
    }
    assert {name: specs for name, specs in found.items() if specs} == ALLOWED
