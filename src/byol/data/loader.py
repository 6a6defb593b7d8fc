"""Batches as a pure function of the step: which samples, and their random crops; nothing to save, the same for any workers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from byol import rng
from byol.data.patience import Waited
from byol.data.source import Order, Pixels, Skipped, Source, Unreadable


class Plan(Protocol):
    """The part of a view plan that runs on the host."""

    def boxes(self, sizes: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B, 2) heights and widths, (B,) ids -> (B, V, 4) top, left, height, width of every crop."""
        ...

    def shrinks(self, boxes: Tensor) -> list[int]:
        """(B, V, 4) -> how much smaller each image may be decoded: 1, 2, 4 or 8."""
        ...

    def cut(self, image: Pixels, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(H, W, C), (V, 4) boxes, the height and width that they are meant for -> (W, C, S, S), W = V unless small views share some."""
        ...


@runtime_checkable
class PairPlan(Plan, Protocol):
    """One whose views may each be of another sample than the one that is asked for."""

    def partners(self, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """(B,) ids -> (V, B) int64: the samples that the views are of."""
        ...


class HostBatch(NamedTuple):
    """One step's share of the host."""

    ids: Tensor  # (B,) int64, the samples that the crops are of, or are the partners of
    crops: Tensor  # (W, B, C, S, S) raw values, as the plan cuts them
    bad: list[Skipped]  # samples of this batch that could not be read; another took the place of each
    waited: list[Waited]  # samples that had to be waited for, and came


@dataclass
class _Row:
    """One sample of a batch on its way."""

    id: int
    bad: dict[str, str]  # what could not be read in its place: {name: reason}
    image: Pixels | None  # until it is cropped
    crops: Tensor | None = None  # (W, C, S, S)


Each = Callable[[Callable[..., _Row], Iterable[object]], Iterable[_Row]]


def steps_per_epoch(n: int, batch: int) -> int:
    """Whole batches in one pass over n samples; the last partial one is dropped."""
    if batch < 1:
        raise ValueError(f"a batch of {batch} images is empty; give 1 or more")
    if n < batch:
        raise ValueError(f"{n:,} images are fewer than one batch of {batch:,}; pass --batch-size {n} or fewer")
    return n // batch


def ids_at(step: int, *, n: int, batch: int, seed: int, order: Order | None = None) -> Tensor:
    """The samples of a step, (B,) int64, as a function of (seed, step) alone; each epoch is a new order of all n.

    `order` is that of a source which has one of its own.
    """
    epoch, place = divmod(step, steps_per_epoch(n, batch))
    positions = torch.arange(place * batch, (place + 1) * batch)
    return rng.permuted(seed, epoch, n, positions) if order is None else order.ids(seed, epoch, positions, batch)


class HostBatches(Dataset[HostBatch]):
    """step -> HostBatch, for `DataLoader(batches, batch_size=None, sampler=range(start, stop), num_workers=w)`.

    Reads with as many processes as the loader has; what comes out depends on the data, the seed and the step, never on them.
    """

    def __init__(self, source: Source, plan: Plan, *, n: int, batch: int, seed: int, share: slice = slice(None)) -> None:
        if n > len(source):
            raise ValueError(f"{source.spec} has {len(source):,} images, not {n:,}")
        self.source, self.plan, self.n, self.batch, self.seed = source, plan, n, batch, seed
        self.share = share  # the part of every batch that is read here, where several processes train
        self.steps_per_epoch = steps_per_epoch(n, batch)
        self.order = source.order if source.order is None or n == len(source) else source.order.take(np.arange(n))

    def __getitem__(self, step: int) -> HostBatch:
        return self.read(step)

    def read(self, step: int, each: Each = map) -> HostBatch:
        """The batch of a step; `each` calls a function for every row, as `map` does or as the map of a pool of threads."""
        wanted, epoch = self._ids(step), step // self.steps_per_epoch
        self._announce(step, wanted)
        if isinstance(self.plan, PairPlan):
            return self._of_partners(self.plan, wanted, epoch, each)
        sizes = self._sizes(wanted)
        boxes = self.plan.boxes(sizes, wanted, self.seed, epoch)
        jobs = zip(wanted.tolist(), sizes.tolist(), boxes, self.plan.shrinks(boxes), strict=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata, once per file and epoch
            rows = list(each(self._row, jobs))
        self._cut_late(rows, epoch)
        ids = torch.tensor([row.id for row in rows], dtype=torch.int64)
        crops = torch.stack([row.crops for row in rows if row.crops is not None], 1)
        return self._batch(ids, crops, rows)

    def _batch(self, ids: Tensor, crops: Tensor, rows: Iterable[_Row]) -> HostBatch:
        bad = {name: reason for row in rows for name, reason in row.bad.items()}
        return HostBatch(ids, crops, [Skipped(name, reason) for name, reason in bad.items()], self.source.waited())

    def _of_partners(self, plan: PairPlan, wanted: Tensor, epoch: int, each: Each) -> HostBatch:
        """Views of which each is of its own sample; what is in several of them is decoded once, at its full size."""
        partners = plan.partners(wanted, self.seed, epoch)
        needed = sorted(set(partners.flatten().tolist()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read = dict(zip(needed, each(self._readable, needed), strict=True))
        ids = torch.tensor([read[i].id if i in read else i for i in wanted.tolist()])
        crops = []
        for view, of in enumerate(partners.tolist()):
            images = [image for i in of if (image := read[i].image) is not None]
            boxes = plan.boxes(torch.tensor([image.shape[:2] for image in images]), ids, self.seed, epoch)[:, view : view + 1]
            crops.append(torch.cat([plan.cut(image, box, image.shape[:2]) for image, box in zip(images, boxes, strict=True)]))
        return self._batch(ids, torch.stack(crops), read.values())

    def _ids(self, step: int) -> Tensor:
        return ids_at(step, n=self.n, batch=self.batch, seed=self.seed, order=self.order)[self.share]

    def _announce(self, step: int, wanted: Tensor) -> None:
        """Tells a source that fetches from afar what is read now, and what comes a while later."""
        if self.order is None:
            return
        ahead, worker = -(-self.order.span() // self.batch), get_worker_info()
        # Of the steps that follow, each worker sees only its own.
        self.order.expect(wanted.numpy(), self._ids(step + ahead).numpy(), worker.num_workers if worker else 1)

    def _row(self, job: tuple[int, list[int], Tensor, int]) -> _Row:
        """One sample, cropped if it is what its header says."""
        wanted, (height, width), boxes, shrink = job
        row = self._readable(wanted, shrink)
        if row.id == wanted and row.image is not None and row.image.shape[:2] == (-(-height // shrink), -(-width // shrink)):
            row.crops, row.image = self.plan.cut(row.image, boxes, (height, width)), None
        return row

    def _cut_late(self, rows: list[_Row], epoch: int) -> None:
        """Crops of the samples that are not what their header says: no JPEG, exchanged since, or in the place of another."""
        late = [row for row in rows if row.image is not None]
        if not late:
            return
        sizes = [row.image.shape[:2] for row in late if row.image is not None]
        boxes = self.plan.boxes(torch.tensor(sizes), torch.tensor([row.id for row in late]), self.seed, epoch)
        for row, size, cut in zip(late, sizes, boxes, strict=True):
            assert row.image is not None
            row.crops, row.image = self.plan.cut(row.image, cut, (size[0], size[1])), None

    def _sizes(self, ids: Tensor) -> Tensor:
        """(B,) -> (B, 2) heights and widths as the headers have them; zeros where nothing is known."""
        headers = self.source.headers
        if not len(headers):
            return torch.zeros(len(ids), 2, dtype=torch.int64)
        rows = ids.numpy()
        return torch.from_numpy(np.stack([headers.height[rows], headers.width[rows]], 1).astype(np.int64))

    def _readable(self, index: int, shrink: int = 1) -> _Row:
        """The sample, or the next one that can be read: a damaged file must not end a run, nor make a batch smaller."""
        i, image, bad = first_readable(self.source, self.n, index, lambda i: self.source.read(i, shrink if i == index else 1))
        return _Row(i, bad, image)


def first_readable(source: Source, n: int, index: int, read: Callable[[int], Pixels]) -> tuple[int, Pixels, dict[str, str]]:
    """What `read` makes of sample `index`, or of the next of the first n that can be read; which it is; {name: reason} of the others."""
    bad: dict[str, str] = {}
    place = 0
    while place < n:
        i = (index + place) % n
        try:
            return i, read(i), bad
        except Unreadable as error:
            bad[error.name or source.names[i]] = str(error)
            place += error.also  # a shard that is gone takes all of its samples with it
    first = next(iter(bad.values()))
    raise ValueError(
        f"none of the {n:,} {source.words.many} of {source.spec} can be decoded any more (first: {first}); "
        "a run goes on with `byol resume` once they are back"
    )
