# The study: checked, completed, and unfolded into what the rules need. The work is in scripts/study/.

import os
import re
import sys
from functools import partial
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.jobs import GroupJob, Job
from snakemake.logging import logger

sys.path[:0] = [str(Path(workflow.basedir, "scripts")), workflow.basedir]

from common import code
from common.access import check_folder, check_trackers
from common.files import ADAPTER_FILES, UserError, fingerprint
from common.job import ended, retry_only_what_was_cut_off
from common.terminal import show_jobs
from present import catalogue
from present.format import Say
from study import identity, read as _read, repair, unfold
from study.labels import rows_label
from tasks.registry import KINDS, measured

try:
    check_folder(Path.cwd())
except UserError as error:
    raise WorkflowError(str(error)) from None
for path in workflow.overwrite_configfiles or ["config.yaml"]:
    try:
        _read.read_yaml(Path(path))  # Snakemake takes the last of two sections of one name
    except UserError as error:
        raise WorkflowError(str(error)) from None
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
stage = partial(unfold.stage, config)


def keys_of(section, *keys):
    """Several keys of one section, for `pick`."""
    return [f"{section}.{key}" for key in keys]


# What every page that a person reads depends on.
WRITTEN = ("known_defects", "accept_defect", "report.language")

STUDY = unfold.label(config)
# One entry for each row of the tables: {"model": …, "variant": its label, "folder": …, "settings": …}.
RUNS = unfold.runs(config)
# Of a run whose answers were given elsewhere: by task, where they are.
GIVEN = unfold.given(config)
# What is done here, and the models that it needs.
RUNS_HERE = [run for run in RUNS if "imported" not in run]
LOADED = unfold.asked_models(RUNS)
# With which seed a run's answers are drawn, where there are several; and of the further ones the first one's run.
SEEDS = {run["folder"]: run["draw"] for run in RUNS if "draw" in run}
BY_LABEL = {(run["model"], run["variant"]): run["folder"] for run in RUNS}
FIRST = {run["folder"]: BY_LABEL[run["model"], run["draw_of"]] for run in RUNS if "draw_of" in run}
# What repeats a run, to find what the machine changes. It is in no table but its own.
NOISE = unfold.noise(config)
REPEATS = {run["folder"]: run for run in NOISE}
REPEATED_RUNS = {(run["model"], run["repeats"]) for run in NOISE}
NOISE_RUNS = [run for run in RUNS if (run["model"], run["variant"]) in REPEATED_RUNS] + NOISE
# What answers again where the SQL of another run failed, in a table of its own too; and by folder that run's folder.
REPAIRS = repair.repairs(config)
REPAIRED = {run["folder"]: BY_LABEL[run["model"], run["repairs"]] for run in REPAIRS}
REPAIR_RUNS = [run for run in RUNS if run["folder"] in REPAIRED.values()] + REPAIRS
# Rules know a run by its folder, which is named after what it is and not after what else the study has.
LABELS = {run["folder"]: run["variant"] for run in [*RUNS, *NOISE, *REPAIRS]}
VALUES = {adapter["folder"]: adapter["values"] for adapter in unfold.adapters(config).values()}
POINTS = {run["folder"]: run["point"] for run in RUNS if "point" in run}
FOLDERS = unfold.adapter_folders(config)
AGAIN = {run["variant"]: run.get("repeats", run.get("draw_of")) for run in [*RUNS, *NOISE]}
AGAIN |= {run["variant"]: run["repairs"] for run in REPAIRS}
ADAPTED = FOLDERS | {name: FOLDERS[of] for name, of in AGAIN.items() if of in FOLDERS}
# The models as they are, the adapters trained on them, and ready-made ones; what `evaluation` adds is in RUNS alone.
TRAINED = [run for run in RUNS if "point" not in run and run["folder"] not in FIRST]
ADAPTERS = [run for run in TRAINED if run["folder"] in VALUES]
READY_MADE = unfold.ready_made(config)
# What is asked: the target first, then the yardsticks. What is replayed is only trained on.
TARGET = unfold.target_of(config)
YARDSTICKS = unfold.tasks_of(config, "yardstick")
TASKS = [TARGET, *YARDSTICKS]
REPLAY_TASK = next(iter(unfold.tasks_of(config, "replay")), None)
# What tables, figures and pages must know of each task.
MEASURED = {name: stage(name, "measure", role=config["tasks"][name]["role"]) for name in TASKS}
MEASURES = measured(MEASURED)
# By task the part of its prompts that a run answers, if not test.
OWN_PROMPTS = {task: unfold.own_prompts(config, task) for task in TASKS}
SQL_TASKS = [task for task, measure in MEASURES.items() if measure.form == "sql"]
# With other examples in its prompts of the target, the base model has the answers to the yardsticks that it has anyway.
BASES = {run.get("draw"): run["folder"] for run in RUNS_HERE if unfold.BASE in (run["variant"], run.get("draw_of"))}
SAME_ANSWERS = {name: BASES[SEEDS.get(name)] for name, point in POINTS.items() if "shots" in point}
ASKED_ONCE = [run for run in RUNS if run["folder"] not in {**SAME_ANSWERS, **FIRST}]
SOUPS = {name: point["of"] for name, point in POINTS.items() if "soup" in point and name not in FIRST}

