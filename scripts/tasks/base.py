"""What a task is: questions to ask a model, and a score for its answers. Plain values in and out, no model library.

A task is a module of this folder that has the names of `Task`. The registry lists it under its kind.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, Protocol

from pydantic import Field

from common.files import UserError
from tasks.sections import ABSENT, AtLeast1, Section, Text

# Of `shots_from`: each question has few-shot examples of its own.
PER_QUESTION = "per_question"
# Of `marks`: choices are called 1, 2, 3 and not A, B, C.
NUMBERS = "numbers"
PARTS = ("train", "validation", "shots", "test")
# The rows of a part, each with `id`, and facts for its manifest.
Part = tuple[list[dict], dict[str, Any]]
# What the prompt template may say of a row: its question, its schema …
Context = Callable[[Mapping], Mapping[str, Any]]
# Questions with their answers, None if there is none.
Asked = Sequence[tuple[Mapping, Mapping | None]]
# One record for each of them, and what the page of answers shows besides.
Scored = Iterator[tuple[Mapping, Mapping | None]]


class TaskOptions(Section):
    """Keys that every task has."""

    kind: Text
    """What the task is; the task's name, if left out."""
    role: Literal["target", "yardstick", "replay"] = "yardstick"
    """target: trained on and evaluated. yardstick: only evaluated. replay: its rows are mixed into the training."""
    prompt: Text | None = None
    """A prompt template of your own (a Jinja file; docs/tasks.md); null for the task's own."""
    base_prompt: Text | None = ABSENT
    """The prompt template of the base model, where it is asked in other words than its adapters; the report says so.
    May be left out; then all have the same prompts."""
    max_new_tokens: AtLeast1 = 128
    """Longest answer in tokens."""
    answered: bool = Field(default=False, exclude_if=lambda value: not value)
    """Ask only the questions that the imported answers of the first model's base are about; see docs/answers.md."""


@dataclass(frozen=True)
class Measure:
    """What the analysis must know of a task and of its records."""

    name: str
    form: Literal["sql", "choice", "match"]
    columns: Sequence[str]  # of its records
    question: Sequence[str]  # the columns about the question, equal in all runs
    counted: Sequence[str]  # the columns about the answer that tables count
    cluster: str  # the column of what questions have in common, such as their database or subject
    strata: Mapping[str, Sequence[str] | Literal["sorted"] | None]  # columns that divide the questions: values in order
    reported: Sequence[str] = ()
    criterion: str = "correct"
    chance: float = 0.0
    role: str = "yardstick"


class Task(Protocol):
    """A module of this folder.

    `options` holds the keys of the stage that a function belongs to (`STAGES`), and `name`, the section in messages:
    tasks.<name>. `folder` is where `fetch` wrote the raw data. All raise UserError where a user's data or keys are at
    fault.
    """

    Options: type[TaskOptions]
    """The keys of its section in a study."""
    PROMPT: str
    """The template that it comes with, in resources/prompts/."""
    PARTS: Sequence[str]
    """The parts of its data that `prepare` makes, out of train, validation, shots and test. Without the part shots, a
    row may bring its few-shot examples itself, as its `shots`."""
    STAGES: Mapping[str, Sequence[str]]
    """Which keys each stage depends on: fetch, each part, prompt, score, measure. Whatever a stage does not name cannot
    make its outputs stale."""
    LICENCE: str
    """That of the data set, under which its questions may be passed on (`scripts/bundle.py`); "" where only their owner
    knows."""
    SMOKE: Mapping[str, Any]
    """What the scale smoke puts over its section."""
    REMEDY: str
    """How a prompt that does not fit the model's context becomes shorter; {name} is the section, and so for each key
    of a row."""

    def measure(self, options: Mapping) -> Measure:
        """What the analysis must know of the records; the registry adds the role."""

    def fetch(self, options: Mapping, folder: Path) -> None:
        """Write the raw data and manifest.json into a folder; the report names its `source`."""

    def prepare(self, options: Mapping, folder: Path, part: str) -> Part:
        """Make a part. It is drawn with seeds: the same on every run and every machine.

        A row with `choices` is answered by the letter with the highest log-probability, any other one by free text. A
        task of role replay is also given `held_out`, the rows of all yardsticks that it must not hold. Of the part test
        the options may have `only`, the ids of the questions to ask.
        """

    def held_out(self, folder: Path) -> list[dict]:
        """All rows of the raw data that no training may see, each with id and question, asked or not."""

    def context(self, options: Mapping, folder: Path) -> Context:
        """Make the function that says what the prompt template may say of a row."""

    def target(self, row: Mapping) -> str:
        """The assistant's turn: what is learnt, and what a few-shot example shows."""

    def score(self, options: Mapping, folder: Path, asked: Asked, workers: int) -> Scored:
        """Score all answers, with `workers` processes; without an answer a record is wrong, not missing."""


def chosen(options: Mapping, rows: Sequence[dict]) -> list[dict]:
    """The rows that the options' `only` names; all rows without it."""
    only = set(options.get("only", ()))
    return [row for row in rows if row["id"] in only] if "only" in options else list(rows)


def marked(options: Mapping, mark: str) -> str:
    """How the prompts call the choice of this letter: so, or by its number; what is no letter of a choice, as it is."""
    numbered = options.get("marks") == NUMBERS and len(mark) == 1 and mark in ascii_uppercase
    return str(ascii_uppercase.index(mark) + 1) if numbered else mark


def letters(row: Mapping) -> str:
    """A letter for each of the choices of a row; "" for free text."""
    return ascii_uppercase[: len(row.get("choices", ()))]


def examples_of(task: Task, options: Mapping, row: Mapping, pool: Sequence[Mapping]) -> Sequence[Mapping]:
    """The few-shot examples before a row, given those of the part `shots`; options of the stage prompt, with `shots`.

    Raises:
        UserError: each question has examples of its own, and there are too few of other databases than the row's.
    """
    if "shots" not in task.PARTS:
        return row.get("shots", ())
    if options.get("shots_from") != PER_QUESTION:
        return pool[: options["shots"]]
    generator, left, found = random.Random(str(row["id"])), list(range(len(pool))), []
    taken = {row["db_id"]}
    while len(found) < options["shots"]:
        if not left:
            raise UserError(
                f"{options['name']}.shots: found {len(found)} databases other than {row['db_id']} of question "
                f"{row['id']} with a short query, expected {options['shots']}. Use fewer shots."
            )
        place = generator.randrange(len(left))
        left[place], left[-1] = left[-1], left[place]
        if (shot := pool[left.pop()])["db_id"] not in taken:
            found.append(shot)
            taken.add(shot["db_id"])
    return found


def filled(task: Task, told: Context, row: Mapping, shots: Sequence[Mapping], options: Mapping) -> dict[str, Any]:
    """What a prompt template is filled in with for a row and its few-shot examples; options of the stage prompt."""
    examples = [{**told(shot), "target": marked(options, task.target(shot))} for shot in shots]
    return {**told(row), "shots": examples, "options": options}
