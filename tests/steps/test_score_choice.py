import pytest

from common.files import UserError, write_jsonl
from score import score
from tasks.choice import read_letter
from tasks.records import MMLU_COLUMNS, read_records


@pytest.fixture
def paths(tmp_path):
    paths = {name: tmp_path / f"{name}.x" for name in ("answers", "questions", "records")}
    rows = [("s-00000", "A"), ("s-00001", "B"), ("t-00000", "C")]
    write_jsonl(
        paths["questions"],
        [{"id": i, "subject": i[0], "question": "?", "choices": list("wxyz"), "answer": a} for i, a in rows],
    )
    return paths


def score_mmlu(paths):
    settings = {"kind": "mmlu", "name": "tasks.mmlu", "role": "yardstick", "categories": {"stem": ["s"], "arts": ["t"]}}
    score(paths | {"manifest": "no data are needed"}, {"records": paths["records"]}, settings)


def given(number, prediction, generated):
    logprobs = {"A": -0.1, "B": -3.25, "C": -1e-20, "D": -30.0}
    return {"id": number, "logprobs": logprobs, "prediction": prediction, "generated": generated}


def test_numbers_in_place_of_letters_are_scored_as_these(paths):
    """The same records, and a text that answers with a letter where numbers were asked answers nothing."""
    answers = [given("t-00000", "C", " C\n"), given("s-00000", "B", "The answer is: B."), given("s-00001", "A", "none")]
    write_jsonl(paths["answers"], answers)
    score_mmlu(paths)
    lettered = read_records(paths["records"], MMLU_COLUMNS)
    of = dict(zip("ABCD", "1234", strict=True))
    for answer in answers:
        answer["logprobs"] = {of[letter]: value for letter, value in answer["logprobs"].items()}
        answer["prediction"] = of[answer["prediction"]]
    texts = (" 3\n", "The answer is: 2.", "none")
    write_jsonl(paths["answers"], [one | {"generated": text} for one, text in zip(answers, texts, strict=True)])
    score_mmlu(paths)
    numbered = read_records(paths["records"], MMLU_COLUMNS)
    same = [name for name in MMLU_COLUMNS if name != "generated"]
    assert numbered[same].equals(lettered[same])
    assert numbered["generated_letter"].tolist() == ["B", "", "C"]
    write_jsonl(paths["answers"], answers)
    score_mmlu(paths)
    assert read_records(paths["records"], MMLU_COLUMNS)["generated_letter"].tolist() == [""] * 3


def test_one_record_a_question_and_a_missing_answer_is_wrong(paths):
    write_jsonl(paths["answers"], [given("t-00000", "C", " C\n"), given("s-00000", "B", "A good question\0")])
    score_mmlu(paths)
    frame = read_records(paths["records"], MMLU_COLUMNS)
    assert frame["id"].tolist() == ["s-00000", "s-00001", "t-00000"]
    assert frame["category"].tolist() == ["stem", "stem", "arts"]
    assert frame["prediction"].tolist() == ["B", "", "C"]
    assert frame["correct"].tolist() == [0, 0, 1]
    assert frame["generated"].tolist() == ["A good question\0", "", " C\n"]
    assert frame["generated_letter"].tolist() == ["", "", "C"]
    assert frame["correct_generated"].tolist() == [0, 0, 1]
    assert frame["logprob_C"].tolist()[::2] == [-1e-20, -1e-20]
    assert frame["logprob_A"].isna().tolist() == [False, True, False]
    first = paths["records"].read_bytes()
    score_mmlu(paths)
    assert paths["records"].read_bytes() == first


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([given("s-00000", "A", ""), given("s-00000", "A", "")], "s-00000 comes twice"),
        ([given("s-00009", "A", "")], "s-00009 is not among the questions"),
        (
            [given("s-00000", "E", "")],
            "found prediction 'E', expected a letter A to D. Run `snakemake -R predict_mmlu`",
        ),
    ],
)
def test_answers_that_do_not_fit_are_refused(paths, rows, word):
    write_jsonl(paths["answers"], rows)
    with pytest.raises(UserError, match=word):
        score_mmlu(paths)
    assert not paths["records"].exists()


@pytest.mark.parametrize(
    ("generated", "letter"),
    [
        ("B", "B"),
        (" B\n\nThe following", "B"),
        ("B.", "B"),
        ("B. Paris", "B"),
        ("(C)", "C"),
        ("(C) Paris", "C"),
        ("**D**", "D"),
        ('"D"', "D"),
        ("A, because", "A"),
        ("Answer: A", "A"),
        ("answer: (A)", "A"),
        ("The answer is D.", "D"),
        ("The correct answer is: D", "D"),
        ("Option C", "C"),
        ("\n\nB", "B"),
        ("", ""),
        ("b", ""),
        ("E", ""),
        ("A good question", ""),
        ("ABCD", ""),
        ("Because of B", ""),
        ("Answer", ""),
        ("the answer is a", ""),
        ("B2", ""),
        ("D'accord", ""),
        ("SELECT A FROM B", ""),
    ],
)
def test_read_letter(generated, letter):
    assert read_letter(generated) == letter