TRAININGS = [unfold.changed(config, values) for values in VALUES.values()]
BASE_PRECISIONS = {name: own for name, one in config["models"].items() if (own := one.get("base_precision"))}
CHOICES = unfold.chosen_rows(config)
BALANCES = unfold.balances(config["tasks"][TARGET])
EVALUATED = any(one["training"]["eval_strategy"] != "no" for one in TRAININGS)
REPLAYED = any(one["replay"]["fraction"] for one in TRAININGS)
# Where losses go besides train.json.
TRACKERS = sorted({one["training"]["report_to"] for one in TRAININGS} if LOADED else ())
# Which parts of the data the report tells of.
REPORTED_PARTS = {task: ["test"] for task in TASKS}
REPORTED_PARTS |= {TARGET: KINDS[config["tasks"][TARGET]["kind"]].PARTS} if LOADED else {}
REPORTED_PARTS |= {REPLAY_TASK: ["train"]} if REPLAYED else {}
PUBLISHED = bool(config["published"]["tables"])
# What stands beside a printed figure: nothing of a run whose small model and few questions mean nothing.
BESIDE_PUBLISHED = [] if config["scale"] == "smoke" else TRAINED
HARNESS_TASKS = config["evaluation"]["harness"]["tasks"]
HARNESS = bool(HARNESS_TASKS)
# What some studies have and others lack: tables and figures of the catalogue ask for it by these names.
HAS = {
    "tasks": {task: measure.form for task, measure in MEASURES.items()},
    "sql": bool(SQL_TASKS),
    "recommend": config["recommend"],
    "harness": HARNESS,
    "published": PUBLISHED,
    "noise": bool(NOISE),
    "repair": bool(REPAIRS),
    "trained": bool(ADAPTERS),
    "seeds": len(VALUES) > len(unfold.settings(config)),
    **{kind: any(kind in point for point in POINTS.values()) for kind in ("strength", "step", "shots")},
}
# Margin and settings as they were written down before the run, if they were (`make plan`).
REGISTERED = Path("results", STUDY, "preregistered", f"{unfold.registration(config)}.json")
# Settings can be compared at equal gain where there are points along the way to it.
HAS["ways"] = bool(YARDSTICKS) and (HAS["strength"] or HAS["step"])
TABLES = catalogue.names(catalogue.TABLES, HAS, "tables")
FIGURES = catalogue.names(catalogue.FIGURES, HAS)
of_models = partial(collect, model=LOADED)
SAY = Say(config["report"]["language"], MEASURES)

# The bars in logs, from which the terminal takes how far a job is: not a line each tenth of a second.
os.environ.setdefault("TQDM_MININTERVAL", "2")
if workflow.is_main_process:
    retry_only_what_was_cut_off(Job)
    retry_only_what_was_cut_off(GroupJob)
    show_jobs(logger, workflow.output_settings, LABELS, len(config["models"]) == 1)
    # In a dry run too; what trains may have an environment of its own, and tables can be made without it.
    if not workflow.deployment_settings.deployment_method:
        try:
            check_trackers(TRACKERS)
        except UserError as error:
            logger.warning(str(error))


