"""The look that all figures share, their frame, the places of their labels, and their files. Lengths are in inches."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import IdentityTransform

from present.format import Say
from present.values import BASE

matplotlib.style.use(Path(__file__).with_name("figures.mplstyle"))

# Okabe and Ito's colours, told apart by the colour-blind; shapes and dashes tell the same things apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#444444")
SHAPES = ("o", "s", "^", "D", "v", "X")
BLUE, ORANGE = COLOURS[:2]
INK, GREY, PALE, STRIPE = "#222222", "#6B6B6B", "#C4C4C4", "#F4F4F4"
DASHED, DOTTED = (0, (5, 2)), (0, (1.5, 2))
# Vermilion is -1, white 0, blue 1; what has no value is nearly white.
SHADES = LinearSegmentedColormap.from_list("shades", [ORANGE, "white", BLUE], bad="#F7F7F7")
# A line of text is so high, and a letter of a name so wide; those of sentences are narrower.
WIDTH, LINE, LETTER, NARROW = 7.0, 0.165, 0.07, 0.0645
FIGURE_SPACE = "\N{FIGURE SPACE}"


@dataclass(frozen=True)
class Results:
    """What the figures are drawn from.

    Attributes:
        points: a row a run: model, variant, x, x_low, x_high (execution accuracy), y, y_low, y_high (MMLU), all in
            percent, x_n, y_n (questions), semantics (of x), level (of the intervals), of, strength, step and shots.
        accuracy, databases: the tables about base models and trained adapters, with accuracies as x, low, high.
        comparisons: the table of differences from the base, as x, low, high.
        confusion, seeds: the tables of the classes of answers, and of the settings with several seeds.
        reports: of each adapter its model, its variant and its train.json.
        best: model and variant of the recommended runs.
    """

    points: pd.DataFrame
    accuracy: pd.DataFrame
    comparisons: pd.DataFrame
    databases: pd.DataFrame
    confusion: pd.DataFrame
    seeds: pd.DataFrame
    reports: Sequence[tuple[str, str, dict[str, Any]]]
    best: frozenset[tuple[str, str]] = frozenset()


def facts(points: pd.DataFrame, say: Say) -> dict[str, str]:
    """What sentences name: the questions of Spider (n) and MMLU (m), the level of the intervals, the criterion."""
    first = points.iloc[0]
    criterion = say.word("figures.criterion", name=first["semantics"].replace("_", " "))
    counts = {"n": say.count(first["x_n"]), "m": say.count(first["y_n"])}
    return {**counts, "level": say.level(first["level"]), "criterion": criterion}


def new(height: float, width: float = WIDTH) -> Figure:
    """A figure whose axes have this much room, without the words that `frame` puts around them."""
    figure = Figure((width, height))
    # Keeps what texts are measured with.
    FigureCanvasAgg(figure)
    return figure


def grid(count: int, beside: int, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, in lines of this height."""
    lines = math.ceil(count / beside)
    figure = new(lines * height, width)
    return figure, [figure.add_subplot(lines, beside, number) for number in range(1, count + 1)]


def save(figure: Figure, file: IO[bytes], kind: str) -> None:
    """Write a figure to a binary file, svg or pdf, text as text; equal figures are equal bytes."""
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(file, format=kind, metadata={"Title": figure.get_label()} | undated)


def frame(figure: Figure, title: str, sentences: Iterable[str], entries: Sequence = (), key: Sequence = ()) -> None:
    """Put title, sentences and legend above the axes and a key below them, and fix the layout.

    Args:
        entries: a look (as `mark` returns it) or a patch, and what it means.
        key: a colour and a name of what the numbers 1, 2, … in the figure mean.
    """
    width, body = figure.get_size_inches()
    lines = [line for text in sentences for line in textwrap.wrap(text, int((width - 0.2) / NARROW))]
    handles = [look if isinstance(look, Patch) else Line2D([], [], **look) for look, _ in entries]
    names = [name for _, name in entries]
    # A figure space is as wide as a digit.
    digits = len(str(len(key)))
    numbered = [f"{str(number).rjust(digits, FIGURE_SPACE)}  {name}" for number, (_, name) in enumerate(key, 1)]
    columns, key_columns = fitting(names, width), fitting(numbered, width)
    head = 0.5 + LINE * len(lines)
    foot = 0.1 + 0.19 * math.ceil(len(key) / key_columns) if key else 0
    body_top = head + 0.08 + 0.19 * math.ceil(len(names) / columns)
    height = body_top + body + foot
    figure.set_size_inches(width, height)
    figure.set_label(title)
    figure.text(0.1 / width, 1 - 0.12 / height, title, size=13, va="top")
    figure.text(0.1 / width, 1 - 0.42 / height, "\n".join(lines), color=GREY, va="top")
    above = {"loc": "upper left", "bbox_to_anchor": (0.12 / width, 1 - head / height)}
    figure.legend(handles, names, ncols=columns, **above)
    if key:
        below = {"loc": "upper left", "bbox_to_anchor": (0.12 / width, foot / height), "handlelength": 0}
        inks = [colour for colour, _ in key]
        nothing = [Line2D([], [], linestyle="none")] * len(key)
        figure.legend(nothing, numbered, ncols=key_columns, labelcolor=inks, handletextpad=0, **below)
    if figure.axes:
        figure.tight_layout(pad=0.5, h_pad=1, w_pad=1, rect=(0, foot / height, 1, 1 - body_top / height))


