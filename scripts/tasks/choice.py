"""Multiple choice with four options: which questions, with which few-shot examples, and scores.

A question has id, subject, category, question, choices (4 texts), answer (A to D) and shots, its few-shot examples
(question, choices, answer).
"""

import difflib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import UserError

LETTERS = "ABCD"
# Rows of each subject: index, question, choices and answer.
Table = Mapping[str, Sequence[dict]]

# A capital letter that stands alone: the article in "A good question" is followed by a word, a choice is not.
_LETTER = re.compile(
    r"\s*(?:(?:the\s+)?(?:correct\s+)?(?:answer|choice|option)(?:\s+is)?\s*:?\s*)?[(*\"']*(?-i:([A-Z]))[)*\"']*"
    r"(?=[.:,;)]|[ \t\r]*(?:\n|$))",
    re.IGNORECASE,
)


def draw(options: Mapping[str, Any], dev: Table, test: Table) -> list[dict]:
    """Draw the questions of a study, the same on every run.

    A category's questions are shared equally by its subjects, the first ones taking what is left over. Each subject
    gives the first of its test questions after a shuffle with the seed, made anew for each.

    Args:
        options: of the part test (`tasks.mmlu.STAGES`), and `name`, the section in messages.
        dev, test: all rows of the data.

    Raises:
        UserError: an unknown subject, one named twice, too few questions or examples, an example that is not there or
            has another answer, or a question among its examples.
    """
    name, per_category = options["name"], options["questions_per_category"]
    shown = _shown(options, dev, test)
    rows = []
    for category, subjects in options["categories"].items():
        for position, subject in enumerate(subjects):
            order = list(test[subject])
            number = len(order)
            if per_category is not None:
                number = per_category // len(subjects) + (position < per_category % len(subjects))
            if len(order) < number:
                raise UserError(
                    f"{name}.questions_per_category: {subject} has {len(order)} test questions, expected "
                    f"{number} ({per_category} in {category}). Use fewer questions, or more subjects."
                )
            random.Random(options["seed"]).shuffle(order)
            for row in order[:number]:
                if any(all(row[key] == shot[key] for key in ("question", "choices")) for shot in shown[subject]):
                    remedy = "The test and dev data overlap; fetch them again, or leave out the subject."
                    if options["shots_from"] == "fixed":
                        remedy = f"Choose other {name}.fixed_shots, or fewer questions."
                    raise UserError(
                        f"{subject}, test row {row['index']}: is one of the {options['shots']} examples of its own "
                        f"prompt. {remedy}"
                    )
                about = {"id": f"{subject}-{row['index']:05d}", "subject": subject, "category": category}
                rows.append(about | _plain(row) | {"shots": shown[subject]})
    return rows


def _shown(options: Mapping[str, Any], dev: Table, test: Table) -> dict[str, list[dict]]:
    """Choose the few-shot examples of each subject that is named."""
    name, shots, source = options["name"], options["shots"], options["shots_from"]
    named = [subject for subjects in options["categories"].values() for subject in subjects]
    unknown = [subject for subject in named if subject not in test]
    if len(unknown) == 1:
        raise UserError(_unknown(unknown[0], test, f"{name}.categories"))
    if unknown:
        raise UserError(
            f"{name}.categories: the data lack {len(unknown)} of the {len(named)} subjects named: "
            f"{', '.join(unknown)}. They have {len(test)}: {', '.join(test)}. Name some of these, or "
            f"get other data ({name}.source)."
        )
    for subject in named:
        if named.count(subject) > 1:
            raise UserError(f"{name}.categories: {subject} is named twice. Name each subject once.")
    if source == "fixed":
        return dict.fromkeys(named, _fixed(options, {"dev": dev, "test": test}))
    shown = {}
    for subject in named:
        own = min(named) if source == "first_subject" else subject
        examples = dev.get(own, [])
        if len(examples) < shots:
            raise UserError(f"{name}.shots: {own} has {len(examples)} dev rows, expected {shots}. Use fewer.")
        shown[subject] = [_plain(row) for row in examples[:shots]]
    return shown


def _plain(row: dict) -> dict:
    return {key: row[key] for key in ("question", "choices", "answer")}


def _fixed(options: Mapping[str, Any], tables: Mapping[str, Table]) -> list[dict]:
    """Find the rows of `fixed_shots`, in their order."""
    found: list[dict] = []
    for position, shot in enumerate(options["fixed_shots"]):
        key = f"{options['name']}.fixed_shots[{position}]"
        subject, split, index = (shot[name] for name in ("subject", "split", "index"))
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
    return [_plain(row) for row in found]