def any_of(names):
    """The pattern of one of these names; of none, one that nothing matches."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=any_of(config["models"]),
    run=any_of(LABELS),


def of_runs(name, runs=RUNS):
    """A file of every run."""
    return collect(f"<results>/runs/{{run[model]}}/{{run[folder]}}/{name}", run=runs)


def asked(task):
    """The runs that give answers of their own to a task."""
    return [run for run in RUNS_HERE if answered_by(task, run["folder"]) == run["folder"]]


def computed(task):
    """The same, and those that answer some of its questions again."""
    return asked(task) + (REPAIRS if task == TARGET else [])


def answered_by(task, run):
    """The run whose answers to a task a run has: mostly its own. What is not drawn has one answer to a letter."""
    run = run if task == TARGET else SAME_ANSWERS.get(run, run)
    return FIRST.get(run, run) if MEASURES[task].form == "choice" else run


def named(runs):
    """The runs without what was varied in them."""
    return [{"model": run["model"], "variant": run["variant"]} for run in runs]


def tabled(runs):
    """What tables say of runs, which is not where they lie."""
    return [{key: value for key, value in run.items() if key != "folder"} for run in runs]


def counted(runs, tasks=MEASURED):
    """What a table that compares runs depends on."""
    keys = keys_of("tables", "confidence_level", "margin_pp")
    return pick(*keys, *WRITTEN, study=STUDY, runs=tabled(runs)) | {"tasks": tasks}


def tested_name(task, run):
    """What a run is called where all answers in SQL are tested: by no more than tells it from the others."""
    parts = [task] * (len(SQL_TASKS) > 1) + [run["model"]] * (len(config["models"]) > 1)
    return Path(*parts, run["variant"]).as_posix()


def csv_of(*tables):
    """Tables as inputs."""
    return {name: f"<results>/tables/{name}.csv" for name in tables}


def table(name):
    """The outputs of a rule that makes one table."""
    return {"csv": shown_table(name), "md": f"<results>/tables/{name}.md"}


def shown_table(name):
    """The CSV file of a table in Snakemake's report; a task's has the words of its form."""
    key, task = catalogue.table_of(name, SAY).key, {"name": MEASURES[name].name} if name in MEASURES else {}
    return shown(f"<results>/tables/{name}.csv", SAY.heading(key, **task))


def shown(path, label, kind="table"):
    """Put an output into Snakemake's report."""
    return report(path, category=f"{kind.capitalize()}s", labels={kind: label})


def adapter_files(folder, model="{model}"):
    """The files of an adapter in a folder below its model's."""
    return [f"<results>/runs/{model}/{folder}/{name}" for name in ADAPTER_FILES]


def adapter_files_of(name, model):
    """The files of the adapter that a run, given by its label, answers with; none for the base model."""
    return adapter_files(ADAPTED[name], model) if name in ADAPTED else []


def own_adapter(wildcards):
    """The files of the adapter that a run answers with; nothing for the base model."""
    return adapter_files_of(LABELS[wildcards.run], wildcards.model)


def kind_of(task):
    """The module of a task."""
    return KINDS[config["tasks"][task]["kind"]]


def local_files(section):
    """What lies in local files now, so that an edit of them is seen; nothing for a source elsewhere."""
    local = {}
    for key, files in (("source", "files"), ("train", "train_files")):
        if section.get(key) and (found := fingerprint(section[key])):
            local |= {files: found, key: os.path.normpath(section[key])}
    return local


def kept_out(task):
    """The yardsticks whose rows a task must not hold: only what is replayed could."""
    return YARDSTICKS if task == REPLAY_TASK else []


def answered(task, part):
    """Whether answers that were given elsewhere decide which rows a part has."""
    return part == "test" and config["tasks"][task].get("answered", False)


def part_settings(task, part):
    """What a part of a task's data depends on."""
    kinds = [config["tasks"][name]["kind"] for name in kept_out(task)]
    others = {"yardsticks": kinds} if task == REPLAY_TASK else {}
    if answered(task, part):
        others["answered"] = given_settings(next(iter(config["models"])), unfold.GIVEN_BASE, task)
    return stage(task, part, **others)


def given_settings(model, run, task):
    """Where answers of a run that were given elsewhere are, and how their file is read."""
    section = GIVEN[model, run][task]
    return unfold.canonical(section | local_files(section))


