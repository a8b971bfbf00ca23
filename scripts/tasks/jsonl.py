"""Questions of your own as JSON lines: multiple choice, or an answer compared as text or by a regular expression.

A row has question and answer, and choices if it is multiple choice. It may have id, target (what is learnt and what a
few-shot example shows, if that is not the answer), and further keys, for the prompt and to divide the questions by.
"""

import json
import random
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator
from pydantic_core import PydanticCustomError

from common.files import UserError, described, json_lines, read_jsonl, sha256_json, write_json, write_jsonl
from tasks.base import NUMBERS, PARTS, Asked, Context, Measure, Part, Scored, TaskOptions, chosen, letters, marked
from tasks.choice import fault, judged, lettered, normal, not_text
from tasks.questions import Questions, picked
from tasks.sections import AtLeast1, Count, Share, Text, Unique, contradiction, no_pattern
from tasks.text_to_sql import SMOKE, TRAIN, Validation, divide

__all__ = ["PARTS", "SMOKE"]

PROMPT = "jsonl.jinja"
LICENCE = ""
REMEDY = "Shorten the row, use fewer {name}.shots, or take a model with a longer context."
_TRAIN = ("cluster", *TRAIN)
STAGES = {
    "fetch": ("source", "train", "score", "chance"),
    "train": _TRAIN,
    "validation": (*_TRAIN, "validation.questions"),
    "shots": _TRAIN,
    "test": ("questions",),
    "prompt": ("system", "marks"),
    "score": ("score", "cluster", "strata"),
    "measure": ("score", "cluster", "strata", "chance"),
}
ANSWERED = ("answer", "prediction", "correct")
CHOSEN = ("logprobs", "generated", "generated_letter", "correct_generated")
# A prompt asks for one token, and a text is read up to one digit.
MOST_NUMBERS = 9
# Enough for every number of few-shot examples that evaluation.shots may ask for.
MOST_SHOTS = 100


def _free(key: str) -> str:
    if key in ("id", "question", *ANSWERED, *CHOSEN):
        raise PydanticCustomError(
            "expected", "expected {words}", {"words": "a key of the rows that is no column of the records"}
        )
    return key


Key = Annotated[Text, AfterValidator(_free)]


class Options(TaskOptions):
    """Questions of your own as JSON lines."""

    kind: Literal["jsonl"] = "jsonl"
    role: Literal["target", "yardstick"] = "yardstick"
    source: Text
    """A file with a JSON object a line, each with question and answer; see docs/jsonl.md."""
    train: Text | None = None
    """Such a file, to train on and to draw few-shot examples from; null for none."""
    score: Literal["choice", "exact", "regex"] = "choice"
    """choice: the row has choices, and answer is the letter of the right one. exact: the same text as answer, whatever
    its case and spaces. regex: answer is a regular expression that must match the whole text."""
    chance: Share = 0.25
    """With score: choice, the share of the questions that guessing gets right."""
    cluster: Key | None = None
    """The key of what questions have in common, such as their topic; null if they have nothing."""
    strata: Unique[Key] = []
    """Keys that divide the questions: the tables show each of their values."""
    shots: Count = 0
    """Few-shot examples in every prompt, drawn from the rows of train and excluded from training."""
    seed: Count = 42
    """Draws the few-shot examples and the validation rows."""
    train_questions: AtLeast1 | None = None
    """Train on the first N rows of the training split; null for all."""
    validation: Validation = Validation(by="rows")
    questions: Questions = None
    """Evaluate on the first N questions, on those of a list of ids, on those whose ids stand in a file ({file:
    ids.txt}), or on those that a library draws ({draw: pandas, seed: 42, n: 50}); null for all."""
    marks: Literal["letters", NUMBERS] = "letters"
    """How prompts call the choices: A, B, C … or 1, 2, 3 … (of up to 9 choices). The probabilities are those of these
    marks; rows, records and tables have letters."""
    system: str = "Reply with the answer alone; where there are choices, with the letter of the right one."
    """System text of a prompt; with marks: numbers it asks for the number by default."""

    @model_validator(mode="after")
    def _agree(self) -> "Options":
        if self.marks == NUMBERS and self.score != "choice":
            raise contradiction("marks", f"found numbers, but score is {self.score}: there are no choices. Remove it.")
        if self.marks == NUMBERS and "system" not in self.model_fields_set:
            self.system = "Reply with the number of the right choice alone."
        if self.train is None and (self.role == "target" or self.shots):
            raise contradiction("train", "found null, expected a file to train on or to draw few-shot examples from.")
        return self


