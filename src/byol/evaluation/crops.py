"""Augmented views of labelled images, a batch at a time, for the protocols that train on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from byol import views
from byol.data import Skipped, Source, load_memory
from byol.encoders import Input, evaluation_views
from byol.feeds import HostFeed, MemoryFeed
from byol.views import ViewPlan


@dataclass(frozen=True, eq=False)
class Crops:
    """Batches of one view as a function of the seed and the step; the same again every time they are asked for."""

    feed: MemoryFeed | HostFeed
    input: Input  # of the encoder

    def __call__(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """((B,) ids, (B, C, S, S) in [0, 1]) of so many steps, both on the device."""
        for (x,), rows in self.feed(0, steps):
            # Crops have the encoder's size already: this only turns grey into RGB, or the reverse, where it has to.
            yield rows["ids"], evaluation_views(x, replace(self.input, resize=0))


def crops(source: Source, plan: ViewPlan, input: Input, *, batch: int, seed: int, device: torch.device, workers: int) -> Crops:
    """The first view of the plan of all images, in batches that fit the encoder; from memory where they fit."""
    plan = replace(plan, pipelines=plan.pipelines[:1])
    seen = _values(source, input)
    memory, read = load_memory(source)
    if len(read) != len(source):
        raise ValueError(f"{len(source) - len(read)} images of {source.spec} could be read once and then no more; try again")
    feed: MemoryFeed | HostFeed
    rows = {"ids": np.arange(len(source))}
    if memory is not None:
        feed = MemoryFeed(memory, plan, seen, batch=batch, seed=seed, device=str(device), rows=rows)
    else:
        feed = HostFeed(read, plan, seen, batch=batch, seed=seed, device=str(device), workers=workers, rows=rows, on_bad=_unreadable)
    return Crops(feed, input)


def spatial(source: Source, input: Input, *, flip: float = 0.5, min_area: float = 0.08) -> ViewPlan:
    """Random crops, resized to what the encoder sees, and flips: the augmentation of the paper's evaluations that train on images."""
    return views.load("crop", size=input.size, channels=source.channels, flip=flip, min_area=min_area)


def _values(source: Source, input: Input) -> Input:
    """What turns the raw values of the training images into [0, 1]; the encoder's own mean and deviation come later."""
    low, high = input.low, input.high
    if source.dtype == "uint16" and (low, high) == (0, 255):
        high = 65535.0
    channels = source.channels
    return Input(channels=channels, size=input.size, mean=(0.0,) * channels, std=(1.0,) * channels, low=low, high=high)


def _unreadable(bad: list[Skipped]) -> None:
    # Another image would take its place, with the wrong label.
    raise ValueError(f"{bad[0].name} could be read once and then no more ({bad[0].reason}); try again")
