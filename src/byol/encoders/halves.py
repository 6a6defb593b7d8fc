"""Two networks side by side, which see different channels of what is made of colours: `lab:NAME` and `flow:NAME`.

`lab:NAME` has two networks of half the channels of NAME, so as many features as it in all, `lab:whole:NAME` two of all of them.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from torch import Tensor, nn

from byol.encoders.feature_map import last_map
from byol.encoders.input import Input

KINDS = {"lab": "lightness, colours", "flow": "channel 1, channels 2 and 3 of an invertible flow that is trained"}


class Halves(nn.Module):
    """(B, 3, H, W) normalised RGB -> (B, sum of both): a network sees (B, 1, H, W), another one (B, 2, H, W), as `split` gives them."""

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised -> (B, 1, H, W), (B, 2, H, W)."""
        raise NotImplementedError

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """What sees the one channel, and what sees the two."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.halves(x), 1)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised -> the features of both networks, (B, d) each."""
        return self.features(*self.split(x))

    def features(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, H, W), (B, 2, H, W), as `split` gives them -> the features of both networks, (B, d) each."""
        first, second = self.networks()
        return pooled(first(one)), pooled(second(two))

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, sum of both, h, w): the last maps."""
        return torch.cat([last_map(net, seen) for net, seen in zip(self.networks(), self.split(x), strict=True)], 1)


def pooled(y: Tensor) -> Tensor:
    """(B, d, h, w) or (B, d) -> (B, d)."""
    return y.mean((2, 3)) if y.ndim == 4 else y


def parse(name: str) -> tuple[str, str, bool] | None:
    """The kind, the name of each half, and whether it is whole, in `lab:NAME` or `lab:whole:NAME`; None for any other name."""
    found = re.fullmatch(rf"({'|'.join(KINDS)}):(whole:)?(.+)", name)
    return (found[1], found[3], found[2] is not None) if found else None


def name_of(kind: str, half: str, whole: bool) -> str:
    """`lab:NAME`, or `lab:whole:NAME`."""
    return f"{kind}:{'whole:' if whole else ''}{half}"


def inputs(name: str, input: object) -> tuple[Input, Input]:
    """What both halves see of images; ValueError for other data than RGB."""
    if not isinstance(input, Input) or input.channels != 3 or input.size == 1:
        what = f"{input.channels} channel{'s' * (input.channels != 1)}" if isinstance(input, Input) else "sounds"
        raise ValueError(f"{name} splits images of red, green and blue, and these data have {what}; give colour images")
    one, two = (replace(input, channels=n, mean=input.mean[:n], std=input.std[:n]) for n in (1, 2))
    return one, two
