"""A report's Markdown as PDF, by typst: the very text of report.md, or a shorter one that fits its pages.

`read_blocks` turns Markdown into plain values, which `templates/report.typ` draws. Nothing is ever evaluated by typst:
texts become its `text` or `raw` elements. Comments such as `<!-- table wide -->` … `<!-- end -->`, which no reader of
the page sees, say what belongs together and how it is set: `abstract`, `pipeline`, `table`, `figure`, `entry`. After
`<!-- unnumbered -->` headings have no numbers.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import typst
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from present.templates import FOLDER, escaped

MOST_PAGES = 10
REGIONS = {"en": "us", "pt": "br"}
# What the fonts built into typst can draw: Latin, Greek, Cyrillic, punctuation, currencies, letter-like signs, arrows,
# mathematics, boxes and shapes. Neither combining marks, which pile up, nor signs that turn the direction of writing.
_DRAWN = re.compile(
    r"[\n\x20-\x7e\xa0-\xac\xae-\u024f\u0370-\u03ff\u0400-\u0482\u048a-\u04ff\u1e00-\u1eff"
    r"\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2100-\u214f\u2190-\u22ff\u2500-\u25ff]"
)


class ReportSize(NamedTuple):
    """How much of a report is shown."""

    rows: int  # of a table with one or more of each adapter
    failures: int  # adapters in the error analysis
    prompt: int  # characters of a prompt
    answer: int  # characters of a query or an answer
    items: int  # of a list with one of each adapter or contrast
    further: bool  # whether the appendix holds what the chapters do not need
    figure: int  # millimetres that a figure may be high on paper; 0 is the page on the screen, with its links


SCREEN = ReportSize(rows=200, failures=10**9, prompt=6000, answer=1200, items=10**9, further=True, figure=0)
# From roomy to narrow; a PDF has the first with which it has no more than `MOST_PAGES` pages.
SIZES = (
    ReportSize(24, 1, 1800, 600, 8, True, 225),
    ReportSize(20, 1, 1400, 500, 8, True, 130),
    ReportSize(20, 1, 1400, 500, 8, False, 130),
    ReportSize(14, 1, 1000, 400, 6, False, 110),
    ReportSize(5, 1, 400, 160, 3, False, 80),
)


def fitted_pdf(page: Callable[[ReportSize], str], folder: Path, language: str) -> tuple[bytes, int]:
    """The PDF of a report, and its pages: with the first size that fits `MOST_PAGES` pages, or with the last.

    `page` writes the report in a size, as Markdown. The paths of its figures begin in `folder`; beside each SVG lies a
    PDF. Equal reports make equal bytes.
    """
    for size in SIZES:
        pdf, pages = to_pdf(page(size), folder, language, size.figure)
        if pages <= MOST_PAGES:
            break
    return pdf, pages


def to_pdf(markdown: str, folder: Path, language: str, highest: int = 225) -> tuple[bytes, int]:
    """Typeset a page of Markdown whose figures are at most `highest` mm high; see `fitted_pdf`."""
    body = read_blocks(markdown)
    for block in body:
        if block["kind"] == "figure":
            block["path"] = (folder / block["path"]).resolve().with_suffix(".pdf").as_posix()
    data = {"language": language, "region": REGIONS[language], "highest": highest, "body": body}
    inputs = {"report": json.dumps(data)}
    compiler = typst.Compiler(FOLDER / "report.typ", root="/", ignore_system_fonts=True, sys_inputs=inputs)
    # The epoch: the date of a report is that of its results, and equal results make equal files.
    pdf = compiler.compile(format="pdf", timestamp=0)
    return pdf, json.loads(compiler.query("<pages>", field="value", one=True))


def read_blocks(markdown: str) -> list[dict[str, Any]]:
    """Read Markdown as blocks: dicts with a `kind` whose running text is spans, (kind, text) in a row.

    Kinds: heading, paragraph, list, code, stamp (a quotation), and those that comments name.
    """
    blocks: list[dict[str, Any]] = []
    group: dict[str, Any] | None = None
    numbered = True
    for node in SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(markdown)):
        if node.type != "html_block":
            block = _block(node)
            (blocks if group is None else group["parts"]).append(block)
            if block["kind"] == "heading":
                block["numbered"] = numbered
            continue
        kind, *more = node.content.strip().removeprefix("<!--").removesuffix("-->").split()
        if kind == "unnumbered":
            numbered = False
        elif kind == "end":
            # The first figure stays below the abstract, and those of the appendix, where there is little text, where
            # they are.
            floats = numbered and any(block["kind"] == "heading" and block["level"] > 1 for block in blocks)
            blocks.append(_joined(group) | {"floats": floats})
            group = None
        else:
            group = {"kind": kind, "wide": "wide" in more, "parts": []}
    return blocks


def _joined(group: dict[str, Any]) -> dict[str, Any]:
    """Put the parts of a table or a figure into one block, with its caption."""
    parts = group.pop("parts")
    if group["kind"] == "table":
        caption, table, *notes = parts
        rows = [row[0] for row in table["rows"]]
        # A thin line where the next adapter begins, in tables that have several rows of each.
        new = [i for i in range(1, len(rows)) if rows[i] != rows[i - 1]]
        groups = new if len(new) + 1 < len(rows) else []
        return table | group | {"caption": caption["body"], "groups": groups, "notes": [n["body"] for n in notes]}
    if group["kind"] in ("figure", "pipeline"):
        return parts[0] | group | {"caption": parts[1]["body"]}
    return group | {"parts": parts}


def _block(node: SyntaxTreeNode) -> dict[str, Any]:
    if node.type == "heading":
        return {"kind": "heading", "level": int(node.tag[1]), "body": _spans(node)}
    if node.type == "fence":
        return {"kind": "code", "body": drawable(node.content.removesuffix("\n"))}
    if node.type in ("bullet_list", "ordered_list"):
        return {"kind": "list", "items": [_spans(item) for item in node]}
    if node.type == "blockquote":
        return {"kind": "stamp", "parts": [_block(child) for child in node]}
    if node.type == "table":
        head, *body = [row.children for part in node for row in part]
        columns = [
            {"title": _spans(cell), "align": "right" if "right" in str(cell.attrs.get("style")) else "left"}
            for cell in head
        ]
        return {"kind": "table", "columns": columns, "rows": [[_spans(cell) for cell in row] for row in body]}
    images = [child for inline in node for child in inline if child.type == "image"]
    if images:
        return {"kind": "figure", "path": str(images[0].attrs["src"]), "alt": drawable(images[0].content)}
    return {"kind": "paragraph", "body": _spans(node)}


def _spans(node: SyntaxTreeNode, kind: str = "text") -> list[tuple[str, str]]:
    """Read running text; neighbours of one kind are one span."""
    if node.type == "code_inline":
        return [("code", drawable(node.content))]
    if node.type == "text":
        return [(kind, drawable(node.content))]
    if node.type in ("softbreak", "hardbreak"):
        return [(kind, " ")]
    kind = {"strong": "strong", "em": "emph"}.get(node.type, kind)
    spans: list[tuple[str, str]] = []
    for child in node:
        for name, body in _spans(child, kind):
            if spans and spans[-1][0] == name != "code":
                spans[-1] = (name, spans[-1][1] + body)
            elif body:
                spans.append((name, body))
    return spans


def drawable(body: str) -> str:
    """Write text with the characters that typst's own fonts have; any other as `\\uXXXX` or `\\UXXXXXXXX`."""
    return "".join(c if _DRAWN.match(c) else escaped(c) for c in body.replace("\t", "    "))
