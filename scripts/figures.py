"""Draw the study as one picture: learning (execution accuracy) against forgetting (MMLU)."""

import math
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import altair as alt
import pandas as pd

from _files import UserError, atomic_write
from _job import job

BASE = "base"
ALL = "aggregate"
CHANCE = 25.0
WIDTH, HEIGHT = 560, 400
# Okabe and Ito's colours, told apart by the colour-blind; shapes tell the models apart in grey too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#444444")
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
INK, GREY = "#222222", "#777777"
FONT = 11
# More adapters than this get a number at the point and a key beside the picture.
MOST_LABELS = 12
KEY_LINES = 30

_RESOURCES = re.compile(rb"(?:^ +/\w+ \d+ 0 R\n){2,}", re.MULTILINE)


def figures(execution_accuracy: str | Path, mmlu: str | Path, svg: str | Path, pdf: str | Path) -> None:
    """Draw the learning-forgetting plane from the tables, as SVG and as PDF.

    Args:
        execution_accuracy, mmlu: the tables' CSV files.
        svg, pdf: files to write.

    Raises:
        UserError: the tables are not about the same runs.
    """
    chart = tradeoff(read_points(execution_accuracy, mmlu))
    with atomic_write(svg) as stream:
        chart.save(stream, format="svg")
    page = BytesIO()
    chart.save(page, format="pdf")
    with atomic_write(pdf, "wb") as stream:
        stream.write(ordered(page.getvalue()))


def ordered(pdf: bytes) -> bytes:
    """Return the same PDF with the names in its resource dictionaries sorted: their order is random in each writing.

    Whole lines change places inside their dictionary, so every offset in the file stays right. (Fonts come in random
    order too, which is why the picture has one font in one weight.)
    """
    return _RESOURCES.sub(lambda m: b"".join(sorted(m[0].splitlines(keepends=True))), pdf)


def read_points(execution_accuracy: str | Path, mmlu: str | Path) -> pd.DataFrame:
    """Return a row a run: model, variant, x, x_low, x_high (execution accuracy), y, y_low, y_high (MMLU), all in
    percent, x_n, y_n (questions), semantics (of x) and level (of the intervals).

    Raises:
        UserError: a run is in one of the tables only.
    """
    text = {"model": str, "variant": str}
    spider = pd.read_csv(execution_accuracy, dtype=text, keep_default_na=False, na_values={"accuracy_pct": [""]})
    spider = spider[spider["questions"] == ALL]
    knowledge = pd.read_csv(mmlu, dtype=text | {"category": str}, keep_default_na=False)
    knowledge = knowledge[knowledge["category"] == ALL]
    keys = ["model", "variant"]
    if spider[keys].values.tolist() != knowledge[keys].values.tolist():
        raise UserError(f"{mmlu}: has other runs than {execution_accuracy}. Run `snakemake -R tables`.")
    columns = {"accuracy_pct": "", "ci_low": "_low", "ci_high": "_high", "n": "_n"}
    points = spider[[*keys, "semantics"]].reset_index(drop=True)
    points["level"] = spider["confidence_level"].to_numpy()
    for axis, frame in (("x", spider), ("y", knowledge)):
        for column, suffix in columns.items():
            points[axis + suffix] = frame[column].to_numpy()
    return points