def measure(options: Mapping) -> Measure:
    is_choice, cluster, keys = options["score"] == "choice", options["cluster"] or "id", _keys(options)
    return Measure(
        name=options["name"].removeprefix("tasks."),
        form="choice" if is_choice else "match",
        columns=("id", *keys, "question", *ANSWERED, *(CHOSEN if is_choice else ())),
        question=("id", *keys, "question", "answer"),
        counted=("correct", "correct_generated", "generated_letter") if is_choice else ("correct",),
        cluster=cluster,
        strata=dict.fromkeys(keys),
        reported=options["strata"],
        chance=options.get("chance", 0.0) if is_choice else 0.0,  # scoring asks for the columns alone
    )


def _keys(options: Mapping) -> list[str]:
    return list(dict.fromkeys(filter(None, [*options["strata"], options["cluster"]])))


def fetch(options: Mapping, folder: Path) -> None:
    """Write questions.jsonl, train.jsonl if there are rows to train on, and manifest.json."""
    known: dict[str, str] = {}
    rows = {"questions": _read(Path(options["source"]), "test", options, known)}
    if options["train"]:
        rows["train"] = _read(Path(options["train"]), "train", options, known)
    if options["score"] == "choice":
        guessed = round(sum(1 / len(row["choices"]) for row in rows["questions"]) / len(rows["questions"]), 3)
        if round(options["chance"], 3) != guessed:
            raise UserError(
                f"{options['name']}.chance: found {options['chance']}, expected {guessed}, the mean of 1 / number of "
                "choices of the questions. Write that."
            )
    (folder / "train.jsonl").unlink(missing_ok=True)
    for part, found in rows.items():
        write_jsonl(folder / f"{part}.jsonl", found)
    facts = {"source": options["source"], "train": options["train"], "counts": {key: len(rows[key]) for key in rows}}
    write_json(folder / "manifest.json", facts | {"files": described(folder, [f"{part}.jsonl" for part in rows])})


def _read(path: Path, part: str, options: Mapping, known: dict[str, str]) -> list[dict]:
    """Read a file; `known` are the places of the ids and contents of all rows so far, of both files."""
    try:
        found = list(json_lines(path))
    except OSError as error:
        raise UserError(f"{options['name']}: {path} cannot be read ({error}). Name a JSONL file.") from None
    if not found:
        raise UserError(f"{path}: found no rows, expected at least 1.")
    rows = []
    for number, row in found:
        place = f"{path}, line {number}"
        if wrong := _fault(row, options["score"], part) or _unfit(row, ["id", *_keys(options)]):
            raise UserError(f"{place}: {wrong}. Mend the line, or remove it.")
        row = {**row, "id": str(row.get("id", f"{part}-{number:05d}"))}
        # Only what is asked: a second copy would be learnt or shown and then asked.
        content = sha256_json({key: row[key] for key in row if key not in ("id", "answer", "target")})
        for mark, what in ((f"id {row['id']}", f"has the id {row['id']!r}"), (content, "asks the question")):
            if mark in known:
                raise UserError(f"{place}: {what} of {known[mark]}, expected each once. Change or remove one.")
            known[mark] = place
        rows.append(row)
    return rows


def _unfit(row: Mapping, keys: Sequence[str]) -> str | None:
    """Say which of these keys a row has with a value that names nothing, or that the row cannot be written down."""
    for key in keys:
        if key in row and (type(row[key]) not in (str, int, float, bool) or not str(row[key]).strip()):
            return f"{key} is {row[key]!r}, expected a text or a number"
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"found {error.object[error.start]!r}, half of a character, expected text that UTF-8 can hold"
    return None


