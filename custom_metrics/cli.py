"""Score a file of predictions, and compare two scored files: `python -m custom_metrics score|compare --help`."""

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from tabulate import tabulate

from custom_metrics.compare import MEANINGS, SEMANTICS
from custom_metrics.engines import UnavailableError, locate
from custom_metrics.further import FURTHER, r_ves
from custom_metrics.hardness import LEVELS, hardness
from custom_metrics.inputs import (
    COLUMNS,
    InputError,
    find_databases,
    find_suites,
    read_predictions,
    read_questions,
    read_records,
)
from custom_metrics.intervals import wilson_interval
from custom_metrics.judge import DAY_S, ERROR_CLASSES, GOLD_FLAGS, GoldError, Judge, Verdict, best, cores, everywhere
from custom_metrics.results import MEANING, RULE, WITH_ROWS
from custom_metrics.spider2 import find_local, read_answers, read_tasks

LEVEL = 0.95
# Of fewer databases than this nobody can tell how much they differ.
FEW = 5
RECORD_COLUMNS = (
    "index", "db_id", *SEMANTICS, *(f"{name}_raw" for name in SEMANTICS), "error_class", "hardness", "gold_rows",
    "predicted_rows", "soft_f1", "message", "flags", "engine", "sql",
)  # fmt: skip
# Of gold results in place of queries.
RESULT_COLUMNS = ("instance_id", RULE, f"{RULE}_raw")
# What became of an answer whose gold query does not run; beside `judge.ERROR_CLASSES`.
GOLD_ERROR = "gold_error"
# Python's csv module reads no longer cell, unless it is told to.
CELL_CHARACTERS = 131_000

SCORE_HELP = f"""\
Run every prediction and its gold query on the question's database (SQLite, DuckDB or PostgreSQL), in a sandbox, and
count how often the rows are the same, by several definitions of the same.

PREDICTIONS is one of
  - a text file with one SQL a line, in the order of the questions; Spider's form `SQL<tab>db_id` is understood;
  - a JSON list, or BIRD's predict_dev.json (.json);
  - JSON lines (.jsonl), or CSV with a header (.csv), the prediction in the column named by --column, by default the
    one that is called {", ".join(COLUMNS[:6])}, …;
  - of Spider 2 lite, where --questions is its folder, a folder with <instance_id>.sql.
The prediction may be SQL or a model's whole answer: the SQL is taken out of it, and both are scored.
"""
MEANT = "\n".join(f"  {name:17} {meaning}" for name, meaning in (*MEANINGS.items(), (RULE, MEANING)))
SCORE_EXAMPLES = f"""\
semantics (bag is the headline unless --semantics says otherwise): an answer is right if
{MEANT}

examples:
  python -m custom_metrics score predictions.txt --questions dev.json --databases database
  python -m custom_metrics score answers.jsonl --column answer --questions dev.json --databases database --out a.csv
  python -m custom_metrics score a.csv --questions dev.json --databases database --min-accuracy 70   # a gate
  python -m custom_metrics score submission --questions spider2-lite --databases spider2-localdb   # Spider 2, SQLite
"""
COMPARE_EXAMPLES = """\
examples:
  python -m custom_metrics compare base.csv tuned.csv
  python -m custom_metrics compare base.csv tuned.csv --semantics test_suite
"""


