"""Multiple choice with four options: which questions, with which few-shot examples, the user's turn, and scoring.

A question has id, subject, category, question, choices (4 texts), answer (A to D) and shots, its few-shot examples
(question, choices, answer).
"""

import difflib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from common.files import UserError

LETTERS = "ABCD"
# Rows of each subject: index, question, choices and answer.
Table = Mapping[str, Sequence[dict]]

# A capital A to D that stands alone: the article in "A good question" is followed by a word, a choice is not.
_LETTER = re.compile(
    r"\s*(?:(?:the\s+)?(?:correct\s+)?(?:answer|choice|option)(?:\s+is)?\s*:?\s*)?[(*\"']*(?-i:([A-D]))[)*\"']*"
    r"(?=[.:,;)]|[ \t\r]*(?:\n|$))",
    re.IGNORECASE,
)


def draw(options: Mapping[str, Any], dev: Table, test: Table) -> list[dict]:
    """Draw the questions of a study, the same on every run.

    Args:
        options: `categories`: subjects of each category.
            `questions_per_category`: shared equally by the category's subjects, the first ones taking what is left
            over; each gives the first of its test questions after a shuffle with `seed`, made anew for each subject.
            None: all questions, shuffled alike.
            `shots`: few-shot examples a question.
            `shots_from`: "own_dev", the first rows of the subject's own dev file, as the benchmark has it;
            "first_subject", those of the alphabetically first subject of the study for all (a defect of DeepEval's
            benchmark); or "fixed", the same `fixed_shots` for all (see `named_shots`).
        dev, test: all rows of the data.

    Raises:
        UserError: an unknown subject, one named twice, too few questions or examples, an example that is not there or
            has another answer, or a question among its examples.
    """
    categories, per_category = options["categories"], options["questions_per_category"]
    shown = _shown(options, dev, test)
    rows = []
    for category, subjects in categories.items():
        for position, subject in enumerate(subjects):
            number = len(test[subject])
            if per_category is not None:
                number = per_category // len(subjects) + (position < per_category % len(subjects))
            if len(test[subject]) < number:
                raise UserError(
                    f"mmlu, questions_per_category: {subject} has {len(test[subject])} test questions, expected "
                    f"{number} ({per_category} in {category}). Use fewer questions, or more subjects."
                )
            order = list(test[subject])
            random.Random(options["seed"]).shuffle(order)
            for row in order[:number]:
                _check_apart(subject, row, shown[subject], options["shots_from"])
                rows.append(
                    {
                        "id": f"{subject}-{row['index']:05d}",
                        "subject": subject,
                        "category": category,
                        "question": row["question"],
                        "choices": row["choices"],
                        "answer": row["answer"],
                        "shots": shown[subject],
                    }
                )
    return rows


def _shown(options: Mapping[str, Any], dev: Table, test: Table) -> dict[str, list[dict]]:
    """Choose the few-shot examples of each subject that is named."""
    shots, source, fixed = options["shots"], options["shots_from"], options["fixed_shots"]
    if source not in ("own_dev", "first_subject", "fixed"):
        raise UserError(f"mmlu.shots_from: found {source!r}, expected own_dev, first_subject or fixed.")
    if fixed and source != "fixed":
        raise UserError(f"mmlu.fixed_shots: found {len(fixed)} examples, expected none with shots_from: {source}.")
    named = [subject for subjects in options["categories"].values() for subject in subjects]
    unknown = [subject for subject in named if subject not in test]
    if len(unknown) == 1:
        raise UserError(_unknown(unknown[0], test))
    if unknown:
        raise UserError(
            f"mmlu, categories: the data lack {len(unknown)} of the {len(named)} subjects named: {', '.join(unknown)}. "
            f"They have {len(test)}: {', '.join(test)}. Name some of these, or get other data (mmlu.source)."
        )
    for subject in named:
        if named.count(subject) > 1:
            raise UserError(f"mmlu, categories: {subject} is named twice. Name each subject once.")
    if source == "fixed":
        return dict.fromkeys(named, _plain(named_shots(fixed, shots, {"dev": dev, "test": test})))
    shown = {}
    for subject in named:
        own = min(named) if source == "first_subject" else subject
        examples = dev.get(own, [])
        if len(examples) < shots:
            raise UserError(f"mmlu, shots: {own} has {len(examples)} dev rows, expected {shots}. Use fewer.")
        shown[subject] = _plain(examples[:shots])
    return shown


def _plain(rows: Iterable[dict]) -> list[dict]:
    return [{key: row[key] for key in ("question", "choices", "answer")} for row in rows]


