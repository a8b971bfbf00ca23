"""Figures of the results: learning against forgetting, differences, parts of the questions, databases, errors."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from present import plots
from present.format import Say
from present.plots import BLUE, COLOURS, GREY, INK, LETTER, ORANGE, WIDTH, Results, Rows, adapters_of, mark, runs_of
from present.values import ALL, BASE, CLASSES, HARDNESS, SAME, is_point

CHANCE = 25.0
# More adapters than this get a number at the point and a key below the figure; only the Pareto front keeps its crosses.
MOST_LABELS = 12
# More adapters than this get the figures that have less detail and room for all of them.
MOST_PANELS, MOST_MATRICES = 6, 3
# Classes of errors that are rarer than this share of the questions are drawn as one.
RARE = 0.01
OTHER = "other_classes"
SIDES = ("base_class", "tuned_class")
# The groups of the small figure: right, other rows (to `duplicate_only`), did not run (to `forbidden`), no SQL.
ERROR_GROUPS = {"right": CLASSES[:1], "other_rows": CLASSES[1:6], "not_run": CLASSES[6:14], "no_sql": CLASSES[14:]}
GROUP_OF = {name: group for group, names in ERROR_GROUPS.items() for name in names}
# Dark to light, so that a print in grey keeps their order; and the ink on each.
GROUP_COLOURS = (("#08507F", "white"), ("#6FB1DA", INK), ("#F5C08F", INK), ("#DDDDDD", INK))
BASE_LOOK, ADAPTER_LOOK = mark(INK, hollow=True), mark(BLUE, "D", markersize=5)
GUIDE = {"color": INK, "linestyle": plots.DOTTED, "linewidth": 1}
# Around the recommended run.
RING = mark(INK, markersize=13, markerfacecolor="none")


def named(runs: Sequence[tuple[str, str]]) -> list[str]:
    """A name of each run, with the model where there are several, that fits above a panel."""
    several = len({model for model, _ in runs}) > 1
    return plots.shortened([f"{model} {variant}" if several else variant for model, variant in runs], 60)


def tradeoff(results: Results, say: Say) -> Figure:
    """Draw a point for each run with its interval cross, the base model hollow, the Pareto front, and labels."""
    best = [run in results.best for run in zip(results.points["model"], results.points["variant"], strict=True)]
    points = results.points.assign(best=best, base=results.points["variant"] == BASE)
    # An interpolation, checkpoint or soup has a point of its own only where it is the one recommended.
    points = points[~is_point(points) | points["best"]].reset_index(drop=True)
    models = list(dict.fromkeys(points["model"]))
    variants = [name for name in dict.fromkeys(points["variant"]) if name != BASE]
    several, numbered = len(models) > 1, len(adapters_of(points)) > MOST_LABELS
    looks = {model: mark(COLOURS[i % 6], plots.SHAPES[i % 6]) for i, model in enumerate(models)}
    names = dict(zip(variants, plots.shortened(variants, 36), strict=True))
    labels = {variant: str(number) for number, variant in enumerate(variants, 1)} if numbered else names
    points["label"] = points["variant"].map(labels | {BASE: say.word("figures.base_label")})
    points["front"] = pareto_front(points)
    points["crossed"] = points[["base", "front", "best"]].any(axis=1) | (not numbered)
    points["ink"] = points["model"].map(lambda model: darker(looks[model]["color"])) if several else INK
    points["ink"] = points["ink"].where(points["crossed"], GREY)
    points.loc[~points["crossed"], ["x_low", "x_high", "y_low", "y_high"]] = float("nan")
    # With many adapters of several models each model has a plane of its own.
    parts = [points[points["model"] == model] for model in models] if numbered and several else [points]
    size = (2, 3.4) if len(parts) > 1 else (1, 4.6) if numbered else (1, 4.0, 5.8)
    figure, drawn = plots.grid(len(parts), *size)
    for axes, part in zip(drawn, parts, strict=True):
        plane(axes, part, looks, say)
        axes.set_title(part["model"].iloc[0] if len(parts) > 1 else "")
    entries = list(zip(looks.values(), plots.shortened(models, 60), strict=True)) if several else []
    entries.append((mark(GREY if several else BLUE, hollow=True), say.word("figures.base")))
    if not several and variants:
        entries.append((looks[models[0]], say.word("figures.adapter")))
    if len(points[points["front"]].drop_duplicates(["model", "x", "y"])) > len(models):
        entries.append(({"color": GREY if several else BLUE, "linestyle": plots.DASHED}, say.word("figures.front")))
    if points["best"].any():
        entries.append((RING, say.word("figures.recommended")))
    crosses, key = "crosses", []
    if numbered:
        crosses = "crosses_front" if points["front"][points["best"]].all() else "crosses_best"
        dull = set() if several else {*points["variant"][~points["front"]]}
        key = [(GREY if variant in dull else INK, names[variant]) for variant in variants]
    shown = ["tradeoff.shown" if variants else "tradeoff.base_only", "questions", f"tradeoff.{crosses}"]
    shown += ["tradeoff.key"] if numbered and not several else []
    sentences = [say.word(f"figures.{name}", **plots.facts(results.points, say)) for name in shown]
    plots.frame(figure, say.word("figures.tradeoff.title"), sentences, entries, key)
    for axes, part in zip(drawn, parts, strict=True):
        plots.label(axes, part, chance(axes, say))
    return figure


def pareto_front(points: pd.DataFrame) -> list[bool]:
    """Tell of each run whether no run of the same model has as much of both and more of one."""
    model, x, y = points["model"], points["x"], points["y"]
    return [
        not ((model == run.model) & (x >= run.x) & (y >= run.y) & ((x > run.x) | (y > run.y))).any()
        for run in points.itertuples()
    ]


def plane(axes: Axes, points: pd.DataFrame, looks: dict[str, dict], say: Say) -> None:
    """Draw the plane of both accuracies: crosses, the Pareto front, points, rings, and guides through one base."""
    plane_axes(axes, points, say)
    for model, runs in points.groupby("model", sort=False):
        look = looks[model]
        front = runs[runs["front"]].sort_values(["x", "y"], ascending=[True, False])
        axes.step(front["x"], front["y"], where="pre", color=look["color"], linestyle=plots.DASHED, alpha=0.8)
        axes.plot(*runs.loc[~runs["crossed"], ["x", "y"]].to_numpy().T, **mark(plots.PALE, look["marker"]))
        axes.plot(*runs.loc[runs["best"], ["x", "y"]].to_numpy().T, **RING)
        crossed_points(axes, runs[runs["crossed"] & ~runs["base"]], look)
        crossed_points(axes, runs[runs["base"]], look | {"markerfacecolor": "white"})


def crossed_points(axes: Axes, points: pd.DataFrame, look: dict) -> None:
    """Draw points with the intervals of both accuracies as crosses."""
    cross = {"color": look["color"], "alpha": 0.45, "linewidth": 1.1}
    axes.hlines(points["y"], points["x_low"], points["x_high"], **cross)
    axes.vlines(points["x"], points["y_low"], points["y_high"], **cross)
    axes.plot(points["x"], points["y"], **look)


def plane_axes(axes: Axes, points: pd.DataFrame, say: Say) -> None:
    """Set titles and limits of the plane of both accuracies, with guides through the base of a single model."""
    for axis in "xy":
        ends = [points[f"{axis}_{end}"].fillna(points[axis]) for end in ("low", "high")]
        axes.set(**{f"{axis}lim": plots.percent_limits(*ends)})
        plots.numbers(axes.xaxis if axis == "x" else axes.yaxis, say, 7)
    axes.set(xlabel=say.word("figures.accuracy", **plots.facts(points, say)), ylabel=say.word("figures.mmlu"))
    if points["model"].nunique() == 1:
        guide = {"color": "#A8A8A8", "linestyle": plots.DOTTED, "linewidth": 0.8, "zorder": 1}
        for base in points[points["base"]].itertuples():
            axes.axvline(base.x, **guide)
            axes.axhline(base.y, **guide)


def chance(axes: Axes, say: Say) -> list[tuple[float, float, float, float]]:
    """Draw where guessing is on MMLU, if that is in sight; return the box of its label."""
    low, high = axes.get_ylim()
    if not low < CHANCE < high:
        return []
    axes.axhline(CHANCE, color=GREY, linestyle=plots.DASHED, linewidth=0.8)
    place = {"xy": (1, CHANCE), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    text = axes.annotate(say.word("figures.chance"), xytext=(-3, 3), ha="right", color=GREY, **place)
    return [text.get_window_extent().extents]


def darker(colour: str) -> str:
    """A colour that is dark enough for small text."""
    return to_hex([part * 2 / 3 for part in to_rgb(colour)])


def differences(results: Results, say: Say) -> Figure:
    """Draw the forest plot: a row an adapter, a panel a measure, the difference from the base with its interval."""
    title, table = say.word("figures.differences.title"), results.comparisons
    if table.empty:
        return plots.sentence(title, say.word("figures.no_adapters"))
    rows = Rows.of(adapters_of(table))
    headline = table["category"] == ALL
    panels, parts = [], []
    for (measure, category), part in table.groupby(["measure", "category"], sort=False):
        name = say.word(f"figures.measures.{measure}")
        name += "" if category == ALL else f", {category.replace('_', ' ')}"
        alike = table[headline == (category == ALL)]
        limits = plots.difference_limits([*alike["low"], *alike["high"]])
        panels.append(plots.panel(name, part["n"].iloc[0], limits, say))
        parts.append(rows.placed(part))
    # Few adapters leave room for wide panels of the two headline measures, above those of the categories.
    wide = len(rows.names) <= MOST_LABELS and 3 < len(panels) <= 6
    figure, drawn = plots.strips(say, rows, panels, say.word("figures.pp"), [2, len(panels) - 2] if wide else ())
    looks = {"better": mark(BLUE, "^"), "worse": mark(ORANGE, "v"), SAME: mark(GREY, hollow=True)}
    for axes, part in zip(drawn, parts, strict=True):
        axes.axvline(0, color=GREY, linewidth=1)
        for verdict, look in looks.items():
            plots.intervals(axes, part[part["verdict"] == verdict], look)
    units = table.drop_duplicates("measure").set_index("measure")["unit"]
    units = {measure: say.word(f"figures.units.{unit}") for measure, unit in units.items()}
    shown = say.word("figures.differences.shown", **plots.facts(results.points, say))
    sentences = [shown, say.word("figures.differences.verdicts", **units)]
    plots.frame(figure, title, sentences, [(look, say.verdict(verdict)) for verdict, look in looks.items()])
    return figure


def hardness(results: Results, say: Say) -> Figure:
    """Draw the accuracy of each run for all questions and for each level of hardness that has questions."""
    table = results.accuracy
    counts = table.drop_duplicates("questions").set_index("questions")["n"]
    names = {name: say.word(f"figures.hardness.{name}") for name in (ALL, *HARDNESS)}
    parts = [name for name in names if counts[name]]
    rows = Rows.of(runs_of(table))
    table = rows.placed(table[table["questions"].isin(parts)])
    limits = plots.percent_limits(table["low"], table["high"])
    panels = [plots.panel(names[name], counts[name], limits, say) for name in parts]
    figure, drawn = plots.strips(say, rows, panels, "%")
    for axes, name in zip(drawn, parts, strict=True):
        part = table[table["questions"] == name]
        base = part["variant"] == BASE
        last = part.groupby("model")["row"].transform("max")
        axes.vlines(part["x"][base], part["row"][base], last[base], **GUIDE)
        plots.intervals(axes, part[base], BASE_LOOK)
        plots.intervals(axes, part[~base], ADAPTER_LOOK)
    entries = base_and_adapter(table, say)
    entries += [(GUIDE, say.word("figures.base_accuracy"))] if len(entries) > 1 else []
    sentences = [say.word("figures.hardness.shown", **plots.facts(results.points, say))]
    if without := [name for level, name in names.items() if not counts[level]]:
        sentences.append(say.word("figures.hardness.without", levels=", ".join(without)))
    plots.frame(figure, say.word("figures.hardness.title"), sentences, entries)
    return figure


def base_and_adapter(table: pd.DataFrame, say: Say) -> list[tuple[dict, str]]:
    """The entries of a legend for the base model and, where there are any, adapters."""
    entries = [(BASE_LOOK, say.word("figures.base")), (ADAPTER_LOOK, say.word("figures.adapter"))]
    return entries if adapters_of(table) else entries[:1]


def databases(results: Results, say: Say) -> Figure:
    """Draw the accuracy for each database: of each adapter beside its base, or the differences if many adapters."""
    table = results.databases
    adapters, bases = adapters_of(table), table[table["variant"] == BASE]
    mean = bases.groupby("db_id")["x"].mean()
    order = sorted(mean.index, key=lambda name: (-mean[name], name))
    counts = bases.drop_duplicates("db_id").set_index("db_id")["n"]
    names = [f"{name} ({say.count(counts[name])})" for name in order]
    facts = plots.facts(results.points, say) | {"n": say.count(counts.sum()), "m": say.count(len(order))}
    title, shown = say.word("figures.databases.title"), say.word("figures.databases.shown", **facts)
    if len(adapters) > MOST_PANELS:
        figure = database_cells(table, order, names, say)
        plots.frame(figure, title, [shown, say.word("figures.databases.cells")])
        return figure
    table = table.assign(row=table["db_id"].map(order.index))
    limits = plots.percent_limits(table["low"], table["high"])
    runs = adapters or runs_of(table)
    figure, drawn = plots.strips(say, Rows(names), [(name, limits) for name in named(runs)], "%")
    for axes, (model, variant) in zip(drawn, runs, strict=True):
        for name, look, shift in ((BASE, BASE_LOOK, -0.2), (variant, ADAPTER_LOOK, 0.2))[: 1 + bool(adapters)]:
            part = table[(table["model"] == model) & (table["variant"] == name)]
            plots.intervals(axes, part.assign(row=part["row"] + shift * bool(adapters)), look)
    sentences = [shown, say.word("figures.databases.intervals", **facts)]
    plots.frame(figure, title, sentences, base_and_adapter(table, say))
    return figure


def database_cells(table: pd.DataFrame, order: Sequence[str], names: Sequence[str], say: Say) -> Figure:
    """Draw a row a run and a column a database: the base model's accuracy, and the adapters' differences from it."""
    rows = Rows.of(runs_of(table))
    base = (table["variant"] == BASE).to_numpy()
    # The few questions of a small database must not pale all others.
    extreme = max(10.0, table["difference_pp"].abs().quantile(0.95))
    share = np.where(base, 0, table["difference_pp"] / extreme)
    text = np.where(base, table["x"].map(say.count), table["difference_pp"].map(lambda value: say.signed(value, 0)))
    table = rows.placed(table).assign(share=share, text=text).pivot(index="row", columns="db_id")
    shares, texts = (table[column].reindex(range(len(rows.names))) for column in ("share", "text"))
    # Headings are no missing values.
    shares.loc[list(rows.headings)] = 0
    lines = -(-len(order) // int((WIDTH - 0.3 - rows.width) / 0.36))
    each = -(-len(order) // lines)
    figure, drawn = plots.grid(lines, 1, plots.ROW * len(rows.names) + 1.4)
    titles = plots.shortened(names, 26)
    for start, axes in zip(range(0, len(order), each), drawn, strict=True):
        chosen = order[start : start + each]
        plots.cells(axes, shares[chosen].to_numpy(), texts[chosen].fillna("").to_numpy(), titles[start : start + each])
        axes.set_xlim(-0.5, each - 0.5)
        rows.write(axes)
    return figure


def error_flow(results: Results, say: Say) -> Figure:
    """Draw, for each adapter, how many answers of each class of the base model became which class."""
    table, title = results.confusion, say.word("figures.errors.title")
    adapters = adapters_of(table)
    if not adapters:
        return plots.sentence(title, say.word("figures.no_adapters"))
    few, n = len(adapters) <= MOST_MATRICES, table["questions"].iloc[0]
    figure = matrices(table, adapters, say) if few else outcomes(table, adapters, say)
    entries = [
        (Patch(color=colour), say.word("figures.errors.adapter", name=say.word(f"figures.errors.groups.{group}")))
        for group, (colour, _) in zip(ERROR_GROUPS, GROUP_COLOURS, strict=True)
    ]
    shown = say.word("figures.errors.cells" if few else "figures.errors.bars", n=say.count(n))
    plots.frame(figure, title, [shown, say.word("figures.errors.right_means")], [] if few else entries)
    return figure


def matrices(table: pd.DataFrame, adapters: Sequence[tuple[str, str]], say: Say) -> Figure:
    """Draw a matrix for each adapter, in which the classes that are rare for all adapters are one."""
    sizes = [table.groupby(["model", "variant", side])["n"].sum().groupby(level=2).max() for side in SIDES]
    largest = pd.concat(sizes).groupby(level=0).max().drop("ok", errors="ignore")
    rare = list(largest.index[largest < RARE * table["questions"].iloc[0]])
    if len(rare) > 1:
        table = table.replace(dict.fromkeys(SIDES, rare), OTHER)
    found = {*table["base_class"], *table["tuned_class"]}
    classes = [name for name in (*CLASSES, OTHER) if name in found]
    names = [say.word(f"figures.errors.classes.{name}") for name in (*classes, "sum")]
    letters = LETTER * max(map(len, names))
    beside = max(1, int(WIDTH / (letters + 0.4 * len(names) + 0.3)))
    height = 0.235 * len(names) + 0.9 * letters + 0.6
    figure, drawn = plots.grid(len(adapters), beside, height, WIDTH if beside > 1 else 6.2)
    for axes, (model, variant), title in zip(drawn, adapters, named(adapters), strict=True):
        matrix(axes, table[(table["model"] == model) & (table["variant"] == variant)], classes, names, say)
        axes.set_title(textwrap.fill(title, max(16, int((WIDTH / beside - letters) / LETTER))), size=9.5)
    return figure


def matrix(axes: Axes, table: pd.DataFrame, classes: Sequence[str], names: Sequence[str], say: Say) -> None:
    """Draw one adapter's cells: a row a class before, a column a class after, with sums at the ends."""
    sides = {"index": "base_class", "columns": "tuned_class"}
    counts = table.pivot_table(**sides, values="n", aggfunc="sum", margins=True, margins_name="sum")
    counts = counts.reindex(index=[*classes, "sum"], columns=[*classes, "sum"]).fillna(0).to_numpy(int)
    shares = 0.85 * counts / np.maximum(1, counts[:, -1:])
    shares[counts == 0] = np.nan
    # The sums stand on white.
    shares[:, -1] = shares[-1] = 0
    texts = np.where(np.isnan(shares), "", [[say.count(n) for n in row] for row in counts])
    texts[-1, -1] = ""
    plots.cells(axes, shares, texts, names)
    axes.set_yticks(range(len(names)), names)
    for at in np.arange(len(classes)) - 0.5:
        axes.add_patch(Rectangle((at, at), 1, 1, fill=False, edgecolor=INK, linewidth=0.8, clip_on=False))


