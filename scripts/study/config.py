"""Check a study's configuration and unfold it: into adapters, and into each rule's own settings.

Plain functions over plain values. Snakemake parses the workflow again inside every cluster job, so nothing here may
import a model library or touch the network.
"""

import difflib
from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from analysis.published import OFFICIAL
from common.files import ADAPTER_FILES as ADAPTER_FILES
from common.files import UserError

BASE = "base"
# The replay.source that stands for MMLU's own training rows.
AUXILIARY = "auxiliary_train"
# The axes a study may sweep, in the order in which they stand in an adapter's name. The name is the adapter's
# identity on disk: changing this order, or a short name, would train every published study again.
AXES = {
    "lr": ("training", "learning_rate"),
    "r": ("lora", "r"),
    "alpha": ("lora", "lora_alpha"),
    "dropout": ("lora", "lora_dropout"),
    "modules": ("lora", "target_modules"),
    "epochs": ("training", "num_train_epochs"),
    "steps": ("training", "max_steps"),
    "seed": ("training", "seed"),
    "decay": ("training", "weight_decay"),
    "replay": ("replay", "fraction"),
    "kl": ("replay", "kl"),
}
FACES = ("corrected", "as_reported")
TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}


def read_schema(path: str | Path) -> dict:
    """Read the JSON schema (2020-12, written as YAML) that describes every key of a study."""
    return yaml.safe_load(Path(path).read_text(encoding="utf-8"))


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


def unfold(config: dict, smoke: dict, source: str = "config.yaml") -> dict:
    """Return a study as it is to be run: its own values, its face's over them, and the smoke scale's over those.

    Args:
        config: a study as read from YAML; not changed.
        smoke: what rules/smoke.yaml holds.
        source: the name of the file the study came from, for the messages.

    Raises:
        UserError: the study does not have this face.
    """
    face = config.get("face", FACES[0])
    faces = config.get("faces") or {}
    if face in FACES[1:] and isinstance(faces, dict) and face not in faces:
        raise UserError(
            f"{source}, face: found {face}, but faces.{face} is not there: this study has one face. Remove the key."
        )
    overlay = faces.get(face) if isinstance(faces, dict) else None
    if isinstance(overlay, dict):
        config = _merge(config, overlay)
    if config.get("scale") == "smoke":
        config = _merge(_first_values(config), smoke)
    return config


def resolve(raw: dict, overrides: dict, smoke: dict, schema: dict, source: str = "config.yaml") -> dict:
    """Return a study checked and complete, as it is to be run with the values that the command line gives.

    These choose face and scale, and hold over whatever the two say.

    Raises:
        UserError: as `unfold` and `check`.
    """
    return check(_merge(unfold(_merge(raw, overrides), smoke, source), overrides), schema, source)


def _merge(below: dict, above: dict) -> dict:
    """Return `below` with the values of `above` in their places; lists replace lists.

    The key "*" stands for every key that is there, for what a study names by itself.
    """
    merged = dict(below)
    for key, value in above.items():
        for place in below if key == "*" else [key]:
            old = merged.get(place)
            merged[place] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _first_values(config: dict) -> dict:
    """Return a study with the first value alone of each swept axis, still as a list: the adapter keeps its name.

    Of the points of `evaluation` it has the strengths.
    """
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for short, (section, key) in AXES.items():
        values = config.get(section, {}).get(key)
        if isinstance(values, list) and values and (short != "modules" or _nested(values)):
            # The first fraction is mostly 0, with which nothing is replayed.
            config[section][key] = values[-1:] if short == "replay" else values[:1]
    # What is left names no adapter and no step that a smoke run may not have.
    config["training"] = {key: value for key, value in config.get("training", {}).items() if key != "kept_steps"}
    config["evaluation"] = {"strengths": config.get("evaluation", {}).get("strengths", [])}
    return config


