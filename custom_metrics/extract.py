"""Take the SQL out of what a model answered.

Text alone does not tell where SQL ends: a blank line, a fence or `</s>` may stand in a literal. So pieces of the answer
are proposed, in the order in which a reader would look at them, and a `check`, the engine itself, says which of them is
one query. Nothing is completed or invented: the result is a piece of the answer, with the escapes of JSON, HTML or
Markdown undone where it was written in them.

The work is linear in the length of the answer: what is read of it, and how often, is bounded before a pattern sees it.
"""

import html
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice

from custom_metrics.fences import blocks
from custom_metrics.sandbox import MAX_SQL_CHARACTERS, prepare
from custom_metrics.sql_text import mended, tokens, words

# A longer answer is not looked into. Models write some 130,000 tokens at most.
MAX_ANSWER_CHARACTERS = 1_000_000
# Characters looked at in all, pieces that overlap counted again; pieces of an answer; starts tried in one; ends of one.
MAX_WORK = 1_000_000
MAX_PIECES = 200
MAX_STARTS = 40
MAX_ENDS = 60

# Error class of a text as SQL (`sandbox.Execution`), "" for one read-only query.
Check = Callable[[str], str]
# Classes of a text that is not one query; any other error is about the names in it, or what they are.
NOT_A_QUERY = ("syntax_error", "no_sql", "forbidden", "too_large")

