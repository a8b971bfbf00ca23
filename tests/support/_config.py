"""The least study, checked or refused, and values of its sections that several tests share."""

import copy

import pytest

from common.files import UserError
from study import read

MINIMAL = {"study": "s", "models": {"m": {"source": "folder"}}, "mmlu": {"source": "folder"}}
# Values of `replay`, `training` and `evaluation`.
REPLAY = {"source": "auxiliary_train", "fraction": [0.0, 0.2], "kl": [0.0, 1.0]}
SWEPT = {"learning_rate": [0.1, 0.2], "kept_steps": [5, 9, 20]}
EVALUATION = {"strengths": [1, 0.5, 0, 0.25], "steps": [9, 5], "soups": {"both": ["lr0.2", "lr0.1"]}}


def study(**sections: dict) -> dict:
    """The minimal study with these sections, checked."""
    return read.check(copy.deepcopy(MINIMAL) | sections)


def refusal(**sections: dict) -> str:
    """What is said of the minimal study with these sections, which is not valid."""
    with pytest.raises(UserError) as caught:
        study(**sections)
    return str(caught.value)
