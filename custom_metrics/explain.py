"""How a query differs from the gold query, part by part, from the two syntax trees: what a reader would point at.

Two queries that differ here may still give the same rows, and nothing here decides whether an answer is right.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlglot import exp

from custom_metrics.hardness import parse


class Difference(NamedTuple):
    """One part in which two queries differ: what it is in the gold query and in the answer, "" where it has none.

    Kinds: set_operation, tables, join, columns, column_order, distinct, literal, literal_case, operator, condition,
    nested, grouping, having, sort, sort_direction, limit, owner (a column of the same name in another table).
    """

    kind: str
    gold: str
    answer: str


def differences(gold: str, answer: str) -> list[Difference] | None:
    """How the answer's query differs from the gold query; None where one of them cannot be parsed as a query.

    Aliases, upper and lower case of names, the order of conditions and quotes make no difference.
    """
    trees = parse(gold), parse(answer)
    if None in trees:
        return None
    return list(dict.fromkeys(_queries(*(_plain(tree) for tree in trees))))


def _plain(tree: exp.Expression) -> exp.Expression:
    """A copy with small letters in names, tables in place of aliases, and text in double quotes as text."""
    tree = tree.copy()
    names = {table.alias.lower(): table.name.lower() for table in tree.find_all(exp.Table) if table.alias}
    for column in list(tree.find_all(exp.Column)):
        if column.this.args.get("quoted") and not column.table and not isinstance(column.parent, exp.Select):
            # SQLite takes such a name, where there is no column of it, for text.
            column.replace(exp.Literal.string(column.name))
        elif column.table:
            column.set("table", exp.to_identifier(names.get(column.table.lower(), column.table.lower())))
    for table in tree.find_all(exp.Table):
        table.set("alias", None)
    for select in tree.find_all(exp.Select):
        select.set("expressions", [one.unalias() for one in select.expressions])
    for name in tree.find_all(exp.Identifier):
        name.set("this", name.name.lower())
        name.set("quoted", False)
    return tree


def _queries(gold: exp.Expression, answer: exp.Expression) -> list[Difference]:
    gold, answer = gold.unnest(), answer.unnest()
    kinds = [type(one).__name__.upper() if isinstance(one, exp.SetOperation) else "" for one in (gold, answer)]
    if kinds[0] and kinds[0] == kinds[1]:
        return _queries(gold.this, answer.this) + _queries(gold.expression, answer.expression)
    found = [Difference("set_operation", *kinds)] if any(kinds) else []
    while isinstance(gold, exp.SetOperation):
        gold = gold.this.unnest()
    while isinstance(answer, exp.SetOperation):
        answer = answer.this.unnest()
    return found + _selects(gold, answer)


def _selects(gold: exp.Expression, answer: exp.Expression) -> list[Difference]:
    found = _sets("tables", *(_tables(one) for one in (gold, answer)))
    joins = [_texts(_units(join.args.get("on") for join in one.args.get("joins") or ())) for one in (gold, answer)]
    if not found and {*map(_sides, joins[0])} != {*map(_sides, joins[1])}:
        found += _sets("join", *joins)
    selected = [_texts(one.expressions) for one in (gold, answer)]
    found += _sets("columns", *selected)
    if sorted(selected[0]) == sorted(selected[1]) and selected[0] != selected[1]:
        found.append(Difference("column_order", ", ".join(selected[0]), ", ".join(selected[1])))
    if bool(gold.args.get("distinct")) != bool(answer.args.get("distinct")):
        found.append(
            Difference("distinct", *("DISTINCT" if one.args.get("distinct") else "" for one in (gold, answer)))
        )
    found += _conditions(*(_units([one.args.get("where")]) for one in (gold, answer)))
    found += _sets(
        "grouping", *(_texts(one.args["group"].expressions if one.args.get("group") else ()) for one in (gold, answer))
    )
    found += _sets("having", *(_texts(_units([one.args.get("having")])) for one in (gold, answer)))
    found += _order(gold, answer)
    limits = [one.args["limit"].expression.sql("sqlite") if one.args.get("limit") else "" for one in (gold, answer)]
    found += [Difference("limit", *limits)] if limits[0] != limits[1] else []
    return found or _owners(gold, answer)


def _owners(gold: exp.Expression, answer: exp.Expression) -> list[Difference]:
    """Columns of the same name in another table, where both queries say whose they are."""
    pairs = zip(gold.find_all(exp.Column), answer.find_all(exp.Column), strict=False)
    found = [(one, other) for one, other in pairs if one.name == other.name and one.table and other.table]
    return [Difference("owner", one.sql(), other.sql()) for one, other in found if one.table != other.table]


def _tables(select: exp.Expression) -> list[str]:
    sources = [select.args.get("from_") or select.args.get("from"), *(select.args.get("joins") or ())]
    return [table.name for source in sources if source for table in source.find_all(exp.Table)]


def _units(clauses) -> list[exp.Expression]:
    """The conditions that AND joins, of several clauses."""
    units = []
    for clause in clauses:
        condition = clause.this if isinstance(clause, exp.Where | exp.Having) else clause
        if condition is not None:
            units += condition.flatten() if isinstance(condition, exp.And) else [condition]
    return units


def _text(node: exp.Expression) -> str:
    """A part as SQL, columns without their table."""
    node = node.copy()
    for column in node.find_all(exp.Column):
        column.set("table", None)
    return node.sql("sqlite", normalize_functions="lower")


def _texts(nodes: Sequence[exp.Expression]) -> list[str]:
    return [_text(node) for node in nodes]


def _sides(text: str) -> frozenset[str]:
    """The two sides of a join's condition, which may be swapped."""
    return frozenset(text.split(" = "))


