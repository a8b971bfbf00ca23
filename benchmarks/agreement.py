"""How often `test_suite` and the official evaluator differ, on random pairs of queries, and why.

    python benchmarks/agreement.py --official DIR --questions dev.json --databases DIR [--pairs 3000]

`--official` names a checkout of https://github.com/taoyds/test-suite-sql-eval, whose `exec_eval.eval_exec_match` judges
the same pairs in this process (plug_value and keep_distinct off). It needs `sqlparse`. A pair is a gold query and a
random change of it, or of another gold query on the same database (`pairs`).

Prints the counts and writes benchmarks/results/<date>-agreement.json with every pair on which the two differ and the
reason, one of `REASONS`. Exits with 1 if a difference has none of them.
"""

import argparse
import contextlib
import datetime
import io
import json
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sqlglot import exp

from custom_metrics.hardness import parse
from custom_metrics.inputs import Question, find_databases, read_questions
from custom_metrics.judge import Judge, Verdict

RESULTS = Path(__file__).parent / "results"
TIMEOUT_S = 3.0
LIMITS = ("timeout", "too_large")
# Why the two may differ, in the order in which they are looked at.
REASONS = {
    "gold fails without DISTINCT": "the gold query is no SQL any more when its DISTINCT is dropped: the official "
    "evaluator stops with an error, and here both queries keep it",
    "limit": "a query takes more time, rows or memory than it may here; nothing ends such a query in the official "
    "evaluator, which is not asked then",
    "unstable": "the query gives other rows from run to run",
}


