"""A table as it is read: headings, cells and notes in one language, from the frame of its CSV file.

Markdown pages and the page of all tables render this one structure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
import pandas as pd
from tabulate import tabulate

from present.catalogue import Block, Column, Table, table_of
from present.format import Say, defects
from present.values import ALL, SAME, UNDECIDED

# What a verdict means for the colour and the sign of its cell.
TONES = dict.fromkeys(("gained", "better", "higher"), "up") | dict.fromkeys(("lost", "worse", "lower"), "down")
TONES |= dict.fromkeys((SAME, UNDECIDED), "same")


class Bar(NamedTuple):
    """An interval drawn into a cell: places between 2 and 98; `zero` is None where there is no tick at 0."""

    low: float
    middle: float
    high: float
    zero: float | None


class Cell(NamedTuple):
    """One cell: its text, its kind of text, the tone of a verdict, the interval to draw, and the answers it counts."""

    text: str
    format: str
    tone: str
    bar: Bar | None
    link: str


class Grid(NamedTuple):
    """One block of a table, with what stands above it."""

    above: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    columns: Sequence[Column]


class Sheet(NamedTuple):
    """A whole table: its blocks, its notes by their keys, and of each task that it is about the facts.

    The notes on the questions of a task are `criteria <task>`, or `questions <task>` where no criterion matters.
    """

    key: str
    title: str
    short: str
    grids: Sequence[Grid]
    notes: Mapping[str, str]
    tasks: Sequence[Mapping[str, Any]]


def shared_facts(study: str, frames: Mapping[str, pd.DataFrame], say: Say) -> dict[str, Any]:
    """What the notes of all tables say; `frames` has of each task its table, all questions in the first row."""
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
        parts = ", ".join(f"{say.count(row.n)} {say.level_of(row.category)}" for row in sizes.itertuples())
    criterion = say.words["criteria"].get(first.get("criterion"), {"name": "", "meaning": ""})
    return {
        "task": task,
        "name": measure.name,
        **say.cluster(task),
        "n": int(first["n"]),
        "count": say.count(first["n"]),
        "parts": f" ({parts})" if parts else "",
        "criterion": criterion["name"],
        "by": say.word("criterion", name=criterion["name"].lower()),
        "meaning": criterion["meaning"],
        "columns": ", ".join(measure.question),
        "sha256": first["data_sha256"],
        "chance": say.level(measure.chance),
    }


def read(name: str, frame: pd.DataFrame, shared: Mapping[str, Any], say: Say) -> Sheet:
    """A table of the catalogue, by its name (that of a task or its key), as it is read.

    The notes of some tables need nothing of `shared`, which `shared_facts` gives.

    Raises:
        KeyError: the frame lacks a column, or a note says what no fact gives.
    """
    table = table_of(name, say)
    empty = frame.empty and bool(table.empty)
    few = "unit" in frame and "question" in set(frame["unit"])
    tasks = about(name, table, shared.get("tasks", {}), say)
    own, notes = say.words["tables"][table.key], {}
    blocks, facts = table.shown(frame, say) if not empty else ((), {})
    facts = {**shared, "few": few, "besides": own.get("besides", ""), "comparisons": len(frame), **facts}
    facts |= tasks[0] if name in say.measures else {}
    facts = {key: say.count(value) if type(value) is int and value else value for key, value in facts.items()}
    for key in [table.empty] if empty else table.notes.split():
        if key in ("questions", "criteria"):
            for one in tasks:
                means = say.word("notes.criteria", **one) if key == "criteria" and one["criterion"] else ""
                notes[f"{key} {one['task']}"] = say.word("notes.questions", **one, means=means)
        elif facts.get(key, True):
            notes[key] = (own.get(key) or say.words["notes"][key]).format(**facts).strip()
    shown = [grid for block in blocks if (grid := _grid(table.key, block, say, facts)).rows]
    return Sheet(name, own["title"].format(**facts), say.heading(table.key, **facts), shown, notes, tasks)


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
    title = f"# {sheet.title}" + (f": {shared['study']}" if "study" in shared else "")
    blocks = []
    for grid in sheet.grids:
        cells = [[escape(cell.text) for cell in row] for row in grid.rows]
        table = pipes([escape(heading) for heading in grid.headings], cells, grid.columns)
        blocks.append(f"{grid.above}\n\n{table}" if grid.above else table)
    page = "\n\n".join([title, *blocks[:1], *sheet.notes.values(), *blocks[1:]]) + "\n"
    return page + defects(shared.get("known_defects", ()), shared.get("accept_defect", ()), say)


def alone(
    name: str,
    frame: pd.DataFrame,
    settings: Mapping[str, Any],
    questions: Mapping[str, pd.DataFrame],
    measures: Mapping[str, Any],
) -> str:
    """A table as a Markdown page: `settings` have `study` and `language`; for the others see `shared_facts`."""
    say = Say(settings["language"], measures)
    return to_markdown(name, frame, settings | shared_facts(settings["study"], questions, say), say)


def escape(text: str) -> str:
    """A name that cannot break a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _grid(name: str, block: Block, say: Say, facts: Mapping[str, Any]) -> Grid:
    rows, cells = block.rows.to_dict("records"), []
    for one in block.columns:
        texts = [one.text(row, say) for row in rows]
        tones = [TONES.get(row[one.of[0]], "") if one.format == "verdict" else "" for row in rows]
        bars = _bars([one.values(row)[:3] for row in rows]) if one.bar else [None] * len(rows)
        links = [_fragment(row, one) if text != "0" else "" for row, text in zip(rows, texts, strict=True)]
        cells.append([Cell(text, one.format, *more) for text, *more in zip(texts, tones, bars, links, strict=True)])
    above = say.word(f"tables.{name}.above.{block.above}", **{**facts, **block.fill}) if block.above else ""
    return Grid(above, [one.title(say) for one in block.columns], list(zip(*cells, strict=True)), block.columns)


def _fragment(row: Mapping[str, Any], column: Column) -> str:
    """The end of the address that shows the answers which a cell counts; "" for a column without `link`."""
    if not column.link:
        return ""
    part = {row["part"]: row["value"]} if row.get("part", ALL) != ALL else {}
    task = {"task": row["task"]} if "task" in row else {}
    return urlencode({"model": f"{row['model']}/{row['variant']}"} | task | part | dict(column.link))


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


def pipes(headings: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[Column]) -> str:
    """A table of Markdown; its texts are escaped already."""
    align = ["left" if one.words else "right" for one in columns]
    return tabulate(rows, headings, tablefmt="pipe", disable_numparse=True, colalign=align)
