"""What is wrong with a study, in sentences: the key, what was found there, what to write instead."""

import difflib
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from pydantic import ValidationError

from study.labels import plain
from study.library import MARK, PYTHON, refusal
from study.schema import Study
from tasks import registry
from tasks.sections import ONE, OTHER, Section

# The types of JSON in words.
KINDS = {
    "string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "a list",
    "object": "a mapping", "null": "null",
}  # fmt: skip
# Pydantic's errors, the bound in their context and in a JSON schema.
BOUNDS = {
    "greater_than_equal": ("at least", "ge", "minimum"),
    "greater_than": ("more than", "gt", "exclusiveMinimum"),
    "less_than_equal": ("at most", "le", "maximum"),
    "less_than": ("less than", "lt", "exclusiveMaximum"),
}
# Keys of version 0.1, and what took their place.
GONE = {
    "face": "Write protocol.",
    "faces": "Write protocols.",
    "scoring": "Write timeout_s in each task of text-to-SQL, such as tasks.spider.timeout_s.",
    "prompt": "Write its keys in the tasks: tasks.spider.schema, tasks.spider.system, tasks.mmlu.system.",
    "inference.spider_max_new_tokens": "Write tasks.spider.max_new_tokens.",
    "inference.mmlu_max_new_tokens": "Write tasks.mmlu.max_new_tokens.",
    "evaluation.strengths": "Write evaluation.interpolate.",
    "evaluation.steps": "Write evaluation.checkpoints.",
    "training.kept_steps": "Write evaluation.checkpoints: what is kept is evaluated.",
    "tables.semantics": "Write criterion in the task, such as tasks.spider.criterion.",
    "recommend.max_loss_pp": "Write tables.margin_pp: a candidate must be shown to lose no more than that.",
    "recommend.seed": "Remove it: no questions are drawn; one family of intervals compares all candidates.",
}


def sentences(error: ValidationError, model: type[Section] = Study, prefix: str = "") -> Iterator[str]:
    """One sentence for each mistake that pydantic found in a study, or in a section of it, which lies at `prefix`."""
    for one in error.errors(include_url=False):
        # In pydantic's places stand, beside keys, the branches of unions, and a mark on a wrong name of a mapping.
        place = [part for part in one["loc"] if part not in (ONE, OTHER, "[key]")]
        where = dotted([*place, *([one["ctx"]["key"]] if one["type"] == "contradiction" else [])])
        yield f"{prefix}{where}: {_mistake(one, place, Declared(model, prefix))}"


class Declared(NamedTuple):
    """The class of a section, and where it lies in a study."""

    model: type[Section]
    prefix: str


def _mistake(one: dict, place: list, where: Declared) -> str:
    found, context = one["input"], one.get("ctx", {})
    match one["type"]:
        case "contradiction":
            return context["words"]
        case "extra_forbidden":
            return _no_key(place, where)
        case "missing":
            return "missing. Add it; see config.yaml for what it means."
        case kind if kind in BOUNDS:
            words, bound, _ = BOUNDS[kind]
            return f"found {found}, expected {words} {plain(context[bound])}."
        case "string_too_short":
            return "found '', expected text. Write a value, or leave the key out."
        case "too_short" if not found:
            least = context["min_length"]
            return f"found nothing in it, expected at least {least}. Write a value, or leave the key out."
        case "too_short":
            return f"found {found}, expected at least {context['min_length']} values."
        case "too_long":
            return f"found {found}, expected at most {context['max_length']} values."
        case "twice":
            return f"a value stands twice in {context['values']}. Remove one."
        case "expected":
            return f"found {found!r}, expected {context['words']}."
        case "finite_number":
            return f"found {found}, expected a number that is not infinite."
        case _:
            return _wrong_value(found, kind_at(place, where)) + _sweep(found, place)


def _sweep(found: Any, place: list) -> str:
    """Where a list belongs that is to be swept; nothing for other values."""
    if not isinstance(found, list) or len(place) < 2 or place[0] not in ("lora", "training", "replay"):
        return ""
    if isinstance(place[-1], int):
        return f" To compare several, write them under sweep: {{{dotted(place[:2])}: [[...], [...]]}}."
    return f" To compare several, write sweep: {{{dotted(place)}: {found}}}."


def dotted(place: list) -> str:
    """Write a place in a study as in `training.learning_rate[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


@cache
def declared(model: type[Section] = Study) -> dict:
    """The JSON schema of a study, or of a section, with each section in its place."""
    return inlined(model.model_json_schema())


def inlined(schema: dict) -> dict:
    """A JSON schema of pydantic's with each section in its place."""

    def put(node: Any) -> Any:
        if isinstance(node, list):
            return [put(child) for child in node]
        if not isinstance(node, dict):
            return node
        section = schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
        return {key: put(child) for key, child in (section | node).items() if key != "$ref"}

    return put({key: child for key, child in schema.items() if key != "$defs"})


def branches(node: dict) -> list[dict]:
    """The types that a value may have, each as a JSON schema."""
    choices = node.get("anyOf", node.get("oneOf"))
    return [node] if choices is None else [one for child in choices for one in branches(child)]


