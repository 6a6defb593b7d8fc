"""From images of any kind to what an encoder sees at evaluation: resized, cropped in the centre, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from byol.encoders.input import Input

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Array: TypeAlias = NDArray[np.generic]
Image: TypeAlias = Union[str, Path, bytes, "PILImage", Array, Tensor]
Images: TypeAlias = Image | Sequence[Image]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


def preprocess(images: Images, input: Input) -> Tensor:
    """Images of any kind -> (B, C, S, S) float32, normalised.

    Paths and bytes are decoded; arrays are (H, W), (H, W, C) or (N, H, W, C), tensors (H, W), (C, H, W) or (N, C, H, W), with
    raw values as in training; for an encoder of vectors also (N, C). ValueError for anything else.
    """
    listed = list(images) if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
    if not listed:
        raise ValueError("there are no images in the list; give one or more")
    views = [evaluation_views(_batch(i, input), input) for i in listed]
    return input.normalise(input.scale(torch.cat(views)))


def evaluation_view(image: Array, input: Input) -> Tensor:
    """(H, W, C) or (H, W) raw values -> (C, S, S) raw float32, the geometry of evaluation (see `evaluation_views`)."""
    return evaluation_views(_channels_first(image), input)[0]


def evaluation_views(batch: Tensor, input: Input) -> Tensor:
    """(B, C', H, W) raw values of any type -> (B, C, S, S) raw float32: short side to `input.resize`, then the centre crop.

    Bicubic with antialiasing, sizes and offsets rounded as torchvision does; an overshoot stays until `Input.scale` clips it.
    Grey becomes RGB and RGB grey where the encoder needs it, and 16-bit values 8-bit ones, integers fractions of their maximum.
    Where channels are places in space (`Input.points`), the whole is squeezed, as in training.
    """
    x = _adapt_channels(batch.to(torch.float32), input.channels) * _unit(batch.dtype, input)
    if input.points:
        return squeezed(x, input.size, input.points)
    return _centre(_short_side(x, input.resize or input.size), input.size)


def squeezed(x: Tensor, size: int, points: int) -> Tensor:
    """(B, C, H, W) -> (B, C, S, S) of all of it: means over areas, and of the last `points` channels the pixels in the middle of these."""
    if x.shape[-2:] == (size, size):
        return x
    colours = interpolate(x[:, :-points], (size, size), mode="area")
    return torch.cat([colours, interpolate(x[:, -points:], (size, size), mode="nearest-exact")], 1)


def _unit(dtype: torch.dtype, input: Input) -> float:
    """What one step of that type is worth to the encoder, where its range leaves no doubt; otherwise values are taken as they are."""
    if dtype == torch.uint16 and (input.low, input.high) == (0, 255):
        return 255 / 65535
    if dtype in (torch.uint8, torch.uint16) and input.high <= 1:
        return 1 / torch.iinfo(dtype).max
    return 1.0


def _short_side(x: Tensor, short: int) -> Tensor:
    h, w = x.shape[-2:]
    if min(h, w) == short:
        return x
    size = (short, int(short * w / h)) if h <= w else (int(short * h / w), short)
    return interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)


def _centre(x: Tensor, size: int) -> Tensor:
    top, left = (round((n - size) / 2) for n in x.shape[-2:])
    return x[..., top : top + size, left : left + size]


def _adapt_channels(x: Tensor, channels: int) -> Tensor:
    """(B, C', H, W) -> (B, channels, H, W): the same, grey repeated, or RGB as luma."""
    found = x.shape[1]
    if found == channels:
        return x
    if found == 1:
        return x.expand(-1, channels, -1, -1)
    if found == 3 and channels == 1:
        return (x * x.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    raise ValueError(f"an image has {found} channels and the encoder takes {channels}; arrays are (H, W, C), tensors (C, H, W)")


def _batch(image: object, input: Input) -> Tensor:
    """One image or an array of them -> (N, C', H, W) raw values."""
    if input.size == 1 and isinstance(image, np.ndarray | Tensor) and image.ndim == 2 and image.shape[1] == input.channels:
        image = torch.as_tensor(image)[:, :, None, None]  # vectors, such as bins of a recording
    if isinstance(image, Tensor):
        x = image[(None,) * (4 - image.ndim)]
    else:
        x = _channels_first(image if isinstance(image, np.ndarray) else _decoded(image))
    if x.ndim != 4 or x.dtype == torch.bool or x.is_complex() or x.numel() == 0:
        raise ValueError(f"an image of shape {tuple(x.shape)} and type {x.dtype} cannot be used; give (H, W) or (H, W, C) numbers")
    if x.is_floating_point():
        _check_floats(x, input)
    return x


def _check_floats(x: Tensor, input: Input) -> None:
    top = float(x.amax())
    if not bool(torch.isfinite(x).all()):
        raise ValueError("an image has values that are NaN or infinite; mend it, or leave it out")
    # The usual trap: floats in [0, 1] would be black to an encoder that was trained on 0 to 255.
    if input.high - input.low >= 255 and 0 < top <= 1:
        raise ValueError(f"an image has values up to {top:.3g} and the encoder was trained on {input.low:g} to {input.high:g}; rescale it")


def _channels_first(image: Array) -> Tensor:
    """(H, W), (H, W, C) or (N, H, W, C) -> (N, C, H, W), a copy in the machine's byte order; other shapes as they are."""
    if image.dtype.kind not in "biuf":
        raise ValueError(f"an array of type {image.dtype} is no image; give numbers")
    x = torch.from_numpy(np.array(image, dtype=image.dtype.newbyteorder("=")))
    if x.ndim == 2:
        x = x[..., None]
    if x.ndim == 3:
        x = x[None]
    return x.movedim(-1, 1) if x.ndim == 4 else x


def _decoded(image: object) -> Array:
    """A path, encoded bytes or a PIL image -> (H, W, C) or (H, W)."""
    from PIL import Image as pil

    if isinstance(image, pil.Image):
        return _from_pil(image)
    if not isinstance(image, str | Path | bytes):
        raise ValueError(f"a {type(image).__name__} is no image; give a path, a PIL image, an array, a tensor, or a list of them")
    from byol.data import Unreadable, read_image

    try:
        return read_image(image)
    except Unreadable as error:
        raise ValueError(f"{'the bytes' if isinstance(image, bytes) else image} cannot be read as an image: {error}") from error


def _from_pil(image: PILImage) -> Array:
    """Upright and as `byol.data.read_image` has it: transparency on white, 16-bit grey and floats kept, all else grey or RGB."""
    from PIL import Image as pil
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", layer.size, "white"), layer)
    return np.asarray(image.convert(mode))
