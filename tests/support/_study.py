"""Records of made-up studies, for the tests of tables, figures and report."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

from custom_metrics.compare import SEMANTICS
from present import catalogue
from present.values import read_table
from tables import tables
from tasks.records import MMLU_COLUMNS, SPIDER_COLUMNS, write_records
from tasks.registry import measured
from tasks.text_to_sql import CERTIFIED

# The tasks of a study, as its rules give them to a step, and what is to be known of them.
TASKS = {
    "spider": {"kind": "spider", "role": "target", "criterion": "bag"},
    "mmlu": {"kind": "mmlu", "role": "yardstick"},
}
MEASURES = measured(TASKS)
# What such a study has, for the catalogue, and what the rule `tables` writes of it.
WITHOUT = ("recommend", "harness", "published", "seeds", "strength", "step", "shots", "ways", "noise", "repair")
HAS = dict.fromkeys(WITHOUT, False)
HAS |= {"trained": True, "tasks": {task: measure.form for task, measure in MEASURES.items()}, "sql": True}
TABLES = catalogue.names(catalogue.TABLES, HAS, "tables")
HARDNESS = ("easy", "medium", "hard", "extra")
EIGHT = tuple("abcdefgh")
CATEGORIES = ("stem", "humanities", "social_sciences")


def spider_records(path: Path, right: list[int], databases=("zoo",), **changes) -> Path:
    """Write one record for each 0/1 of `right`, the databases in turn."""
    rows = [
        {
            "id": f"dev-{i:05d}",
            "db_id": databases[i % len(databases)],
            "hardness": HARDNESS[i % 4],
            "question": f"How many in {i}?",
            "gold": f"SELECT {i}",
            "answer": f"SELECT {i if correct else -1}",
            "sql": f"SELECT {i if correct else -1}",
            "error_class": "ok" if correct else "wrong_rows",
            "gold_rows": i % 5,
            "predicted_rows": 1,
            "flags": "" if i % 5 else "gold_empty",
            "message": "" if correct else "1 rows, gold has 1",
        }
        | dict.fromkeys((*SEMANTICS, *(f"{name}_raw" for name in SEMANTICS)), correct)
        | changes
        for i, correct in enumerate(right)
    ]
    write_records(path, SPIDER_COLUMNS, rows)
    return path


def mmlu_records(path: Path, right: list[int], categories=CATEGORIES, subjects=("s",)) -> Path:
    """Write one record for each 0/1 of `right`, the categories in blocks of equal size, the subjects in turn."""
    rows = [
        {
            "id": f"{categories[i * len(categories) // len(right)]}-{i:05d}",
            "subject": subjects[i % len(subjects)],
            "category": categories[i * len(categories) // len(right)],
            "answer": "A",
            "prediction": "A" if correct else "B",
            "correct": correct,
            "generated": "A" if correct else "hm",
            "generated_letter": "A" if correct else "",
            "correct_generated": correct,
        }
        | dict.fromkeys(("logprob_A", "logprob_B", "logprob_C", "logprob_D"), -1.5)
        for i, correct in enumerate(right)
    ]
    write_records(path, MMLU_COLUMNS, rows)
    return path


def certificates(path: Path, records: Path, **changes: list) -> Path:
    """Write the certificates of the questions of some records, all sound but for `changes`, a value a question."""
    with records.open(encoding="utf-8", newline="") as stream:
        ids = [row["id"] for row in csv.DictReader(stream)]
    sound = dict.fromkeys(SEMANTICS, 1) | {"error_class": "ok", "gold_rows": 1, "open": ""}
    rows = [{"id": one, **sound, **{key: of[n] for key, of in changes.items()}} for n, one in enumerate(ids)]
    write_records(path, CERTIFIED, rows)
    return path


def draw(n: int, share: float, seed: int) -> list[int]:
    """Draw n of 0/1 with about `share` ones."""
    generator = random.Random(seed)
    return [int(generator.random() < share) for _ in range(n)]


def settings_of(seed=None, **values):
    """Return the settings of one run, by their places in the configuration."""
    places = {"lr": "training.learning_rate", "r": "lora.r"}
    return {places[name]: value for name, value in values.items()} | ({"training.seed": seed} if seed else {})


def sweep(folder: Path, answers: Sequence[tuple], made=(), change=None, **others) -> dict:
    """Write a study on eight databases and eight subjects, and its tables; return these as frames.

    Args:
        answers: of each run its settings, what `runs` holds besides (a name, or what a point is), and the 0/1 of its
            answers to Spider and MMLU; the base first.
        made: the places of ready-made adapters.
        change: called with the path of each run's MMLU records and the place of the run, to change them.
    """
    folder.mkdir(exist_ok=True)
    runs, spider, mmlu = [], [], []
    for number, (settings, *more, on_spider, on_mmlu) in enumerate(answers):
        name, setting = (
            "-".join(f"{place.rsplit('.', 1)[1]}{value}" for place, value in settings.items() if place not in without)
            for without in ((), ("training.seed",))
        )
        run = {"model": "m", "variant": name or "adapter", "setting": setting or "adapter", "settings": settings}
        run |= {} if number else {"variant": "base", "setting": "base"}
        run |= {"variant": "public", "setting": "public", "ready_made": True} if number in made else {}
        runs.append(run | dict(*more))
        spider.append(spider_records(folder / f"{number}-spider.csv", on_spider, databases=EIGHT))
        mmlu.append(mmlu_records(folder / f"{number}-mmlu.csv", on_mmlu, subjects=EIGHT))
        if change:
            change(mmlu[-1], number)
    arguments = {"spider": spider, "mmlu": mmlu, "study": "test", "runs": runs}
    arguments |= {"confidence_level": 0.95, "margin_pp": 3.0} | others
    paths = table_paths(folder, names := tables_of(runs))
    write_tables(outputs=paths, **arguments)
    return {name: read_table(paths[name]) for name in names}


def with_shots(arguments: dict, folder: Path, rights: dict[int, list[int]], own: int = 3) -> dict:
    """Add to what `study` returned each base with other numbers of examples: of each number the 0/1 of its answers."""
    for number, run in list(enumerate(arguments["runs"])):
        if run["variant"] == "base":
            run["shots"] = own
            for shots, right in rights.items():
                point = {"of": ["base"], "shots": shots}
                name = f"base@shots{shots}"
                added = {"model": run["model"], "variant": name, "setting": name, "settings": {}, "point": point}
                arguments["runs"].append(added)
                arguments["spider"].append(spider_records(folder / f"{run['model']}-{name}.csv", right))
                arguments["mmlu"].append(arguments["mmlu"][number])
    return arguments


def study(folder: Path, adapters: int, models: tuple[str, ...] = ("demo",), n: int = 200) -> dict:
    """Write the records of a study; return their paths and the settings, for `write_tables` and `as_inputs`."""
    folder.mkdir(parents=True, exist_ok=True)
    runs, spider, mmlu = [], [], []
    for m, model in enumerate(models):
        for a in range(adapters + 1):
            rate = f"{0.00005 * (a + 1):.5f}".rstrip("0")
            name = f"lr{rate}-r8-seed42" if a else "base"
            run = {"model": model, "variant": name, "setting": name, "settings": {}}
            if a:
                run["settings"] = {"learning_rate": float(rate), "r": 8, "seed": 42}
            runs.append(run)
            name = f"{model}-{a}"
            gain = 0.35 + 0.25 * a / (adapters + 1) + 0.1 * m if a else 0.3 + 0.1 * m
            loss = 0.7 - 0.3 * a / (adapters + 1)
            spider.append(spider_records(folder / f"{name}-spider.csv", draw(n, gain, 10 * m + a)))
            mmlu.append(mmlu_records(folder / f"{name}-mmlu.csv", draw(150, loss, 100 + 10 * m + a)))
    return {"spider": spider, "mmlu": mmlu, "study": "test", "runs": runs, "confidence_level": 0.95, "margin_pp": 3.0}


def as_inputs(arguments: dict) -> tuple[dict[str, list[Path]], dict]:
    """Return what `study` returned as a step takes it: records by task, and settings; `criterion` is the target's."""
    settings = {"tasks": TASKS, "known_defects": [], "accept_defect": [], "language": "en"} | arguments
    if criterion := settings.pop("criterion", None):
        settings["tasks"] = TASKS | {"spider": TASKS["spider"] | {"criterion": criterion}}
    return {task: settings.pop(task) for task in settings["tasks"]}, settings


def write_tables(outputs: dict[str, Path], **arguments) -> None:
    """Write the tables of what `study` returned."""
    records, settings = as_inputs(arguments)
    tables(records, outputs, settings)


def tables_of(runs: Sequence[dict]) -> list[str]:
    """The names of the tables of a study with these runs."""
    ways = any({"strength", "step"} & {*run.get("point", ())} for run in runs)
    return catalogue.names(catalogue.TABLES, HAS | {"ways": ways}, "tables")


def table_paths(folder: Path, tables: Sequence[str] = TABLES) -> dict[str, Path]:
    """Return the paths that `tables` writes."""
    return {n: folder / f"{n}.csv" for n in tables} | {f"{n}_md": folder / f"{n}.md" for n in tables}
