"""Figures of the results: learning against forgetting, differences, parts of the questions, databases, errors."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from present import plots
from present.format import Say
from present.plots import BLUE, COLOURS, GREY, INK, ORANGE, WIDTH, Results, adapters_of, mark, named, runs_of
from present.values import ALL, BASE, CLASSES, GAINED, GOLD_EMPTY, GOLD_NOT_EMPTY, LOST, SEED, UNDECIDED, is_point

# More adapters than this get a number at the point and a key below; only the recommended one keeps its cross.
MOST_LABELS = 12
# More adapters than this get the figures that have less detail and room for all of them.
MOST_PANELS, MOST_MATRICES = 6, 3
# So many cells stand beside each other.
MOST_CELLS = 16
# Classes of errors that are rarer than this share of the questions are drawn as one.
RARE = 0.01
OTHER = "other_classes"
PART = ["task", "model", "variant"]
SIDES = ["base_class", "tuned_class"]
# Where there is room for few classes: right, other rows (to `duplicate_only`), did not run (to `forbidden`), no SQL.
GROUPS = {"ok": CLASSES[:1], "other_rows": CLASSES[1:6], "not_run": CLASSES[6:14], "no_sql": CLASSES[14:]}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
ENDS = ("", "_low", "_high")
BASE_LOOK, ADAPTER_LOOK = mark(INK, hollow=True), mark(BLUE, "D", markersize=5)
SEED_LOOK = mark(INK, "|", markersize=5)
GUIDE = {"color": INK, "linestyle": plots.DOTTED, "linewidth": 1}
# Around the recommended run.
RING = mark(INK, markersize=13, markerfacecolor="none")


def plane_points(points: pd.DataFrame, target: str, yardstick: str) -> pd.DataFrame:
    """A row a run: its accuracy on the target as x, on a yardstick as y."""
    x, y = (points[points["task"] == task] for task in (target, yardstick))
    run = ["model", "variant", *(["position"] if "position" in points else [])]
    names = {"x": "y", "x_low": "y_low", "x_high": "y_high"}
    return x.merge(y[[*run, *names]].rename(columns=names), on=run, validate="one_to_one")


def tradeoff(results: Results, say: Say) -> Figure:
    """Draw of each yardstick two planes: accuracies of base and settings, and their paired differences with intervals.

    What was swept is encoded: a colour for each level of the first factor, a shape for each of the second, and a line
    along the first. Of several models each has its colour instead.
    """
    target, *yardsticks = results.tasks
    if not yardsticks:
        return plots.sentence(say, "tradeoff.title", "no_yardstick")
    points, legend = encoded(tradeoff_points(results), say)
    models, variants = (list(dict.fromkeys(points[name])) for name in ("model", "variant"))
    variants.remove(BASE)
    names, numbered = plots.shortened(variants, 30), len(adapters_of(points)) > MOST_LABELS
    labels = dict(zip(variants, map(str, range(1, len(names) + 1)) if numbered else names, strict=True))
    points["label"] = points["variant"].map(labels | {BASE: say.word("figures.base_label")})
    # With many settings of several models each model has planes of its own.
    apart = numbered and len(models) > 1
    planes = [(task, part) for task in yardsticks for part in ([[one] for one in models] if apart else [models])]
    # Where there is no setting there is no difference.
    kinds = ("accuracy", "x") if variants else ("accuracy",)
    figure, drawn = plots.new(3.3 * len(planes), WIDTH if variants else 4.5), []
    for line, (task, part) in zip(figure.subplots(len(planes), len(kinds), squeeze=False), planes, strict=True):
        shown, tasks = points[points["model"].isin(part)], (results.tasks[target], results.tasks[task])
        for axes, kind in zip(line, kinds, strict=True):
            runs = plane_points(shown.assign(**{f"x{end}": shown[f"{kind}{end}"] for end in ENDS}), target, task)
            # Intervals of differences stand beside the differences; of many, that of the recommended one alone.
            plain = ~runs["base"] if kind == "accuracy" else ~runs["best"] & numbered
            runs.loc[plain, ["x_low", "x_high", "y_low", "y_high"]] = np.nan
            single_trainings(axes, results, runs, (target, task), kind == "x")
            plane(axes, runs, legend, say)
            (plane_axes if kind == "accuracy" else change_axes)(axes, runs, tasks, say)
            axes.set_title(part[0] if apart else "")
            drawn.append((axes, runs))
    crosses = "tradeoff.crosses_best" if numbered else "tradeoff.crosses"
    shown = ["tradeoff.shown", "questions", "tradeoff.planes", crosses]
    shown = ["tradeoff.title", *(shown if variants else ["tradeoff.base_only", "questions", "bars_and_crosses"])]
    shown += ["tradeoff.dots"] if (points["seeds"] > 1).any() else []
    facts = results.facts(say) | {"margin": say.short(points["margin_pp"].max())}
    done = plots.frame(figure, say, shown, facts, names if numbered else ())
    for axes, runs in drawn:
        plots.label(axes, runs)
    return done


def tradeoff_points(results: Results) -> pd.DataFrame:
    """A row a base model or setting and task: its accuracy and its difference from the base, both with intervals."""
    settings = results.settings[results.settings["category"] == ALL]
    bases = results.points[results.points["variant"] == BASE]
    bases = bases.assign(**{f"accuracy{end}": bases[f"x{end}"] for end in ENDS}, x=0.0, x_low=np.nan, x_high=np.nan)
    points = pd.concat([bases, settings], ignore_index=True)
    best = [run in results.best for run in zip(points["model"], points["variant"], strict=True)]
    points = points.assign(best=best, base=points["variant"] == BASE)
    # An interpolation, checkpoint or soup has a point of its own only where it is the one recommended.
    return points[points["base"] | ~is_point(points) | points["best"]].reset_index(drop=True)


def encoded(points: pd.DataFrame, say: Say) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Add the look of each point: colour and shape, and the line that it is on with its place; and what looks mean."""
    models, factors = list(dict.fromkeys(points["model"])), []
    points = points.assign(colour=BLUE, shape="o", line="", place=0.0, ink=INK)
    legend = [mark(BLUE, label=say.word("figures.setting"))]
    if len(models) > 1:
        at = points["model"].map(models.index) % len(COLOURS)
        points = points.assign(colour=at.map(dict(enumerate(COLOURS))), shape=at.map(dict(enumerate(plots.SHAPES))))
        points["ink"] = points["colour"].map(plots.darker)
        legend = [mark(COLOURS[i % 6], plots.SHAPES[i % 6], label=model) for i, model in enumerate(models)]
    for axis in (name for name in points if "." in name and name != SEED):
        levels = {value for value in points[axis].fillna("").astype(str) if value}
        factors += [(axis, sorted(levels, key=plots.by_size))] if len(levels) > 1 else []
    for number, (axis, levels) in enumerate(sorted(factors, key=lambda factor: -len(factor[1]))[:2]):
        at = points[axis].fillna("").astype(str).map({level: float(place) for place, level in enumerate(levels)})
        known, words = at.notna(), [f"{say.axis(axis)} {level}" for level in levels]
        if number == 0:
            points["place"], points["line"] = at, known.map({True: "along", False: ""})
            colours = map(to_hex, plots.LEVELS(np.linspace(0, 1, len(levels))))
            looks = [mark(colour, label=word) for colour, word in zip(colours, words, strict=True)]
        else:
            points.loc[known, "line"] += " " + points.loc[known, axis].astype(str)
            shapes = [plots.SHAPES[place % len(plots.SHAPES)] for place in range(len(levels))]
            looks = [mark(GREY, shape, hollow=True, label=word) for shape, word in zip(shapes, words, strict=True)]
        if len(models) == 1:
            given = [look["color" if number == 0 else "marker"] for look in looks]
            points.loc[known, "shape" if number else "colour"] = [given[int(place)] for place in at[known]]
            legend = legend * number + looks
    return points, legend


