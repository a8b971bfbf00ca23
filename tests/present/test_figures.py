import itertools
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text

import figures as module
from _study import (
    as_inputs,
    draw,
    mmlu_records,
    spider_records,
    study,
    table_paths,
    tables_of,
    with_shots,
    write_tables,
)
from common.files import UserError
from figures import DRAW, figures, read_results
from present.figures_results import MOST_CELLS, MOST_LABELS, MOST_MATRICES, MOST_PANELS, error_flow
from present.format import Say, read_words
from present.plots import COLOURS, WIDTH, Results, covers, frame, label, new, percent, shortened
from present.values import read_table
from tasks.base import Measure
from tasks.registry import measured

PICTURES = ("tradeoff", "differences", "hardness", "databases", "error_flow", "loss")
TABLES = ("spider", "mmlu", "settings", "regression", "databases", "confusion")
# More adapters than any figure has in all detail.
MANY = 1 + max(MOST_CELLS, MOST_LABELS, MOST_PANELS)


def measure(name, form="choice", role="yardstick", criterion="correct", chance=0.25):
    """What the figures read of a measure."""
    nothing = {"columns": (), "question": (), "counted": (), "cluster": "", "strata": {}}
    return Measure(name=name, form=form, role=role, criterion=criterion, chance=chance, **nothing)


def report(folder, run, history=True, evaluated=False, best=None):
    """Write a train.json with a falling loss; return its path."""
    path = folder / "runs" / run["model"] / run["variant"] / "train.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    losses = [{"step": step, "loss": 1.0 / step} for step in range(5, 51, 5)] if history else []
    evaluations = [{"step": step, "eval_loss": 1.1 / step} for step in (25, 50)] if evaluated else []
    content = {"history": losses, "eval_history": evaluations, "best_step": best, "steps": 50, "rows": 400}
    path.write_text(json.dumps(content))
    return path


def drawn(folder, arguments, pictures=PICTURES, language="en", kinds=("svg",), **loss):
    """Write tables and pictures; return the arguments of `figures` and the texts of each picture."""
    folder.mkdir(exist_ok=True)
    paths = table_paths(folder, tables_of(arguments["runs"]))
    write_tables(outputs=paths, **arguments)
    inputs = {"tables": {name: paths[name] for name in TABLES}}
    inputs["measures"] = measured(as_inputs(arguments)[1]["tasks"])
    inputs["train"] = {
        (run["model"], run["variant"]): report(folder, run, **loss)
        for run in arguments["runs"]
        if run["variant"] != "base" and "point" not in run
    }
    inputs["outputs"] = {f"{name}_{end}": folder / f"{name}.{end}" for name in pictures for end in kinds}
    figures(**inputs, language=language)
    return inputs, {name: texts(folder / f"{name}.svg") for name in pictures}


def texts(path):
    """Return the texts of a picture, which must be no wider than a page allows."""
    root = ElementTree.parse(path).getroot()
    assert float(root.get("width").removesuffix("pt")) <= 72 * WIDTH, path
    return [element.text for element in root.iter() if element.tag.endswith(("text", "tspan")) and element.text]


def whole(words):
    """Return the texts of a picture as one, with the parts of what was broken after hyphens put together."""
    return " ".join(words).replace("- ", "-")


def swept_seeds(folder, rights):
    """A study of one learning rate whose seeds have these right answers of 40; the base has 10."""
    runs = [{"model": "demo", "variant": "base", "setting": "base", "settings": {}}]
    runs += [
        {
            "model": "demo",
            "variant": f"lr0.001-seed{n}",
            "setting": "lr0.001",
            "settings": {"training.learning_rate": 0.001, "training.seed": n},
        }
        for n in range(1, len(rights) + 1)
    ]
    return {
        "spider": [spider_records(folder / f"{i}.csv", [1] * k + [0] * (40 - k)) for i, k in enumerate([10, *rights])],
        "mmlu": [mmlu_records(folder / f"{i}m.csv", [1] * 20 + [0] * 10) for i in range(len(runs))],
        "runs": runs,
        "study": "test",
        "confidence_level": 0.9,
        "margin_pp": 3.0,
        "criterion": "set",
    }


@pytest.mark.parametrize(("adapters", "models"), [(0, 1), (2, 1), (MANY, 1), (1, 3), (7, 2)])
def test_every_run_is_named_in_every_picture(tmp_path, adapters, models):
    names = ("llama", "mistral", "gemma")[:models]
    arguments = study(tmp_path, adapters, names)
    _, found = drawn(tmp_path, arguments)
    # In the plane of accuracies and in that of differences, of which a study without adapters has none.
    assert found["tradeoff"].count("base") == (2 if adapters else 1) * models
    whole_of = {name: whole(words) for name, words in found.items()}
    for run in arguments["runs"]:
        if run["variant"] == "base":
            assert "base" in found["hardness"]
            continue
        for name in PICTURES:
            assert run["variant"] in whole_of[name], name
            assert run["model"] in whole_of[name] or models == 1, name
    n = "n = 200 Spider questions (bag criterion) and 150 MMLU questions."
    assert n in found["tradeoff"]
    assert "Spider execution accuracy (%, bag criterion)" in found["tradeoff"]
    for name in ("tradeoff", "hardness", "databases"):
        assert ("95%" in whole_of[name] and "bag criterion" in whole_of[name]) or adapters * models > MOST_PANELS
    if not adapters:
        for name in ("differences", "error_flow", "loss"):
            assert len(found[name]) == 1
            assert found[name][0].startswith("This study has no adapters: ")


