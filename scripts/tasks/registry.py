"""The kinds of task, by their names in a study. The only list of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tasks import bird, jsonl, mmlu, replay, spider, spider_format
from tasks.base import Measure, Task

KINDS: Mapping[str, Task] = {
    "spider": spider,
    "spider_format": spider_format,
    "bird": bird,
    "mmlu": mmlu,
    "jsonl": jsonl,
    "replay": replay,
}


def measured(uses: Mapping[str, Mapping[str, Any]]) -> dict[str, Measure]:
    """What the analysis must know of each task, in the order of `uses`: its kind, role and options of stage measure."""
    return {task: replace(KINDS[use["kind"]].measure(use), role=use["role"]) for task, use in uses.items()}
