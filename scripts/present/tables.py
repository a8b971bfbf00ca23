"""A table as it is read: headings, cells and notes in one language, from the frame of its CSV file.

Markdown pages and the page of all tables render this one structure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tabulate import tabulate

from present.catalogue import TABLES, Block, Column
from present.format import Say, defects
from present.values import ALL, SAME

# Words stand to the left, numbers to the right.
WORDS = ("text", "code", "measure", "verdict", "choice", "change", "rate", "allowed", "held")
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
    """A whole table: its blocks, its notes by their keys, and the facts that the notes say."""

    key: str
    title: str
    grids: Sequence[Grid]
    notes: Mapping[str, str]
    facts: Mapping[str, Any]


def shared_facts(study: str, accuracy: pd.DataFrame, mmlu: pd.DataFrame, say: Say) -> dict[str, Any]:
    """What the notes of all tables say: n, criterion, level of the intervals, and the hashes of the questions.

    Args:
        study: the study's name.
        accuracy, mmlu: the tables of execution accuracy and of MMLU.
        say: the language.
    """
    first, criterion = accuracy.iloc[0], say.words["criteria"][accuracy.iloc[0]["semantics"]]
    level = float(first["confidence_level"])
    sizes = mmlu[mmlu["category"] != ALL].drop_duplicates("category")
    return {
        "study": study,
        "n_spider": int(first["n"]),
        "n_mmlu": int(mmlu.iloc[0]["n"]),
        "criterion": criterion["name"],
        "criterion_lower": criterion["name"].lower(),
        "meaning": criterion["meaning"],
        "criteria": "\n".join(f"- {one['name']}: {one['meaning']}." for one in say.words["criteria"].values()),
        "percent": say.level(level),
        "alpha": say.score(1 - level),
        "categories": ", ".join(f"{say.count(row.n)} {row.category}" for row in sizes.itertuples()),
        "spider_sha256": first["data_sha256"],
        "mmlu_sha256": mmlu.iloc[0]["data_sha256"],
    }


def read(name: str, frame: pd.DataFrame, shared: Mapping[str, Any], say: Say) -> Sheet:
    """A table of the catalogue, as it is read.

    Args:
        name: its key in `catalogue.TABLES`.
        frame: its CSV file.
        shared: what `shared_facts` gives; the notes of some tables need nothing of it.
        say: the language.

    Raises:
        KeyError: the frame lacks a column, or a note says what no fact gives.
    """
    table = next(table for table in TABLES if table.key == name)
    empty = frame.empty and bool(table.empty)
    few = "unit" in frame and "question" in set(frame["unit"])
    facts = {**shared, "few": few, "comparisons": len(frame)} | ({} if empty else table.facts(frame, say))
    if few:
        facts["besides"] = say.word(f"tables.{name}.few")
    facts = {key: say.count(value) if type(value) is int and value else value for key, value in facts.items()}
    blocks = table.blocks(frame, say) if callable(table.blocks) else table.blocks
    notes = [table.empty] if empty else [key for key in table.notes.split() if facts.get(key, True)]
    own = say.words["tables"][name]
    return Sheet(
        name,
        own["title"].format(**facts),
        [] if empty else [grid for block in blocks if (grid := _grid(name, block, frame, say, facts)).rows],
        {key: own["notes"].get(key, say.words["notes"].get(key)).format(**facts).strip() for key in notes},
        facts,
    )


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
