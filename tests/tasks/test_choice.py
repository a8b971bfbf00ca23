"""The MMLU questions of a study: how many of which subject, with which examples, always the same."""

import csv
import random
from pathlib import Path

import pytest

from _config import study
from common.files import UserError, read_json, read_jsonl, sha256_json
from prepare import prepare as step
from render import render
from study import identity
from study.unfold import stage
from tasks import mmlu
from tasks.mmlu import OFFICIAL
from tiny_model import make_model, words

SUBJECTS = ("astronomy", "anatomy", "econometrics", "philosophy", "high_school_computer_science")
CATEGORIES = {"stem": ["astronomy", "anatomy"], "humanities": ["philosophy"], "social": ["econometrics"]}


@pytest.fixture
def tables(tmp_path) -> dict[str, Path]:
    """Five subjects with 5 dev and 20 test questions each."""
    paths = {}
    for split, number in (("dev", 5), ("test", 20)):
        paths[split] = tmp_path / f"{split}.csv"
        with paths[split].open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(mmlu.COLUMNS)
            for subject in SUBJECTS:
                for index in range(number):
                    cells = [f'{subject} {split},\n"{index}"', "None", "NA", "1", "nan"]
                    writer.writerow([subject, index, *cells, "ABCD"[index % 4]])
    return paths


def by_category(manifest: dict, categories=CATEGORIES) -> dict[str, int]:
    return {name: sum(manifest["by_subject"][one] for one in subjects) for name, subjects in categories.items()}


def prepare(tables, out: Path, categories=CATEGORIES, questions=10, shots=4, seed=42, **more):
    out.mkdir(exist_ok=True)
    settings = {"categories": categories, "questions_per_category": questions, "shots": shots, "seed": seed}
    settings |= {"shots_from": "own_dev", "fixed_shots": [], **more}
    settings |= {"kind": "mmlu", "name": "tasks.mmlu"}
    (tables["dev"].parent / "manifest.json").write_text("{}", encoding="utf-8")
    step(tables["dev"].parent, "test", settings, out / "test.jsonl")
    return read_jsonl(out / "test.jsonl"), read_json(out / "test.json")


def test_choices_may_have_numbers(tables, tmp_path):
    """In question, examples and answers; the system text follows, unless the study says another."""
    rows, _ = prepare(tables, tmp_path / "out", shots=2)
    numbers = study(tasks={"mmlu": {"source": "x", "marks": "numbers"}})
    assert numbers["tasks"]["mmlu"]["system"] == "Answer with the number of the correct choice."
    own = study(tasks={"mmlu": {"source": "x", "marks": "numbers", "system": "Say it."}})
    assert own["tasks"]["mmlu"]["system"] == "Say it."
    settings = stage(numbers, "mmlu", "prompt", role="yardstick", max_new_tokens=8)
    record = make_model(tmp_path / "model", context=10_000)
    inputs = {"rows": tmp_path / "out/test.jsonl", "manifest": tmp_path / "manifest.json", "record": record}
    render(inputs, words("choice"), settings, tmp_path / "prompts.jsonl")
    for row, prompt in zip(rows, read_jsonl(tmp_path / "prompts.jsonl"), strict=True):
        assert prompt["options"] == ["1", "2", "3", "4"]
        answers = [f"Answer: {'ABCD'.index(shot['answer']) + 1}\n" for shot in row["shots"]]
        places = [prompt["prompt"].index(text) for text in answers]
        assert len(places) == 2
        assert prompt["prompt"].count("\n1. None\n2. NA\n3. 1\n4. nan\nAnswer:") == 3
        assert "A. None" not in prompt["prompt"]
    assert "marks" not in identity.rendering(stage(study(), "mmlu", "prompt"))


