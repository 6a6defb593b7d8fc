"""What replaces the colour ops where channels are not red, green and blue: radar, satellite bands, microscopy, gray images.

Brightness and contrast draw for each channel on its own, as no colour model ties the channels together. An op may overwrite x.
"""

from __future__ import annotations

import torch
from torch import Tensor

from byol.views.draws import spread

FLAT = 2e-6  # a range of values below it is what rounding left of none


def towards_mean(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """f x + (1-f) cross-channel mean, f ~ U(1-s, 1+s): for saturation, two channels or more."""
    factor = spread(u, 1 - strength, 1 + strength)
    mean = x.mean(1, keepdim=True).mul_(1 - factor)
    return x.mul_(factor).add_(mean).clamp_(0, 1)


def gamma(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """x to the power U(1-s, 1+s): for saturation, one channel."""
    return x.pow_(spread(u, 1 - strength, 1 + strength))


def gain(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """x U(1-s, 1+s) with a draw in each channel, u (B, C): for hue."""
    return x.mul_(spread(u, 1 - strength, 1 + strength)).clamp_(0, 1)


def mean_everywhere(x: Tensor, u: Tensor) -> Tensor:
    """The cross-channel mean in every channel: for grayscale, two channels or more; no draw is read."""
    return x.mean(1, keepdim=True).expand_as(x)


def stretch(x: Tensor, u: Tensor) -> Tensor:
    """Contrast stretched until the darkest pixel is 0 and the brightest 1: for grayscale, one channel; a flat image stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    span = high - low
    varied = (span > FLAT).to(x.dtype)
    return torch.sub(x, low * varied).div_(span * varied + (1 - varied))