def test_bytes_are_the_same_again(tmp_path):
    arguments = study(tmp_path, 1, ("llama", "gemma"))
    inputs, _ = drawn(tmp_path, arguments, kinds=("svg", "pdf"), evaluated=True, best=50)
    assert all((tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF-") for name in PICTURES)
    again = {name: tmp_path / f"again-{path.name}" for name, path in inputs["outputs"].items()}
    figures(**inputs | {"outputs": again})
    for name, path in inputs["outputs"].items():
        assert again[name].read_bytes() == path.read_bytes(), name
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in again.values())


def labelled(points):
    """Write labels at points (in pixels) of a plane; return the boxes of the labels and the axes."""
    figure = new(400 / 72, 560 / 72)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 560), ylim=(0, 400))
    frame(figure, Say("en"), ["tradeoff.title"], {})
    table = pd.DataFrame(points).assign(ink="black")
    label(axes, table)
    axes.figure.figure.draw_without_rendering()
    return np.array([Text.get_window_extent(text).extents for text in axes.texts]), axes


@pytest.mark.parametrize("number", [2, 8, 12, 30])
def test_no_label_covers_another_or_a_point(number):
    points = [
        {"label": f"lr0.000{i}" if number <= MOST_LABELS else str(i), "x": 60 + 30 * (i % 7) + 3 * i, "y": 80 + 9 * i}
        for i in range(number)
    ]
    for point in points:
        point |= {"x_low": point["x"] - 30, "x_high": point["x"] + 30, "y_low": point["y"] - 40}
        point |= {"y_high": point["y"] + 40}

    boxes, axes = labelled(points)
    assert len(boxes) == number
    assert (boxes[:, :2] >= axes.bbox.min).all() and (boxes[:, 2:] <= axes.bbox.max).all()
    centres = axes.transData.transform([(point["x"], point["y"]) for point in points])
    assert not covers(boxes, np.hstack([centres - 4, centres + 4])).any()
    # Each covers itself alone.
    assert (covers(boxes, boxes) == 1).all()


def test_a_label_far_from_its_point_has_a_line_to_its_nearest_side():
    nothing = dict.fromkeys(("x_low", "x_high", "y_low", "y_high"), float("nan"))
    crowd = [{"label": "abc", "x": 200 + i, "y": 200} | nothing for i in range(9)]
    boxes, axes = labelled(crowd)
    centres = axes.transData.transform([(point["x"], point["y"]) for point in crowd])
    leads = [text.arrow_patch.get_visible() for text in axes.texts]
    assert 0 < sum(leads) < len(crowd)
    for text, box, centre in zip(axes.texts, boxes, centres, strict=True):
        start, *_, end = text.arrow_patch.get_path().vertices
        assert np.isclose(centre, end).all()
        # On a side of its box.
        assert (box[:2] - 3 <= start).all() and (start <= box[2:] + 3).all()


def swept_study(folder, rates, ranks=(8,), seeds=1):
    """A study of these learning rates and ranks, on eight databases and subjects."""
    runs, rights = [{"model": "demo", "variant": "base", "setting": "base", "settings": {}}], [(16, 62)]
    for rate, rank, seed in itertools.product(rates, ranks, range(1, seeds + 1)):
        values = {"training.learning_rate": rate, "lora.r": rank} | ({"training.seed": seed} if seeds > 1 else {})
        name = f"lr{rate}-r{rank}"
        run = {"model": "demo", "variant": f"{name}-seed{seed}" if seeds > 1 else name, "setting": name}
        runs.append(run | {"settings": values, "seed": seed})
        rights.append((24 + rates.index(rate) + seed, 62 - 2 * rates.index(rate) - seed))
    return {
        "spider": [
            spider_records(folder / f"{i}.csv", [1] * k + [0] * (64 - k), tuple("abcdefgh"))
            for i, (k, _) in enumerate(rights)
        ],
        "mmlu": [
            mmlu_records(folder / f"{i}m.csv", [1] * k + [0] * (64 - k), subjects=tuple("stuvwxyz"))
            for i, (_, k) in enumerate(rights)
        ],
        "runs": runs,
        "study": "test",
        "confidence_level": 0.9,
        "margin_pp": 3.0,
    }


