"""Which random number decides what: one column each, for good.

`byol.rng.uniforms` gives every sample of a view a row of numbers in [0, 1). An op reads its own columns alone, so that switching
one op off, or changing its strength, never shifts the numbers of another: two runs that differ in one op can be compared.
The device's columns come first and the crop's after them; neither stage draws many numbers for the other.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import rng

Uniforms = NDArray[np.float32]

FLIP = slice(0, 1)
JITTER = slice(1, 2)
ORDER = slice(2, 3)
BRIGHTNESS = slice(3, 4)
CONTRAST = slice(4, 5)
SATURATION = slice(5, 6)
HUE = slice(6, 7)
GRAY = slice(7, 8)
BLUR = slice(8, 9)
SIGMA = slice(9, 10)
SOLARIZE = slice(10, 11)

ATTEMPTS = 10  # torchvision's: so many areas and aspects are tried before the centre crop
TOP = slice(12, 13)
LEFT = slice(13, 14)
AREA = slice(14, 14 + ATTEMPTS)
ASPECT = slice(24, 24 + ATTEMPTS)

_CHANNELS = 36  # from here on three numbers for each channel: brightness, contrast, gain


def each_channel(op: int, channels: int) -> slice:
    """The columns of a per-channel op, one a channel: op 0 brightness, 1 contrast, 2 gain."""
    return slice(_CHANNELS + op, _CHANNELS + 3 * channels, 3)


def for_crop(seed: int, epoch: int, view: int, ids: Tensor) -> Tensor:
    """(B,) ids -> (B, 34) numbers on the CPU, of which the crop's columns are meant."""
    return for_view(seed, epoch, view, ids, None)


def for_device(seed: int, epoch: int, view: int, ids: Tensor, channels: int | None, more: int = 0) -> Tensor:
    """(B,) ids -> (B, k) numbers on the CPU for all ops after the crop; `channels` where ops draw for each channel.

    `more`: so many of a stream of their own, as the last columns.

    On the CPU on purpose: the host then knows which samples an op touches and never has to ask the device.
    """
    columns = SOLARIZE.stop if channels is None else _CHANNELS + 3 * channels
    return _with(more, rng.uniforms(seed, epoch, rng.STREAM_VIEWS + view, ids.cpu(), columns), seed, epoch, view, ids)


def for_view(seed: int, epoch: int, view: int, ids: Tensor, channels: int | None, more: int = 0) -> Tensor:
    """(B,) ids -> (B, k) numbers on the CPU for the crop and for all ops after it."""
    columns = ASPECT.stop if channels is None else _CHANNELS + 3 * channels
    return _with(more, rng.uniforms(seed, epoch, rng.STREAM_VIEWS + view, ids.cpu(), columns), seed, epoch, view, ids)


def _with(more: int, u: Tensor, seed: int, epoch: int, view: int, ids: Tensor) -> Tensor:
    """(B, k) -> (B, k + more)."""
    return torch.cat([u, rng.uniforms(seed, epoch, rng.STREAM_OPERATIONS + view, ids.cpu(), more)], 1) if more else u


def chosen(u: Uniforms, probability: float) -> NDArray[np.bool_]:
    """(B,) -> (B,) bool: u <= p as in the released code; never where p is 0."""
    return (u <= probability) & (probability > 0)


def spread(u: Tensor, low: float, high: float) -> Tensor:
    """(B, k) in [0, 1) -> (B, k, 1, 1) in [low, high), to be broadcast over k = 1 or C channels."""
    return (low + (high - low) * u)[:, :, None, None]
