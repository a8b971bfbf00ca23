"""What a second answer changes where the SQL of the first one did not run."""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from analysis.compare import bounds
from analysis.data import Results
from custom_metrics import stats
from tasks.text_to_sql import RAN

REPAIR = (
    "model", "variant", "task", "n", "asked_again", "now_run", "now_right", "first_accuracy_pct", "accuracy_pct",
    "difference_pp", "ci_low_pp", "ci_high_pp", "p_mcnemar", "p_holm", "unit", "clusters",
)  # fmt: skip


def second_round(results: Results, again: Sequence[Collection[str]]) -> pd.DataFrame:
    """Compare each run that has `repairs`, a label, with that run of its model, question by question.

    A first answer whose SQL did not run is wrong, and all others stand, so nothing can get lost. Interval and McNemar's
    exact p are of this one pair of runs; p is also adjusted (Holm) for the pairs of the model.

    Args:
        again: of each such run, in their order, the ids of the questions that were asked again.
    """
    numbers = {(run["model"], run["variant"]): number for number, run in enumerate(results.runs)}
    part, right, frames = results.whole[results.target], results.right[results.target], results.frames[results.target]
    rows = []
    for run, ids in zip((run for run in results.runs if "repairs" in run), again, strict=True):
        first, second = (numbers[run["model"], run[key]] for key in ("repairs", "variant"))
        before, after, asked = right[first], right[second], frames[second]["id"].isin(ids).to_numpy()
        change, n = after - before, len(after)
        estimate = stats.clustered_difference(np.bincount(part.codes, change), part.sizes, results.level)
        rows.append(
            {"model": run["model"], "variant": run["repairs"], "task": results.target, "n": n}
            | {"asked_again": int(asked.sum()), "now_run": int(frames[second]["error_class"][asked].isin(RAN).sum())}
            | {"now_right": int(after[asked].sum())}
            | {"first_accuracy_pct": 100.0 * before.sum() / n, "accuracy_pct": 100.0 * after.sum() / n}
            | {"difference_pp": 100.0 * change.sum() / n}
            | bounds(estimate.low, estimate.high, suffix="_pp")
            | {"p_mcnemar": stats.mcnemar(int((change > 0).sum()), int((change < 0).sum()))}
            | {"unit": part.unit, "clusters": part.clusters}
        )
    frame = pd.DataFrame(rows, columns=[*REPAIR])
    frame["p_holm"] = frame.groupby("model", sort=False)["p_mcnemar"].transform(lambda p: stats.holm(p.tolist()))
    return results.label(frame)
