"""Do intervals cover, and do tests err, as often as they say? On made-up answers whose true difference is known.

Every check has so many replicates that its own standard error is far below the tolerance of 1.5 points.
"""

import numpy as np
import pytest

from custom_metrics.stats import clustered_difference, holm, mcnemar

# Questions on each database of Spider dev, and subjects as studies draw them.
SPIDER_DEV = (4, 15, 16, 18, 30, 30, 38, 40, 40, 42, 45, 56, 62, 62, 78, 80, 82, 84, 92, 120)
SPIDER_200 = (1, 3, 3, 3, 6, 6, 7, 8, 8, 8, 9, 11, 12, 12, 15, 15, 16, 16, 18, 23)
DEMO = (32,) * 8
SUBJECTS_15 = (10,) * 15
SUBJECTS_57 = (3,) * 36 + (2,) * 21
QUESTIONS_150 = (1,) * 150


def draw(generator, sizes, gained, lost, correlation, count):
    """Draw how many answers are gained and lost in each cluster, `count` times: two arrays (count, clusters).

    Each cluster has its own chances, Dirichlet distributed about `gained` and `lost`; `correlation` is that of two
    answers in one cluster.
    """
    sizes = np.array(sizes)
    chances = np.broadcast_to([gained, lost, 1 - gained - lost], (count, len(sizes), 3))
    if correlation:
        weights = generator.gamma(chances * (1 - correlation) / correlation)
        chances = weights / weights.sum(axis=-1, keepdims=True)
    up = generator.binomial(sizes, chances[..., 0])
    return up, generator.binomial(sizes - up, np.clip(chances[..., 1] / (1 - chances[..., 0]), 0, 1))


@pytest.mark.parametrize(
    ("sizes", "gained", "lost", "correlation"),
    [
        (SPIDER_DEV, 0.10, 0.10, 0.0),
        (SPIDER_DEV, 0.10, 0.10, 0.1),
        (SPIDER_DEV, 0.25, 0.05, 0.05),
        (SPIDER_200, 0.10, 0.10, 0.1),
        (SPIDER_200, 0.25, 0.05, 0.05),
        (SPIDER_200, 0.05, 0.20, 0.05),
        (DEMO, 0.10, 0.10, 0.05),
        (DEMO, 0.30, 0.05, 0.1),
        (SUBJECTS_15, 0.05, 0.15, 0.1),
        (SUBJECTS_15, 0.10, 0.10, 0.0),
        (SUBJECTS_57, 0.05, 0.15, 0.2),
        (SUBJECTS_57, 0.10, 0.10, 0.1),
        (QUESTIONS_150, 0.15, 0.07, 0.0),
        (QUESTIONS_150, 0.04, 0.20, 0.0),
    ],
)
def test_interval_of_a_difference_covers(sizes, gained, lost, correlation):
    count = 20000
    up, down = draw(np.random.default_rng(1), sizes, gained, lost, correlation, count)
    found = [clustered_difference(row, sizes, 0.95) for row in up - down]
    covered = np.mean([one.low <= gained - lost <= one.high for one in found])
    assert 0.935 < covered < 0.965
    assert all((one.p < 0.05) == (one.low > 0 or one.high < 0) for one in found)


@pytest.mark.parametrize("sizes", [SPIDER_DEV, SPIDER_200, DEMO, SUBJECTS_15])
def test_clusters_make_no_false_positives_as_they_do_with_mcnemar(sizes):
    up, down = draw(np.random.default_rng(2), sizes, 0.12, 0.12, 0.08, 20000)
    found = np.mean([clustered_difference(row, sizes, 0.95).p < 0.05 for row in up - down])
    assert 0.035 < found < 0.065
    independent = np.mean(
        [mcnemar(*row) < 0.05 for row in zip(up.sum(axis=1)[:2000], down.sum(axis=1)[:2000], strict=True)]
    )
    assert independent > 0.09


def test_one_family_has_one_false_positive_in_twenty():
    # Two adapters, each on Spider and MMLU, none of which changed anything.
    generator = np.random.default_rng(3)
    p = []
    for sizes in (SPIDER_200, SPIDER_200, SUBJECTS_15, SUBJECTS_15):
        up, down = draw(generator, sizes, 0.12, 0.12, 0.08, 20000)
        p.append([clustered_difference(row, sizes, 0.95).p for row in up - down])
    assert 0.03 < np.mean([min(holm(family)) < 0.05 for family in zip(*p, strict=True)]) < 0.065


def test_the_draws_are_what_they_claim_to_be():
    up, down = draw(np.random.default_rng(7), DEMO, 0.2, 0.1, 0.1, 20000)
    assert up.mean() / 32 == pytest.approx(0.2, abs=0.003)
    assert down.mean() / 32 == pytest.approx(0.1, abs=0.003)
    # Variance of a beta-binomial count.
    assert up.var() == pytest.approx(32 * 0.2 * 0.8 * (1 + 31 * 0.1), rel=0.03)
