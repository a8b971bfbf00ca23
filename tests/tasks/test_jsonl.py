"""JSON lines of one's own: the three ways to score, mistakes by their line, parts that do not overlap."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from _config import refusal
from _tasks import jsonl_file, jsonl_rows, options, shown
from audit_labels import audit_labels
from common.files import UserError, read_json, read_jsonl, write_jsonl
from render import render
from tasks import jsonl
from tasks.base import letters
from tasks.records import read_records, write_records
from tiny_model import make_model, words


def fetched(folder: Path, form: str = "choice", **keys) -> dict:
    """Write questions and, if wanted, other rows to train on; fetch them, and give the options."""
    jsonl_file(folder / "mine.jsonl", form)
    if keys.pop("train", False):
        keys["train"] = str(jsonl_file(folder / "learn.jsonl", form, first=40))
    chosen = options(jsonl, source=str(folder / "mine.jsonl"), score=form, **keys)
    jsonl.fetch(chosen, folder / "out")
    return chosen


def records(chosen: dict, folder: Path, asked: list) -> list[dict]:
    """The records, written as CSV and read again."""
    measure = jsonl.measure(chosen)
    write_records(folder / "r.csv", measure.columns, (record for record, _ in jsonl.score(chosen, folder, asked, 1)))
    return read_records(folder / "r.csv", measure.columns).to_dict("records")


def test_fetch_keeps_every_key_and_names_each_row(tmp_path):
    fetched(tmp_path, train=True)
    rows = jsonl.held_out(tmp_path / "out")
    assert rows[1] == {**jsonl_rows("choice", 1, 1)[0], "id": "test-00002"}
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["counts"] == {"questions": 40, "train": 40}
    assert set(manifest["files"]) == {"questions.jsonl", "train.jsonl"}


ROW = {"question": "Which?", "choices": ["x", "y"], "answer": "B"}


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        ("choice", [1], "found .1., expected an object with question and answer"),
        ("choice", ROW | {"question": " "}, "question is ' ', expected a text"),
        ("choice", ROW | {"choices": ["x"]}, "choices must be a list of 2 to 26 texts"),
        ("choice", ROW | {"choices": ["x"] * 27}, "choices must be a list of 2 to 26 texts"),
        ("choice", ROW | {"choices": "xy"}, "choices must be a list of 2 to 26 texts"),
        ("choice", ROW | {"choices": ["x", 2]}, "B is 2, expected a text"),
        ("choice", ROW | {"answer": "C"}, "answer is 'C', expected A to B"),
        ("exact", {"question": "How many?", "answer": 5}, "answer is 5, expected a text"),
        ("exact", ROW | {"target": 5}, "target is 5, expected a text"),
        ("exact", ROW, "choices are there, but they are asked with score: choice alone"),
        ("regex", ROW | {"answer": "(a"}, r"answer is '\(a', expected a regular expression \(missing \)"),
        (
            "regex",
            ROW | {"answer": "a{9999999999}"},
            r"answer is .*, expected a regular expression \(the repetition number is too",
        ),
        ("choice", ROW | {"id": None}, "id is None, expected a text or a number"),
        ("choice", ROW | {"id": ""}, "id is '', expected a text or a number"),
        ("choice", ROW | {"topic": ["a"]}, r"topic is \['a'\], expected a text or a number"),
        ("choice", ROW | {"more": "\ud83d"}, "found .*, half of a character, expected text that UTF-8 can hold"),
        ("choice", [ROW] * 1000, r"found \[.{0,400}\.\.\.\], expected an object with question and answer"),
        ("choice", jsonl_rows("choice", 3, 1)[0], "asks the question of .*, line 4, expected each once"),
        ("choice", ROW | {"id": "test-00003"}, "has the id 'test-00003' of .*, line 3, expected each once"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, form, row, message):
    path = jsonl_file(tmp_path / "mine.jsonl", form)
    with path.open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=f"mine.jsonl, line 41: {message}"):
        jsonl.fetch(options(jsonl, source=str(path), score=form, strata=["topic"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read .*Name a JSONL file"),
        (b"", "found no rows, expected at least 1"),
        (b'{"question": \n', "line 1: not valid JSON"),
        (b'{"question": "\xff"}\n', "line 1: not UTF-8 .*Save the file as UTF-8"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    path = tmp_path / "mine.jsonl"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UserError, match=f"mine.jsonl.*{message}"):
        jsonl.fetch(options(jsonl, source=str(path)), tmp_path / "out")


def test_a_training_row_is_no_question_and_has_something_to_learn(tmp_path):
    asked, learnt = jsonl_file(tmp_path / "a.jsonl", "regex"), jsonl_file(tmp_path / "b.jsonl", "regex", first=39)
    chosen = options(jsonl, source=str(asked), train=str(learnt), score="regex", role="target")
    with pytest.raises(UserError, match=r"b.jsonl, line 1: asks the question of .*a.jsonl, line 40"):
        jsonl.fetch(chosen, tmp_path / "out")
    learnt.write_text(json.dumps(ROW | {"answer": "x+", "target": "xy"}))
    with pytest.raises(UserError, match="line 1: target is 'xy', expected a text to learn, which answer matches"):
        jsonl.fetch(chosen, tmp_path / "out")


@pytest.mark.parametrize("keys", [{"role": "target"}, {"shots": 1}])
def test_training_and_examples_need_a_file(keys):
    with pytest.raises(ValidationError, match="train: found null, expected a file to train on or to draw few-shot"):
        options(jsonl, source="x", **keys)


def test_chance_must_be_that_of_the_questions(tmp_path):
    path = jsonl_file(tmp_path / "mine.jsonl")
    path.write_text(path.read_text() + json.dumps(ROW) + "\n")
    with pytest.raises(UserError, match=r"tasks.mine.chance: found 0.25, expected 0.256, the mean of 1 / number"):
        jsonl.fetch(options(jsonl, source=str(path)), tmp_path / "out")
    chosen = options(jsonl, source=str(path), chance=0.256)
    jsonl.fetch(chosen, tmp_path / "out")
    assert jsonl.measure(chosen).chance == 0.256


@pytest.mark.parametrize("key", ["id", "answer", "prediction", "generated_letter"])
def test_a_key_that_is_a_column_of_the_records_is_refused(key):
    for keys in ({"cluster": key}, {"strata": ["topic", key]}):
        with pytest.raises(ValidationError, match="no column of the records"):
            options(jsonl, source="x", **keys)


@pytest.mark.parametrize(
    ("validation", "sizes"),
    [
        ({"by": "rows", "fraction": 0.25}, (28, 10)),
        ({"by": "database", "fraction": 0.2}, (28, 10)),
        ({"by": "none"}, (38, 0)),
        ({"by": "dev", "questions": 7}, (38, 7)),
    ],
)
def test_parts_do_not_overlap(tmp_path, validation, sizes):
    chosen = fetched(tmp_path, train=True, role="target", shots=2, cluster="topic", validation=validation)
    parts = {part: jsonl.prepare(chosen, tmp_path / "out", part)[0] for part in jsonl.PARTS}
    assert {part: jsonl.prepare(chosen, tmp_path / "out", part)[0] for part in parts} == parts
    assert (len(parts["train"]), len(parts["validation"])) == sizes
    assert parts["test"] == jsonl.held_out(tmp_path / "out")
    shown_ones, more = parts["shots"][:2], parts["shots"][2:]
    assert more == parts["train"]
    ids = [row["id"] for rows in (shown_ones, parts["train"], parts["test"]) for row in rows]
    assert len(ids) == len(set(ids))
    if validation["by"] == "database":
        assert not {row["topic"] for row in parts["train"]} & {row["topic"] for row in parts["validation"]}
    fewer = jsonl.prepare(chosen | {"train_questions": 5, "questions": 3}, tmp_path / "out", "train")[0]
    assert fewer == parts["train"][:5]


def test_examples_leave_a_row_to_train_on(tmp_path):
    chosen = fetched(tmp_path, train=True, shots=40)
    with pytest.raises(UserError, match=r"tasks\.mine\.shots: found 40, expected fewer than the 40 rows of tasks\."):
        jsonl.prepare(chosen, tmp_path / "out", "shots")


def test_a_yardstick_without_a_file_to_train_on_has_no_examples(tmp_path):
    assert jsonl.prepare(fetched(tmp_path), tmp_path / "out", "shots") == ([], {})


def test_prompts(tmp_path):
    chosen = fetched(tmp_path, train=True, shots=1)
    row, pool = jsonl.held_out(tmp_path / "out")[1], jsonl.prepare(chosen, tmp_path / "out", "shots")[0][:1]
    choices = "".join(f"{letter}. {text}\n" for letter, text in zip("ABCD", pool[0]["choices"], strict=True))
    system, user = shown(jsonl, chosen, tmp_path / "out", row, pool)
    assert system.text == chosen["system"]
    assert user.text == (
        f"{pool[0]['question']}\n{choices}Answer: {pool[0]['answer']}\n\n"
        "What is 1 + 0?\nA. 0\nB. 1\nC. 2\nD. 3\nAnswer:"
    )
    assert letters(row) == "ABCD"
    plain = {"id": "1", "question": "How many?", "answer": "5", "topic": "numbers"}
    assert shown(jsonl, chosen, tmp_path / "out", plain)[-1].text == "How many?\nAnswer:"
    assert jsonl.context(chosen, tmp_path / "out")(plain)["topic"] == "numbers"
    assert (letters(plain), jsonl.target(plain | {"target": "five"})) == ("", "five")


def test_choice_takes_the_likeliest_of_the_rows_own_letters(tmp_path):
    chosen = fetched(tmp_path, strata=["size"], cluster="topic")
    row = {"id": "1", "size": 2, "topic": "t", **ROW}
    # Another question has five choices, so E was looked at too.
    answer = {"logprobs": {"A": -3.0, "B": -2.0, "C": -0.5, "D": -4.0, "E": -0.1}, "prediction": "E"}
    asked = [
        (row, answer | {"generated": "The answer is B."}),
        (row | {"id": "2"}, answer | {"generated": "C"}),
        (row | {"id": "3"}, None),
        (row | {"id": "4", "choices": ["v", "w", "x", "y", "z"], "answer": "E"}, answer | {"generated": "E. z"}),
    ]
    found = records(chosen, tmp_path, asked)
    assert [
        [one[key] for key in ("prediction", "correct", "generated_letter", "correct_generated")] for one in found
    ] == [
        ["B", 1, "B", 1],
        ["B", 1, "", 0],
        ["", 0, "", 0],
        ["E", 1, "E", 1],
    ]
    assert json.loads(found[0]["logprobs"]) == {"A": -3.0, "B": -2.0}
    measure = jsonl.measure(chosen)
    assert list(found[0])[:4] == ["id", "size", "topic", "question"]
    assert (measure.name, measure.form, measure.cluster, measure.reported) == ("mine", "choice", "topic", ["size"])
    assert measure.strata == {"size": None, "topic": None}


def test_choices_may_have_numbers(tmp_path):
    """In question, examples and what is learnt; records have letters, of the row's own choices alone."""
    numbers = fetched(tmp_path, train=True, shots=1, marks="numbers", strata=["size"], cluster="topic")
    assert numbers["system"] == "Reply with the number of the right choice alone."
    row, pool = jsonl.held_out(tmp_path / "out")[1], jsonl.prepare(numbers, tmp_path / "out", "shots")[0][:1]
    user = shown(jsonl, numbers, tmp_path / "out", row, pool)[1]
    assert f"Answer: {'ABCD'.index(pool[0]['answer']) + 1}\n" in user.text
    assert user.text.endswith("What is 1 + 0?\n1. 0\n2. 1\n3. 2\n4. 3\nAnswer:")
    row = {"id": "1", "size": 2, "topic": "t", **ROW}
    answer = {"logprobs": {"1": -3.0, "2": -2.0, "3": -0.5}, "prediction": "3"}
    texts = ("The answer is 2.", "3", "B")
    asked = [(row | {"id": text}, answer | {"generated": text}) for text in texts] + [(row, None)]
    found = records(numbers, tmp_path, asked)
    assert [(one["prediction"], one["generated_letter"]) for one in found] == [
        ("B", "B"),
        ("B", ""),
        ("B", ""),
        ("", ""),
    ]
    assert json.loads(found[0]["logprobs"]) == {"A": -3.0, "B": -2.0}
    many = row | {"choices": list("0123456789"), "answer": "J"}
    with pytest.raises(UserError, match=r"tasks\.mine\.marks: found numbers, but row 1 has 10 choices, expected"):
        jsonl.context(numbers, tmp_path / "out")(many)
    assert "marks: found numbers, but score is exact" in refusal(
        tasks={"mine": {"kind": "jsonl", "source": "x", "score": "exact", "marks": "numbers"}}
    )


