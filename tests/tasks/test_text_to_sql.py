"""The splits of Spider: who is in which, always the same, and nothing of dev in training."""

import json
import random
from pathlib import Path

import pytest

from _config import study
from _tasks import edit
from common.files import UserError, read_json, read_jsonl, sha256_file, sha256_json
from prepare import prepare as step
from tasks import spider
from tasks.text_to_sql import MAX_SHOT_CHARACTERS, draw_shots, read_rows

BOTH = ["train_spider", "train_others"]
QUERIES = [
    "SELECT count(*) FROM t",
    "SELECT a, b FROM t",
    "SELECT a FROM t WHERE b = (SELECT max(b) FROM t)",
    "SELECT a, count(*) FROM t JOIN u ON t.i = u.i WHERE a = 1 OR b LIKE 'x' GROUP BY a ORDER BY count(*) LIMIT 1",
    "SELECT a FROM t WHERE 'unclosed",
]


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """Ten training databases of ten questions each, two of others, one of dev with ten questions."""

    def rows(db_ids):
        return [
            {"db_id": db_id, "question": f" {db_id} {number}? ", "query": QUERIES[number % 5] + "\n"}
            for db_id in db_ids
            for number in range(10)
        ]

    data = {
        "train_spider": rows([f"train{number}" for number in range(10)]),
        "train_others": rows(["other0", "other1"]),
        "dev": rows(["dev0"]),
    }
    schema = {"column_names_original": [[-1, "*"], [0, "a"], [0, "b"]]}
    db_ids = sorted({row["db_id"] for rows in data.values() for row in rows})
    data["tables"] = [schema | {"db_id": db_id} for db_id in db_ids]
    paths = {}
    for name, value in data.items():
        paths[name] = tmp_path / f"{name}.json"
        paths[name].write_text(json.dumps(value))
    return paths


def prepare(
    files,
    out: Path,
    train_files=BOTH,
    shots=3,
    seed=42,
    by="database",
    fraction=0.1,
    validation_questions=None,
    train_questions=None,
):
    settings = {
        "kind": "spider",
        "name": "tasks.spider",
        "train_files": train_files,
        "shots": shots,
        "seed": seed,
        "validation": {"by": by, "fraction": fraction, "questions": validation_questions},
        "train_questions": train_questions,
    }
    (files["dev"].parent / "manifest.json").write_text("{}", encoding="utf-8")
    for part in spider.PARTS:
        more = {"questions": None, "exclude_databases": []} if part == "test" else {}
        step(files["dev"].parent, part, settings | more, out / f"{part}.jsonl")
    made = {path.stem: read_jsonl(path) for path in out.glob("*.jsonl")}
    about = {part: read_json(out / f"{part}.json") for part in spider.PARTS}
    # Prompts show the first of the list: those that are set aside.
    assert [row["id"] for row in made["shots"]][: len(about["shots"]["set_aside"])] == about["shots"]["set_aside"]
    return {**made, "dev": made.pop("test"), "shots": made["shots"][: len(about["shots"]["set_aside"])]} | {
        "list": made["shots"], "about": about
    }  # fmt: skip


def ids(rows):
    return [row["id"] for row in rows]


def test_rows(files, tmp_path):
    splits = prepare(files, tmp_path / "out", by="none")
    assert splits["dev"][2] == {
        "id": "dev-00002",
        "db_id": "dev0",
        "question": "dev0 2?",
        "query": "SELECT a FROM t WHERE b = (SELECT max(b) FROM t)",
        "hardness": "hard",
    }
    assert [row["hardness"] for row in splits["dev"][:5]] == ["easy", "medium", "hard", "extra", "extra"]
    assert len(splits["train"]) == 117
    assert splits["validation"] == []
    assert ids(splits["train"]) == sorted(
        ids(splits["train"]), key=lambda name: (name.startswith("train_others"), name)
    )


