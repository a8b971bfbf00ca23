"""What the templates of the report may say: plain values, from the tables, records and manifests of a study. No prose.

Rows are dicts with the columns of their table, the `name` of their setting or run and its `rank`: settings and runs are
numbered from 0 by falling accuracy on the target, and where the pages are few, rows of the last ranks are left out.
Every sentence about a result follows from a verdict about a setting or a number of the tables. None says why a model
changed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
from markupsafe import Markup

from present.catalogue import RUN, SHARE, Column, class_columns, criterion_columns, crossed, scored, shares, uneven
from present.conclusion import conclusion, finding
from present.failures import ROWS, aligned, choose_failures, why
from present.format import Say, missing
from present.provenance import DIGITS, hashes, models, reproducibility, splits, trainings
from present.values import (
    ALL,
    BASE,
    GAINS_LESS,
    NOT_CERTIFIED,
    RECOMMENDED,
    RIGHT,
    THIS_RUN,
    UNDECIDED,
    is_point,
    is_prompted,
)

MITIGATIONS = ("replay.fraction", "replay.kl", "training.weight_decay")
# Parts of the questions that have a column each; with more, the table shows the whole alone.
MOST_PARTS = 4
# Rows on the tasks of lm-evaluation-harness: a yardstick of its own, whose table is a file beside the report.
MOST_TASKS = 6

Run = tuple[str, str]
Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What a report is made of, as read from a study's results. Text is text, numbers are numbers, an empty cell NaN.

    `settings` has `study` (its name with protocol and scale), `protocol`, `scale`, `known_defects`, `accept_defect`,
    `tasks` with the `kind` of each, and `own_prompts`: by task the variants with prompts of their own. `tables`
    has those of `tables` and `cost` by name, that of each task by the task's; but for `settings` they are about base
    models and adapters alone, without what `evaluation` adds. `recommendation`, `equal_gain` and `harness`, if the
    study has them.
    """

    settings: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    shots: int | None  # examples in the base model's prompts, where it is evaluated with other numbers too
    figures: Mapping[str, str]  # the SVG of each figure by name, as seen from the report
    records: Mapping[Run, pd.DataFrame]  # of the target, in the order of the tables
    data: Mapping[str, Mapping[str, Mapping]]  # manifests of each task: `source`, and its parts; those of `replay`
    models: Sequence[Mapping]  # records of `fetch_model`
    audits: Mapping[str, Mapping]  # reports of `audit_labels` by model
    prompts: Mapping[str, Mapping]  # of each task the report of a model's prompts, with `model` and `file`
    train: Mapping[Run, Mapping]  # reports of `train` of each adapter
    answers: Mapping[tuple[str, str, str], Mapping]  # reports of `predict` by model, variant and task
    # How the queries of gold and answer differ, see `failures.why`.
    differences: Callable[[str, str], Sequence[tuple[str, str, str]] | None]
    registered: Mapping | None = None  # what was written down before the run, with `file`
    published: Mapping | None = None  # what is found of the figures that a report printed
    # Of answers that were given elsewhere, by model, variant and task: source, sha256, rows, questions, answered.
    imported: Mapping[tuple[str, str, str], Mapping] = field(default_factory=dict)


def facts(results: Results, say: Say) -> dict[str, Any]:
    """What the report's template may say; `say` has the measures of the tasks."""
    return _Facts(results, say).all()


