"""Synthetic visits of synthetic subjects: a shape that flattens with age, while all else is the subject's own and stays.

Ours, and not an experiment of a paper. Every subject is an ellipse of its own place, brightness and area, seen at several ages. Age
changes one attribute alone, how much wider than high the ellipse is at the same area, from a beginning and at a rate of the subject's
own; what does not change with age (place, brightness, area) makes pictures differ far more than what does. Noise is of each picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from byol.data.arrays import open_array
from byol.data.compact import Names
from byol.data.source import Dated, Source

NAME: Final = "aging-shapes"
SUBJECTS, VISITS, SIZE = 200, 6, 32  # of the data set of that name
NUISANCES: Final = ("x", "y", "contrast", "area")
_YEARS: Final = 10.0  # that a subject is followed for at most
_NOISE: Final = 0.02  # standard deviation, of values in [0, 1]
Column = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shapes:
    """The pictures, and all that they were drawn from."""

    images: NDArray[np.uint8]  # (N, S, S)
    subjects: NDArray[np.int64]  # (N,)
    days: NDArray[np.int64]  # (N,) since the subject was first seen, which is another age for each
    attribute: Column  # (N,) what ages: the logarithm of width over height
    nuisances: dict[str, Column]  # (N,) each, constant within a subject

    def source(self, spec: str = NAME) -> Source:
        """As data to learn from: series and days are known, the attributes are not."""
        source = open_array(self.images, None, spec=spec)
        n = len(self.images)
        dated = Dated(subjects=self.subjects, known=np.ones(n, np.bool_), unit="time", origin="")
        names = Names.of(f"{s:04d}/{d:05d}" for s, d in zip(self.subjects, self.days, strict=True))
        note = "synthetic, and no data set of a paper: shapes that flatten with age"
        return replace(source, names=names, groups=self.subjects, times=self.days, dated=dated, notes=(note,))


def draw(subjects: int = SUBJECTS, visits: int = VISITS, size: int = SIZE, *, seed: int = 0) -> Shapes:
    """So many subjects, each seen so many times within ten years; everything follows from the seed."""
    u = np.random.default_rng(seed)
    whose = np.repeat(np.arange(subjects), visits)
    nuisances = {
        "x": u.uniform(0.38, 0.62, subjects),
        "y": u.uniform(0.38, 0.62, subjects),
        "contrast": u.uniform(0.35, 0.75, subjects),
        "area": u.uniform(0.06, 0.13, subjects),
    }
    start, rate = u.uniform(-0.8, -0.2, subjects), u.uniform(0.05, 0.13, subjects)  # a year
    days = np.sort(u.choice(int(365.25 * _YEARS), (subjects, visits)), 1) + np.arange(visits)
    attribute = (start[:, None] + rate[:, None] * days / 365.25).ravel()
    of = {name: value[whose] for name, value in nuisances.items()}
    pictures = _drawn(size, attribute, of) + u.normal(0, _NOISE, (len(whose), size, size))
    images = np.rint(pictures.clip(0, 1) * 255).astype(np.uint8)
    return Shapes(images, whose.astype(np.int64), days.ravel().astype(np.int64), attribute, of)


def _drawn(size: int, attribute: Column, of: dict[str, Column]) -> NDArray[np.float64]:
    """(N, S, S) in [0, 1]: ellipses on dark ground, their edges a pixel wide."""
    at = (np.arange(size) + 0.5) / size
    radius = np.sqrt(of["area"] / np.pi)
    wide, high = radius * np.exp(attribute / 2), radius * np.exp(-attribute / 2)
    across, down = (at - of["x"][:, None]) / wide[:, None], (at - of["y"][:, None]) / high[:, None]
    far = np.sqrt(across[:, None, :] ** 2 + down[:, :, None] ** 2)
    inside = (0.5 + (1 - far) * (size * radius)[:, None, None]).clip(0, 1)
    drawn: NDArray[np.float64] = 0.1 + of["contrast"][:, None, None] * inside
    return drawn
