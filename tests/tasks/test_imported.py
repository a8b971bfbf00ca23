"""Answers that were given elsewhere: which question each row answers, and what is refused."""

import json

import pytest

from common.files import UserError, read_json, read_jsonl, write_json, write_jsonl
from fetch_answers import fetch_answers
from import_answers import import_answers
from tasks.imported import Answers, Join, read_given

SQL = [
    {"id": "dev-00000", "db_id": "zoo", "question": "How many?", "query": "SELECT count(*) FROM a"},
    {"id": "dev-00001", "db_id": "shop", "question": "How many?", "query": "SELECT count(*) FROM b"},
    {"id": "dev-00002", "db_id": "shop", "question": "Which  one?", "query": "SELECT 1"},
]
KNOWN = [*SQL, {"id": "dev-00003", "db_id": "shop", "question": "Not asked?", "query": "SELECT 2"}]
QUIZ = [
    {"id": f"s-{i:05d}", "subject": "s", "question": f"Q{i}?", "choices": ["w", "x", "y", "z"], "answer": "ABCD"[i]}
    for i in range(4)
]


def settings(source="answers.jsonl", **keys) -> dict:
    return Answers(source=str(source), **keys).model_dump() | {"name": "models.m.answers.spider"}


def joined(tmp_path, rows, asked=SQL, name="answers.jsonl", **keys) -> tuple[Join, list[dict]]:
    """Write rows (or the bytes of a file), read them again, and join them."""
    path = tmp_path / name
    if isinstance(rows, bytes):
        path.write_bytes(rows)
    else:
        write_jsonl(path, rows)
    own = settings(path, **keys)
    join = Join(read_given(path, own), asked, KNOWN if asked is SQL else asked, own)
    return join, list(join.answers(asked))


def texts(answers) -> dict[str, str]:
    return {row["id"]: row["answer"] for row in answers}


def test_rows_find_their_question_by_its_id_whatever_their_order(tmp_path):
    rows = [{"id": "dev-00002", "sql": "c"}, {"id": "dev-00000", "sql": "a"}]
    _, answers = joined(tmp_path, rows, id="id", answer="sql")
    assert answers == [{"id": "dev-00000", "answer": "a"}, {"id": "dev-00002", "answer": "c"}]


def test_the_same_text_on_two_databases_is_told_apart_by_the_database_or_the_gold_query(tmp_path):
    rows = [
        {"q": "How many?", "db": "shop", "gold": "SELECT count(*)  FROM b;", "answer": "b"},
        {"q": " How many?\n", "db": "zoo", "gold": "SELECT count(*) FROM a", "answer": "a"},
        {"q": "Which one?", "db": "shop", "gold": "SELECT 1", "answer": "c"},
    ]
    expected = {"dev-00000": "a", "dev-00001": "b", "dev-00002": "c"}
    assert texts(joined(tmp_path, rows, question="q", cluster="db")[1]) == expected
    assert texts(joined(tmp_path, rows, question="q", gold="gold")[1]) == expected


def test_an_index_counts_the_questions_of_the_official_file(tmp_path):
    rows = [{"n": 2, "answer": "c"}, {"n": "1", "answer": "b"}]
    assert texts(joined(tmp_path, rows, index="n")[1]) == {"dev-00001": "b", "dev-00002": "c"}


