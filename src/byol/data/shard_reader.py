"""Samples out of tar shards: read in place where the shards are local; from a copy, or one by one, where they lie elsewhere.

A sample of a remote shard comes from the local copy of the shard where there is one. Where there is none, it is asked for alone (a
range of bytes), so that a run begins at once. A shard of which this process reads an eighth or more is fetched whole in the background;
its samples wait from when that begins, so that a slow network carries nothing twice. A pass through a shard, in whichever order, costs one
transfer and about that eighth; where there is time to fetch it before its turn, one transfer.

What is in memory, a process: the places of all samples; of the samples that are announced, 256 MB at most; of each shard that
is on its way, and there are no more than 4, the few MB that its file system of fsspec takes at a time.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO, Final

import numpy as np

from byol.data import remote
from byol.data.compact import Integers, Names
from byol.data.remote import NoRanges, Remote
from byol.data.shard_cache import Cache
from byol.data.shard_index import MEMBER_LIMIT, read_at
from byol.data.source import Ids, Unreadable
from byol.data.windows import Windows

if TYPE_CHECKING:
    from torch import Tensor

SHARE: Final = 8  # a shard is fetched whole when one in so many of its samples is to be read
HELD: Final = 256 << 20  # bytes of announced samples in memory
_RANGES: Final = 16  # samples on their way at a time
_WHOLE: Final = 4  # shards on their way at a time
_LOST: Final = 60  # seconds until a shard that could not be read is tried again


@dataclass
class Shards:
    """The members of all shards, as blobs."""

    shards: tuple[Remote, ...]  # of local ones, the URL is the path
    titles: tuple[str, ...]  # what a person calls each shard
    names: Names
    starts: Integers = field(repr=False)  # (K + 1,) the first sample of each shard
    offset: Integers = field(repr=False)  # (N,) bytes
    size: Integers = field(repr=False)  # (N,) bytes
    cache: Cache | None = field(repr=False)  # None: the shards are local
    fetches: bool = True  # whole shards, too
    _fetcher: Fetcher | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_fetcher": None}

    def shard_of(self, ids: Ids) -> Ids:
        """(B,) samples -> (B,) the shard of each."""
        found: Ids = np.searchsorted(self.starts, ids, "right") - 1
        return found

    @property
    def folder(self) -> str:
        return self.cache.folder if self.cache is not None else os.path.dirname(self.shards[0].url) or "."

    def place(self, index: int) -> str:
        return self.shards[int(self.shard_of(np.array(index)))].url

    def open(self, index: int) -> tuple[BinaryIO, int]:
        return BytesIO(self.load(index)), int(self.size[index])

    def load(self, index: int) -> bytes:
        size, shard = int(self.size[index]), int(self.shard_of(np.array(index)))
        if size > MEMBER_LIMIT:
            raise Unreadable(f"holds {size:,} bytes")
        if self.cache is None:
            data = read_at(self.shards[shard].url, int(self.offset[index]), size)
        else:
            data = self.fetcher(self.cache).load(index, shard)
        if len(data) < size:
            raise Unreadable(f"truncated: {len(data):,} of {size:,} bytes")
        return data

    def fetcher(self, cache: Cache) -> Fetcher:
        """This process's own; threads do not live on in a process that is forked."""
        if self._fetcher is None or self._fetcher.process != os.getpid():
            self._fetcher = Fetcher(self, cache)
        return self._fetcher


