"""A table as it is read: headings, cells and notes in one language, from the frame of its CSV file.

Markdown pages and the page of all tables render this one structure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tabulate import tabulate

from present.catalogue import Block, Column, Table, table_of
from present.format import Say, defects
from present.values import ALL, SAME

# Words stand to the left, numbers to the right.
WORDS = ("text", "code", "measure", "job", "verdict", "choice", "change", "rate", "allowed", "held")
# What a verdict means for the colour and the sign of its cell.
TONES = {"better": "up", "higher": "up", "worse": "down", "lower": "down", SAME: "same"}


class Bar(NamedTuple):
    """An interval drawn into a cell: places between 2 and 98; `zero` is None where there is no tick at 0."""

    low: float
    middle: float
    high: float
    zero: float | None


class Cell(NamedTuple):
    """One cell: its text, what kind of text it is, the tone of a verdict, and the interval to draw."""

    text: str
    format: str
    tone: str = ""
    bar: Bar | None = None


class Heading(NamedTuple):
    """The heading of a column, which key it has, and whether the column holds words."""

    text: str
    key: str
    words: bool


class Grid(NamedTuple):
    """One block of a table."""

    above: str
    headings: Sequence[Heading]
    rows: Sequence[Sequence[Cell]]


class Sheet(NamedTuple):
    """A whole table: its blocks, its notes by their keys, and the facts that the notes say.

    `tasks` are the facts of each task whose questions the table is about. The notes on these questions are `criteria
    <task>`, or `questions <task>` where no criterion matters.
    """

    key: str
    title: str
    short: str
    grids: Sequence[Grid]
    notes: Mapping[str, str]
    facts: Mapping[str, Any]
    tasks: Sequence[Mapping[str, Any]]


def shared_facts(study: str, frames: Mapping[str, pd.DataFrame], say: Say) -> dict[str, Any]:
    """What the notes of all tables say: of each task n, criterion and hash of the questions; level of the intervals.

    Args:
        study: the study's name.
        frames: by task, its table; all questions in the first row.
        say: the language.
    """
    level = float(next(iter(frames.values())).iloc[0]["confidence_level"])
    target, *yardsticks = map(say.measure, say.measures)
    return {
        "study": study,
        "target": target,
        "yardsticks": say.listed(yardsticks),
        "tasks": {task: task_facts(task, frame, say) for task, frame in frames.items()},
        "criteria": "\n".join(f"- {one['name']}: {one['meaning']}." for one in say.words["criteria"].values()),
        "percent": say.level(level),
        "alpha": say.score(1 - level),
    }


def task_facts(task: str, frame: pd.DataFrame, say: Say) -> dict[str, Any]:
    """What notes say of one task: its name, n, parts, criterion, and the hash and the columns of its questions."""
    measure, first, parts = say.measures[task], frame.iloc[0], ""
    if "category" in frame:
        sizes = frame[frame["category"] != ALL].drop_duplicates("category")
        parts = ", ".join(f"{say.count(row.n)} {row.category}" for row in sizes.itertuples())
    criterion = say.words["criteria"].get(first.get("criterion"), {"name": "", "meaning": ""})
    return {
        "task": task,
        "name": measure.name,
        "measure": say.measure(task),
        "n": int(first["n"]),
        "count": say.count(first["n"]),
        "parts": f" ({parts})" if parts else "",
        "criterion": criterion["name"],
        "criterion_lower": criterion["name"].lower(),
        "meaning": criterion["meaning"],
        "columns": ", ".join(measure.question),
        "sha256": first["data_sha256"],
        "chance": say.level(measure.chance),
    }


def read(name: str, frame: pd.DataFrame, shared: Mapping[str, Any], say: Say) -> Sheet:
    """A table of the catalogue, as it is read.

    Args:
        name: its name: that of a task, or its key in `catalogue.TABLES`.
        frame: its CSV file.
        shared: what `shared_facts` gives; the notes of some tables need nothing of it.
        say: the language.

    Raises:
        KeyError: the frame lacks a column, or a note says what no fact gives.
    """
    table = table_of(name, say)
    empty = frame.empty and bool(table.empty)
    few = "unit" in frame and "question" in set(frame["unit"])
    tasks = about(name, table, shared.get("tasks", {}), say)
    blocks, facts = ((), {}) if empty else table.shown(frame, say) if callable(table.shown) else (table.shown, {})
    facts = {**shared, "few": few, "comparisons": len(frame), **facts, **(tasks[0] if name in say.measures else {})}
    if few:
        facts["besides"] = say.word(f"tables.{table.key}.few")
    facts = {key: say.count(value) if type(value) is int and value else value for key, value in facts.items()}
    own, notes = say.words["tables"][table.key], {}
    for key in [table.empty] if empty else table.notes.split():
        if key in ("questions", "criteria"):
            for one in tasks:
                means = say.word("notes.criteria", **one) if key == "criteria" and one["criterion"] else ""
                notes[f"{key} {one['task']}"] = say.word("notes.questions", **one, means=means)
        elif facts.get(key, True):
            notes[key] = own["notes"].get(key, say.words["notes"].get(key)).format(**facts).strip()
    shown = [grid for block in blocks if (grid := _grid(table.key, block, frame, say, facts)).rows]
    return Sheet(name, own["title"].format(**facts), own["short"].format(**facts), shown, notes, facts, tasks)


def about(name: str, table: Table, tasks: Mapping[str, Mapping], say: Say) -> list[Mapping[str, Any]]:
    """The facts of the tasks whose questions a table is about: its own, those of form sql, all, or none."""
    if name in tasks:
        return [tasks[name]]
    if not {"questions", "criteria"} & {*table.notes.split()}:
        return []
    return [one for task, one in tasks.items() if table.when != "sql" or say.measures[task].form == "sql"]


def to_markdown(name: str, frame: pd.DataFrame, shared: Mapping[str, Any], say: Say) -> str:
    """A table as a Markdown page: the first block, the notes, the other blocks, and the defects of the study.

    Arguments and errors are those of `read`; `shared` may hold `known_defects` and `accept_defect`.
    """
    sheet = read(name, frame, shared, say)
    parts = [f"# {sheet.title}" + (f": {shared['study']}" if "study" in shared else "")]
    blocks = [[*([grid.above] if grid.above else []), _pipes(grid)] for grid in sheet.grids]
    parts += [text for block in blocks[:1] for text in block]
    parts += sheet.notes.values()
    parts += [text for block in blocks[1:] for text in block]
    page = "\n\n".join(parts) + "\n"
    return page + defects(shared.get("known_defects", ()), shared.get("accept_defect", ()), say)


def escape(text: str) -> str:
    """A name that cannot break a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _grid(name: str, block: Block, frame: pd.DataFrame, say: Say, facts: Mapping[str, Any]) -> Grid:
    rows = block.rows(frame)
    headings = [
        Heading(
            say.word(f"columns.{column.heading or column.key}").format(**column.fill),
            column.key,
            column.format in WORDS,
        )
        for column in block.columns
    ]
    cells = [_cells(column, rows, say) for column in block.columns]
    above = say.word(f"tables.{name}.above.{block.above}", **{**facts, **block.fill}) if block.above else ""
    return Grid(above, headings, list(zip(*cells, strict=True)))


