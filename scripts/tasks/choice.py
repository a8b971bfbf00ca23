"""Multiple choice: what rows must be, what a prompt says of them, and the letter that a text answers with."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

LETTERS = "ABCD"

# A capital letter or digit that stands alone: the article in "A good question" has a word behind it, a choice does not.
_LETTER = re.compile(
    r"\s*(?:(?:the\s+)?(?:correct\s+)?(?:answer|choice|option)(?:\s+is)?\s*:?\s*)?[(*\"']*(?-i:([A-Z1-9]))[)*\"']*"
    r"(?=[.:,;)]|[ \t\r]*(?:\n|$))",
    re.IGNORECASE,
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def told(row: Mapping, marks: Sequence[str] = LETTERS) -> dict[str, Any]:
    """What a prompt may say of a row: question, choices as (mark, text), and subject in words ("" if none)."""
    choices = list(zip(marks, row["choices"], strict=True))
    subject = row.get("subject", "").replace("_", " ")
    return {"subject": subject, "question": row["question"].strip(), "choices": choices}


def fault(row: Mapping, letters: Sequence[str] = LETTERS) -> str | None:
    """Say what of a row is no question with a choice for each letter and the right one's letter; None if all is."""
    choices = row["choices"]
    if not isinstance(choices, list) or len(choices) != len(letters):
        return f"choices are {choices!r}, expected {len(letters)}"
    texts = {"question": row["question"], **dict(zip(letters, choices, strict=True))}
    wrong = f"answer is {row['answer']!r}, expected {letters[0]} to {letters[-1]}"
    return not_text(texts) or (None if row["answer"] in tuple(letters) else wrong)


def not_text(cells: Mapping[str, Any]) -> str | None:
    """Say which of the cells, by their names, is the first that is no text, or a blank one, or cut in a character."""
    for name, cell in cells.items():
        if not isinstance(cell, str) or not cell.strip():
            return f"{name} is {cell!r}, expected a text"
        if cut := _SURROGATE.search(cell):
            return f"{name} holds {cut[0]!r}, half of a character, expected a text that UTF-8 can hold"
    return None


def normal(text: str) -> str:
    """Strip a text of case, and of spaces but for one between words."""
    return " ".join(text.casefold().split())


def judged(row: Mapping, given: Mapping | None, prediction: str, letters: Sequence[str] = LETTERS) -> dict[str, Any]:
    """The cells of a record about its answer: the letter that counts, `prediction`, and the one in the generated text.

    The latter is a cross-check. Both are wrong where there is no answer.
    """
    text = given["generated"] if given else ""
    numbers = (given or {}).get("numbers", {})
    # The letter of each mark; other questions may have more of them.
    of = {mark: one for mark, one in numbers.items() if one in letters} or {letter: letter for letter in letters}
    letter = of.get(read_letter(text, of), "")
    return {
        "prediction": prediction,
        "correct": int(prediction == row["answer"]),
        "generated": text,
        "generated_letter": letter,
        "correct_generated": int(letter == row["answer"]),
    }


def lettered(given: Mapping, letters: Sequence[str] = LETTERS) -> Mapping:
    """An answer to a prompt that calls choices 1, 2, 3 as if it had called them by letters; others as they are.

    In the text the number that answers is read by the rule of `read_letter`.
    """
    of = {str(number): letter for number, letter in enumerate(letters, 1)}
    if not given["logprobs"] or not given["logprobs"].keys() <= of.keys():
        return given
    logprobs = {of[mark]: value for mark, value in given["logprobs"].items()}
    return {**given, "logprobs": logprobs, "prediction": of[given["prediction"]], "numbers": of}


def read_letter(generated: str, letters: Collection[str] = LETTERS) -> str:
    """Read the letter, or the digit, that a generated text answers with; "" if it does not answer plainly.

    The rule is strict and the same for all models: the text begins with one of the capital `letters`, or with
    "Answer:", "The answer is", "Option" and the like before it; the letter may stand in brackets, quotes or asterisks,
    and must be followed by one of `. : , ; )` or by the end of the line. All else is invalid, also a letter later in
    the text.
    """
    match = _LETTER.match(generated)
    return match[1] if match and match[1] in letters else ""
