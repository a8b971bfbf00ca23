"""The least study, checked or refused, and values of its sections that several tests share."""

import copy
from typing import Any

import pytest

from common.files import UserError
from study import read

MINIMAL = {"study": "s", "models": {"m": {"source": "folder"}}, "tasks": {"spider": {}, "mmlu": {"source": "folder"}}}
# Values of `tasks`, `sweep` and `evaluation`.
GENERAL = {"general": {"kind": "replay", "source": "rows.csv"}}
REPLAY = {"replay.fraction": [0.0, 0.2], "replay.kl": [0.0, 1.0]}
SWEEP = {"training.learning_rate": [0.1, 0.2]}
EVALUATION = {"interpolate": [1, 0.5, 0, 0.25], "checkpoints": [9, 5], "soups": {"both": ["lr0.2", "lr0.1"]}}


def minimal(**sections: Any) -> dict:
    """The minimal study with these sections in place of its own; of `tasks`, with these tasks."""
    given = copy.deepcopy(MINIMAL | sections)
    if isinstance(given["tasks"], dict):
        given["tasks"] = copy.deepcopy(MINIMAL["tasks"]) | given["tasks"]
    return given


def study(**sections: Any) -> dict:
    """The minimal study with these sections, checked."""
    return read.check(minimal(**sections))


def refusal(**sections: Any) -> str:
    """What is said of the minimal study with these sections, which is not valid."""
    with pytest.raises(UserError) as caught:
        study(**sections)
    return str(caught.value)
