# The study: checked, completed, and unfolded into what the rules need. The work is in scripts/study/config.py, where tests
# can reach it.

import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir, "scripts")))

from study import config as _config
from common.access import check_access, check_harness
from common.files import UserError
from present import catalogue
from present.format import Say

study_file = ", ".join(Path(path).name for path in workflow.overwrite_configfiles) or "config.yaml"
overrides = _config.retype(workflow.config_settings.config)
if overrides:
    study_file += " with --config"
rules = Path(workflow.basedir, "rules")
try:
    smoke, schema = (_config.read_schema(rules / name) for name in ("smoke.yaml", "config.schema.yaml"))
    config = _config.resolve(config, overrides, smoke, schema, study_file)
except UserError as error:
    raise WorkflowError(str(error)) from None

# Each rule's own slice of the study, the only values its job sees.
SETTINGS = _config.settings(config)
# One entry for each row of the tables: {"model": …, "variant": …, "settings": …}.
RUNS = SETTINGS["tables"]["runs"]
OWN_PROMPTS = _config.own_prompts(config)
EVALUATED = config["training"]["eval_strategy"] != "no"
PUBLISHED = bool(config["published"]["tables"])
HARNESS = bool(config["evaluation"]["harness"]["tasks"])
# The models as they are and the adapters trained on them; what `evaluation` adds is in RUNS alone.
TRAINED = [run for run in RUNS if "point" not in run]
ADAPTERS = [run for run in TRAINED if run["variant"] != _config.BASE]
REPLAYED = any("replay" in settings for found in SETTINGS["train"].values() for settings in found.values())
FOLDERS = _config.adapter_folders(config)
# With other examples in its text-to-SQL prompts, the base model has the answers to MMLU that it has anyway.
SHOTS = {run["variant"] for run in RUNS if "shots" in run.get("point", {})}
ASKED_MMLU = [run for run in RUNS if run["variant"] not in SHOTS]
SOUPS = {name: point["of"] for name, point in _config.points(config).items() if "soup" in point}
# What some studies have and others lack: tables and figures of the catalogue ask for it by these names.
KINDS = {kind for run in RUNS for kind in run.get("point", {})}
SEEDS = config["training"]["seed"]
HAS = {
    "recommend": config["recommend"],
    "harness": HARNESS,
    "published": PUBLISHED,
    "seeds": isinstance(SEEDS, list) and len(SEEDS) > 1,
    **{kind: kind in KINDS for kind in ("strength", "step", "shots")},
}
SAY = Say(config["report"]["language"])
TABLES = catalogue.names(catalogue.TABLES, HAS, "tables")
FIGURES = catalogue.names(catalogue.FIGURES, HAS)


def shown(path, words, kind="table"):
    """Put an output into Snakemake's report, with its title and caption from the words."""
    labels = {kind: SAY.word(f"{words}.short"), "shows": SAY.word(f"{words}.caption")}
    return report(path, category=f"{kind.capitalize()}s", labels=labels)


def any_of(names):
    """Return the pattern of one of these names; of none, one that nothing matches."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=any_of(config["models"]),
    variant=any_of(dict.fromkeys([_config.BASE, *FOLDERS, *OWN_PROMPTS])),
    split="train|validation|dev|dev_shots[0-9]+",
    shots="[0-9]+",


def adapter_files(wildcards):
    """Return the adapter that a variant answers with; nothing for the base model."""
    if wildcards.variant not in FOLDERS:
        return []
    folder = f"<results>/runs/{wildcards.model}/{FOLDERS[wildcards.variant]}"
    return [f"{folder}/{name}" for name in _config.ADAPTER_FILES]


def spider_prompts(wildcards):
    """Return the text-to-SQL prompts that a variant answers."""
    return f"<results>/runs/{wildcards.model}/prompts/{OWN_PROMPTS.get(wildcards.variant, 'dev')}.jsonl"


def mmlu_answers(wildcards):
    """Return the answers to MMLU of a variant."""
    variant = _config.BASE if wildcards.variant in SHOTS else wildcards.variant
    return f"<results>/runs/{wildcards.model}/{variant}/mmlu_answers.jsonl"


def split_rows(wildcards):
    """Return the rows of a split, and the solved examples that are put before each."""
    name, _, number = wildcards.split.partition("_shots")
    shots = f"shots{number}" if number else "shots"
    return {"rows": f"<results>/data/splits/{name}.jsonl", "shots": f"<results>/data/splits/{shots}.jsonl"}


def soup_files(wildcards):
    """Return the adapters that a soup is made of."""
    folder = f"<results>/runs/{wildcards.model}"
    return [f"{folder}/{name}/adapter/{file}" for name in SOUPS[wildcards.variant] for file in _config.ADAPTER_FILES]


def replay_file(wildcards, name):
    """Return a model's file about the rows to replay; nothing for an adapter that replays none."""
    replayed = "replay" in SETTINGS["train"][wildcards.model][wildcards.variant]
    return f"<results>/runs/{wildcards.model}/{name}" if replayed else []


def require_access(models):
    """Stop before the first job if a gated model cannot be had."""
    try:
        check_access(models)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def require_harness(tasks):
    """Stop before the first job if tasks need lm-evaluation-harness and it is not there; conda brings it along."""
    try:
        check_harness([] if workflow.deployment_settings.deployment_method else tasks)
    except UserError as error:
        raise WorkflowError(str(error)) from None


def require_cards():
    """Stop before the first job if one is given more cards than the run has; Snakemake would lower that, unsaid."""
    limit = workflow.global_resources.get("gpu").value
    for name, given in workflow.resource_settings.overwrite_resources.items():
        asked = given.get("gpu").value
        if isinstance(limit, int) and isinstance(asked, int) and asked > limit:
            raise WorkflowError(
                f"set-resources, {name}:gpu={asked}: this run has gpu={limit}. Add --resources gpu={asked}, or change "
                "`resources` in the profile. Nothing was started."
            )
