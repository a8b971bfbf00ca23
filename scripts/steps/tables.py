"""Put all records of a study into tables: what each run got right, and what every adapter changed against its base."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import _path  # noqa: F401
from common.files import UserError, atomic_write, sha256_json
from common.job import job
from custom_metrics.judge import ERROR_CLASSES, SEMANTICS
from custom_metrics.stats import (
    Estimate,
    cluster_bootstrap,
    clustered_difference,
    detectable,
    fieller,
    holm,
    mcnemar,
    mean_of_proportions,
    minimum_detectable_difference,
    percent_change,
    replicates,
    wilson_interval,
)
from present import catalogue
from present.format import Say
from present.tables import shared_facts, to_markdown
from present.values import (
    ALL,
    BASE,
    GOLD_EMPTY,
    GOLD_NOT_EMPTY,
    HARDNESS,
    SAME,
    SEED,
    is_point,
    is_prompted,
)
from tasks.records import MMLU_COLUMNS, SPIDER_COLUMNS, read_records

CHANCE = {"execution_accuracy": 0.0, "mmlu": 0.25}
# With fewer databases or subjects than this their differences from each other are hardly known: the interval would be
# several times as wide, and most studies of one subject a category could say nothing. So their conclusions are about
# these databases or subjects alone, and the questions are what is drawn.
FEWEST_CLUSTERS = 5
# All pairs of so many levels of a setting are compared.
MOST_LEVELS = 4
SPIDER_QUESTION = ["id", "db_id", "hardness", "question", "gold"]
MMLU_QUESTION = ["id", "subject", "category", "answer"]
SPIDER_COUNTED = [*SEMANTICS, *(f"{name}_raw" for name in SEMANTICS), "error_class", "gold_rows"]
MMLU_COUNTED = ["correct", "correct_generated", "generated_letter"]
TABLES = [table.key for table in catalogue.TABLES if table.rule == "tables"]
# What a table without a column `measure` is about.
MEASURE = dict.fromkeys(TABLES, "execution_accuracy") | {"mmlu": "mmlu"}


def tables(
    spider: Sequence[str | Path],
    mmlu: Sequence[str | Path],
    outputs: Mapping[str, str | Path],
    study: str,
    runs: Sequence[Mapping],
    confidence_level: float,
    semantics: str = "bag",
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
    language: str = "en",
) -> None:
    """Write the tables, each as CSV (the truth: full precision) and as Markdown (the same, to be read).

    Args:
        spider, mmlu: records of each run, in the order of `runs`.
        outputs: a path for each name in `TABLES`, and for each with `_md`.
        study: the study's name, for the headings.
        runs: of each run `model`, `variant` and `settings` (the swept values of an adapter, {} for the base); of a
            point that `evaluation` adds, also `point` (see `study.config.points`), and beside points of the base its
            own number of `shots`.
        confidence_level: of all intervals and verdicts, such as 0.95.
        semantics: the headline's, one of `custom_metrics.judge.SEMANTICS`; the comparison with the base follows it.
        known_defects, accept_defect: what is said of the method, and which failures of the audit it ran with; they
            stand under every table.
        language: of the Markdown pages.

    Raises:
        UserError: the records of two runs are not about the same questions, or a model has no base run.
    """
    runs = list(runs)
    if not len(runs) == len(spider) == len(mmlu):
        raise UserError(
            f"tables: found {len(spider)} and {len(mmlu)} record files, expected one of each of {len(runs)} runs."
        )
    axes, heads = heads_of(runs)
    spider_frames = read_same(spider, SPIDER_COLUMNS, SPIDER_QUESTION, SPIDER_COUNTED)
    mmlu_frames = read_same(mmlu, MMLU_COLUMNS, MMLU_QUESTION, MMLU_COUNTED)
    if ALL in set(mmlu_frames[0]["category"]):
        raise UserError(
            f"config, mmlu.categories: {ALL} is the name of the row over all categories. Choose another name."
        )
    hashes = {
        "execution_accuracy": sha256_json(spider_frames[0][SPIDER_QUESTION].values.tolist()),
        "mmlu": sha256_json(mmlu_frames[0][MMLU_QUESTION].values.tolist()),
    }
    right = {
        "execution_accuracy": np.array([frame[semantics] for frame in spider_frames], dtype=np.int8),
        "mmlu": np.array([frame["correct"] for frame in mmlu_frames], dtype=np.int8),
    }
    parts = [*spider_parts(spider_frames[0]), *mmlu_parts(mmlu_frames[0])]
    bases = base_of(heads)
    trained = {number: base for number, base in bases.items() if "point" not in runs[number]}
    about = {"execution_accuracy": semantics, "mmlu": ""}
    level = confidence_level

    comparisons, estimates = regression_rows(heads, bases, parts, right, hashes, level)
    frames = {
        "regression": comparisons,
        "exchange": exchange_rows(heads, bases, comparisons, estimates, level),
        "factors": factor_rows(heads, axes, trained, parts, right, level),
        "seeds": seed_rows(heads, axes, trained, parts, right, level),
        "execution_accuracy": with_heads(heads, (spider_rows(f, level, semantics) for f in spider_frames)),
        "databases": database_rows(heads, bases, parts, right, level),
        "mmlu": with_macro_differences(
            with_heads(heads, (mmlu_rows(frame, level) for frame in mmlu_frames)), heads, bases, parts, right, level
        ),
        "errors": with_heads(heads, map(error_rows, spider_frames)),
        "flips": flip_rows(heads, bases, parts, right),
        "confusion": confusion_rows(heads, bases, spider_frames),
    }
    for name, frame in frames.items():
        measures = frame["measure"] if "measure" in frame else pd.Series(MEASURE.get(name), index=frame.index)
        if name not in ("mmlu", "errors", "confusion"):
            frame["semantics"] = measures.map(about)
        frame["data_sha256"] = measures.map(hashes)
        frame["confidence_level"] = level
    frames["exchange"]["data_sha256"] = " ".join(hashes.values())

    say = Say(language)
    facts = shared_facts(study, frames["execution_accuracy"], frames["mmlu"], say)
    facts |= {"known_defects": known_defects, "accept_defect": accept_defect}
    for name in TABLES:
        with atomic_write(outputs[name]) as stream:
            frames[name].to_csv(stream, index=False, lineterminator="\n", float_format="%.10g")
        with atomic_write(outputs[f"{name}_md"]) as stream:
            stream.write(to_markdown(name, frames[name], facts, say))


def heads_of(runs: Sequence[Mapping]) -> tuple[list[str], list[dict]]:
    """Return the swept settings, and the first columns of each run: model, variant, settings, and what a point is."""
    axes = list(dict.fromkeys(axis for run in runs for axis in run["settings"]))
    heads = [
        {"model": run["model"], "variant": run["variant"]} | {axis: plain(run["settings"].get(axis)) for axis in axes}
        for run in runs
    ]
    if any("point" in run for run in runs):
        for run, head in zip(runs, heads, strict=True):
            point = run.get("point", {})
            head |= {"of": " ".join(point.get("of", [])), "strength": point.get("strength"), "step": point.get("step")}
            head["shots"] = point.get("shots", run.get("shots"))
    return axes, heads


def plain(value: object) -> object:
    """Return a setting as it stands in a table: a list joined by +, a number without exponent."""
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.10f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def read_same(
    paths: Sequence[str | Path], columns: Sequence[str], question: list[str], others: list[str] | None = None
) -> list[pd.DataFrame]:
    """Read the records of all runs, each in the order of the first file.

    Of the columns that are not about the question only `others` are kept, if they are given: answers are most of the
    records, and a study may have hundreds of runs.

    Raises:
        UserError: a file is not about the questions of the first; the message names the file and what differs.
    """
    frames = []
    for path in paths:
        frame = read_records(path, columns)
        first = frames[0] if frames else frame
        if first.empty:
            raise UserError(f"{path}: has no records, expected one a question.")
        expected, found = set(first["id"]), set(frame["id"])
        if expected != found:
            raise UserError(
                f"{path}: lacks {listed(expected - found)} and has {listed(found - expected)} against {paths[0]}. All "
                "runs must answer the same questions: run the scoring rules again."
            )
        if frame["id"].tolist() != first["id"].tolist():
            frame = frame.set_index("id", drop=False).loc[first["id"]].reset_index(drop=True)
        for column in question:
            different = frame.loc[frame[column] != first[column], "id"]
            if len(different):
                raise UserError(f"{path}, {column} of {different.iloc[0]}: differs from {paths[0]}. Score both again.")
        frame[question] = first[question]
        frames.append(frame if others is None else frame[[*question, *others]])
    return frames


def listed(ids: set[str]) -> str:
    """Return "no question", or how many and the first few."""
    return (
        f"{len(ids)} questions ({', '.join(sorted(ids)[:3])}{', …' if len(ids) > 3 else ''})" if ids else "no question"
    )


class Part(NamedTuple):
    """Some questions of one measure, and what is drawn at random with them."""

    measure: str
    part: str  # aggregate, hardness, database, category or subject
    value: str
    chosen: np.ndarray  # the questions, as positions
    clusters: int  # how many databases or subjects they are of
    unit: str  # database, subject or question: what a conclusion takes as drawn
    codes: np.ndarray  # of each question the number of its unit, from 0
    sizes: np.ndarray  # of each unit its number of questions
    subjects: np.ndarray  # of each question the number of its database or subject, from 0


def cluster_of(names: pd.Series) -> str:
    """Return what a column of records names: database or subject."""
    return names.name.removesuffix("_id").replace("db", "database")


def part_of(measure: str, part: str, value: str, chosen: np.ndarray, names: pd.Series) -> Part:
    """Return a part; its units are its databases or subjects if it has at least `FEWEST_CLUSTERS`, or its questions."""
    codes, found = pd.factorize(names.to_numpy()[chosen])
    subjects, unit = codes, cluster_of(names)
    if len(found) < FEWEST_CLUSTERS:
        unit, codes = "question", np.arange(len(chosen))
    return Part(measure, part, value, chosen, len(found), unit, codes, np.bincount(codes), subjects)


def spider_parts(frame: pd.DataFrame) -> Iterator[Part]:
    """Yield all Spider questions, each level of hardness and each database, those without questions left out."""
    yield part_of("execution_accuracy", ALL, ALL, np.arange(len(frame)), frame["db_id"])
    for column, values in (("hardness", HARDNESS), ("db_id", sorted(set(frame["db_id"])))):
        for value in values:
            chosen = np.flatnonzero(frame[column] == value)
            if len(chosen):
                name = "hardness" if column == "hardness" else "database"
                yield part_of("execution_accuracy", name, value, chosen, frame["db_id"])


def mmlu_parts(frame: pd.DataFrame) -> Iterator[Part]:
    """Yield all MMLU questions, each category and each subject, in the order of the questions."""
    yield part_of("mmlu", ALL, ALL, np.arange(len(frame)), frame["subject"])
    for column in ("category", "subject"):
        for value in dict.fromkeys(frame[column]):
            yield part_of("mmlu", column, value, np.flatnonzero(frame[column] == value), frame["subject"])


def base_of(heads: Sequence[Mapping]) -> dict[int, int]:
    """Return the position of each adapter's base run, by the adapter's position.

    Raises:
        UserError: a model has adapters and no base run.
    """
    bases = {head["model"]: number for number, head in enumerate(heads) if head["variant"] == BASE}
    for head in heads:
        if head["model"] not in bases:
            raise UserError(
                f"tables: {head['model']} has adapters and no run called {BASE}, which they are compared with."
            )
    return {number: bases[head["model"]] for number, head in enumerate(heads) if head["variant"] != BASE}


def answered_apart(heads: Sequence[Mapping], bases: Mapping[int, int], measure: str) -> dict[int, int]:
    """Return the part of `bases` whose answers are not the base's own: it answered MMLU with its one prompt each."""
    return {number: base for number, base in bases.items() if measure != "mmlu" or heads[number].get("of") != BASE}


