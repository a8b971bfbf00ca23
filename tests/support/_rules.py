"""What each rule's jobs see of a study, as the workflow itself says when Snakemake parses it with that study."""

import tempfile
from pathlib import Path
from typing import Any

import yaml
from snakemake.api import SnakemakeApi
from snakemake.iocontainers import Wildcards
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings
from snakemake.workflow import Workflow

REPO = Path(__file__).parents[2]
BY_VARIANT = ("train", "predict_spider", "predict_mmlu", "harness")


def parse(study: dict[str, Any]) -> Workflow:
    """The workflow as Snakemake has it after reading the Snakefile with a study, which may not be complete.

    Raises:
        WorkflowError: the study is refused.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(yaml.safe_dump(study), encoding="utf-8")
        with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
            given = ConfigSettings(configfiles=[file])
            found = api.workflow(ResourceSettings(cores=1), given, snakefile=REPO / "Snakefile", workdir=Path(folder))
            return found._workflow


def settings(study: dict[str, Any]) -> dict[str, Any]:
    """The parameter `settings` of every rule, by the rule's name.

    Of a rule with wildcards they are nested: by model, by split, by model and variant. All keys are sorted.
    """
    workflow = parse(study)
    names = workflow.globals
    models = list(names["config"]["models"])
    found = {}
    for rule in workflow.rules:
        if not hasattr(rule.params, "settings"):
            continue
        given = rule.params.settings

        def of(given=given, **wildcards: str) -> dict:
            return given(Wildcards(fromdict=wildcards)) if callable(given) else given

        if rule.name == "fetch_model":
            found[rule.name] = {model: of(model=model) for model in models}
        elif rule.name == "render_spider":
            splits = sorted({"train", "validation", "dev", *names["OWN_PROMPTS"].values()})
            found[rule.name] = {split: of(split=split) for split in splits}
        elif rule.name in BY_VARIANT:
            runs = {"train": "ADAPTERS", "predict_spider": "RUNS"}.get(rule.name, "ASKED_MMLU")
            found[rule.name] = {model: {} for model in models}
            for run in sorted(names[runs], key=lambda run: run["variant"]):
                one = of(model=run["model"], variant=run["variant"])
                found[rule.name][run["model"]][run["variant"]] = one
        else:
            found[rule.name] = of()
    return dict(sorted(found.items()))
