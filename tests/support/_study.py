"""Records of made-up studies, for the tests of tables, figures and report."""

import random
from collections.abc import Sequence
from pathlib import Path

from custom_metrics.compare import SEMANTICS
from present import catalogue
from tables import tables
from tasks.records import MMLU_COLUMNS, SPIDER_COLUMNS, write_records
from tasks.registry import measured

# The tasks of a study, as its rules give them to a step, and what is to be known of them.
TASKS = {
    "spider": {"kind": "spider", "role": "target", "criterion": "bag"},
    "mmlu": {"kind": "mmlu", "role": "yardstick"},
}
MEASURES = measured(TASKS)
# What such a study has, for the catalogue, and what the rule `tables` writes of it.
HAS = dict.fromkeys(("recommend", "harness", "published", "seeds", "strength", "step", "shots"), False)
HAS |= {"tasks": {task: measure.form for task, measure in MEASURES.items()}, "sql": True}
TABLES = catalogue.names(catalogue.TABLES, HAS, "tables")
HARDNESS = ("easy", "medium", "hard", "extra")
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


def draw(n: int, share: float, seed: int) -> list[int]:
    """Draw n of 0/1 with about `share` ones."""
    generator = random.Random(seed)
    return [int(generator.random() < share) for _ in range(n)]


def with_shots(arguments: dict, folder: Path, rights: dict[int, list[int]], own: int = 3) -> dict:
    """Add to what `study` returned each base with other numbers of examples: of each number the 0/1 of its answers."""
    for number, run in list(enumerate(arguments["runs"])):
        if run["variant"] == "base":
            run["shots"] = own
            for shots, right in rights.items():
                point = {"of": ["base"], "shots": shots}
                name = f"base@shots{shots}"
                arguments["runs"].append({"model": run["model"], "variant": name, "settings": {}, "point": point})
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
            run = {"model": model, "variant": f"lr{rate}-r8-seed42" if a else "base", "settings": {}}
            if a:
                run["settings"] = {"learning_rate": float(rate), "r": 8, "seed": 42}
            runs.append(run)
            name = f"{model}-{a}"
            gain = 0.35 + 0.25 * a / (adapters + 1) + 0.1 * m if a else 0.3 + 0.1 * m
            loss = 0.7 - 0.3 * a / (adapters + 1)
            spider.append(spider_records(folder / f"{name}-spider.csv", draw(n, gain, 10 * m + a)))
            mmlu.append(mmlu_records(folder / f"{name}-mmlu.csv", draw(150, loss, 100 + 10 * m + a)))
    return {"spider": spider, "mmlu": mmlu, "study": "test", "runs": runs, "confidence_level": 0.95}


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


def table_paths(folder: Path, tables: Sequence[str] = TABLES) -> dict[str, Path]:
    """Return the paths that `tables` writes."""
    return {n: folder / f"{n}.csv" for n in tables} | {f"{n}_md": folder / f"{n}.md" for n in tables}