def deciding_answers(wildcards):
    """The answers that decide which questions of a task are asked; nothing where the study decides it."""
    if not answered(wildcards.task, wildcards.part):
        return []
    return f"<results>/runs/{next(iter(config['models']))}/{unfold.GIVEN_BASE}/{wildcards.task}_given"


def part_rows(wildcards):
    """The rows of a part, and the list of few-shot examples, of which prompts show the first ones."""
    rows = {"rows": f"<results>/data/{wildcards.task}/{wildcards.part.partition('_')[0]}.jsonl"}
    has_shots = "shots" in kind_of(wildcards.task).PARTS
    return rows | ({"shots": f"<results>/data/{wildcards.task}/shots.jsonl"} if has_shots else {})


def template_of(task, part="test"):
    """The prompt template of a part of a task: the study's own, or the one that the task comes with."""
    section, shipped = config["tasks"][task], Path(workflow.basedir, "resources/prompts", kind_of(task).PROMPT)
    own = section.get("base_prompt") if part.startswith("test_") else None
    return Path(own or section["prompt"] or shipped)


# The key of a task that names the template of a part: of a base model asked in its own words, and of all others.
TEMPLATES = {"": "prompt", "test_shots": "base_prompt"}
try:
    WORDS = {
        (task, part): unfold.words_sha256(f"tasks.{task}.{key}", template_of(task, part))
        for task, section in config["tasks"].items()
        for part, key in TEMPLATES.items()
        if not part or section.get(key)
    }
except UserError as error:
    raise WorkflowError(str(error)) from None


def prompt_settings(wildcards):
    """What the prompts of a part depend on."""
    task, section = wildcards.task, config["tasks"][wildcards.task]
    part, shots, number = wildcards.part.partition("_shots")
    others = {"words": WORDS.get((task, f"{part}{shots}"), WORDS[task, ""])}
    if "shots" in kind_of(task).PARTS:
        others["shots"] = int(number) if number else unfold.shots_of(config, task)
    if task == REPLAY_TASK:
        others["max_length"] = config["training"]["max_length"]
    elif part == "test":
        others["max_new_tokens"] = section["max_new_tokens"]
    else:
        others |= pick("training.loss_on")
    return stage(task, "prompt", **others)


def audit_settings(wildcards):
    """What the proof of the rows that are trained on depends on."""
    task = wildcards.task
    if task == REPLAY_TASK:
        return stage(task, role="replay", **pick("training.max_length"))
    # Not the stage measure, which leads to no training.
    cluster = kind_of(task).measure(MEASURED[task]).cluster
    keys = ("training.loss_on", "training.max_length", "training.truncate", "accept_defect")
    shown = {key: config["tasks"][task][key] for key in ("shots_from", "marks") if key in config["tasks"][task]}
    return stage(task, role="target", cluster=cluster, shots=unfold.shots_of(config, task), **shown, **pick(*keys))


def audited(wildcards, path, part):
    """A file of the target that its proof needs besides; nothing of what is replayed."""
    needed = part in kind_of(wildcards.task).PARTS and (part != "validation" or EVALUATED)
    return path.format(task=wildcards.task) if wildcards.task == TARGET and needed else []


def to_repair(wildcards):
    """The answers of a first round whose SQL failed; nothing for a run that repairs none."""
    first = REPAIRED.get(wildcards.run)
    return f"<results>/runs/{wildcards.model}/{first}/{TARGET}_failed.jsonl" if first else []


def first_answers(wildcards):
    """All answers of a first round, of which a second one keeps those whose SQL ran; nothing for any other run."""
    first = REPAIRED.get(wildcards.run)
    return answers_of(TARGET, wildcards.model, first) if first else []


def prompts_of(task, model, run):
    """The prompts of a task that a run answers."""
    if run in REPAIRED:
        return f"<results>/prompts/{model}/{task}_{run}.jsonl"
    part = OWN_PROMPTS[task].get(run, "test")
    return f"<results>/prompts/{model}/{task}_{part}.jsonl"


def asked_prompts(wildcards):
    """The prompts that a job answers."""
    return prompts_of(wildcards.task, wildcards.model, wildcards.run)


def scored_answers(wildcards):
    """The answers of a run to a task; to the yardsticks some have those of the base."""
    return answers_of(wildcards.task, wildcards.model, wildcards.run)


