"""Can the figures that a report printed be right? Arithmetic on the figures alone; nothing is run.

It knows the benchmark and the rules of rounding, and nothing about any particular report: what it says of one, it says
of every other that prints the same numbers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from analysis.compare import bounds
from analysis.data import BASE, SPIDER
from custom_metrics.stats import wilson_interval
from tasks.mmlu import CATEGORY, OFFICIAL

# How `published` calls the figure over all questions.
WHOLE = "all"
COLUMNS = (
    "table", "measure", "kind", "variant", "column", "published", "published_n", "published_correct", "possible",
    "why", "run", "ours", "n", "correct", "difference_pp", "ci_low", "ci_high", "published_in_ci",
)  # fmt: skip


class Check(NamedTuple):
    """What arithmetic says of one figure: possible is True, False, or None where it cannot tell; why, in a sentence."""

    possible: bool | None
    why: str


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
        return Check(None, "the report does not say of how many questions")
    fit = counts(percent, decimals, n)
    if correct is None:
        if not fit:
            return Check(False, f"no whole number of {n} questions gives it")
        if 100 / n <= 2 * half(decimals):
            return Check(None, f"with {n} questions any figure could be")
        return Check(True, f"{fit[0]} of {n}")
    if correct > n:
        return Check(False, f"{correct} right answers to {n} questions")
    if correct not in fit:
        return Check(False, f"{correct} of {n} are {100 * correct / n:.{decimals + 1}f}%")
    return Check(True, f"{correct} of {n}")


def check_change(printed: float, decimals: int, base: float, tuned: float, means: Mapping[str, float]) -> Check:
    """Check a change printed in percent against the two percentages it is said to compare.

    Args:
        printed: the change.
        decimals: digits of all these figures.
        base, tuned: the percentages.
        means: what else the change could have been made of, by its description, to say where a wrong one is from.
    """
    e = half(decimals)
    if base <= e:
        return Check(None, "the base is 0, or rounds to it")
    # The least and the greatest change that rounded columns allow: it rises with tuned and falls with base.
    low, high = 100 * ((tuned - e) / (base + e) - 1), 100 * ((tuned + e) / (base - e) - 1)
    own = 100 * (tuned / base - 1)
    if low - e <= printed <= high + e:
        return Check(True, "follows from its columns")
    why = f"from its own columns {own:+.1f}%"
    if own * printed < 0:
        why += ", of the other sign"
    if abs(tuned - base - printed) <= 3 * e:
        why += "; it is the difference in percentage points"
    why += next((f"; it is {what}" for what, value in means.items() if abs(value - printed) <= 2 * e), "")
    return Check(False, why)


def means(values: Mapping[str, float], subjects: Mapping[str, list[str]], n: Mapping[str, int | None]) -> dict:
    """Put the columns of categories into one figure in every way there is, by description, the surest first."""

    def weighted(weights: Mapping[str, int]) -> float:
        return sum(values[column] * weights[column] for column in values) / sum(weights[column] for column in values)

    found = {}
    if all(n.get(column) for column in values):
        found["the share of all questions"] = weighted(n)
    if all(column in subjects for column in values):
        sizes = {column: len(subjects[column]) for column in values}
        found[f"the mean of {sum(sizes.values())} subjects' percentages"] = weighted(sizes)
    found[f"the mean of {len(values)} categories' percentages"] = sum(values.values()) / len(values)
    return found


def check_total(printed: float, decimals: int, parts: Mapping[str, float]) -> Check:
    """Check an aggregate against `parts`, what `means` returns of its columns."""
    for description, value in parts.items():
        if abs(value - printed) <= 2 * half(decimals):
            return Check(True, f"is {description}")
    listed = ", ".join(f"{value:.{decimals}f} as {description}" for description, value in parts.items())
    return Check(False, f"its columns give {listed}")


def check_accuracy(table: Mapping[str, Any], variant: str, column: str, subjects: Mapping[str, Sequence[str]]) -> Check:
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
        total = Check(True, f"the sum of {' + '.join(map(str, right))}")
    else:
        total = Check(False, f"the columns add up to {sum(right)} right answers")
    why = f"{share.why}; {total.why}" if share.possible else total.why
    return Check(total.possible, why)


def check_printed_change(
    table: Mapping[str, Any], variant: str, column: str, subjects: Mapping[str, Sequence[str]]
) -> Check:
    """Check a printed change against the two percentages that it compares, where both are printed."""
    base, tuned = (table["accuracy"].get(name, {}).get(column) for name in (BASE, variant))
    if base is None or tuned is None:
        return Check(None, "the report does not print both figures that it compares")
    columns = {name: value for name, value in table["change"][variant].items() if name != WHOLE}
    others = means(columns, subjects, table["n"]) if column == WHOLE and len(columns) > 1 else {}
    others = {what.replace("percentages", "changes"): value for what, value in others.items()}
    return check_change(table["change"][variant][column], table["decimals"], base, tuned, others)


def check_table(table: Mapping[str, Any], subjects: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Yield one row for each figure of a table of `published`: the figure, and what arithmetic says of it."""
    for kind, check in (("accuracy", check_accuracy), ("change", check_printed_change)):
        for variant, values in table[kind].items():
            for column, value in values.items():
                found = check(table, variant, column, subjects)
                correct = table["correct"].get(variant, {}).get(column) if kind == "accuracy" else None
                row = {name: table[name] for name in ("table", "measure", "decimals")}
                row |= {"kind": kind, "variant": variant, "column": column, "published": value}
                yield row | {"published_n": table["n"][column], "published_correct": correct} | found._asdict()


