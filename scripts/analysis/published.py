"""Can the figures that a report printed be right? Arithmetic on the figures alone; nothing is run.

It knows the benchmark and the rules of rounding, and nothing about any particular report: what it says of one, it says
of every other that prints the same numbers.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

# The benchmark's own grouping (Hendrycks et al. 2021, arXiv:2009.03300; categories.py of its release).
OFFICIAL = {
    "stem": (
        "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics "
        "college_physics computer_security conceptual_physics electrical_engineering elementary_mathematics "
        "high_school_biology high_school_chemistry high_school_computer_science high_school_mathematics "
        "high_school_physics high_school_statistics machine_learning"
    ),
    "humanities": (
        "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law "
        "jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law "
        "world_religions"
    ),
    "social_sciences": (
        "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
        "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
        "security_studies sociology us_foreign_policy"
    ),
    "other": (
        "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
        "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology"
    ),
}
CATEGORY = {subject: category for category, subjects in OFFICIAL.items() for subject in subjects.split()}
ALL, BASE = "all", "base"


@dataclass(frozen=True)
class Check:
    """What arithmetic says of one figure: possible is True, False, or None where it cannot tell; why, in a sentence."""

    possible: bool | None
    why: str


def half(decimals: int) -> float:
    """Return how far a true value may lie from one rounded to so many decimals, with room for binary fractions."""
    return 0.5 * 10.0**-decimals + 1e-9


def counts(percent: float, decimals: int, n: int) -> list[int]:
    """Return every number of right answers of n that rounds to this percentage."""
    low, high = ((percent + sign * half(decimals)) * n / 100 for sign in (-1, 1))
    near = range(math.floor(low), math.ceil(high) + 1)
    return [k for k in near if 0 <= k <= n and abs(100 * k / n - percent) <= half(decimals)]


def check_percentage(percent: float, decimals: int, n: int | None, correct: int | None = None) -> Check:
    """Check one percentage of right answers against the number of questions, and the right ones where printed."""
    if n is None:
        return Check(None, "the report does not say of how many questions")
    if correct is not None:
        if correct > n:
            return Check(False, f"{correct} right answers to {n} questions")
        own = 100 * correct / n
        if abs(own - percent) > half(decimals):
            return Check(False, f"{correct} of {n} are {own:.{decimals + 1}f}%")
        return Check(True, f"{correct} of {n}")
    found = counts(percent, decimals, n)
    if not found:
        return Check(False, f"no whole number of {n} questions gives it")
    if 100 / n <= 2 * half(decimals):
        return Check(None, f"with {n} questions any figure could be")
    return Check(True, f"{found[0]} of {n}")


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
    for description, value in means.items():
        if abs(value - printed) <= 2 * e:
            why += f"; it is {description}"
            break
    return Check(False, why)


def means(values: Mapping[str, float], subjects: Mapping[str, list[str]], n: Mapping[str, int | None]) -> dict:
    """Return the ways of putting the columns of categories into one figure, by their descriptions, surest first."""
    found = {}
    if all(n.get(column) for column in values):
        total = sum(n[column] for column in values)
        found["the share of all questions"] = sum(values[c] * n[c] for c in values) / total
    if all(column in subjects for column in values):
        weights = {column: len(subjects[column]) for column in values}
        weighted = sum(values[c] * weights[c] for c in values) / sum(weights.values())
        found[f"the mean of {sum(weights.values())} subjects' percentages"] = weighted
    found[f"the mean of {len(values)} categories' percentages"] = sum(values.values()) / len(values)
    return found


def check_total(printed: float, decimals: int, parts: Mapping[str, float]) -> Check:
    """Check an aggregate against `parts`, what `means` returns of its columns."""
    for description, value in parts.items():
        if abs(value - printed) <= 2 * half(decimals):
            return Check(True, f"is {description}")
    listed = ", ".join(f"{value:.{decimals}f} as {description}" for description, value in parts.items())
    return Check(False, f"its columns give {listed}")


def check_table(table: dict[str, Any], subjects: Mapping[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Yield one row for each figure of a table of `published`: kind, variant, column, value, n, correct, and a Check.

    An aggregate must pass two checks: be a share of its n, and follow from its columns where those are printed.
    """
    n, decimals = table["n"], table["decimals"]
    for variant, values in table["accuracy"].items():
        columns = {c: v for c, v in values.items() if c != ALL}
        for column, value in values.items():
            correct = table["correct"].get(variant, {}).get(column)
            check = check_percentage(value, decimals, n[column], correct)
            if column == ALL and len(columns) > 1 and check.possible is not False:
                total = check_total(value, decimals, means(columns, subjects, n))
                parts = table["correct"].get(variant, {})
                known = [parts[c] for c in columns if c in parts]
                if len(known) == len(columns):
                    right = counts(value, decimals, n[ALL] or 0) if n[ALL] else []
                    total = (
                        Check(True, f"the sum of {' + '.join(map(str, known))}")
                        if sum(known) in right
                        else Check(False, f"the columns add up to {sum(known)} right answers")
                    )
                sure = check.possible or total.possible
                check = Check(
                    sure if total.possible else False, f"{check.why}; {total.why}" if check.possible else total.why
                )
            yield _row(table, "accuracy", variant, column, value, correct, check)
    for variant, values in table["change"].items():
        columns = {c: v for c, v in values.items() if c != ALL}
        for column, value in values.items():
            base, tuned = (table["accuracy"].get(name, {}).get(column) for name in (BASE, variant))
            if base is None or tuned is None:
                check = Check(None, "the report does not print both figures that it compares")
            else:
                others = means(columns, subjects, n) if column == ALL and len(columns) > 1 else {}
                others = {what.replace("percentages", "changes"): v for what, v in others.items()}
                check = check_change(value, decimals, base, tuned, others)
            yield _row(table, "change", variant, column, value, None, check)