def label(config: dict) -> str:
    """Return the name of what is run, which is its folder under results/: the study, its face, its scale."""
    parts = [config["study"]]
    parts += [config["face"]] if config["face"] != FACES[0] else []
    parts += [config["scale"]] if config["scale"] != "full" else []
    return "-".join(parts)


def check(config: dict, schema: dict, source: str = "config.yaml") -> dict:
    """Return `config` complete and in one canonical form, so that equal studies are equal values.

    Missing keys get the schema's defaults, mappings are sorted, `1` becomes `1.0` where a real number is meant.

    Args:
        config: a study as read from YAML; not changed.
        schema: what `read_schema` returns.
        source: the name of the file the study came from, for the messages.

    Raises:
        UserError: one line for each mistake, each with the key and what to write instead.
    """
    config = _complete(config, schema)
    errors = sorted(Draft202012Validator(schema).iter_errors(config), key=lambda error: list(map(str, error.path)))
    messages = [message for error in errors for message in _sentences(error, schema)]
    messages = messages or list(_contradictions(config))
    if messages:
        raise UserError("\n".join(f"{source}, {message}" for message in messages))
    if config["mmlu"]["categories"] == "official":
        official = {name: subjects.split() for name, subjects in sorted(OFFICIAL.items())}
        config["mmlu"] = config["mmlu"] | {"categories": official}
    return config


def _contradictions(config: dict) -> Iterator[str]:
    """Yield what a study says in one place and takes back in another, so that no job fails on it hours later."""
    spider, mmlu, training = config["spider"], config["mmlu"], config["training"]
    evaluated = training["eval_strategy"] != "no"
    by = spider["validation"]["by"]
    if evaluated and by == "none":
        yield (
            f"training.eval_strategy: found {training['eval_strategy']}, but spider.validation.by is none: there are "
            'no rows to evaluate on. Write by: database, or eval_strategy: "no".'
        )
    if by == "dev" and "dev_used_to_choose" not in config["accept_defect"]:
        yield (
            "spider.validation.by: found dev, the questions of the evaluation themselves. Write database, or, to "
            "repeat a study that did this, accept_defect: [dev_used_to_choose]."
        )
    if training["load_best_model_at_end"] and not evaluated:
        yield 'training.load_best_model_at_end: found true, but eval_strategy is "no". Write eval_strategy: steps.'
    if training["early_stopping_patience"] and not training["load_best_model_at_end"]:
        yield (
            f"training.early_stopping_patience: found {training['early_stopping_patience']}, but "
            "load_best_model_at_end is false. Write true."
        )
    if (
        training["load_best_model_at_end"]
        and training["eval_strategy"] == "steps"
        and training["save_steps"] % training["eval_steps"]
    ):
        yield (
            f"training.save_steps: found {training['save_steps']}, expected a multiple of eval_steps = "
            f"{training['eval_steps']}: the best checkpoint could not be kept. Write {training['eval_steps']}."
        )
    for name, model in config["models"].items():
        if config["inference"]["merge_adapters"] and model["precision"] == "nf4":
            yield (
                f"inference.merge_adapters: found true, but models.{name}.precision is nf4, and 4-bit weights cannot "
                "hold what an adapter adds. Write false, or precision: bf16."
            )
        if config["recommend"] and config["recommend"]["merge"] and model["precision"] == "nf4":
            yield (
                f"recommend.merge: found true, but models.{name}.precision is nf4, and 4-bit weights cannot hold what "
                "an adapter adds. Write false."
            )
    if mmlu["categories"] == "official" and mmlu["subjects"] != (all_of := len(" ".join(OFFICIAL.values()).split())):
        yield (
            f"mmlu.categories: found official, all {all_of} subjects of the release, but mmlu.subjects says that the "
            f"source holds {mmlu['subjects']}. Name the subjects, or use the release."
        )
    if mmlu["shots_from"] == "fixed" and len(mmlu["fixed_shots"]) != mmlu["shots"]:
        yield f"mmlu.fixed_shots: found {len(mmlu['fixed_shots'])} rows, expected mmlu.shots = {mmlu['shots']}."
    if mmlu["shots_from"] != "fixed" and mmlu["fixed_shots"]:
        yield f"mmlu.fixed_shots: not used, since shots_from is {mmlu['shots_from']}. Write fixed, or remove the rows."
    yield from _unused_replay(config)
    yield from _misprinted(config)
    yield from _missing_points(config)


