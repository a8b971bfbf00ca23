"""Score a model's answers to multiple-choice questions: one record a question."""

import re
from pathlib import Path

import _path  # noqa: F401
from common.files import UserError, read_jsonl
from common.job import job
from tasks.records import MMLU_COLUMNS, by_id, write_records

LETTERS = "ABCD"

# A capital A to D that stands alone: the article in "A good question" is followed by a word, a choice is not.
_LETTER = re.compile(
    r"\s*(?:(?:the\s+)?(?:correct\s+)?(?:answer|choice|option)(?:\s+is)?\s*:?\s*)?[(*\"']*(?-i:([A-D]))[)*\"']*"
    r"(?=[.:,;)]|[ \t\r]*(?:\n|$))",
    re.IGNORECASE,
)


def score_mmlu(answers: str | Path, questions: str | Path, records: str | Path) -> None:
    """Write one record for each question, in the order of the questions.

    `correct` compares the letter with the highest log-probability, `correct_generated` the letter read from generated
    text (`read_letter`), a cross-check. A question without an answer has an empty prediction and counts as wrong.

    Args:
        answers: JSON lines with id, logprobs (of A to D), prediction and generated.
        questions: JSON lines with id, subject, category and answer.
        records: CSV to write; see `tasks.records`.

    Raises:
        UserError: ids are unknown or come twice, or a prediction is no letter.
    """
    asked = by_id(read_jsonl(questions), questions)
    given = by_id(read_jsonl(answers), answers, asked)
    rows = []
    for number, question in asked.items():
        answer = given.get(number, {"prediction": "", "generated": "", "logprobs": dict.fromkeys(LETTERS)})
        if number in given and answer["prediction"] not in set(LETTERS):
            raise UserError(
                f"{answers}, {number}: found prediction {answer['prediction']!r}, expected a letter A to D. "
                "Run `snakemake -R predict_mmlu`."
            )
        letter = read_letter(answer["generated"])
        row = {
            "id": number,
            "subject": question["subject"],
            "category": question["category"],
            "answer": question["answer"],
            "prediction": answer["prediction"],
            "correct": int(answer["prediction"] == question["answer"]),
            "generated": answer["generated"],
            "generated_letter": letter,
            "correct_generated": int(letter == question["answer"]),
        }
        rows.append(row | {f"logprob_{letter}": answer["logprobs"][letter] for letter in LETTERS})
    write_records(records, MMLU_COLUMNS, rows)


def read_letter(generated: str) -> str:
    """Return the letter that a generated text answers with, "" if it does not answer plainly.

    The rule is strict and the same for all models: the text begins with a capital A to D, or with "Answer:", "The
    answer is", "Option" and the like before it; the letter may stand in brackets, quotes or asterisks, and must be
    followed by one of `. : , ; )` or by the end of the line. All else is invalid, also a letter later in the text.
    """
    match = _LETTER.match(generated)
    return match[1] if match else ""


if __name__ == "__main__":
    with job(snakemake.log[0]):
        score_mmlu(
            answers=snakemake.input.answers,
            questions=snakemake.input.questions,
            records=snakemake.output.records,
            **snakemake.params.settings,
        )
