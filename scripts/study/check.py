"""What a study says in one place and takes back in another, found before a job fails on it hours later."""

import difflib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from common.files import NOT_LINEAR, UserError, json_lines
from common.weights import QUANTISED, modules
from study import unfold
from tasks import text_to_sql
from tasks.registry import KINDS


def contradictions(config: dict) -> Iterator[str]:
    """A sentence for each contradiction in a complete study: key, what was found, what to write."""
    if wrong := list(_roles(config)):
        yield from wrong
        return
    yield from _of_the_base(config)
    yield from _named(config)
    yield from _full(config)
    yield from _imported(config)
    yield from _replay(config)
    # A sentence about what several settings have stands once.
    found: dict[str, None] = {}
    for chosen in unfold.settings(config).values() or [{}]:
        for check in (_validation, _linear):
            found |= dict.fromkeys(check(unfold.changed(config, chosen)))
    yield from found
    for check in (_models, _sampling, _repair, _rows, _published, _modules):
        yield from check(config)
    yield from (wrong := list(_points(config)))
    if not wrong:
        yield from _twins(config)


def _roles(config: dict) -> Iterator[str]:
    for role, least, most in (("target", 1, 1), ("replay", 0, 1)):
        named = [name for name, task in config["tasks"].items() if task["role"] == role]
        if not least <= len(named) <= most:
            yield (
                f"tasks: found {len(named)} tasks of role {role} ({', '.join(named) or 'none'}), expected "
                f"{'1' if least else 'at most 1'}. Give {'one of them' if not named else 'the others'} another role."
            )


def _of_the_base(config: dict) -> Iterator[str]:
    """Prompts of its own that the base is given of a task that it answers as its adapters do."""
    for name, task in config["tasks"].items():
        for key, roles in (("base_shots", ("target",)), ("base_prompt", ("target", "yardstick"))):
            if task["role"] not in roles and task.get(key) is not None:
                yield f"tasks.{name}.{key}: not used, since {name} is no {' or '.join(roles)}. Remove it."


def _validation(config: dict) -> Iterator[str]:
    target = unfold.target_of(config)
    place, training = f"tasks.{target}.validation.by", config["training"]
    by = config["tasks"][target].get("validation", {"by": "none"})["by"]
    evaluated, best = training["eval_strategy"] != "no", training["load_best_model_at_end"]
    if evaluated and by == "none":
        yield (
            f"training.eval_strategy: found {training['eval_strategy']}, but {place} is none: there are "
            'no rows to evaluate on. Write by: database, or eval_strategy: "no".'
        )
    if by == "dev" and "dev_used_to_choose" not in config["accept_defect"]:
        yield (
            f"{place}: found dev, the questions of the evaluation themselves. Write database, or, to "
            "repeat a study that did this, accept_defect: [dev_used_to_choose]."
        )
    if best and not evaluated:
        yield 'training.load_best_model_at_end: found true, but eval_strategy is "no". Write eval_strategy: steps.'
    if training["early_stopping_patience"] and not best:
        yield (
            f"training.early_stopping_patience: found {training['early_stopping_patience']}, but "
            "load_best_model_at_end is false. Write true."
        )
    if best and training["eval_strategy"] == "steps" and training["save_steps"] % training["eval_steps"]:
        yield (
            f"training.save_steps: found {training['save_steps']}, expected a multiple of eval_steps = "
            f"{training['eval_steps']}: the best checkpoint could not be kept. Write {training['eval_steps']}."
        )


