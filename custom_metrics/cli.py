"""Score a file of predictions, and compare two scored files: `python -m custom_metrics score|compare --help`."""

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from custom_metrics.hardness import LEVELS, hardness
from custom_metrics.inputs import COLUMNS, InputError, Question, find_databases, read_predictions, read_questions
from custom_metrics.judge import ERROR_CLASSES, GOLD_FLAGS, SEMANTICS, GoldError, Judge
from custom_metrics.stats import clustered_difference, mcnemar, wilson_interval

LEVEL = 0.95
RECORD_COLUMNS = (
    "index", "db_id", *SEMANTICS, *(f"{name}_raw" for name in SEMANTICS), "error_class", "hardness", "gold_rows",
    "predicted_rows", "message", "flags", "sql",
)  # fmt: skip

SCORE_HELP = f"""\
Run every prediction and its gold query on the question's SQLite database, in a sandbox, and count how often the rows
are the same, by several definitions of the same.

PREDICTIONS is one of
  - a text file with one SQL a line, in the order of the questions; Spider's form `SQL<tab>db_id` is understood;
  - JSON lines (.jsonl), or CSV with a header (.csv), the prediction in the column named by --column, by default the
    one that is called {", ".join(COLUMNS[:6])}, …
The prediction may be SQL or a model's whole answer: the SQL is taken out of it, and both are scored.
"""
SCORE_EXAMPLES = """\
semantics:
  set               the same rows, however often each
  bag               the same rows equally often; the headline unless --semantics says otherwise
  ordered           bag, and in the gold's order if the gold query has an ORDER BY of its own
  test_suite        as Spider's official evaluator (test-suite-sql-eval): any order of columns, DISTINCT ignored
  columns_any_order bag, the columns in any order

examples:
  python -m custom_metrics score predictions.txt --questions dev.json --databases database
  python -m custom_metrics score answers.jsonl --column answer --questions dev.json --databases database --out a.csv
  python -m custom_metrics score a.csv --questions dev.json --databases database --min-accuracy 70   # a gate
"""
COMPARE_EXAMPLES = """\
examples:
  python -m custom_metrics compare base.csv tuned.csv
  python -m custom_metrics compare base.csv tuned.csv --semantics test_suite
"""


def score(
    predictions: Sequence[str | None], questions: Sequence[Question], databases: str | Path, jobs: int, timeout_s: float
) -> list[dict]:
    """Return one record a question, with the keys `RECORD_COLUMNS`; a prediction that is None counts as missing.

    Args:
        predictions: one for each question, in the same order.
        databases: folder with <db_id>/<db_id>.sqlite.
        jobs: worker processes.
        timeout_s: seconds a query may take.

    Raises:
        InputError: databases are missing, or a gold query does not run.
    """
    found = find_databases(databases, [question.db_id for question in questions])
    items = [(found[q.db_id], q.gold, p or "") for q, p in zip(questions, predictions, strict=True)]
    try:
        with Judge(timeout_s=timeout_s, jobs=jobs) as judge:
            verdicts = judge.judge_all(items, progress=True)
    except GoldError as error:
        raise InputError(f"question {error.index}: {error} (if it needs more time: --timeout).") from None
    return [
        {"index": index, "db_id": question.db_id, "hardness": hardness(question.gold)} | verdict.cells(answer is None)
        for index, (question, verdict, answer) in enumerate(zip(questions, verdicts, predictions, strict=True))
    ]


