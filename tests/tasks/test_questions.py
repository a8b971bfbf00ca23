"""Questions by ids, by a file of ids, and as other libraries draw them; few-shot examples drawn for each question."""

import random

import datasets
import numpy
import pandas
import pytest

from _config import study
from audit_labels import audit_labels
from common.files import UserError, read_json, read_jsonl, write_jsonl
from prepare import prepare
from render import render
from study import identity
from study.unfold import stage
from tasks import mmlu, spider
from tasks.base import examples_of
from tasks.questions import picked
from tasks.sections import repeated
from tests.study.test_messages import refusal
from tiny_model import make_model, words

ROWS = [{"id": f"q-{number:05d}"} for number in range(300)]


def ids(rows):
    return [row["id"] for row in rows]


def by_hand(library: str, seed: int, n: int) -> list[int]:
    """The calls that people make, as docs/tasks.md writes them."""
    if library == "random":
        random.seed(seed)
        return random.sample(range(300), n)
    if library == "numpy":
        return list(numpy.random.default_rng(seed).choice(300, n, replace=False))
    if library == "pandas":
        frame = pandas.DataFrame({"id": ids(ROWS)}).sample(n=n, random_state=seed)
        numpy.random.seed(seed)
        assert list(frame.index) == list(numpy.random.choice(300, n, replace=False))
        return list(frame.index)
    found = datasets.Dataset.from_list(ROWS).shuffle(seed=seed).select(range(n))
    return [ids(ROWS).index(name) for name in found["id"]]


@pytest.mark.parametrize("library", ["random", "numpy", "pandas", "datasets"])
@pytest.mark.parametrize(("seed", "n"), [(42, 50), (0, 300), (7, 1)])
def test_a_draw_is_that_of_the_library(library, seed, n):
    drawn = picked(ROWS, {"draw": library, "seed": seed, "n": n}, "k")
    assert ids(drawn) == [ROWS[place]["id"] for place in by_hand(library, seed, n)]
    assert len(set(ids(drawn))) == n


def test_ids_come_in_the_order_of_the_study_and_unknown_ones_are_named():
    assert ids(picked(ROWS, ["q-00007", "q-00001"], "k")) == ["q-00007", "q-00001"]
    with pytest.raises(
        UserError, match=r"^tasks\.x\.questions: found 'q-99', expected ids .* such as q-00299\. 1 of 2"
    ):
        picked(ROWS, ["q-00001", "q-99"], "tasks.x.questions")
    with pytest.raises(UserError, match=r"^k\.n: found 301, expected at most 300"):
        picked(ROWS, {"draw": "numpy", "seed": 1, "n": 301}, "k")


def test_a_file_of_ids_is_the_list_of_them(tmp_path):
    """So results depend on the ids, and not on where the file lies."""
    file = tmp_path / "ids.txt"
    file.write_text("dev-00003\n\ndev-00001\n", encoding="utf-8")
    tasks = {"spider": {"questions": {"file": str(file)}}}
    assert study(tasks=tasks) == study(tasks={"spider": {"questions": ["dev-00003", "dev-00001"]}})


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read (No such file"), (b"\xff", "is not UTF-8"), (b"\n", "has no ids"), (b"a\nb\na", "a twice")],
)
def test_a_file_of_ids_that_is_none_is_refused(tmp_path, text, said):
    file = tmp_path / "ids.txt"
    if text is not None:
        file.write_bytes(text)
    found = refusal(tasks={"spider": {"questions": {"file": str(file)}}})
    assert found.startswith(f"config.yaml, tasks.spider.questions.file: {file}")
    assert said in found


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        (["a", "a"], "tasks.spider.questions: a value stands twice in ['a', 'a']. Remove one."),
        ([], "tasks.spider.questions: found nothing in it"),
        ({"draw": "scipy", "seed": 1, "n": 2}, "tasks.spider.questions.draw: found 'scipy', expected one of random, "),
        ({"draw": "numpy", "n": 2}, "tasks.spider.questions.seed: missing. Write draw, seed and n, or file alone."),
        ({"file": "x", "n": 2}, "tasks.spider.questions.file: found x, but its ids are all that is asked."),
        ([3], "tasks.spider.questions[0]: found 3 (a whole number), expected text."),
        ("all", "tasks.spider.questions: found 'all' (text), expected a whole number or null or a list or a mapping."),
    ],
)
def test_questions_that_are_none_are_refused(questions, message):
    assert refusal(tasks={"spider": {"questions": questions}}).startswith(f"config.yaml, {message}")