def test_rows(tables, tmp_path):
    rows, manifest = prepare(tables, tmp_path / "out")
    order = list(range(20))
    random.Random(42).shuffle(order)
    assert [row["id"] for row in rows if row["subject"] == "philosophy"] == [f"philosophy-{n:05d}" for n in order[:10]]
    row = next(row for row in rows if row["subject"] == "philosophy")
    assert row == {
        "id": f"philosophy-{order[0]:05d}",
        "subject": "philosophy",
        "question": f'philosophy test,\n"{order[0]}"',
        "choices": ["None", "NA", "1", "nan"],
        "answer": "ABCD"[order[0] % 4],
        "shots": [
            {"question": f'philosophy dev,\n"{n}"', "choices": ["None", "NA", "1", "nan"], "answer": "ABCD"[n]}
            for n in range(4)
        ],
    }
    assert by_category(manifest) == {"stem": 10, "humanities": 10, "social": 10}
    assert manifest["by_subject"] == {"astronomy": 5, "anatomy": 5, "philosophy": 10, "econometrics": 10}
    assert sum(manifest["by_answer"].values()) == manifest["rows"] == 30
    assert manifest["ids"] == [row["id"] for row in rows]
    assert manifest["ids_sha256"] == sha256_json(manifest["ids"])
    assert manifest["repeated_questions"] == 0


def test_two_runs_are_equal_and_another_seed_is_not(tables, tmp_path):
    one, _ = prepare(tables, tmp_path / "one")
    prepare(tables, tmp_path / "two")
    for name in ("test.jsonl", "test.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    other, _ = prepare(tables, tmp_path / "other", seed=7)
    assert one != other


def test_fewer_questions_are_the_first_ones(tables, tmp_path):
    many, _ = prepare(tables, tmp_path / "many", {"humanities": ["philosophy"]}, 20)
    few, _ = prepare(tables, tmp_path / "few", {"humanities": ["philosophy"]}, 5)
    assert many[:5] == few


def test_remainder_goes_to_the_first_subjects(tables, tmp_path):
    _, manifest = prepare(tables, tmp_path / "out", {"all": ["philosophy", "anatomy", "astronomy"]}, 11)
    assert manifest["by_subject"] == {"philosophy": 4, "anatomy": 4, "astronomy": 3}


def test_all_questions(tables, tmp_path):
    rows, manifest = prepare(tables, tmp_path / "out", questions=None, shots=0)
    assert by_category(manifest) == {"stem": 40, "humanities": 20, "social": 20}
    assert rows[0]["shots"] == []


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        ("astronmy", r"no subject 'astronmy' in the data. Near names: astronomy"),
        (
            "computer_science",
            r"Near names: high_school_computer_science.*divides computer_science into several subjects",
        ),
        ("economics", r"Near names: econometrics.*divides economics into several subjects"),
        ("zzz", r"no subject 'zzz' in the data\.$"),
    ],
)
def test_unknown_subject(tables, tmp_path, subject, message):
    with pytest.raises(UserError, match=message):
        prepare(tables, tmp_path / "out", {"stem": ["anatomy", subject]})
    assert list((tmp_path / "out").iterdir()) == []


def test_several_unknown_subjects(tables, tmp_path):
    found = r"lack 2 of the 3 subjects named: alchemy, astrology\. They have 5: astronomy, .*mmlu.source"
    with pytest.raises(UserError, match=found):
        prepare(tables, tmp_path / "out", {"stem": ["alchemy", "anatomy"], "other": ["astrology"]})


def test_subject_named_twice(tables, tmp_path):
    with pytest.raises(UserError, match="anatomy is named twice"):
        prepare(tables, tmp_path / "out", {"stem": ["anatomy"], "humanities": ["anatomy"]})


def test_too_few_questions(tables, tmp_path):
    with pytest.raises(UserError, match=r"philosophy has 20 test questions, expected 25 \(25 in humanities\)"):
        prepare(tables, tmp_path / "out", questions=25)


def test_too_few_examples(tables, tmp_path):
    with pytest.raises(UserError, match="astronomy has 5 dev rows, expected 6"):
        prepare(tables, tmp_path / "out", shots=6)


def test_question_among_its_own_examples(tables, tmp_path):
    text = tables["test"].read_text()
    tables["test"].write_text(text.replace("philosophy test,\n", "philosophy dev,\n"))
    with pytest.raises(UserError, match=r"philosophy, test row \d: is one of the 4 examples of its own prompt"):
        prepare(tables, tmp_path / "out", questions=None)


def test_examples_of_the_first_subject_for_all(tables, tmp_path):
    own, _ = prepare(tables, tmp_path / "own")
    rows, manifest = prepare(tables, tmp_path / "out", shots_from="first_subject")
    assert {row["shots"][3]["question"] for row in rows} == {'anatomy dev,\n"3"'}
    assert all(row["shots"] == rows[0]["shots"] for row in rows)
    assert [row | {"shots": None} for row in rows] == [row | {"shots": None} for row in own]
    assert manifest["settings"]["shots_from"] == "first_subject"