def fitting(texts: Sequence[str], width: float) -> int:
    """How many columns of a legend stand beside each other."""
    for columns in range(min(len(texts), 10), 1, -1):
        parts = np.array_split([len(text) for text in texts], columns)
        if sum(LETTER * part.max() + 0.55 for part in parts) < width:
            return columns
    return 1


def sentence(title: str, text: str) -> Figure:
    """A figure that says why there is nothing to draw."""
    figure = new(0.1)
    frame(figure, title, [text])
    return figure


def mark(colour: str, shape: str = "o", hollow: bool = False, **more: Any) -> dict[str, Any]:
    """The look of a point, for `plot` and `frame`."""
    inside = "white" if hollow else colour
    return {"color": colour, "marker": shape, "markerfacecolor": inside, "linestyle": "none"} | more


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Names of at most so many letters, without the middle of longer ones; numbered if they are then alike."""

    def cut(name: str, most: int) -> str:
        return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - most // 2 - 1) :]}"

    short = [cut(name, most) for name in names]
    if len(set(short)) == len(set(names)):
        return short
    room = most - 2 - len(str(len(names)))
    return [name if len(name) <= most else f"{i}. {cut(name, room)}" for i, name in enumerate(names, 1)]


def written(value: float, say: Say) -> str:
    """A number with the digits that it has."""
    return say.marked(f"{value + 0.0:,.10g}")


def numbers(axis: Any, say: Say, bins: int = 6) -> None:
    """Have an axis written in the language, at about so many round numbers."""
    axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: written(value, say))


def percent_limits(low: Iterable[float], high: Iterable[float]) -> tuple[float, float]:
    """Limits in percent, in steps of 5, that leave air around the intervals; 30 points wide or more."""
    start, end = min(low), max(high)
    air = max(2.0, 0.06 * (end - start), (30 - (end - start)) / 2)
    # A point at 0% or 100% is drawn whole.
    return max(-3, 5 * math.floor((start - air) / 5)), min(103, 5 * math.ceil((end + air) / 5))


def difference_limits(values: Iterable[float], step: int = 10) -> tuple[float, float]:
    """Limits in whole steps that hold all values and zero, with some air."""
    low, high = min(0.0, *values), max(0.0, *values)
    air = 0.04 * (high - low) + 1
    return step * math.floor((low - air) / step), step * math.ceil((high + air) / step)


# Rows of runs

ROW = 0.215
# A text in the middle of something; it needs no room of its own.
MIDDLE = {"ha": "center", "va": "center", "in_layout": False}


def runs_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Model and variant of each run of a table, in its order."""
    return list(dict.fromkeys(zip(table["model"], table["variant"], strict=True)))


def adapters_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Model and variant of each adapter of a table, in its order."""
    return [run for run in runs_of(table) if run[1] != BASE]


@dataclass(frozen=True)
class Rows:
    """Names below each other, some of them headings; `places` is the row of each run."""

    names: Sequence[str]
    headings: Sequence[int] = ()
    places: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Sequence[tuple[str, str]]) -> "Rows":
        """Rows of runs, which are sorted by model, under a heading for each model where there are several."""
        names, headings, places = [], [], {}
        several = len({model for model, _ in runs}) > 1
        for model, own in groupby(runs, itemgetter(0)):
            if several:
                headings.append(len(names))
                names.append(model)
            for run in own:
                places[run] = len(names)
                names.append(run[1])
        return cls(names, headings, places)

    def placed(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table of runs with the column `row`."""
        return table.assign(row=[self.places[run] for run in zip(table["model"], table["variant"], strict=True)])

    def write(self, axes: Axes) -> None:
        """Write the names at the left of axes whose rows are at 0, 1, 2, …"""
        axes.set_yticks(range(len(self.names)), shortened(self.names, 38))
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        for row in self.headings:
            axes.get_yticklabels()[row].set_weight("bold")

    @property
    def width(self) -> float:
        """Inches that the names take."""
        return 0.3 + LETTER * max(map(len, shortened(self.names, 38)))


def panel(title: str, n: int, limits: tuple[float, float], say: Say) -> tuple[str, tuple[float, float]]:
    """A panel of `strips` whose title says how many questions it is about."""
    return f"{title}\nn = {say.count(n)}", limits


