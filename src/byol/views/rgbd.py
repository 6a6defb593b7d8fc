"""Views of RGB-D frames: the frame itself, and another one of its sequence some frames away; nothing else is changed, as in BYOC.

Which one that is, is a pure function of (seed, epoch, view, frame).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import rng
from byol.encoders import Input, squeezed
from byol.views.changes import Change, Take, arranged
from byol.views.partners import Column, Partners
from byol.views.words import who

POINTS: Final = 3  # last channels of a frame, which are never blended: x, y, z


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What one view is of."""

    apart: tuple[int, int] = (20, 20)  # frames to the one that is seen, either way; 0, 0: the frame itself, which the first view is

    def __post_init__(self) -> None:
        low, high = self.apart
        if self.apart != (0, 0) and not 1 <= low <= high:
            raise ValueError(f"apart {low}, {high} is no distance in frames; give two numbers from 1 up, the least first, or 0,0 for none")


SAME: Final[Mapping[str, Change]] = {"apart": (0, 0)}  # a mild view: the frame itself
_PLANS: Final = {"frames": (Pipeline(), Pipeline())}


def names() -> list[str]:
    """The plans that `load` knows."""
    return list(_PLANS)


def load(name: str, groups: Column, times: Column, *, size: int, takes: Sequence[Take] | None = None, **changes: Change) -> RgbdViews:
    """The named plan for frames with (N,) sequences and numbers, `size` pixels wide; `takes` and `changes` as in `byol.views.load`.

    The first view is always the frame itself. ValueError where no two frames are as far apart as is asked for.
    """
    if name not in _PLANS:
        raise ValueError(f"frames have no views {name!r}; there are {', '.join(names())}")
    if "view1.apart" in changes:
        raise ValueError("view1.apart: the first view is the frame itself; leave it out, or give apart for the others")
    first, *others = arranged(name, _PLANS[name], takes, SAME, changes)
    pipelines = (replace(first, apart=(0, 0)), *others)
    found = {apart: Partners.of(groups, times, *apart) for apart in {p.apart for p in pipelines} - {(0, 0)}}
    for (low, high), partners in found.items():
        if not partners.has.any():
            how = f"{low}" if low == high else f"{low} to {high}"
            raise ValueError(
                f"no two frames of a sequence are {how} apart; give --set apart=LEAST,MOST with smaller numbers, or more frames"
            )
    return RgbdViews(name, size, pipelines, tuple(found.get(p.apart) for p in pipelines))


@dataclass(frozen=True, eq=False)
class RgbdViews:
    """As many views of a frame as pipelines; a plan for memory, and for the host, as `byol.views` says."""

    name: str
    size: int  # pixels, height and width of a view
    pipelines: tuple[Pipeline, ...]
    others: tuple[Partners | None, ...]  # whom each view is of; None: the frame itself
    compiled: bool = False

    def partners(self, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B,) frames -> (V, B): the frames that their views are of; one without any partner stands for it itself."""
        drawn = [rng.uniforms(seed, epoch, rng.STREAM_VIEWS + view, ids, 1)[:, 0] for view in range(len(self.pipelines))]
        return torch.stack([ids if other is None else other.draw(ids, u) for other, u in zip(self.others, drawn, strict=True)])

    def from_memory(self, samples: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """(N, 6, H, W) frames on any device, (B,) ids on the CPU -> views (B, 6, S, S), float32, normalised."""
        seen = self.partners(ids, seed, epoch).to(samples.device, non_blocking=True)
        return tuple(input.normalise(input.scale(squeezed(samples[of], self.size, POINTS))) for of in seen)

    def boxes(self, sizes: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B, 2) heights and widths -> (B, V, 4): nothing is cut off."""
        whole = torch.cat([torch.zeros_like(sizes), sizes], 1)
        return whole[:, None].expand(-1, len(self.pipelines), -1)

    def shrinks(self, boxes: Tensor) -> list[int]:
        """Frames are read at the one size that there is."""
        return [1] * len(boxes)

    def cut(self, image: NDArray[np.generic], boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(H, W, 6), (V, 4) -> (V, 6, S, S): the whole frame, squeezed."""
        x = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0)))[None]
        return squeezed(x, self.size, POINTS).expand(len(boxes), -1, -1, -1)

    def device(self, crops: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """(V, B, 6, S, S) raw on any device -> V views (B, 6, S, S), float32, normalised."""
        return tuple(input.normalise(input.scale(view)) for view in crops)

    def describe(self) -> list[str]:
        """One header, and what each view is of."""
        said = [_said(p) for p in self.pipelines]
        count = f"{len(said)} view{'s' * (len(said) != 1)}"
        header = f"{self.name}: {count} of {self.size}x{self.size} px; nothing is cropped, and points stay where they are"
        return [
            header,
            *([f"{who(len(said))}: {said[0]}"] if len(set(said)) == 1 else [f"view {n}: {text}" for n, text in enumerate(said, 1)]),
        ]


def _said(p: Pipeline) -> str:
    low, high = p.apart
    if not high:
        return "the frame itself"
    return f"the frame {low if low == high else f'{low} to {high}'} before or after it in its sequence"
