"""Recommend one adapter or point of each model: one half of the questions chooses, the other half reports its figures.

A choice that fits some questions on a database may fit the others on it too. So whole databases and whole subjects go
into one half, and the halves are independent draws of them.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.compare import paired, verdict
from analysis.data import BASE, Part, Results, chosen_criterion, part_of, question_hash, word
from common.files import UserError
from tasks.base import Measure

# What the table says of a run on the half of the questions that chooses.
RECOMMENDED, BASE_ITSELF, GAINS_LESS = "recommended", "the base itself", "gains less"
NO_GAIN, LOSS_SHOWN, LOSS_OVER_CAP = "no gain shown", "loss shown", "loss may exceed the cap"
HALVES = ("validation", "report")
# Of fewer databases or subjects than these the questions of each are divided. Of the target: each half has two at
# least. Of a yardstick: what an adapter forgets differs from one subject to the next, and a half must have enough of
# them to show it.
FEWEST_OF_TARGET, FEWEST_OF_YARDSTICK = 4, 10
# By run and task, the target first, the columns of `compare.paired` and a verdict.
Figures = Mapping[int, Mapping[str, Mapping[str, Any]]]


class Half(NamedTuple):
    """One half of the questions of a task."""

    part: Part
    divided: str  # what was divided: database, subject, or question (those of each database or subject)
    sha256: str  # of the questions
    clusters: list[str]  # the databases or subjects


Halves = Mapping[str, Mapping[str, Half]]


def recommendation(results: Results, max_loss_pp: float | None, seed: int) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Choose among the adapters of each model, and their points, on the validation half of the questions.

    Args:
        max_loss_pp: what the interval of the loss of each yardstick may reach up to, in percentage points; None: any
            loss that cannot be told from none.
        seed: of the draw of the halves.

    Returns:
        A table of the validation half of all candidates and the report half of what is recommended; and of each model
        what is recommended, as plain values.

    Raises:
        UserError: a task has fewer than two questions.
    """
    halves = divide({task: frames[0] for task, frames in results.frames.items()}, results.measures, seed)
    criteria = {task: chosen_criterion(measure) for task, measure in results.measures.items()}
    rows, decided = [], []
    for base in (run for run, head in enumerate(results.heads) if head["variant"] == BASE):
        candidates = [run for run, of in results.bases.items() if of == base and is_candidate(results.runs[run])]
        found = {"validation": figures_of(halves["validation"], results.right, [base, *candidates], results.level)}
        best, reasons = choose(found["validation"], results.heads, max_loss_pp)
        reported = figures_of(halves["report"], results.right, [base, best], results.level)
        found["report"] = {best: reported[best]}
        rows += [
            results.heads[run]
            | {"half": half, "choice": reasons[run], "task": task, "divided": halves[half][task].divided}
            | of_task
            | {"criterion": criteria[task], "data_sha256": halves[half][task].sha256}
            | {"confidence_level": results.level, "max_loss_pp": max_loss_pp, "seed": seed}
            for half, by_run in found.items()
            for run, figures in by_run.items()
            for task, of_task in figures.items()
        ]
        chosen, rule = results.runs[best], {"max_loss_pp": max_loss_pp, "confidence_level": results.level}
        decision = {
            "model": chosen["model"],
            "variant": chosen["variant"],
            "point": chosen.get("point", {}),
            "settings": chosen["settings"],
            "candidates": len(candidates),
            "admissible": sum(reasons[run] in (RECOMMENDED, GAINS_LESS) for run in candidates),
            "criterion": {"criterion": criteria[results.target], **rule},
            "seed": seed,
            # A list, as the keys of a JSON file have no order: the target first.
            "tasks": [
                {"task": task, "name": measure.name, "form": measure.form, "role": measure.role}
                for task, measure in results.measures.items()
            ],
        }
        for name, half in halves.items():
            facts = {"divided_by": "divided", "sha256": "sha256", "clusters": "clusters"}
            of_half = {key: {task: getattr(one, of) for task, one in half.items()} for key, of in facts.items()}
            decision[name] = of_half | {"figures": found[name][best]}
        decided.append(decision)
    return pd.DataFrame(rows), decided


def is_candidate(run: Mapping[str, Any]) -> bool:
    """Tell whether a run answers with an adapter: no base, no prompt alone, no adapter multiplied by 0."""
    point = run.get("point", {})
    return run["variant"] != BASE and "shots" not in point and point.get("strength") != 0


