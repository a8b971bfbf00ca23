import itertools
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from _study import draw, mmlu_records, spider_records, study, table_paths

import figures as module
from _files import UserError
from figures import HEIGHT, WIDTH, domain, figures, meet, place, read_points
from tables import tables


def draw_study(folder, **arguments):
    paths = table_paths(folder)
    tables(outputs=paths, **arguments)
    inputs = {"execution_accuracy": paths["execution_accuracy"], "mmlu": paths["mmlu"]}
    figures(**inputs, svg=folder / "a.svg", pdf=folder / "a.pdf")
    root = ElementTree.parse(folder / "a.svg").getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith(("text", "tspan")) and element.text]
    return inputs, texts


@pytest.mark.parametrize(("adapters", "models"), [(0, 1), (1, 1), (2, 1), (12, 1), (30, 1), (3, 3), (12, 3)])
def test_every_run_is_labelled(tmp_path, adapters, models):
    names = ("llama", "mistral", "gemma")[:models]
    arguments = study(tmp_path, adapters, names)
    _, texts = draw_study(tmp_path, **arguments)
    assert texts.count("base") == models
    for run in arguments["runs"]:
        found = [text for text in texts if run["variant"] in text]
        assert found, run
        if models > 1:
            assert any(run["model"] in text for text in texts)
    assert "Spider execution accuracy (%, bag semantics)" in texts
    assert "MMLU accuracy (%)" in texts
    assert any("n = 200 Spider questions (bag semantics) and 150 MMLU questions" in text for text in texts)
    assert any("95% Wilson intervals" in text for text in texts)
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF-")


def test_bytes_are_the_same_again(tmp_path):
    inputs, _ = draw_study(tmp_path, **study(tmp_path, 12, ("llama", "gemma")))
    for _ in range(3):
        figures(**inputs, svg=tmp_path / "b.svg", pdf=tmp_path / "b.pdf")
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
        assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
    assert str(tmp_path) not in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize(("adapters", "models"), [(2, 1), (12, 1), (30, 1), (3, 3)])
def test_no_label_covers_another_or_a_point(tmp_path, adapters, models):
    inputs, _ = draw_study(tmp_path, **study(tmp_path, adapters, ("llama", "mistral", "gemma")[:models]))
    points = read_points(**inputs)
    points["base"] = points["variant"] == "base"
    points["label"] = module.labels(points, adapters * models > module.MOST_LABELS)
    x, y = domain(points["x_low"], points["x_high"]), domain(points["y_low"], points["y_high"])
    placed = pd.DataFrame(place(points, x, y, True))
    boxes = []
    for label, px, py in zip(points["label"], placed["text_x"], placed["text_y"], strict=True):
        px, py, half = (px - x[0]) / (x[1] - x[0]) * WIDTH, (y[1] - py) / (y[1] - y[0]) * HEIGHT, 3 * len(label)
        boxes.append((px - half, py - 6, px + half, py + 6))
        assert boxes[-1][0] >= 0
        assert boxes[-1][2] <= WIDTH
    assert not any(meet(a, b) for a, b in itertools.combinations(boxes, 2))
    for px, py in zip(
        (points["x"] - x[0]) / (x[1] - x[0]) * WIDTH, (y[1] - points["y"]) / (y[1] - y[0]) * HEIGHT, strict=True
    ):
        assert not any(meet((px - 5, py - 5, px + 5, py + 5), box) for box in boxes)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_wrong_and_all_right(tmp_path, share):
    arguments = study(tmp_path, 1)
    for path in arguments["spider"]:
        spider_records(path, [int(share)] * 20)
    for path in arguments["mmlu"]:
        mmlu_records(path, [int(share)] * 30)
    inputs, texts = draw_study(tmp_path, **arguments)
    assert "base" in texts
    points = read_points(**inputs)
    limits = domain(points["x_low"], points["x_high"])
    assert -3 <= limits[0] < 100 * share < limits[1] <= 103


def test_chance_is_drawn_where_it_is_in_sight(tmp_path):
    arguments = study(tmp_path, 1)
    assert "chance (25%)" not in draw_study(tmp_path, **arguments)[1]
    mmlu_records(arguments["mmlu"][1], draw(150, 0.27, 1))
    assert "chance (25%)" in draw_study(tmp_path, **arguments)[1]


def test_tables_of_other_runs_are_refused(tmp_path):
    inputs, _ = draw_study(tmp_path / "a", **study(tmp_path / "a", 1))
    other, _ = draw_study(tmp_path / "b", **study(tmp_path / "b", 2))
    with pytest.raises(UserError, match="other runs"):
        read_points(inputs["execution_accuracy"], other["mmlu"])
