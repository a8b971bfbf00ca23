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
from analysis.data import BASE, MEASURES, MMLU, SPIDER, Part, Results, part_of, question_hash, word
from common.files import UserError

# What the table says of a run on the half of the questions that chooses.
RECOMMENDED, BASE_ITSELF, GAINS_LESS = "recommended", "the base itself", "gains less"
NO_GAIN, LOSS_SHOWN, LOSS_OVER_CAP = "no gain shown", "loss shown", "loss may exceed the cap"
HALVES = ("validation", "report")
# Of fewer databases or subjects than these the questions of each are divided. Databases: each half has two at least.
# Subjects: what an adapter forgets differs from one to the next, and a half must have enough of them to show it.
FEWEST = {SPIDER: 4, MMLU: 10}
# Subjects of one category are alike, and are divided between the halves.
STRATA = {MMLU: "category"}
# By run and measure, the columns of `compare.paired` and a verdict.
Figures = Mapping[int, Mapping[str, Mapping[str, Any]]]


class Half(NamedTuple):
    """One half of the questions, by measure."""

    parts: dict[str, Part]
    divided: dict[str, str]  # what was divided: database, subject, or question (those of each database or subject)
    hashes: dict[str, str]  # of the questions
    names: dict[str, list[str]]  # the databases or subjects


def recommendation(results: Results, max_loss_pp: float | None, seed: int) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Choose among the adapters of each model, and their points, on the validation half of the questions.

    Args:
        max_loss_pp: what the interval of the loss of MMLU may reach up to, in percentage points; None: any loss that
            cannot be told from none.
        seed: of the draw of the halves.

    Returns:
        A table of the validation half of all candidates and the report half of what is recommended; and of each model
        what is recommended, as plain values.

    Raises:
        UserError: a measure has fewer than two questions.
    """
    halves = divide({measure: frames[0] for measure, frames in results.frames.items()}, seed)
    rows, decided = [], []
    for base in (run for run, head in enumerate(results.heads) if head["variant"] == BASE):
        candidates = [run for run, of in results.bases.items() if of == base and is_candidate(results.runs[run])]
        found = {"validation": figures_of(halves["validation"], results.right, [base, *candidates], results.level)}
        best, reasons = choose(found["validation"], results.heads, max_loss_pp)
        reported = figures_of(halves["report"], results.right, [base, best], results.level)
        found["report"] = {best: reported[best]}
        rows += [
            results.heads[run]
            | {"half": half, "choice": reasons[run], "measure": measure, "divided": halves[half].divided[measure]}
            | of_measure
            | {"semantics": results.criteria[measure], "data_sha256": halves[half].hashes[measure]}
            | {"confidence_level": results.level, "max_loss_pp": max_loss_pp, "seed": seed}
            for half, by_run in found.items()
            for run, figures in by_run.items()
            for measure, of_measure in figures.items()
        ]
        chosen, criterion = results.runs[best], {"semantics": results.criteria[SPIDER], "max_loss_pp": max_loss_pp}
        decision = {
            "model": chosen["model"],
            "variant": chosen["variant"],
            "point": chosen.get("point", {}),
            "settings": chosen["settings"],
            "candidates": len(candidates),
            "admissible": sum(reasons[run] in (RECOMMENDED, GAINS_LESS) for run in candidates),
            "criterion": criterion | {"confidence_level": results.level},
            "seed": seed,
        }
        for name, half in halves.items():
            of_half = {"divided_by": half.divided, "sha256": half.hashes, "clusters": half.names}
            decision[name] = of_half | {"figures": found[name][best]}
        decided.append(decision)
    return pd.DataFrame(rows), decided


def is_candidate(run: Mapping[str, Any]) -> bool:
    """Tell whether a run answers with an adapter: no base, no prompt alone, no adapter multiplied by 0."""
    point = run.get("point", {})
    return run["variant"] != BASE and "shots" not in point and point.get("strength") != 0


def divide(questions: Mapping[str, pd.DataFrame], seed: int) -> dict[str, Half]:
    """Divide the questions into two halves, drawn with `seed` from the questions alone.

    Where there are few databases or subjects (`FEWEST`), the questions of each are divided, and conclusions are about
    these databases or subjects alone.

    Args:
        questions: by measure, records of any run.

    Raises:
        UserError: a measure has fewer than two questions.
    """
    halves = {half: Half({}, {}, {}, {}) for half in HALVES}
    for measure, frame in questions.items():
        if len(frame) < 2:
            raise UserError(
                f"recommend: found {len(frame)} questions of {MEASURES[measure].name}, expected 2 or more: one half "
                "chooses, the other reports. Take more questions, or write recommend: null."
            )
        clusters = frame[MEASURES[measure].cluster]
        whole = clusters.nunique() >= FEWEST[measure]
        stratum = dict(zip(clusters, frame[STRATA[measure]], strict=True)) if measure in STRATA else {}
        first = draw(clusters.tolist(), stratum, whole, random.Random(f"{seed} {measure}"))
        for name, half in halves.items():
            chosen = np.flatnonzero(first == (name == "validation"))
            half.parts[measure] = part_of(measure, frame, chosen, whole=whole)
            half.divided[measure] = word(clusters.name) if whole else "question"
            half.hashes[measure] = question_hash(measure, frame.iloc[chosen])
            half.names[measure] = sorted(set(clusters.iloc[chosen]))
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


def figures_of(half: Half, right: Mapping[str, np.ndarray], runs: Sequence[int], level: float) -> Figures:
    """Compare runs with their base on one half; the statistics are those of the regression table, p unadjusted.

    Args:
        right: by measure, 0 or 1: (runs, questions).
        runs: the base, then those to compare with it. The base has figures too, but no test.
    """
    base = runs[0]
    untested = dict.fromkeys(("ci_low_pp", "ci_high_pp", "p", "minimum_detectable_pp")) | {"verdict": BASE_ITSELF}
    found: dict[int, dict[str, dict]] = {run: {} for run in runs}
    for measure, part in half.parts.items():
        for run in runs:
            figures = paired(part, right[measure][base, part.chosen], right[measure][run, part.chosen], level)
            shown = {"verdict": verdict(figures["p"], figures["difference_pp"], level)}
            found[run][measure] = figures | (untested if run == base else shown)
    return found


def choose(
    figures: Figures, heads: Sequence[Mapping[str, Any]], max_loss_pp: float | None
) -> tuple[int, dict[int, str]]:
    """Choose the run that gains most among those whose gain shows and whose loss is admitted.

    A gain shows if it can be told from none, unadjusted: the other half is what confirms it. A loss of MMLU is admitted
    if it cannot be told from none or, with a cap, if its interval stays within the cap. Of equal gains: the least loss,
    then an adapter before its points, then by name. Without any such candidate: the base.

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
        gain, loss = figures[run][SPIDER], figures[run][MMLU]
        if gain["verdict"] != "better":
            reasons[run] = NO_GAIN
        elif max_loss_pp is None and loss["verdict"] == "worse":
            reasons[run] = LOSS_SHOWN
        elif max_loss_pp is not None and -loss["ci_low_pp"] > max_loss_pp:
            reasons[run] = LOSS_OVER_CAP
        else:
            reasons[run] = GAINS_LESS

    def order(run: int) -> tuple:
        gain, loss = (figures[run][measure]["tuned_correct"] for measure in (SPIDER, MMLU))
        return -gain, -loss, bool(heads[run].get("of")), heads[run]["variant"]

    best = min((run for run in candidates if reasons[run] == GAINS_LESS), key=order, default=base)
    reasons[best] = RECOMMENDED
    return best, reasons
