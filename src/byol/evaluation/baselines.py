"""What features have to beat: the pixels themselves, or the counts of a recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from torch import Tensor, nn
from torch.nn.functional import interpolate

from byol.data import Source, statistics
from byol.encoders import Encoder, Input

LARGEST = 32  # pixels
RAW: Final[Mapping[str, str]] = {"image": "pixels", "recording": "counts"}  # what raw data are called, by what a sample is


class Shrink(nn.Module):
    """(B, C, S, S) -> (B, C s s): the image shrunk to s px (bilinear, antialiased) and laid out flat."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > self.size:
            x = interpolate(x, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)
        return x.flatten(1)


def pixels(input: Input) -> Encoder:
    """The encoder whose features are the values in [0, 1] of what another one sees, shrunk to at most 32 x 32."""
    size = min(input.size, LARGEST)
    plain = replace(input, mean=(0.0,) * input.channels, std=(1.0,) * input.channels)
    return Encoder(Shrink(size), dim=input.channels * size * size, input=plain, name="pixels", custom=True)


def plain_input(source: Source) -> Input:
    """What pixels see when there is no encoder to share its view with: the images' own size, at most 32."""
    s = statistics(source)
    size = int(min(LARGEST, s.height, s.width))
    return Input(channels=source.channels, size=size, mean=s.mean, std=s.std, low=s.low, high=s.high)


def is_baseline(name: str) -> bool:
    """True for the names of baselines: `pixels`, `counts` and `random ARCHITECTURE`."""
    return name in RAW.values() or name.startswith(("random ", "random:"))