def test_mmlu_is_asked_what_the_study_names(repo, tmp_path):
    demo = study(tasks={"mmlu": {"source": str(repo / "resources/demo/mmlu"), "subjects": 3}})["tasks"]["mmlu"]
    names = ["chemical_elements", "philosophers_and_works", "capitals_and_currencies"]
    demo = demo | {"categories": {"x": names[:2], "y": names[2:]}, "name": "tasks.mmlu"}
    mmlu.fetch(demo, tmp_path / "raw")

    def asked(**changes):
        rows = tmp_path / "rows.jsonl"
        prepare(tmp_path / "raw", "test", demo | changes, rows)
        assert read_json(rows.with_suffix(".json"))["ids"] == ids(read_jsonl(rows))
        return read_jsonl(rows)

    named = [f"{names[2]}-00001", f"{names[0]}-00004"]
    assert ids(asked(questions=named)) == named
    drawn = asked(questions={"draw": "datasets", "seed": 42, "n": 5})
    assert [row["subject"] for row in drawn] == [name for name in names for _ in range(5)]
    table = mmlu.read_table(tmp_path / "raw/test.csv")[names[1]]
    by_library = datasets.Dataset.from_list(table).shuffle(seed=42).select(range(5))["question"]
    assert [row["question"] for row in drawn[5:10]] == list(by_library)
    with pytest.raises(
        UserError, match=r"tasks.mmlu.questions: found 'anatomy-00001', expected ids .* 1 of 1 are none"
    ):
        asked(questions=["anatomy-00001"])
    # Of its own subject, others for other questions, the same whatever else is asked.
    dev = mmlu.read_table(tmp_path / "raw/dev.csv")
    own = asked(questions={"draw": "random", "seed": 1, "n": 8}, shots_from="per_question", shots=2)
    for row in own:
        texts = {one["question"] for one in dev[row["subject"]]}
        assert len(row["shots"]) == 2 == len({shot["question"] for shot in row["shots"]} & texts)
    assert len({str(row["shots"]) for row in own if row["subject"] == names[0]}) > 1
    alone = asked(questions=[own[3]["id"]], shots_from="per_question", shots=2)
    assert alone == [own[3]]


def test_mmlu_has_one_key_of_what_is_asked():
    found = refusal(tasks={"mmlu": {"source": "x", "questions": ["a-1"], "questions_per_category": 4}})
    assert found == (
        "config.yaml, tasks.mmlu.questions_per_category: found 4, but questions names those to ask. Write null."
    )
    assert (
        study(tasks={"mmlu": {"source": "x", "questions": ["a-1"]}})["tasks"]["mmlu"]["questions_per_category"] is None
    )


def test_keys_of_later_at_their_default_make_nothing_stale():
    config = study()
    for task, part, key in (("mmlu", "test", "questions"), ("spider", "train", "shots_from")):
        settings = stage(config, task, part)
        assert key in settings
        assert identity.preparing(settings) == identity.preparing({k: v for k, v in settings.items() if k != key})
    assert "shots_from" not in identity.rendering(stage(config, "spider", "prompt"))


