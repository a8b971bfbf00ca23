import json
import zipfile
from itertools import pairwise

import pytest

from custom_metrics.explain import Difference, differences

BASE = "SELECT T1.name FROM play AS T1 JOIN writer AS T2 ON T1.w = T2.id WHERE T2.city = 'Rio' ORDER BY T1.year DESC"


@pytest.mark.parametrize(
    ("gold", "answer", "found"),
    [
        (
            "SELECT a FROM t ORDER BY b DESC LIMIT 1",
            "SELECT a FROM t ORDER BY b LIMIT 1",
            ("sort_direction", "DESC", "ASC"),
        ),
        ("SELECT a FROM t ORDER BY b", "SELECT a FROM t ORDER BY c DESC", ("sort", "b", "c DESC")),
        ("SELECT a FROM t ORDER BY b", "SELECT a FROM t", ("sort", "b", "")),
        ("SELECT a FROM t LIMIT 3", "SELECT a FROM t LIMIT 1", ("limit", "3", "1")),
        (
            "SELECT a FROM t WHERE b > 1 INTERSECT SELECT a FROM t WHERE b < 9",
            "SELECT a FROM t WHERE b > 1",
            ("set_operation", "INTERSECT", ""),
        ),
        ("SELECT a FROM t UNION SELECT a FROM u", "SELECT a FROM t UNION SELECT b FROM u", ("columns", "a", "b")),
        ("SELECT name FROM t", "SELECT count(*) FROM t", ("columns", "name", "count(*)")),
        ("SELECT a, b FROM t", "SELECT b, a FROM t", ("column_order", "a, b", "b, a")),
        ("SELECT DISTINCT a FROM t", "SELECT a FROM t", ("distinct", "DISTINCT", "")),
        ("SELECT a FROM t WHERE b = 'Rio'", 'SELECT a FROM t WHERE b = "rio"', ("literal_case", "'Rio'", "'rio'")),
        ("SELECT a FROM t WHERE b = 3", "SELECT a FROM t WHERE b = 4", ("literal", "3", "4")),
        ("SELECT a FROM t WHERE b > 3", "SELECT a FROM t WHERE b >= 3", ("operator", "b > 3", "b >= 3")),
        ("SELECT a FROM t WHERE b > 3 AND c = 1", "SELECT a FROM t WHERE c = 1", ("condition", "b > 3", "")),
        ("SELECT a FROM t", "SELECT a FROM t WHERE c = 1", ("condition", "", "c = 1")),
        (
            "SELECT a FROM t WHERE b > (SELECT avg(b) FROM t)",
            "SELECT a FROM t WHERE b > (SELECT max(b) FROM t)",
            ("columns", "avg(b)", "max(b)"),
        ),
        (
            "SELECT a FROM t WHERE i NOT IN (SELECT i FROM u)",
            "SELECT a FROM t WHERE c = 1 AND i NOT IN (SELECT i FROM t)",
            ("tables", "u", "t"),
        ),
        ("SELECT a FROM t GROUP BY a", "SELECT a FROM t GROUP BY b", ("grouping", "a", "b")),
        (
            "SELECT a FROM t GROUP BY a HAVING count(*) > 3",
            "SELECT a FROM t GROUP BY a HAVING count(*) > 2",
            ("having", "count(*) > 3", "count(*) > 2"),
        ),
        ("SELECT a FROM t JOIN u ON t.i = u.i", "SELECT a FROM t JOIN u ON t.i = u.j", ("join", "i = i", "i = j")),
        ("SELECT a FROM t JOIN u ON t.i = u.i", "SELECT a FROM t", ("tables", "u", "")),
        ("SELECT t.a FROM t JOIN u ON t.i = u.i", "SELECT u.a FROM t JOIN u ON t.i = u.i", ("owner", "t.a", "u.a")),
    ],
)
def test_each_kind_of_difference(gold, answer, found):
    assert Difference(*found) in differences(gold, answer)
    (kind, one, other) = found
    assert Difference(kind, other, one) in differences(answer, gold)


@pytest.mark.parametrize(
    "answer",
    [
        BASE,
        BASE.lower().replace("'rio'", '"Rio"'),
        BASE.replace("T1", "p").replace("T2", "w2"),
        BASE.replace("T1.w = T2.id", "T2.id = T1.w").replace("T1.name", "T1.name AS n"),
    ],
)
def test_what_makes_no_difference(answer):
    assert differences(BASE, answer) == []


@pytest.mark.parametrize("answer", ["", "DROP TABLE t", "SELECT FROM WHERE", "\0\ud800"])
def test_what_is_no_query_has_no_differences(answer):
    assert differences("SELECT 1", answer) is None


def test_queries_with_little_in_common_are_compared():
    found = differences("SELECT 1", "WITH x AS (SELECT a FROM t) SELECT * FROM x, (SELECT b FROM u) ORDER BY 1")
    assert found
    assert all(one.gold != one.answer for one in found)


def test_the_gold_queries_of_spider(shared_data):
    """No query differs from itself, and whichever two are compared, something is found or they are the same."""
    with zipfile.ZipFile(shared_data / "spider/spider_data.zip") as archive:
        (name,) = [one for one in archive.namelist() if one.endswith("/dev.json") and "__MACOSX" not in one]
        gold = [row["query"] for row in json.loads(archive.read(name))]
    assert all(differences(query, query) == [] for query in gold)
    assert all(differences(query, other) is not None for query, other in pairwise(gold))
