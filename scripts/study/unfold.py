"""A checked study unfolded: adapters, what else it evaluates, their names and folders, and a rule's own settings."""

from collections.abc import Collection
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError, meta

from common.files import UserError, sha256_json
from study.library import PROCESSORS, WARPERS
from study.models import Quantization
from tasks.registry import KINDS

BASE = "base"
FACES = ("corrected", "as_reported")
# The axes a study may sweep, in the order in which they stand in an adapter's name. The name is the adapter's
# identity on disk: changing this order, or a short name, would train every published study again.
AXES = {
    "lr": "training.learning_rate",
    "r": "lora.r",
    "alpha": "lora.lora_alpha",
    "dropout": "lora.lora_dropout",
    "modules": "lora.target_modules",
    "epochs": "training.num_train_epochs",
    "steps": "training.max_steps",
    "seed": "training.seed",
    "decay": "training.weight_decay",
    "replay": "replay.fraction",
    "kl": "replay.kl",
}


def label(config: dict) -> str:
    """The name of what is run, which is its folder under results/: the study, its face, its scale."""
    parts = [config["study"]]
    parts += [config["face"]] if config["face"] != FACES[0] else []
    parts += [config["scale"]] if config["scale"] != "full" else []
    return "-".join(parts)


def value_of(config: dict, place: str) -> Any:
    """The value at a place such as `training.learning_rate`."""
    for key in place.split("."):
        config = config[key]
    return config


def pick(config: dict, /, *places: str, **others: Any) -> dict:
    """A rule's settings: the values of these keys of a study, and `others` under their own names.

    A key such as `tables.confidence_level as level` is called `level`, any other by its last part. The result is one
    sorted dict of plain values: Snakemake compares representations, which show the order of keys.
    """
    chosen = {}
    for place in places:
        key, _, name = place.partition(" as ")
        chosen[name or key.rpartition(".")[2]] = value_of(config, key)
    return canonical(chosen | others)


def stage(config: dict, task: str, *stages: str, **others: Any) -> dict:
    """What stages of a task depend on: its keys that they name, its kind, and its section's name for messages."""
    section = config["tasks"][task]
    found: dict[str, Any] = {"kind": section["kind"], "name": f"tasks.{task}"}
    for key in (key for one in stages for key in KINDS[section["kind"]].STAGES.get(one, ())):
        outer, _, last = key.rpartition(".")
        (found.setdefault(outer, {}) if outer else found)[last] = value_of(section, key)
    return canonical(found | others)


def words_sha256(key: str, template: Path) -> str:
    """The SHA-256 of a prompt template and of those that it includes.

    Raises:
        UserError: no such file, or not a template.
    """
    try:
        text = template.read_text(encoding="utf-8")
        included = [name for name in meta.find_referenced_templates(Environment().parse(text)) if name]
        return sha256_json([text, *((template.parent / name).read_text(encoding="utf-8") for name in included)])
    except OSError as error:
        raise UserError(f"{key}: {template} cannot be read ({error.strerror}). Write the path of a template.") from None
    except TemplateError as error:
        raise UserError(f"{key}: {template} is not a template ({error}). See docs/tasks.md.") from None


def tasks_of(config: dict, *roles: str) -> list[str]:
    """The tasks of these roles in the order of the tables: the target, the yardsticks, what is replayed."""
    return [name for role in roles for name, task in config["tasks"].items() if task["role"] == role]


def target_of(config: dict) -> str:
    """The task that is trained on."""
    return tasks_of(config, "target")[0]


def canonical(value: Any) -> Any:
    """A copy of a plain value with the keys of all its mappings as text, sorted."""
    if isinstance(value, dict):
        return {str(key): canonical(value[key]) for key in sorted(value, key=str)}
    return [canonical(item) for item in value] if isinstance(value, list) else value


def variants(config: dict) -> dict[str, dict[str, Any]]:
    """The swept values of every variant of a checked study, by its name: `base` first, then the adapters.

    A list in the configuration is a swept axis, even with one element; a scalar is fixed. The adapters are all
    combinations, the last axis varying fastest: `lr0.0001-r8-seed42`. Without any swept axis there is one adapter,
    called `adapter`. The values are keyed by their place in the configuration, `training.learning_rate`.

    A weight of the KL term says nothing where no row is replayed: of these combinations there is the one with 0 alone.
    """
    found: dict[str, dict[str, Any]] = {"": {}}
    for short, place in AXES.items():
        value = value_of(config, place)
        if not (nested(value) if short == "modules" else isinstance(value, list)):
            continue
        found = {
            f"{name}-{short}{_in_name(item)}".lstrip("-"): {**chosen, place: item}
            for name, chosen in found.items()
            for item in value
            if not (short == "kl" and item and not replay_fraction(config, chosen))
        }
    return {BASE: {}} | ({"adapter": {}} if "" in found else found)


def replay_fraction(config: dict, chosen: dict[str, Any]) -> float:
    """The fraction of replayed rows of the adapter with these swept values."""
    return chosen.get("replay.fraction", config["replay"]["fraction"])


