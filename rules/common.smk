# The study: checked, completed, and unfolded into what the rules need. The work is in scripts/study/.

import re
import sys
from functools import partial
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir, "scripts")))

from common.access import check_access, check_harness
from common.files import ADAPTER_FILES, UserError
from present import catalogue
from present.format import Say
from study import read as _read, unfold
from tasks.mmlu import AUXILIARY

study_file = ", ".join(Path(path).name for path in workflow.overwrite_configfiles) or "config.yaml"
overrides = _read.retype(workflow.config_settings.config)
if overrides:
    study_file += " with --config"
try:
    config = _read.resolve(config, overrides, study_file)
except UserError as error:
    raise WorkflowError(str(error)) from None

# What a rule names by `pick` is all that its jobs see of the study, and all of it whose change makes their outputs
# stale. So a key belongs to as few rules as can be, and nothing that only concerns evaluation to a rule that leads to
# training.
pick = partial(unfold.pick, config)
STUDY = unfold.label(config)
# One entry for each row of the tables: {"model": …, "variant": …, "settings": …}.
RUNS = unfold.runs(config)
NAMES = [{"model": run["model"], "variant": run["variant"]} for run in RUNS]
VARIANTS = unfold.variants(config)
POINTS = unfold.points(config)
OWN_PROMPTS = unfold.own_prompts(config)
DEFECTS = ("known_defects", "accept_defect")
# What every page that a person reads depends on.
WRITTEN = (*DEFECTS, "report.language")
DECODING = (
    "inference.batch_size",
    "inference.merge_adapters",
    "inference.do_sample",
    "inference.temperature",
    "inference.top_p",
    "inference.seed",
)
EVALUATED = config["training"]["eval_strategy"] != "no"
PUBLISHED = bool(config["published"]["tables"])
HARNESS = bool(config["evaluation"]["harness"]["tasks"])
# The models as they are and the adapters trained on them; what `evaluation` adds is in RUNS alone.
TRAINED = [run for run in RUNS if "point" not in run]
ADAPTERS = [run for run in TRAINED if run["variant"] != unfold.BASE]
REPLAYED = any(unfold.replay_fraction(config, chosen) for chosen in VARIANTS.values())
REPLAYS_MMLU = config["replay"]["source"] == AUXILIARY
FOLDERS = unfold.adapter_folders(config)
# With other examples in its text-to-SQL prompts, the base model has the answers to MMLU that it has anyway.
SHOTS = {run["variant"] for run in RUNS if "shots" in run.get("point", {})}
ASKED_MMLU = [run for run in RUNS if run["variant"] not in SHOTS]
SOUPS = {name: point["of"] for name, point in POINTS.items() if "soup" in point}
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
    """The pattern of one of these names; of none, one that nothing matches."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=any_of(config["models"]),
    variant=any_of(dict.fromkeys([unfold.BASE, *FOLDERS, *OWN_PROMPTS])),
    split="train|validation|dev|dev_shots[0-9]+",
    shots="[0-9]+",


def adapter_files(wildcards):
    """The adapter that a variant answers with; nothing for the base model."""
    if wildcards.variant not in FOLDERS:
        return []
    folder = f"<results>/runs/{wildcards.model}/{FOLDERS[wildcards.variant]}"
    return [f"{folder}/{name}" for name in ADAPTER_FILES]


def spider_prompts(wildcards):
    """The text-to-SQL prompts that a variant answers."""
    return f"<results>/runs/{wildcards.model}/prompts/{OWN_PROMPTS.get(wildcards.variant, 'dev')}.jsonl"


def mmlu_answers(wildcards):
    """The answers to MMLU of a variant."""
    variant = unfold.BASE if wildcards.variant in SHOTS else wildcards.variant
    return f"<results>/runs/{wildcards.model}/{variant}/mmlu_answers.jsonl"


def split_rows(wildcards):
    """The rows of a split, and the few-shot examples that are put before each."""
    name, _, number = wildcards.split.partition("_shots")
    shots = f"shots{number}" if number else "shots"
    return {"rows": f"<results>/data/splits/{name}.jsonl", "shots": f"<results>/data/splits/{shots}.jsonl"}


def soup_files(wildcards):
    """The adapters that a soup is made of."""
    folder = f"<results>/runs/{wildcards.model}"
    return [f"{folder}/{name}/adapter/{file}" for name in SOUPS[wildcards.variant] for file in ADAPTER_FILES]


def replay_file(wildcards, name):
    """A model's file about the rows to replay; nothing for an adapter that replays none."""
    replayed = unfold.replay_fraction(config, VARIANTS[wildcards.variant])
    return f"<results>/runs/{wildcards.model}/{name}" if replayed else []


def render_settings(wildcards):
    """What the text-to-SQL prompts of a split depend on; those to be answered have no target, but a limit."""
    words = pick("prompt.spider_system as system", "prompt.schema", "prompt.sample_rows", "prompt.style")
    if wildcards.split in ("train", "validation"):
        return pick("prompt.train_target", **words)
    return pick(
        "spider.dev_questions as questions",
        "spider.exclude_databases",
        "inference.spider_max_new_tokens as max_new_tokens",
        **words,
    )


def loaded(wildcards):
    """How a run's model and adapter are loaded: the precision and, of an interpolation, the strength."""
    point = POINTS.get(wildcards.variant, {})
    strength = {"strength": point["strength"]} if "strength" in point else {}
    return unfold.pick(config["models"][wildcards.model], "precision", **strength)


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


def require_gpus():
    """Stop before the first job if one is given more GPUs than the run has; Snakemake would lower that, unsaid."""
    limit = workflow.global_resources.get("gpu").value
    for name, given in workflow.resource_settings.overwrite_resources.items():
        asked = given.get("gpu").value
        if isinstance(limit, int) and isinstance(asked, int) and asked > limit:
            raise WorkflowError(
                f"set-resources, {name}:gpu={asked}: this run has gpu={limit}. Add --resources gpu={asked}, or change "
                "`resources` in the profile. Nothing was started."
            )
