"""What figures share: the look, the frame, rows of runs, labels at points, and files. Lengths are in inches."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure, FigureBase, SubFigure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from present.format import Say
from present.values import BASE

matplotlib.style.use(Path(__file__).with_name("figures.mplstyle"))

# Okabe and Ito's colours, told apart by the colour-blind; shapes and dashes tell the same things apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#444444")
SHAPES = ("o", "s", "^", "D", "v", "X")
BLUE, ORANGE = COLOURS[:2]
INK, GREY, STRIPE = "#222222", "#6B6B6B", "#F4F4F4"
DASHED, DOTTED = (0, (5, 2)), (0, (1.5, 2))
# Vermilion is -1, white 0, blue 1; what has no value is nearly white.
SHADES = LinearSegmentedColormap.from_list("shades", [ORANGE, "white", BLUE], bad="#F7F7F7")
# Levels of what was swept, from pale to dark.
LEVELS = LinearSegmentedColormap.from_list("levels", ["#B5DAF2", "#3D9BD3", "#00507D", "#001D33"])
# A row is so high, and a letter so wide.
WIDTH, ROW, LETTER = 7.0, 0.215, 0.07
# More panels do not stand beside each other.
MOST_BESIDE = 5
# A text in the middle of something; it needs no room of its own.
MIDDLE = {"ha": "center", "va": "center", "in_layout": False}
# Rows below each other: group and name of each, and its number. A name that is empty makes a heading of the group.
Rows = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Results:
    """What the figures are drawn from. Accuracies and differences are in percent: x, with the interval x_low, x_high.

    `accuracy`, `databases` and `confusion` are the tables of the tasks of form sql.
    """

    tasks: Mapping[str, Any]  # by key what `tasks.base.Measure` says of each, the target first
    points: pd.DataFrame  # a row a run and task, as in the task's table, with its accuracy on all questions
    accuracy: pd.DataFrame
    settings: pd.DataFrame  # the differences of settings from the base, with `accuracy` and its interval
    runs: pd.DataFrame  # those of single runs
    databases: pd.DataFrame
    confusion: pd.DataFrame
    reports: Sequence[tuple[str, str, dict[str, Any]]]  # of each adapter its model, its variant and its train.json
    best: frozenset[tuple[str, str]] = frozenset()  # model and name of the recommended settings

    def facts(self, say: Say, table: pd.DataFrame | None = None) -> dict[str, str]:
        """What sentences say of the tasks of a table, or of all: the questions, and the level of intervals."""
        first = self.points.drop_duplicates("task").set_index("task")
        shown = {*(self.points if table is None else table)["task"]}
        tasks = [(key, task) for key, task in self.tasks.items() if key in shown]
        asked = [say.about("figures.asked", task, n=say.count(first["n"][key])) for key, task in tasks]
        return {"asked": say.listed(asked, len(asked)), "level": say.level(first["confidence_level"].iloc[0])}


def new(height: float, width: float = WIDTH) -> SubFigure:
    """The part of a figure that holds the axes; `frame` adds the room that words need."""
    return Figure((width, height), layout="constrained").subfigures()


def grid(figure: FigureBase, count: int, most: int) -> list[Axes]:
    """So many axes, at most so many beside each other."""
    return [figure.add_subplot(-(-count // most), min(count, most), number + 1) for number in range(count)]


def save(figure: Figure, file: IO[bytes], kind: str) -> None:
    """Write a figure to a binary file, svg or pdf, text as text; equal figures are equal bytes."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(file, format=kind, metadata={"Title": figure.get_label()} | undated)


def frame(body: SubFigure, say: Say, shown: Sequence[str], facts: Mapping[str, str], key: Sequence[str] = ()) -> Figure:
    """Put sentences and the legend of all labels above the axes, what numbers mean below; fix the layout.

    The title, which stands first in `shown`, is that of the file: who shows the figure writes it above or below.

    `shown` says where in the words title and sentences stand, those of `figures` without it; `facts` fill them in.
    `key` is what the numbers 1, 2, … in the figure mean.
    """
    places = [name if name.startswith(("notes.", "tables.")) else f"figures.{name}" for name in shown]
    title, *sentences = [say.word(place, **facts) for place in places]
    width, height = body.figure.get_size_inches()
    found = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in body.figure.axes]
    handles = {name: handle for pairs in found for handle, name in pairs}
    text = "\n".join(textwrap.fill(text, int(15 * width)) for text in sentences)
    look = {"loc": "outside upper left", "alignment": "left", "ncols": fitting(handles, width)}
    legends = [body.legend(handles.values(), handles, title=text, **look)]
    legends[0].get_title().set_color(GREY)
    if key:
        # A figure space is as wide as a digit.
        names = [f"{number:\N{FIGURE SPACE}>{len(str(len(key)))}}  {name}" for number, name in enumerate(key, 1)]
        look |= {"loc": "outside lower left", "handlelength": 0, "handletextpad": 0, "ncols": fitting(names, width)}
        legends.append(body.legend([Line2D([], [], linestyle="none")] * len(key), names, **look))
    height += 0.05 + sum(one.get_window_extent().height for one in legends) / 72
    body.figure.set_size_inches(width, height)
    body.figure.set_label(title)
    body.figure.draw_without_rendering()
    # With "none" an engine that does nothing would stay, for which every file is drawn twice.
    body.figure.set_layout_engine(None)
    return body.figure


