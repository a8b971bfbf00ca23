"""The records of all runs of a study: read, checked to be about the same questions, and held as arrays."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.crossed import FEWEST_CLUSTERS
from common.files import UserError, atomic_write, sha256_json
from tasks.base import Measure
from tasks.records import read_records, right_probability
from tasks.registry import measured

ALL, BASE, SEED = "aggregate", "base", "training.seed"


class Part(NamedTuple):
    """Some questions of one task, and what counts as drawn at random with them."""

    task: str
    part: str  # aggregate, or what column of the records it is one value of: hardness, database, category, subject …
    value: str
    chosen: np.ndarray  # the questions, as positions
    clusters: int  # how many databases or subjects they come from
    unit: str  # database, subject … or question: what a conclusion takes as drawn at random
    codes: np.ndarray  # of each question the number of its unit, from 0
    sizes: np.ndarray  # of each unit its number of questions
    subjects: np.ndarray  # of each question the number of its database or subject, from 0


@dataclass(frozen=True)
class Results:
    """What every run of a study got right, on the same questions. Runs are named by their position."""

    runs: Sequence[Mapping[str, Any]]  # model, variant, settings; `point` if `evaluation` adds it, or `ready_made`
    axes: list[str]  # the swept settings
    heads: list[dict[str, Any]]  # the first columns of each run's rows
    bases: dict[int, int]  # of each run its base, the bases themselves left out
    measures: Mapping[str, Measure]  # by task, as all that follows: the target first, then the yardsticks
    frames: dict[str, list[pd.DataFrame]]  # the records of each run
    right: dict[str, np.ndarray]  # 0 or 1, or a share of draws: (runs, questions)
    parts: list[Part]  # of all tasks
    hashes: dict[str, str]  # the SHA-256 of the questions
    level: float  # of all intervals and verdicts, such as 0.95
    margin_pp: float  # a loss of no more percentage points than these does not matter
    # By task, of each run the records of its further draws, where answers are drawn several times. Then `right` has the
    # share of a question's draws that are right: draws are no trainings, and the chance of each is its question's own.
    draws: Mapping[str, Sequence[Sequence[pd.DataFrame]]] = field(default_factory=dict)

    def shares(self, task: str, run: int, values: Callable[[pd.DataFrame], np.ndarray]) -> np.ndarray:
        """The mean of `values` over the draws of a run's answers, such as (questions, classes) of 0 and 1."""
        first, *others = map(values, (self.frames[task][run], *(self.draws[task][run] if self.draws else ())))
        return np.mean([first, *others], axis=0) if others else first

    @property
    def target(self) -> str:
        """The task that the adapters were trained for."""
        return next(iter(self.measures))

    @property
    def yardsticks(self) -> list[str]:
        """The tasks that are only evaluated."""
        return [task for task in self.measures if task != self.target]

    @cached_property
    def whole(self) -> dict[str, Part]:
        """By task all its questions."""
        return {part.task: part for part in self.parts if part.part == ALL}

    @property
    def swept(self) -> list[str]:
        """The swept settings but for the seed."""
        return [axis for axis in self.axes if axis != SEED]

    @property
    def units(self) -> dict[str, str]:
        """By task what a cluster of its questions is called."""
        return {task: word(measure.cluster) for task, measure in self.measures.items()}

    def of_form(self, *forms: str) -> list[str]:
        """The tasks of these forms."""
        return [task for task, measure in self.measures.items() if measure.form in forms]

    def reported(self, *tasks: str) -> list[Part]:
        """All questions of these tasks (of all tasks, if none is named), and the parts that are reported of them."""
        wanted = tasks or self.measures
        words = {task: [ALL, *map(word, self.measures[task].reported)] for task in wanted}
        return [part for part in self.parts if part.part in words.get(part.task, ())]

    def compared(self, task: str) -> dict[int, int]:
        """As `bases`, without the runs whose answers to this task are the base's own.

        The few-shot examples that `evaluation` varies are those of the target.
        """
        everyone = task == self.target
        return {run: base for run, base in self.bases.items() if everyone or self.heads[run].get("of") != BASE}

    def settings(self, kind: str = "adapter") -> dict[tuple[str, str], list[int]]:
        """By model and setting its runs, one for each seed: those of a `kind_of`, in the order of the runs."""
        found: dict[tuple[str, str], list[int]] = {}
        for run in self.bases:
            if kind_of(self.runs[run]) == kind:
                found.setdefault((self.runs[run]["model"], self.runs[run]["setting"]), []).append(run)
        return found

    def label(self, frame: pd.DataFrame, task: str = "") -> pd.DataFrame:
        """Add criterion, hash of the questions and confidence level: of one task, or of that in the column `task`."""
        tasks = pd.Series(task, index=frame.index) if task else frame["task"]
        criteria = {name: chosen_criterion(measure) for name, measure in self.measures.items()}
        labels = {"criterion": tasks.map(criteria), "data_sha256": tasks.map(self.hashes)}
        return frame.assign(**labels, confidence_level=self.level)


def kind_of(run: Mapping[str, Any]) -> str:
    """Say what a run is: an adapter, a point of one, or the base with other few-shot examples."""
    point = run.get("point", {})
    return "adapter" if not point else "examples" if "shots" in point else "point"


