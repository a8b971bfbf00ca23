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
# Of a question among its own examples, without and with fixed ones.
REMEDIES = (
    "The test and dev data overlap; fetch them again, or leave out the subject.",
    "Choose other mmlu.fixed_shots, or fewer questions.",
)

# A capital A to D that stands alone: the article in "A good question" is followed by a word, a choice is not.
_LETTER = re.compile(
    r"\s*(?:(?:the\s+)?(?:correct\s+)?(?:answer|choice|option)(?:\s+is)?\s*:?\s*)?[(*\"']*(?-i:([A-D]))[)*\"']*"
    r"(?=[.:,;)]|[ \t\r]*(?:\n|$))",
    re.IGNORECASE,
)


def draw(options: Mapping[str, Any], dev: Table, test: Table) -> list[dict]:
    """Draw the questions of a study, the same on every run.

    A category's questions are shared equally by its subjects, the first ones taking what is left over. Each subject
    gives the first of its test questions after a shuffle with the seed, made anew for each.

    Args:
        options: of the section mmlu (`study.schema.Mmlu`), but where the data come from.
        dev, test: all rows of the data.

    Raises:
        UserError: an unknown subject, one named twice, too few questions or examples, an example that is not there or
            has another answer, or a question among its examples.
    """
    per_category = options["questions_per_category"]
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
                    f"mmlu, questions_per_category: {subject} has {len(order)} test questions, expected "
                    f"{number} ({per_category} in {category}). Use fewer questions, or more subjects."
                )
            random.Random(options["seed"]).shuffle(order)
            for row in order[:number]:
                if any(all(row[key] == shot[key] for key in ("question", "choices")) for shot in shown[subject]):
                    raise UserError(
                        f"{subject}, test row {row['index']}: is one of the {options['shots']} examples of its own "
                        f"prompt. {REMEDIES[options['shots_from'] == 'fixed']}"
                    )
                name = {"id": f"{subject}-{row['index']:05d}", "subject": subject, "category": category}
                rows.append(name | _plain(row) | {"shots": shown[subject]})
    return rows


def _shown(options: Mapping[str, Any], dev: Table, test: Table) -> dict[str, list[dict]]:
    """Choose the few-shot examples of each subject that is named."""
    shots, source = options["shots"], options["shots_from"]
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
        return dict.fromkeys(named, _fixed(options["fixed_shots"], {"dev": dev, "test": test}))
    shown = {}
    for subject in named:
        own = min(named) if source == "first_subject" else subject
        examples = dev.get(own, [])
        if len(examples) < shots:
            raise UserError(f"mmlu, shots: {own} has {len(examples)} dev rows, expected {shots}. Use fewer.")
        shown[subject] = [_plain(row) for row in examples[:shots]]
    return shown


def _plain(row: dict) -> dict:
    return {key: row[key] for key in ("question", "choices", "answer")}


def _fixed(wanted: Sequence[Mapping], tables: Mapping[str, Table]) -> list[dict]:
    """Find the rows of `mmlu.fixed_shots`, in their order."""
    found: list[dict] = []
    for position, shot in enumerate(wanted):
        key, subject, split, index = f"mmlu.fixed_shots[{position}]", shot["subject"], shot["split"], shot["index"]
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


def _unknown(subject: str, known: Table, key: str = "mmlu, categories") -> str:
    close = difflib.get_close_matches(subject, known, n=3, cutoff=0.5)
    near = list(dict.fromkeys([*(name for name in known if subject in name), *close]))
    message = f"{key}: there is no subject {subject!r} in the data."
    if near:
        message += f" Near names: {', '.join(near)}."
    if subject in ("computer_science", "economics"):
        message += f" The benchmark divides {subject} into several subjects; choose among them."
    return message


def user_turn(subject: str, shots: Sequence[Mapping], question: str, choices: Sequence[str]) -> str:
    """Write the user's turn, ending at `Answer:`, in the words of MMLU (Hendrycks et al. 2021, arXiv:2009.03300)."""
    head = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}."
    examples = (f"{_lines(shot['question'], shot['choices'])} {shot['answer']}" for shot in shots)
    return "\n\n".join([head, *examples, _lines(question, choices)])


def _lines(question: str, choices: Sequence[str]) -> str:
    options = (f"{letter}. {text}" for letter, text in zip(LETTERS, choices, strict=True))
    return "\n".join([question.strip(), *options, "Answer:"])


def fault(row: Mapping[str, Any]) -> str | None:
    """Say what of a row of data is no question with four choices and the letter of the right one; None if all is."""
    choices = row["choices"]
    if not isinstance(choices, list) or len(choices) != len(LETTERS):
        return f"choices are {choices!r}, expected {len(LETTERS)}"
    texts = {"question": row["question"], **dict(zip(LETTERS, choices, strict=True))}
    return not_text(texts) or (
        None if row["answer"] in tuple(LETTERS) else f"answer is {row['answer']!r}, expected A to D"
    )


def not_text(cells: Mapping[str, Any]) -> str | None:
    """Say which of the cells, by their names, is the first that is no text, or a blank one."""
    for name, cell in cells.items():
        if not isinstance(cell, str) or not cell.strip():
            return f"{name} is {cell!r}, expected a text"
    return None


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