def with_heads(heads: Sequence[dict], rows: Iterator[list[dict]]) -> pd.DataFrame:
    """Return one table of the rows of each run, each with its run."""
    return pd.DataFrame([head | row for head, part in zip(heads, rows, strict=True) for row in part])


def proportion(correct: int, n: int, level: float, prefix: str = "") -> dict:
    """Return n, correct, accuracy in percent and its Wilson interval in percent."""
    low, high = wilson_interval(correct, n, level)
    accuracy = 100.0 * correct / n if n else None
    return {"n": n, "correct": correct, "accuracy_pct": accuracy} | bounds(low, high, prefix)


def bounds(low: float, high: float, prefix: str = "", suffix: str = "") -> dict:
    """Return an interval in percent or percentage points."""
    return {f"{prefix}ci_low{suffix}": 100 * low, f"{prefix}ci_high{suffix}": 100 * high}


def spider_rows(frame: pd.DataFrame, level: float, semantics: str) -> list[dict]:
    """Return one run's rows of the table of execution accuracy: all questions, then parts of them.

    The parts are the levels of hardness and the questions whose gold query has rows, and has none; a part without
    questions has n 0. n, correct, accuracy and interval are of the headline's semantics; then every semantics has its
    own columns, for the SQL taken out of the answer and, with `_raw`, for the answer as it is.
    """
    empty, hardness = frame["gold_rows"].to_numpy() == 0, frame["hardness"].to_numpy()
    parts = {ALL: empty | True} | {name: hardness == name for name in HARDNESS}
    columns = [f"{name}{raw}" for raw in ("", "_raw") for name in SEMANTICS]
    values = frame[columns].to_numpy()
    rows = []
    for name, chosen in (parts | {GOLD_NOT_EMPTY: ~empty, GOLD_EMPTY: empty}).items():
        sums, n = dict(zip(columns, values[chosen].sum(axis=0).tolist(), strict=True)), int(chosen.sum())
        row = {"questions": name, "semantics": semantics} | proportion(sums[semantics], n, level)
        for column in columns:
            row |= {f"{column}_correct": sums[column], f"{column}_pct": 100.0 * sums[column] / n if n else None}
        rows.append(row)
    return rows


