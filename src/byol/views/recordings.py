"""Views of a recording of neurons: another bin nearby, neurons dropped, noise; keyed by (seed, epoch, view, bin) as those of images.

The defaults are those of MYOW's released code for reaching monkeys (Azabou et al. 2021, repository myow). Unverified, and so
options: that the share dropped is drawn for each sample, that what stays is not scaled up, and that noise is in standard deviations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import rng
from byol.encoders import Input
from byol.views.changes import Change, Take, arranged
from byol.views.words import who

_COLUMNS: Final = 72  # of a description
# One column each, for good; then one for every neuron: whether it is dropped; its noise; whether it is peppered.
_SHIFT, _DROP, _SHARE, _NOISE, _SIGMA, _PEPPER, _NEURONS = range(7)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What one view does to a bin."""

    shift: tuple[int, int] = (-4, 4)  # bins to the bin that is seen instead, uniform, within the same trial
    drop: float = 0.9  # probability that neurons are dropped at all
    share: float = 0.8  # of the neurons that is dropped at most
    randomised: bool = True  # the share is uniform from 0 to that, for each sample; else it is that
    scaled: bool = False  # what stays is divided by its share, as dropout does
    noise: float = 1.0  # probability of Gaussian noise
    sigma: tuple[float, float] = (0.1, 0.2)  # its deviation, uniform, in those of each neuron
    pepper: float = 0.0  # probability of pepper: some neurons are raised
    peppered: float = 0.3  # of the neurons that are
    raised: float = 1.5  # by so much, in deviations of each neuron

    def __post_init__(self) -> None:
        for name in ("drop", "share", "noise", "pepper", "peppered"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} {getattr(self, name)} is no share; give a number from 0 to 1")
        if self.shift[0] > self.shift[1] or not 0 <= self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"shift {self.shift} and sigma {self.sigma} are ranges; give the least first, and deviations of 0 or more")
        if self.scaled and self.share == 1:
            raise ValueError("share 1 leaves nothing that could be scaled; give less, or scaled=False")

    def draws(self) -> int:
        """How many columns for every neuron are looked at, from the first."""
        return 3 if self.pepper else 2 if self.noise else 1 if self.drop else 0


PLAIN: Final[Mapping[str, Change]] = {"shift": (0, 0), "drop": 0.0, "noise": 0.0, "pepper": 0.0}  # a mild view: the bin itself
_PLANS: Final = {"bins": (Pipeline(), Pipeline())}


def names() -> list[str]:
    """The plans that `load` knows."""
    return list(_PLANS)


def load(
    name: str, first: NDArray[np.int64], last: NDArray[np.int64], *, takes: Sequence[Take] | None = None, **changes: Change
) -> RecordingViews:
    """The named plan for bins with (N,) `first` and `last` rows of their trials; `takes` and `changes` as in `byol.views.load`."""
    if name not in _PLANS:
        raise ValueError(f"a recording has no views {name!r}; there are {', '.join(names())}")
    return RecordingViews(name, arranged(name, _PLANS[name], takes, PLAIN, changes), torch.from_numpy(first), torch.from_numpy(last))


@dataclass(frozen=True, eq=False)
class RecordingViews:
    """As many views of a bin as pipelines; a plan as `byol.views.Plan` says."""

    name: str
    pipelines: tuple[Pipeline, ...]
    first: Tensor  # (N,) the first row of the trial of each bin, on the CPU
    last: Tensor  # (N,) the last one
    compiled: bool = False

    def from_memory(self, samples: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """(N, neurons, 1, 1) raw counts on any device, (B,) ids on the CPU -> views (B, neurons, 1, 1), float32, normalised."""
        out = []
        for number, p in enumerate(self.pipelines):
            u = rng.uniforms(seed, epoch, rng.STREAM_VIEWS + number, ids, _NEURONS + samples.shape[1] * p.draws())
            seen = self._shifted(ids, u[:, _SHIFT], p).to(samples.device, non_blocking=True)
            x = input.normalise(input.scale(samples[seen]))[:, :, 0, 0]
            out.append(changed(x, u.to(samples.device, non_blocking=True), p)[:, :, None, None])
        return tuple(out)

    def describe(self) -> list[str]:
        """One header, and what each view does."""
        texts = [f"{self.name}: {len(self.pipelines)} view{'s' * (len(self.pipelines) != 1)} of a bin, counts standardised for each neuron"]
        said = ["; ".join(_said(p)) for p in self.pipelines]
        texts += [f"{who(len(said))}: {said[0]}"] if len(set(said)) == 1 else [f"view {n}: {text}" for n, text in enumerate(said, 1)]
        lines = [line for text in texts for line in wrap(text.replace(" %", "\N{NO-BREAK SPACE}%"), _COLUMNS, subsequent_indent="  ")]
        return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]

    def _shifted(self, ids: Tensor, u: Tensor, p: Pipeline) -> Tensor:
        """(B,) bins, (B,) in [0, 1) -> (B,) bins of the same trials; those beyond an end are the end."""
        low, high = p.shift
        moved = ids + low + (u.double() * (high - low + 1)).long()
        return moved.clamp(self.first[ids], self.last[ids])


def _said(p: Pipeline) -> Iterator[str]:
    if p == replace(p, shift=(0, 0), drop=0.0, noise=0.0, pepper=0.0):
        yield "the bin itself"
        return
    if p.shift != (0, 0):
        yield f"a bin {p.shift[0]:+} to {p.shift[1]:+} of the same trial"
    if p.pepper:
        yield f"pepper {100 * p.pepper:g} % ({100 * p.peppered:g} % of the neurons raised by {p.raised:g})"
    if p.noise:
        yield f"noise {100 * p.noise:g} % (sigma {p.sigma[0]:g} to {p.sigma[1]:g})"
    if p.drop:
        yield f"{'up to ' * p.randomised}{100 * p.share:g} % of the neurons dropped {100 * p.drop:g} %{', the rest scaled up' * p.scaled}"


def changed(x: Tensor, u: Tensor, p: Pipeline) -> Tensor:
    """(B, neurons), (B, columns) in [0, 1) -> (B, neurons): pepper, noise, then neurons dropped."""
    each = torch.split(u[:, _NEURONS:], x.shape[1], dim=1)
    if p.pepper:
        x = x + p.raised * ((u[:, _PEPPER, None] < p.pepper) & (each[2] < p.peppered))
    if p.noise:
        sigma = (p.sigma[0] + (p.sigma[1] - p.sigma[0]) * u[:, _SIGMA, None]) * (u[:, _NOISE, None] < p.noise)
        normal = torch.special.ndtri(each[1].double() + 2.0**-25)  # the draw 0 would be minus infinity
        x = x + sigma * normal.to(x.dtype)
    if p.drop:
        share = p.share * (u[:, _SHARE, None] if p.randomised else torch.ones_like(u[:, :1]))
        share = share * (u[:, _DROP, None] < p.drop)
        x = x.masked_fill(each[0] < share, 0)
        x = x / (1 - share) if p.scaled else x
    return x