def single_trainings(axes: Axes, results: Results, runs: pd.DataFrame, tasks: tuple[str, str], changes: bool) -> None:
    """Draw small marks for the trainings of settings with several seeds, around their setting."""
    shown = runs.loc[runs["seeds"] > 1, ["model", "variant"]].rename(columns={"variant": "setting"})
    single = results.runs[results.runs["category"] == ALL].merge(shown, on=["model", "setting"])
    value = "x" if changes else "tuned_accuracy_pct"
    x, y = (single.loc[single["task"] == task].set_index(["model", "variant"])[value] for task in tasks)
    axes.plot(x, y.reindex(x.index), ".", color=GREY, markersize=3, zorder=1.5)


def plane(axes: Axes, runs: pd.DataFrame, legend: Sequence[Mapping], say: Say) -> None:
    """Draw runs in a plane: lines along the first factor, points with crosses, and rings around the recommended."""
    for look in legend if not runs["base"].all() else ():
        axes.plot([], [], **look)
    for _, line in runs[runs["line"] != ""].groupby(["model", "line"], sort=False):
        line = line.sort_values("place")
        axes.plot(line["x"], line["y"], color=GREY, linewidth=0.8, zorder=1)
    several = runs["model"].nunique() > 1
    for (colour, shape, base), own in runs.groupby(["colour", "shape", "base"], sort=False):
        look = {"color": colour if several else INK, "markeredgewidth": 1.3 if base else 0.6}
        look |= {"label": say.word("figures.base")} if base else {}
        look["markerfacecolor"] = "white" if base else colour
        plots.marks(axes, own, "x", "y", mark(colour, shape) | {"markeredgecolor": INK} | look)
    plots.marks(axes, runs.loc[runs["best"], ["x", "y"]], "x", "y", RING | {"label": say.word("figures.recommended")})


