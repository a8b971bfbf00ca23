"""The Jinja2 environments: what a template fills in is shown as it is, whatever it says.

A page of HTML has `html_environment`. The templates of report and model card are Markdown: every filled-in value is
escaped for Markdown (`markdown`), unless a filter has already made Markdown of it (`code`, `fenced`) or Python
(`literal`). So a model's answer can neither end a table nor open a heading, and as it is a value and no template,
Jinja2 never reads it.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from present.catalogue import Column, columns
from present.format import Say, defects, missing
from present.tables import pipes

FOLDER = Path(__file__).parent / "templates"
# Control characters, surrogates, and what is not seen but changes what is: direction, joining, line separators.
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
# Paragraphs, lists and code alone: a name in a note is no link and no emphasis.
_NOTES = MarkdownIt("zero").enable(["list", "backticks"])


class Numbers(dict):
    """The numbers of figures, tables or references: `table.seeds` is the next free number where it is first named."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self) + 1
        return self[name]


class Compiled(BytecodeCache):
    """Templates that this process has compiled: a report fills in the same ones in several sizes."""

    def __init__(self):
        self.codes = {}

    def load_bytecode(self, bucket):
        bucket.code = self.codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket):
        self.codes[bucket.key, bucket.checksum] = bucket.code


@cache
def compiled(language: str, escaping: str) -> Compiled:
    """Those of one language and one way to escape: both, and words of the language, are compiled in."""
    return Compiled()


class Part(NamedTuple):
    """The rows of a table that are shown; `shown` of `all` ranks."""

    rows: Sequence[Mapping[str, Any]]
    shown: int
    all: int


def fit(rows: Sequence[Mapping[str, Any]], most: int) -> Part:
    """Choose about `most` rows: those of the first ranks, and those without a `rank`."""
    ranks = Counter(row["rank"] for row in rows if row.get("rank") is not None)
    most = max(1, most // max(ranks.values(), default=1))
    kept = [row for row in rows if row.get("rank") is None or row["rank"] < most]
    return Part(kept, min(most, len(ranks)), len(ranks))


def render(template: str, say: Say, values: Mapping[str, Any]) -> str:
    """Fill in a template of `templates/`, with the numbers and words of `say`.

    Raises:
        jinja2.UndefinedError: the template names a value that is not there.
    """
    page = (
        environment(say).get_template(template).render(table=Numbers(), figure=Numbers(), reference=Numbers(), **values)
    )
    # Where a condition left lines empty, one of them stays; code blocks are as they are.
    page = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$|\n{3,}", lambda found: found[0] if found[1] else "\n\n", page)
    return page.strip() + "\n"


def environment(say: Say) -> Environment:
    """The environment of Markdown in one language; `fit` chooses rows, `found` those with one of some verdicts."""
    # With autoescape, text of macros and blocks is known as Markdown; `finalize` escapes all else before Jinja2 would.
    made = _environment(say, "md", autoescape=True, finalize=_finalize)
    made.filters |= {"code": code, "fenced": fenced, "literal": literal, "shortened": shortened}
    made.filters |= {"listed": partial(listed, say), "table": partial(table, say)}
    made.filters["found"] = lambda rows, *findings: [row for row in rows if row["finding"] in findings]
    made.tests["missing"] = missing
    made.globals["fit"] = fit
    made.globals["defects"] = lambda *lists: Markup(defects(*(list(map(markdown, one)) for one in lists), say))
    return made


def html_environment(say: Say) -> Environment:
    """The environment of HTML; `note` makes HTML of a note, `inline` of a text with code in backticks."""
    made = _environment(say, "html", autoescape=select_autoescape(["html.j2"]), keep_trailing_newline=True)
    made.filters["note"] = lambda text: Markup(_NOTES.render(text).strip())
    made.filters["inline"] = lambda text: Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))
    made.globals["zip"] = zip
    return made


def _environment(say: Say, kind: str, **options: Any) -> Environment:
    """What both have: `say`, its methods as filters, and that an unknown name is an error."""
    options |= {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    made = Environment(loader=FileSystemLoader(FOLDER), bytecode_cache=compiled(say.language, kind), **options)
    made.filters |= {name: getattr(say, name) for name in dir(Say) if not name.startswith("_")}
    made.globals["say"] = say
    return made


def listed(say: Say, names: Iterable[Any], most: int = 4, write: Callable[[Any], Any] | None = None) -> Markup:
    """Write names as a list in a sentence (see `Say.listed`), each as the macro `write` has it."""
    return Markup(say.listed([_finalize(write(name) if write else name) for name in names], most))


def table(say: Say, rows: Sequence[Mapping[str, Any]], names: str, more: Sequence[Column] = ()) -> Markup:
    """Write rows as a table with those columns of the catalogue, and `more`, that have a value in any row."""
    every = [*columns(names), *more]
    shown = [one for one in every if any(value not in (None, "") for row in rows for value in one.values(row))] or every

    def cell(row: Mapping[str, Any], one: Column) -> str:
        # Code is escaped otherwise than text.
        return code(*one.values(row)) if one.format == "code" else markdown(one.text(row, say))

    cells = [[cell(row, one) for one in shown] for row in rows]
    return Markup(pipes([markdown(one.title(say)) for one in shown], cells, shown))


def shortened(body: str, most: int = 300) -> str:
    """Put a text on one line and leave out the end of a long one."""
    body = " ".join(body.split())
    return body if len(body) <= most else f"{body[:most]}…"


def _finalize(value: Any) -> Markup:
    return value if isinstance(value, Markup) else Markup(markdown(value))


def markdown(body: object) -> str:
    """Write text as Markdown that shows it as it is, on one line."""
    body = re.sub(r"([\\`*_\[\]<>#~&!|$])", r"\\\1", visible(str(body)).replace("\n", " "))
    # At the head of a line these would begin a list or underline a heading.
    return re.sub(r"^(\s*\d+)(?=[.)]\s)", r"\1\\", re.sub(r"^(\s*)([-+=])(?=[\s=-])", r"\1\\\2", body))


def code(body: object) -> Markup:
    """Write text as inline code, whatever backticks it holds; with a bar, which would end a cell, as plain text."""
    body = visible(str(body)).replace("\n", " ")
    if not body or "|" in body:
        return Markup(markdown(body))
    ticks = "`" * (1 + max(map(len, re.findall("`+", body)), default=0))
    space = " " if body[:1] in ("`", " ") or body[-1:] in ("`", " ") else ""
    return Markup(f"{ticks}{space}{body}{space}{ticks}")


def fenced(body: str, language: str = "text", most: int | None = None) -> Markup:
    """Write text as a code block that nothing in the text can close; of a long one the first `most` characters."""
    body = visible(body if most is None or len(body) <= most else body[:most] + "…")
    ticks = "`" * (1 + max([2, *map(len, re.findall("`+", body))]))
    return Markup(f"{ticks}{language}\n{body}\n{ticks}")


def literal(value: Any) -> Markup:
    """Write text, a number or a list of them as Python code, text in double quotes."""
    return Markup(json.dumps(value, ensure_ascii=False))


def visible(body: str) -> str:
    """Write characters that cannot be shown or encoded as `\\uXXXX`; newlines and tabs stay.

    Signs that turn the direction of writing are among them: they would turn what follows the text as well.
    """
    body = body.replace("\r\n", "\n").replace("\r", "\n")
    return _HIDDEN.sub(lambda found: escaped(found[0]), body)


def escaped(character: str) -> str:
    """Write a character as `\\uXXXX` or `\\UXXXXXXXX`."""
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
