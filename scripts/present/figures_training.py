"""Figures of the training: losses, seeds, the way from base to adapter, and few-shot examples instead of training."""

import math
import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from present.figures_results import (
    accuracy_title,
    criterion,
    crosses,
    darker,
    difference_sentence,
    named,
    plane_axes,
    questions,
)
from present.format import Say
from present.plots import (
    BLUE,
    COLOURS,
    DASHED,
    DOTTED,
    GREY,
    INK,
    LETTER,
    ORANGE,
    SHAPES,
    WIDTH,
    Panel,
    Results,
    Rows,
    difference_limits,
    frame,
    intervals,
    label,
    mark,
    new,
    numbers,
    percent_limits,
    sentence,
    shortened,
    strips,
    written,
)
from present.values import ALL, BASE, MEASURES, SEED, trained

# So many of a model's adapters stand beside its prompts.
MOST_LINES = 4
RANGE, SPREAD = "#DDDDDD", "#CFE3F0"


# Losses


def loss(results: Results, say: Say) -> Figure:
    """Draw a panel an adapter with its loss on the training and the validation rows, and the range of its model's."""
    title, reports = say.word("figures.loss.title"), results.reports
    if not reports:
        return sentence(title, say.word("figures.loss.no_adapters"))
    runs = [(model, variant) for model, variant, _ in reports]
    beside = min(len(runs), 2 if len(runs) in (2, 4) else 3 if len(runs) <= 9 else 5)
    lines, height = -(-len(runs) // beside), {1: 2.9, 2: 2.3, 3: 1.9, 5: 1.35}[beside]
    letters = int((WIDTH - 0.8) / beside / LETTER) - 1
    losses = [
        entry.get("loss", entry.get("eval_loss"))
        for *_, report in reports
        for entry in (*report["history"], *report["eval_history"])
    ]
    figure = new(lines * height, WIDTH if beside > 1 else 5.8, measured=beside < 5)
    grid = figure.subplots(lines, beside, squeeze=False).flat
    # Not shared axes: matplotlib's time for these grows with the square of their number.
    limits = {
        "xlim": (0, max(report["steps"] for *_, report in reports)),
        "ylim": (0, 1.04 * max(losses, default=1) or 1),
    }
    ranges = loss_ranges(results)
    for number, (axes, (model, _, report)) in enumerate(zip(grid, reports, strict=False)):
        name = shortened(named(runs), 3 * letters)[number]
        axes.set_title("\n".join(textwrap.wrap(name, letters)))
        if model in ranges:
            axes.fill_between(*ranges[model], color=RANGE, linewidth=0, zorder=1)
        loss_lines(axes, report, say, 4 if beside < 5 else 2.5)
        axes.set(**limits)
        numbers(axes.xaxis, say, 4)
        numbers(axes.yaxis, say, 5)
        last, first = number + beside >= len(runs), number % beside == 0
        axes.tick_params(labelbottom=last, labelleft=first)
        axes.set_xlabel(say.word("figures.loss.step") if last else "")
        axes.set_ylabel(say.word("figures.loss.loss") if first else "")
    for axes in figure.axes[len(runs) :]:
        axes.remove()
    evaluated = any(report["eval_history"] for *_, report in reports)
    entries = [({"color": BLUE}, say.word("figures.loss.training"))]
    if evaluated:
        look = mark(ORANGE, markersize=4) | {"linestyle": DASHED}
        entries.append((look, say.word("figures.loss.validation")))
    if any(report.get("best_step") is not None for *_, report in reports):
        entries.append((KEPT, say.word("figures.loss.kept")))
    if ranges:
        entries.append((Patch(color=RANGE), say.word("figures.loss.range")))
    rows = " / ".join(say.count(n) for n in sorted({report["rows"] for *_, report in reports}))
    shown = say.word("figures.loss.evaluated" if evaluated else "figures.loss.not_evaluated")
    frame(figure, title, [shown, say.word("figures.loss.rows", n=rows)], entries)
    return figure


# Around the checkpoint that was kept.
KEPT = mark(INK, markersize=9) | {"markerfacecolor": "none"}


def loss_lines(axes: Axes, report: Mapping, say: Say, size: float) -> None:
    """Draw the losses of one adapter, with a ring around the checkpoint that was kept."""
    own = [(entry["step"], entry["loss"]) for entry in report["history"]]
    held_out = [(entry["step"], entry["eval_loss"]) for entry in report["eval_history"]]
    if own:
        axes.plot(*zip(*own, strict=True), color=BLUE, marker="o" if len(own) < 3 else "", markersize=size)
    if held_out:
        look = mark(ORANGE, markersize=size) | {"linestyle": DASHED}
        axes.plot(*zip(*held_out, strict=True), **look)
        best = [entry for entry in held_out if entry[0] == report.get("best_step")]
        axes.plot([step for step, _ in best], [value for _, value in best], **KEPT)
    if not own and not held_out:
        middle = {"transform": axes.transAxes, "ha": "center", "va": "center", "color": GREY}
        axes.text(0.5, 0.5, say.word("figures.loss.none"), **middle)


def loss_ranges(results: Results) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return, of each model with several adapters, steps and the least and greatest training loss at each."""
    found = {}
    for model in dict.fromkeys(model for model, *_ in results.reports):
        histories = [report["history"] for name, _, report in results.reports if name == model and report["history"]]
        if len(histories) > 1:
            tables = [np.array([(entry["step"], entry["loss"]) for entry in history]) for history in histories]
            steps = np.unique(np.concatenate([table[:, 0] for table in tables]))
            values = [np.interp(steps, *table.T, left=np.nan, right=np.nan) for table in tables]
            found[model] = (steps, np.nanmin(values, axis=0), np.nanmax(values, axis=0))
    return found


# Seeds


def seeds(results: Results, say: Say) -> Figure:
    """Draw a row a seed below its setting: the difference from the base, and the settings' mean and deviation."""
    title, table = say.word("figures.seeds.title"), results.seeds
    if table.empty:
        return sentence(title, say.word("figures.seeds.none"))
    shown = results.comparisons[results.comparisons["category"] == ALL]
    axes_of = [name for name in shown.columns if "." in name and name != SEED]
    several = table["model"].nunique() > 1
    names, headings, marks, spreads = [], [], [], []
    for _, setting in table.groupby(["model", "setting"], sort=False):
        first = setting.iloc[0]
        alike = shown[(shown["model"] == first["model"]) & (shown[axes_of] == first[axes_of]).all(axis=1)]
        headings.append(len(names))
        name = " ".join(part for part in (first["model"] if several else "", first["setting"]) if part)
        own = {seed: headings[-1] + number for number, seed in enumerate(dict.fromkeys(alike[SEED]), 1)}
        names += [name or first["model"], *(say.word("figures.seeds.seed", n=seed) for seed in own)]
        marks.append(alike.assign(row=alike[SEED].map(own)).drop_duplicates(["measure", SEED]))
        spreads.append(setting.assign(first=headings[-1] + 0.5, last=headings[-1] + len(own) + 0.5))
    marks, spreads = pd.concat(marks), pd.concat(spreads)
    limits = difference_limits([*shown["ci_low_pp"], *shown["ci_high_pp"]])
    counts = shown.drop_duplicates("measure").set_index("measure")["n"]
    panels = [
        Panel(f"{say.word(f'figures.measures.{name}')}\nn = {say.count(counts[name])}", limits) for name in MEASURES
    ]
    figure, drawn = strips(say, Rows(names, headings), panels, say.word("figures.pp"))
    columns = {"difference_pp": "x", "ci_low_pp": "low", "ci_high_pp": "high"}
    for axes, measure in zip(drawn, MEASURES, strict=True):
        axes.axvline(0, color=GREY, linewidth=1)
        for row in spreads[spreads["measure"] == measure].itertuples():
            mean, deviation = row.mean_difference_pp, row.sd_pp
            axes.fill_betweenx([row.first, row.last], mean - deviation, mean + deviation, color=SPREAD, linewidth=0)
            axes.vlines(mean, row.first, row.last, color=INK, linestyle=DOTTED, linewidth=1)
            text = say.word("figures.seeds.spread", mean=say.signed(mean), sd=say.number(deviation))
            axes.text(0.01, row.first - 0.5, text, transform=axes.get_yaxis_transform(), va="center", size=8)
        part = marks[marks["measure"] == measure].rename(columns=columns)
        intervals(axes, part, mark(BLUE, "D", markersize=5))
    entries = [
        (mark(BLUE, "D", markersize=5), say.word("figures.seeds.adapter")),
        ({"color": INK, "linestyle": DOTTED}, say.word("figures.seeds.mean")),
        (Patch(color=SPREAD), say.word("figures.seeds.deviation")),
    ]
    frame(figure, title, [difference_sentence(results, say), say.word("figures.seeds.alike")], entries)
    return figure


# The way from base to adapter


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
    runs, few = list(paths), len(paths) <= len(COLOURS)
    looks = [mark(colour, shape) for colour, shape in zip(COLOURS, SHAPES, strict=True)][: len(runs)]
    if not few:
        looks = [mark(BLUE, markersize=3, alpha=0.6)] * len(runs)
    figure = new(6.6)
    upper = figure.add_gridspec(2, 2, height_ratios=(2.6, 4))
    every = pd.concat(paths.values())
    for column, measure in enumerate("xy"):
        axes = figure.add_subplot(upper[0, column])
        axes.set_ylim(percent_limits(every[f"{measure}_low"], every[f"{measure}_high"]))
        axes.set_xlabel(say.word(f"figures.{axis}.axis"))
        title = accuracy_title(points, say) if measure == "x" else say.word("figures.mmlu")
        axes.set_ylabel(textwrap.fill(title, 36))
        numbers(axes.yaxis, say)
        numbers(axes.xaxis, say, 5)
        if axis == "strength" and every["position"].nunique() <= 7:
            axes.set_xticks(sorted(set(every["position"])))
        for path, look in zip(paths.values(), looks, strict=True):
            ends_of = (path[f"{measure}_low"], path[f"{measure}_high"])
            axes.vlines(path["position"], *ends_of, color=look["color"], alpha=0.45, linewidth=1.1)
            axes.plot(path["position"], path[measure], **look | {"linestyle": "-"})
    axes = figure.add_subplot(upper[1, :])
    # In the plane the base model is one point, of all ways.
    colours = {run: look["color"] for run, look in zip(runs, looks, strict=True)}
    placed = [
        path[~path["base"]].assign(
            label=path["position"].map(lambda value: written(value, say)) if few else "", ink=darker(colours[run])
        )
        for run, path in paths.items()
    ]
    models = dict.fromkeys(model for model, _ in runs)
    bases = points[points["base"] & points["model"].isin(models)]
    soups = points[points["variant"].str.startswith("soup-") & points["model"].isin(models) & (axis == "strength")]
    placed.append(bases.assign(label=say.word("figures.base_label"), ink=GREY))
    placed.append(soups.assign(label=shortened(list(soups["variant"]), 36), ink=INK))
    placed = pd.concat(placed, ignore_index=True)
    plane_axes(axes, placed, say)
    for path, look in zip(paths.values(), looks, strict=True):
        if few:
            crosses(axes, path[~path["base"]], look["color"])
        axes.plot(path["x"], path["y"], **look | {"linestyle": "-"})
    for part, look in ((bases, mark(GREY, hollow=True)), (soups, mark(INK, "D", hollow=True))):
        crosses(axes, part, look["color"])
        axes.plot(part["x"], part["y"], **look)
    entries = list(zip(looks, shortened(named(runs), 60), strict=True)) if few else []
    entries.append((mark(GREY, hollow=True), say.word("figures.base")))
    if len(soups):
        entries.append((mark(INK, "D", hollow=True), say.word("figures.soup")))
    level = say.word("figures.bars_and_crosses", level=say.level(points["level"].iloc[0]))
    sentences = [say.word(f"figures.{axis}.shown"), questions(points, say), level]
    frame(figure, say.word(f"figures.{axis}.title"), sentences, entries)
    label(axes, placed)
    return figure


def way_points(
    points: pd.DataFrame, axis: str, ends: Mapping[tuple[str, str], float]
) -> dict[tuple[str, str], pd.DataFrame]:
    """Return by model and adapter its points in the order of their `position`, from the base model at 0."""
    found = {}
    for (model, adapter), path in points[points[axis].notna()].groupby(["model", "of"], sort=False):
        own = points[points["model"] == model]
        outer = {BASE: 0.0, adapter: ends[model, adapter]}
        # With the strength 0 there may be a point beside the base model, whose prompts are then others.
        missing = own["variant"].map(outer)
        added = own.assign(position=missing)[missing.notna() & ~missing.isin(path[axis])]
        path = pd.concat([added, path.assign(position=path[axis])])
        found[model, adapter] = path.sort_values("position", kind="stable")
    return found


# Few-shot examples


def shots(results: Results, say: Say) -> Figure:
    """Draw the base model's execution accuracy by the number of few-shot examples, beside its best adapters'."""
    points = results.points
    shown = points[points["shots"].notna()].sort_values("shots")
    adapters = trained(points)
    adapters = adapters[adapters["variant"] != BASE].sort_values("x", ascending=False, kind="stable")
    best = {model: adapters[adapters["model"] == model].head(MOST_LINES) for model in dict.fromkeys(shown["model"])}
    ends = [x for part in best.values() for x in part["x"]]
    figure = new(2.9 * len(best))
    grid = figure.subplots(len(best), squeeze=False).flat
    for axes, (model, ones) in zip(grid, best.items(), strict=True):
        axes.set(
            ylim=percent_limits([*shown["x_low"], *ends], [*shown["x_high"], *ends]),
            xlabel=say.word("figures.shots.axis"),
            ylabel=textwrap.fill(accuracy_title(points, say), 36),
            title=shortened([model], 60)[0] if len(best) > 1 else "",
        )
        numbers(axes.yaxis, say)
        numbers(axes.xaxis, say)
        axes.set_xticks(sorted(set(shown["shots"])))
        runs = shown[shown["model"] == model]
        axes.vlines(runs["shots"], runs["x_low"], runs["x_high"], color=BLUE, alpha=0.45, linewidth=1.1)
        axes.plot(runs["shots"], runs["x"], **mark(BLUE) | {"linestyle": "-"})
        own = runs[runs["variant"] == BASE]
        axes.plot(own["shots"], own["x"], **mark(BLUE, hollow=True))
        adapter_lines(axes, ones)
    entries = [
        (mark(BLUE, hollow=True), say.word("figures.base")),
        (mark(BLUE), say.word("figures.shots.other")),
        ({"color": ORANGE, "linestyle": DASHED}, say.word("figures.shots.adapter")),
    ]
    first = points.iloc[0]
    values = {"n": say.count(first["x_n"]), "criterion": criterion(first["semantics"], say)}
    sentences = [
        say.word("figures.shots.shown"),
        say.word("figures.shots.questions", **values),
        say.word("figures.shots.bars", level=say.level(first["level"])),
    ]
    if len(adapters) > sum(map(len, best.values())):
        sentences.append(say.word("figures.shots.lines", n=say.count(MOST_LINES)))
    frame(figure, say.word("figures.shots.title"), sentences, entries)
    return figure


def adapter_lines(axes: Axes, adapters: pd.DataFrame) -> None:
    """Draw a line at the accuracy of each adapter, from the highest, with its name at the right."""
    low, high = axes.get_ylim()
    room, free = 0.065 * (high - low), math.inf
    for x, name in zip(adapters["x"], shortened(list(adapters["variant"]), 30), strict=True):
        axes.axhline(x, color=ORANGE, linestyle=DASHED, linewidth=1.2)
        # No name covers another.
        free = min(x, free - room)
        axes.annotate(
            name, (1, free), (4, 0), ("axes fraction", "data"), "offset points", va="center", color=darker(ORANGE)
        )