def test_what_was_swept_is_seen(tmp_path):
    """Three learning rates and two ranks: a colour and a shape each, darker with the rate, and a line a rank."""
    inputs, found = drawn(tmp_path, swept_study(tmp_path, [0.003, 0.0001, 0.001], (8, 32), seeds=2), ("tradeoff",))
    words = {f"learning_rate {rate}" for rate in (0.0001, 0.001, 0.003)} | {"r 8", "r 32"}
    assert words <= set(found["tradeoff"])
    results = read_results(inputs["train"], inputs["tables"], inputs["measures"])
    accuracy, change = DRAW["tradeoff"](results, Say("en")).axes
    for axes in (accuracy, change):
        legend = {line.get_label(): line for line in axes.lines if line.get_label() in words}
        colours = [legend[f"learning_rate {rate}"].get_color() for rate in (0.0001, 0.001, 0.003)]
        greys = [np.mean(to_rgb(colour)) for colour in colours]
        assert greys == sorted(greys, reverse=True)
        assert greys[0] - greys[-1] > 0.4
        shapes = [legend[f"r {rank}"].get_marker() for rank in (8, 32)]
        assert shapes[0] != shapes[1]
        points = {
            (to_hex(line.get_markerfacecolor()), line.get_marker()): float(line.get_xdata()[0])
            for line in axes.lines
            if len(line.get_xdata()) == 1 and line.get_label().startswith("_")
        }
        ends = [[points[to_hex(colour), shape] for colour in colours] for shape in shapes]
        assert [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 3] == ends
        # Twelve trainings, two of each setting, as small dots.
        (dots,) = [line for line in axes.lines if line.get_marker() == "."]
        assert len(dots.get_xdata()) == 12
    table = read_table(inputs["tables"]["settings"])
    whole_rows = table[(table["category"] == "aggregate") & (table["measure"] == "correct")]
    low = whole_rows[["ci_low_pp", "ci_high_pp"]].to_numpy()
    crosses = np.vstack([path.vertices for lines in change.collections for path in lines.get_paths()])
    for end in low.ravel():
        assert np.isclose(crosses, end).any()


def test_no_line_joins_what_was_not_swept(tmp_path):
    _, found = drawn(tmp_path, study(tmp_path, 3), ("tradeoff",))
    assert not [text for text in found["tradeoff"] if "Pareto" in text]
    assert "setting" in found["tradeoff"]


@pytest.mark.parametrize(("settings", "seeds"), [(1, 1), (2, 3), (6, 1), (MANY, 1)])
def test_no_numbers_on_an_axis_cover_each_other(tmp_path, settings, seeds):
    rates = [round(0.0001 * 1.5**i, 6) for i in range(settings)]
    inputs, _ = drawn(tmp_path, swept_study(tmp_path, rates, seeds=seeds), ())
    results = read_results(inputs["train"], inputs["tables"], inputs["measures"])
    for name in (*PICTURES, *(["seeds"] if seeds > 1 else [])):
        figure = DRAW[name](results, Say("pt"))
        figure.draw_without_rendering()
        for axis in (getattr(axes, axis) for axes in figure.axes for axis in ("xaxis", "yaxis")):
            ticks = [
                tick.get_window_extent()
                for tick in axis.get_ticklabels()
                if tick.get_text() and not tick.get_rotation()
            ]
            boxes = np.array([box.extents for box in ticks if box.width]).reshape(-1, 4)
            assert (covers(boxes, boxes) <= 1).all(), name


def test_three_of_three_are_not_darker_than_most_of_fifty():
    classes = ["ok"] * 3 + ["timeout"] * 50
    tuned = ["no_sql"] * 3 + ["ok"] * 38 + ["timeout"] * 12
    rows = pd.DataFrame({"base_class": classes, "tuned_class": tuned}).value_counts().rename("n").reset_index()
    points = pd.DataFrame({"task": ["spider"], "n": [53], "confidence_level": [0.95]})
    nothing = pd.DataFrame()
    results = Results(
        tasks={"spider": measure("Spider", "sql", criterion="bag")}, points=points, accuracy=nothing, settings=nothing,
        runs=nothing, databases=nothing, confusion=rows.assign(model="m", variant="a", questions=53, task="spider"),
        reports=[],
    )  # fmt: skip
    (axes,) = error_flow(results, Say("en")).axes
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    (mesh,) = axes.collections[:1]
    shades = pd.DataFrame(mesh.get_array(), names, names)
    assert shades.loc["right", "no SQL"] < shades.loc["timeout", "timeout"] < shades.loc["timeout", "right"]


def test_limits_hold_all_intervals():
    for drawn_from, limits in (((19, 51), (15, 55)), ((0, 4), (-3, 20)), ((96, 100), (80, 103))):
        every = new(2).subplots(1, 2)
        every[0].set_xlim(drawn_from)
        every[1].set_xlim(drawn_from)
        percent(every)
        assert [axes.get_xlim() for axes in every] == [limits, limits]


