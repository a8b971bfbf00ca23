"""What a report says of where its results come from: data, models, trainings, versions and hashes, as plain values.

`results` are those of `present.facts`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from present.format import Say
from present.values import BASE, setting_name

# So many digits of a hash are shown.
DIGITS = 16
WEIGHTS = "adapter_model.safetensors"
# The settings of a training that a reader looks for first; all stand in the appendix.
MAIN = (
    "method", "r", "lora_alpha", "lora_dropout", "target_modules", "learning_rate", "lr_scheduler_type", "warmup_ratio",
    "warmup_steps", "num_train_epochs", "max_steps", "rows", "per_device_train_batch_size",
    "gradient_accumulation_steps", "optim", "weight_decay", "max_length", "seed", "replay.fraction", "replay.kl",
)  # fmt: skip

Run = tuple[str, str]
Row = dict[str, Any]


def splits(data: Mapping[str, Mapping], stratum: str, levels: Sequence[str]) -> list[Row]:
    """The parts of the target's data, by name."""
    rows = []
    for name, part in sorted(data.items()):
        if name != "source":
            by = part.get(f"by_{stratum}", {})
            row = {"part": name, "rows": part["rows"], "databases": len(part.get("by_database", ())) or None}
            row |= {"by": " / ".join(str(by.get(level, 0)) for level in levels) if by else ""}
            rows.append(row | {"sha256": part["sha256"][:DIGITS]})
    return rows


def models(results: Any, say: Say) -> list[Row]:
    """The models, with where each came from and how it was loaded."""
    rows = []
    for model in results.models:
        reports = [report for (name, *_), report in results.answers.items() if name == model["name"]]
        commit = model["commit"][:DIGITS] if model["commit"] else say.words["report"]["local_folder"]
        row = {**model, "commit": commit, "sha256": model["sha256"][:DIGITS]}
        row["precision"] = ", ".join(sorted({one["settings"]["precision"] for one in reports}))
        row["batch"] = ", ".join(sorted({str(one["batch_size_used"]) for one in reports}))
        row["quantized"] = "nf4" in row["precision"]
        # The base's own precision, where its adapters answered in another one, and theirs.
        of = {alone: [] for alone in (True, False)}
        for (name, variant, _), one in results.answers.items():
            if name == model["name"]:
                of[variant.partition("@")[0] == BASE].append(one["settings"]["precision"])
        row["apart"] = (of[True][0], of[False][0]) if of[True] and of[False] and of[True][0] != of[False][0] else None
        rows.append(row | {"device": "; ".join(sorted({one["device"] for one in reports}))})
    return rows


def trainings(results: Any, name: Callable[[Run], str], rank: Mapping[Run, int]) -> dict[str, Any]:
    """The settings of all adapters, each with the values that it has, and what came of them."""
    train, values = results.train, {}
    some = any("chosen" in report for report in train.values())
    full = [run for run, report in train.items() if is_full(report)]
    settings = [flat(with_rows(report, some)) for report in train.values()]
    settings = [({"training.method": "lora"} if full else {}) | one for one in settings]
    for place in dict.fromkeys(place for one in settings for place in one):
        found = [one.get(place, "0.0" if place == "replay.fraction" else None) for one in settings]
        values[setting_name(place)] = "; ".join(dict.fromkeys(value for value in found if value is not None))
    last = {run: report["history"][-1]["loss"] if report["history"] else None for run, report in train.items()}
    rows = [{"parameter": parameter, "value": value} for parameter, value in values.items()]
    return {
        "settings": rows,
        "main": [row for row in rows if row["parameter"] in MAIN],
        # Those of full fine-tuning, and whether there is an adapter beside them.
        "full": [name(run) for run in full],
        "adapted": len(full) < len(train),
        # Of the parameters of the model; of several adapters the largest share.
        "share": max(
            (
                100 * one["trainable_parameters"] / one["all_parameters"]
                for run, one in train.items()
                if run not in full
            ),
            default=None,
        ),
        "seed": values.get("seed"),
        "rows": [
            {**report, "name": name(run), "rank": rank.get(run), "loss": last[run], "digits": 3}
            for run, report in train.items()
        ],
        "audits": results.audits,
        "choices": choices(train, name),
        "replaying": sum("replay" in report for report in train.values()),
    }


