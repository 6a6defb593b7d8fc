"""Batches of sounds as a pure function of the step: which, and the window of each; of a clip nothing else is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from byol.data.loader import HostBatch, first_readable, ids_at, steps_per_epoch
from byol.data.source import Pixels, Skipped, Source


class Windows(Protocol):
    """The part of a view plan of sound that runs on the host."""

    samples: int  # of a window

    def windows(self, lengths: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B,) samples of each sound, (B,) ids -> (B,) where their windows begin."""
        ...


class _Row(NamedTuple):
    """One sound of a batch."""

    id: int
    wave: Pixels  # (1, samples, 1)
    bad: dict[str, str]  # what could not be read in its place: {name: reason}


Each = Callable[[Callable[..., _Row], Iterable[object]], Iterable[_Row]]


class WindowBatches(Dataset[HostBatch]):
    """step -> HostBatch with one window of each sound as its crops, (1, B, samples); otherwise as `HostBatches`."""

    def __init__(self, source: Source, plan: Windows, *, n: int, batch: int, seed: int, share: slice = slice(None)) -> None:
        self.source, self.plan, self.n, self.batch, self.seed = source, plan, n, batch, seed
        self.share = share  # the part of every batch that is read here, where several processes train
        self.steps_per_epoch = steps_per_epoch(n, batch)

    def __getitem__(self, step: int) -> HostBatch:
        return self.read(step)

    def read(self, step: int, each: Each = map) -> HostBatch:
        """The batch of a step; `each` calls a function for every row, as `map` does or as the map of a pool of threads."""
        wanted, epoch = ids_at(step, n=self.n, batch=self.batch, seed=self.seed)[self.share], step // self.steps_per_epoch
        rows = list(each(self._row, ((i, start, epoch) for i, start in zip(wanted.tolist(), self._starts(wanted, epoch), strict=True))))
        ids = torch.tensor([row.id for row in rows], dtype=torch.int64)
        waves = torch.from_numpy(np.stack([row.wave[0, :, 0] for row in rows]))
        bad = {name: reason for row in rows for name, reason in row.bad.items()}
        return HostBatch(ids, waves[None], [Skipped(name, reason) for name, reason in bad.items()], self.source.waited())

    def _row(self, job: tuple[int, int, int]) -> _Row:
        wanted, start, epoch = job

        def window(index: int) -> Pixels:
            # The window of a sound is its own, also where it takes the place of another.
            at = start if index == wanted else self._starts(torch.tensor([index]), epoch)[0]
            return self.source.window(index, at, self.plan.samples)

        return _Row(*first_readable(self.source, self.n, wanted, window))

    def _starts(self, ids: Tensor, epoch: int) -> list[int]:
        lengths = torch.from_numpy(self.source.headers.width[ids.numpy()].astype(np.int64))
        found: list[int] = self.plan.windows(lengths, ids, self.seed, epoch).tolist()
        return found