def points(config: dict) -> dict[str, dict[str, Any]]:
    """What a checked study evaluates besides base and adapters, by variant: points of trained adapters.

    Each has `of`, the adapters that it is made of, and one of `strength` (lr0.003@0.5: what the adapter adds to each
    weight is multiplied by that), `step` (lr0.003@step50: the adapter as it was after so many optimizer steps) and
    `soup` (soup-mean: the mean of what several adapters add). The strengths 0 and 1 are the base model and the adapter
    itself, which are there anyway; only a base with prompts of its own does not stand for strength 0.

    A point of the base has `shots` (base@shots3: with so many few-shot examples in its prompts of the target); the
    number that the base has in the study is there anyway.
    """
    evaluation = config["evaluation"]
    adapters = [name for name in variants(config) if name != BASE]
    known = {1.0} | ({0.0} if own_shots(config) is None else set())
    found = {
        f"{BASE}@shots{shots}": {"of": [BASE], "shots": shots}
        for shots in sorted(set(evaluation["shots"]) - {base_shots(config)})
    }
    for name in adapters if evaluation["adapters"] is None else evaluation["adapters"]:
        for strength in sorted(set(evaluation["strengths"]) - known):
            found[f"{name}@{plain(strength)}"] = {"of": [name], "strength": strength}
        for step in sorted(evaluation["steps"]):
            found[f"{name}@step{step}"] = {"of": [name], "step": step}
    return found | {f"soup-{name}": {"of": members, "soup": name} for name, members in evaluation["soups"].items()}


def ready_made(config: dict) -> dict[str, str]:
    """The adapters that a study evaluates without training them, each with the name of its model."""
    only = next(iter(config["models"]))
    return {name: adapter["model"] or only for name, adapter in config["adapters"].items()}


def runs(config: dict) -> list[dict[str, Any]]:
    """One entry for each row of the tables: model, variant, swept values, and what it is a point of, or ready-made."""
    trained, further = variants(config), points(config)
    # The base's own number of examples matters only beside other numbers.
    shown = {"shots": base_shots(config)} if any("shots" in point for point in further.values()) else {}
    found = []
    for model in config["models"]:
        for name, chosen in trained.items():
            found.append({"model": model, "settings": chosen, "variant": name} | (shown if name == BASE else {}))
        mine = [name for name, of in ready_made(config).items() if of == model]
        found += [{"model": model, "ready_made": True, "settings": {}, "variant": name} for name in mine]
        for name, point in further.items():
            # A soup has no one value of what its adapters differ in.
            chosen = trained[point["of"][0]] if len(point["of"]) == 1 else {}
            found.append({"model": model, "settings": chosen, "variant": name, "point": point})
    return canonical(found)


def adapter_folders(config: dict) -> dict[str, str]:
    """The folder, below the model's, of the adapter that each variant answers with; the base has none."""
    folders = {name: f"{name}/adapter" for name in (*variants(config), *ready_made(config)) if name != BASE}
    for name, point in points(config).items():
        if "step" in point:
            folders[name] = f"{point['of'][0]}/steps/{point['step']}"
        elif "shots" not in point:
            folders[name] = f"{point['of'][0] if 'strength' in point else name}/adapter"
    return folders


def recommended_folder(folder: Path, models: Collection[str], model: str) -> Path:
    """Where, in `folder`, what is recommended of a model lies: of several models each has a folder."""
    return folder / model if len(models) > 1 else folder


def training(config: dict, model: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """The settings of one adapter's training: the study's, with its own value for each swept axis."""
    loaded, replay = loading(config["models"][model]), pick(config, "replay.fraction", "replay.kl")
    learnt = {"train_target": config["tasks"][target_of(config)].get("train_target", "sql")}
    values = pick(config, "lora", "training", "accept_defect", replay=replay, **learnt, **loaded)
    for place, value in chosen.items():
        section, key = place.split(".")
        values[section][key] = value
    # The job sees the kept steps as its outputs: a step that is no longer kept must not train the adapter again.
    del values["training"]["kept_steps"]
    # The settings of a training without replay are those of a study without it.
    if not values["replay"]["fraction"]:
        del values["replay"]
    return values


def loading(model: dict) -> dict[str, Any]:
    """How a model of a study is loaded: its precision and, of nf4, what differs from the usual quantization."""
    usual = Quantization().model_dump()
    other = {key: value for key, value in model["quantization"].items() if value != usual.get(key)}
    return pick(model, "precision", **({"quantization": other} if other else {}))


def generation(inference: dict) -> dict[str, float]:
    """The keys of GenerationConfig that a study passes on, those of drawing at random only if it does so."""
    keys = (*PROCESSORS, *WARPERS) if inference["do_sample"] else PROCESSORS
    return {key: inference[key] for key in keys if key in inference}


def own_shots(config: dict) -> int | None:
    """How many few-shot examples of the target the base model sees, if not as many as the adapters."""
    return config["tasks"][target_of(config)].get("base_shots")


def shots_of(config: dict, task: str) -> int:
    """How many few-shot examples the prompts of a task have."""
    shots = config["tasks"][task].get("shots", 0)
    return shots if isinstance(shots, int) else len(shots)


def base_shots(config: dict) -> int:
    """How many few-shot examples the base model sees before each question of the target."""
    own = own_shots(config)
    return shots_of(config, target_of(config)) if own is None else own


def own_prompts(config: dict) -> dict[str, str]:
    """The part of the target's prompts that a run answers, by variant; of all others it is test.

    The part test_shots3 is test with three few-shot examples before each question.
    """
    shots = {name: point["shots"] for name, point in points(config).items() if "shots" in point}
    if (own := own_shots(config)) is not None:
        shots[BASE] = own
    return {name: f"test_shots{number}" for name, number in shots.items()}


def plain(value: float) -> str:
    """Write a number without an exponent: 5e-05 as 0.00005, 2.0 as 2."""
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _in_name(value: Any) -> str:
    return "+".join(value) if isinstance(value, list) else plain(value)


def nested(modules: list) -> bool:
    """Say whether lists of modules are swept."""
    return any(isinstance(item, list) for item in modules)