_THOUGHT = r"(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis|rationale)"
_REASONING_ENDS = re.compile(
    rf"</(?:\w{{1,20}}:)?{_THOUGHT}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|channel\|>\s*final\b[^<\n]{0,40}<\|message\|>|\bassistantfinal(?=[\s`*(]|SELECT|WITH)|\[/INST\]",
    re.IGNORECASE,
)
_SPECIAL = re.compile(
    r"<\|[\w /=.-]{0,60}\|>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[/?INST\]"
    r"|<\uff5c[^<>\uff5c]{1,40}\uff5c>",
    re.IGNORECASE,
)
_TAGS = r"(?:final_)?(?:answer|sql|query|sql_?query|sql_?code|result|output|response|solution)"
_TAGGED = re.compile(rf"<({_TAGS})>|\[({_TAGS})\]", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_BEGINS = re.compile(r"\s*(?:--[^\n]*\n\s*)*+(?:SELECT|WITH)\b", re.IGNORECASE)
_START = re.compile(r"\b(?:SELECT|WITH)\b", re.IGNORECASE)
# What may stand before a query: the start of a line, or a sign that opens or announces something.
_OPENS = re.compile(r"(?:^|[\n:`>\"'({\[*=|])[ \t]*\Z")
_SAID = re.compile(r"[.!?;]\s*\Z")
# What announces the query that counts: of several the last, and of mere labels the first, as examples may follow.
_FINAL = re.compile(
    r"(?:\b(?:final|correct(?:ed)?|revised)\b[^\n:.]{0,40}(?::|\*\*|\n)"
    r"|\b(?:so|thus|therefore|hence),? (?:the|our)\b[^\n:.]{0,40}(?::|\bis))[\s*`\"]*\Z",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?:\A|\n)[\s*#]*(?:the )?(?:sqlite |sql )?(?:sql|query|answer)\b[^\n:.]{0,15}:[\s*`]*\Z", re.IGNORECASE
)
# A SELECT after these is a part of a greater statement.
_PART = re.compile(
    r"(?:\b(?:UNION|INTERSECT|EXCEPT)(?:\s+ALL)?|\bEXPLAIN|\bPLAN|\bAS|\bIN|\bEXISTS|\bINTO\s+\S+)[\s(]*\Z"
)
_OTHER = re.compile(
    r"\b(?:(?:INSERT|REPLACE)\s+(?:OR\s+\w+\s+)?INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|ATTACH\s|DETACH\s|PRAGMA\s|VACUUM\b"
    r"|(?:CREATE|DROP|ALTER)\s+(?:TEMP|TEMPORARY|UNIQUE|VIRTUAL)?\s*(?:TABLE|VIEW|INDEX|TRIGGER)|EXPLAIN\s+[QSW])",
    re.IGNORECASE,
)
_CTE = re.compile(r"WITH\s+(?:RECURSIVE\s+)?[^\s(]+\s*(?:\([^()]{0,200}\)\s*)?AS\s*\(", re.IGNORECASE)
# The SELECT behind one of these, in one paragraph, is not all that the answer would do.
_HARMFUL = re.compile(r"(?:\A|\n|:)[ \t]*(?:INSERT|REPLACE|UPDATE|DELETE|DROP|ALTER|ATTACH|PRAGMA)\s+\w", re.IGNORECASE)
# A line that goes on like SQL, and one that does not.
_GOES_ON = re.compile(
    r"(?i:FROM|WHERE|GROUP|ORDER|HAVING|LIMIT|OFFSET|UNION|INTERSECT|EXCEPT|JOIN|INNER|LEFT|RIGHT|FULL|CROSS|NATURAL|ON"
    r"|AND|OR|WINDOW|CASE|WHEN|THEN|ELSE|END)\b|[,()=<>+/%]|--|/\*"
)
_PROSE = re.compile(
    r"[ \t>]*(?:(?:SELECT|WITH|CREATE|INSERT|UPDATE|DELETE|DROP)\b|[*_]{0,3}[A-Za-z](?:[\w ]{0,40}\w)?[*_]{0,3}:"
    r"|#|[-*+•] |\d+[.)] |\||---|```|~~~|[*_]{1,3}[A-Z]|</|<\w|\[/|\\|(?:This|That|These|The|It|Here|Note|We|You|I|In"
    r"|Since|Because|To|If|First|For|By|Let|Or|However|But|Also|As|Hope)\b)"
)
_SENTENCE = re.compile(r"\.(?:\s+[A-Z*`(]|\s*\Z|\s*\n)")
_REMARK = re.compile(
    r",\s+(?:which|where|this|that|it|so|giving|returning)\b|\(\s*(?:this|which|that|it|i|note|assuming|returns|here)\b|//",
    re.IGNORECASE,
)
_SQL_KEYS = ("sql", "query", "sql_query", "final_sql", "statement", "code", "answer", "input")
_ESCAPED = re.compile(r"\\([_*%&#$<>\[\]{}()|`~\"'])")
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|apos|nbsp|#\d{1,4});")


def extract_sql(answer: str, check: Check | None = None, fence: str = "last") -> str:
    """Return the query in a model's answer, without its `;`.

    An answer that `check` takes as it is, is returned as it is. Else the first piece of it that `check` takes, where
    pieces are looked at in this order: what follows the reasoning, before what is in it; tagged or boxed text; strings
    of JSON; fenced blocks; the text between. Of pieces that begin alike the longest is taken. If none is taken, the
    first that reads as a query but for the names in it; then what looks like the beginning of a statement; then the
    whole, for the sandbox to say what is wrong with it.

    Args:
        answer: any text; one beyond `MAX_ANSWER_CHARACTERS` is returned as it is.
        check: `sandbox.Database.check` of the question's database; without it, any query on any table is taken.
        fence: which of several fenced blocks is looked at first: `last`, since models that draft write the final query
            last (so do OmniSQL's and Defog's evaluations), or `first`. A block that the text before it announces as an
            alternative, an example or a test comes after the others.

    Raises:
        ValueError: fence is neither `first` nor `last`.
    """
    if fence not in ("first", "last"):
        raise ValueError(f"fence: found {fence!r}, expected first or last.")
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return answer
    if check is not None:
        return _Search(check).find(answer, fence)
    with closing(sqlite3.connect(":memory:")) as nothing:

        def any_table(sql: str) -> str:
            found = prepare(nothing, sql)
            # An unknown table is told before what stands behind a semicolon.
            return found if found != "no_such_table" else "forbidden" if _is_several(sql) else ""

        return _Search(any_table).find(answer, fence)


class _Search:
    """One search: what was checked already, what it may still cost, and the best of what was not taken."""

    def __init__(self, check: Check):
        self._check, self._known, self._left = check, {}, MAX_WORK
        self._named: str | None = None
        self._without_from: str | None = None

    def find(self, answer: str, fence: str) -> str:
        whole = answer.strip(" \t\r\n;")
        if self._is_query(whole):
            return whole
        for piece in islice(_pieces(answer, fence), MAX_PIECES):
            if (found := self._in_piece(piece)) is not None:
                return found
        # Prose has pieces of SQL: `SELECT count(*)` prepares, and reads no table.
        found = [self._without_from, self._named]
        for sql in found if self._named is None or not _has_from(self._named) else found[::-1]:
            if sql is not None:
                return sql
        return _likeliest(answer, fence)

    def _is_query(self, sql: str) -> bool:
        """Tell whether a text is one query, and note the first that is one but for its names."""
        if not sql or len(sql) > MAX_SQL_CHARACTERS or self._left < len(sql):
            return False
        if sql not in self._known:
            self._left -= len(sql)
            found = self._check(sql)
            if found in NOT_A_QUERY and (better := mended(sql)) != sql:
                found = self._check(better)
            self._known[sql] = found
        found = self._known[sql]
        # Without FROM it may be prose: "SELECT statement".
        names = found and found not in NOT_A_QUERY
        if names and (self._named is None or (not _has_from(self._named) and _has_from(sql))):
            self._named = sql
        return not found

    def _reads(self, sql: str) -> bool:
        return self._is_query(sql) or self._known.get(sql, NOT_A_QUERY[0]) not in NOT_A_QUERY

    def _reads_table(self, sql: str) -> bool:
        if not _has_from(sql):
            self._without_from = self._without_from or sql
            return False
        return True

    def _in_piece(self, text: str) -> str | None:
        whole = text.strip(" \t\r\n;")
        if self._is_query(whole) and self._reads_table(whole):
            return whole
        done, harmful = 0, _HARMFUL.search(text)
        for start in _starts(text):
            if start < done or self._left <= 0 or (harmful and _is_one_paragraph(text, harmful.start(), start)):
                continue
            for sql, end in self._candidates(text, start):
                if self._reads(sql):
                    if not self._known[sql] and self._reads_table(sql):
                        return sql
                    done = end
                    break
            else:
                done = _end_of_failed(text, start)
        return None

    def _candidates(self, text: str, start: int) -> Iterator[tuple[str, int]]:
        """Yield what may begin at `start`, the longest first, with where it ends."""
        for end in _quoted_ends(text, start):
            yield text[start:end].strip(" \t\r\n;"), end
        window = text[start : start + min(MAX_SQL_CHARACTERS, max(0, self._left))]
        ends = _ends(window, text[start - 1 : start] == "(")
        # Read once for its ends, and once more if it turns out to be no query.
        self._left -= 2 * max(ends, default=0)
        before = None
        for end in reversed(ends):
            sql = window[:end].strip(" \t\r\n;")
            if sql != before:
                yield sql, start + end
            before = sql


def _pieces(answer: str, fence: str) -> Iterator[str]:
    """Yield pieces of an answer in the order in which a reader looks for the query in them."""
    if _ENTITY.search(answer):
        yield from _pieces(html.unescape(_ENTITY.sub(lambda m: m[0] if m[0] != "&amp;" else "&", answer)), fence)
    reasoned = answer
    for found in _REASONING_ENDS.finditer(answer):
        if _SPECIAL.sub("", answer[found.end() :]).strip():
            reasoned = answer[found.end() :]
    for text in dict.fromkeys((reasoned, answer)):
        for part in _SPECIAL.split(text):
            if part.strip():
                yield from _pieces_of_part(part, fence)
        yield text
    undone = _ESCAPED.sub(r"\1", answer.replace("\\n", "\n").replace("\\t", " "))
    undone = re.sub(r"(?m)^[ \t]*>[ \t]?", "", undone)
    if undone != answer:
        yield from _pieces_of_part(undone, fence)
        yield undone


def _pieces_of_part(text: str, fence: str) -> Iterator[str]:
    if _BEGINS.match(text):
        yield text
    fenced, between = blocks(text, fence)
    for found in [*list(_TAGGED.finditer(text))[:-4:-1], *list(_BOXED.finditer(text))[:-4:-1]]:
        tagged = text[found.end() :]
        if found.lastindex:
            opening, name = found[0][0], found[found.lastindex]
            closing = tagged.lower().find(f"{opening}/{name.lower()}")
            tagged = tagged if closing < 0 else tagged[:closing]
        inside = blocks(tagged, fence)[0]
        yield from inside[:4] or [tagged]
    yield from _json_strings(text)
    for block in fenced:
        if "{" in block:
            yield from _json_strings(block)
        yield block
    yield from between
    yield text


def _json_strings(text: str) -> list[str]:
    """Return the strings that JSON in a text has under keys for SQL, then others that hold a query."""
    named, others = [], []

    def walk(value: object, key: str = "", depth: int = 0) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, name.lower(), depth + 1)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, key, depth + 1)
        elif isinstance(value, str) and depth:
            if value.lstrip().startswith("{"):  # the arguments of a call, JSON within JSON
                decode(value)
            elif _START.search(value):
                (named if key in _SQL_KEYS else others).append(value)

    def decode(source: str) -> None:
        position = 0
        for _ in range(8):
            position = source.find("{", position)
            if position < 0:
                return
            try:
                value, position = json.JSONDecoder(strict=False).raw_decode(source, position)
                walk(value)
            except (ValueError, RecursionError):
                position += 1

    decode(text)
    return named + others


