"""Records: one CSV row a question, the seam between what needs a model and what counts.

Answers are hostile text: newlines, NUL, lone surrogates, commas, quotes. In text columns a backslash is written `\\\\`,
a newline `\\n`, a carriage return `\\r`, a tab `\\t`, and other control characters, line separators and surrogates
`\\uXXXX`. So a record is one line of valid UTF-8 that any reader of CSV can read, and nothing is lost.
"""

import csv
import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import UserError, atomic_write
from custom_metrics.compare import SEMANTICS

if TYPE_CHECKING:
    import pandas as pd

CRITERIA = (*SEMANTICS, *(f"{name}_raw" for name in SEMANTICS))
SPIDER_COLUMNS = (
    "id", "db_id", "hardness", "question", "gold",
    "answer", "sql", *CRITERIA, "error_class", "gold_rows", "predicted_rows", "flags", "message",
)  # fmt: skip
MMLU_COLUMNS = (
    "id", "subject", "category", "answer", "prediction", "correct",
    "logprob_A", "logprob_B", "logprob_C", "logprob_D", "generated", "generated_letter", "correct_generated",
)  # fmt: skip
ZERO_ONE = (*CRITERIA, "correct", "correct_generated")
NUMBERS = ("gold_rows", "predicted_rows", "logprob_A", "logprob_B", "logprob_C", "logprob_D")

_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(?:u([0-9a-f]{4})|(.))")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = {value[1]: key for key, value in _SHORT.items()}


def escape(text: str) -> str:
    """Put `text` on one line and free of characters that CSV or UTF-8 cannot hold; `unescape` gives it back."""
    return _UNSAFE.sub(lambda m: _SHORT.get(m[0]) or f"\\u{ord(m[0]):04x}", text)


def unescape(text: str) -> str:
    """Undo `escape`."""
    return _ESCAPED.sub(lambda m: chr(int(m[1], 16)) if m[1] else _LONG[m[2]], text)


def write_records(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Write rows as CSV with LF line ends; text is escaped, None is an empty cell, floats are written in full."""
    with atomic_write(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            cells = (row[column] for column in columns)
            writer.writerow([escape(cell) if isinstance(cell, str) else cell for cell in cells])


def read_records(path: str | Path, columns: Sequence[str]) -> "pd.DataFrame":
    """Read records: text columns unescaped, 0/1 columns as integers, other numbers as floats (NaN if empty).

    Raises:
        UserError: the file's columns are not `columns`, a 0/1 column holds something else, or an id comes twice.
    """
    import pandas as pd

    # Plain Python strings: pandas' own string type cannot hold lone surrogates.
    try:
        frame = pd.read_csv(path, dtype=object, keep_default_na=False, na_filter=False, encoding="utf-8")
    except ValueError as error:  # empty, cut, or not UTF-8
        raise UserError(f"{path}: not CSV ({error}). Delete it and run again to make it anew.") from None
    if list(frame.columns) != list(columns):
        raise UserError(
            f"{path}: found columns {', '.join(frame.columns)}, expected {', '.join(columns)}. Delete it and run "
            "again to make it anew."
        )
    for column in frame.columns:
        if column in ZERO_ONE:
            wrong = frame.loc[~frame[column].isin(["0", "1"]), "id"]
            if len(wrong):
                raise UserError(f"{path}, {column} of {wrong.iloc[0]}: expected 0 or 1. Run its rule again.")
            frame[column] = frame[column].astype(int)
        elif column in NUMBERS:
            try:
                frame[column] = pd.to_numeric(frame[column])
            except ValueError as error:
                raise UserError(f"{path}, {column}: expected numbers ({error}). Run its rule again.") from None
        else:
            frame[column] = pd.Series([unescape(x) if "\\" in x else x for x in frame[column]], dtype=object)
    if frame["id"].duplicated().any():
        raise UserError(f"{path}, id {frame['id'][frame['id'].duplicated()].iloc[0]}: comes twice, expected once.")
    return frame


def right_probability(frame: "pd.DataFrame") -> "pd.Series":
    """The probability of the right letter among the letters of a question, of records of form choice: 0 to 1.

    It is 0 where there is no answer, and NaN where no answer has log-probabilities: they were given elsewhere.
    """
    import numpy as np
    import pandas as pd

    if "logprobs" in frame:  # of any number of choices
        logprobs = pd.DataFrame([json.loads(cell) for cell in frame["logprobs"]], index=frame.index, dtype=float)
    else:
        logprobs = frame[[name for name in frame if name.startswith("logprob_")]]
        logprobs = logprobs.rename(columns=lambda name: name.removeprefix("logprob_"))
    answered = any((frame[name] != "").any() for name in ("prediction", "generated") if name in frame)
    if answered and logprobs.isna().all(axis=None):
        return pd.Series(np.nan, index=frame.index)
    shares = np.exp(logprobs.sub(logprobs.max(axis=1), axis=0).to_numpy(float))
    right = np.equal.outer(frame["answer"].to_numpy(object), logprobs.columns.to_numpy(object))
    total = np.nansum(shares, axis=1)
    found = np.nansum(np.where(right, shares, 0.0), axis=1) / np.where(total > 0, total, 1.0)
    return pd.Series(found, index=frame.index)


def by_id(rows: Iterable[Mapping], path: str | Path, known: Container[str] | None = None) -> dict[str, Mapping]:
    """Index rows by their id.

    Raises:
        UserError: an id comes twice, or is not among `known`.
    """
    found = {}
    for number, row in enumerate(rows, 1):
        wrong = "comes twice, expected once" if row["id"] in found else None
        if known is not None and row["id"] not in known:
            wrong = "is not among the questions"
        if wrong:
            raise UserError(f"{path}, line {number}: id {row['id']} {wrong}. Run its rule again.")
        found[row["id"]] = row
    return found