def section_of(node: dict) -> dict | None:
    """The section that a value may be, if it is one."""
    return next((one for one in branches(node) if "properties" in one), None)


def passed_on(section: dict) -> tuple[str, list[str]]:
    """The class of a library that a section passes keys on to, and these keys; "" if there is none."""
    found = {key: node[MARK] for key, node in section["properties"].items() if MARK in node}
    return next(iter(found.values()), ""), list(found)


def own(section: dict) -> dict[str, dict]:
    """The keys of a section that the study declares itself, with their JSON schemas."""
    return {key: node for key, node in section["properties"].items() if MARK not in node}


def leaves(section: dict | None = None, prefix: str = "") -> Iterator[tuple[str, dict]]:
    """Every key below a section, of a study by default, with its JSON schema; sections before what is in them.

    Keys that are passed on to a library are left out.
    """
    for key, node in own(section or declared()).items():
        yield f"{prefix}{key}", node
        if below := section_of(node):
            yield from leaves(below, f"{prefix}{key}.")


def inside(node: dict, kind: str) -> dict | None:
    """The JSON schema of the items of a list (`items`), or of the values of a mapping (`additionalProperties`)."""
    return next((one[kind] for one in branches(node) if isinstance(one.get(kind), dict)), None)


def kind_at(place: list, where: Declared) -> dict:
    """The JSON schema of a place in a section."""
    node = declared(where.model)
    for part in place:
        section, kind = section_of(node), "items" if isinstance(part, int) else "additionalProperties"
        found = section and section["properties"].get(part)
        node = found or inside(node, kind)
    return node


def kinds_of(node: dict) -> list[str]:
    """The types that a value may have, in words."""
    return list(dict.fromkeys(KINDS[one["type"]] for one in branches(node)))


def words_of(node: dict) -> list[str]:
    """The words that a value may be."""
    return [word for one in branches(node) for word in one.get("enum", [one["const"]] if "const" in one else [])]


def _no_key(place: list, where: Declared) -> str:
    """Say why an unknown key is none, or what it may be meant to be: the nearest key there, or one of that name."""
    if instead := GONE.get(f"{where.prefix}{dotted(place)}"):
        return f"no such key any more. {instead}"
    *outer, unknown = place
    section = section_of(kind_at(outer, where))
    library, passed = passed_on(section)
    if library and (because := refusal(library, unknown)):
        return f"{library} has this key, but no study may set it: {because}. Remove it."
    here = sorted(own(section))
    near = difflib.get_close_matches(unknown, here, 1) or difflib.get_close_matches(unknown, passed, 1)
    if near:
        return f"no such key. Did you mean {where.prefix}{dotted([*outer, near[0]])}?"
    kinds = registry.KINDS.items()
    of_tasks = [leaf for kind, task in kinds for leaf in leaves(declared(task.Options), f"tasks.{kind}.")]
    places = [*(key for key, _ in (*of_tasks, *leaves())), *(f"tasks.{kind}" for kind, _ in kinds)]
    places += [
        f"{prefix}.{key}"
        for prefix, node in own(declared()).items()
        if (below := section_of(node))
        for key in passed_on(below)[1]
    ]
    elsewhere = [key for key in places if key.rpartition(".")[2] == unknown]
    if elsewhere:
        # `replay.source` is more like tasks.replay.source than like another task's.
        found = max(elsewhere, key=lambda key: bool(set(outer) & set(key.split("."))))
        # No task may be called like the rules of training.
        named = found.replace("tasks.replay", "tasks.<name>")
        return f"no such key. Did you mean {named}{', of a task of kind replay' if named != found else ''}?"
    others = f", and those of {library}" if library else ""
    return f"no such key. Keys here: {', '.join(here)}{others}."


def _wrong_value(found: Any, node: dict) -> str:
    """Say what stands there and what should; numbers that YAML 1.1 reads as text get their own sentence."""
    kinds = kinds_of(node)
    if isinstance(found, str):
        if {"a number", "a whole number"} & set(kinds) and (sentence := _number(found)):
            return sentence
        if words := words_of(node):
            others = [kind for kind in kinds if kind not in ("text", "null")]
            near = difflib.get_close_matches(found, words, 1)
            expected = " or ".join([*words, *others]) if others else f"one of {', '.join(words)}"
            if len(words) > 20:
                expected = f"one of {len(words)} names, which config.schema.json lists"
            return f"found {found!r}, expected {expected}." + (f" Did you mean {near[0]}?" if near else "")
    expected = " or ".join(kinds)
    if found is None:
        return f"found null, expected {expected}. Write a value, or leave the key out for its default."
    if isinstance(found, bool) and "text" in kinds:
        return f"found {found} (YAML 1.1 reads yes, no, on and off as true or false), expected text. Put it in quotes."
    shown = repr(found) if isinstance(found, str | int | float) else str(found)
    kind = next((KINDS[name] for name, of in PYTHON.items() if of is type(found)), type(found).__name__)
    return f"found {shown} ({kind}), expected {expected}."


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