def write_records(path: str | Path, records: Sequence[dict]) -> None:
    """Write records as CSV in UTF-8; the file appears whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Models also write lone surrogates, which UTF-8 cannot hold.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            more = (name for name in (*RESULT_COLUMNS, *FURTHER) if records and name in records[0])
            columns = (*RECORD_COLUMNS, *more)
            writer = csv.DictWriter(stream, columns, lineterminator="\n")
            writer.writeheader()
            for record in records:
                writer.writerow({name: _cell(value) for name, value in record.items() if name in columns})
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}).") from None
    finally:
        temporary.unlink(missing_ok=True)


def _cell(value: object) -> object:
    """Cut a text that is too long for the readers of CSV, and say how long it was."""
    if not isinstance(value, str) or len(value) * 10 < CELL_CHARACTERS:
        return value
    # As it will stand in the file: a lone surrogate takes six characters.
    written = value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value if len(written) <= CELL_CHARACTERS else f"{written[: CELL_CHARACTERS - 40]}… ({len(value)} characters)"


def report(records: Sequence[dict], headline: str) -> str:
    """Write the tables that `score` prints: all semantics, the headline by hardness, errors, flagged gold queries."""
    columns = ["n", "right", "accuracy %", "95% interval"]

    def by(what: str, groups: dict[str, list[dict]]) -> str:
        rows = [[name, len(group), *_accuracy([one[headline] for one in group])] for name, group in groups.items()]
        return _table([what, *columns], rows)

    semantics = []
    for name in (name for name in (*SEMANTICS, RULE) if name in records[0]):
        extracted, raw = (_accuracy([record[key] for record in records]) for key in (name, f"{name}_raw"))
        semantics.append([f"{name} *" if name == headline else name, len(records), *extracted, *raw])
    classes = Counter(record["error_class"] for record in records)
    names = [name for name in (*ERROR_CLASSES, GOLD_ERROR) if classes[name]]
    shares = [[name, classes[name], 100 * classes[name] / len(records)] for name in names]
    levels = {level: [record for record in records if record["hardness"] == level] for level in LEVELS}
    given = {
        name: [r for r in records if r.get("difficulty", "") == name]
        for name in dict.fromkeys(r.get("difficulty", "") for r in records)
    }
    difficulty = [f"* {headline}, by the file's own difficulty", by("difficulty", given)] if any(given) else []
    soft = sum(record["soft_f1"] for record in records) if "soft_f1" in records[0] else None
    parts = [
        "Execution accuracy of the SQL in the answers, and of the answers as they are (raw)",
        _table(["semantics", *columns, "raw right", "raw %", "raw 95% interval"], semantics),
        *([f"BIRD's soft F1: {100 * soft / len(records):.1f}"] if soft is not None else []),
        *_further(records),
        *([f"* {headline}, by hardness", by("hardness", levels)] if any(levels.values()) else []),
        *difficulty,
        "What became of the answers",
        _table(["class", "n", "%"], shares),
    ]
    flags = {flag: [record for record in records if flag in record["flags"].split()] for flag in GOLD_FLAGS}
    peculiar = {flag: group for flag, group in flags.items() if group}
    if "gold_empty" in peculiar:
        peculiar["all without gold_empty"] = [r for r in records if "gold_empty" not in r["flags"].split()]
    if peculiar:
        parts += [f"{headline}, questions whose gold query is peculiar", by("gold query", peculiar)]
    return "\n\n".join(parts)


def _further(records: Sequence[dict]) -> list[str]:
    """Write what was asked for by --further."""
    names = [name for name in FURTHER if name in records[0]]
    rows = [[name, len(records), *_accuracy([one[name] for one in records])] for name in names if name != "r_ves"]
    parts = (
        ["Further criteria", _table(["criterion", "n", "right", "accuracy %", "95% interval"], rows)] if rows else []
    )
    if "r_ves" in names:
        parts.append(f"BIRD's R-VES: {r_ves([record['r_ves'] for record in records]):.1f} (times of this machine)")
    return parts


def _accuracy(correct: Collection[int]) -> list:
    right, n = sum(correct), len(correct)
    if n == 0:
        return [0, "", ""]
    low, high = wilson_interval(right, n, LEVEL)
    return [right, f"{100 * right / n:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]


def _table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    align = ["left" if i == 0 or c == "file" or "interval" in c else "right" for i, c in enumerate(columns)]
    return tabulate(rows, columns, tablefmt="simple", floatfmt=".1f", colalign=align)


def compare(first: str | Path, second: str | Path, column: str) -> str:
    """Return in words and numbers how two records files differ on the same questions.

    The verdict takes whole databases as drawn at random (`stats.clustered_difference`): questions on one database
    resemble each other. Of fewer than `FEW` databases the questions are taken as drawn, and the text says so. The exact
    McNemar test, which takes questions as independent, stands beside it.

    Raises:
        InputError: a file cannot be read, or they are about different questions.
    """
    from custom_metrics.stats import clustered_difference, mcnemar  # slow to import, and `score` needs none of it

    a, b = read_records(first, column), read_records(second, column)
    if a.keys() != b.keys():
        only_a, only_b = a.keys() - b.keys(), b.keys() - a.keys()
        example = min(only_a or only_b, key=lambda question: (len(question[0]), question))
        raise InputError(
            f"{first} and {second}: not the same questions; {len(only_a)} are only in the first and {len(only_b)} only "
            f"in the second, such as {example[0]} ({example[1]})."
        )
    n, changes = len(a), {question: b[question] - a[question] for question in a}
    gained, lost = (list(changes.values()).count(change) for change in (1, -1))
    databases = sorted({db_id for _, db_id in a})
    units = [[change for (_, db_id), change in changes.items() if db_id == name] for name in databases]
    drawn, limits = f"{len(databases)} databases", ""
    if len(databases) < FEW:
        units, drawn = [[change] for change in changes.values()], f"{n} questions"
        limits = f" This is about questions on {', '.join(databases)}, and says nothing of other databases."
    estimate = clustered_difference([sum(unit) for unit in units], [len(unit) for unit in units], LEVEL)
    low, high = 100 * estimate.low, 100 * estimate.high
    verdict = "No difference is shown"
    if estimate.p < 1 - LEVEL:
        verdict = "B is better than A" if gained > lost else "A is better than B"
    facts = [
        ["right in A only (b)", str(lost)],
        ["right in B only (c)", str(gained)],
        ["difference B - A", f"{100 * (gained - lost) / n:+.2f} pp, 95% interval {low:+.2f} to {high:+.2f}"],
        ["clustered p", f"{estimate.p:.3g} ({drawn} as drawn at random; CR2, Student's t, df {estimate.df:.1f})"],
        ["exact McNemar p", f"{mcnemar(gained, lost):.3g} (questions as independent)"],
    ]
    rows = [["A", first, *_accuracy(a.values())], ["B", second, *_accuracy(b.values())]]
    lines = [
        f"{n} questions, {column}",
        _table(["", "file", "right", "accuracy %", "95% interval"], rows),
        tabulate(facts, tablefmt="plain", disable_numparse=True),
        f"{verdict}: if neither were better, a difference at least this large would come with probability "
        f"{estimate.p:.3g} ({gained + lost} of {n} answers are judged differently).{limits}",
    ]
    return "\n\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 below --min-accuracy, 2 if something has to be mended, 130 after Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "score" and not (options.jobs > 0 and 0 < options.timeout <= DAY_S):
        parser.error(
            f"--jobs and --timeout: expected numbers above 0, and at most {DAY_S} seconds, found {options.jobs} and "
            f"{options.timeout:g}"
        )
    if options.command == "score" and not 0 <= (options.min_accuracy or 0) <= 100:
        parser.error(f"--min-accuracy: expected 0 to 100 percent, found {options.min_accuracy:g}")
    try:
        if options.command == "score":
            status = _score(options)
        else:
            print(compare(options.first, options.second, options.semantics))
            status = 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever reads the output has enough of it (`| head`). Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (InputError, UnavailableError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return 130


def _score(options: argparse.Namespace) -> int:
    with_results = Path(options.questions).is_dir()
    known = (*WITH_ROWS, RULE) if with_results else SEMANTICS
    options.semantics = options.semantics or (RULE if with_results else "bag")
    if options.semantics not in known:
        raise InputError(f"--semantics {options.semantics}: has no meaning here, expected one of {', '.join(known)}.")
    if with_results and (options.suite or options.further):
        raise InputError(
            f"{options.questions}: has gold results in place of gold queries, so that --suite and --further mean "
            "nothing. Leave them out."
        )
    if options.out and not Path(options.out).parent.is_dir():  # said before the work, not after it
        raise InputError(f"{options.out}: there is no folder {Path(options.out).parent}.")
    return _score_by_results(options) if with_results else _score_by_queries(options)


def _score_by_results(options: argparse.Namespace) -> int:
    questions, results = read_tasks(options.questions)
    answers = read_answers(options.predictions, options.questions, questions, options.column)
    databases = find_local(options.databases, [question.db_id for question in questions])
    items = [
        (databases[question.db_id], gold, answer or "")
        for question, gold, answer in zip(questions, results, answers, strict=True)
    ]
    with Judge(timeout_s=options.timeout, jobs=options.jobs, fence=options.fence) as judge:
        found = judge.judge_all(items, progress=True)
    records = [
        {"index": index, "instance_id": question.id, "db_id": question.db_id, "hardness": ""}
        | {"engine": judge.version("sqlite")}
        | _cells(verdict, answer)
        for index, (question, verdict, answer) in enumerate(zip(questions, found, answers, strict=True))
    ]
    if missing := answers.count(None):
        print(f"WARNING: {missing} of {len(answers)} questions have no answer and count as wrong", file=sys.stderr)
    return _finish(options, records, f"{len(databases)} databases")


def _score_by_queries(options: argparse.Namespace) -> int:
    questions = read_questions(options.questions)
    predictions = read_predictions(options.predictions, questions, options.column)
    databases = find_databases(options.databases, [question.db_id for question in questions])
    suites = find_suites(databases) if options.suite else {db_id: [path] for db_id, path in databases.items()}
    items = [
        (path, gold, answer or "")
        for question, answer in zip(questions, predictions, strict=True)
        for gold in (question.gold, *question.others)
        for path in suites[question.db_id]
    ]
    asked = {"fence": options.fence, "further": options.further}
    with Judge(timeout_s=options.timeout, jobs=options.jobs, **asked) as judge:
        verdicts = iter(judge.judge_all(items, progress=True))
    found = [
        best([everywhere([next(verdicts) for _ in suites[q.db_id]]) for _ in (q.gold, *q.others)]) for q in questions
    ]
    engines = {db_id: locate(path)[1] for db_id, path in databases.items()}
    records = [
        {
            "index": index,
            "db_id": question.db_id,
            "hardness": hardness(question.gold, engines[question.db_id]),
            "difficulty": question.difficulty,
            "engine": judge.version(engines[question.db_id]),
        }
        | (
            _without_gold(verdict, answer) | dict.fromkeys(options.further, 0)
            if isinstance(verdict, GoldError)
            else _cells(verdict, answer)
        )
        for index, (question, verdict, answer) in enumerate(zip(questions, found, predictions, strict=True))
    ]
    _warn_of_gold(records)
    used = f"{len(databases)} databases"
    if options.suite:
        used += f", each in all its variants ({sum(map(len, suites.values()))} files)"
    return _finish(options, records, used)


def _finish(options: argparse.Namespace, records: Sequence[dict], used: str) -> int:
    """Write the records, print the tables, and return the exit status."""
    if options.out:
        write_records(options.out, records)
    print(f"{options.predictions}: {len(records)} questions on {used}\n")
    print(report(records, options.semantics))
    if options.out:
        print(f"\nRecords: {options.out}")
    accuracy = 100 * sum(record[options.semantics] for record in records) / len(records)
    if options.min_accuracy is not None and accuracy < options.min_accuracy:
        print(f"{options.semantics} accuracy {accuracy:.2f}% is below {options.min_accuracy:g}%.", file=sys.stderr)
        return 1
    return 0


def _cells(verdict: Verdict, answer: str | None) -> dict:
    return verdict.cells(answer is None) | {"soft_f1": round(verdict.soft_f1, 6)}


def _without_gold(error: GoldError, answer: str | None) -> dict:
    """Write the cells of a question whose gold query does not run: no answer is right there."""
    wrong = dict.fromkeys([*SEMANTICS, *(f"{name}_raw" for name in SEMANTICS)], 0)
    return wrong | {"soft_f1": 0.0, "error_class": GOLD_ERROR, "message": str(error), "flags": "", "sql": answer}


def _warn_of_gold(records: Sequence[dict]) -> None:
    failed = [record for record in records if record["error_class"] == GOLD_ERROR]
    if failed:
        first = failed[0]
        print(
            f"WARNING: {len(failed)} gold queries do not run, and their questions count as wrong; the first is that of "
            f"question {first['index']}: {first['message']} (if it needs more time: --timeout)",
            file=sys.stderr,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        # Python's own name for `-m` is __main__.py.
        prog=None if Path(sys.argv[0]).name == "text-to-sql-accuracy" else "python -m custom_metrics",
        description="Execution accuracy of text-to-SQL predictions.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{score,compare}")
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}

    score = commands.add_parser(
        "score", help="run predictions and count the right ones", description=SCORE_HELP, epilog=SCORE_EXAMPLES, **raw
    )
    add = score.add_argument
    add("predictions", metavar="PREDICTIONS", help="text, JSON lines, CSV or a folder, see above")
    add(
        "--questions",
        required=True,
        help="Spider's or BIRD's dev.json, or JSON lines, with db_id and query or SQL; or the folder spider2-lite",
    )
    add(
        "--databases",
        required=True,
        metavar="DIR",
        help="folder with <db_id>/<db_id>.sqlite (or .duckdb; of Spider 2: <db>.sqlite), or postgresql://user@host/{db_id}",
    )
    add("--semantics", choices=(*SEMANTICS, RULE), help=f"the headline; all are computed [bag; of Spider 2 {RULE}]")
    add("--out", metavar="records.csv", help="write one row a question here, for `compare`")
    add("--column", metavar="NAME", help="where PREDICTIONS has the prediction [found by its usual names]")
    add("--suite", action="store_true", help="right only on every .sqlite file in <db_id>/ (distilled test suites)")
    add(
        "--fence", choices=("last", "first"), default="last", help="which of several fenced blocks is the answer [last]"
    )
    add(
        "--further",
        nargs="+",
        choices=tuple(FURTHER),
        default=[],
        metavar="NAME",
        help="; ".join(f"{name}: {meaning}" for name, meaning in FURTHER.items()),
    )
    add("--jobs", type=int, default=cores(), metavar="N", help="processes [one a CPU core]")
    add("--timeout", type=float, default=5.0, metavar="S", help="seconds a query may take [5]")
    add("--min-accuracy", type=float, metavar="PERCENT", help="exit with 1 if the headline is below this")

    compare = commands.add_parser(
        "compare",
        help="compare two scored files question by question",
        description="The paired difference between two files that `score --out` wrote. The verdict takes whole\n"
        "databases as drawn at random; the exact McNemar test stands beside it.",
        epilog=COMPARE_EXAMPLES,
        **raw,
    )
    compare.add_argument("first", metavar="A.csv")
    compare.add_argument("second", metavar="B.csv")
    names = (*SEMANTICS, *(f"{name}_raw" for name in SEMANTICS), *(name for name in FURTHER if name != "r_ves"))
    names += RESULT_COLUMNS[1:]
    compare.add_argument("--semantics", choices=names, default="bag", metavar="NAME", help=f"{', '.join(names)} [bag]")
    return parser