class Fetcher:
    """What one process knows and does about shards that lie elsewhere."""

    def __init__(self, data: Shards, cache: Cache) -> None:
        self.data, self.cache, self.process = data, cache, os.getpid()
        self.coming: dict[int, Future[bytes]] = {}  # announced samples
        self.met: Counter[int] = Counter()  # samples to be read of each shard that is not here
        self.wanted: set[int] = set()  # shards that are to be fetched whole
        self.arriving: dict[int, threading.Event] = {}  # those of them that are on their way
        self.lost: dict[int, tuple[float, str]] = {}  # shard: when, why
        self.whole_only: set[int] = set()  # shards whose server gives no parts
        self.lock = threading.Lock()
        self.queue: SimpleQueue[int] = SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.pool = ThreadPoolExecutor(_RANGES)

    def load(self, index: int, shard: int) -> bytes:
        """The bytes of a sample; raises Unreadable."""
        coming = self.coming.pop(index, None)
        if coming is not None:
            return coming.result()
        self.meet({shard: 1})
        return self._load(index, shard)

    def _load(self, index: int, shard: int) -> bytes:
        there, offset, size = self.data.shards[shard], int(self.data.offset[index]), int(self.data.size[index])
        when, why = self.lost.get(shard, (-float("inf"), ""))
        if time.monotonic() - when < _LOST:
            raise self._lost(index, shard, why)
        try:
            return self._read(there, shard, offset, size)
        except Unreadable as error:
            self.lost[shard] = time.monotonic(), str(error)
            raise self._lost(index, shard, str(error)) from error

    def _read(self, there: Remote, shard: int, offset: int, size: int) -> bytes:
        copy = self.cache.get(there)
        if copy is None and (arriving := self.arriving.get(shard)) is not None:
            arriving.wait()
            copy = self.cache.get(there)
        if copy is None and there.ranges and shard not in self.whole_only:
            try:
                return remote.read(there, offset, size)
            except NoRanges:
                self.whole_only.add(shard)
        while True:
            try:
                return read_at(copy or self.cache.fetch(there), offset, size)
            except FileNotFoundError:  # another process made room in the moment between
                copy = None

    def _lost(self, index: int, shard: int, why: str) -> Unreadable:
        lost = Unreadable(why)
        lost.name, lost.also = self.data.titles[shard], int(self.data.starts[shard + 1]) - index
        return lost

    def expect(self, now: Ids, later: Ids, share: int) -> None:
        """Begins to read the samples of `now`; notes those and the ones of `later`, each for `share` samples of its shard."""
        shards = self.data.shard_of(now)
        self.meet({k: v * share for k, v in (Counter(shards.tolist()) + Counter(self.data.shard_of(later).tolist())).items()})
        here = {k: self.cache.get(self.data.shards[k]) is not None for k in set(shards.tolist())}
        given_up, self.coming = self.coming, {}
        for future in given_up.values():
            future.cancel()
        held = 0
        for index, shard in zip(now.tolist(), shards.tolist(), strict=True):
            if here[shard] or shard in self.arriving or shard in self.whole_only or not self.data.shards[shard].ranges:
                continue
            held += int(self.data.size[index])
            if held > HELD:
                return
            self.coming[index] = self.pool.submit(self._load, index, shard)

    def meet(self, samples: dict[int, int]) -> None:
        """Notes how many samples of which shards are to be read; those that are worth it are fetched whole."""
        if not self.data.fetches:
            return
        with self.lock:
            for shard, count in samples.items():
                self.met[shard] += count
                all_of_it = int(self.data.starts[shard + 1] - self.data.starts[shard])
                if self.met[shard] * SHARE < all_of_it or shard in self.wanted:
                    continue
                self.met[shard] = 0
                if self.cache.get(self.data.shards[shard]) is None:
                    self.wanted.add(shard)
                    self.queue.put(shard)
                    self._start()

    def _start(self) -> None:
        # Threads of our own, because those of a pool are waited for when the program ends, and a shard can take minutes.
        if len(self.threads) < min(_WHOLE, len(self.wanted)):
            self.threads.append(threading.Thread(target=self._fetch, daemon=True))
            self.threads[-1].start()

    def _fetch(self) -> None:
        while True:
            shard = self.queue.get()
            arrived = self.arriving[shard] = threading.Event()
            try:
                self.cache.fetch(self.data.shards[shard])
            except Exception:  # whoever reads a sample of it finds out, and says it
                pass
            finally:
                self.wanted.discard(shard)
                del self.arriving[shard]
                arrived.set()


@dataclass(eq=False)
class ShardOrder:
    """The order of training over remote shards, or over some rows of them: in windows of a few shards, or a full permutation."""

    data: Shards
    rows: Integers | None  # of the shards' samples; None: all
    window: int  # shards; 0: a full permutation
    windows: Windows | None = field(init=False)

    def __post_init__(self) -> None:
        starts = self.data.starts.astype(np.int64)
        if self.rows is not None:
            starts = np.searchsorted(self.rows, starts)
        self.windows = Windows(starts, self.window) if self.window else None

    def span(self) -> int:
        return self.windows.span() if self.windows else 0

    def ids(self, seed: int, epoch: int, positions: Tensor, batch: int) -> Tensor:
        from byol import rng

        if self.windows is not None:
            return self.windows.ids(seed, epoch, positions, batch)
        return rng.permuted(seed, epoch, len(self.data.names) if self.rows is None else len(self.rows), positions)

    def expect(self, now: Ids, later: Ids, share: int) -> None:
        if self.data.cache is None:
            return
        if self.rows is not None:
            now, later = self.rows[now].astype(np.int64), self.rows[later].astype(np.int64)
        self.data.fetcher(self.data.cache).expect(now, later if self.window else later[:0], share)

    def take(self, rows: Integers) -> ShardOrder:
        chosen = rows if self.rows is None else self.rows[rows]
        # What is not in the order of the shards has no windows.
        return ShardOrder(self.data, chosen, self.window if bool((np.diff(chosen.astype(np.int64)) > 0).all()) else 0)
