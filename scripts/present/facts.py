"""What the templates of the report may say: plain values, from the tables, records and manifests of a study. No prose.

Rows are dicts with the columns of their table, the `name` of their run and its `rank`: the adapters are numbered from 0
by falling accuracy on the target, and where the pages are few, rows of the last ranks are left out. Every sentence
about a result follows from a verdict or a number of the tables. None says why a model changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from present.catalogue import (
    RUN,
    SHARE,
    Block,
    class_columns,
    criterion_columns,
    crossed,
    scored,
    shares,
    uneven,
)
from present.failures import aligned, choose_failures
from present.format import VERDICTS, Say, missing
from present.values import ALL, BASE, GAINS_LESS, RECOMMENDED, setting_name

MITIGATIONS = ("replay.fraction", "replay.kl", "training.weight_decay")
DIGITS = 16
WEIGHTS = "adapter_model.safetensors"
# Parts of the questions that have a column each; with more, the table shows the whole alone.
MOST_PARTS = 4
# Rows on the tasks of lm-evaluation-harness: a yardstick of its own, whose table is a file beside the report.
MOST_TASKS = 6

Run = tuple[str, str]
Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What a report is made of, as read from a study's results.

    Attributes:
        settings: `study` (its name with protocol and scale), `face`, `scale`, `known_defects`, `accept_defect`, and
            `own_prompts`: the variants whose prompts of the target are not those of the adapters.
        tasks: of each task what `tasks.base.Measure` says (`name`, `form`, `role`, `chance`, `cluster`, `strata`,
            `criterion`) and its `kind`; the target first.
        tables: those of `tables` and `cost` by name, about base models and trained adapters alone, that of each task
            by the task's; `points` and `prompted`, the rows of the regression table on what `evaluation` adds;
            `recommendation` and `harness` if the study has them. Text is text, numbers are numbers, an empty cell NaN.
        shots: how many examples the base model's prompts have, where it is evaluated with other numbers too.
        figures: the SVG of each figure by name, as seen from the report.
        records: of the target the records of each run, in the order of the tables.
        data: of each task its manifests: `source` and those of its parts; with replay also those of `replay`.
        models: records of `fetch_model`.
        audits: reports of `audit_labels` by model.
        prompts: of each task the report of a model's prompts, with `model` and `file`.
        train, answers: reports of `train` of each adapter, and of `predict` by model, variant and task.
    """

    settings: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    tables: Mapping[str, pd.DataFrame]
    shots: int | None
    figures: Mapping[str, str]
    records: Mapping[Run, pd.DataFrame]
    data: Mapping[str, Mapping[str, Mapping]]
    models: Sequence[Mapping]
    audits: Mapping[str, Mapping]
    prompts: Mapping[str, Mapping]
    train: Mapping[Run, Mapping]
    answers: Mapping[tuple[str, str, str], Mapping]


def facts(results: Results, say: Say) -> dict[str, Any]:
    """Compute what the report's template may say."""
    return _Facts(results, say).all()