def _row(
    table: dict, kind: str, variant: str, column: str, value: float, correct: int | None, check: Check
) -> dict[str, Any]:
    return {
        "table": table["table"],
        "measure": table["measure"],
        "kind": kind,
        "variant": variant,
        "column": column,
        "published": value,
        "decimals": table["decimals"],
        "published_n": table["n"][column],
        "published_correct": correct,
        "possible": check.possible,
        "why": check.why,
    }


def findings(published: dict[str, Any], dev_questions: int) -> list[str]:
    """Return what is odd about the figures besides single ones, each as a sentence.

    Args:
        published: the block of a checked study.
        dev_questions: how many questions the official evaluation split has.
    """
    found = []
    for table in published["tables"]:
        n = table["n"].get(ALL)
        if table["measure"] != "execution_accuracy" or n is None or n == dev_questions:
            continue
        if n > dev_questions:
            found.append(f"{table['table']}: {n} questions, but the official split has {dev_questions}.")
        elif not table["subset"]:
            figures = [value for values in table["accuracy"].values() for value in values.values()]
            fit = [f for f in figures if counts(f, table["decimals"], dev_questions)]
            found.append(
                f"{table['table']}: {n} questions, but the official split has {dev_questions}, and the report does not "
                f"say which {dev_questions - n} are left out. {len(fit)} of its {len(figures)} figures could be shares "
                f"of {dev_questions}."
            )
    for category, subjects in published["subjects"].items():
        if category not in OFFICIAL:
            continue
        for subject in subjects:
            if CATEGORY.get(subject, category) != category:
                found.append(f"{subject} stands under {category}; the benchmark has it under {CATEGORY[subject]}.")
    for stated in published["stated"]:
        if "part_of" in stated:
            part, whole = stated["part_of"]
            own = 100 * part / whole
            if abs(own - stated["value"]) > half(stated["decimals"]):
                found.append(
                    f"{stated['what']}: printed {stated['value']}%, but {part:g} of {whole:g} are "
                    f"{own:.{stated['decimals'] + 1}f}%."
                )
    return found