def change_axes(axes: Axes, runs: pd.DataFrame, tasks: Sequence[Any], say: Say) -> None:
    """Set titles of the plane of two differences, with lines through no change and at the margin of what is lost."""
    for name, task in zip("xy", tasks, strict=True):
        axes.set(**{f"{name}label": textwrap.fill(say.about("figures.change_axis", task), 48 if name == "x" else 28)})
        plots.numbers(axes.xaxis if name == "x" else axes.yaxis, say)
    guide = {"color": GREY, "zorder": 0.9}
    axes.axhline(0, **guide, linewidth=0.8)
    axes.axvline(0, **guide, linewidth=0.8)
    axes.axhline(-runs["margin_pp"].max(), **guide, linewidth=1, linestyle=plots.DOTTED)
    axes.margins(0.08)


def plane_axes(axes: Axes, points: pd.DataFrame, tasks: Sequence[Any], say: Say) -> None:
    """Set titles and limits of the plane of two accuracies, with guides through one base, and where guessing is."""
    for name, task in zip("xy", tasks, strict=True):
        plots.accuracy_axis(axes, name, task, say)
    guide = {"color": GREY, "linewidth": 0.8, "zorder": 1}
    bases = points[points["base"]]
    if len(bases) == points["model"].nunique() == 1:
        axes.axvline(bases["x"].iloc[0], **guide, linestyle=plots.DOTTED)
        axes.axhline(bases["y"].iloc[0], **guide, linestyle=plots.DOTTED)
    chance, (low, high) = tasks[1].chance, axes.get_ylim()
    if low <= 100 * chance <= high and chance:
        axes.axhline(100 * chance, **guide, label=say.word("figures.chance", share=say.level(chance)))


