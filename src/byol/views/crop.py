"""Boxes cut out and resized to a square: antialiased bicubic as in Pillow, on the host image by image or on the device in batches.

Both cut first and resize then, so no pixel from outside a box shows (torchvision's `resized_crop`). The filter is Keys' cubic with
a = -0.5, widened when it shrinks and renormalised at the border. The released code resizes without antialiasing, a default of its
TensorFlow: we keep Pillow's, as every later code base does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def resize_one(image: NDArray[np.generic], box: Sequence[int], size: int) -> Tensor:
    """(H, W, C), (top, left, height, width) -> (C, size, size): uint8 stays uint8, all else becomes float32.

    Within one level of Pillow, save where a pass overshoots the 8-bit range between the two passes (3 pixels in 10,000 of a photo),
    which both clip, in their own order.
    """
    top, left, height, width = box
    part = image[top : top + height, left : left + width]
    # A copy: decoded arrays may be read-only, and torch knows no unsigned 16-bit arithmetic.
    part = part.copy() if part.dtype == np.uint8 else part.astype(np.float32)
    x = torch.from_numpy(part).permute(2, 0, 1)[None]
    # For uint8 in this layout 4 to 15 times as fast as Pillow.
    return functional.interpolate(x, (size, size), mode="bicubic", antialias=True)[0]


def resize_batch(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(B, C, H, W) of any real type, (B, 4) boxes -> (B, C, size, size) float32, not rounded and not clipped."""
    batch, channels, height, width = x.shape
    top, left, high, wide = boxes.to(x.device, torch.float32, non_blocking=True).unbind(1)
    tallest, widest = (int(side) for side in boxes[:, 2:].amax(0).tolist())  # on the host: boxes are made there
    rows = weights(top, high, height, size, taps_of(tallest, size))
    columns = weights(left, wide, width, size, taps_of(widest, size))
    # All channels of a line side by side, so that one product serves them; for uint8 this order costs no more than the copy to float.
    lines = torch.empty(batch, height, channels, width, device=x.device).copy_(x.transpose(1, 2))
    down = torch.bmm(rows, lines.view(batch, height, channels * width))
    out = torch.bmm(down.view(batch, size * channels, width), columns.mT)
    return out.view(batch, size, channels, size).transpose(1, 2)


def weights(start: Tensor, length: Tensor, pixels: int, size: int, taps: int) -> Tensor:
    """(B,), (B,) -> (B, size, pixels): rows of weights that resize pixels start .. start + length of a line to `size` pixels.

    `taps` is how many neighbouring pixels the filter can reach, `taps_of` the longest box.
    """
    scale = (length / size)[:, None]
    centre = torch.arange(size, device=start.device, dtype=start.dtype).add(0.5) * scale  # (B, size), from the start of the box
    wide = scale.clamp(min=1)
    first = (centre - 2 * wide - 0.5).ceil_()  # no pixel before it is in reach
    near = first[:, :, None] + torch.arange(taps, device=start.device, dtype=start.dtype)
    w = cubic((near + (0.5 - centre[:, :, None])).div_(wide[:, :, None]).abs_())
    # The filter ends at the border of the box, and what is left is scaled to a sum of one.
    w.mul_((near >= 0) & (near < length[:, None, None]))
    w.div_(w.sum(-1, keepdim=True))
    index = near.add_(start[:, None, None]).clamp_(0, pixels - 1).long()
    return torch.zeros(len(start), size, pixels, device=start.device).scatter_add_(2, index, w)


def taps_of(longest: int, size: int) -> int:
    """How many pixels of a line the filter reaches when `longest` pixels become `size`."""
    return math.ceil(4 * max(1.0, longest / size)) + 1


def cubic(t: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5 at distances t >= 0; as max(2-t, 0)^2 (1-t) / 2 + max(1-t, 0)^2 (2t-1)."""
    t = t.clamp(max=2)
    far = (2 - t).square_().mul_((1 - t).mul_(0.5))
    return far.addcmul_((1 - t).clamp_(min=0).square_(), t.mul_(2).sub_(1))