def _unused_replay(config: dict) -> Iterator[str]:
    """Yield what `replay` asks for and cannot have."""
    replay = config["replay"]
    fractions, weights = (value if isinstance(value, list) else [value] for value in (replay["fraction"], replay["kl"]))
    if any(fractions) and replay["source"] is None:
        yield (
            f"replay.source: missing, but replay.fraction is {replay['fraction']}. Write auxiliary_train, or the path "
            "of a CSV or JSONL file."
        )
    if any(weights) and not any(fractions):
        yield (
            f"replay.kl: found {replay['kl']}, but replay.fraction is {replay['fraction']}: there are no rows to "
            "compute it on. Set a fraction, or kl: 0.0."
        )
    elif 0 in fractions and 0 not in weights and isinstance(replay["kl"], list):
        yield (
            f"replay.kl: found {replay['kl']}, but a replay.fraction is 0: that adapter has no such term. Add 0.0 to "
            "the list, or take 0.0 out of fraction."
        )


def _missing_points(config: dict) -> Iterator[str]:
    """Yield what `evaluation` is to be made of and this study does not have."""
    evaluation, kept = config["evaluation"], config["training"]["kept_steps"]
    adapters = [name for name in variants(config) if name != BASE]
    named = {"adapters": evaluation["adapters"] or []} | {
        f"soups.{name}": members for name, members in evaluation["soups"].items()
    }
    for key, members in named.items():
        for name in members:
            if name not in adapters:
                near = difflib.get_close_matches(name, adapters, 1) or adapters
                yield f"evaluation.{key}: found {name}, expected adapters of this study, such as {near[0]}."
    for name, members in evaluation["soups"].items():
        if len(members) < 2:
            yield f"evaluation.soups.{name}: found {len(members)} adapters, expected at least 2 to average."
    for step in evaluation["steps"]:
        if step not in kept:
            yield (
                f"evaluation.steps: found {step}, but training.kept_steps is {kept}: no adapter of that step is kept. "
                "Add it there too; an adapter that is evaluated at it is then trained again."
            )


def _misprinted(config: dict) -> Iterator[str]:
    """Yield what in `published` is about nothing that this study has."""
    published = config["published"]
    if not published["tables"]:
        return
    if published["model"] not in config["models"]:
        yield (
            f"published.model: found {published['model']}, expected one of this study's models: "
            f"{', '.join(config['models'])}."
        )
    for number, table in enumerate(published["tables"]):
        for section in ("accuracy", "correct", "change"):
            for variant, values in table[section].items():
                for column in values.keys() - table["n"].keys():
                    yield (
                        f"published.tables[{number}].{section}.{variant}.{column}: there is no such column in n, which "
                        f"has {', '.join(table['n'])}. Add it there, null if its questions are not known."
                    )


def variants(config: dict) -> dict[str, dict[str, Any]]:
    """Return the swept values of every variant of a checked study, by its name: `base` first, then the adapters.

    A list in the configuration is a swept axis, even with one element; a scalar is fixed. The adapters are all
    combinations, the last axis varying fastest: `lr0.0001-r8-seed42`. Without any swept axis there is one adapter,
    called `adapter`. The values are keyed by their place in the configuration, `training.learning_rate`.

    A weight of the KL term says nothing where no row is replayed: of these combinations there is the one with 0 alone.
    """
    found: dict[str, dict[str, Any]] = {"": {}}
    for short, (section, key) in AXES.items():
        value = config[section][key]
        if not (_nested(value) if short == "modules" else isinstance(value, list)):
            continue
        found = {
            f"{name}-{short}{_plain(item)}".lstrip("-"): {**chosen, f"{section}.{key}": item}
            for name, chosen in found.items()
            for item in value
            if not (short == "kl" and item and not _fraction(config, chosen))
        }
    return {BASE: {}} | ({"adapter": {}} if "" in found else found)