def differences(results: Results, say: Say) -> Figure:
    """Draw the forest plot: a row an adapter, a panel a measure, the difference from the base with its interval."""
    table = results.settings[~is_point(results.settings)]
    if table.empty:
        return plots.sentence(say, "differences.title", "notes.no_adapters")
    target = next(iter(results.tasks))
    rows, headlines, others = plots.rows_of(adapters_of(table)), [], []
    for (key, category), part in plots.placed(table, rows).groupby(["task", "category"], sort=False):
        title = say.about("forms.cell", results.tasks[key]) + (
            "" if category == ALL else f", {say.level_of(category).replace('_', ' ')}"
        )
        panel = (title, part["n"].iloc[0], part)
        (headlines if category == ALL else others).append(panel)
    # Few adapters leave room for wide panels of the headlines, above those of the categories.
    lines = [headlines, others] if len(rows) <= MOST_LABELS else [headlines + others]
    figure, drawn = plots.strips(say, rows, lines, say.word("figures.pp"))
    looks = {GAINED: mark(BLUE, "^"), LOST: mark(ORANGE, "v"), UNDECIDED: mark(GREY, hollow=True)}
    trainings = results.runs[["model", "setting", "task", "category", "x"]].rename(columns={"setting": "variant"})
    for axes, part in drawn.items():
        axes.axvline(0, color=GREY, linewidth=1)
        if part["task"].iloc[0] != target:
            axes.axvline(-part["margin_pp"].iloc[0], color=GREY, linestyle=plots.DOTTED, linewidth=1)
        several = part[part["seeds"] > 1][["model", "variant", "task", "category", "row"]]
        one = several.merge(trainings, on=["model", "variant", "task", "category"])
        plots.marks(axes, one, "x", "row", SEED_LOOK | {"label": say.word("figures.seeds.adapter")})
        for verdict, look in looks.items():
            plots.marks(axes, part[part["verdict"] == verdict], "x", "row", look | {"label": say.verdict(verdict)})
    units = table[table["category"] == ALL].drop_duplicates("task").itertuples()
    nouns = say.words["nouns"]  # a task of one's own may have other columns
    units = [f"{nouns.get(row.unit, [row.unit])[-1]} ({results.tasks[row.task].name})" for row in units]
    facts = results.facts(say) | {"units": ", ".join(units), "margin": say.short(table["margin_pp"].iloc[0])}
    shown = ["differences.title", "differences.shown", "questions", "differences.verdicts"]
    shown += ["differences.margin"] if len(results.tasks) > 1 else []
    return plots.frame(figure, say, shown, facts)


def base_and_adapters(axes: Axes, table: pd.DataFrame, say: Say) -> None:
    """Draw the accuracies of base models and of adapters into their rows."""
    for look, name in ((BASE_LOOK, "base"), (ADAPTER_LOOK, "adapter")):
        part = table[(table["variant"] == BASE) == (name == "base")]
        plots.marks(axes, part, "x", "row", look | {"label": say.word(f"figures.{name}")})


def hardness(results: Results, say: Say) -> Figure:
    """Draw the accuracy of each run for all questions and for each level of hardness that has questions."""
    table = results.accuracy
    rows, lines, without = plots.rows_of(runs_of(table)), {}, []
    table = plots.placed(table[~table["questions"].isin([GOLD_NOT_EMPTY, GOLD_EMPTY])], rows)
    for (key, level), part in table.groupby(["task", "questions"], sort=False):
        name, n = say.level_of(level), part["n"].iloc[0]
        if n:
            several = table["task"].nunique() > 1
            title = f"{results.tasks[key].name}, {name}" if several else name
            lines.setdefault(key, []).append((title, n, part))
        else:
            without.append(name)
    figure, drawn = plots.strips(say, rows, lines.values(), "%")
    for axes, part in drawn.items():
        base_and_adapters(axes, part, say)
        base = part["variant"] == BASE
        if not base.all():
            last = part.groupby("model")["row"].transform("max")[base]
            axes.vlines(part["x"][base], part["row"][base], last, **GUIDE, label=say.word("figures.base_accuracy"))
    plots.percent(drawn)
    shown = ["hardness.title", "hardness.shown", "questions", *(["hardness.without"] if without else [])]
    facts = results.facts(say, table) | {"levels": ", ".join(without)}
    return plots.frame(figure, say, shown, facts)