def chosen_criterion(measure: Measure) -> str:
    """Name the criterion that the study chose; "" where there is one alone."""
    return "" if measure.criterion == "correct" else measure.criterion


def read_results(records: Mapping[str, Sequence[str | Path]], settings: Mapping[str, Any]) -> Results:
    """Read the records of all runs.

    Args:
        records: by task, the file of each run in the order of `runs`.
        settings: a rule's, with `runs`, `confidence_level`, `margin_pp` and `tasks`, the target first.

    Raises:
        UserError: a run lacks a file or a base, two files are not about the same questions, or a name is taken.
    """
    runs, measures = settings["runs"], measured(settings["tasks"])
    if {len(paths) for paths in records.values()} != {len(runs)}:
        found = " and ".join(str(len(paths)) for paths in records.values())
        raise UserError(f"tables: found {found} record files, expected one of each of {len(runs)} runs.")
    every = {task: read_same(records[task], measure, measure.counted) for task, measure in measures.items()}
    frames, draws = dict(every), {}
    if any("draw_of" in run for run in runs):
        first = {(run["model"], run["variant"]): number for number, run in enumerate(runs) if "draw_of" not in run}
        again = {number: [] for number in first.values()}
        for number, run in enumerate(runs):
            if "draw_of" in run:
                again[first[run["model"], run["draw_of"]]].append(number)
        frames = {task: [of[number] for number in again] for task, of in every.items()}
        draws = {task: [[of[number] for number in more] for more in again.values()] for task, of in every.items()}
        runs = [runs[number] for number in again]
    axes, heads = heads_of(runs)
    for task, (first, *_) in frames.items():
        for column in measures[task].strata:
            if ALL in set(first[column]):
                taken = f"{ALL} is the name of the row over all questions. Choose another name."
                raise UserError(f"tasks.{task}: found {column} {ALL}. {taken}")
    found = Results(
        runs=runs,
        axes=axes,
        heads=heads,
        bases=base_of(heads),
        measures=measures,
        frames=frames,
        right={task: np.array([one[measures[task].criterion] for one in of], np.int8) for task, of in frames.items()},
        parts=[part for task, of in frames.items() for part in parts_of(task, measures[task], of[0])],
        hashes={task: sha256_json(of[0][[*measures[task].question]].values.tolist()) for task, of in frames.items()},
        level=settings["confidence_level"],
        margin_pp=settings["margin_pp"],
        draws=draws,
    )
    for task, of in found.right.items() if draws else ():
        one = measures[task].criterion
        shares = [found.shares(task, run, lambda frame, one=one: frame[one].to_numpy(float)) for run in range(len(of))]
        found.right[task] = np.array(shares)
    return found


def counted(number: float) -> int | float:
    """A number of questions; a mean over draws need not be a whole one."""
    return int(number) if float(number).is_integer() else float(number)


def read_same(
    paths: Sequence[str | Path], measure: Measure, counted: Sequence[str] | None = None
) -> list[pd.DataFrame]:
    """Read the records of all runs, each in the order of the first file.

    Args:
        counted: the columns to keep besides those of the question; all, if None. Answers are most of the records, and a
            study may have hundreds of runs.

    Raises:
        UserError: a file is not about the questions of the first; the message names the file and what differs.
    """
    question = list(measure.question)
    frames = []
    for path in paths:
        frame = read_records(path, measure.columns)
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
        if counted is not None:
            kept = frame[[*question, *counted]]
            frame = kept.assign(probability=right_probability(frame)) if measure.form == "choice" else kept
        frames.append(frame)
    return frames


def listed(ids: set[str]) -> str:
    """Say how many questions these are, and name the first few."""
    if not ids:
        return "no question"
    return f"{len(ids)} questions ({', '.join(sorted(ids)[:3])}{', …' if len(ids) > 3 else ''})"


def parts_of(task: str, measure: Measure, questions: pd.DataFrame) -> Iterator[Part]:
    """Yield all questions of a task, then each of its strata that has any."""
    yield part_of(task, measure, questions, np.arange(len(questions)))
    for column in measure.strata:
        for value in values_of(measure, column, questions):
            chosen = np.flatnonzero(questions[column] == value)
            if len(chosen):
                yield part_of(task, measure, questions, chosen)._replace(part=word(column), value=value)


def values_of(measure: Measure, column: str, questions: pd.DataFrame) -> Sequence[str]:
    """List the values of a column that divides the questions, in their order."""
    known = measure.strata[column]
    if known is None:
        return list(dict.fromkeys(questions[column]))
    return sorted(set(questions[column])) if known == "sorted" else known


def part_of(task: str, measure: Measure, questions: pd.DataFrame, chosen: np.ndarray) -> Part:
    """Make a part; its units are its questions, or its databases or subjects if there are `FEWEST_CLUSTERS` of them.

    Args:
        questions: records of any run.
        chosen: the questions of the part, as positions.
    """
    subjects, found = pd.factorize(questions[measure.cluster].to_numpy()[chosen])
    unit, codes = word(measure.cluster), subjects
    if len(found) < FEWEST_CLUSTERS:
        unit, codes = "question", np.arange(len(chosen))
    return Part(task, ALL, ALL, chosen, len(found), unit, codes, np.bincount(codes), subjects)


def word(column: str) -> str:
    """Say what a column of records names, such as a database."""
    return {"db_id": "database", "id": "question"}.get(column, column)


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