def _fraction(config: dict, chosen: dict[str, Any]) -> float:
    return chosen.get("replay.fraction", config["replay"]["fraction"])


def points(config: dict) -> dict[str, dict[str, Any]]:
    """Return what a checked study evaluates besides base and adapters, by variant: points of trained adapters.

    Each has `of`, the adapters that it is made of, and one of `strength` (lr0.003@0.5: what the adapter adds to each
    weight is multiplied by that), `step` (lr0.003@step50: the adapter as it was after so many optimizer steps) and
    `soup` (soup-mean: the mean of what several adapters add). The strengths 0 and 1 are the base model and the adapter
    itself, which are there anyway; only a base with prompts of its own does not stand for strength 0.

    A point of the base has `shots` (base@shots3: with so many solved examples in its text-to-SQL prompts); the number
    that the base has in the study is there anyway.
    """
    evaluation = config["evaluation"]
    adapters = [name for name in variants(config) if name != BASE]
    known = {1.0} | ({0.0} if config["prompt"]["base_shots"] is None else set())
    found = {
        f"{BASE}@shots{shots}": {"of": [BASE], "shots": shots}
        for shots in sorted(set(evaluation["shots"]) - {base_shots(config)})
    }
    for name in adapters if evaluation["adapters"] is None else evaluation["adapters"]:
        for strength in sorted(set(evaluation["strengths"]) - known):
            found[f"{name}@{_plain(strength)}"] = {"of": [name], "strength": strength}
        for step in sorted(evaluation["steps"]):
            found[f"{name}@step{step}"] = {"of": [name], "step": step}
    return found | {f"soup-{name}": {"of": members, "soup": name} for name, members in evaluation["soups"].items()}


def adapter_folders(config: dict) -> dict[str, str]:
    """Return the folder, below the model's, of the adapter that each variant answers with; the base has none."""
    folders = {name: f"{name}/adapter" for name in variants(config) if name != BASE}
    for name, point in points(config).items():
        if "shots" in point:
            continue
        if "step" in point:
            folders[name] = f"{point['of'][0]}/steps/{point['step']}"
        else:
            folders[name] = f"{point['of'][0] if 'strength' in point else name}/adapter"
    return folders


def recommended_folder(folder: Path, models: Collection[str], model: str) -> Path:
    """Return where, in `folder`, what is recommended of a model lies: of several models each has a folder."""
    return folder / model if len(models) > 1 else folder


