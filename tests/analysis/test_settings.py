"""Verdicts about settings, by hand-computed cases; how often they err is in test_settings_simulations.py."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from _answers import SPIDER, THREE, Design
from analysis.crossed import Error, Seeds, Units, added_share, wild_bootstrap
from analysis.settings import (
    CONTRASTED,
    CONTRASTS,
    DETAILS,
    SETTINGS,
    Answers,
    Estimates,
    contrasts_table,
    decide,
    settings_tables,
)
from custom_metrics.stats import clustered_difference, holm


def drawn(design=None, seed=1, **changed):
    return replace((design or Design()).draw(np.random.default_rng(seed))[0], **changed)


def scores(*settings, clusters=None):
    """Answers whose differences to the base are these, of each setting (seeds, questions)."""
    settings = {f"s{i}": np.asarray(one, float) for i, one in enumerate(settings)}
    n = settings["s0"].shape[1]
    clusters = np.arange(n) if clusters is None else np.asarray(clusters)
    return Answers("model", "task", np.zeros(n), settings, clusters, measure="score")


@pytest.mark.parametrize("sizes", [SPIDER, (1,) * 150, (10,) * 5])
def test_one_seed_has_the_numbers_of_a_clustered_difference(sizes):
    answers = drawn(Design(sizes, seeds=(1,), truths=(0.05,), cluster_sd=0.05))
    changes = answers.settings["s0"][0] - answers.base
    expected = clustered_difference(np.bincount(answers.clusters, changes), sizes, 0.95)
    verdicts, details = settings_tables([answers], 3.0, 0.95)
    row = verdicts.iloc[0]
    assert row["difference_pp"] == pytest.approx(100 * changes.mean())
    assert (row["ci_low_pp"], row["ci_high_pp"]) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert row["p"] == row["p_holm"] == pytest.approx(expected.p)
    assert details["cluster_df"][0] == pytest.approx(expected.df)
    assert details["about"][0] == "this training run"
    assert details["seed_variance"][0] == "left out"
    assert np.isnan(details["seed_sd_pp"][0])


def test_seeds_are_the_balanced_analysis_of_variance():
    values = np.random.default_rng(2).normal(size=(4, 6)) + np.array([[0], [1], [2], [4]])
    found = Estimates.of(scores(values)).error
    by_seed, by_question = values.mean(axis=1), values.mean(axis=0)
    residual = values - by_seed[:, None] - by_question + values.mean()
    noise = (residual**2).sum() / (3 * 5)
    assert found.seeds.df == 3
    assert found.seeds.between == pytest.approx(by_seed.var(ddof=1))
    assert found.seeds.noise == pytest.approx(noise / 6)
    # The variance component of the seeds, by the expected mean squares.
    assert found.seeds.variance == pytest.approx((6 * by_seed.var(ddof=1) - noise) / 6)
    # A score has no gained and lost answer added: the variance of the questions is the textbook's.
    assert found.clusters[0] == pytest.approx(by_question.var(ddof=1) / 6)
    assert found.variance[0] == pytest.approx(found.clusters[0] + found.seeds.variance / 4)


def test_settings_with_more_seeds_count_more_in_the_pooled_variance():
    alone, other = np.random.default_rng(3).normal(size=(2, 8)), np.random.default_rng(4).normal(size=(4, 8))
    one, two, both = (Estimates.of(scores(*of)).error.seeds for of in ((alone,), (other,), (alone, other)))
    assert both.df == one.df + two.df == 4
    assert both.between == pytest.approx((one.between + 3 * two.between) / 4)
    assert both.noise == pytest.approx((one.noise + 3 * two.noise) / 4)


def test_seeds_that_agree_by_chance_add_nothing_and_are_no_certainty():
    values = np.array([[1.0, -1.0, 2.0, -2.0, 3.0, 0.0], [-1.0, 1.0, -2.0, 2.0, 0.0, 3.0]])
    error = Estimates.of(scores(values)).error
    assert error.seeds.between == 0
    assert error.seeds.variance == 0
    assert error.half(0.05)[0] == pytest.approx(scipy_stats.t.ppf(0.975, 5) * np.sqrt(error.clusters[0]))


def test_an_interval_is_no_narrower_than_that_of_the_seeds_means():
    # All that differs is which seed: the test of the seeds' means alone is exact.
    values = np.array([[1.0], [2.0], [6.0]]) + np.zeros((3, 7))
    error = Estimates.of(scores(values)).error
    expected = scipy_stats.ttest_1samp([1.0, 2.0, 6.0], 0)
    assert error.p(np.array([3.0]))[0] == pytest.approx(expected.pvalue, rel=1e-6)
    low, high = expected.confidence_interval(0.95)
    assert 2 * error.half(0.05)[0] == pytest.approx(high - low)


def test_one_seed_takes_the_variance_of_other_settings_and_says_so():
    answers = drawn(Design(seeds=(1, 3, 3), seed_sd=0.04))
    verdicts, details = settings_tables([answers], 3.0, 0.95)
    assert list(details["seed_variance"]) == ["seeds of other settings", "own seeds", "own seeds"]
    assert set(details["about"]) == {"setting"}
    assert set(details["seed_df"]) == {4}
    widths = verdicts["ci_high_pp"] - verdicts["ci_low_pp"]
    assert widths[0] > max(widths[1:])


@given(st.floats(0.0001, 0.1), st.floats(0, 0.01), st.floats(0, 0.01), st.integers(1, 30), st.floats(0.001, 0.999))
def test_p_values_are_the_inverse_of_half_widths(clusters, between, noise, df, alpha):
    error = Error(np.array([clusters]), 14.0, Seeds(between, noise, df), np.array([1 / 3]))
    assert error.p(error.half(alpha))[0] == pytest.approx(alpha, rel=1e-6)


def test_fixed_clusters_are_strata():
    clusters = np.repeat([0, 1, 2], [4, 3, 5])
    values = np.random.default_rng(5).normal(size=(1, 12)) + 10 * clusters
    error = Estimates.of(scores(values, clusters=clusters)).error
    strata = [values[0, clusters == one] for one in range(3)]
    expected = sum((len(one) / 12) ** 2 * one.var(ddof=1) / len(one) for one in strata)
    assert error.clusters[0] == pytest.approx(expected)
    assert error.cluster_df == pytest.approx(144 / (16 / 3 + 9 / 2 + 25 / 4))


def test_few_or_declared_clusters_are_fixed():
    many = drawn()
    assert Units.of(many.clusters, False).unit == "cluster"
    assert Units.of(many.clusters, True).unit == "question"
    few = Units.of(np.repeat([0, 1, 2], 50), False)
    assert (few.unit, few.clusters, few.n) == ("question", 3, 150)
    # Of a cluster with one question nothing is known: the questions are one stratum.
    assert not Units.of(np.array([0, 1, 1]), False).strata.any()


@given(st.lists(st.floats(1e-12, 1), min_size=1, max_size=12))
def test_an_interval_leaves_out_0_exactly_where_the_adjusted_p_says_so(p):
    p = np.array(p)
    adjusted, levels, sizes = decide(p, np.zeros(len(p), int), 0.05)
    assert adjusted.tolist() == holm(p)
    assert ((p < levels) == (adjusted < 0.05)).all()
    assert (sizes == len(p)).all()
    assert ((levels >= 0.05 / len(p) * (1 - 1e-12)) & (levels <= 0.05)).all()


def test_levels_are_those_of_holm_and_bonferroni():
    # Bonferroni finds the first; Holm's second step (0.05 / 3) the second; it stops at 0.05 / 2.
    _, levels, _ = decide(np.array([0.03, 0.001, 0.9, 0.015]), np.zeros(4, int), 0.05)
    assert levels == pytest.approx([0.05 / 2, 0.05 / 4, 0.05 / 2, 0.05 / 3])
    _, levels, sizes = decide(np.array([0.03, 0.001, 0.9, 0.015]), np.array([0, 1, 0, 1]), 0.05)
    assert levels == pytest.approx([0.05 / 2] * 4)
    assert list(sizes) == [2, 2, 2, 2]


def test_verdicts_and_intervals_say_the_same():
    # Questions of their own, of which nothing differs but what is said.
    n = 400
    rows = {"much": -0.3, "some": -0.1, "none": 0.0, "gain": 0.2}
    answers = scores(*(np.full((1, n), mean) + np.resize([0.1, -0.1], n) for mean in rows.values()))
    answers = replace(answers, settings=dict(zip(rows, answers.settings.values(), strict=True)))
    found = settings_tables([answers], 20.0, 0.95)[0].set_index("setting")
    assert found["verdict"].to_dict() == {"much": "lost", "some": "lost", "none": "undecided", "gain": "gained"}
    assert found["margin_verdict"].to_dict() == {
        "much": "lost more than the margin",
        "some": "no more than the margin lost",
        "none": "no more than the margin lost",
        "gain": "no more than the margin lost",
    }
    gains = settings_tables([answers], 10.0, 0.95)[1].set_index("setting")["gain_margin_verdict"]
    assert gains["gain"] == "gained more than the margin"
    assert gains["none"] == "no more than the margin gained"


def test_an_undecided_row_says_what_would_decide_it():
    generator = np.random.default_rng(6)
    answers = scores(generator.choice([-1.0, 0.0, 1.0], (1, 100), p=[0.1, 0.8, 0.1]))
    verdicts, details = settings_tables([answers], 3.0, 0.95)
    assert verdicts["margin_verdict"][0] == "undecided"
    needed = details["units_to_decide"][0]
    # The normal approximation: (z of the level + z of the power) standard errors reach from the difference to -3 pp.
    sd = 10 * details["cluster_se_pp"][0]
    distance = abs(verdicts["difference_pp"][0] + 3)
    assert needed == pytest.approx(((1.96 + 0.8416) * sd / distance) ** 2, rel=0.03)
    assert np.isnan(details["seeds_to_decide"][0])


def test_seeds_decide_where_seeds_are_what_differs():
    values = np.array([[-0.01], [0.01], [0.0]]) + np.resize([0.01, -0.01], (1, 200))
    _, details = settings_tables([scores(values, values)], 0.6, 0.95)
    assert 3 < details["seeds_to_decide"][0] < 100
    assert np.isnan(details["units_to_decide"][0])


def test_the_wild_bootstrap_enumerates_few_clusters():
    sums, sizes = np.array([[4.0, 7.0, 1.0, 6.0, -2.0, 3.0, 2.0, 5.0, 4.0, 1.0, 6.0]]), np.full(11, 10)
    units = Units.of(np.repeat(np.arange(11), sizes), False)

    def t(values):
        mean = values.sum() / 110
        return abs(mean) / np.sqrt((((values - mean * sizes) ** 2) / (1 - sizes / 110)).sum())

    own = t(sums[0])
    every = [t(sums[0] * signs) >= own - 1e-12 for signs in itertools.product([-1, 1], repeat=11)]
    assert wild_bootstrap(units, sums)[0] == pytest.approx(np.mean(every))
    assert wild_bootstrap(units, np.zeros((1, 11)))[0] == 1
    assert np.isnan(wild_bootstrap(Units.of(np.arange(100), True), np.zeros((1, 100)))).all()


def test_methods_that_disagree_are_flagged():
    # One database alone has what is gained: CR2 and the bootstrap of five clusters see that differently.
    sizes = (40, 3, 3, 3, 3)
    clusters = np.repeat(np.arange(5), sizes)
    found = []
    for share in np.linspace(0.1, 0.9, 33):
        values = (np.arange(len(clusters)) % 10 < 10 * share).astype(float)[None]
        verdicts, details = settings_tables([scores(values, clusters=clusters)], 3.0, 0.95)
        flagged, wild = details["methods_disagree"][0], details["p_wild_bootstrap"][0]
        assert flagged == ((wild < 0.05) != (verdicts["p"][0] < 0.05))
        found.append(flagged)
    assert any(found)


def test_contrasts_are_of_the_first_to_the_second():
    answers = drawn(Design(seeds=(2, 3, 1), truths=(0.1, 0.0, -0.1)))
    found = contrasts_table([answers], 0.95)
    assert list(found.columns) == [*CONTRASTS, *CONTRASTED]
    assert list(zip(found["a"], found["b"], strict=True)) == [("s0", "s1"), ("s0", "s2"), ("s1", "s2")]
    means = {name: 100 * runs.mean() for name, runs in answers.settings.items()}
    assert found["difference_pp"].tolist() == pytest.approx(
        [means[a] - means[b] for a, b in zip(found["a"], found["b"], strict=True)]
    )
    decided = (found["ci_low_pp"] > 0) | (found["ci_high_pp"] < 0)
    assert (decided == (found["p_holm"] < 0.05)).all()
    # The base has no part in it, but in how much the two questions count that are added.
    other = contrasts_table([replace(answers, base=1 - answers.base)], 0.95)
    pd.testing.assert_frame_equal(found, other, rtol=0.02)
    assert found["difference_pp"].tolist() == pytest.approx(other["difference_pp"].tolist())


def test_a_family_is_one_model_one_measure_headlines_or_parts():
    easy = np.arange(sum(SPIDER)) % 2 == 0
    parts = {"easy": easy, "hard": ~easy}
    one = drawn(parts=parts)
    tasks = [one, replace(drawn(Design(THREE), seed=2), task="mmlu"), replace(one, measure="score")]
    tasks += [replace(task, model="other") for task in tasks]
    verdicts, details = settings_tables(tasks, 3.0, 0.95)
    assert list(verdicts.columns) == [*SETTINGS]
    assert list(details.columns) == [*DETAILS]
    sizes = details.groupby(["model", "measure", details["part"] == "all"])["family"].unique()
    assert sizes.map(list).to_dict() == {
        (model, measure, headline): [rows]
        for model in ("model", "other")
        for measure, headline, rows in (
            ("correct", True, 4), ("correct", False, 4), ("score", True, 2), ("score", False, 4)
        )
    }  # fmt: skip
    columns = ["ci_low_pp", "p_holm", "verdict"]
    first, second = (
        verdicts[verdicts["model"] == model][columns].reset_index(drop=True) for model in ("model", "other")
    )
    pd.testing.assert_frame_equal(first, second)


def test_one_question_decides_nothing():
    for measure, most in (("correct", 100), ("score", np.inf)):
        verdicts, _ = settings_tables([replace(scores([[1.0]]), measure=measure)], 3.0, 0.95)
        assert verdicts.loc[0, ["ci_low_pp", "ci_high_pp", "p"]].tolist() == [-most, most, 1]
        assert verdicts.loc[0, ["verdict", "margin_verdict"]].tolist() == ["undecided", "undecided"]


def test_no_change_at_all_has_an_interval():
    answers = drawn()
    same = replace(answers, settings={"s": np.array([answers.base] * 3, np.int8)})
    row = settings_tables([same], 3.0, 0.95)[0].iloc[0]
    # As of one seed: that all runs agree says nothing about other questions.
    expected = clustered_difference([0] * len(SPIDER), SPIDER, 0.95)
    assert (row["ci_low_pp"], row["ci_high_pp"]) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert row["p"] == 1
    assert row["margin_verdict"] == "no more than the margin lost"


def test_the_added_questions_count_less_of_several_seeds_that_change_much():
    changes = np.zeros((3, 1000))
    assert added_share(changes) == 1
    assert added_share(changes[:1] + 1) == 1
    changes[:, :98] = 1
    assert added_share(changes) == pytest.approx(1 / 3 + 2 / 3 * 2 / 100)