def _starts(text: str) -> list[int]:
    """Return where queries may begin, the likelier first."""
    likely, capitals, others = [], [], []
    every = list(_START.finditer(text))
    begins = _BEGINS.match(text)
    first_line = begins.end() + len(text[begins.end() :].split("\n", 1)[0]) if begins else 0
    for found in every[: 4 * MAX_STARTS] + every[4 * MAX_STARTS :][-MAX_STARTS:]:
        start = found.start()
        before = text[max(0, start - 60) : start]
        # A line that begins with a query is one: where it is broken, its end is no answer.
        if begins and begins.end() < start < first_line and not (_OPENS.search(before) or _SAID.search(before)):
            continue
        part = _PART.search(before.upper())
        if part and (before[part.start() :].strip("( \n\t").isupper() or not found[0].isupper()):
            continue
        if _OPENS.search(before) or not before:
            likely.append(start)
        elif found[0].isupper():
            capitals.append(start)
        elif found[0][0] in "sS":
            others.append(start)
    announced = [] if begins else reversed(likely)
    final = [at for at in announced if _FINAL.search(text[max(0, at - 60) : at])]
    first = sorted(likely[:MAX_STARTS] + capitals[:MAX_STARTS])[:MAX_STARTS]
    labelled = [] if begins else [at for at in likely if _LABEL.search(text[max(0, at - 60) : at])]
    return final[:2] + labelled[:1] + first + others[:MAX_STARTS]