def write_records(path: str | Path, records: Iterable[dict]) -> None:
    """Write records as CSV in UTF-8; the file appears whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Models also write lone surrogates, which UTF-8 cannot hold.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            writer = csv.DictWriter(stream, RECORD_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}).") from None
    finally:
        temporary.unlink(missing_ok=True)


def read_records(path: str | Path, column: str) -> dict[tuple[str, str], int]:
    """Read one 0/1 column of a records file, by (index, db_id); files of the workflow have an id for the index.

    Raises:
        InputError: the file cannot be read, lacks a column, has a question twice, or something else than 0 and 1.
    """
    csv.field_size_limit(2**31 - 1)
    found = {}
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            index = "index" if "index" in columns else "id"
            for name in (index, "db_id", column):
                if name not in columns:
                    raise InputError(f"{path}: has no column {name}; is it a file that `score --out` wrote?")
            for row in reader:
                question = (row[index], row["db_id"])
                if question in found:
                    raise InputError(f"{path}, line {reader.line_num}: {index} {question[0]} comes twice.")
                if row[column] not in ("0", "1"):
                    raise InputError(
                        f"{path}, line {reader.line_num}, {column}: found {row[column]!r}, expected 0 or 1."
                    )
                found[question] = int(row[column])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}).") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}.") from None
    if not found:
        raise InputError(f"{path}: has no records.")
    return found


def report(records: Sequence[dict], headline: str) -> str:
    """Write the tables that `score` prints: all semantics, the headline by hardness, errors, flagged gold queries."""
    n, columns = len(records), ["n", "right", "accuracy %", "95% interval"]

    def by(what: str, groups: dict[str, list[dict]]) -> str:
        counts = ((name, sum(record[headline] for record in group), len(group)) for name, group in groups.items())
        return _table([what, *columns], [[name, size, *_accuracy(right, size)] for name, right, size in counts])

    rows = []
    for name in SEMANTICS:
        extracted, raw = (_accuracy(sum(record[key] for record in records), n) for key in (name, f"{name}_raw"))
        rows.append([f"{name} *" if name == headline else name, n, *extracted, *raw])
    classes = Counter(record["error_class"] for record in records)
    flags = {flag: [r for r in records if flag in r["flags"].split()] for flag in GOLD_FLAGS}
    if flags["gold_empty"]:
        flags["all without gold_empty"] = [r for r in records if "gold_empty" not in r["flags"].split()]
    parts = [
        "Execution accuracy of the SQL in the answers, and of the answers as they are (raw)",
        _table(["semantics", *columns, "raw right", "raw %", "raw 95% interval"], rows),
        f"* {headline}, by hardness",
        by("hardness", {level: [r for r in records if r["hardness"] == level] for level in LEVELS}),
        "What became of the answers",
        _table(["class", "n", "%"], [[x, classes[x], 100 * classes[x] / n] for x in ERROR_CLASSES if classes[x]]),
    ]
    if any(flags.values()):
        peculiar = {name: group for name, group in flags.items() if group or name not in GOLD_FLAGS}
        parts += [f"{headline}, questions whose gold query is peculiar", by("gold query", peculiar)]
    return "\n\n".join(parts)


def _accuracy(right: int, n: int) -> list:
    if n == 0:
        return [0, "", ""]
    low, high = wilson_interval(right, n, LEVEL)
    return [right, f"{100 * right / n:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]


def _table(columns: Sequence[str], rows: Sequence[Sequence]) -> str:
    align = ["left" if i == 0 or c == "file" or "interval" in c else "right" for i, c in enumerate(columns)]
    return tabulate(rows, columns, tablefmt="simple", floatfmt=".1f", colalign=align)


def compare(first: str | Path, second: str | Path, column: str) -> str:
    """Return in words and numbers how two records files differ, by the exact McNemar test on the same questions.

    Raises:
        InputError: a file cannot be read, or they are about different questions.
    """
    a, b = read_records(first, column), read_records(second, column)
    if a.keys() != b.keys():
        only_a, only_b = a.keys() - b.keys(), b.keys() - a.keys()
        example = min(only_a or only_b, key=lambda question: (len(question[0]), question))
        raise InputError(
            f"{first} and {second}: not the same questions; {len(only_a)} are only in the first and {len(only_b)} only "
            f"in the second, such as {example[0]} ({example[1]})."
        )
    n, changes = len(a), [b[question] - a[question] for question in a]
    gained, lost = changes.count(1), changes.count(-1)
    rows = [[name, path, *_accuracy(sum(x.values()), n)] for name, path, x in (("A", first, a), ("B", second, b))]
    p = mcnemar(gained, lost)
    estimate = clustered_difference(changes, [1] * n, LEVEL)
    interval = f"95% interval {100 * estimate.low:+.2f} to {100 * estimate.high:+.2f}"
    chance = (
        f"if neither were better, a difference at least this large would come with probability {p:.3g} "
        f"({gained + lost} of {n} answers are judged differently)."
    )
    if p < 1 - LEVEL:
        better, worse = ("B", "A") if gained > lost else ("A", "B")
        verdict = f"{better} is better than {worse}: {chance}"
    else:
        verdict = f"No difference is shown: {chance}"
    facts = [
        ["right in A only (b)", str(lost)],
        ["right in B only (c)", str(gained)],
        ["difference B - A", f"{100 * (gained - lost) / n:+.2f} pp, {interval}"],
        ["exact McNemar p", f"{p:.3g}"],
    ]
    lines = [
        f"{n} questions, {column}",
        _table(["", "file", "right", "accuracy %", "95% interval"], rows),
        tabulate(facts, tablefmt="plain", disable_numparse=True),
        verdict,
    ]
    return "\n\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 below --min-accuracy, 2 if something has to be mended, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "compare":
            print(compare(options.first, options.second, options.semantics))
            return 0
        return _score(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        return 130


def _score(options: argparse.Namespace) -> int:
    questions = read_questions(options.questions)
    predictions = read_predictions(options.predictions, questions, options.column)
    if options.out and not Path(options.out).parent.is_dir():
        # Said before the work, not after it.
        raise InputError(f"{options.out}: there is no folder {Path(options.out).parent}.")
    records = score(predictions, questions, options.databases, options.jobs, options.timeout)
    if options.out:
        write_records(options.out, records)
    print(f"{options.predictions}: {len(records)} questions on {len({q.db_id for q in questions})} databases\n")
    print(report(records, options.semantics))
    if options.out:
        print(f"\nRecords: {options.out}")
    accuracy = 100 * sum(record[options.semantics] for record in records) / len(records)
    if options.min_accuracy is not None and accuracy < options.min_accuracy:
        print(f"{options.semantics} accuracy {accuracy:.2f}% is below {options.min_accuracy:g}%.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m custom_metrics", description="Execution accuracy of text-to-SQL predictions."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{score,compare}")
    raw = {"formatter_class": argparse.RawDescriptionHelpFormatter}

    score = commands.add_parser(
        "score", help="run predictions and count the right ones", description=SCORE_HELP, epilog=SCORE_EXAMPLES, **raw
    )
    score.add_argument("predictions", metavar="PREDICTIONS", help="text, JSON lines or CSV, see above")
    score.add_argument(
        "--questions", required=True, help="Spider's dev.json, or JSON lines, with db_id and query (the gold SQL)"
    )
    score.add_argument("--databases", required=True, metavar="DIR", help="folder with <db_id>/<db_id>.sqlite")
    score.add_argument("--semantics", choices=SEMANTICS, default="bag", help="the headline; all are computed [bag]")
    score.add_argument("--out", metavar="records.csv", help="write one row a question here, for `compare`")
    score.add_argument(
        "--column", metavar="NAME", help="where PREDICTIONS has the prediction [found by its usual names]"
    )
    score.add_argument("--jobs", type=_positive(int), default=_cores(), metavar="N", help="processes [one a CPU core]")
    score.add_argument(
        "--timeout", type=_positive(float), default=5.0, metavar="S", help="seconds a query may take [5]"
    )
    score.add_argument(
        "--min-accuracy", type=float, metavar="PERCENT", help="exit with 1 if the headline is below this"
    )

    compare = commands.add_parser(
        "compare",
        help="compare two scored files question by question",
        description="The paired difference between two files that `score --out` wrote, with the exact McNemar test.",
        epilog=COMPARE_EXAMPLES,
        **raw,
    )
    compare.add_argument("first", metavar="A.csv")
    compare.add_argument("second", metavar="B.csv")
    names = (*SEMANTICS, *(f"{name}_raw" for name in SEMANTICS))
    compare.add_argument("--semantics", choices=names, default="bag", metavar="NAME", help=f"{', '.join(names)} [bag]")
    return parser


def _positive(kind: type):
    def number(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
        return value

    number.__name__ = kind.__name__
    return number


def _cores() -> int:
    # The cores that this process may use, which a scheduler can set below those that the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
