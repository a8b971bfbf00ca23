"""The look that all figures share, their frame, the places of their labels, and their files. Lengths are in inches."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
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
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import IdentityTransform

from present.format import Say

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


@dataclass(frozen=True)
class Results:
    """What the figures are drawn from: tables as `read_table` reads them.

    Attributes:
        points: a row a run: model, variant, x, x_low, x_high (execution accuracy), y, y_low, y_high (MMLU), all in
            percent, x_n, y_n (questions), semantics (of x), level (of the intervals), of, strength, step and shots.
        accuracy, comparisons, databases, confusion: the tables about base models and trained adapters.
        seeds: the table of the settings with several seeds.
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
    best: frozenset[tuple[str, str]] = field(default_factory=frozenset)


def new(height: float, width: float = WIDTH, measured: bool = True) -> Figure:
    """Return a figure whose axes have this much room, without the words that `frame` puts around them.

    Args:
        measured: leave as much room around the axes as their words need, which takes long for hundreds of axes.
    """
    figure = Figure((width, height), layout="constrained" if measured else None)
    # Keeps what texts are measured with.
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, file: IO[bytes], kind: str) -> None:
    """Write a figure to a binary file, text as text; equal figures are equal bytes.

    Args:
        kind: svg or pdf.
    """
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
    numbered = [f"{number}  {name}" for number, (_, name) in enumerate(key, 1)]
    rows, key_rows = (math.ceil(len(texts) / fitting(texts, width)) if texts else 0 for texts in (names, numbered))
    head = 0.42 + LINE * len(lines) + (0.08 + 0.19 * rows) + 0.08
    foot = 0.1 + 0.19 * key_rows if key else 0
    height = head + body + foot
    figure.set_size_inches(width, height)
    figure.set_label(title)
    figure.text(0.1 / width, 1 - 0.12 / height, title, size=13, va="top")
    above = {"loc": "upper left", "bbox_to_anchor": (0.12 / width, 1 - (0.5 + LINE * len(lines)) / height)}
    for number, line in enumerate(lines):
        figure.text(0.1 / width, 1 - (0.42 + LINE * number) / height, line, color=GREY, va="top")
    if entries:
        figure.legend(handles, names, ncols=fitting(names, width), **above)
    columns = fitting(numbered, width)
    for number, (colour, name) in enumerate(key):
        column, row = divmod(number, math.ceil(len(key) / columns))
        left, top = 0.12 + (width - 0.2) * column / columns + LETTER * len(str(len(key))), foot - 0.19 * row
        figure.text(left / width, top / height, str(number + 1), color=colour, ha="right", va="top")
        figure.text((left + 0.1) / width, top / height, name, color=colour, va="top")
    engine = figure.get_layout_engine()
    if engine is None:
        edges = {"left": 0.6 / width, "right": 1 - 0.1 / width, "top": 1 - (head + 0.45) / height}
        figure.subplots_adjust(**edges, bottom=(foot + 0.5) / height, hspace=0.8, wspace=0.15)
    elif figure.axes:
        engine.set(rect=(0, foot / height, 1 - 0.1 / width, body / height))
        engine.execute(figure)
    figure.set_layout_engine("none")


def fitting(texts: Sequence[str], width: float) -> int:
    """Return how many columns of a legend stand beside each other."""
    for columns in range(min(len(texts), 10), 1, -1):
        parts = np.array_split([len(text) for text in texts], columns)
        if sum(LETTER * part.max() + 0.55 for part in parts) < width:
            return columns
    return 1


