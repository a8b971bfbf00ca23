"""The interval of one accuracy, without the libraries of `stats`: to import those takes longer than to score."""

import math
from statistics import NormalDist


def wilson_interval(k: int, n: int, level: float) -> tuple[float, float]:
    """Return the score interval of a proportion k/n (Wilson 1927); the whole of 0..1 for n = 0."""
    if n == 0:
        return 0.0, 1.0
    z, share = NormalDist().inv_cdf((1 + level) / 2), k / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return (0.0 if k == 0 else low), (1.0 if k == n else high)