def test_questions_that_are_not_asked_are_left_out_and_counted(tmp_path):
    join, answers = joined(tmp_path, [{"q": "Not asked?", "answer": "x"}], question="q")
    assert (answers, join.not_asked) == ([], 1)


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("a.csv", b'answer,q\n"two\nlines",How many?\n,Which one?\n', {"question": "q"}),
        (
            "a.json",
            b'[{"answer": "two\\nlines", "q": "How many?"}, {"answer": "", "q": "Which one?"}]',
            {"question": "q"},
        ),
        ("a.json", b'{"0": "two\\nlines\\t----- bird -----\\tzoo", "2": ""}', {"index": "index"}),
        (
            "a.jsonl",
            b'{"answer": "two\\nlines", "q": "How many?"}\n\n{"answer": "", "q": "Which one?"}\n',
            {"question": "q"},
        ),
        (
            "a.out",
            b'{"answer": "two\\nlines", "q": "How many?"}\n{"answer": "", "q": "Which one?"}\n',
            {"question": "q"},
        ),
    ],
)
def test_csv_json_and_json_lines(tmp_path, name, content, keys):
    assert texts(joined(tmp_path, content, name=name, **keys)[1]) == {"dev-00000": "two\nlines", "dev-00002": ""}


def test_one_answer_a_line_in_the_order_of_the_questions(tmp_path):
    _, answers = joined(tmp_path, b"SELECT 1\r\n\nSELECT 3\n\n", name="a.txt", in_order=True)
    assert texts(answers) == {"dev-00000": "SELECT 1", "dev-00001": "", "dev-00002": "SELECT 3"}


def test_an_answer_of_null_is_no_answer(tmp_path):
    assert joined(tmp_path, [{"id": "dev-00000", "answer": None}], id="id")[1] == []


def test_letters_are_read_out_of_texts(tmp_path):
    said = ["B", "c\n", "The answer is (A).", "I do not know."]
    rows = [{"id": row["id"], "answer": text} for row, text in zip(QUIZ, said, strict=True)]
    _, answers = joined(tmp_path, rows, QUIZ, id="id")
    assert [row["prediction"] for row in answers] == ["B", "C", "A", ""]
    assert [row["generated"] for row in answers] == said
    assert {row["logprobs"] for row in answers} == {None}


def test_a_pattern_says_where_in_the_text_the_answer_is(tmp_path):
    said = ["I think it is so.\nResposta: D", "Resposta: A", "none", "B"]
    rows = [{"id": row["id"], "answer": text} for row, text in zip(QUIZ, said, strict=True)]
    _, answers = joined(tmp_path, rows, QUIZ, id="id", pattern=r"Resposta: ([A-D])")
    assert [row["prediction"] for row in answers] == ["D", "A", "", ""]


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (
            [{"q": "Who?", "answer": ""}],
            {"question": "q"},
            "line 1: q is 'Who.', which is no question of the data. Correct the row, or the columns of "
            "models.m.answers.spider",
        ),
        ([{"id": "dev-7", "answer": ""}], {"id": "id"}, "id is 'dev-7', which is no question of the data"),
        ([{"n": 4, "answer": ""}], {"index": "n"}, "n is 4, which is no question of the data"),
        ([{"n": True, "answer": ""}], {"index": "n"}, "n is 'True', which is no question of the data"),
        ([{"n": [1], "answer": ""}], {"index": "n"}, r"n is '\[1\]', which is no question of the data"),
        ([{"n": "9" * 5000, "answer": ""}], {"index": "n"}, "n is '9{5000}', which is no question of the data"),
        (
            [{"id": "dev-00000", "answer": "a"}] * 2,
            {"id": "id"},
            "line 2: answers dev-00000, which line 1 answers already",
        ),
        (
            [{"id": "dev-00002", "g": "SELECT 2", "answer": ""}],
            {"id": "id", "gold": "g"},
            "line 1: g is 'SELECT 2', expected 'SELECT 1' of question dev-00002",
        ),
        (
            [{"id": "dev-00002", "db": "zoo", "answer": ""}],
            {"id": "id", "cluster": "db"},
            "line 1: id is 'dev-00002' and db is 'zoo', which is no question of the data",
        ),
        (
            [{"sql": "a", "id": "dev-00000"}],
            {"id": "id"},
            "line 1: has no column answer, only sql, id. Write the name of the column as "
            "models.m.answers.spider.answer",
        ),
        ([{"answer": "a"}], {"question": "text"}, "has no column text, only answer"),
        ([{"id": "dev-00000", "answer": ["a"]}], {"id": "id"}, r"line 1: answer is \['a'\], expected a text"),
        (
            [{"answer": "a"}],
            {"in_order": True},
            "found 1 rows, expected 3, one for each question, since models.m.answers.spider.in_order is true",
        ),
        (
            [{"answer": "a", "q": "Which one?"}] * 3,
            {"in_order": True, "question": "q"},
            "line 1: q is 'Which one.', expected 'How many.' of question dev-00000",
        ),
        (b"", {"id": "id"}, "has no rows, expected one for each answer"),
        (b'{"id": \n', {"id": "id"}, "line 1: not valid JSON"),
        (b"[1, 2]\n", {"id": "id"}, "line 1: expected a JSON object"),
        (b"\xff\n", {"id": "id"}, "not UTF-8"),
    ],
)
def test_what_does_not_fit_is_refused_with_file_line_and_remedy(tmp_path, rows, keys, message):
    with pytest.raises(UserError, match=message) as caught:
        joined(tmp_path, rows, **keys)
    assert str(caught.value).startswith(str(tmp_path / "answers.jsonl"))


