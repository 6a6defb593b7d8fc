"""Several processes, on one machine or on many: who I am, what all of us know, and what we agree on.

One process is the rule and costs nothing: every function here then returns at once. Processes are told who they are by the
environment variables that torch's own launcher sets (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

TIMEOUT_MINUTES = 10.0  # without a word from another process, in the middle of a step
_LONG = timedelta(days=7)  # the first process may read data for hours before the others hear of it

_store: list[td.distributed_c10d.Store] = []  # where the processes leave each other notes, while they are joined
_notes = count()


def asked() -> int:
    """How many processes the environment says there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which process this is, from 0."""
    return td.get_rank() if _store else 0


def size() -> int:
    """How many processes are joined."""
    return td.get_world_size() if _store else 1


def local_size() -> int:
    """How many of the processes share this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if _store else 1


@contextmanager
def joined(device: str, *, minutes: float | None = None) -> Iterator[None]:
    """The processes that the environment names, joined; nothing for a single one, or where they are joined already.

    `device`: "cuda" gives each process of a machine an accelerator of its own. A process that hears nothing from the others for
    so many `minutes` in the middle of a step gives up with a RuntimeError.
    """
    if asked() == 1 or _store:
        yield
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device.startswith("cuda"):
        if local >= torch.cuda.device_count():
            raise ValueError(f"process {local} of this machine has no accelerator: there are {torch.cuda.device_count()}; start fewer")
        torch.cuda.set_device(local)
    threads = torch.get_num_threads()
    if not device.startswith("cuda") and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))  # the cores are shared
    store, me, all_ = next(rendezvous("env://"))
    store.set_timeout(_LONG)
    patience = timedelta(minutes=minutes or float(os.environ.get("BYOL_TIMEOUT_MINUTES", TIMEOUT_MINUTES)))
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    td.init_process_group(backend, store=store, rank=me, world_size=all_, timeout=patience)
    _store.append(store)
    try:
        yield
        td.destroy_process_group()  # not after an error: it would wait for processes that may be gone
    finally:
        _store.clear()
        torch.set_num_threads(threads)


@contextmanager
def apart() -> Iterator[None]:
    """What follows is no shared work: as with a single process."""
    kept = list(_store)
    _store.clear()
    try:
        yield
    finally:
        _store.extend(kept)


def from_first(make: Callable[[], object]) -> Any:
    """What `make`, called in the first process alone, returns there: the same JSON value in all; and so with its ValueError."""
    if size() == 1:
        return make()
    key = f"byol/{next(_notes)}"
    if rank() == 0:
        try:
            value = make()
        except ValueError as error:
            _store[0].set(key, json.dumps({"error": str(error)}))
            raise
        _store[0].set(key, json.dumps({"value": value}))
        return value
    _store[0].wait([key], _LONG)
    told = json.loads(_store[0].get(key))
    if "error" in told:
        raise Told(told["error"])
    return told["value"]


def from_all(value: object) -> list[Any]:
    """The JSON value of every process, in their order."""
    if size() == 1:
        return [value]
    key = f"byol/{next(_notes)}"
    _store[0].set(f"{key}/{rank()}", json.dumps(value))
    keys = [f"{key}/{other}" for other in range(size())]
    _store[0].wait(keys, _LONG)
    return [json.loads(_store[0].get(k)) for k in keys]


def wait() -> None:
    """Until all processes have come here."""
    if size() > 1:
        td.barrier()


def share(count: int) -> slice:
    """This process's part of `count` things in a row; the parts differ by one at most."""
    return slice(count * rank() // size(), count * (rank() + 1) // size())


def divides(batch: int) -> None:
    """ValueError unless a batch can be cut into equal parts, without which means over the parts are no means over the batch."""
    if batch % size():
        raise ValueError(f"a batch of {batch} images cannot be shared equally by {size()} processes; pass a --batch-size that they divide")


def mean(x: Tensor) -> Tensor:
    """The mean of a tensor over all processes; no gradient."""
    if size() == 1:
        return x
    x = x.detach().clone()
    td.all_reduce(x)
    return x / size()


def average(x: Tensor) -> Tensor:
    """The mean of a tensor over all processes; gradients come back, as with `gather`."""
    out: Tensor = x if size() == 1 else _Average.apply(x)
    return out


class _Average(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return mean(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return mean(grad)


def gathered(x: Tensor) -> Tensor:
    """(b, ...) of every process -> (b x processes, ...) in their order, the same b in each; no gradient."""
    if size() == 1:
        return x
    x = x.detach().contiguous()
    out = x.new_empty(size() * len(x), *x.shape[1:])
    td.all_gather_into_tensor(out, x)
    return out


def gather(x: Tensor) -> Tensor:
    """(b, ...) of every process -> (b x processes, ...) in their order, the same b in each; gradients come back.

    A process gets the sum of what all of them ask of its rows: the mean over processes that training takes of gradients is then
    that of the mean loss.
    """
    out: Tensor = x if size() == 1 else _Gather.apply(x)
    return out


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        return gathered(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        td.all_reduce(grad)
        return grad[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def rows_of_all(x: Tensor) -> Tensor:
    """(b, ...) on the CPU -> all rows in the order of the processes; b may differ, the type may not."""
    if size() == 1:
        return x
    lengths = [int(n) for n in gathered(torch.tensor([len(x)]))]
    padded = torch.cat([x, x.new_zeros(max(lengths) - len(x), *x.shape[1:])])
    parts = gathered(padded).view(size(), max(lengths), *x.shape[1:])
    return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])


def from_first_tensors(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors with those of the first process."""
    if size() > 1:
        for t in tensors:
            whole = t.detach().contiguous()  # a broadcast knows no memory layout
            td.broadcast(whole, 0)
            t.detach().copy_(whole)


class Told(ValueError):
    """An error of the first process, in the others: it is said there already."""


class Agreement:
    """Whether any process wants something: asked at every step and answered at the next, so that nobody waits for the answer."""

    def __init__(self) -> None:
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._work: td.Work | None = None

    def __call__(self, wish: bool) -> bool:
        """What was wished anywhere by the time of the last call; with a single process, by now."""
        if size() == 1:
            return wish
        agreed = self._work is not None and self._answer()
        self._flag = torch.tensor([int(wish)], dtype=torch.int32)
        self._work = td.all_reduce(self._flag, td.ReduceOp.MAX, async_op=True)
        return agreed

    def _answer(self) -> bool:
        assert self._work is not None
        self._work.wait()
        return bool(self._flag)
