import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custom_metrics.compare import SEMANTICS
from custom_metrics.extract import extract_sql
from custom_metrics.hardness import parse
from custom_metrics.judge import Judge
from custom_metrics.sql_text import tokens

PLAIN = [
    "SELECT count(*) FROM singer",
    "select name from singer where name = 'a;b'",
    'SELECT "a;b" FROM [c;d]',
    "SELECT name -- the name; not the id\nFROM singer",
    "SELECT a FROM t WHERE x IN (\n\n  SELECT b FROM u\n)",
    "SELECT a FROM t\n\nWHERE b = 1\n\nUNION\n\nSELECT c FROM u",
    "WITH a AS (SELECT 1)\n\nSELECT * FROM a",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i FROM n), m AS (SELECT 2) SELECT * FROM n, m",
    "SELECT 'Question: why?' FROM t",
    "SELECT 'it''s\n\nfine' FROM t",
    "SELECT a, (SELECT max(b) FROM u) FROM t",
    "DROP TABLE singer",
    "INSERT INTO t SELECT * FROM u",
    "CREATE TABLE t AS SELECT * FROM u",
    "SELECT",
    "-- names\nSELECT a FROM t",
    "-- SELECT the names\nSELECT a FROM t",
    "SELECT a FROM t; -- all of them",
    'WITH "my q" AS (SELECT 1) SELECT * FROM "my q"',
    "WITH /* one */ a AS -- two\n(SELECT 1) SELECT * FROM a",
    "SELECT '```', '</s>', '</think>' FROM t",
]


@pytest.mark.parametrize("sql", PLAIN)
@pytest.mark.parametrize("around", ["{}", " {}\n", "{};", "{} ;\n"])
def test_a_plain_query_comes_back_unchanged(sql, around):
    assert extract_sql(around.format(sql)) == sql