@pytest.mark.parametrize("by", ["rows", "database", "none"])
def test_two_runs_are_equal_and_another_seed_is_not(files, tmp_path, by):
    one = prepare(files, tmp_path / "one", by=by)
    two = prepare(files, tmp_path / "two", by=by)
    assert one == two
    for file in (f"{part}.{suffix}" for part in spider.PARTS for suffix in ("json", "jsonl")):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    other = prepare(files, tmp_path / "other", by=by, seed=7)
    assert ids(other["shots"]) != ids(one["shots"])
    assert ids(other["dev"]) == ids(one["dev"])


@pytest.mark.parametrize("by", ["rows", "database", "none"])
def test_no_row_is_in_two_splits_and_none_is_lost(files, tmp_path, by):
    splits = prepare(files, tmp_path / "out", by=by)
    names = [name for split in ("train", "validation", "shots") for name in ids(splits[split])]
    assert len(names) == len(set(names)) == 120


def test_validation_by_database(files, tmp_path):
    splits = prepare(files, tmp_path / "out", fraction=0.3)
    held_out = {row["db_id"] for row in splits["validation"]}
    assert len(held_out) == 4
    assert len(splits["validation"]) == 40
    assert held_out.isdisjoint(row["db_id"] for row in splits["train"] + splits["shots"])


def test_validation_by_rows_is_the_tail_of_the_shuffle(files, tmp_path):
    splits = prepare(files, tmp_path / "out", shots=0, by="rows", fraction=0.9)
    order = [f"train_spider-{number:05d}" for number in range(100)] + [
        f"train_others-{number:05d}" for number in range(20)
    ]
    random.Random(42).shuffle(order)
    assert ids(splits["train"]) + ids(splits["validation"]) == order
    assert len(splits["train"]) == 12


def test_drawn_shots_differ_in_database_and_hardness(files, tmp_path):
    shots = prepare(files, tmp_path / "out", shots=5)["shots"]
    assert [row["hardness"] for row in shots] == ["easy", "medium", "hard", "extra", "easy"]
    assert len({row["db_id"] for row in shots}) == 5
    assert not any("unclosed" in row["query"] for row in shots)


def test_more_shots_go_on_with_the_list(files, tmp_path):
    made = prepare(files, tmp_path / "out", shots=2)
    rows = made["list"]
    assert rows[:2] == made["shots"]
    assert all(row in made["train"] for row in rows[2:])
    databases = [row["db_id"] for row in rows]
    # As many as there are databases to train on.
    assert len(databases) == len(set(databases)) == len({row["db_id"] for row in made["train"] + made["shots"]})
    assert [row["hardness"] for row in rows[2:4]] == ["hard", "extra"]
    other = prepare(files, tmp_path / "other", shots=["train_spider-00001"], seed=43)["list"]
    assert other[0]["id"] == "train_spider-00001"
    assert other[1:] != rows[1:]


def test_what_is_drawn_does_not_depend_on_how_many_are_drawn_after_it(files):
    schemas = {schema["db_id"]: schema for schema in json.loads(files["tables"].read_text())}
    train = read_rows(files["train_spider"])
    first = train[:2]
    five = draw_shots(train, 5, 42, schemas, first[:1])
    assert [draw_shots(train, number, 42, schemas, first[:1]) for number in range(1, 5)] == [
        five[:number] for number in range(1, 5)
    ]
    assert five[:1] == first[:1]
    assert draw_shots(train, 5, 43, schemas, first[:1]) != five


def test_the_questions_to_ask(files, tmp_path):
    (tmp_path / "manifest.json").write_text("{}", encoding="utf-8")
    about = {"kind": "spider", "name": "tasks.spider"}

    def asked(questions=None, exclude_databases=()):
        settings = about | {"questions": questions, "exclude_databases": list(exclude_databases)}
        step(tmp_path, "test", settings, tmp_path / "test.jsonl")
        return ids(read_jsonl(tmp_path / "test.jsonl"))

    assert asked() == [f"dev-{number:05d}" for number in range(10)]
    assert asked(4) == asked()[:4]
    with pytest.raises(UserError, match=r"tasks\.spider\.questions: found 11, expected at most 10"):
        asked(11)
    with pytest.raises(UserError, match=r"tasks\.spider\.exclude_databases: found wta_9, expected databases of"):
        asked(None, ["wta_9"])
    with pytest.raises(UserError, match=r"tasks\.spider\.exclude_databases: leaves no question to ask"):
        asked(None, ["dev0"])


