"""What the templates of the report may say: plain values, from the tables, records and manifests of a study. No prose.

Rows are dicts with the columns of their table, the `name` of their run and its `rank`: the adapters are numbered from 0
by falling execution accuracy, and where the pages are few, rows of the last ranks are left out. Every sentence about a
result follows from a verdict or a number of the tables. None says why a model changed.
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
from present.tables import shared_facts
from present.values import ALL, BASE, GAINS_LESS, HARDNESS, MEASURES, MMLU, RECOMMENDED, SPIDER, setting_name

MITIGATIONS = ("replay.fraction", "replay.kl", "training.weight_decay")
DIGITS = 16
WEIGHTS = "adapter_model.safetensors"
# Categories of MMLU that have a column each; with more, the table shows the whole alone.
MOST_CATEGORIES = 4
# Rows on the tasks of lm-evaluation-harness: a second yardstick, whose table is a file beside the report.
MOST_TASKS = 6

Run = tuple[str, str]
Row = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """What a report is made of, as read from a study's results.

    Attributes:
        settings: `study` (its name with protocol and scale), `face`, `scale`, `semantics` (the headline's criterion),
            `known_defects`, `accept_defect`, and `own_prompts`: the variants whose Spider prompts are not those of the
            adapters.
        tables: those of `tables` and `cost` by name, about base models and trained adapters alone; `points` and
            `prompted`, the rows of the regression table on what `evaluation` adds; `recommendation` and `harness` if
            the study has them. Text is text, numbers are numbers, an empty cell is NaN.
        shots: how many examples the base model's prompts have, where it is evaluated with other numbers too.
        figures: the SVG of each figure by name, as seen from the report.
        records: the Spider records of each run, in the order of the tables.
        manifests: `spider`, `mmlu_source`, `splits`, `suite`; with replay also `replay` and `replay_source`.
        models: records of `fetch_model`.
        audits, prompts: reports of `audit_labels` by model, and of the prompts by task (`dev`, `mmlu`) and model.
        train, answers: reports of `train` of each adapter, and of `predict_*` by model, variant and file name.
    """

    settings: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    shots: int | None
    figures: Mapping[str, str]
    records: Mapping[Run, pd.DataFrame]
    manifests: Mapping[str, Mapping]
    models: Sequence[Mapping]
    audits: Mapping[str, Mapping]
    prompts: Mapping[str, Mapping[str, Mapping]]
    train: Mapping[Run, Mapping]
    answers: Mapping[tuple[str, str, str], Mapping]


def facts(results: Results, say: Say) -> dict[str, Any]:
    """Compute what the report's template may say; its names are the chapters."""
    return _Facts(results, say).all()


class _Facts:
    """The runs with their names and ranks, while the chapters are made."""

    def __init__(self, results: Results, say: Say):
        self.results, self.tables, self.say = results, results.tables, say
        accuracy, mmlu, regression = (self.tables[name] for name in (*MEASURES, "regression"))
        whole = accuracy[accuracy["questions"] == ALL]
        self.runs = list(zip(whole["model"], whole["variant"], strict=True))
        self.several = whole["model"].nunique() > 1
        right = dict(zip(self.runs, whole["correct"], strict=True))
        self.adapters = [run for run in self.runs if run[1] != BASE]
        ranked = sorted(self.adapters, key=lambda run: -right[run])
        self.rank = {run: rank for rank, run in enumerate(ranked)}
        self.execution, self.knowledge = self.rows(whole), self.rows(mmlu[mmlu["category"] == ALL])
        self.whole = dict(zip(self.runs, self.execution, strict=True))
        headline = regression["category"] == ALL
        self.headline, self.parts = self.rows(regression[headline]), self.rows(regression[~headline])
        found = {(row["model"], row["variant"], row["measure"]): row for row in self.headline}
        self.pairs = {run: tuple(found[*run, measure] for measure in MEASURES) for run in self.rank}

    def name(self, run: Run) -> str:
        """A run's name, with its model where there are several."""
        return " ".join(run) if self.several else run[1]

    def rows(self, frame: pd.DataFrame) -> list[Row]:
        """A table's rows with the names and ranks of their runs, and as `finding` the keys of their verdicts."""
        found = frame.to_dict("records")
        for row in found:
            run = row["model"], row["variant"]
            row |= {"name": self.name(run), "rank": self.rank.get(run), "finding": VERDICTS.get(row.get("verdict"))}
        return found

    def numbered(self, frame: pd.DataFrame) -> list[Row]:
        """Rows ranked in the order of the table."""
        return [row | {"rank": rank} for rank, row in enumerate(self.rows(frame))]

    def wide(self, block: Block, frame: pd.DataFrame) -> dict[str, Any]:
        """The rows of a block that has a row for each run, and its columns beside model and run."""
        return {"rows": self.rows(block.rows(frame)), "columns": block.columns[len(RUN) :]}

    def all(self) -> dict[str, Any]:
        results = self.results
        bases = zip(self.execution, self.knowledge, strict=True)
        return {
            **shared_facts(results.settings["study"], self.tables[SPIDER], self.tables[MMLU], self.say),
            "settings": results.settings,
            "drawn": results.figures,
            "databases": len(set(next(iter(results.records.values()))["db_id"])),
            "digits": DIGITS,
            "bases": [(execution, mmlu) for execution, mmlu in bases if execution["variant"] == BASE],
            "adapters": len(self.adapters),
            "execution": self.execution,
            "data": results.manifests,
            "models": self.models(),
            "training": self.training(),
            "units": {row["measure"]: row for row in reversed(self.headline)},
            # One model stands for all.
            "prompts": {task: next(iter(found.items())) for task, found in results.prompts.items()},
            "pairs": list(self.pairs.values()),
            "headline": self.headline,
            "parts": self.parts,
            "exchange": self.rows(self.tables["exchange"]),
            "accuracy": self.accuracy(),
            "mmlu": self.mmlu(),
            "errors": self.errors(),
            "harness": self.harness() if "harness" in self.tables else None,
            "seeds": self.numbered(self.tables["seeds"].rename(columns={"setting": "variant"})),
            "points": self.numbered(self.tables["points"]),
            "shots": self.shots(),
            "recommendation": self.recommendation() if "recommendation" in self.tables else None,
            "cost": self.rows(self.tables["cost"]),
            "failures": [self.failures(run) for run in self.rank or self.runs],
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

    def models(self) -> list[Row]:
        rows = []
        for model in self.results.models:
            reports = [report for (name, *_), report in self.results.answers.items() if name == model["name"]]
            used = [
                (report["settings"]["precision"], report["batch_size_used"], report["device"]) for report in reports
            ]
            precisions, batches, devices = (sorted(set(values)) for values in zip(*used, strict=True))
            rows.append({**model, "precisions": precisions, "batches": batches, "devices": devices})
        return rows

    def training(self) -> dict[str, Any]:
        """The settings of all adapters, each with the values that it has, and what came of them."""
        train, values = self.results.train, {}
        settings = [flat(report["settings"]) for report in train.values()]
        for name in dict.fromkeys(name for one in settings for name in one):
            found = [one.get(name, "0.0" if name == "replay.fraction" else None) for one in settings]
            values[setting_name(name)] = "; ".join(dict.fromkeys(value for value in found if value is not None))
        rows = [
            {**report, "name": self.name(run), "rank": self.rank.get(run)}
            | {"loss": report["history"][-1]["loss"] if report["history"] else None}
            for run, report in train.items()
        ]
        replaying = sum("replay" in report for report in train.values())
        return {"settings": values, "rows": rows, "audits": self.results.audits, "replaying": replaying}

    # -- results ---------------------------------------------------------------------------------------------------

    def accuracy(self) -> dict[str, Any]:
        frame, words = self.tables[SPIDER], self.say.words["parts"]
        levels = shares(frame, "questions", {level: words[level] for level in HARDNESS}, self.say, "interval")
        hardness = self.wide(crossed(frame, RUN, "questions", SHARE, levels), frame)
        return {"columns": criterion_columns(self.say), "hardness": hardness}

    def mmlu(self) -> dict[str, Any]:
        frame, rows = self.tables[MMLU], self.knowledge
        names = {name: name for name in frame["category"] if name != ALL}
        names = names if 1 < len(names) <= MOST_CATEGORIES else {}
        categories = shares(frame, "category", names, self.say, "interval")
        found = self.wide(crossed(frame, RUN, "category", SHARE, categories), frame)
        return {
            "columns": found["columns"],
            "rows": [row | parts for row, parts in zip(rows, found["rows"], strict=True)],
            "uneven": uneven(frame[frame["category"] == ALL]),
            "gap": max(abs(row["accuracy_pct"] - row["accuracy_generated_pct"]) for row in rows),
            "invalid": max(row["invalid_pct"] for row in rows),
        }

    def errors(self) -> dict[str, Any]:
        """How often each class occurs in each run, and the commonest class of its wrong answers."""
        frame = self.tables["errors"]
        occur = class_columns(set(frame.loc[frame["n"] > 0, "error_class"]))
        # Without underscores, so that headings can be broken into lines.
        shown = {name: replace(one, fill={"name": name.replace("_", " ")}) for name, one in occur.items()}
        wrong = frame[frame["error_class"].ne("ok") & frame["n"].gt(0)]
        commonest = wrong.loc[wrong.groupby(["model", "variant"], sort=False)["n"].idxmax()]
        table = self.wide(crossed(frame, RUN, "error_class", ["n"], shown), frame)
        return {"commonest": self.rows(commonest), **table}

    def harness(self) -> dict[str, Any]:
        """The base on the tasks of lm-evaluation-harness, and the comparisons with it, the least p first."""
        frame = scored(self.tables["harness"].sort_values("p_holm", kind="stable"))
        base = frame[frame["variant"] == BASE]
        key = ["model", "task", "metric", "filter"]
        compared = frame[frame["p"].notna()].merge(base[[*key, "score"]], on=key, suffixes=("", "_base"))
        percent = {"base_accuracy_pct": 100 * compared["score_base"], "tuned_accuracy_pct": 100 * compared["score"]}
        rows = self.rows(compared.assign(**percent))
        return {"version": frame["lm_eval"].iloc[0], "base": self.rows(base), "rows": rows, "most": MOST_TASKS}

    def shots(self) -> dict[str, Any]:
        """The base with other few-shot examples: of each model the best number, of equals the fewest."""
        rows, own, best = self.numbered(self.tables["prompted"]), self.results.shots, []
        for model in list(dict.fromkeys(row["model"] for row in rows))[:3]:
            tried = {own: self.whole[model, BASE]["accuracy_pct"]}
            tried |= {int(row["shots"]): row["tuned_accuracy_pct"] for row in rows if row["model"] == model}
            shots = min(tried, key=lambda number: (-tried[number], number))
            adapter = next((self.whole[run] for run in self.rank if run[0] == model), None)
            best.append({"model": model, "shots": shots, "accuracy_pct": tried[shots], "adapter": adapter})
        return {"rows": rows, "own": own, "best": best}

    def recommendation(self) -> dict[str, Any]:
        """Of each model what is recommended, by which half, and what the other half says of it."""
        rows, models = self.rows(self.tables["recommendation"]), []
        for model in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if row["model"] == model]
            chosen = {(row["half"], row["measure"]): row for row in own if row["choice"] == RECOMMENDED}
            gain, loss = (chosen["report", measure] for measure in MEASURES)
            halves = [row for row in own if row["half"] == "validation" and row["measure"] == SPIDER]
            tried = [row["choice"] for row in halves if row["variant"] != BASE]
            models.append(
                {"model": model, "candidates": len(tried), "base": gain["variant"] == BASE, "gain": gain, "loss": loss}
                | {"passed": sum(choice in (RECOMMENDED, GAINS_LESS) for choice in tried)}
                | {"detectable": chosen["validation", MMLU]["minimum_detectable_pp"]}
            )
        n = {(row["half"], row["measure"]): row["n"] for row in rows}
        few = any(row["half"] == "report" and row["unit"] == "question" for row in rows)
        return {"n": n, "cap": rows[0]["max_loss_pp"], "models": models, "few": few}

    # -- error analysis and discussion -----------------------------------------------------------------------------

    def failures(self, run: Run) -> dict[str, Any]:
        """How many answers of a run are wrong, how many of them its base has right, and those that are shown."""
        criterion, frame = self.results.settings["semantics"], self.results.records[run]
        base = self.results.records[run[0], BASE] if run[1] != BASE else None
        wrong = frame[frame[criterion] == 0]
        cases = [
            {"rule": rule, "same_class": int((wrong["error_class"] == row.error_class).sum()), **row._asdict()}
            for rule, row in choose_failures(frame, base, criterion)
        ]
        forgotten = None if base is None else int((aligned(base, frame)[criterion] == 1).loc[wrong.index].sum())
        return {"name": self.name(run), "cases": cases, "n": len(frame), "wrong": len(wrong), "forgotten": forgotten}

    def worth(self) -> dict[str, Any]:
        """The adapters of each pair of verdicts that occurs, and those of which a criterion changes a sign."""
        groups: dict[str, list[Run]] = {}
        for run in self.adapters:
            groups.setdefault("_".join(row["finding"] for row in self.pairs[run]), []).append(run)
        known = self.tables["exchange"].dropna(subset="exchange_rate").to_dict("records")
        rates = {(row["model"], row["variant"]): row for row in known}
        found = []
        for pair, runs in groups.items():
            gains, losses = zip(*(self.pairs[run] for run in runs), strict=True)
            names = [self.name(run) for run in runs]
            own = [rates[run] for run in runs if run in rates]
            found.append({"pair": pair, "names": names, "gains": gains, "losses": losses, "rates": own})
        changing = []
        for run in self.adapters:
            base, tuned = self.whole[run[0], BASE], self.whole[run]
            signs = [tuned[f"{name}_correct"] - base[f"{name}_correct"] for name in self.say.words["criteria"]]
            changing += [self.name(run)] if min(signs) < 0 < max(signs) else []
        return {"groups": found, "changing": changing}

    def factors(self) -> dict[str, Any]:
        """The contrasts between adapters, the least p first; and what was meant to soften forgetting."""
        frame = self.tables["factors"].sort_values("p_holm", kind="stable")
        rows = self.numbered(frame.assign(variant=frame["axis"].map(setting_name)))
        softened = [row for row in rows if row["measure"] == MMLU and row["axis"] in MITIGATIONS]
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
            "libraries": libraries,
            "different": any(len(found) > 1 for found in libraries.values()) or len({r["device"] for r in reports}) > 1,
        }

    def hashes(self) -> list[Row]:
        """The hash of every input and artefact that has one."""
        results, data = self.results, self.results.manifests
        prompts = {}
        for (model, variant, task), report in results.answers.items():
            own = task == "predict_spider" and variant in results.settings["own_prompts"]
            kind = "own_prompts" if own else task.replace("predict_", "") + "_prompts"
            prompts[kind, variant if own else "", model] = report["prompts_sha256"]
        adapters = {run: report.get("adapter_sha256", {}) for run, report in results.train.items()}
        found = [
            ("archive", "", "", data["spider"]["archive_sha256"], None),
            ("mmlu_archive", "", "", data["mmlu_source"].get("archive_sha256"), None),
            *(("split", name, "", split["sha256"], None) for name, split in data["splits"]["splits"].items()),
            ("suite", "", "", data["suite"]["sha256"], None),
            *(("model", model["name"], "", model["sha256"], None) for model in results.models),
            *((*which, sha256, None) for which, sha256 in prompts.items()),
            *(("adapter", self.name(run), "", of.get(WEIGHTS), self.rank.get(run)) for run, of in adapters.items()),
        ]
        keys = ("kind", "name", "model", "sha256", "rank")
        return [row for row in (dict(zip(keys, values, strict=True)) for values in found) if row["sha256"]]


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
