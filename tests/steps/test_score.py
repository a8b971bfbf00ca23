import json
import sqlite3

import pytest

from common.files import UserError, read_jsonl, sha256_file, write_json, write_jsonl
from custom_metrics.compare import SEMANTICS
from score import score as step
from tasks.records import SPIDER_COLUMNS, escape, read_records, unescape, write_records


@pytest.fixture
def paths(tmp_path):
    """Two databases with a manifest, two questions to ask and right answers."""
    data = tmp_path / "data"
    for db_id in ("zoo", "shop"):
        path = data / f"database/{db_id}/{db_id}.sqlite"
        path.parent.mkdir(parents=True)
        connection = sqlite3.connect(path)
        connection.executescript("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'), (2, 'y');")
        connection.close()
    names = [f"database/{db_id}/{db_id}.sqlite" for db_id in ("zoo", "shop")]
    write_json(data / "manifest.json", {"files": {n: {"sha256": sha256_file(data / n)} for n in names}})
    questions = [
        {"id": "dev-00000", "db_id": "zoo", "question": "All a?", "query": "SELECT a FROM t", "hardness": "easy"},
        {
            "id": "dev-00001",
            "db_id": "shop",
            "question": "How many?",
            "query": "SELECT count(*) FROM t",
            "hardness": "hard",
        },
    ]
    paths = {
        "answers": tmp_path / "answers.jsonl",
        "questions": tmp_path / "test.jsonl",
        "manifest": data / "manifest.json",
        "records": tmp_path / "spider.csv",
        "rows": tmp_path / "spider_rows.jsonl",
    }
    write_jsonl(paths["questions"], questions[::-1])
    answer(paths, "SELECT 2", "SELECT a FROM t ORDER BY a DESC")
    return paths


def score_spider(paths, timeout_s, jobs=1):
    settings = {"kind": "spider", "name": "tasks.spider", "role": "target", "criterion": "bag", "timeout_s": timeout_s}
    step(paths, {name: paths[name] for name in ("records", "rows")}, settings, jobs)


def answer(paths, *answers):
    rows = [{"id": i, "answer": a} for i, a in zip(("dev-00001", "dev-00000"), answers, strict=False)]
    # ASCII, so that lone surrogates can be written as JSON has them.
    paths["answers"].write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_answers_that_were_cut_or_changed_are_refused(paths, tmp_path):
    paths["report"] = tmp_path / "spider_predict.json"
    write_json(paths["report"], {"answers_sha256": sha256_file(paths["answers"])})
    score_spider(paths, timeout_s=5)
    before = paths["records"].read_bytes()
    answer(paths, "SELECT 2")
    with pytest.raises(UserError, match=r"answers\.jsonl: cut or changed .*spider_predict\.json.*or delete it and"):
        score_spider(paths, timeout_s=5)
    assert paths["records"].read_bytes() == before


def test_one_record_a_question_in_its_order(paths):
    answer(paths, "```sql\nSELECT 2;\n```", "SELECT b FROM t")
    score_spider(paths, timeout_s=5)
    frame = read_records(paths["records"], SPIDER_COLUMNS)
    assert frame["id"].tolist() == ["dev-00001", "dev-00000"]
    assert frame["bag"].tolist() == [1, 0]
    assert frame["bag_raw"].tolist() == [0, 0]
    assert frame["error_class"].tolist() == ["ok", "wrong_rows"]
    assert frame.iloc[0].to_dict() == {
        "id": "dev-00001",
        "db_id": "shop",
        "hardness": "hard",
        "question": "How many?",
        "gold": "SELECT count(*) FROM t",
        "answer": "```sql\nSELECT 2;\n```",
        "sql": "SELECT 2",
        **dict.fromkeys(SEMANTICS, 1),
        **{f"{name}_raw": 0 for name in SEMANTICS},
        "error_class": "ok",
        "gold_rows": 1,
        "predicted_rows": 1,
        "flags": "",
        "message": "",
    }
    first = paths["records"].read_bytes(), paths["rows"].read_bytes()
    score_spider(paths, timeout_s=5, jobs=3)
    assert (paths["records"].read_bytes(), paths["rows"].read_bytes()) == first
    assert b"\r" not in first[0]


def test_the_first_rows_of_both_results_stand_beside_the_records(paths):
    answer(paths, "SELECT x'00' AS \"a\udc80\"", "SELECT absent")
    score_spider(paths, timeout_s=5)
    first, second = read_jsonl(paths["rows"])
    assert first == {
        "id": "dev-00001",
        "gold": {"columns": ["count(*)"], "width": 1, "rows": [[0, [2]]], "unmatched": []},
        "predicted": None,
    }
    assert second["predicted"] is None
    assert second["gold"]["rows"] == [[0, [1]], [1, [2]]]
    answer(paths, "SELECT 3 AS three", "SELECT a FROM t UNION ALL SELECT cast(x'80' AS text)")
    score_spider(paths, timeout_s=5)
    first, second = read_jsonl(paths["rows"])
    assert first["predicted"] == {"columns": ["three"], "width": 1, "rows": [[0, [3]]], "unmatched": [0]}
    assert second["predicted"]["rows"] == [[0, [1]], [1, [2]], [2, ["\udc80"]]]
    assert second["predicted"]["unmatched"] == [2]


