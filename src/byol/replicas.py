"""A method in several processes: one set of weights, statistics and dropout over all of them, gradients that meet."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from byol import dist
from byol.sync_norm import synchronise


def replicated(method: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[..., Any]:
    """What turns views into a loss: the method, or one that shares statistics and gradients with those of the other processes."""
    if dist.size() == 1:
        return method
    synchronise(method)
    for part in method.modules():
        if type(part) is nn.Dropout:
            part.__class__ = _Dropout
    dist.from_first_tensors([*method.parameters(), *method.buffers()])
    _same_state(method, optimizer)
    places = [torch.cuda.current_device()] if next(method.parameters()).is_cuda else None
    # Buffers are the same in all of them, or belong to one alone. Later versions of torch renamed the option.
    known = inspect.signature(DistributedDataParallel).parameters
    once: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    return DistributedDataParallel(method, device_ids=places, gradient_as_bucket_view=True, **once)


class _Dropout(nn.Dropout):
    """Dropout drawn for the rows of all processes, of which each takes its own; their generators have to stand alike.

    Other modules that draw, such as timm's stochastic depth, draw the same in every process.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return input
        rows = len(input)
        # Of ones, by torch's own kernel: what a single process would draw for as many rows.
        whole = nn.functional.dropout(input.new_ones(rows * dist.size(), *input.shape[1:]), self.p)
        return input * whole[dist.rank() * rows :][:rows]


def _same_state(method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The optimiser's state of the first process in all: only that one has read the checkpoint."""
    named = dict(method.named_parameters())

    def kinds() -> dict[str, list[str]]:
        return {name: sorted(optimizer.state[p]) for name, p in named.items() if p in optimizer.state}

    for name, keys in dist.from_first(kinds).items():
        p = named[name]
        for key in keys:
            counts = key == "step"  # torch's own counters
            blank = torch.zeros((), device=p.device if p.is_cuda else "cpu") if counts else torch.zeros_like(p)
            dist.from_first_tensors([optimizer.state[p].setdefault(key, blank)])