def _models(config: dict) -> Iterator[str]:
    for name, model in config["models"].items():
        if model["source"] and model["revision"] is not None and Path(model["source"]).is_dir():
            yield (
                f"models.{name}.revision: found {model['revision']}, expected null, since a local folder has no "
                "revision."
            )
        precision, keys = model["precision"], unfold.loading(model).get("quantization", {})
        # What 8-bit weights have no use for; a smoke run has a small model of its own.
        unused = [key for key in keys if precision == "int8" and key.startswith("bnb_4bit_")]
        unused += [key for key in keys if precision == "nf4" and key == "llm_int8_threshold"]
        if precision not in QUANTISED and keys and config["scale"] != "smoke":
            yield f"models.{name}.quantization: not used, since precision is {precision}. Write nf4."
        if (own := model.get("base_precision")) == precision:
            yield f"models.{name}.base_precision: found {own}, which precision is anyway. Remove it."
        elif own in QUANTISED and keys:
            yield (
                f"models.{name}.quantization: found {', '.join(keys)}, but precision is {precision} and base_precision "
                f"{own}: a key would hold for one of them. Remove it, or base_precision."
            )
        for key in unused:
            yield f"models.{name}.quantization.{key}: not used, since precision is {precision}. Remove it."
        if precision not in QUANTISED:
            continue
        bits = "4-bit" if precision == "nf4" else "8-bit"
        because = f"but models.{name}.precision is {precision}, and {bits} weights cannot hold what an adapter adds. "
        because += "Write false"
        if config["inference"]["merge_adapters"]:
            yield f"inference.merge_adapters: found true, {because}, or precision: bf16."
        if config["recommend"] and config["recommend"]["merge"]:
            yield f"recommend.merge: found true, {because}."


def _sampling(config: dict) -> Iterator[str]:
    inference = config["inference"]
    if isinstance(seeds := inference["seed"], list):
        if len(seeds) > 1 and not inference["do_sample"]:
            yield (
                f"inference.seed: found {seeds}, but do_sample is false: a greedy answer is the same with every seed. "
                f"Write do_sample: true, or seed: {seeds[0]}."
            )
        if len({*seeds}) < len(seeds):
            yield f"inference.seed: a value stands twice in {seeds}. Remove one."


def _rows(config: dict) -> Iterator[str]:
    """Choices of training rows that no training part can serve, as far as the study alone says so."""
    target = unfold.target_of(config)
    section, place = config["tasks"][target], f"tasks.{target}"
    most, why = section["train_questions"], "train_questions"
    if most is None and "train_files" in section:
        most, why = sum(section["counts"][file] for file in section["train_files"]), "counts"
    classes, said, own = unfold.balances(section), ", ".join(unfold.balances(section)), _keys_of_rows(section)
    for rows in unfold.chosen_rows(config).values():
        if f"{place}.train_questions" in config["sweep"]:
            yield f"training.rows: not beside sweep.{place}.train_questions, which chooses rows too. Remove one."
            return
        if most is not None and rows.get("count", 0) > most:
            yield (
                f"training.rows.count: found {rows['count']}, expected at most {most}, as many as {place}.{why} "
                "leaves. Write fewer, or null for all."
            )
        # The file itself may be elsewhere yet, or faulty, which its rule says.
        if own and "balance" in rows and rows["balance"] not in own:
            yield (
                f"training.rows.balance: found {rows['balance']}, which the first row of {place}.train has not. Write "
                f"one of its keys: {', '.join(own)}."
            )
        if classes and rows.get("balance", next(iter(classes))) not in classes:
            yield (
                f"training.rows.balance: found {rows['balance']}, expected one of {said}, which every training row of "
                f"kind {section['kind']} has."
            )


def _keys_of_rows(section: dict) -> list[str]:
    """The keys of the first row to train on of a task of kind jsonl; none where it cannot be read."""
    if not section.get("train") or not Path(section["train"]).is_file():
        return []
    with suppress(UserError, OSError):
        _, first = next(json_lines(section["train"]), (0, {}))
        return [*first] if isinstance(first, dict) else []
    return []


