"""An image seen patch by patch: the encoder of CPC (Hénaff et al. 2020, arXiv 1905.09272).

`patches:NAME` cuts an image into overlapping patches, a quarter of its side each and half a patch apart (7 x 7 of them), passes each
through NAME by itself, and gives the mean; `patches:80-36:NAME` has patches of 80 px every 36. NAME has layer norm for batch norm,
unless it says another: statistics of a batch would tell patches of their neighbours.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from byol.encoders.input import Input

KIND = "patches"


class Cut(NamedTuple):
    """What a name says: pixels of a patch, and from one to the next; 0: as the image has it."""

    patch: int
    stride: int


class Patches(nn.Module):
    """(B, C, H, W) normalised images of any size from a patch up -> (B, D): the mean of what `net` makes of all patches."""

    def __init__(self, net: nn.Module, cut: Cut, input: Input) -> None:
        super().__init__()
        self.net, self.patch, self.stride, self.input = net, cut.patch, cut.stride, input

    def forward(self, x: Tensor) -> Tensor:
        return self.latents(self.cut(x)).mean((1, 2))

    def cut(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, G, G', C, patch, patch), copies; what patches do not cover is left out alike on both sides."""
        p, s = self.patch, self.stride
        first = [(side - p) % s // 2 for side in x.shape[2:]]
        x = x[:, :, first[0] :, first[1] :]
        return x.unfold(2, p, s).unfold(3, p, s).permute(0, 2, 3, 1, 4, 5).clone(memory_format=torch.contiguous_format)

    def latents(self, parts: Tensor) -> Tensor:
        """(B, G, G', C, patch, patch) -> (B, G, G', D)."""
        y = self.net(parts.flatten(0, 2))
        y = y.mean((2, 3)) if y.ndim == 4 else y
        z: Tensor = y.view(*parts.shape[:3], -1)
        return z

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, G, G'): a place for each patch."""
        return self.latents(self.cut(x)).permute(0, 3, 1, 2)


def parse(name: str) -> tuple[Cut, str] | None:
    """How `patches:NAME` or `patches:80-36:NAME` cuts, and the NAME; None for any other name."""
    found = re.fullmatch(r"patches:(?:([1-9]\d{0,4})-([1-9]\d{0,4}):)?(.+)", name)
    return None if found is None else (Cut(int(found[1] or 0), int(found[2] or 0)), found[3])


def name_of(cut: Cut, part: str) -> str:
    """The name that `parse` reads."""
    return f"{KIND}:{f'{cut.patch}-{cut.stride}:' if cut.patch else ''}{part}"


def resolved(name: str, cut: Cut, input: object) -> tuple[Cut, Input]:
    """The cut in pixels, and what NAME sees of images; ValueError for other data, and where there are no two patches a side."""
    if not isinstance(input, Input) or input.size == 1:
        raise ValueError(f"{name} cuts images into patches, and these data are none; give images")
    if not cut.patch:
        patch = max(2, input.size // 4)
        cut = Cut(patch, patch // 2)
    if cut.patch + cut.stride > input.size:
        raise ValueError(f"{name} has no two patches of {cut.patch} px, {cut.stride} px apart, in {input.size} px; give larger images")
    return cut, replace(input, size=cut.patch, resize=cut.patch)
