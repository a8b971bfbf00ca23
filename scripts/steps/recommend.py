"""Recommend one adapter or point of each model: chosen on one half of the questions, its figures from the other."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import _path  # noqa: F401
from common.files import UserError, atomic_write, sha256_json, write_json
from common.job import job
from custom_metrics.stats import (
    clustered_difference,
    detectable,
    mcnemar,
    minimum_detectable_difference,
)
from present.format import Say
from present.tables import shared_facts, to_markdown
from present.values import (
    BASE,
    BASE_ITSELF,
    GAINS_LESS,
    LOSS_OVER_CAP,
    LOSS_SHOWN,
    MMLU,
    NO_GAIN,
    RECOMMENDED,
    SAME,
    SPIDER,
)
from tables import (
    ALL,
    MMLU_QUESTION,
    SPIDER_QUESTION,
    Part,
    base_of,
    bounds,
    cluster_of,
    gains,
    heads_of,
    mmlu_rows,
    part_of,
    read_same,
    spider_rows,
    with_heads,
)
from tasks.records import MMLU_COLUMNS, SPIDER_COLUMNS

HALVES = ("validation", "report")
# Of fewer databases or subjects than these the questions of each are divided. Databases: each half has two at least.
# Subjects: what an adapter forgets differs from one to the next, and a half must have enough of them to show it.
FEWEST = {SPIDER: 4, MMLU: 10}
FIGURES = (
    "n", "clusters", "unit", "base_correct", "tuned_correct", "base_accuracy_pct", "tuned_accuracy_pct",
    "difference_pp", "ci_low_pp", "ci_high_pp", "gained", "lost", "p", "minimum_detectable_pp", "verdict",
)  # fmt: skip


class Half(NamedTuple):
    """One half of the questions of both measures."""

    parts: dict[str, Part]  # by measure
    divided: dict[str, str]  # by measure: database, subject, or question (those of each database or subject)
    hashes: dict[str, str]  # by measure, of the questions
    names: dict[str, list[str]]  # by measure, the databases or subjects


class Choice(NamedTuple):
    """What is recommended of one model's candidates, and what the validation half says of each run."""

    run: int
    figures: dict[int, dict[str, dict]]  # by run and measure, those of the base too
    reasons: dict[int, str]  # by run