def test_long_names_stay_unlike_each_other():
    names = [f"lr0.0001-modules{'q_proj+' * 6}r{i}-{'x' * 30}" for i in (2, 4)]
    assert len(set(shortened(names, 40))) == 2
    assert all(len(name) == 40 for name in shortened(names, 40))
    alike = shortened([*(f"{'x' * 30}{i}{'x' * 30}" for i in (2, 4)), "short"], 20)
    assert alike == ["1. xxxxxxxx…xxxxxxxx", "2. xxxxxxxx…xxxxxxxx", "short"]
    assert shortened(["short"], 20) == ["short"]


@pytest.mark.parametrize("right", [0, 1])
def test_all_wrong_and_all_right(tmp_path, right):
    arguments = study(tmp_path, 1)
    for path in arguments["spider"]:
        spider_records(path, [right] * 20)
    for path in arguments["mmlu"]:
        mmlu_records(path, [right] * 30)
    _, found = drawn(tmp_path, arguments, ("tradeoff", "error_flow", "databases", "differences"))
    assert "base" in found["tradeoff"]
    assert "Pareto front: no run has more of both" not in found["tradeoff"]
    assert {"20", "right" if right else "wrong rows"} <= set(found["error_flow"])


def test_chance_is_drawn_where_it_is_in_sight(tmp_path):
    arguments = study(tmp_path, 1)
    assert "chance (25%)" not in drawn(tmp_path, arguments, ("tradeoff",))[1]["tradeoff"]
    mmlu_records(arguments["mmlu"][1], draw(150, 0.27, 1))
    assert "chance (25%)" in drawn(tmp_path, arguments, ("tradeoff",))[1]["tradeoff"]


def test_levels_of_hardness_without_questions_are_left_out_by_name(tmp_path):
    arguments = study(tmp_path, 1)
    for path in arguments["spider"]:
        spider_records(path, [1, 0] * 10, hardness="medium")
    _, found = drawn(tmp_path, arguments, ("hardness", "databases"))
    assert "The study has no questions of these levels: easy, hard, extra." in found["hardness"]
    assert found["hardness"].count("n = 20") == 2
    assert {"zoo (20)"} <= set(found["databases"])


@pytest.mark.parametrize("adapters", [MOST_MATRICES, MOST_MATRICES + 1])
def test_the_error_classes_are_those_of_the_records(tmp_path, adapters):
    arguments = study(tmp_path, adapters)
    spider_records(arguments["spider"][0], [1] * 60 + [0] * 40)
    for path in arguments["spider"][1:]:
        spider_records(path, [1] * 45 + [0] * 15 + [1] * 23 + [0] * 17)
    _, found = drawn(tmp_path, arguments, ("error_flow",))
    counts = [text for text in found["error_flow"] if text.isdecimal()]
    if adapters == MOST_MATRICES:
        # Each adapter: four cells, and the sums of rows and columns.
        assert sorted(counts) == sorted(["45", "15", "23", "17", "60", "40", "68", "32"] * adapters)
    else:
        # Each adapter: four pairs of groups of classes.
        assert sorted(counts) == sorted(["45", "15", "23", "17"] * adapters)
        assert {"right → other rows", "other rows → right"} <= set(found["error_flow"])


def test_rare_classes_are_drawn_as_one():
    classes = ["ok"] * 500 + ["no_sql"] * 497 + ["timeout"] * 2 + ["forbidden"]
    rows = pd.DataFrame({"base_class": classes, "tuned_class": classes}).value_counts().rename("n").reset_index()
    rows = rows.assign(model="m", variant="a", questions=1000)
    nothing = pd.DataFrame()
    points = pd.DataFrame({"task": ["spider"], "n": [1000], "confidence_level": [0.95]})
    tasks = {"spider": measure("Spider", "sql", criterion="bag")}
    results = Results(
        tasks=tasks, points=points, accuracy=nothing, settings=nothing, runs=nothing, databases=nothing,
        confusion=rows.assign(task="spider"), reports=[],
    )  # fmt: skip
    (axes,) = error_flow(results, Say("en")).axes
    words = [tick.get_text() for tick in axes.get_yticklabels()]
    assert words == ["right", "no SQL", "other classes", "sum"]


def test_many_adapters_have_their_differences_in_cells(tmp_path):
    arguments = study(tmp_path, MOST_PANELS + 1)
    inputs, found = drawn(tmp_path, arguments, ("databases",))
    table = pd.read_csv(inputs["tables"]["databases"])
    for value in table["difference_pp"].dropna():
        assert f"{value:+.0f}".replace("-", "\u2212").replace("+0", "0") in found["databases"]


