# The study: checked, completed, and unfolded into what the rules need. The work is in scripts/_config.py, where tests
# can reach it.

import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir, "scripts")))

import _config
from _access import check_access
from _files import UserError

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
BASE_PROMPTS = _config.base_prompts(config)
EVALUATED = config["training"]["eval_strategy"] != "no"
PUBLISHED = bool(config["published"]["tables"])
ADAPTERS = [run for run in RUNS if run["variant"] != _config.BASE]
# What `tables` and `figures` write, and what each is called in Snakemake's report; the captions have the same names.
TABLES = {
    "regression": "Change against the base model",
    "exchange": "Exchange rate of forgetting for learning",
    "factors": "Swept settings against each other",
    "seeds": "Seeds",
    "execution_accuracy": "Execution accuracy",
    "databases": "Execution accuracy by database",
    "mmlu": "MMLU",
    "errors": "What became of the SQL",
    "flips": "Answers gained and lost",
    "confusion": "What became of each class of answers",
}
FIGURES = {
    "tradeoff": "Learning against forgetting",
    "differences": "Differences against the base model",
    "hardness": "Accuracy by hardness",
    "databases": "Accuracy by database",
    "error_flow": "Error classes, base to tuned",
    "loss": "Training and validation loss",
}
if isinstance(config["training"]["seed"], list) and len(config["training"]["seed"]) > 1:
    FIGURES["seeds"] = "Spread over seeds"


wildcard_constraints:
    model="|".join(map(re.escape, config["models"])),
    variant="|".join(map(re.escape, _config.variants(config))),
    split="train|validation|dev|dev_base",


def require_access(models):
    """Stop before the first job if a gated model cannot be had."""
    try:
        check_access(models)
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