def _fault(row: Any, form: str, part: str) -> str | None:
    """Say what is wrong with a row, if something is."""
    if not isinstance(row, dict):
        return f"found {reprlib.repr(row)}, expected an object with question and answer"
    if wrong := not_text({key: row.get(key) for key in ("question", "answer", *({"target"} & set(row)))}):
        return wrong
    if form == "regex":
        if wrong := no_pattern(row["answer"]):
            return f"answer is {row['answer']!r}, expected a regular expression ({wrong})"
        if part == "train" and not re.fullmatch(row["answer"], row.get("target", "")):
            return f"target is {row.get('target')!r}, expected a text to learn, which answer matches"
    if form != "choice":
        return "choices are there, but they are asked with score: choice alone" if "choices" in row else None
    number = len(row["choices"]) if isinstance(row.get("choices"), list) else 0
    return fault(row, ascii_uppercase[:number]) if 2 <= number <= 26 else "choices must be a list of 2 to 26 texts"


def held_out(folder: Path) -> list[dict]:
    return read_jsonl(folder / "questions.jsonl")


def prepare(options: Mapping, folder: Path, part: str) -> Part:
    """One part of the data; validation by database keeps the rows of one `cluster` together."""
    name, path = options["name"], folder / "train.jsonl"
    if part == "test":
        return picked(chosen(options, held_out(folder)), options["questions"], f"{name}.questions"), {}
    if not path.is_file():
        return [], {}
    drawn, number = read_jsonl(path), options["shots"]
    if number >= len(drawn):
        raise UserError(f"{name}.shots: found {number}, expected fewer than the {len(drawn)} rows of {name}.train.")
    random.Random(options["seed"]).shuffle(drawn)
    examples, cluster = drawn[:number], options["cluster"] or "id"
    for row in drawn:
        _check_keys(name, [cluster], row)
    kept, validation = divide(options, drawn[number:], held_out(folder), cluster)
    if part == "shots":
        return [*examples, *kept][:MOST_SHOTS], {"set_aside": [row["id"] for row in examples]}
    return kept if part == "train" else validation, {}


def context(options: Mapping, folder: Path) -> Context:
    """A prompt may say every key of a row; choices are (mark, text), and none where the row has none.

    Raises:
        UserError: of the function: the choices have numbers, and a row has more than `MOST_NUMBERS`.
    """

    def told(row: Mapping) -> dict[str, Any]:
        marks = [marked(options, letter) for letter in letters(row)]
        if options.get("marks") == NUMBERS and len(marks) > MOST_NUMBERS:
            raise UserError(
                f"{options['name']}.marks: found numbers, but row {row['id']} has {len(marks)} choices, expected at "
                f"most {MOST_NUMBERS}. Write letters."
            )
        return {**row, "choices": list(zip(marks, row.get("choices", ()), strict=True))}

    return told


def target(row: Mapping) -> str:
    return row.get("target", row["answer"])


def score(options: Mapping, folder: Path, asked: Asked, workers: int) -> Scored:
    """Compare letters or texts; of multiple choice the letter with the highest log-probability counts."""
    keys, form = _keys(options), options["score"]
    for row, answer in asked:
        _check_keys(options["name"], keys, row)
        record = {key: str(row[key]) for key in ("id", *keys, "question", "answer")}
        if form == "choice":
            own, given = letters(row), lettered(answer, ascii_uppercase[:MOST_NUMBERS]) if answer else None
            # Another question may have more choices, whose letters have log-probabilities here too.
            known = given["logprobs"] if given else None
            logprobs = {letter: known[letter] for letter in own} if known else {}
            best = max(own, key=logprobs.__getitem__) if known else given["prediction"] if given else ""
            record |= judged(row, given, best, own) | {"logprobs": json.dumps(logprobs)}
        else:
            text = answer["answer"].strip() if answer else ""
            equal = normal(text) == normal(row["answer"]) if form == "exact" else re.fullmatch(row["answer"], text)
            record |= {"prediction": text, "correct": int(bool(answer and equal))}
        yield record, None


def _check_keys(name: str, keys: Sequence[str], row: Mapping) -> None:
    if missing := [key for key in keys if key not in row]:
        raise UserError(
            f"{name}, cluster and strata: row {row['id']} has no key {missing[0]!r}, expected one of {', '.join(row)}."
        )
