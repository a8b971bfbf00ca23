"""Do verdicts about settings err as often as they say? On made-up answers whose true differences are known.

`benchmarks/settings.py` makes the table of docs/statistics.md from the same simulations, with more of them. Bounds are
those of the docs, 3.5 to 6.5%, widened by 2.5 standard errors of the simulation.
"""

import math

import numpy as np
import pytest

from _answers import SPIDER, SUBJECTS, THREE, Design, Drawn, power, rates, tables

# Whether seeds change the same answers, and databases or subjects differ in what is gained.
ALIKE, APART = {"cluster_sd": 0.05, "alike": 0.5}, {"cluster_sd": 0.0, "alike": 0.0}


def within(rate, rows, low=0.035, high=0.065):
    off = 2.5 * math.sqrt(0.05 * 0.95 / rows)
    return low - off <= rate <= high + off


@pytest.mark.parametrize("sizes", [SPIDER, THREE])
def test_settings_and_contrasts_err_as_often_as_they_say(sizes):
    found = rates(Design(sizes, seeds=(3, 3), seed_sd=0.02, **ALIKE), 600)
    assert within(found["settings"], 1200, low=0.02)
    assert within(found["contrasts"], 600, low=0.02)
    assert found["questions_alone"] > found["settings"]


# Of each size, what `make some-faults` has of these designs.
CI = pytest.mark.ci


@pytest.mark.long
@pytest.mark.parametrize("kind", [pytest.param(ALIKE, id="alike", marks=CI), pytest.param(APART, id="apart")])
@pytest.mark.parametrize("sd", [0.0, 0.01, 0.05])
@pytest.mark.parametrize(
    ("sizes", "seeds", "count", "low"),
    [
        # Few seeds say little about what seeds differ in: rather too wide than too narrow.
        (SPIDER, (2, 2), 2000, 0.0),
        (SPIDER, (3, 3), 2000, 0.015),
        (SPIDER, (5, 5), 1500, 0.02),
        (SPIDER, (3,) * 12, 200, 0.025),
        (THREE, (2, 2), 2000, 0.0),
        (THREE, (3, 3), 2000, 0.01),
        (THREE, (5, 5), 1500, 0.02),
        (SUBJECTS, (3, 3), 500, 0.01),
        (SUBJECTS, (2,) * 6, 200, 0.01),
    ],
)
def test_type_1_error_and_coverage_at_other_designs(sizes, seeds, count, low, sd, kind):
    found = rates(Design(sizes, seeds=seeds, seed_sd=sd, **kind), count)
    # Settings share their base, and pairs their settings: their rows count for fewer.
    assert within(found["settings"], count * min(2, len(seeds)), low)
    assert within(found["contrasts"], count * min(2, len(seeds) - 1), low)


@pytest.mark.parametrize("sizes", [SPIDER, THREE])
def test_one_seed_covers_what_this_training_run_does(sizes):
    found = rates(Design(sizes, seeds=(1, 1), seed_sd=0.03, **ALIKE), 700)
    assert within(found["settings"], 1400)
    assert within(found["contrasts"], 700, low=0.025)


def test_one_seed_among_others_covers_what_its_setting_does():
    found = rates(Design(seeds=(1, 3, 3), seed_sd=0.03, **ALIKE), 600)
    assert within(found["settings"], 1200, low=0.02)
    assert within(found["contrasts"], 600, low=0.02)


def test_answers_drawn_several_times_err_as_often_as_they_say():
    found = rates(Drawn(seeds=(3, 3), seed_sd=0.02, cluster_sd=0.03, draws=3), 300)
    assert within(found["settings"], 600, low=0.02)
    assert within(found["contrasts"], 300, low=0.02)


@pytest.mark.long
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("draws", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("sizes", "seeds", "count", "low"),
    [
        # Of one training: what this training does. Few questions whose shares hardly change give intervals too wide.
        (SPIDER, (1, 1), 1000, 0.025),
        (SPIDER, (3, 3), 1000, 0.02),
        (THREE, (1, 1), 1000, 0.0),
        (THREE, (3, 3), 1000, 0.015),
        (SUBJECTS, (3, 3), 300, 0.01),
    ],
)
def test_draws_at_other_designs(sizes, seeds, count, low, draws, shared):
    found = rates(Drawn(sizes, seeds=seeds, seed_sd=0.02, cluster_sd=0.03, draws=draws, shared=shared), count)
    assert within(found["settings"], count * 2, low)
    assert within(found["contrasts"], count, low)


