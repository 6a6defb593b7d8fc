"""A small residual network for small images on a CPU: the encoder of the demo and of quick trials."""

from __future__ import annotations

import re
from dataclasses import dataclass

from byol.encoders.resnet import ResNet, Stem


@dataclass(frozen=True)
class Spec:
    """Its shape: channels of the first stage, stride of the 3x3 stem in pixels, basic blocks of each of the four stages."""

    width: int = 32
    stride: int = 1
    depth: int = 1


def parse(name: str) -> Spec | None:
    """The parts of `small[-wWIDTH][-sSTRIDE][-dDEPTH]`, or None for any other name."""
    found = re.fullmatch(r"small(?:-w([1-9]\d{0,3}))?(?:-s([1-4]))?(?:-d([1-9]))?", name)
    if found is None:
        return None
    given = {field: int(text) for field, text in zip(("width", "stride", "depth"), found.groups(), strict=True) if text}
    return Spec(**given)


def small(spec: Spec | None = None, *, channels: int = 3, zero_init: bool = False) -> ResNet:
    """(B, channels, H, W) -> (B, 8 width): a 3x3 stem without pooling, four stages of width, 2, 4 and 8 width channels."""
    s = spec or Spec()
    return ResNet((s.depth,) * 4, bottleneck=False, base=s.width, channels=channels, stem=stem(s), zero_init=zero_init)


def stem(spec: Spec) -> Stem:
    """Its first convolution."""
    return Stem(3, spec.stride, pool=False)
