"""What is generated from the schema: the commented `config.yaml`, the JSON schema for editors, the list of keys."""

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from study.labels import plain
from study.messages import BOUNDS, branches, declared, inside, kinds_of, own, passed_on, section_of, words_of
from study.schema import Study
from tasks.registry import KINDS
from tasks.sections import Section

WIDTH = 120
MOST_WORDS = 20
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
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _tidy(_schema())
    kinds = [line for kind, task in KINDS.items() for line in _kind(kind, task.Options)]
    return {
        CONFIG: HEAD + "\n".join(_commented(declared(), values)) + "\n",
        "config.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        "docs/config.md": KEYS + "\n".join([*_page(declared()), *kinds]) + "\n",
    }


def _schema() -> dict:
    """The JSON schema of a study in which a task that is named after its kind has the keys of that kind."""
    schema, tasks = Study.model_json_schema(), {}
    for kind, task in KINDS.items():
        found = task.Options.model_json_schema(ref_template=f"#/$defs/{kind}_{{model}}")
        schema["$defs"] |= {f"{kind}_{name}": one for name, one in found.pop("$defs", {}).items()}
        schema["$defs"][kind] = found
        tasks[kind] = {"$ref": f"#/$defs/{kind}"}
    named = [{"properties": {"kind": {"const": kind}}, "required": ["kind"], **ref} for kind, ref in tasks.items()]
    schema["properties"]["tasks"] |= {"properties": tasks, "additionalProperties": {"anyOf": named}}
    return schema


def _tidy(schema: Any) -> Any:
    """A JSON schema without pydantic's titles, and without the line breaks of the source in descriptions."""
    if isinstance(schema, dict):
        kept = {
            key: _tidy(value) for key, value in schema.items() if key != "title" or not isinstance(value, str)
        }  # a section may have a key of that name
        return kept | ({"description": " ".join(kept["description"].split())} if "description" in kept else {})
    return [_tidy(item) for item in schema] if isinstance(schema, list) else schema


def _commented(section: dict, values: dict, indent: str = "", comments: bool = True) -> Iterator[str]:
    """The lines of a section's keys, each key below a comment that says what it means."""
    for key, node in own(section).items():
        if values.get(key) is None and node.get("default", "") is None and "null" not in kinds_of(node):
            continue  # a key that may be left out, and is
        if not indent:
            yield ""
        if comments:
            for paragraph in _meaning(node):
                yield from _wrapped(paragraph, f"{indent}# ")
        value, below = values.get(key, node.get("default")), section_of(node)
        if below and value is not None:
            yield f"{indent}{key}:"
            yield from _commented(below, value, f"{indent}  ", comments)
        elif not indent and key in ("models", "tasks"):
            yield f"{indent}{key}:"
            for number, (name, one) in enumerate(value.items()):
                yield f"{indent}  {name}:"
                if key == "tasks":
                    yield from _commented(declared(KINDS[one.get("kind", name)].Options), one, f"{indent}    ")
                else:
                    yield from _commented(_inner(node), one, f"{indent}    ", comments and not number)
        else:
            yield from _lines(key, value, indent)


def _lines(key: str, value: Any, indent: str) -> list[str]:
    """A key with its value on one line, or its parts on a line each if it is a mapping of lists."""
    if isinstance(value, dict) and any(isinstance(item, list) for item in value.values()):
        return [f"{indent}{key}:", *(line for item in value.items() for line in _lines(*item, f"{indent}  "))]
    written = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return [f"{indent}{key}: " + written.removesuffix("...\n").rstrip()]


def _kind(kind: str, options: type[Section]) -> Iterator[str]:
    """The keys of a kind of task."""
    section = declared(options)
    yield from ("", f"## tasks.&lt;name&gt; of kind {kind}", "", *_wrapped(" ".join(section["description"].split())))
    yield from _page(section, f"tasks.<name> of kind {kind}: ")


def _page(section: dict, place: str = "") -> Iterator[str]:
    """A table of a section's keys, then those of the sections below it."""
    below = {key: child for key, node in own(section).items() if (child := section_of(node) or _inner(node))}
    yield from ("", "| Key | Value | Default | Meaning |", "| --- | --- | --- | --- |")
    for key, node in own(section).items():
        if key in below:
            continue
        default = f"`{json.dumps(node['default'], ensure_ascii=False)}`" if "default" in node else "required"
        cells = (f"`{key}`", _value(node), default, " ".join(_meaning(node)))
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
    library, keys = passed_on(section)
    if keys:
        names = ", ".join(f"`{key}`" for key in sorted(keys))
        yield from ("", *_wrapped(f"Passed on to {library} as they are, if they are there: {names}."))
    for key, child in below.items():
        yield from ("", f"## {place}{key}", "", *_wrapped(" ".join(_meaning(section["properties"][key]))))
        yield from _page(child, f"{place}{key}.")


def _value(node: dict) -> str:
    """Put into words what values a key takes."""
    words = [f"`{word}`" for word in words_of(node)]
    if len(words) > MOST_WORDS:
        return f"one of {len(words)} names, which config.schema.json lists"
    kinds = [kind for kind in kinds_of(node) if not (words and kind == "text")]
    # The bounds of a number are also those of the numbers in a list.
    numbers = (
        [one for kind in branches(node) for one in (kind, kind.get("items", {}))] if "number" in str(kinds) else []
    )
    bounds = [f"{least} {plain(one[name])}" for one in numbers for least, _, name in BOUNDS.values() if name in one]
    return ", ".join([" or ".join([*words, *kinds]), *dict.fromkeys(bounds)])


def _wrapped(paragraph: str, indent: str = "") -> list[str]:
    options = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(paragraph, WIDTH, initial_indent=indent, subsequent_indent=indent, **options)


def _meaning(node: dict) -> list[str]:
    """The paragraphs that describe a key; a section's stand at its class."""
    text = node.get("description") or (section_of(node) or {}).get("description", "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _inner(node: dict) -> dict | None:
    """The section that a mapping's values or a list's items are, if they are one."""
    found = inside(node, "items") or inside(node, "additionalProperties")
    return section_of(found) if found else None
