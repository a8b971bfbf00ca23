import csv
import math
import sqlite3
import zipfile
from math import comb

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from scipy.stats import t as student

from custom_metrics.sandbox import Database
from custom_metrics.stats import (
    clustered_difference,
    holm,
    mcnemar,
    mean_of_proportions,
    percent_change,
    wilson_interval,
)


def test_wilson_interval_as_published():
    # Newcombe (1998), Statistics in Medicine 17, 857-872, table I: 81/263, 15/148, 0/20, 1/29, method 3.
    for k, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson_interval(k, n, 0.95) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(20, 20, 0.95)[1] == 1.0
    assert wilson_interval(0, 0, 0.95) == (0.0, 1.0)


def test_mean_of_proportions_of_one_group_is_wilson():
    mean, low, high = mean_of_proportions([7], [20], 0.9)
    assert (mean, low, high) == pytest.approx((0.35, *wilson_interval(7, 20, 0.9)))
    # The mean of the shares, not of the answers; two equal groups are sqrt(2) narrower on each side.
    assert mean_of_proportions([1, 90], [1, 100], 0.95)[0] == pytest.approx(0.95)
    _, low, high = mean_of_proportions([7, 7], [20, 20], 0.9)
    one = wilson_interval(7, 20, 0.9)
    assert (0.35 - low, high - 0.35) == pytest.approx(((0.35 - one[0]) / math.sqrt(2), (one[1] - 0.35) / math.sqrt(2)))


def test_mean_of_proportions_covers_what_it_says():
    """57 subjects as uneven as MMLU's, from chance to nearly all right."""
    generator = np.random.default_rng(5)
    sizes, truth = np.geomspace(100, 1534, 57).astype(int), np.linspace(0.25, 0.98, 57)
    found = [mean_of_proportions(generator.binomial(sizes, truth), sizes, 0.95) for _ in range(400)]
    covered = np.mean([low <= truth.mean() <= high for _, low, high in found])
    # Within three standard errors of a share of 400.
    assert abs(covered - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 400)


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(12, 30) == pytest.approx(2 * sum(comb(42, i) for i in range(13)) / 2**42)


def test_a_difference_of_single_questions_is_that_of_bonett_and_price():
    # Their adjusted Wald interval, with the variance's n / (n - 1) and Student's t for the normal distribution.
    for gained, lost, n in ((26, 4, 40), (1, 7, 21), (0, 0, 150), (60, 20, 1034)):
        found = clustered_difference([1] * gained + [-1] * lost + [0] * (n - gained - lost), [1] * n, 0.95)
        up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
        variance = (up + down - (up - down) ** 2) / (n + 2)
        assert found.centre == pytest.approx(up - down)
        assert found.df == pytest.approx(n - 1)
        assert found.se == pytest.approx(math.sqrt(variance), rel=1 / n)
        half = student.ppf(0.975, n - 1) * found.se
        assert (found.low, found.high) == pytest.approx((max(-1, up - down - half), min(1, up - down + half)))
        # Bonett's own example of 26 and 4 among 40, and 1 and 7 among 21 of Fagerland, Lydersen & Laake (2014).
        published = {40: (0.3126438, 0.7349752), 21: (-0.508, -0.013)}.get(n)
        if published:
            assert (found.low, found.high) == pytest.approx(published, abs=0.025)


def test_degrees_of_freedom_are_those_of_bell_and_mccaffrey():
    # Their definition with whole matrices: Satterthwaite's, of the variance as a quadratic form in like questions.
    for sizes in ([10] * 6, [3, 7, 20, 70], [1, 1, 1, 1, 96], [4, 15, 16, 18, 30]):
        n, cluster = sum(sizes), np.repeat(np.arange(len(sizes)), sizes)
        residuals = np.eye(n) - 1 / n
        columns = [residuals[:, cluster == g].sum(axis=1) / math.sqrt(1 - size / n) / n for g, size in enumerate(sizes)]
        form = np.array(columns) @ np.array(columns).T
        expected = np.trace(form) ** 2 / np.trace(form @ form)
        assert clustered_difference([0] * len(sizes), sizes, 0.95).df == pytest.approx(expected)
    assert clustered_difference([1, 0, 2, -1, 0, 0], [10] * 6, 0.95).df == pytest.approx(5)