def databases(results: Results, say: Say) -> Figure:
    """Draw the accuracy for each database: of each adapter beside its base, or the differences if many adapters."""
    order = [task.name for task in results.tasks.values()]
    table = results.databases.assign(task=results.databases["task"].map(lambda key: results.tasks[key].name))
    table["name"] = table["db_id"] + " (" + table["n"].map(say.count) + ")"
    mean = table[table["variant"] == BASE].groupby(["task", "name"])["x"].mean()
    names = sorted(mean.index, key=lambda name: (order.index(name[0]), -mean[name], name))
    adapters = adapters_of(table)
    if len(adapters) > MOST_PANELS:
        base = table["variant"] == BASE
        # A difference weighs with the root of its questions, so that 3 of 3 is not darker than 38 of 50.
        weighed = table["difference_pp"] * np.sqrt(table["n"])
        extreme = max(1.0, weighed.abs().max())
        texts = table["difference_pp"].map(lambda value: say.signed(value, 0)).where(~base, table["x"].map(say.count))
        table = table.assign(text=texts, share=(weighed / extreme).where(~base, 0))
        figure = run_cells(table, names)
    else:
        rows, runs = plots.rows_of(names), adapters or runs_of(table)
        panels = [(title, 0, run) for title, run in zip(named(runs), runs, strict=True)]
        figure, drawn = plots.strips(say, rows, [panels], "%")
        for axes, (model, variant) in drawn.items():
            part = table[(table["model"] == model) & table["variant"].isin([BASE, variant])]
            part = plots.placed(part, rows, "task", "name")
            part["row"] += np.where(part["variant"] == BASE, -0.2, 0.2) * bool(adapters)
            base_and_adapters(axes, part, say)
        plots.percent(drawn)
    facts = results.facts(say, results.databases) | {"m": say.count(len(names))}
    last = "databases.cells" if len(adapters) > MOST_PANELS else "databases.intervals"
    return plots.frame(figure, say, ("databases.title", "questions", "databases.shown", last), facts)


