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
    "prompt.mmlu_system": "tasks.mmlu.system",
    "scoring": "tasks.spider",
    "tables.semantics": "tasks.spider.criterion",
    "inference.spider_max_new_tokens": "tasks.spider.max_new_tokens",
    "inference.mmlu_max_new_tokens": "tasks.mmlu.max_new_tokens",
    "replay.source": "tasks.general.source",
    "replay.questions": "tasks.general.questions",
    "replay.seed": "tasks.general.seed",
}
SECTIONS = {key.partition(".")[0] for key in MOVED}
# Values that have another name, by the old place.
VALUES = {"prompt.style": {"default": None, "ribeiro": "resources/prompts/ribeiro.jinja"}}
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
            below[last] = VALUES.get(old, {}).get(value, value) if isinstance(value, str) else value
    for table in _list(found.get("published"), "tables"):
        if isinstance(table, dict) and "measure" in table:
            table["task"] = MEASURES.get(measure := table.pop("measure"), measure)
    faces = found.get("faces")
    if isinstance(faces, dict):
        found["faces"] = {face: moved(above) if isinstance(above, dict) else above for face, above in faces.items()}
    return found


def said(sentence: str) -> str:
    """A refusal in which each old place has its new name."""
    places = "|".join(re.escape(key) for key in sorted(MOVED, key=len, reverse=True))
    return re.sub(rf"(?:^|(?<=mean )|(?<=but ))({places})(?=[.:\[? ])", lambda match: place(match[1]), sentence)


def _list(section: Any, key: str) -> list:
    found = section.get(key) if isinstance(section, dict) else None
    return found if isinstance(found, list) else []
