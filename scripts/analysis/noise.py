"""What the machine itself changes: runs that were repeated in other batches, or with the adapter applied otherwise."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from analysis.compare import bounds, gains
from analysis.data import Results

NOISE = ("task", "n", "flips", "flips_pct", "ci_low", "ci_high", "gained", "lost", "difference_pp")


def floor(results: Results) -> pd.DataFrame:
    """Count the verdicts that turn where a run is repeated: right to wrong, or wrong to right.

    Each run with `repeats`, a label, is held against that run of its model, question by question. The interval is that
    of Clopper and Pearson (1934, Biometrika 26(4), 404-413), which is exact for questions drawn at random; of no
    turned verdict it says how many there may be.
    """
    numbers = {(run["model"], run["variant"]): number for number, run in enumerate(results.runs)}
    rows = []
    for run in (run for run in results.runs if "repeats" in run):
        pair = [numbers[run["model"], run[key]] for key in ("repeats", "variant")]
        for task, right in results.right.items():
            before, after = right[pair]
            flips, n = int(np.count_nonzero(before != after)), len(before)
            limits = binomtest(flips, n).proportion_ci(results.level)
            rows.append(
                {"model": run["model"], "variant": run["repeats"], "how": run["how"], "task": task, "n": n}
                | {"flips": flips, "flips_pct": 100.0 * flips / n}
                | bounds(limits.low, limits.high)
                | gains(before, after)
            )
    return results.label(pd.DataFrame(rows, columns=["model", "variant", "how", *NOISE]))