def strips(
    say: Say, rows: Rows, panels: Sequence[tuple[str, tuple[float, float]]], unit: str, lines: Sequence[int] = ()
) -> tuple[Figure, list[Axes]]:
    """A figure with an axes for each panel, in which the rows of all are at the same height.

    Args:
        panels: title and limits of each.
        unit: of the horizontal axes.
        lines: how many panels stand in each line; as many as there is room for if it is empty.
    """
    room = WIDTH - rows.width
    if not lines:
        count = math.ceil(len(panels) / max(1, int(room / 1.05)))
        lines = [max(2, math.ceil(len(panels) / count))] * count
    figure = new(len(lines) * (ROW * len(rows.names) + 0.95))
    columns = math.lcm(*lines)
    spec = figure.add_gridspec(len(lines), columns)
    starts = [(line, at, at + columns // n) for line, n in enumerate(lines) for at in range(0, columns, columns // n)]
    stripes = [row for row in range(len(rows.names)) if row not in rows.headings][::2]
    for (title, limits), (line, start, end) in zip(panels, starts, strict=False):
        axes = figure.add_subplot(spec[line, start:end], xlim=limits, ylim=(len(rows.names) - 0.5, -0.5), xlabel=unit)
        name, *below = title.split("\n")
        axes.set_title("\n".join([*textwrap.wrap(name, int(room / max(lines) / LETTER)), *below]), loc="center")
        axes.hlines(stripes, *limits, color=STRIPE, linewidth=72 * ROW, zorder=0)
        axes.spines.left.set_visible(False)
        numbers(axes.xaxis, say, int(10 / max(lines)) + 1)
        if start:
            axes.set_yticks([])
        else:
            rows.write(axes)
    return figure, figure.axes


def intervals(axes: Axes, points: pd.DataFrame, look: dict[str, Any]) -> None:
    """Draw points with their intervals into rows: columns x, low, high and row."""
    axes.hlines(points["row"], points["low"], points["high"], color=look["color"])
    axes.plot(points["x"], points["row"], **look)


def cells(axes: Axes, shares: np.ndarray, texts: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
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
        axes.text(column, row, texts[row][column], **MIDDLE, size=8, color=colour)


# Labels at points

BOX = {"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5}


def label(axes: Axes, points: pd.DataFrame, taken: Sequence[Sequence[float]] = ()) -> None:
    """Write a label beside each point where it covers no point, no other label, and few lines.

    Every label tries places ever farther from its point and takes the cheapest; a thin line leads to one that is far.
    matplotlib has no placement of its own for this.

    Args:
        axes: of a figure whose layout is fixed, see `frame`.
        points: columns x, y, label, ink, and the cross x_low, x_high, y_low, y_high (NaN without a cross).
        taken: boxes (left, bottom, right, top), in points from the figure's corner, that no label may cover.
    """
    centres = axes.transData.transform(points[["x", "y"]])
    low, high = (axes.transData.transform(points[[f"x_{end}", f"y_{end}"]]) for end in ("low", "high"))
    solid = np.array([*np.hstack([centres - 5, centres + 5]), *taken])
    (left, bottom), (right, top), (x, y) = low.T, high.T, centres.T
    lines = np.vstack([np.column_stack([left, y - 1, right, y + 1]), np.column_stack([x - 1, bottom, x + 1, top])])
    lines = lines[~np.isnan(lines).any(axis=1)]
    distances = np.repeat([3, 8, 14, 22, 32, 45, 60, 80, 110, 150], 16)
    angles = np.radians(np.tile([45, 135, -45, -135, 0, 180, 90, -90, 20, -20, 160, -160, 70, -70, 110, -110], 10))
    leads, steps = [], np.column_stack([np.cos(angles), np.sin(angles)])
    for centre, text, ink in zip(centres, points["label"], points["ink"], strict=True):
        if not text:
            continue
        written = axes.text(*centre, text, **MIDDLE, color=ink, transform=IdentityTransform(), bbox=BOX)
        half = np.array(written.get_window_extent().size) / 2 + (2, 0)
        middles = centre + steps * (distances[:, None] + 5) + half * np.sign(steps.round(1))
        boxes = np.hstack([middles - half, middles + half])
        inside = (boxes[:, :2] > axes.bbox.min + 2).all(axis=1) & (boxes[:, 2:] < axes.bbox.max - 2).all(axis=1)
        cost = distances + 12.0 * covers(boxes, lines) + 1e6 * covers(boxes, solid) + 1e9 * ~inside
        best = cost.argmin()
        written.set_position(middles[best])
        solid = np.vstack([solid, boxes[best]])
        if distances[best] > 8:
            end = np.clip(centre, boxes[best, :2], boxes[best, 2:])
            leads.append((centre, end))
            dots = np.linspace(centre, end, 7)[1:-1]
            lines = np.vstack([lines, np.hstack([dots - 1, dots + 1])])
    look = {"colors": GREY, "linewidths": 0.6, "transform": IdentityTransform()}
    axes.add_collection(LineCollection(leads, **look), autolim=False)


def covers(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the other boxes (left, bottom, right, top) each box overlaps."""
    a, b = boxes[:, None], others[None]
    return ((a[..., :2] < b[..., 2:]) & (b[..., :2] < a[..., 2:])).all(axis=2).sum(axis=1)