def tradeoff(points: pd.DataFrame) -> alt.Chart:
    """Return the picture: a point a run with its interval cross, the base model hollow, a label at each point."""
    points = points.assign(base=points["variant"] == BASE)
    models = list(dict.fromkeys(points["model"]))
    numbered = (~points["base"]).sum() > MOST_LABELS
    points["label"] = labels(points, numbered)
    x_domain = domain(points["x_low"], points["x_high"])
    y_domain = domain(points["y_low"], points["y_high"])
    chance = y_domain[0] < CHANCE < y_domain[1]
    points = points.assign(**place(points, x_domain, y_domain, chance))

    semantics = points["semantics"].iloc[0].replace("_", " ")
    x = alt.X(
        "x:Q",
        title=f"Spider execution accuracy (%, {semantics} semantics)",
        scale=alt.Scale(domain=x_domain, nice=False),
    )
    y = alt.Y("y:Q", title="MMLU accuracy (%)", scale=alt.Scale(domain=y_domain, nice=False))
    legend = (
        alt.Legend(title=None, orient="top", symbolSize=90, symbolOpacity=1, labelFontSize=12)
        if len(models) > 1
        else None
    )
    style = {
        "color": alt.Color("model:N", scale=palette(models, COLOURS), sort=models, legend=legend),
        "shape": alt.Shape("model:N", scale=palette(models, SHAPES), sort=models, legend=legend),
    }
    faint = 0.45 if len(points) <= MOST_LABELS else 0.2

    layers = []
    if len(models) == 1:
        base = alt.Chart(points[points["base"]])
        guide = {"color": "#AAAAAA", "strokeDash": [2, 3], "strokeWidth": 1}
        layers += [base.mark_rule(**guide).encode(x=x), base.mark_rule(**guide).encode(y=y)]
    if chance:
        line = alt.Chart(pd.DataFrame([{"y": CHANCE, "x": x_domain[1], "text": "chance (25%)"}]))
        layers += [
            line.mark_rule(color=GREY, strokeDash=[6, 4], strokeWidth=1).encode(y=y),
            line.mark_text(color=GREY, align="right", baseline="bottom", dx=-4, dy=-3, fontSize=FONT).encode(
                x=x, y=y, text="text:N"
            ),
        ]
    data = alt.Chart(points)
    rule = {"strokeWidth": 1.4, "opacity": faint}
    text = {"fontSize": FONT, "baseline": "middle"}
    label = {
        "x": "text_x:Q",
        "y": "text_y:Q",
        "text": "label:N",
        # With one model all labels are black; with several, a label has the colour of its model.
        "color": style["color"] if len(models) > 1 else alt.value(INK),
    }
    leader = alt.Chart(points[points["far"]]).mark_rule(color=GREY, strokeWidth=0.7)
    layers += [
        data.mark_rule(**rule).encode(x=alt.X("x_low:Q"), x2="x_high:Q", y=y, color=style["color"]),
        data.mark_rule(**rule).encode(y=alt.Y("y_low:Q"), y2="y_high:Q", x=x, color=style["color"]),
        leader.encode(x=x, y=y, x2="lead_x:Q", y2="lead_y:Q"),
        data.transform_filter("!datum.base").mark_point(filled=True, size=75, opacity=1).encode(x=x, y=y, **style),
        data.transform_filter("datum.base")
        .mark_point(filled=True, size=130, fill="white", strokeWidth=2.5, opacity=1)
        .encode(
            x=x, y=y, shape=style["shape"], stroke=alt.Stroke("model:N", scale=palette(models, COLOURS), legend=None)
        ),
        data.mark_text(**text).encode(**label),
    ]
    plane = alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)
    chart = alt.hconcat(plane, key(points, len(models) > 1), spacing=16) if numbered else plane
    return (
        chart.properties(title=title(points), padding=12)
        .configure(font="sans-serif", background="white")  # first: it replaces the other configurations
        .configure_view(stroke="#CCCCCC")
        .configure_axis(
            gridColor="#EEEEEE",
            domainColor="#888888",
            tickColor="#888888",
            labelFontSize=12,
            titleFontSize=13,
            titleFontWeight="normal",
            titlePadding=10,
            labelColor=INK,
            titleColor=INK,
            tickCount=8,
        )
        .configure_title(
            fontSize=18,
            fontWeight="normal",
            subtitleFontSize=12,
            subtitleColor="#555555",
            color=INK,
            anchor="start",
            offset=14,
            subtitlePadding=5,
        )
    )


def title(points: pd.DataFrame) -> alt.TitleParams:
    """Return the title, with what the points, crosses and numbers of questions are."""
    first = points.iloc[0]
    adapters = int((~points["base"]).sum())
    shown = "Base model (hollow) and " + ("1 adapter" if adapters == 1 else f"{adapters} adapters") + " (filled)."
    if not adapters:
        shown = "Base model only: this study has no adapters."
    return alt.TitleParams(
        "Learning against forgetting",
        subtitle=[
            f"{shown} Right: more SQL learned. Down: more knowledge forgotten." if adapters else shown,
            f"n = {int(first['x_n'])} Spider questions ({first['semantics'].replace('_', ' ')} semantics) and "
            f"{int(first['y_n'])} MMLU questions. Crosses: {100 * first['level']:g}% Wilson intervals.",
        ],
    )


def palette(models: Sequence[str], values: Sequence[str]) -> alt.Scale:
    """Return a scale that gives the models the values in their order, from the start again when there are too few."""
    return alt.Scale(domain=models, range=[values[i % len(values)] for i in range(len(models))])


def labels(points: pd.DataFrame, numbered: bool) -> list[str]:
    """Return the label of each point: its variant, or a running number for adapters where there are many."""
    numbers = iter(range(1, len(points) + 1))
    return [
        BASE if row.base else str(next(numbers)) if numbered else shortened(row.variant) for row in points.itertuples()
    ]


