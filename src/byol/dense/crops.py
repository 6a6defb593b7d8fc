"""The geometry of training on pixels: image and target scaled, cropped and mirrored together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

Size = tuple[int, int]  # height, width in pixels


def resized(x: Tensor, target: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """(C, H, W) and (H, W) -> the same at another size: the image bilinear and antialiased, the target by its nearest pixel."""
    if tuple(x.shape[-2:]) == size:
        return x, target
    image = interpolate(x[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
    # The nearest in float64: class numbers and 16-bit depths stay exact.
    nearest = interpolate(target[None, None].double(), size, mode="nearest-exact")[0, 0].to(target.dtype)
    return image, nearest


def padded(x: Tensor, target: Tensor, size: Size, fill: tuple[float, ...], void: float) -> tuple[Tensor, Tensor]:
    """At least `size`, filled below and to the right: the image with a value for each channel, the target with `void`."""
    h, w = x.shape[-2:]
    below, right = max(0, size[0] - h), max(0, size[1] - w)
    if not below and not right:
        return x, target
    out = torch.stack([pad(c, (0, right, 0, below), value=v) for c, v in zip(x, fill, strict=True)])
    return out, pad(target, (0, right, 0, below), value=void)


def at(x: Tensor, target: Tensor, top: int, left: int, size: Size) -> tuple[Tensor, Tensor]:
    """The crop whose corner is there."""
    rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
    return x[..., rows, columns], target[rows, columns]


def centre(x: Tensor, target: Tensor, size: Size, fill: tuple[float, ...], void: float) -> tuple[Tensor, Tensor]:
    """The centre crop; what is smaller is filled."""
    x, target = padded(x, target, size, fill, void)
    top, left = ((n - s) // 2 for n, s in zip(x.shape[-2:], size, strict=True))
    return at(x, target, top, left, size)


def random(
    x: Tensor, target: Tensor, u: Tensor, size: Size, scales: tuple[float, float], fill: tuple[float, ...], void: float
) -> tuple[Tensor, Tensor]:
    """u (4,) uniform: scaled by U(scales), cropped anywhere, mirrored with probability 1/2; what is smaller is filled."""
    factor = scales[0] + float(u[0]) * (scales[1] - scales[0])
    h, w = (max(1, round(n * factor)) for n in x.shape[-2:])
    x, target = padded(*resized(x, target, (h, w)), size, fill, void)
    top, left = (int(float(v) * (n - s + 1)) for v, n, s in zip(u[1:3], x.shape[-2:], size, strict=True))
    x, target = at(x, target, top, left, size)
    return (x.flip(-1), target.flip(-1)) if float(u[3]) < 0.5 else (x, target)
