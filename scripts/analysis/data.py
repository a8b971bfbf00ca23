"""The records of all runs of a study: read, checked to be about the same questions, and held as arrays."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from common.files import UserError, atomic_write, sha256_json
from custom_metrics.compare import SEMANTICS
from custom_metrics.hardness import LEVELS
from tasks.records import MMLU_COLUMNS, SPIDER_COLUMNS, read_records

ALL, BASE, SEED = "aggregate", "base", "training.seed"
SPIDER, MMLU = "execution_accuracy", "mmlu"
# With fewer databases or subjects than this, nobody can tell how much they differ: the interval would be several times
# as wide, and most studies of one subject a category could say nothing. Then only the questions count as drawn at
# random, and what is concluded holds for these databases or subjects alone.
FEWEST_CLUSTERS = 5


@dataclass(frozen=True)
class Measure:
    """What the analysis must know of a benchmark and of its records."""

    name: str
    columns: Sequence[str]  # of its records
    question: Sequence[str]  # the columns about the question, equal in all runs
    counted: Sequence[str]  # the columns about the answer that tables count
    cluster: str  # the column of what questions have in common: their database or subject
    strata: Mapping[str, Callable[[pd.Series], Iterable[str]]]  # the columns that divide the questions, values in order
    chance: float  # the share that guessing gets right
    own_examples: bool  # whether `evaluation.shots` changes its prompts


MEASURES = {
    SPIDER: Measure(
        name="Spider execution accuracy",
        columns=SPIDER_COLUMNS,
        question=("id", "db_id", "hardness", "question", "gold"),
        counted=(*SEMANTICS, *(f"{name}_raw" for name in SEMANTICS), "error_class", "gold_rows"),
        cluster="db_id",
        strata={"hardness": lambda _: LEVELS, "db_id": lambda names: sorted(set(names))},
        chance=0.0,
        own_examples=True,
    ),
    MMLU: Measure(
        name="MMLU",
        columns=MMLU_COLUMNS,
        question=("id", "subject", "category", "answer"),
        counted=("correct", "correct_generated", "generated_letter"),
        cluster="subject",
        strata={"category": dict.fromkeys, "subject": dict.fromkeys},
        chance=0.25,
        own_examples=False,
    ),
}


class Part(NamedTuple):
    """Some questions of one measure, and what counts as drawn at random with them."""

    measure: str
    part: str  # aggregate, hardness, database, category or subject
    value: str
    chosen: np.ndarray  # the questions, as positions
    clusters: int  # how many databases or subjects they come from
    unit: str  # database, subject or question: what a conclusion takes as drawn at random
    codes: np.ndarray  # of each question the number of its unit, from 0
    sizes: np.ndarray  # of each unit its number of questions
    subjects: np.ndarray  # of each question the number of its database or subject, from 0


@dataclass(frozen=True)
class Results:
    """What every run of a study got right, on the same questions. Runs are named by their position."""

    runs: Sequence[Mapping[str, Any]]  # model, variant, settings; also `point` if `evaluation` adds the run
    axes: list[str]  # the swept settings
    heads: list[dict[str, Any]]  # the first columns of each run's rows
    bases: dict[int, int]  # of each run its base, the bases themselves left out
    frames: dict[str, list[pd.DataFrame]]  # by measure, the records of each run
    right: dict[str, np.ndarray]  # by measure, 0 or 1: (runs, questions)
    parts: list[Part]  # of all measures
    hashes: dict[str, str]  # by measure, the SHA-256 of the questions
    criteria: dict[str, str]  # by measure, the criterion that the study chose; "" where there is one alone
    level: float  # of all intervals and verdicts, such as 0.95

    def compared(self, measure: str) -> dict[int, int]:
        """As `bases`, without the runs whose answers to this measure are the base's own."""
        all_asked = MEASURES[measure].own_examples
        return {run: base for run, base in self.bases.items() if all_asked or self.heads[run].get("of") != BASE}

    def trained(self) -> dict[int, int]:
        """As `bases`, of the trained adapters alone."""
        return {run: base for run, base in self.bases.items() if "point" not in self.runs[run]}

    def label(self, frame: pd.DataFrame, measure: str = "") -> pd.DataFrame:
        """Add criterion, hash of the questions and confidence level, by the column `measure` or for one measure."""
        measures = frame["measure"] if "measure" in frame else pd.Series(measure, index=frame.index)
        labels = {"semantics": measures.map(self.criteria), "data_sha256": measures.map(self.hashes)}
        return frame.assign(**labels, confidence_level=self.level)


