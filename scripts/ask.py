"""Ask a database in plain words: a model of a study writes the SQL, and its rows are shown.

The model sees the prompt of its study, with the schema that FILE itself has. If FILE is one of the study's own
databases, the model sees the schema that the study showed. The file is opened read-only, and the query runs in a
process of its own that can be killed and cannot write. Only SQL and rows go to standard output. Run this in the folder
in which the study was run; no network is needed. Exit code 1 if a query did not run, or nothing could be asked.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

# `custom_metrics` stands beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tabulate import tabulate

from common.files import ADAPTER_FILES, UserError, check_files, read_json, read_jsonl, sha256_file
from common.terminal import nobody_reads
from custom_metrics.extract import extract_sql
from custom_metrics.query import Result, query
from study.repair import AGAIN
from study.unfold import recommended_folder, words_sha256
from tasks import text_to_sql
from tasks.base import examples_of
from tasks.registry import KINDS
from tasks.sql_schema import database_facts, read_schema, schema_text

RECOMMENDED = "recommended"
RESULTS = Path("results")
TEMPLATES = Path(__file__).resolve().parents[1] / "resources/prompts"
# Of a value in the table of rows; JSON has all of it.
CHARACTERS = 100
EXAMPLES = """\
examples:
  python scripts/ask.py --study demo --model lr0.003 --database shop.sqlite "How many toys are there?"
  python scripts/ask.py --study demo-full --model recommended --database shop.sqlite        # asks for questions
  python scripts/ask.py --study demo --model base --database shop.sqlite --json < questions.txt