def run_cells(table: pd.DataFrame, columns: Sequence[tuple[str, str]]) -> SubFigure:
    """Draw the `share` and `text` of a table as cells, a row a run, with these columns: task and name of each."""
    rows = plots.rows_of(runs_of(table))
    table = plots.placed(table, rows).pivot(index="row", columns=["task", "name"], values=["share", "text"])
    table = table.reindex(range(len(rows)))
    # Headings are no missing values.
    table.loc[[row for (_, name), row in rows.items() if not name], "share"] = 0
    parts = np.array_split(columns, -(-len(columns) // MOST_CELLS))
    titles = plots.shortened([f"{task}: {name}" if len(dict(columns)) > 1 else name for task, name in columns], 30)
    titles, room = np.array_split(titles, len(parts)), 0.9 * plots.LETTER * max(map(len, titles)) + 0.6
    figure = plots.new(len(parts) * (plots.ROW * len(rows) + room))
    for axes, part, heads in zip(plots.grid(figure, len(parts), 1), parts, titles, strict=True):
        shares, texts = (table[value][[*map(tuple, part)]] for value in ("share", "text"))
        plots.cells(axes, shares.to_numpy(float), texts.fillna("").to_numpy(), heads)
        axes.set_xlim(-0.5, len(parts[0]) - 0.5)
        plots.write_rows(axes, rows)
    return figure


def error_flow(results: Results, say: Say) -> Figure:
    """Draw, for each adapter and task, how many answers of each class of the base model became which class."""
    table, adapters = results.confusion, adapters_of(results.confusion)
    if not adapters:
        return plots.sentence(say, "error_flow.title", "notes.no_adapters")
    few, words = len(adapters) <= MOST_MATRICES, say.words["classes"] | say.words["figures"]["error_flow"]["groups"]
    if few:
        figure = matrices(results, words, say)
    else:
        groups = table[SIDES].map(GROUP_OF.get)
        table = table.assign(task=table["task"].map(lambda key: results.tasks[key].name))
        table = table.assign(base=groups["base_class"], name=groups.map(words.get).agg(" → ".join, axis=1))
        counts = table.groupby([*PART, "base", "name"], sort=False)["n"].sum()
        shares = 0.85 * np.sqrt(counts / counts.max())
        table = pd.DataFrame({"share": shares, "text": counts.map(say.count)}).reset_index()
        pairs = [f"{words[before]} → {words[after]}" for before in GROUPS for after in GROUPS]
        columns = product([task.name for task in results.tasks.values()], pairs)
        found = {*zip(table["task"], table["name"], strict=True)}
        figure = run_cells(table, [column for column in columns if column in found])
    shown = ("error_flow.title", "questions", f"error_flow.{'cells' if few else 'pairs'}", "error_flow.right_means")
    return plots.frame(figure, say, shown, results.facts(say, results.confusion))


def matrices(results: Results, words: Mapping[str, str], say: Say) -> SubFigure:
    """Draw a matrix for each adapter and task, in which the classes that are rare for all adapters are one."""
    table = results.confusion.assign(share=results.confusion["n"] / results.confusion["questions"])
    parts = table.groupby(PART, sort=False)
    largest = pd.concat([part.groupby(side)["share"].sum() for _, part in parts for side in SIDES])
    rare = [name for name, share in largest.groupby(level=0).max().items() if share < RARE and name != "ok"]
    if len(rare) > 1:
        table = table.replace(dict.fromkeys(SIDES, dict.fromkeys(rare, OTHER)))
    found = {*table["base_class"], *table["tuned_class"]}
    classes = [name for name in (*CLASSES, OTHER) if name in found]
    names = [words[name] for name in (*classes, "sum")]
    letters = plots.LETTER * max(map(len, names))
    most = max(1, int(WIDTH / (letters + 0.4 * len(names) + 0.3)))
    height = 0.235 * len(names) + 0.9 * letters + 0.6
    figure = plots.new(-(-len(parts) // most) * height, WIDTH if most > 1 else 6.2)
    titles = dict(zip(runs_of(table), named(runs_of(table)), strict=True))
    for axes, ((key, *run), _) in zip(plots.grid(figure, len(parts), most), parts, strict=True):
        part = table.loc[parts.groups[key, *run]]
        matrix(axes, part, classes, names, say)
        task = f"{results.tasks[key].name}: " if table["task"].nunique() > 1 else ""
        axes.set_title(textwrap.fill(task + titles[*run], 48 // most), size=9.5)
    return figure


def matrix(axes: Axes, table: pd.DataFrame, classes: Sequence[str], names: Sequence[str], say: Say) -> None:
    """Draw one adapter's cells: a row a class before, a column a class after, with sums at the ends."""
    counts = table.pivot_table("n", *SIDES, "sum", margins=True, margins_name="sum")
    counts = counts.reindex(index=[*classes, "sum"], columns=[*classes, "sum"]).fillna(0).to_numpy(int)
    # By the number of questions, not by the share of the row: 3 of 3 is not darker than 38 of 50.
    shares = np.where(counts, 0.85 * np.sqrt(counts / max(1, counts[:-1, :-1].max())), np.nan)
    # The sums stand on white.
    shares[:, -1] = shares[-1] = 0
    texts = np.where(np.isnan(shares), "", [[say.count(n) for n in row] for row in counts])
    texts[-1, -1] = ""
    plots.cells(axes, shares, texts, names)
    axes.set_yticks(range(len(names)), names)
    for at in np.arange(len(classes)) - 0.5:
        axes.add_patch(Rectangle((at, at), 1, 1, fill=False, edgecolor=INK, linewidth=0.8, clip_on=False))
