"""Put all tables of a study on one page that needs no network and no other file."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd

import _path  # noqa: F401
from common.files import atomic_write
from common.job import job
from present.sheets import SAME, WORDS, Block, Notes, Sheet, read_table, sheet, trained

# What each chapter is called in the list of contents.
CHAPTERS = {
    "recommendation": "Recommendation",
    "regression": "Against the base",
    "exchange": "Exchange rate",
    "factors": "Swept settings",
    "seeds": "Seeds",
    "execution_accuracy": "Execution accuracy",
    "databases": "By database",
    "mmlu": "MMLU",
    "errors": "Errors",
    "flips": "Gained and lost",
    "confusion": "Change of classes",
    "harness": "Other tasks",
    "cost": "Cost",
}
# Chapters with more tables than this are folded.
MOST_OPEN = 6


def tables_page(
    csv: Mapping[str, str | Path],
    style: str | Path,
    page: str | Path,
    study: str,
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
) -> None:
    """Write `page` from the CSV files of `tables` and `cost`, and of `recommend` and `harness` if there are, by name.

    `style` is its style sheet.
    """
    frames = {name: read_table(csv[name]) for name in CHAPTERS if name in csv}
    notes = Notes(study, frames["execution_accuracy"], frames["mmlu"])
    sheets = {name: sheet(name, frame, notes) for name, frame in frames.items()}
    runs = trained(frames["execution_accuracy"])[["model", "variant"]].drop_duplicates()
    contents = "".join(f'<li><a href="#{name}">{escape(CHAPTERS[name])}</a></li>' for name in sheets)
    rules = Path(style).read_text(encoding="utf-8")
    with atomic_write(page) as stream:
        stream.write(
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="color-scheme" content="light dark">\n<title>Tables: {escape(study)}</title>\n'
            f"<style>\n{rules}</style>\n</head>\n<body>\n<header>\n<p class=kicker>LoRA trade-off</p>\n"
            f"<h1>Tables of {escape(study)}</h1>\n<dl>{facts(runs, notes)}</dl>\n"
            f"{defects(known_defects, accept_defect)}</header>\n"
            f'<nav aria-label="Tables"><ul>{contents}</ul></nav>\n<main>\n'
            + "\n".join(chapter(name, one, study) for name, one in sheets.items())
            + "\n</main>\n</body>\n</html>\n"
        )


def facts(runs: pd.DataFrame, notes: Notes) -> str:
    """Return what all tables share, as a list of terms and values."""
    adapters = int((runs["variant"] != "base").sum())
    shared = {
        "Models": ", ".join(dict.fromkeys(runs["model"])),
        "Adapters": str(adapters),
        "Spider questions": str(notes.n_spider),
        "MMLU questions": str(notes.n_mmlu),
        "Semantics": notes.semantics.replace("_", " "),
        "Intervals": notes.percent,
    }
    return "".join(f"<div><dt>{term}</dt><dd>{escape(value)}</dd></div>" for term, value in shared.items())


def defects(known: Sequence[str], accepted: Sequence[str]) -> str:
    """Return what must stand over every result of a study with known defects; nothing for one without."""
    parts = []
    if accepted:
        parts.append(
            f"<p><strong>This study runs although its audit may fail: {escape(', '.join(accepted))}.</strong> What the "
            "audit found stands in <code>runs/&lt;model&gt;/audit_labels.json</code>.</p>"
        )
    if known:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in known)
        parts.append(f"<p><strong>Known defects of this method</strong></p><ul>{items}</ul>")
    return f"<aside class=defects>{''.join(parts)}</aside>\n" if parts else ""


def chapter(name: str, one: Sheet, study: str) -> str:
    """Return one sheet as a section."""
    blocks = [table_html(block, one.title) for block in one.blocks]
    if len(blocks) > MOST_OPEN:
        blocks = [
            f"<details><summary>{escape(block.above)}</summary>{table_html(block, one.title, above=False)}</details>"
            for block in one.blocks
        ]
    return (
        f"<section id={name}>\n<h2>{escape(one.title.removesuffix(f': {study}'))}</h2>\n"
        + "\n".join(blocks)
        + f"\n<div class=notes>{notes_html(one)}"
        f'<p>Full precision: <a href="tables/{name}.csv"><code>tables/{name}.csv</code></a></p></div>\n</section>'
    )


def notes_html(one: Sheet) -> str:
    """Return a sheet's notes: in sight what the rows are about and what qualifies a verdict, the rest folded."""
    about = [text for text in one.notes if text.startswith("n = ")]
    qualified = [text for text in one.notes if text.startswith("†")]
    rest = [text for text in one.notes if text not in about + qualified]
    if not one.blocks or not about:
        return "".join(map(paragraph, one.notes))
    short = []
    for text in about:
        found = re.match(r"(n = \d+ \w+ questions).*sha256 `(\w{12})(\w+)`", text)
        semantics = re.search(r"([\w ]+ semantics):", text)
        parts = [found[1], *([semantics[1].strip().lower()] if semantics else [])]
        short.append(f"{' · '.join(map(escape, parts))} · data <code title={found[2]}{found[3]}>{found[2]}…</code>")
    lines = f"<p class=about>{'<br>'.join(short)}</p>" if short else ""
    lines += "".join(map(paragraph, qualified))
    folded = "".join(map(paragraph, [*rest, *about]))
    return f"{lines}<details><summary>How to read this table</summary>{folded}</details>"