def _quoted_ends(text: str, start: int) -> list[int]:
    """Return where a quotation that opens just before `start` may end, the farthest first."""
    before = text[max(0, start - 80) : start]
    mark = before.rstrip()[-3:]
    if mark not in ('"""', "'''"):
        mark = before[-1:]
        if not mark or mark not in "\"'`“\u2018*_":
            return []
        mark = {"“": "”", "\u2018": "\u2019"}.get(mark, mark)
    ends, position = [], text.find(mark, start)
    while position >= 0 and len(ends) < MAX_ENDS and position - start <= MAX_SQL_CHARACTERS:
        ends.append(position)
        position = text.find(mark, position + len(mark))
    return ends[::-1]


def _ends(text: str, in_parentheses: bool) -> list[int]:
    """Return where a query at the beginning of `text` may end, in rising order."""
    ends, depth, position = [], 0, 0
    for token in tokens(text):
        if len(ends) >= MAX_ENDS:
            return ends
        after = position + len(token)
        depth += (token == "(") - (token == ")")
        if depth < 0:
            # What follows in (SELECT …) UNION (SELECT …) belongs to it; such a start is none.
            if in_parentheses and re.match(r"\)\s*(?:UNION|INTERSECT|EXCEPT|ORDER|LIMIT)\b", text[position:], re.I):
                return []
            return [*ends, position]
        if (
            token in ";}]?#"
            or (token in ",(/" and _REMARK.match(text[position : position + 20]))
            or (token == "." and _SENTENCE.match(text[position : position + 20]))
            or (token == "*" and text.startswith("**", position))
            or (token == "<" and re.match(r"<[/|\w\uff5c]", text[position : position + 2]))
            or (token[0] in "`[|" and text[position - 1 : position] != "`")
            or (token == "\\" and text[after : after + 1] in (")", "]", "}", "\\", "\n"))
            or ("\n" in token and token.isspace() and _new_paragraph(token, text, after))
        ):
            ends.append(position)
        position = after
    return [*ends, len(text)]