def database_rows(
    heads: Sequence[dict],
    bases: Mapping[int, int],
    parts: Sequence[Part],
    right: Mapping[str, np.ndarray],
    level: float,
) -> pd.DataFrame:
    """Return the accuracy of each run on each database, and what its base had there."""
    rows = []
    for number, head in enumerate(heads):
        for part in parts:
            if part.part != "database":
                continue
            of_run = right[part.measure][number, part.chosen]
            row = {"db_id": part.value} | proportion(int(of_run.sum()), len(of_run), level)
            if number in bases:
                before = right[part.measure][bases[number], part.chosen]
                row |= {"base_correct": int(before.sum()), **gains(before, of_run)}
            rows.append(head | row)
    frame = pd.DataFrame(rows, columns=[*heads[0], *proportion_columns("db_id"), *DATABASE_CHANGE])
    return frame.astype(dict.fromkeys(("base_correct", "gained", "lost"), "Int64"))


DATABASE_CHANGE = ("base_correct", "difference_pp", "gained", "lost")


def proportion_columns(*first: str) -> list[str]:
    """Return the names of the columns of `proportion`, behind others."""
    return [*first, "n", "correct", "accuracy_pct", "ci_low", "ci_high"]


def gains(before: np.ndarray, after: np.ndarray) -> dict:
    """Return the difference in percentage points, and how many questions were gained and lost."""
    gained, lost = int((after > before).sum()), int((after < before).sum())
    return {"difference_pp": 100.0 * (gained - lost) / len(before), "gained": gained, "lost": lost}