def test_numbers_are_learnt_where_choices_have_them(tmp_path):
    """The audit proves it: what it holds the labels against is the number, too."""
    numbers = fetched(tmp_path, train=True, role="target", marks="numbers", validation={"by": "none"})
    folder, record = tmp_path / "out", make_model(tmp_path / "model", context=10_000)
    rows, _ = jsonl.prepare(numbers, folder, "train")
    write_jsonl(tmp_path / "train.jsonl", rows)
    files = {"rows": tmp_path / "train.jsonl", "manifest": folder / "manifest.json", "record": record}
    settings = {key: value for key, value in numbers.items() if key != "max_new_tokens"}
    render(files, words("jsonl"), settings | {"loss_on": "completion"}, tmp_path / "prompts.jsonl")
    learnt = [row["completion"][0] for row in read_jsonl(tmp_path / "prompts.jsonl")]
    assert learnt == [str("ABCD".index(row["answer"]) + 1) for row in rows]
    limits = {"cluster": "topic", "max_length": 1024}
    audit_labels(files | {"prompts": tmp_path / "prompts.jsonl"}, settings | limits, tmp_path / "audit.json")
    with pytest.raises(UserError, match="expected the target"):
        letters = settings | limits | {"marks": "letters"}
        audit_labels(files | {"prompts": tmp_path / "prompts.jsonl"}, letters, tmp_path / "audit.json")