def read_results(
    records: Mapping[str, Sequence[str | Path]], runs: Sequence[Mapping[str, Any]], criterion: str, level: float
) -> Results:
    """Read the records of all runs.

    Args:
        records: by measure, the file of each run in the order of `runs`.
        criterion: of SQL equality, which the headline follows.

    Raises:
        UserError: a run lacks a file or a base, two files are not about the same questions, or a name is taken.
    """
    if {len(paths) for paths in records.values()} != {len(runs)}:
        found = " and ".join(str(len(paths)) for paths in records.values())
        raise UserError(f"tables: found {found} record files, expected one of each of {len(runs)} runs.")
    axes, heads = heads_of(runs)
    frames = {name: read_same(paths, name, MEASURES[name].counted) for name, paths in records.items()}
    if ALL in set(frames[MMLU][0]["category"]):
        taken = f"{ALL} is the name of the row over all categories. Choose another name."
        raise UserError(f"config, mmlu.categories: {taken}")
    criteria = {name: criterion if criterion in MEASURES[name].columns else "" for name in frames}
    right = {name: np.array([one[criteria[name] or "correct"] for one in of], np.int8) for name, of in frames.items()}
    return Results(
        runs=runs,
        axes=axes,
        heads=heads,
        bases=base_of(heads),
        frames=frames,
        right=right,
        parts=[part for name, of in frames.items() for part in parts_of(name, of[0])],
        hashes={name: question_hash(name, of[0]) for name, of in frames.items()},
        criteria=criteria,
        level=level,
    )


def read_same(paths: Sequence[str | Path], measure: str, counted: Sequence[str] | None = None) -> list[pd.DataFrame]:
    """Read the records of all runs, each in the order of the first file.

    Args:
        counted: the columns to keep besides those of the question; all, if None. Answers are most of the records, and a
            study may have hundreds of runs.

    Raises:
        UserError: a file is not about the questions of the first; the message names the file and what differs.
    """
    question = list(MEASURES[measure].question)
    frames = []
    for path in paths:
        frame = read_records(path, MEASURES[measure].columns)
        first = frames[0] if frames else frame
        if first.empty:
            raise UserError(f"{path}: has no records, expected one a question.")
        expected, found = set(first["id"]), set(frame["id"])
        if expected != found:
            raise UserError(
                f"{path}: lacks {listed(expected - found)} and has {listed(found - expected)} against {paths[0]}. All "
                "runs must answer the same questions: run the scoring rules again."
            )
        frame = frame.set_index("id", drop=False).loc[first["id"]].reset_index(drop=True)
        for column in question:
            different = frame.loc[frame[column] != first[column], "id"]
            if len(different):
                raise UserError(f"{path}, {column} of {different.iloc[0]}: differs from {paths[0]}. Score both again.")
        frame[question] = first[question]
        frames.append(frame if counted is None else frame[[*question, *counted]])
    return frames


def listed(ids: set[str]) -> str:
    """Say how many questions these are, and name the first few."""
    if not ids:
        return "no question"
    return f"{len(ids)} questions ({', '.join(sorted(ids)[:3])}{', …' if len(ids) > 3 else ''})"


def question_hash(measure: str, questions: pd.DataFrame) -> str:
    return sha256_json(questions[list(MEASURES[measure].question)].values.tolist())


def parts_of(measure: str, questions: pd.DataFrame) -> Iterator[Part]:
    """Yield all questions of a measure, then each of its strata that has any."""
    yield part_of(measure, questions, np.arange(len(questions)))
    for column, values in MEASURES[measure].strata.items():
        for value in values(questions[column]):
            chosen = np.flatnonzero(questions[column] == value)
            if len(chosen):
                yield part_of(measure, questions, chosen, (word(column), value))


def part_of(
    measure: str, questions: pd.DataFrame, chosen: np.ndarray, name: tuple[str, str] = (ALL, ALL), whole: bool = True
) -> Part:
    """Make a part; its units are its questions, or its databases or subjects if there are `FEWEST_CLUSTERS` of them.

    Args:
        questions: records of any run.
        chosen: the questions of the part, as positions.
        name: what the part is one of, and which one: ("hardness", "easy").
        whole: whether units may be databases or subjects at all.
    """
    column = MEASURES[measure].cluster
    subjects, found = pd.factorize(questions[column].to_numpy()[chosen])
    unit, codes = word(column), subjects
    if not whole or len(found) < FEWEST_CLUSTERS:
        unit, codes = "question", np.arange(len(chosen))
    return Part(measure, *name, chosen, len(found), unit, codes, np.bincount(codes), subjects)


def word(column: str) -> str:
    """Say what a column of records names, such as a database."""
    return "database" if column == "db_id" else column


def heads_of(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """List the swept settings, and the first columns of each run's rows: model, variant, settings, what a point is."""
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


def plain(value: object) -> str:
    """Write a setting as it stands in a table: a list joined by +, a number without exponent."""
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.10f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def base_of(heads: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Find the base of each run, by position; the bases themselves are left out.

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


def write_table(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a table as CSV, with numbers of ten digits."""
    with atomic_write(path) as stream:
        frame.to_csv(stream, index=False, lineterminator="\n", float_format="%.10g")