def sentence(title: str, text: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = new(0.1)
    frame(figure, title, [text])
    return figure


def mark(colour: str, shape: str = "o", hollow: bool = False, **more: Any) -> dict[str, Any]:
    """Return the look of a point, for `plot` and `frame`."""
    inside = "white" if hollow else colour
    return {"color": colour, "marker": shape, "markerfacecolor": inside, "linestyle": "none"} | more


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Return names of at most so many letters, without the middle of longer ones; numbered if they are then alike."""

    def cut(name: str, most: int) -> str:
        return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - most // 2 - 1) :]}"

    short = [cut(name, most) for name in names]
    if len(set(short)) == len(set(names)):
        return short
    room = most - 2 - len(str(len(names)))
    return [name if len(name) <= most else f"{i}. {cut(name, room)}" for i, name in enumerate(names, 1)]


def written(value: float, say: Say) -> str:
    """Return a number with the digits that it has."""
    return say.number(value, max(0, -int(Decimal(f"{value:.10g}").as_tuple().exponent)))


def numbers(axis: Any, say: Say, bins: int = 6) -> None:
    """Have an axis written in the language, at about so many round numbers."""
    axis.set_major_locator(MaxNLocator(bins, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: written(value, say))


def percent_limits(low: Iterable[float], high: Iterable[float]) -> tuple[float, float]:
    """Return limits in percent, in steps of 5, that leave air around the intervals; 30 points wide or more."""
    start, end = min(low), max(high)
    air = max(2.0, 0.06 * (end - start), (30 - (end - start)) / 2)
    # A point at 0% or 100% is drawn whole.
    return max(-3, 5 * math.floor((start - air) / 5)), min(103, 5 * math.ceil((end + air) / 5))


def difference_limits(values: Iterable[float], step: int = 10) -> tuple[float, float]:
    """Return limits in whole steps that hold all values and zero, with some air."""
    low, high = min(0.0, *values), max(0.0, *values)
    air = 0.04 * (high - low) + 1
    return step * math.floor((low - air) / step), step * math.ceil((high + air) / step)


# Rows of runs

ROW = 0.215
# A text in the middle of something; it needs no room of its own.
MIDDLE = {"ha": "center", "va": "center", "in_layout": False}


@dataclass(frozen=True)
class Rows:
    """Runs below each other, under a heading for each model where there are several; `places` is each run's row."""

    names: Sequence[str]
    headings: Sequence[int] = ()
    places: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Iterable[tuple[str, str]]) -> "Rows":
        """Return the rows of runs, as (model, variant), of which those of one model follow each other."""
        runs = list(runs)
        several = len({model for model, _ in runs}) > 1
        names, headings, places = [], [], {}
        for model, variant in runs:
            if several and model not in [names[row] for row in headings[-1:]]:
                headings.append(len(names))
                names.append(model)
            places[model, variant] = len(names)
            names.append(variant)
        return cls(names, headings, places)

    @property
    def plain(self) -> list[int]:
        """The rows that are no headings."""
        return [row for row in range(len(self.names)) if row not in set(self.headings)]


def name_rows(axes: Axes, rows: Rows, at: float = 0) -> None:
    """Write the names of rows at the left of axes; `at` is the middle of the first row."""
    axes.set_yticks([row + at for row in range(len(rows.names))], shortened(rows.names, 38))
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    for row in rows.headings:
        axes.get_yticklabels()[row].set_weight("bold")


@dataclass(frozen=True)
class Panel:
    """Axes beside others: a title, and the limits of its numbers."""

    title: str
    limits: tuple[float, float]