def test_the_first_entry_of_a_list_is_checked_as_all_others(tmp_path):
    with pytest.raises(UserError, match=r"a\.json, line 0: expected a JSON object"):
        joined(tmp_path, b'[1, {"id": "dev-00000", "answer": "a"}]', name="a.json", id="id")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "expected a column that says which question a row answers"),
        ({"id": "id", "pattern": "("}, "not a regular expression"),
        ({"id": "id", "pattern": "(a{9999999999})"}, r"not a regular expression \(the repetition number is too large"),
        ({"id": "id", "pattern": "a"}, "found 0 groups, expected 1"),
    ],
)
def test_sections_that_cannot_be_read(keys, message):
    with pytest.raises(ValueError, match=message):
        settings(**keys)


def test_the_steps_fetch_and_join_and_say_what_is_missing(tmp_path, capsys):
    given, data = tmp_path / "mine.json", tmp_path / "source"
    given.write_text(json.dumps([{"q": "How many?", "answer": "SELECT 1"}, {"q": "Not asked?", "answer": "x"}]))
    own = settings(given, question="q")
    fetch_answers(own, tmp_path / "given")
    assert (tmp_path / "given").read_bytes() == given.read_bytes()
    write_json(data / "dev.json", KNOWN)
    write_json(data / "manifest.json", {})
    write_jsonl(tmp_path / "test.jsonl", SQL)
    inputs = {"file": tmp_path / "given", "questions": tmp_path / "test.jsonl", "manifest": data / "manifest.json"}
    outputs = {"answers": tmp_path / "answers.jsonl", "report": tmp_path / "report.json"}
    import_answers(inputs, outputs, own | {"kind": "spider"})
    assert read_jsonl(outputs["answers"]) == [{"id": "dev-00000", "answer": "SELECT 1"}]
    facts = read_json(outputs["report"])["imported"]
    assert [facts[key] for key in ("rows", "questions", "answered", "not_asked")] == [2, 3, 1, 1]
    said = capsys.readouterr().out
    assert "1 of 3 questions answered; 2 count as wrong." in said
    assert "1 rows are about questions that the study does not ask" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "nowhere.csv"}, "nowhere.csv: no such file. Give an http"),
        ({"sha256": "0" * 64}, "expected 0000.* Correct models.m.answers.spider.sha256, or get the file again"),
    ],
)
def test_a_file_that_is_not_there_or_another(tmp_path, changes, message):
    (tmp_path / "a.csv").write_text("answer\n")
    with pytest.raises(UserError, match=message):
        fetch_answers(settings(tmp_path / "a.csv", in_order=True) | changes, tmp_path / "given")
    assert not (tmp_path / "given").exists()
