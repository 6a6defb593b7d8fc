"""Batches as a pure function of the step: which samples, and their random crops; nothing to save, the same for any workers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from byol import rng
from byol.data.source import Pixels, Skipped, Source, Unreadable


class Plan(Protocol):
    """The part of a view plan that runs on the host."""

    def shrinks(self, sizes: Tensor, ids: Tensor, seed: int, epoch: int) -> list[int]:
        """(B, 2) heights and widths, (B,) ids -> how much smaller each image may be decoded: 1, 2, 4 or 8."""
        ...

    def host(self, images: Sequence[Pixels], ids: Tensor, seed: int, epoch: int, sizes: Tensor | None = None) -> Tensor:
        """B images (H, W, C), (B,) ids -> random crops (V, B, C, S, S); `sizes` (B, 2) where images came smaller than they are."""
        ...


class HostBatch(NamedTuple):
    """One step's share of the host."""

    ids: Tensor  # (B,) int64, the samples that are in the crops
    crops: Tensor  # (V, B, C, S, S) raw values
    bad: list[Skipped]  # samples of this batch that could not be read; another took the place of each


def steps_per_epoch(n: int, batch: int) -> int:
    """Whole batches in one pass over n samples; the last partial one is dropped."""
    if batch < 1:
        raise ValueError(f"a batch of {batch} images is empty; give 1 or more")
    if n < batch:
        raise ValueError(f"{n:,} images are fewer than one batch of {batch:,}; pass --batch-size {n} or fewer")
    return n // batch


def ids_at(step: int, *, n: int, batch: int, seed: int) -> Tensor:
    """The samples of a step, (B,) int64, as a function of (seed, step) alone; each epoch is a new order of all n."""
    epoch, place = divmod(step, steps_per_epoch(n, batch))
    return rng.permuted(seed, epoch, n, torch.arange(place * batch, (place + 1) * batch))


class HostBatches(Dataset[HostBatch]):
    """step -> HostBatch, for `DataLoader(batches, batch_size=None, sampler=range(start, stop), num_workers=w)`.

    Reads with as many processes as the loader has; what comes out depends on the data, the seed and the step, never on them.
    """

    def __init__(self, source: Source, plan: Plan, *, n: int, batch: int, seed: int) -> None:
        if n > len(source):
            raise ValueError(f"{source.spec} has {len(source):,} images, not {n:,}")
        self.source, self.plan, self.n, self.batch, self.seed = source, plan, n, batch, seed
        self.steps_per_epoch = steps_per_epoch(n, batch)

    def __getitem__(self, step: int) -> HostBatch:
        wanted, epoch = ids_at(step, n=self.n, batch=self.batch, seed=self.seed), step // self.steps_per_epoch
        sizes = self._sizes(wanted)
        shrinks = self.plan.shrinks(sizes, wanted, self.seed, epoch) if len(self.source.headers) else [1] * self.batch
        bad: dict[int, str] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, once per file and epoch
            read = [self._readable(int(i), shrink, bad) for i, shrink in zip(wanted, shrinks, strict=True)]
        ids = torch.tensor([i for i, _ in read], dtype=torch.int64)
        for row, ((i, image), shrink) in enumerate(zip(read, shrinks, strict=True)):
            # What is no JPEG, is not what its header says or stands for another image comes in its own size.
            if i != wanted[row] or image.shape[:2] != tuple(-(-side // shrink) for side in sizes[row].tolist()):
                sizes[row] = torch.tensor(image.shape[:2])
        crops = self.plan.host([image for _, image in read], ids, self.seed, epoch, sizes)
        return HostBatch(ids, crops, [Skipped(self.source.names[i], reason) for i, reason in bad.items()])

    def _sizes(self, ids: Tensor) -> Tensor:
        """(B,) -> (B, 2) heights and widths as the headers have them; zeros where nothing is known."""
        headers = self.source.headers
        if not len(headers):
            return torch.zeros(len(ids), 2, dtype=torch.int64)
        rows = ids.numpy()
        return torch.from_numpy(np.stack([headers.height[rows], headers.width[rows]], 1).astype(np.int64))

    def _readable(self, index: int, shrink: int, bad: dict[int, str]) -> tuple[int, Pixels]:
        """The sample, or the next one that can be read: a damaged file must not end a run, nor make a batch smaller."""
        for place in range(self.n):
            i = (index + place) % self.n
            try:
                return i, self.source.read(i, shrink if place == 0 else 1)
            except Unreadable as error:
                bad[i] = str(error)
        raise ValueError(f"none of the {self.n:,} images of {self.source.spec} can be decoded any more (first: {bad[index]})")
