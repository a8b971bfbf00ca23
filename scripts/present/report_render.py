"""Write a report's blocks (see `present.report_content`) as Markdown and, with typst, as PDF."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import typst

from present.report_text import REGIONS, Language, Spans, joined, text

MOST_PAGES = 10
# What lies beside report.md for who wants more.
LINKS = ("report.pdf", "tables.html", "answers.html")
# Control characters, surrogates, and what is not seen but changes what is: direction, joining, line separators.
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Room:
    """How much of a report is shown.

    Attributes:
        rows: adapters in a table with a row of each.
        failures: adapters in the error analysis.
        prompt, answer: characters of a prompt, and of a query or an answer.
        items: entries of a list with one of each adapter or contrast.
        figure: millimetres that a figure may be high.
    """

    rows: int
    failures: int
    prompt: int
    answer: int
    items: int
    figure: int


EVERYTHING = Room(rows=200, failures=10**9, prompt=6000, answer=1200, items=10**9, figure=0)
# From roomy to narrow; a PDF has the first with which it has no more than `MOST_PAGES` pages.
ROOMS = (
    Room(rows=24, failures=5, prompt=3000, answer=700, items=12, figure=225),
    Room(rows=20, failures=3, prompt=2400, answer=500, items=12, figure=225),
    Room(rows=14, failures=2, prompt=1600, answer=400, items=8, figure=180),
    Room(rows=10, failures=1, prompt=1000, answer=300, items=6, figure=120),
    Room(rows=5, failures=1, prompt=400, answer=160, items=3, figure=80),
)


def fitted(report: Mapping[str, Any], room: Room, say: Language) -> dict[str, Any]:
    """Return a report with no more than there is room for; each thing left out is said, and where it is."""
    return {
        **report,
        "highest": room.figure,
        "body": [made for block in report["body"] for made in _fitted(block, room, say)],
    }


def _fitted(block: Mapping[str, Any], room: Room, say: Language) -> Iterable[dict[str, Any]]:
    if block.get("rank") is not None and block["rank"] >= room.failures:
        return
    if block["kind"] == "shown":
        if block["all"] > room.failures:
            key = "failures_shown_one" if room.failures == 1 else "failures_shown"
            yield {"kind": "paragraph", "body": say(key, all=block["all"], shown=room.failures)}
    elif block["kind"] == "list" and block.get("most") and len(block["items"]) > room.items:
        more = say("more", n=len(block["items"]) - room.items)
        yield {**block, "items": [*block["items"][: room.items], joined(more, text("…"))]}
    elif block["kind"] == "table":
        ranks = [row["rank"] for row in block["rows"] if row["rank"] is not None]
        each = max((ranks.count(rank) for rank in set(ranks)), default=1)
        most = max(1, room.rows // each)
        shown = [row for row in block["rows"] if row["rank"] is None or row["rank"] < most]
        left_out = len(set(ranks)) > most
        more = say(block["more"], shown=most, all=len(set(ranks)), file=block["file"]) if left_out else []
        yield {**block, "rows": shown, "note": joined(block["note"], more)}
    elif block["kind"] == "code" and len(block["body"]) > (most := getattr(room, block["most"])):
        yield {**block, "body": block["body"][:most] + "…"}
        more = say.whole(len(block["body"]) - most)
        where = block.get("where")
        note = say("cut_from", n=more, where=where) if where else say("cut", n=more)
        yield {"kind": "label", "body": note}
    else:
        yield dict(block)


# -- Markdown ------------------------------------------------------------------------------------------------------


def to_markdown(report: Mapping[str, Any], language: str, figures: str) -> str:
    """Return the report as a Markdown page; its figures are linked as `figures`/<name>.svg."""
    say = Language(language)
    parts = [f"# {markdown(report['title'])}: {markdown(report['study'])}", spans_markdown(report["byline"])]
    parts.append(" · ".join(f"[{say.plain(f'link_{name}')}]({name})" for name in LINKS))
    if report["stamp"]:
        lines = [f"**{markdown(report['stamp']['title'])}**", ""]
        lines += [f"* {spans_markdown(item)}" for item in report["stamp"]["items"]]
        parts.append("\n".join(f"> {line}".rstrip() for line in lines))
    parts.append(f"**{report['abstract']['label']}.** {spans_markdown(report['abstract']['body'])}")
    parts += [_block_markdown(block, figures) for block in fitted(report, EVERYTHING, say)["body"]]
    return "\n\n".join(parts) + "\n"


def _block_markdown(block: Mapping[str, Any], figures: str) -> str:
    kind = block["kind"]
    if kind == "heading":
        return f"{'#' * (block['level'] + 1)} {markdown(block['text'])}"
    if kind in ("paragraph", "detail", "label"):
        link = f" [↗](answers.html#task=spider&q={quote(block['question'])})" if "question" in block else ""
        return spans_markdown(block["body"]) + link
    if kind == "list":
        return "\n".join(f"- {spans_markdown(item)}" for item in block["items"])
    if kind == "code":
        return fenced(block["body"], block["language"])
    caption = f"**{block['label']}.** {spans_markdown(block['caption'])}."
    if kind == "figure":
        name = Path(block["path"]).stem
        return f"![{markdown(spans_plain(block['caption']))}]({figures}/{name}.svg)\n\n{caption}"
    if kind == "pipeline":
        stages = (" | ".join(spans_markdown(step["title"]) for step in stage) for stage in block["stages"])
        return f"{' → '.join(stages)}\n\n{caption}"
    titles = [markdown(column["title"]) for column in block["columns"]]
    # A bar would end the cell, in code too.
    rows = [[spans_markdown(cell).replace("|", "\\|") for cell in row["cells"]] for row in block["rows"]]
    table = pd.DataFrame(rows, columns=titles).to_markdown(
        index=False, disable_numparse=True, colalign=[column["align"] for column in block["columns"]]
    )
    return "\n\n".join(filter(None, [caption, table if rows else "", spans_markdown(block["note"])]))


def spans_plain(spans: Spans) -> str:
    """Return spans as text."""
    return "".join(body for _, body in spans)


def spans_markdown(spans: Spans) -> str:
    """Return spans as Markdown that shows each text as it is."""
    wrap = {
        "text": markdown,
        "code": code_span,
        "strong": lambda body: f"**{markdown(body)}**",
        "emph": lambda body: f"*{markdown(body)}*",
    }
    return "".join(wrap[kind](body) for kind, body in spans)


def markdown(body: object) -> str:
    """Return text as Markdown that shows it as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>#~&!])", r"\\\1", visible(str(body)).replace("\n", " "))


