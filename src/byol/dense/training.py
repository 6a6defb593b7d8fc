"""The training that segmentation, depth and detection share: batches read ahead of the device, SGD with two steps down."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn

from byol import rng
from byol.data import ids_at, steps_per_epoch, threads

AHEAD = 2  # batches that are read while the device computes
_LOOK = 50  # updates between two looks at the loss, each of which waits for the device

Sample = TypeVar("Sample")
Tell = Callable[[int, int], None]  # (done, total)


def batches(sample: Callable[[int, Tensor], Sample], *, n: int, batch: int, steps: int, seed: int, draws: int) -> Iterator[list[Sample]]:
    """`steps` batches of sample(id, (draws,) uniform numbers): a pure function of the seed, read in threads."""
    batch = min(batch, n)
    waiting: deque[list[Future[Sample]]] = deque()
    pool = ThreadPoolExecutor(threads())
    try:
        for step in range(steps + AHEAD):
            if step < steps:
                ids = ids_at(step, n=n, batch=batch, seed=seed)
                u = rng.uniforms(seed, step // steps_per_epoch(n, batch), rng.STREAM_VIEWS, ids, draws)
                waiting.append([pool.submit(sample, int(i), row) for i, row in zip(ids, u, strict=True)])
            if step >= AHEAD:
                yield [future.result() for future in waiting.popleft()]
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(sample: Callable[[int], Sample], n: int, batch: int) -> Iterator[list[Sample]]:
    """sample(0), ..., sample(n - 1), a batch at a time, read in threads."""
    with ThreadPoolExecutor(threads()) as pool:
        for start in range(0, n, batch):
            yield list(pool.map(sample, range(start, min(n, start + batch))))


def rate(lr: float, progress: float) -> float:
    """The learning rate: a tenth from 70 % of the training on, a hundredth from 90 % on."""
    return lr * (0.01 if progress >= 0.9 else 0.1 if progress >= 0.7 else 1.0)


def fit(
    network: nn.Module,
    steps: Iterator[Sequence[Sample]],
    loss_of: Callable[[Sequence[Sample]], Tensor],
    *,
    count: int,
    lr: float,
    weight_decay: float,
    tell: Tell,
    warm: int = 0,
) -> None:
    """`count` updates by SGD with momentum 0.9 of the parameters that want a gradient. ValueError when the loss is not finite.

    Over the first `warm` updates the learning rate rises in a straight line.
    """
    learnt = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=lr, momentum=0.9, weight_decay=weight_decay)
    network.train()
    for step, batch in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(lr, step / count) * min(1.0, (step + 1) / (warm + 1))
        loss = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step % _LOOK == 0 or step == count - 1) and not bool(torch.isfinite(loss)):
            raise ValueError(f"the loss is not finite after {step + 1} of {count} updates at lr={lr:g}; give a smaller lr")
        tell(step + 1, count)
    network.eval()


def cast(device: str, precision: str) -> AbstractContextManager[object]:
    """The forward pass in bf16 where that is asked for."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")
