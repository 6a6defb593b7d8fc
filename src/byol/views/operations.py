"""RandAugment: operations drawn from fifteen, all with the same magnitude (Cubuk et al. 2020, arXiv 1909.13719).

Operations, their probability of a half and how strong a magnitude from 0 to 10 makes each are timm's first ones, from which InfoMin's
released code has them: some are weakest at 10 (posterize, solarize), and colour, contrast, brightness and sharpness change nothing at 5.
Ours move by bilinear interpolation alone, mid-grey comes in from beyond the border, and a translation is in proportion to the image, 100
of 224 pixels at most.

Batched as in `ops`: op(x (B, C, H, W) in [0, 1], u (B, 3)) -> the same shape, each sample at a magnitude of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample

from byol.views import draws, ops
from byol.views.palette import Drawn

COLUMNS: Final = 5  # of the draws, an operation: which, whether, two of the magnitude, the direction
HIGHEST: Final = 10  # magnitude
_PROBABILITY = 0.5
_FILL = 0.5  # beyond the border
_TURN, _SHEAR, _SHIFT, _ADDED = 30.0, 0.3, 100 / 224, 110  # at the highest magnitude: degrees, of the side, of the side, levels of 255


def rounds_of(number: int, magnitude: float, spread: float, u: NDArray[np.float32]) -> list[list[tuple[NDArray[np.intp], Drawn]]]:
    """(B, k) draws, the last of which are meant -> so many operations, one after the other, and to which samples each is done."""
    rounds = []
    for slot in range(number):
        first = u.shape[1] - COLUMNS * (number - slot)
        which = np.where(draws.chosen(u[:, first + 1], _PROBABILITY), (u[:, first] * len(NAMED)).astype(np.intp), -1)
        made = (partial(drawn, op=op, magnitude=magnitude, spread=spread) for op in NAMED.values())
        rounds.append([((which == i).nonzero()[0], Drawn(op, slice(first + 2, first + COLUMNS))) for i, op in enumerate(made)])
    return rounds


def drawn(x: Tensor, u: Tensor, *, op: Callable[[Tensor, Tensor, Tensor], Tensor], magnitude: float, spread: float) -> Tensor:
    """(B, C, H, W), (B, 3) -> the operation at magnitudes of N(magnitude, spread^2) within 0 and 10, either way."""
    normal = (-2 * (1 - u[:, 0]).log()).sqrt() * (2 * math.pi * u[:, 1]).cos()
    level = (magnitude + spread * normal).clamp_(0, HIGHEST) / HIGHEST
    sign = torch.where(u[:, 2] < 0.5, -1.0, 1.0)
    return op(x, level[:, None, None, None], sign).clamp_(0, 1)


def autocontrast(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Each channel stretched to the full range; one of a single value stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=ops.TINY), x)


def equalize(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Each channel's histogram of 256 levels evened out, as Pillow does it; one of a single value stays."""
    values = (255 * x).round_().long().flatten(2).flatten(0, 1)  # (B C, H W)
    counts = torch.zeros(len(values), 256, dtype=torch.int64, device=x.device).scatter_add_(1, values, torch.ones_like(values))
    levels = torch.arange(256, device=x.device)
    last = torch.where(counts > 0, levels, -1).amax(1, keepdim=True)
    step = (values.shape[1] - counts.gather(1, last)) // 255
    table = ((counts.cumsum(1) - counts + step // 2) // step.clamp(min=1)).clamp_(max=255)
    table = torch.where(step > 0, table, levels)
    return (table.gather(1, values).to(x.dtype) / 255).view(x.shape)


def invert(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """1 - x."""
    return 1 - x


def posterize(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """So many bits of 8 are kept: 0 at magnitude 0 to 4 at 10."""
    step = 2 ** (8 - (4 * level).floor())
    return ((255 * x).round_() / step).floor_() * step / 255


def solarize(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Values from a threshold up become 1 - value: all of them at magnitude 0, none at 10."""
    return torch.where(255 * x < (256 * level).floor(), x, 1 - x)


def solarize_add(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Up to 110 of 255 more where values are below the middle."""
    return torch.where(255 * x < 128, x + (_ADDED * level).floor() / 255, x)


def colour(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Away from, or towards, the gray image."""
    return _blended(x, _gray(x), level)


def contrast(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Away from, or towards, the mean of the gray image."""
    return _blended(x, _gray(x).mean((1, 2, 3), keepdim=True), level)


def brightness(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Away from, or towards, black."""
    return _blended(x, torch.zeros_like(x), level)


def sharpness(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Away from, or towards, the image smoothed by 3 x 3 weights; its outermost pixels stay."""
    if min(x.shape[2:]) < 3:
        return x
    kernel = torch.ones(1, 1, 3, 3, device=x.device, dtype=x.dtype)
    kernel[0, 0, 1, 1] = 5
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = conv2d(x.flatten(0, 1)[:, None], kernel / 13).view(*x.shape[:2], x.shape[2] - 2, x.shape[3] - 2)
    return _blended(x, smooth, level)


def rotate(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Up to 30 degrees about the middle."""
    angle = math.radians(_TURN) * level[:, 0, 0, 0] * sign
    return _moved(x, (angle.cos(), -angle.sin(), 0.0), (angle.sin(), angle.cos(), 0.0))


def shear_x(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Each row moved by up to 0.3 times its distance from the top."""
    by = _SHEAR * level[:, 0, 0, 0] * sign
    return _moved(x, (1.0, by, by), (0.0, 1.0, 0.0))


def shear_y(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Each column moved by up to 0.3 times its distance from the left."""
    by = _SHEAR * level[:, 0, 0, 0] * sign
    return _moved(x, (1.0, 0.0, 0.0), (by, 1.0, by))


def translate_x(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """To a side."""
    return _moved(x, (1.0, 0.0, 2 * _SHIFT * level[:, 0, 0, 0] * sign), (0.0, 1.0, 0.0))


def translate_y(x: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """Up or down."""
    return _moved(x, (1.0, 0.0, 0.0), (0.0, 1.0, 2 * _SHIFT * level[:, 0, 0, 0] * sign))


NAMED: Final = {
    op.__name__: op
    for op in (
        *(autocontrast, equalize, invert, rotate, posterize, solarize, solarize_add, colour, contrast, brightness, sharpness),
        *(shear_x, shear_y, translate_x, translate_y),
    )
}


def _blended(x: Tensor, other: Tensor, level: Tensor) -> Tensor:
    """f x + (1 - f) other, f from 0.1 to 1.9."""
    factor = 1.8 * level + 0.1
    return factor * x + (1 - factor) * other


def _gray(x: Tensor) -> Tensor:
    return ops.luma(x) if x.shape[1] == 3 else x.mean(1, keepdim=True)


def _moved(x: Tensor, across: tuple[Tensor | float, ...], down: tuple[Tensor | float, ...]) -> Tensor:
    """What stands at the places that two rows of a matrix say, in halves of the sides from the middle; what is outside is mid-grey."""
    rows = [[v if isinstance(v, Tensor) else x.new_full((len(x),), v) for v in row] for row in (across, down)]
    matrix = torch.stack([torch.stack(row, 1) for row in rows], 1).to(x.dtype)
    grid = affine_grid(matrix, list(x.shape), align_corners=False)
    return grid_sample(x - _FILL, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + _FILL
