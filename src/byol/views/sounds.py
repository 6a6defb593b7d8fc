"""Views of a sound: a window of it as a log-mel spectrogram, with another sound behind it, cropped and resized; BYOL-A's two versions.

All views are of the same window, mild ones too: those are the window as it is, normalised like the others, and are ours (BYOL-A has
none). Every number drawn is a pure function of (seed, epoch, view, sample id); what is mixed in comes from
a bank of the last sounds (sound_state.py), which a step fills: so the views of a step depend on those before it, and `device` has to be
called once a step and in their order. Unlike the released code, which has a bank and running statistics in each worker process and
forgets them with it, there is one of each for the whole run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from byol import dist, rng
from byol.logmel import FrontEnd, LogMel
from byol.views import sound_ops
from byol.views.changes import Change, Take, arranged, near
from byol.views.sound_norm import standardised
from byol.views.sound_state import SoundState
from byol.views.sound_words import describe

Pad: TypeAlias = Literal["both", "end"]
Pre: TypeAlias = Literal["running", "given", "none"]

# One column each, for good; then one for the noise on every value. The window is drawn with the numbers of the first view.
_START, _SHARE, _ENTRY = range(3)
_BOX, _FADER = slice(3, 7), slice(7, 9)
_GAIN, _NOISE = slice(9, 10), 12


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What is done to a view, in this order; the defaults are those of BYOL-A's first version. What `SHARED` names all views share."""

    seconds: float = 0.95  # of the window that all views are of
    pad: Pad = "both"  # where silence is added to shorter sounds
    pre: Pre = "running"  # statistics of the data: as they come, measured beforehand ("given"), or none
    pre_epochs: int = 10  # as long as running statistics learn
    gain: float = 0.0  # greatest change of a view's level, in dB up or down; 0: none, as in BYOL-A
    mixup: float = 0.4  # greatest share of another sound, from 0; 0: none
    memory: int = 2048  # sounds in the bank
    push_each_view: bool = True  # a sound enters the bank once a mixed view, as released, so that later views can meet it; else once
    noise: float = 0.0  # deviation of Gaussian noise, in those of the data; the ablation instead of mixup has 0.4
    crop: bool = True  # random resize crop
    heights: tuple[float, float] = (0.6, 1.5)  # of a crop, in shares of the bands, at most all
    widths: tuple[float, float] = (0.6, 1.5)  # of a crop, in shares of the frames, at most the canvas
    canvas: float = 1.5  # width that crops are taken from, in shares of the frames
    fader: float = 0.0  # greatest gain or loss of level at either end; 0: none
    post: bool = True  # normalised over all views of the batch

    def __post_init__(self) -> None:
        if not 0 < self.seconds < 3600:
            raise ValueError(f"seconds {self.seconds} is no length of a window; give more than 0")
        for name, kind in (("pad", Pad), ("pre", Pre)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} {getattr(self, name)!r} is not known; give one of {', '.join(get_args(kind))}")
        if not 0 <= self.mixup <= 1:
            raise ValueError(f"mixup {self.mixup} is no share; give a number from 0 to 1")
        for name in ("pre_epochs", "gain", "memory", "noise", "fader"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is no amount; give 0 or more")
        if self.mixup and not self.memory:
            raise ValueError("memory 0 keeps no sound to mix with; give 1 or more, or mixup 0")
        for name in ("heights", "widths"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise ValueError(f"{name} {low}, {high} is no range; give two numbers with 0 < first <= second")
        if not 1 <= self.canvas < math.inf:
            raise ValueError(f"canvas {self.canvas} is no width that holds the sound; give 1 or more")

    def draws(self, values: int) -> int:
        """How many columns are looked at, from the first; `values`: F T."""
        return _NOISE + values if self.noise else _NOISE


# The ablations of the paper (table 5) are settings: mixup=0, noise=0.4, crop=False, pre="none", post=False.
PLANS: Final = {
    "byol-a-v1": Pipeline(),
    "byol-a-v2": Pipeline(pad="end", pre="given", mixup=0.2, fader=1.0),
}

MILD: Final[Mapping[str, Change]] = {"gain": 0.0, "mixup": 0.0, "noise": 0.0, "crop": False, "fader": 0.0}  # the window itself
SHARED: Final = ("seconds", "pad", "pre", "pre_epochs", "memory", "push_each_view", "post")  # one window, bank and normalisation


def load(name: str, *, front: FrontEnd | None = None, takes: Sequence[Take] | None = None, **changes: Change) -> SoundViews:
    """The named views of sound; `takes` and `changes` as in `byol.views.load`. Unknown names and values out of range are a ValueError.

    byol-a-v1  mixup up to 0.4, random resize crop; normalised by running statistics, and over the batch (arXiv 2103.06695)
    byol-a-v2  mixup up to 0.2, random resize crop, linear fader; statistics measured beforehand (arXiv 2204.07402)
    """
    if name not in PLANS:
        raise ValueError(f"there are no views of sound {name!r}{near(name, list(PLANS))}; there are {', '.join(PLANS)}")
    return SoundViews(name, arranged(name, (PLANS[name], PLANS[name]), takes, MILD, changes), front)


class SoundViews:
    """A view plan of sound: waveforms in, as many views of log-mel spectrograms out as there are to be."""

    def __init__(self, name: str, pipelines: Sequence[Pipeline], front: FrontEnd | None = None) -> None:
        if not pipelines:
            raise ValueError(f"the views {name} are 0; give 1 or more")
        self.name, self.pipelines = name, tuple(pipelines)
        self.pipeline = p = self.pipelines[0]  # for what all views share
        for key in SHARED:
            if len(found := {getattr(each, key): None for each in self.pipelines}) > 1:
                raise ValueError(f"views of sound share one {key}, not {' and '.join(map(str, found))}; set {key} without a view before it")
        self.logmel = LogMel(front)
        self.front = self.logmel.front
        self.samples = self.front.samples(p.seconds)  # of a window
        if not self.samples:
            raise ValueError(f"seconds {p.seconds} is less than a sample at {self.front.rate} Hz; give more")
        self.shape = (self.front.bands, self.front.frames(self.samples))  # of a view: F, T
        self.mixing = [number for number, each in enumerate(self.pipelines) if each.mixup]  # views that another sound is mixed into

    @property
    def compiled(self) -> bool:
        """Torch makes them."""
        return False

    def state(self, statistics: tuple[float, float] | None = None) -> SoundState:
        """A new state for these views: an empty bank, and mean and deviation of the data where they are measured beforehand."""
        if self.pipeline.pre == "given" and statistics is None:
            raise ValueError(f"the views {self.name} need the statistics of the data; give their mean and deviation, or pre='running'")
        state = SoundState(*self.shape, self.pipeline.memory if self.mixing else 0)
        if statistics:
            state.settle(*statistics)
        return state

    def windows(self, lengths: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B,) samples of each sound at the front end's rate, (B,) ids -> (B,) int64: where their windows begin.

        A window has `self.samples` samples. Of a shorter sound it reaches beyond its ends, where silence is: below 0 a start says how
        much of it comes first.
        """
        u = rng.uniforms(seed, epoch, rng.STREAM_VIEWS, ids.cpu(), _START + 1)[:, _START].double()
        spare = lengths.cpu().long() - self.samples
        short = spare.clamp(max=0)
        first = torch.div(short, 2, rounding_mode="trunc") if self.pipeline.pad == "both" else torch.zeros_like(short)
        return torch.where(spare > 0, (u * (spare + 1)).long(), first)

    @torch.no_grad()
    def device(self, waves: Tensor, ids: Tensor, seed: int, epoch: int, state: SoundState) -> tuple[Tensor, ...]:
        """(B, samples) float32 on any device, (B,) ids on the CPU -> views (B, 1, F, T), float32.

        What they saw enters `state`, which has to be on the same device.
        """
        if waves.shape[1] != self.samples:
            raise ValueError(f"the views {self.name} are of {self.samples} samples; these waveforms have {waves.shape[1]}")
        p = self.pipeline
        heard = self.logmel.to(waves.device)(waves)
        if p.pre == "running" and epoch < p.pre_epochs:
            state.learn(heard)
        before = state.normalised if p.pre != "none" else lambda x: x
        x = before(heard)
        whole = dist.gathered(x) if self.mixing else x
        out = []
        for number, own in enumerate(self.pipelines):
            u = rng.uniforms(seed, epoch, rng.STREAM_VIEWS + number, ids.cpu(), own.draws(x[0].numel()))
            level = before(sound_ops.louder(heard, u[:, _GAIN].to(x.device), own.gain)) if own.gain else x
            out.append(changed(level, u, own, state))
            if number in (self.mixing if p.push_each_view else self.mixing[-1:]):
                state.push(whole)
        return standardised(out) if p.post else tuple(out)

    def describe(self) -> list[str]:
        """What the views are, in words, at most 80 columns a line."""
        return describe(self)


def changed(x: Tensor, u: Tensor, p: Pipeline, state: SoundState) -> Tensor:
    """(B, 1, F, T) normalised, (B, columns) in [0, 1) on the CPU -> one view: mixed (not of an empty bank), noised, cropped, faded."""
    drawn = u.to(x.device)
    if p.mixup:
        other = state.drawn(drawn[:, _ENTRY])
        x = torch.where(state.count > 0, sound_ops.mixed(x, drawn[:, _SHARE, None], other, p.mixup), x)
    if p.noise:
        x = sound_ops.noised(x, drawn[:, _NOISE:], p.noise)
    if p.crop:
        x = sound_ops.resize_crop(x, u[:, _BOX], p.heights, p.widths, p.canvas)
    if p.fader:
        x = sound_ops.faded(x, drawn[:, _FADER], p.fader)
    return x
