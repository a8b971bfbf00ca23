"""Can the figures that a report printed be right? Arithmetic on the figures alone; nothing is run.

It knows the benchmark and the rules of rounding, and nothing about any particular report: what it says of one, it says
of every other that prints the same numbers.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
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
# How a figure may be printed, and how the columns that it is made of and it. What is rounded is tried first.
PRINTED = ("rounded", "truncated")
READINGS = (("rounded", "rounded"), ("truncated", "truncated"), ("rounded", "truncated"))
# Why something is so: keys of `tables.published.why` of the words, each with what is filled in: numbers as text with
# the digits that they are to have, names, or further reasons.
Reasons = Sequence[tuple[str, Mapping[str, Any]]]
Subjects = Mapping[str, Sequence[str]]


class Check(NamedTuple):
    """What arithmetic says of one figure: possible is True, False, or None where it cannot tell."""

    possible: bool | None
    why: Reasons


def reason(key: str, **values: Any) -> tuple[str, dict[str, Any]]:
    return key, {name: value if isinstance(value, list) else str(value) for name, value in values.items()}


def because(possible: bool | None, key: str, how: str = "rounded", **values: Any) -> Check:
    """Make a check with one reason, and with a second one where it is truncated."""
    return Check(possible, [reason(key, **values), *([reason("truncated")] if how == "truncated" else [])])


def span(printed: float, decimals: int, how: str) -> tuple[float, float]:
    """Give the least and the greatest value that is printed so, with room for binary fractions.

    `rounded` leaves half a unit of the last digit on both sides, `truncated` a whole one on the side away from 0.
    """
    unit, room = 10.0**-decimals, 1e-9
    if how == "rounded":
        return printed - unit / 2 - room, printed + unit / 2 + room
    return printed - (unit - room if printed <= 0 else room), printed + (unit - room if printed >= 0 else room)


def meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Tell whether two spans have a value in common."""
    return one[0] <= other[1] and other[0] <= one[1]


def counts(percent: float, decimals: int, n: int) -> dict[int, str]:
    """Give every number of right answers of n that may be printed as this percentage, and how; rounded ones first."""
    found: dict[int, str] = {}
    for how in PRINTED:
        low, high = (limit * n / 100 for limit in span(percent, decimals, how))
        for correct in range(max(0, math.ceil(low)), min(n, math.floor(high)) + 1):
            found.setdefault(correct, how)
    return found


def check_percentage(percent: float, decimals: int, n: int | None, correct: int | None = None) -> Check:
    """Check one percentage of right answers against the number of questions, and the right ones where printed."""
    if n is None:
        return because(None, "no_n")
    fit = counts(percent, decimals, n)
    if correct is None:
        if not fit:
            return because(False, "no_count", n=n)
        if 100 / n <= 10.0**-decimals + 1e-9:
            return because(None, "any", n=n)
        correct = next(iter(fit))
    elif correct > n:
        return because(False, "more_than_n", correct=correct, n=n)
    elif correct not in fit:
        return because(False, "other", correct=correct, n=n, percent=f"{100 * correct / n:.{decimals + 1}f}")
    return because(True, "count", fit[correct], correct=correct, n=n)


def check_change(
    printed: float, decimals: int, base: float | None, tuned: float | None, means: Mapping[str, float]
) -> Check:
    """Check a change printed in percent against the two percentages it is said to compare.

    Args:
        printed: the change.
        decimals: digits of all these figures.
        base, tuned: the percentages, where they are printed.
        means: what else the change could have been made of, as `means` has it, to say where a wrong one is from.
    """
    if base is None or tuned is None:
        return because(None, "not_both")
    for columns, how in READINGS:
        before, after = span(base, decimals, columns), span(tuned, decimals, columns)
        if before[0] <= 0:
            return because(None, "base_0")
        # It rises with tuned and falls with base.
        true = 100 * (after[0] / before[1] - 1), 100 * (after[1] / before[0] - 1)
        if meet(true, span(printed, decimals, how)):
            return because(True, "follows", how)
    own, unit = 100 * (tuned / base - 1), 10.0**-decimals + 1e-9
    why = [reason("own_other_sign" if own * printed < 0 else "own", percent=f"{own:+.1f}")]
    if abs(tuned - base - printed) <= 1.5 * unit:
        why.append(reason("points"))
    fit = [
        reason("it_is", what=[mean(name, "changes")]) for name, value in means.items() if abs(value - printed) <= unit
    ]
    return Check(False, [*why, *fit[:1]])