CASES = {
    "fence": ("```sql\nSELECT a FROM t\n```", "SELECT a FROM t"),
    "fence on one line": ("```SELECT a FROM t```", "SELECT a FROM t"),
    "fence with language on one line": ("```sql SELECT a FROM t```", "SELECT a FROM t"),
    "fence of another language": ("```sqlite3\nSELECT a FROM t;\n```", "SELECT a FROM t"),
    "open fence": ("```sql\nSELECT a FROM t", "SELECT a FROM t"),
    "closing fence only": ("SELECT a FROM t\n```", "SELECT a FROM t"),
    "closing fence, then prose": ("SELECT a FROM t\n```\nThis selects a.", "SELECT a FROM t"),
    "prose, fence, prose": (
        "To select the names, you can use this query:\n\n```sql\nSELECT a\nFROM t;\n```\n\nIt lists names.",
        "SELECT a\nFROM t",
    ),
    "the second fence has the query": ("```\nt(a, b)\n```\nso\n```sql\nSELECT a FROM t\n```", "SELECT a FROM t"),
    "two fences": ("```sql\nSELECT a FROM t\n```\nNo:\n```sql\nSELECT b FROM t\n```", "SELECT b FROM t"),
    "the second fence is another way": ("```\nSELECT a FROM t\n```\nor\n```\nSELECT b FROM t\n```", "SELECT a FROM t"),
    "a literal in a fence that holds one": ("```sql\nSELECT '```' FROM t\n```", "SELECT '```' FROM t"),
    "a query that is not understood is not replaced by one inside it": (
        "SQL: SELECT a FRM t WHERE b IN (SELECT c FROM u)",
        "SELECT a FRM t WHERE b IN (SELECT c FROM u)",
    ),
    "nor by its half": ("SQL: SELECT a FROM t UNION SELECT b FRM u c d", "SELECT a FROM t UNION SELECT b FRM u c d"),
    "with as a word": ("With this schema:\n```sql\nSELECT a FROM t\n```", "SELECT a FROM t"),
    "here is": ("Here is the SQL:\nSELECT a FROM t", "SELECT a FROM t"),
    "here is, one line": ("Here is the SQL query: select a from t", "select a from t"),
    "label": ("SQL: SELECT a FROM t", "SELECT a FROM t"),
    "label, lower case": ("sql:\n\nselect a from t where b = 1", "select a from t where b = 1"),
    "label and subquery on its own line": (
        "Answer: SELECT a FROM t WHERE b IN (\nSELECT c FROM u)",
        "SELECT a FROM t WHERE b IN (\nSELECT c FROM u)",
    ),
    "prose without colon": ("Use SELECT a FROM t WHERE b = (\nSELECT 1)", "SELECT a FROM t WHERE b = (\nSELECT 1)"),
    "prose with the word select": ("I would select names.\nSELECT a FROM t", "SELECT a FROM t"),
    "lower case in prose": ("the query is select a from t", "select a from t"),
    "a query with WITH after prose": (
        "Answer:\nWITH a AS (SELECT 1) SELECT * FROM a",
        "WITH a AS (SELECT 1) SELECT * FROM a",
    ),
    "backticks": ("The query is `SELECT a FROM t`.", "SELECT a FROM t"),
    "several statements": ("SELECT a FROM t; SELECT b FROM t;", "SELECT a FROM t"),
    "several statements, no semicolon": ("SELECT a FROM t\n\nSELECT b FROM t", "SELECT a FROM t"),
    "the first statement is a harmful one": ("DROP TABLE t; SELECT 1", "DROP TABLE t"),
    "explanation after the semicolon": ("SELECT a FROM t; -- or so\nThis selects a.", "SELECT a FROM t; -- or so"),
    "parentheses": ("(SELECT a FROM t)", "SELECT a FROM t"),
    "explanation after a blank line": ("SELECT a FROM t\n\nThis query isn't hard.", "SELECT a FROM t"),
    "explanation that begins like a clause": ("SELECT a FROM t\n\nFrom this we see all.", "SELECT a FROM t"),
    "explanation with a label": ("SELECT a FROM t\nExplanation: it lists a.", "SELECT a FROM t"),
    "the next shot": ("SELECT a FROM t\nQuestion: How many?\nSQL: SELECT 1", "SELECT a FROM t"),
    "end of turn": ("SELECT a FROM t<|eot_id|>", "SELECT a FROM t"),
    "half an end of turn name": ("SELECT a FROM t <|eot|>", "SELECT a FROM t"),
    "the next turn": ("SELECT a FROM t</s>user SELECT b FROM t", "SELECT a FROM t"),
    "gemma": ("SELECT a FROM t<end_of_turn>\n<eos>", "SELECT a FROM t"),
    "begin of text": ("<s> SELECT a FROM t</s>", "SELECT a FROM t"),
    "header": ("<|start_header_id|>assistant<|end_header_id|>\n\nSELECT a FROM t", "SELECT a FROM t"),
    "smaller than": ("SELECT a FROM t WHERE b<3 AND c>2", "SELECT a FROM t WHERE b<3 AND c>2"),
    "explanation on the next line": ("SELECT a FROM t\nThis query selects a.", "SELECT a FROM t"),
    "heading": ("SELECT a FROM t\n### Explanation\nIt lists a.", "SELECT a FROM t"),
    "bold label": ("**SQL:** SELECT a FROM t\n**Explanation:** it lists a.", "SELECT a FROM t"),
    "list item": ("1. SELECT a FROM t", "SELECT a FROM t"),
    "tildes": ("~~~sql\nSELECT a FROM t\n~~~", "SELECT a FROM t"),
    "tags": ("<sql>SELECT a FROM t</sql>", "SELECT a FROM t"),
    "square tags": ("[SQL] SELECT a FROM t [/SQL]", "SELECT a FROM t"),
    "reasoning": ("<think>SELECT b FROM t? No.</think>\nSELECT a FROM t", "SELECT a FROM t"),
    "half a token": ("SELECT a FROM t<|eot", "SELECT a FROM t"),
    "in quotation marks": ("\"SELECT a FROM t WHERE b = 'c'\"", "SELECT a FROM t WHERE b = 'c'"),
    "in json": ('{"sql": "SELECT a FROM t"}', "SELECT a FROM t"),
    "columns called like words": ("SELECT a,\nThe FROM t", "SELECT a,\nThe FROM t"),
    "title case": ("Select a\nFrom t\nWhere b = 1", "Select a\nFrom t\nWhere b = 1"),
    "windows line ends": ("```sql\r\nSELECT a\r\nFROM t\r\n```\r\n", "SELECT a\r\nFROM t"),
    "nothing": ("", ""),
    "white space": (" \n\t", ""),
    "only a semicolon": (";", ""),
    "only an end of turn": ("<|eot_id|>", ""),
    "only prose": ("I'm sorry, I cannot answer this.", "I'm sorry, I cannot answer this."),
    "a fragment is not completed": ("count(*) FROM t", "count(*) FROM t"),
    "an open string": ("SELECT 'a FROM t\n\nIt's", "SELECT 'a FROM t\n\nIt's"),
    "nul": ("SELECT 'a\0b' FROM t;", "SELECT 'a\0b' FROM t"),
}