def test_losses(tmp_path):
    arguments = study(tmp_path, 2)
    _, found = drawn(tmp_path, arguments, ("loss",))
    assert "training rows" in found["loss"]
    assert "validation rows" not in found["loss"]
    _, found = drawn(tmp_path, arguments, ("loss",), evaluated=True, best=25)
    assert {"validation rows", "checkpoint that was kept", "400 training rows."} <= set(found["loss"])
    _, found = drawn(tmp_path, arguments, ("loss",), history=False)
    assert found["loss"].count("no loss was logged") == 2


def test_seeds_are_drawn_with_the_mean_and_the_interval_of_their_setting(tmp_path):
    arguments = swept_seeds(tmp_path, [20, 24, 31])
    inputs, found = drawn(tmp_path, arguments, ("seeds",))
    assert {"lr0.001", "seed 1", "seed 2", "seed 3"} <= set(found["seeds"])
    # (25 + 35 + 52.5) / 3.
    assert "mean +37.5 pp" in found["seeds"]
    assert "mean 0.0 pp" in found["seeds"]
    assert "90% intervals" in whole(found["seeds"])
    assert "n = 40 Spider questions (set criterion) and 30 MMLU questions." in found["seeds"]
    table = read_table(inputs["tables"]["settings"])
    results = read_results(inputs["train"], inputs["tables"], inputs["measures"])
    for axes, task in zip(DRAW["seeds"](results, Say("en")).axes, ("spider", "mmlu"), strict=True):
        row = table[(table["task"] == task) & (table["category"] == "aggregate") & (table["measure"] == "correct")]
        (band,) = axes.collections[-1:]
        x = band.get_paths()[0].vertices[:, 0]
        assert [x.min(), x.max()] == pytest.approx(row[["ci_low_pp", "ci_high_pp"]].values[0].tolist())
        (marks,) = [line.get_xdata().tolist() for line in axes.lines if line.get_marker() != "None"]
        assert sorted(marks) == pytest.approx([25, 35, 52.5] if task == "spider" else [0, 0, 0])


def test_differences_are_those_of_settings_and_stand_by_their_verdict(tmp_path):
    arguments = study(tmp_path, 6)
    spider_records(arguments["spider"][1], [1] * 200)
    mmlu_records(arguments["mmlu"][1], [0] * 150)
    # The other adapters are seeds of one setting.
    for seed, run in enumerate(arguments["runs"][2:]):
        run |= {"setting": "seeds", "settings": {"training.seed": seed}}
    inputs, found = drawn(tmp_path, arguments, ("differences",))
    assert "seeds" in found["differences"]
    assert not [text for text in found["differences"] if text.startswith(("lr0.0002", "lr0.0003"))]
    assert "Dotted: the margin, a loss of 3 pp." in found["differences"]
    table = read_table(inputs["tables"]["settings"])
    single = read_table(inputs["tables"]["regression"])
    results = read_results(inputs["train"], inputs["tables"], inputs["measures"])
    shapes = {"^": "gained", "v": "lost", "o": "undecided"}
    seen = set()
    for axes, task in zip(DRAW["differences"](results, Say("en")).axes[:2], ("spider", "mmlu"), strict=True):
        whole_of = (one[(one["task"] == task) & (one["category"] == "aggregate")] for one in (table, single))
        rows, runs = whole_of
        rows = rows[rows["measure"] == "correct"]
        for line in axes.lines:
            if line.get_marker() in shapes:
                verdict = shapes[line.get_marker()]
                own = rows.loc[rows["verdict"] == verdict, "difference_pp"]
                assert sorted(line.get_xdata()) == pytest.approx(sorted(own))
                seen.add(verdict)
            elif line.get_marker() == "|":
                # The single trainings, where there are several.
                own = runs.loc[runs["setting"] == "seeds", "difference_pp"]
                assert sorted(line.get_xdata()) == pytest.approx(sorted(own))
                seen.add("one training")
        assert any(list(line.get_xdata()) == [-3, -3] for line in axes.lines) == (task == "mmlu")
    assert seen == {"gained", "lost", "one training"}


def with_points(folder, adapters=2, models=("demo",)):
    """A study whose first adapters have three strengths and two steps each, and a soup."""
    arguments = study(folder, adapters, models)
    rates = [run for run in arguments["runs"] if run["variant"] != "base"]
    points = [
        (run, f"{run['variant']}@{end}", {"of": [run["variant"]], **point})
        for run in rates
        for end, point in [(s, {"strength": s}) for s in (0.25, 0.5, 1.5)]
        + [(f"step{s}", {"step": s}) for s in (9, 25)]
    ]
    points += [(run, "soup-all", {"of": [r["variant"] for r in rates[:2]], "soup": "all"}) for run in rates[::adapters]]
    for number, (run, name, point) in enumerate(points):
        arguments["runs"].append(
            {"model": run["model"], "variant": name, "setting": name, "settings": {}, "point": point}
        )
        arguments["spider"].append(spider_records(folder / f"p{number}.csv", draw(200, 0.5, 200 + number)))
        arguments["mmlu"].append(mmlu_records(folder / f"pm{number}.csv", draw(150, 0.6, 300 + number)))
    return arguments


