"""Gaussian blur, batched: every sample its own width, as products with banded matrices, a block of rows at a time.

A depthwise convolution with 23 taps at 224 px takes several times as long on a CPU. Banded products in blocks of `_BLOCK` pixels
do (block + 2 radius) / block times the arithmetic of a full line and none outside the band.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from byol.views.draws import spread

Border = Literal["zero", "reflect"]
_BLOCK = 32  # pixels


def radius(size: int) -> int:
    """The kernel rule of the released code, int((H / 10) / 2): 23 taps at 224 px, 13 at 128, 9 at 96, 3 at 32, none below 20."""
    return int((size / 10) / 2)


def blur(x: Tensor, u: Tensor, *, sigma: tuple[float, float], taps: int, border: Border) -> Tensor:
    """(B, C, H, W) blurred with `taps` x `taps` weights exp(-d^2 / 2s^2), normalised, s ~ U(sigma) pixels, u (B, 1).

    `zero` beyond the border as in the released code (SAME padding, so borders darken); `reflect` as in torchvision.
    """
    reach = taps // 2
    width = spread(u, *sigma)[:, :, 0, 0]
    distance = torch.arange(reach + 2, device=x.device, dtype=x.dtype)
    half = torch.exp(distance.square() / (-2 * width.square()))  # (B, reach + 2), by distance
    half[:, reach + 1] = 0  # what lies beyond the reach
    half /= 2 * half.sum(1, keepdim=True) - half[:, :1]
    batch, channels, height, wide = x.shape
    across = torch.empty_like(x).view(batch, channels * height, wide)
    lines = x.reshape(batch, channels * height, wide)
    for out, near, index in _blocks(wide, reach, border, x.device):
        across[:, :, out] = torch.bmm(lines[:, :, near], _band(half, index).mT)
    columns = across.view(batch * channels, height, wide)
    down = torch.empty_like(columns)
    for out, near, index in _blocks(height, reach, border, x.device):
        down[:, out] = torch.bmm(_band(half, index).repeat_interleave(channels, 0), columns[:, near])
    return down.view_as(x)


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
