"""Put what lm-evaluation-harness measured into one table: each run, and each adapter against its base, paired."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import _path  # noqa: F401
from analysis.data import base_of, heads_of, kind_of, write_table
from common.files import UserError, read_json, write_text
from common.job import job
from custom_metrics.stats import clustered_difference, holm
from present.format import Say
from present.tables import to_markdown
from present.values import SAME

COLUMNS = (
    "task", "metric", "filter", "shots", "n", "score", "stderr", "difference", "ci_low", "ci_high", "p", "p_holm",
    "verdict", "lm_eval",
)  # fmt: skip


def harness_table(scores: Sequence[str | Path], outputs: Mapping[str, str | Path], settings: Mapping[str, Any]) -> None:
    """Write the table as CSV and as Markdown.

    A difference is tuned minus base over the same questions, with the interval of `clustered_difference`; each question
    counts as drawn at random. It is given for metrics that score each question between 0 and 1. Holm's adjustment is
    over all adapters, and over all points of `evaluation`, apart.

    Args:
        scores: what `harness` wrote, in the order of `runs`.
        outputs: the files `csv` and `md`.
        settings: the rule's.

    Raises:
        UserError: two runs were not asked the same questions, or a model has no base run.
    """
    level = settings["confidence_level"]
    # Column `shots` is the harness's own number of few-shot examples.
    heads = [{name: head[name] for name in head if name != "shots"} for head in heads_of(settings["runs"])[1]]
    bases, files = base_of(heads), [read_json(path) for path in scores]
    answers = [by_question(found["samples"]) for found in files]
    rows = []
    for run, found in enumerate(files):
        base = bases.get(run, run)
        for result in found["results"]:
            key, metric = (result["task"], result["filter"]), result["metric"]
            row = heads[run] | {name: result[name] for name in ("task", "metric", "filter", "n")}
            row |= {"score": result["value"], "shots": found["shots"][result["task"]], "lm_eval": found["lm_eval"]}
            row["family"] = kind_of(settings["runs"][run])
            own, before = answers[run].get(key, {}), answers[base].get(key, {})
            if own and all(metric in one for one in own.values()):
                if before.keys() != own.keys():
                    raise UserError(
                        f"{scores[run]}: {result['task']} has other questions than {scores[base]}. "
                        "Run the harness again for both: snakemake -R harness."
                    )
                values, others = (np.array([one[metric] for one in of.values()]) for of in (own, before))
                row["stderr"] = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
                row |= {} if base == run else difference(others, values, level)
            rows.append(row)
    columns = [*heads[0], *COLUMNS]
    frame = judged(pd.DataFrame(rows, columns=[*columns, "family"]), level)[columns]
    frame["confidence_level"] = level
    write_table(outputs["csv"], frame)
    write_text(outputs["md"], to_markdown("harness", frame, settings, Say(settings["language"])))


def judged(frame: pd.DataFrame, level: float) -> pd.DataFrame:
    """Add p adjusted (Holm) within each family, and the verdict; rows without a p value have neither."""
    known = frame["p"].dropna().astype(float)
    p = known.groupby(frame["family"]).transform(lambda family: holm(family.tolist()))
    sign = np.where(frame.loc[p.index, "difference"] > 0, "better", "worse")
    verdicts = pd.Series(np.where(p < 1 - level, sign, SAME), index=p.index, dtype=object)
    return frame.assign(p_holm=p, verdict=verdicts)


def by_question(samples: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], dict[tuple, Mapping[str, Any]]]:
    """Index scores by task and filter, then by each question's number and hash, in the order of the questions."""
    found: dict[tuple[str, str], dict] = {}
    for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
        of_task = found.setdefault((sample["task"], sample["filter"]), {})
        of_task[sample["doc_id"], sample["doc_hash"]] = sample
    return found


def difference(before: np.ndarray, after: np.ndarray, level: float) -> dict[str, float]:
    """Compare the scores of the same questions; nothing where they do not lie between 0 and 1."""
    changes = after - before
    if (after < 0).any() or (after > 1).any() or (np.abs(changes) > 1).any():
        return {}
    estimate = clustered_difference(changes, np.ones(len(changes)), level)
    return {"difference": changes.mean(), "p": estimate.p, "ci_low": estimate.low, "ci_high": estimate.high}


if __name__ == "__main__":
    with job(snakemake.log[0]):
        harness_table(snakemake.input.scores, dict(snakemake.output.items()), snakemake.params.settings)
