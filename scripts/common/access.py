"""Checks before any job runs that a study can have what it needs; no network and no model library is used."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import UserError


def check_harness(tasks: Sequence[str]) -> None:
    """Check that lm-evaluation-harness is installed if a study has tasks of it.

    Raises:
        UserError: it is not; the message says how to install it.
    """
    if tasks and importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "evaluation.harness.tasks: lm-evaluation-harness is not installed. Run `make harness`, or in this "
            "environment `pip install -r requirements-harness.txt`. Nothing was started."
        )


def check_access(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that there is a token for every model that its study calls gated, unless it is in the local cache.

    Args:
        models: of a checked study.

    Raises:
        UserError: there is no token; the message says where to accept the licence and what to set.
    """
    gated = {name: values for name, values in models.items() if values["gated"] and not Path(values["source"]).is_dir()}
    if not gated:
        return
    from huggingface_hub import get_token, try_to_load_from_cache  # half a second, for gated models only

    if get_token():
        return
    for name, values in gated.items():
        if isinstance(try_to_load_from_cache(values["source"], "config.json", revision=values["revision"]), str):
            continue
        raise UserError(
            f"models.{name}: {values['source']} is gated, and there is no token. Accept its licence at "
            f"https://huggingface.co/{values['source']}, then set the environment variable HF_TOKEN to a token of the "
            "account that accepted it (https://huggingface.co/settings/tokens). Nothing was started."
        )
