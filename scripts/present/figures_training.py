"""Figures of the training: losses, seeds, the way from base to adapter, and few-shot examples instead of training."""

import math
import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from present import plots
from present.figures_results import GUIDE, crossed_points, darker, named, plane_axes
from present.format import Say
from present.plots import BLUE, COLOURS, DASHED, GREY, INK, LETTER, ORANGE, WIDTH, Results, Rows, mark
from present.values import ALL, BASE, MEASURES, SEED, trained

# So many of a model's adapters stand beside its prompts.
MOST_LINES = 4
RANGE, SPREAD = Patch(color="#DDDDDD"), Patch(color="#CFE3F0")
# Around the checkpoint that was kept.
KEPT = mark(INK, markersize=9, markerfacecolor="none")
BASE_LOOK, SOUP_LOOK, SEED_LOOK = mark(GREY, hollow=True), mark(INK, "D", hollow=True), mark(BLUE, "D", markersize=5)


def loss(results: Results, say: Say) -> Figure:
    """Draw a panel an adapter with its loss on the training and the validation rows, and the range of its model's."""
    title, reports = say.word("figures.loss.title"), [report for *_, report in results.reports]
    if not reports:
        return plots.sentence(title, say.word("figures.loss.no_adapters"))
    runs = [(model, variant) for model, variant, _ in results.reports]
    beside = min(len(runs), 2 if len(runs) in (2, 4) else 3 if len(runs) <= 9 else 5)
    letters = int((WIDTH - 0.8) / beside / LETTER) - 1
    figure, drawn = plots.grid(
        len(runs), beside, {1: 2.9, 2: 2.3, 3: 1.9, 5: 1.35}[beside], WIDTH if beside > 1 else 5.8
    )
    values = [value for report in reports for curve in loss_curves(report) for _, value in curve]
    highest = 1.04 * max(values, default=1) or 1
    ranges = {model: loss_range(results, model) for model in dict(runs)}
    for number, (axes, name, (model, _)) in enumerate(zip(drawn, named(runs), runs, strict=True)):
        axes.set_title("\n".join(textwrap.wrap(plots.shortened([name], 3 * letters)[0], letters)))
        if ranges[model]:
            axes.fill_between(*ranges[model], color=RANGE.get_facecolor(), linewidth=0, zorder=1)
        loss_lines(axes, reports[number], say, 4 if beside < 5 else 2.5)
        # Not shared axes: matplotlib's time for these grows with the square of their number.
        axes.set(xlim=(0, max(report["steps"] for report in reports)), ylim=(0, highest))
        plots.numbers(axes.xaxis, say, 4)
        plots.numbers(axes.yaxis, say, 5)
        last, first = number + beside >= len(runs), number % beside == 0
        axes.tick_params(labelbottom=last, labelleft=first)
        axes.set_xlabel(say.word("figures.loss.step") if last else "")
        axes.set_ylabel(say.word("figures.loss.loss") if first else "")
    evaluated = any(report["eval_history"] for report in reports)
    looks = {
        "training": {"color": BLUE},
        "validation": mark(ORANGE, markersize=4, linestyle=DASHED) if evaluated else None,
        "kept": KEPT if any(report.get("best_step") is not None for report in reports) else None,
        "range": RANGE if any(ranges.values()) else None,
    }
    entries = [(look, say.word(f"figures.loss.{name}")) for name, look in looks.items() if look]
    rows = " / ".join(say.count(n) for n in sorted({report["rows"] for report in reports}))
    shown = say.word("figures.loss.evaluated" if evaluated else "figures.loss.not_evaluated")
    plots.frame(figure, title, [shown, say.word("figures.loss.rows", n=rows)], entries)
    return figure


def loss_curves(report: Mapping) -> list[list[tuple[int, float]]]:
    """Steps and losses of an adapter on the training and on the validation rows."""
    names = {"history": "loss", "eval_history": "eval_loss"}
    return [[(entry["step"], entry[key]) for entry in report[name]] for name, key in names.items()]


def loss_lines(axes: Axes, report: Mapping, say: Say, size: float) -> None:
    """Draw the losses of one adapter, with a ring around the checkpoint that was kept."""
    own, held_out = loss_curves(report)
    if own:
        axes.plot(*zip(*own, strict=True), color=BLUE, marker="o" if len(own) < 3 else "", markersize=size)
    if held_out:
        axes.plot(*zip(*held_out, strict=True), **mark(ORANGE, markersize=size, linestyle=DASHED))
    for step, value in held_out:
        if step == report.get("best_step"):
            axes.plot(step, value, **KEPT)
    if not own and not held_out:
        axes.text(0.5, 0.5, say.word("figures.loss.none"), **plots.MIDDLE, color=GREY, transform=axes.transAxes)