def check_mean_change(printed: float, decimals: int, means: Mapping[str, float]) -> Check:
    """Check a change that is the mean of subjects' changes: an aggregate by those of its columns, others not at all.

    Args:
        printed: the change, in percent.
        decimals: digits of all these figures.
        means: of an aggregate, what `means` returns of its columns' changes; else empty.
    """
    name = next((name for name in means if name.startswith("subjects ")), None)
    if name is None:
        return because(None, "of_subjects")
    if abs(means[name] - printed) <= 10.0**-decimals + 1e-9:
        return Check(True, [reason("it_is", what=[mean(name, "changes")])])
    return because(
        False, "columns_give", values=[reason("as", value=f"{means[name]:.{decimals}f}", what=[mean(name, "changes")])]
    )


def means(values: Mapping[str, float], subjects: Subjects, n: Mapping[str, int | None]) -> dict[str, float]:
    """Put the columns of categories into one figure in every way there is, the surest first.

    The ways are called `share` (of all questions), and `subjects 39` and `categories 3` (means over so many).
    """
    figures, found = [*values.values()], {}
    if all(n.get(column) for column in values):
        found["share"] = np.average(figures, weights=[n[column] for column in values])
    if all(column in subjects for column in values):
        sizes = [len(subjects[column]) for column in values]
        found[f"subjects {sum(sizes)}"] = np.average(figures, weights=sizes)
    return found | {f"categories {len(figures)}": np.average(figures)}


def mean(name: str, of: str = "percentages") -> tuple[str, dict[str, str]]:
    """Say what one of the `means` is, of percentages or of changes."""
    kind, _, n = name.partition(" ")
    return reason(f"{kind}_{of}", n=n) if n else reason(kind)


def check_total(printed: float, decimals: int, parts: Mapping[str, float]) -> Check:
    """Check an aggregate against `parts`, what `means` returns of its columns, which are printed like it."""
    for columns, how in READINGS:
        for name, value in parts.items():
            if meet(span(value, decimals, columns), span(printed, decimals, how)):
                return because(True, "is", how, what=[mean(name)])
    listed = [reason("as", value=f"{value:.{decimals}f}", what=[mean(name)]) for name, value in parts.items()]
    return because(False, "columns_give", values=listed)


def check_accuracy(table: Mapping[str, Any], variant: str, column: str, parts: Mapping[str, float]) -> Check:
    """Check a printed percentage of right answers; an aggregate must also follow from its columns, where printed.

    A mean over categories or subjects of different sizes need not be the share of any number of right answers.

    Args:
        parts: of an aggregate, what `means` returns of its columns; else empty.
    """
    values, known = table["accuracy"][variant], table["correct"].get(variant, {})
    value, n, decimals = values[column], table["n"], table["decimals"]
    share = total = check_percentage(value, decimals, n[column], known.get(column))
    if not parts:
        return share
    columns = [name for name in values if name != WHOLE]
    if share.possible is not False:
        right = sum(known.get(name, 0) for name in columns)
        if not known.keys() >= set(columns):
            total = check_total(value, decimals, parts)
        elif n[WHOLE] and (how := counts(value, decimals, n[WHOLE]).get(right)):
            total = because(True, "sum", how, parts=" + ".join(str(known[name]) for name in columns))
        else:
            total = because(False, "other_sum", correct=right)
    sizes = {n.get(name) for name in columns}
    averages = {} if len(sizes) == 1 and None not in sizes else {name: parts[name] for name in parts if name != "share"}
    macro = check_total(value, decimals, averages)
    if macro.possible and (total == macro or total.possible is False):
        return macro
    said = share.why if share.possible else []
    return Check(total.possible, [*(one for one in said if one not in total.why), *total.why])


def check_table(table: Mapping[str, Any], subjects: Subjects) -> Iterator[dict[str, Any]]:
    """Yield one row for each figure of a table of `published`: the figure, and what arithmetic says of it."""
    for kind in ("accuracy", "change"):
        for variant, values in table[kind].items():
            columns = {name: value for name, value in values.items() if name != WHOLE}
            every = means(columns, subjects, table["n"]) if len(columns) > 1 else {}
            for column, value in values.items():
                parts, correct = every if column == WHOLE else {}, None
                if kind == "accuracy":
                    found = check_accuracy(table, variant, column, parts)
                    correct = table["correct"].get(variant, {}).get(column)
                elif table.get("change_of") == "subjects":
                    found = check_mean_change(value, table["decimals"], parts)
                else:
                    compared = (table["accuracy"].get(name, {}).get(column) for name in (BASE, variant))
                    found = check_change(value, table["decimals"], *compared, parts)
                row = {name: table.get(name) for name in ("table", "task", "criterion", "decimals")}
                row |= {"kind": kind, "variant": variant, "column": column, "published": value}
                yield row | {"published_n": table["n"][column], "published_correct": correct} | found._asdict()