@pytest.mark.parametrize(
    ("form", "gold", "text", "right"),
    [
        ("exact", "New  York", " new york\n", 1),
        ("exact", "Straße", "STRASSE", 1),
        ("exact", "x²", "x2", 0),
        ("exact", "5", "The answer is 5", 0),
        ("regex", r"(the sum is )?5\.?", " 5.\n", 1),
        ("regex", r"(the sum is )?5\.?", "55", 0),
        ("regex", "paris", "Paris", 0),
        ("regex", "(?i)paris", "Paris", 1),
        ("exact", "5", None, 0),
        ("regex", ".*", None, 0),
    ],
)
def test_match(tmp_path, form, gold, text, right):
    chosen = options(jsonl, source="x", score=form)
    row = {"id": "1", "question": "?", "answer": gold}
    (found,) = records(chosen, tmp_path, [(row, None if text is None else {"answer": text})])
    assert found == {
        "id": "1",
        "question": "?",
        "answer": gold,
        "prediction": (text or "").strip(),
        "correct": right,
    }
    measure = jsonl.measure(chosen)
    assert (measure.form, measure.cluster, measure.chance, measure.counted) == ("match", "id", 0.0, ("correct",))


def test_a_stratum_that_a_row_lacks_is_named(tmp_path):
    chosen = options(jsonl, source="x", score="exact", strata=["topic"])
    row = {"id": "1", "question": "?", "answer": "5"}
    with pytest.raises(UserError, match="row 1 has no key 'topic', expected one of id, question, answer"):
        list(jsonl.score(chosen, tmp_path, [(row, {"answer": "5"})], 1))
    apart = fetched(tmp_path, train=True, role="target", cluster="town", validation={"by": "database"})
    with pytest.raises(UserError, match=r"row train-000\d\d has no key 'town', expected one of question, topic"):
        jsonl.prepare(apart, tmp_path / "out", "train")