# Portuguese has the longer words.
@pytest.mark.parametrize(
    ("adapters", "models", "language"),
    [(1, ("demo",), "en"), (1, ("demo",), "pt"), (2, ("demo", "other"), "pt"), (9, ("demo",), "pt")],
)
def test_strength_and_trajectory(tmp_path, adapters, models, language):
    arguments = with_points(tmp_path, adapters, models)
    _, found = drawn(tmp_path / "drawn", arguments, ("strength", "trajectory"), language)
    # From the base model at 0 to the adapter at 1, or at its last step.
    for position in ("0", "0.25", "0.5", "1", "1.5"):
        assert position.replace(".", "," if language == "pt" else ".") in found["strength"]
    assert "soup-all" in found["strength"]
    assert "soup-all" not in found["trajectory"]
    if adapters * len(models) <= len(COLOURS):
        assert {"9", "25", "50", "base"} <= set(found["trajectory"])
        named = {run["variant"] for run in arguments["runs"] if run["variant"] != "base" and "point" not in run}
        for texts in found.values():
            assert all(any(name in text for text in texts) for name in named)


def test_the_curve_goes_through_the_tables_numbers(tmp_path):
    inputs, _ = drawn(tmp_path / "drawn", with_points(tmp_path, 1), ())
    results = read_results(inputs["train"], inputs["tables"], inputs["measures"])
    panel, *_ = DRAW["strength"](results, Say("en")).axes
    (line,) = panel.lines
    by_name = results.points[results.points["task"] == "spider"].set_index("variant")["x"]
    name = "lr0.0001-r8-seed42"
    assert line.get_xydata().tolist() == [
        [0, by_name["base"]],
        *([s, by_name[f"{name}@{s}"]] for s in (0.25, 0.5)),
        [1.0, by_name[name]],
        [1.5, by_name[f"{name}@1.5"]],
    ]


def test_forgetting_at_equal_gain_goes_through_the_tables_numbers(tmp_path):
    arguments = with_points(tmp_path, 2)
    inputs, found = drawn(tmp_path / "drawn", arguments, ("equal_gain",))
    table = read_table(inputs["tables"]["settings"])
    table = table[(table["category"] == "aggregate") & (table["measure"] == "correct")]
    by_name = table.set_index(["task", "setting"])["difference_pp"]
    results = read_results(inputs["train"], inputs["tables"], inputs["measures"])
    (axes,) = DRAW["equal_gain"](results, Say("en")).axes
    names = [run["variant"] for run in arguments["runs"][1:3]]
    ways = [line for line in axes.lines if line.get_label() in names]
    assert [line.get_label() for line in ways] == names
    for line, name in zip(ways, names, strict=True):
        # From the base along the strengths, which come before checkpoints; the setting itself last.
        along = [f"{name}@{strength}" for strength in (0.25, 0.5, 1.5)] + [name]
        expected = [[0, 0], *([by_name["spider", one], by_name["mmlu", one]] for one in along)]
        assert sorted(line.get_xydata().tolist()) == sorted(expected)
        assert name in whole(found["equal_gain"])
    assert any(list(line.get_ydata()) == [-3, -3] for line in axes.lines)
    assert "margin (3 pp)" in found["equal_gain"]


@pytest.mark.parametrize(
    ("adapters", "models", "language"), [(0, ("demo",), "en"), (2, ("demo", "other"), "pt"), (9, ("demo",), "en")]
)
def test_examples_in_the_prompt(tmp_path, adapters, models, language):
    arguments = with_shots(study(tmp_path, adapters, models), tmp_path, {0: [0, 1] * 100, 5: [1] * 200})
    inputs, found = drawn(tmp_path / "drawn", arguments, ("shots",), language)
    results = read_results(inputs["train"], inputs["tables"], inputs["measures"])
    panels = DRAW["shots"](results, Say(language)).axes
    for model, panel in zip(models, panels, strict=True):
        x = results.points.set_index(["task", "model", "variant"])["x"]["spider"][model]
        expected = [[0, x["base@shots0"]], [3, x["base"]], [5, x["base@shots5"]]]
        line, own, *ends = panel.lines
        assert line.get_xydata().tolist() == expected
        assert own.get_xydata().tolist() == expected[1:2]
        best = x[[name for name in x.index if not name.startswith("base")]].sort_values(ascending=False, kind="stable")
        assert [end.get_ydata()[0] for end in ends] == best[:4].tolist()
        assert [text.get_text() for text in panel.texts] == list(best.index[:4])
        assert {text.get_text() for text in panel.texts} <= set(found["shots"])
    few = {"en": "Lines: the 4 adapters of the highest", "pt": "Linhas: os 4 adaptadores de maior"}[language]
    assert any(few in text for text in found["shots"]) == (adapters > 4)


