"""Draw a study's tables as pictures: learning against forgetting, differences, parts, errors, losses, seeds, curves."""

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import altair as alt
import pandas as pd

import _path  # noqa: F401
from common.files import UserError, read_json
from common.job import job
from present.charts import (
    BARE,
    BLUE,
    COLOURS,
    DASHED,
    FONT,
    GREY,
    INK,
    MOST_WIDTH,
    ORANGE,
    PALE,
    SHAPES,
    SOLID,
    Strips,
    chart,
    fitted,
    framed,
    key,
    layer_points,
    layered,
    legend,
    mark,
    nearest,
    pixels,
    place,
    save,
    sentence,
    text_width,
    wrapped,
)
from present.values import ALL, BASE, HARDNESS, RECOMMENDED, SAME, SEED, is_point, read_table, trained
from present.words import read_words

MEASURES = read_words("en")["measures"]
CHANCE = 25.0
# More runs than this get a number at the point and a key below the picture; only the Pareto front keeps its crosses.
MOST_LABELS = 12
# More adapters than this get the pictures that have less detail and room for all of them.
MOST_PANELS, MOST_MATRICES = 6, 3
# So many of a model's adapters stand beside its prompts.
MOST_LINES = 4
# Classes of errors that are rarer than this share of the questions are drawn as one.
RARE = 0.01
# What became of an answer, in the order of the picture, and the fewer groups of the small picture.
ERROR_GROUPS = {
    "right": ("ok",),
    "other rows": ("wrong_rows", "wrong_columns", "wrong_order_only", "extra_or_missing_columns", "duplicate_only"),
    "did not run": (
        "syntax_error",
        "no_such_table",
        "no_such_column",
        "ambiguous_column",
        "other_sql_error",
        "timeout",
        "too_large",
        "forbidden",
    ),
    "no SQL": ("no_sql", "missing"),
}
# Around the recommended run.
RING = mark(INK) | {"fill": "transparent", "size": 200}
# The width of a cell of the matrix of errors.
CELL = 34
# Dark to light, so that a print in grey keeps their order; and the ink on each.
GROUP_COLOURS = (("#08507F", "white"), ("#6FB1DA", INK), ("#F5C08F", INK), ("#DDDDDD", INK))


@dataclass(frozen=True)
class Words:
    """The language of the pictures, `en` or `pt`: sentences are written in English and looked up."""

    language: str

    def __call__(self, text: str, **values: object) -> str:
        return (PORTUGUESE[text] if self.language == "pt" else text).format(**values)

    def number(self, value: float, form: str) -> str:
        return format(value, form).replace("-", "\u2212").replace(".", self.decimal)

    @property
    def decimal(self) -> str:
        return "," if self.language == "pt" else "."


def figures(
    execution_accuracy: str | Path,
    mmlu: str | Path,
    regression: str | Path,
    databases: str | Path,
    confusion: str | Path,
    seeds: str | Path,
    train: Sequence[str | Path],
    outputs: Mapping[str, str | Path],
    language: str = "en",
    recommendation: str | Path | None = None,
) -> None:
    """Draw the pictures, each as SVG and as PDF.

    Args:
        execution_accuracy, mmlu, regression, databases, confusion, seeds: CSV files of `tables`.
        train: reports of `train`, in …/<model>/<variant>/.
        outputs: paths named <picture>_svg and <picture>_pdf for each picture that is to be drawn, of tradeoff,
            differences, hardness, databases, error_flow, loss, seeds, strength, trajectory and shots.
        language: en or pt.
        recommendation: what `recommend` wrote (CSV), of a study that has it.

    Raises:
        UserError: the tables are not about the same runs.
    """
    say = Words(language)
    every_point = read_points(execution_accuracy, mmlu)
    points = trained(every_point)
    best: set[tuple[str, str]] = set()
    shown = points
    if recommendation:
        found = read_table(recommendation)
        found = found[found["choice"] == RECOMMENDED]
        best = set(zip(found["model"], found["variant"], strict=True))
        names = zip(every_point["model"], every_point["variant"], strict=True)
        # A strength, step or soup is a point of its own there.
        added = pd.Series([name in best for name in names], index=every_point.index) & is_point(every_point)
        shown = pd.concat([points, every_point.loc[added, points.columns]], ignore_index=True)
    accuracy, comparisons = (trained(read_table(path)) for path in (execution_accuracy, regression))
    reports = [(*Path(path).parts[-3:-1], read_json(path)) for path in train]
    # The step whose weights are the adapter's.
    last = {(model, variant): report["best_step"] or report["steps"] for model, variant, report in reports}
    pictures = {
        "tradeoff": lambda: tradeoff(shown, say, best),
        "differences": lambda: differences(comparisons, points, say),
        "hardness": lambda: hardness(accuracy, say),
        "databases": lambda: by_database(trained(read_table(databases)), say),
        "error_flow": lambda: error_flow(trained(read_table(confusion)), say),
        "loss": lambda: losses(reports, say),
        "seeds": lambda: seed_spread(comparisons, read_table(seeds), say),
        "strength": lambda: curves(every_point, "strength", dict.fromkeys(last, 1.0), say),
        "trajectory": lambda: curves(every_point, "step", last, say),
        "shots": lambda: by_shots(every_point, say),
    }
    for name in dict.fromkeys(output.rpartition("_")[0] for output in outputs):
        save(pictures[name](), outputs[f"{name}_svg"], outputs[f"{name}_pdf"])


def read_points(execution_accuracy: str | Path, mmlu: str | Path) -> pd.DataFrame:
    """Return a row a run: model, variant, x, x_low, x_high (execution accuracy), y, y_low, y_high (MMLU), all in
    percent, x_n, y_n (questions), semantics (of x) and level (of the intervals); where there are points of
    `evaluation`, also what they are (of, strength, step, shots).

    Raises:
        UserError: a run is in one of the tables only.
    """
    spider, knowledge = read_table(execution_accuracy), read_table(mmlu)
    spider = spider[spider["questions"] == ALL]
    knowledge = knowledge[knowledge["category"] == ALL]
    keys = ["model", "variant"]
    if spider[keys].values.tolist() != knowledge[keys].values.tolist():
        raise UserError(f"{mmlu}: has other runs than {execution_accuracy}. Run `snakemake -R tables`.")
    columns = {"accuracy_pct": "", "ci_low": "_low", "ci_high": "_high", "n": "_n"}
    what = [column for column in ("of", "strength", "step", "shots") if column in spider]
    points = spider[[*keys, "semantics", *what]].reset_index(drop=True)
    points["level"] = spider["confidence_level"].to_numpy()
    for axis, frame in (("x", spider), ("y", knowledge)):
        for column, suffix in columns.items():
            points[axis + suffix] = frame[column].to_numpy()
    return points


def percent(level: float, say: Words) -> str:
    """Return the level of an interval: 95%."""
    return say.number(100 * level, "g") + "%"


def semantics_name(name: str, say: Words) -> str:
    """Return a semantics as a sentence names it."""
    return say(f"{name.replace('_', ' ')} semantics")