def _new_paragraph(blank: str, text: str, after: int) -> bool:
    """Tell whether what follows white space with line ends may be no more of the query."""
    ahead = text[after : after + 80]
    if blank.count("\n") > 1 and not (_GOES_ON.match(ahead) and not ahead[:1].isalpha()):
        word = re.match(r"\w*", ahead)[0]
        return not (_GOES_ON.match(ahead) and (word.isupper() or word.islower()))
    return bool(_PROSE.match(ahead))


def _end_of_failed(text: str, start: int) -> int:
    """Return before where no further start is looked for, after one at which nothing could be read.

    A query that is not understood is not to be replaced by a query inside it.
    """
    depth, position = 0, start
    is_cte = _CTE.match(text[start : start + 400])
    for token in tokens(text[start : start + MAX_SQL_CHARACTERS]):
        if token == ";" or ("\n" in token and token.isspace() and _new_paragraph(token, text, position + len(token))):
            return position
        depth += (token == "(") - (token == ")")
        if not is_cte and position > start and depth <= 0:
            return position
        position += len(token)
    return start + 1 if depth > 0 and not is_cte else position


def _is_several(sql: str) -> bool:
    rest = iter(words(sql))
    return ";" in rest and any(word != ";" for word in rest)


def _is_one_paragraph(text: str, first: int, second: int) -> bool:
    return first < second and re.search(r"\n[ \t\r]*\n|`{3}", text[first:second].strip()) is None


def _has_from(sql: str) -> bool:
    return re.search(r"\bFROM\b", sql, re.IGNORECASE) is not None


def _likeliest(answer: str, fence: str) -> str:
    """Return what looks most like a statement in an answer that holds no query."""
    for piece in islice(_pieces(answer, fence), MAX_PIECES):
        starts = sorted(_starts(piece)[:1] + [found.start() for found in [_OTHER.search(piece)] if found])
        for start in starts[:1]:
            # One more than may be, so that what is too long stays so.
            window = piece[start : start + MAX_SQL_CHARACTERS + 1]
            end = next(filter(None, _ends(window, piece[start - 1 : start] == "(")), None)
            return window[:end].strip(" \t\r\n;")
    return re.sub(r"```(?:sql\b)?|~~~", "", _SPECIAL.sub("", answer)).strip(" \t\r\n;")
