"""What is generated from the schema: the commented `config.yaml`, the JSON schema for editors, the list of keys."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from study.messages import BOUNDS, keys_of, kinds_of, members, section_of
from study.schema import Study
from study.unfold import plain

WIDTH = 120
CONFIG = "config.yaml"
HEAD = """\
# yaml-language-server: $schema=config.schema.json
#
# The demo study: a small model, small data of the same formats, all inside this repository. Offline, CPU, minutes.
#
# Copy this file to studies/<name>.yaml and edit it for a study of your own, then run
#
#     snakemake --cores all --configfile studies/<name>.yaml
#
# A study given like that replaces this file; the two are never merged. Single values can be changed for one run:
#
#     snakemake --cores all --config tables="{confidence_level: 0.9}"
#
# Only what a change affects is computed again. A key that is left out has its default, which docs/config.md lists; an
# unknown key is refused. Paths are relative to the folder in which you run snakemake.
#
# Do not edit the comments: `python scripts/studies.py document` writes them, and keeps the values.
"""
KEYS = """\
# The keys of a study

`python scripts/studies.py document` writes this page from `scripts/study/schema.py`. `config.yaml` shows every key in
its place.
"""


def documents(folder: Path) -> dict[str, str]:
    """The generated files of the repository in `folder` by their paths; config.yaml keeps the values it has."""
    values = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _tidy(Study.model_json_schema())
    return {
        CONFIG: HEAD + "\n".join(_commented(Study, values)) + "\n",
        "config.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        "docs/config.md": KEYS + "\n".join(_page(Study)),
    }


def _tidy(schema: Any) -> Any:
    """A JSON schema without pydantic's titles, and without the line breaks of the source in descriptions."""
    if isinstance(schema, dict):
        kept = {key: _tidy(value) for key, value in schema.items() if key != "title"}
        return kept | ({"description": " ".join(kept["description"].split())} if "description" in kept else {})
    return [_tidy(item) for item in schema] if isinstance(schema, list) else schema


def _commented(section: type[BaseModel], values: dict, indent: str = "", comments: bool = True) -> Iterator[str]:
    """The lines of a section's keys, each key below a comment that says what it means."""
    for key, field in keys_of(section).items():
        if not indent:
            yield ""
        if comments:
            for paragraph in _meaning(field):
                yield from _wrapped(paragraph, f"{indent}# ")
        value = values.get(key, _default(field))
        below = section_of(field.annotation)
        if below and value is not None:
            yield f"{indent}{key}:"
            yield from _commented(below, value, f"{indent}  ", comments)
        elif key == "models":
            yield f"{indent}{key}:"
            for number, (name, model) in enumerate(value.items()):
                yield f"{indent}  {name}:"
                yield from _commented(_in_mapping(field), model, f"{indent}    ", comments and not number)
        else:
            yield from _lines(key, value, indent)


def _lines(key: str, value: Any, indent: str) -> list[str]:
    """A key with its value on one line, or its parts on a line each if it is a mapping of lists."""
    if isinstance(value, dict) and any(isinstance(item, list) for item in value.values()):
        return [f"{indent}{key}:", *(line for item in value.items() for line in _lines(*item, f"{indent}  "))]
    written = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return [f"{indent}{key}: " + written.removesuffix("...\n").rstrip()]


def _page(section: type[BaseModel], place: str = "") -> Iterator[str]:
    """A table of a section's keys, then those of the sections below it."""
    below = []
    for number, (key, field) in enumerate(keys_of(section).items()):
        if not number:
            yield from ("", "| Key | Value | Default | Meaning |", "| --- | --- | --- | --- |")
        child = section_of(field.annotation) or _in_mapping(field)
        if child:
            below.append((f"{place}{key}", child, field))
            continue
        default = "required" if field.is_required() else f"`{json.dumps(_default(field), ensure_ascii=False)}`"
        cells = (f"`{key}`", _value(field), default, " ".join(_meaning(field)))
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
    for name, child, field in below:
        yield from ("", f"## {name}", "", *_wrapped(" ".join(_meaning(field))))
        yield from _page(child, f"{name}.")
    if not place:
        yield ""


def _value(field: FieldInfo) -> str:
    """Put into words what values a key takes."""
    types = members(field.annotation)
    words = [f"`{word}`" for one in types if get_origin(one) is Literal for word in get_args(one)]
    kinds = [kind for kind in kinds_of(field.annotation) if not (words and kind == "text")]
    bounds = dict.fromkeys(_bounds(field.annotation, field.metadata)) if "number" in " ".join(kinds) else ()
    return ", ".join([" or ".join([*words, *kinds]), *(f"{text} {plain(bound)}" for text, bound in bounds)])


def _bounds(annotation: Any, metadata: Any = ()) -> Iterator[tuple[str, float]]:
    for one in metadata:
        for name, words in ((name, words) for words, name in BOUNDS.values()):
            if getattr(one, name, None) is not None:
                yield words, getattr(one, name)
        yield from _bounds(None, getattr(one, "metadata", ()))
    for child in get_args(annotation):
        yield from _bounds(child, getattr(child, "__metadata__", ()))


def _wrapped(paragraph: str, indent: str = "") -> list[str]:
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(paragraph, WIDTH, initial_indent=indent, subsequent_indent=indent, **options)


def _meaning(field: FieldInfo) -> list[str]:
    """The paragraphs that describe a key; a section's stand at its class."""
    below = section_of(field.annotation)
    text = field.description or (below.__doc__ if below else "") or ""
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    return value.model_dump(by_alias=True) if isinstance(value, BaseModel) else value


def _in_mapping(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a mapping's values or a list's items are, if they are one."""
    inner = [get_args(one)[-1] for one in members(field.annotation) if get_args(one)]
    return next((found for one in inner if (found := section_of(one))), None)