class _Facts:
    """The runs with their names and ranks, while the chapters are made."""

    def __init__(self, results: Results, say: Say):
        self.results, self.tables, self.say, self.words = results, results.tables, say, say.words["report"]
        self.target, *self.yardsticks = say.measures
        whole = self.whole(self.target)
        runs = list(zip(whole["model"], whole["variant"], strict=True))
        self.several = whole["model"].nunique() > 1
        self.adapters = [run for run in runs if run[1] != BASE]
        right = dict(zip(runs, whole["correct"], strict=True))
        self.rank = {run: rank for rank, run in enumerate(sorted(self.adapters, key=lambda run: -right[run]))}
        accuracies = [self.rows(self.whole(task).assign(task=task)) for task in say.measures]
        self.accuracy = {run: rows for run, *rows in zip(runs, *accuracies, strict=True)}
        settings = self.tables["settings"]
        whole, right_answers, point = settings["category"] == ALL, settings["measure"] == RIGHT, is_point(settings)
        ranked = settings[whole & right_answers & ~point & (settings["task"] == self.target)]
        ranked = ranked.sort_values("tuned_accuracy_pct", ascending=False, kind="stable")
        self.order = {key: rank for rank, key in enumerate(zip(ranked["model"], ranked["setting"], strict=True))}
        own, prompted = whole & right_answers & ~point, is_prompted(settings)
        self.headline, self.parts, self.probability, self.points, self.prompted = (
            self.rows(settings[of])
            for of in (
                own, ~whole & right_answers & ~point, whole & ~right_answers & ~point,
                whole & right_answers & point & ~prompted, whole & prompted,
            )
        )  # fmt: skip
        found = {(row["model"], row["setting"], row["task"]): row for row in self.headline}
        keys = sorted({key[:2] for key in found}, key=self.order.get)
        self.compared = {key: [found[*key, task] for task in say.measures] for key in keys}

    def part(self, task: str) -> str:
        """The column of a task's table that divides its questions."""
        return "questions" if "questions" in self.tables[task] else "category"

    def whole(self, task: str) -> pd.DataFrame:
        """The rows of a task's table about all its questions."""
        return self.tables[task][self.tables[task][self.part(task)] == ALL]

    def name(self, run: Run) -> str:
        """A run's name, with its model where there are several."""
        return " ".join(run) if self.several else run[1]

    def rows(self, frame: pd.DataFrame) -> list[Row]:
        """A table's rows with the names and ranks of settings or runs, what they measure, and keys of their verdicts.

        The key of a loss that is undecided but within the margin is `kept`.
        """
        found = frame.to_dict("records")
        for row in found:
            run = row["model"], row.get("variant", row.get("setting"))
            ranks = self.rank if "variant" in row else self.order
            row |= {"name": self.name(run), "rank": ranks.get(run), "finding": finding(row, self.target)}
            row["this_run"] = row.get("about") == THIS_RUN
            # On the target a gain is held against the margin, elsewhere a loss.
            if row.get("task") == self.target and "gain_margin_verdict" in row:
                row["margin_verdict"] = row["gain_margin_verdict"]
            if row.get("task") in self.say.measures:
                row["measured"] = self.say.measure(row["task"], words="forms.sentence")
        return found

    def numbered(self, frame: pd.DataFrame) -> list[Row]:
        """Rows ranked in the order of the table."""
        return [row | {"rank": rank} for rank, row in enumerate(self.rows(frame))]

    def all(self) -> dict[str, Any]:
        results, tasks = self.results, [self.task(key) for key in self.say.measures]
        level = float(self.tables[self.target]["confidence_level"].iloc[0])
        return {
            "percent": self.say.level(level),
            "alpha": self.say.score(1 - level),
            "settings": results.settings,
            "registered": results.registered,
            "drawn": results.figures,
            "answer": list(
                map(Markup, conclusion(self.tables["settings"], self.tables.get("recommendation"), self.say))
            ),
            "digits": DIGITS,
            "tasks": tasks,
            "target": tasks[0],
            "yardsticks": tasks[1:],
            "forms": {one["form"]: [task["name"] for task in tasks if task["form"] == one["form"]] for one in tasks},
            "knowledge": any(task["kind"] == "mmlu" for task in tasks),
            "by_chance": [task for task in tasks if task["chance"]],
            "splits": splits(results.data[self.target], *self.levels(self.target)),
            "replay": results.data.get("replay"),
            "bases": [rows for (_, variant), rows in self.accuracy.items() if variant == BASE],
            "adapters": len(self.adapters),
            "models": models(results, self.say),
            "training": trainings(results, self.name, self.rank),
            "pairs": list(self.compared.values()),
            "headline": self.headline,
            "parts": self.parts,
            "runs": self.rows(self.tables["regression"][self.tables["regression"]["category"] == ALL]),
            "probability": self.probability,
            "margin": self.margin(),
            "transitions": self.rows(self.tables["transitions"]),
            "equal_gain": self.equal_gain(),
            "several_seeds": any(row["seeds"] > 1 for row in self.headline),
            "seed_sds": self.seed_sds(),
            "harness": self.harness() if "harness" in self.tables else None,
            "noise": self.noise() if "noise" in self.tables else (),
            "repair": self.numbered(self.tables["repair"]) if "repair" in self.tables else (),
            "points": [row | {"rank": rank} for rank, row in enumerate(self.points)],
            "shots": self.shots(),
            "recommendation": self.recommendation() if "recommendation" in self.tables else None,
            "cost": self.rows(self.tables["cost"].assign(digits=2)),
            "failures": [self.failures(run) for run in self.rank or self.accuracy] if results.records else [],
            "worth": self.worth(),
            "changing": self.changing(),
            "criteria": self.criteria(),
            "imported": self.imported(),
            "published": results.published,
            "factors": self.factors(),
            "detectable": {
                "headline": extremes(
                    row["minimum_detectable_pp"] for row in self.headline if row["finding"] in ("undecided", "kept")
                ),
                "parts": extremes(row["minimum_detectable_pp"] for row in self.parts),
            },
            "sampled": any(report["settings"].get("do_sample") for report in results.answers.values()),
            "reproducibility": reproducibility(results),
            "hashes": hashes(results, self.name, self.rank, self.say),
        }

    # -- methodology -----------------------------------------------------------------------------------------------

    def task(self, key: str) -> dict[str, Any]:
        """A task: what it is, its data and prompts, and the accuracy of all runs on it, with that on its parts."""
        use, data, frame, part = self.say.measures[key], self.results.data[key], self.tables[key], self.part(key)
        prompt = self.results.prompts.get(key, {})
        settings = {name: value for one in (*data.values(), prompt) for name, value in one.get("settings", {}).items()}
        compared = [row for row in self.headline if row["task"] == key]
        (stratum, levels), first = self.levels(key), frame.iloc[0]
        names = {name: self.say.level_of(name, title=True) for name in levels}
        names = names if 1 < len(names) <= MOST_PARTS else {}
        wide = crossed(frame, RUN, part, SHARE, shares(frame, part, names, self.say, "interval"))
        rows = [rows[list(self.say.measures).index(key)] for rows in self.accuracy.values()]
        sizes = frame[frame[part] != ALL].drop_duplicates(part)
        found = {
            **asdict(use),
            "key": key,
            "kind": self.results.settings["tasks"][key]["kind"],
            "measured": self.say.measure(key, words="forms.sentence"),
            "subject": "text-to-SQL" if use.form == "sql" else use.name,
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
            "stratum": (stratum := self.say.words["answers"]["fields"].get(stratum, stratum).lower()),
            "levels": levels,
            "databases": None,
            "said": {"name": self.say.measure(key), "task": use.name, "stratum": stratum},
            "groups": () if use.form == "sql" else list(zip(sizes[part], sizes["n"], strict=True)),
            "rows": [row | parts for row, parts in zip(rows, wide.rows.to_dict("records"), strict=True)],
        }
        return found | (self.sql if use.form == "sql" else self.letters)(found, wide.columns[len(RUN) :])

    def levels(self, key: str) -> tuple[str, list[str]]:
        """The first column that divides a task's questions, and its values: those that are given, or in order."""
        stratum, given = next(iter(self.say.measures[key].strata.items()), ("", ()))
        if isinstance(given, str) or given is None:
            column = self.tables[key][self.part(key)]
            given = [name for name in dict.fromkeys(column) if name != ALL and not name.startswith("gold_")]
        return stratum, list(given)

    def sql(self, task: Row, parts: Sequence[Column]) -> Row:
        """Of a task whose queries are executed: its criterion, its tables, and what became of the queries."""
        key, rows, file, databases = task["key"], task["rows"], task["file"], None
        if key == self.target:
            databases = next(iter(self.results.records.values()))[self.say.measures[key].cluster].nunique()
        frame = self.tables["errors"]
        frame = frame[frame["task"] == key]
        shown = class_columns(set(frame.loc[frame["n"] > 0, "error_class"]), self.say)
        wrong = frame[frame["error_class"].ne("ok") & frame["n"].gt(0)]
        commonest = wrong.loc[wrong.groupby(["model", "variant"], sort=False)["n"].idxmax()]
        errors = crossed(frame, RUN, "error_class", ["n"], shown)
        criterion = self.say.words["criteria"][task["criterion"]]
        criterion = {**criterion, "lower": criterion["name"].lower()}
        grids = {
            "accuracy": (rows, "run right accuracy", file, "accuracy", criterion_columns(self.say)),
            "strata": (rows, "run", file, "accuracy", parts),
            "errors": (self.rows(errors.rows), "run", "tables/errors.csv", "accuracy", errors.columns[len(RUN) :]),
        }
        tested = self.numbered(frame[frame["p_holm"].notna()].sort_values("p_holm", kind="stable"))
        alpha = 1 - float(self.tables[key]["confidence_level"].iloc[0])
        found = {"criterion": criterion, "databases": databases, "commonest": self.rows(commonest), "grids": grids}
        found |= {"tested": len(tested), "changed": [row for row in tested if row["p_holm"] < alpha]}
        golds = self.tables["gold"][self.tables["gold"]["task"] == key]
        golds = golds[golds["criterion"] == task["criterion"]]
        gaps = {side: (golds["accuracy_pct"] - golds[f"{side}_pct"])[1:].abs().max() for side in ("low", "high")}
        found["gold"] = golds.iloc[0].to_dict() | gaps
        return found | {"said": task["said"] | {"criterion": criterion["lower"]}}

    def letters(self, task: Row, parts: Sequence[Column]) -> Row:
        """Of a task whose answers are compared: its table, and letters against texts."""
        whole = self.whole(task["key"])
        found: Row = {"uneven": "macro_accuracy_pct" in whole and uneven(whole)}
        columns = "run accuracy" + " macro_pct" * found["uneven"]
        if task["form"] == "choice":
            columns += " generated_pct invalid_pct"
            found["gap"] = (whole["accuracy_pct"] - whole["accuracy_generated_pct"]).abs().max()
            found["invalid"] = whole["invalid_pct"].max()
        return found | {"grids": {"accuracy": (task["rows"], columns, task["file"], "accuracy", parts)}}

    # -- results ---------------------------------------------------------------------------------------------------

    def harness(self) -> dict[str, Any]:
        """The base on the tasks of lm-evaluation-harness, and the comparisons with it, the least p first."""
        frame = scored(self.tables["harness"].sort_values("p_holm", kind="stable"))
        base = frame[frame["variant"] == BASE]
        key = ["model", "task", "metric", "filter"]
        compared = frame[frame["p"].notna()].merge(base[[*key, "score"]], on=key, suffixes=("", "_base"))
        percent = {"base_accuracy_pct": 100 * compared["score_base"], "tuned_accuracy_pct": 100 * compared["score"]}
        rows = self.numbered(compared.assign(**percent))
        return {"version": frame["lm_eval"].iloc[0], "base": self.rows(base), "rows": rows, "most": MOST_TASKS}

    def noise(self) -> list[Row]:
        """Of each task what the machine changes, beside the least and the greatest effect of a setting on it.

        `within` are the effects that are no larger than what it may have changed.
        """
        found = []
        for task, frame in self.tables["noise"].groupby("task", sort=False):
            most, rows = frame.groupby("model")["ci_high"].max(), self.rows(frame)
            effects = [row for row in self.headline if row["task"] == task]
            within = [row for row in effects if abs(row["difference_pp"]) <= most.get(row["model"], 0.0)]
            sizes = extremes(abs(row["difference_pp"]) for row in effects)
            found.append({"measured": rows[0]["measured"], "rows": rows, "sizes": sizes, "within": within})
        return found

    def shots(self) -> dict[str, Any]:
        """The base with other few-shot examples: of each model the best number, of equals the fewest."""
        rows, own, best = [row | {"rank": n} for n, row in enumerate(self.prompted)], self.results.shots, []
        for model in list(dict.fromkeys(row["model"] for row in rows))[:3]:
            tried = {own: self.accuracy[model, BASE][0]["accuracy_pct"]}
            tried |= {int(row["shots"]): row["tuned_accuracy_pct"] for row in rows if row["model"] == model}
            shots = min(tried, key=lambda number: (-tried[number], number))
            adapter = next((rows[0] for key, rows in self.compared.items() if key[0] == model), None)
            best.append({"model": model, "shots": shots, "accuracy_pct": tried[shots], "adapter": adapter})
        return {"rows": rows, "own": own, "best": best}

    def recommendation(self) -> list[dict[str, Any]]:
        """Of each model what is recommended, of how many candidates, and what would certify one if none is."""
        rows, models = self.rows(self.tables["recommendation"]), []
        for model in [base[0]["model"] for (_, name), base in self.accuracy.items() if name == BASE]:
            own = [row for row in rows if row["model"] == model]
            of_target = [row for row in own if row["task"] == self.target]
            # A candidate that gains is certified where every yardstick is.
            needed: dict[str, list[float]] = {}
            for row in own:
                if row["choice"] == NOT_CERTIFIED and row["margin_verdict"] == UNDECIDED and row["task"] != self.target:
                    needed.setdefault(row["setting"], []).append(row["questions_to_certify"])
            models.append(
                {
                    "model": model,
                    "candidates": len(of_target),
                    "passed": sum(row["choice"] in (RECOMMENDED, GAINS_LESS) for row in of_target),
                    "gaining": sum(row["finding"] == "gained" for row in of_target),
                    "rows": [row for row in own if row["choice"] == RECOMMENDED],
                    "needed": min((max(of) for of in needed.values() if not any(map(missing, of))), default=None),
                }
            )
        return models

    def margin(self) -> float:
        """In percentage points; that of a study without settings matters to nobody."""
        margins = self.tables["settings"]["margin_pp"]
        return float(margins.iloc[0]) if len(margins) else 0.0

    def seed_sds(self) -> list[Row]:
        """What seeds alone differ in, of each model and task that has several."""
        known = [row for row in self.headline if not missing(row["seed_sd_pp"])]
        return list({(row["model"], row["task"]): row for row in known}.values())

    def equal_gain(self) -> list[Row]:
        """Pairs of settings where they have gained the same; nothing of a study without points on the way."""
        frame = self.tables.get("equal_gain", pd.DataFrame(columns=["model", "high"]))
        return self.rows(frame.assign(setting=frame["high"]))

    # -- error analysis and discussion -----------------------------------------------------------------------------

    def failures(self, run: Run) -> dict[str, Any]:
        """How many answers of a run are wrong, how many of them its base has right, and those that are shown."""
        use, frame = self.say.measures[self.target], self.results.records[run]
        stratum, levels = self.levels(self.target)
        base = self.results.records[run[0], BASE] if run[1] != BASE else None
        wrong = frame[frame[use.criterion] == 0]
        cases = [
            {"rule": rule, "same_class": int((wrong["error_class"] == row["error_class"]).sum()), **row}
            | {"place": [row[use.cluster], row[stratum]]}
            | self.explained(row)
            for rule, row in choose_failures(frame, base, use.criterion, (stratum, levels))
        ]
        forgotten = None if base is None else int((aligned(base, frame)[use.criterion] == 1).loc[wrong.index].sum())
        return {"name": self.name(run), "cases": cases, "n": len(frame), "wrong": len(wrong), "forgotten": forgotten}

    def explained(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """In words why an answer is wrong, and what SQLite or the comparison said where the words do not say it."""
        sentences = why(self.results.differences(row["gold"], row["sql"]), row, self.say)
        return {"why": list(map(Markup, sentences)), "said": "" if row["error_class"] in ROWS else row["message"]}

    def worth(self) -> list[dict[str, Any]]:
        """Of each yardstick the settings of each pair of verdicts that occurs."""
        found = []
        for yardstick in self.yardsticks or [""]:
            groups: dict[str, list[Run]] = {}
            for run, rows in self.compared.items():
                pair = [row["finding"] for row in rows if row["task"] in (self.target, yardstick)]
                groups.setdefault("_".join(pair), []).append(run)
            for pair, runs in groups.items():
                rows = [row for run in runs for row in self.compared[run]]
                losses = [row for row in rows if row["task"] == yardstick]
                found.append(
                    {
                        "pair": pair,
                        "yardstick": self.say.measures[yardstick].name if yardstick else "",
                        "names": [self.name(run) for run in runs],
                        "gains": [row for row in rows if row["task"] == self.target],
                        "losses": losses,
                        "rates": extremes(row["exchange_rate"] for row in losses),
                    }
                )
        return found

    def changing(self) -> list[str]:
        """The adapters whose difference on the target is a gain by one criterion and a loss by another."""
        criteria = self.say.words["criteria"] if self.say.measures[self.target].form == "sql" else ()
        found = []
        for run in self.adapters if criteria else ():
            base, tuned = self.accuracy[run[0], BASE][0], self.accuracy[run][0]
            signs = [tuned[f"{name}_correct"] - base[f"{name}_correct"] for name in criteria]
            found += [self.name(run)] if min(signs) < 0 < max(signs) else []
        return found

    def criteria(self) -> dict[str, Any] | None:
        """Of the first base the least and the greatest accuracy by any criterion, and the largest change of a setting.

        None if the target executes no SQL.
        """
        if self.say.measures[self.target].form != "sql":
            return None
        run, rows = next((run, rows) for run, rows in self.accuracy.items() if run[1] == BASE)
        shares = [100 * rows[0][f"{name}_correct"] / rows[0]["n"] for name in self.say.words["criteria"]]
        changes = [abs(row["difference_pp"]) for row in self.headline if row["task"] == self.target]
        return {"name": self.name(run), "low": min(shares), "high": max(shares), "largest": max(changes, default=None)}

    def imported(self) -> list[Row]:
        """The runs whose answers were given elsewhere, and where."""
        return [
            {
                "name": self.name((model, variant)),
                "measured": self.say.measure(task),
                "task": task,
                **{key: facts[key] for key in ("source", "rows", "answered")},
                "missing": facts["questions"] - facts["answered"],
                "sha256": facts["sha256"][:DIGITS],
            }
            for (model, variant, task), facts in self.results.imported.items()
        ]

    def factors(self) -> dict[str, Any]:
        """The contrasts between settings, the least p first; and what was meant to soften forgetting."""
        frame = self.tables["contrasts"].sort_values("p_holm", kind="stable")
        rows = self.numbered(frame.assign(variant=frame["axis"].map(self.say.axis)))
        softened = [row for row in rows if row["task"] in self.yardsticks and row["axis"] in MITIGATIONS]
        return {
            "rows": rows,
            "detectable": extremes(row["minimum_detectable_pp"] for row in rows),
            "several": self.several,
            "mitigations": [row for row in softened if float(row["low"]) < float(row["high"])],
        }


def extremes(values: Iterable[float]) -> tuple[float, float] | None:
    """The least and the greatest of the values that are there; None if there are none."""
    found = [value for value in values if not missing(value)]
    return (min(found), max(found)) if found else None
