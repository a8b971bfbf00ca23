"""Answers that were given elsewhere: a file of another harness, joined to the questions that a study asks.

Rows find their question by its id, its exact text or its index, never by their place unless the study says so.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import model_validator

from common.files import UserError
from custom_metrics.inputs import BIRD_MARK, InputError, read_rows
from tasks.base import letters
from tasks.choice import read_letter
from tasks.sections import Section, Sha256, Text, contradiction, no_pattern

# The columns of a study's data that say which question a row is about, by the keys of `Answers`.
CLUSTERS = ("db_id", "subject")
GOLD = ("query", "answer")


class Answers(Section):
    """Answers to one task that were given elsewhere, a row for each: a file of CSV, JSON, JSON lines, or one a line.

    At least one of id, question, index and in_order says which question a row answers. A question without a row is
    answered wrongly; a row that fits no question of the data, a second row for a question and another gold answer are
    refused.
    """

    source: Text
    """An http(s) URL, best one that names a commit, or a local file. {seed} in it stands for each seed of the setting's
    training.seed."""
    sha256: Sha256 | None = None
    """SHA-256 of the file, or null."""
    answer: Text = "answer"
    """The column of the answer: what the model wrote or, of multiple choice, a letter."""
    pattern: Text | None = None
    """A regular expression with one group, which is the answer where it is first found in the column's text. Null for
    all of the text."""
    id: Text | None = None
    """The column with the question's id, as this study writes it (dev-00017)."""
    question: Text | None = None
    """The column with the question's exact text."""
    index: Text | None = None
    """The column with the question's place in its official file, counted from 0."""
    cluster: Text | None = None
    """The column with the question's database or subject, where a text or an index is not enough."""
    gold: Text | None = None
    """The column with the gold answer, which must be that of the data."""
    in_order: bool = False
    """Rows are in the order of the questions that the study asks, one for each. Columns that are named are still
    compared."""

    @model_validator(mode="after")
    def _agree(self) -> "Answers":
        if not (self.in_order or self.id or self.question or self.index):
            raise contradiction(
                "question",
                "found null, expected a column that says which question a row answers, or id, index or in_order: true.",
            )
        if self.pattern is not None:
            if wrong := no_pattern(self.pattern):
                raise contradiction("pattern", f"not a regular expression ({wrong}).")
            if (groups := re.compile(self.pattern).groups) != 1:
                raise contradiction("pattern", f"found {groups} groups, expected 1, around the answer.")
        return self