def code_span(body: object) -> str:
    """Return text as an inline code span, whatever backticks it holds."""
    body = visible(str(body)).replace("\n", " ")
    ticks = "`" * (1 + max(map(len, re.findall("`+", body)), default=0))
    space = " " if body.startswith("`") or body.endswith("`") or not body.strip() else ""
    return f"{ticks}{space}{body or ' '}{space}{ticks}"


def fenced(body: str, language: str = "text") -> str:
    """Return text as a fenced code block that nothing in the text can close."""
    body = visible(body)
    ticks = "`" * (1 + max([2, *map(len, re.findall("`+", body))]))
    return f"{ticks}{language}\n{body}\n{ticks}"


def visible(body: str) -> str:
    """Return text with characters that cannot be shown or encoded as `\\uXXXX`; newlines and tabs stay.

    Signs that turn the direction of writing count as such: they would turn what follows the text as well.
    """
    body = body.replace("\r\n", "\n").replace("\r", "\n")
    return _HIDDEN.sub(lambda found: _escaped(found[0]), body)


# -- PDF -----------------------------------------------------------------------------------------------------------

# What the fonts built into typst can draw: Latin, Greek, Cyrillic, punctuation, currencies, letter-like signs, arrows,
# mathematics, boxes and shapes. Neither combining marks, which pile up, nor signs that turn the direction of writing.
_DRAWN = re.compile(
    r"[\n\x20-\x7e\xa0-\xac\xae-\u024f\u0370-\u03ff\u0400-\u0482\u048a-\u04ff\u1e00-\u1eff"
    r"\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2100-\u214f\u2190-\u22ff\u2500-\u25ff]"
)


def to_pdf(report: Mapping[str, Any], language: str, template: str | Path) -> tuple[bytes, int]:
    """Return the report as PDF, equal bytes for equal reports, and the number of its pages.

    Where it has more than `MOST_PAGES` pages, it is made again with less (see `ROOMS`). Figures and template may lie
    anywhere.
    """
    say = Language(language)
    for room in ROOMS:
        pdf, pages = _compile(fitted(report, room, say), language, Path(template).resolve())
        if pages <= MOST_PAGES:
            break
    return pdf, pages


def _compile(report: Mapping[str, Any], language: str, template: Path) -> tuple[bytes, int]:
    def drawn(value: Any) -> Any:
        if isinstance(value, str):
            return drawable(value)
        if isinstance(value, Mapping):
            return {key: item if key == "path" else drawn(item) for key, item in value.items()}
        return [drawn(item) for item in value] if isinstance(value, list | tuple) else value

    body = []
    for block in report["body"]:
        block = dict(block)
        if block["kind"] == "figure":
            block["path"] = Path(block["path"]).resolve().as_posix()
        if block["kind"] == "table":
            ranks = [row["rank"] for row in block["rows"]]
            # A thin line where the next adapter begins, in tables that have several rows of each.
            repeated = len(set(ranks)) < len(ranks) and None not in ranks
            block["groups"] = [i for i in range(1, len(ranks)) if repeated and ranks[i] != ranks[i - 1]]
            block["rows"] = [row["cells"] for row in block["rows"]]
        body.append(block)
    data = drawn({**report, "body": body, "running": f"{report['title']}: {report['study']}"})
    data |= {"language": language, "region": REGIONS[language]}
    compiler = typst.Compiler(template, root="/", ignore_system_fonts=True, sys_inputs={"report": json.dumps(data)})
    # The epoch: the date of a report is that of its results, and equal results make equal files.
    pdf = compiler.compile(format="pdf", timestamp=0)
    return pdf, json.loads(compiler.query("<pages>", field="value", one=True))


def drawable(body: str) -> str:
    """Return text of characters that typst's own fonts have; any other is written as `\\uXXXX` or `\\UXXXXXXXX`."""
    body = body.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
    return "".join(c if _DRAWN.match(c) else _escaped(c) for c in body)


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