def error_rows(frame: pd.DataFrame) -> list[dict]:
    """Return one run's rows of the table of errors: each class in the order of `ERROR_CLASSES`, with how often."""
    counts = frame["error_class"].value_counts()
    return [
        {"error_class": name, "n": int(counts.get(name, 0)), "share_pct": 100.0 * int(counts.get(name, 0)) / len(frame)}
        | {"questions": len(frame)}
        for name in ERROR_CLASSES
    ]


def mmlu_rows(frame: pd.DataFrame, level: float) -> list[dict]:
    """Return one run's rows of the MMLU table: all questions, then each category, in the order of the questions."""
    rows = []
    for category in [ALL, *dict.fromkeys(frame["category"])]:
        part = frame if category == ALL else frame[frame["category"] == category]
        n = len(part)
        generated, invalid = int(part["correct_generated"].sum()), int((part["generated_letter"] == "").sum())
        rows.append(
            {"category": category}
            | proportion(int(part["correct"].sum()), n, level)
            | macro(part, level)
            | {"correct_generated": generated, "accuracy_generated_pct": 100.0 * generated / n}
            | bounds(*wilson_interval(generated, n, level), "generated_")
            | {"invalid": invalid, "invalid_pct": 100.0 * invalid / n}
            | bounds(*wilson_interval(invalid, n, level), "invalid_")
        )
    return rows


