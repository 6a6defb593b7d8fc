"""What training needs of a plan of views, whatever the samples are: an image plan and a recording's are two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from byol.encoders import Input

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Plan(Protocol):
    """What is known of every plan: as many views as pipelines; every number drawn is a pure function of (seed, epoch, view, sample id)."""

    @property
    def pipelines(self) -> Sequence[DataclassInstance]:
        """A frozen dataclass for each view, its numbers."""
        ...

    @property
    def compiled(self) -> bool:
        """Whether numba makes the views: they are the same to 1e-5, and not bit for bit."""
        ...

    def describe(self) -> list[str]:
        """What each view does, in words, at most 80 columns a line."""
        ...


@runtime_checkable
class MemoryPlan(Plan, Protocol):
    """One for samples that are all in memory."""

    def from_memory(self, samples: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """All samples (N, C, H, W), raw, on any device; (B,) ids on the CPU -> V views (B, C, S, S) there, float32, normalised."""
        ...


@runtime_checkable
class HostPlan(Plan, Protocol):
    """One for samples that are read as they are needed: cut on the host, changed on the device.

    Its views are all of the sample that is asked for, unless it has `partners(ids, seed, epoch)`: (B,) -> (V, B), the samples that
    they are of (`byol.data.PairPlan`).
    """

    def boxes(self, sizes: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B, 2) heights and widths, (B,) ids -> (B, V, 4) top, left, height, width of every crop."""
        ...

    def shrinks(self, boxes: Tensor) -> list[int]:
        """(B, V, 4) -> how much smaller each sample may be decoded: 1, 2, 4 or 8."""
        ...

    def cut(self, image: NDArray[np.generic], boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(H, W, C), (V, 4) boxes, the height and width that they are meant for -> (W, C, S, S), W = V unless small views share some."""
        ...

    def device(self, crops: Tensor, ids: Tensor, seed: int, epoch: int, input: Input) -> tuple[Tensor, ...]:
        """(W, B, C, S, S) raw crops on any device, (B,) ids on the CPU -> V views (B, C, S, S), float32, normalised."""
        ...
