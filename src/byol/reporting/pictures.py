"""Raw images of any number of channels and any depth as small pictures inside the page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Raw = NDArray[np.generic]  # (H, W, C)
RGB = NDArray[np.uint8]  # (H, W, 3)
Limits = tuple[NDArray[np.float64], NDArray[np.float64]]  # (3,) lowest and highest value shown


def visible(image: Raw) -> Raw:
    """(H, W, C) -> (H, W, 3): grey repeated; the second of two channels again as blue; of more than three the first three."""
    channels = image.shape[2]
    return image[:, :, [min(c, channels - 1) for c in range(3)]]


def limits(image: Raw) -> Limits:
    """The values shown as black and as white: 0 and 255 for 8 bits, else the 1st and 99th percentile of each channel."""
    shown = visible(image)
    if shown.dtype == np.uint8:
        return np.zeros(3), np.full(3, 255.0)
    values = np.nan_to_num(shown.reshape(-1, 3).astype(np.float64))
    low, high = np.percentile(values, [1, 99], axis=0)
    return low, np.where(high > low, high, low + 1)


def rgb(image: Raw, between: Limits | None = None) -> RGB:
    """(H, W, C) raw values -> (H, W, 3) 8-bit."""
    low, high = limits(image) if between is None else between
    values = (np.nan_to_num(visible(image).astype(np.float64)) - low) / (high - low)
    pixels: RGB = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return pixels


def square(image: RGB, size: int, *, grow: bool = False) -> RGB:
    """(H, W, 3) -> the centre, (size, size, 3); a smaller one keeps its size, or grows in blocks with `grow`."""
    from PIL import Image

    h, w = image.shape[:2]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    middle = image[top : top + side, left : left + side]
    if side == size or (side < size and not grow):
        return middle
    how = Image.Resampling.NEAREST if side < size else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(middle).resize((size, size), how))


def encoded(image: RGB) -> str:
    """A data URI: JPEG for photographs, PNG where that is smaller (flat or tiny pictures); the same bytes for the same pixels."""
    from PIL import Image

    picture = Image.fromarray(image)
    jpeg, png = (_bytes(picture, kind) for kind in ("JPEG", "PNG"))
    kind, content = ("png", png) if len(png) <= len(jpeg) else ("jpeg", jpeg)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _bytes(picture: Image, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "JPEG":
        picture.save(out, kind, quality=80, optimize=True)
    else:
        picture.save(out, kind, optimize=True)
    return out.getvalue()


def sheet(images: list[RGB]) -> tuple[str, int]:
    """(N, S, S, 3) -> one picture of all as a data URI, filled row by row, and the number of its columns."""
    size = images[0].shape[0]
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    whole = np.zeros((rows * size, columns * size, 3), np.uint8)
    for i, image in enumerate(images):
        y, x = divmod(i, columns)
        whole[y * size : (y + 1) * size, x * size : (x + 1) * size] = image
    return encoded(whole), columns
