"""The look that all figures share, the places of their labels, and their files. Lengths are in pixels of 1/96 inch."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import altair as alt
import vl_convert

from common.files import atomic_write

# Okabe and Ito's colours, told apart by the colour-blind; shapes and dashes tell the same things apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#444444")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
SOLID, DASHED = [1, 0], [5, 2]
BLUE, ORANGE = COLOURS[:2]
INK, GREY, PALE, STRIPE = "#222222", "#6B6B6B", "#C4C4C4", "#F4F4F4"
FONT = 12
# All of a figure but its margins. Two columns of a paper are about three quarters of this: 12 px become 9 pt.
MOST_WIDTH = 700

# Advance widths of Liberation Sans, which vl-convert carries, in em; the other letters have that of a digit.
_WIDTHS = {"ijl'|": 0.22, "ftI.,:;!/\\ []": 0.28, "r()-`": 0.34, "cksvxyzJ": 0.5, "mM%": 0.86, "wCDGHNOQRU": 0.74}
_WIDTH = {letter: width for letters, width in _WIDTHS.items() for letter in letters} | dict.fromkeys("W@…→—", 1.0)
_WIDTH |= dict.fromkeys("ABEKPSVXYZ&", 0.67)
# Pixels to a label beyond which a line leads to it.
NEAR = 8
BARE = alt.ViewBackground(stroke=None)
_RESOURCES = re.compile(rb"(?:^ +/\w+ \d+ 0 R\n){2,}", re.MULTILINE)


def save(chart: alt.TopLevelMixin, svg: str | Path, pdf: str | Path) -> None:
    """Write a picture as SVG and as PDF, text as text; equal pictures are equal files."""
    stream = StringIO()
    chart.save(stream, format="svg")
    with atomic_write(svg) as file:
        file.write(stream.getvalue())
    with atomic_write(pdf, "wb") as file:
        file.write(ordered(vl_convert.svg_to_pdf(stream.getvalue())))


def ordered(pdf: bytes) -> bytes:
    """Return the same PDF with the names in its resource dictionaries sorted: their order is random in each writing.

    Whole lines change places inside their dictionary, so every offset in the file stays right. (Fonts come in random
    order too, which is why all pictures have one font in one weight.)
    """
    return _RESOURCES.sub(lambda m: b"".join(sorted(m[0].splitlines(keepends=True))), pdf)


def chart(rows: Sequence[dict]) -> alt.Chart:
    """Return a chart of rows that stand in the picture's own specification, however many."""
    # As text: Altair copies lists and mappings row by row whenever two charts are put together.
    # `float` is for the integers of numpy.
    values = json.dumps(list(rows), default=float, allow_nan=False)
    return alt.Chart(alt.InlineData(values=values, format=alt.JsonDataFormat(type="json")))


def layered(layers: Sequence[alt.Chart], **size: object) -> alt.LayerChart:
    """Return the layers that have anything to draw, above each other."""
    return alt.layer(*(layer for layer in layers if layer.data.values != "[]"), **size)


def framed(
    body: alt.TopLevelMixin, title: str, lines: Sequence[str], decimal: str = ".", width: float = MOST_WIDTH
) -> alt.TopLevelMixin:
    """Return the whole picture: a body under its title and the sentences that say what is shown."""
    subtitle = [part for line in lines if line for part in wrapped(line, width, 13)]
    # Set in place: each call of `configure_…` and `properties` copies the whole picture.
    body.title = alt.TitleParams(title, subtitle=subtitle, anchor="start", offset=14)
    body.padding = 14
    body.config = alt.Config(
        font="sans-serif",
        background="white",
        aria=False,
        locale={"number": {"decimal": decimal, "thousands": "", "grouping": [3], "currency": ["", ""]}},
        view=alt.ViewConfig(stroke=PALE),
        axis=alt.AxisConfig(
            gridColor="#EBEBEB",
            domainColor="#888888",
            tickColor="#888888",
            labelFontSize=FONT,
            titleFontSize=FONT,
            titleFontWeight="normal",
            titlePadding=8,
            labelColor=INK,
            titleColor=INK,
        ),
        title=alt.TitleConfig(
            fontSize=18,
            fontWeight="normal",
            color=INK,
            subtitleFontSize=13,
            subtitleColor=GREY,
            subtitleLineHeight=17,
            subtitlePadding=7,
        ),
        concat=alt.CompositionConfig(spacing=14),
    )
    return body