def recommend(
    spider: Sequence[str | Path],
    mmlu: Sequence[str | Path],
    csv: str | Path,
    md: str | Path,
    decision: str | Path,
    study: str,
    runs: Sequence[Mapping],
    confidence_level: float,
    semantics: str,
    max_loss_pp: float | None,
    seed: int,
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
    language: str = "en",
) -> None:
    """Choose among the adapters of each model, and their points, on the validation half of the questions.

    Args:
        spider, mmlu: records of each run, in the order of `runs`.
        csv, md: the table to write: the validation half of all candidates, the report half of what is recommended.
        decision: the same of what is recommended, as JSON, for `export_recommended`.
        study, runs, confidence_level, semantics, known_defects, accept_defect, language: as in `tables`.
        max_loss_pp: what the interval of the loss of MMLU may reach up to, in percentage points; None: any loss that
            cannot be told from none.
        seed: draws the halves.

    Raises:
        UserError: as `tables`, or a measure has fewer than two questions.
    """
    runs, level = list(runs), confidence_level
    _, heads = heads_of(runs)
    frames = {
        SPIDER: read_same(spider, SPIDER_COLUMNS, SPIDER_QUESTION),
        MMLU: read_same(mmlu, MMLU_COLUMNS, MMLU_QUESTION),
    }
    right = {
        SPIDER: np.array([frame[semantics] for frame in frames[SPIDER]], dtype=np.int8),
        MMLU: np.array([frame["correct"] for frame in frames[MMLU]], dtype=np.int8),
    }
    halves = divide(frames[SPIDER][0], frames[MMLU][0], seed)
    bases = base_of(heads)
    rows, decided = [], []
    for model in dict.fromkeys(head["model"] for head in heads):
        base = next(i for i, head in enumerate(heads) if (head["model"], head["variant"]) == (model, BASE))
        candidates = [i for i in bases if bases[i] == base and is_candidate(runs[i])]
        choice = choose(halves["validation"], right, base, candidates, heads, level, max_loss_pp)
        confirmed = {
            measure: compare(part, right[measure], base, choice.run, level)
            for measure, part in halves["report"].parts.items()
        }
        found = {"validation": choice.figures, "report": {choice.run: confirmed}}
        for half, of_runs in found.items():
            for run, measures in of_runs.items():
                rows += [
                    heads[run]
                    | {"half": half, "choice": choice.reasons[run], "measure": measure}
                    | {"divided": halves[half].divided[measure]}
                    | figures
                    | {"semantics": semantics if measure == SPIDER else ""}
                    | {"data_sha256": halves[half].hashes[measure], "confidence_level": level}
                    | {"max_loss_pp": max_loss_pp, "seed": seed}
                    for measure, figures in measures.items()
                ]
        decided.append(
            {
                "model": model,
                "variant": runs[choice.run]["variant"],
                "point": runs[choice.run].get("point", {}),
                "settings": runs[choice.run]["settings"],
                "candidates": len(candidates),
                "admissible": sum(choice.reasons[i] in (RECOMMENDED, GAINS_LESS) for i in candidates),
                "criterion": {"max_loss_pp": max_loss_pp, "confidence_level": level, "semantics": semantics},
                "seed": seed,
                "validation": {"figures": plain(choice.figures[choice.run]), **about(halves["validation"])},
                "report": {"figures": plain(confirmed), **about(halves["report"])},
            }
        )
    frame = pd.DataFrame(rows)
    accuracy = with_heads(heads[:1], iter([spider_rows(frames[SPIDER][0], level, semantics)]))
    accuracy = accuracy.assign(data_sha256=sha256_json(frames[SPIDER][0][SPIDER_QUESTION].values.tolist()))
    knowledge = with_heads(heads[:1], iter([mmlu_rows(frames[MMLU][0], level)]))
    knowledge = knowledge.assign(data_sha256=sha256_json(frames[MMLU][0][MMLU_QUESTION].values.tolist()))
    say = Say(language)
    facts = shared_facts(study, accuracy.assign(confidence_level=level), knowledge, say)
    facts |= {"known_defects": known_defects, "accept_defect": accept_defect}
    with atomic_write(csv) as stream:
        frame.to_csv(stream, index=False, lineterminator="\n", float_format="%.10g")
    with atomic_write(md) as stream:
        stream.write(to_markdown("recommendation", frame, facts, say))
    write_json(decision, decided)


def is_candidate(run: Mapping) -> bool:
    """Return whether a run answers with an adapter: no base, no prompt alone, no adapter multiplied by 0."""
    point = run.get("point", {})
    return run["variant"] != BASE and "shots" not in point and point.get("strength") != 0


def divide(spider: pd.DataFrame, mmlu: pd.DataFrame, seed: int) -> dict[str, Half]:
    """Divide the questions into two halves, drawn with `seed` from the questions alone.

    Whole databases and whole subjects go into one half, as a choice that fits some questions on a database may fit the
    others too; so the two halves are independent draws of databases. Where there are few (`FEWEST`), the questions of
    each are divided, and conclusions are about these databases or subjects alone.

    Raises:
        UserError: a measure has fewer than two questions.
    """
    first, divided = {}, {}
    for measure, names, strata in ((SPIDER, spider["db_id"], None), (MMLU, mmlu["subject"], mmlu["category"])):
        if len(names) < 2:
            raise UserError(
                f"recommend: found {len(names)} questions of {Say('en').measure(measure)}, expected 2 or more: one "
                "half chooses, the other reports. Take more questions, or write recommend: null."
            )
        generator = random.Random(f"{seed} {measure}")
        whole = names.nunique() >= FEWEST[measure]
        stratum = {} if strata is None else dict(zip(names, strata, strict=True))
        first[measure] = draw(names.tolist(), stratum, whole, generator)
        divided[measure] = cluster_of(names) if whole else "question"
    halves = {}
    for half in HALVES:
        parts, hashes, clusters = {}, {}, {}
        for measure, frame, column, question in (
            (SPIDER, spider, "db_id", SPIDER_QUESTION),
            (MMLU, mmlu, "subject", MMLU_QUESTION),
        ):
            chosen = np.flatnonzero(first[measure] == (half == "validation"))
            part = part_of(measure, ALL, ALL, chosen, frame[column])
            if divided[measure] == "question":
                each = np.arange(len(chosen))
                part = part._replace(unit="question", codes=each, sizes=np.ones_like(each))
            parts[measure] = part
            hashes[measure] = sha256_json(frame[question].iloc[chosen].values.tolist())
            clusters[measure] = sorted(set(frame[column].iloc[chosen]))
        halves[half] = Half(parts, divided, hashes, clusters)
    return halves


