"""From a YAML file to a checked study: protocol, scale and command line, then types, defaults and contradictions.

Snakemake parses the workflow again inside every cluster job, so nothing here imports a model library.
"""

import copy
import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from common.files import UserError
from study.check import contradictions
from study.identity import canonical
from study.messages import sentences
from study.schema import Lora, Replay, Study, Training
from study.unfold import PROTOCOLS
from tasks.registry import KINDS
from tasks.sections import Section

# Names of rules and tables, which no task may have.
RESERVED = (
    "model", "adapter", "answers", "harness", "replay", "settings", "contrasts", "equal_gain", "transitions",
    "regression", "databases", "errors", "flips", "confusion", "recommendation", "cost", "published", "gold", "sql",
    "choice", "match", "noise", "repair",
)  # fmt: skip
# The sections that may differ between the adapters of a study.
VARIED = {"lora": Lora, "training": Training, "replay": Replay}
# Keys that concern the rows, which all adapters share.
SHARED = ("training.loss_on", "training.max_length", "training.truncate")
MOST_VALUES = 100_000
# What PyYAML raises of a text, and of a date, a number or a tag that cannot be.
UNREADABLE = (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, RecursionError)
SMOKE = Path(__file__).parents[2] / "rules" / "smoke.yaml"


def read_yaml(path: Path) -> dict:
    """Read a YAML file of keys.

    Raises:
        UserError: it is not there, not UTF-8 or not YAML, has no keys or endlessly many, or has a key twice, of which
            YAML would take the last.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the fast one, if it is there
        if _is_endless(node):
            found = f"anchors (&) and aliases (*) that make more than {MOST_VALUES:,} values"
            raise UserError(f"{path}: found {found}, expected fewer. Write the values out.")
        found = yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give the path of a study, such as config.yaml.") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). Give the path of a study, such as config.yaml."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}). Save the file as UTF-8."
        ) from None
    except UNREADABLE as error:
        raise UserError(f"{path}: not YAML ({error}).") from None
    if twice := list(_twice(node)):
        raise UserError("\n".join(f"{path}, {sentence}" for sentence in twice))
    if not isinstance(found, dict):
        raise UserError(f"{path}: found no keys, expected a study. See config.yaml.")
    return found


def _is_endless(node: yaml.Node | None) -> bool:
    """Whether a few aliases of aliases, or one of itself, stand for more values than any study has."""
    waiting, seen = [node], 0
    while waiting and seen <= MOST_VALUES:
        seen, node = seen + 1, waiting.pop()
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return seen > MOST_VALUES


def _twice(node: yaml.Node | None, prefix: str = "") -> Iterator[str]:
    """A sentence for each key that stands twice in a section."""
    if isinstance(node, yaml.SequenceNode):
        for number, child in enumerate(node.value):
            yield from _twice(child, f"{prefix.removesuffix('.')}[{number}].")
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for key, child in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in first and name != "<<":
            yield f"line {line}: {prefix}{name} stands in line {first[name]} already. Remove one, or put both together."
        first.setdefault(name, line)
        yield from _twice(child, f"{prefix}{name}.")


def as_for_snakemake(configfile: Path, given: Sequence[str]) -> dict:
    """Read and check the study that a command names as snakemake does: --configfile, and --config KEY=VALUE …

    Raises:
        UserError: as `read_yaml` and `resolve`.
    """
    return resolve(read_yaml(configfile), retype(overrides_of(given)), configfile.name)


def overrides_of(given: Sequence[str]) -> dict:
    """What snakemake reads from the words KEY=VALUE of its --config, as plain values; a UserError of what it cannot."""
    from snakemake.cli import parse_config  # takes a second to import

    try:
        return json.loads(json.dumps(parse_config(given)))
    except (ValueError, AssertionError):  # the second of a value such as `~`
        raise UserError(
            f"--config: found {' '.join(given)}, expected KEY=VALUE with a key of the study's first level. A key of a "
            'section is written --config training="{learning_rate: 0.001}".'
        ) from None


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

    `overrides`, the values of the command line, choose protocol and scale, and hold over whatever the two say. `source`
    is the study's file in messages. `smoke` is what the scale smoke puts over the study, by default rules/smoke.yaml.

    Raises:
        UserError: as `overlay` and `check`.
    """
    overrides, smoke = overrides or {}, read_yaml(SMOKE) if smoke is None else smoke
    return check(_merge(overlay(_merge(raw, overrides), smoke, source), overrides), source)


