"""What a study will be able to find; and its margin and settings written down before it is run.

    python scripts/preregister.py [--configfile studies/<name>.yaml] [--config protocol=as_reported] [--like results/x]

Of each task it prints the minimum detectable effect of a setting: the least true difference that the test which decides
finds with 80% probability, adjusted for all comparisons of settings and tasks. It is also the least margin that can be
certified with 80% probability where nothing is lost. Beside it stands what one more training seed, and all questions of
MMLU, would give. Answers vary as in an earlier study (--like, or this one's own results), or else as the published
answers of real models do; which, and of how many questions, is said. So it is an expectation, not a promise.

Then margin, settings, seeds, tasks and models go into results/<study>/preregistered/<hash>.json with today's date. The
report cites the file whose hash is that of the study as it is then. A file that is there is never changed.
"""

import argparse
import datetime
import sys
from pathlib import Path

import pandas as pd

# `custom_metrics` stands beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.prospect import PUBLISHED, Prospect, expected, of_results
from common.access import check_folder
from common.files import UserError, write_json
from study import unfold
from study.local_rows import local_rows
from study.read import as_for_snakemake
from tasks.mmlu import grouped
from tasks.questions import number_of
from tasks.registry import KINDS

# Of Spider's dev split, and of all of MMLU.
DATABASES, SUBJECTS, QUESTIONS = 20, 57, 14_042


def clusters_of(config: dict, task: str, cluster: str, data: Path) -> list | None:
    """The database or subject of each question; None if nothing is known of them before the data are fetched."""
    section = config["tasks"][task]
    if (data / "test.jsonl").exists() or Path(section["source"]).exists():
        with local_rows(config, task, data) as found:
            if found is not None:
                return [row[cluster] for row in found[1]("test")]
    if section["kind"] == "mmlu":
        categories, each = grouped(section["categories"]), section["questions_per_category"]
        if isinstance(named := section["questions"], list):
            return [name.rpartition("-")[0] for name in named]
        if named is not None or each is None:
            of_subject = named["n"] if named is not None else QUESTIONS // SUBJECTS
            return [subject for subjects in categories.values() for subject in subjects for _ in range(of_subject)]
        # The questions of a category are drawn from all its subjects.
        return [subjects[number % len(subjects)] for subjects in categories.values() for number in range(each)]
    if section["kind"] == "spider":
        number = number_of(section["questions"]) or section["counts"]["dev"]
        return [question * DATABASES // number for question in range(number)]
    return None


def prospects(config: dict, results: Path, like: Path | None) -> tuple[dict[str, Prospect], list[str]]:
    """The tasks of a study with their questions and variances; and those of which nothing is known yet."""
    tasks = unfold.asked_tasks(config)
    settings = len(unfold.compared(config))
    trained = len(unfold.adapters(config)) + len(unfold.imported(config))
    seeds = trained // max(1, settings - len(unfold.ready_made(config)))
    own = results / "tables/settings.csv"
    earlier = of_results(like / "tables/settings.csv") if like else of_results(own) if own.exists() else {}
    found, unknown = {}, []
    for task in tasks:
        measure = KINDS[config["tasks"][task]["kind"]].measure(unfold.stage(config, task, "measure"))
        if (clusters := clusters_of(config, task, measure.cluster, results / "data" / task)) is None:
            unknown.append(task)
            continue
        variances = earlier.get(task, PUBLISHED["sql" if measure.form == "sql" else "other"])
        alpha = 1 - config["tables"]["confidence_level"]
        found[task] = Prospect(clusters, variances, settings, max(1, seeds), max(1, settings * len(tasks)), alpha)
    return found, unknown


def register(config: dict, folder: Path, rows: list[dict]) -> tuple[Path, bool]:
    """Write the file, if it is not there; return it, and whether it was written."""
    known = unfold.registered(config)
    path = folder / f"{unfold.registration(config)}.json"
    if not path.exists():
        write_json(path, known | {"registered": datetime.date.today().isoformat(), "expected": rows})
        return path, True
    return path, False


def main(arguments: list[str] | None = None) -> int:
    """Print what will be found, and write it down; return 1 if the study is none, and say why on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=Path("config.yaml"), help="the study")
    parser.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="as for snakemake")
    help_like = "the folder of results of an earlier study, whose answers vary as these will"
    parser.add_argument("--like", type=Path, metavar="RESULTS", help=help_like)
    given = parser.parse_args(arguments)
    try:
        check_folder(Path.cwd())
        config = as_for_snakemake(given.configfile, given.config)
        results = Path("results") / unfold.label(config)
        found, unknown = prospects(config, results, given.like)
        if not unfold.compared(config):
            print("This study has no settings: nothing is compared with the base model.")
            return 0
        margin = config["tables"]["margin_pp"]
        whole = {task for task in found if config["tasks"][task]["kind"] == "mmlu"}
        # Of the study's own subjects, or all 57: the same variances, more questions.
        more = {task: [number % SUBJECTS for number in range(QUESTIONS)] for task in whole}
        rows = expected(found, more, margin)
        path, written = register(config, results / "preregistered", rows)
    except (UserError, OSError, ValueError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    columns = {"task": "Task", "questions": "n", "clusters": "Clusters", "seeds": "Seeds"}
    columns |= {"detectable_pp": "Least effect found pp", "power": f"Power for a margin of {margin:g} pp"}
    columns |= {"one_more_seed_pp": "With one more seed pp", "all_questions_pp": "With all of MMLU pp"}
    frame = pd.DataFrame(rows).rename(columns=columns)[[*columns.values()]]
    print("What a setting's difference to the base must truly be to be found with 80% probability:\n")
    print(frame.astype(object).where(frame.notna(), None).to_markdown(index=False, floatfmt=".2f", missingval=""))
    for source in dict.fromkeys(row["variances"] for row in rows):
        print(f"\nAnswers vary as in: {source}.")
    if any(one.seeds == 1 for one in found.values()):
        print("With one seed, all is about these training runs: what another seed would change is left out.")
    if unknown:
        print(f"Not in the table: {', '.join(unknown)}. Fetch the data first: snakemake --cores all --until prepare_*")
    print(f"\n{'Written down' if written else 'Already written down'}: margin, settings and tasks, in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