def loss_range(results: Results, model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Steps, and the least and the greatest training loss of a model's adapters at each; None without several."""
    curves = [np.array(loss_curves(report)[0]) for name, _, report in results.reports if name == model]
    curves = [curve for curve in curves if len(curve)]
    if len(curves) < 2:
        return None
    steps = np.unique(np.concatenate(curves)[:, 0])
    values = [np.interp(steps, *curve.T, left=np.nan, right=np.nan) for curve in curves]
    return steps, np.nanmin(values, axis=0), np.nanmax(values, axis=0)


def seeds(results: Results, say: Say) -> Figure:
    """Draw a row a seed below its setting: the difference from the base, and the settings' mean and deviation."""
    title, table = say.word("figures.seeds.title"), results.seeds
    if table.empty:
        return plots.sentence(title, say.word("figures.seeds.none"))
    shown = results.comparisons[results.comparisons["category"] == ALL]
    swept = [name for name in shown.columns if "." in name and name != SEED]
    several = table["model"].nunique() > 1
    names, headings, marks, spreads = [], [], [], []
    for (model, setting), spread in table.groupby(["model", "setting"], sort=False):
        alike = shown[(shown["model"] == model) & (shown[swept] == spread.iloc[0][swept]).all(axis=1)]
        headings.append(top := len(names))
        own = {seed: row for row, seed in enumerate(dict.fromkeys(alike[SEED]), top + 1)}
        names.append(f"{model} {setting}".strip() if several else setting or model)
        names += [say.word("figures.seeds.seed", n=seed) for seed in own]
        marks.append(alike.assign(row=alike[SEED].map(own)).drop_duplicates(["measure", SEED]))
        spreads.append(spread.assign(first=top + 0.5, last=top + len(own) + 0.5))
    marks, spreads = pd.concat(marks), pd.concat(spreads)
    limits = plots.difference_limits([*shown["low"], *shown["high"]])
    counts = shown.drop_duplicates("measure").set_index("measure")["n"]
    panels = [plots.panel(say.word(f"figures.measures.{name}"), counts[name], limits, say) for name in MEASURES]
    figure, drawn = plots.strips(say, Rows(names, headings), panels, say.word("figures.pp"))
    for axes, measure in zip(drawn, MEASURES, strict=True):
        axes.axvline(0, color=GREY, linewidth=1)
        for row in spreads[spreads["measure"] == measure].itertuples():
            mean, sd, colour = row.mean_difference_pp, row.sd_pp, SPREAD.get_facecolor()
            axes.fill_betweenx([row.first, row.last], mean - sd, mean + sd, color=colour, linewidth=0)
            axes.vlines(mean, row.first, row.last, **GUIDE)
            text = say.word("figures.seeds.spread", mean=say.signed(mean), sd=say.number(sd))
            axes.text(0.01, row.first - 0.5, text, transform=axes.get_yaxis_transform(), va="center", size=8)
        plots.intervals(axes, marks[marks["measure"] == measure], SEED_LOOK)
    looks = {"adapter": SEED_LOOK, "mean": GUIDE, "deviation": SPREAD}
    entries = [(look, say.word(f"figures.seeds.{name}")) for name, look in looks.items()]
    difference = say.word("figures.differences.shown", **plots.facts(results.points, say))
    plots.frame(figure, title, [difference, say.word("figures.seeds.alike")], entries)
    return figure


def strength(results: Results, say: Say) -> Figure:
    """Draw the ways from base model to adapter by what the adapter's change of the weights is multiplied by."""
    return way(results, "strength", {(model, variant): 1.0 for model, variant, _ in results.reports}, say)


def trajectory(results: Results, say: Say) -> Figure:
    """Draw the ways from base model to adapter by the checkpoints of the training."""
    # The step whose weights are the adapter's.
    last = {(model, variant): report["best_step"] or report["steps"] for model, variant, report in results.reports}
    return way(results, "step", last, say)


def way(results: Results, axis: str, ends: Mapping[tuple[str, str], float], say: Say) -> Figure:
    """Draw both accuracies along the ways from base to adapter, and the ways themselves in the plane of the two.

    Args:
        axis: strength or step.
        ends: by model and variant, where on the axis each trained adapter is; its base model is at 0.
    """
    points = results.points.assign(base=results.points["variant"] == BASE)
    paths = way_points(points, axis, ends)
    few = len(paths) <= len(COLOURS)
    looks = [mark(BLUE, markersize=3, alpha=0.6, linestyle="-")] * len(paths)
    if few:
        looks = [mark(colour, shape, linestyle="-") for colour, shape in zip(COLOURS, plots.SHAPES, strict=True)]
    drawn = list(zip(paths.values(), looks, strict=False))
    figure = plots.new(6.6)
    places = figure.add_gridspec(2, 2, height_ratios=(2.6, 4))
    every = pd.concat(paths.values())
    for column, measure in enumerate("xy"):
        axes = figure.add_subplot(places[0, column], xlabel=say.word(f"figures.{axis}.axis"))
        accuracy_axis(axes, points, measure, say)
        axes.set_ylim(plots.percent_limits(every[f"{measure}_low"], every[f"{measure}_high"]))
        plots.numbers(axes.xaxis, say, 5)
        if axis == "strength" and every["position"].nunique() <= 7:
            axes.set_xticks(sorted(set(every["position"])))
        for path, look in drawn:
            accuracy_line(axes, path, "position", measure, look)
    axes = figure.add_subplot(places[1, :])
    bases, soups = points[points["base"]], points[points["variant"].str.startswith("soup-") & (axis == "strength")]
    models = {model for model, _ in paths}
    bases, soups = (part[part["model"].isin(models)] for part in (bases, soups))
    labels = [bases.assign(label=say.word("figures.base_label"), ink=GREY)]
    labels.append(soups.assign(label=plots.shortened(list(soups["variant"]), 36), ink=INK))
    for path, look in drawn:
        positions = [plots.written(value, say) if few else "" for value in path["position"]]
        labels.append(path.assign(label=positions, ink=darker(look["color"]))[~path["base"]])
    labels = pd.concat(labels, ignore_index=True)
    plane_axes(axes, labels, say)
    for path, look in drawn:
        # The base model is one point, of all ways.
        if few:
            crossed_points(axes, path[~path["base"]], look | {"linestyle": "none"})
        axes.plot(path["x"], path["y"], **look)
    for part, look in ((bases, BASE_LOOK), (soups, SOUP_LOOK)):
        crossed_points(axes, part, look)
    entries = list(zip(looks, named(list(paths)), strict=False)) if few else []
    entries.append((BASE_LOOK, say.word("figures.base")))
    entries += [(SOUP_LOOK, say.word("figures.soup"))] if len(soups) else []
    shown = (f"{axis}.shown", "questions", "bars_and_crosses")
    sentences = [say.word(f"figures.{name}", **plots.facts(points, say)) for name in shown]
    plots.frame(figure, say.word(f"figures.{axis}.title"), sentences, entries)
    plots.label(axes, labels)
    return figure


def accuracy_axis(axes: Axes, points: pd.DataFrame, measure: str, say: Say) -> None:
    """Name a vertical axis of an accuracy, x or y of the points."""
    title = say.word("figures.accuracy" if measure == "x" else "figures.mmlu", **plots.facts(points, say))
    axes.set_ylabel(textwrap.fill(title, 36))
    plots.numbers(axes.yaxis, say)


def accuracy_line(axes: Axes, points: pd.DataFrame, by: str, measure: str, look: dict) -> None:
    """Draw accuracies with their intervals along a column."""
    ends = (points[f"{measure}_low"], points[f"{measure}_high"])
    axes.vlines(points[by], *ends, color=look["color"], alpha=0.45, linewidth=1.1)
    axes.plot(points[by], points[measure], **look)


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
    """Draw the base model's execution accuracy by the number of few-shot examples, beside its best adapters'."""
    points = results.points
    shown = points[points["shots"].notna()].sort_values("shots")
    adapters = trained(points)
    adapters = adapters[adapters["variant"] != BASE].sort_values("x", ascending=False, kind="stable")
    models = list(dict.fromkeys(shown["model"]))
    best = adapters[adapters["model"].isin(models)].groupby("model").head(MOST_LINES)
    figure, drawn = plots.grid(len(models), 1, 2.9)
    for axes, model in zip(drawn, models, strict=True):
        accuracy_axis(axes, points, "x", say)
        axes.set(
            ylim=plots.percent_limits([*shown["x_low"], *best["x"]], [*shown["x_high"], *best["x"]]),
            xlabel=say.word("figures.shots.axis"),
            title=plots.shortened([model], 60)[0] if len(models) > 1 else "",
        )
        plots.numbers(axes.xaxis, say)
        axes.set_xticks(sorted(set(shown["shots"])))
        runs = shown[shown["model"] == model]
        accuracy_line(axes, runs, "shots", "x", mark(BLUE, linestyle="-"))
        own = runs[runs["variant"] == BASE]
        axes.plot(own["shots"], own["x"], **mark(BLUE, hollow=True))
        adapter_lines(axes, best[best["model"] == model])
    line = {"color": ORANGE, "linestyle": DASHED}
    looks = {"base": mark(BLUE, hollow=True), "shots.other": mark(BLUE), "shots.adapter": line}
    entries = [(look, say.word(f"figures.{name}")) for name, look in looks.items()]
    facts = plots.facts(points, say)
    sentences = [say.word(f"figures.shots.{name}", **facts) for name in ("shown", "questions", "bars")]
    if len(adapters) > len(best):
        sentences.append(say.word("figures.shots.lines", n=say.count(MOST_LINES)))
    plots.frame(figure, say.word("figures.shots.title"), sentences, entries)
    return figure


def adapter_lines(axes: Axes, adapters: pd.DataFrame) -> None:
    """Draw a line at the accuracy of each adapter, from the highest, with its name at the right."""
    low, high = axes.get_ylim()
    room, free = 0.065 * (high - low), math.inf
    for x, name in zip(adapters["x"], plots.shortened(list(adapters["variant"]), 30), strict=True):
        axes.axhline(x, color=ORANGE, linestyle=DASHED, linewidth=1.2)
        # No name covers another.
        free = min(x, free - room)
        place = {"xy": (1, free), "xytext": (4, 0), "xycoords": ("axes fraction", "data")}
        axes.annotate(name, **place, textcoords="offset points", va="center", color=darker(ORANGE))
