"""Which wrong answers a report shows: chosen by rule, not by taste."""

from typing import Any

import pandas as pd

from present.values import HARDNESS

# Answers that ran and differ from the gold query's in order, columns or repeated rows alone, by any criterion.
NEAR_MISSES = ("wrong_order_only", "duplicate_only", "wrong_columns", "extra_or_missing_columns")


def choose_failures(frame: pd.DataFrame, base: pd.DataFrame | None, criterion: str) -> list[tuple[str, Any]]:
    """Choose up to three wrong answers of one run as (rule, record), each question once.

    forgotten: the first that the base has right; commonest: the first of the commonest error class, the one met first
    among equals; near_miss: the first of the highest hardness among `NEAR_MISSES`. A rule that finds none gives none.

    Args:
        frame: the run's Spider records in the order of dev.
        base: those of its base model, None for the base itself.
        criterion: the column that says which answers are right.
    """
    wrong = frame[frame[criterion] == 0]
    chosen: list[tuple[str, Any]] = []

    def take(rule: str, part: pd.DataFrame) -> bool:
        part = part[~part["id"].isin([row.id for _, row in chosen])]
        if len(part):
            chosen.append((rule, next(part.itertuples())))
        return len(part) > 0

    if base is not None:
        take("forgotten", wrong[(aligned(base, frame)[criterion] == 1).loc[wrong.index]])
    if len(wrong):
        counts = wrong["error_class"].value_counts(sort=False)
        take("commonest", wrong[wrong["error_class"] == counts.idxmax()])
    near = wrong[wrong["error_class"].isin(NEAR_MISSES)]
    any(take("near_miss", near[near["hardness"] == level]) for level in reversed(HARDNESS))
    return chosen


def aligned(base: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the base's records in the order and with the index of `frame`."""
    return base.set_index("id").loc[frame["id"]].set_axis(frame.index)
