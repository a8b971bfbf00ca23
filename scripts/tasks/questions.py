"""Which questions a study asks: the first ones, those of a list of ids, or those that another library draws."""

import difflib
import math
import random
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from common.files import UserError
from tasks.sections import ABSENT, AtLeast1, Count, Section, Some, Text, contradiction, either, repeated


def drawn(library: str, total: int, number: int, seed: int) -> list[int]:
    """The places that a library draws, out of so many questions in the order of their file."""
    match library:
        case "random":
            return random.Random(seed).sample(range(total), number)
        case "numpy":
            import numpy

            return numpy.random.default_rng(seed).choice(total, number, replace=False).tolist()
        case "pandas":
            import pandas

            return pandas.DataFrame(index=range(total)).sample(n=number, random_state=seed).index.tolist()
    from datasets import Dataset

    return Dataset.from_dict({"place": range(total)}).shuffle(seed=seed).select(range(number))["place"][:]


class Chosen(Section):
    """Questions by a file of their ids, or as another library draws them."""

    file: Text = ABSENT
    """A text file with the id of one question a line; instead of the other keys."""
    draw: Literal["random", "numpy", "pandas", "datasets"] = ABSENT
    """random: random.seed(seed), random.sample(rows, n). numpy: numpy.random.default_rng(seed).choice(len(rows), n,
    replace=False). pandas: DataFrame.sample(n=n, random_state=seed), which draws what numpy.random.seed(seed) and
    numpy.random.choice(len(rows), n, replace=False) draw. datasets: Dataset.shuffle(seed=seed).select(range(n))."""
    seed: Count = ABSENT
    """The seed of the draw."""
    n: AtLeast1 = ABSENT
    """How many questions are drawn."""

    @model_validator(mode="after")
    def _agree(self) -> "Chosen":
        drawn = {key: getattr(self, key) for key in ("draw", "seed", "n")}
        missing = [key for key, value in drawn.items() if value is None]
        if self.file is not None and len(missing) < len(drawn):
            raise contradiction("file", f"found {self.file}, but its ids are all that is asked. Remove the other keys.")
        if self.file is None and missing:
            raise contradiction(missing[0], "missing. Write draw, seed and n, or file alone.")
        return self


def _read(value: Any) -> Any:
    """The ids in a file in its place, so that results depend on them and not on where the file lies."""
    if not isinstance(value, Chosen) or value.file is None:
        return value
    try:
        lines = Path(value.file).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        words = f"{value.file} cannot be read ({error.strerror}). Write the path of a text file."
        raise contradiction("file", words) from None
    except UnicodeDecodeError:
        raise contradiction("file", f"{value.file} is not UTF-8. Save it as UTF-8.") from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise contradiction("file", f"{value.file} has no ids, expected one a line.")
    if twice := repeated(ids):
        raise contradiction("file", f"{value.file} has {twice[0]} twice. Remove one.")
    return ids


# A list of ids, or `Chosen`.
Named = Annotated[either(Some[Text], Chosen, (dict, Chosen)), AfterValidator(_read)]
# All (null), the first N, or these.
Questions = either(AtLeast1 | None, Named, (list, dict, Chosen))


def how_many(rows: Mapping[str, Any], of: int) -> int:
    """How many rows a choice of training rows takes of so many: its count, or its fraction of them, rounded up."""
    return rows["count"] if "count" in rows else math.ceil(Fraction(repr(rows["fraction"])) * of)


def number_of(questions: int | list | Mapping | None) -> int | None:
    """How many questions are asked; None for all. Of a draw: of each part that it is made of."""
    return (
        questions["n"] if isinstance(questions, dict) else len(questions) if isinstance(questions, list) else questions
    )


def first(rows: list[dict], number: int | None, key: str) -> list[dict]:
    """The first rows; a UserError if there are fewer than the study's `key` asks for."""
    if number is not None and number > len(rows):
        raise UserError(f"{key}: found {number}, expected at most {len(rows)}, or null for all.")
    return rows[:number]


def picked(rows: list[dict], questions: int | list | Mapping | None, key: str) -> list[dict]:
    """The rows that a study's `key` means, in its order; a UserError if there is none of an id, or too few."""
    if isinstance(questions, dict):
        if questions["n"] > len(rows):
            raise UserError(f"{key}.n: found {questions['n']}, expected at most {len(rows)}, the questions there are.")
        return [rows[at] for at in drawn(questions["draw"], len(rows), questions["n"], questions["seed"])]
    if not isinstance(questions, list):
        return first(rows, questions, key)
    known = {row["id"]: row for row in rows}
    if missing := [name for name in questions if name not in known]:
        near = difflib.get_close_matches(missing[0], known, 1) or list(known)[:1]
        raise UserError(
            f"{key}: found {missing[0]!r}, expected ids of the questions that can be asked here, such as "
            f"{', '.join(near)}. {len(missing)} of {len(questions)} are none."
        )
    return [known[name] for name in questions]