def shortened(text: str, most: int = 46) -> str:
    """Return a text that fits, its middle left out if need be."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2 - 1) :]}"


def key(points: pd.DataFrame, several: bool) -> alt.Chart:
    """Return the list of what the numbers mean, in columns."""
    adapters = points[~points["base"]]
    names = [shortened((f"{row.model} " if several else "") + row.variant) for row in adapters.itertuples()]
    column_width = 6.1 * max(map(len, names)) + 40
    columns = math.ceil(len(names) / KEY_LINES)
    rows = pd.DataFrame(
        {
            "number": adapters["label"].tolist(),
            "name": names,
            "x": [i // KEY_LINES * column_width + 20 for i in range(len(names))],
            "y": [(i % KEY_LINES + 0.5) * HEIGHT / KEY_LINES for i in range(len(names))],
        }
    )
    data = alt.Chart(rows).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, columns * column_width], nice=False)),
        y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[HEIGHT, 0], nice=False)),
    )
    style = {"baseline": "middle", "fontSize": FONT, "color": INK}
    return alt.layer(
        data.mark_text(align="right", **style).encode(text="number:N"),
        data.mark_text(align="left", dx=6, **style).encode(text="name:N"),
    ).properties(width=columns * column_width, height=HEIGHT, view=alt.ViewBackground(stroke=None))


def domain(low: pd.Series, high: pd.Series) -> list[float]:
    """Return axis limits in percent, in steps of 5, that leave air around the intervals; 30 points wide or more."""
    start, end = min(low), max(high)
    air = max(2.0, 0.06 * (end - start), (30 - (end - start)) / 2)
    start, end = 5 * math.floor((start - air) / 5), 5 * math.ceil((end + air) / 5)
    # A point at 0% or 100% is drawn whole.
    return [max(-3, start), min(103, end)]


def place(points: pd.DataFrame, x_domain: Sequence[float], y_domain: Sequence[float], chance: bool) -> dict[str, list]:
    """Find a place for each label where it covers no point, no other label, and few lines.

    Every label tries places ever farther from its point and takes the cheapest. Returns columns text_x and text_y
    (the label's centre, in units of the axes), far (whether a line must lead from the point to it), and lead_x and
    lead_y (where that line ends).
    """
    x_scale, y_scale = WIDTH / (x_domain[1] - x_domain[0]), HEIGHT / (y_domain[1] - y_domain[0])

    def pixels(x: float, y: float) -> tuple[float, float]:
        return (x - x_domain[0]) * x_scale, (y_domain[1] - y) * y_scale

    centres = [pixels(row.x, row.y) for row in points.itertuples()]
    solid = [(cx - 7, cy - 7, cx + 7, cy + 7) for cx, cy in centres]
    if chance:
        _, cy = pixels(0, CHANCE)
        solid.append((WIDTH - 85, cy - 18, WIDTH, cy + 1))
    lines = []
    for row, (cx, cy) in zip(points.itertuples(), centres, strict=True):
        lines.append((pixels(row.x_low, 0)[0], cy - 1, pixels(row.x_high, 0)[0], cy + 1))
        lines.append((cx - 1, pixels(0, row.y_high)[1], cx + 1, pixels(0, row.y_low)[1]))
    result = {"text_x": [], "text_y": [], "far": [], "lead_x": [], "lead_y": []}
    for label, (cx, cy) in zip(points["label"], centres, strict=True):
        half = 3.1 * len(label) + 2
        best = None
        for distance, x, y in around(cx, cy, half):
            box = (x - half, y - 7, x + half, y + 7)
            if (
                box[0] < 2
                or box[1] < 2
                or box[2] > WIDTH - 2
                or box[3] > HEIGHT - 2
                or any(meet(box, s) for s in solid)
            ):
                continue
            cost = distance + 12 * sum(meet(box, line) for line in lines)
            if best is None or cost < best[0]:
                best = (cost, distance, x, y, box)
        if best is None:  # No free place at all: on top of its point is better than no label.
            best = (0, 0, cx, cy, (cx - half, cy - 7, cx + half, cy + 7))
        _, distance, x, y, box = best
        solid.append(box)
        lead_x, lead_y = min(max(cx, box[0]), box[2]), min(max(cy, box[1]), box[3])
        for name, left, top in (("text", x, y), ("lead", lead_x, lead_y)):
            result[f"{name}_x"].append(left / x_scale + x_domain[0])
            result[f"{name}_y"].append(y_domain[1] - top / y_scale)
        result["far"].append(distance > 14)
    return result


def around(cx: float, cy: float, half: float) -> Iterator[tuple[float, float, float]]:
    """Yield (distance, x, y) of places for the centre of a label around a point, in pixels, near ones first."""
    for gap in (4, 10, 18, 28, 40, 55, 75, 100, 140, 190):
        for angle in (45, 135, -45, -135, 0, 180, 90, -90, 20, -20, 160, -160, 70, -70, 110, -110):
            dx, dy = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
            yield gap, cx + dx * (gap + 7) + half * (dx > 0.1) - half * (dx < -0.1), cy + dy * (gap + 7 + 5)


def meet(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """Tell whether two boxes (left, top, right, bottom) overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


if __name__ == "__main__":
    with job(snakemake.log[0]):
        figures(
            execution_accuracy=snakemake.input.execution_accuracy,
            mmlu=snakemake.input.mmlu,
            svg=snakemake.output.svg,
            pdf=snakemake.output.pdf,
            **snakemake.params.settings,
        )
