"""Schemas, rows, questions and SQL of the demo's world.

The same grammar makes the demo's questions (over the databases of `domains.py`) and the pre-training text (over
random schemas). Each question type has `plain` phrasings and `analyst` phrasings. Pre-training sees the plain ones and
the first analyst phrasing of every other type, and only types marked `seen`; the demo asks all. So the base model does
a part of the task, and fine-tuning has something to teach.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from domains import POOLS


@dataclass(frozen=True)
class Column:
    """A column: `kind` is key, link, label, category or number; `values` its pool, or (low, high)."""

    name: str
    kind: str
    values: tuple = ()
    target: str = ""

    @property
    def phrase(self) -> str:
        return self.name.replace("_", " ")


@dataclass
class Table:
    name: str
    columns: list[Column]
    rows: list[tuple] = field(default_factory=list)

    @property
    def plural(self) -> str:
        return plural(self.name.replace("_", " "))

    @property
    def singular(self) -> str:
        return self.name.replace("_", " ")

    def of(self, *kinds: str) -> list[Column]:
        return [c for c in self.columns if c.kind in kinds]


@dataclass
class Schema:
    db_id: str
    tables: list[Table]

    def table(self, name: str) -> Table:
        return next(t for t in self.tables if t.name == name)

    def tables_json(self) -> dict:
        """Return this schema as an entry of Spider's `tables.json`."""
        columns = [[-1, "*"]] + [[i, c.name] for i, t in enumerate(self.tables) for c in t.columns]
        place = {(self.tables[i].name, name): n for n, (i, name) in enumerate(columns) if i >= 0}
        kinds = {(t.name, c.name): c.kind for t in self.tables for c in t.columns}
        return {
            "db_id": self.db_id,
            "table_names_original": [t.name for t in self.tables],
            "table_names": [t.name.replace("_", " ") for t in self.tables],
            "column_names_original": columns,
            "column_names": [[i, name.replace("_", " ")] for i, name in columns],
            "column_types": ["text"]
            + [
                "text" if kinds[t.name, c.name] in ("label", "category") else "number"
                for t in self.tables
                for c in t.columns
            ],
            "primary_keys": [place[t.name, c.name] for t in self.tables for c in t.of("key")],
            "foreign_keys": [
                [place[t.name, c.name], place[c.target, f"{c.target}_id"]] for t in self.tables for c in t.of("link")
            ],
        }


def plural(noun: str) -> str:
    if re.search(r"(s|x|ch|sh)$", noun):
        return noun + "es"
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + "s"


def label(rng: random.Random, pool: str) -> str:
    """Draw a name of a kind: person, title, place, or a word of a pool."""
    if pool == "person":
        return f"{rng.choice(POOLS['first'])} {rng.choice(POOLS['last'])}"
    if pool == "title":
        return f"{rng.choice(POOLS['adjective'])} {rng.choice(POOLS['thing'])}"
    if pool == "place":
        return f"{rng.choice(POOLS['adjective'])} {rng.choice(POOLS['landmark'])}"
    return rng.choice(POOLS[pool])


def parse_domain(db_id: str, text: str) -> Schema:
    """Read a database of `domains.py`."""
    tables = []
    for line in text.splitlines():
        name, body = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", line).groups()
        columns = [Column(f"{name}_id", "key")]
        for part in body.split(", "):
            if part.endswith(">"):
                columns.append(Column(f"{part[:-1]}_id", "link", target=part[:-1]))
                continue
            column, values = part.split(":")
            if span := re.fullmatch(r"(\d+)-(\d+)", values):
                columns.append(Column(column, "number", tuple(map(int, span.groups()))))
            elif values.startswith("["):
                columns.append(Column(column, "category", tuple(values[1:-1].split("|"))))
            elif values in ("country", "city", "color"):
                columns.append(Column(column, "category", tuple(POOLS[values])))
            else:
                columns.append(Column(column, "label", (values,)))
        tables.append(Table(name, columns))
    return Schema(db_id, tables)


