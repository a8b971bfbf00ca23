"""What gold queries are worth: whether they run, and whether their rows hang on an order that they do not fix.

A query leaves its rows open in three ways: a LIMIT cuts between rows that tie in its ORDER BY, or that have no order at
all; or a group gives the value of one of its rows (a bare column; https://www.sqlite.org/quirks.html#aggregate). Its
order is open where rows tie in its own ORDER BY. Each query that could be open is run twice: all ties broken one way,
and the other way, by the columns of its result; bare columns as the least and as the greatest of their group. Where the
two results differ, another system or another version of SQLite may rightly give other rows than the gold query did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlglot import exp

from custom_metrics.engines import locate
from custom_metrics.hardness import parse
from custom_metrics.judge import SEMANTICS, GoldError, Judge, orders_rows

# What is open in a gold query.
OPEN = {
    "": "nothing: every system gives the same rows, in the same order where the query sorts",
    "rows": "its rows",
    "order": "the order of its rows alone: some tie in its ORDER BY",
    "unknown": "not known: the query could not be rewritten",
}

# The criteria to which the order of rows matters.
BY_ORDER = ("ordered", "test_suite")


@dataclass(frozen=True)
class Certificate:
    """What a gold query is worth."""

    correct: dict[str, bool]  # of each of `SEMANTICS`, whether the query is right as an answer to itself
    error_class: str  # one of `judge.ERROR_CLASSES`; `ok` of a query that runs
    rows: int | None  # how many it gives, None if it does not run
    open: str  # one of `OPEN`


def doubtful(criterion: str, right: bool, left_open: str) -> bool:
    """Whether a right answer may be called wrong by a criterion.

    So it is where the gold query itself is not `right` by it, or leaves open its rows or, where order counts, that.
    """
    return not right or left_open == "rows" or (left_open == "order" and criterion in BY_ORDER)


def certify(queries: Sequence[tuple[str | Path, str]], timeout_s: float = 30.0, jobs: int = 1) -> list[Certificate]:
    """Certify gold queries, each with its database.

    Raises:
        FileNotFoundError, sandbox.UnmergedError, engines.UnavailableError: as of `Judge.judge_all`.
    """
    engines = [locate(database)[1] for database, _ in queries]
    both = [settled(gold, engine) for (_, gold), engine in zip(queries, engines, strict=True)]
    with Judge(timeout_s, jobs) as judge:
        alone = judge.judge_all([(database, gold, gold) for database, gold in queries], progress=True)
        again = [
            number
            for number, (verdict, pair) in enumerate(zip(alone, both, strict=True))
            if pair and not isinstance(verdict, GoldError)
        ]
        pairs = judge.judge_all([(queries[number][0], *both[number]) for number in again])
        same = judge.judge_all([(*queries[number], both[number][0]) for number in again])
    left_open = dict.fromkeys(range(len(queries)), "")
    for number, pair, own in zip(again, pairs, same, strict=True):
        left_open[number] = _open(pair, own, orders_rows(queries[number][1], engines[number]))
    found = []
    for number, (verdict, pair) in enumerate(zip(alone, both, strict=True)):
        if isinstance(verdict, GoldError):
            found.append(Certificate(dict.fromkeys(SEMANTICS, False), verdict.error_class, None, "unknown"))
        else:
            known = left_open[number] if pair is not None else "unknown"
            found.append(Certificate(verdict.correct, verdict.error_class, verdict.gold_rows, known))
    return found


def _open(pair: object, own: object, ordered: bool) -> str:
    """What two ways of breaking ties say: their verdict on each other, and that of the gold query on the first."""
    if isinstance(pair, GoldError) or isinstance(own, GoldError) or pair.predicted_rows is None:
        return "unknown"
    if not pair.correct["bag"]:
        return "rows"
    if not own.correct["bag"]:  # the rewritten query means something else
        return "unknown"
    return "order" if ordered and not pair.correct["ordered"] else ""


def settled(gold: str, dialect: str = "sqlite") -> tuple[str, str] | tuple[()] | None:
    """Return two queries that break every tie, one way and the other.

    Args:
        gold: a query.
        dialect: one of `engines.ENGINES`.

    Returns:
        () if nothing in the text leaves rows or order open, None if the text is not understood.
    """
    tree = parse(gold, dialect)
    if tree is None:
        return None
    up, down = _settle(tree, False), _settle(tree, True)
    if up is None or down is None:
        return None
    return () if up == tree else (up.sql(dialect), down.sql(dialect))


def _settle(tree: exp.Expression, descending: bool) -> exp.Expression | None:
    """The query with its ties broken in one direction; None if it selects `*` where ties are to be broken."""
    tree = tree.copy()
    for query in list(tree.find_all(exp.Query)):
        if not query.args.get("order") and not query.args.get("limit"):
            continue
        if query.is_star:
            return None
        order = query.args.get("order") or exp.Order(expressions=[])
        places = [exp.Literal.number(place) for place in range(1, len(query.selects) + 1)]
        last = [exp.Ordered(this=place, desc=descending, nulls_first=not descending) for place in places]
        query.set("order", exp.Order(expressions=[*order.expressions, *last]))
    for select in list(tree.find_all(exp.Select)):
        _settle_groups(select, exp.Max if descending else exp.Min)
    return tree


def _settle_groups(select: exp.Select, of_group: type[exp.Expression]) -> None:
    """Take the least or the greatest value of each bare column; beside MIN or MAX alone SQLite says which row it is."""

    def own(node: exp.Expression, kind: type[exp.Expression]) -> list:
        return [one for one in node.find_all(kind) if one.find_ancestor(exp.Select) is select]

    group = select.args.get("group")
    aggregates = [one for part in select.selects for one in own(part, exp.AggFunc)]
    sorting = [one for key in ("having", "order") if select.args.get(key) for one in own(select.args[key], exp.AggFunc)]
    if not (group or aggregates) or any(isinstance(one, exp.Min | exp.Max) for one in [*aggregates, *sorting]):
        return
    keys = {column.name.lower() for column in group.find_all(exp.Column)} if group else set()
    for column in [column for part in select.selects for column in own(part, exp.Column)]:
        bare = column.find_ancestor(exp.AggFunc, exp.Select) is select
        if bare and column.name.lower() not in keys and not isinstance(column.this, exp.Star):
            whole = column.parent is select
            taken = of_group(this=column.copy())
            column.replace(exp.alias_(taken, column.name, quoted=True) if whole else taken)
