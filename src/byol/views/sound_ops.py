"""The ops on log-mel spectrograms, batched: op(x (B, 1, F, T), u (B, k) in [0, 1)) -> (B, 1, F, T), draws of its own for each sample.

They are BYOL-A's (Niizumi et al. 2021, arXiv 2103.06695, and 2022, arXiv 2204.07402), but for `louder`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from byol.logmel import EPS

_A = -0.75  # of the cubic kernel, as torch and OpenCV have it


def louder(x: Tensor, u: Tensor, gain: float) -> Tensor:
    """The log-mel of the sound at another level: x not normalised, of log(energy + eps); +-gain dB, uniform; u (B, 1)."""
    factor = torch.pow(10.0, gain * (2 * u - 1) / 10)[:, :, None, None]
    return x.exp().sub_(EPS).clamp_(min=0).mul_(factor).add_(EPS).log_()


def mixed(x: Tensor, u: Tensor, other: Tensor, alpha: float) -> Tensor:
    """log((1 - l) exp(x) + l exp(other) + eps), l ~ U(0, alpha): another sound, (B, 1, F, T), in the background; u (B, 1).

    Energies add up, not their logarithms. Of normalised values, as here, exp is a power of the energy and not the energy itself.
    """
    return torch.lerp(x.exp(), other.exp(), (alpha * u)[:, :, None, None]).add_(EPS).log_()


def noised(x: Tensor, u: Tensor, sigma: float) -> Tensor:
    """x + N(0, sigma): an independent number on every value; u (B, F T)."""
    normal = torch.special.ndtri(u.double() + 2.0**-25)  # the draw 0 would be minus infinity
    return torch.add(x, normal.to(x.dtype).view_as(x), alpha=sigma)


def faded(x: Tensor, u: Tensor, gain: float) -> Tensor:
    """x + a line over time from head to tail ~ U(-gain, gain) each, the same in all bands: v2's linear fader; u (B, 2)."""
    head, tail = (gain * (2 * u - 1))[:, :, None, None, None].unbind(1)
    return x + torch.lerp(head, tail, torch.linspace(0, 1, x.shape[3], device=x.device, dtype=x.dtype))


def resize_crop(x: Tensor, u: Tensor, heights: tuple[float, float], widths: tuple[float, float], canvas: float) -> Tensor:
    """A random part of x, with silence before and after it (zeros: the mean), resized to F x T; u (B, 4), best on the CPU.

    Bicubic with aligned corners, which is a product with a matrix of weights along each axis.
    """
    top, height, left, width = boxes(u, x.shape[2], x.shape[3], heights, widths, canvas).to(x.device).unbind(1)
    rows = weights(top, height, x.shape[2], x.dtype)
    columns = weights(left, width, x.shape[3], x.dtype)
    return rows[:, None] @ x @ columns[:, None].mT


def boxes(u: Tensor, bands: int, frames: int, heights: tuple[float, float], widths: tuple[float, float], canvas: float) -> Tensor:
    """(B, 4) in [0, 1) -> (B, 4) int64: first band, bands, first frame (below 0: in the silence before), frames of each crop.

    Sizes are uniform in shares of F and of T, cut off at F and at the canvas, which is `canvas` T frames wide with x in its middle;
    places are uniform in what is left.
    """
    high, wide, top, left = u.double().unbind(1)
    room = int(canvas * frames)
    height = ((heights[0] + (heights[1] - heights[0]) * high) * bands).long().clamp(1, bands)
    width = ((widths[0] + (widths[1] - widths[0]) * wide) * frames).long().clamp(1, room)
    before = (room - frames) // 2
    return torch.stack([(top * (bands - height + 1)).long(), height, (left * (room - width + 1)).long() - before, width], 1)


def weights(start: Tensor, length: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """(B,) first cell and cells of a crop along an axis -> (B, size, size): row o makes the o-th of `size` values of the axis' cells.

    Beyond the crop its outermost cells go on, as in torch; cells outside of the axis are zero and have no column.
    """
    step = (length - 1).to(dtype) / max(1, size - 1)
    at = step[:, None] * torch.arange(size, device=start.device, dtype=dtype)
    base = at.floor()
    cells, last = base.long(), (length - 1)[:, None]
    out = at.new_zeros(len(start), size, size + 1)  # a last column for what lies outside
    # One tap at a time: no two of its weights meet in a place, so that the sums do not depend on the order in which a device adds.
    for tap, weight in zip((-1, 0, 1, 2), _cubic(at - base), strict=True):
        cell = torch.minimum((cells + tap).clamp(min=0), last) + start[:, None]
        out.scatter_add_(2, cell.masked_fill((cell < 0) | (cell >= size), size)[:, :, None], weight[:, :, None])
    return out[:, :, :size]


def _cubic(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How far a place lies behind a cell, in [0, 1) -> the weights of the cell before, of that cell, and of the two after (Keys 1981)."""
    s = 1 - t
    return _far(t + 1), _near(t), _near(s), _far(s + 1)


def _near(d: Tensor) -> Tensor:
    """The kernel within a cell's distance."""
    return ((_A + 2) * d - (_A + 3)) * d * d + 1


def _far(d: Tensor) -> Tensor:
    """The kernel from one to two cells away."""
    return _A * (((d - 5) * d + 8) * d - 4)