def draw(names: Sequence[str], stratum: Mapping[str, str], whole: bool, generator: random.Random) -> np.ndarray:
    """Return of each question whether it is in the first half.

    Pairs of like things are drawn apart: clusters of one stratum and of about one size if they stay `whole`, else
    questions of one cluster.

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


def compare(part: Part, right: np.ndarray, base: int, run: int, level: float) -> dict[str, Any]:
    """Return the figures of one run against its base on a part of the questions; of the base itself no test.

    The statistics are those of the table of adapters against their base, the p value unadjusted.
    """
    before, after = right[base, part.chosen], right[run, part.chosen]
    n, k_before, k_after, change = len(before), int(before.sum()), int(after.sum()), gains(before, after)
    found = {"n": n, "clusters": part.clusters, "unit": part.unit, "base_correct": k_before, "tuned_correct": k_after}
    found |= {"base_accuracy_pct": 100.0 * k_before / n, "tuned_accuracy_pct": 100.0 * k_after / n}
    if run == base:
        return (
            found
            | change
            | dict.fromkeys(("ci_low_pp", "ci_high_pp", "p", "minimum_detectable_pp"))
            | {"verdict": BASE_ITSELF}
        )
    estimate = clustered_difference(np.bincount(part.codes, after - before), part.sizes, level)
    if part.unit == "question":
        p = mcnemar(change["gained"], change["lost"])
        least = minimum_detectable_difference(change["gained"], change["lost"], n, level)
    else:
        p, least = estimate.p, detectable(estimate, level)
    verdict = SAME if p >= 1 - level else "better" if change["difference_pp"] > 0 else "worse"
    return found | {
        **change,
        **bounds(estimate.low, estimate.high, suffix="_pp"),
        "p": p,
        "minimum_detectable_pp": None if least is None else 100.0 * least,
        "verdict": verdict,
    }


def choose(
    half: Half,
    right: Mapping[str, np.ndarray],
    base: int,
    candidates: Sequence[int],
    heads: Sequence[Mapping],
    level: float,
    max_loss_pp: float | None,
) -> Choice:
    """Return the candidate that gains most on this half among those whose gain shows and whose loss is admitted.

    A gain shows if it can be told from none at `level`, unadjusted: the other half is what confirms it. A loss of MMLU
    is admitted if it cannot be told from none or, with a cap, if its interval stays within the cap. Of equal gains:
    the least loss, then an adapter before its points, then by name. Without any such candidate: the base.
    """
    figures = {
        run: {measure: compare(part, right[measure], base, run, level) for measure, part in half.parts.items()}
        for run in [base, *candidates]
    }
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
        gain, loss = figures[run][SPIDER], figures[run][MMLU]
        point = bool(heads[run].get("of"))
        return -gain["tuned_correct"], -loss["tuned_correct"], point, heads[run]["variant"]

    best = min((run for run in candidates if reasons[run] == GAINS_LESS), key=order, default=base)
    reasons[best] = RECOMMENDED
    return Choice(best, figures, reasons)


def plain(measures: Mapping[str, Mapping]) -> dict[str, dict]:
    """Return figures by measure as they are written to JSON."""
    return {measure: {key: found[key] for key in FIGURES} for measure, found in measures.items()}


def about(half: Half) -> dict[str, dict]:
    """Return what a half is made of."""
    return {"divided_by": half.divided, "sha256": half.hashes, "clusters": half.names}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        recommend(
            spider=snakemake.input.spider,
            mmlu=snakemake.input.mmlu,
            csv=snakemake.output.csv,
            md=snakemake.output.md,
            decision=snakemake.output.decision,
            **snakemake.params.settings,
        )