def _sets(kind: str, gold: Sequence[str], answer: Sequence[str]) -> list[Difference]:
    """What one side has more often than the other."""
    lost, more = list(gold), list(answer)
    for text in gold:
        if text in more:
            lost.remove(text)
            more.remove(text)
    return [Difference(kind, ", ".join(lost), ", ".join(more))] if lost or more else []


def _conditions(gold: list[exp.Expression], answer: list[exp.Expression]) -> list[Difference]:
    """How conditions differ: those on one column are set against each other, the others are missing or besides."""
    lost = [one for one in gold if _text(one) not in _texts(answer)]
    more = [one for one in answer if _text(one) not in _texts(gold)]
    found = []
    for one in list(lost):
        other = next((unit for unit in more if _column(unit) and _column(unit) == _column(one)), None)
        if other is not None:
            found += _pair(one, other)
            lost.remove(one)
            more.remove(other)
    nested = [[unit for unit in side if unit.find(exp.Query)] for side in (lost, more)]
    if all(nested):
        inner = _queries(nested[0][0].find(exp.Query), nested[1][0].find(exp.Query))
        lost.remove(nested[0][0])
        more.remove(nested[1][0])
        found += inner or [Difference("condition", _text(nested[0][0]), _text(nested[1][0]))]
    elif any(nested):
        texts = [", ".join(_texts(side)) for side in nested]
        found.append(Difference("nested", *texts))
        lost, more = ([unit for unit in side if not unit.find(exp.Query)] for side in (lost, more))
    return found + _sets("condition", _texts(lost), _texts(more))


def _column(unit: exp.Expression) -> str:
    """The column that a condition is about, "" where it is none alone."""
    inner = unit.this if isinstance(unit, exp.Not) else unit
    return inner.this.name if isinstance(inner.this, exp.Column) else ""


def _pair(gold: exp.Expression, answer: exp.Expression) -> list[Difference]:
    """How two conditions on one column differ."""
    queries = [one.find(exp.Query) for one in (gold, answer)]
    if all(queries) and (inner := _queries(*queries)):
        return inner
    values = [one.args.get("expression") for one in (gold, answer)]
    if type(gold) is type(answer) and all(isinstance(value, exp.Literal) for value in values):
        same = values[0].name.casefold() == values[1].name.casefold()
        return [Difference("literal_case" if same else "literal", *(value.sql("sqlite") for value in values))]
    return [Difference("operator", _text(gold), _text(answer))]


def _order(gold: exp.Expression, answer: exp.Expression) -> list[Difference]:
    orders = [one.args["order"].expressions if one.args.get("order") else [] for one in (gold, answer)]
    keys = [[_text(one.this) for one in side] for side in orders]
    if keys[0] != keys[1]:
        texts = [
            ", ".join(f"{_text(one.this)}{' DESC' * bool(one.args.get('desc'))}" for one in side) for side in orders
        ]
        return [Difference("sort", *texts)]
    ways = [["DESC" if one.args.get("desc") else "ASC" for one in side] for side in orders]
    return [Difference("sort_direction", ", ".join(ways[0]), ", ".join(ways[1]))] if ways[0] != ways[1] else []