def _replay(config: dict) -> Iterator[str]:
    fractions, weights = (config["sweep"].get(f"replay.{key}", [config["replay"][key]]) for key in ("fraction", "kl"))
    own = {name: unfold.changed(config, chosen)["replay"] for name, chosen in unfold.settings(config).items()}
    if any(one["fraction"] for one in own.values()) and not any(
        task["role"] == "replay" for task in config["tasks"].values()
    ):
        yield (
            f"replay.fraction: found {', '.join(map(str, fractions))}, but no task has the role replay. Add one to "
            "tasks, such as general: {kind: replay, source: hub:cais/mmlu, revision: ...}; see docs/tasks.md."
        )
    for name, replay in own.items():
        if name in config["adapters"] and replay["kl"] and not replay["fraction"]:
            yield (
                f"adapters.{name}: replay.kl is {replay['kl']}, but replay.fraction is 0: there are no rows to compute "
                "it on. Set a fraction, or kl: 0.0."
            )
    if any(weights) and not any(fractions):
        yield (
            f"replay.kl: found {', '.join(map(str, weights))}, but replay.fraction is "
            f"{', '.join(map(str, fractions))}: there are no rows to compute it on. Set a fraction, or kl: 0.0."
        )
    elif 0 in fractions and 0 not in weights and "replay.kl" in config["sweep"]:
        yield (
            f"sweep.replay.kl: found {weights}, but a replay.fraction is 0: that adapter has no such term. Add 0.0 to "
            "the list, or take 0.0 out of fraction."
        )


def _named(config: dict) -> Iterator[str]:
    models = config["models"]
    for name, adapter in config["adapters"].items():
        given = [key for key in ("lora", "training", "replay") if adapter[key]]
        if adapter["source"] is None:
            for key in ("revision", "model"):
                if adapter[key] is not None and not (key == "model" and "answers" in adapter):
                    yield f"adapters.{name}.{key}: found {adapter[key]}, but no source. Add it, or remove {key}."
            continue
        if given:
            yield f"adapters.{name}.{given[0]}: not used, since an adapter with a source is not trained. Remove it."
        if adapter["model"] not in (models if len(models) > 1 else (None, *models)):
            yield (
                f"adapters.{name}.model: found {adapter['model'] or 'null'}, expected the one of this study's models "
                f"that it is made for: {', '.join(models)}."
            )
        on_hub = adapter["source"].startswith("hub:")
        if on_hub != (adapter["revision"] is not None):
            expected = "a commit of 40 hexadecimal digits" if on_hub else "null, since a local folder has no revision"
            yield f"adapters.{name}.revision: found {adapter['revision'] or 'null'}, expected {expected}."


def _full(config: dict) -> Iterator[str]:
    """Full fine-tuning of weights that cannot be trained, with keys of an adapter, or at an adapter's learning rate."""
    found = [name for name, chosen in unfold.settings(config).items() if unfold.is_full(config, chosen)]
    for name in unfold.loaded(config):
        precision = config["models"][name]["precision"]
        if found and precision in QUANTISED:
            yield (
                f"models.{name}.precision: found {precision}, but setting {found[0]} has training.method: full, and "
                "quantised weights cannot be trained. Write bf16, or method: lora."
            )
    for name in (one for one in found if one in config["adapters"]):
        own = config["adapters"][name]
        for key in own["lora"]:
            yield f"adapters.{name}.lora.{key}: not used, since training.method is full. Remove it."
        if "method" in own["training"] and "learning_rate" not in own["training"]:
            rate = config["training"]["learning_rate"]
            yield (
                f"adapters.{name}.training.learning_rate: missing, and the study's {rate} is for adapters. Full "
                "fine-tuning needs a far lower one. Write it here, such as 1.0e-5."
            )


