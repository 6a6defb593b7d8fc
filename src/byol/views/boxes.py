"""Where the random resized crop cuts: boxes as a pure function of the draws, the same for host and memory crops.

Area uniform between two fractions of the image's, aspect (width / height) log-uniform, place uniform. Where the rectangle does not
fit, the dialects part: the released code of BYOL cuts its sides to the image's (deepmind-research/byol/utils/dataset.py,
`_decode_and_random_crop`); torchvision draws up to ten times and then takes the centre (transforms.RandomResizedCrop.get_params).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from byol.views import draws
from byol.views.pipeline import Pipeline


def clamped(u: Tensor, height: Tensor, width: Tensor, pipeline: Pipeline) -> Tensor:
    """(B, 34) draws, (B,) pixels, (B,) pixels -> (B, 4) int64 top, left, height, width: one draw, cut to the image."""
    high, wide = _sides(u[:, draws.AREA][:, :1], u[:, draws.ASPECT][:, :1], height, width, pipeline)
    high, wide = high[:, 0].clamp(min=1).minimum(height), wide[:, 0].clamp(min=1).minimum(width)
    return _placed(u, high, wide, height, width)


def redrawn(u: Tensor, height: Tensor, width: Tensor, pipeline: Pipeline) -> Tensor:
    """(B, 34) draws, (B,) pixels, (B,) pixels -> (B, 4) int64 top, left, height, width: the first of ten that fits, or the centre."""
    high, wide = _sides(u[:, draws.AREA], u[:, draws.ASPECT], height, width, pipeline)
    fits = (high > 0) & (high <= height[:, None]) & (wide > 0) & (wide <= width[:, None])
    first = fits.to(torch.int8).argmax(1, keepdim=True)
    boxes = _placed(u, high.gather(1, first)[:, 0], wide.gather(1, first)[:, 0], height, width)
    return torch.where(fits.any(1)[:, None], boxes, _centre(height, width, pipeline))


def _sides(area: Tensor, aspect: Tensor, height: Tensor, width: Tensor, p: Pipeline) -> tuple[Tensor, Tensor]:
    """(B, n), (B, n) draws -> heights and widths in pixels, (B, n) int64; in float64, so that a box never depends on the device."""
    low, high = (torch.tensor(a, dtype=torch.float64).log() for a in p.aspect)
    surface = (height * width)[:, None] * (p.min_area + (p.max_area - p.min_area) * area.double())
    ratio = torch.exp(low + (high - low) * aspect.double())
    return (surface / ratio).sqrt().round().long(), (surface * ratio).sqrt().round().long()


def _placed(u: Tensor, high: Tensor, wide: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Every offset that keeps the box inside is equally likely."""
    top = (u[:, draws.TOP][:, 0].double() * (height - high + 1)).long()
    left = (u[:, draws.LEFT][:, 0].double() * (width - wide + 1)).long()
    return torch.stack([top, left, high, wide], 1)


def _centre(height: Tensor, width: Tensor, p: Pipeline) -> Tensor:
    """The largest centred box whose aspect lies in the allowed range."""
    low, high = p.aspect
    ratio = width.double() / height
    tall = torch.where(ratio < low, (width / low).round().long(), height)
    wide = torch.where(ratio > high, (height * high).round().long(), width)
    return torch.stack([(height - tall) // 2, (width - wide) // 2, tall, wide], 1)


def rescaled(boxes: Tensor, size: tuple[int, int], here: Sequence[int]) -> Tensor:
    """(V, 4) boxes in an image of that height and width -> the same in a smaller copy of it, rounded, never empty."""
    if tuple(here[:2]) == tuple(size):
        return boxes
    now = torch.tensor(here[:2])
    ratio = now.double() / torch.tensor(size)
    first = (boxes[:, :2] * ratio).round().long().minimum(now - 1)
    last = ((boxes[:, :2] + boxes[:, 2:]) * ratio).round().long().maximum(first + 1).minimum(now)
    return torch.cat([first, last - first], 1)