def settings(config: dict) -> dict[str, dict]:
    """Return each rule's own slice of a checked study; where a rule has wildcards, one slice for each of their values.

    These are the only values a job sees and the only ones whose change makes its outputs stale, so a key belongs
    to as few slices as can be: nothing that only concerns evaluation may reach a slice that leads to training.
    """
    spider, mmlu, prompt, inference = config["spider"], config["mmlu"], config["prompt"], config["inference"]
    render = {"system": prompt["spider_system"]} | _pick(prompt, "schema", "sample_rows", "style")
    target = _pick(prompt, "train_target")
    dev = {
        "questions": spider["dev_questions"],
        "exclude_databases": spider["exclude_databases"],
        "max_new_tokens": inference["spider_max_new_tokens"],
    }
    models, runs = config["models"], variants(config)
    further = points(config)
    prompts = own_prompts(config)
    # That of the base matters only beside others.
    shown = {"shots": base_shots(config)} if any("shots" in point for point in further.values()) else {}
    names = [{"model": model, "variant": name} for model in models for name in runs]
    every_name = [{"model": model, "variant": name} for model in models for name in [*runs, *further]]
    swept = [
        run
        for model in models
        for run in [
            *(
                {"model": model, "settings": chosen, "variant": name} | (shown if name == BASE else {})
                for name, chosen in runs.items()
            ),
            *(
                {
                    "model": model,
                    # A soup has no one value of what its adapters differ in.
                    "settings": runs[point["of"][0]] if len(point["of"]) == 1 else {},
                    "variant": name,
                    "point": point,
                }
                for name, point in further.items()
            ),
        ]
    ]
    defects = _pick(config, "known_defects", "accept_defect")
    replay = config["replay"]

    def predict(max_new_tokens: int, names: Iterable[str]) -> dict:
        return {
            model: {
                name: {
                    "precision": values["precision"],
                    "max_new_tokens": max_new_tokens,
                    **_pick(inference, "batch_size", "merge_adapters", "do_sample", "temperature", "top_p", "seed"),
                    **({"strength": further[name]["strength"]} if "strength" in further.get(name, {}) else {}),
                }
                for name in names
            }
            for model, values in models.items()
        }

    slices = {
        "fetch_spider": _pick(spider, "source", "sha256", "counts"),
        "fetch_mmlu": _pick(mmlu, "source", "revision", "sha256", "subjects"),
        "fetch_model": {model: _pick(values, "source", "revision") for model, values in models.items()},
        "prepare_spider": _pick(spider, "train_files", "shots", "seed", "validation", "train_questions"),
        "prepare_mmlu": _pick(
            mmlu, "categories", "questions_per_category", "shots", "shots_from", "fixed_shots", "seed"
        ),
        "render_spider": {
            "train": render | target,
            "validation": render | target,
            "dev": render | dev,
            **dict.fromkeys(prompts.values(), render | dev),
        },
        "extend_shots": _pick(spider, "seed"),
        "render_mmlu": {"system": prompt["mmlu_system"], "max_new_tokens": inference["mmlu_max_new_tokens"]},
        "audit_labels": _pick(config["training"], "max_length", "truncate") | target | _pick(config, "accept_defect"),
        # Of MMLU, what leads to its training rows alone.
        "fetch_replay": _pick(replay, "source")
        | ({"mmlu": _pick(mmlu, "source", "revision", "sha256")} if replay["source"] == AUXILIARY else {}),
        "prepare_replay": _pick(replay, "questions", "seed"),
        "render_replay": {"system": prompt["mmlu_system"]} | _pick(config["training"], "max_length"),
        "audit_replay": _pick(config["training"], "max_length"),
        "train": {
            model: {name: _training(config, model, chosen) for name, chosen in runs.items() if name != BASE}
            for model in models
        },
        "soup": {},
        "predict_spider": predict(inference["spider_max_new_tokens"], [*runs, *further]),
        "predict_mmlu": predict(inference["mmlu_max_new_tokens"], [*runs, *adapter_folders(config)]),
        "fetch_harness": _pick(config["evaluation"]["harness"], "tasks", "include_path"),
        "harness": {
            model: {
                name: {
                    **config["evaluation"]["harness"],
                    "precision": values["precision"],
                    **_pick(inference, "batch_size", "merge_adapters"),
                    **({"strength": further[name]["strength"]} if "strength" in further.get(name, {}) else {}),
                }
                for name in [*runs, *adapter_folders(config)]
            }
            for model, values in models.items()
        },
        "harness_table": {
            # Other examples before questions on databases change nothing here.
            "runs": [run for run in swept if "shots" not in run.get("point", {})],
            **_pick(config["tables"], "confidence_level"),
            **defects,
        },
        "score_spider": _pick(config["scoring"], "timeout_s"),
        "score_mmlu": {},
        "tables": {
            "study": label(config),
            **config["tables"],
            **defects,
            "runs": swept,
        },
        "cost": {
            **defects,
            "study": label(config),
            "runs": swept,
        },
        "tables_page": {"study": label(config), **defects},
        "answers": {"study": label(config), **_pick(config["tables"], "semantics"), "runs": every_name, **defects},
        "figures": _pick(config["report"], "language"),
        "report": {
            "study": label(config),
            "own_prompts": sorted(prompts),
            **_pick(config["tables"], "semantics"),
            **_pick(config["report"], "language"),
            **_pick(config, "face", "scale"),
            **defects,
        },
        # `rules/recommend.smk` is there only if the study has the section.
        "recommend": config["recommend"]
        and {
            "study": label(config),
            **_pick(config["recommend"], "max_loss_pp", "seed"),
            **config["tables"],
            **defects,
            "runs": swept,
        },
        "export_recommended": config["recommend"]
        and {
            "study": label(config),
            **_pick(config["recommend"], "merge"),
            **_pick(inference, "merge_adapters"),
            "folders": adapter_folders(config),
            "precisions": {model: values["precision"] for model, values in models.items()},
            **defects,
        },
        "compare_published": {
            "study": label(config),
            "published": config["published"],
            "dev_questions": spider["counts"]["dev"],
            "confidence_level": config["tables"]["confidence_level"],
            "runs": names,
            **defects,
        },
    }
    return _sorted(slices)


