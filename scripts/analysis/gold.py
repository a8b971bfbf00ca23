"""What the faults of gold queries leave of an accuracy: the gold queries as answers, and bounds of each run."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.data import Results, counted
from custom_metrics.compare import SEMANTICS
from custom_metrics.gold import doubtful

GOLD = "gold"


def bounds(results: Results, certificates: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Give of each task its gold queries as answers, by every criterion, and its runs, by the study's.

    A question is in doubt if its gold query fails by the criterion, or leaves open its rows or, where it counts, their
    order: a right answer may be wrong there. Where the gold query has no rows, a wrong answer may be right by chance.
    So the accuracy of a run is no less than `low_pct`, where right answers to all other questions count, and no more
    than `high_pct`, where all answers in doubt count too. A perfect answerer, the run `gold`, has at least the share of
    questions without doubt.

    Args:
        certificates: by task the rows of `certify`; of every question one.
    """
    rows = []
    for task, frames in results.frames.items():
        certificate = certificates[task].set_index("id").loc[frames[0]["id"]]
        empty = certificate["gold_rows"].eq(0).to_numpy()
        opened = {f"{kind}_open": int((certificate["open"] == kind).sum()) for kind in ("rows", "order")}
        counts = {"failed": int(certificate["gold_rows"].isna().sum()), "empty": int(empty.sum()), **opened}
        counts["unknown"] = int((certificate["open"] == "unknown").sum())
        pairs = {one: zip(certificate[one] == 1, certificate["open"], strict=True) for one in SEMANTICS}
        doubts = {one: np.array([doubtful(one, *pair) for pair in of]) for one, of in pairs.items()}
        own = results.measures[task].criterion
        runs = [("", GOLD, one, certificate[one].to_numpy()) for one in SEMANTICS]
        runs += [
            (head["model"], head["variant"], own, right)
            for head, right in zip(results.heads, results.right[task], strict=True)
        ]
        for model, variant, criterion, right in runs:
            doubt = doubts[criterion]
            least = ~doubt if variant == GOLD else right * ~(doubt | empty)
            row = {"task": task, "model": model, "variant": variant, "criterion": criterion}
            row |= {"n": len(right), "correct": counted(right.sum())}
            most = right if variant == GOLD else np.maximum(right, doubt)
            shares = {"accuracy_pct": right, "low_pct": least, "high_pct": most}
            row |= {name: 100.0 * of.mean() for name, of in shares.items()}
            rows.append(row | counts | {"doubtful": int(doubt.sum())})
    return pd.DataFrame(rows)