def read_given(path: str | Path, settings: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Read the rows of a file of answers with the numbers of their lines; `settings` are those of `Answers`.

    Raises:
        UserError: the file cannot be read, is empty, or lacks a column that the study names.
    """
    source = settings["source"]
    try:
        rows = read_rows(path, source)
    except InputError as error:
        raise UserError(str(error).replace(str(path), source)) from None
    if not rows:
        raise UserError(f"{source}: has no rows, expected one for each answer.")
    for key in ("answer", "id", "question", "index", "cluster", "gold"):
        for number, row in rows if settings[key] else ():
            if settings[key] not in row:
                raise UserError(
                    f"{source}, line {number}: has no column {settings[key]}, only {', '.join(row)}. Write the name of "
                    f"the column as {settings['name']}.{key}."
                )
    return rows


class Join:
    """The rows of a file, and which question each answers.

    Args:
        rows: of `read_given`.
        asked: the questions of the study, in its order.
        known: all questions of the data, asked or not.
        settings: of `Answers`, with `name`, the place in the study.

    Raises:
        UserError: a row fits no question of the data, a question has two rows, or a column that is compared differs.
    """

    def __init__(
        self, rows: list[tuple[int, dict]], asked: Sequence[Mapping], known: Iterable[Mapping], settings: Mapping
    ):
        self.settings, self.source = settings, settings["source"]
        self.found: dict[str, tuple[int, dict]] = {}
        self.not_asked = 0
        if settings["in_order"]:
            self._in_order(rows, asked)
            return
        self.key = next(key for key in ("id", "question", "index") if settings[key])
        by_value: dict[Any, list[Mapping]] = {}
        for question in asked:
            by_value.setdefault(_value(question, self.key), []).append(question)
        keys = [self.key, *(["cluster"] if settings["cluster"] else [])]
        others = {tuple(_value(question, key) for key in keys) for question in known}
        for number, row in rows:
            value = self._cell(row, self.key)
            fitting = [one for one in by_value.get(value, ()) if self._fits(row, one, "cluster")]
            if not fitting and (cells := tuple(self._cell(row, key) for key in keys)) not in others:
                found = " and ".join(f"{settings[key]} is {cell!r}" for key, cell in zip(keys, cells, strict=True))
                self._refuse(number, found, "which is no question of the data")
            if not fitting:
                self.not_asked += 1
                continue
            # Where the same question stands twice in the data, its gold answer tells, or else the order.
            fitting = [one for one in fitting if self._fits(row, one, "gold")] or fitting
            free = [one for one in fitting if one["id"] not in self.found]
            if not free:
                first = self.found[fitting[0]["id"]][0]
                self._refuse(number, f"answers {fitting[0]['id']}", f"which line {first} answers already")
            self._take(number, row, free[0])

    def _in_order(self, rows: list[tuple[int, dict]], asked: Sequence[Mapping]) -> None:
        while len(rows) > len(asked) and not any(map(str, rows[-1][1].values())):
            rows.pop()  # empty lines at the end
        if len(rows) != len(asked):
            raise UserError(
                f"{self.source}: found {len(rows)} rows, expected {len(asked)}, one for each question, since "
                f"{self.settings['name']}.in_order is true. Name a column that says which question a row answers."
            )
        for (number, row), question in zip(rows, asked, strict=True):
            self._take(number, row, question)

    def _take(self, number: int, row: dict, question: Mapping) -> None:
        for key in ("id", "question", "index", "cluster", "gold"):
            if not self._fits(row, question, key):
                self._refuse(
                    number,
                    f"{self.settings[key]} is {self._cell(row, key)!r}",
                    f"expected {_value(question, key)!r} of question {question['id']}",
                )
        self.found[question["id"]] = number, row

    def _cell(self, row: Mapping, key: str) -> Any:
        cell = row[self.settings[key]]
        if key == "index":
            # A list cannot be looked up, and Python takes True for 1 and refuses thousands of digits.
            text = str(cell).strip()
            return int(text) if text.isdecimal() and len(text) < 20 else cell if type(cell) in (int, float) else text
        return _plain(str(cell), key)

    def _fits(self, row: Mapping, question: Mapping, key: str) -> bool:
        return not self.settings[key] or self._cell(row, key) == _value(question, key)

    def _refuse(self, number: int, found: str, why: str) -> None:
        raise UserError(
            f"{self.source}, line {number}: {found}, {why}. Correct the row, or the columns of {self.settings['name']}."
        )

    def answers(self, asked: Sequence[Mapping]) -> Iterator[dict[str, Any]]:
        """Yield what `predict` writes: id and answer or, of multiple choice, the text and the letter read in it.

        Raises:
            UserError: an answer is neither a text nor a number.
        """
        for question in asked:
            number, row = self.found.get(question["id"], (0, {self.settings["answer"]: None}))
            text = row[self.settings["answer"]]
            if text is None:
                continue
            if not isinstance(text, str | int | float):
                self._refuse(number, f"{self.settings['answer']} is {text!r}", "expected a text")
            text = str(text).partition(BIRD_MARK)[0]
            if self.settings["pattern"]:
                match = re.search(self.settings["pattern"], text, re.DOTALL)
                text = (match[1] or "") if match else ""
            if options := letters(question):
                alone = text.strip().upper()
                letter = alone if len(alone) == 1 and alone in options else read_letter(text, options)
                yield {"id": question["id"], "generated": text, "prediction": letter, "logprobs": None}
            else:
                yield {"id": question["id"], "answer": text}


def _value(question: Mapping, key: str) -> Any:
    """What the data say of a question: its id without the name of a split, its text, place, database, gold answer."""
    if key == "id":
        return question["id"].rpartition(" ")[2]
    if key == "index":
        end = question["id"].rpartition("-")[2]
        return int(end) if end.isdecimal() else question["id"]
    names = {"cluster": CLUSTERS, "gold": GOLD}.get(key, (key,))
    return _plain(next((str(question[name]) for name in names if name in question), ""), key)


def _plain(text: str, key: str) -> str:
    """A text without line breaks and double spaces; of a gold query also without the semicolon at its end."""
    text = " ".join(text.split())
    return text.rstrip("; ") if key == "gold" else text
