"""What features have to beat: the pixels themselves, the counts of a recording, or a log-mel spectrogram over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from byol.data import Source, statistics
from byol.encoders import AnyInput, Encoder, Input, SoundInput
from byol.logmel import FrontEnd

LARGEST = 32  # pixels
CEPSTRAL: Final = 20  # coefficients
# What raw data are called, by what a sample is.
RAW: Final[Mapping[str, str]] = {"image": "pixels", "recording": "counts", "sound": "log-mel", "rgbd": "pixels", "volume": "voxels"}


class Shrink(nn.Module):
    """(B, C, S, S) -> (B, C s s): the image shrunk to s px (bilinear, antialiased) and laid out flat."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > self.size:
            x = interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return x.flatten(1)


class OverTime(nn.Module):
    """(B, 1, F, T) -> (B, 2 F): the mean and the deviation over time of each band, or of K sums of them: (B, 2 K)."""

    stride = 1  # frames of the spectrogram for one that is counted
    sums: Tensor | None  # (K, F)

    def __init__(self, sums: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("sums", sums)

    def forward(self, x: Tensor) -> Tensor:
        y = self.frames(x)
        std, mean = torch.std_mean(y, dim=1, correction=0)
        return self.pooled(y.amax(1), mean, std)

    def frames(self, x: Tensor) -> Tensor:
        """(B, 1, F, T) -> (B, T, F) or (B, T, K)."""
        return (x[:, 0] if self.sums is None else self.sums @ x[:, 0]).transpose(1, 2)

    def pooled(self, peak: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Of all frames: (B, K) each -> (B, 2 K)."""
        return torch.cat([mean, std], 1)


def mfcc(input: SoundInput) -> Encoder:
    """The encoder whose features are the mean and deviation over time of the first CEPSTRAL coefficients of the log-mels.

    These are their cosine transform over the bands (DCT-II, orthonormal).
    """
    kept = min(CEPSTRAL, input.bands)
    k, f = torch.arange(kept, dtype=torch.float64)[:, None], torch.arange(input.bands, dtype=torch.float64)
    sums = torch.cos(torch.pi * k * (f + 0.5) / input.bands) * (2 / input.bands) ** 0.5
    sums[0] *= 0.5**0.5
    plain = replace(input, mean=0.0, std=1.0)
    return Encoder(OverTime(sums.float()), dim=2 * kept, input=plain, name="mfcc", custom=True)


def raw(input: AnyInput) -> Encoder:
    """The encoder whose features are the raw data, as another encoder with this input sees them."""
    if not isinstance(input, SoundInput):
        return pixels(input)
    return Encoder(OverTime(), dim=2 * input.bands, input=replace(input, mean=0.0, std=1.0), name="log-mel", custom=True)


def pixels(input: Input) -> Encoder:
    """The encoder whose features are the values in [0, 1] of what another one sees, shrunk to at most 32 x 32."""
    size = min(input.size, LARGEST)
    plain = replace(input, mean=(0.0,) * input.channels, std=(1.0,) * input.channels)
    return Encoder(Shrink(size), dim=input.channels * size * size, input=plain, name="pixels", custom=True)


def plain_input(source: Source) -> AnyInput:
    """What raw data see when there is no encoder to share its view with: of images their own size, at most 32."""
    if source.modality == "sound":
        return SoundInput.of(FrontEnd.at(source.rate), mean=0.0, std=1.0, frames=1)
    s = statistics(source)
    size = int(min(LARGEST, s.height, s.width))
    return Input(channels=source.channels, size=size, mean=s.mean, std=s.std, low=s.low, high=s.high)


def is_baseline(name: str) -> bool:
    """True for the names of baselines: `pixels`, `counts`, `log-mel`, `mfcc` and `random ARCHITECTURE`."""
    return name in (*RAW.values(), "mfcc") or name.startswith(("random ", "random:"))
