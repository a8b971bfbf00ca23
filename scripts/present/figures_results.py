"""Figures of the results: learning against forgetting, differences, parts of the questions, databases, errors."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from present.format import Say
from present.plots import (
    BLUE,
    COLOURS,
    DASHED,
    DOTTED,
    GREY,
    INK,
    LETTER,
    MIDDLE,
    ORANGE,
    PALE,
    ROW,
    SHAPES,
    WIDTH,
    Panel,
    Results,
    Rows,
    cells,
    difference_limits,
    frame,
    intervals,
    label,
    mark,
    name_rows,
    new,
    numbers,
    percent_limits,
    sentence,
    shortened,
    strips,
)
from present.values import ALL, BASE, HARDNESS, SAME, is_point

CHANCE = 25.0
# More adapters than this get a number at the point and a key below the figure; only the Pareto front keeps its crosses.
MOST_LABELS = 12
# More adapters than this get the figures that have less detail and room for all of them.
MOST_PANELS, MOST_MATRICES = 6, 3
# Classes of errors that are rarer than this share of the questions are drawn as one.
RARE = 0.01
OTHER = "other_classes"
# What became of an answer, in the order of the figure, by the fewer groups of the small figure.
ERROR_GROUPS = {
    "right": ("ok",),
    "other_rows": ("wrong_rows", "wrong_columns", "wrong_order_only", "extra_or_missing_columns", "duplicate_only"),
    "not_run": (
        "syntax_error",
        "no_such_table",
        "no_such_column",
        "ambiguous_column",
        "other_sql_error",
        "timeout",
        "too_large",
        "forbidden",
    ),
    "no_sql": ("no_sql", "missing"),
}
# Dark to light, so that a print in grey keeps their order; and the ink on each.
GROUP_COLOURS = (("#08507F", "white"), ("#6FB1DA", INK), ("#F5C08F", INK), ("#DDDDDD", INK))
BASE_LOOK, ADAPTER_LOOK = mark(INK, hollow=True), mark(BLUE, "D", markersize=5)


def criterion(name: str, say: Say) -> str:
    """Return a criterion of SQL equality as a sentence names it."""
    return say.word("figures.criterion", name=name.replace("_", " "))


def questions(points: pd.DataFrame, say: Say) -> str:
    """Return a sentence with the numbers of the questions."""
    first = points.iloc[0]
    values = {"n": say.count(first["x_n"]), "m": say.count(first["y_n"])}
    return say.word("figures.questions", **values, criterion=criterion(first["semantics"], say))


def adapters_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Return model and variant of each adapter of a table, in its order."""
    runs = dict.fromkeys(zip(table["model"], table["variant"], strict=True))
    return [run for run in runs if run[1] != BASE]