FIXED = [
    {"subject": "philosophy", "split": "dev", "index": 0, "answer": "A"},
    {"subject": "econometrics", "split": "test", "index": 1},
    {"subject": "high_school_computer_science", "split": "dev", "index": 2, "answer": "C"},
    {"subject": "astronomy", "split": "dev", "index": 3},
]


def test_fixed_examples(tables, tmp_path):
    # Econometrics' test row 1 is not among its first 10 after the shuffle.
    rows, manifest = prepare(tables, tmp_path / "out", shots_from="fixed", fixed_shots=FIXED)
    texts = ['philosophy dev,\n"0"', 'econometrics test,\n"1"', 'high_school_computer_science dev,\n"2"']
    for row in rows:
        assert [shot["question"] for shot in row["shots"]] == [*texts, 'astronomy dev,\n"3"']
        assert [shot["answer"] for shot in row["shots"]] == list("ABCD")
        assert all(list(shot) == ["question", "choices", "answer"] for shot in row["shots"])
    assert manifest["settings"]["fixed_shots"] == FIXED
    with pytest.raises(UserError, match=r"econometrics, test row 1: is one of the 4 examples.*mmlu.fixed_shots"):
        prepare(tables, tmp_path / "all", questions=None, shots_from="fixed", fixed_shots=FIXED)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"answer": "B"}, r"fixed_shots\[0\].answer: found B, but philosophy, dev row 0 has answer A"),
        ({"index": 5}, r"fixed_shots\[0\].index: found 5, expected 0 to 4, the rows of philosophy in dev"),
        ({"subject": "philosphy"}, r"fixed_shots\[0\].subject: there is no subject 'philosphy'.*philosophy"),
        ({"subject": "astronomy", "index": 3, "answer": "D"}, r"fixed_shots\[3\]: astronomy, dev row 3 is named twice"),
    ],
)
def test_fixed_examples_that_cannot_be(tables, tmp_path, change, found):
    with pytest.raises(UserError, match=found):
        prepare(tables, tmp_path / "out", shots_from="fixed", fixed_shots=[FIXED[0] | change, *FIXED[1:]])


def test_repeated_questions_are_counted(tables, tmp_path):
    text = tables["test"].read_text()
    tables["test"].write_text(text.replace('philosophy test,\n""1""', 'philosophy test,\n""0""'))
    assert prepare(tables, tmp_path / "out", questions=None)[1]["repeated_questions"] == 1


def test_real_mmlu(shared_data, tmp_path):
    source = str(shared_data / "mmlu" / "mmlu_data.tar.gz")
    about = {"name": "tasks.mmlu", "revision": None, "sha256": None}
    mmlu.fetch(about | {"source": source, "subjects": 57}, tmp_path)
    tables = {split: tmp_path / f"{split}.csv" for split in ("dev", "test")}
    categories = {"stem": ["astronomy"], "humanities": ["world_religions"], "social_sciences": ["econometrics"]}
    rows, manifest = prepare(tables, tmp_path / "out", categories, 50)
    assert by_category(manifest, categories) == {"stem": 50, "humanities": 50, "social_sciences": 50}
    assert len({row["id"] for row in rows}) == 150
    assert {len(row["shots"]) for row in rows} == {4}
    official = {name: subjects.split() for name, subjects in OFFICIAL.items()}
    everything = {row["subject"] for row in csv.DictReader(tables["test"].open(newline=""))}
    assert {name for subjects in official.values() for name in subjects} == everything
    rows, manifest = prepare(tables, tmp_path / "out", official, None, shots=5)
    assert by_category(manifest, official) == {"stem": 3018, "humanities": 4705, "social_sciences": 3077, "other": 3242}
    assert len(manifest["by_subject"]) == 57
    assert manifest["rows"] == len({row["id"] for row in rows}) == 14042
    assert {len(row["shots"]) for row in rows} == {5}
    # Named or written out, the same questions are drawn.
    named, about = prepare(tables, tmp_path / "named", "official", None, shots=5)
    assert sorted(row["id"] for row in named) == sorted(row["id"] for row in rows)
    assert about["by_subject"] == manifest["by_subject"]
