"""What the templates of the report may say: plain values, from the tables, records and manifests of a study. No prose.

Rows are dicts with the columns of their table, the `name` of their run and its `rank`: the adapters are numbered from 0
by falling execution accuracy, and where the pages are few, rows of the last ranks are left out. Every sentence about a
result follows from a verdict or a number of the tables. None says why a model changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from present.failures import HARDNESS, aligned, choose_failures
from present.format import VERDICTS, missing

BASE, ALL, SEED = "base", "aggregate", "training.seed"
SQL, MMLU = "execution_accuracy", "mmlu"
CRITERIA = ("set", "bag", "ordered", "test_suite", "columns_any_order")
RECOMMENDED, GAINS_LESS = "recommended", "gains less"
MITIGATIONS = ("replay.fraction", "replay.kl", "training.weight_decay")
DIGITS = 16
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
        train: reports of `train` of each adapter.
        answers: reports of `predict_*` by model, variant and file name.
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


def facts(results: Results) -> dict[str, Any]:
    """Compute what the report's template may say; its names are the chapters."""
    return _Facts(results).all()


class _Facts:
    """The runs with their names and ranks, while the chapters are made."""

    def __init__(self, results: Results):
        self.results, self.tables = results, results.tables
        accuracy, mmlu = self.tables[SQL], self.tables[MMLU]
        self.whole = {(row["model"], row["variant"]): row for row in records(accuracy[accuracy["questions"] == ALL])}
        self.runs = list(self.whole)
        self.adapters = [run for run in self.runs if run[1] != BASE]
        ranked = sorted(self.adapters, key=lambda run: -self.whole[run]["correct"])
        self.rank = {run: rank for rank, run in enumerate(ranked)}
        self.several = len({model for model, _ in self.runs}) > 1
        self.execution = self.rows(accuracy[accuracy["questions"] == ALL])
        self.knowledge = self.rows(mmlu[mmlu["category"] == ALL])
        headline = self.tables["regression"]["category"] == ALL
        self.headline = self.rows(self.tables["regression"][headline])
        self.parts = self.rows(self.tables["regression"][~headline])
        for row in self.parts:
            row["measure"] = row["category"]
        self.pairs = {run: tuple(self.of(run, measure) for measure in (SQL, MMLU)) for run in self.rank}

    def rows(self, frame: pd.DataFrame) -> list[Row]:
        """Return a table's rows with the names and ranks of their runs."""
        return [
            row
            | {"name": self.name((row["model"], row["variant"])), "rank": self.rank.get((row["model"], row["variant"]))}
            for row in records(frame)
        ]

    def name(self, run: Run) -> str:
        """Return a run's name, with its model where there are several."""
        return " ".join(run) if self.several else run[1]

    def of(self, run: Run, measure: str) -> Row:
        return next(row for row in self.headline if (row["model"], row["variant"], row["measure"]) == (*run, measure))

    def all(self) -> dict[str, Any]:
        first, results = self.execution[0], self.results
        return {
            "settings": results.settings,
            "drawn": results.figures,
            "criterion": results.settings["semantics"],
            "level": first["confidence_level"],
            "alpha": (alpha := round(1 - first["confidence_level"], 4)),
            "alpha_digits": len(f"{alpha:g}".partition(".")[2]),
            "n": {SQL: int(first["n"]), MMLU: int(self.knowledge[0]["n"])},
            "sha256": {SQL: first["data_sha256"][:DIGITS], MMLU: self.knowledge[0]["data_sha256"][:DIGITS]},
            "databases": len(set(next(iter(results.records.values()))["db_id"])),
            "digits": DIGITS,
            "bases": [
                {"model": row["model"], "execution": row, "mmlu": knowledge}
                for row, knowledge in zip(self.execution, self.knowledge, strict=True)
                if row["variant"] == BASE
            ],
            "adapters": len(self.adapters),
            "abstract": [self.verdicts(measure) for measure in (SQL, MMLU)] if self.adapters else [],
            "data": self.data(),
            "models": self.models(),
            "training": self.training(),
            "units": {row["measure"]: row for row in reversed(self.headline)},
            "prompts": {
                task: [{"model": model, "text": facts["first_prompt"]} for model, facts in [*prompts.items()][:1]]
                for task, prompts in results.prompts.items()
            },
            "change": self.change(),
            "accuracy": self.accuracy(),
            "mmlu": self.mmlu(),
            "errors": self.errors(),
            "harness": self.harness(),
            "seeds": self.seeds(),
            "points": self.numbered(self.tables["points"]),
            "shots": self.shots(),
            "recommendation": self.recommendation(),
            "cost": self.cost(),
            "failures": self.failures(),
            "worth": self.worth(),
            "factors": self.factors(),
            "indistinct": self.indistinct(),
            "sampled": any(report["settings"].get("do_sample") for report in results.answers.values()),
            "reproducibility": self.reproducibility(),
        }

    def verdicts(self, measure: str) -> Row:
        rows = [row for row in self.headline if row["measure"] == measure]
        found = [VERDICTS[row["verdict"]] for row in rows]
        counts = {name: found.count(name) for name in ("better", "worse", "same")}
        return counts | {"measure": measure, "rows": rows, "few": any(row["unit"] == "question" for row in rows)}

    # -- methodology -----------------------------------------------------------------------------------------------

    def data(self) -> dict[str, Any]:
        manifests, train = self.results.manifests, self.results.train
        splits = [
            {"name": name, "rows": split["rows"], "databases": len(split["by_database"]), "sha256": split["sha256"]}
            | {"hardness": [split["by_hardness"][level] for level in HARDNESS]}
            for name, split in manifests["splits"]["splits"].items()
        ]
        return {
            "spider": manifests["spider"],
            "mmlu": manifests["mmlu_source"],
            "suite": manifests["suite"],
            "shots": manifests["splits"]["shots"],
            "splits": splits,
            "chosen_on_dev": manifests["splits"]["settings"]["validation"]["by"] == "dev",
            "base_has_own_prompts": BASE in self.results.settings["own_prompts"],
            "replay": manifests.get("replay"),
            "replay_source": manifests.get("replay_source"),
            "replaying": sum("replay" in report for report in train.values()),
        }

    def models(self) -> list[Row]:
        rows = []
        for model in self.results.models:
            runs = [report for (name, _, _), report in self.results.answers.items() if name == model["name"]]
            found = {
                "precisions": sorted({report["settings"]["precision"] for report in runs}),
                "batches": sorted({report["batch_size_used"] for report in runs}),
                "devices": sorted({report["device"] for report in runs}),
            }
            rows.append({key: model[key] for key in ("name", "source", "commit", "sha256")} | found)
        return rows

    def training(self) -> dict[str, Any]:
        train = self.results.train
        settings = {run: flat(report["settings"]) for run, report in train.items()}
        values: dict[str, list[str]] = {}
        for chosen in settings.values():
            for name, value in chosen.items():
                values.setdefault(name, [])
                values[name] += [value] if value not in values[name] else []
        if any("replay.fraction" not in chosen for chosen in settings.values()) and "replay.fraction" in values:
            values["replay.fraction"].insert(0, "0.0")
        rows = [
            {key: report[key] for key in ("rows", "steps", "trainable_parameters", "all_parameters")}
            | {"name": self.name(run), "rank": self.rank.get(run)}
            | {"loss": report["history"][-1]["loss"] if report["history"] else None}
            for run, report in train.items()
        ]
        audits = [{"model": model} | dict(audit) for model, audit in self.results.audits.items()]
        hyper = [{"name": setting_name(name), "value": "; ".join(found)} for name, found in values.items()]
        return {"hyperparameters": hyper, "rows": rows, "audits": audits}

    # -- results ---------------------------------------------------------------------------------------------------

    def change(self) -> dict[str, Any]:
        categories = {row["category"] for row in self.parts}
        return {
            "pairs": [self.pairs[run] for run in self.rank],
            "headline": self.headline,
            "parts": self.parts if len(categories) > 1 else [],
            "comparisons": {"headline": len(self.headline), "parts": len(self.parts)},
            "exchange": self.rows(self.tables["exchange"]),
        }

    def accuracy(self) -> dict[str, Any]:
        cells = {(row["model"], row["variant"], row["questions"]): row for row in records(self.tables[SQL])}
        levels = [level for level in HARDNESS if cells[*self.runs[0], level]["n"]]
        best = max(self.execution, key=lambda row: row["correct"])
        return {
            "rows": self.execution,
            "criteria": CRITERIA,
            "best": best if best["correct"] else None,
            "levels": [{"name": level, "n": cells[*self.runs[0], level]["n"]} for level in levels],
            "hardness": [
                row | {"parts": [cells[row["model"], row["variant"], level] for level in levels]}
                for row in self.execution
            ],
        }

    def mmlu(self) -> dict[str, Any]:
        frame, rows = self.tables[MMLU], self.knowledge
        cells = {(row["model"], row["variant"], row["category"]): row for row in records(frame)}
        names = [name for name in dict.fromkeys(frame["category"]) if name != ALL]
        names = names if 1 < len(names) <= MOST_CATEGORIES else []
        return {
            "rows": [row | {"parts": [cells[row["model"], row["variant"], name] for name in names]} for row in rows],
            "categories": [{"name": name, "n": cells[*self.runs[0], name]["n"]} for name in names],
            # Where all subjects have as many questions the two averages are one.
            "uneven": any(abs(row["macro_accuracy_pct"] - row["accuracy_pct"]) > 1e-6 for row in rows),
            "gap": max(abs(row["accuracy_pct"] - row["accuracy_generated_pct"]) for row in rows),
            "invalid": max(row["invalid_pct"] for row in rows),
        }

    def errors(self) -> dict[str, Any]:
        rows = self.rows(self.tables["errors"])
        classes = list(dict.fromkeys(row["error_class"] for row in rows if row["n"] > 0))
        counts = {(row["name"], row["error_class"]): int(row["n"]) for row in rows}
        runs = [{"name": row["name"], "rank": row["rank"]} for row in self.execution]
        for run in runs:
            run["counts"] = [counts.get((run["name"], name), 0) for name in classes]
        commonest = []
        for run in runs:
            wrong = [row for row in rows if row["name"] == run["name"] and row["error_class"] != "ok" and row["n"] > 0]
            commonest += [max(wrong, key=lambda row: row["n"])] if wrong else []
        return {"classes": classes, "rows": runs, "commonest": commonest}

    def harness(self) -> dict[str, Any] | None:
        """Return the tasks of lm-evaluation-harness, the least p first, and the differences by their verdict."""
        frame = self.tables.get("harness")
        if frame is None:
            return None
        rows = self.rows(frame.sort_values("p_holm", kind="stable"))
        key = ("model", "task", "metric", "filter")
        base = {tuple(row[name] for name in key): row for row in rows if row["variant"] == BASE}
        compared = [row for row in rows if not missing(row["p"])]
        for row in compared:
            row["rank"] = None
            scores = {"base_accuracy_pct": base[tuple(row[name] for name in key)]["score"]}
            scores |= {"tuned_accuracy_pct": row["score"], "difference_pp": row["difference"]}
            scores |= {"ci_low_pp": row["ci_low"], "ci_high_pp": row["ci_high"]}
            row |= {name: 100 * value for name, value in scores.items()}
        return {
            "version": rows[0]["lm_eval"],
            "base": list(base.values()),
            "compared": len(compared),
            "rows": compared[:MOST_TASKS],
            "most": MOST_TASKS,
            "by_verdict": {
                name: [row for row in compared if VERDICTS[row["verdict"]] == name]
                for name in ("worse", "better", "same")
            },
        }

    def seeds(self) -> list[Row]:
        frame = self.tables["seeds"]
        return self.numbered(frame.assign(variant=frame["setting"]))

    def numbered(self, frame: pd.DataFrame) -> list[Row]:
        """Return rows ranked in the order of the table."""
        return [row | {"rank": rank} for rank, row in enumerate(self.rows(frame))]

    def shots(self) -> dict[str, Any]:
        """Return the base with other few-shot examples: of each model the best number, of equals the fewest."""
        rows, own, best = self.numbered(self.tables["prompted"]), self.results.shots, []
        for model in list(dict.fromkeys(row["model"] for row in rows))[:3]:
            tried = {own: self.whole[model, BASE]["accuracy_pct"]}
            tried |= {int(row["shots"]): row["tuned_accuracy_pct"] for row in rows if row["model"] == model}
            shots = min(tried, key=lambda number: (-tried[number], number))
            found = {"model": model, "shots": shots, "accuracy_pct": tried[shots], "adapter": None}
            adapters = [run for run in self.rank if run[0] == model]
            if adapters:
                reached = self.whole[adapters[0]]["accuracy_pct"]
                found |= {"adapter": self.name(adapters[0]), "reached": reached, "difference": reached - tried[shots]}
            best.append(found)
        return {"rows": rows, "own": own, "best": best}

    def recommendation(self) -> dict[str, Any] | None:
        """Return, of each model, what is recommended, by which half, and what the other half says of it."""
        frame = self.tables.get("recommendation")
        if frame is None:
            return None
        rows = self.rows(frame)
        cap, models = rows[0]["max_loss_pp"], []
        for model in dict.fromkeys(frame["model"]):
            own = [row for row in rows if row["model"] == model]
            chosen = {(row["half"], row["measure"]): row for row in own if row["choice"] == RECOMMENDED}
            tried = [
                row for row in own if (row["half"], row["measure"]) == ("validation", SQL) and row["variant"] != BASE
            ]
            gain, loss = (chosen["report", measure] for measure in (SQL, MMLU))
            seen = chosen["validation", MMLU]["minimum_detectable_pp"]
            models.append(
                {"model": model, "candidates": len(tried), "base": gain["variant"] == BASE, "gain": gain, "loss": loss}
                | {"passed": sum(row["choice"] in (RECOMMENDED, GAINS_LESS) for row in tried)}
                | {"unseen": seen if missing(cap) and not missing(seen) else None}
            )
        n: dict[str, dict[str, int]] = {}
        for row in rows:
            n.setdefault(row["half"], {}).setdefault(row["measure"], row["n"])
        few = any(row["half"] == "report" and row["unit"] == "question" for row in rows)
        return {"n": n, "cap": None if missing(cap) else cap, "models": models, "few": few}

    def cost(self) -> dict[str, Any]:
        rows = [row | {"peak_gib": row["peak_memory_mib"] / 1024} for row in self.rows(self.tables["cost"])]
        return {"rows": rows, "devices": sorted({row["device"] for row in rows})}

    # -- error analysis and discussion -----------------------------------------------------------------------------

    def failures(self) -> list[dict[str, Any]]:
        """Return of each adapter, or of each base in a study without, its number of wrong answers and those chosen."""
        criterion, found = self.results.settings["semantics"], []
        for run in self.rank or self.runs:
            frame = self.results.records[run]
            base = self.results.records[run[0], BASE] if run[1] != BASE else None
            wrong = frame[frame[criterion] == 0]
            forgotten = None if base is None else int((aligned(base, frame)[criterion] == 1).loc[wrong.index].sum())
            cases = [
                {"rule": rule, "same_class": int((wrong["error_class"] == row.error_class).sum())} | row._asdict()
                for rule, row in choose_failures(frame, base, criterion)
            ]
            counts = {"n": len(frame), "wrong": len(wrong), "forgotten": forgotten}
            found.append({"name": self.name(run), "cases": cases} | counts)
        return found

    def worth(self) -> dict[str, Any]:
        """Return the adapters of each pair of verdicts that occurs, and whether a criterion changes a sign."""
        groups: dict[str, list[Run]] = {}
        for run in self.adapters:
            groups.setdefault("_".join(VERDICTS[row["verdict"]] for row in self.pairs[run]), []).append(run)
        exchange = {(row["model"], row["variant"]): row for row in records(self.tables["exchange"])}
        found = []
        for pair, runs in groups.items():
            gains, losses = zip(*(self.pairs[run] for run in runs), strict=True)
            rates = [exchange[run] for run in runs if run in exchange and not missing(exchange[run]["exchange_rate"])]
            low = min(row["ci_low_pp"] for row in losses)
            names = [self.name(run) for run in runs]
            found.append({"pair": pair, "names": names, "gains": gains, "losses": losses, "low": low, "rates": rates})
        changing = []
        for run in self.adapters:
            base, tuned = self.whole[run[0], BASE], self.whole[run]
            signs = [tuned[f"{name}_correct"] - base[f"{name}_correct"] for name in CRITERIA]
            changing += [self.name(run)] if min(signs) < 0 < max(signs) else []
        return {"groups": found, "changing": changing}

    def factors(self) -> dict[str, Any]:
        """Return the contrasts between adapters, the least p first; and what was meant to soften forgetting."""
        frame, seeds = self.tables["factors"], self.tables["seeds"]
        rows = [
            row | {"name": f"{row['model']} {setting_name(row['axis'])}" if self.several else setting_name(row["axis"])}
            for row in self.numbered(frame.assign(variant=frame["axis"]).sort_values("p_holm", kind="stable"))
        ]
        found = [row for row in rows if VERDICTS[row["verdict"]] != "same"]
        return {
            "rows": rows,
            "found": found,
            "rest": [row for row in rows if row not in found],
            "detectable": extremes(row["minimum_detectable_pp"] for row in rows),
            "seeds": extremes(seeds["sd_pp"]),
            "several": self.several,
            "mitigations": [
                row | {"verdict": VERDICTS[row["verdict"]]}
                for row in rows
                if row["measure"] == MMLU and row["axis"] in MITIGATIONS and float(row["low"]) < float(row["high"])
            ],
        }

    def indistinct(self) -> dict[str, Any]:
        headline, parts = (
            [row for row in rows if VERDICTS[row["verdict"]] == "same"] for rows in (self.headline, self.parts)
        )
        return {
            "rows": headline,
            "detectable": extremes(row["minimum_detectable_pp"] for row in headline),
            "parts": len(parts),
            "parts_detectable": extremes(row["minimum_detectable_pp"] for row in self.parts),
            "at_chance": any(row["measure"] == MMLU and missing(row["percent_change"]) for row in self.headline),
        }

    # -- reproducibility -------------------------------------------------------------------------------------------

    def reproducibility(self) -> dict[str, Any]:
        results = self.results
        reports = [*results.train.values(), *results.answers.values()]
        libraries: dict[str, set[str]] = {}
        for report in reports:
            for library, version in report.get("versions", {}).items():
                libraries.setdefault(library, set()).add(version)
        sampled = {str(r["settings"]["seed"]) for r in results.answers.values() if r["settings"].get("do_sample")}
        chosen = {"face": ("corrected", results.settings["face"]), "scale": ("full", results.settings["scale"])}
        return {
            "config": [f"{key}={value}" for key, (usual, value) in chosen.items() if value != usual],
            "seeds": {
                "splits": results.manifests["splits"]["settings"]["seed"],
                "mmlu": results.manifests["suite"]["settings"]["seed"],
                "training": sorted({flat(report["settings"])[SEED] for report in results.train.values()}),
                "sampling": sorted(sampled),
            },
            "hashes": [row for row in self.hashes() if row["sha256"]],
            "libraries": [{"name": name, "versions": sorted(found)} for name, found in sorted(libraries.items())],
            "different": any(len(found) > 1 for found in libraries.values()) or len({r["device"] for r in reports}) > 1,
        }

    def hashes(self) -> Iterable[Row]:
        def row(kind: str, sha256: str | None, name: str = "", model: str = "", rank: int | None = None) -> Row:
            return {"kind": kind, "sha256": sha256, "name": name, "model": model, "rank": rank}

        results = self.results
        yield row("archive", results.manifests["spider"]["archive_sha256"])
        yield row("mmlu_archive", results.manifests["mmlu_source"].get("archive_sha256"))
        for name, split in results.manifests["splits"]["splits"].items():
            yield row("split", split["sha256"], name)
        yield row("suite", results.manifests["suite"]["sha256"])
        for model in results.models:
            yield row("model", model["sha256"], model["name"])
        prompts = {}
        for (model, variant, task), report in results.answers.items():
            own = task == "predict_spider" and variant in results.settings["own_prompts"]
            kind = "own_prompts" if own else "spider_prompts" if task == "predict_spider" else "mmlu_prompts"
            prompts[kind, model, variant if own else ""] = report["prompts_sha256"]
        for (kind, model, variant), sha256 in prompts.items():
            yield row(kind, sha256, variant, model)
        for run, report in results.train.items():
            sha256 = report.get("adapter_sha256", {}).get("adapter_model.safetensors")
            yield row("adapter", sha256, self.name(run), rank=self.rank.get(run))


def records(frame: pd.DataFrame) -> list[Row]:
    """Return a table's rows as dicts."""
    return frame.to_dict("records")


def extremes(values: Iterable[float]) -> tuple[float, float] | None:
    """Return the least and the greatest of the values that are there; None if there are none."""
    found = [value for value in values if not missing(value)]
    return (min(found), max(found)) if found else None


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as one level of text, the keys joined by dots."""
    result = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return result


def setting_name(axis: str) -> str:
    """Return the name of a setting as PEFT or TRL has it, without its section; those of replay keep theirs."""
    return axis.removeprefix("lora.").removeprefix("training.")
