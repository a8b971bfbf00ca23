"""Checks before any job runs that a study can have what it needs; no network and no model library is used."""

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import UserError
from common.gpus import visible
from common.hub import ACCEPT
from common.weights import QUANTISED

# Where Linux has a GPU of AMD that computes.
AMD = Path("/dev/kfd")


def check_folder(folder: Path) -> None:
    """Refuse a folder in which this user cannot write what Snakemake keeps of the results, as another user's clone."""
    for path in (folder, folder / ".snakemake", folder / ".snakemake/metadata", folder / "results"):
        if path.exists() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(
                f"{path}: found a folder that you may not write in, expected your own: Snakemake keeps there what it "
                "knows of the results. Clone the repository into a folder of your own and run it there."
            )


def check_harness(tasks: Sequence[str]) -> None:
    """Refuse a study with tasks of lm-evaluation-harness where that is not installed."""
    if tasks and importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "evaluation.harness.tasks: lm-evaluation-harness is not installed. Run `make harness`, or in this "
            "environment `pip install -r requirements-harness.txt`. Nothing was started."
        )


def check_gpu(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse models whose precision needs a GPU that is not visible here, before gigabytes are downloaded.

    Those are quantised ones, and of fp16 too, which Apple's GPUs and AMD's compute in besides.
    """
    others = sys.platform == "darwin" or AMD.exists()
    needing = QUANTISED if others else ("fp16", *QUANTISED)
    keys = ("precision", "base_precision")
    asked = [(f"models.{name}.{key}", values.get(key)) for name, values in models.items() for key in keys]
    lacking = [(place, precision) for place, precision in asked if precision in needing]
    if lacking and not visible():
        place, precision = lacking[0]
        raise UserError(
            f"{place}: {precision} needs a {'' if precision == 'fp16' else 'CUDA '}GPU and none "
            "is visible. Set it to bf16 or fp32, or run with --workflow-profile profiles/slurm on a cluster. Nothing "
            "was started."
        )


# The package of a tracker that is not called like it.
PACKAGES = {"azure_ml": "azureml", "flyte": "flytekit"}


def check_trackers(names: Iterable[str]) -> None:
    """Refuse a study whose losses go to a tracker that is not installed."""
    for name in names:
        package = PACKAGES.get(name, name)
        if name != "none" and importlib.util.find_spec(package) is None:
            raise UserError(
                f"training.report_to: found {name}, but its package {package} is not installed here. Install it "
                "before anything is trained, or write none."
            )


def check_access(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse models of a study that it calls gated, without a token, unless they are in the local cache."""
    gated = {name: values for name, values in models.items() if values["gated"] and not Path(values["source"]).is_dir()}
    if not gated:
        return
    from huggingface_hub import get_token, try_to_load_from_cache  # half a second, for gated models only

    if get_token():
        return
    for name, values in gated.items():
        if not isinstance(try_to_load_from_cache(values["source"], "config.json", revision=values["revision"]), str):
            raise UserError(
                f"models.{name}: {values['source']} is gated, and there is no token. "
                f"{ACCEPT.format(page='https://huggingface.co/' + values['source'])} Nothing was started."
            )
