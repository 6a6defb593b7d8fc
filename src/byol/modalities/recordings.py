"""Recordings of neurons. A bin is shown as a heat map: a square for each neuron, row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import views
from byol.data import Source, load_memory, stretches
from byol.encoders import AnyInput, Input
from byol.modalities.images import input_of as input_of
from byol.modalities.images import measured as measured
from byol.views.changes import Change, Take
from byol.views.recordings import Pipeline as Pipeline
from byol.views.recordings import load
from byol.views.recordings import names as names

Raw = NDArray[np.generic]
_BLACK, _WHITE = -1.5, 4.0  # standard deviations from a neuron's mean


def plan(
    name: str, source: Source, size: int, *, takes: Sequence[Take] | None, compiled: bool | None, changes: Mapping[str, Change]
) -> views.Plan:
    """The named plan, which knows the trials; there is nothing to compile."""
    return load(name, *stretches(source), takes=takes, **changes)  # type: ignore[arg-type]  # names of settings, not of arguments


def sample(source: Source, index: int) -> Raw:
    """(H, W, C), whole."""
    return source.read(index)


def visible(raw: Raw, input: AnyInput | None) -> Raw:
    """(1, 1, neurons) -> (S, S, 1), grey."""
    x = torch.from_numpy(raw.astype(np.float32)).permute(2, 0, 1)[None]
    if not isinstance(input, Input):
        return _folded(x)[0].permute(1, 2, 0).numpy()
    shown = _shown(input.normalise(input.scale(x)))[0].permute(1, 2, 0).numpy()
    found: Raw = input.low + (input.high - input.low) * shown
    return found


def seen(plan: views.Plan, source: Source, raws: Sequence[Raw], ids: Tensor, seed: int, epoch: int, input: AnyInput) -> Tensor:
    """(V, B, 1, S, S): the heat maps of the views, of which each may be of another bin nearby."""
    memory, _ = load_memory(source)
    assert memory is not None  # bins have one size
    assert isinstance(plan, views.MemoryPlan)
    assert isinstance(input, Input)
    return torch.stack([_shown(v) for v in plan.from_memory(torch.from_numpy(memory), ids, seed, epoch, input)])


def note(source: Source) -> str:
    """What a picture is."""
    return (
        f"Each picture is one bin: a square for each of {source.channels} neurons, the lighter, the more spikes above what is usual for it."
    )


def _shown(x: Tensor) -> Tensor:
    """(B, neurons, 1, 1) standardised -> (B, 1, S, S) in [0, 1]."""
    return _folded(((x - _BLACK) / (_WHITE - _BLACK)).clamp(0, 1))


def _folded(x: Tensor) -> Tensor:
    """(B, neurons, 1, 1) -> (B, 1, S, S): row by row, with zeros at the end."""
    side = math.isqrt(x.shape[1] - 1) + 1
    room = torch.zeros(len(x), side * side, dtype=x.dtype)
    room[:, : x.shape[1]] = x.flatten(1)
    return room.view(len(x), 1, side, side)
