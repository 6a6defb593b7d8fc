"""Images with something beside each: a mask, a depth map. Read one at a time; nothing in a file can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from byol.data import Unreadable, read_image, shown
from byol.encoders import Input

Array = NDArray[np.generic]
IMAGES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")
_FORMATS: Final = ("PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")  # of masks and depth: nothing lossy by nature
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode L


class Pictures(Protocol):
    """Images and their targets by index."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Array:
        """(H, W, C) raw values; ValueError names the file."""
        ...

    def target(self, index: int) -> Array:
        """(H, W) of the same height and width: classes, or metres; ValueError names the file."""
        ...

    def take(self, rows: list[int]) -> Pictures:
        """Those of these indices, in this order."""
        ...


@dataclass(frozen=True)
class Files:
    """Pictures in two files each."""

    images: tuple[Path, ...]
    targets: tuple[Path, ...]
    read: Callable[[Path], Array]  # of a target

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Array:
        return read_picture(self.images[index])

    def target(self, index: int) -> Array:
        return self.read(self.targets[index])

    def take(self, rows: list[int]) -> Files:
        return replace(self, images=tuple(self.images[i] for i in rows), targets=tuple(self.targets[i] for i in rows))


@dataclass(frozen=True)
class Split:
    """What to learn from and what to be tested on."""

    train: Pictures
    test: Pictures
    how: str  # where the test images come from, as printed

    def limited(self, limit: int | None) -> Split:
        """At most so many of each, evenly spread."""
        if limit is None:
            return self
        return replace(self, train=spread(self.train, limit), test=spread(self.test, limit))


def spread(pictures: Pictures, limit: int) -> Pictures:
    """At most `limit` of them, evenly spread over their order."""
    n = len(pictures)
    return pictures if n <= limit else pictures.take([i * n // limit for i in range(limit)])


def hold_out(pictures: Pictures) -> Split:
    """The last fifth, in the order of names, is the test set: frames of a film that follow each other would tell too much."""
    cut = len(pictures) - max(1, len(pictures) // 5)
    if cut < 1:
        raise ValueError(f"{len(pictures)} image(s) cannot be split into training and test images; pass others with --test")
    rows = list(range(len(pictures)))
    return Split(pictures.take(rows[:cut]), pictures.take(rows[cut:]), "the last fifth of DATA, by name")


def paired(images: Path, targets: Path, read: Callable[[Path], Array], what: str) -> Files:
    """The files of two folders that have the same name but for the ending; ValueError for an image without its target."""
    found = {p.stem: p for p in sorted(targets.iterdir()) if p.suffix.lower() in IMAGES}
    listed = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGES)
    if not listed:
        raise ValueError(f"{shown(str(images))} holds no images; put them there, or give another folder")
    for p in listed:
        if p.stem not in found:
            raise ValueError(f"{shown(str(p))} has no {what} {shown(p.stem)}.png in {shown(str(targets))}; add it, or take the image away")
    return Files(tuple(listed), tuple(found[p.stem] for p in listed), read)


def listed_in(path: Path) -> list[str]:
    """The names in a list of VOC's ImageSets: the first word of each line that is not marked -1."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{shown(str(path))} cannot be read as a list of names ({error}); give a text file, a name a line") from None
    names = [words[0] for words in lines if words and words[1:] != ["-1"]]
    if bad := [n for n in names if Path(n).name != n]:
        raise ValueError(f"{shown(str(path))} names {shown(bad[0])!r}, which is no plain name; leave folders and endings out")
    return names


def read_picture(path: Path) -> Array:
    """An image -> (H, W, C) raw values; ValueError names the file."""
    try:
        return read_image(path)
    except Unreadable as error:
        raise ValueError(f"{shown(str(path))} cannot be read as an image: {error}; replace it, or take it and its target away") from None


def read_mask(path: Path) -> Array:
    """A mask -> (H, W) uint8 or int32 class numbers, palette indices included; ValueError for a colour picture or a damaged file."""
    image = _opened(path)
    if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
        raise ValueError(f"the mask {shown(str(path))} is a picture of mode {image.mode}; give class numbers, as 8-bit grey or palette")
    array = np.array(image)
    return array.astype(np.uint8) if array.dtype in (np.bool_, np.uint8) else array.astype(np.int32)


def read_depth(path: Path, units: float) -> Array:
    """A 16-bit depth map -> (H, W) float32 metres, 0 where nothing was measured (raw 0 and 65535); `units` are one metre."""
    image = _opened(path)
    if not image.mode.startswith("I"):
        raise ValueError(f"the depth map {shown(str(path))} is a picture of mode {image.mode}; give 16-bit grey PNG")
    raw = np.array(image).astype(np.float32)
    raw[(raw >= 65535) | (raw < 0)] = 0
    metres: NDArray[np.float32] = raw / np.float32(units)
    return metres


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            return image
    except Exception as error:  # Pillow's plug-ins raise nearly every type of exception on damaged bytes
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise ValueError(f"{shown(str(path))} cannot be read ({reason}); give a PNG, or take it and its image away") from None


def sample(pictures: Pictures, index: int, input: Input) -> tuple[Tensor, Tensor]:
    """-> (C, H, W) float32 in [0, 1] with the encoder's channels, and the (H, W) target; ValueError if their sizes differ."""
    image, target = pictures.image(index), pictures.target(index)
    if image.shape[:2] != target.shape:
        sizes = f"{image.shape[1]} x {image.shape[0]} and {target.shape[1]} x {target.shape[0]}"
        raise ValueError(f"image {index} and its target differ in size ({sizes} px); give pairs of the same size")
    return scaled(image, input), torch.from_numpy(target.copy())


def scaled(image: Array, input: Input) -> Tensor:
    """(H, W, C') raw values -> (C, H, W) float32 in [0, 1] with the encoder's channels: grey repeated, RGB as luma."""
    x = torch.from_numpy(np.ascontiguousarray(image).astype(np.float32)).movedim(-1, 0)
    if image.dtype == np.uint16 and (input.low, input.high) == (0, 255):
        x = x / 257
    if x.shape[0] == 1:
        x = x.expand(input.channels, -1, -1)
    elif x.shape[0] == 3 and input.channels == 1:
        x = (x * x.new_tensor(_LUMA).view(3, 1, 1)).sum(0, keepdim=True)
    if x.shape[0] != input.channels:
        raise ValueError(f"an image has {x.shape[0]} channels and the encoder takes {input.channels}; give an encoder for such images")
    return input.scale(x)