def sentence(title: str, text: str) -> alt.TopLevelMixin:
    """Return a picture that says why there is nothing to draw."""
    nothing = chart([{}]).mark_point(opacity=0)
    return framed(alt.layer(nothing, width=MOST_WIDTH // 2, height=1, view=BARE), title, [text])


def text_width(text: str, size: float = FONT) -> float:
    """Return about how wide a line of text is."""
    return size * sum(_WIDTH.get(letter, 0.57) for letter in text)


def wrapped(text: str, width: float, size: float = FONT) -> list[str]:
    """Return a text in lines no wider than `width` where it can be broken: at spaces, after hyphens and plus signs."""
    first, *rest = re.split(r"( |(?<=[-+])(?=.))", text)
    lines = [first]
    for space, piece in zip(rest[::2], rest[1::2], strict=True):
        if text_width(lines[-1] + space + piece, size) > width:
            lines.append(piece)
        else:
            lines[-1] += space + piece
    return lines


def fitted(texts: Sequence[str], width: float, size: float = FONT) -> list[str]:
    """Return the texts, the middle of each left out where it is too wide; numbered if they are then no longer unlike
    each other."""

    def fit(text: str, width: float) -> str:
        short, keep = text, len(text)
        while text_width(short, size) > width and keep > 2:
            keep -= 1
            short = f"{text[: keep - keep // 2]}…{text[len(text) - keep // 2 :]}"
        return short

    found = [fit(text, width) for text in texts]
    if len(set(found)) < len(set(texts)):
        room = width - text_width(f"{len(texts)}  ", size)
        found = [f"{number}. {fit(text, room)}" for number, text in enumerate(texts, 1)]
    return found


def mark(colour: str, shape: str = "circle", hollow: bool = False) -> dict:
    """Return the columns that give a point its look: `layer_points` reads them."""
    return {"stroke": colour, "fill": "white" if hollow else colour, "shape": shape}


def layer_points(rows: Sequence[dict], x: alt.X, y: alt.Y, size: int = 60) -> alt.Chart:
    """Return points at the columns that x and y name, each with its own fill, stroke and shape."""
    own = {
        "fill": alt.Fill("fill:N", scale=None),
        "stroke": alt.Stroke("stroke:N", scale=None),
        "shape": alt.Shape("shape:N", scale=None),
    }
    return chart(rows).mark_point(size=size, strokeWidth=1.8, opacity=1).encode(x=x, y=y, **own)


def pixels(channel: type, name: str, length: float) -> alt.X | alt.Y:
    """Return an encoding without an axis whose column is in pixels from the left or from the top."""
    domain = [length, 0] if channel is alt.Y else [0, length]
    return channel(f"{name}:Q", axis=None, scale=alt.Scale(domain=domain, nice=False, zero=False))


def legend(entries: Sequence[tuple[dict, str]], width: float = MOST_WIDTH) -> alt.LayerChart:
    """Return a list of looks and what they mean, in as many lines as it needs; a look with `dash` is a line."""
    rows, left, line = [], 0.0, 0
    for look, text in entries:
        needed = 30 + text_width(text) + 18
        if left and left + needed > width:
            left, line = 0.0, line + 1
        rows.append(look | {"text": text, "x": left + 13, "from": left, "to": left + 24, "at": left + 31, "y": line})
        left += needed
    rows = [row | {"y": 19 * row["y"] + 9} for row in rows]
    height = 19 * (line + 1)
    x, y = (lambda name: pixels(alt.X, name, width)), pixels(alt.Y, "y", height)
    layers = [chart(rows).mark_text(align="left", fontSize=FONT, color=INK).encode(x=x("at"), y=y, text="text:N")]
    for row in rows:
        if "dash" in row:
            rule = chart([row]).mark_rule(
                strokeDash=row["dash"], strokeWidth=row.get("thick", 1.8), color=row["stroke"]
            )
            layers.append(rule.encode(x=x("from"), x2="to:Q", y=y))
        if "shape" in row:
            layers.append(layer_points([row], x("x"), y, row.get("size", 60)))
    return layered(layers, width=width, height=height, view=BARE)


def key(names: Sequence[tuple[str, str]]) -> alt.LayerChart:
    """Return what the numbers 1, 2, … mean, in columns: of each its meaning and a colour."""
    width = max(text_width(name) for name, _ in names) + text_width("000") + 30
    columns = max(1, min(len(names), int(MOST_WIDTH // width)))
    lines = math.ceil(len(names) / columns)
    rows = [
        {"number": str(i + 1), "name": t, "colour": c, "x": i // lines * width + 28, "y": i % lines * 17 + 9}
        for i, (t, c) in enumerate(names)
    ]
    size = {"width": max(columns * width, 40), "height": lines * 17}
    data = chart(rows).encode(
        x=pixels(alt.X, "x", size["width"]),
        y=pixels(alt.Y, "y", size["height"]),
        color=alt.Color("colour:N", scale=None),
    )
    return alt.layer(
        data.mark_text(align="right", fontSize=FONT).encode(text="number:N"),
        data.mark_text(align="left", dx=7, fontSize=FONT).encode(text="name:N"),
        **size,
        view=BARE,
    )


@dataclass
class Strips:
    """Rows with their names at the left, and panels beside them in which each row has its marks.

    Attributes:
        rows: the names; with True a heading over the rows that follow.
        panels: the titles, each with a line below it (or "").
        domains: of each panel's horizontal axis; its title.
        marks: of each mark `row` and `panel` (their numbers), x, low, high (null without interval), `shift` (pixels
            down), and the columns of `mark`.
        lines: vertical lines: `panel`, x, from row `first` to row `last`.
        bands: the same, from x to x2.
        notes: a `text` in `panel` and `row`.
        bars: of each bar `panel` and `row`, x and x2, its `fill`, and a `text` in `ink` on it (or "").
    """

    rows: Sequence[tuple[str, bool]]
    panels: Sequence[tuple[str, str]]
    domains: Sequence[Sequence[float]]
    axis: str
    marks: Sequence[dict]
    lines: Sequence[dict] = ()
    bands: Sequence[dict] = ()
    notes: Sequence[dict] = ()
    bars: Sequence[dict] = ()
    row_height: int = 21
    zero: bool = False
    names: list[str] = field(init=False)
    titles: list[str] = field(init=False)

    # A panel's last labels stand out by AIR.
    NARROWEST, WIDEST, GAP, AIR = 88, 250, 18, 18

    def __post_init__(self):
        fit = {wanted: iter(fitted([n for n, head in self.rows if head == wanted], 215)) for wanted in (True, False)}
        self.names = [next(fit[head]) for _, head in self.rows]
        self.height = len(self.rows) * self.row_height
        self.labels = max(text_width(name) for name in self.names) + 8

    def draw(self) -> alt.VConcatChart:
        """Return the picture, with as many panels beside each other as there is room for."""
        room = MOST_WIDTH - self.labels
        most = max(1, int(room // (self.NARROWEST + self.GAP + self.AIR)))
        lines = math.ceil(len(self.panels) / most)
        beside = math.ceil(len(self.panels) / lines)
        width = min(self.WIDEST, room / beside - self.GAP - self.AIR)
        self.titles = fitted([name for name, _ in self.panels], 2.4 * width)
        panels = [self._panel(number, width) for number in range(len(self.panels))]
        return alt.vconcat(
            *(
                alt.hconcat(self._names(), *panels[i : i + beside], spacing=self.GAP)
                for i in range(0, len(panels), beside)
            ),
            spacing=20,
        )

    def _middle(self, row: int) -> float:
        return (row + 0.5) * self.row_height

    def _stripes(self) -> alt.Chart:
        plain = [row for row, (_, head) in enumerate(self.rows) if not head]
        rows = [{"top": row * self.row_height, "bottom": (row + 1) * self.row_height} for row in plain[::2]]
        y = pixels(alt.Y, "top", self.height)
        return chart(rows).mark_rect(color=STRIPE).encode(y=y, y2="bottom:Q")

    def _names(self) -> alt.LayerChart:
        rows = [
            {
                "y": self._middle(row),
                "name": name,
                "x": 0 if head else self.labels,
            }
            for row, (name, (_, head)) in enumerate(zip(self.names, self.rows, strict=True))
        ]
        x, y = pixels(alt.X, "x", self.labels), pixels(alt.Y, "y", self.height)
        texts = [
            chart([row for row, (_, head) in zip(rows, self.rows, strict=True) if head == wanted])
            .mark_text(align=align, fontSize=FONT + wanted, color=INK)
            .encode(x=x, y=y, text="name:N")
            for wanted, align in ((False, "right"), (True, "left"))
        ]
        return layered(texts, width=self.labels, height=self.height, view=BARE)

    def _panel(self, number: int, width: float) -> alt.LayerChart:
        def here(rows: Sequence[dict]) -> list[dict]:
            return [row for row in rows if row["panel"] == number]

        def between(rows: Sequence[dict]) -> list[dict]:
            edges = {
                "top": lambda r: r["first"] * self.row_height,
                "bottom": lambda r: (r["last"] + 1) * self.row_height,
            }
            return [row | {name: edge(row) for name, edge in edges.items()} for row in here(rows)]

        scale = alt.Scale(domain=list(self.domains[number]), nice=False, zero=False)
        ticks = alt.Axis(tickCount=max(3, int(width // 30)), labelFlush=False, title=self.axis, labelOverlap=True)
        x = alt.X("x:Q", scale=scale, axis=ticks)
        y, top = pixels(alt.Y, "y", self.height), pixels(alt.Y, "top", self.height)
        marks = [row | {"y": self._middle(row["row"]) + row.get("shift", 0)} for row in here(self.marks)]
        notes = [row | {"y": self._middle(row["row"])} for row in here(self.notes)]
        plain = [row for row, (_, head) in enumerate(self.rows) if not head]
        zero = [{"x": 0, "first": row, "last": row, "panel": number} for row in plain] if self.zero else []
        bars = [
            row | {"top": row["row"] * self.row_height + 2, "bottom": (row["row"] + 1) * self.row_height - 2}
            for row in here(self.bars)
        ]
        bars = [row | {"y": self._middle(row["row"]), "middle": (row["x"] + row["x2"]) / 2} for row in bars]
        unit = width / (self.domains[number][1] - self.domains[number][0])
        room = [row for row in bars if text_width(row["text"], FONT - 2) + 4 < (row["x2"] - row["x"]) * unit]
        layers = [
            self._stripes(),
            chart(bars)
            .mark_rect(stroke="white", strokeWidth=1)
            .encode(x=x, x2="x2:Q", y=top, y2="bottom:Q", fill=alt.Fill("fill:N", scale=None)),
            chart(room)
            .mark_text(fontSize=FONT - 2)
            .encode(
                x=alt.X("middle:Q", scale=scale, axis=ticks),
                y=y,
                text="text:N",
                color=alt.Color("ink:N", scale=None),
            ),
            chart(between(self.bands)).mark_rect(color="#CFE3F0").encode(x=x, x2="x2:Q", y=top, y2="bottom:Q"),
            chart(between(zero)).mark_rule(color=GREY, strokeWidth=1.2).encode(x=x, y=top, y2="bottom:Q"),
            chart(between(self.lines))
            .mark_rule(color=INK, strokeDash=[2, 3], strokeWidth=1.2)
            .encode(x=x, y=top, y2="bottom:Q"),
            chart([row for row in marks if row.get("low") is not None])
            .mark_rule(strokeWidth=1.6)
            .encode(
                x=alt.X("low:Q", scale=scale, axis=ticks),
                x2="high:Q",
                y=y,
                color=alt.Color("stroke:N", scale=None),
            ),
            layer_points(marks, x, y, 45),
            chart(notes).mark_text(align="left", fontSize=FONT - 1, color=INK, x=3).encode(y=y, text="text:N"),
        ]
        name, below = self.titles[number], self.panels[number][1]
        title = alt.TitleParams(
            [*wrapped(name, width), *([below] if below else [])],
            fontSize=FONT,
            anchor="middle",
            offset=6,
            frame="group",
        )
        return layered(layers, width=width, height=self.height, title=title)


def place(
    points: Sequence[dict], width: float, height: float, taken: Sequence[Sequence[float]] = ()
) -> list[dict[str, float | bool]]:
    """Find a place for each label where it covers no point, no other label, and few lines.

    Every label tries places ever farther from its point and takes the cheapest.

    Args:
        points: of each its `label` and, in pixels from the left and from the top, its centre x, y and its cross x_low,
            x_high, y_low, y_high (None without a cross).
        taken: boxes (left, top, right, bottom) that no label may cover.

    Returns:
        Of each point the label's centre text_x and text_y, its `box`, and `far`: whether a line must lead to it.
    """
    solid = [(p["x"] - 7, p["y"] - 7, p["x"] + 7, p["y"] + 7) for p in points] + list(taken)
    lines = []
    for p in points:
        if p["x_low"] is not None:
            lines.append((p["x_low"], p["y"] - 1, p["x_high"], p["y"] + 1))
            lines.append((p["x"] - 1, p["y_high"], p["x"] + 1, p["y_low"]))
    found, labels = [], []
    for p in points:
        half = text_width(p["label"]) / 2 + 2
        best = None
        for distance, x, y in around(p["x"], p["y"], half):
            box = (x - half, y - 7, x + half, y + 7)
            inside = box[0] > 2 and box[1] > 2 and box[2] < width - 2 and box[3] < height - 2
            if not inside or any(meet(box, s) for s in solid):
                continue
            lead = led(p["x"], p["y"], box) if distance > NEAR else []
            cost = distance + 12 * sum(meet(box, line) for line in lines)
            cost += 40 * sum(meet(dot, label) for dot in lead for label in labels)
            if best is None or cost < best[0]:
                best = (cost, distance, x, y, box)
        if best is None:  # No free place at all: on top of its point is better than no label.
            x, y = p["x"], p["y"]
            best = (0, 0, x, y, (x - half, y - 7, x + half, y + 7))
        _, distance, x, y, box = best
        solid.append(box)
        labels.append(box)
        if distance > NEAR:
            lines += led(p["x"], p["y"], box)
        found.append({"text_x": x, "text_y": y, "far": distance > NEAR, "box": box})
    return found


def led(x: float, y: float, box: Sequence[float]) -> list[tuple[float, float, float, float]]:
    """Return small boxes along the line that leads from a point to a label."""
    end_x, end_y = nearest(x, y, box)
    steps = range(1, 2 + int(math.hypot(end_x - x, end_y - y) // 6))
    dots = [(x + (end_x - x) * i / len(steps), y + (end_y - y) * i / len(steps)) for i in steps]
    return [(dot_x - 1, dot_y - 1, dot_x + 1, dot_y + 1) for dot_x, dot_y in dots[:-1]]


def nearest(x: float, y: float, box: Sequence[float]) -> tuple[float, float]:
    """Return the point of a box that is nearest to (x, y)."""
    return min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])


def around(cx: float, cy: float, half: float) -> Iterator[tuple[float, float, float]]:
    """Yield (distance, x, y) of places for the centre of a label around a point, near ones first."""
    for gap in (4, 10, 18, 28, 40, 55, 75, 100, 140, 190):
        for angle in (45, 135, -45, -135, 0, 180, 90, -90, 20, -20, 160, -160, 70, -70, 110, -110):
            dx, dy = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
            yield gap, cx + dx * (gap + 7) + half * (dx > 0.1) - half * (dx < -0.1), cy + dy * (gap + 7 + 5)


def meet(a: Sequence[float], b: Sequence[float]) -> bool:
    """Tell whether two boxes (left, top, right, bottom) overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