def findings(published: Mapping[str, Any], official: Mapping[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Say what is odd about the figures besides single ones, each as a reason of its own.

    Args:
        published: the block of a checked study.
        official: by task, how many questions its official evaluation split has, where there is one.
    """
    for table in published["tables"]:
        n, split = table["n"].get(WHOLE), official.get(table["task"])
        if n is None or split in (None, n):
            continue
        about = {"table": table["table"], "n": n, "official": split}
        if n > split:
            yield reason("too_many", **about)
        elif not table["subset"]:
            figures = [value for values in table["accuracy"].values() for value in values.values()]
            fit = sum(bool(counts(figure, table["decimals"], split)) for figure in figures)
            yield reason("which_left_out", **about, left_out=split - n, fit=fit, figures=len(figures))
    for category, subject in ((name, one) for name, subjects in published["subjects"].items() for one in subjects):
        if category in OFFICIAL and CATEGORY.get(subject, category) != category:
            yield reason("other_category", subject=subject, category=category, official=CATEGORY[subject])
    for stated in (stated for stated in published["stated"] if "part_of" in stated):
        (part, whole), value, decimals = stated["part_of"], stated["value"], stated["decimals"]
        own = 100 * part / whole
        if not any(meet(span(value, decimals, how), (own, own)) for how in PRINTED):
            percent = f"{own:.{decimals + 1}f}"
            values = {"part": f"{part:g}", "whole": f"{whole:g}", "percent": percent}
            yield reason("other_share", what=stated["what"], printed=value, **values)


def swapped(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Say which two columns of a table have each other's numbers, where ours are about the same answers.

    `rows` are those of `beside`. Every printed number of right answers must be ours of the other column, and at least
    one must not be ours of its own.
    """
    tables: dict[str, dict[str, dict[str, tuple]]] = {}
    for row in rows:
        if row["kind"] == "accuracy" and row["column"] != WHOLE and row["published_correct"] is not None:
            pair = row["published_correct"], row.get("correct")
            tables.setdefault(row["table"], {}).setdefault(row["column"], {})[row["variant"]] = pair
    for table, columns in tables.items():
        for one, other in itertools.combinations(columns, 2):
            a, b = columns[one], columns[other]
            crossed = a.keys() == b.keys() and all(a[run] == b[run][::-1] for run in a)
            if crossed and any(printed != ours for printed, ours in a.values()):
                yield reason("swapped", table=table, one=one, other=other)


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
    rows, subjects = [], published["subjects"]
    for row in (row for table in published["tables"] for row in check_table(table, subjects)):
        for run in matching(row["variant"], list(ours)) or [None]:
            found, records = {}, (ours.get(name, {}).get(row["task"]) for name in (run, BASE))
            (correct, n), (before, _) = (
                (0, 0) if one is None else count(one, measures[row["task"]], row, subjects) for one in records
            )
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


def count(records: pd.DataFrame, measure: Measure, figure: Mapping[str, Any], subjects: Subjects) -> tuple[int, int]:
    """Count right answers and questions of ours that a published figure is about; no questions if we lack a subject.

    What is right follows the report's criterion, where the study names it, else the study's own.

    A category stands for the subjects that the report put into it, whatever this study calls them; where the report
    does not name them, for this study's own. Subjects are those of multiple choice.
    """
    column, named = figure["column"], subjects if measure.form == "choice" else {}
    wanted = {subject for one in named.values() for subject in one} if column == WHOLE else {*named.get(column, ())}
    if wanted:
        own = records[measure.cluster]
        chosen = own.isin(wanted) & (wanted <= set(own))
    elif column == WHOLE:
        chosen = pd.Series(True, index=records.index)
    else:
        chosen = records[[*measure.strata]].eq(column).any(axis=1)
    part = records.loc[chosen, figure.get("criterion") or measure.criterion]
    return int(part.sum()), len(part)
