"""Further yardsticks: the table of lm-evaluation-harness's tasks, and that its absence is said at once."""

import importlib.util
import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from common.access import check_harness
from common.files import UserError, write_json
from custom_metrics.stats import clustered_difference
from harness_table import harness_table
from present.format import Say
from present.tables import to_markdown
from present.values import SAME, read_table

RUNS = [
    {"model": "m", "variant": "base", "setting": "base", "settings": {}},
    {"model": "m", "variant": "a", "setting": "a", "settings": {}},
    {"model": "m", "variant": "b", "setting": "b", "settings": {}},
]
SETTINGS = {"language": "en", "runs": RUNS, "confidence_level": 0.95, "known_defects": [], "accept_defect": []}


def scores(path, values, first=0):
    """Write what `harness` writes of one task with one metric for each question, and one without."""
    samples = [
        {"task": "t", "filter": "none", "doc_id": first + i, "doc_hash": f"h{first + i}", "acc": float(value)}
        for i, value in enumerate(values)
    ]
    results = [
        {"task": "t", "metric": "acc", "filter": "none", "value": float(np.mean(values)), "n": len(values)},
        {"task": "t", "metric": "perplexity", "filter": "none", "value": 9.5, "n": len(values)},
    ]
    # The order of the samples is nobody's business.
    write_json(path, {"lm_eval": "0", "shots": {"t": 2}, "results": results, "samples": samples[::-1]})
    return path


def table(folder, *values):
    paths = [scores(folder / f"{i}.json", row) for i, row in enumerate(values)]
    harness_table(paths, {"csv": folder / "h.csv", "md": folder / "h.md"}, SETTINGS)
    return pd.read_csv(folder / "h.csv", keep_default_na=False, na_values=[""]), (folder / "h.md").read_text()


def test_differences_are_paired(tmp_path):
    base, a, b = [1, 0] * 20, [1] * 40, [1, 0] * 20
    frame, page = table(tmp_path, base, a, b)
    accuracy = frame[frame["metric"] == "acc"].set_index("variant")
    assert accuracy["score"].tolist() == [0.5, 1.0, 0.5]
    assert accuracy.loc["base", "stderr"] == pytest.approx(np.std(base, ddof=1) / math.sqrt(40))
    expected = clustered_difference(np.subtract(a, base), [1] * 40, 0.95)
    found = accuracy.loc["a"]
    assert (found["difference"], found["ci_low"], found["ci_high"], found["p"]) == pytest.approx(
        (0.5, expected.low, expected.high, expected.p)
    )
    assert found["p_holm"] == pytest.approx(2 * expected.p)
    assert accuracy["verdict"].tolist()[1:] == ["better", "not distinguishable at this n"]
    assert accuracy.loc[["base"], ["difference", "p", "verdict"]].isna().all(axis=None)
    other = frame[frame["metric"] == "perplexity"]
    assert other[["stderr", "difference", "p"]].isna().all(axis=None)
    assert f"+50.0 (+{100 * expected.low:.1f} to +{100 * expected.high:.1f})" in page
    assert "t 2" in page
    # As the page of all tables reads it.
    assert to_markdown("harness", read_table(tmp_path / "h.csv"), {}, Say("en")) == page


def test_p_values_are_adjusted_by_their_order_and_verdicts_follow(tmp_path):
    # Of 40 questions: one adapter loses 20, another gains 4.
    base = [1, 0] * 20
    frame, page = table(tmp_path, base, [0] * 40, [1, 0, 1, 1] * 4 + [1, 0] * 12)
    rows = frame[(frame["metric"] == "acc") & frame["p"].notna()].set_index("variant")
    p = rows["p"]
    assert p["a"] < p["b"]
    assert rows["p_holm"].tolist() == pytest.approx([2 * p["a"], max(2 * p["a"], p["b"])])
    # Each question is drawn at random; one gained and one lost are added.
    changes = np.array([0, 0, 0, 1] * 4 + [0] * 24)
    centre = changes.sum() / 42
    spread = ((changes - centre) ** 2).sum() * 40 / 39 + (1 - centre) ** 2 + (1 + centre) ** 2
    assert p["b"] == pytest.approx(2 * student.sf(centre / (math.sqrt(spread) / 42), 39))
    # Its p alone is no verdict on several adapters.
    assert rows["verdict"].tolist() == ["worse", "better" if rows["p_holm"]["b"] < 0.05 else SAME]
    assert ("worse" in page, SAME in page) == (True, SAME in set(rows["verdict"]))
    none = [{"model": "m", "variant": "base", "setting": "base", "settings": {}}]
    harness_table(
        [tmp_path / "0.json"], {"csv": tmp_path / "h.csv", "md": tmp_path / "h.md"}, SETTINGS | {"runs": none}
    )
    assert pd.read_csv(tmp_path / "h.csv")[["p", "p_holm", "verdict"]].isna().all(axis=None)


def test_a_point_has_one_column_of_shots(tmp_path):
    paths = [scores(tmp_path / f"{i}.json", row) for i, row in enumerate(([1, 0] * 20, [1] * 40, [0, 1] * 20))]
    runs = [RUNS[0] | {"shots": 3}, RUNS[1], RUNS[2] | {"point": {"of": ["a"], "strength": 0.5}}]
    harness_table(paths, {"csv": tmp_path / "h.csv", "md": tmp_path / "h.md"}, SETTINGS | {"runs": runs})
    frame = pd.read_csv(tmp_path / "h.csv")
    assert [name for name in frame if name.startswith("shots")] == ["shots"]
    # Those of the task, not of the text-to-SQL prompts; and the point is a family of its own.
    assert set(frame["shots"]) == {2}
    compared = frame[frame["p"].notna()]
    assert compared["variant"].tolist() == ["a", "b"]
    assert compared["p_holm"].tolist() == compared["p"].tolist()


def test_other_questions_than_the_base_s(tmp_path):
    paths = [scores(tmp_path / f"{i}.json", [1] * 10, first=i // 2) for i in range(3)]
    with pytest.raises(UserError, match=r"2\.json: t has other questions than .*0\.json"):
        harness_table(paths, {"csv": tmp_path / "h.csv", "md": tmp_path / "h.md"}, SETTINGS)


def test_a_harness_that_is_not_there(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_harness([])
    with pytest.raises(UserError, match=r"not installed. Run `make harness`.*pip install -r requirements-harness.txt"):
        check_harness(["arc_easy"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    check_harness(["arc_easy"])
