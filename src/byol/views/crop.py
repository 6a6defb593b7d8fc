"""Boxes cut out and resized to a square: antialiased bicubic as in Pillow, on the host image by image or on the device in batches.

Both cut first and resize then, so no pixel from outside a box shows (torchvision's `resized_crop`). The filter is Keys' cubic with
a = -0.5, widened when it shrinks and renormalised at the border. The released code resizes without antialiasing, a default of its
TensorFlow: we keep Pillow's, as every later code base does.
"""

from __future__ import annotations

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
    rows, columns = weights(top, high, height, size), weights(left, wide, width, size)
    lines = torch.bmm(x.to(torch.float32).reshape(batch, channels * height, width), columns.mT)
    out = torch.bmm(rows.repeat_interleave(channels, 0), lines.view(batch * channels, height, size))
    return out.view(batch, channels, size, size)


def weights(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """(B,), (B,) -> (B, size, pixels): rows of weights that resize pixels start .. start + length of a line to `size` pixels."""
    start, length = start[:, None, None], length[:, None, None]
    place = torch.arange(pixels, device=start.device, dtype=start.dtype) + 0.5 - start
    scale = length / size
    out = torch.arange(size, device=start.device, dtype=start.dtype)[:, None] + 0.5
    # Pixels beyond the box are moved out of the filter's reach.
    place = place.masked_fill((place < 0) | (place > length), float("inf"))
    w = cubic(torch.sub(place, out * scale).div_(scale.clamp(min=1)).abs_())
    return w.div_(w.sum(-1, keepdim=True))


def cubic(t: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5 at distances t >= 0; as max(2-t, 0)^2 (1-t) / 2 + max(1-t, 0)^2 (2t-1)."""
    t = t.clamp(max=2)
    far = (2 - t).square_().mul_((1 - t).mul_(0.5))
    return far.addcmul_((1 - t).clamp_(min=0).square_(), t.mul_(2).sub_(1))