def _training(config: dict, model: str, chosen: dict[str, Any]) -> dict:
    """Return one adapter's settings: the study's, with its own value for each swept axis."""
    values = {section: dict(config[section]) for section in ("lora", "training", "replay")}
    for place, value in chosen.items():
        section, key = place.split(".")
        values[section][key] = value
    # The job sees them as its outputs: a step that is no longer kept must not train the adapter again.
    del values["training"]["kept_steps"]
    # The settings of a training without replay are those of a study without it.
    replay = values.pop("replay")
    if replay["fraction"]:
        values["replay"] = _pick(replay, "fraction", "kl")
    return {
        "precision": config["models"][model]["precision"],
        **values,
        **_pick(config["prompt"], "train_target"),
        **_pick(config, "accept_defect"),
    }


def base_shots(config: dict) -> int:
    """Return how many solved examples the base model sees before each text-to-SQL question."""
    own, shots = config["prompt"]["base_shots"], config["spider"]["shots"]
    return own if own is not None else shots if isinstance(shots, int) else len(shots)


def own_prompts(config: dict) -> dict[str, str]:
    """Return the split of the text-to-SQL prompts that a variant answers, by variant; of all others it is dev.

    The split dev_shots3 is dev with three solved examples before each question.
    """
    shots = {name: point["shots"] for name, point in points(config).items() if "shots" in point}
    if config["prompt"]["base_shots"] is not None:
        shots[BASE] = config["prompt"]["base_shots"]
    return {name: f"dev_shots{number}" for name, number in shots.items()}


def _plain(value: Any) -> str:
    """Write a swept value as it stands in a path: 5e-05 as 0.00005, 2.0 as 2, modules joined by +."""
    if isinstance(value, list):
        return "+".join(value)
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _pick(section: dict, *keys: str) -> dict:
    return {key: section[key] for key in keys}


def _nested(modules: list) -> bool:
    return any(isinstance(item, list) for item in modules)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _complete(value: Any, schema: dict) -> Any:
    """Return `value`, valid or not, with all defaults, sorted keys, and numbers of the type that the schema means.

    Lists that the schema marks `set: true` are sorted where they hold only text.
    """
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        defaults = {key: child["default"] for key, child in known.items() if "default" in child}
        filled = defaults | {str(key): item for key, item in value.items()}
        unknown = other if isinstance(other, dict) else {}
        return {key: _complete(filled[key], known.get(key, unknown)) for key in sorted(filled)}
    if isinstance(value, list):
        items = [_complete(item, schema.get("items", {})) for item in value]
        return sorted(items) if schema.get("set") and all(isinstance(item, str) for item in items) else items
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "number" in _types(schema):
            return float(value)
        if "integer" in _types(schema) and float(value).is_integer():
            return int(value)
    return value


def _types(schema: dict) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types


