"""Put every question and every answer of a study into one HTML page to look at."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _path  # noqa: F401
from analysis.data import read_same
from common.files import UserError, read_json, read_jsonl, write_text
from common.job import job
from present.answers import answers_page
from present.format import Say
from tasks.base import Measure
from tasks.records import by_id
from tasks.registry import measured
from tasks.sql_schema import schema_texts

# Characters of one text; the run's files have it whole.
LONGEST_TEXT = 10_000
LONGEST_PROMPT = 100_000
FILES = ("records", "questions", "rows", "schemas", "prompts")


def answers(
    inputs: Mapping[str, Mapping[str, Any]], measures: Mapping[str, Measure], page: str | Path, settings: Mapping
) -> None:
    """Write `page`, equal bytes for equal inputs.

    Args:
        inputs: files by task. `records` and, of form sql, `rows`: one of each run, in the order of the runs.
            `questions`: JSON lines. `schemas`: a file of the folder that may hold tables.json. `prompts`: JSON lines,
            those that each run was given, in the order of the runs but for imported ones, of which they are not
            known; without any, the page shows none.
        measures: the tasks in order, the target first.
        page: the file to write.
        settings: the rule's.

    Raises:
        UserError: the files are not about the same questions, or tables.json lacks a database.
    """
    runs, say, tasks = settings["runs"], Say(settings["language"]), []
    for name, measure in measures.items():
        files = {kind: inputs[kind].get(name, ()) for kind in FILES}
        found = len(files["records"]), len(files["rows"])
        if found != (len(runs), len(runs) if measure.form == "sql" else 0):
            raise UserError(
                f"answers, {name}: found {found[0]} files of records and {found[1]} of rows, expected one of each of "
                f"{len(runs)} runs (rows of text-to-SQL alone)."
            )
        tasks.append(describe_task(name, measure, files, runs))
    accepted = ", ".join(settings["accept_defect"])
    defects = [*settings["known_defects"], *([say.word("defects.accepted", names=accepted)] if accepted else [])]
    finding = Path(inputs["answer"]).read_text(encoding="utf-8") if inputs.get("answer") else ""
    facts = {"study": settings["study"], "finding": finding, "defects": defects}
    write_text(page, answers_page(say, facts, describe_runs(runs), tasks))


def describe_runs(runs: Sequence[Mapping]) -> list[dict]:
    """Name the runs for the page, and say which run is the base of each."""
    bases = {run["model"]: place for place, run in enumerate(runs) if run["variant"] == "base"}
    several = len({run["model"] for run in runs}) > 1
    return [
        {
            "key": f"{run['model']}/{run['variant']}",
            "name": f"{run['model']} {run['variant']}" if several else run["variant"],
            "base": None if run["variant"] == "base" else bases.get(run["model"]),
        }
        for run in runs
    ]


def describe_task(name: str, measure: Measure, files: Mapping[str, Any], runs: Sequence[Mapping]) -> dict:
    """Put a task, its questions and the answers of all runs into the shape that `answers_page` describes."""
    frames = read_same(files["records"], measure)
    first, texts = frames[0], by_id(read_jsonl(files["questions"]), files["questions"])
    if missing := [number for number in first["id"] if number not in texts]:
        raise UserError(f"{files['questions']}: has no question {missing[0]}. Run `snakemake -R score_{name}`.")
    # SQL is judged twice: as it was taken out of an answer, and the answer as it is.
    columns = [column for column in measure.columns if not column.startswith("logprob")]
    raw = [column for column in columns if column.endswith("_raw")]
    right = [column.removesuffix("_raw") for column in raw] or [one for one in columns if one.startswith("correct")]
    told = [column for column in columns if column in (*measure.question, "gold_rows", "flags")]
    other = [column for column in columns if column not in (*told, *right, *raw)]
    questions = []
    for records in zip(*(frame.to_dict("records") for frame in frames), strict=True):
        text = texts[records[0]["id"]]
        question = {key: text[key] for key in ("question", "choices") if key in text}
        question |= {column: records[0][column] for column in told}
        question["answers"] = [
            {"right": [record[column] for column in right], "raw": [record[column] for column in raw]}
            | {column: plain(record[column]) for column in other}
            | ({"logprobs": logprobs(record)} if measure.form == "choice" else {})
            for record in records
        ]
        questions.append(question)
    if files["rows"]:
        add_rows(questions, files["rows"])
    schemas = {}
    if files["schemas"] and (path := Path(files["schemas"]).with_name("tables.json")).is_file():
        rendered = schema_texts(read_json(path), "ddl")
        schemas = {db_id: rendered(db_id) for db_id in first[measure.cluster].unique()}
    return {
        **{"name": name, "title": measure.name, "form": measure.form, "questions": questions},
        **prompts_of(files["prompts"], [question["id"] for question in questions], runs),
        **{"right": right, "headline": measure.criterion, "cluster": measure.cluster},
        # A base model with other few-shot examples for the target has no answers of its own to other tasks.
        "runs": [n for n, run in enumerate(runs) if measure.role == "target" or not run["variant"].startswith("base@")],
        "strata": {
            column: sorted(first[column].unique()) if order in (None, "sorted") else order
            for column, order in measure.strata.items()
        },
        "schemas": schemas,
    }


def prompts_of(paths: Sequence[str | Path], names: Sequence[str], runs: Sequence[Mapping]) -> dict[str, list]:
    """What the runs read: each file once (`prompts`, as `front_coded` has it), and the place of each run's (`reads`).

    The place is None where it is not known: the run's answers were given elsewhere.

    Raises:
        UserError: a file lacks a question.
    """
    files = list(dict.fromkeys(map(str, paths)))
    found = [by_id(read_jsonl(path), path) for path in files]
    for path, prompts in zip(files, found, strict=True):
        if missing := [name for name in names if name not in prompts]:
            raise UserError(f"{path}: has no question {missing[0]}. Run its rule, render_<task>, again.")
    texts = [[prompts[name]["prompt"] for name in names] for prompts in found]
    places = iter([files.index(str(path)) for path in paths])
    reads = [None if run.get("imported") else next(places, None) for run in runs]
    return {"prompts": [front_coded(one) for one in texts], "reads": reads}


def front_coded(texts: Sequence[str]) -> list[list]:
    """Texts in alphabetical order, each without what it shares with the one before, so that prompts stay small.

    Returns:
        Of each text its place in `texts`; how much of the text before it begins with, in units of UTF-16, which is
        what JavaScript counts; what follows; and of a text that is cut its length.
    """
    coded, before = [], ""
    for text, place in sorted(zip(texts, range(len(texts)), strict=True)):
        shown = text[:LONGEST_PROMPT]
        same = next((n for n, (a, b) in enumerate(zip(before, shown, strict=False)) if a != b), len(before))
        units = len(shown[:same].encode("utf-16-le", "surrogatepass")) // 2
        coded.append([place, units, shown[same:], *([len(text)] if shown != text else [])])
        before = shown
    return coded


def add_rows(questions: Sequence[dict], paths: Sequence[str | Path]) -> None:
    """Add the rows of results: of each run the first of its answer and of gold, and those that the other one lacks.

    The rows of gold are merged over the runs, so that they stand once.

    Raises:
        UserError: a file is not about exactly these questions.
    """
    names = {question["id"]: question for question in questions}
    for run, path in enumerate(paths):
        found = by_id(read_jsonl(path), path, names)
        if missing := [name for name in names if name not in found]:
            raise UserError(f"{path}: lacks {len(missing)} questions, {missing[0]} among them. Run its rule again.")
        for name, question in names.items():
            gold, predicted = (found[name][key] for key in ("gold", "predicted"))
            question.setdefault("rows", {}).update(gold["rows"])
            question |= {"columns": gold["columns"], "width": gold["width"]}
            question["answers"][run] |= {"predicted": predicted, "lacking": gold["unmatched"]}
    for question in questions:
        question["rows"] = sorted(question["rows"].items())


def logprobs(record: Mapping) -> list[float | None]:
    """The log-probability of each letter, from one column of all or a column each; [] without an answer."""
    columns = {column: value for column, value in record.items() if column.startswith("logprob_")}
    return [plain(value) for value in (columns or json.loads(record["logprobs"] or "{}")).values()]


def plain(value: str | float) -> str | list | float | None:
    """A cell as JSON has it: of a long text the beginning and the length, of a number that is infinite or none None."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else [value[:LONGEST_TEXT], len(value)]
    return round(value, 4) if math.isfinite(value) else None


if __name__ == "__main__":
    with job(snakemake.log[0]):
        settings = snakemake.params.settings
        answers(
            {kind: {name: snakemake.input.get(f"{kind}_{name}", ()) for name in settings["tasks"]} for kind in FILES}
            | {"answer": snakemake.input.answer},
            measured(settings["tasks"]),
            snakemake.output.page,
            settings,
        )
