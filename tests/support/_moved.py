"""How a study was written before it had `tasks`, and how the same is written now: the one reviewed mapping of keys.

What the goldens hold of the code before is read through it.
"""

import re
from typing import Any

# The longest place that a key lies at, or in, holds.
MOVED = {
    "spider": "tasks.spider",
    "spider.dev_questions": "tasks.spider.questions",
    "mmlu": "tasks.mmlu",
    "prompt": "tasks.spider",
    "prompt.spider_system": "tasks.spider.system",
    "prompt.style": "tasks.spider.prompt",
    "prompt.train_target": "training.loss_on",
    "prompt.mmlu_system": "tasks.mmlu.system",
    "scoring": "tasks.spider",
    "tables.semantics": "tasks.spider.criterion",
    "inference.spider_max_new_tokens": "tasks.spider.max_new_tokens",
    "inference.mmlu_max_new_tokens": "tasks.mmlu.max_new_tokens",
    "replay.source": "tasks.general.source",
    "replay.questions": "tasks.general.questions",
    "replay.seed": "tasks.general.seed",
    "face": "protocol",
    "faces": "protocols",
}
SECTIONS = {key.partition(".")[0] for key in MOVED}
# Keys that have another name in their section.
RENAMED = {"strengths": "interpolate", "steps": "checkpoints"}
# Values that have another name, by the old place.
VALUES = {
    "prompt.style": {"default": None, "ribeiro": "resources/prompts/ribeiro.jinja"},
    "prompt.train_target": {"sql": "completion"},
}
MEASURES = {"execution_accuracy": "spider", "mmlu": "mmlu"}


def place(old: str) -> str:
    """Where a key lies that lay at `old`."""
    found = next((key for key in sorted(MOVED, key=len, reverse=True) if f"{old}.".startswith(f"{key}.")), None)
    return old if found is None else MOVED[found] + old.removeprefix(found)


def moved(study: dict[str, Any]) -> dict[str, Any]:
    """A study, or a part of one, in today's form. Rows to replay are a task only where they have a source."""
    found: dict[str, Any] = {}

    for section, values in study.items():
        inner = section in SECTIONS and isinstance(values, dict) and values
        for old, value in (
            {f"{section}.{key}": one for key, one in values.items()}.items() if inner else [(section, values)]
        ):
            *outer, last = place(old).split(".") if inner or section in MOVED else [section]
            below = found
            for key in outer:
                below = below.setdefault(key, {})
            value = VALUES.get(old, {}).get(value, value) if isinstance(value, str) else value
            # A key that moved may have been there first.
            below[last] = below[last] | value if isinstance(value, dict) and last in below else value
    _sweep(found)
    if isinstance(evaluation := found.get("evaluation"), dict):
        found["evaluation"] = {RENAMED.get(key, key): value for key, value in evaluation.items()}
    for table in _list(found.get("published"), "tables"):
        if isinstance(table, dict) and "measure" in table:
            table["task"] = MEASURES.get(measure := table.pop("measure"), measure)
    protocols = found.get("protocols")
    if isinstance(protocols, dict):
        found["protocols"] = {
            protocol: moved(above) if isinstance(above, dict) else above for protocol, above in protocols.items()
        }
    return found


def _sweep(study: dict[str, Any]) -> None:
    """Put lists to sweep where they stand now, and leave out the list of the steps to keep."""
    sweep = {}
    for section in ("lora", "training", "replay"):
        if not isinstance(values := study.get(section), dict):
            continue
        for key, value in list(values.items()):
            # Layers are a list, several lists of them are swept; several seeds stay seeds.
            swept = isinstance(value, list) and key not in ("seed", "kept_steps")
            if swept and not (key == "target_modules" and value and isinstance(value[0], str)):
                sweep[f"{section}.{key}"] = values.pop(key)
        values.pop("kept_steps", None)
    if sweep:
        study["sweep"] = sweep


def said(sentence: str) -> str:
    """A refusal in which each old place has its new name."""
    places = "|".join(re.escape(key) for key in sorted(MOVED, key=len, reverse=True))
    return re.sub(rf"(?:^|(?<=mean )|(?<=but ))({places})(?=[.:\[? ])", lambda match: place(match[1]), sentence)


def _list(section: Any, key: str) -> list:
    found = section.get(key) if isinstance(section, dict) else None
    return found if isinstance(found, list) else []
