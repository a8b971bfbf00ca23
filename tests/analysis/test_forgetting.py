"""Answers that turned, and forgetting where two settings gained the same."""

from dataclasses import replace

import numpy as np
import pytest

from _answers import SPIDER, Design
from analysis.crossed import Units
from analysis.forgetting import TRANSITIONS, Course, at_equal_gain, at_gain, transitions_table
from analysis.settings import Answers


def test_transitions_are_counted_over_seeds():
    base = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    runs = np.array([[0, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0, 0]], np.int8)
    answers = Answers("model", "task", base, {"s": runs}, np.arange(8))
    found = transitions_table([answers], {}, 0.95)
    assert list(found.columns) == [*TRANSITIONS]
    row = found.iloc[0]
    assert row["right_to_wrong_pct"] == pytest.approx(100 * 3 / 16)
    assert row["wrong_to_right_pct"] == pytest.approx(100 * 3 / 16)
    assert row["right_to_wrong_low_pct"] == 0
    assert row["right_to_wrong_high_pct"] > 100 * 3 / 16
    # The two are what the difference is made of.
    changed = replace(answers, settings={"s": runs[:1]})
    row = transitions_table([changed], {}, 0.95).iloc[0]
    assert row["wrong_to_right_pct"] - row["right_to_wrong_pct"] == pytest.approx(100 * (4 - 3) / 8)


def test_guessing_alone_is_neither_forgetting_nor_learning():
    generator, n, chance = np.random.default_rng(1), 200_000, 0.25
    known, forgotten, learned = generator.random((3, n)) < np.array([[0.5], [0.1], [0.08]])
    after = np.where(known, ~forgotten, learned)
    base = (known | (generator.random(n) < chance)).astype(float)
    tuned = (after | (generator.random(n) < chance)).astype(np.int8)
    answers = Answers("model", "mmlu", base, {"s": tuned[None]}, np.arange(n))
    row = transitions_table([answers], {"mmlu": chance}, 0.95).iloc[0]
    assert row["right_to_wrong_pct"] == pytest.approx(100 * (known & forgotten).mean(), abs=0.4)
    assert row["wrong_to_right_pct"] == pytest.approx(100 * (~known & learned).mean(), abs=0.4)
    assert row["right_to_wrong_low_pct"] < 5 < row["right_to_wrong_high_pct"]
    raw = transitions_table([answers], {}, 0.95).iloc[0]
    assert raw["right_to_wrong_pct"] > 10


def test_a_change_is_interpolated_where_a_gain_is_first_reached():
    gains, changes = np.array([[0.0, 0.1, 0.3, 0.2]]), np.array([[0.0, -0.02, -0.04, -0.2]])
    found = [at_gain(gains, changes, gain)[0] for gain in (0.05, 0.1, 0.2, 0.3, 0.31)]
    assert found == pytest.approx([-0.01, -0.02, -0.03, -0.04, np.nan], nan_ok=True)


def course(generator, gain, loss, seeds=3, points=(0.25, 0.5, 0.75, 1.0)):
    """What strengths of an adapter change: a gain in proportion to its strength, a loss to the square of it."""
    found = []
    for truth, n in ((lambda s: gain * s, sum(SPIDER)), (lambda s: -loss * s**2, 600)):
        strength = np.array(points)[:, None, None]
        mean, changed = truth(strength), np.maximum(0.2 * strength, np.abs(truth(strength)))
        luck = generator.random((seeds, n))
        found.append(np.where(luck < (changed + mean) / 2, 1, np.where(luck > 1 - (changed - mean) / 2, -1, 0)))
    return Course(*(one.astype(np.int8) for one in found))


UNITS = {
    "target": Units.of(np.repeat(np.arange(20), SPIDER), False),
    "yardstick": Units.of(np.repeat(np.arange(20), 30), False),
}


def test_equal_gains_are_compared():
    generator = np.random.default_rng(2)
    # The second must go twice as far for the same gain, and loses four times as much.
    courses = course(generator, 0.2, 0.2, seeds=5), course(generator, 0.1, 0.2, seeds=5)
    found = at_equal_gain(courses, UNITS, [0.05, 0.08, 0.15], 0.95)
    assert found["gain_pp"].tolist() == [5, 8, 15]
    expected = [100 * 0.2 * ((gain / 0.1) ** 2 - (gain / 0.2) ** 2) for gain in (0.05, 0.08)]
    assert ((found["ci_low_pp"] < found["difference_pp"]) & (found["difference_pp"] < found["ci_high_pp"]))[:2].all()
    assert found["difference_pp"][:2].tolist() == pytest.approx(expected, abs=2)
    assert found["ci_low_pp"][1] > 0
    # The second never gains so much.
    assert found.loc[2].drop("gain_pp").isna().all()
    again = at_equal_gain(courses[::-1], UNITS, [0.05], 0.95)
    assert again["difference_pp"][0] == pytest.approx(-found["difference_pp"][0])


def test_a_gain_that_many_draws_miss_has_no_interval():
    courses = (course(np.random.default_rng(3), 0.1, 0.05),) * 2
    most = courses[0].target.mean(axis=(1, 2))[-1] * (1 - 1e-9)
    found = at_equal_gain(courses, UNITS, [most / 2, most], 0.95)
    assert found["difference_pp"].tolist() == pytest.approx([0, 0], abs=1e-9)
    assert found[["ci_low_pp", "ci_high_pp"]].notna().all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_at_equal_gain_covers(seeds):
    # Of the seeds' and the clusters' common noise it counts some twice: rather too wide than too narrow.
    generator, covered, strengths = np.random.default_rng(4), [], np.array([0, 0.25, 0.5, 0.75, 1])
    sides = [np.interp(0.08, gain * strengths, -0.08 * strengths**2) for gain in (0.2, 0.15)]
    for _ in range(100):
        courses = course(generator, 0.2, 0.08, seeds), course(generator, 0.15, 0.08, seeds)
        row = at_equal_gain(courses, UNITS, [0.08], 0.95).iloc[0]
        covered.append(row["ci_low_pp"] <= 100 * (sides[0] - sides[1]) <= row["ci_high_pp"])
    assert np.mean(covered) >= 0.93


def test_base_answers_may_be_sampled_too():
    answers = Design(alike=0.0).draw(np.random.default_rng(5))[0]
    half = replace(answers, base=np.full(len(answers.base), 0.5))
    row = transitions_table([half], {}, 0.95).iloc[0]
    right = answers.settings["s0"].mean()
    assert row["wrong_to_right_pct"] == pytest.approx(50 * right)
    assert row["right_to_wrong_pct"] == pytest.approx(50 * (1 - right))