"""


@dataclass(frozen=True)
class Source:
    """What answers, and how its study asked it."""

    data: Path  # the folder of the study's target
    record: dict
    adapter: Path | None  # a folder
    prompts: dict  # the report of the prompts that it answered
    settings: dict[str, Any]  # with which it answered them


def find(folder: Path, model: str) -> Source:
    """Find a model of the study whose results are in `folder`, by its name (see --help).

    Raises:
        UserError: no such study or model, one that has not answered yet, a name that two models have, or a study whose
            target is no text-to-SQL task.
    """
    records = {path.stem: read_json(path) for path in sorted((folder / "models").glob("*.json"))}
    # What is trained on and asked. Nothing is trained of a yardstick, and nothing asked of what is replayed.
    targets = [path.parent for path in folder.glob("data/*/train.json") if path.with_name("test.json").is_file()]
    if not records or not targets:
        found = sorted({path.parents[1].name for path in folder.parent.glob("*/models/*.json")} - {folder.name})
        raise UserError(
            f"{folder}: no results of a study called {folder.name}. Run it first, or name one of those in "
            f"{folder.parent}/: {', '.join(found) or 'none so far'}."
        )
    if len(targets) > 1:
        names = ", ".join(sorted(path.name for path in targets))
        raise UserError(
            f"{folder}/data: holds several targets ({names}), of which the study has one now. Move the folders of the "
            "others elsewhere."
        )
    (data,) = targets
    if not issubclass(KINDS[read_json(data / "test.json")["settings"]["kind"]].Options, text_to_sql.Options):
        raise UserError(f"{folder}: its target, {data.name}, is no text-to-SQL task. Name a study that trains on one.")
    places = {name: recommended_folder(folder / RECOMMENDED, records, name) for name in records}
    if not (folder / "index.csv").is_file():
        raise UserError(f"{folder}/index.csv: no such file. Run the study again.")
    with (folder / "index.csv").open(encoding="utf-8", newline="") as stream:
        index = list(csv.DictReader(stream))
    runs: dict[tuple[str, str], Path] = {}
    for name, place in places.items():
        runs |= {(name, RECOMMENDED): place} if place.is_dir() else {}
        # A second round answers prompts of its own, which hold an answer of the first.
        rows = [row for row in index if row["model"] == name and not row["run"].endswith(AGAIN)]
        mine = {row["run"]: folder / row["folder"] for row in rows}
        runs |= {(name, run): of for run, of in mine.items() if (of / f"{data.name}_predict.json").is_file()}
    others = ", ".join(f"{name}/{run}" if len(records) > 1 else run for name, run in runs) or "none so far"
    named, _, run = model.rpartition("/")
    having = [name for name in records if named in ("", name) and (run == RECOMMENDED or (name, run) in runs)]
    if len(having) != 1:
        problem = "several models have it" if having else "no such model, or it has not answered the study's questions"
        raise UserError(f"--model {model}: {problem}. Name one of: {others}.")
    (name,) = having
    if run != RECOMMENDED:
        return _source(data, records[name], runs[name, run])
    place = places[name]
    if not (place / "recommendation.json").is_file():
        raise UserError(
            f"{place}/recommendation.json: no such file: this study recommends nothing, or not yet. Add a section "
            f"`recommend:` to the study and run it, or name one of: {others}."
        )
    chosen = read_json(place / "recommendation.json")
    run = chosen["variant"]
    if (name, run) not in runs:
        raise UserError(f"{place}: recommends {run}, which has not answered the study's questions. Run it again.")
    source = _source(data, records[name], runs[name, run])
    there = [(place / file).is_file() for file in ADAPTER_FILES]
    # A whole model lies there, or nothing but the advice to use the base: the study has what it was made of.
    if not any(there) and (chosen["merged"] or source.adapter is None):
        return source
    if not all(there) or source.adapter is None:
        raise UserError(
            f"{place}: does not hold the adapter of {run}, which it recommends. Make it again: run the study as "
            "you did, with --forcerun export_recommended"
        )
    # Its strength is in its weights already.
    return replace(source, adapter=place, settings=source.settings | {"strength": 1.0})


def _source(data: Path, record: dict, run: Path) -> Source:
    answered, adapter = read_json(run / f"{data.name}_predict.json"), None
    if answered["adapter_sha256"] is not None:
        # An interpolation or a checkpoint has the adapter of the run that it is named after.
        of, _, point = run.name.partition("@")
        adapter = run.with_name(of) / (f"steps/{point.removeprefix('step')}" if point.startswith("step") else "adapter")
        for file, sha256 in answered["adapter_sha256"].items():
            there = (adapter / file).is_file()
            if not there or sha256_file(adapter / file) != sha256:
                problem = f"has changed since {run.name} answered its study's questions" if there else "no such file"
                remedy = f"Make it again: run the study as you did, with --forcerun {adapter / file}"
                raise UserError(f"{adapter / file}: {problem}. {remedy}")
    folder = data.parents[1] / "prompts" / run.parent.name
    for prompts in map(read_json, sorted(folder.glob(f"{data.name}_test*.json"))):
        if prompts["sha256"] == answered["prompts_sha256"]:
            return Source(data, record, adapter, prompts, answered["settings"])
    raise UserError(f"{folder}: rendered anew since the questions were answered. Run the study again.")


def prompts_of(source: Source, database: Path) -> Callable[[str], str]:
    """Make a function that renders a question on a database as the source's study rendered its own.

    Raises:
        UserError: `database` is no SQLite database with tables, or the study's template or few-shot examples are no
            longer there. The function: a prompt too long for the model.
    """
    entry, settings, raw = read_schema(database), source.prompts["settings"], source.data / "source"
    own = Path(source.prompts["prompt"])
    there = [path for path in (own, TEMPLATES / own.name) if path.is_file()]
    same = [path for path in there if words_sha256(settings["name"], path) == settings["words"]]
    if not same:
        raise UserError(
            f"{own}: this prompt template has changed since the prompts were rendered. Run the study again."
        )
    # Seconds to import: after what can be said at once.
    from llm.chat import check_context, load_chat
    from llm.prompts import prompt_row, template

    chat, turns, task = load_chat(source.record), template(same[0]), KINDS[settings["kind"]]
    file = source.data / "shots.jsonl"
    rows = {row["id"]: row for row in read_jsonl(file)}
    if missing := [shot for shot in source.prompts["shots"] if shot not in rows]:
        raise UserError(f"{file}: lacks {', '.join(missing)}. Run the study again.")
    told = task.context(settings, raw)
    show, pool = told, list(rows.values())
    name = entry["db_id"]
    known = raw / "database" / name / f"{name}.sqlite"
    if not known.is_file() or sha256_file(known) != sha256_file(database):
        name = str(database)
        schema = schema_text(entry, settings["schema"], database, settings["sample_rows"])
        told = partial(text_to_sql.told, schema=schema, database=database_facts(entry))
    # Where the study's questions come with evidence, one that is asked here has none.
    about = {"db_id": name} | ({"evidence": ""} if any("evidence" in row for row in rows.values()) else {})

    def render(question: str) -> str:
        row = about | {"question": question, "id": question}
        shots = [{**show(shot), "target": task.target(shot)} for shot in examples_of(task, settings, row, pool)]
        asked = turns({**told(row), "shots": shots, "options": settings})
        row = prompt_row(chat, {"id": repr(question)}, asked)
        remedy = task.REMEDY.format(**about, name=settings["name"])
        check_context(chat, row["id"], row["prompt_tokens"], source.settings["max_new_tokens"], remedy)
        return row["prompt"]

    return render


def answers_of(source: Source) -> Callable[[str], tuple[str, bool]]:
    """Load the model; make a function that answers a prompt as the study did, and says whether the answer ended."""
    from llm.answering import one_by_one
    from llm.decoding import Decoding
    from llm.load import set_threads

    check_files(source.data.parents[1] / f"models/{source.record['name']}.json")
    set_threads(2)  # as the study's jobs
    return one_by_one(source.record, source.adapter, Decoding(**source.settings))


def shown(text: str) -> str:
    """Write out control characters: neither a model nor a database steers the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def table(result: Result) -> str:
    """Lay out the rows of a query that ran as a table, with the number of rows below."""
    text = tabulate(
        [[_cell(cell) for cell in row] for row in result.rows],
        [_cell(name) for name in result.columns],  # names may be equal or empty
        disable_numparse=True,  # no text is to be read as a number
        colalign=[
            "left"
            if any(isinstance(cell, str) or (isinstance(cell, dict) and "blob" in cell) for cell in column)
            else "right"
            for column in zip(*result.rows, strict=True)
        ]
        or None,
    )
    n = len(result.rows)
    size = f"the first {n} rows; there are more" if result.more else f"{n} row{'' if n == 1 else 's'}"
    return f"{text}\n({size})"