def _imported(config: dict) -> Iterator[str]:
    """Answers that were given elsewhere, beside what needs a model."""
    asked, elsewhere = unfold.asked_tasks(config), unfold.given(config)
    for name, model in config["models"].items():
        if model["source"] is None and "answers" not in model:
            yield (
                f"models.{name}.source: missing. Write a folder or a repository on the hub, or give the model answers "
                "(docs/answers.md)."
            )
    for name, adapter in config["adapters"].items():
        if "answers" not in adapter:
            continue
        for key in ("source", "lora", "replay"):
            if adapter[key]:
                yield f"adapters.{name}.{key}: not used, since its answers were given elsewhere. Remove it."
        for key in adapter["training"].keys() - {"seed"}:
            yield f"adapters.{name}.training.{key}: not used, since its answers were given elsewhere. Remove it."
        if adapter["model"] not in (config["models"] if len(config["models"]) > 1 else (None, *config["models"])):
            yield (
                f"adapters.{name}.model: found {adapter['model'] or 'null'}, expected the one of this study's models "
                f"that it belongs to: {', '.join(config['models'])}."
            )
    for answers in elsewhere.values():
        place = next((one["name"].rpartition(".")[0] for one in answers.values()), "answers")
        for task in asked:
            if task not in answers:
                yield f"{place}: found no answers to {task}. Add them, or take {task} out of tasks."
        for task in answers.keys() - set(asked):
            yield f"{place}.{task}: this study does not ask {task}, only {', '.join(asked)}. Remove it."
    if elsewhere and config["scale"] == "smoke":
        yield "scale: found smoke, but answers that were given elsewhere cannot be made fewer. Remove it."
    needing = {"recommend": config["recommend"], "evaluation.harness.tasks": config["evaluation"]["harness"]["tasks"]}
    needing["evaluation.repair"] = config["evaluation"]["repair"]
    for key in ("shots", "noise_floor"):
        given_base = any("answers" in one for one in config["models"].values())
        needing[f"evaluation.{key}"] = given_base and config["evaluation"][key]
    for key, value in needing.items() if elsewhere else ():
        if value:
            yield f"{key}: needs models, and this study has answers that were given elsewhere. Remove it."
    if not unfold.loaded(config) and (config["sweep"] or unfold.settings(config)):
        where = "sweep" if config["sweep"] else f"adapters.{next(iter(unfold.settings(config)))}"
        yield f"{where}: there is no model to train, as no model has a source. Remove it, or give a model a source."
    first = next(iter(config["models"].values())).get("answers", {})
    for task, section in config["tasks"].items():
        if not section.get("answered"):
            continue
        if task not in first:
            yield f"tasks.{task}.answered: found true, but the first model has no answers to {task}. Remove it."
        elif first[task]["in_order"]:
            yield (
                f"tasks.{task}.answered: found true, but in_order says that the answers are to the questions of the "
                "study. Name a column that says which question a row answers."
            )
        for key in ("questions", "questions_per_category"):
            if section.get(key) is not None:
                yield f"tasks.{task}.{key}: found {section[key]}, but answered chooses the questions. Write null."


def _twins(config: dict) -> Iterator[str]:
    """Names that stand for two things, and adapters that are the same training."""
    found: dict[str, str] = {}
    trained = unfold.adapters(config)
    for name, adapter in trained.items():
        if (twin := found.setdefault(adapter["folder"], name)) != name:
            yield f"{name} and {twin} are the same training. Remove one from sweep or adapters."
    swept = set(unfold.settings(config | {"adapters": {}})) if config["sweep"] else set()
    taken = {unfold.BASE, *swept, *unfold.points(config, trained)}
    elsewhere = unfold.imported(config)
    for name in dict.fromkeys([*elsewhere, *config["adapters"]]):
        if name in taken or (name in elsewhere and name in trained):
            yield f"adapters.{name}: this study has another run of that name. Write another name."


def _linear(config: dict) -> Iterator[str]:
    needed = [name for name in ("interpolate", "soups") if config["evaluation"][name]]
    for key in NOT_LINEAR:
        if config["lora"].get(key) and needed and not unfold.is_full(config, {}):
            yield (
                f"lora.{key}: found {config['lora'][key]}, but evaluation.{needed[0]} needs adapters that only add a "
                "product of two matrices to weights. Remove one of the two."
            )


def _repair(config: dict) -> Iterator[str]:
    evaluation, target = config["evaluation"], config["tasks"][unfold.target_of(config)]
    kind = target["kind"]
    if evaluation["repair"] and not issubclass(KINDS[kind].Options, text_to_sql.Options):
        yield (
            f"evaluation.repair: found 1, but the target is of kind {kind}: only answers in SQL can fail to run. Write "
            "0, or take a text-to-SQL task as the target."
        )
    if evaluation["repair_prompt"] and not evaluation["repair"]:
        yield "evaluation.repair_prompt: not used, since evaluation.repair is 0. Write repair: 1, or remove it."