@pytest.mark.parametrize("by", ["database", "rows"])
def test_examples_of_each_question_are_training_rows_of_other_databases(repo, tmp_path, by):
    config = study(tasks={"spider": {"shots_from": "per_question", "validation": {"by": by}}})
    demo = repo / "resources/demo/spider_data"
    counts = {"train_spider": 864, "train_others": 72, "dev": 256}
    about = {"name": "tasks.spider", "source": str(demo), "sha256": None, "counts": counts}
    spider.fetch(about, tmp_path / "raw")
    parts = {}
    for part in spider.PARTS:
        prepare(tmp_path / "raw", part, stage(config, "spider", part), tmp_path / f"{part}.jsonl")
        parts[part] = read_jsonl(tmp_path / f"{part}.jsonl")
    assert {*ids(parts["shots"])} <= {*ids(parts["train"])}  # nothing is set aside, nothing held out is shown
    settings = stage(config, "spider", "prompt", shots=3)
    different = set()
    for row in [*parts["train"][:200], *parts["validation"][:50], *parts["test"][:50]]:
        found = examples_of(spider, settings, row, parts["shots"])
        assert len({row["db_id"], *(shot["db_id"] for shot in found)}) == 4
        assert found == examples_of(spider, settings, row, parts["shots"])
        assert examples_of(spider, settings | {"shots": 2}, row, parts["shots"]) == found[:2]
        different.add(str(ids(found)))
    assert len(different) > 290
    # The rows as a model reads them, and the proof that none shows its own database.
    record = make_model(tmp_path / "model", context=100_000)
    inputs = {"shots": tmp_path / "shots.jsonl", "manifest": tmp_path / "raw/manifest.json", "record": record}
    inputs |= {"rows": tmp_path / "some.jsonl", "prompts": tmp_path / "prompts.jsonl"}
    write_jsonl(inputs["rows"], parts["train"][:6])
    render(inputs, words("text_to_sql"), settings | {"role": "target"}, inputs["prompts"])
    rows = read_jsonl(inputs["prompts"])
    queries = {shot["id"]: shot["query"] for shot in parts["shots"]}
    for row in rows:
        assert [row["prompt"].index(queries[shot]) for shot in row["shots"]]
    about = stage(config, "spider", role="target", shots=3, shots_from="per_question", cluster="db_id", max_length=None)
    audit_labels(inputs, about, tmp_path / "audit.json")
    shown = {shot for row in rows for shot in row["shots"]}
    assert read_json(tmp_path / "audit.json")["few_shot_rows_in_train"] == len(shown & {row["id"] for row in rows})
    own = next(row["id"] for row in parts["shots"] if row["db_id"] == parts["train"][4]["db_id"])
    write_jsonl(inputs["prompts"], [*rows[:4], rows[4] | {"shots": [own]}, rows[5]])
    with pytest.raises(UserError, match=rf"row {rows[4]['id']}: shows {own}, expected a training row of another"):
        audit_labels(inputs, about, tmp_path / "audit.json")
    few = [row for row in parts["shots"] if row["db_id"] == parts["train"][0]["db_id"]]
    with pytest.raises(UserError, match=r"tasks.spider.shots: found 0 databases other than .* Use fewer shots"):
        examples_of(spider, settings, parts["train"][0], few)


def test_examples_by_id_are_one_list():
    found = refusal(tasks={"spider": {"shots": ["train_spider-00010"], "shots_from": "per_question"}})
    assert found.startswith("config.yaml, tasks.spider.shots: found ['train_spider-00010'], but shots_from draws them.")


def test_what_stands_twice_is_found_among_values_of_any_kind():
    """As `==` finds it: 1 and 1.0 are one value, and lists and mappings are values too."""
    assert repeated(["b", "a", "b", "a", "b"]) == ["b", "a", "b"]
    assert repeated([1, "1", 1.0, None, [1], {"a": [1]}, [1.0], None, {"a": [1]}]) == [1.0, [1.0], None, {"a": [1]}]
    assert repeated([f"dev-{number:05d}" for number in range(100_000)]) == []
