"""Take the SQL out of what a model answered."""

import re

_SPECIAL_START = re.compile(r"\s*(?:<\|[\w ]*\|>|</?s>|<(?:bos|pad|unk)>|<start_of_turn>(?:model)?)")
_SPECIAL_END = re.compile(
    r"<\|(?:eot|eot_id|eom_id|end|end_of_text|endoftext|im_end|start_header_id|im_start)\|>"
    r"|</s>|<eos>|<pad>|<end_of_turn>|<start_of_turn>|\[/?INST\]"
)
_FENCE = re.compile(
    r"```(?:[ \t]*(?:sql|sqlite|sqlite3|mysql|postgresql|postgres)\b|[ \t]*\w*[ \t]*(?=\n))?", re.IGNORECASE
)

_QUERY = r"(?:SELECT\b|WITH\s+(?:RECURSIVE\s+)?[\w\"`\[\]]+\s*(?:\([^()]*\)\s*)?AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\()"
# Statements that are no query are recognised too, so that no query is cut out of their middle.
_OTHER = (
    r"(?:(?:INSERT|REPLACE)\s+(?:OR\s+\w+\s+)?INTO\b|UPDATE\s+\S+\s+SET\b|DELETE\s+FROM\b"
    r"|(?:CREATE|DROP|ALTER)\s+(?:(?:TEMP|TEMPORARY|UNIQUE|VIRTUAL)\s+)?(?:TABLE|VIEW|INDEX|TRIGGER)\b"
    r"|ATTACH\s+(?:DATABASE\b|')|DETACH\s+DATABASE\b|PRAGMA\s+\w|VACUUM\b|EXPLAIN\s+(?:QUERY|SELECT|WITH)\b|VALUES\s*\()"
)
# A statement begins at the start of a line or after a label ("SQL: …") or a backtick …
_AT_LINE_START = re.compile(rf"(?:^|[:`])[ \t]*({_QUERY}|{_OTHER})", re.IGNORECASE | re.MULTILINE)
# … or else in the middle of prose, where capitals tell the keyword from the word.
_CAPITALS = re.compile(rf"\b{_QUERY}")
_ANYWHERE = re.compile(rf"\b{_QUERY}", re.IGNORECASE)

# Outside quotes and parentheses, these end a statement.
_SKIP = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]\n]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n\s*")
_LABEL = re.compile(r"\n[ \t]*[A-Za-z](?:[\w ]*\w)?:")
_CONTINUES = re.compile(
    r"(?:FROM|WHERE|GROUP|ORDER|HAVING|LIMIT|OFFSET|UNION|INTERSECT|EXCEPT|JOIN|INNER|LEFT|CROSS|NATURAL|ON|AND|OR"
    r"|WINDOW)\b",
    re.IGNORECASE,
)


def extract_sql(answer: str) -> str:
    """Return the first SQL statement in a model's answer, without its `;`.

    The result is always a piece of the answer: nothing is mended, completed or invented. A plain query comes back as
    it is, less white space around it and `;` at its end. Removed are special tokens left by a tokenizer and what
    follows an end of turn, code fences (also ones never closed), text before the statement, and after it further
    statements, a paragraph or line with a label ("Explanation: …") that follows. An answer without a statement comes
    back whole, for the sandbox to say what is wrong with it.
    """
    text = answer
    while match := _SPECIAL_START.match(text):
        text = text[match.end() :]
    if match := _SPECIAL_END.search(text):
        text = text[: match.start()]
    for block in _blocks(text):
        start = _find_start(block)
        if start is not None:
            inline = start > 0 and block[start - 1] == "`"
            return _cut(block[start:].partition("`")[0] if inline else block[start:])
    return _FENCE.sub("", text).strip().rstrip("; \t\r\n")


def _blocks(text: str) -> list[str]:
    """Split at fences: the fenced blocks first, then what stands between, unless the text begins with SQL."""
    parts = _FENCE.split(text)
    outside, inside = parts[0::2], parts[1::2]
    match = _AT_LINE_START.search(parts[0].lstrip())
    if match and match.start() == 0:
        return outside[:1]
    return inside + outside


def _find_start(text: str) -> int | None:
    """Return where the first statement begins that is not inside parentheses."""
    for patterns in ((_AT_LINE_START, _CAPITALS), (_ANYWHERE,)):
        starts = []
        for pattern in patterns:
            for match in pattern.finditer(text):
                start = match.start(1) if pattern.groups else match.start()
                if text.count("(", 0, start) <= text.count(")", 0, start):
                    starts.append(start)
                    break
        if starts:
            return min(starts)
    return None


def _cut(text: str) -> str:
    """Cut a text that begins with a statement where the statement ends."""
    depth, position = 0, 0
    needs_select = text[:4].upper() == "WITH"
    while position < len(text):
        if quoted := _SKIP.match(text, position):
            position = quoted.end()
            continue
        character = text[position]
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == ";":
            break
        elif character == "\n" and depth <= 0:
            if _LABEL.match(text, position):
                break
            blank = _BLANK_LINE.match(text, position)
            if blank and not _goes_on(text[:position], text[blank.end() :], needs_select):
                break
        elif needs_select and depth <= 0 and text[position : position + 6].upper() == "SELECT":
            needs_select = False
        position += 1
    return text[:position].strip()


def _goes_on(before: str, after: str, needs_select: bool) -> bool:
    """Tell whether a statement goes on after a blank line."""
    word = re.match(r"\w*", after).group()
    if word.upper() == "SELECT":
        return needs_select or bool(re.search(r"\b(?:UNION|INTERSECT|EXCEPT|ALL)\s*$", before, re.IGNORECASE))
    # A word with only its first letter in capitals begins a sentence: "From this we see …".
    return bool(_CONTINUES.match(after)) and (word.isupper() or word.islower())
