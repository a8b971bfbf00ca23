"""Take the SQL out of what a model answered."""

import re

_SPECIAL_START = re.compile(r"\s*(?:<\|[\w ]*\|>|</?s>|<(?:bos|pad|unk)>|<start_of_turn>(?:model)?)")
_SPECIAL_END = re.compile(
    r"<\|(?:eot|eot_id|eom_id|end|end_of_text|endoftext|im_end|start_header_id|im_start)\|>"
    r"|</s>|<eos>|<pad>|<end_of_turn>|<start_of_turn>|\[/?INST\]|</sql>|\[/SQL\]|</answer>|<\|\w*\Z",
    re.IGNORECASE,
)
_REASONING = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(
    r"(?:```|~~~)(?:[ \t]*(?:sql|sqlite|sqlite3|mysql|postgresql|postgres)\b|[ \t]*\w*[ \t]*(?=\n))?", re.IGNORECASE
)

_QUERY = r"(?:SELECT\b|WITH\s+(?:RECURSIVE\s+)?[\w\"`\[\]]+\s*(?:\([^()]*\)\s*)?AS\s*(?:(?:NOT\s+)?MATERIALIZED\s*)?\()"
# Statements that are no query are recognised too, so that no query is cut out of their middle.
_OTHER = (
    r"(?:(?:INSERT|REPLACE)\s+(?:OR\s+\w+\s+)?INTO\b|UPDATE\s+\S+\s+SET\b|DELETE\s+FROM\b"
    r"|(?:CREATE|DROP|ALTER)\s+(?:(?:TEMP|TEMPORARY|UNIQUE|VIRTUAL)\s+)?(?:TABLE|VIEW|INDEX|TRIGGER)\b"
    r"|ATTACH\s+(?:DATABASE\b|')|DETACH\s+DATABASE\b|PRAGMA\s+\w|VACUUM\b|EXPLAIN\s+(?:QUERY|SELECT|WITH)\b|VALUES\s*\()"
)
# A statement begins at the start of a line or after a label ("SQL: …") or a backtick …
_AT_LINE_START = re.compile(rf"(?:^|[:`]\**)[ \t]*({_QUERY}|{_OTHER})", re.IGNORECASE | re.MULTILINE)
# … or else in the middle of prose, where capitals tell the keyword from the word.
_CAPITALS = re.compile(rf"\b{_QUERY}")
_ANYWHERE = re.compile(rf"\b{_QUERY}", re.IGNORECASE)

# Outside quotes and parentheses, these end a statement.
_SKIP = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]\n]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n\s*")
# A line that begins with a label ("Explanation:"), a heading, or like a sentence.
_LABEL = re.compile(
    r"\n[ \t]*(?:\**[A-Za-z](?:[\w ]*\w)?\**:|#"
    r"|(?:This|That|These|The|It|Here|Note|We|You|I)[ \t]+[a-z]+[ \t]+[\w`'\"])"
)
_CONTINUES = re.compile(
    r"(?:FROM|WHERE|GROUP|ORDER|HAVING|LIMIT|OFFSET|UNION|INTERSECT|EXCEPT|JOIN|INNER|LEFT|CROSS|NATURAL|ON|AND|OR"
    r"|WINDOW)\b",
    re.IGNORECASE,
)


def extract_sql(answer: str) -> str:
    """Return the first SQL statement in a model's answer, without its `;`.

    The result is always a piece of the answer: nothing is mended, completed or invented. A plain query comes back as
    it is, less white space around it and `;` at its end. Removed are reasoning between <think> and </think>, special
    tokens left by a tokenizer and what follows an end of turn, code fences (also ones never closed), quotation marks
    around the statement, text before it, and after it further statements and what follows as a paragraph, as a line
    with a label ("Explanation: …") or as a line that begins like a sentence ("This query …"). An answer without a
    statement comes back whole, for the sandbox to say what is wrong with it.
    """
    text = answer
    if match := _REASONING.match(text):
        text = text[match.end() :]
    while match := _SPECIAL_START.match(text):
        text = text[match.end() :]
    if match := _SPECIAL_END.search(text):
        text = text[: match.start()]
    for block in _blocks(text):
        start = _find_start(block)
        if start is not None:
            return _cut(_unquoted(block[start:], block[start - 1 : start]))
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
    """Return where the first statement begins that is not inside parentheses or a comment."""
    for patterns in ((_AT_LINE_START, _CAPITALS), (_ANYWHERE,)):
        starts = []
        for pattern in patterns:
            depth = position = 0
            for match in pattern.finditer(text):
                start = match.start(1) if pattern.groups else match.start()
                depth += text.count("(", position, start) - text.count(")", position, start)
                position = start
                if depth <= 0 and not text[text.rfind("\n", 0, start) + 1 : start].lstrip().startswith("--"):
                    starts.append(start)
                    break
        if starts:
            return min(starts)
    return None


def _unquoted(text: str, before: str) -> str:
    """Cut a text where a quotation ends that began just before it."""
    if before == "`":
        return text.partition("`")[0]
    if before and before in "\"'":
        inside, _, after = text.rpartition(before)
        if inside and not after.strip(" \t\r\n.;,)]}"):
            return inside
    return text


def _cut(text: str) -> str:
    """Cut a text that begins with a statement where the statement ends."""
    depth, position = 0, 0
    needs_select = text[:4].upper() == "WITH"
    while position < len(text):
        if quoted := _SKIP.match(text, position):
            position = quoted.end()
            continue
        character = text[position]
        depth += (character == "(") - (character == ")")
        if character == ";" or (character == "\n" and depth <= 0 and _LABEL.match(text, position)):
            break
        blank = _BLANK_LINE.match(text, position) if depth <= 0 else None
        if blank and not _goes_on(text[:position], text[blank.end() :], needs_select):
            break
        if depth <= 0 and text[position : position + 6].upper() == "SELECT":
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