@pytest.mark.parametrize(("changed", "alike"), [(0.02, 0.9), (0.02, 0.0), (0.05, 0.9)])
def test_few_changes_are_no_certainty(changed, alike):
    # All seeds may leave the same answers alone.
    found = rates(Design(THREE, seeds=(3, 3), truths=(-0.01, 0.0), seed_sd=0.0, changed=changed, alike=alike), 500)
    assert found["settings"] < 0.065 + 2.5 * math.sqrt(0.05 * 0.95 / 1000)


def test_verdicts_of_a_study_err_together_as_often_as_they_say():
    # Two tasks, of which one setting gains on the target; on the yardstick one loses nothing, one the margin itself.
    found = tables(
        {
            "spider": Design(seeds=(3, 3), truths=(0.1, 0.0), cluster_sd=0.05, changed=0.3),
            "mmlu": Design(THREE, seeds=(3, 3), truths=(0.0, -0.03)),
        },
        500,
    )
    decided = (found["ci_low_pp"] > 0) | (found["ci_high_pp"] < 0)
    assert (decided == (found["p_holm"] < 0.05)).all()
    assert (decided == (found["verdict"] != "undecided")).all()
    missed = (found["ci_low_pp"] > found["true"]) | (found["ci_high_pp"] < found["true"])
    false = decided & (found["true"] == 0)
    lost = found["true"] == -3
    margin = lost & (found["margin_verdict"] != "undecided")
    for rows, low in ((missed, 0.02), (false, 0.015), (margin, 0.0)):
        assert within(rows.groupby(found["model"]).any().mean(), 500, low)
    assert found.loc[decided & (found["true"] == 10), "verdict"].eq("gained").all()


def test_a_margin_verdict_errs_as_often_as_its_interval():
    found = tables({"mmlu": Design(THREE, seeds=(5,), truths=(-0.03,))}, 700)
    wrong = found["margin_verdict"] != "undecided"
    assert within(wrong.mean(), 700, low=0.02)
    assert 0.25 < (found.loc[wrong, "margin_verdict"] == "no more than the margin lost").mean() < 0.75


@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
def test_a_loss_of_nine_points_is_found(alike):
    assert power(0.15, alike, 300) >= 0.8


@pytest.mark.parametrize(("sizes", "seeds"), [(THREE, (3, 3)), (SPIDER, (4, 4, 4))])
def test_the_minimum_detectable_effect_is_found_four_times_in_five(sizes, seeds):
    design = {"sizes": sizes, "seeds": seeds, "seed_sd": 0.01}
    least = tables({"task": Design(**design)}, 100)["mde_pp"].mean() / 100
    truths = (-least, *[0.0] * (len(seeds) - 1))
    found = tables({"task": Design(**design, truths=truths)}, 400)
    assert 0.74 < (found.loc[found["setting"] == "s0", "verdict"] == "lost").mean() < 0.9


def test_the_draws_are_what_they_claim_to_be():
    design = Design(THREE, seeds=(2,), truths=(-0.06,), seed_sd=0.02, cluster_sd=0.05, changed=0.2, alike=0.3)
    generator, runs, changed, base = np.random.default_rng(9), [], [], []
    for _ in range(1500):
        answers, _ = design.draw(generator)
        changes = answers.settings["s0"] - answers.base
        runs.append(changes.mean(axis=1))
        changed.append((changes != 0).mean())
        base.append(answers.base.mean())
    assert np.mean(runs) == pytest.approx(-0.06, abs=0.003)
    assert np.mean(changed) == pytest.approx(0.2, abs=0.01)
    assert np.mean(base) == pytest.approx(0.6, abs=0.005)
    # Between seeds: what the seed shifts, and the luck of the answers.
    apart = np.var(np.diff(runs, axis=1)) / 2
    assert apart > 0.02**2