def _unknown(subject: str, known: Table, key: str) -> str:
    close = difflib.get_close_matches(subject, known, n=3, cutoff=0.5)
    near = list(dict.fromkeys([*(name for name in known if subject in name), *close]))
    message = f"{key}: there is no subject {subject!r} in the data."
    if near:
        message += f" Near names: {', '.join(near)}."
    if subject in ("computer_science", "economics"):
        message += f" The benchmark divides {subject} into several subjects; choose among them."
    return message


def told(row: Mapping) -> dict[str, Any]:
    """What a prompt may say of a row: question, choices as (letter, text), and subject in words ("" if none)."""
    letters = list(zip(LETTERS, row["choices"], strict=True))
    subject = row.get("subject", "").replace("_", " ")
    return {"subject": subject, "question": row["question"].strip(), "choices": letters}


def shots(row: Mapping, pool: Sequence[Mapping]) -> Sequence[Mapping]:
    """A question brings the few-shot examples of its own subject."""
    return row["shots"]


def target(row: Mapping) -> str:
    """The letter."""
    return row["answer"]


def choices(row: Mapping) -> Sequence[str]:
    """The letters."""
    return LETTERS


def fault(row: Mapping[str, Any], letters: Sequence[str] = LETTERS) -> str | None:
    """Say what of a row is no question with a choice for each letter and the right one's letter; None if all is."""
    choices = row["choices"]
    if not isinstance(choices, list) or len(choices) != len(letters):
        return f"choices are {choices!r}, expected {len(letters)}"
    texts = {"question": row["question"], **dict(zip(letters, choices, strict=True))}
    wrong = f"answer is {row['answer']!r}, expected {letters[0]} to {letters[-1]}"
    return not_text(texts) or (None if row["answer"] in tuple(letters) else wrong)


def not_text(cells: Mapping[str, Any]) -> str | None:
    """Say which of the cells, by their names, is the first that is no text, or a blank one."""
    for name, cell in cells.items():
        if not isinstance(cell, str) or not cell.strip():
            return f"{name} is {cell!r}, expected a text"
    return None


def score(
    options: Mapping[str, Any], folder: Path, asked: Sequence[tuple[Mapping, Mapping | None]], workers: int
) -> Iterator[tuple[dict, None]]:
    """Yield one record for each question with its answer; None counts as wrong, with an empty prediction.

    `correct` compares the letter with the highest log-probability, `correct_generated` the letter read from generated
    text (`read_letter`), a cross-check.

    Args:
        asked: an answer has `logprobs` (of A to D), `prediction` and `generated`.

    Raises:
        UserError: a prediction is no letter.
    """
    none = {"prediction": "", "generated": "", "logprobs": dict.fromkeys(LETTERS)}
    for question, given in asked:
        if given and given["prediction"] not in set(LETTERS):
            raise UserError(
                f"{question['id']}: found prediction {given['prediction']!r}, expected a letter A to D. Run "
                f"`snakemake -R predict_{options['name'].rpartition('.')[2]}`."
            )
        answer = given or none
        record = {key: question[key] for key in ("id", "subject", "category", "answer")} | {
            "prediction": answer["prediction"],
            "correct": int(answer["prediction"] == question["answer"]),
            **as_generated(question, given),
            **{f"logprob_{letter}": answer["logprobs"][letter] for letter in LETTERS},
        }
        yield record, None


def as_generated(question: Mapping, given: Mapping | None, letters: Sequence[str] = LETTERS) -> dict[str, str | int]:
    """The cells about the generated text of an answer: itself, its letter, and whether that is right."""
    text = given["generated"] if given else ""
    letter = read_letter(text, letters)
    return {"generated": text, "generated_letter": letter, "correct_generated": int(letter == question["answer"])}


def read_letter(generated: str, letters: Sequence[str] = LETTERS) -> str:
    """Read the letter that a generated text answers with; "" if it does not answer plainly.

    The rule is strict and the same for all models: the text begins with one of the capital `letters`, or with
    "Answer:", "The answer is", "Option" and the like before it; the letter may stand in brackets, quotes or asterisks,
    and must be followed by one of `. : , ; )` or by the end of the line. All else is invalid, also a letter later in
    the text.
    """
    match = _LETTER.match(generated)
    return match[1] if match and match[1] in letters else ""