@pytest.mark.parametrize(("answer", "sql"), CASES.values(), ids=CASES.keys())
def test_extract_sql(answer, sql):
    assert extract_sql(answer) == sql


@pytest.mark.parametrize("answer", [case[0] for case in CASES.values()] + PLAIN)
def test_the_result_is_a_piece_of_the_answer_and_stays_as_it_is(answer):
    sql = extract_sql(answer)
    assert sql in answer
    assert extract_sql(sql) == sql


def test_the_end_of_a_line_of_broken_sql_is_no_answer():
    broken = "SELECT status FROM delivery WHERE minutes < 103 INTudience SELECT status FROM delivery WHERE minutes > 62"
    assert extract_sql(broken) == broken
    assert extract_sql("SELECT is the keyword. SELECT a FROM t") == "SELECT a FROM t"


def test_a_set_operation_that_only_mysql_understands_is_not_replaced_by_its_half():
    assert "UNION" in extract_sql("Use (SELECT a FROM t) UNION (SELECT b FROM u)")


def test_the_first_fence_by_option():
    answer = "```sql\nSELECT a FROM t\n```\nNo:\n```sql\nSELECT b FROM t\n```"
    assert extract_sql(answer, fence="first") == "SELECT a FROM t"
    with pytest.raises(ValueError, match="expected first or last"):
        extract_sql(answer, fence="second")


LONG = [
    "SELECT " + "(" * 50_000,
    "'" * 100_000,
    "WITH " * 50_000,
    "```" * 30_000,
    "\n" * 200_000,
    "<think>" * 50_000,
    "(" + "SELECT " * 50_000,
    "SELECT " + "[" * 1_000_000,
    "SELECT " + "[" * 900_000,
    "<answer>" * 100_000,
    '{"a":' * 180_000,
    "\\boxed{" * 140_000,
    "`SELECT " * 120_000,
    "```sql\nSELECT a\n" * 60_000,
    "SELECT '\n\n" * 90_000,
    "&lt;" * 240_000,
]


@pytest.mark.parametrize("text", LONG, ids=range(len(LONG)))
def test_hostile_lengths_take_no_time(text):
    # Backtracking would take minutes here; pytest's own timeout is not needed to notice.
    found = extract_sql(text)
    assert found in text or "&lt;" in text


def random_layout(generator, sql):
    """Put blanks, line ends and comments where a query has blanks."""
    gaps = (" ", "  ", "\n", "\n\n", "\t", "\r\n", " /* so; it's */ ", " -- why\n", "\n\n\n")
    return "".join(generator.choice(gaps) if token.isspace() else token for token in tokens(sql))


WRAPPERS = ("{}", "{};", "```sql\n{}\n```", "Sure:\n```sql\n{}\n```\nIt's done.", "SQL: {}", "<s>{}</s>", "[/INST] {}")
PRINTERS = ({}, {"pretty": True}, {"identify": True}, {"normalize": True}, {"leading_comma": True, "pretty": True})


@pytest.fixture(scope="module")
def gold():
    folder = Path(__file__).parents[2] / "resources/demo/spider_data"
    rows = json.loads((folder / "dev.json").read_text(encoding="utf-8"))
    with Judge(timeout_s=20) as judge:
        yield judge, [(folder / f"database/{row['db_id']}/{row['db_id']}.sqlite", row["query"]) for row in rows]


@settings(max_examples=150, deadline=None)
@given(number=st.integers(0, 10_000), generator=st.randoms(use_true_random=False), data=st.data())
def test_no_answer_that_is_right_as_it_is_becomes_wrong(gold, number, generator, data):
    judge, rows = gold
    database, query = rows[number % len(rows)]
    printed = parse(query).sql("sqlite", **data.draw(st.sampled_from(PRINTERS))) if data.draw(st.booleans()) else query
    wrapper = data.draw(st.sampled_from(WRAPPERS))
    answer = wrapper.format(random_layout(generator, printed))
    verdict = judge.judge(database, query, answer)
    assert all(verdict.correct[name] >= verdict.correct_raw[name] for name in SEMANTICS), answer
    # And in its wrapper it is found.
    assert verdict.correct["bag"], answer
