"""What is wrong with a study, in sentences: the key, what was found there, what to write instead."""

import difflib
from collections.abc import Iterator
from decimal import Decimal
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from study.kinds import ONE, OTHER
from study.schema import Study
from study.unfold import plain

KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    NoneType: "null",
}
BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def sentences(error: ValidationError) -> Iterator[str]:
    """One sentence for each mistake that pydantic found in a study."""
    for one in error.errors(include_url=False):
        # In pydantic's places stand, beside keys, the branches of unions, and a mark on a wrong name of a mapping.
        place = [part for part in one["loc"] if part not in (ONE, OTHER, "[key]")]
        yield f"{dotted(place)}: {_mistake(one, place)}"


def _mistake(one: dict, place: list) -> str:
    found, context = one["input"], one.get("ctx", {})
    match one["type"]:
        case "extra_forbidden":
            return f"no such key. {_suggest(place)}"
        case "missing":
            return "missing. Add it; see config.yaml for what it means."
        case kind if kind in BOUNDS:
            words, bound = BOUNDS[kind]
            return f"found {found}, expected {words} {plain(context[bound])}."
        case "string_too_short":
            return "found '', expected text. Write a value, or leave the key out."
        case "too_short" if not found:
            return (
                f"found nothing in it, expected at least {context['min_length']}. Write a value, or leave the key out."
            )
        case "too_short" | "too_long":
            least = "at least" if one["type"] == "too_short" else "at most"
            bound = context.get("min_length", context.get("max_length"))
            return f"found {found}, expected {least} {bound} values."
        case "twice":
            return f"a value stands twice in {context['values']}. Remove one."
        case "expected":
            return f"found {found!r}, expected {context['words']}."
        case "finite_number":
            return f"found {found}, expected a number that is not infinite."
        case _:
            return _wrong_value(found, place)


def dotted(place: list) -> str:
    """Write a place in a study as in `training.learning_rate[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


def keys_of(section: type[BaseModel]) -> dict[str, Any]:
    """The fields of a section by their names in a study."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def members(annotation: Any) -> list:
    """The types that a declared type allows, without what restricts their values."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [one for child in get_args(annotation) for one in members(child)]
    return [annotation]


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a declared type is, if it is one."""
    found = [one for one in members(annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return found[0] if found else None


def leaves(section: type[BaseModel] = Study, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key below a section, sections before what is in them, with its field."""
    for key, field in keys_of(section).items():
        yield f"{prefix}{key}", field
        if below := section_of(field.annotation):
            yield from leaves(below, f"{prefix}{key}.")


def _declared(place: list) -> Any:
    """The type that the schema declares for a place."""
    found: Any = Study
    for part in place:
        section = section_of(found)
        if section:
            found = keys_of(section)[part].annotation
            continue
        wanted = list if isinstance(part, int) else dict
        found = next(get_args(one)[-1] for one in members(found) if get_origin(one) is wanted)
    return found


def kinds_of(annotation: Any) -> list[str]:
    """The types that a declared type allows, in words."""
    kinds = []
    for one in members(annotation):
        origin = get_origin(one) or one
        kinds.append(KINDS[str if origin is Literal else dict if section_of(one) else origin])
    return list(dict.fromkeys(kinds))


def _suggest(place: list) -> str:
    """Say what an unknown key may be meant to be: the nearest key beside it, or one of that name elsewhere."""
    *outer, unknown = place
    here = sorted(keys_of(section_of(_declared(outer))))
    near = difflib.get_close_matches(unknown, here, 1)
    if near:
        return f"Did you mean {dotted([*outer, near[0]])}?"
    elsewhere = next((key for key, _ in leaves() if key.rpartition(".")[2] == unknown), None)
    return f"Did you mean {elsewhere}?" if elsewhere else f"Keys here: {', '.join(here)}."


def _wrong_value(found: Any, place: list) -> str:
    """Say what stands there and what should; numbers that YAML 1.1 reads as text get their own sentence."""
    declared = _declared(place)
    kinds = kinds_of(declared)
    if isinstance(found, str):
        if {"a number", "a whole number"} & set(kinds) and (sentence := _number(found)):
            return sentence
        words = [word for one in members(declared) if get_origin(one) is Literal for word in get_args(one)]
        if words:
            others = [kind for kind in kinds if kind not in ("text", "null")]
            near = difflib.get_close_matches(found, words, 1)
            expected = " or ".join([*words, *others]) if others else f"one of {', '.join(words)}"
            return f"found {found!r}, expected {expected}." + (f" Did you mean {near[0]}?" if near else "")
    expected = " or ".join(kinds)
    if found is None:
        return f"found null, expected {expected}. Write a value, or leave the key out for its default."
    if isinstance(found, bool) and "text" in kinds:
        return f"found {found} (YAML 1.1 reads yes, no, on and off as true or false), expected text. Put it in quotes."
    shown = repr(found) if isinstance(found, str | int | float) else str(found)
    return f"found {shown} ({KINDS.get(type(found), type(found).__name__)}), expected {expected}."


def _number(text: str) -> str | None:
    """Say how to write a text that looks like a number; None if it does not."""
    try:
        number = Decimal(text)
    except ArithmeticError:
        return None
    if not number.is_finite():
        return None
    short = plain(float(number))
    mantissa, exponent, power = text.strip().lower().partition("e")
    written = f"{mantissa}{'' if '.' in mantissa else '.0'}e{power if power[:1] in '+-' else f'+{power}'}"
    if exponent and written != text:
        return f"{text!r} is text in YAML 1.1; write {written} or {short}."
    return f"{text!r} is text; write {short} without quotes."