def pairs(questions: Sequence[Question], number: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """Yield so many (db_id, gold, predicted): half of them a changed gold, a third another gold of the database."""
    generator = random.Random(seed)
    by_database: dict[str, list[str]] = {}
    for question in questions:
        by_database.setdefault(question.db_id, []).append(question.gold)
    while number:
        question = generator.choice(questions)
        share = generator.random()
        source = question.gold if share < 2 / 3 else generator.choice(by_database[question.db_id])
        predicted = source if share < 1 / 6 else changed(source, by_database[question.db_id], generator)
        number -= 1
        yield question.db_id, question.gold, _laid_out(predicted, generator)


def changed(sql: str, others: Sequence[str], generator: random.Random) -> str:
    """Return a query with one to three random changes, which mostly still runs."""
    tree = parse(sql)
    if tree is None:
        return sql
    tree = tree.copy()  # `parse` keeps what it returns
    for _ in range(generator.choice((1, 1, 2, 3))):
        node = generator.choice(list(tree.walk()))
        while node is not tree and not _change(node, others, generator):
            node = generator.choice(list(tree.walk()))
        if node is tree:
            _change_whole(tree, generator)
    return tree.sql("sqlite")


def _change(node: exp.Expression, others: Sequence[str], generator: random.Random) -> bool:
    """Change one part of a query in its place; tell whether there was anything to change."""
    match node:
        case exp.Literal():
            new = node.this + "0" if node.is_string else str(float(node.this) + generator.choice((-1, 0, 0.5, 1)))
            node.replace(exp.Literal.string(new) if node.is_string else exp.Literal.number(new.removesuffix(".0")))
        case exp.EQ() | exp.NEQ() | exp.GT() | exp.GTE() | exp.LT() | exp.LTE():
            kind = generator.choice((exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE))
            node.replace(kind(this=node.this, expression=node.expression))
        case exp.And() | exp.Or():
            kind = exp.Or if isinstance(node, exp.And) else exp.And
            node.replace(generator.choice((kind(this=node.this, expression=node.expression), node.this)))
        case exp.Count() | exp.Avg() | exp.Sum() | exp.Min() | exp.Max():
            kind = generator.choice((exp.Count, exp.Avg, exp.Sum, exp.Min, exp.Max))
            node.replace(kind(this=node.this))
        case exp.Ordered():
            node.set("desc", not node.args.get("desc"))
        case exp.Union() | exp.Intersect() | exp.Except():
            kind = generator.choice((exp.Union, exp.Intersect, exp.Except))
            node.replace(kind(this=node.this, expression=node.expression, distinct=generator.random() < 0.7))
        case exp.Column():
            trees = [parse(other) for other in others]
            columns = [column for tree in trees if tree for column in tree.find_all(exp.Column)]
            node.replace(exp.column(generator.choice(columns).name if columns else "rowid", node.table or None))
        case _:
            return False
    return True


def _change_whole(tree: exp.Query, generator: random.Random) -> None:
    """Change what a query selects, whether rows come once, their order or their number."""
    select = tree.find(exp.Select)
    columns = list(select.expressions)
    match generator.randrange(7):
        case 0:
            generator.shuffle(columns)
            select.set("expressions", columns)
        case 1:
            select.set("distinct", None if select.args.get("distinct") else exp.Distinct())
        case 2:
            select.set("expressions", [*columns, generator.choice(columns).copy()])
        case 3:
            select.set("expressions", columns[: max(1, len(columns) - 1)])
        case 4:
            tree.set("order", None)
        case 5:
            tree.set("limit", exp.Limit(expression=exp.Literal.number(generator.randrange(1, 5))))
        case 6:
            select.set("where", None)


def _laid_out(sql: str, generator: random.Random) -> str:
    """Write a query as models do: with semicolons, blanks in operators, line ends, several statements."""
    match generator.randrange(12):
        case 0:
            return f"{sql} ;"
        case 1:
            return sql.replace(">=", "> =").replace("<=", "< =").replace("<>", "! =")
        case 2:
            return sql.replace(" FROM ", "\nFROM ").replace(" WHERE ", "\n\tWHERE ")
        case 3:
            return f"{sql}; SELECT 1"
        case 4:
            return sql.lower() if "'" not in sql and '"' not in sql else sql
        case 5:
            return f"{sql} -- done"
    return sql


def disagreements(
    items: Sequence[tuple[Path, str, str]], official: Callable[..., int], jobs: int = 2
) -> tuple[Counter, list[dict]]:
    """Judge (database, gold, predicted) by both; return the counts of both verdicts, and each difference with a reason.

    The reason is "" where none of `REASONS` holds.
    """
    with Judge(timeout_s=TIMEOUT_S, jobs=jobs) as judge:
        verdicts = judge.judge_all(items)
    counts: Counter = Counter()
    found = []
    for item, verdict in zip(items, verdicts, strict=True):
        limited = getattr(verdict, "error_class", "") in LIMITS
        theirs = None if limited else _officially(official, *item)
        ours = verdict.correct_raw["test_suite"] if isinstance(verdict, Verdict) else None
        counts[f"official {theirs}, here {ours}"] += 1
        if theirs != ours:
            database, gold, predicted = item
            shown = {"database": database.stem, "gold": gold, "predicted": predicted, "official": theirs, "here": ours}
            found.append(shown | {"reason": _reason(item, verdict, theirs)})
    return counts, found


def _officially(official: Callable[..., int], database: Path, gold: str, predicted: str) -> bool | None:
    """Return the official verdict; None where it stops with an error of its own, as its script then does."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return bool(official(str(database), predicted, gold, False, False, False))
    except Exception:
        return None


def _reason(item: tuple[Path, str, str], verdict: object, theirs: bool | None) -> str:
    _, gold, predicted = item
    if getattr(verdict, "error_class", "") in LIMITS:
        return "limit"
    if theirs is None and " distinct " in f" {gold.lower()} ":
        return "gold fails without DISTINCT"
    if "random" in f"{gold}{predicted}".lower():
        return "unstable"
    return ""


def load_official(folder: Path) -> Callable[..., int]:
    """Return `eval_exec_match` of a checkout of the official evaluator."""
    # Behind everything else, so that its modules with common names hide none of ours.
    sys.path.append(str(folder))
    from exec_eval import eval_exec_match

    return eval_exec_match


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", required=True, metavar="DIR", type=Path, help="a checkout of test-suite-sql-eval")
    parser.add_argument("--questions", required=True, help="Spider's dev.json")
    parser.add_argument("--databases", required=True, metavar="DIR", help="folder with <db_id>/<db_id>.sqlite")
    parser.add_argument("--pairs", type=int, default=3000, help="[3000]")
    parser.add_argument("--seed", type=int, default=0, help="[0]")
    options = parser.parse_args()

    questions = read_questions(options.questions)
    databases = find_databases(options.databases, [question.db_id for question in questions])
    items = [(databases[db_id], *two) for db_id, *two in pairs(questions, options.pairs, options.seed)]
    counts, found = disagreements(items, load_official(options.official))
    result = {
        "date": datetime.date.today().isoformat(),
        "versions": {"python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version},
        "pairs": len(items),
        "seed": options.seed,
        "counts": dict(sorted(counts.items())),
        "reasons": REASONS,
        "differences": found,
    }
    path = RESULTS / f"{result['date']}-agreement.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, count in sorted(counts.items()):
        print(f"{count:6} {name}")
    for reason, count in Counter(one["reason"] for one in found).items():
        print(f"{count:6} differ: {REASONS.get(reason, 'no listed reason')}")
    print(f"Written to {path}")
    return int(any(not one["reason"] for one in found))


if __name__ == "__main__":
    sys.exit(main())
