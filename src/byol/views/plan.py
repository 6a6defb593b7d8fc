"""A view plan: what the networks see of every image, from its pixels to the normalised views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol.encoders import Input
from byol.views import boxes, chain, crop, draws, operations
from byol.views.blur import Border, radius
from byol.views.boxes import rescaled
from byol.views.ops import GRAY_WEIGHTS
from byol.views.palette import Color, Dialect, palette
from byol.views.pipeline import Pipeline
from byol.views.words import describe

Last = Callable[[Tensor, Tensor], Tensor]
# Values that one thread works on at a time: their intermediate results stay in its cache.
_CACHE_FLOATS = 1 << 20
_MANY = 32  # samples


class Place(NamedTuple):
    """Where the crop of a view lies among those that the host hands on."""

    sheet: int
    rows: slice
    columns: slice


@dataclass(frozen=True, kw_only=True)
class ViewPlan:
    """As many views as pipelines; every number drawn is a pure function of (seed, epoch, view, sample id).

    The crops of a sample are handed on as W sheets of S x S pixels: one for each view of that size, while smaller views share some.
    """

    name: str
    dialect: Dialect
    size: int  # pixels, height and width of a view whose pipeline says no other
    channels: int
    color: Color
    pipelines: tuple[Pipeline, ...]
    compiled: bool = False  # on a CPU by numba (compiled.py), the same to 1e-5; needs the extra

    def __post_init__(self) -> None:
        if not self.pipelines:
            raise ValueError(f"the view plan {self.name} holds no pipeline; give at least one")
        if self.size < 1 or self.channels < 1:
            raise ValueError(f"views of {self.size} px and {self.channels} channels do not exist; give a size and channels from 1 up")
        if self.color == "rgb" and self.channels != 3:
            raise ValueError(f"colour ops for rgb need 3 channels, not {self.channels}; give color='channels'")
        if any(p.apart != (0, 0) for p in self.pipelines):
            raise ValueError(f"the views {self.name} are of one sample each, so apart is not for them; give --set views=visits too")
        for side, taps in zip(self.sides, map(self.taps, self.pipelines), strict=True):
            if side > self.size:
                raise ValueError(f"a view of {side} px is larger than the {self.size} px of the views {self.name}; give pixels={self.size}")
            if taps // 2 >= side:
                raise ValueError(f"a blur of {taps} taps is too wide for {side} px; give a kernel below {2 * side}")

    @property
    def sides(self) -> list[int]:
        """The height and width of each view in pixels."""
        return [p.pixels or self.size for p in self.pipelines]

    @cached_property
    def places(self) -> list[Place]:
        """Where the crop of each view lies."""
        found: list[Place] = []
        free: dict[int, list[Place]] = {}  # what is left of the last sheet of views of a size
        sheets = 0
        for side in self.sides:
            if not free.get(side):
                cells = [slice(start, start + side) for start in range(0, self.size - side + 1, side)]
                free[side] = [Place(sheets, rows, columns) for rows in cells for columns in cells]
                sheets += 1
            found.append(free[side].pop(0))
        return found

    def taps(self, pipeline: Pipeline) -> int:
        """Width of the pipeline's blur kernel in pixels: its own, or the released code's rule for this size."""
        return 2 * radius(pipeline.pixels or self.size) + 1 if pipeline.kernel is None else pipeline.kernel

    def boxes(self, sizes: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B, 2) heights and widths, (B,) ids -> (B, V, 4) top, left, height, width of every crop in pixels."""
        return torch.stack(self._boxes(ids, seed, epoch, sizes[:, 0], sizes[:, 1]), 1)

    def shrinks(self, boxes: Tensor) -> list[int]:
        """(B, V, 4) boxes -> 1, 2, 4 or 8: at 1/shrink of its size the crops of an image are still not enlarged."""
        spare = (boxes[:, :, 2:].amin(2) // torch.tensor(self.sides)).amin(1)
        return [max((s for s in (2, 4, 8) if s <= most), default=1) for most in spare.tolist()]

    def cut(self, image: NDArray[np.generic], boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """One decoded image (H, W, C), its (V, 4) boxes -> (W, C, S, S) crops: uint8 of uint8, else raw float32.

        `size` is the height and width that the boxes are meant for. Where the image was decoded smaller (see `shrinks`), boxes are
        rounded to the pixels that there are, which moves a crop by at most half a pixel of its own.
        """
        cut = zip(rescaled(boxes, size, image.shape).tolist(), self.sides, strict=True)
        return self._sheets([crop.resize_one(image, b, side) for b, side in cut])

    def host(self, images: Sequence[NDArray[np.generic]], ids: Tensor, seed: int, epoch: int) -> Tensor:
        """Decoded (H, W, C) images of any size and one type, (B,) ids -> (W, B, C, S, S) crops: uint8 of uint8, else raw float32."""
        self._check(len(images), images[0].shape[2], ids)
        sizes = torch.tensor([image.shape[:2] for image in images])
        cut = self.boxes(sizes, ids, seed, epoch)
        return torch.stack([self.cut(image, b, image.shape[:2]) for image, b in zip(images, cut, strict=True)], 1)

    def crop(self, x: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B, C, H, W) raw values on any device, (B,) ids -> (W, B, C, S, S) raw float32: the host's boxes, cut in batches."""
        self._check(len(x), x.shape[1], ids)
        height, width = (torch.full((len(x),), side) for side in x.shape[2:])
        views = self._empty(x)
        for view, cut, side in zip(views, self._boxes(ids, seed, epoch, height, width), self.sides, strict=True):
            for part in _parts(x, max(x[0].numel(), view[0].numel())):
                view[part] = crop.resize_batch(x[part], cut[part], side)
        return self._sheets(views)

    def memory(self, x: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """(B, C, H, W) raw values on any device, (B,) ids -> V views (B, C, S, S), float32, normalised: `crop` and then `device`.

        In one go a part of the batch at a time, so that on a CPU the crops are still in its cache when they are changed.
        """
        self._check(len(x), x.shape[1], ids)
        views = self._empty(x)
        height, width = (torch.full((len(x),), side) for side in x.shape[2:])
        with torch.inference_mode():
            for number, view in enumerate(views):
                u = draws.for_view(seed, epoch, number, ids, self._drawn(), self._more(number))
                cut = self._cut(number, u, height, width)
                if self._by_numba(x, cut, number, u, input, view):
                    continue
                for part in _parts(x, max(x[0].numel(), view[0].numel())):
                    raw = crop.resize_batch(x[part], cut[part], self.sides[number])
                    changed = chain.augment(input.scale(raw), u[part], self._rounds(number, u[part], x.device))
                    input.normalise(changed, view[part])
        return tuple(views)

    def from_memory(self, samples: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """(N, C, H, W) raw values of all images, (B,) ids on the CPU -> V views of these, as `memory` makes them."""
        return self.memory(samples[ids.to(samples.device)], ids, seed, epoch, input)

    def images(self, crops: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> Tensor:
        """(W, B, C, S, S) raw crops, (B,) ids -> (V, B, C, S, S) float32 in [0, 1]: the views as a person would look at them, enlarged."""
        made = self._views(crops, ids, seed, epoch, input, lambda x, out: out.copy_(x))
        return torch.stack([v if v.shape[-1] == self.size else torch.nn.functional.interpolate(v, self.size) for v in made])

    def device(self, crops: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """(W, B, C, S, S) raw crops on any device, (B,) ids -> V views (B, C, S, S), float32, normalised.

        Give `ids` as the loader does, on the CPU: then no step waits for the device. Call it outside autocast, whose half precision
        would reach the blur's products.
        """
        return tuple(self._views(crops, ids, seed, epoch, input, None))

    def describe(self) -> list[str]:
        """What each view does, in words, at most 80 columns a line."""
        return describe(self)

    def _views(self, crops: Tensor, ids: Tensor, seed: int, epoch: int, input: Input, last: Last | None) -> list[Tensor]:
        """The ops of every view, a part of the batch at a time, and what is done to their results: none, they are normalised."""
        sheets = 1 + max(place.sheet for place in self.places)
        if len(crops) != sheets:
            raise ValueError(f"the view plan {self.name} makes {sheets} views; the crops hold {len(crops)}")
        self._check(crops.shape[1], crops.shape[2], ids)
        raws = [crops[place.sheet, ..., place.rows, place.columns] for place in self.places]
        views = [torch.empty(raw.shape, device=raw.device) for raw in raws]
        # The views themselves are ordinary tensors: networks that learn cannot take those made in this mode, whose calls cost less.
        with torch.inference_mode():
            for number, raw in enumerate(raws):
                whole = torch.tensor([0, 0, *raw.shape[2:]]).expand(len(ids), 4)
                u = draws.for_device(seed, epoch, number, ids, self._drawn(), self._more(number))
                if last is None and self._by_numba(raw, whole, number, u, input, views[number]):
                    continue
                for part in _parts(raw, raw[0].numel()):
                    x = chain.augment(input.scale(raw[part]), u[part], self._rounds(number, u[part], raw.device))
                    (last or input.normalise)(x, views[number][part])
        return views

    def _by_numba(self, x: Tensor, cut: Tensor, view: int, u: Tensor, input: Input, out: Tensor) -> bool:
        """Whether `out` holds the view now: where the plan is compiled, and these images are what it can read."""
        # The compiled loop checks no bounds: crops of another size are for the torch version to judge.
        if not self.compiled or self.pipelines[view].operations or x.device.type != "cpu" or out.shape[2:] != (self.sides[view],) * 2:
            return False
        from byol.views import compiled  # imports numba, which takes most of a second

        if not compiled.supports(x):
            return False
        gray = GRAY_WEIGHTS if self.color == "rgb" else (1 / self.channels,) * self.channels
        compiled.views(x, cut, compiled.program(self._rounds(view, u, x.device), u, gray), input, out)
        return True

    def _rounds(self, view: int, u: Tensor, device: torch.device) -> list[chain.Round]:
        p = self.pipelines[view]
        border: Border = "zero" if self.dialect == "paper" else "reflect"
        colours = palette(self.dialect, self.color, self.channels, p)
        return chain.rounds_of(p, colours, self.taps(p), border, u, by_reach=device.type == "cpu")

    def _empty(self, x: Tensor) -> list[Tensor]:
        """Room for the V views of (B, C, H, W) images."""
        return [torch.empty(len(x), self.channels, side, side, device=x.device) for side in self.sides]

    def _sheets(self, crops: list[Tensor]) -> Tensor:
        """V crops (..., s, s) -> (W, ..., S, S)."""
        if all(cut.shape[-1] == self.size for cut in crops):
            return torch.stack(crops)
        sheets = crops[0].new_zeros(1 + max(place.sheet for place in self.places), *crops[0].shape[:-2], self.size, self.size)
        for cut, place in zip(crops, self.places, strict=True):
            sheets[place.sheet, ..., place.rows, place.columns] = cut
        return sheets

    def _drawn(self) -> int | None:
        """The channels that draw numbers of their own."""
        return self.channels if self.color == "channels" else None

    def _more(self, view: int) -> int:
        """The columns of the operations of a view."""
        return operations.COLUMNS * self.pipelines[view].operations

    def _boxes(self, ids: Tensor, seed: int, epoch: int, height: Tensor, width: Tensor) -> list[Tensor]:
        """(B,) ids and sides -> for each view (B, 4) boxes."""
        return [self._cut(v, draws.for_crop(seed, epoch, v, ids), height, width) for v in range(len(self.pipelines))]

    def _cut(self, view: int, u: Tensor, height: Tensor, width: Tensor) -> Tensor:
        return (boxes.clamped if self.dialect == "paper" else boxes.redrawn)(u, height, width, self.pipelines[view])

    def _check(self, batch: int, channels: int, ids: Tensor) -> None:
        if channels != self.channels:
            raise ValueError(f"the view plan {self.name} is made for {self.channels} channels; these images have {channels}")
        if len(ids) != batch:
            raise ValueError(f"{batch} images came with {len(ids)} ids; give one id for each image")


def _parts(x: Tensor, floats: int) -> list[slice]:
    """Slices of the batch: elsewhere than on a CPU all at once.

    On a CPU as many samples of `floats` values as its threads' caches hold, if these are enough for the calls to cost little beside
    the work; otherwise one at a time, which never has to be sorted.
    """
    most = _CACHE_FLOATS * torch.get_num_threads() // floats if x.device.type == "cpu" else len(x)
    step = -(-len(x) // -(-len(x) // most)) if most >= _MANY else 1
    return [slice(start, start + step) for start in range(0, len(x), step)]