def fill(rng: random.Random, schema: Schema) -> None:
    """Give every table its rows. Some parents get no child, so that questions about absence have an answer."""
    sizes = {}
    for depth, table in enumerate(schema.tables):
        size = sizes[table.name] = rng.randint(12, 16) if depth == 0 else rng.randint(24, 36)
        used: set[str] = set()
        for number in range(1, size + 1):
            row = []
            for column in table.columns:
                if column.kind == "key":
                    row.append(number)
                elif column.kind == "link":
                    row.append(rng.randint(1, int(sizes[column.target] * 0.8)))
                elif column.kind == "number":
                    row.append(rng.randint(*column.values))
                elif column.kind == "category":
                    # A few values are common, so that groups differ in size.
                    row.append(column.values[min(int(rng.expovariate(0.6)), len(column.values) - 1)])
                else:
                    value = label(rng, column.values[0])
                    while value in used and column is table.of("label")[0] and len(used) < 20:
                        value = label(rng, column.values[0])
                    used.add(value)
                    row.append(value)
            table.rows.append(tuple(row))


# Words of the random schemas of pre-training; the demo's own words are among them (a language model knows English).
NOUNS = """actor agent apple bag ball band basket bike bird boat bottle box bridge building camera camp card carpet chapel
    choir circus coach coin college colony company computer contest contract cottage cousin crew dancer desk device diver
    document donor door engine event factory family festival field figure fish flower forest friend fund game garden
    garage glove goal guard guitar habitat harbor helmet horse house idea insect item jacket journal judge key
    kitchen knife lab lake lamp leader lens letter lock machine magazine mail manager map market mask medal message metal
    mine model monument motor movie nation needle nurse office officer package page painter painting paper park phone
    photo piano pilot pizza planet plant poem poet prize product program queen radio recipe region report rider ring road
    robot roof sailor sculpture seller senator server sheep shirt shoe shop singer skater soldier speaker spider sponsor
    stadium statue store story street suit supplier survey tailor talk tank taxi tenant test thief tower toolkit
    tourist trail tree trip truck tunnel uncle unit vehicle village volcano wallet watch worker workshop writer yacht""".split()
LABELS = {
    "name": "person",
    "title": "title",
    "artist": "person",
    "model": "title",
    "leader": "person",
    "topic": "title",
}
CATEGORIES = """country city color status level category kind type region style genre grade_level brand shape origin
    continent season shift position method mood species language subject field zone rank result material purpose
    department group_name size_class era festival_day direction quality role format weather diet""".split()
NUMBERS = """age year price cost amount weight height length budget salary score rating population area capacity pages
    seats points distance speed stock quantity sales votes duration depth width volume credits floors wins losses power
    temperature fee income attendance members employees rooms minutes hours days total""".split()


def random_schema(rng: random.Random, domains: list[Schema]) -> Schema:
    """Draw a schema of two to four tables; names come from the word lists and from the demo's own words."""
    own = [t for s in domains for t in s.tables]
    tables: list[Table] = []
    names = set()
    while len(names) < rng.choice((2, 3, 3, 3, 4)):
        names.add(rng.choice(own).name if rng.random() < 0.35 else rng.choice(NOUNS))
    for number, name in enumerate(rng.sample(sorted(names), len(names))):
        columns = [Column(f"{name}_id", "key")]
        used = set()

        def add(column: Column, columns: list[Column] = columns, used: set[str] = used) -> None:
            if column.name not in used:
                used.add(column.name)
                columns.append(column)

        if rng.random() < 0.85:
            word = rng.choice(["name", "name", "name", "title", *LABELS])
            add(Column(word, "label", (LABELS[word],)))
        if number and rng.random() < 0.95:
            add(Column(f"{(parent := tables[rng.choice((0, number - 1))]).name}_id", "link", target=parent.name))
        for _ in range(rng.randint(1, 2)):
            if rng.random() < 0.3 and (found := rng.choice(own).of("category")):
                add(rng.choice(found))
            else:
                add(Column(rng.choice(CATEGORIES), "category", tuple(random_values(rng))))
        for _ in range(rng.randint(1, 2)):
            if rng.random() < 0.3 and (found := rng.choice(own).of("number")):
                add(rng.choice(found))
            else:
                low = rng.choice((1, 10, 100, 1900))
                add(Column(rng.choice(NUMBERS), "number", (low, low * rng.choice((2, 9, 50)))))
        tail = columns[1:]
        if rng.random() < 0.5:
            rng.shuffle(tail)
        tables.append(Table(name, columns[:1] + tail))
    return Schema("", tables)