def is_full(report: Mapping[str, Any]) -> bool:
    """Whether a training was of all weights, by its report."""
    return report["settings"]["training"].get("method") == "full"


def with_rows(report: Mapping[str, Any], some: bool) -> dict[str, Any]:
    """The settings of a training; where `some` have only a part of the rows, with the rows of each by their name."""
    settings = report["settings"]
    own = {key: value for key, value in settings["training"].items() if key != "rows"}
    own |= {"rows": report["chosen"]["name"] if "chosen" in report else "all"} if some else {}
    return {**settings, "training": own}


def choices(train: Mapping[Run, Mapping], name: Callable[[Run], str]) -> list[Row]:
    """Each choice of some of the training rows, with the names of the adapters that are trained on it.

    `by` has how many rows of each class were chosen and how many there are, `least` and `most` how many were chosen of
    any, and `short` the classes that gave all they have, which is less than others by more than what is left over.
    """
    found: dict[tuple, Row] = {}
    for run, report in train.items():
        if "chosen" in report:
            one = report["chosen"]
            key = one["name"], one["ids_sha256"]
            found.setdefault(key, {**one, "balance": one["settings"].get("balance"), "names": []})["names"] += [
                name(run)
            ]
    for one in found.values():
        counts = [of["chosen"] for of in one.setdefault("by", {}).values()] or [0]
        one |= {"least": min(counts), "most": max(counts), "seed": one["settings"]["seed"]}
        one["short"] = [level for level, of in one["by"].items() if of["of"] < one["most"] - 1]
    return list(found.values())


def reproducibility(results: Any) -> dict[str, Any]:
    """What one must know to have the results again."""
    reports = [*results.train.values(), *results.answers.values()]
    versions = [(name, version) for report in reports for name, version in report.get("versions", {}).items()]
    libraries = {name: sorted({found for one, found in versions if one == name}) for name, _ in sorted(versions)}
    sampled = {str(r["settings"]["seed"]) for r in results.answers.values() if r["settings"].get("do_sample")}
    chosen = {"protocol": ("corrected", results.settings["protocol"]), "scale": ("full", results.settings["scale"])}
    return {
        "config": [f"{key}={value}" for key, (usual, value) in chosen.items() if value != usual],
        "sampling_seeds": sorted(sampled),
        "libraries": [{"library": name, "version": ", ".join(of)} for name, of in libraries.items()],
        "different": any(len(found) > 1 for found in libraries.values()) or len({r["device"] for r in reports}) > 1,
    }


def hashes(results: Any, name: Callable[[Run], str], rank: Mapping[Run, int], say: Say) -> list[Row]:
    """The hash of every input and artefact that has one."""
    words, rows = say.words["report"]["artefacts"], []

    def add(what: str, of: str, sha256: str | None, task: str = "", run: Run | None = None) -> None:
        what = words[what].format(name=say.measures[task].name if task else "")
        row = {"what": what, "of_what": of, "sha256": (sha256 or "")[:DIGITS], "rank": rank.get(run)}
        rows.extend([row] if sha256 and row not in rows else [])

    for task in say.measures:
        for part, about in sorted(results.data[task].items()):
            if part == "source":
                add("archive", "", about.get("archive_sha256"), task)
            else:
                add("split", part, about["sha256"], task)
    for model in results.models:
        add("model", model["name"], model["sha256"])
    for (model, variant, task), report in results.answers.items():
        own = variant in results.settings["own_prompts"].get(task, ())
        add("prompts", f"{model} {variant}" if own else model, report["prompts_sha256"], task)
    for run, report in results.train.items():
        add("adapter", name(run), report.get("adapter_sha256", {}).get(WEIGHTS), run=run)
    return rows


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as one level of text, the keys joined by dots."""
    (found,) = pd.json_normalize(settings).to_dict("records")
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in found.items()
    }
