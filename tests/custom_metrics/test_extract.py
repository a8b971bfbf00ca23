import pytest

from custom_metrics.extract import extract_sql

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
    "(SELECT a FROM t)",
    "SELECT",
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
    "two fences": ("```sql\nSELECT a FROM t\n```\nor\n```sql\nSELECT b FROM t\n```", "SELECT a FROM t"),
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
    "explanation after the semicolon": ("SELECT a FROM t; -- or so\nThis query selects a.", "SELECT a FROM t"),
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
    "a string before the end": ("'SELECT a' is wrong", "SELECT a' is wrong"),
    "trailing comment": ("SELECT a FROM t; -- all of them", "SELECT a FROM t"),
    "lines of comment first": ("-- names\nSELECT a FROM t", "SELECT a FROM t"),
    "a comment that begins like a statement": ("-- SELECT the names\nSELECT a FROM t", "SELECT a FROM t"),
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


@pytest.mark.parametrize(
    "text",
    [
        "SELECT " + "(" * 50_000,
        "'" * 100_000,
        "WITH " * 50_000,
        "```" * 30_000,
        "\n" * 200_000,
        "<think>" * 50_000,
        "(" + "SELECT " * 50_000,
    ],
)
def test_hostile_lengths_take_no_time(text):
    # Quadratic backtracking would take minutes here; pytest's own timeout is not needed to notice.
    assert extract_sql(text) in text
