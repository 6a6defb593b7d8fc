"""What an encoder of sound expects to hear: the sample rate, the log-mel spectrogram, its mean and standard deviation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TypeAlias, Union

import torch
from torch import Tensor

from byol.encoders.input import Input
from byol.logmel import FrontEnd
from byol.stored import typed

AnyInput: TypeAlias = Union[Input, "SoundInput"]

LARGEST = 1 << 20  # samples of a window, bands, frames and the rate: beyond, a file is damaged


@dataclass(frozen=True, kw_only=True)
class SoundInput:
    """The input of an encoder of sound; stored beside its weights, so that they are never used with another. Defaults are BYOL-A's."""

    mean: float  # of the log-mel spectrograms
    std: float  # of the log-mel spectrograms
    rate: int = 16_000  # Hz
    window: int = 1024  # samples
    fft: int = 1024  # samples
    hop: int = 160  # samples from one frame to the next
    bands: int = 64  # of the mel scale
    f_min: float = 60.0  # Hz
    f_max: float = 7800.0  # Hz
    frames: int = 96  # of the unit that it is trained on; evaluation takes any number

    def __post_init__(self) -> None:
        counts = {n: getattr(self, n) for n in ("rate", "window", "fft", "hop", "bands", "frames")}
        odd = next((n for n, v in counts.items() if not 1 <= v <= LARGEST), None)
        if odd is not None:
            raise ValueError(f"{odd} is {counts[odd]:,}; give 1 to {LARGEST:,}")
        if self.window > self.fft:
            raise ValueError(f"a window of {self.window} samples does not fit into a transform of {self.fft}; give fft >= window")
        if not 0 <= self.f_min < self.f_max <= self.rate / 2:
            why = f"of a rate of {self.rate:,} Hz holds 0 to {self.rate / 2:g}"
            raise ValueError(f"sound {why} Hz, not {self.f_min:g} to {self.f_max:g}; give 0 <= f_min < f_max <= rate / 2")
        if self.std <= 0:
            raise ValueError(f"the standard deviation is {self.std:g}; give a number above 0")

    @classmethod
    def of(cls, front: FrontEnd, *, mean: float, std: float, frames: int) -> SoundInput:
        """What a front end makes, normalised by this mean and deviation."""
        kept = {n: getattr(front, n) for n in ("rate", "window", "fft", "hop", "bands", "f_min", "f_max")}
        return cls(mean=mean, std=std, frames=frames, **kept)

    @property
    def front(self) -> FrontEnd:
        """How the spectrogram is made."""
        i = self
        return FrontEnd(rate=i.rate, window=i.window, fft=i.fft, hop=i.hop, bands=i.bands, f_min=i.f_min, f_max=i.f_max)

    @property
    def channels(self) -> int:
        """Of the spectrogram, as an image has them."""
        return 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, bands and frames of the spectrogram of one unit."""
        return 1, self.bands, self.frames

    @property
    def unit(self) -> int:
        """Samples whose spectrogram has `frames` frames, the least number of them."""
        return (self.frames - 1) * self.hop

    def normalise(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """(B, 1, bands, T) log-mel -> about zero mean and unit variance, as measured on the training data; in `out` if given."""
        return torch.sub(x, self.mean, out=out).div_(self.std)

    def to_json(self) -> dict[str, object]:
        """The fields as plain JSON values, and that they are those of sound."""
        return {"kind": "sound", **asdict(self)}

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> SoundInput:
        """The input that `to_json` wrote; ValueError names the first thing that is not as it was written."""
        if fields.get("kind") != "sound":
            raise ValueError(f"kind is {str(fields.get('kind'))[:40]!r}, not 'sound'")
        return typed(cls, {k: v for k, v in fields.items() if k != "kind"})


def input_from_json(fields: dict[str, object]) -> AnyInput:
    """The input of either kind that `to_json` wrote: of sound where it says so, else of images."""
    return SoundInput.from_json(fields) if "kind" in fields else Input.from_json(fields)
