"""Confidence intervals of an accuracy: over the images of one test set, or over several draws of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution
# Two-sided 95 % points of Student's t for 1 to 4 degrees of freedom, where the expansion below is too coarse.
_T95 = (12.706205, 4.302653, 3.182446, 2.776445)


def wilson(correct: float, total: int) -> tuple[float, float]:
    """The 95 % interval of a share `correct / total` (Wilson 1927): inside [0, 1], and not empty at 0 or 1."""
    p, z2 = correct / total, Z95**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def over_draws(values: Sequence[float], total: int) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more draws of labels, all tested on the same `total` images, cut to [0, 1].

    Two things vary: the labels, by Student's t over the draws, and the test images, by Wilson's interval of the mean; the
    half-widths add in squares on each side.
    """
    n, mean = len(values), sum(values) / len(values)
    half = _t95(n - 1) * deviation(values) / math.sqrt(n)
    low, high = wilson(mean * total, total)
    return max(0.0, mean - math.hypot(half, mean - low)), min(1.0, mean + math.hypot(half, high - mean))


def difference(a: float, of_a: tuple[float, float], b: float, of_b: tuple[float, float]) -> tuple[float, float]:
    """The 95 % interval of a - b, where each has one of its own (Newcombe 1998, method 10).

    As if both were measured on other samples and labels: measured on the same, a difference is surer than this.
    """
    low, high = a - b - math.hypot(a - of_a[0], of_b[1] - b), a - b + math.hypot(of_a[1] - a, b - of_b[0])
    return low, high


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation (n - 1 in the denominator); 0 for a single value."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))


def _t95(df: int) -> float:
    """The two-sided 95 % point of Student's t (Abramowitz and Stegun 26.7.5 from 5 degrees of freedom; error < 0.001)."""
    if df <= len(_T95):
        return _T95[df - 1]
    z = Z95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / float(df) ** i for i, term in enumerate(terms, start=1))