def findings(published: dict[str, Any], dev_questions: int) -> list[str]:
    """Say what is odd about the figures besides single ones, each in a sentence.

    Args:
        published: the block of a checked study.
        dev_questions: how many questions the official evaluation split has.
    """
    found = []
    for table in published["tables"]:
        n = table["n"].get(WHOLE)
        if table["measure"] != SPIDER or n is None or n == dev_questions:
            continue
        odd = f"{table['table']}: {n} questions, but the official split has {dev_questions}"
        if n > dev_questions:
            found.append(f"{odd}.")
        elif not table["subset"]:
            figures = [value for values in table["accuracy"].values() for value in values.values()]
            fit = [f for f in figures if counts(f, table["decimals"], dev_questions)]
            found.append(
                f"{odd}, and the report does not say which {dev_questions - n} are left out. {len(fit)} of its "
                f"{len(figures)} figures could be shares of {dev_questions}."
            )
    found += [
        f"{subject} stands under {category}; the benchmark has it under {CATEGORY[subject]}."
        for category, subjects in published["subjects"].items()
        for subject in subjects
        if category in OFFICIAL and CATEGORY.get(subject, category) != category
    ]
    for stated in (stated for stated in published["stated"] if "part_of" in stated):
        (part, whole), decimals = stated["part_of"], stated["decimals"]
        own = 100 * part / whole
        if abs(own - stated["value"]) > half(decimals):
            printed = f"{stated['what']}: printed {stated['value']}%"
            found.append(f"{printed}, but {part:g} of {whole:g} are {own:.{decimals + 1}f}%.")
    return found


def beside(published: Mapping[str, Any], ours: Mapping[str, Mapping[str, Any]], level: float) -> list[dict[str, Any]]:
    """Put what we found beside each printed figure: a row for each figure and run of ours with its settings.

    Args:
        published: the block of a checked study.
        ours: by variant and measure: right answers and questions, or records of MMLU, since a report's categories need
            not be this study's.
        level: of our intervals (Wilson 1927).
    """
    subjects = published["subjects"]

    def counted(row: Mapping[str, Any], variant: str | None) -> tuple[int, int]:
        found = ours.get(variant, {}).get(row["measure"], (0, 0))
        return count(found, row["column"], subjects) if isinstance(found, pd.DataFrame) else found

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


def count(records: pd.DataFrame, column: str, subjects: Mapping[str, Sequence[str]]) -> tuple[int, int]:
    """Count right answers and questions of ours that a published column is about; no questions if we lack a subject.

    A category stands for the subjects that the report put into it, whatever this study calls them; where the report
    does not name them, for this study's category of that name.
    """
    own = records["subject"]
    if column == WHOLE:
        wanted = [subject for named in subjects.values() for subject in named] or own.unique()
    elif column in subjects:
        wanted = subjects[column]
    else:
        wanted = [column] if column in set(own) else own[records["category"] == column].unique()
    if not set(wanted) <= set(own):
        return 0, 0
    part = records.loc[own.isin(wanted), "correct"]
    return int(part.sum()), len(part)