def macro(frame: pd.DataFrame, level: float) -> dict:
    """Return the mean of the subjects' accuracies in percent (macro average), with its interval."""
    by_subject = frame.groupby("subject", sort=False)["correct"].agg(["sum", "size"])
    mean, low, high = mean_of_proportions(by_subject["sum"].tolist(), by_subject["size"].tolist(), level)
    return {"subjects": len(by_subject), "macro_accuracy_pct": 100 * mean} | bounds(low, high, "macro_")


def with_macro_differences(
    frame: pd.DataFrame,
    heads: Sequence[dict],
    bases: Mapping[int, int],
    parts: Sequence[Part],
    right: Mapping[str, np.ndarray],
    level: float,
) -> pd.DataFrame:
    """Return the MMLU table with the difference of each macro average to the base's.

    Each question weighs so much that all subjects of a part weigh alike; what is drawn at random is as in the
    comparison of all questions.
    """
    found = {}
    averaged = [part for part in parts if part.measure == "mmlu" and part.part in (ALL, "category")]
    for number, part in itertools.product(bases, averaged):
        change = (right["mmlu"][number] - right["mmlu"][bases[number]])[part.chosen]
        sizes = np.bincount(part.subjects)
        weights = len(change) / len(sizes) / sizes[part.subjects]
        sums, units = np.bincount(part.codes, weights * change), np.bincount(part.codes, weights)
        estimate = clustered_difference(sums, units, level)
        found[heads[number]["model"], heads[number]["variant"], part.value] = {
            "macro_difference_pp": 100 * (weights * change).mean()
        } | bounds(estimate.low, estimate.high, "macro_difference_", "_pp")
    rows = [found.get(key, {}) for key in zip(frame["model"], frame["variant"], frame["category"], strict=True)]
    columns = ("macro_difference_pp", "macro_difference_ci_low_pp", "macro_difference_ci_high_pp")
    return frame.join(pd.DataFrame(rows, index=frame.index, columns=columns, dtype=float))


COMPARED = (
    "measure", "category", "n", "base_correct", "tuned_correct", "base_accuracy_pct", "tuned_accuracy_pct",
    "difference_pp", "ci_low_pp", "ci_high_pp", "bootstrap_low_pp", "bootstrap_high_pp", "percent_change", "gained",
    "lost", "p_mcnemar", "p_mcnemar_holm", "p_clustered", "p_holm", "minimum_detectable_pp", "verdict", "unit",
    "clusters",
)  # fmt: skip


