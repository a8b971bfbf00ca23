"""Which wrong answers a report shows, chosen by rule and not by taste, and in words how each differs from the gold."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from present.format import Say, missing
from present.templates import code

# Of two queries that have little in common, so many differences are named.
MOST_DIFFERENCES = 4
# Answers that gave rows of which some are not the gold query's.
ROWS = ("wrong_rows", "wrong_order_only", "duplicate_only")

# Answers that ran and differ from the gold query's in order, columns or repeated rows alone, by any criterion.
NEAR_MISSES = ("wrong_order_only", "duplicate_only", "wrong_columns", "extra_or_missing_columns")


def choose_failures(
    frame: pd.DataFrame, base: pd.DataFrame | None, criterion: str, strata: tuple[str, Sequence[str]]
) -> list[tuple[str, dict[str, Any]]]:
    """Choose up to three wrong answers of one run as (rule, record), each question once.

    forgotten: the first that the base has right; commonest: the first of the commonest error class, the one met first
    among equals; near_miss: the first of the hardest among `NEAR_MISSES`. A rule that finds none gives none.

    `base` has the records of the base model, None for the base itself. The column `criterion` says which answers are
    right; `strata` is the column that says how hard a question is, with its values from easy to hard.
    """
    wrong = frame[frame[criterion] == 0]
    chosen: list[tuple[str, dict[str, Any]]] = []
    column, levels = strata

    def take(rule: str, part: pd.DataFrame) -> bool:
        part = part[~part["id"].isin([row["id"] for _, row in chosen])]
        if len(part):
            chosen.append((rule, part.iloc[0].to_dict()))
        return len(part) > 0

    if base is not None:
        take("forgotten", wrong[(aligned(base, frame)[criterion] == 1).loc[wrong.index]])
    if len(wrong):
        counts = wrong["error_class"].value_counts(sort=False)
        take("commonest", wrong[wrong["error_class"] == counts.idxmax()])
    near = wrong[wrong["error_class"].isin(NEAR_MISSES)]
    any(take("near_miss", near[near[column] == level]) for level in reversed(levels))
    return chosen


def aligned(base: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the base's records in the order and with the index of `frame`."""
    return base.set_index("id").loc[frame["id"]].set_axis(frame.index)


def why(differences: Iterable[tuple[str, str, str]] | None, record: Mapping[str, Any], say: Say) -> list[str]:
    """Say as Markdown how an answer differs from the gold query, a text a sentence: the two queries, then their rows.

    `differences` are those of `custom_metrics.explain`: kind, and what it is in the gold query and in the answer; None
    of queries that could not be read.
    """
    clauses = []
    for kind, gold, answer in differences or ():
        which = "other" if gold and answer else "missing" if gold else "extra"
        clauses.append(say.word(f"explain.{kind}.{which}", gold=code(gold), answer=code(answer)))
    more = clauses[MOST_DIFFERENCES:]
    said = "; ".join([*clauses[:MOST_DIFFERENCES], *([say.word("numbers.more", n=len(more))] if more else [])])
    sentences = [said[:1].upper() + said[1:] + "."] if said else []
    numbers = record["gold_rows"], record["predicted_rows"]
    if record["error_class"] in ROWS and not any(map(missing, numbers)):
        gold, answer = map(say.count, numbers)
        same = numbers[0] == numbers[1]
        sentences.append(say.word("rows_same_number" if same else "rows_differ", gold=gold, answer=answer))
    return sentences
