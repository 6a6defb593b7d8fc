"""Volumes: images whose channels are their slices. A picture shows the three middle slices: from below, from the front, from the side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import views
from byol.data import Source, Statistics, statistics
from byol.encoders import AnyInput, Input
from byol.modalities import images
from byol.modalities.images import Pipeline as Pipeline
from byol.modalities.images import sample as sample
from byol.views.changes import Change, Take

Raw = NDArray[np.generic]
MEASURED: Final = 256  # volumes that the statistics are of at most


def names() -> list[str]:
    """Two visits of a subject, or crops of one volume, of all slices alike."""
    return [views.visits.NAME, "crop"]


def plan(
    name: str, source: Source, size: int, *, takes: Sequence[Take] | None, compiled: bool | None, changes: Mapping[str, Change]
) -> views.Plan:
    """The named plan; ValueError for changes of colours, which slices are not."""
    found = images.plan(name, source, size, takes=takes, compiled=compiled, changes=changes)
    for pipeline in found.pipelines:
        assert isinstance(pipeline, Pipeline)
        for change in ("jitter", "gray", "solarize", "operations"):
            if getattr(pipeline, change):
                raise ValueError(f"{change} changes colours, and the {source.channels} channels of a volume are its slices; leave it out")
    return found


def measured(source: Source) -> Statistics:
    """Of the values of at most MEASURED volumes; one mean and deviation for all slices, as any other would bend the volume."""
    found = statistics(source, sample=MEASURED)
    n, mean = source.channels, float(np.mean(found.mean))
    std = float(np.sqrt(np.mean(np.square(found.std) * (np.array(found.std) != 1) + np.square(np.array(found.mean) - mean))))
    return replace(found, mean=(mean,) * n, std=(std,) * n)


def input_of(plan: views.Plan, source: Source, size: int, stats: Statistics) -> Input:
    """The whole volume."""
    return replace(images.input_of(plan, source, size, stats), resize=size)


def visible(raw: Raw, input: AnyInput | None) -> Raw:
    """(S, S, S) -> (2 S, 2 S, 1), grey."""
    return _middle(torch.from_numpy(raw.astype(np.float32)).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def seen(plan: views.Plan, source: Source, raws: Sequence[Raw], ids: Tensor, seed: int, epoch: int, input: AnyInput) -> Tensor:
    """(V, B, 1, 2 S, 2 S): the middle slices of the views."""
    return torch.stack([_middle(view) for view in images.seen(plan, source, raws, ids, seed, epoch, input)])


def note(source: Source) -> str:
    """What a picture is."""
    return "Each picture shows the middle slices of a volume: seen from below, from the front (right of it), and from the side (below it)."


def _middle(x: Tensor) -> Tensor:
    """(B, slices, S, S) with as many slices -> (B, 1, 2 S, 2 S): three middle slices, what is above upwards, and an empty corner."""
    at = x.shape[1] // 2
    front, side = x[:, :, at].flip(1), x[:, :, :, at].flip(1)  # (B, slices, columns), (B, slices, rows)
    upper, lower = torch.cat([x[:, at], front], 2), torch.cat([side, torch.zeros_like(side)], 2)
    return torch.cat([upper, lower], 1)[:, None]