def outcomes(table: pd.DataFrame, adapters: Sequence[tuple[str, str]], say: Say) -> Figure:
    """Draw a row an adapter and a panel a group of the base model's classes, with bars of what became of them."""
    table = table.assign(before=table["base_class"].map(GROUP_OF), after=table["tuned_class"].map(GROUP_OF))
    keys = {"index": ["before", "model", "variant"], "columns": "after"}
    counts = table.pivot_table(**keys, values="n", aggfunc="sum", fill_value=0)
    counts = counts.reindex(columns=list(ERROR_GROUPS), fill_value=0)
    rows, panels, parts = Rows.of(adapters), [], []
    for before in (name for name in ERROR_GROUPS if name in {*table["before"]}):
        part = counts.loc[before].reindex(pd.MultiIndex.from_tuples(adapters), fill_value=0)
        name = say.word("figures.errors.base", name=say.word(f"figures.errors.groups.{before}"))
        alone = (name, (0, 100))
        panels.append(alone if rows.headings else plots.panel(name, part.iloc[0].sum(), (0, 100), say))
        parts.append(part)
    figure, drawn = plots.strips(say, rows, panels, "%")
    for axes, part in zip(drawn, parts, strict=True):
        row = [rows.places[run] for run in adapters]
        ends = 100 * part.cumsum(axis=1).div(part.sum(axis=1), axis=0)
        starts = ends.shift(axis=1, fill_value=0)
        for after, (fill, ink) in zip(ERROR_GROUPS, GROUP_COLOURS, strict=True):
            axes.hlines(row, starts[after], ends[after], color=fill, linewidth=72 * plots.ROW - 4)
            for y, n, start, end in zip(row, part[after], starts[after], ends[after], strict=True):
                if n and end - start > 1.5 * len(panels) * (len(str(n)) + 1):
                    axes.text((start + end) / 2, y, say.count(n), **plots.MIDDLE, color=ink, size=7.5)
        for heading in rows.headings:
            n = part.loc[rows.names[heading]].iloc[0].sum()
            axes.text(1, heading, f"n = {say.count(n)}", va="center", size=8)
    return figure