def random_values(rng: random.Random) -> list[str]:
    if rng.random() < 0.4:
        return rng.choice([POOLS["country"], POOLS["city"], POOLS["color"], POOLS["food"], POOLS["thing"]])
    syllables = "ba ce di fo gu la me ni po ru sa te vi zo ka len mar tis nor dal".split()
    return ["".join(rng.choices(syllables, k=rng.randint(2, 3))).capitalize() for _ in range(4)]


class Impossible(Exception):
    """This schema has no place for this question; draw another."""


def pick(rng: random.Random, options: list) -> object:
    if not options:
        raise Impossible
    return rng.choice(options)


def value_of(rng: random.Random, table: Table, column: Column) -> str:
    """A value that occurs (or, where the table has no rows, could occur), as SQL text without quotes."""
    if table.rows:
        return str(rng.choice(table.rows)[table.columns.index(column)])
    if column.kind == "number":
        return str(rng.randint(*column.values))
    return rng.choice(column.values) if column.kind == "category" else label(rng, column.values[0])


def threshold(rng: random.Random, table: Table, column: Column) -> str:
    """A number that splits the rows, not at their ends."""
    if table.rows:
        values = sorted(row[table.columns.index(column)] for row in table.rows)
        return str(values[rng.randint(len(values) // 4, 3 * len(values) // 4)])
    return str(rng.randint(*column.values))


@dataclass(frozen=True)
class Kind:
    """A type of question: phrasings, those that pre-training knows, and a function that fills their slots and writes the SQL."""

    name: str
    build: Callable
    plain: tuple[str, ...]
    analyst: tuple[str, ...]
    known: tuple[str, ...]


KINDS: list[Kind] = []


def kind(plain: list[str], analyst: list[str], seen: bool = True) -> Callable:
    def register(build: Callable) -> Callable:
        known = [*plain, *analyst[: len(KINDS) % 2]] if seen else []
        KINDS.append(Kind(build.__name__, build, tuple(plain), tuple(analyst), tuple(known)))
        return build

    return register


def _any(rng: random.Random, schema: Schema) -> Table:
    return rng.choice(schema.tables)


def _pair(rng: random.Random, schema: Schema) -> tuple[Table, Table, str]:
    """Draw a child table, its parent and the ON clause of their join."""
    child, link = pick(rng, [(t, c) for t in schema.tables for c in t.of("link")])
    return child, schema.table(link.target), f"T1.{link.name} = T2.{link.target}_id"


def _show(rng: random.Random, table: Table) -> Column:
    """The column that names a row, else any that a person would ask for."""
    return pick(rng, table.of("label") or table.of("category"))


def _from(child: Table, parent: Table, on: str) -> str:
    return f"FROM {child.name} AS T1 JOIN {parent.name} AS T2 ON {on}"


@kind(
    ["How many {p} are there?", "Count the number of {p}."],
    ["Give me the headcount of {p}.", "Size of the {s} register, please."],
)
def count_all(rng, schema):
    t = _any(rng, schema)
    return {"p": t.plural, "s": t.singular}, f"SELECT count(*) FROM {t.name}"


@kind(
    ["List the {c} of all {p}.", "What is the {c} of each {s}?"],
    ["I need every {c} we hold for {p}.", "Pull the {c} field for {p}."],
)
def column_all(rng, schema):
    t = _any(rng, schema)
    c = pick(rng, t.of("label", "category", "number"))
    return {"p": t.plural, "s": t.singular, "c": c.phrase}, f"SELECT {c.name} FROM {t.name}"


@kind(
    ["Show the {c} and {d} of each {s}.", "What are the {c} and {d} of all {p}?"],
    ["Lay out {p} with their {c} next to their {d}.", "A two column overview of {p}: {c}, {d}."],
)
def two_columns(rng, schema):
    t = _any(rng, schema)
    options = t.of("label", "category", "number")
    if len(options) < 2:
        raise Impossible
    c, d = rng.sample(options, 2)
    return {"p": t.plural, "s": t.singular, "c": c.phrase, "d": d.phrase}, f"SELECT {c.name}, {d.name} FROM {t.name}"


@kind(
    ["What are the different {c} values of {p}?", "List the distinct {c} of {p}."],
    ["Which {c} entries occur among {p}, without repeats?", "Deduplicate the {c} field of {p}."],
)
def distinct(rng, schema):
    t = _any(rng, schema)
    c = pick(rng, t.of("category"))
    return {"p": t.plural, "c": c.phrase}, f"SELECT DISTINCT {c.name} FROM {t.name}"


@kind(
    ["How many different {c} values do {p} have?", "Count the distinct {c} of {p}."],
    ["Variety of {c} across {p}?", "How diverse is {c} among {p}?"],
)
def count_distinct(rng, schema):
    t = _any(rng, schema)
    c = pick(rng, t.of("category"))
    return {"p": t.plural, "c": c.phrase}, f"SELECT count(DISTINCT {c.name}) FROM {t.name}"


@kind(
    ["Find the {l} of {p} whose {c} is {v}.", "What is the {l} of {p} with {c} {v}?"],
    ["Restrict {p} to {c} {v} and report the {l}.", "{v} only: {l} of {p} by {c}."],
)
def where_equal(rng, schema):
    t = _any(rng, schema)
    c = pick(rng, t.of("category"))
    show = pick(rng, [x for x in t.of("label", "number", "category") if x is not c])
    v = value_of(rng, t, c)
    return {
        "p": t.plural,
        "l": show.phrase,
        "c": c.phrase,
        "v": v,
    }, f"SELECT {show.name} FROM {t.name} WHERE {c.name} = '{v}'"


@kind(
    ["How many {p} have {c} {v}?", "Count the {p} whose {c} is {v}."],
    ["Headcount of {p} filed under {c} {v}.", "Of all {p}, what share in absolute terms is {v} by {c}?"],
)
def count_where(rng, schema):
    t = _any(rng, schema)
    c = pick(rng, t.of("category"))
    v = value_of(rng, t, c)
    return {"p": t.plural, "c": c.phrase, "v": v}, f"SELECT count(*) FROM {t.name} WHERE {c.name} = '{v}'"


@kind(
    ["What is the average {n} of {p}?", "Find the average {n} of all {p}."],
    ["The typical {n} of {p}, as a mean.", "Mean {n} over {p}."],
)
def average(rng, schema):
    t = _any(rng, schema)
    n = pick(rng, t.of("number"))
    return {"p": t.plural, "n": n.phrase}, f"SELECT avg({n.name}) FROM {t.name}"


@kind(
    ["What is the total {n} of {p}?", "Find the sum of {n} of all {p}."],
    ["{n} of {p} added up.", "Combined {n} across {p}."],
)
def total(rng, schema):
    t = _any(rng, schema)
    n = pick(rng, t.of("number"))
    return {"p": t.plural, "n": n.phrase}, f"SELECT sum({n.name}) FROM {t.name}"


@kind(
    ["What are the maximum and minimum {n} of {p}?", "Find the maximum and minimum {n} of all {p}."],
    ["Upper and lower bound of {n} for {p}.", "From what top to what bottom does {n} run for {p}?"],
)
def extremes(rng, schema):
    t = _any(rng, schema)
    n = pick(rng, t.of("number"))
    return {"p": t.plural, "n": n.phrase}, f"SELECT max({n.name}), min({n.name}) FROM {t.name}"


@kind(
    ["Find the {l} of {p} with {n} greater than {v}.", "Which {p} have {n} above {v}? Show the {l}."],
    ["{l} of {p} exceeding {v} in {n}.", "Screen {p} for {n} beyond {v} and report the {l}."],
)
def where_greater(rng, schema):
    t = _any(rng, schema)
    n, show = pick(rng, t.of("number")), _show(rng, t)
    v = threshold(rng, t, n)
    return {
        "p": t.plural,
        "l": show.phrase,
        "n": n.phrase,
        "v": v,
    }, f"SELECT {show.name} FROM {t.name} WHERE {n.name} > {v}"


@kind(
    ["How many {p} have {n} less than {v}?", "Count the {p} with {n} below {v}."],
    ["Headcount of {p} falling short of {v} in {n}.", "How large is the tail of {p} under {v} by {n}?"],
)
def count_less(rng, schema):
    t = _any(rng, schema)
    n = pick(rng, t.of("number"))
    v = threshold(rng, t, n)
    return {"p": t.plural, "n": n.phrase, "v": v}, f"SELECT count(*) FROM {t.name} WHERE {n.name} < {v}"


@kind(
    ["Find the {l} of {p} with {n} between {v} and {w}.", "Which {p} have {n} from {v} to {w}? Show the {l}."],
    ["{l} of {p} inside the {n} band {v} to {w}.", "Keep {p} whose {n} stays within {v} and {w}, report the {l}."],
)
def where_between(rng, schema):
    t = _any(rng, schema)
    n, show = pick(rng, t.of("number")), _show(rng, t)
    v, w = sorted((threshold(rng, t, n), threshold(rng, t, n)), key=int)
    slots = {"p": t.plural, "l": show.phrase, "n": n.phrase, "v": v, "w": w}
    return slots, f"SELECT {show.name} FROM {t.name} WHERE {n.name} BETWEEN {v} AND {w}"


@kind(
    [
        "Find the {l} of {p} whose {c} is {v} and {n} is greater than {w}.",
        "Show the {l} of {p} with {c} {v} and {n} above {w}.",
    ],
    [
        "{v} {p} by {c} that also exceed {w} in {n}: their {l}.",
        "Apply two filters to {p}, {c} {v} plus {n} beyond {w}, report {l}.",
    ],
)
def where_and(rng, schema):
    t = _any(rng, schema)
    c, n = pick(rng, t.of("category")), pick(rng, t.of("number"))
    show = pick(rng, [x for x in t.of("label", "category") if x is not c])
    v, w = value_of(rng, t, c), threshold(rng, t, n)
    slots = {"p": t.plural, "l": show.phrase, "c": c.phrase, "v": v, "n": n.phrase, "w": w}
    return slots, f"SELECT {show.name} FROM {t.name} WHERE {c.name} = '{v}' AND {n.name} > {w}"


@kind(
    ["List the {l} of {p} in descending order of {n}.", "Show the {l} of all {p} sorted by {n} from high to low."],
    ["Rank {p} by {n}, biggest first, and print the {l}.", "{l} of {p}, leaders in {n} on top."],
)
def order_down(rng, schema):
    t = _any(rng, schema)
    n, show = pick(rng, t.of("number")), _show(rng, t)
    return {"p": t.plural, "l": show.phrase, "n": n.phrase}, f"SELECT {show.name} FROM {t.name} ORDER BY {n.name} DESC"


@kind(
    ["List the {l} of {p} in ascending order of {n}.", "Show the {l} of all {p} sorted by {n} from low to high."],
    ["Rank {p} by {n}, smallest first, and print the {l}.", "{l} of {p}, stragglers in {n} on top."],
)
def order_up(rng, schema):
    t = _any(rng, schema)
    n, show = pick(rng, t.of("number")), _show(rng, t)
    return {"p": t.plural, "l": show.phrase, "n": n.phrase}, f"SELECT {show.name} FROM {t.name} ORDER BY {n.name} ASC"


@kind(
    ["What is the {l} of the {s} with the highest {n}?", "Find the {l} of the {s} with the largest {n}."],
    ["Who or what leads {p} in {n}? Give the {l}.", "{l} of the champion among {p} by {n}."],
)
def highest(rng, schema):
    t = _any(rng, schema)
    n, show = pick(rng, t.of("number")), _show(rng, t)
    slots = {"p": t.plural, "s": t.singular, "l": show.phrase, "n": n.phrase}
    return slots, f"SELECT {show.name} FROM {t.name} ORDER BY {n.name} DESC LIMIT 1"


@kind(
    ["What is the {l} of the {s} with the lowest {n}?", "Find the {l} of the {s} with the smallest {n}."],
    ["Who or what trails {p} in {n}? Give the {l}.", "{l} of the last among {p} by {n}."],
)
def lowest(rng, schema):
    t = _any(rng, schema)
    n, show = pick(rng, t.of("number")), _show(rng, t)
    slots = {"p": t.plural, "s": t.singular, "l": show.phrase, "n": n.phrase}
    return slots, f"SELECT {show.name} FROM {t.name} ORDER BY {n.name} ASC LIMIT 1"


@kind(
    ["How many {p} are there for each {c}?", "Count the {p} of each {c}."],
    ["Break {p} down by {c} with headcounts.", "Distribution of {p} over {c}."],
)
def group_count(rng, schema):
    t = _any(rng, schema)
    c = pick(rng, t.of("category"))
    return {"p": t.plural, "c": c.phrase}, f"SELECT {c.name}, count(*) FROM {t.name} GROUP BY {c.name}"


@kind(
    ["What is the average {n} of {p} for each {c}?", "Show each {c} and the average {n} of its {p}."],
    ["Mean {n} of {p}, broken down by {c}.", "Profile {c} by the typical {n} of {p}."],
)
def group_average(rng, schema):
    t = _any(rng, schema)
    c, n = pick(rng, t.of("category")), pick(rng, t.of("number"))
    return {
        "p": t.plural,
        "c": c.phrase,
        "n": n.phrase,
    }, f"SELECT {c.name}, avg({n.name}) FROM {t.name} GROUP BY {c.name}"


@kind(
    ["Which {c} has the most {p}?", "Find the {c} with the largest number of {p}."],
    ["Top {c} by headcount of {p}.", "Where do {p} concentrate in terms of {c}?"],
)
def group_top(rng, schema):
    t = _any(rng, schema)
    c = pick(rng, t.of("category"))
    sql = f"SELECT {c.name} FROM {t.name} GROUP BY {c.name} ORDER BY count(*) DESC LIMIT 1"
    return {"p": t.plural, "c": c.phrase}, sql


@kind(
    ["Which {c} have more than {v} {p}?", "Find the {c} with more than {v} {p}."],
    ["{c} values backed by over {v} {p}.", "Crowded {c} values: those exceeding {v} {p}."],
)
def having(rng, schema):
    t = _any(rng, schema)
    c = pick(rng, t.of("category"))
    v = rng.randint(2, 5)
    return {
        "p": t.plural,
        "c": c.phrase,
        "v": v,
    }, f"SELECT {c.name} FROM {t.name} GROUP BY {c.name} HAVING count(*) > {v}"


@kind(
    ["Show the {l} of each {s} and the {m} of its {o}.", "List the {l} of {p} together with the {m} of their {o}."],
    ["Match {p} to {q}: {l} against {m}.", "Line up {l} of {p} with {m} of the {o} behind it."],
)
def join(rng, schema):
    child, parent, on = _pair(rng, schema)
    a, b = _show(rng, child), _show(rng, parent)
    slots = {
        "p": child.plural,
        "s": child.singular,
        "o": parent.singular,
        "q": parent.plural,
        "l": a.phrase,
        "m": b.phrase,
    }
    return slots, f"SELECT T1.{a.name}, T2.{b.name} {_from(child, parent, on)}"


@kind(
    ["Find the {l} of {p} whose {o} has {c} {v}.", "What is the {l} of {p} of the {o} with {c} {v}?"],
    ["Trace {p} back to {v} by {c} of the {o} and report the {l}.", "{l} of {p} hanging off {q} filed under {c} {v}."],
)
def join_where(rng, schema):
    child, parent, on = _pair(rng, schema)
    show, c = _show(rng, child), pick(rng, parent.of("category"))
    v = value_of(rng, parent, c)
    slots = {"p": child.plural, "o": parent.singular, "q": parent.plural, "l": show.phrase, "c": c.phrase, "v": v}
    return slots, f"SELECT T1.{show.name} {_from(child, parent, on)} WHERE T2.{c.name} = '{v}'"


@kind(
    [
        "Find the {l} of the {o} that has {p} with {n} greater than {v}.",
        "What is the {l} of {q} whose {s} has {n} above {v}?",
    ],
    ["{q} linked to {p} beyond {v} in {n}: their {l}.", "Name by {l} the {q} behind {p} exceeding {v} in {n}."],
)
def join_greater(rng, schema):
    child, parent, on = _pair(rng, schema)
    show, n = _show(rng, parent), pick(rng, child.of("number"))
    v = threshold(rng, child, n)
    slots = {
        "p": child.plural, "s": child.singular, "o": parent.singular, "q": parent.plural,
        "l": show.phrase, "n": n.phrase, "v": v,
    }  # fmt: skip
    return slots, f"SELECT T2.{show.name} {_from(child, parent, on)} WHERE T1.{n.name} > {v}"


@kind(
    ["For each {o}, show the {l} and the number of {p}.", "List the {l} of each {o} and how many {p} it has."],
    ["Break {p} down by {o}, using the {l}.", "Headcount of {p} under every {o}, by {l}."],
)
def join_count(rng, schema):
    child, parent, on = _pair(rng, schema)
    show = _show(rng, parent)
    sql = f"SELECT T2.{show.name}, count(*) {_from(child, parent, on)} GROUP BY T2.{parent.name}_id"
    return {"p": child.plural, "o": parent.singular, "l": show.phrase}, sql


@kind(
    ["What is the {l} of the {o} with the most {p}?", "Find the {l} of the {o} that has the largest number of {p}."],
    ["Busiest {o} in terms of {p}, by {l}.", "{l} of the {o} that {p} crowd around."],
)
def join_top(rng, schema):
    child, parent, on = _pair(rng, schema)
    show = _show(rng, parent)
    sql = (
        f"SELECT T2.{show.name} {_from(child, parent, on)} GROUP BY T2.{parent.name}_id ORDER BY count(*) DESC LIMIT 1"
    )
    return {"p": child.plural, "o": parent.singular, "l": show.phrase}, sql


@kind(
    ["Which {q} have more than {v} {p}? Show the {l}.", "Find the {l} of each {o} with more than {v} {p}."],
    ["{q} backed by over {v} {p}: their {l}.", "Crowded {q} exceeding {v} {p}, report the {l}."],
)
def join_having(rng, schema):
    child, parent, on = _pair(rng, schema)
    show, v = _show(rng, parent), rng.randint(1, 3)
    sql = f"SELECT T2.{show.name} {_from(child, parent, on)} GROUP BY T2.{parent.name}_id HAVING count(*) > {v}"
    return {"p": child.plural, "o": parent.singular, "q": parent.plural, "l": show.phrase, "v": v}, sql


@kind(
    [
        "Find the {l} of {p} with {n} above the average.",
        "Which {p} have {n} greater than the average {n}? Show the {l}.",
    ],
    ["{l} of {p} that beat the mean in {n}.", "Overachieving {p} by {n} against their mean: the {l}."],
)
def above_average(rng, schema):
    t = _any(rng, schema)
    n, show = pick(rng, t.of("number")), _show(rng, t)
    sql = f"SELECT {show.name} FROM {t.name} WHERE {n.name} > (SELECT avg({n.name}) FROM {t.name})"
    return {"p": t.plural, "l": show.phrase, "n": n.phrase}, sql


@kind(
    ["Find the {l} of {q} that have no {p}.", "Which {q} do not have any {p}? Show the {l}."],
    ["{q} without a single {s}: their {l}.", "Idle {q}, meaning no {p} attached, by {l}."],
)
def not_in(rng, schema):
    child, link = pick(rng, [(t, c) for t in schema.tables for c in t.of("link")])
    parent = schema.table(link.target)
    show = _show(rng, parent)
    sql = f"SELECT {show.name} FROM {parent.name} WHERE {parent.name}_id NOT IN (SELECT {link.name} FROM {child.name})"
    return {"p": child.plural, "s": child.singular, "q": parent.plural, "l": show.phrase}, sql


@kind(
    ["Which {c} have both {p} with {n} above {v} and {p} with {n} below {w}?", "Find the {c} of both {p} with {n} over {v} and {p} with {n} under {w}."],
    ["{c} values shared by {p} beyond {v} in {n} and {p} short of {w}.", "Where in {c} do {p} above {v} and under {w} by {n} meet?"],
    seen=False,
)  # fmt: skip
def intersect(rng, schema):
    t = _any(rng, schema)
    c, n = pick(rng, t.of("category")), pick(rng, t.of("number"))
    v, w = threshold(rng, t, n), threshold(rng, t, n)
    sql = f"SELECT {c.name} FROM {t.name} WHERE {n.name} > {v} INTERSECT SELECT {c.name} FROM {t.name} WHERE {n.name} < {w}"
    return {"p": t.plural, "c": c.phrase, "n": n.phrase, "v": v, "w": w}, sql


@kind(
    ["Find the {l} of {q} that do not have any {s} with {c} {v}.", "Which {q} have no {p} with {c} {v}? Show the {l}."],
    [
        "{q} never touched by {v} {p} in terms of {c}: their {l}.",
        "All {q} minus those with {v} {p} by {c}, report {l}.",
    ],
    seen=False,
)
def except_join(rng, schema):
    child, parent, on = _pair(rng, schema)
    show, c = _show(rng, parent), pick(rng, child.of("category"))
    v = value_of(rng, child, c)
    sql = (
        f"SELECT {show.name} FROM {parent.name} EXCEPT SELECT T2.{show.name} {_from(child, parent, on)} "
        f"WHERE T1.{c.name} = '{v}'"
    )
    slots = {"p": child.plural, "s": child.singular, "q": parent.plural, "l": show.phrase, "c": c.phrase, "v": v}
    return slots, sql


@kind(
    ["What is the {l} of the {o} with the most {p} whose {c} is {v}?", "Find the {l} of the {o} that has the most {p} with {c} {v}."],
    ["Busiest {o} counting {v} {p} by {c} alone, by {l}.", "{l} of the {o} leading in {v} {p} by {c}."],
    seen=False,
)  # fmt: skip
def join_where_top(rng, schema):
    child, parent, on = _pair(rng, schema)
    show, c = _show(rng, parent), pick(rng, child.of("category"))
    v = value_of(rng, child, c)
    sql = (
        f"SELECT T2.{show.name} {_from(child, parent, on)} WHERE T1.{c.name} = '{v}' "
        f"GROUP BY T2.{parent.name}_id ORDER BY count(*) DESC LIMIT 1"
    )
    return {"p": child.plural, "o": parent.singular, "l": show.phrase, "c": c.phrase, "v": v}, sql


def ask(rng: random.Random, schema: Schema, chosen: Kind, phrasings: tuple[str, ...]) -> tuple[str, str]:
    """Return a question of a kind in one of the phrasings and its SQL.

    Raises:
        Impossible: the schema lacks a column this kind of question needs.
    """
    slots, sql = chosen.build(rng, schema)
    text = rng.choice(phrasings).format(**slots)
    return text[0].upper() + text[1:], sql
