"""Can the figures that a report printed be right? Arithmetic on the figures alone; nothing is run.

It knows the benchmark and the rules of rounding, and nothing about any particular report: what it says of one, it says
of every other that prints the same numbers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.compare import bounds
from analysis.data import BASE
from custom_metrics.stats import wilson_interval
from tasks.base import Measure
from tasks.mmlu import CATEGORY, OFFICIAL

# How `published` calls the figure over all questions.
WHOLE = "all"
COLUMNS = (
    "table", "task", "kind", "variant", "column", "published", "published_n", "published_correct", "possible",
    "why", "run", "ours", "n", "correct", "difference_pp", "ci_low", "ci_high", "published_in_ci",
)  # fmt: skip
# Why something is so: keys of `tables.published.why` of the words, each with what is filled in: numbers as text with
# the digits that they are to have, names, or further reasons.
Reasons = Sequence[tuple[str, Mapping[str, Any]]]
Subjects = Mapping[str, Sequence[str]]


class Check(NamedTuple):
    """What arithmetic says of one figure: possible is True, False, or None where it cannot tell."""

    possible: bool | None
    why: Reasons


def because(possible: bool | None, key: str, **values: Any) -> Check:
    """Make a check with one reason."""
    return Check(possible, [(key, {name: v if isinstance(v, list) else str(v) for name, v in values.items()})])


def half(decimals: int) -> float:
    """Give how far a true value may lie from one rounded to so many decimals, with room for binary fractions."""
    return 0.5 * 10.0**-decimals + 1e-9


def counts(percent: float, decimals: int, n: int) -> list[int]:
    """List every number of right answers of n that rounds to this percentage."""
    low, high = ((percent + sign * half(decimals)) * n / 100 for sign in (-1, 1))
    near = range(math.floor(low), math.ceil(high) + 1)
    return [k for k in near if 0 <= k <= n and abs(100 * k / n - percent) <= half(decimals)]


def check_percentage(percent: float, decimals: int, n: int | None, correct: int | None = None) -> Check:
    """Check one percentage of right answers against the number of questions, and the right ones where printed."""
    if n is None:
        return because(None, "no_n")
    fit = counts(percent, decimals, n)
    if correct is None:
        if not fit:
            return because(False, "no_count", n=n)
        if 100 / n <= 2 * half(decimals):
            return because(None, "any", n=n)
        return because(True, "count", correct=fit[0], n=n)
    if correct > n:
        return because(False, "more_than_n", correct=correct, n=n)
    if correct not in fit:
        return because(False, "other", correct=correct, n=n, percent=f"{100 * correct / n:.{decimals + 1}f}")
    return because(True, "count", correct=correct, n=n)


def check_change(printed: float, decimals: int, base: float, tuned: float, means: Mapping[str, float]) -> Check:
    """Check a change printed in percent against the two percentages it is said to compare.

    Args:
        printed: the change.
        decimals: digits of all these figures.
        base, tuned: the percentages.
        means: what else the change could have been made of, as `means` has it, to say where a wrong one is from.
    """
    e = half(decimals)
    if base <= e:
        return because(None, "base_0")
    # The least and the greatest change that rounded columns allow: it rises with tuned and falls with base.
    low, high = 100 * ((tuned - e) / (base + e) - 1), 100 * ((tuned + e) / (base - e) - 1)
    own = 100 * (tuned / base - 1)
    if low - e <= printed <= high + e:
        return because(True, "follows")
    _, why = because(False, "own_other_sign" if own * printed < 0 else "own", percent=f"{own:+.1f}")
    if abs(tuned - base - printed) <= 3 * e:
        why.append(("points", {}))
    fit = (name for name, value in means.items() if abs(value - printed) <= 2 * e)
    return Check(False, [*why, *(("it_is", {"what": [mean(name, "changes")]}) for name in [*fit][:1])])


def means(values: Mapping[str, float], subjects: Subjects, n: Mapping[str, int | None]) -> dict[str, float]:
    """Put the columns of categories into one figure in every way there is, the surest first.

    The ways are called `share` (of all questions), and `subjects 39` and `categories 3` (means over so many).
    """

    def weighted(weights: Mapping[str, int]) -> float:
        return sum(values[column] * weights[column] for column in values) / sum(weights[column] for column in values)

    found = {}
    if all(n.get(column) for column in values):
        found["share"] = weighted(n)
    if all(column in subjects for column in values):
        sizes = {column: len(subjects[column]) for column in values}
        found[f"subjects {sum(sizes.values())}"] = weighted(sizes)
    return found | {f"categories {len(values)}": sum(values.values()) / len(values)}


def mean(name: str, of: str = "percentages") -> tuple[str, dict[str, str]]:
    """Say what one of the `means` is, of percentages or of changes."""
    kind, _, n = name.partition(" ")
    return (f"{kind}_{of}", {"n": n}) if n else (kind, {})


def check_total(printed: float, decimals: int, parts: Mapping[str, float]) -> Check:
    """Check an aggregate against `parts`, what `means` returns of its columns."""
    for name, value in parts.items():
        if abs(value - printed) <= 2 * half(decimals):
            return because(True, "is", what=[mean(name)])
    listed = [("as", {"value": f"{value:.{decimals}f}", "what": [mean(name)]}) for name, value in parts.items()]
    return because(False, "columns_give", values=listed)


def check_accuracy(table: Mapping[str, Any], variant: str, column: str, subjects: Subjects) -> Check:
    """Check a printed percentage of right answers; an aggregate must also follow from its columns, where printed."""
    values, known = table["accuracy"][variant], table["correct"].get(variant, {})
    value, n, decimals = values[column], table["n"], table["decimals"]
    share = check_percentage(value, decimals, n[column], known.get(column))
    columns = [other for other in values if other != WHOLE]
    if column != WHOLE or len(columns) < 2 or share.possible is False:
        return share
    right = [known[other] for other in columns if other in known]
    if len(right) < len(columns):
        total = check_total(value, decimals, means({c: values[c] for c in columns}, subjects, n))
    elif n[WHOLE] and sum(right) in counts(value, decimals, n[WHOLE]):
        total = because(True, "sum", parts=" + ".join(map(str, right)))
    else:
        total = because(False, "other_sum", correct=sum(right))
    return Check(total.possible, [*(share.why if share.possible else []), *total.why])


def check_printed_change(table: Mapping[str, Any], variant: str, column: str, subjects: Subjects) -> Check:
    """Check a printed change against the two percentages that it compares, where both are printed."""
    base, tuned = (table["accuracy"].get(name, {}).get(column) for name in (BASE, variant))
    if base is None or tuned is None:
        return because(None, "not_both")
    columns = {name: value for name, value in table["change"][variant].items() if name != WHOLE}
    others = means(columns, subjects, table["n"]) if column == WHOLE and len(columns) > 1 else {}
    return check_change(table["change"][variant][column], table["decimals"], base, tuned, others)


def check_table(table: Mapping[str, Any], subjects: Subjects) -> Iterator[dict[str, Any]]:
    """Yield one row for each figure of a table of `published`: the figure, and what arithmetic says of it."""
    for kind, check in (("accuracy", check_accuracy), ("change", check_printed_change)):
        for variant, values in table[kind].items():
            for column, value in values.items():
                found = check(table, variant, column, subjects)
                correct = table["correct"].get(variant, {}).get(column) if kind == "accuracy" else None
                row = {name: table[name] for name in ("table", "task", "decimals")}
                row |= {"kind": kind, "variant": variant, "column": column, "published": value}
                yield row | {"published_n": table["n"][column], "published_correct": correct} | found._asdict()


def findings(published: Mapping[str, Any], official: Mapping[str, int]) -> Reasons:
    """Say what is odd about the figures besides single ones, each as a reason of its own.

    Args:
        published: the block of a checked study.
        official: by task, how many questions its official evaluation split has, where there is one.
    """
    found: list[tuple[str, dict[str, str]]] = []

    def add(key: str, **values: Any) -> None:
        found.extend(because(False, key, **values).why)

    for table in published["tables"]:
        n, split = table["n"].get(WHOLE), official.get(table["task"])
        if n is None or split in (None, n):
            continue
        if n > split:
            add("too_many", table=table["table"], n=n, official=split)
        elif not table["subset"]:
            figures = [value for values in table["accuracy"].values() for value in values.values()]
            fit = sum(bool(counts(figure, table["decimals"], split)) for figure in figures)
            left_out = {"left_out": split - n, "fit": fit, "figures": len(figures)}
            add("which_left_out", table=table["table"], n=n, official=split, **left_out)
    for category, subjects in published["subjects"].items():
        for subject in subjects:
            if category in OFFICIAL and CATEGORY.get(subject, category) != category:
                add("other_category", subject=subject, category=category, official=CATEGORY[subject])
    for stated in (stated for stated in published["stated"] if "part_of" in stated):
        (part, whole), decimals = stated["part_of"], stated["decimals"]
        own = 100 * part / whole
        if abs(own - stated["value"]) > half(decimals):
            values = {"part": f"{part:g}", "whole": f"{whole:g}", "percent": f"{own:.{decimals + 1}f}"}
            add("other_share", what=stated["what"], printed=stated["value"], **values)
    return found


def beside(
    published: Mapping[str, Any],
    ours: Mapping[str, Mapping[str, pd.DataFrame]],
    measures: Mapping[str, Measure],
    level: float,
) -> list[dict[str, Any]]:
    """Put what we found beside each printed figure: a row for each figure and run of ours with its settings.

    Args:
        published: the block of a checked study.
        ours: by variant and task: the records.
        level: of our intervals (Wilson 1927).
    """
    subjects = published["subjects"]

    def counted(row: Mapping[str, Any], variant: str | None) -> tuple[int, int]:
        records, measure = ours.get(variant, {}).get(row["task"]), measures.get(row["task"])
        return (0, 0) if records is None else count(records, measure, row["column"], subjects)

    rows = []
    for row in (row for table in published["tables"] for row in check_table(table, subjects)):
        for run in matching(row["variant"], list(ours)) or [None]:
            (correct, n), (before, _) = counted(row, run), counted(row, BASE)
            found = {}
            if n and row["kind"] == "accuracy":
                found = {"ours": 100 * correct / n, "n": n, "correct": correct}
                found |= bounds(*wilson_interval(correct, n, level))
                found["difference_pp"] = found["ours"] - row["published"]
                found["published_in_ci"] = found["ci_low"] <= row["published"] <= found["ci_high"]
            elif n and before:
                # A difference in percentage points that a report calls percent stays what it is called.
                found = {"ours": 100 * (correct - before) / before, "n": n}
            rows.append(row | {"run": run} | found)
    return rows


def matching(variant: str, ours: Sequence[str]) -> list[str]:
    """Name our runs that have the published variant's settings: `lr0.0001` stands for `lr0.0001-seed1` too."""
    parts = set(variant.split("-"))
    return [name for name in ours if parts <= set(name.split("-"))]


def count(records: pd.DataFrame, measure: Measure, column: str, subjects: Subjects) -> tuple[int, int]:
    """Count right answers and questions of ours that a published column is about; no questions if we lack a subject.

    A category stands for the subjects that the report put into it, whatever this study calls them; where the report
    does not name them, for this study's own. Subjects are those of multiple choice.
    """
    named = subjects if measure.form == "choice" else {}
    wanted = {subject for one in named.values() for subject in one} if column == WHOLE else {*named.get(column, ())}
    if wanted:
        own = records[measure.cluster]
        chosen = own.isin(wanted) & (wanted <= set(own))
    elif column == WHOLE:
        chosen = pd.Series(True, index=records.index)
    else:
        chosen = records[[*measure.strata]].eq(column).any(axis=1)
    part = records.loc[chosen, measure.criterion]
    return int(part.sum()), len(part)
