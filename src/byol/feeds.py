"""Where the training loop gets its views from: samples held in memory, or files decoded by worker processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from byol import dist
from byol.allocator import keep_freed_memory
from byol.data import HostBatch, HostBatches, Skipped, Source, Waited, WindowBatches, cores, ids_at, steps_per_epoch
from byol.encoders import AnyInput, Input
from byol.files import let_go
from byol.methods import Batch
from byol.stopping import SIGNALS
from byol.views import HostPlan, MemoryPlan, SoundState, SoundViews

Rows = Mapping[str, np.ndarray]  # of all samples: {"labels": (N,) int64}


class MemoryFeed:
    """All samples in one tensor, on the device when they fit: views in batches, no host stage."""

    def __init__(
        self, samples: np.ndarray, views: MemoryPlan, encoder_input: Input, *, batch: int, seed: int, device: str, rows: Rows | None = None
    ) -> None:
        self.samples, self.rows = torch.from_numpy(samples).to(device), rows or {}
        self.views, self.input = views, encoder_input
        self.batch, self.seed = batch, seed

    def __call__(self, start: int, stop: int) -> Iterator[Batch]:
        """Views and rows of the forward passes start .. stop-1; of several processes each gets its share of B."""
        n = len(self.samples)
        for step in range(start, stop):
            epoch = step // steps_per_epoch(n, self.batch)
            # The ids stay on the host: whatever is computed from them there makes no step wait for the device.
            ids = ids_at(step, n=n, batch=self.batch, seed=self.seed)[dist.share(self.batch)]
            views = self.views.from_memory(self.samples, ids, self.seed, epoch, self.input)
            yield views, _of(self.rows, ids, self.samples.device)


class HostFeed:
    """Files decoded and cropped in step order by worker processes, or by threads of this one; everything else on the device."""

    def __init__(
        self,
        source: Source,
        views: HostPlan | SoundViews,
        encoder_input: AnyInput,
        *,
        batch: int,
        seed: int,
        device: str,
        workers: int,
        rows: Rows | None = None,
        on_bad: Callable[[list[Skipped]], None] = lambda bad: None,
        on_wait: Callable[[list[Waited]], None] = lambda waited: None,
        state: SoundState | None = None,
        alone: bool = False,
    ) -> None:
        """`state`: what views of sound remember, on the device; each pass changes it. `alone`: no other process comes here."""
        self.source, self.views, self.input = source, views, encoder_input
        self.batch, self.seed, self.device, self.workers = batch, seed, device, workers
        self.rows, self.on_bad, self.on_wait = rows or {}, on_bad, on_wait
        self.state, self.alone = state, alone

    def __call__(self, start: int, stop: int) -> Iterator[Batch]:
        """Views and rows of the forward passes start .. stop-1; of several processes each gets its share of B."""
        n = len(self.source)
        batches = self._batches(n)
        ready = self._from_processes(batches, start, stop) if self.workers else self._from_threads(batches, start, stop)
        for step, (ids, crops, bad, waited) in zip(range(start, stop), ready, strict=True):
            if bad:
                self.on_bad(bad)
            if waited:
                self.on_wait(waited)
            crops = crops.to(self.device, non_blocking=True)
            views = self._views(crops, ids, step // steps_per_epoch(n, self.batch))
            yield views, _of(self.rows, ids, crops.device)

    def _batches(self, n: int) -> HostBatches | WindowBatches:
        share = dist.share(self.batch)
        if isinstance(self.views, SoundViews):
            return WindowBatches(self.source, self.views, n=n, batch=self.batch, seed=self.seed, share=share)
        return HostBatches(self.source, self.views, n=n, batch=self.batch, seed=self.seed, share=share)

    def _views(self, crops: Tensor, ids: Tensor, epoch: int) -> tuple[Tensor, ...]:
        if isinstance(self.views, SoundViews):
            assert self.state is not None
            with dist.apart() if self.alone else nullcontext():
                return self.views.device(crops[0], ids, self.seed, epoch, self.state)
        assert isinstance(self.input, Input)
        return self.views.device(crops, ids, self.seed, epoch, self.input)

    def _from_processes(self, batches: HostBatches | WindowBatches, start: int, stop: int) -> Iterator[HostBatch]:
        """Some batches ahead of the device, which never waits while the workers keep up."""
        return iter(
            torch.utils.data.DataLoader(
                batches,
                batch_size=None,
                sampler=range(start, stop),
                num_workers=self.workers,
                worker_init_fn=settle,
                pin_memory=self.device.startswith("cuda"),
            )
        )

    def _from_threads(self, batches: HostBatches | WindowBatches, start: int, stop: int) -> Iterator[HostBatch]:
        """No batch ahead: where the network computes on the same cores, it is done with them while these decode (benchmarks/views.py)."""
        keep_freed_memory()
        # One thread of torch's in each: teams of them would wait for each other, busily. What the main thread uses stays as it is.
        with ThreadPoolExecutor(max(1, cores() // dist.local_size()), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for step in range(start, stop):
                yield batches.read(step, pool.map)


def _of(rows: Rows, ids: Tensor, device: torch.device) -> dict[str, Tensor]:
    """The rows of these samples."""
    return {name: torch.from_numpy(values[ids.numpy()]).to(device, non_blocking=True) for name, values in rows.items()}


def settle(worker: int) -> None:
    """What a worker process does first."""
    # Signals are for the main process, which still needs the batches in hand; Ctrl-C and job schedulers send them to all.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    let_go()
    keep_freed_memory()