class _Facts:
    """The runs with their names and ranks, while the chapters are made."""

    def __init__(self, results: Results, say: Say):
        self.results, self.tables, self.say, self.words = results, results.tables, say, say.words["report"]
        self.target, *self.yardsticks = results.tasks
        whole = self.whole(self.target)
        runs = list(zip(whole["model"], whole["variant"], strict=True))
        self.several = whole["model"].nunique() > 1
        self.adapters = [run for run in runs if run[1] != BASE]
        right = dict(zip(runs, whole["correct"], strict=True))
        self.rank = {run: rank for rank, run in enumerate(sorted(self.adapters, key=lambda run: -right[run]))}
        accuracies = [self.rows(self.whole(task).assign(task=task)) for task in results.tasks]
        self.accuracy = {run: rows for run, *rows in zip(runs, *accuracies, strict=True)}
        regression = self.tables["regression"]
        headline = regression["category"] == ALL
        self.headline, self.parts = self.rows(regression[headline]), self.rows(regression[~headline])
        found = {(row["model"], row["variant"], row["task"]): row for row in self.headline}
        self.compared = {run: [found[*run, task] for task in results.tasks] for run in self.rank}

    def whole(self, task: str) -> pd.DataFrame:
        """The rows of a task's table about all its questions."""
        frame = self.tables[task]
        return frame[frame["questions" if "questions" in frame else "category"] == ALL]

    def name(self, run: Run) -> str:
        """A run's name, with its model where there are several."""
        return " ".join(run) if self.several else run[1]

    def measured(self, task: str) -> str:
        """What is measured on a task, as a sentence says it."""
        return self.words["forms"][self.results.tasks[task]["form"]].format(name=self.results.tasks[task]["name"])

    def rows(self, frame: pd.DataFrame) -> list[Row]:
        """A table's rows with the names and ranks of their runs, what they measure, and the keys of their verdicts."""
        found = frame.to_dict("records")
        for row in found:
            run = row["model"], row["variant"]
            row |= {"name": self.name(run), "rank": self.rank.get(run), "finding": VERDICTS.get(row.get("verdict"))}
            if row.get("task") in self.results.tasks:
                row["measured"] = self.measured(row["task"])
        return found

    def numbered(self, frame: pd.DataFrame) -> list[Row]:
        """Rows ranked in the order of the table."""
        return [row | {"rank": rank} for rank, row in enumerate(self.rows(frame))]

    def wide(self, block: Block, frame: pd.DataFrame) -> dict[str, Any]:
        """The rows of a block that has a row for each run, and its columns beside model and run."""
        return {"rows": self.rows(block.rows(frame)), "columns": block.columns[len(RUN) :]}

    def all(self) -> dict[str, Any]:
        results, tasks = self.results, [self.task(key) for key in self.results.tasks]
        level = float(self.tables[self.target]["confidence_level"].iloc[0])
        forms: dict[str, list[str]] = {}
        for task in tasks:
            forms.setdefault(task["form"], []).append(task["name"])
        return {
            "percent": self.say.level(level),
            "alpha": self.say.score(1 - level),
            "settings": results.settings,
            "drawn": results.figures,
            "digits": DIGITS,
            "tasks": tasks,
            "target": tasks[0],
            "yardsticks": tasks[1:],
            "forms": forms,
            "knowledge": any(task["kind"] == "mmlu" for task in tasks),
            "by_chance": [task for task in tasks if task["chance"]],
            "splits": self.splits(),
            "replay": results.data.get("replay"),
            "bases": [rows for (_, variant), rows in self.accuracy.items() if variant == BASE],
            "adapters": len(self.adapters),
            "models": self.models(),
            "training": self.training(),
            "pairs": list(self.compared.values()),
            "headline": self.headline,
            "parts": self.parts,
            "exchange": self.rows(self.tables["exchange"]),
            "harness": self.harness() if "harness" in self.tables else None,
            "seeds": self.numbered(self.tables["seeds"].rename(columns={"setting": "variant"})),
            "points": self.numbered(self.tables["points"]),
            "shots": self.shots(),
            "recommendation": self.recommendation() if "recommendation" in self.tables else None,
            "cost": self.cost(),
            "failures": [self.failures(run) for run in self.rank or self.accuracy] if results.records else [],
            "worth": self.worth(),
            "factors": self.factors(),
            "detectable": {
                "headline": extremes(row["minimum_detectable_pp"] for row in self.headline if row["finding"] == "same"),
                "parts": extremes(row["minimum_detectable_pp"] for row in self.parts),
            },
            "sampled": any(report["settings"].get("do_sample") for report in results.answers.values()),
            "reproducibility": self.reproducibility(),
            "hashes": self.hashes(),
        }

    # -- methodology -----------------------------------------------------------------------------------------------

    def task(self, key: str) -> dict[str, Any]:
        """A task: what it is, its data and prompts, and the accuracy of all runs on it."""
        use, data, frame, words = self.results.tasks[key], self.results.data[key], self.tables[key], self.words
        prompt = self.results.prompts.get(key, {})
        settings = {key: value for one in (*data.values(), prompt) for key, value in one.get("settings", {}).items()}
        compared = [row for row in self.headline if row["task"] == key]
        stratum, levels = self.levels(key)
        first = frame.iloc[0]
        found = {
            **use,
            "key": key,
            "measured": self.measured(key),
            "heading": words["headings"][use["form"]].format(name=use["name"]),
            "subject": words["subjects"][use["form"]].format(name=use["name"]),
            "n": int(first["n"]),
            "sha256": first["data_sha256"],
            "file": f"tables/{key}.csv",
            "source": data["source"],
            "settings": settings,
            "seed": settings.get("seed"),
            "validated": settings.get("validation", {}).get("by"),
            "examples": prompt.get("shots", ()),
            "prompt": prompt if prompt.get("first_prompt") else None,
            "compared": compared,
            "unit": compared[0]["unit"] if compared else None,
            "clusters": compared[0]["clusters"] if compared else None,
            "cluster": self.say.cluster(key),
            "stratum": words["strata"].get(stratum, stratum),
            "levels": levels,
            "databases": None,
            "groups": (),
            "rows": [rows[list(self.results.tasks).index(key)] for rows in self.accuracy.values()],
        }
        return found | (self.sql(key, levels) if use["form"] == "sql" else self.letters(key, found["rows"]))

    def levels(self, key: str) -> tuple[str, list[str]]:
        """The first column that divides a task's questions, and its values: those that are given, or in order."""
        stratum, given = next(iter(self.results.tasks[key]["strata"].items()), ("", ()))
        if isinstance(given, str) or given is None:
            frame = self.tables[key]
            column = frame["questions" if "questions" in frame else "category"]
            given = [name for name in dict.fromkeys(column) if name != ALL and not name.startswith("gold_")]
        return stratum, list(given)

    def sql(self, key: str, levels: Sequence[str]) -> dict[str, Any]:
        """Of a task whose queries are executed: accuracy by criterion and by level, and what became of the queries."""
        frame, parts = self.tables[key], self.say.words["parts"]
        shown = shares(frame, "questions", {name: parts.get(name, name) for name in levels}, self.say, "interval")
        strata = self.wide(crossed(frame, RUN, "questions", SHARE, shown), frame)
        criterion = self.say.words["criteria"][self.results.tasks[key]["criterion"]]
        databases = None
        if key == self.target:
            records = next(iter(self.results.records.values()))
            databases = records[self.results.tasks[key]["cluster"]].nunique()
        return {
            "columns": criterion_columns(self.say),
            "strata": strata,
            "errors": self.errors(key),
            "criterion": {**criterion, "lower": criterion["name"].lower()},
            "databases": databases,
        }

    def letters(self, key: str, rows: Sequence[Row]) -> dict[str, Any]:
        """Of a task whose answers are compared: accuracy by category; by letter and by generation, if it has both."""
        frame, whole = self.tables[key], self.whole(key)
        sizes = frame[frame["category"] != ALL].drop_duplicates("category")
        names = list(sizes["category"])
        names = names if 1 < len(names) <= MOST_PARTS else []
        categories = shares(frame, "category", {name: name for name in names}, self.say, "interval")
        wide = self.wide(crossed(frame, RUN, "category", SHARE, categories), frame)
        found: dict[str, Any] = {
            "columns": wide["columns"],
            "rows": [row | parts for row, parts in zip(rows, wide["rows"], strict=True)],
            "groups": list(zip(sizes["category"], sizes["n"], strict=True)),
            "uneven": "macro_accuracy_pct" in whole and uneven(whole),
        }
        if self.results.tasks[key]["form"] == "choice":
            found["gap"] = (whole["accuracy_pct"] - whole["accuracy_generated_pct"]).abs().max()
            found["invalid"] = whole["invalid_pct"].max()
        return found

    def splits(self) -> list[Row]:
        """The parts of the target's data, by name."""
        (stratum, levels), rows = self.levels(self.target), []
        for name, part in sorted(self.results.data[self.target].items()):
            if name != "source":
                by = part.get(f"by_{stratum}", {})
                row = {"part": name, "rows": part["rows"], "databases": len(part.get("by_database", ()))}
                row |= {"by": " / ".join(str(by.get(level, 0)) for level in levels) if by else ""}
                rows.append(row | {"sha256": part["sha256"][:DIGITS]})
        return rows

    def models(self) -> list[Row]:
        rows = []
        for model in self.results.models:
            reports = [report for (name, *_), report in self.results.answers.items() if name == model["name"]]
            used = [(one["settings"]["precision"], str(one["batch_size_used"]), one["device"]) for one in reports]
            precisions, batches, devices = (sorted(set(values)) for values in zip(*used, strict=True))
            commit = model["commit"][:DIGITS] if model["commit"] else self.words["local_folder"]
            row = {**model, "commit": commit, "sha256": model["sha256"][:DIGITS], "precision": ", ".join(precisions)}
            rows.append(row | {"batch": ", ".join(batches), "device": "; ".join(devices)})
        return rows

    def training(self) -> dict[str, Any]:
        """The settings of all adapters, each with the values that it has, and what came of them."""
        train, values = self.results.train, {}
        settings = [flat(report["settings"]) for report in train.values()]
        for name in dict.fromkeys(name for one in settings for name in one):
            found = [one.get(name, "0.0" if name == "replay.fraction" else None) for one in settings]
            values[setting_name(name)] = "; ".join(dict.fromkeys(value for value in found if value is not None))
        rows = [
            {**report, "name": self.name(run), "rank": self.rank.get(run), "digits": 3}
            | {"trainable": self.say.counts(report["trainable_parameters"], report["all_parameters"])}
            | {"loss": report["history"][-1]["loss"] if report["history"] else None}
            for run, report in train.items()
        ]
        return {
            "settings": [{"parameter": name, "value": value} for name, value in values.items()],
            "seed": values.get("seed"),
            "rows": rows,
            "audits": self.results.audits,
            "replaying": sum("replay" in report for report in train.values()),
        }

    # -- results ---------------------------------------------------------------------------------------------------

    def errors(self, key: str) -> dict[str, Any]:
        """How often each class occurs in each run, and the commonest class of its wrong answers."""
        frame = self.tables["errors"]
        frame = frame[frame["task"] == key]
        occur = class_columns(set(frame.loc[frame["n"] > 0, "error_class"]))
        # Without underscores, so that headings can be broken into lines.
        shown = {name: replace(one, fill={"name": name.replace("_", " ")}) for name, one in occur.items()}
        wrong = frame[frame["error_class"].ne("ok") & frame["n"].gt(0)]
        commonest = wrong.loc[wrong.groupby(["model", "variant"], sort=False)["n"].idxmax()]
        return {"commonest": self.rows(commonest), **self.wide(crossed(frame, RUN, "error_class", ["n"], shown), frame)}

    def harness(self) -> dict[str, Any]:
        """The base on the tasks of lm-evaluation-harness, and the comparisons with it, the least p first."""
        frame = scored(self.tables["harness"].sort_values("p_holm", kind="stable"))
        base = frame[frame["variant"] == BASE]
        key = ["model", "task", "metric", "filter"]
        compared = frame[frame["p"].notna()].merge(base[[*key, "score"]], on=key, suffixes=("", "_base"))
        percent = {"base_accuracy_pct": 100 * compared["score_base"], "tuned_accuracy_pct": 100 * compared["score"]}
        rows = self.numbered(compared.assign(**percent))
        return {"version": frame["lm_eval"].iloc[0], "base": self.rows(base), "rows": rows, "most": MOST_TASKS}

    def shots(self) -> dict[str, Any]:
        """The base with other few-shot examples: of each model the best number, of equals the fewest."""
        rows, own, best = self.numbered(self.tables["prompted"]), self.results.shots, []
        for model in list(dict.fromkeys(row["model"] for row in rows))[:3]:
            tried = {own: self.accuracy[model, BASE][0]["accuracy_pct"]}
            tried |= {int(row["shots"]): row["tuned_accuracy_pct"] for row in rows if row["model"] == model}
            shots = min(tried, key=lambda number: (-tried[number], number))
            adapter = next((self.accuracy[run][0] for run in self.rank if run[0] == model), None)
            best.append({"model": model, "shots": shots, "accuracy_pct": tried[shots], "adapter": adapter})
        return {"rows": rows, "own": own, "best": best}

    def recommendation(self) -> dict[str, Any]:
        """Of each model what is recommended, by which half, and what the other half says of it."""
        rows, models = self.rows(self.tables["recommendation"]), []
        for model in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if row["model"] == model]
            chosen = {(row["half"], row["task"]): row for row in own if row["choice"] == RECOMMENDED}
            halves = [row for row in own if row["half"] == "validation" and row["task"] == self.target]
            tried = [row["choice"] for row in halves if row["variant"] != BASE]
            losses = [chosen["validation", task] for task in self.yardsticks]
            models.append(
                {
                    "model": model,
                    "candidates": len(tried),
                    "passed": sum(choice in (RECOMMENDED, GAINS_LESS) for choice in tried),
                    "base": chosen["report", self.target]["variant"] == BASE,
                    "rows": [chosen["report", task] for task in self.results.tasks],
                    "unseen": [row for row in losses if not missing(row["minimum_detectable_pp"])],
                }
            )
        names = {key: task["name"] for key, task in self.results.tasks.items()}
        n = {(row["half"], row["task"]): f"{self.say.count(row['n'])} {names[row['task']]}" for row in rows}
        return {
            **{half: [n[half, task] for task in names] for half in ("validation", "report")},
            "cap": rows[0]["max_loss_pp"],
            "models": models,
            "few": any(row["half"] == "report" and row["unit"] == "question" for row in rows),
        }

    def cost(self) -> list[Row]:
        """What each job cost."""
        names = {f"predict_{key}": task["name"] for key, task in self.results.tasks.items()}
        rows = self.rows(self.tables["cost"])
        return [row | {"job": names.get(row["task"], self.words["training"]), "digits": 2} for row in rows]

    # -- error analysis and discussion -----------------------------------------------------------------------------

    def failures(self, run: Run) -> dict[str, Any]:
        """How many answers of a run are wrong, how many of them its base has right, and those that are shown."""
        use, frame = self.results.tasks[self.target], self.results.records[run]
        criterion, (stratum, levels) = use["criterion"], self.levels(self.target)
        base = self.results.records[run[0], BASE] if run[1] != BASE else None
        wrong = frame[frame[criterion] == 0]
        cases = [
            {"rule": rule, "same_class": int((wrong["error_class"] == row["error_class"]).sum()), **row}
            | {"place": [row[use["cluster"]], row[stratum]]}
            for rule, row in choose_failures(frame, base, criterion, (stratum, levels))
        ]
        forgotten = None if base is None else int((aligned(base, frame)[criterion] == 1).loc[wrong.index].sum())
        return {"name": self.name(run), "cases": cases, "n": len(frame), "wrong": len(wrong), "forgotten": forgotten}

    def worth(self) -> dict[str, Any]:
        """Of each yardstick the adapters of each pair of verdicts that occurs; whose sign a criterion changes."""
        known = self.tables["exchange"].dropna(subset="exchange_rate").to_dict("records")
        rates = {(row["model"], row["variant"], row["task"]): row for row in known}
        found = []
        for yardstick in self.yardsticks or [""]:
            groups: dict[str, list[list[Row]]] = {}
            for rows in self.compared.values():
                pair = [row for row in rows if row["task"] in (self.target, yardstick)]
                groups.setdefault("_".join(row["finding"] for row in pair), []).append(pair)
            for findings, pairs in groups.items():
                runs = [(gain["model"], gain["variant"]) for gain, *_ in pairs]
                found.append(
                    {
                        "pair": findings,
                        "yardstick": self.results.tasks[yardstick]["name"] if yardstick else "",
                        "names": [self.name(run) for run in runs],
                        "gains": [gain for gain, *_ in pairs],
                        "losses": [loss for _, *rest in pairs for loss in rest],
                        "rates": [rates[*run, yardstick] for run in runs if (*run, yardstick) in rates],
                    }
                )
        changing = []
        for run in self.adapters if self.results.tasks[self.target]["form"] == "sql" else ():
            base, tuned = self.accuracy[run[0], BASE][0], self.accuracy[run][0]
            signs = [tuned[f"{name}_correct"] - base[f"{name}_correct"] for name in self.say.words["criteria"]]
            changing += [self.name(run)] if min(signs) < 0 < max(signs) else []
        return {"groups": found, "changing": changing}

    def factors(self) -> dict[str, Any]:
        """The contrasts between adapters, the least p first; and what was meant to soften forgetting."""
        frame = self.tables["factors"].sort_values("p_holm", kind="stable")
        rows = self.numbered(frame.assign(variant=frame["axis"].map(setting_name)))
        softened = [row for row in rows if row["task"] in self.yardsticks and row["axis"] in MITIGATIONS]
        return {
            "rows": rows,
            "detectable": extremes(row["minimum_detectable_pp"] for row in rows),
            "seeds": extremes(self.tables["seeds"]["sd_pp"]),
            "several": self.several,
            "mitigations": [row for row in softened if float(row["low"]) < float(row["high"])],
        }

    # -- reproducibility -------------------------------------------------------------------------------------------

    def reproducibility(self) -> dict[str, Any]:
        results = self.results
        reports = [*results.train.values(), *results.answers.values()]
        versions = [(name, version) for report in reports for name, version in report.get("versions", {}).items()]
        libraries = {name: sorted({found for one, found in versions if one == name}) for name, _ in sorted(versions)}
        sampled = {str(r["settings"]["seed"]) for r in results.answers.values() if r["settings"].get("do_sample")}
        chosen = {"face": ("corrected", results.settings["face"]), "scale": ("full", results.settings["scale"])}
        return {
            "config": [f"{key}={value}" for key, (usual, value) in chosen.items() if value != usual],
            "sampling_seeds": sorted(sampled),
            "libraries": [{"library": name, "version": ", ".join(of)} for name, of in libraries.items()],
            "different": any(len(found) > 1 for found in libraries.values()) or len({r["device"] for r in reports}) > 1,
        }

    def hashes(self) -> list[Row]:
        """The hash of every input and artefact that has one."""
        results, words = self.results, self.words["artefacts"]
        found: list[tuple] = []
        for key, task in results.tasks.items():
            for part, about in sorted(results.data[key].items()):
                what, sha256 = ("archive", "archive_sha256") if part == "source" else ("split", "sha256")
                of = "" if part == "source" else part
                found.append((words[what].format(name=task["name"]), of, about.get(sha256)))
        found += [(words["model"], model["name"], model["sha256"]) for model in results.models]
        prompts = {}
        for (model, variant, task), report in results.answers.items():
            own = task == self.target and variant in results.settings["own_prompts"]
            what = words["prompts"].format(name=results.tasks[task]["name"])
            prompts[what, f"{model} {variant}" if own else model] = report["prompts_sha256"]
        found += [(*which, sha256) for which, sha256 in prompts.items()]
        rows = [dict(zip(("what", "of_what", "sha256"), row, strict=True)) for row in found]
        for run, report in results.train.items():
            sha256 = report.get("adapter_sha256", {}).get(WEIGHTS)
            row = {"what": words["adapter"], "of_what": self.name(run), "sha256": sha256}
            rows.append(row | {"rank": self.rank.get(run)})
        return [row | {"sha256": row["sha256"][:DIGITS]} for row in rows if row["sha256"]]


def extremes(values: Iterable[float]) -> tuple[float, float] | None:
    """The least and the greatest of the values that are there; None if there are none."""
    found = [value for value in values if not missing(value)]
    return (min(found), max(found)) if found else None


def flat(settings: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as one level of text, the keys joined by dots."""
    (found,) = pd.json_normalize(settings).to_dict("records")
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in found.items()
    }
