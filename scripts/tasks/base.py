"""What a task is: questions to ask a model, and a score for its answers. Plain values in and out, no model library.

A task is a module of this folder that has the names of `Task`. The registry lists it under its kind.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tasks.sections import AtLeast1, Section, Text

PARTS = ("train", "validation", "shots", "test")
Options = Mapping[str, Any]
Row = Mapping[str, Any]


class TaskOptions(Section):
    """Keys that every task has."""

    kind: Text
    """What the task is; the task's name, if left out."""
    role: Literal["target", "yardstick", "replay"] = "yardstick"
    """target: trained on and evaluated. yardstick: only evaluated. replay: its rows are mixed into the training."""
    prompt: Text | None = None
    """A prompt template of your own (a Jinja file; docs/tasks.md); null for the task's own."""
    max_new_tokens: AtLeast1 = 128
    """Longest answer in tokens."""


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
    tasks.<name>. `folder` is where `fetch` wrote the raw data.
    """

    Options: type[TaskOptions]
    """The keys of its section in a study."""
    PROMPT: str
    """The template that it comes with, in resources/prompts/."""
    PARTS: Sequence[str]
    """The parts of its data that `prepare` makes, out of train, validation, shots and test."""
    STAGES: Mapping[str, Sequence[str]]
    """Which keys each stage depends on: fetch, each part, prompt, score, measure. Whatever a stage does not name cannot
    make its outputs stale."""

    SMOKE: Mapping[str, Any]
    """What the scale smoke puts over its section."""

    def measure(self, options: Options) -> Measure:
        """What the analysis must know of the records."""

    def fetch(self, options: Options, folder: Path) -> None:
        """Write the raw data and manifest.json into a folder; the report names its `source`."""

    def prepare(self, options: Options, folder: Path, part: str) -> tuple[list[Row], dict[str, Any]]:
        """The rows of a part, each with `id`, and facts for its manifest. Drawn with seeds: the same on every run.

        A task of role replay is also given `held_out`, the rows of all yardsticks that it must not hold.
        """

    def held_out(self, folder: Path) -> list[Row]:
        """All rows of the raw data that no training may see, each with id and question, asked or not."""

    def context(self, options: Options, folder: Path) -> Callable[[Row], Mapping[str, Any]]:
        """A function that gives what the prompt template may say of a row: its question, its schema …"""

    def shots(self, row: Row, pool: Sequence[Row]) -> Sequence[Row]:
        """The few-shot examples of a row, out of those of the part `shots`."""

    def target(self, row: Row) -> str:
        """The assistant's turn: what is learnt, and what a few-shot example shows."""

    def choices(self, row: Row) -> Sequence[str]:
        """The options among which log-probabilities choose; () for free text."""

    def remedy(self, options: Options, row: Row) -> str:
        """How a prompt that does not fit the model's context becomes shorter."""

    def score(
        self, options: Options, folder: Path, asked: Sequence[tuple[Row, Mapping[str, Any] | None]], workers: int
    ) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any] | None]]:
        """One record for each question and its answer, None if there is none; and what the page of answers shows."""