def named(runs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a name of each run, with the model where there are several."""
    several = len({model for model, _ in runs}) > 1
    return [f"{model} {variant}" if several else variant for model, variant in runs]


# Learning against forgetting


def tradeoff(results: Results, say: Say) -> Figure:
    """Draw a point for each run with its interval cross, the base model hollow, the Pareto front, and labels."""
    best = [run in results.best for run in zip(results.points["model"], results.points["variant"], strict=True)]
    points = results.points.assign(best=best, base=results.points["variant"] == BASE)
    # An interpolation, checkpoint or soup has a point of its own only where it is the one recommended.
    points = points[~is_point(points) | points["best"]].reset_index(drop=True)
    models = list(dict.fromkeys(points["model"]))
    variants = [name for name in dict.fromkeys(points["variant"]) if name != BASE]
    several, numbered = len(models) > 1, len(adapters_of(points)) > MOST_LABELS
    looks = {model: mark(COLOURS[i % 6], SHAPES[i % 6]) for i, model in enumerate(models)}
    names = dict(zip(variants, shortened(variants, 36), strict=True)) | {BASE: say.word("figures.base_label")}
    points["front"] = pareto_front(points)
    points["crossed"] = points[["base", "front", "best"]].any(axis=1) | (not numbered)
    numbers_of = {variant: str(number) for number, variant in enumerate(variants, 1)} | {BASE: names[BASE]}
    points["label"] = points["variant"].map(numbers_of if numbered else names)
    points["ink"] = points["model"].map(lambda model: darker(looks[model]["color"])) if several else INK
    points["ink"] = points["ink"].where(points["crossed"], GREY)
    points.loc[~points["crossed"], ["x_low", "x_high", "y_low", "y_high"]] = float("nan")
    # With many adapters of several models each model has a plane of its own.
    parts = [points[points["model"] == model] for model in models] if numbered and several else [points]
    lines = -(-len(parts) // 2)
    figure = new(3.4 * lines, WIDTH) if len(parts) > 1 else new(*((4.6, WIDTH) if numbered else (4.0, 5.8)))
    grid = figure.subplots(lines, min(2, len(parts)), squeeze=False).flat
    for axes, part in zip(grid, parts, strict=False):
        plane(axes, part, looks, say)
        if len(parts) > 1:
            axes.set_title(part["model"].iloc[0])
    for axes in figure.axes[len(parts) :]:
        axes.remove()
    entries = list(zip(looks.values(), shortened(models, 60), strict=True)) if several else []
    entries.append((mark(GREY if several else BLUE, hollow=True), say.word("figures.base")))
    if not several and variants:
        entries.append((looks[models[0]], say.word("figures.adapter")))
    on_front = points[points["front"]].drop_duplicates(["model", "x", "y"])
    if len(on_front) > len(models):
        look = {"color": GREY if several else BLUE, "linestyle": DASHED}
        entries.append((look, say.word("figures.front")))
    if points["best"].any():
        entries.append((RING, say.word("figures.recommended")))
    crosses = "crosses"
    if numbered:
        crosses = "crosses_front" if points["front"][points["best"]].all() else "crosses_best"
    sentences = [
        say.word("figures.tradeoff.shown" if variants else "figures.tradeoff.base_only"),
        questions(points, say),
        say.word(f"figures.tradeoff.{crosses}", level=say.level(points["level"].iloc[0])),
    ]
    key = []
    if numbered:
        dull = set() if several else {*points["variant"][~points["front"]]}
        key = [(GREY if variant in dull else INK, names[variant]) for variant in variants]
        sentences += [say.word("figures.tradeoff.key")] if not several else []
    frame(figure, say.word("figures.tradeoff.title"), sentences, entries, key)
    for axes, part in zip(figure.axes, parts, strict=True):
        label(axes, part, chance(axes, say))
    return figure


# Around the recommended run.
RING = mark(INK, hollow=True, markersize=13) | {"markerfacecolor": "none"}


def pareto_front(points: pd.DataFrame) -> list[bool]:
    """Return of each run whether no run of the same model has as much of both and more of one."""
    front = []
    for run in points.itertuples():
        others = points[points["model"] == run.model]
        as_good = others[(others["x"] >= run.x) & (others["y"] >= run.y)]
        front.append(not ((as_good["x"] > run.x) | (as_good["y"] > run.y)).any())
    return front


def plane(axes: Axes, points: pd.DataFrame, looks: dict[str, dict], say: Say) -> None:
    """Draw the plane of both accuracies: crosses, the Pareto front, points, rings, and guides through one base."""
    plane_axes(axes, points, say)
    for model, runs in points.groupby("model", sort=False):
        look = looks[model]
        crosses(axes, runs, look["color"])
        front = runs[runs["front"]].sort_values(["x", "y"], ascending=[True, False])
        axes.step(front["x"], front["y"], where="pre", color=look["color"], linestyle=DASHED, alpha=0.8)
        axes.plot(*runs.loc[~runs["crossed"], ["x", "y"]].T.to_numpy(), **mark(PALE, look["marker"]))
        axes.plot(*runs.loc[runs["best"], ["x", "y"]].T.to_numpy(), **RING)
        axes.plot(*runs.loc[runs["crossed"] & ~runs["base"], ["x", "y"]].T.to_numpy(), **look)
        bases = runs[runs["base"]]
        axes.plot(bases["x"], bases["y"], **look | {"markerfacecolor": "white"})


def plane_axes(axes: Axes, points: pd.DataFrame, say: Say) -> None:
    """Set titles and limits of the plane of both accuracies, with guides through the base of a single model."""
    for axis, limit in (("x", axes.set_xlim), ("y", axes.set_ylim)):
        limit(percent_limits(*(points[f"{axis}_{end}"].fillna(points[axis]) for end in ("low", "high"))))
    axes.set_xlabel(accuracy_title(points, say))
    axes.set_ylabel(say.word("figures.mmlu"))
    for axis in (axes.xaxis, axes.yaxis):
        numbers(axis, say, 7)
    if points["model"].nunique() == 1:
        guide = {"color": "#A8A8A8", "linestyle": DOTTED, "linewidth": 0.8, "zorder": 1}
        for base in points[points["base"]].itertuples():
            axes.axvline(base.x, **guide)
            axes.axhline(base.y, **guide)


def accuracy_title(points: pd.DataFrame, say: Say) -> str:
    """Return the title of an axis of execution accuracy."""
    return say.word("figures.accuracy", criterion=criterion(points["semantics"].iloc[0], say))


def crosses(axes: Axes, points: pd.DataFrame, colour: str) -> None:
    """Draw the intervals of both accuracies as crosses."""
    look = {"color": colour, "alpha": 0.45, "linewidth": 1.1}
    axes.hlines(points["y"], points["x_low"], points["x_high"], **look)
    axes.vlines(points["x"], points["y_low"], points["y_high"], **look)


def chance(axes: Axes, say: Say) -> list[tuple[float, float, float, float]]:
    """Draw where guessing is on MMLU, if that is in sight; return the box of its label."""
    low, high = axes.get_ylim()
    if not low < CHANCE < high:
        return []
    axes.axhline(CHANCE, color=GREY, linestyle=DASHED, linewidth=0.8)
    place = {"xy": (1, CHANCE), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    text = axes.annotate(say.word("figures.chance"), xytext=(-3, 3), ha="right", color=GREY, **place)
    return [text.get_window_extent().extents]


def darker(colour: str) -> str:
    """Return a colour that is dark enough for small text."""
    return "#" + "".join(f"{int(colour[i : i + 2], 16) * 2 // 3:02X}" for i in (1, 3, 5))


# Rows of runs


def differences(results: Results, say: Say) -> Figure:
    """Draw the forest plot: a row an adapter, a panel a measure, the difference from the base with its interval."""
    title, table = say.word("figures.differences.title"), results.comparisons
    if table.empty:
        return sentence(title, say.word("figures.no_adapters"))
    rows = Rows.of(adapters_of(table))
    headline = table["category"] == ALL
    panels, parts = [], []
    for (measure, category), part in table.groupby(["measure", "category"], sort=False):
        name = say.word(f"figures.measures.{measure}")
        name += "" if category == ALL else f", {category.replace('_', ' ')}"
        alike = table[headline == (category == ALL)]
        limits = difference_limits([*alike["ci_low_pp"], *alike["ci_high_pp"]])
        panels.append(Panel(f"{name}\nn = {say.count(part['n'].iloc[0])}", limits))
        parts.append(part)
    # Few adapters leave room for wide panels of the two headline measures, above those of the categories.
    wide = len(rows.names) <= MOST_LABELS and 3 < len(panels) <= 6
    figure, drawn = strips(say, rows, panels, say.word("figures.pp"), [2, len(panels) - 2] if wide else ())
    looks = {"better": mark(BLUE, "^"), "worse": mark(ORANGE, "v"), SAME: mark(GREY, hollow=True)}
    for axes, part in zip(drawn, parts, strict=True):
        axes.axvline(0, color=GREY, linewidth=1)
        marks = differences_marks(part, rows)
        for verdict, look in looks.items():
            intervals(axes, marks[part["verdict"] == verdict], look)
    units = table.drop_duplicates("measure").set_index("measure")["unit"]
    units = {measure: say.word(f"figures.units.{unit}") for measure, unit in units.items()}
    sentences = [difference_sentence(results, say), say.word("figures.differences.verdicts", **units)]
    frame(figure, title, sentences, [(look, say.verdict(verdict)) for verdict, look in looks.items()])
    return figure


def differences_marks(part: pd.DataFrame, rows: Rows) -> pd.DataFrame:
    """Return what `intervals` draws of a table of differences."""
    names = {"difference_pp": "x", "ci_low_pp": "low", "ci_high_pp": "high"}
    return part.rename(columns=names).assign(row=places(part, rows))


def places(part: pd.DataFrame, rows: Rows) -> list[int]:
    """Return the row of each run of a table."""
    return [rows.places[run] for run in zip(part["model"], part["variant"], strict=True)]


def difference_sentence(results: Results, say: Say) -> str:
    """Return what a difference is, and what its interval."""
    first = results.points.iloc[0]
    values = {"level": say.level(first["level"]), "criterion": criterion(first["semantics"], say)}
    return say.word("figures.differences.shown", **values)


def accuracy_marks(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that `intervals` draws of a table of accuracies."""
    return table.rename(columns={"accuracy_pct": "x", "ci_low": "low", "ci_high": "high"})


def hardness(results: Results, say: Say) -> Figure:
    """Draw the accuracy of each run for all questions and for each level of hardness that has questions."""
    table = results.accuracy
    counts = table.drop_duplicates("questions").set_index("questions")["n"]
    parts = [ALL, *(name for name in HARDNESS if counts[name])]
    without = [say.word(f"figures.hardness.{name}") for name in HARDNESS if not counts[name]]
    rows = Rows.of(dict.fromkeys(zip(table["model"], table["variant"], strict=True)))
    shown = accuracy_marks(table[table["questions"].isin(parts)])
    limits = percent_limits(shown["low"], shown["high"])
    panels = [Panel(f"{say.word(f'figures.hardness.{name}')}\nn = {say.count(counts[name])}", limits) for name in parts]
    figure, drawn = strips(say, rows, panels, "%")
    for axes, name in zip(drawn, parts, strict=True):
        part = shown[shown["questions"] == name]
        part = part.assign(row=places(part, rows))
        base = part["variant"] == BASE
        last = part.groupby("model")["row"].transform("max")
        axes.vlines(part["x"][base], part["row"][base], last[base], color=INK, linestyle=DOTTED, linewidth=1)
        intervals(axes, part[base], BASE_LOOK)
        intervals(axes, part[~base], ADAPTER_LOOK)
    entries = [(BASE_LOOK, say.word("figures.base"))]
    if adapters_of(table):
        guide = {"color": INK, "linestyle": DOTTED, "linewidth": 1}
        entries += [(ADAPTER_LOOK, say.word("figures.adapter")), (guide, say.word("figures.base_accuracy"))]
    first = table.iloc[0]
    values = {"criterion": criterion(first["semantics"], say), "level": say.level(first["confidence_level"])}
    sentences = [say.word("figures.hardness.shown", **values)]
    if without:
        sentences.append(say.word("figures.hardness.without", levels=", ".join(without)))
    frame(figure, say.word("figures.hardness.title"), sentences, entries)
    return figure


# Databases


def databases(results: Results, say: Say) -> Figure:
    """Draw the accuracy for each database: of each adapter beside its base, or the differences if many adapters."""
    table = results.databases
    adapters, first = adapters_of(table), table.iloc[0]
    bases = table[table["variant"] == BASE]
    mean = bases.groupby("db_id")["accuracy_pct"].mean()
    order = sorted(mean.index, key=lambda name: (-mean[name], name))
    counts = bases.drop_duplicates("db_id").set_index("db_id")["n"]
    names = [f"{name} ({say.count(counts[name])})" for name in order]
    values = {"n": say.count(counts.sum()), "m": say.count(len(order)), "criterion": criterion(first["semantics"], say)}
    title, shown = say.word("figures.databases.title"), say.word("figures.databases.shown", **values)
    if len(adapters) > MOST_PANELS:
        figure = database_cells(table, order, names, say)
        frame(figure, title, [shown, say.word("figures.databases.cells")])
        return figure
    table = accuracy_marks(table).assign(row=table["db_id"].map(order.index))
    runs = adapters or [(model, BASE) for model in dict.fromkeys(table["model"])]
    limits = percent_limits(table["low"], table["high"])
    panels = [Panel(name, limits) for name in shortened(named(runs), 60)]
    figure, drawn = strips(say, Rows(names), panels, "%")
    for axes, (model, variant) in zip(drawn, runs, strict=True):
        for name, look, shift in ((BASE, BASE_LOOK, -0.2), (variant, ADAPTER_LOOK, 0.2))[: 1 + bool(adapters)]:
            part = table[(table["model"] == model) & (table["variant"] == name)]
            intervals(axes, part.assign(row=part["row"] + shift * bool(adapters)), look)
    entries = [(BASE_LOOK, say.word("figures.base"))]
    entries += [(ADAPTER_LOOK, say.word("figures.adapter"))] if adapters else []
    level = say.word("figures.databases.intervals", level=say.level(first["confidence_level"]))
    frame(figure, title, [shown, level], entries)
    return figure


def database_cells(table: pd.DataFrame, order: Sequence[str], names: Sequence[str], say: Say) -> Figure:
    """Return a row a run and a column a database: the base model's accuracy, and the adapters' differences from it."""
    rows = Rows.of(dict.fromkeys(zip(table["model"], table["variant"], strict=True)))
    table = table.assign(row=places(table, rows))
    base = (table["variant"] == BASE).to_numpy()
    # The few questions of a small database must not pale all others.
    extreme = max(10.0, table["difference_pp"].abs().quantile(0.95))
    table["share"] = np.where(base, 0, table["difference_pp"] / extreme)
    table["text"] = np.where(
        base, table["accuracy_pct"].map(say.count), table["difference_pp"].map(lambda value: say.signed(value, 0))
    )
    shares = table.pivot(index="row", columns="db_id", values="share").reindex(range(len(rows.names)))
    texts = table.pivot(index="row", columns="db_id", values="text").reindex(range(len(rows.names))).fillna("")
    shares.loc[list(rows.headings)] = 0
    most = int((WIDTH - 0.6 - LETTER * max(map(len, shortened(rows.names, 38)))) / 0.36)
    lines = -(-len(order) // most)
    each = -(-len(order) // lines)
    figure = new(lines * (ROW * len(rows.names) + 1.4))
    titles = shortened(names, 26)
    for number, axes in enumerate(figure.subplots(lines, squeeze=False).flat):
        part = slice(number * each, (number + 1) * each)
        chosen = order[part]
        cells(axes, shares[chosen].to_numpy(), texts[chosen].to_numpy(), titles[part])
        axes.set_xlim(0, each)
        name_rows(axes, rows, at=0.5)
    return figure


# Errors


def error_flow(results: Results, say: Say) -> Figure:
    """Draw, for each adapter, how many answers of each class of the base model became which class."""
    table, title = results.confusion, say.word("figures.errors.title")
    adapters = adapters_of(table)
    if not adapters:
        return sentence(title, say.word("figures.no_adapters"))
    n, right = say.count(table["questions"].iloc[0]), say.word("figures.errors.right_means")
    if len(adapters) > MOST_MATRICES:
        figure = outcomes(table, adapters, say)
        looks = [Patch(color=colour) for colour, _ in GROUP_COLOURS]
        entries = [
            (look, say.word("figures.errors.adapter", name=say.word(f"figures.errors.groups.{name}")))
            for name, look in zip(ERROR_GROUPS, looks, strict=True)
        ]
        frame(figure, title, [say.word("figures.errors.bars", n=n), right], entries)
        return figure
    sizes = pd.concat(
        table.groupby(["model", "variant", column])["n"].sum().groupby(column).max().rename_axis("class")
        for column in ("base_class", "tuned_class")
    )
    largest = sizes.groupby("class").max()
    rare = [name for name in largest.index if name != "ok" and largest[name] < RARE * table["questions"].iloc[0]]
    if len(rare) > 1:
        table = table.replace({"base_class": rare, "tuned_class": rare}, OTHER)
    found = {*table["base_class"], *table["tuned_class"]}
    classes = [name for names in (*ERROR_GROUPS.values(), (OTHER,)) for name in names if name in found]
    names = class_names(classes, say)
    letters = LETTER * max(map(len, names))
    beside = max(1, int(WIDTH / (letters + 0.4 * len(names) + 0.3)))
    lines = -(-len(adapters) // beside)
    figure = new(lines * (0.235 * len(names) + 0.9 * letters + 0.6), WIDTH if beside > 1 else 6.2)
    grid = figure.subplots(lines, beside, squeeze=False).flat
    for axes, run, name in zip(grid, adapters, shortened(named(adapters), 60), strict=False):
        part = table[(table["model"] == run[0]) & (table["variant"] == run[1])]
        matrix(axes, part, classes, say)
        axes.set_title(name, size=9.5)
    for axes in figure.axes[len(adapters) :]:
        axes.remove()
    frame(figure, title, [say.word("figures.errors.cells", n=n), right])
    return figure


def class_names(classes: Sequence[str], say: Say) -> list[str]:
    """Return how the classes of answers, and their sum, are called in the figure."""
    return [say.word(f"figures.errors.classes.{name}") for name in (*classes, "sum")]


def matrix(axes: Axes, table: pd.DataFrame, classes: Sequence[str], say: Say) -> None:
    """Draw one adapter's cells: a row a class before, a column a class after, with sums at the ends."""
    counts = table.pivot_table(index="base_class", columns="tuned_class", values="n", aggfunc="sum")
    counts = counts.reindex(index=classes, columns=classes).fillna(0).to_numpy(int)
    names = class_names(classes, say)
    shares = np.full((len(names), len(names)), np.nan)
    with np.errstate(invalid="ignore"):
        shares[:-1, :-1] = np.where(counts, 0.85 * counts / counts.sum(axis=1, keepdims=True), np.nan)
    texts = [[say.count(n) if n else "" for n in row] + [say.count(sum(row))] for row in counts.tolist()]
    texts.append([*map(say.count, counts.sum(axis=0)), ""])
    # The sums stand on white.
    shares[:-1, -1] = shares[-1] = 0
    cells(axes, shares, texts, names)
    axes.set_yticks(np.arange(len(names)) + 0.5, names)
    for number in range(len(classes)):
        axes.add_patch(Rectangle((number, number), 1, 1, fill=False, edgecolor=INK, linewidth=0.8, clip_on=False))


def outcomes(table: pd.DataFrame, adapters: Sequence[tuple[str, str]], say: Say) -> Figure:
    """Return a row an adapter and a panel a group of the base model's classes, with bars of what became of them."""
    group = {name: label for label, names in ERROR_GROUPS.items() for name in names}
    table = table.assign(before=table["base_class"].map(group), after=table["tuned_class"].map(group))
    counts = table.groupby(["model", "variant", "before", "after"])["n"].sum()
    groups = [name for name in ERROR_GROUPS if name in {*table["before"]}]
    rows = Rows.of(adapters)
    sums = {before: counts.xs(before, level="before").groupby(["model", "variant"]).sum() for before in groups}
    several = bool(rows.headings)
    panels = []
    for before in groups:
        name = say.word("figures.errors.base", name=say.word(f"figures.errors.groups.{before}"))
        panels.append(Panel(name if several else f"{name}\nn = {say.count(sums[before].iloc[0])}", (0, 100)))
    figure, drawn = strips(say, rows, panels, "%")
    for axes, before in zip(drawn, groups, strict=True):
        here = counts.xs(before, level="before").unstack(fill_value=0).reindex(columns=list(ERROR_GROUPS), fill_value=0)
        here = here.reindex(pd.MultiIndex.from_tuples(adapters), fill_value=0)
        row = [rows.places[run] for run in adapters]
        ends = 100 * here.cumsum(axis=1).div(here.sum(axis=1), axis=0)
        starts = ends.shift(axis=1, fill_value=0)
        for after, (fill, ink) in zip(ERROR_GROUPS, GROUP_COLOURS, strict=True):
            axes.hlines(row, starts[after], ends[after], color=fill, linewidth=72 * ROW - 4)
            for y, n, start, end in zip(row, here[after], starts[after], ends[after], strict=True):
                if end - start > 1.5 * len(panels) * (len(str(n)) + 1) and n:
                    axes.text((start + end) / 2, y, say.count(n), **MIDDLE, color=ink, size=7.5)
        for heading in rows.headings:
            n = sums[before].xs(rows.names[heading]).iloc[0]
            axes.text(1, heading, f"n = {say.count(n)}", va="center", size=8)
    return figure