def _points(config: dict) -> Iterator[str]:
    evaluation, trained = config["evaluation"], unfold.adapters(config)
    every = [*dict.fromkeys(own["setting"] for own in trained.values()), *trained, *unfold.ready_made(config)]
    named = {f"soups.{name}": of for name, of in evaluation["soups"].items()}
    for key, names in ({"adapters": evaluation["adapters"] or []} | named).items():
        for name in names:
            if name not in every:
                near = difflib.get_close_matches(name, every, 1) or every
                yield f"evaluation.{key}: found {name}, expected adapters of this study, such as {near[0]}."
    for key, names in named.items():
        if len(names) < 2:
            yield f"evaluation.{key}: found {len(names)} adapters, expected at least 2 to average."
        counts = {name: len(unfold.members(config, trained, name)) for name in names}
        if len({count for count in counts.values() if count}) > 1:
            shown = ", ".join(f"{name} has {count}" for name, count in counts.items())
            yield f"evaluation.{key}: a mean is made once a seed, but {shown}. Name settings with the same seeds."
        of = [one for name in names for one in unfold.members(config, trained, name)]
        whole = [name for name in of if name in trained and unfold.is_full(config, trained[name]["values"])]
        if 0 < len(whole) < len(of):
            yield (
                f"evaluation.{key}: found {whole[0]}, which is full fine-tuning, beside adapters: there is no mean of "
                "both. Name settings of one kind."
            )


def _modules(config: dict) -> Iterator[str]:
    """Damaged weights, and layers to adapt that a model does not have, as far as models lie in folders.

    PEFT leaves out a name that it does not find, unless it finds none.
    """
    sources = {name: one["source"] for section in ("models", "adapters") for name, one in config[section].items()}
    local = {name: Path(source) for name, source in sources.items() if source and Path(source).is_dir()}
    adapted = [chosen for chosen in unfold.settings(config).values() or [{}] if not unfold.is_full(config, chosen)]
    trained = [unfold.changed(config, chosen)["lora"]["target_modules"] for chosen in adapted]
    said: dict[str, None] = {}
    for name, folder in local.items():
        try:
            found = modules(folder)
        except UserError as error:
            said[str(error)] = None
            continue
        own = {module.rpartition(".")[2] for module in found}
        # Experts have other names in files of weights than in the model.
        if name not in config["models"] or not found or any("experts" in module for module in found):
            continue
        for wanted in (one for one in trained if isinstance(one, list)):
            for layer in wanted:
                if layer not in own and not any(module.endswith(f".{layer}") for module in found):
                    near = difflib.get_close_matches(layer, own, 1)
                    meant = f"Did you mean {near[0]}?" if near else f"Its layers are {', '.join(sorted(own))}."
                    said[f"lora.target_modules: found {layer}, which models.{name} does not have. {meant}"] = None
        for wanted in (one for one in trained if isinstance(one, str) and one != "all-linear"):
            # A model may have a word more at the front of its names than its files.
            ends = (module.split(".", n)[-1] for module in found for n in range(module.count(".") + 1))
            if not any(re.fullmatch(wanted, end) for end in ends):
                said[f"lora.target_modules: found {wanted}, which no layer of models.{name} matches in full."] = None
    yield from said


def _published(config: dict) -> Iterator[str]:
    """What in `published` is about nothing that this study has."""
    published = config["published"]
    if not published["tables"]:
        return
    if published["model"] not in config["models"]:
        yield (
            f"published.model: found {published['model']}, expected one of this study's models: "
            f"{', '.join(config['models'])}."
        )
    for number, table in enumerate(published["tables"]):
        if table["task"] not in config["tasks"]:
            yield (
                f"published.tables[{number}].task: found {table['task']}, expected one of this study's tasks: "
                f"{', '.join(config['tasks'])}."
            )
        for section in ("accuracy", "correct", "change"):
            for variant, values in table[section].items():
                for column in values.keys() - table["n"].keys():
                    yield (
                        f"published.tables[{number}].{section}.{variant}.{column}: there is no such column in n, which "
                        f"has {', '.join(table['n'])}. Add it there, null if its questions are not known."
                    )