def answers_of(task, model, run):
    """The answers to a task that the records of a run are about."""
    return f"<results>/runs/{model}/{answered_by(task, run)}/{task}_answers.jsonl"


def report_of_answers(wildcards):
    """What was written of these answers when they were given."""
    return scored_answers(wildcards).replace("_answers.jsonl", "_predict.json")


def replayed(name):
    """A function that gives a model's file about the rows to replay; nothing for an adapter that replays none."""

    def of(wildcards):
        replays = "replay" in training_settings(wildcards)
        return f"<results>/prompts/{wildcards.model}/{REPLAY_TASK}_{name}" if replays else []

    return of


def training_settings(wildcards):
    """All settings of an adapter's training."""
    return unfold.training(config, wildcards.model, VALUES[wildcards.run])


def chosen_settings(wildcards):
    """How some of the training rows are chosen."""
    rows = CHOICES[wildcards.choice]
    columns = {"column": BALANCES.get(rows["balance"], rows["balance"])} if "balance" in rows else {}
    return unfold.canonical(rows | columns | {"name": f"tasks.{TARGET}", "label": wildcards.choice})


def chosen_rows(wildcards):
    """Which rows an adapter is trained on; nothing for one that is trained on all."""
    rows = training_settings(wildcards)["training"].get("rows")
    return f"<results>/data/{TARGET}/rows_{rows_label(rows)}.json" if rows else []


def validation_rows(wildcards):
    """The rows that an adapter's training is evaluated on; nothing for one that is not."""
    evaluated = training_settings(wildcards)["training"]["eval_strategy"] != "no"
    return f"<results>/prompts/{wildcards.model}/{TARGET}_validation.jsonl" if evaluated else []


def local_adapter(wildcards):
    """The files of a ready-made adapter that lies in a folder, as far as they are there; none of one on the hub."""
    files = [Path(config["adapters"][wildcards.run]["source"], name) for name in ADAPTER_FILES]
    return [str(file) for file in files if file.is_file()]


def soup_files(wildcards):
    """The adapters that a soup is made of."""
    return [file for name in SOUPS[wildcards.run] for file in adapter_files_of(name, wildcards.model)]


def loaded(wildcards):
    """How a run's model and adapter are loaded: the precision and, of an interpolation, the strength."""
    point = POINTS.get(wildcards.run, {})
    strength = {"strength": point["strength"]} if "strength" in point else {}
    proof = {"prove": True} if wildcards.run in READY_MADE else {}
    alone = LABELS[wildcards.run] not in ADAPTED
    return unfold.loading(config["models"][wildcards.model], alone) | strength | proof


# What differs where a run is repeated.
REPEATED = {
    "batches": {"other_batches": True},
    "merged": {"merge_adapters": True},
    "beside": {"merge_adapters": False},
}


def decoding(wildcards):
    """How a run answers the prompts of a task."""
    keys = keys_of("inference", "batch_size", "merge_adapters", "do_sample", "temperature", "top_p", "seed")
    generation = unfold.generation(config["inference"])
    further = {"generation": generation} if generation else {}
    further |= {"seed": SEEDS.get(wildcards.run, unfold.sampling_seeds(config)[0])}
    further |= REPEATED[REPEATS[wildcards.run]["how"]] if wildcards.run in REPEATS else {}
    return pick(*keys, f"tasks.{wildcards.task}.max_new_tokens", **further, **loaded(wildcards))


def harness_settings(wildcards):
    """How lm-evaluation-harness measures a run."""
    return pick(
        *keys_of("evaluation.harness", "tasks", "num_fewshot", "limit", "include_path"),
        *keys_of("inference", "batch_size", "merge_adapters"),
        **loaded(wildcards),
    )


# Of each log, after which attempts it told of too little memory. This process sees one attempt after the other.
KILLED = {}


def more_memory(log):
    """The main memory of a GPU job with this log, in MB: twice as much after each attempt that it did not suffice for."""

    def of(wildcards, attempt):
        path = f"results/{STUDY}/logs/{log}".format(model=wildcards.model, run=wildcards.run)
        kills = sum(KILLED.setdefault((path, earlier), ended(path) == "killed") for earlier in range(1, attempt))
        return 32000 * min(2**kills, 4)

    return of