def regression_rows(
    heads: Sequence[dict],
    bases: Mapping[int, int],
    parts: Sequence[Part],
    right: Mapping[str, np.ndarray],
    hashes: Mapping[str, str],
    level: float,
) -> tuple[pd.DataFrame, dict[tuple[int, str], Estimate]]:
    """Compare each adapter with the base of its model, question by question.

    The p values are adjusted (Holm) within two families: the headline (execution accuracy and aggregate MMLU of all
    adapters) and the categories of MMLU of all adapters. The points that `evaluation` adds are exploratory and have two
    such families of their own, and one for the base with other prompts: one point more changes no verdict of an
    adapter. The verdict follows the adjusted p of the clustered test, and of McNemar's where the unit is the question.

    Returns:
        The table, and the estimate behind each aggregate row, by the adapter's position and the measure.
    """
    rows, estimates = {}, {}
    for order, part in enumerate(part for part in parts if part.part in (ALL, "category")):
        compared = answered_apart(heads, bases, part.measure)
        differences = {
            number: right[part.measure][number, part.chosen] - right[part.measure][base, part.chosen]
            for number, base in compared.items()
        }
        if not differences:
            continue
        sums = np.array([np.bincount(part.codes, row) for row in differences.values()])
        clustered = part.unit != "question"
        drawn = np.full((2, len(sums)), np.nan)
        if clustered:
            drawn = np.array(cluster_bootstrap(sums, part.sizes, level, int(hashes[part.measure][:16], 16)))
        for (number, base), of_units, (draw_low, draw_high) in zip(compared.items(), sums, drawn.T, strict=True):
            before, after = (right[part.measure][run, part.chosen] for run in (base, number))
            estimate = clustered_difference(of_units, part.sizes, level)
            if part.part == ALL:
                estimates[number, part.measure] = estimate
            n, k_before, k_after, change = len(before), int(before.sum()), int(after.sum()), gains(before, after)
            p = mcnemar(change["gained"], change["lost"])
            least = (
                detectable(estimate, level)
                if clustered
                else minimum_detectable_difference(change["gained"], change["lost"], n, level)
            )
            rows[number, order] = heads[number] | {
                "measure": part.measure,
                "category": part.value,
                "n": n,
                "base_correct": k_before,
                "tuned_correct": k_after,
                "base_accuracy_pct": 100.0 * k_before / n,
                "tuned_accuracy_pct": 100.0 * k_after / n,
                **bounds(estimate.low, estimate.high, suffix="_pp"),
                "bootstrap_low_pp": 100 * draw_low,
                "bootstrap_high_pp": 100 * draw_high,
                "percent_change": percent_change(k_before, k_after, n, CHANCE[part.measure], level),
                **change,
                "p_mcnemar": p,
                "p_clustered": estimate.p if clustered else None,
                "p": estimate.p if clustered else p,
                "minimum_detectable_pp": None if least is None else 100.0 * least,
                "unit": part.unit,
                "clusters": part.clusters,
            }
    frame = pd.DataFrame([rows[key] for key in sorted(rows)], columns=[*heads[0], *COMPARED, "p"])
    headline, point, prompted = frame["category"] == ALL, is_point(frame), is_prompted(frame)
    own = point & ~prompted
    for family in (headline & ~point, ~headline & ~point, headline & own, ~headline & own, prompted):
        adjust(frame, family, "p", "p_holm")
        adjust(frame, family, "p_mcnemar", "p_mcnemar_holm")
    frame["verdict"] = verdicts(frame, level, "better", "worse")
    return frame.drop(columns="p"), estimates


def adjust(frame: pd.DataFrame, family: pd.Series, p: str, adjusted: str) -> None:
    """Write the p values of a family of rows, adjusted by Holm's method, into a column."""
    frame.loc[family, adjusted] = holm(frame.loc[family, p].tolist())
    frame[adjusted] = frame[adjusted].astype(float)


def verdicts(frame: pd.DataFrame, level: float, up: str, down: str, difference: str = "difference_pp") -> list[str]:
    """Return what each row's adjusted p lets one say of the sign of its difference."""
    return [
        SAME if p >= 1 - level else up if pp > 0 else down
        for p, pp in zip(frame["p_holm"], frame[difference], strict=True)
    ]


EXCHANGED = (
    "gain_pp", "gain_ci_low_pp", "gain_ci_high_pp", "loss_pp", "loss_ci_low_pp", "loss_ci_high_pp",
    "exchange_rate", "ci_low", "ci_high", "note", "n_spider", "n_mmlu",
)  # fmt: skip


def exchange_rows(
    heads: Sequence[dict],
    bases: Mapping[int, int],
    comparisons: pd.DataFrame,
    estimates: Mapping[tuple[int, str], Estimate],
    level: float,
) -> pd.DataFrame:
    """Return how many points of MMLU each adapter lost for one point of execution accuracy gained.

    A base model with other prompts can lose none and is left out. No rate where a gain is not shown (by the adjusted p
    of the regression table, and by Fieller's interval).
    """
    whole = comparisons[comparisons["category"] == ALL]
    gain_rows = dict(zip(bases, whole[whole["measure"] == "execution_accuracy"].to_dict("records"), strict=True))
    loss_rows = whole[whole["measure"] == "mmlu"].to_dict("records")
    rows = []
    for number, loss in zip(answered_apart(heads, bases, "mmlu"), loss_rows, strict=True):
        gain = gain_rows[number]
        learned, changed = estimates[number, "execution_accuracy"], estimates[number, "mmlu"]
        forgotten = changed._replace(centre=-changed.centre)
        interval = fieller(forgotten, learned, level) if gain["verdict"] == "better" else None
        note = ""
        if interval is None:
            note = "execution accuracy fell" if gain["verdict"] == "worse" else "gain not distinguishable from 0"
        rows.append(
            heads[number]
            | {
                "gain_pp": gain["difference_pp"],
                **bounds(learned.low, learned.high, "gain_", "_pp"),
                "loss_pp": 0.0 - loss["difference_pp"],
                **bounds(-changed.high, -changed.low, "loss_", "_pp"),
                "exchange_rate": None if interval is None else (0.0 - loss["difference_pp"]) / gain["difference_pp"],
                "ci_low": None if interval is None else interval[0],
                "ci_high": None if interval is None else interval[1],
                "note": note,
                "n_spider": gain["n"],
                "n_mmlu": loss["n"],
            }
        )
    return pd.DataFrame(rows, columns=[*heads[0], *EXCHANGED])


