"""Fenced blocks of Markdown in a model's answer, also where fences are within a line, in a literal, or not closed."""

import re

# Looked at, from the beginning and from the end.
MAX_MARKS = 100
_MARK = re.compile(r"`{3,}|~{3,}")
_LINE_ENDS = re.compile(r"[ \t.]*\r?(?:\n|\Z)")
_LANGUAGE = re.compile(r"[ \t]*([A-Za-z][\w+#-]*)?[ \t]*(?:\{[^}\n]*\})?[ \t]*\r?(?=\n|\Z)")
_SQL = re.compile(r"[ \t]*(?:sql|sqlite3?|mysql|postgresql|postgres|plsql|tsql|duckdb)\b", re.IGNORECASE)
# Said before a block that is not the answer.
_ASIDE = re.compile(
    r"\balternativ|\banother (?:way|option|approach|version|possib)|\bequivalent|\bcan also\b|\bcould also\b"
    r"|\bif you (?:want|need|prefer|also|would|only|wish)|\bverify|\bdouble-check|\bto check\b|\bto test\b|\bsanity"
    r"|\b(?:option|method|approach|version|solution|alternative) (?:[2-9]|two|three|[B-D]\b)"
    r"|\bfor (?:example|instance|comparison)\b|\be\.g\.|\bsample (?:output|data|result)|\bincorrect\b|\bwrong\b"
    r"|\A\W*(?:or|and)\b[^\n]{0,80}\W*\Z",
    re.IGNORECASE,
)
# Said of a block that is the answer, whatever else is said.
_FINAL = re.compile(r"\b(?:final|corrected|revised|fixed|instead|should be|right query)\b", re.IGNORECASE)


def blocks(text: str, first_or_last: str = "last") -> tuple[list[str], list[str]]:
    """Return the fenced blocks of a text, the likeliest answer first, and the texts outside them.

    Args:
        first_or_last: which of several blocks is likelier. Blocks in another language than SQL come after the others,
            then those that the text before them calls an alternative, an example or a test, the first of these first.
    """
    found, outside, position = [], [], 0
    marks = list(_MARK.finditer(text))
    marks = marks[:MAX_MARKS] + marks[MAX_MARKS:][-MAX_MARKS:]
    at = 0
    while at < len(marks):
        opening = marks[at]
        lead = text[position : opening.start()]
        language = _LANGUAGE.match(text, opening.end())
        sql = None if language else _SQL.match(text, opening.end())
        begin = (language or sql or opening).end()
        close = _closing(text, marks, at, inline=language is None)
        end, position = (len(text),) * 2 if close is None else (marks[close].start(), marks[close].end())
        if close is not None and _opens(text, marks[close]) and close > at + 1:
            position = marks[close].start()
        outside.append(lead)
        is_sql = language is None or (language[1] or "sql").lower().startswith(("sql", "mysql", "postgres", "duckdb"))
        found.append((_is_aside(lead), not is_sql, len(found), text[begin:end]))
        if close is None:
            break
        at = close if position == marks[close].start() else close + 1
    else:
        outside.append(text[position:])

    def rank(block: tuple[bool, bool, int, str]) -> tuple:
        aside, other, number, _ = block
        return aside, other, number if aside or first_or_last == "first" else -number

    return [content for *_, content in sorted(found, key=rank)], outside


def _closing(text: str, marks: list[re.Match], opening: int, inline: bool) -> int | None:
    """Return which mark closes a block: one that ends a line, else the next one; None if none does."""
    for number in range(opening + 1, len(marks)):
        mark = marks[number]
        if mark[0][0] != marks[opening][0][0]:
            continue
        if inline or _LINE_ENDS.match(text, mark.end()) or _opens(text, mark):
            return number
    return opening + 1 if opening + 1 < len(marks) else None


def _opens(text: str, mark: re.Match) -> bool:
    """Tell whether a mark begins a line and names a language."""
    line = text[text.rfind("\n", 0, mark.start()) + 1 : mark.start()]
    language = _LANGUAGE.match(text, mark.end())
    return not line.strip(" \t>") and language is not None and language[1] is not None


def _is_aside(lead: str) -> bool:
    last = lead.strip()[-240:].rpartition("\n\n")[2] if "\n\n" in lead.strip()[-240:] else lead.strip()[-240:]
    return bool(_ASIDE.search(last)) and not _FINAL.search(last)