def paragraph(text: str) -> str:
    """Return a note as HTML: paragraphs, lists of "- ", and code in backticks."""
    parts = []
    for piece in text.split("\n\n"):
        if piece.startswith("- "):
            parts.append("<ul>" + "".join(f"<li>{inline(line[2:])}</li>" for line in piece.split("\n")) + "</ul>")
        else:
            parts.append(f"<p>{inline(piece)}</p>")
    return "".join(parts)


def inline(text: str) -> str:
    """Return text as HTML, with what stands in backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def table_html(block: Block, title: str, above: bool = True) -> str:
    """Return one table: the run as the row's heading, intervals drawn where the block says so."""
    table = block.table
    one_model = "Model" in table and table["Model"].nunique() < 2
    heading = [column for column in ("Model", "Variant") if column in table]
    columns = [column for column in table if column not in heading]
    if not heading:
        heading, columns = columns[:1], columns[1:]
    spans = {column: span(block.bars[column]) for column in columns if column in block.bars}
    label = "Run" if "Variant" in table else heading[0]
    cells = [f"<th scope=col>{inline(label)}</th>"]
    # The number of questions stays in one piece.
    titles = [
        inline(re.sub(r"\(n = \d+\) %", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), column))
        for column in columns
    ]
    cells += [f"<th scope=col{words(column)}>{title}</th>" for column, title in zip(columns, titles, strict=True)]
    rows, last = [], None
    records = table.to_dict("records")
    for number, row in enumerate(records):
        if heading[0] == "Model":
            model = "" if one_model else f"<span class=model>{escape(row['Model'])}</span> "
            # A name may break before its sign for a point, as it may after a hyphen.
            variant = escape(row.get("Variant", "")).replace("@", "<wbr>@")
            run = model + f"<span class=variant>{variant}</span>"
            if "Variant" not in row:
                run = escape(row["Model"])
        else:
            run = inline(row[heading[0]])
        first = " class=first" if run != last and number else ""
        repeated = " class=again" if run == last else ""
        last = run
        body = "".join(
            f"<td{words(column)}>{cell(column, row[column])}"
            + (bar(*block.bars[column][number], *spans[column]) if column in spans else "")
            + "</td>"
            for column in columns
        )
        rows.append(f"<tr{first}><th scope=row{repeated}>{run}</th>{body}</tr>")
    lead = f"<p class=lead>{inline(block.above)}</p>" if above and block.above else ""
    name = escape(block.above or title, quote=True)
    return (
        f'{lead}<div class=scroll tabindex=0 role=region aria-label="{name}"><table><thead><tr>{"".join(cells)}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def words(column: str) -> str:
    """Return the class of a column of words."""
    return " class=words" if column in WORDS else ""


# The sign says in grey what the colour says.
VERDICTS = {
    "better": ("up", "▲"),
    "higher": ("up", "▲"),
    "worse": ("down", "▼"),
    "lower": ("down", "▼"),
    SAME: ("same", "◦"),
}


def cell(column: str, text: str) -> str:
    """Return a cell's text; a verdict with its sign, an interval paler than its value."""
    verdict = text.removesuffix(" †")
    if column == "Verdict" and verdict in VERDICTS:
        kind, sign = VERDICTS[verdict]
        shown = escape(text).replace(" †", "&nbsp;†")
        return f'<span class="verdict {kind}"><span aria-hidden=true>{sign}</span> {shown}</span>'
    text = re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
    found = re.fullmatch(r"(.+?) (\(.* to .*\))", text)
    if found:
        return f"{escape(found[1])} <span class=interval>{escape(found[2])}</span>"
    return escape(text)


def span(bars: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Return the range that holds all intervals: 0 to 100 for accuracies, 0 in the middle for differences."""
    low = min((low for low, _, _ in bars if not pd.isna(low)), default=0.0)
    if low >= 0 and max((high for _, _, high in bars if not pd.isna(high)), default=0.0) > 0 and low != 0:
        return 0.0, 100.0
    most = max((abs(value) for bar in bars for value in bar if not pd.isna(value)), default=1.0) or 1.0
    return -most, most


def bar(low: float, middle: float, high: float, start: float, end: float) -> str:
    """Return an interval as a small picture: a line from low to high, a mark at the middle, a tick at 0."""
    if pd.isna(middle):
        return ""

    def x(value: float) -> float:
        return round(2 + 96 * (value - start) / (end - start), 1)

    zero = (
        f"<line class=zero x1={x(0)} x2={x(0)} y1=0 y2=10 />"
        if start < 0
        else "<line class=zero x1=2 x2=98 y1=5 y2=5 />"
    )
    return (
        f'<svg class=bar viewBox="0 0 100 10" aria-hidden=true>{zero}'
        f"<line class=range x1={x(low)} x2={x(high)} y1=5 y2=5 />"
        f"<circle cx={x(middle)} cy=5 r=3 /></svg>"
    )


if __name__ == "__main__":
    with job(snakemake.log[0]):
        tables_page(
            csv=dict(snakemake.input.items()),
            style=Path(__file__).resolve().parents[1] / "present/tables_page.css",
            page=snakemake.output.page,
            **snakemake.params.settings,
        )
