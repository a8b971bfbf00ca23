"""The levels of hardness, against Spider's own rule on Spider's own parse trees."""

import json
import zipfile
from collections import Counter

import pytest

from custom_metrics.hardness import hardness, parse

LIKE = 9  # position in WHERE_OPS of the official script


def official(sql: dict) -> str:
    """`eval_hardness` of Spider's evaluation.py, on the `sql` tree of a question file."""

    def aggregates(units):
        return sum(unit[0] != 0 for unit in units)

    conditions = sql["from"]["conds"][::2] + sql["where"][::2] + sql["having"][::2]
    joints = sql["from"]["conds"][1::2] + sql["where"][1::2] + sql["having"][1::2]
    one = sum(len(sql[clause]) > 0 for clause in ("where", "groupBy", "orderBy")) + (sql["limit"] is not None)
    one += max(0, len(sql["from"]["table_units"]) - 1)
    one += joints.count("or") + sum(condition[1] == LIKE for condition in conditions)
    two = sum(isinstance(value, dict) for condition in conditions for value in condition[3:5])
    two += sum(sql[clause] is not None for clause in ("intersect", "except", "union"))
    count = aggregates(sql["select"][1]) + aggregates(sql["where"][::2]) + aggregates(sql["groupBy"])
    if sql["orderBy"]:
        count += aggregates([column for unit in sql["orderBy"][1] for column in unit[1:3] if column])
    count += aggregates(sql["having"])
    others = (count > 1) + (len(sql["select"][1]) > 1) + (len(sql["where"]) > 1) + (len(sql["groupBy"]) > 1)
    if one <= 1 and others == 0 and two == 0:
        return "easy"
    if (others <= 2 and one <= 1 and two == 0) or (one <= 2 and others < 2 and two == 0):
        return "medium"
    if (
        (others > 2 and one <= 2 and two == 0)
        or (2 < one <= 3 and others <= 2 and two == 0)
        or (one <= 1 and others == 0 and two <= 1)
    ):
        return "hard"
    return "extra"


def test_agrees_with_the_official_rule_on_all_of_dev(shared_data):
    with zipfile.ZipFile(shared_data / "spider" / "spider_data.zip") as archive:
        rows = json.loads(archive.read("spider_data/dev.json"))
    assert Counter(official(row["sql"]) for row in rows) == {"easy": 248, "medium": 446, "hard": 174, "extra": 166}
    assert [row["query"] for row in rows if hardness(row["query"]) != official(row["sql"])] == []


@pytest.mark.parametrize(
    ("sql", "level"),
    [
        ("SELECT count(*) FROM a", "easy"),
        ("SELECT x FROM a WHERE y = 1", "easy"),
        ("SELECT x, y FROM a", "medium"),
        ("SELECT x FROM a JOIN b ON a.i = b.i WHERE b.z = 2", "medium"),
        ("SELECT x FROM a WHERE y NOT IN (SELECT y FROM b)", "hard"),
        ("SELECT x FROM a UNION SELECT x FROM b", "hard"),
        ("(SELECT x FROM a) UNION (SELECT x FROM b)", "hard"),
        ("SELECT x, y FROM a WHERE y = 1 OR z LIKE '%q' ORDER BY x LIMIT 1", "extra"),
        ("SELECT x FROM a WHERE y = 1 INTERSECT SELECT x, y FROM b EXCEPT SELECT 1 FROM c WHERE q > 3", "hard"),
        ("Sorry, I cannot help with that (", "extra"),
        ("DROP TABLE a", "extra"),
        ("", "extra"),
    ],
)
def test_level(sql, level):
    assert hardness(sql) == level


def test_what_is_no_query_is_not_parsed():
    assert parse("DELETE FROM a") is None
    assert parse("SELECT 'open") is None