FACTORS = (
    "model", "axis", "low", "high", "pairs", "measure", "n", "low_accuracy_pct", "high_accuracy_pct", "difference_pp",
    "ci_low_pp", "ci_high_pp", "p", "p_holm", "minimum_detectable_pp", "verdict", "unit", "clusters",
)  # fmt: skip


def factor_rows(
    heads: Sequence[dict],
    axes: Sequence[str],
    trained: Mapping[int, int],
    parts: Sequence[Part],
    right: Mapping[str, np.ndarray],
    level: float,
) -> pd.DataFrame:
    """Compare the levels of each swept setting, averaged over the adapters that are alike in all others.

    Seeds are averaged over and no factor themselves. Of more than `MOST_LEVELS` levels each is compared with the first
    alone: all pairs would leave the adjusted p values no power. The family of these (Holm) is this table.
    """
    rows = []
    for model in dict.fromkeys(head["model"] for head in heads):
        adapters = [number for number in trained if heads[number]["model"] == model]
        for axis in axes:
            levels = list(dict.fromkeys(heads[i][axis] for i in adapters))
            if axis == SEED or len(levels) < 2:
                continue
            by_rest: dict[tuple, dict[str, int]] = {}
            for i in adapters:
                by_rest.setdefault(tuple(heads[i][a] for a in axes if a != axis), {})[heads[i][axis]] = i
            pairs = itertools.combinations(levels, 2)
            if len(levels) > MOST_LEVELS:
                pairs = ((levels[0], other) for other in levels[1:])
            for low, high in pairs:
                runs = [(of[low], of[high]) for of in by_rest.values() if low in of and high in of]
                for part in parts:
                    if part.part == ALL and runs:
                        head = {"model": model, "axis": axis, "low": low, "high": high, "pairs": len(runs)}
                        rows.append(head | contrast(part, right[part.measure], runs, level))
    frame = pd.DataFrame(rows, columns=FACTORS)
    adjust(frame, frame["p"].notna(), "p", "p_holm")
    frame["verdict"] = verdicts(frame, level, "higher", "lower")
    return frame


def contrast(part: Part, right: np.ndarray, pairs: Sequence[tuple[int, int]], level: float) -> dict:
    """Return the difference of the second of each pair of runs to the first, averaged over the pairs."""
    low, high = (right[[pair[side] for pair in pairs]][:, part.chosen].mean(axis=0) for side in (0, 1))
    estimate = clustered_difference(np.bincount(part.codes, high - low), part.sizes, level)
    p = estimate.p
    if part.unit == "question" and len(pairs) == 1:
        p = mcnemar(int((high > low).sum()), int((high < low).sum()))
    least = detectable(estimate, level)
    return {
        "measure": part.measure,
        "n": len(part.chosen),
        "low_accuracy_pct": 100.0 * low.mean(),
        "high_accuracy_pct": 100.0 * high.mean(),
        "difference_pp": 100.0 * (high - low).mean(),
        **bounds(estimate.low, estimate.high, suffix="_pp"),
        "p": p,
        "minimum_detectable_pp": None if least is None else 100.0 * least,
        "unit": part.unit,
        "clusters": part.clusters,
    }


SEEDS = (
    "measure", "seeds", "n", "mean_accuracy_pct", "mean_difference_pp", "ci_low_pp", "ci_high_pp", "sd_pp",
    "min_accuracy_pct", "max_accuracy_pct", "seed_sd_pp", "question_sd_pp", "seed_share_pct", "p", "p_holm", "verdict",
    "unit", "clusters",
)  # fmt: skip


