"""The types of a study's values. No value is turned into another type, but 8.0 is the whole number 8."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

# How pydantic calls the two branches of a union in an error's place; no key is called like that.
ONE, OTHER = "(one)", "(other)"
T = TypeVar("T")
MOST_WHOLE = 2**31 - 1
MOST = 10**15  # a report may state bytes or parameters


def sized(value: float) -> float:
    """Refuse a number that no library could store, or that only a slip of the keyboard makes."""
    most = MOST_WHOLE if isinstance(value, int) else MOST
    if abs(value) > most:
        raise _expected(f"at {'most' if value > 0 else 'least'} {most if value > 0 else -most}")
    return value


def whole(**bounds: int) -> Any:
    """The type of a whole number within bounds."""

    def convert(value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return Annotated[int, Field(**bounds), BeforeValidator(convert), AfterValidator(sized)]


def real(**bounds: float) -> Any:
    """The type of a real number within bounds."""
    return Annotated[float, Field(allow_inf_nan=False, **bounds), AfterValidator(sized)]


def repeated(values: list) -> list:
    """The values that stand there before, in their order; lists and mappings, which are few, are sought one by one."""
    seen, others, found = set(), [], []
    for value in values:
        try:
            found += [value] if value in seen else []
            seen.add(value)
        except TypeError:
            found += [value] if value in others else []
            others.append(value)
    return found


def _unique(values: list) -> list:
    if repeated(values):
        raise PydanticCustomError("twice", "a value stands twice in {values}", {"values": values})
    return values


def _pattern(value: str) -> str:
    if wrong := no_pattern(value):
        raise _expected(f"a regular expression of Python as .*[qv]_proj ({wrong})")
    return value


def no_pattern(text: str) -> str | None:
    """Say why a text is no regular expression; None if it is one."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return None


def _limit(value: int) -> int:
    if value == 0:
        raise _expected("-1 for no limit, or at least 1")
    return value


def _expected(words: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "expected {words}", {"words": words})


def contradiction(key: str, words: str) -> PydanticCustomError:
    """What a section's validator raises where one key takes back what another says; `words` follow the key."""
    return PydanticCustomError("contradiction", "{key}: {words}", {"key": key, "words": words})


def _text(pattern: str, words: str) -> Any:
    """The type of a text that matches a pattern, which `words` put into words."""

    def match(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise _expected(words)
        return value

    return Annotated[str, AfterValidator(match)]


def either(one: Any, other: Any, kind: type) -> Any:
    """The type of a value that is `other` if Python calls it a `kind`, else `one`."""

    def branch(value: Any) -> str:
        return OTHER if isinstance(value, kind) else ONE

    return Annotated[Annotated[one, Tag(ONE)] | Annotated[other, Tag(OTHER)], Discriminator(branch)]


def _free(value: str) -> str:
    if value in TAKEN or value.endswith(ENDS):
        raise _expected(f"another name: results/{value} is, or may become, the place of something else")
    return value


def _short(value: str) -> str:
    if len(value) > LONGEST:
        raise _expected(f"a name of at most {LONGEST} characters")
    return value


Text = Annotated[str, Field(min_length=1)]
# Files and folders get names that are put together, and may have 255 characters.
LONGEST = 80
# The name of a task, which stands in the names of rules.
TaskName = Annotated[
    _text(r"[a-z][a-z0-9_]*", "a name of lower-case letters, digits and underscores, a letter first"),
    AfterValidator(_short),
]
# The name of a folder.
Name = Annotated[
    _text(
        r"[a-z0-9][a-z0-9._-]*",
        "a name of lower-case letters, digits, dot, underscore and hyphen, a letter or digit first",
    ),
    AfterValidator(_short),
]
# A key of rows that stands in the names of runs.
Column = _text(r"[A-Za-z0-9_]+", "the name of a column in letters, digits and underscores")
# What lies in results/ besides studies, and what a study's name gets from its protocol and scale.
TAKEN = ("downloads", "quantised", "calibration.json", "fingerprints.json")
ENDS = ("-smoke", "-as_reported", "-reanalysed", ".lock")
StudyName = Annotated[Name, AfterValidator(_free)]
Sha256 = _text(r"[0-9a-f]{64}", "the archive's SHA-256 in 64 lower-case hexadecimal digits, or null")
Number = real()
NotNegative = real(ge=0)
Positive = real(gt=0)
Share = real(ge=0, lt=1)
Count = whole(ge=0)
# -1 is for no limit.
Limit = Annotated[whole(ge=-1), AfterValidator(_limit)]
AtLeast1 = whole(ge=1)
Unique = Annotated[list[T], AfterValidator(_unique)]
# A list whose order means nothing: sorted, so that equal studies are equal values.
Set = Annotated[list[T], AfterValidator(sorted), AfterValidator(_unique)]
SomeSet = Annotated[list[T], Field(min_length=1), AfterValidator(sorted), AfterValidator(_unique)]
Some = Annotated[list[T], Field(min_length=1), AfterValidator(_unique)]
# Layers by their names, by a word of PEFT's, or by a regular expression.
Modules = either(
    SomeSet[str],
    Annotated[
        _text(
            r"all-linear|.*[.*+?|(\[\\].*",
            "a list of names, all-linear, or a regular expression of whole names as .*[qv]_proj",
        ),
        AfterValidator(_pattern),
    ],
    str,
)
# A key that may be left out, and is then not there.
ABSENT = Field(default=None, exclude_if=lambda value: value is None)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Let a key that a section has from another keep its description where it only narrows the type."""
        for name, field in cls.model_fields.items():
            inherited = (base.model_fields[name] for base in cls.__bases__ if name in getattr(base, "model_fields", {}))
            field.description = field.description or next((one.description for one in inherited), None)