def _key(path: Any) -> str:
    """Write a JSON path as in `training.learning_rate[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _sentences(error: ValidationError, schema: dict) -> Iterator[str]:
    """Put one schema error into words: the key, what was found, what to write."""
    key, found, rule = _key(error.path), error.instance, error.validator_value
    match error.validator:
        case "additionalProperties":
            for extra in found.keys() - error.schema.get("properties", {}).keys():
                yield f"{_key([*error.path, extra])}: no such key. {_suggest(extra, error, schema)}"
        case "required":
            for missing in [name for name in rule if name not in found]:
                yield f"{_key([*error.path, missing])}: missing. Add it; see config.yaml for what it means."
        case "type":
            yield f"{key}: {_wrong_type(found, error.schema)}"
        case "enum" if error.schema.get("type") and not any(_is(found, name) for name in _types(error.schema)):
            pass  # its type is wrong, which is said already
        case "enum":
            near = difflib.get_close_matches(str(found), list(map(str, rule)), 1)
            yield f"{key}: found {found!r}, expected one of {', '.join(map(str, rule))}." + (
                f" Did you mean {near[0]}?" if near else ""
            )
        case "minItems" | "minProperties":
            yield f"{key}: found nothing in it, expected at least {rule}. Write a value, or leave the key out."
        case "uniqueItems":
            yield f"{key}: a value stands twice in {found}. Remove one."
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            bound = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
            yield f"{key}: found {found}, expected {bound.get(error.validator, 'less than')} {rule}."
        case "pattern":
            where = _key([*error.path, found]) if "propertyNames" in error.schema_path else key
            yield f"{where}: found {found!r}, expected {error.schema['description']}"
        case "anyOf":
            yield f"{key}: found {found}, expected {error.schema['description']}"
        case _:
            yield f"{key}: {error.message}."


def _suggest(extra: str, error: ValidationError, schema: dict) -> str:
    """Say what an unknown key may be meant to be: the nearest key beside it, or one of that name elsewhere."""
    here = list(error.schema.get("properties", {}))
    near = difflib.get_close_matches(extra, here, 1)
    if near:
        return f"Did you mean {_key([*error.path, near[0]])}?"
    everywhere = list(_leaves(schema))
    for place in everywhere:
        if place.rsplit(".", 1)[-1] == extra:
            return f"Did you mean {place}?"
    return f"Keys here: {', '.join(sorted(here))}."


def _leaves(schema: dict, prefix: str = "") -> Iterator[str]:
    for key, child in schema.get("properties", {}).items():
        yield f"{prefix}{key}"
        yield from _leaves(child, f"{prefix}{key}.")


def _wrong_type(found: Any, schema: dict) -> str:
    """Say what stands there and what should; numbers that YAML 1.1 reads as text get their own sentence."""
    types = _types(schema)
    if isinstance(found, str) and {"number", "integer"} & set(types):
        try:
            number = Decimal(found)
        except ArithmeticError:
            pass
        else:
            if number.is_finite():
                plain = _plain(float(number))
                mantissa, exponent, power = found.strip().lower().partition("e")
                written = f"{mantissa}{'' if '.' in mantissa else '.0'}e{power if power[:1] in '+-' else f'+{power}'}"
                if exponent and written != found:
                    return f"{found!r} is text in YAML 1.1; write {written} or {plain}."
                return f"{found!r} is text; write {plain} without quotes."
    expected = " or ".join(TYPES[name] for name in types)
    if found is None:
        return f"found null, expected {expected}. Write a value, or leave the key out for its default."
    if isinstance(found, bool) and "string" in types:
        return f"found {found} (YAML 1.1 reads yes, no, on and off as true or false), expected text. Put it in quotes."
    shown = repr(found) if isinstance(found, str | int | float) else str(found)
    kind = next((words for name, words in TYPES.items() if _is(found, name)), type(found).__name__)
    return f"found {shown} ({kind}), expected {expected}."


def _is(value: Any, name: str) -> bool:
    return Draft202012Validator({"type": name}).is_valid(value)
