"""The ops on colours, batched: op(x (B, C, H, W) in [0, 1], u (B, k) in [0, 1)) -> (B, C, H, W), one draw a sample.

An op may overwrite x, and most do: on a CPU a new tensor for every op costs as much as the arithmetic.
Both dialects stand side by side. `paper`: the released JAX code of BYOL (deepmind-research/byol/utils/augmentations.py), whose
brightness is added and whose saturation is HSV's. `torchvision`: transforms.ColorJitter, where all of that is blending.
Closed forms replace the way to HSV and back: they are equal in exact arithmetic and need no `torch.where`, which on a CPU costs
twenty times an addition.
"""

from __future__ import annotations

import torch
from torch import Tensor

from byol.views.draws import spread

GRAY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # of both dialects; they sum to 0.9999
TINY = 1e-12


def flip(x: Tensor, u: Tensor) -> Tensor:
    """Mirrored left to right; no draw is read."""
    return x.flip(-1)


def brightness_added(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """x + U(-s, s): the paper's code, not torchvision's; u (B, 1), or (B, C) for a draw in each channel."""
    return x.add_(spread(u, -strength, strength)).clamp_(0, 1)


def brightness_scaled(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """x U(1-s, 1+s): torchvision's; u (B, 1) or (B, C)."""
    return x.mul_(spread(u, 1 - strength, 1 + strength)).clamp_(0, 1)


def contrast_of_channels(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """f (x - mean of its channel) + that mean, f ~ U(1-s, 1+s): the paper's; u (B, 1) or (B, C)."""
    factor = spread(u, 1 - strength, 1 + strength)
    offset = (1 - factor) * x.mean((2, 3), keepdim=True)
    return x.mul_(factor).add_(offset).clamp_(0, 1)


def contrast_of_gray(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """f x + (1-f) mean of the gray image, f ~ U(1-s, 1+s): torchvision's."""
    factor = spread(u, 1 - strength, 1 + strength)
    offset = (1 - factor) * luma(x.mean((2, 3), keepdim=True))
    return x.mul_(factor).add_(offset).clamp_(0, 1)


def saturation_hsv(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """HSV's s becomes clip(s U(1-s', 1+s'), 0, 1): the paper's. With v = max, c = max - min: x' = v - (v-x) min(f, v/c)."""
    high, low = extremes(x)
    chroma = (high - low).clamp_(min=TINY)
    factor = torch.minimum(high / chroma, spread(u, 1 - strength, 1 + strength))
    return x.sub_(high).mul_(factor).add_(high)


def saturation_blended(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """f x + (1-f) gray(x), f ~ U(1-s, 1+s): torchvision's."""
    factor = spread(u, 1 - strength, 1 + strength)
    gray = luma(x).mul_(1 - factor)
    return x.mul_(factor).add_(gray).clamp_(0, 1)


def hue(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """HSV's h becomes (h + U(-s, s)) mod 1, in turns; both dialects."""
    high, low = extremes(x)
    red, green, blue = x.chunk(3, dim=1)
    # The angle in sixths of a turn from red: 1 + g + b - r in units of chroma on either side, its sign that of g - b.
    angle = torch.add(green, blue).sub_(red).add_(high).sub_(low, alpha=2)
    cold = torch.sub(green, blue)
    chroma = torch.sub(high, low)
    angle.div_(chroma.clamp(min=TINY))
    angle = torch.copysign(angle, cold, out=cold).add_(spread(u, -6 * strength, 6 * strength))
    angle.sub_(angle.div(6).floor_(), alpha=6)  # back into [0, 6)
    # Each channel is a trapezium in the angle: red is min + chroma clip(|angle - 3| - 1, 0, 1), green and blue are
    # min + chroma clip(2 - |angle - 2|, 0, 1) and the same with 4.
    for channel, centre in ((red, 3), (green, 2), (blue, 4)):
        torch.sub(angle, centre, out=channel)
    x.abs_().clamp_(1, 2)
    torch.addcmul(torch.sub(low, chroma), red, chroma, out=red)
    rest = x[:, 1:]
    torch.addcmul(low.add_(chroma, alpha=2), rest, chroma, value=-1, out=rest)
    return x.clamp_(0, 1)


def grayscale(x: Tensor, u: Tensor) -> Tensor:
    """0.2989 r + 0.5870 g + 0.1140 b in every channel; no draw is read."""
    return luma(x).clamp_(0, 1).expand_as(x)


def solarize(x: Tensor, u: Tensor) -> Tensor:
    """x below 0.5 and 1 - x from there on, which in [0, 1] is the smaller of the two; no draw is read."""
    return torch.minimum(torch.sub(1, x), x)


def luma(x: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W): the gray image."""
    red, green, blue = x.chunk(3, dim=1)
    return red.mul(GRAY_WEIGHTS[0]).add_(green, alpha=GRAY_WEIGHTS[1]).add_(blue, alpha=GRAY_WEIGHTS[2])


def extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, H, W) -> two of (B, 1, H, W): the largest and the smallest channel of each pixel."""
    return x.amax(1, keepdim=True), x.amin(1, keepdim=True)