def _check_apart(subject: str, row: dict, shots: Sequence[dict], source: str) -> None:
    if any((row["question"], row["choices"]) == (shot["question"], shot["choices"]) for shot in shots):
        remedy = (
            "Choose other mmlu.fixed_shots, or fewer questions."
            if source == "fixed"
            else "The test and dev data overlap; fetch them again, or leave out the subject."
        )
        raise UserError(
            f"{subject}, test row {row['index']}: is one of the {len(shots)} examples of its own prompt. {remedy}"
        )


def named_shots(wanted: Sequence[Mapping], number: int, tables: Mapping[str, Table]) -> list[dict]:
    """Find the rows of `mmlu.fixed_shots`, in their order.

    Each has `subject`, `split` (dev or test), `index` (row of that file, from 0) and, to be checked, `answer`.

    Raises:
        UserError: not `number` of them, one that is not in the data, named twice or has another answer than it says.
    """
    if len(wanted) != number:
        raise UserError(f"mmlu.fixed_shots: found {len(wanted)} examples, expected {number}, the number in mmlu.shots.")
    found: list[dict] = []
    for position, shot in enumerate(wanted):
        key, subject, split, index = f"mmlu.fixed_shots[{position}]", shot["subject"], shot["split"], shot["index"]
        if split not in tables:
            raise UserError(f"{key}.split: found {split!r}, expected dev or test.")
        if subject not in tables[split]:
            raise UserError(_unknown(subject, tables[split], f"{key}.subject"))
        row = next((row for row in tables[split][subject] if row["index"] == index), None)
        if row is None:
            last = max(row["index"] for row in tables[split][subject])
            raise UserError(f"{key}.index: found {index}, expected 0 to {last}, the rows of {subject} in {split}.")
        if row in found:
            raise UserError(f"{key}: {subject}, {split} row {index} is named twice. Name each example once.")
        if shot.get("answer") not in (None, row["answer"]):
            raise UserError(
                f"{key}.answer: found {shot['answer']}, but {subject}, {split} row {index} has answer {row['answer']}. "
                "Choose another row, or correct the letter."
            )
        found.append(row)
    return found


def _unknown(subject: str, known: Table, key: str = "mmlu, categories") -> str:
    near = [name for name in known if subject in name]
    near += [name for name in difflib.get_close_matches(subject, known, n=3, cutoff=0.5) if name not in near]
    message = f"{key}: there is no subject {subject!r} in the data."
    if near:
        message += f" Near names: {', '.join(near)}."
    if subject in ("computer_science", "economics"):
        message += f" The benchmark divides {subject} into several subjects; choose among them."
    return message


def user_turn(subject: str, shots: Sequence[Mapping], question: str, choices: Sequence[str]) -> str:
    """Write the user's turn, ending at `Answer:`, in the words of MMLU (Hendrycks et al. 2021, arXiv:2009.03300).

    Each of the few-shot examples has `question`, `choices` (4 texts) and `answer` (a letter A to D).
    """
    blocks = [f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}."]
    for shot in shots:
        blocks.append(f"{_lines(shot['question'], shot['choices'])} {shot['answer']}")
    return "\n\n".join([*blocks, _lines(question, choices)])


def _lines(question: str, choices: Sequence[str]) -> str:
    options = (f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=True))
    return "\n".join([question.strip(), *options, "Answer:"])


def score(asked: Iterable[tuple[Mapping, Mapping | None]]) -> Iterator[dict]:
    """Yield one record for each question with its answer; None counts as wrong, with an empty prediction.

    `correct` compares the letter with the highest log-probability, `correct_generated` the letter read from generated
    text (`read_letter`), a cross-check.

    An answer has `logprobs` (of A to D), `prediction` and `generated`.
    """
    none = {"prediction": "", "generated": "", "logprobs": dict.fromkeys(LETTERS)}
    for question, answer in asked:
        answer = answer or none
        letter = read_letter(answer["generated"])
        yield {key: question[key] for key in ("id", "subject", "category", "answer")} | {
            "prediction": answer["prediction"],
            "correct": int(answer["prediction"] == question["answer"]),
            "generated": answer["generated"],
            "generated_letter": letter,
            "correct_generated": int(letter == question["answer"]),
            **{f"logprob_{letter}": answer["logprobs"][letter] for letter in LETTERS},
        }


def read_letter(generated: str) -> str:
    """Read the letter that a generated text answers with; "" if it does not answer plainly.

    The rule is strict and the same for all models: the text begins with a capital A to D, or with "Answer:", "The
    answer is", "Option" and the like before it; the letter may stand in brackets, quotes or asterisks, and must be
    followed by one of `. : , ; )` or by the end of the line. All else is invalid, also a letter later in the text.
    """
    match = _LETTER.match(generated)
    return match[1] if match else ""