def _cell(cell: object) -> str:
    match cell:
        case None:
            return "NULL"
        case {"blob": digits, "length": length}:
            return f"x'{digits[:CHARACTERS]}'" + (f"… ({length} bytes)" if len(digits) > CHARACTERS else "")
        case {"number": number}:
            return number
        case str() if len(cell) > CHARACTERS:
            cell = f"{cell[:CHARACTERS]}… ({len(cell)} characters)"
    return shown(str(cell)).replace("\n", "\\n").replace("\t", "\\t")


def in_utf8(questions: Iterable[str]) -> Iterator[str]:
    """Yield questions that are not blank, as they come; a UserError of one that is not UTF-8."""
    try:
        for question in filter(None, map(str.strip, questions)):
            question.encode()
            yield question
    except UnicodeError as error:
        raise UserError(f"a question is not UTF-8 ({error}). Write it in UTF-8.") from None


def ask(source: Source, database: Path, questions: Iterable[str], rows: int, as_json: bool) -> bool:
    """Print the SQL of each question and its first `rows` rows (0: the SQL is not run); tell whether all ran.

    Raises:
        UserError: as `prompts_of`, a model that cannot be loaded, no question.
    """
    render, answer, ran = prompts_of(source, database), None, []
    log = Path(f"{database}-wal")
    if log.is_file() and log.stat().st_size:
        print(
            f"WARNING: {log}: changes that are not in {database.name} yet are not seen. Close the program that writes "
            f"them, or run: sqlite3 {database} 'PRAGMA wal_checkpoint'",
            file=sys.stderr,
        )
    for question in questions:
        prompt = render(question)
        answer = answer or answers_of(source)
        text, finished = answer(prompt)
        sql = extract_sql(text)
        if not finished:
            length = source.settings["max_new_tokens"]
            print(f"WARNING: the answer was cut after {length} tokens, as in the study.", file=sys.stderr)
        result = query(database, sql, first_rows=rows) if rows else None
        if as_json:
            found = {} if result is None else vars(result)
            print(json.dumps({"question": question, "sql": sql, **found}), flush=True)
        else:
            print(*([""] if ran else []), shown(sql), sep="\n", flush=True)
        ran.append(result is None or result.rows is not None)
        if not ran[-1]:
            print(f"ERROR: the query does not run ({result.error_class}: {shown(result.error)}).", file=sys.stderr)
        elif result is not None and not as_json:
            print(f"\n{table(result)}", flush=True)
    if not ran:
        raise UserError("found no question. Write one in quotes, or one a line on standard input.")
    return all(ran)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 if a query did not run or the user has something to mend."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", nargs="?", help="in quotes; without it, one a line from standard input")
    parser.add_argument("--study", required=True, help="its folder in results/, such as demo-full")
    parser.add_argument(
        "--model",
        required=True,
        help="recommended, base, or another run of the study's tables, such as lr0.012 or lr0.012@0.75; "
        "<model>/<run> where the study has several models",
    )
    parser.add_argument("--database", required=True, type=Path, metavar="FILE", help="any SQLite file")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--max-rows", type=int, default=50, metavar="N", help="rows shown, at most [50]")
    shape.add_argument("--no-rows", action="store_true", help="write the SQL alone; it is not run")
    parser.add_argument("--json", action="store_true", help="one JSON object a question and line, values in full")
    given = parser.parse_args(arguments)
    if given.max_rows < 1:
        parser.error(f"argument --max-rows: found {given.max_rows}, expected a whole number from 1.")
    if given.question is None and sys.stdin.isatty():
        print("One question a line; Ctrl-D ends.", file=sys.stderr)
    questions = in_utf8(sys.stdin if given.question is None else [given.question])
    rows = 0 if given.no_rows else given.max_rows
    try:
        return int(not ask(find(RESULTS / given.study, given.model), given.database, questions, rows, given.json))
    except UserError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return nobody_reads()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