def test_a_clustered_difference_knows_what_it_does_not_know():
    alike, apart = (clustered_difference(sums, [25] * 8, 0.95) for sums in ([5] * 8, [25, 0, 0, 0, 15, 0, 0, 0]))
    assert alike.centre == apart.centre
    assert alike.p < 1e-6
    assert apart.p > 0.1
    # Nothing changed: an interval nevertheless, around 0.
    none = clustered_difference([0] * 8, [25] * 8, 0.95)
    assert none.low == -none.high < -0.005
    assert none.p == 1.0
    # One cluster, or no question: nothing is known.
    for sums, sizes in (([7], [50]), ([], [])):
        assert clustered_difference(sums, sizes, 0.95)[3:] == (-1.0, 1.0, 1.0)
    assert clustered_difference([20, 10], [20, 10], 0.95).high == 1.0


def test_percent_change_is_relative_to_pooled_counts_and_to_a_base_above_chance():
    assert percent_change(100, 80, 150, 0.25, 0.95) == pytest.approx(-20.0)
    assert percent_change(94, 85, 150, 0.25, 0.95) == pytest.approx(-9.5744681)
    assert percent_change(40, 60, 150, 0.25, 0.95) is None  # 26.7%, interval 20.3 to 34.3
    assert percent_change(0, 60, 150, 0.0, 0.95) is None
    assert percent_change(1, 3, 150, 0.0, 0.95) == pytest.approx(200.0)


def test_holm():
    assert holm([]) == []
    # Holm (1979) with the textbook numbers 0.01, 0.04, 0.03, 0.005.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def two_proportions(k1: int, n1: int, k2: int, n2: int) -> float:
    """Two-sided p of the pooled z test: for published counts whose answers are not known one by one."""
    return float(chi2_contingency([[k1, n1 - k1], [k2, n2 - k2]], correction=False).pvalue)


def test_published_counts_of_unpaired_mmlu_answers():
    # A Llama-3-8B study of 150 questions: 94 right before, 85 and 80 after; social sciences 45, 34 of 50.
    for after, difference, p in ((85, -6.0, 0.29), (80, -9.3, 0.10)):
        assert 100 * (after - 94) / 150 == pytest.approx(difference, abs=0.05)
        assert two_proportions(94, 150, after, 150) == pytest.approx(p, abs=0.005)
    assert holm([two_proportions(45, 50, 34, 50), 0.29, 0.10])[0] < 0.05


def test_published_answers_under_set_semantics(shared_data, tmp_path):
    with zipfile.ZipFile(shared_data / "spider/spider_data.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith(".sqlite")]
        right = {}
        for name in ("baseline_results", "mistral-sql-lora-v3-predictions", "mistral-sql-lora-v4-predictions"):
            with (shared_data / f"ribeiro/{name}.csv").open(encoding="utf-8", newline="") as stream:
                rows = [row for row in csv.DictReader(stream) if row["db_id"] != "wta_1"]
            used = {f"spider_data/database/{row['db_id']}/{row['db_id']}.sqlite" for row in rows}
            archive.extractall(tmp_path, [n for n in names if n in used and not (tmp_path / n).exists()])
            right[name] = [as_sets(tmp_path / "spider_data/database", row) for row in rows]
    base, *tuned = right.values()
    assert [sum(x) for x in right.values()] == [430, 425, 370]
    p = [
        mcnemar(sum(b < t for b, t in zip(base, x, strict=True)), sum(b > t for b, t in zip(base, x, strict=True)))
        for x in tuned
    ]
    assert p == pytest.approx([0.81, 0.0002], rel=0.01)


def as_sets(databases, row):
    """Compare as the published study did."""
    path = databases / row["db_id"] / f"{row['db_id']}.sqlite"
    opened = Database(path)
    predicted, gold = (opened.execute(row[name]).rows for name in ("predicted_sql", "gold_sql"))
    opened.close()
    return predicted is not None and set(predicted) == set(gold)


def test_sqlite_is_new_enough():
    # hard_heap_limit, on which the sandbox relies, came with 3.31.
    assert sqlite3.sqlite_version_info >= (3, 31)
