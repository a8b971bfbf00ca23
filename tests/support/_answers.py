"""Made-up answers of a base model and its settings, whose true differences are known."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import ndtr

from analysis.crossed import Seeds
from analysis.settings import Answers, Estimates, settings_tables

# Questions on each database of Spider's dev set; 3 subjects x 50; of each of MMLU's 57 subjects a quarter.
SPIDER = (4, 15, 16, 18, 30, 30, 38, 40, 40, 42, 45, 56, 62, 62, 78, 80, 82, 84, 92, 120)
THREE = (50, 50, 50)
SUBJECTS = tuple(int(n) for n in np.linspace(25, 98, 57))


@dataclass(frozen=True)
class Design:
    """How a study draws its answers; shares, not percentage points.

    A training of a setting changes the share `changed` of the answers. Its true difference to the base is that of its
    setting (`truths`) plus one of its seed (normal, SD `seed_sd`). On a cluster it differs further (normal, SD
    `cluster_sd`, the same for all seeds, and half of its variance for all settings). `alike` is the correlation, on a
    normal scale, of what two seeds of a setting make of a question.
    """

    sizes: tuple[int, ...] = SPIDER
    seeds: tuple[int, ...] = (3, 3)  # of each setting
    truths: tuple[float, ...] = ()  # of each setting; 0 if it is empty
    seed_sd: float | tuple[float, ...] = 0.01  # of each setting, or of all
    cluster_sd: float = 0.0
    changed: float = 0.15
    alike: float = 0.5
    right: float = 0.6  # of the base

    @property
    def true(self) -> np.ndarray:
        return np.array(self.truths or (0.0,) * len(self.seeds))

    def draw(
        self, generator: np.random.Generator, task: str = "task", fixed: bool = False
    ) -> tuple[Answers, np.ndarray]:
        """Draw the answers of one study, and the true difference of each setting's first run."""
        clusters = np.repeat(np.arange(len(self.sizes)), self.sizes)
        n, settings = len(clusters), {}
        base = generator.random(n) < self.right
        own = generator.normal(size=(len(self.seeds), len(self.sizes))) + generator.normal(size=len(self.sizes))
        own *= self.cluster_sd / np.sqrt(2)
        if fixed or len(self.sizes) < 5:
            # These clusters are all there is: over their questions, they differ by nothing.
            own -= (own @ np.array(self.sizes))[:, None] / n
        runs = []
        spreads = np.broadcast_to(self.seed_sd, len(self.seeds))
        for setting, (count, true, spread) in enumerate(zip(self.seeds, self.true, spreads, strict=True)):
            of_run = true + spread * generator.normal(size=(count, 1))
            difference = of_run + own[setting][clusters]
            changed = np.maximum(self.changed, np.abs(difference))
            chance = np.where(
                base, (changed - difference) / 2 / self.right, (changed + difference) / 2 / (1 - self.right)
            )
            luck = np.sqrt(self.alike) * generator.normal(size=n)
            luck = ndtr(luck + np.sqrt(1 - self.alike) * generator.normal(size=(count, n)))
            settings[f"s{setting}"] = np.where(luck < chance, ~base, base).astype(np.int8)
            runs.append(of_run[0, 0])
        return Answers("model", task, base.astype(float), settings, clusters, fixed=fixed), np.array(runs)