def test_a_missing_answer_is_a_zero(paths):
    answer(paths, "SELECT 2")
    score_spider(paths, timeout_s=5)
    frame = read_records(paths["records"], SPIDER_COLUMNS)
    assert frame["bag"].tolist() == [1, 0]
    assert frame["error_class"].tolist() == ["ok", "missing"]
    assert frame["predicted_rows"].isna().tolist() == [False, True]


HOSTILE = [
    "SELECT 'a\nb'",
    'SELECT "a", \'b\'\r\n;,\t"""',
    "a\0b",
    "\udfff\ud800 lone",
    "\\n is no newline, \\u0041 no A, \\",
    "NA",
    "null",
    "",
    " leading and trailing \n\n",
    "é 日本 😀 \u2028 \x85",
    "=cmd|'/c calc'!A1",
    "DROP TABLE t; --",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(*) FROM n",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_come_through_whole(paths, text):
    answer(paths, text, text)
    score_spider(paths, timeout_s=0.2)
    frame = read_records(paths["records"], SPIDER_COLUMNS)
    assert frame["answer"].tolist() == [text, text]
    assert not frame[[*SEMANTICS, *(f"{name}_raw" for name in SEMANTICS)]].any(axis=None)
    assert all(frame["error_class"])
    assert len(paths["records"].read_text(encoding="utf-8").split("\n")) == 4  # header, two records, end


@pytest.mark.parametrize("text", HOSTILE)
def test_escape_is_reversible(text):
    assert unescape(escape(text)) == text
    assert len(escape(text).splitlines()) <= 1
    escape(text).encode("utf-8")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["dev-00000", "dev-00000"], ["answers.jsonl", "line 2", "dev-00000 comes twice"]),
        (["dev-00002"], ["answers.jsonl", "line 1", "dev-00002 is not among the questions"]),
    ],
)
def test_answers_to_other_questions_are_refused(paths, rows, words):
    write_jsonl(paths["answers"], [{"id": i, "answer": "SELECT 1"} for i in rows])
    with pytest.raises(UserError) as error:
        score_spider(paths, timeout_s=5)
    assert all(word in str(error.value) for word in words)
    assert not paths["records"].exists()


def test_a_changed_or_missing_database_is_refused(paths):
    database = paths["manifest"].parent / "database/zoo/zoo.sqlite"
    database.write_bytes(database.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"zoo\.sqlite: found sha256 .*, expected .*snakemake -R fetch_spider"):
        score_spider(paths, timeout_s=5)
    database.unlink()
    with pytest.raises(UserError, match=r"zoo\.sqlite: no such database.*snakemake -R fetch_spider"):
        score_spider(paths, timeout_s=5)


def test_a_gold_query_that_fails_is_named(paths):
    row = {"id": "dev-00002", "db_id": "shop", "question": "Why?", "query": "SELECT absent", "hardness": "extra"}
    write_jsonl(paths["questions"], [*read_jsonl(paths["questions"]), row])
    write_jsonl(paths["answers"], [])
    message = r"dev-00002: .*no such column: absent.*SELECT absent.*tasks\.spider\.exclude_databases"
    with pytest.raises(UserError, match=message):
        score_spider(paths, timeout_s=5)


def test_records_of_another_kind_are_refused(paths, tmp_path):
    row = dict.fromkeys(SPIDER_COLUMNS, "x") | {c: 1 for c in SPIDER_COLUMNS if c.removesuffix("_raw") in SEMANTICS}
    row |= {"gold_rows": 1, "predicted_rows": None, "bag": 2}
    write_records(tmp_path / "a.csv", SPIDER_COLUMNS, [row])
    with pytest.raises(UserError, match="bag of x: expected 0 or 1"):
        read_records(tmp_path / "a.csv", SPIDER_COLUMNS)
    write_records(tmp_path / "b.csv", SPIDER_COLUMNS, [row | {"bag": 1}] * 2)
    with pytest.raises(UserError, match="id x: comes twice"):
        read_records(tmp_path / "b.csv", SPIDER_COLUMNS)
    write_records(tmp_path / "c.csv", SPIDER_COLUMNS[:3], [row])
    with pytest.raises(UserError, match="expected id, db_id"):
        read_records(tmp_path / "c.csv", SPIDER_COLUMNS)
    write_records(tmp_path / "d.csv", SPIDER_COLUMNS, [row | {"bag": 1, "gold_rows": "many"}])
    with pytest.raises(UserError, match=r"d\.csv, gold_rows: expected numbers .*'many'"):
        read_records(tmp_path / "d.csv", SPIDER_COLUMNS)


@pytest.mark.parametrize("content", [b"", b'id,db_id\n"x', b"id\n\xff\n"])
def test_records_that_were_cut_are_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.csv: not CSV \(.+\)\. Delete it and run again to make it anew"):
        read_records(tmp_path / "a.csv", SPIDER_COLUMNS)
