"""A small residual network for small images on a CPU: the encoder of the demo and of quick trials."""

from __future__ import annotations

import re

from byol.encoders.resnet import ResNet, Shape, Stem


def small(width: int = 32, *, stride: int = 1, depth: int = 1, stages: int = 4, channels: int = 3, zero_init: bool = False) -> ResNet:
    """(B, channels, H, W) -> (B, 2^(stages - 1) width): a 3x3 stem without pooling, then stages of width, 2, 4, ... width channels.

    `stride` is the stem's, in pixels, `depth` the number of basic blocks of each stage. Each stage after the first halves the
    image: below 16 px three stages do better than four, which would end in a single pixel.
    """
    return ResNet(shape(width, stride, depth, stages), channels=channels, zero_init=zero_init)


def shape(width: int = 32, stride: int = 1, depth: int = 1, stages: int = 4) -> Shape:
    """What `small` builds."""
    return Shape((depth,) * stages, False, width, Stem(3, stride, pool=False))


def parse(name: str) -> Shape | None:
    """The shape that `small[-wWIDTH][-sSTRIDE][-dDEPTH][-nSTAGES]` names, or None for any other name."""
    found = re.fullmatch(r"small(?:-w([1-9]\d{0,3}))?(?:-s([1-4]))?(?:-d([1-9]))?(?:-n([2-4]))?", name)
    if found is None:
        return None
    return shape(**{part: int(text) for part, text in zip(("width", "stride", "depth", "stages"), found.groups(), strict=True) if text})