@dataclass(frozen=True)
class Drawn(Design):
    """The same with answers that are drawn at random, `draws` times each, of the base and of every training.

    The base has a question right with a probability of its own, between 0.3 and 0.7, and a training with another one,
    which differs by the true difference and, normally, by the SD `own_sd` of question and training. With `shared`, a
    draw of base and trainings has the same random number for a question, as where they are given the same seed.
    """

    draws: int = 3
    own_sd: float = 0.06
    shared: bool = True

    def draw(
        self, generator: np.random.Generator, task: str = "task", fixed: bool = False
    ) -> tuple[Answers, np.ndarray]:
        """Draw the answers of one study, and the true difference of each setting's first run."""
        clusters = np.repeat(np.arange(len(self.sizes)), self.sizes)
        n, settings, runs = len(clusters), {}, []
        chance = generator.uniform(0.3, 0.7, n)
        own = self.cluster_sd * generator.normal(size=(len(self.seeds), len(self.sizes)))
        if fixed or len(self.sizes) < 5:
            own -= (own @ np.array(self.sizes))[:, None] / n
        numbers = generator.random((self.draws, n))
        base = (numbers < chance).mean(axis=0)
        for setting, (count, true) in enumerate(zip(self.seeds, self.true, strict=True)):
            of_run = true + self.seed_sd * generator.normal(size=(count, 1))
            tuned = chance + of_run + own[setting][clusters] + self.own_sd * generator.normal(size=(count, n))
            own_numbers = numbers if self.shared else generator.random((count, self.draws, n))
            settings[f"s{setting}"] = (own_numbers < tuned[:, None]).mean(axis=1)
            runs.append(of_run[0, 0])
        return Answers("model", task, base, settings, clusters, fixed=fixed), np.array(runs)


def rates(design: Design, count: int, seed: int = 1) -> dict[str, float]:
    """How often single intervals of 95% miss what is true, in `count` studies: shares.

    `settings` is of each setting's effect: where the truths are 0 the type I error, where they are minus the margin
    that of the margin verdict. `contrasts` is the same of each pair, and `questions_alone` what a setting's would be if
    seeds counted for nothing. Of one seed alone the truth is that of the run.
    """
    generator, missed = np.random.default_rng(seed), {"settings": [], "contrasts": [], "questions_alone": []}
    for _ in range(count):
        answers, runs = design.draw(generator)
        found = Estimates.of(answers)
        true = runs if set(design.seeds) == {1} else design.true
        off = np.abs(found.centres - true)
        missed["settings"].append(off > found.error.half(0.05))
        missed["questions_alone"].append(off > replace(found.error, seeds=Seeds()).half(0.05))
        if len(design.seeds) > 1:
            _, centres, error = found.contrasts()
            between = true[np.array(np.triu_indices(len(true), 1))]
            missed["contrasts"].append(np.abs(centres - between[0] + between[1]) > error.half(0.05))
    return {name: float(np.mean(of)) if of else float("nan") for name, of in missed.items()}


def tables(tasks: dict[str, Design], count: int, seed: int = 1) -> pd.DataFrame:
    """Analyse `count` studies of these tasks, each as a model of its own: verdicts, details, and what is `true`."""
    generator, answers, true = np.random.default_rng(seed), [], []
    for study in range(count):
        for task, design in tasks.items():
            answers.append(replace(design.draw(generator, task)[0], model=f"m{study}"))
            true += (100 * design.true).tolist()
    verdicts, details = settings_tables(answers, 3.0, 0.95)
    return verdicts.join(details[details.columns.difference(verdicts.columns)]).assign(true=true)


def power(changed: float, alike: float, count: int, gain: float = 0.1) -> float:
    """How often Holm's adjustment over four finds a loss of 9 points on 3 x 50 questions, of 2 settings x 3 seeds.

    The four are both settings on Spider, where each gains `gain`, and on these questions, where each loses 9 points.
    """
    lost = Design(THREE, truths=(-0.09, -0.09), changed=changed, alike=alike)
    found = tables({"spider": Design(truths=(gain, gain), cluster_sd=0.05, changed=0.3), "mmlu": lost}, count)
    return float((found["verdict"][found["task"] == "mmlu"] == "lost").mean())


def records(answers: Answers) -> pd.DataFrame:
    """The answers as `analyse.py` reads them; every third question is hard."""
    n = len(answers.base)
    of_question = {
        "task": answers.task,
        "question": [f"q{i}" for i in range(n)],
        "cluster": [f"c{code}" for code in answers.clusters],
        "part": ["easy" if i % 3 else "hard" for i in range(n)],
    }
    runs = [("base", "", answers.base.astype(int))]
    runs += [(name, seed, row) for name, of in answers.settings.items() for seed, row in enumerate(of, 1)]
    return pd.concat(
        pd.DataFrame({"model": answers.model, "setting": name, "seed": seed, **of_question, "correct": row})
        for name, seed, row in runs
    )