def strips(
    say: Say, rows: Rows, panels: Sequence[Panel], unit: str, lines: Sequence[int] = ()
) -> tuple[Figure, list[Axes]]:
    """Return a figure with an axes for each panel, in which the rows of all are at the same height.

    Args:
        unit: of the horizontal axes.
        lines: how many panels stand in each line; as many as there is room for if it is empty.
    """
    labels = 0.3 + LETTER * max(map(len, shortened(rows.names, 38)))
    most = max(1, int((WIDTH - labels) / 1.05))
    count = math.ceil(len(panels) / most)
    beside = max(2, math.ceil(len(panels) / count))
    lines = lines or [beside] * count
    figure = new(len(lines) * (ROW * len(rows.names) + 0.95))
    grid = figure.add_gridspec(len(lines), math.lcm(*lines))
    places: list[SubplotSpec] = []
    for line, number in enumerate(lines):
        span = grid.ncols // number
        places += [grid[line, span * i : span * (i + 1)] for i in range(number)]
    drawn = []
    for panel, place in zip(panels, places, strict=False):
        axes = figure.add_subplot(place)
        axes.set(xlim=panel.limits, ylim=(len(rows.names) - 0.5, -0.5), xlabel=unit)
        name, *below = panel.title.split("\n")
        name = textwrap.wrap(name, int((WIDTH - labels) / max(lines) / LETTER))
        axes.set_title("\n".join([*name, *below]), loc="center")
        axes.hlines(rows.plain[::2], *panel.limits, color=STRIPE, linewidth=72 * ROW, zorder=0)
        axes.spines.left.set_visible(False)
        numbers(axes.xaxis, say, int(10 / max(lines)) + 1)
        if place.colspan.start:
            axes.set_yticks([])
        else:
            name_rows(axes, rows)
        drawn.append(axes)
    return figure, drawn


def intervals(axes: Axes, points: pd.DataFrame, look: dict[str, Any]) -> None:
    """Draw points with their intervals into rows: columns x, low, high and row."""
    axes.hlines(points["row"], points["low"], points["high"], color=look["color"])
    axes.plot(points["x"], points["row"], **look)


def cells(axes: Axes, shares: np.ndarray, texts: Sequence[Sequence[str]], columns: Sequence[str]) -> None:
    """Draw a matrix: cells shaded from -1 to 1 (or empty, NaN), a text on each, and slanted names of the columns."""
    axes.pcolormesh(shares, cmap=SHADES, vmin=-1, vmax=1, edgecolors="white", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=60, ha="left", rotation_mode="anchor")
    axes.tick_params(length=0, labelbottom=False, labeltop=True)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for (row, column), share in np.ndenumerate(shares):
        if texts[row][column]:
            colour = "white" if abs(share) > 0.7 else INK if share else GREY
            axes.text(column + 0.5, row + 0.5, texts[row][column], **MIDDLE, size=8, color=colour)


# Labels at points


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
    across = np.column_stack([low[:, 0], centres[:, 1] - 1, high[:, 0], centres[:, 1] + 1])
    along = np.column_stack([centres[:, 0] - 1, low[:, 1], centres[:, 0] + 1, high[:, 1]])
    lines = np.vstack([across, along])
    lines = lines[~np.isnan(lines).any(axis=1)]
    distances = np.repeat([3, 8, 14, 22, 32, 45, 60, 80, 110, 150], 16)
    angles = np.radians(np.tile([45, 135, -45, -135, 0, 180, 90, -90, 20, -20, 160, -160, 70, -70, 110, -110], 10))
    leads = LineCollection([], colors=GREY, linewidths=0.6, transform=IdentityTransform())
    axes.add_collection(leads, autolim=False)
    segments = []
    steps = np.column_stack([np.cos(angles), np.sin(angles)])
    for centre, text, ink in zip(centres, points["label"], points["ink"], strict=True):
        if not text:
            continue
        written = axes.annotate(
            text, centre, xycoords="figure pixels", textcoords="figure pixels", ha="center", va="center", color=ink,
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.5},
        )  # fmt: skip
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
            segments.append((centre, end))
            dots = np.linspace(centre, end, 7)[1:-1]
            lines = np.vstack([lines, np.hstack([dots - 1, dots + 1])])
    leads.set_segments(segments)


def covers(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how many of the other boxes (left, bottom, right, top) each box overlaps."""
    a, b = boxes[:, None], others[None]
    return ((a[..., :2] < b[..., 2:]) & (b[..., :2] < a[..., 2:])).all(axis=2).sum(axis=1)
