"""What a study says in one place and takes back in another, found before a job fails on it hours later."""

import difflib
from collections.abc import Iterator

from study.unfold import BASE, variants
from tasks.mmlu import OFFICIAL


def contradictions(config: dict) -> Iterator[str]:
    """A sentence for each contradiction in a complete study: key, what was found, what to write."""
    for check in (_validation, _precision, _questions, _replay, _published, _points):
        yield from check(config)


def _validation(config: dict) -> Iterator[str]:
    training, by = config["training"], config["spider"]["validation"]["by"]
    evaluated, best = training["eval_strategy"] != "no", training["load_best_model_at_end"]
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


def _precision(config: dict) -> Iterator[str]:
    for name, model in config["models"].items():
        if model["precision"] != "nf4":
            continue
        because = f"but models.{name}.precision is nf4, and 4-bit weights cannot hold what an adapter adds. Write false"
        if config["inference"]["merge_adapters"]:
            yield f"inference.merge_adapters: found true, {because}, or precision: bf16."
        if config["recommend"] and config["recommend"]["merge"]:
            yield f"recommend.merge: found true, {because}."


def _questions(config: dict) -> Iterator[str]:
    mmlu, all_of = config["mmlu"], len(" ".join(OFFICIAL.values()).split())
    if mmlu["categories"] == "official" and mmlu["subjects"] != all_of:
        yield (
            f"mmlu.categories: found official, all {all_of} subjects of the release, but mmlu.subjects says that the "
            f"source holds {mmlu['subjects']}. Name the subjects, or use the release."
        )
    if mmlu["shots_from"] == "fixed" and len(mmlu["fixed_shots"]) != mmlu["shots"]:
        yield f"mmlu.fixed_shots: found {len(mmlu['fixed_shots'])} rows, expected mmlu.shots = {mmlu['shots']}."
    if mmlu["shots_from"] != "fixed" and mmlu["fixed_shots"]:
        yield f"mmlu.fixed_shots: not used, since shots_from is {mmlu['shots_from']}. Write fixed, or remove the rows."


def _replay(config: dict) -> Iterator[str]:
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


def _points(config: dict) -> Iterator[str]:
    evaluation, kept = config["evaluation"], config["training"]["kept_steps"]
    adapters = [name for name in variants(config) if name != BASE]
    named = {f"soups.{name}": members for name, members in evaluation["soups"].items()}
    for key, names in ({"adapters": evaluation["adapters"] or []} | named).items():
        for name in names:
            if name not in adapters:
                near = difflib.get_close_matches(name, adapters, 1) or adapters
                yield f"evaluation.{key}: found {name}, expected adapters of this study, such as {near[0]}."
    for key, names in named.items():
        if len(names) < 2:
            yield f"evaluation.{key}: found {len(names)} adapters, expected at least 2 to average."
    for step in evaluation["steps"]:
        if step not in kept:
            yield (
                f"evaluation.steps: found {step}, but training.kept_steps is {kept}: no adapter of that step is kept. "
                "Add it there too; an adapter that is evaluated at it is then trained again."
            )


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
        for section in ("accuracy", "correct", "change"):
            for variant, values in table[section].items():
                for column in values.keys() - table["n"].keys():
                    yield (
                        f"published.tables[{number}].{section}.{variant}.{column}: there is no such column in n, which "
                        f"has {', '.join(table['n'])}. Add it there, null if its questions are not known."
                    )
