"""What settings change, with intervals and p values by textbook formulas: what tests expect of the code's own."""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t as student

from _study import EIGHT

GROUPS = len(EIGHT)


def by_group(changes):
    """The sums of changes over the questions of each database or subject, which come in turn: (seeds, groups)."""
    return np.asarray(changes, float).reshape(len(changes), -1, GROUPS).sum(axis=1)


class Hand:
    """The error of differences of several settings on eight groups of one size, by textbook formulas.

    `changes` has of each setting (seeds, questions): tuned minus base.
    """

    def __init__(self, *changes):
        self.changes = [np.asarray(one, float) for one in changes]
        self.n = self.changes[0].shape[1]
        self.seeds = np.array([len(one) for one in self.changes])
        self.sums = np.array([by_group(one).mean(axis=0) for one in self.changes])
        # One gained and one lost question; of more seeds they count the less the more answers changed.
        turned = np.array([np.abs(one).sum(axis=1).mean() for one in self.changes])
        self.added = 1 / self.seeds + (1 - 1 / self.seeds) * 2 / (turned + 2)
        own = [one - one.mean(axis=0) for one in self.changes if len(one) > 1]
        self.df = sum(len(one) - 1 for one in own)
        self.between = self.noise = 0.0
        if own:
            self.between = sum((one.mean(axis=1) ** 2).sum() for one in own) / self.df
            # Of a mean over G groups the variance is that of the groups' means, by G.
            groups = [by_group(one) / (self.n / GROUPS) for one in own]
            spread = sum(((one - one.mean(axis=1, keepdims=True)) ** 2).sum() for one in groups)
            self.noise = spread / (GROUPS - 1) / GROUPS / self.df

    def contrast(self, weights):
        """Centre and the half width at a level, of a sum of the settings with these weights."""
        weights = np.asarray(weights, float)
        one_sided = 1 if (weights >= 0).all() else 2
        sums, added = weights @ self.sums, np.abs(weights) @ self.added / one_sided
        n = self.n + 2 * added
        centre = sums.sum() / n
        spread = ((sums - centre * self.n / GROUPS) ** 2).sum() * GROUPS / (GROUPS - 1)
        variance = (spread + added**2 * ((1 - centre) ** 2 + (1 + centre) ** 2)) / n**2
        share = (weights**2 / self.seeds).sum()

        def half(alpha):
            questions = student.isf(alpha / 2, GROUPS - 1) ** 2 * variance
            if not self.df:
                return np.sqrt(questions)
            t = student.isf(alpha / 2, self.df) ** 2 * share
            return np.sqrt(max(questions + t * max(0, self.between - self.noise), t * self.between))

        return centre, half

    def row(self, weights, alpha):
        """Difference, interval at this level, and p, in percentage points but for p."""
        centre, half = self.contrast(weights)
        p = 1.0
        if abs(centre) > half(1 - 1e-12):
            p = np.exp(brentq(lambda log: half(np.exp(log)) - abs(centre), -80, -1e-12, xtol=1e-12))
        return 100 * centre - 100 * half(alpha), 100 * centre + 100 * half(alpha), p


def holm(p):
    """Adjusted p values, by the definition: the largest of the smaller ones, each times how many are left."""
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted, most = {}, 0.0
    for step, place in enumerate(order):
        most = max(most, (len(p) - step) * p[place])
        adjusted[place] = min(1.0, most)
    return [adjusted[place] for place in range(len(p))]