def divide(questions: Mapping[str, pd.DataFrame], measures: Mapping[str, Measure], seed: int) -> Halves:
    """Divide the questions into two halves, drawn with `seed` from the questions alone; by half and task.

    Where there are few databases or subjects, the questions of each are divided, and conclusions are about these
    databases or subjects alone.

    Args:
        questions: by task, records of any run.

    Raises:
        UserError: a task has fewer than two questions.
    """
    halves: dict[str, dict[str, Half]] = {half: {} for half in HALVES}
    for task, frame in questions.items():
        measure = measures[task]
        if len(frame) < 2:
            raise UserError(
                f"recommend: found {len(frame)} questions of {measure.name}, expected 2 or more: one half chooses, the "
                "other reports. Take more questions, or write recommend: null."
            )
        clusters, target = frame[measure.cluster], measure.role == "target"
        whole = clusters.nunique() >= (FEWEST_OF_TARGET if target else FEWEST_OF_YARDSTICK)
        # Subjects of one category are alike, and are divided between the halves.
        stratum = dict(zip(clusters, frame[measure.reported[0]], strict=True)) if measure.reported else {}
        # Under this name the target's halves were drawn when it had no other: another name would draw others.
        name = "execution_accuracy" if target else task
        first = draw(clusters.tolist(), stratum, whole, random.Random(f"{seed} {name}"))
        for half, of_tasks in halves.items():
            chosen = np.flatnonzero(first == (half == "validation"))
            of_tasks[task] = Half(
                part_of(task, measure, frame, chosen, whole),
                word(clusters.name) if whole else "question",
                question_hash(measure, frame.iloc[chosen]),
                sorted(set(clusters.iloc[chosen])),
            )
    return halves


def draw(names: Sequence[str], stratum: Mapping[str, str], whole: bool, generator: random.Random) -> np.ndarray:
    """Tell of each question whether it is in the first half: an array of booleans.

    Of each pair of like things one goes into each half. These are clusters of one stratum and of about one size if
    clusters stay `whole`, else questions of one cluster.

    Args:
        names: of each question its cluster.
        stratum: of each cluster the name of those that it is like; may be empty.
    """
    sizes = Counter(names)
    things = sorted(sizes) if whole else list(range(len(names)))
    generator.shuffle(things)
    groups: dict[str, list] = {}
    for thing in sorted(things, key=lambda name: -sizes[name]) if whole else things:
        groups.setdefault(stratum.get(thing, "") if whole else names[thing], []).append(thing)
    # What has no other of its kind is drawn against what has none of another kind.
    single = [groups[kind].pop() for kind in sorted(groups) if len(groups[kind]) % 2]
    taken = set()
    for group in [*(groups[kind] for kind in sorted(groups)), single]:
        for start in range(0, len(group), 2):
            side = generator.randrange(2)
            taken.update(group[start : start + 2][side : side + 1])
    return np.array([(name if whole else i) in taken for i, name in enumerate(names)])


def figures_of(half: Mapping[str, Half], right: Mapping[str, np.ndarray], runs: Sequence[int], level: float) -> Figures:
    """Compare runs with their base on one half; the statistics are those of the regression table, p unadjusted.

    Args:
        right: by task, 0 or 1: (runs, questions).
        runs: the base, then those to compare with it. The base has figures too, but no test.
    """
    base = runs[0]
    untested = dict.fromkeys(("ci_low_pp", "ci_high_pp", "p", "minimum_detectable_pp")) | {"verdict": BASE_ITSELF}
    found: dict[int, dict[str, dict]] = {run: {} for run in runs}
    for task, (part, *_) in half.items():
        for run in runs:
            figures = paired(part, right[task][base, part.chosen], right[task][run, part.chosen], level)
            shown = {"verdict": verdict(figures["p"], figures["difference_pp"], level)}
            found[run][task] = figures | (untested if run == base else shown)
    return found


def choose(
    figures: Figures, heads: Sequence[Mapping[str, Any]], max_loss_pp: float | None
) -> tuple[int, dict[int, str]]:
    """Choose the run that gains most among those whose gain shows and whose losses are admitted.

    A gain shows if it can be told from none, unadjusted: the other half is what confirms it. The loss of a yardstick is
    admitted if it cannot be told from none or, with a cap, if its interval stays within the cap; that of every
    yardstick must be. Of equal gains: the least loss (of several yardsticks their sum), then an adapter before its
    points, then by name. Without any such candidate: the base.

    Args:
        figures: what `figures_of` returned, the base first.
        heads: the first columns of each run.
        max_loss_pp: the cap.

    Returns:
        The run, and of each run why it is chosen or not.
    """
    base, *candidates = figures
    reasons = {base: BASE_ITSELF}
    for run in candidates:
        gain, *losses = figures[run].values()
        if gain["verdict"] != "better":
            reasons[run] = NO_GAIN
        elif max_loss_pp is None and any(loss["verdict"] == "worse" for loss in losses):
            reasons[run] = LOSS_SHOWN
        elif max_loss_pp is not None and any(-loss["ci_low_pp"] > max_loss_pp for loss in losses):
            reasons[run] = LOSS_OVER_CAP
        else:
            reasons[run] = GAINS_LESS

    def order(run: int) -> tuple:
        gain, *losses = figures[run].values()
        kept = sum(loss["difference_pp"] for loss in losses)
        return -gain["tuned_correct"], -kept, bool(heads[run].get("of")), heads[run]["variant"]

    best = min((run for run in candidates if reasons[run] == GAINS_LESS), key=order, default=base)
    reasons[best] = RECOMMENDED
    return best, reasons
