"""Axes: where ticks stand, how they are written, and which of many points a line needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Scale:
    """Values in `domain` -> coordinates in `span`, linear or logarithmic."""

    domain: tuple[float, float]
    span: tuple[float, float]
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log10(v) for v in self.domain) if self.log else self.domain
        at = math.log10(value) if self.log else value
        return self.span[0] + (at - low) / (high - low) * (self.span[1] - self.span[0])

    def ticks(self, count: int = 4) -> list[float]:
        """About `count` round values inside the domain."""
        return _log_ticks(*self.domain, count) if self.log else linear_ticks(*self.domain, count)


def linear_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten within [low, high]."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    many = [m * 10.0**p for p in powers for m in (1, 2, 5)]
    for choice in (many, many[::3], many[:: 3 * max(1, math.ceil(len(powers) / count))]):
        inside = [v for v in choice if low * 0.999 <= v <= high * 1.001]
        if len(inside) <= count + 1:
            return inside
    return inside


def spread_of(values: Sequence[float], *, zero: bool, include: Sequence[float] = ()) -> tuple[tuple[float, float], bool]:
    """(domain, logarithmic) that shows all the values, with a little air; logarithmic when they span over two powers of ten."""
    low, high = min([*values, *include]), max([*values, *include])
    if not zero and low > 0 and high / low > 100:
        return (low / 1.1, high * 1.1), True
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - max(0.5 * abs(low), 0.5) * (not zero), high + max(0.5 * abs(high), 0.5)
    air = 0.05 * (high - low)
    return (low if zero and low == 0 else low - air, high if zero and high == 0 else high + air), False


def tick_label(value: float) -> str:
    """A tick as short as it can be read: 0, 0.25, 12k, 3M, 1e-5."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    if 0 < abs(value) < 1e-3:
        return f"{value:.2g}".replace("e-0", "e-")
    return f"{value:,.6g}"


def thinned(values: Sequence[float], most: int = 600) -> list[int]:
    """Indices of the points that a line needs: all, or of each of `most`/2 stretches the lowest and the highest.

    Every point that is kept is one that was measured; nothing is averaged.
    """
    n = len(values)
    if n <= most:
        return list(range(n))
    edges = [round(i * n / (most // 2)) for i in range(most // 2 + 1)]
    kept = {0, n - 1}
    for start, stop in pairwise(edges):
        kept |= {min(range(start, stop), key=values.__getitem__), max(range(start, stop), key=values.__getitem__)}
    return sorted(kept)
