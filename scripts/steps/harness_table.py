"""Put what lm-evaluation-harness measured into one table: each run, and each adapter against its base, paired."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import _path  # noqa: F401
from common.files import UserError, atomic_write, read_json
from common.job import job
from custom_metrics.stats import clustered_difference
from present.format import Say
from present.tables import to_markdown
from present.values import is_point
from tables import adjust, base_of, heads_of, verdicts

COLUMNS = (
    "task", "metric", "filter", "shots", "n", "score", "stderr", "difference", "ci_low", "ci_high", "p", "p_holm",
    "verdict", "lm_eval",
)  # fmt: skip


def harness_table(
    scores: Sequence[str | Path],
    csv: str | Path,
    md: str | Path,
    runs: Sequence[Mapping],
    confidence_level: float,
    known_defects: Sequence[str] = (),
    accept_defect: Sequence[str] = (),
    language: str = "en",
) -> None:
    """Write the table as CSV and as Markdown.

    A difference is tuned minus base over the same questions, with the interval of `clustered_difference`, questions
    taken as drawn at random. It is given for metrics that score each question between 0 and 1; Holm's adjustment is
    over all adapters, and over all points of `evaluation`, apart.

    Args:
        scores: what `harness` wrote, in the order of `runs`.
        csv, md: the files to write.
        runs, known_defects, accept_defect, language: as in `tables`.
        confidence_level: of intervals and verdicts.

    Raises:
        UserError: two runs were not asked the same questions, or a model has no base run.
    """
    _, heads = heads_of(runs)
    files = [read_json(path) for path in scores]
    each = [questions(found) for found in files]
    bases = base_of(heads)
    rows = []
    for number, (head, found) in enumerate(zip(heads, files, strict=True)):
        for result in found["results"]:
            key = result["task"], result["filter"]
            metric, own = result["metric"], each[number][key]
            row = head | {name: result[name] for name in ("task", "metric", "filter", "n")}
            row |= {"score": result["value"], "shots": found["shots"][result["task"]], "lm_eval": found["lm_eval"]}
            if own and all(metric in one for one in own.values()):
                values = np.array([one[metric] for one in own.values()])
                row["stderr"] = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else None
                if number in bases:
                    before = each[bases[number]].get(key, {})
                    if before.keys() != own.keys():
                        raise UserError(
                            f"{scores[number]}: {result['task']} has other questions than {scores[bases[number]]}. "
                            "Run the harness again for both: snakemake -R harness."
                        )
                    changes = values - [one[metric] for one in before.values()]
                    if ((values >= 0) & (values <= 1)).all() and (np.abs(changes) <= 1).all():
                        estimate = clustered_difference(changes, np.ones(len(changes)), confidence_level)
                        row |= {"difference": changes.mean(), "p": estimate.p}
                        row |= {"ci_low": estimate.low, "ci_high": estimate.high}
            rows.append(row)
    frame = pd.DataFrame(rows, columns=[*heads[0], *COLUMNS])
    compared, point = frame["p"].notna(), is_point(frame)
    for family in (compared & ~point, compared & point):
        adjust(frame, family, "p", "p_holm")
    found = verdicts(frame[compared], confidence_level, "better", "worse", "difference")
    frame["verdict"] = pd.Series(found, index=frame.index[compared], dtype=object)
    frame["confidence_level"] = confidence_level
    with atomic_write(csv) as stream:
        frame.to_csv(stream, index=False, lineterminator="\n", float_format="%.10g")
    with atomic_write(md) as stream:
        facts = {"known_defects": known_defects, "accept_defect": accept_defect}
        stream.write(to_markdown("harness", frame, facts, Say(language)))


def questions(found: Mapping) -> dict[tuple[str, str], dict[tuple, dict]]:
    """Return the scores of each question, by its number and hash, of each task and filter, in the questions' order."""
    by_task: dict[tuple[str, str], dict[tuple, dict]] = {}
    for sample in sorted(found["samples"], key=lambda sample: sample["doc_id"]):
        task = by_task.setdefault((sample["task"], sample["filter"]), {})
        task[sample["doc_id"], sample["doc_hash"]] = sample
    return by_task


if __name__ == "__main__":
    with job(snakemake.log[0]):
        harness_table(
            scores=snakemake.input.scores,
            csv=snakemake.output.csv,
            md=snakemake.output.md,
            **snakemake.params.settings,
        )
