"""The section `published` of a study: the figures that a report printed."""

from typing import Annotated, Literal

from pydantic import Field

from study.kinds import ABSENT, AtLeast1, Count, Number, Section, Some


class Stated(Section):
    """One number that the report states."""

    what: str
    """What it is the number of."""
    value: Number
    """The number."""
    part_of: Annotated[list[Number], Field(min_length=2, max_length=2)] = ABSENT
    """Two numbers: the report says that the stated one is the first in percent of the second. May be left out."""
    decimals: Count = 0
    """Digits after the point, as printed."""


class PublishedTable(Section):
    """One table of the report, or the figures of one passage."""

    table: str
    """Its name in the report."""
    measure: Literal["execution_accuracy", "mmlu"]
    """What is measured."""
    decimals: Count
    """Digits after the point of the percentages, as printed."""
    n: dict[str, AtLeast1 | None]
    """Questions behind each column; null where the report does not say. A column is all, a category of
    published.subjects, or an MMLU subject."""
    subset: str | None = None
    """Which questions of the official split these are, if not all, as the report says it; null if it does not say."""
    accuracy: dict[str, dict[str, Number]]
    """The percentages of each variant, by its name in this study, for each column of n."""
    correct: dict[str, dict[str, Count]] = {}
    """The numbers of right answers of each variant, where the report prints them."""
    change: dict[str, dict[str, Number]] = {}
    """Changes against the base model that the report prints with a percent sign, of each variant."""


class Published(Section):
    """The figures that a report printed, to stand beside ours in tables/published; studies/souza.yaml shows it.

    No job that computes anything sees them.
    """

    report: str = ""
    """Author, title and year of the report."""
    model: str | None = None
    """Which of this study's models the figures are of; null if there are no figures."""
    subjects: dict[str, Some[str]] = {}
    """The MMLU subjects of each of the report's categories, under the names that the report gives them."""
    stated: list[Stated] = []
    """Other numbers that the report states."""
    tables: list[PublishedTable] = []
    """The report's tables of results."""
