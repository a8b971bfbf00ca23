"""Score a model's answers to multiple-choice questions: one record a question."""

from pathlib import Path

import _path  # noqa: F401
from common.files import UserError, read_jsonl
from common.job import job
from tasks.choice import LETTERS, score
from tasks.records import MMLU_COLUMNS, by_id, write_records


def score_mmlu(answers: str | Path, questions: str | Path, records: str | Path) -> None:
    """Write one record for each question, in the order of the questions; see `tasks.choice.score`.

    Args:
        answers: JSON lines with id, logprobs (of A to D), prediction and generated.
        questions: JSON lines with id, subject, category and answer.

    Raises:
        UserError: ids are unknown or come twice, or a prediction is no letter.
    """
    asked = by_id(read_jsonl(questions), questions)
    given = by_id(read_jsonl(answers), answers, asked)
    for name, answer in given.items():
        if answer["prediction"] not in set(LETTERS):
            raise UserError(
                f"{answers}, {name}: found prediction {answer['prediction']!r}, expected a letter A to D. "
                "Run `snakemake -R predict_mmlu`."
            )
    write_records(records, MMLU_COLUMNS, score((question, given.get(name)) for name, question in asked.items()))


if __name__ == "__main__":
    with job(snakemake.log[0]):
        score_mmlu(snakemake.input.answers, snakemake.input.questions, snakemake.output.records)