def overlay(config: dict, smoke: dict, source: str = "config.yaml") -> dict:
    """A study's own values, those of its protocol over them, and those of the scale smoke over both.

    Raises:
        UserError: the study does not have this protocol.
    """
    protocol, protocols = config.get("protocol", PROTOCOLS[0]), config.get("protocols") or {}
    # What is of a wrong type is left to `check`, which says so.
    if protocol in PROTOCOLS and isinstance(protocols, dict):
        if protocol != PROTOCOLS[0] and protocol not in protocols:
            raise UserError(
                f"{source}, protocol: found {protocol}, but protocols.{protocol} is not there: this study has one "
                "protocol. Remove the key."
            )
        above = protocols.get(protocol)
        config = _merge(config, above) if isinstance(above, dict) else config
    if config.get("scale") == "smoke":
        config = _merge(_first_values(config, smoke), smoke)
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
    if not messages:
        messages = _vary(config)
    messages = messages or list(contradictions(config))
    if messages:
        raise UserError("\n".join(f"{source}, {message}" for message in messages))
    return config


def _vary(config: dict) -> list[str]:
    """Check the values that adapters have for themselves, put them into canonical form, and say what is wrong."""
    messages = []
    for place, values in config["sweep"].items():
        section, _, key = place.rpartition(".")
        kind = config["tasks"].get(section.removeprefix("tasks."), {})
        if section in VARIED and place not in (*SHARED, "training.seed"):
            for number, value in enumerate(values):
                found, wrong = _validated(VARIED[section], {key: value}, f"sweep.{section}.", partly=True)
                messages += wrong
                values[number] = found.get(key)
            if any(value in values[:number] for number, value in enumerate(values)):
                messages.append(f"sweep.{place}: a value stands twice in {values}. Remove one.")
        elif key == "train_questions" and kind.get("role") == "target":
            for value in values:
                messages += _validated(KINDS[kind["kind"]].Options, {**kind, key: value}, f"sweep.{section}.")[1]
            # Each training takes the first of all rows.
            kind[key] = None
        else:
            because = "all adapters share the rows" if place in SHARED else "expected a key of lora, training or replay"
            because = "seeds are no setting. Write training.seed: [1, 2, 3]" if place == "training.seed" else because
            messages.append(f"sweep.{place}: {because}.")
    for name, adapter in config["adapters"].items():
        for section, model in VARIED.items():
            values, prefix = adapter[section], f"adapters.{name}.{section}."
            found, wrong = _validated(model, values, prefix, partly=True)
            # A null of a key that may be left out holds over what the study says.
            adapter[section] = canonical(found | {key: None for key in values if values[key] is None})
            shared = [key for key in values if f"{section}.{key}" in SHARED]
            messages += [*wrong, *(f"{prefix}{key}: all adapters share the rows. Remove it." for key in shared)]
    return list(dict.fromkeys(messages))


def _validated(model: type[Section], values: dict, prefix: str = "", partly: bool = False) -> tuple[dict, list[str]]:
    """The values of a section complete (`partly`: those that are there) and in canonical form, and what is wrong."""
    try:
        return canonical(model.model_validate(values).model_dump(by_alias=True, exclude_unset=partly)), []
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
    """Return `below` with the values of `above` in their places; lists replace lists, and null removes a section.

    The key "*" stands for every key that is there, for what a study names by itself.
    """
    merged = dict(below)
    for key, value in above.items():
        for place in below if key == "*" else [key]:
            old = merged.get(place)
            if isinstance(old, dict) and value is None:
                del merged[place]
            else:
                merged[place] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _first_values(config: dict, smoke: dict) -> dict:
    """A study with the first value alone of what is swept, the first seed, and of `evaluation` the interpolations
    and the noise floor.

    So nothing names an adapter or a step that a smoke run does not have. What `smoke` sets, no adapter sets for itself.
    """
    config = copy.deepcopy(config)
    sweep = {}
    for place, values in _part(config, "sweep").items():
        section, _, key = str(place).rpartition(".")
        if section.startswith("tasks.") or key in _part(smoke, section):
            continue
        # The first fraction is mostly 0, with which nothing is replayed.
        first = slice(-1, None) if place == "replay.fraction" else slice(1)
        sweep[place] = values[first] if isinstance(values, list) else values
    config["sweep"] = sweep
    if isinstance(seeds := _part(config, "training").get("seed"), list):
        config["training"]["seed"] = seeds[:1]
    # Ready-made ones are for the study's own model, and a smoke run has another one.
    named = _part(config, "adapters").items()
    config["adapters"] = {name: own for name, own in named if isinstance(own, dict) and not own.get("source")}
    for name, own in list(config["adapters"].items()):
        lost = [_part(own, "training").pop(key) for key in _part(smoke, "training") if key in _part(own, "training")]
        # What differs in nothing else from the study, or from another one, is the same training.
        same = [other for other in config["adapters"].values() if other is not own and other == own]
        if lost and (same or not any(own.values())):
            del config["adapters"][name]
    evaluation = _part(config, "evaluation")
    config["evaluation"] = {key: evaluation[key] for key in ("interpolate", "noise_floor") if key in evaluation}
    return config


def _part(config: dict, section: str) -> dict:
    return found if isinstance(found := config.get(section), dict) else {}