def adapters_of(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Return model and variant of each adapter of a table, in its order."""
    runs = dict.fromkeys(zip(frame["model"], frame["variant"], strict=True))
    return [run for run in runs if run[1] != BASE]


def named(runs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a name of each run, with the model where there are several."""
    several = len({model for model, _ in runs}) > 1
    return [f"{model} {variant}" if several else variant for model, variant in runs]


# Learning against forgetting


def tradeoff(points: pd.DataFrame, say: Words, best: Container[tuple[str, str]] = ()) -> alt.TopLevelMixin:
    """Return the plane: a point a run with its interval cross, the base model hollow, the Pareto front, and labels.

    The runs `best`, as (model, variant), have a ring.
    """
    models = list(dict.fromkeys(points["model"]))
    runs = points.to_dict("records")
    numbered = len(adapters_of(points)) > MOST_LABELS
    variants = list(dict.fromkeys(run["variant"] for run in runs if run["variant"] != BASE))
    names = dict(zip(variants, fitted(variants, 250), strict=True)) | {BASE: BASE}
    front = pareto_front(runs)
    for number, run in enumerate(runs):
        look = models.index(run["model"])
        run["base"], run["front"] = run["variant"] == BASE, number in front
        run["best"] = (run["model"], run["variant"]) in best
        variant = run["variant"]
        run["label"] = str(variants.index(variant) + 1) if numbered and not run["base"] else names[variant]
        run |= mark(COLOURS[look % len(COLOURS)], SHAPES[look % len(SHAPES)], hollow=run["base"])
        run["colour"] = run["stroke"]
        if numbered and not (run["base"] or run["front"] or run["best"]):
            run |= {"x_low": None, "x_high": None, "y_low": None, "y_high": None}
    first = runs[0]
    titles = (
        say("Spider execution accuracy (%, {semantics})", semantics=semantics_name(first["semantics"], say)),
        say("MMLU accuracy (%)"),
    )
    # With many adapters of several models each model has a plane of its own.
    groups = [[run for run in runs if run["model"] == m] for m in models] if numbered and len(models) > 1 else [runs]
    size = (292, 270) if len(groups) > 1 else (560, 400) if numbered else (430, 330)
    planes = [plane(group, *titles, size, say) for group in groups]
    if len(groups) > 1:
        for drawn, model in zip(planes, models, strict=True):
            drawn.title = alt.TitleParams(model, fontSize=13, anchor="start", offset=6)
    entries = [(mark(COLOURS[i % 6], SHAPES[i % 6]), m) for i, m in enumerate(models)] if len(models) > 1 else []
    entries.append((mark(GREY if entries else BLUE, hollow=True), say("base model")))
    if len(models) == 1 and len(runs) > 1:
        entries.append((mark(BLUE), say("adapter")))
    if len({(runs[i]["model"], runs[i]["x"], runs[i]["y"]) for i in front}) > len(models):
        look = {"stroke": GREY if len(models) > 1 else BLUE, "dash": DASHED, "thick": 1.5}
        entries.append((look, say("Pareto front: no run has more of both")))
    if any(run["best"] for run in runs):
        entries.append((RING, say("recommended")))
    body = [legend(entries, max(size[0], 500)), *(alt.hconcat(*planes[i : i + 2]) for i in range(0, len(planes), 2))]
    if numbered:
        dominated = {run["variant"] for run in runs if len(models) == 1 and not run["front"]}
        body.append(key([(names[variant], GREY if variant in dominated else INK) for variant in variants]))
    shown = say("Right: more SQL learned. Down: more knowledge forgotten.")
    if len(runs) == len(models):
        shown = say("Base model only: this study has no adapters.")
    crosses = say("Crosses: {level} Wilson intervals.", level=percent(first["level"], say))
    if numbered:
        crosses = say(
            "Crosses, of base and front only: {level} Wilson intervals."
            if all(run["front"] for run in runs if run["best"])
            else "Crosses, of base, front and recommended only: {level} Wilson intervals.",
            level=percent(first["level"], say),
        ) + (say(" In the key, runs on the front are black.") if len(models) == 1 else "")
    counted = say(
        "n = {n} Spider questions ({semantics}) and {m} MMLU questions.",
        n=int(first["x_n"]),
        m=int(first["y_n"]),
        semantics=semantics_name(first["semantics"], say),
    )
    return framed(
        alt.vconcat(*body),
        say("Learning against forgetting"),
        [shown, counted, crosses],
        say.decimal,
        width=max(size[0] + 60, 490) if not numbered else MOST_WIDTH,
    )


def pareto_front(runs: Sequence[Mapping]) -> set[int]:
    """Return the numbers of the runs of which no run of the same model has as much of both and more of one."""

    def beats(a: Mapping, b: Mapping) -> bool:
        return a["x"] >= b["x"] and a["y"] >= b["y"] and (a["x"], a["y"]) != (b["x"], b["y"])

    return {
        number
        for number, run in enumerate(runs)
        if not any(other["model"] == run["model"] and beats(other, run) for other in runs)
    }


def plane(
    runs: Sequence[dict],
    x_title: str,
    y_title: str,
    size: tuple[int, int],
    say: Words,
    paths: Sequence[dict] = (),
) -> alt.LayerChart:
    """Return one plane of runs, with their labels, and `paths` (rows of x, y, order, path and colour) below them."""
    width, height = size
    # What is drawn of each run: its cross, or its point alone.
    x_domain, y_domain = (
        domain(
            *([run[axis] if run[axis + end] is None else run[axis + end] for run in runs] for end in ("_low", "_high"))
        )
        for axis in "xy"
    )
    x_unit, y_unit = width / (x_domain[1] - x_domain[0]), height / (y_domain[1] - y_domain[0])

    def to_pixels(run: Mapping) -> dict:
        found = {k: None if run[k] is None else (run[k] - x_domain[0]) * x_unit for k in ("x", "x_low", "x_high")}
        return found | {
            k: None if run[k] is None else (y_domain[1] - run[k]) * y_unit for k in ("y", "y_low", "y_high")
        }

    chance = y_domain[0] < CHANCE < y_domain[1]
    chance_y = (y_domain[1] - CHANCE) * y_unit
    words = say("chance (25%)")
    box = (width - text_width(words) - 10, chance_y - 19, width, chance_y + 1)
    centres = [to_pixels(run) | {"label": run["label"]} for run in runs]
    spots = place(centres, width, height, [box] if chance else [])
    for run, centre, spot in zip(runs, centres, spots, strict=True):
        box = spot["box"]
        lead = nearest(centre["x"], centre["y"], box)
        for name, left, top in (("text", spot["text_x"], spot["text_y"]), ("lead", *lead), ("box", *box[:2])):
            run[f"{name}_x"], run[f"{name}_y"] = left / x_unit + x_domain[0], y_domain[1] - top / y_unit
        run["box_x2"], run["box_y2"] = box[2] / x_unit + x_domain[0], y_domain[1] - box[3] / y_unit
        run["far"] = spot["far"]
    x = alt.X(
        "x:Q",
        title=x_title,
        scale=alt.Scale(domain=x_domain, nice=False),
        axis=alt.Axis(tickCount=width // 60, labelFlush=False),
    )
    y = alt.Y("y:Q", title=y_title, scale=alt.Scale(domain=y_domain, nice=False), axis=alt.Axis(tickCount=height // 45))
    stroke = alt.Color("colour:N", scale=None)
    layers = []
    models = list(dict.fromkeys(run["model"] for run in runs))
    bases = [run for run in runs if run["base"]]
    if len(models) == 1 and bases:
        guide = {"color": "#A8A8A8", "strokeDash": [2, 3], "strokeWidth": 1}
        layers += [chart(bases).mark_rule(**guide).encode(x=x), chart(bases).mark_rule(**guide).encode(y=y)]
    if chance:
        line = chart([{"y": CHANCE, "x": x_domain[1], "text": words}])
        layers += [
            line.mark_rule(color=GREY, strokeDash=[6, 4], strokeWidth=1).encode(y=y),
            line.mark_text(color=GREY, align="right", baseline="bottom", dx=-4, dy=-3, fontSize=FONT).encode(
                x=x, y=y, text="text:N"
            ),
        ]
    for model in models:
        front = sorted((run["x"], -run["y"]) for run in runs if run["front"] and run["model"] == model)
        colour = next(run["colour"] for run in runs if run["model"] == model)
        path = [{"x": a, "y": -b, "order": order} for order, (a, b) in enumerate(front)]
        step = {"interpolate": "step-before", "color": colour, "strokeDash": DASHED, "strokeWidth": 1.5}
        layers.append(chart(path).mark_line(**step, opacity=0.8).encode(x=x, y=y, order="order:Q"))
    layers.append(
        chart(paths)
        .mark_line(strokeWidth=1.5, opacity=0.8)
        .encode(x=x, y=y, order="order:Q", detail="path:N", color=stroke)
    )
    crossed = chart([run for run in runs if run["x_low"] is not None])
    rule = {"strokeWidth": 1.5, "opacity": 0.45}
    # Every base is drawn above the adapters, the front above the rest.
    above = sorted(runs, key=lambda run: (run["base"], run["front"]))
    dull = [run | {"stroke": PALE, "fill": PALE} if run["x_low"] is None else run for run in above]
    text = {"fontSize": FONT, "baseline": "middle"}
    several = len({run["colour"] for run in runs}) > 1
    inks = (GREY if run["x_low"] is None else darker(run["colour"]) if several else INK for run in runs)
    written = [run | {"ink": ink} for run, ink in zip(runs, inks, strict=True)]
    layers += [
        crossed.mark_rule(**rule).encode(x=alt.X("x_low:Q"), x2="x_high:Q", y=y, color=stroke),
        crossed.mark_rule(**rule).encode(y=alt.Y("y_low:Q"), y2="y_high:Q", x=x, color=stroke),
        chart([run for run in runs if run["far"]])
        .mark_rule(color=GREY, strokeWidth=0.7)
        .encode(x=x, y=y, x2="lead_x:Q", y2="lead_y:Q"),
        layer_points([run | RING for run in runs if run.get("best")], x, y, RING["size"]),
        layer_points(dull, x, y, 80),
        # A label stands out from the lines that it cannot help but cross.
        chart(runs)
        .mark_rect(color="white", opacity=0.75)
        .encode(x=alt.X("box_x:Q"), x2="box_x2:Q", y=alt.Y("box_y:Q"), y2="box_y2:Q"),
        chart(written)
        .mark_text(**text)
        .encode(x="text_x:Q", y="text_y:Q", text="label:N", color=alt.Color("ink:N", scale=None)),
    ]
    return layered(layers, width=width, height=height)


def darker(colour: str) -> str:
    """Return a colour that is dark enough for small text."""
    return "#" + "".join(f"{int(colour[i : i + 2], 16) * 2 // 3:02X}" for i in (1, 3, 5))


def domain(low: Sequence[float], high: Sequence[float]) -> list[float]:
    """Return axis limits in percent, in steps of 5, that leave air around the intervals; 30 points wide or more."""
    start, end = min(low), max(high)
    air = max(2.0, 0.06 * (end - start), (30 - (end - start)) / 2)
    start, end = 5 * math.floor((start - air) / 5), 5 * math.ceil((end + air) / 5)
    # A point at 0% or 100% is drawn whole.
    return [max(-3, start), min(103, end)]


# Rows of runs


def run_rows(runs: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, bool]], dict[tuple[str, str], int]]:
    """Return the rows of `Strips` for runs, with a heading a model where there are several, and each run's row."""
    several = len({model for model, _ in runs}) > 1
    rows, places, last = [], {}, None
    for model, variant in runs:
        if several and model != last:
            rows.append((model, True))
        places[model, variant] = len(rows)
        rows.append((variant, False))
        last = model
    return rows, places


def differences(comparisons: pd.DataFrame, points: pd.DataFrame, say: Words) -> alt.TopLevelMixin:
    """Return the forest plot: a row an adapter, a panel a measure, the difference from the base with its interval."""
    title = say("Differences against the base model")
    if comparisons.empty:
        return sentence(title, say("This study has no adapters: there is nothing to compare with the base model."))
    rows, places = run_rows(adapters_of(comparisons))
    measures = list(dict.fromkeys(zip(comparisons["measure"], comparisons["category"], strict=True)))
    sizes = comparisons.groupby(["measure", "category"])["n"].first()
    looks = {
        "better": (mark(BLUE, "triangle-up"), say("better")),
        "worse": (mark(ORANGE, "triangle-down"), say("worse")),
        SAME: (mark(GREY, hollow=True), say(SAME)),
    }
    marks = [
        {
            "row": places[row.model, row.variant],
            "panel": measures.index((row.measure, row.category)),
            "x": row.difference_pp,
            "low": row.ci_low_pp,
            "high": row.ci_high_pp,
        }
        | looks[row.verdict][0]
        for row in comparisons.itertuples()
    ]
    panels = []
    for measure, category in measures:
        name = say(MEASURES[measure])
        name += "" if category == ALL else f", {category.replace('_', ' ')}"
        panels.append((name, f"n = {int(sizes[measure, category])}"))
    headline = comparisons["category"] == ALL
    limits = [
        around_zero([*comparisons[headline == (category == ALL)][["ci_low_pp", "ci_high_pp"]].to_numpy().flat])
        for _, category in measures
    ]
    # Few adapters leave room for wide panels of the two headline measures, above those of the categories.
    split = 2 if len(rows) <= MOST_LABELS and len(panels) > 3 else len(panels)
    body = [
        Strips(
            rows,
            panels[start:end],
            limits[start:end],
            say("pp"),
            [m | {"panel": m["panel"] - start} for m in marks if start <= m["panel"] < end],
            zero=True,
        ).draw()
        for start, end in ((0, split), (split, len(panels)))
        if start < end
    ]
    first = points.iloc[0]
    lines = [
        say(
            "Adapter minus base on the same questions, in percentage points (pp), with {level} intervals; {semantics}.",
            level=percent(first["level"], say),
            semantics=semantics_name(first["semantics"], say),
        ),
        say("Verdicts: p adjusted by Holm's method.") + " " + drawn_at_random(comparisons, say),
    ]
    return framed(alt.vconcat(legend(list(looks.values())), *body), title, lines, say.decimal)


def drawn_at_random(comparisons: pd.DataFrame, say: Words) -> str:
    """Return what the intervals of the two measures take as drawn at random."""
    units = comparisons.drop_duplicates("measure").set_index("measure")["unit"]
    plural = {"database": "databases", "subject": "subjects", "question": "questions"}
    return say(
        "Drawn at random: {spider} (Spider), {mmlu} (MMLU).",
        spider=say(plural[units["execution_accuracy"]]),
        mmlu=say(plural[units["mmlu"]]),
    )


def around_zero(values: Sequence[float], step: int = 10) -> list[float]:
    """Return limits in whole steps that hold all values and zero, with some air."""
    low, high = min(0.0, *values), max(0.0, *values)
    air = 0.04 * (high - low) + 1
    return [step * math.floor((low - air) / step), step * math.ceil((high + air) / step)]


def hardness(accuracy: pd.DataFrame, say: Words) -> alt.TopLevelMixin:
    """Return the accuracy of each run for all questions and for each level of hardness that has questions."""
    first = accuracy.iloc[0]
    counts = accuracy.drop_duplicates("questions").set_index("questions")["n"]
    parts = [ALL, *(name for name in HARDNESS if counts[name])]
    without = [say(name) for name in HARDNESS if not counts[name]]
    runs = list(dict.fromkeys(zip(accuracy["model"], accuracy["variant"], strict=True)))
    rows, places = run_rows(runs)
    marks, lines = [], []
    for row in accuracy[accuracy["questions"].isin(parts)].itertuples():
        panel, at = parts.index(row.questions), places[row.model, row.variant]
        look = mark(INK, hollow=True) if row.variant == BASE else mark(BLUE, "diamond")
        marks.append({"row": at, "panel": panel, "x": row.accuracy_pct, "low": row.ci_low, "high": row.ci_high} | look)
        if row.variant == BASE:
            last = max(number for (model, _), number in places.items() if model == row.model)
            if last > at:
                lines.append({"panel": panel, "x": row.accuracy_pct, "first": at, "last": last})
    names = {ALL: say("all")} | {name: say(name) for name in HARDNESS}
    panels = [(names[name], f"n = {int(counts[name])}") for name in parts]
    entries = [(mark(INK, hollow=True), say("base model"))]
    if lines:
        entries += [
            (mark(BLUE, "diamond"), say("adapter")),
            ({"stroke": INK, "dash": [2, 3]}, say("base model's accuracy")),
        ]
    limits = domain([m["low"] for m in marks], [m["high"] for m in marks])
    body = Strips(rows, panels, [limits] * len(panels), "%", marks, lines).draw()
    sentences = [
        say(
            "Right answers in percent ({semantics}), with {level} Wilson intervals, by Spider's levels of hardness.",
            semantics=semantics_name(first["semantics"], say),
            level=percent(first["confidence_level"], say),
        )
    ]
    if without:
        sentences.append(say("The study has no questions of these levels: {levels}.", levels=", ".join(without)))
    return framed(alt.vconcat(legend(entries), body), say("Execution accuracy by hardness"), sentences, say.decimal)


# Databases


def by_database(databases: pd.DataFrame, say: Words) -> alt.TopLevelMixin:
    """Return the accuracy for each database: of each adapter beside its base, or the differences if many adapters."""
    adapters = adapters_of(databases)
    models = list(dict.fromkeys(databases["model"]))
    first = databases.iloc[0]
    bases = databases[databases["variant"] == BASE]
    mean = bases.groupby("db_id")["accuracy_pct"].mean()
    order = sorted(mean.index, key=lambda name: (-mean[name], name))
    counts = bases.drop_duplicates("db_id").set_index("db_id")["n"]
    labels = [f"{name} ({int(counts[name])})" for name in order]
    title = say("Execution accuracy by database")
    lines = [
        say(
            "n = {n} questions ({semantics}). Databases: {m}, best base accuracy first, with their questions.",
            n=int(counts.sum()),
            m=len(order),
            semantics=semantics_name(first["semantics"], say),
        )
    ]
    if len(adapters) > MOST_PANELS:
        lines.append(
            say(
                "Cells: adapter minus base in percentage points; first column: the base model's accuracy (%). Many "
                "cells, no tests: single ones prove nothing."
            )
        )
        return framed(alt.vconcat(*database_cells(databases, order, labels, say)), title, lines, say.decimal)
    panels = adapters or [(model, BASE) for model in models]
    marks = []
    for panel, (model, variant) in enumerate(panels):
        for name in dict.fromkeys([BASE, variant]):
            shown = databases[(databases["model"] == model) & (databases["variant"] == name)]
            look = mark(INK, hollow=True) if name == BASE else mark(BLUE, "diamond")
            shift = 0 if not adapters else -5 if name == BASE else 5
            marks += [
                {"row": order.index(row.db_id), "panel": panel, "x": row.accuracy_pct, "shift": shift}
                | {"low": row.ci_low, "high": row.ci_high}
                | look
                for row in shown.itertuples()
            ]
    entries = [(mark(INK, hollow=True), say("base model"))]
    entries += [(mark(BLUE, "diamond"), say("adapter"))] if adapters else []
    rows = [(label, False) for label in labels]
    limits = domain(databases["ci_low"], databases["ci_high"])
    titles = [(name, "") for name in named(panels)]
    body = Strips(rows, titles, [limits] * len(titles), "%", marks, row_height=26 if adapters else 21).draw()
    lines.append(
        say("Right answers in percent, with {level} Wilson intervals.", level=percent(first["confidence_level"], say))
    )
    return framed(alt.vconcat(legend(entries), body), title, lines, say.decimal)


def database_cells(
    databases: pd.DataFrame, order: Sequence[str], labels: Sequence[str], say: Words
) -> list[alt.TopLevelMixin]:
    """Return a block of cells a model, and the key to the adapters' numbers."""
    cell, line = 27, 19
    short = fitted(labels, 200)
    left = max(map(text_width, short)) + 10
    most = int((MOST_WIDTH - left) // cell) - 1
    height = line * (len(order) + 1)
    variants = list(dict.fromkeys(variant for _, variant in adapters_of(databases)))
    blocks = []
    # The few questions of a small database must not pale all others.
    extreme = max(10.0, databases["difference_pp"].abs().quantile(0.95))
    for model, frame in databases.groupby("model", sort=False):
        adapters = adapters_of(frame)
        several = databases["model"].nunique() > 1
        for start in range(0, len(adapters), most):
            chosen = adapters[start : start + most]
            cells = []
            for column, (_, variant) in enumerate([(model, BASE), *chosen]):
                heading = BASE if variant == BASE else str(variants.index(variant) + 1)
                cells.append({"x": column, "y": -1, "text": heading, "ink": INK, "fill": "white"})
                for row in frame[frame["variant"] == variant].itertuples():
                    value = row.accuracy_pct if variant == BASE else row.difference_pp
                    strength = 0 if variant == BASE else value / extreme
                    cells.append(
                        {
                            "x": column,
                            "y": order.index(row.db_id),
                            "text": say.number(round(value), "d" if variant == BASE or round(value) == 0 else "+d"),
                            "fill": shade(strength),
                            "ink": "white" if abs(strength) > 0.75 else INK,
                        }
                    )
            width = cell * (len(chosen) + 1) + 8
            for c in cells:
                c |= {"x": c["x"] * cell + 8 * (c["x"] > 0), "y": (c["y"] + 1) * line}
                c |= {"x2": c["x"] + cell - 1, "y2": c["y"] + line - 1}
                c |= {"cx": (c["x"] + c["x2"]) / 2, "cy": (c["y"] + c["y2"]) / 2}
            grid = layered(cell_layers(cells, width, height, FONT - 2), width=width, height=height, view=BARE)
            texts = [{"x": left - 4, "y": (i + 1.5) * line, "text": name} for i, name in enumerate(short)]
            text = chart(texts).mark_text(align="right", fontSize=FONT, color=INK)
            x, y = pixels(alt.X, "x", left), pixels(alt.Y, "y", height)
            names_layer = alt.layer(text.encode(x=x, y=y, text="text:N"), width=left, height=height, view=BARE)
            block = alt.hconcat(names_layer, grid, spacing=0)
            if several:
                block.title = alt.TitleParams(model, fontSize=13, anchor="start", offset=4)
            blocks.append(block)
    return [*blocks, key([(name, INK) for name in fitted(variants, 300)])]


def shade(strength: float) -> str:
    """Return a colour from vermilion (-1) over white (0) to blue (1)."""
    end = (0x00, 0x72, 0xB2) if strength > 0 else (0xD5, 0x5E, 0x00)
    part = min(1.0, abs(strength))
    return "#" + "".join(f"{round(255 + (value - 255) * part):02X}" for value in end)


def cell_layers(cells: Sequence[dict], width: float, height: float, size: int) -> list[alt.Chart]:
    """Return cells: boxes x, y to x2, y2 in pixels with a fill, and a text in ink at cx, cy."""
    x, y = pixels(alt.X, "x", width), pixels(alt.Y, "y", height)
    boxes = chart(cells).mark_rect().encode(x=x, x2="x2:Q", y=y, y2="y2:Q", fill=alt.Fill("fill:N", scale=None))
    texts = (
        chart([cell for cell in cells if cell["text"]])
        .mark_text(fontSize=size)
        .encode(
            x=pixels(alt.X, "cx", width),
            y=pixels(alt.Y, "cy", height),
            text="text:N",
            color=alt.Color("ink:N", scale=None),
        )
    )
    return [boxes, texts]


# Errors


def error_flow(confusion: pd.DataFrame, say: Words) -> alt.TopLevelMixin:
    """Return, for each adapter, how many answers of each class of the base model became which class."""
    title = say("What became of the base model's answers")
    adapters = adapters_of(confusion)
    if not adapters:
        return sentence(title, say("This study has no adapters: there is nothing to compare with the base model."))
    n = int(confusion["questions"].iloc[0])
    right = say("Right: the rows of the gold query in its order. Classes do not depend on the headline's semantics.")
    if len(adapters) > MOST_MATRICES:
        lines = [
            say(
                "Panels: class of the base model's answer; bars: class of the adapter's answer to the same questions. "
                "n = {n} questions for each adapter.",
                n=n,
            ),
            right,
        ]
        return framed(fates(confusion, adapters, say), title, lines, say.decimal)
    sizes = pd.concat(
        confusion.groupby(["model", "variant", c])["n"].sum().rename_axis(["m", "v", "class"])
        for c in ("base_class", "tuned_class")
    )
    largest = sizes.groupby("class").max()
    rare = [name for name in largest.index if name != "ok" and largest[name] < RARE * n]
    if len(rare) > 1:
        confusion = confusion.replace({"base_class": rare, "tuned_class": rare}, "other classes")
    found = {*confusion["base_class"], *confusion["tuned_class"]}
    classes = [name for names in [*ERROR_GROUPS.values(), ["other classes"]] for name in names if name in found]
    frames = [confusion[(confusion["model"] == m) & (confusion["variant"] == v)] for m, v in adapters]
    size = flow_size(classes, say)
    names = fitted(named(adapters), max(230, size[0] + CELL * (len(classes) + 1)), FONT + 1)
    panels = [flow_panel(frame, classes, size, name, say) for frame, name in zip(frames, names, strict=True)]
    # The slanted last heading leans out of the box.
    beside = max(1, int((MOST_WIDTH + 20) // (panels[0].width + 0.5 * text_width(say("sum")) + 20)))
    body = alt.vconcat(
        *(alt.hconcat(*panels[i : i + beside], spacing=20) for i in range(0, len(panels), beside)), spacing=22
    )
    lines = [
        say(
            "Rows: class of the base model's answer; columns: class of the adapter's answer to the same question. "
            "n = {n} questions for each adapter. Numbers: questions; the darker, the larger the share of its row; "
            "framed: same class.",
            n=n,
        ),
        right,
    ]
    return framed(body, title, lines, say.decimal)


def fates(confusion: pd.DataFrame, adapters: Sequence[tuple[str, str]], say: Words) -> alt.TopLevelMixin:
    """Return a row an adapter and a panel a group of the base model's classes, with bars of what became of them."""
    group = {name: label for label, names in ERROR_GROUPS.items() for name in names}
    frame = confusion.assign(before=confusion["base_class"].map(group), after=confusion["tuned_class"].map(group))
    counts = frame.groupby(["model", "variant", "before", "after"])["n"].sum().to_dict()
    groups = [name for name in ERROR_GROUPS if name in {*frame["before"]}]
    rows, places = run_rows(adapters)
    several = len({model for model, _ in adapters}) > 1
    sums = {
        (model, before): sum(counts.get((model, variant, before, after), 0) for after in ERROR_GROUPS)
        for model, variant in adapters
        for before in groups
    }
    bars, notes = [], []
    for panel, before in enumerate(groups):
        for run in adapters:
            start, total = 0.0, sums[run[0], before]
            for after, (fill, ink) in zip(ERROR_GROUPS, GROUP_COLOURS, strict=True):
                n = int(counts.get((*run, before, after), 0))
                if n:
                    end = start + 100 * n / total
                    bar = {"panel": panel, "row": places[run], "x": start, "x2": end}
                    bars.append(bar | {"fill": fill, "ink": ink, "text": str(n)})
                    start = end
        if several:
            heads = {model: row for row, (model, head) in enumerate(rows) if head}
            notes += [
                {"panel": panel, "row": row, "text": f"n = {int(sums[model, before])}"} for model, row in heads.items()
            ]
    model = adapters[0][0]
    panels = [
        (say("base: {name}", name=say(name)), "" if several else f"n = {int(sums[model, name])}") for name in groups
    ]
    body = Strips(rows, panels, [[0, 100]] * len(panels), "%", (), notes=notes, bars=bars).draw()
    entries = [
        ({"fill": fill, "stroke": fill, "shape": "square"}, say("adapter: {name}", name=say(name)))
        for name, (fill, _) in zip(ERROR_GROUPS, GROUP_COLOURS, strict=True)
    ]
    return alt.vconcat(legend(entries), body)


def class_names(classes: Sequence[str], say: Words) -> list[str]:
    """Return how the classes of errors, and their sum, are called in the picture."""
    plain = ["right" if name == "ok" else name.replace("_", " ").replace("sql", "SQL") for name in classes]
    return [say(name) for name in [*plain, "sum"]]


def flow_size(classes: Sequence[str], say: Words) -> tuple[float, float]:
    """Return the width of the names of the rows, and the height of the slanted names of the columns."""
    left = max(text_width(name, FONT - 1) for name in class_names(classes, say)) + 8
    return left, 0.92 * left + 18


def flow_panel(
    frame: pd.DataFrame, classes: Sequence[str], size: tuple[float, float], name: str, say: Words
) -> alt.LayerChart:
    """Return one adapter's cells: a row a class before, a column a class after, with sums at the ends."""
    cell, line, font = CELL, 20, FONT - 1
    left, top = size
    rows = class_names(classes, say)
    counts = frame.groupby(["base_class", "tuned_class"])["n"].sum().to_dict()
    sums = [sum(counts.get((c, d), 0) for d in classes) for c in classes]
    ends = [sum(counts.get((c, d), 0) for c in classes) for d in classes]
    cells = []
    for i, before in enumerate(classes):
        for j, after in enumerate(classes):
            n = int(counts.get((before, after), 0))
            share = n / sums[i] if sums[i] else 0
            cells.append(
                {
                    "x": j,
                    "y": i,
                    "text": str(n) if n else "",
                    "fill": shade(0.85 * share) if n else "#F7F7F7",
                    "ink": "white" if share > 0.6 else INK,
                    "same": i == j,
                }
            )
        cells.append(
            {"x": len(classes), "y": i, "text": str(int(sums[i])), "fill": "white", "ink": GREY, "same": False}
        )
    cells += [
        {"x": j, "y": len(classes), "text": str(int(n)), "fill": "white", "ink": GREY, "same": False}
        for j, n in enumerate(ends)
    ]
    width = max(left + cell * (len(classes) + 1), text_width(name, FONT + 1))
    height = top + line * (len(classes) + 1)
    for c in cells:
        c |= {"x": left + c["x"] * cell, "y": top + c["y"] * line}
        c |= {"x2": c["x"] + cell - 1, "y2": c["y"] + line - 1}
        c |= {"cx": (c["x"] + c["x2"]) / 2, "cy": (c["y"] + c["y2"]) / 2}
    x, y = pixels(alt.X, "x", width), pixels(alt.Y, "y", height)
    inks = [INK] * len(classes) + [GREY]
    ink = alt.Color("ink:N", scale=None)
    side = [
        {"x": left - 5, "y": top + (i + 0.5) * line, "text": n, "ink": c}
        for i, (n, c) in enumerate(zip(rows, inks, strict=True))
    ]
    head = [
        {"x": left + (j + 0.5) * cell, "y": top - 8, "text": n, "ink": c}
        for j, (n, c) in enumerate(zip(rows, inks, strict=True))
    ]
    corner = [{"x": 0, "y": 7, "text": name}]
    same = chart([c for c in cells if c["same"]]).mark_rect(filled=False, stroke=INK, strokeWidth=1)
    layers = [
        *cell_layers(cells, width, height, font),
        same.encode(x=x, x2="x2:Q", y=y, y2="y2:Q"),
        chart(side).mark_text(align="right", fontSize=font).encode(x=x, y=y, text="text:N", color=ink),
        chart(corner).mark_text(align="left", fontSize=FONT + 1, color=INK).encode(x=x, y=y, text="text:N"),
        chart(head)
        .mark_text(align="left", baseline="middle", angle=300, fontSize=font)
        .encode(x=x, y=y, text="text:N", color=ink),
    ]
    return layered(layers, width=width, height=height, view=BARE)


# Losses


def losses(reports: Sequence[tuple[str, str, Mapping]], say: Words) -> alt.TopLevelMixin:
    """Return a panel an adapter with its loss on the training and the validation rows, the others of its model pale.

    Args:
        reports: of each adapter its model, its variant and its train.json.
    """
    title = say("Training and validation loss")
    if not reports:
        return sentence(title, say("This study has no adapters: nothing was trained."))
    runs = [(model, variant) for model, variant, _ in reports]
    names = named(runs)
    beside = min(len(runs), 1 if len(runs) == 1 else 2 if len(runs) in (2, 4) else 3 if len(runs) <= 9 else 5)
    width = {1: 430, 2: 288, 3: 176, 5: 84}[beside]
    height = {1: 260, 2: 190, 3: 140, 5: 92}[beside]
    evaluated = any(report["eval_history"] for _, _, report in reports)
    kept = any(report.get("best_step") is not None for _, _, report in reports)
    curves = {
        run: [(e["step"], e["loss"]) for e in report["history"]]
        for run, (_, _, report) in zip(runs, reports, strict=True)
    }
    panels = []
    for number, ((model, variant), (_, _, report)) in enumerate(zip(runs, reports, strict=True)):
        same = [run for run in runs if run[0] == model]
        shown = [r for m, _, r in reports if m == model]
        highest = max(
            [e["loss"] for r in shown for e in r["history"]]
            + [e["eval_loss"] for r in shown for e in r["eval_history"]],
            default=1.0,
        )
        steps = max(r["steps"] for r in shown)
        x = alt.X(
            "step:Q",
            title=say("optimizer step") if number + beside >= len(runs) else None,
            scale=alt.Scale(domain=[0, steps], nice=False),
            axis=alt.Axis(tickCount=max(2, width // 60), format="d", labelFlush=False, labelOverlap=True),
        )
        y = alt.Y(
            "loss:Q",
            title=say("loss") if number % beside == 0 else None,
            scale=alt.Scale(domain=[0, 1.04 * highest or 1], nice=False),
            axis=alt.Axis(tickCount=max(3, height // 40)),
        )
        others = [
            {"step": step, "loss": loss, "run": i}
            for i, run in enumerate(same)
            if run != (model, variant)
            # More points than these a pale line in a small panel does not show.
            for step, loss in curves[run][:: max(1, len(curves[run]) // (60 // beside))]
        ]
        own = [{"step": step, "loss": loss} for step, loss in curves[model, variant]]
        held_out = [{"step": e["step"], "loss": e["eval_loss"]} for e in report["eval_history"]]
        best = [e for e in held_out if e["step"] == report.get("best_step")]
        line = {"strokeWidth": 1.7, "point": len(own) < 3 and {"size": 30, "color": BLUE, "filled": True}}
        layers = [
            chart(others).mark_line(color="#D2D2D2", strokeWidth=1).encode(x=x, y=y, detail="run:N"),
            chart(own).mark_line(color=BLUE, **line).encode(x=x, y=y),
            chart(held_out).mark_line(color=ORANGE, strokeWidth=1.7, strokeDash=[5, 3]).encode(x=x, y=y),
            layer_points([row | mark(ORANGE) for row in held_out], x, y, 28 if beside < 5 else 12),
            layer_points(
                [row | mark(INK, hollow=True) | {"fill": None} for row in best], x, y, 150 if beside < 5 else 70
            ),
        ]
        if not own and not held_out:
            middle = [{"step": steps / 2, "loss": highest / 2, "text": say("no loss was logged")}]
            layers.append(chart(middle).mark_text(fontSize=FONT, color=GREY).encode(x=x, y=y, text="text:N"))
        heading = alt.TitleParams(
            wrapped(fitted(names, 3 * width)[number], width), fontSize=FONT, anchor="start", offset=5
        )
        panels.append(layered(layers, width=width, height=height, title=heading))
    entries = [({"stroke": BLUE, "dash": SOLID}, say("training rows"))]
    if evaluated:
        entries.append(
            ({"stroke": ORANGE, "dash": [5, 3]} | {"shape": "circle", "fill": ORANGE}, say("validation rows"))
        )
    if kept:
        entries.append((mark(INK, hollow=True), say("checkpoint that was kept")))
    if any(len([r for r in runs if r[0] == model]) > 1 for model, _ in runs):
        entries.append(({"stroke": "#C0C0C0", "dash": SOLID}, say("training rows, the model's other adapters")))
    lines = [
        say("Cross-entropy per answer token; training loss: the mean since the last point.")
        if evaluated
        else say("Cross-entropy per answer token, the mean since the last point. No validation: eval_strategy is no.")
    ]
    counts = sorted({report["rows"] for _, _, report in reports})
    lines.append(say("{n} training rows.", n=" / ".join(map(str, counts))))
    body = alt.vconcat(
        *(alt.hconcat(*panels[i : i + beside], spacing=14) for i in range(0, len(panels), beside)), spacing=14
    )
    return framed(alt.vconcat(legend(entries, 620), body), title, lines, say.decimal)


# Seeds


def seed_spread(comparisons: pd.DataFrame, seeds: pd.DataFrame, say: Words) -> alt.TopLevelMixin:
    """Return a row a seed below its setting: the difference from the base, and the settings' mean and deviation."""
    title = say("Spread over seeds")
    if seeds.empty:
        return sentence(title, say("This study has no setting with two seeds or more."))
    axes = [name for name in comparisons.columns if "." in name and name != SEED]
    measures = list(MEASURES)
    shown = comparisons[comparisons["category"] == ALL]
    several = seeds["model"].nunique() > 1
    rows, marks, bands, lines, notes = [], [], [], [], []
    for _, frame in seeds.groupby(["model", "setting"], sort=False):
        first = frame.iloc[0]
        same = shown[(shown["model"] == first["model"]) & (shown[axes] == first[axes]).all(axis=1)]
        label = " ".join(part for part in (first["model"] if several else "", first["setting"]) if part)
        head = len(rows)
        rows.append((label or first["model"], True))
        for seed in dict.fromkeys(same[SEED]):
            rows.append((say("seed {n}", n=seed), False))
        for panel, measure in enumerate(measures):
            spread = frame[frame["measure"] == measure].iloc[0]
            mean, deviation = spread["mean_difference_pp"], spread["sd_pp"]
            span = {"panel": panel, "first": head + 1, "last": len(rows) - 1}
            bands.append(span | {"x": mean - deviation, "x2": mean + deviation})
            lines.append(span | {"x": mean})
            text = say(
                "mean {mean} pp, SD {sd} pp",
                mean=say.number(mean, "+.1f"),
                sd=say.number(deviation, ".1f"),
            )
            notes.append({"panel": panel, "row": head, "text": text})
            values = same[same["measure"] == measure].drop_duplicates(SEED)
            for row, value in enumerate(values.itertuples(), head + 1):
                marks.append(
                    {"row": row, "panel": panel, "x": value.difference_pp}
                    | {"low": value.ci_low_pp, "high": value.ci_high_pp}
                    | mark(BLUE, "diamond")
                )
    panels = [
        (say(name), f"n = {int(shown[shown['measure'] == measure]['n'].iloc[0])}") for measure, name in MEASURES.items()
    ]
    first = shown.iloc[0]
    limits = around_zero([*shown["ci_low_pp"], *shown["ci_high_pp"]])
    body = Strips(rows, panels, [limits] * 2, say("pp"), marks, lines, bands, notes, zero=True).draw()
    entries = [
        (mark(BLUE, "diamond"), say("one adapter")),
        ({"stroke": INK, "dash": [2, 3]}, say("mean of the seeds")),
        ({"stroke": "#CFE3F0", "dash": SOLID, "thick": 12}, say("mean ± standard deviation (SD)")),
    ]
    sentences = [
        say(
            "Adapter minus base on the same questions, in percentage points (pp), with {level} intervals; {semantics}.",
            level=percent(first["confidence_level"], say),
            semantics=semantics_name(first["semantics"], say),
        ),
        say("Adapters of a setting differ in training.seed alone."),
    ]
    return framed(alt.vconcat(legend(entries), body), title, sentences, say.decimal)


# Adapter strength and trajectory


def curves(points: pd.DataFrame, axis: str, ends: Mapping[tuple[str, str], float], say: Words) -> alt.TopLevelMixin:
    """Return both accuracies along the way from base to adapter, and the way itself in the plane of the two.

    Args:
        points: as `read_points` returns them.
        axis: strength or step.
        ends: by model and variant, where on the axis each trained adapter is; its base model is at 0.
    """
    runs = points.drop(columns=["of", "strength", "step", "shots"]).to_dict("records")
    by_run = {(run["model"], run["variant"]): run for run in runs}
    found: dict[tuple[str, str], list[dict]] = {}
    for run, adapter, position in zip(runs, points["of"], points[axis], strict=True):
        if not math.isnan(position):
            found.setdefault((run["model"], adapter), []).append(run | {"position": position})
    for (model, variant), runs in found.items():
        ways = {0: by_run[model, BASE], ends[model, variant]: by_run[model, variant]}
        there = {run["position"] for run in runs}
        runs += [run | {"position": position} for position, run in ways.items() if position not in there]
        runs.sort(key=lambda run: run["position"])
    names = fitted(named(list(found)), 250)
    few = len(found) <= len(COLOURS)
    looks = [mark(COLOURS[i % len(COLOURS)], SHAPES[i % len(SHAPES)]) if few else mark(BLUE) for i in range(len(found))]
    marks = [
        run
        | look
        | {"colour": look["stroke"], "path": number, "order": order, "front": False}
        # With the strength 0 there may be a point beside the base model, whose prompts are then others.
        | {"base": run["variant"] == BASE, "label": written(run["position"], say) if few else ""}
        for number, (runs, look) in enumerate(zip(found.values(), looks, strict=True))
        for order, run in enumerate(runs)
    ]
    longest = max(run["position"] for run in marks)
    x_title = {"strength": say("strength (0: base model, 1: adapter)"), "step": say("optimizer step (0: base model)")}[
        axis
    ]
    first = marks[0]
    titles = {
        "x": say("Spider execution accuracy (%, {semantics})", semantics=semantics_name(first["semantics"], say)),
        "y": say("MMLU accuracy (%)"),
    }
    x = alt.X(
        "position:Q",
        title=x_title,
        scale=alt.Scale(domain=[-0.03 * longest, 1.03 * longest], nice=False, zero=False),
        axis=alt.Axis(tickCount=5, format="d")
        if axis == "step"
        # Not `format`, whose digits d3 takes from the distance of ticks that are not drawn.
        else alt.Axis(values=sorted({run["position"] for run in marks}), labelExpr="format(datum.value, '~g')"),
    )
    panels = []
    for measure, title in titles.items():
        limits = domain([run[f"{measure}_low"] for run in marks], [run[f"{measure}_high"] for run in marks])
        scale = alt.Scale(domain=limits, nice=False, zero=False)
        y = alt.Y(f"{measure}:Q", title=title, scale=scale, axis=alt.Axis(tickCount=6))
        colour = alt.Color("colour:N", scale=None)
        data = chart(marks)
        panels.append(
            layered(
                [
                    data.mark_rule(strokeWidth=1.5, opacity=0.45).encode(
                        x=x, y=alt.Y(f"{measure}_low:Q", scale=scale), y2=f"{measure}_high:Q", color=colour
                    ),
                    data.mark_line(strokeWidth=1.7).encode(x=x, y=y, detail="path:N", order="order:Q", color=colour),
                    layer_points(marks, x, y),
                ],
                width=262,
                height=230,
            )
        )
    # In the plane the base model is one point, of all ways.
    placed = [run for run in marks if not run["base"]]
    for model in dict.fromkeys(run["model"] for run in marks):
        base = next(run for run in marks if run["model"] == model and run["base"])
        placed.append(base | mark(GREY, hollow=True) | {"label": BASE, "colour": GREY})
    for (model, variant), run in by_run.items():
        if axis == "strength" and variant.startswith("soup-") and any(model == of for of, _ in found):
            look = mark(INK, "diamond", hollow=True)
            placed.append(run | look | {"label": variant, "colour": INK, "base": False, "front": False})
    keep = {"model", "x", "y", "x_low", "x_high", "y_low", "y_high", "label", "base", "front", "colour"}
    placed = [{key: value for key, value in run.items() if key in keep | {"stroke", "fill", "shape"}} for run in placed]
    paths = [{key: run[key] for key in ("x", "y", "order", "path", "colour")} for run in marks]
    drawn = plane(placed, titles["x"], titles["y"], (430, 330), say, paths)
    entries = [(look, name) for look, name in zip(looks, names, strict=True)] if few else []
    entries.append((mark(GREY, hollow=True), say("base model")))
    if axis == "strength" and len(placed) > len(marks):
        entries.append((mark(INK, "diamond", hollow=True), say("mean of several adapters (soup)")))
    shown = {
        "strength": say("What the adapter adds to each weight, multiplied by the strength; no further training."),
        "step": say("The adapter as it was after so many steps of its training."),
    }[axis]
    counted = say(
        "n = {n} Spider questions ({semantics}) and {m} MMLU questions.",
        n=int(first["x_n"]),
        m=int(first["y_n"]),
        semantics=semantics_name(first["semantics"], say),
    )
    bars = say("Bars and crosses: {level} Wilson intervals.", level=percent(first["level"], say))
    title = {"strength": say("Adapter strength"), "step": say("Trajectory of training")}[axis]
    body = alt.vconcat(legend(entries, 620), alt.hconcat(*panels), drawn)
    return framed(body, title, [shown, counted, bars], say.decimal)


def by_shots(points: pd.DataFrame, say: Words) -> alt.TopLevelMixin:
    """Return the base model's execution accuracy by the number of examples in its prompts, beside its best adapters'.

    Args:
        points: as `read_points` returns them.
    """
    shown = points[points["shots"].notna()]
    adapters = trained(points)
    adapters = adapters[adapters["variant"] != BASE].sort_values("x", ascending=False, kind="stable")
    best = {model: adapters[adapters["model"] == model].head(MOST_LINES) for model in dict.fromkeys(shown["model"])}
    limits = domain(
        [*shown["x_low"], *(x for frame in best.values() for x in frame["x"])],
        [*shown["x_high"], *(x for frame in best.values() for x in frame["x"])],
    )
    first, longest = points.iloc[0], max(1, shown["shots"].max())
    height, beside = 260, 2 if len(best) > 1 else 1
    width, room = (470, 150) if beside == 1 else (170, 125)
    y_scale, x_limits = alt.Scale(domain=limits, nice=False, zero=False), [-0.05 * longest, 1.05 * longest]
    y = alt.Y(
        "x:Q",
        title=say("Spider execution accuracy (%, {semantics})", semantics=semantics_name(first["semantics"], say)),
        scale=y_scale,
        axis=alt.Axis(tickCount=6),
    )
    x = alt.X(
        "shots:Q",
        title=say("solved examples in the prompt"),
        scale=alt.Scale(domain=x_limits, nice=False, zero=False),
        axis=alt.Axis(values=sorted(set(shown["shots"])), format="d"),
    )
    panels = []
    columns = ["variant", "shots", "x", "x_low", "x_high"]
    for model, beside_it in best.items():
        runs = shown.loc[shown["model"] == model, columns].sort_values("shots").to_dict("records")
        runs = [run | mark(BLUE, hollow=run["variant"] == BASE) for run in runs]
        lines = beside_it[["variant", "x"]].to_dict("records")
        names = fitted([line["variant"] for line in lines], room)
        # From the top; no label covers another.
        unit, free = height / (limits[1] - limits[0]), 0.0
        for line, name in zip(lines, names, strict=True):
            free = max(free, (limits[1] - line["x"]) * unit)
            line |= {"label": name, "at": limits[1] - free / unit}
            free += FONT + 3
        ends, data = chart(lines), chart(runs)
        panels.append(
            layered(
                [
                    ends.mark_rule(color=ORANGE, strokeDash=DASHED, strokeWidth=1.5).encode(y=y),
                    ends.mark_text(align="left", dx=5, fontSize=FONT, color=darker(ORANGE)).encode(
                        x=alt.value(width), y=alt.Y("at:Q", scale=y_scale), text="label:N"
                    ),
                    data.mark_rule(strokeWidth=1.5, opacity=0.45, color=BLUE).encode(
                        x=x, y=alt.Y("x_low:Q", scale=y_scale), y2="x_high:Q"
                    ),
                    data.mark_line(strokeWidth=1.7, color=BLUE).encode(x=x, y=y),
                    layer_points(runs, x, y),
                ],
                width=width,
                height=height,
                title=alt.TitleParams(model, fontSize=13, anchor="start", offset=6) if beside > 1 else "",
            )
        )
    entries = [
        (mark(BLUE, hollow=True), say("base model")),
        (mark(BLUE), say("base model with another number of examples")),
        ({"stroke": ORANGE, "dash": DASHED, "thick": 1.5}, say("adapter, with the examples of the study")),
    ]
    sentences = [
        say("Prompting alone: nothing is trained, and no answer to MMLU changes."),
        say(
            "n = {n} Spider questions ({semantics}).",
            n=int(first["x_n"]),
            semantics=semantics_name(first["semantics"], say),
        ),
        say("Bars: {level} Wilson intervals.", level=percent(first["level"], say)),
    ]
    if len(adapters) > sum(map(len, best.values())):
        sentences.append(say("Lines: the {n} adapters of the highest accuracy.", n=MOST_LINES))
    rows = [alt.hconcat(*panels[i : i + beside]) for i in range(0, len(panels), beside)]
    return framed(alt.vconcat(legend(entries, 620), *rows), say("Examples in the prompt"), sentences, say.decimal)


def written(position: float, say: Words) -> str:
    """Return a strength or a step as a label."""
    return say.number(position, ".10g")


# The sentences of the pictures, as `Words` finds them.
PORTUGUESE = {
    "Learning against forgetting": "Aprendizado contra esquecimento",
    "Right: more SQL learned. Down: more knowledge forgotten.": "À direita: mais SQL aprendido. Abaixo: mais "
    "conhecimento esquecido.",
    "Base model only: this study has no adapters.": "Só o modelo base: este estudo não tem adaptadores.",
    "Crosses: {level} Wilson intervals.": "Cruzes: intervalos de Wilson de {level}.",
    "Crosses, of base and front only: {level} Wilson intervals.": "Cruzes, só da base e da fronteira: intervalos de "
    "Wilson de {level}.",
    " In the key, runs on the front are black.": " Na lista, os da fronteira estão em preto.",
    "n = {n} Spider questions ({semantics}) and {m} MMLU questions.": "n = {n} perguntas do Spider ({semantics}) e {m} "
    "do MMLU.",
    "Spider execution accuracy (%, {semantics})": "Execution accuracy no Spider (%, {semantics})",
    "MMLU accuracy (%)": "Acurácia no MMLU (%)",
    "Pareto front: no run has more of both": "Fronteira de Pareto: nenhum tem mais de ambos",
    "Crosses, of base, front and recommended only: {level} Wilson intervals.": "Cruzes, só da base, da fronteira e do "
    "recomendado: intervalos de Wilson de {level}.",
    "recommended": "recomendado",
    "base model": "modelo base",
    "adapter": "adaptador",
    "chance (25%)": "acaso (25%)",
    "set semantics": "semântica set",
    "bag semantics": "semântica bag",
    "ordered semantics": "semântica ordered",
    "test suite semantics": "semântica test suite",
    "columns any order semantics": "semântica columns any order",
    "Differences against the base model": "Diferenças em relação ao modelo base",
    "This study has no adapters: there is nothing to compare with the base model.": "Este estudo não tem adaptadores: "
    "não há o que comparar com o modelo base.",
    "Adapter minus base on the same questions, in percentage points (pp), with {level} intervals; {semantics}.": (
        "Adaptador menos base nas mesmas perguntas, em pontos percentuais (pp), com intervalos de {level}; {semantics}."
    ),
    "Verdicts: p adjusted by Holm's method.": "Veredictos: p ajustado pelo método de Holm.",
    "Drawn at random: {spider} (Spider), {mmlu} (MMLU).": "Sorteados: {spider} (Spider), {mmlu} (MMLU).",
    "databases": "bancos de dados",
    "subjects": "disciplinas",
    "questions": "perguntas",
    "Spider execution accuracy": "Execution accuracy no Spider",
    "MMLU": "MMLU",
    "pp": "pp",
    "better": "melhor",
    "worse": "pior",
    "not distinguishable at this n": "não distinguível com este n",
    "Execution accuracy by hardness": "Execution accuracy por dificuldade",
    "Right answers in percent ({semantics}), with {level} Wilson intervals, by Spider's levels of hardness.": (
        "Respostas certas em porcentagem ({semantics}), com intervalos de Wilson de {level}, pelos níveis de "
        "dificuldade do Spider."
    ),
    "The study has no questions of these levels: {levels}.": "O estudo não tem perguntas destes níveis: {levels}.",
    "all": "todas",
    "easy": "easy",
    "medium": "medium",
    "hard": "hard",
    "extra": "extra",
    "base model's accuracy": "acurácia do modelo base",
    "Execution accuracy by database": "Execution accuracy por banco de dados",
    "n = {n} questions ({semantics}). Databases: {m}, best base accuracy first, with their questions.": (
        "n = {n} perguntas ({semantics}). Bancos de dados: {m}, o melhor da base primeiro, com suas perguntas."
    ),
    "Right answers in percent, with {level} Wilson intervals.": "Respostas certas em porcentagem, com intervalos de "
    "Wilson de {level}.",
    "Cells: adapter minus base in percentage points; first column: the base model's accuracy (%). Many cells, no "
    "tests: single ones prove nothing.": "Células: adaptador menos base em pontos percentuais; primeira coluna: "
    "acurácia do modelo base (%). Muitas células, nenhum teste: uma só não prova nada.",
    "What became of the base model's answers": "O que foi feito das respostas do modelo base",
    "Rows: class of the base model's answer; columns: class of the adapter's answer to the same question. n = {n} "
    "questions for each adapter. Numbers: questions; the darker, the larger the share of its row; framed: same "
    "class.": "Linhas: classe da resposta do modelo base; colunas: classe da resposta do adaptador à mesma pergunta. "
    "n = {n} perguntas por adaptador. Números: perguntas; quanto mais escuro, maior a parte da linha; com moldura: "
    "mesma classe.",
    "Panels: class of the base model's answer; bars: class of the adapter's answer to the same questions. n = {n} "
    "questions for each adapter.": "Painéis: classe da resposta do modelo base; barras: classe da resposta do "
    "adaptador às mesmas perguntas. n = {n} perguntas por adaptador.",
    "Right: the rows of the gold query in its order. Classes do not depend on the headline's semantics.": (
        "Certa: as linhas da consulta de referência em sua ordem. As classes não dependem da semântica principal."
    ),
    "adapter: {name}": "adaptador: {name}",
    "base: {name}": "base: {name}",
    "right": "certa",
    "other rows": "outras linhas",
    "did not run": "não executou",
    "no SQL": "sem SQL",
    "wrong rows": "linhas erradas",
    "wrong columns": "colunas erradas",
    "wrong order only": "só a ordem errada",
    "extra or missing columns": "colunas a mais ou a menos",
    "duplicate only": "só repetições",
    "syntax error": "erro de sintaxe",
    "no such table": "tabela inexistente",
    "no such column": "coluna inexistente",
    "ambiguous column": "coluna ambígua",
    "other SQL error": "outro erro de SQL",
    "timeout": "tempo esgotado",
    "too large": "grande demais",
    "forbidden": "proibida",
    "missing": "sem resposta",
    "other classes": "outras classes",
    "sum": "soma",
    "Training and validation loss": "Perda no treino e na validação",
    "This study has no adapters: nothing was trained.": "Este estudo não tem adaptadores: nada foi treinado.",
    "Cross-entropy per answer token; training loss: the mean since the last point.": "Entropia cruzada por token da "
    "resposta; no treino, a média desde o ponto anterior.",
    "Cross-entropy per answer token, the mean since the last point. No validation: eval_strategy is no.": (
        "Entropia cruzada por token da resposta, a média desde o ponto anterior. Sem validação: eval_strategy é no."
    ),
    "{n} training rows.": "{n} linhas de treino.",
    "optimizer step": "passo do otimizador",
    "loss": "perda",
    "no loss was logged": "nenhuma perda registrada",
    "training rows": "linhas de treino",
    "validation rows": "linhas de validação",
    "checkpoint that was kept": "checkpoint mantido",
    "training rows, the model's other adapters": "linhas de treino, os outros adaptadores do modelo",
    "Spread over seeds": "Dispersão entre sementes",
    "This study has no setting with two seeds or more.": "Este estudo não tem configuração com duas sementes ou mais.",
    "Adapters of a setting differ in training.seed alone.": "Os adaptadores de uma configuração só diferem em "
    "training.seed.",
    "seed {n}": "semente {n}",
    "mean {mean} pp, SD {sd} pp": "média {mean} pp, DP {sd} pp",
    "one adapter": "um adaptador",
    "mean of the seeds": "média das sementes",
    "mean ± standard deviation (SD)": "média ± desvio padrão (DP)",
    "Adapter strength": "Intensidade do adaptador",
    "Trajectory of training": "Trajetória do treino",
    "strength (0: base model, 1: adapter)": "intensidade (0: modelo base, 1: adaptador)",
    "optimizer step (0: base model)": "passo do otimizador (0: modelo base)",
    "mean of several adapters (soup)": "média de vários adaptadores (soup)",
    "What the adapter adds to each weight, multiplied by the strength; no further training.": "O que o adaptador soma "
    "a cada peso, multiplicado pela intensidade; sem mais treino.",
    "The adapter as it was after so many steps of its training.": "O adaptador como era depois de tantos passos do seu "
    "treino.",
    "solved examples in the prompt": "exemplos resolvidos no prompt",
    "base model with another number of examples": "modelo base com outro número de exemplos",
    "adapter, with the examples of the study": "adaptador, com os exemplos do estudo",
    "Prompting alone: nothing is trained, and no answer to MMLU changes.": "Só prompting: nada é treinado, e nenhuma "
    "resposta ao MMLU muda.",
    "n = {n} Spider questions ({semantics}).": "n = {n} perguntas do Spider ({semantics}).",
    "Bars: {level} Wilson intervals.": "Barras: intervalos de Wilson de {level}.",
    "Lines: the {n} adapters of the highest accuracy.": "Linhas: os {n} adaptadores de maior acurácia.",
    "Examples in the prompt": "Exemplos no prompt",
    "Bars and crosses: {level} Wilson intervals.": "Barras e cruzes: intervalos de Wilson de {level}.",
}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        figures(
            **dict(snakemake.input.items()),
            outputs=dict(snakemake.output.items()),
            **snakemake.params.settings,
        )
