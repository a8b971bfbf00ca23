"""What each rule's jobs see of a study, as the workflow itself says when Snakemake parses it with that study."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from snakemake.api import SnakemakeApi
from snakemake.iocontainers import Wildcards
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings
from snakemake.workflow import Workflow

REPO = Path(__file__).parents[2]


def parse(study: dict[str, Any]) -> Workflow:
    """The workflow as Snakemake has it after reading the Snakefile with a study, which may not be complete.

    The study's paths are those of the repository.

    Raises:
        WorkflowError: the study is refused.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "resources").symlink_to(REPO / "resources")
        return parse_in(folder, study)


def parse_in(folder: Path, study: dict[str, Any]) -> Workflow:
    """The same in a folder, in which the paths of the study are."""
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        given = ConfigSettings(configfiles=[file])
        return api.workflow(ResourceSettings(cores=1), given, snakefile=REPO / "Snakefile", workdir=folder)._workflow


def settings(study: dict[str, Any]) -> dict[str, Any]:
    """The parameter `settings` of every rule, or all settings of a training, by the rule's name.

    Of a rule with wildcards they are nested: by model, by part, by task, by model and variant. All keys are sorted.
    """
    return _settings(parse(study))


def seen(rule: Any) -> Any:
    """What the jobs of a rule see of a study, or the function that gives it; None of a rule that sees nothing."""
    if hasattr(rule.params, "unwatched"):
        return partial(rule.params.unwatched, resources=None)
    return getattr(rule.params, "settings", None)


def _settings(workflow: Workflow) -> dict[str, Any]:
    names = workflow.globals
    models, tasks = list(names["config"]["models"]), names["config"]["tasks"]
    found = {}
    for rule in workflow.rules:
        if (given := seen(rule)) is None:
            continue
        step, _, task = rule.name.partition("_")
        one_task = task in tasks

        def of(given=given, **wildcards: str) -> dict:
            return given(Wildcards(fromdict=wildcards)) if callable(given) else given

        def by_part(parts, of=of, task=task):
            return {part: of(task=task, part=part) for part in sorted(parts)}

        if rule.name == "fetch_answers" or (step == "import" and one_task):
            given_to = [
                (run, one) for run, files in names["GIVEN"].items() for one in files if task in (one, "answers")
            ]
            of_runs = {f"{'/'.join(run)}/{one}": of(model=run[0], run=run[1], task=one) for run, one in given_to}
            found |= {rule.name: of_runs} if of_runs else {}
        elif rule.name == "fetch_adapter":
            adapters = sorted(names["READY_MADE"])
            found |= {rule.name: {name: of(run=name) for name in adapters}} if adapters else {}
        elif rule.name == "fetch_model":
            found[rule.name] = {model: of(model=model) for model in models}
        elif rule.name == "choose_rows":
            choices = {choice: of(choice=choice) for choice in sorted(names["CHOICES"])}
            found |= {rule.name: choices} if choices else {}
        elif rule.name == "audit_labels":
            roles = (names["TARGET"], names["REPLAY_TASK"])
            found[rule.name] = {task: of(task=task) for task in roles if task}
        elif step == "prepare" and one_task:
            found[rule.name] = by_part(names["kind_of"](task).PARTS)
        elif step == "render" and one_task:
            others = names["OWN_PROMPTS"].get(task, {}).values()
            found[rule.name] = by_part({*names["kind_of"](task).PARTS, *others} - {"shots"})
        elif rule.name in ("train", "harness") or (step == "predict" and one_task):
            runs = {"train": "ADAPTERS", f"predict_{names['TARGET']}": "RUNS"}.get(rule.name, "ASKED_ONCE")
            found[rule.name] = {model: {} for model in models}
            for run in sorted(names[runs], key=lambda run: run["variant"]):
                given_to = {"model": run["model"], "run": run["folder"]} | ({"task": task} if one_task else {})
                found[rule.name][run["model"]][run["variant"]] = of(**given_to)
        else:
            found[rule.name] = of()
    return dict(sorted(found.items()))
