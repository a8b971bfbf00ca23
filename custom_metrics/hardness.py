"""How hard a query is, by the counting rules of Spider's evaluation script, from the SQL text alone.

Yu et al. 2018 (arXiv:1809.08887) sort queries into four levels by what they hold. The rules here are those of
`eval_hardness` in the official `evaluation.py`, oddities included: only the first SELECT of a set operation is counted,
a NOT in a condition counts as an aggregate, and so does each AND or OR in HAVING.
"""

from collections.abc import Iterable
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

LEVELS = ("easy", "medium", "hard", "extra")


@lru_cache(maxsize=20_000)
def parse(sql: str, dialect: str = "sqlite") -> exp.Expression | None:
    """Return the syntax tree of one query, or None where it cannot be parsed or is no query.

    Args:
        dialect: one of `engines.ENGINES`.
    """
    try:
        tree = sqlglot.parse_one(sql, dialect=dialect)
    except SqlglotError:
        return None
    return tree if isinstance(tree, exp.Query) else None


def hardness(sql: str, dialect: str = "sqlite") -> str:
    """Return "easy", "medium", "hard" or "extra"; a query that cannot be parsed is "extra"."""
    tree = parse(sql, dialect)
    if tree is None:
        return "extra"
    nested = int(isinstance(tree.unnest(), exp.SetOperation))
    while isinstance(tree, exp.SetOperation | exp.Subquery):
        tree = tree.this
    if not isinstance(tree, exp.Select):
        return "extra"

    joins, selected = tree.args.get("joins") or [], tree.expressions
    groups, orders = (tree.args[name].expressions if tree.args.get(name) else [] for name in ("group", "order"))
    on, on_joints = _conditions(join.args.get("on") for join in joins)
    where, where_joints = _conditions([tree.args.get("where")])
    having, having_joints = _conditions([tree.args.get("having")])
    conditions = on + where + having

    component1 = bool(where) + bool(groups) + bool(orders) + bool(tree.args.get("limit")) + len(joins)
    component1 += sum(isinstance(joint, exp.Or) for joint in on_joints + where_joints + having_joints)
    # A negated condition counts by what it negates.
    component1 += sum(
        isinstance(unit.this.unnest() if isinstance(unit, exp.Not) else unit, exp.Like) for unit in conditions
    )

    component2 = nested + sum(_subqueries(unit) for unit in conditions)

    aggregates = sum(_begins_with_aggregate(unit) for unit in selected + groups)
    aggregates += sum(len(list(unit.find_all(exp.AggFunc))) for unit in orders)
    aggregates += sum(isinstance(unit, exp.Not) for unit in where + having) + len(having_joints)
    others = (aggregates > 1) + (len(selected) > 1) + (len(where) > 1) + (len(groups) > 1)

    return _level(component1, component2, others)


def _level(component1: int, component2: int, others: int) -> str:
    """Apply the thresholds of `eval_hardness`."""
    if component2 == 0:
        if component1 <= 1 and others == 0:
            return "easy"
        if (component1 <= 1 and others <= 2) or (component1 <= 2 and others < 2):
            return "medium"
        if (component1 <= 2 and others > 2) or (component1 == 3 and others <= 2):
            return "hard"
    elif component2 == 1 and component1 <= 1 and others == 0:
        return "hard"
    return "extra"


def _conditions(clauses: Iterable[exp.Expression | None]) -> tuple[list[exp.Expression], list[exp.Expression]]:
    """Split conditions at their ANDs and ORs: return the parts, and these joints between them."""
    around = exp.Where | exp.Having | exp.Connector | exp.Paren
    nodes = [
        node
        for clause in clauses
        if clause
        for node in clause.walk(bfs=False, prune=lambda node: not isinstance(node, around))
    ]
    parts = [node for node in nodes if not isinstance(node, around)]
    return parts, [node for node in nodes if isinstance(node, exp.Connector)]


def _subqueries(unit: exp.Expression) -> int:
    """Count the queries that a condition compares with, not the queries inside those."""
    if isinstance(unit, exp.Query):
        return 1
    return sum(_subqueries(child) for child in unit.iter_expressions())


def _begins_with_aggregate(unit: exp.Expression) -> bool:
    unit = unit.unalias()
    while isinstance(unit, exp.Binary | exp.Paren):
        unit = unit.this
    return isinstance(unit, exp.AggFunc)