def test_points_are_in_no_other_picture(tmp_path):
    before, _ = drawn(tmp_path / "before", study(tmp_path / "a", 2))
    arguments = with_shots(with_points(tmp_path / "b", 2), tmp_path, {0: [0] * 200})
    after, _ = drawn(tmp_path / "after", arguments)
    for name, path in before["outputs"].items():
        if name.endswith("_svg"):
            assert path.read_bytes() == after["outputs"][name].read_bytes(), name


def rings(inputs, language):
    """Return the places of the rings in the plane, and of all its other points."""
    results = read_results(inputs["train"], inputs["tables"], inputs["measures"])
    found = {True: [], False: []}
    for line in DRAW["tradeoff"](results, Say(language)).axes[0].lines:
        if line.get_marker() not in ("None", ""):
            found[line.get_markerfacecolor() == "none"] += line.get_xydata().tolist()
    return found[True], found[False]


@pytest.mark.parametrize(
    ("adapters", "chosen", "language", "word"),
    [(2, "first", "pt", "recomendada"), (13, "first@0.5", "en", "recommended"), (1, "base", "en", "recommended")],
)
def test_the_recommended_run_has_a_ring(tmp_path, adapters, chosen, language, word):
    arguments = with_points(tmp_path, adapters)
    chosen = chosen.replace("first", arguments["runs"][1]["variant"])
    inputs, found = drawn(tmp_path, arguments, ("tradeoff",), language)
    picture = tmp_path / "tradeoff.svg"
    assert word not in found["tradeoff"]
    assert not rings(inputs, language)[0]
    choices = {chosen: "recommended", "soup-all": "gains less"}
    # The base is no candidate: it is recommended where no candidate is.
    choices = choices if chosen != "base" else {"soup-all": "no gain shown"}
    table = pd.DataFrame({"model": "demo", "setting": [*choices], "choice": [*choices.values()]})
    table.to_csv(tmp_path / "recommendation.csv", index=False)
    inputs["tables"]["recommendation"] = tmp_path / "recommendation.csv"
    figures(**inputs, language=language)
    # A name of the key stands behind its number.
    after = [text.split("  ")[-1] for text in texts(picture)]
    assert word in after
    # Around the run's own mark.
    (ring,), points = rings(inputs, language)
    points_of = read_results(inputs["train"], inputs["tables"], inputs["measures"]).points.set_index("variant")
    assert ring == pytest.approx(points_of.loc[chosen].set_index("task").loc[["spider", "mmlu"], "x"].tolist())
    assert points.count(ring) == 1
    # A point of `evaluation` is there if it is the one, and no other is; what was trained is there anyway.
    assert chosen in after
    assert [text for text in after if "@" in text or "soup" in text] == [chosen] * ("@" in chosen)


def test_only_the_pictures_that_are_asked_for_are_drawn(tmp_path):
    drawn(tmp_path, swept_seeds(tmp_path, [20]), ("tradeoff",))
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["tradeoff.svg"]


def test_portuguese(tmp_path):
    for folder, arguments, pictures in (
        ("few", swept_seeds(tmp_path, [20, 24]), (*PICTURES, "seeds")),
        ("many", study(tmp_path / "many", 13), ("tradeoff", "databases", "error_flow")),
        ("none", study(tmp_path / "none", 0), ("tradeoff", "differences", "error_flow", "loss", "seeds")),
    ):
        _, found = drawn(tmp_path / folder, arguments, pictures, "pt", evaluated=True, best=25)
        words = whole(itertools.chain(*found.values()))
        assert not re.search(r"\b(the|of|and|adapters|questions|no run)\b", words), words
        if folder == "few":
            assert "média +30,0 pp" in words
    english, portuguese = (flat(read_words(language)["figures"]) for language in ("en", "pt"))
    assert list(english) == list(portuguese)
    for key, words in english.items():
        assert sorted(re.findall(r"{\w+}", words)) == sorted(re.findall(r"{\w+}", portuguese[key])), key


def flat(words, above=""):
    """Return nested words by their dotted keys."""
    found = {}
    for key, value in words.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found


def of_tasks(inputs, more=(), less=()):
    """The results of a study with the tables of MMLU under other names as well, and without some tasks."""
    tables, known = dict(inputs["tables"]), inputs["measures"] | dict(more)
    for name, one in more:
        tables[name] = tables["spider" if one.form == "sql" else "mmlu"]
    results = read_results(inputs["train"], tables, {name: one for name, one in known.items() if name not in less})
    added = {name: "spider" if one.form == "sql" else "mmlu" for name, one in more}
    parts = {}
    for table in ("settings", "runs", "databases", "confusion"):
        whole_table = getattr(results, table)
        copies = [whole_table[whole_table["task"] == of].assign(task=name) for name, of in added.items()]
        parts[table] = pd.concat([whole_table[~whole_table["task"].isin(less)], *copies], ignore_index=True)
    return replace(results, **parts)


