"""Which folder a run of a study has, which is named after what the run is, and the smallest study that is run."""

import csv
from pathlib import Path
from typing import Any

import yaml

from study import read, unfold
from study.repair import repairs

REPO = Path(__file__).parents[2]


def labels(study: dict[str, Any]) -> dict[str, str]:
    """The labels of a study's runs by their folders; `study` is as in its file."""
    config = read.resolve(study)
    return {run["folder"]: run["variant"] for run in unfold.runs(config) + unfold.noise(config) + repairs(config)}


def folder(study: dict[str, Any], label: str) -> str:
    """The folder of the run of this label."""
    return next(name for name, own in labels(study).items() if own == label)


def folders(results: Path, model: str = "demo") -> dict[str, Path]:
    """The folders of a finished study's runs of a model by their labels, as index.csv has them."""
    with (results / "index.csv").open(encoding="utf-8", newline="") as stream:
        return {row["run"]: results / row["folder"] for row in csv.DictReader(stream) if row["model"] == model}


def tiny() -> dict[str, Any]:
    """The least of the demo study that trains, saves checkpoints, answers in batches and makes tables."""
    study = yaml.safe_load((REPO / "config.yaml").read_text(encoding="utf-8"))
    study["study"] = "tiny"
    study["tasks"]["spider"] |= {"train_questions": 64, "questions": 16, "max_new_tokens": 32}
    study["tasks"]["mmlu"]["questions_per_category"] = 4
    study["sweep"] = {"training.learning_rate": [0.001]}
    study["training"] |= {"max_steps": 12, "save_steps": 2, "per_device_train_batch_size": 2}
    study["inference"] |= {"batch_size": 2}
    study["evaluation"] |= {"noise_floor": False}
    return study
