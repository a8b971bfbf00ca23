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


def keys_of(section, *keys):
    """Several keys of one section, for `pick`."""
    return [f"{section}.{key}" for key in keys]


DEFECTS = ("known_defects", "accept_defect")
# What every page that a person reads depends on.
WRITTEN = (*DEFECTS, "report.language")

STUDY = unfold.label(config)
# One entry for each row of the tables: {"model": …, "variant": …, "settings": …}.
RUNS = unfold.runs(config)
VARIANTS = unfold.variants(config)
POINTS = unfold.points(config)
OWN_PROMPTS = unfold.own_prompts(config)
FOLDERS = unfold.adapter_folders(config)
# The models as they are and the adapters trained on them; what `evaluation` adds is in RUNS alone.
TRAINED = [run for run in RUNS if "point" not in run]
ADAPTERS = [run for run in TRAINED if run["variant"] != unfold.BASE]
# With other examples in its text-to-SQL prompts, the base model has the answers to MMLU that it has anyway.
SAME_MMLU = {name: unfold.BASE for name, point in POINTS.items() if "shots" in point}
ASKED_MMLU = [run for run in RUNS if run["variant"] not in SAME_MMLU]
SOUPS = {name: point["of"] for name, point in POINTS.items() if "soup" in point}

EVALUATED = config["training"]["eval_strategy"] != "no"
REPLAYED = any(unfold.replay_fraction(config, chosen) for chosen in VARIANTS.values())
PUBLISHED = bool(config["published"]["tables"])
HARNESS = bool(config["evaluation"]["harness"]["tasks"])
SEEDS = config["training"]["seed"]
# What some studies have and others lack: tables and figures of the catalogue ask for it by these names.
HAS = {
    "recommend": config["recommend"],
    "harness": HARNESS,
    "published": PUBLISHED,
    "seeds": isinstance(SEEDS, list) and len(SEEDS) > 1,
    **{kind: any(kind in point for point in POINTS.values()) for kind in ("strength", "step", "shots")},
}
SPIDER_FILES = ("train_spider", "train_others", "dev", "tables", "manifest")
SPIDER = {name: f"<results>/data/spider/{name}.json" for name in SPIDER_FILES}
MMLU = {name: f"<results>/data/mmlu/{name}.csv" for name in ("dev", "test")}
REPLAYS_MMLU = config["replay"]["source"] == AUXILIARY
TABLES = catalogue.names(catalogue.TABLES, HAS, "tables")
FIGURES = catalogue.names(catalogue.FIGURES, HAS)
of_models = partial(collect, model=config["models"])
SAY = Say(config["report"]["language"])


def any_of(names):
    """The pattern of one of these names; of none, one that nothing matches."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=any_of(config["models"]),
    variant=any_of(dict.fromkeys([unfold.BASE, *FOLDERS, *OWN_PROMPTS])),
    split="train|validation|dev|dev_shots[0-9]+",
    shots="[0-9]+",


def of_runs(name, runs=RUNS):
    """A file of every run."""
    return collect(f"<results>/runs/{{run[model]}}/{{run[variant]}}/{name}", run=runs)


def named(runs):
    """The runs without what was varied in them."""
    return [{"model": run["model"], "variant": run["variant"]} for run in runs]


def csv_of(*tables):
    """Tables as inputs."""
    return {name: f"<results>/tables/{name}.csv" for name in tables}


def table(name):
    """The outputs of a rule that makes one table."""
    return {"csv": shown(f"<results>/tables/{name}.csv", f"tables.{name}"), "md": f"<results>/tables/{name}.md"}


def shown(path, words, kind="table"):
    """Put an output into Snakemake's report, with its title and caption from the words."""
    labels = {kind: SAY.word(f"{words}.short"), "shows": SAY.word(f"{words}.caption")}
    return report(path, category=f"{kind.capitalize()}s", labels=labels)


def adapter_files(folder, model="{model}"):
    """The files of an adapter in a folder below its model's."""
    return [f"<results>/runs/{model}/{folder}/{name}" for name in ADAPTER_FILES]


def own_adapter(wildcards):
    """The adapter that a variant answers with; nothing for the base model."""
    folder = FOLDERS.get(wildcards.variant)
    return adapter_files(folder, wildcards.model) if folder else []


def split_rows(wildcards):
    """The rows of a split, and the few-shot examples that are put before each."""
    name, _, number = wildcards.split.partition("_shots")
    return {"rows": f"<results>/data/splits/{name}.jsonl", "shots": f"<results>/data/splits/shots{number}.jsonl"}


def render_settings(wildcards):
    """What the text-to-SQL prompts of a split depend on; those to be answered have no target, but a limit."""
    words = pick("prompt.spider_system as system", "prompt.schema", "prompt.sample_rows", "prompt.style")
    if wildcards.split in ("train", "validation"):
        return pick("prompt.train_target", **words)
    asked = ("spider.dev_questions as questions", "spider.exclude_databases")
    return pick(*asked, "inference.spider_max_new_tokens as max_new_tokens", **words)


def replay_file(wildcards, name):
    """A model's file about the rows to replay; nothing for an adapter that replays none."""
    replayed = unfold.replay_fraction(config, VARIANTS[wildcards.variant])
    return f"<results>/runs/{wildcards.model}/{name}" if replayed else []


def soup_files(wildcards):
    """The adapters that a soup is made of."""
    return [file for name in SOUPS[wildcards.variant] for file in adapter_files(f"{name}/adapter", wildcards.model)]


def loaded(wildcards):
    """How a run's model and adapter are loaded: the precision and, of an interpolation, the strength."""
    point = POINTS.get(wildcards.variant, {})
    strength = {"strength": point["strength"]} if "strength" in point else {}
    return unfold.pick(config["models"][wildcards.model], "precision", **strength)


def decoding(task):
    """How a run answers the prompts of a task."""
    keys = keys_of("inference", "batch_size", "merge_adapters", "do_sample", "temperature", "top_p", "seed")
    longest = f"inference.{task}_max_new_tokens as max_new_tokens"
    return lambda wildcards: pick(*keys, longest, **loaded(wildcards))


def before_first_job():
    """Stop if a gated model, lm-evaluation-harness or a GPU that jobs need is not there."""
    try:
        check_access(config["models"])
        # Conda brings the harness along.
        deployed = workflow.deployment_settings.deployment_method
        check_harness([] if deployed else config["evaluation"]["harness"]["tasks"])
    except UserError as error:
        raise WorkflowError(str(error)) from None
    # Snakemake would lower a job's GPUs to those of the run, unsaid.
    limit = workflow.global_resources.get("gpu").value
    for name, given in workflow.resource_settings.overwrite_resources.items():
        asked = given.get("gpu").value
        if isinstance(limit, int) and isinstance(asked, int) and asked > limit:
            raise WorkflowError(
                f"set-resources, {name}:gpu={asked}: this run has gpu={limit}. Add --resources gpu={asked}, or change "
                "`resources` in the profile. Nothing was started."
            )
