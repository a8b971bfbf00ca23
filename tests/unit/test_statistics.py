import csv
import random
import sqlite3
import zipfile
from math import comb

import pytest

from custom_metrics.sandbox import execute
from custom_metrics.stats import (
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_difference_interval,
    percent_change,
    two_proportions,
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


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(12, 30) == pytest.approx(2 * sum(comb(42, i) for i in range(13)) / 2**42)


def test_paired_difference_interval_as_published():
    # Bonett's own example (26 and 4 discordant of 40), and Fagerland, Lydersen & Laake (2014): 1 and 7 of 21.
    assert paired_difference_interval(26, 4, 40, 0.95) == pytest.approx((0.3126438, 0.7349752), abs=1e-7)
    assert paired_difference_interval(1, 7, 21, 0.95) == pytest.approx((-0.508, -0.013), abs=5e-4)
    low, high = paired_difference_interval(0, 0, 150, 0.95)
    assert low < 0 < high
    assert paired_difference_interval(5, 0, 5, 0.99)[1] <= 1.0


def test_paired_difference_interval_covers():
    generator = random.Random(1)
    hits = 0
    for _ in range(2000):
        draws = [generator.random() for _ in range(150)]
        gained, lost = sum(x < 0.15 for x in draws), sum(x > 0.93 for x in draws)
        low, high = paired_difference_interval(gained, lost, 150, 0.95)
        hits += low <= 0.15 - 0.07 <= high
    assert 0.935 < hits / 2000 < 0.97


def test_minimum_detectable_difference_has_its_power():
    # The formula gives the n at which a difference of 10 pp among 30% changed answers is found with 80%: Connor's
    # own formula, solved for n, gives 234 for these numbers.
    x = minimum_detectable_difference(70, 0, 234, 0.95)
    n = (1.959964 * (70 / 234) ** 0.5 + 0.841621 * (70 / 234 - x * x) ** 0.5) ** 2 / x**2
    assert n == pytest.approx(234, rel=1e-4)
    # Simulated: at that difference McNemar's exact test, slightly conservative, finds it about four times in five.
    generator = random.Random(2)
    up, down = (70 / 234 + x) / 2, (70 / 234 - x) / 2
    found = 0
    for _ in range(600):
        draws = [generator.random() for _ in range(234)]
        found += mcnemar(sum(d < up for d in draws), sum(d > 1 - down for d in draws)) < 0.05
    assert 0.70 < found / 600 < 0.86


def test_minimum_detectable_difference_at_the_edges():
    assert minimum_detectable_difference(0, 0, 0, 0.95) is None
    assert minimum_detectable_difference(1, 0, 3, 0.95) is None
    # Nothing changed: still, a difference that small would have to be seen. More changes hide more.
    none, some, many = (minimum_detectable_difference(k, k, 150, 0.95) for k in (0, 10, 60))
    assert 0.04 < none < some < many < 0.3


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


def test_published_counts_of_unpaired_mmlu_answers():
    # A Llama-3-8B study of 150 questions: 94 right before, 85 and 80 after; social sciences 45, 34 of 50.
    assert two_proportions(94, 150, 85, 150) == pytest.approx(0.29, abs=0.005)
    assert two_proportions(94, 150, 80, 150) == pytest.approx(0.10, abs=0.005)
    assert holm([two_proportions(45, 50, 34, 50), 0.29, 0.10])[0] < 0.05
    assert two_proportions(0, 5, 0, 5) == two_proportions(5, 5, 5, 5) == 1.0


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
    predicted = execute(path, row["predicted_sql"]).rows
    return predicted is not None and set(predicted) == set(execute(path, row["gold_sql"]).rows)


def test_sqlite_is_new_enough():
    # hard_heap_limit, on which the sandbox relies, came with 3.31.
    assert sqlite3.sqlite_version_info >= (3, 31)