def test_long_queries_and_wide_schemas_are_not_drawn(files, tmp_path):
    rows = json.loads(files["train_spider"].read_text())
    for row in rows:
        if row["db_id"] != "train3":
            row["query"] = "SELECT a FROM t WHERE " + " OR ".join(["a = 1"] * MAX_SHOT_CHARACTERS)
    files["train_spider"].write_text(json.dumps(rows))
    tables = json.loads(files["tables"].read_text())
    for schema in tables:
        if schema["db_id"].startswith("other"):
            schema["column_names_original"] = [[0, f"c{number}"] for number in range(100)]
    files["tables"].write_text(json.dumps(tables))
    assert [row["db_id"] for row in prepare(files, tmp_path / "out", shots=1)["shots"]] == ["train3"]
    with pytest.raises(UserError, match="found 1 databases with a short query, expected 2"):
        prepare(files, tmp_path / "out", shots=2)


def test_a_copy_of_a_shot_is_in_no_split(files, tmp_path):
    rows = json.loads(files["train_spider"].read_text())
    rows.append(rows[1] | {"query": "SELECT a FROM t"})
    files["train_spider"].write_text(json.dumps(rows))
    splits = prepare(files, tmp_path / "out", shots=["train_spider-00001"], by="none")
    copy = f"train_spider-{len(rows) - 1:05d}"
    assert splits["about"]["shots"]["copies_left_out"] == [copy]
    assert copy not in ids(splits["train"])


def test_named_shots(files, tmp_path):
    wanted = ["train_spider-00017", "train_others-00003", "train_spider-00002"]
    splits = prepare(files, tmp_path / "out", shots=wanted)
    assert ids(splits["shots"]) == splits["about"]["shots"]["set_aside"] == wanted
    assert not set(wanted) & set(ids(splits["train"] + splits["validation"]))


@pytest.mark.parametrize("wanted", ["train_spider-00100", "train_others-00000", "dev-00001"])
def test_unknown_shot_is_named(files, tmp_path, wanted):
    with pytest.raises(UserError, match=f"'{wanted}' is no row of the training files"):
        prepare(files, tmp_path / "out", train_files=["train_spider"], shots=["train_spider-00001", wanted])


def test_shot_named_twice(files, tmp_path):
    message = r"tasks\.spider\.shots: a value stands twice in \['train_spider-00001', 'train_spider-00001'\]"
    with pytest.raises(UserError, match=message):
        study(tasks={"spider": {"shots": ["train_spider-00001"] * 2}})


def test_only_the_named_training_files(files, tmp_path):
    splits = prepare(files, tmp_path / "out", train_files=["train_others"], shots=1, by="none")
    assert {row["db_id"] for row in splits["train"]} == {"other0", "other1"}


def test_dev_database_in_training_is_refused(files, tmp_path):
    edit(files["train_others"], 3, db_id="dev0")
    with pytest.raises(UserError, match=r"train_others-00003: is on database dev0, which is in dev\.json too"):
        prepare(files, tmp_path / "out")
    assert not (tmp_path / "out" / "train.jsonl").exists()
    prepare(files, tmp_path / "out", train_files=["train_spider"])


@pytest.mark.parametrize("by", ["rows", "database", "none"])
def test_only_the_first_training_questions(files, tmp_path, by):
    whole = prepare(files, tmp_path / "whole", by=by)
    few = prepare(files, tmp_path / "few", by=by, train_questions=7)
    assert few["train"] == whole["train"][:7]
    assert few["about"]["train"]["settings"]["train_questions"] == 7
    for split in ("validation", "dev", "shots"):
        assert few[split] == whole[split]
    number = len(whole["train"])
    assert prepare(files, tmp_path / "all", by=by, train_questions=number)["train"] == whole["train"]
    with pytest.raises(UserError, match=rf"train_questions: found {number + 1}, expected at most {number}, or null"):
        prepare(files, tmp_path / "more", by=by, train_questions=number + 1)