def fitting(texts: Iterable[str], width: float) -> int:
    """How many columns of a legend stand beside each other."""
    widths = [0.065 * len(text) + 0.55 for text in texts]
    fits = (n for n in range(len(widths), 1, -1) if sum(map(max, np.array_split(widths, n))) < width)
    return next(fits, 1)


def sentence(say: Say, *shown: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    body = new(0.5)
    body.add_subplot().set_axis_off()
    return frame(body, say, shown, {})


def mark(colour: str, shape: str = "o", hollow: bool = False, **more: Any) -> dict[str, Any]:
    """The look of a point."""
    return {"color": colour, "marker": shape, "markerfacecolor": "white" if hollow else colour, "linestyle": ""} | more


def marks(axes: Axes, table: pd.DataFrame, x: str, y: str, look: Mapping[str, Any]) -> None:
    """Draw points of two columns, with the intervals of those columns that have <column>_low and <column>_high."""
    for along, across, lines in ((x, y, axes.hlines), (y, x, axes.vlines)):
        if f"{along}_low" in table:
            ends = table[f"{along}_low"], table[f"{along}_high"]
            lines(table[across], *ends, color=look["color"], alpha=1 if y == "row" else 0.45, linewidth=1.2)
    if len(table):
        axes.plot(table[x], table[y], **look)


def by_size(level: str) -> tuple[float, str]:
    """Sort levels that are numbers by their size, and others by their name."""
    try:
        return float(level), ""
    except ValueError:
        return math.inf, level


def darker(colour: str) -> str:
    """A colour that is dark enough for small text."""
    return to_hex([part * 2 / 3 for part in to_rgb(colour)])


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Names of at most so many letters, without the middle of longer ones; numbered if they are then alike."""

    def cut(name: str, most: int) -> str:
        return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - most // 2 - 1) :]}"

    short = [cut(name, most) for name in names]
    if len(set(short)) == len(set(names)):
        return short
    room = most - 2 - len(str(len(names)))
    return [name if len(name) <= most else f"{i}. {cut(name, room)}" for i, name in enumerate(names, 1)]


def numbers(axis: Axis, say: Say, bins: int = 6) -> None:
    """Have an axis written in the language, at about so many round numbers."""
    axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: say.short(value + 0.0))


def percent(every: Iterable[Axes], name: str = "x") -> None:
    """Give axes of percent the same limits, in steps of 5, with air around what is drawn; 30 points wide or more."""
    ends = np.array([getattr(axes, f"get_{name}lim")() for axes in every])
    low, high = ends.min(), ends.max()
    air = max(0.0, (30 - (high - low)) / 2)
    # A point at 0% or 100% is drawn whole.
    limits = max(-3, 5 * math.floor((low - air) / 5)), min(103, 5 * math.ceil((high + air) / 5))
    for axes in every:
        axes.set(**{f"{name}lim": limits})


def accuracy_axis(axes: Axes, name: str, task: Any, say: Say) -> None:
    """Name an axis, x or y, that is the accuracy on a task, and set its limits after all is drawn."""
    title = say.about("figures.axis", task)
    axes.set(**{f"{name}label": title if name == "x" else textwrap.fill(title, 28)})
    numbers(axes.xaxis if name == "x" else axes.yaxis, say)
    percent([axes], name)


def runs_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Model and variant of each run of a table, in its order."""
    return list(dict.fromkeys(zip(table["model"], table["variant"], strict=True)))


def adapters_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Model and variant of each adapter of a table, in its order."""
    return [run for run in runs_of(table) if run[1] != BASE]


def named(runs: Sequence[tuple[str, str]]) -> list[str]:
    """A name of each run, with the model where there are several, that fits above a panel."""
    several = len(dict(runs)) > 1
    return shortened([f"{model} {variant}" if several else variant for model, variant in runs], 60)


def rows_of(names: Iterable[tuple[str, str]], headed: bool = False) -> Rows:
    """Rows of names that are sorted by group, with headings of the groups (always where there are several)."""
    names = dict.fromkeys(names)
    groups = list(dict.fromkeys(group for group, _ in names))
    headings = [(group, "") for group in groups if headed or len(groups) > 1]
    rows = sorted([*headings, *names], key=lambda row: groups.index(row[0]))
    return {row: number for number, row in enumerate(rows)}


def placed(table: pd.DataFrame, rows: Rows, group: str = "model", name: str = "variant") -> pd.DataFrame:
    """A table with the column `row`, by the columns of group and name."""
    return table.assign(row=[rows[row] for row in zip(table[group], table[name], strict=True)])


def write_rows(axes: Axes, rows: Rows) -> None:
    """Write the names of rows at the left of axes."""
    axes.set_yticks(range(len(rows)), shortened([name or group for group, name in rows], 38))
    for text, (_, name) in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_weight("normal" if name else "bold")


def strips(
    say: Say, rows: Rows, lines: Iterable[Sequence[tuple[str, int, Any]]], unit: str
) -> tuple[SubFigure, dict[Axes, Any]]:
    """A figure with lines of panels, in which the rows of all panels are at the same height; and what its axes show.

    `lines` has of the panels beside each other title, questions (0: not said), and what each shows.
    """
    each = [(line, -(-len(line) // math.ceil(len(line) / MOST_BESIDE))) for line in lines if line]
    lines = [line[at : at + n] for line, n in each for at in range(0, len(line), n)]
    figure, drawn = new(len(lines) * (ROW * len(rows) + 0.95)), {}
    for place, line in zip(figure.subfigures(len(lines), squeeze=False).flat, lines, strict=True):
        every = place.subplots(1, len(line), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (title, n, shown) in zip(every, line, strict=True):
            counted = f"\nn = {say.count(n)}" if n else ""
            axes.set_title(textwrap.fill(title, 72 // len(line)) + counted, loc="center")
            axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=unit)
            for row in [row for (_, name), row in rows.items() if name][::2]:
                axes.axhspan(row - 0.5, row + 0.5, color=STRIPE, zorder=0, linewidth=0)
            axes.spines.left.set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.grid(False, axis="y")
            numbers(axes.xaxis, say, 10 // len(line) + 1)
            drawn[axes] = shown
        write_rows(every[0], rows)
    return figure, drawn


def cells(axes: Axes, shares: np.ndarray, texts: np.ndarray, columns: Sequence[str]) -> None:
    """Draw a matrix: cells shaded from -1 to 1 (or empty, NaN), a text on each, and slanted names of the columns."""
    edges = [np.arange(n + 1) - 0.5 for n in reversed(shares.shape)]
    axes.pcolormesh(*edges, shares, cmap=SHADES, vmin=-1, vmax=1, edgecolors="white", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, labelbottom=False, labeltop=True)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if abs(share) > 0.7 else INK if share else GREY
        axes.text(column, row, texts[row, column], **MIDDLE, size=8, color=colour)


def label(axes: Axes, points: pd.DataFrame) -> None:
    """Write a label beside each point where it covers no point, no other label, and few lines.

    Every label tries places ever farther from its point and takes the cheapest; a thin line leads to one that is far.
    matplotlib has no placement of its own for this. The layout of the figure must be fixed, see `frame`. `points` has
    x, y, label, ink, and the cross x_low, x_high, y_low, y_high (NaN without a cross).
    """
    names = (["x", "y"], ["x_low", "y"], ["x_high", "y"], ["x", "y_low"], ["x", "y_high"])
    centres, left, right, bottom, top = (axes.transData.transform(points[name]) for name in names)
    lines = np.vstack([np.hstack([left - 1, right + 1]), np.hstack([bottom - 1, top + 1])])
    solid = np.hstack([centres - 5, centres + 5])
    distances = np.repeat([3, 8, 14, 22, 32, 45, 60, 80, 110, 150], 16)
    angles = np.radians(np.tile([45, 135, -45, -135, 0, 180, 90, -90, 20, -20, 160, -160, 70, -70, 110, -110], 10))
    steps = np.column_stack([np.cos(angles), np.sin(angles)])
    look = MIDDLE | {"bbox": {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5}}
    lead = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 0}
    for point, centre in zip(points.itertuples(), centres, strict=True):
        place = {"xy": (point.x, point.y), "xytext": (0, 0), "textcoords": "offset points"}
        text = axes.annotate(point.label, **place, **look, color=point.ink, arrowprops=lead)
        half = np.array(Text.get_window_extent(text).padded(2, 0).size) / 2
        offsets = steps * (distances[:, None] + 5) + half * np.sign(steps.round(1))
        boxes = np.hstack([centre + offsets - half, centre + offsets + half])
        inside = (boxes[:, :2] > axes.bbox.min + 2).all(axis=1) & (boxes[:, 2:] < axes.bbox.max - 2).all(axis=1)
        best = (distances + 12.0 * covers(boxes, lines) + 1e6 * covers(boxes, solid) + 1e9 * ~inside).argmin()
        text.set_position(offsets[best])
        text.arrow_patch.set_visible(distances[best] > 8)
        solid = np.vstack([solid, boxes[best]])


def covers(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the other boxes (left, bottom, right, top) each box overlaps."""
    a, b = boxes[:, None], others[None]
    return ((a[..., :2] < b[..., 2:]) & (b[..., :2] < a[..., 2:])).all(axis=2).sum(axis=1)