def _cells(column: Column, rows: pd.DataFrame, say: Say) -> list[Cell]:
    write = getattr(say, column.format)
    values = list(zip(*(rows[name].tolist() for name in column.of or (column.key,)), strict=True))
    tones = [TONES.get(value[0], "") for value in values] if column.format == "verdict" else [""] * len(values)
    bars = _bars([value[:3] for value in values]) if column.bar else [None] * len(values)
    return [Cell(write(*value), column.format, tone, bar) for value, tone, bar in zip(values, tones, bars, strict=True)]


def _bars(intervals: Sequence[tuple[float, float, float]]) -> list[Bar | None]:
    """Where each interval (value, low, high) is drawn: shares between 0 and 100, differences around a 0 in the middle.

    One that is missing is None.
    """
    values = np.array(intervals, float).reshape(-1, 3)
    known = values[~np.isnan(values).any(axis=1)]
    most = np.abs(known).max(initial=0) or 1.0
    shares = len(known) > 0 and known[:, 1].min() > 0
    start, end = (0.0, 100.0) if shares else (-most, most)
    places = np.round(2 + 96 * (values - start) / (end - start), 1).tolist()
    zero = None if shares else 50.0
    return [None if math.isnan(sum(one)) else Bar(one[1], one[0], one[2], zero) for one in places]


def _pipes(grid: Grid) -> str:
    return tabulate(
        [[escape(cell.text) for cell in row] for row in grid.rows],
        [escape(heading.text) for heading in grid.headings],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left" if heading.words else "right" for heading in grid.headings],
    )
