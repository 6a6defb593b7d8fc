"""Gaussian blur, batched: every sample its own width, as shifted sums where few taps count and as banded matrix products elsewhere.

A depthwise convolution with 23 taps at 224 px takes two to four times as long on a CPU (benchmarks/views.py). Banded products in blocks
of `_BLOCK` pixels do (block + 2 radius) / block times the arithmetic of a full line and none outside the band.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from byol.views.draws import spread

Border = Literal["zero", "reflect"]
_BLOCK = 32  # pixels
_SHIFTED = 6  # pixels; up to this reach a tap costs less as a shifted sum than as a part of a product
_LOST = 2e-6  # of the weight on either side of a line may be left out: an error below 1e-5 in values from 0 to 1


def radius(size: int) -> int:
    """The kernel rule of the released code, int((H / 10) / 2): 23 taps at 224 px, 13 at 128, 9 at 96, 3 at 32, none below 20."""
    return int((size / 10) / 2)


def reaches(u: NDArray[np.float32], sigma: tuple[float, float], taps: int) -> NDArray[np.int64]:
    """(B,) draws -> (B,) pixels, 0 to taps // 2: how far each sample's weights count, but for `_LOST`."""
    reach = taps // 2
    width = (sigma[0] + (sigma[1] - sigma[0]) * u.astype(np.float64))[:, None]
    half = np.exp(np.arange(reach + 1) ** 2 / (-2 * width**2))  # (B, reach + 1), by distance
    beyond = np.cumsum(half[:, ::-1], 1)[:, ::-1] / (2 * half.sum(1, keepdims=True) - 1)
    counted: NDArray[np.int64] = (beyond > _LOST).sum(1) - 1
    return counted.clip(min=0)


def blur(x: Tensor, u: Tensor, *, sigma: tuple[float, float], taps: int, border: Border, reach: int | None = None) -> Tensor:
    """(B, C, H, W) blurred with `taps` x `taps` weights exp(-d^2 / 2s^2), normalised, s ~ U(sigma) pixels, u (B, 1).

    `zero` beyond the border as in the released code (SAME padding, so borders darken); `reflect` as in torchvision. With `reach`,
    weights of pixels further away are left out (`reaches` says where they no longer count).
    """
    reach = taps // 2 if reach is None else reach
    if reach == 0:
        return x
    width = spread(u, *sigma)[:, :, 0, 0]
    distance = torch.arange(reach + 2, device=x.device, dtype=x.dtype)
    half = torch.exp(distance.square() / (-2 * width.square()))  # (B, reach + 2), by distance
    half[:, reach + 1] = 0  # what lies beyond the reach
    half /= 2 * half.sum(1, keepdim=True) - half[:, :1]
    return _shifted(x, half, reach, border) if reach <= _SHIFTED else _banded(x, half, reach, border)


def _shifted(x: Tensor, half: Tensor, reach: int, border: Border) -> Tensor:
    """The image added to itself, moved by each distance, first down and then across."""
    height, width = x.shape[2:]
    weight = half[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1) each
    padded = pad(x, (reach, reach, reach, reach), mode="reflect" if border == "reflect" else "constant")
    for axis, size in ((2, height), (3, width)):
        out = padded.narrow(axis, reach, size) * weight[0]
        for d in range(1, reach + 1):
            for start in (reach - d, reach + d):
                out.addcmul_(padded.narrow(axis, start, size), weight[d])
        padded = out
    return padded


def _banded(x: Tensor, half: Tensor, reach: int, border: Border) -> Tensor:
    """Products with banded matrices, a block of rows or columns at a time."""
    batch, channels, height, wide = x.shape
    across = x.new_empty(batch, channels * height, wide)  # in this order whatever the order of x: a crop's lines hold all channels
    lines = x.reshape(batch, channels * height, wide)
    for out, near, index in _blocks(wide, reach, border, x.device):
        across[:, :, out] = torch.bmm(lines[:, :, near], _band(half, index).mT)
    columns = across.view(batch * channels, height, wide)
    down = torch.empty_like(columns)
    for out, near, index in _blocks(height, reach, border, x.device):
        down[:, out] = torch.bmm(_band(half, index).repeat_interleave(channels, 0), columns[:, near])
    return down.view(x.shape)


def _band(half: Tensor, index: tuple[Tensor, ...]) -> Tensor:
    """(B, reach + 2) weights by distance -> (B, outputs, inputs): one block of the banded matrix, mirror images added."""
    parts = [half.index_select(1, i.flatten()).view(len(half), *i.shape) for i in index]
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


@lru_cache(maxsize=32)
def _blocks(n: int, reach: int, border: Border, device: torch.device) -> list[tuple[slice, slice, tuple[Tensor, ...]]]:
    """For a line of n pixels: (pixels written, pixels read, their distances clipped to reach + 1) of each block."""
    blocks = []
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        first, last = max(0, start - reach), min(n, stop + reach)
        to, of = torch.arange(start, stop)[:, None], torch.arange(first, last)[None]
        distances = [(to - of).abs()]
        if border == "reflect":
            # Pixel i stands also at -i and at 2(n-1) - i; the border pixel itself is not repeated.
            beyond = torch.tensor(reach + 1)
            distances += [torch.where(of > 0, to + of, beyond)] if start < reach else []
            distances += [torch.where(of < n - 1, 2 * (n - 1) - of - to, beyond)] if stop > n - reach else []
        blocks.append((slice(start, stop), slice(first, last), tuple(d.clamp(max=reach + 1).to(device) for d in distances)))
    return blocks
