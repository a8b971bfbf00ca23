"""From a YAML file to a checked study: face, scale and command line, then types, defaults and contradictions.

Snakemake parses the workflow again inside every cluster job, so nothing here imports a model library.
"""

import copy
import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from common.files import UserError
from study.check import contradictions
from study.messages import sentences
from study.schema import Study
from study.unfold import AXES, FACES, canonical, nested
from tasks.registry import KINDS
from tasks.sections import Section

# Names of rules and tables, which no task may have.
RESERVED = (
    "model", "adapter", "harness", "replay", "regression", "exchange", "factors", "seeds", "databases", "errors",
    "flips", "confusion", "recommendation", "cost", "published", "sql", "choice", "match",
)  # fmt: skip
SMOKE = Path(__file__).parents[2] / "rules" / "smoke.yaml"


def read_yaml(path: Path) -> dict:
    """Read a YAML file of keys.

    Raises:
        UserError: it is not YAML, or has no keys.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({error}).") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: found no keys, expected a study. See config.yaml.")
    return found


def retype(overrides: Any) -> Any:
    """Give the values of nested `--config` overrides their YAML types.

    Snakemake reads `--config tables="{confidence_level: 0.9}"` with every leaf as text; `overrides` is what it read.
    """
    if isinstance(overrides, dict):
        return {key: retype(value) for key, value in overrides.items()}
    if isinstance(overrides, list):
        return [retype(value) for value in overrides]
    if not isinstance(overrides, str):
        return overrides
    try:
        value = yaml.safe_load(overrides)
    except yaml.YAMLError:
        return overrides
    if isinstance(value, bool) and overrides.lower() not in ("true", "false"):
        return overrides  # `eval_strategy: no` means the word
    return value if value is None or isinstance(value, int | float) else overrides


def resolve(raw: dict, overrides: dict | None = None, source: str = "config.yaml", smoke: dict | None = None) -> dict:
    """The study that is to be run, checked and complete.

    `overrides`, the values of the command line, choose face and scale, and hold over whatever the two say. `source` is
    the study's file in messages. `smoke` is what the scale smoke puts over the study, by default rules/smoke.yaml.

    Raises:
        UserError: as `overlay` and `check`.
    """
    overrides, smoke = overrides or {}, read_yaml(SMOKE) if smoke is None else smoke
    return check(_merge(overlay(_merge(raw, overrides), smoke, source), overrides), source)


def overlay(config: dict, smoke: dict, source: str = "config.yaml") -> dict:
    """A study's own values, those of its face over them, and those of the scale smoke over both.

    Raises:
        UserError: the study does not have this face.
    """
    face, faces = config.get("face", FACES[0]), config.get("faces") or {}
    # What is of a wrong type is left to `check`, which says so.
    if face in FACES and isinstance(faces, dict):
        if face != FACES[0] and face not in faces:
            raise UserError(
                f"{source}, face: found {face}, but faces.{face} is not there: this study has one face. Remove the key."
            )
        above = faces.get(face)
        config = _merge(config, above) if isinstance(above, dict) else config
    if config.get("scale") == "smoke":
        config = _merge(_first_values(config), smoke)
        tasks = _part(config, "tasks")
        kinds = {name: KINDS.get(str(_part(tasks, name).get("kind", name))) for name in tasks}
        config = _merge(config, {"tasks": {name: kind.SMOKE for name, kind in kinds.items() if kind}})
    return config


def check(config: dict, source: str = "config.yaml") -> dict:
    """Return `config` complete and in one canonical form, so that equal studies are equal values.

    Missing keys get their defaults, mappings are sorted, `1` becomes `1.0` where a real number is meant.

    Raises:
        UserError: one line for each mistake, each with the key and what to write instead.
    """
    config, messages = _validated(Study, canonical(config))
    for name, section in _part(config, "tasks").items():
        found, more = _task(name, section)
        messages += more
        config["tasks"] = config["tasks"] | {name: found}
    messages = messages or list(contradictions(config))
    if messages:
        raise UserError("\n".join(f"{source}, {message}" for message in messages))
    return config


def _validated(model: type[Section], values: dict, prefix: str = "") -> tuple[dict, list[str]]:
    """The values of a section complete and in canonical form, or as they are with what is wrong with them."""
    try:
        return canonical(model.model_validate(values).model_dump(by_alias=True)), []
    except ValidationError as error:
        return values, list(sentences(error, model, prefix))


def _task(name: str, section: Any) -> tuple[Any, list[str]]:
    """The section of a task, checked by its kind."""
    place = f"tasks.{name}"
    if name in RESERVED:
        return section, [f"{place}: {name} is the name of a rule or table of this workflow. Choose another name."]
    if not isinstance(section, dict):  # of which `Study` has said so
        return section, []
    kind = section.get("kind", name)
    if str(kind) not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, 1)
        meant = f"Did you mean {near[0]}?" if near else "Write one of them as kind."
        return section, [f"{place}.kind: found {kind}, expected one of {', '.join(KINDS)}. {meant}"]
    return _validated(KINDS[kind].Options, {**section, "kind": kind}, f"{place}.")


def _merge(below: dict, above: dict) -> dict:
    """Return `below` with the values of `above` in their places; lists replace lists.

    The key "*" stands for every key that is there, for what a study names by itself.
    """
    merged = dict(below)
    for key, value in above.items():
        for place in below if key == "*" else [key]:
            old = merged.get(place)
            merged[place] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _first_values(config: dict) -> dict:
    """A study with the first value alone of each swept axis, still as a list: the adapter keeps its name.

    Of the points of `evaluation` it has the strengths.
    """
    config = copy.deepcopy(config)
    for short, place in AXES.items():
        section, key = place.split(".")
        values = _part(config, section).get(key)
        if isinstance(values, list) and values and (short != "modules" or nested(values)):
            # The first fraction is mostly 0, with which nothing is replayed.
            config[section][key] = values[-1:] if short == "replay" else values[:1]
    # They are made for the study's own model, and a smoke run has another one.
    config.pop("adapters", None)
    # What is left names no adapter and no step that a smoke run may not have.
    _part(config, "training").pop("kept_steps", None)
    if isinstance(evaluation := config.get("evaluation", {}), dict):
        config["evaluation"] = {"strengths": evaluation.get("strengths", [])}
    return config


def _part(config: dict, section: str) -> dict:
    return found if isinstance(found := config.get(section), dict) else {}