def words_of(figure):
    """All texts of a figure."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_every_yardstick_has_a_plane(tmp_path):
    inputs, _ = drawn(tmp_path / "drawn", with_points(tmp_path, 2), ())
    results = of_tasks(inputs, [("law", measure("Law", "match", chance=0))])
    say = Say("en")
    for name, planes in (("tradeoff", slice(0, None, 2)), ("strength", slice(3, None)), ("trajectory", slice(3, None))):
        figure = DRAW[name](results, say)
        axes = figure.axes[planes]
        assert [one.get_ylabel() for one in axes] == ["MMLU accuracy (%)", "Law accuracy (%)"], name
        assert {one.get_xlabel() for one in axes} == {"Spider execution accuracy (%, bag criterion)"}
        asked = "n = 200 Spider questions (bag criterion), 150 MMLU questions and 150 Law questions."
        assert any(asked in words for words in words_of(figure))
        x = results.points.set_index(["task", "variant"])["x"]
        base = [x["spider"]["base"], x["law"]["base"]]
        assert base in [point for line in axes[1].lines for point in line.get_xydata().tolist()]
    changes = DRAW["tradeoff"](results, say).axes[1::2]
    assert [axes.get_ylabel() for axes in changes] == ["MMLU, difference (pp)", "Law, difference (pp)"]
    titles = [axes.get_title(loc="center") for axes in DRAW["differences"](results, say).axes]
    assert [whole(title.splitlines()[:-1]) for title in titles[:3]] == ["Spider execution accuracy", "MMLU", "Law"]
    assert "Law, STEM\nn = 50" in titles


def test_without_a_yardstick_the_target_alone_is_drawn(tmp_path):
    inputs, _ = drawn(tmp_path / "drawn", with_points(tmp_path, 2), ())
    results, say = of_tasks(inputs, less=["mmlu"]), Say("en")
    assert any("This study has no yardstick" in words for words in words_of(DRAW["tradeoff"](results, say)))
    for name in ("strength", "trajectory"):
        (axes,) = DRAW[name](results, say).axes
        assert axes.get_ylabel().startswith("Spider execution accuracy")
    (axes,) = DRAW["differences"](results, say).axes
    assert axes.get_title(loc="center") == "Spider execution accuracy\nn = 200"
    for name in ("hardness", "databases", "error_flow", "loss"):
        assert not any("MMLU" in words for words in words_of(DRAW[name](results, say))), name


@pytest.mark.parametrize("adapters", [2, MOST_PANELS + 1])
def test_several_sql_tasks_are_told_apart(tmp_path, adapters):
    inputs, _ = drawn(tmp_path / "drawn", study(tmp_path, adapters), ())
    results, say = of_tasks(inputs, [("bird", measure("BIRD", "sql", criterion="set", chance=0))]), Say("en")
    for name in ("hardness", "databases", "error_flow"):
        words = words_of(DRAW[name](results, say))
        assert any("Spider questions (bag criterion) and 200 BIRD questions (set criterion)" in text for text in words)
    titles = [axes.get_title(loc="center") for axes in DRAW["hardness"](results, say).axes]
    assert [titles[0], titles[5]] == ["Spider, all\nn = 200", "BIRD, all\nn = 200"]
    matrices = DRAW["error_flow"](results, say).axes
    if adapters <= MOST_MATRICES:
        assert [axes.get_title(loc="left").split(":")[0] for axes in matrices] == ["Spider"] * 2 + ["BIRD"] * 2
        rows = [text.get_text() for text in DRAW["databases"](results, say).axes[0].get_yticklabels()]
        assert rows == ["Spider", "zoo (200)", "BIRD", "zoo (200)"]
    else:
        (axes,) = DRAW["databases"](results, say).axes
        assert [text.get_text() for text in axes.get_xticklabels()] == ["Spider: zoo (200)", "BIRD: zoo (200)"]


def test_levels_that_no_word_is_for_have_their_own_name(tmp_path):
    inputs, _ = drawn(tmp_path / "drawn", study(tmp_path, 1), ())
    results = of_tasks(inputs)
    accuracy = results.accuracy.replace({"questions": {"extra": "challenging"}})
    words = words_of(DRAW["hardness"](replace(results, accuracy=accuracy), Say("en")))
    assert "challenging\nn = 50" in words


def test_tables_of_other_runs_are_refused(tmp_path):
    a, _ = drawn(tmp_path / "a", study(tmp_path / "a", 1), ())
    b, _ = drawn(tmp_path / "b", study(tmp_path / "b", 2), ())
    with pytest.raises(UserError, match="other runs"):
        read_results([], a["tables"] | {"mmlu": b["tables"]["mmlu"]}, a["measures"])


def test_drawing_needs_no_model_library():
    scripts = Path(module.__file__).parent
    code = "import sys, figures; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
