"""What a study will be able to find, before it is run: the test that will decide, at variances of earlier results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtr

from analysis.crossed import Error, Seeds, Units
from common.files import UserError

# How much of what changes is the same for all seeds of a setting. In between: assumed, not measured.
ALIKE = 0.5
# Nobody has published seeds of one setting on these tasks: assumed.
SEED_SD = 0.01


@dataclass(frozen=True)
class Variances:
    """What differences to the base vary by (as shares), and where that was seen."""

    changed: float  # the share of answers that change between right and wrong
    cluster_sd: float  # between databases or subjects, of what is gained or lost there
    seed_sd: float
    source: str


# Computed from the published answers, the mean of both adapters: execution accuracy as bags; the first letter of the
# text. How much subjects differ in what is lost is from Ribeiro's 39 subjects of MMLU, less what their questions make.
PUBLISHED = {
    "sql": Variances(0.276, 0.069, SEED_SD, "Ribeiro, Mistral 7B Instruct, 2 adapters, 1,034 questions of Spider"),
    "other": Variances(0.34, 0.11, SEED_SD, "Cunha et al., Llama 3 8B Instruct, 2 adapters, 150 questions of MMLU"),
}


def of_results(path: Path) -> dict[str, Variances]:
    """Read the variances of an earlier study, by task, from its tables/settings.csv.

    Raises:
        UserError: it cannot be read as such a table.
    """
    try:
        frame = pd.read_csv(path)
        frame = frame[(frame["measure"] == "correct") & (frame["category"] == "aggregate")]
        rows = list(frame.groupby("task", sort=False))
        found = {}
        for task, own in rows:
            by_cluster = own["unit"].ne("question")
            units = own["clusters"].where(by_cluster, own["n"])
            variance = ((own["cluster_se_pp"] / 100) ** 2 * units).mean()
            sd = own["seed_sd_pp"].mean() / 100
            # Of clusters their variance holds that of their questions.
            changed, between = (0.0, float(np.sqrt(variance))) if by_cluster.any() else (float(variance), 0.0)
            found[task] = Variances(changed, between, SEED_SD if np.isnan(sd) else float(sd), str(path))
        return found
    except (OSError, KeyError, ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{path}: found no table of settings ({error}). Name the folder of a finished study.") from None


@dataclass(frozen=True)
class Prospect:
    """A task of a planned study."""

    clusters: Sequence  # of each question its database or subject
    variances: Variances
    settings: int
    seeds: int
    family: int  # comparisons, which are adjusted together
    alpha: float = 0.05

    @property
    def error(self) -> Error:
        """The error that a setting's difference is expected to have."""
        units, one = Units.of(np.asarray(self.clusters), fixed=False), self.variances
        kept = ALIKE + (1 - ALIKE) / self.seeds
        variance = one.changed * kept / units.n
        if units.unit == "cluster":
            variance += one.cluster_sd**2 * ((units.sizes / units.n) ** 2).sum()
        noise = one.changed * (1 - ALIKE) / units.n
        df = self.settings * (self.seeds - 1)
        seeds = Seeds(one.seed_sd**2 + noise, noise, df) if df else Seeds()
        return Error(np.array([variance]), units.df, seeds, np.array([1 / self.seeds]))

    @property
    def detectable_pp(self) -> float:
        """The least true difference found with 80%; and the least margin certified with 80% where nothing is lost."""
        return 100 * float(self.error.detectable(np.array([self.alpha / self.family]))[0])

    def power(self, margin_pp: float) -> float:
        """The probability that no more than the margin is found lost, where nothing is lost."""
        error = self.error
        room = margin_pp / 100 - float(error.half(np.array([self.alpha / self.family]))[0])
        return float(stdtr(float(np.ravel(error.df)[0]), room / float(np.sqrt(error.variance[0]))))

    def with_seeds(self, seeds: int) -> "Prospect":
        """The same with other seeds."""
        return replace(self, seeds=seeds)


def expected(
    tasks: Mapping[str, Prospect], more: Mapping[str, Sequence], margin_pp: float
) -> list[dict[str, float | int | str]]:
    """Say of each task what it will find, what one more seed would, and what the questions in `more` would."""
    rows = []
    for task, one in tasks.items():
        row = {"task": task, "questions": len(one.clusters), "clusters": len(set(one.clusters))}
        row |= {"seeds": one.seeds, "detectable_pp": one.detectable_pp, "power": one.power(margin_pp)}
        row["one_more_seed_pp"] = one.with_seeds(one.seeds + 1).detectable_pp
        row["all_questions_pp"] = replace(one, clusters=more[task]).detectable_pp if task in more else float("nan")
        rows.append(row | {"variances": one.variances.source})
    return rows
