"""A checked study unfolded: settings, their adapters, what else it evaluates, and a rule's own part of the study.

A setting is what a study says of a training but for the seed. It has an adapter for each seed. A run is a row of the
tables: the base model, an adapter, or what `evaluation` makes of them.
"""

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jinja2 import Environment, TemplateError, meta

from common.files import UserError, sha256_json
from common.weights import QUANTISED
from study import identity
from study.identity import canonical
from study.labels import ROWS, SHORT, in_label, plain, rows_label
from study.library import PROCESSORS, WARPERS
from study.models import Quantization
from tasks.registry import KINDS

BASE = "base"
PROTOCOLS = ("corrected", "as_reported", "reanalysed")
# The folder of a base whose answers were given elsewhere.
GIVEN_BASE = "base_given"
SEED = "training.seed"


def label(config: dict) -> str:
    """The name of what is run, which is its folder under results/: the study, its protocol, its scale."""
    parts = [config["study"]]
    parts += [config["protocol"]] if config["protocol"] != PROTOCOLS[0] else []
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
        raise UserError(
            f"{key}: {error.filename} cannot be read ({error.strerror}). Write the path of a template."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{key}: {template} is not UTF-8. Save it as UTF-8.") from None
    except (TemplateError, RecursionError) as error:
        raise UserError(f"{key}: {template} is not a template ({error}). See docs/tasks.md.") from None


def tasks_of(config: dict, *roles: str) -> list[str]:
    """The tasks of these roles in the order of the tables: the target, the yardsticks, what is replayed."""
    return [name for role in roles for name, task in config["tasks"].items() if task["role"] == role]


def asked_tasks(config: dict) -> list[str]:
    """The tasks that are asked, the target first; what is replayed is only trained on."""
    return tasks_of(config, "target", "yardstick")


def target_of(config: dict) -> str:
    """The task that is trained on."""
    return tasks_of(config, "target")[0]


def settings(config: dict) -> dict[str, dict[str, Any]]:
    """The settings of a checked study by their labels: of each the values, by place, that it has for itself.

    They are all combinations of what `sweep` lists, the last axis varying fastest, such as lr0.0001-r8; then those that
    `adapters` names. A study with neither has one setting, called `adapter`.

    A weight of the KL term says nothing where no row is replayed: of these combinations there is the one with 0 alone.
    """
    sweep, found = config["sweep"], {}
    short = list(SHORT)
    key = {place: place.rpartition(".")[2] for place in sweep}
    axes = sorted(sweep, key=lambda place: (short.index(key[place]) if key[place] in SHORT else len(short), place))
    for values in itertools.product(*(sweep[place] for place in axes)):
        chosen = dict(zip(axes, values, strict=True))
        if chosen.get("replay.kl") and not changed(config, chosen)["replay"]["fraction"]:
            continue
        named = "-".join(f"{SHORT.get(key[place], key[place])}{in_label(chosen[place], place)}" for place in axes)
        found[named or "adapter"] = chosen
    if not sweep and (config["adapters"] or not loaded(config)):
        found = {}
    for name, own in config["adapters"].items():
        if own["source"] is None and "answers" not in own:
            sections = ("lora", "training", "replay")
            found[name] = {f"{section}.{key}": value for section in sections for key, value in own[section].items()}
    return found


def loaded(config: dict) -> list[str]:
    """The models that are there to be trained and asked; of others there are only answers."""
    return [name for name, model in config["models"].items() if model["source"] is not None]


def asked_models(runs: list[dict[str, Any]]) -> list[str]:
    """The models of those `runs` whose answers were not given elsewhere: they are fetched and asked."""
    return list(dict.fromkeys(run["model"] for run in runs if "imported" not in run))


def imported(config: dict) -> dict[str, dict[str, Any]]:
    """The settings whose answers were given elsewhere, by the labels of their runs.

    Each has its model, setting, folder and `answers` (of `tasks.imported.Answers`, by task), and a seed if it has any.
    """
    only, found = next(iter(config["models"])), {}
    for name, own in config["adapters"].items():
        if "answers" not in own:
            continue
        about = {"model": own["model"] or only, "setting": name}
        seeds = own["training"].get("seed")
        for seed in seeds if isinstance(seeds, list) else [seeds]:
            label = f"{name}-seed{seed}" if isinstance(seeds, list) else name
            answers = {
                task: section | {"source": section["source"].replace("{seed}", str(seed))}
                for task, section in own["answers"].items()
            }
            found[label] = about | {"folder": label, "answers": answers} | ({} if seed is None else {"seed": seed})
    return found


def compared(config: dict) -> list[str]:
    """The names of all settings that are compared with a base model."""
    return list(
        dict.fromkeys([*settings(config), *ready_made(config), *(one["setting"] for one in imported(config).values())])
    )


def given(config: dict) -> dict[tuple[str, str], dict[str, Any]]:
    """By model and folder of a run whose answers were given elsewhere: by task its section, with `name`, its place."""
    found = {
        (name, GIVEN_BASE): {
            task: one | {"name": f"models.{name}.answers.{task}"} for task, one in model["answers"].items()
        }
        for name, model in config["models"].items()
        if model.get("answers")
    }
    for own in imported(config).values():
        place = f"adapters.{own['setting']}.answers"
        named = {task: one | {"name": f"{place}.{task}"} for task, one in own["answers"].items()}
        found[own["model"], own["folder"]] = named
    return found


def changed(config: dict, chosen: dict[str, Any]) -> dict:
    """A study with these values in their places."""
    for place, value in chosen.items():
        key, _, rest = place.partition(".")
        config = {**config, key: changed(config[key], {rest: value}) if rest else value}
    return config


def adapters(config: dict) -> dict[str, dict[str, Any]]:
    """The adapters that a checked study trains, by their labels: of each its setting, its values, seed and folder.

    The folder is named after what the adapter is, r8_lr0.0001_s42_3f9a12: rank, learning rate, seed, and a hash of all
    that its training depends on, but for the seed and the model. So what else a study trains renames nothing. Of full
    fine-tuning, full_lr0.00001_s42_3f9a12.
    """
    found = {}
    for setting, chosen in settings(config).items():
        seeds = chosen.get(SEED, config["training"]["seed"])
        for seed in seeds if isinstance(seeds, list) else [seeds]:
            values = chosen | {SEED: seed}
            found[f"{setting}-seed{seed}" if isinstance(seeds, list) else setting] = {
                "setting": setting,
                "values": values,
                "seed": seed,
                "folder": _folder(training(config, next(iter(config["models"])), values)),
            }
    return found


def _folder(training: dict[str, Any]) -> str:
    made_of = identity.training(training)
    own = {key: value for key, value in made_of.items() if key not in ("recipe", "precision", "quantization")}
    own["training"] = {key: value for key, value in made_of["training"].items() if key != "seed"}
    what = f"r{training['lora']['r']}" if "lora" in training else "full"
    rate, seed = training["training"]["learning_rate"], training["training"]["seed"]
    return f"{what}_lr{plain(rate)}_s{seed}_{sha256_json(own)[:6]}"


def prompted(config: dict) -> dict[str, dict[str, Any]]:
    """The base model with other numbers of few-shot examples in its prompts of the target, by label, as in `points`."""
    numbers = sorted(set(config["evaluation"]["shots"]) - {base_shots(config)})
    names = {number: f"{BASE}@shots{number}" for number in numbers}
    return {name: {"of": [BASE], "shots": n, "setting": name, "folder": name} for n, name in names.items()}


def points(config: dict, trained: dict[str, dict] | None = None) -> dict[str, dict[str, Any]]:
    """What a checked study evaluates besides base and adapters, by label: points of adapters.

    Each has `of`, the runs that it is made of, `setting`, `folder`, and one of `strength` (lr0.003@0.5: what the
    adapter adds to each weight is multiplied by that), `step` (lr0.003@step50: the adapter as it was after so many
    optimizer steps) and `soup` (soup-both: the mean of what several adapters add), each of which there is once a seed.
    The strengths 0 and 1 are the base model and the adapter itself, which are there anyway; only a base with prompts or
    a precision of its own does not stand for strength 0.

    A point of the base has `shots` (base@shots3: with so many few-shot examples in its prompts of the target); the
    number that the base has in the study is there anyway.

    `trained` is what `adapters` gives, where that is known already: of hundreds it takes a while.
    """
    evaluation, found = config["evaluation"], prompted(config)
    trained = adapters(config) if trained is None else trained
    apart = any("base_precision" in model for model in config["models"].values())
    apart |= any(BASE in own_prompts(config, task) for task in asked_tasks(config))
    known = {1.0} if apart else {0.0, 1.0}
    chosen = trained if evaluation["adapters"] is None else evaluation["adapters"]
    for name in itertools.chain.from_iterable(members(config, trained, name) for name in chosen):
        own = trained.get(name, {"setting": name, "folder": name})
        named = {plain(strength): {"strength": strength} for strength in sorted(set(evaluation["interpolate"]) - known)}
        if name in trained:
            named |= {f"step{step}": {"step": step} for step in sorted(evaluation["checkpoints"])}
        for end, point in named.items():
            found[f"{name}@{end}"] = (
                {"of": [name]} | {key: f"{own[key]}@{end}" for key in ("setting", "folder")} | point
            )
    for name, soup in evaluation["soups"].items():
        # Of settings with several seeds there is a mean for each seed.
        means = [list(of) for of in zip(*(members(config, trained, one) for one in soup), strict=True)]
        for of in means:
            full = f"soup-{name}" if len(means) == 1 else f"soup-{name}-seed{trained[of[0]]['seed']}"
            found[full] = {"of": of, "soup": name, "setting": f"soup-{name}", "folder": full}
    return found


def members(config: dict, trained: dict[str, dict], name: str) -> list[str]:
    """The adapters of a setting, or the one of this label; none if there is no such name."""
    if name in trained or name in ready_made(config):
        return [name]
    return [one for one, own in trained.items() if own["setting"] == name]


def ready_made(config: dict) -> dict[str, str]:
    """The adapters that a study evaluates without training them, each with the name of its model."""
    only = next(iter(config["models"]))
    return {name: own["model"] or only for name, own in config["adapters"].items() if own["source"] is not None}


def runs(config: dict) -> list[dict[str, Any]]:
    """One entry for each row of the tables: model, variant (its label), setting, seed, folder, and what it is.

    `settings` are the values of what is swept, and the seed if there are several; a setting with a name of its own has
    the seed alone. `point` is what `evaluation` adds, `ready_made` an adapter that was not trained. Where answers are
    drawn with several seeds, each run is there once for each: see `drawn`.
    """
    trained = adapters(config)
    further = points(config, trained)
    # The base's own number of examples matters only beside other numbers.
    shown = {"shots": base_shots(config)} if any("shots" in point for point in further.values()) else {}
    elsewhere = imported(config)
    several = any(name != own["setting"] for name, own in (trained | elsewhere).items())
    swept = {
        # None is all training rows.
        name: {
            key: rows_label(value) if key == ROWS else "all" if value is None else value
            for key, value in own["values"].items()
            # What has a name may differ in anything, so it is no level of an axis.
            if key in config["sweep"] and own["setting"] not in config["adapters"]
        }
        | ({SEED: own["seed"]} if several else {})
        for name, own in trained.items()
    }
    found = []
    for model in config["models"]:
        about = {"folder": GIVEN_BASE, "imported": True} if "answers" in config["models"][model] else {"folder": BASE}
        found.append({"model": model, "variant": BASE, "setting": BASE, "settings": {}} | about | shown)
        for name, own in trained.items() if model in loaded(config) else ():
            about = {key: own[key] for key in ("setting", "seed", "folder")}
            found.append({"model": model, "variant": name, "settings": swept[name]} | about)
        mine = [name for name, of in ready_made(config).items() if of == model]
        found += [
            {"model": model, "variant": name, "setting": name, "folder": name, "settings": {}, "ready_made": True}
            for name in mine
        ]
        for name, own in elsewhere.items():
            if own["model"] == model:
                about = {key: own[key] for key in ("setting", "seed", "folder") if key in own}
                seed = {SEED: own["seed"]} if "seed" in own and several else {}
                found.append({"model": model, "variant": name, "settings": seed, "imported": True} | about)
        for name, point in further.items() if model in loaded(config) else ():
            of = point["of"]
            if of[0] in (BASE, *trained, *mine):
                # A soup has no one value of what its adapters differ in, but a seed they have in common.
                about = {key: value for key, value in point.items() if key not in ("setting", "folder")}
                values = {key: value for key, value in swept.get(of[0], {}).items() if len(of) == 1 or key == SEED}
                where = {key: point[key] for key in ("setting", "folder")}
                seeds = {trained[one]["seed"] for one in of if one in trained}
                where |= {"seed": seeds.pop()} if len(seeds) == 1 else {}
                found.append({"model": model, "variant": name, "settings": values, "point": about} | where)
    return canonical([one for run in found for one in drawn(config, run)])


def sampling_seeds(config: dict) -> list[int]:
    """The seeds with which answers are drawn."""
    seeds = config["inference"]["seed"]
    return seeds if isinstance(seeds, list) else [seeds]


def drawn(config: dict, run: dict[str, Any]) -> list[dict[str, Any]]:
    """A run once for each seed with which its answers are drawn; with one seed, or answers from elsewhere, as it is.

    The first keeps its name and folder, so that one seed more asks for that seed's answers alone. The others, such as
    base@draw2, say with `draw_of` what its label is.
    """
    first, *others = sampling_seeds(config)
    if not others or "imported" in run:
        return [run]
    named = [{key: f"{run[key]}@draw{seed}" for key in ("variant", "folder")} | {"draw": seed} for seed in others]
    return [run | {"draw": first}, *(run | one | {"draw_of": run["variant"]} for one in named)]


def noise(config: dict) -> list[dict[str, Any]]:
    """The runs that repeat another one, to find what the machine changes: as those of `runs`, with `repeats`.

    That is the label of the other one. `how` is batches (base@batches: the same prompts in other batches), or merged or
    beside (lr0.003@merged: the first adapter of the model, merged into the weights where the study has it beside them,
    or the other way round).
    """
    if not config["evaluation"]["noise_floor"]:
        return []
    other, found = "beside" if config["inference"]["merge_adapters"] else "merged", []
    here = [run for run in runs(config) if not {"point", "imported", "draw_of"} & run.keys()]
    # Of all weights there is nothing to merge.
    whole = {name for name, own in adapters(config).items() if is_full(config, own["values"])}
    here = [run for run in here if run["variant"] not in whole]
    for model in loaded(config):
        mine = [run for run in here if run["model"] == model]
        merges = config["models"][model]["precision"] not in QUANTISED
        for run, how in zip(mine[: 1 + merges], ("batches", other), strict=False):
            names = {key: f"{run[key]}@{how}" for key in ("variant", "setting", "folder")}
            found.append({"model": model, "settings": {}, "repeats": run["variant"], "how": how} | names)
    return found


def adapter_folders(config: dict) -> dict[str, str]:
    """The folder, below the model's, of the adapter that each run answers with, by its label; the base has none."""
    trained = adapters(config)
    made = {name: own["folder"] for name, own in trained.items()} | {name: name for name in ready_made(config)}
    folders = {name: f"{folder}/adapter" for name, folder in made.items()}
    for name, point in points(config, trained).items():
        if "step" in point:
            folders[name] = f"{made[point['of'][0]]}/steps/{point['step']}"
        elif "shots" not in point:
            folders[name] = f"{made[point['of'][0]] if 'strength' in point else name}/adapter"
    return folders


def recommended_folder(folder: Path, models: Collection[str], model: str) -> Path:
    """Where, in `folder`, what is recommended of a model lies: of several models each has a folder."""
    return folder / model if len(models) > 1 else folder


def is_full(config: dict, chosen: dict[str, Any]) -> bool:
    """Whether a setting with these values trains all weights of its model, in place of an adapter."""
    return chosen.get("training.method", config["training"].get("method")) == "full"


def training(config: dict, model: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """The settings of one adapter's training: the study's, with its own values in their places."""
    own = () if is_full(config, chosen) else ("lora",)
    config = changed(config, chosen)
    learnt: dict[str, Any] = {}
    if (place := f"tasks.{target_of(config)}.train_questions") in config["sweep"]:
        learnt["rows"] = value_of(config, place)
    # The settings of a training without replay are those of a study without it.
    learnt |= {"replay": config["replay"]} if config["replay"]["fraction"] else {}
    return pick(config, *own, "training", "accept_defect", **learnt, **loading(config["models"][model]))


def loading(model: dict, base: bool = False) -> dict[str, Any]:
    """How a model of a study is loaded: its precision and, of nf4, what differs from the usual quantization.

    As the `base` alone, without an adapter, it may have a precision of its own.
    """
    if base and (own := model.get("base_precision")):
        model = model | {"precision": own} | ({} if own in QUANTISED else {"quantization": {}})
    usual = Quantization().model_dump()
    other = {key: value for key, value in model["quantization"].items() if value != usual.get(key)}
    return pick(model, "precision", **({"quantization": other} if other else {}))


def thinking(model: dict) -> dict[str, int]:
    """What a model's record says of its thoughts: the most tokens of one, or nothing if it has none."""
    return {"thinking": model["thinking_tokens"]} if model["thinking"] else {}


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


def own_prompts(config: dict, task: str | None = None) -> dict[str, str]:
    """The part of a task's prompts (the target's, if none is named) that a run answers, by its label; else it is test.

    The part test_shots3 is test with three few-shot examples before each question, in the base's own words.
    """
    target = target_of(config)
    of_target = task in (None, target)
    shots = {name: point["shots"] for name, point in prompted(config).items()} if of_target else {}
    if (of_target and own_shots(config) is not None) or config["tasks"][task or target].get("base_prompt"):
        repeated = [f"{BASE}@batches"] if config["evaluation"]["noise_floor"] else []
        shots |= dict.fromkeys([BASE, *repeated], base_shots(config) if of_target else shots_of(config, task))
    again = [f"@draw{seed}" for seed in sampling_seeds(config)[1:]]
    shots |= {f"{name}{draw}": number for name, number in shots.items() for draw in again}
    return {name: f"test_shots{number}" for name, number in shots.items()}


def chosen_rows(config: dict) -> dict[str, dict[str, Any]]:
    """The choices of training rows in a study, by their labels."""
    found = [changed(config, values).get("training", {}).get("rows") for values in settings(config).values()]
    return {rows_label(rows): rows for rows in found if rows is not None}


def balances(section: dict) -> dict[str, str]:
    """By what the rows of a task can be balanced, and the column of each; of kind jsonl any key of them: none here."""
    return {} if section["kind"] == "jsonl" else {"hardness": "hardness", "database": "db_id"}


def registered(config: dict) -> dict[str, Any]:
    """What a pre-registration of a study holds: all that decides what will be concluded, and nothing of the results."""
    sections = ("models", "tasks", "lora", "training", "sweep", "adapters", "replay", "evaluation", "tables")
    found = {"study": label(config)} | {key: config[key] for key in sections}
    # What these measure decides nothing.
    besides = ("noise_floor", "repair", "repair_prompt")
    found["evaluation"] = {key: value for key, value in config["evaluation"].items() if key not in besides}
    found |= {"sampling_seeds": seeds} if len(seeds := sampling_seeds(config)) > 1 else {}
    return canonical(found | {"settings": compared(config)})


def registration(config: dict) -> str:
    """The name of a pre-registration: the first 12 digits of its SHA-256."""
    return sha256_json(registered(config))[:12]