def seed_rows(
    heads: Sequence[dict],
    axes: Sequence[str],
    trained: Mapping[int, int],
    parts: Sequence[Part],
    right: Mapping[str, np.ndarray],
    level: float,
) -> pd.DataFrame:
    """Put adapters that differ in their seed alone together: their mean against the base, and how they spread."""
    others = [axis for axis in axes if axis != SEED]
    groups: dict[tuple, list[int]] = {}
    for number in trained:
        groups.setdefault((heads[number]["model"], *(heads[number][axis] for axis in others)), []).append(number)
    rows = []
    for key, members in groups.items():
        if SEED not in axes or len(members) < 2:
            continue
        seed = heads[members[0]][SEED]
        setting = heads[members[0]]["variant"].removesuffix(f"seed{seed}").rstrip("-") or "adapter"
        head = {"model": key[0], "setting": setting} | dict(zip(others, key[1:], strict=True))
        for part in parts:
            if part.part != ALL:
                continue
            answers = right[part.measure]
            found = replicates(answers[members] - answers[trained[members[0]]], part.codes, level)
            accuracy = 100.0 * answers[members].mean(axis=1)
            variances = found.seed_sd**2, found.question_sd**2
            rows.append(
                head
                | {
                    "measure": part.measure,
                    "seeds": len(members),
                    "n": len(part.chosen),
                    "mean_accuracy_pct": accuracy.mean(),
                    "mean_difference_pp": accuracy.mean() - 100.0 * answers[trained[members[0]]].mean(),
                    **bounds(found.mean.low, found.mean.high, suffix="_pp"),
                    "sd_pp": accuracy.std(ddof=1),
                    "min_accuracy_pct": accuracy.min(),
                    "max_accuracy_pct": accuracy.max(),
                    "seed_sd_pp": 100.0 * found.seed_sd,
                    "question_sd_pp": 100.0 * found.question_sd,
                    "seed_share_pct": 100.0 * variances[0] / sum(variances),
                    "p": found.mean.p,
                    "unit": part.unit,
                    "clusters": part.clusters,
                }
            )
    frame = pd.DataFrame(rows, columns=["model", "setting", *others, *SEEDS])
    adjust(frame, frame["p"].notna(), "p", "p_holm")
    frame["verdict"] = verdicts(frame, level, "better", "worse", "mean_difference_pp")
    return frame


def flip_rows(
    heads: Sequence[dict], bases: Mapping[int, int], parts: Sequence[Part], right: Mapping[str, np.ndarray]
) -> pd.DataFrame:
    """Count, for each adapter and part of the questions, the answers that its base and it have right and wrong."""
    rows = []
    for number, base in bases.items():
        for part in (part for part in parts if number in answered_apart(heads, bases, part.measure)):
            before, after = (right[part.measure][run, part.chosen] for run in (base, number))
            both = int((before & after).sum())
            change = gains(before, after)
            rows.append(
                heads[number]
                | {"measure": part.measure, "part": part.part, "value": part.value, "n": len(before)}
                | {"both_right": both, "gained": change["gained"], "lost": change["lost"]}
                | {"both_wrong": len(before) - both - change["gained"] - change["lost"]}
            )
    counted = ("measure", "part", "value", "n", "both_right", "gained", "lost", "both_wrong")
    return pd.DataFrame(rows, columns=[*heads[0], *counted])


def confusion_rows(heads: Sequence[dict], bases: Mapping[int, int], spider: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Count, for each adapter, how its base's class of each answer became its own; only what occurs."""
    classes = [
        pd.Categorical(frame["error_class"], categories=ERROR_CLASSES).codes.astype(np.int64) for frame in spider
    ]
    size = len(ERROR_CLASSES)
    rows = []
    for number, base in bases.items():
        counts = np.bincount(classes[base] * size + classes[number], minlength=size * size)
        rows += [
            heads[number]
            | {"base_class": ERROR_CLASSES[cell // size], "tuned_class": ERROR_CLASSES[cell % size]}
            | {"n": int(counts[cell]), "questions": len(classes[base])}
            for cell in np.flatnonzero(counts)
        ]
    return pd.DataFrame(rows, columns=[*heads[0], "base_class", "tuned_class", "n", "questions"])


if __name__ == "__main__":
    with job(snakemake.log[0]):
        tables(
            spider=snakemake.input.spider,
            mmlu=snakemake.input.mmlu,
            outputs=dict(snakemake.output.items()),
            **snakemake.params.settings,
        )
