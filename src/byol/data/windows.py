"""The order of samples that lie in shards far away: exact and stateless as any other, but only a few shards at a time.

The shards of an epoch are permuted and cut into windows of S shards. A window's samples take as many positions of the epoch as they
are, in an order that depends on (seed, epoch, batch size) alone. It has S lanes: row r of a batch of B belongs to lane r S // B, and
each lane has its own stretch of the window's samples, in random order. A stretch is as long as the lane has rows in the window, which
makes it a shard, nearly: with a few samples of a neighbour where shards differ in size or batches do not fit. So

* every sample comes exactly once an epoch, and every batch draws from all S shards of its window, the same number from each;
* the process that takes the rows r0 .. r1 of every batch needs (r1 - r0) / B of the shards, not all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np

from byol.data.source import Ids

if TYPE_CHECKING:
    from torch import Tensor

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_KEPT: Final = 3  # windows in memory, 8 bytes a sample: the one being read, the next, and one more where a batch is in two


class _Plan(NamedTuple):
    shards: list[Ids]  # of each window of the epoch
    edges: Ids  # (W + 1,) the position where each window begins


class _Window(NamedTuple):
    start: int  # its first position in the epoch
    lanes: Ids  # (S + 1,) where each lane begins in `ids`
    ids: Ids  # lane by lane, each in random order


@dataclass(eq=False)
class Windows:
    """position -> sample, for samples that are numbered shard by shard."""

    starts: Ids  # (K + 1,) the first sample of each shard; an entry more, the number of samples
    size: int  # S, shards of a window at most
    _plans: dict[tuple[int, int], _Plan] = field(default_factory=dict, repr=False)
    _windows: dict[tuple[int, int, int, int], _Window] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {"starts": self.starts, "size": self.size, "_plans": {}, "_windows": {}}

    def span(self) -> int:
        """Samples of the largest window there can be."""
        return int(np.sort(np.diff(self.starts))[-self.size :].sum())

    def ids(self, seed: int, epoch: int, positions: Tensor, batch: int) -> Tensor:
        """(B,) positions in the epoch -> (B,) int64 samples there."""
        import torch

        at = positions.numpy()
        plan = _keep(self._plans, (seed, epoch), lambda: self._plan(seed, epoch))
        of = np.searchsorted(plan.edges, at, "right") - 1
        out = np.empty(len(at), np.int64)
        for number in np.unique(of).tolist():
            rows = of == number
            window = _keep(self._windows, (seed, epoch, batch, number), partial(self._window, seed, epoch, batch, plan, number))
            lane = at[rows] % batch * self.size // batch
            turn = self._turns(lane, at[rows], batch) - self._turns(lane, np.int64(window.start), batch)
            out[rows] = window.ids[window.lanes[lane] + turn]
        return torch.from_numpy(out)

    def _plan(self, seed: int, epoch: int) -> _Plan:
        import torch

        from byol import rng

        count = len(self.starts) - 1
        order = rng.permuted(seed, epoch, count, torch.arange(count)).numpy()
        # As equal as possible: a last window of one shard would be no shuffle.
        windows = np.array_split(order, -(-count // self.size))
        sizes = np.diff(self.starts)
        return _Plan(windows, np.concatenate([[0], np.cumsum([sizes[w].sum() for w in windows])]))

    def _turns(self, lane: Ids, position: Ids | np.int64, batch: int) -> Ids:
        """How many of the positions before this one belong to the lane."""
        first, end = -(-lane * batch // self.size), -(-(lane + 1) * batch // self.size)
        found: Ids = position // batch * (end - first) + np.clip(position % batch - first, 0, end - first)
        return found

    def _window(self, seed: int, epoch: int, batch: int, plan: _Plan, number: int) -> _Window:
        import torch

        from byol import rng

        start, stop = plan.edges[number : number + 2]
        lanes = np.arange(self.size)
        counts = self._turns(lanes, stop, batch) - self._turns(lanes, start, batch)
        ids = np.concatenate([np.arange(self.starts[s], self.starts[s + 1]) for s in plan.shards[number]])
        words = rng.words(seed, epoch, rng.STREAM_SHARDS, torch.from_numpy(ids), 2).numpy()
        shuffled = np.lexsort((words[:, 1], words[:, 0], np.repeat(lanes, counts)))
        return _Window(int(start), np.concatenate([[0], np.cumsum(counts)]), ids[shuffled])


def _keep(kept: dict[_Key, _Value], key: _Key, make: Callable[[], _Value]) -> _Value:
    """The value of the key, made if it is not kept; the oldest of a few makes room."""
    found = kept.get(key)
    if found is None:
        found = kept[key] = make()
        while len(kept) > _KEPT:
            kept.pop(next(iter(kept)), None)
    return found