@pytest.mark.parametrize("by", ["rows", "database", "dev"])
def test_only_the_first_validation_questions(files, tmp_path, by):
    whole = prepare(files, tmp_path / "whole", by=by)
    few = prepare(files, tmp_path / "few", by=by, validation_questions=7)
    assert few["validation"] == whole["validation"][:7]
    # What is not looked at is not trained on either.
    for split in ("train", "dev", "shots"):
        assert few[split] == whole[split]
    number = len(whole["validation"])
    assert prepare(files, tmp_path / "all", by=by, validation_questions=number)["validation"] == whole["validation"]
    with pytest.raises(
        UserError, match=rf"validation.questions: found {number + 1}, expected at most {number}, or null"
    ):
        prepare(files, tmp_path / "more", by=by, validation_questions=number + 1)


def test_dev_as_validation(files, tmp_path):
    splits, plain = (prepare(files, tmp_path / by, by=by) for by in ("dev", "none"))
    assert splits["validation"] == splits["dev"] == plain["dev"]
    assert splits["train"] == plain["train"]
    for part in ("train", "test"):
        assert splits["about"][part]["unparsable"] == plain["about"][part]["unparsable"]
    assert splits["about"]["train"]["worded_as_in_test"] == splits["about"]["validation"]["worded_as_in_test"] == []
    edit(files["train_others"], 3, db_id="dev0")
    with pytest.raises(UserError, match="train_others-00003: is on database dev0"):
        prepare(files, tmp_path / "out", by="dev")


@pytest.mark.parametrize(
    ("by", "fraction", "message"),
    [
        ("rows", 0, "leaves 117 for training and 0 for validation"),
        ("database", 0, "leaves 117 for training and 0 for validation"),
        ("rows", 0.999, "leaves 0 for training and 117 for validation"),
    ],
)
def test_validation_that_cannot_be(files, tmp_path, by, fraction, message):
    with pytest.raises(UserError, match=message):
        prepare(files, tmp_path / "out", by=by, fraction=fraction)


def test_manifest(files, tmp_path):
    edit(files["train_spider"], 50, question="dev0 1?")
    splits = prepare(files, tmp_path / "out", by="none", shots=0)
    train, test = splits["about"]["train"], splits["about"]["test"]
    assert train["settings"]["seed"] == 42
    assert train["source_sha256"] == sha256_file(tmp_path / "manifest.json")
    assert test["by_hardness"] == {"easy": 2, "medium": 2, "hard": 2, "extra": 4}
    assert train["rows"] == 120
    assert train["by_database"]["other1"] == 10
    assert train["ids"] == ids(splits["train"])
    assert train["ids_sha256"] == sha256_json(ids(splits["train"]))
    assert train["sha256"] == sha256_file(tmp_path / "out/train.jsonl")
    assert "dev-00004" in test["unparsable"]
    assert train["worded_as_in_test"] == ["train_spider-00050"]


def test_real_spider(shared_data, tmp_path):
    counts = {"train_spider": 7000, "train_others": 1659, "dev": 1034}
    source = str(shared_data / "spider" / "spider_data.zip")
    about = {"name": "tasks.spider", "sha256": None}
    spider.fetch(about | {"source": source, "counts": counts}, tmp_path / "data")
    files = {"dev": tmp_path / "data/dev.json"}
    # The numbers of a published study: 3 shots, 80% of the rest for training.
    splits = prepare(files, tmp_path / "rows", by="rows", fraction=0.2)
    assert {name: len(splits[name]) for name in ("train", "validation", "dev", "shots")} == {
        "train": 6924,
        "validation": 1732,
        "dev": 1034,
        "shots": 3,
    }
    by_hardness = splits["about"]["test"]["by_hardness"]
    assert by_hardness == {"easy": 248, "medium": 446, "hard": 174, "extra": 166}
    splits = prepare(files, tmp_path / "database")
    assert 866 <= len(splits["validation"]) < 1100
    assert [splits["about"][part]["unparsable"] for part in ("train", "validation", "test")] == [[], [], []]
