"""Figures of the training: losses, seeds, the way from base to adapter, and few-shot examples instead of training."""

import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from present import plots
from present.figures_results import GUIDE, plane_axes, plane_points
from present.format import Say
from present.plots import BLUE, COLOURS, DASHED, GREY, INK, ORANGE, WIDTH, Results, mark, named
from present.values import ALL, BASE, SEED, is_point, trained

# So many of a model's adapters stand beside its prompts.
MOST_LINES = 4
KEPT = mark(INK, markersize=9, markerfacecolor="none")
BASE_LOOK, SOUP_LOOK, SEED_LOOK = mark(GREY, hollow=True), mark(INK, "D", hollow=True), mark(BLUE, "D", markersize=5)


def loss(results: Results, say: Say) -> Figure:
    """Draw a panel an adapter with its loss on the training and the validation rows, and the range of its model's."""
    reports = [report for *_, report in results.reports]
    if not reports:
        return plots.sentence(say, "loss.title", "notes.no_adapters")
    runs = [(model, variant) for model, variant, _ in results.reports]
    entries = [
        {"loss": np.nan, "eval_loss": np.nan} | entry | {"model": model, "run": run, "best": report.get("best_step")}
        for run, (model, _, report) in enumerate(results.reports)
        for entry in (*report["history"], *report["eval_history"])
    ]
    curves = pd.DataFrame(entries, columns=["model", "run", "step", "loss", "eval_loss", "best"])
    beside = min(len(runs), 2 if len(runs) in (2, 4) else 3 if len(runs) <= 9 else 5)
    figure = plots.new(-(-len(runs) // beside) * (1 + 2 / beside), WIDTH if beside > 1 else 5.8)
    highest = np.nanmax([0.01, *curves["loss"], *curves["eval_loss"]])
    for number, (axes, name) in enumerate(zip(plots.grid(figure, len(runs), beside), named(runs), strict=True)):
        loss_lines(axes, curves[curves["model"] == runs[number][0]], number, say)
        axes.set_title(textwrap.fill(plots.shortened([name], 200 // beside)[0], 80 // beside))
        # Not shared axes: matplotlib's time for these grows with the square of their number.
        axes.set(xlim=(0, max(report["steps"] for report in reports)), ylim=(0, 1.04 * highest))
        plots.numbers(axes.xaxis, say, 4)
        plots.numbers(axes.yaxis, say, 5)
        axes.set(xlabel=say.word("figures.loss.step"), ylabel=say.word("figures.loss.loss"))
        axes.label_outer()
    rows = " / ".join(say.count(n) for n in sorted({report["rows"] for report in reports}))
    evaluated = "evaluated" if any(report["eval_history"] for report in reports) else "not_evaluated"
    return plots.frame(figure, say, ("loss.title", f"loss.{evaluated}", "loss.rows"), {"n": rows})


def loss_lines(axes: Axes, curves: pd.DataFrame, run: int, say: Say) -> None:
    """Draw the losses of one adapter, a ring around the checkpoint that was kept, and the range of its model's."""
    own = curves[curves["run"] == run]
    looks = {
        "training": ("loss", own, {"color": BLUE, "marker": "."}),
        "validation": ("eval_loss", own, mark(ORANGE, markersize=4, linestyle=DASHED)),
        "kept": ("eval_loss", own[own["step"] == own["best"]], KEPT),
    }
    for name, (column, part, look) in looks.items():
        if len(drawn := part.dropna(subset=column)):
            axes.plot("step", column, data=drawn, **look, label=say.word(f"figures.loss.{name}"))
    if own.empty:
        axes.text(0.5, 0.5, say.word("figures.loss.none"), **plots.MIDDLE, color=GREY, transform=axes.transAxes)
    every = curves.pivot_table("loss", "step", "run").interpolate("index", limit_area="inside")
    if every.shape[1] > 1:
        look = {"color": "#DDDDDD", "linewidth": 0, "zorder": 1, "label": say.word("figures.loss.range")}
        axes.fill_between(every.index, every.min(axis=1), every.max(axis=1), **look)


def seeds(results: Results, say: Say) -> Figure:
    """Draw a row a training below its setting: the difference from the base, with the settings' mean and interval."""
    several = results.settings[(results.settings["seeds"] > 1) & (results.settings["category"] == ALL)]
    several = several[~is_point(several)]
    if several.empty:
        return plots.sentence(say, "seeds.title", "seeds.none")
    shown = results.runs[results.runs["category"] == ALL].drop(columns=["x_low", "x_high"])
    means = several[["model", "variant", "task", "x", "x_low", "x_high"]].rename(
        columns={"variant": "setting", "x": "mean", "x_low": "low", "x_high": "high"}
    )
    shown = shown.merge(means, on=["model", "setting", "task"])
    prefix = shown["model"] + " " if shown["model"].nunique() > 1 else ""
    shown["group"] = prefix + shown["setting"]
    shown["seed"] = shown[SEED].map(lambda seed: say.word("figures.seeds.seed", n=seed))
    rows = plots.rows_of(zip(shown["group"], shown["seed"], strict=True), headed=True)
    parts = plots.placed(shown, rows, "group", "seed").groupby("task", sort=False)
    panels = [(say.about("forms.cell", results.tasks[task]), part["n"].iloc[0], part) for task, part in parts]
    figure, drawn = plots.strips(say, rows, [panels], say.word("figures.pp"))
    words = {name: say.word(f"figures.seeds.{name}") for name in ("adapter", "mean", "interval")}
    for axes, part in drawn.items():
        axes.axvline(0, color=GREY, linewidth=1)
        plots.marks(axes, part, "x", "row", SEED_LOOK | {"label": words["adapter"]})
        for _, own in part.groupby("group", sort=False):
            first, last = own["row"].min() - 0.5, own["row"].max() + 0.5
            mean, low, high = own[["mean", "low", "high"]].iloc[0]
            axes.vlines(mean, first, last, **GUIDE, label=words["mean"])
            look = {"color": "#CFE3F0", "linewidth": 0, "label": words["interval"]}
            axes.fill_betweenx([first, last], low, high, **look)
            text = say.word("figures.seeds.spread", mean=say.signed(mean))
            axes.text(0.01, first - 0.5, text, transform=axes.get_yaxis_transform(), va="center", size=8)
    shown = ("seeds.title", "differences.shown", "questions", "seeds.alike")
    return plots.frame(figure, say, shown, results.facts(say))


def equal_gain(results: Results, say: Say) -> Figure:
    """Draw a panel a yardstick: what settings changed on it by what they gained on the target, along their way."""
    target, *yardsticks = results.tasks
    table = results.settings[results.settings["category"] == ALL]
    whole = table[table["strength"].notna() | table["step"].notna() | ~is_point(table)]
    name = results.tasks[target].name
    # A way is that of a setting: interpolations, or else checkpoints, and the setting itself at the end.
    way = whole["of"].where(is_point(whole), whole["variant"])
    axis = whole["strength"].notna().groupby([whole["model"], way]).transform("any")
    place = whole["strength"].where(axis, whole["step"]).where(is_point(whole), np.inf)
    whole = whole.assign(way=way, place=place)[place.notna()].sort_values("place", kind="stable")
    ways = [run for run, own in whole.groupby(["model", "way"], sort=False) if own["place"].nunique() > 1]
    figure = plots.new(3.4 * -(-len(yardsticks) // 2), 5.4 if len(yardsticks) == 1 else WIDTH)
    panels = plots.grid(figure, len(yardsticks), 2)
    looks = [mark(*look, linestyle="-") for look in zip(COLOURS, plots.SHAPES, strict=True)]
    for axes, task in zip(panels, yardsticks, strict=True):
        margin = -whole["margin_pp"].iloc[0]
        label = say.word("figures.equal_gain.margin", margin=say.short(-margin))
        axes.axhline(margin, color=GREY, linestyle=plots.DOTTED, label=label)
        for number, (run, text) in enumerate(zip(ways, named(ways), strict=True)):
            own = whole[(whole["model"] == run[0]) & (whole["way"] == run[1])]
            x, y = (own.loc[own["task"] == one, ["place", "x"]].set_index("place")["x"] for one in (target, task))
            line = pd.concat([pd.Series([0.0]), x]), pd.concat([pd.Series([0.0]), y])
            axes.plot(*line, **looks[number % len(looks)], label=text)
        axes.axhline(0, color=GREY, linewidth=0.8)
        plots.numbers(axes.xaxis, say)
        plots.numbers(axes.yaxis, say)
        axes.set_xlabel(say.word("figures.equal_gain.gain", target=name))
        axes.set_ylabel(say.word("figures.equal_gain.change", name=results.tasks[task].name))
    shown = ("equal_gain.title", "equal_gain.shown", "questions")
    return plots.frame(figure, say, shown, results.facts(say) | {"target": name})


def strength(results: Results, say: Say) -> Figure:
    """Draw the ways from base model to adapter by what the adapter's change of the weights is multiplied by."""
    return way(results, "strength", dict.fromkeys(plots.runs_of(results.points), 1.0), say)


def trajectory(results: Results, say: Say) -> Figure:
    """Draw the ways from base model to adapter by the checkpoints of the training."""
    # The step whose weights are the adapter's.
    last = {(model, variant): report["best_step"] or report["steps"] for model, variant, report in results.reports}
    return way(results, "step", last, say)


def way(results: Results, axis: str, ends: Mapping[tuple[str, str], float], say: Say) -> Figure:
    """Draw the accuracies along the ways from base to adapter, and the ways in the plane of target and yardstick.

    `ends` says by model and variant where on the axis, strength or step, each adapter is; its base model is at 0.
    """
    target, *yardsticks = tasks = list(results.tasks)
    name = "strength" if axis == "strength" else "trajectory"
    points = results.points.assign(
        base=results.points["variant"] == BASE, ink=GREY, label=say.word("figures.base_label")
    )
    paths = way_points(points, axis, ends)
    few = len(paths) <= len(COLOURS)
    looks = [mark(BLUE, markersize=3, alpha=0.6, linestyle="-")] * len(paths)
    if few:
        looks = [mark(*look, linestyle="-") for look in zip(COLOURS, plots.SHAPES, strict=True)]
    paths = [
        (path.assign(label=path["position"].map(say.short), ink=plots.darker(look["color"])), look, run)
        for path, look, run in zip(paths.values(), looks, named(list(paths)), strict=False)
    ]
    every = pd.concat(path for path, *_ in paths)
    points = points[points["model"].isin(every["model"])]
    soups = points[points["variant"].str.startswith("soup-") & (axis == "strength")]
    soups = soups.assign(label=plots.shortened(list(soups["variant"]), 36), ink=INK)
    heights = 2.5 * -(-len(tasks) // 2), 3.9 * (len(tasks) // 2)
    figure = plots.new(sum(heights))
    upper, *lower = figure.subfigures(2, height_ratios=heights) if yardsticks else [figure]
    for axes, task in zip(plots.grid(upper, len(tasks), 2), tasks, strict=True):
        for path, look, run in paths:
            look = look | {"label": run if few else ""}
            plots.marks(axes, path[path["task"] == task], "position", "x", look)
        plots.accuracy_axis(axes, "y", results.tasks[task], say)
        plots.numbers(axes.xaxis, say, 5)
        axes.set_xlabel(say.word(f"figures.{name}.axis"))
        if axis == "strength" and every["position"].nunique() <= 7:
            axes.set_xticks(sorted(set(every["position"])))
    labels = {}
    for axes, task in zip(plots.grid(lower[0], len(yardsticks), 2) if lower else (), yardsticks, strict=True):
        # The base model is one point, of all ways.
        others = [plane_points(part, target, task) for part in (points[points["base"]], soups)]
        labels[axes] = others.copy()
        for path, look, _ in paths:
            line = plane_points(path, target, task)
            plots.marks(axes, line[["x", "y"]], "x", "y", look)
            if few:
                labels[axes].append(line[~line["base"]])
                plots.marks(axes, labels[axes][-1], "x", "y", look | {"linestyle": ""})
        for part, look, word in zip(others, (BASE_LOOK, SOUP_LOOK), ("base", "soup"), strict=True):
            plots.marks(axes, part, "x", "y", look | {"label": say.word(f"figures.{word}")})
        plane_axes(axes, others[0], (results.tasks[target], results.tasks[task]), say)
    shown = (f"{name}.title", f"{name}.shown", "questions", "bars_and_crosses")
    done = plots.frame(figure, say, shown, results.facts(say))
    for axes, parts in labels.items():
        plots.label(axes, pd.concat(parts, ignore_index=True))
    return done


def way_points(
    points: pd.DataFrame, axis: str, ends: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], pd.DataFrame]:
    """By model and adapter, its points in the order of their `position`, from the base model at 0."""
    found = {}
    for (model, adapter), path in points[points[axis].notna()].groupby(["model", "of"], sort=False):
        own = points[points["model"] == model]
        outer = own["variant"].map({BASE: 0.0, adapter: ends[model, adapter]})
        # With the strength 0 there may be a point beside the base model, whose prompts are then others.
        added = own.assign(position=outer)[outer.notna() & ~outer.isin(path[axis])]
        path = pd.concat([added, path.assign(position=path[axis])])
        found[model, adapter] = path.sort_values("position", kind="stable")
    return found


def shots(results: Results, say: Say) -> Figure:
    """Draw the base model's accuracy on the target by the number of few-shot examples, beside its best adapters'."""
    key, target = next(iter(results.tasks.items()))
    points = results.points[results.points["task"] == key]
    shown = points[points["shots"].notna()].sort_values("shots")
    adapters = trained(points)
    adapters = adapters[adapters["variant"] != BASE].sort_values("x", ascending=False, kind="stable")
    models = list(dict.fromkeys(shown["model"]))
    best = adapters[adapters["model"].isin(models)].groupby("model").head(MOST_LINES)
    figure = plots.new(2.9 * len(models))
    for axes, model in zip(plots.grid(figure, len(models), 1), models, strict=True):
        runs = shown[shown["model"] == model]
        plots.marks(axes, runs, "shots", "x", mark(BLUE, linestyle="-", label=say.word("figures.shots.other")))
        hollow = mark(BLUE, hollow=True, label=say.word("figures.base"))
        plots.marks(axes, runs.loc[runs["variant"] == BASE, ["shots", "x"]], "shots", "x", hollow)
        own = best[best["model"] == model]
        for x in own["x"]:
            axes.axhline(x, color=ORANGE, linestyle=DASHED, label=say.word("figures.shots.adapter"))
        plots.accuracy_axis(axes, "y", target, say)
        (low, high), free = axes.get_ylim(), np.inf
        for x, name in zip(own["x"], plots.shortened(list(own["variant"]), 30), strict=True):
            # No name covers another.
            free = min(x, free - 0.065 * (high - low))
            place = {"xy": (1, free), "xytext": (4, 0), "xycoords": ("axes fraction", "data")}
            axes.annotate(name, **place, textcoords="offset points", va="center", color=plots.darker(ORANGE))
        axes.set(xlabel=say.word("figures.shots.axis"), title=model if len(models) > 1 else "")
        plots.numbers(axes.xaxis, say)
        axes.set_xticks(sorted(set(shown["shots"])))
    shown = ["shots.title", "shots.shown", "questions", "shots.bars"]
    shown += ["shots.lines"] if len(adapters) > len(best) else []
    return plots.frame(figure, say, shown, results.facts(say, points) | {"n": say.count(MOST_LINES)})
