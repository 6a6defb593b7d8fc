"""What an update costs: its time, as the log of a run says, and the passes through an encoder, which are the same on any machine."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from byol import encoders, methods, recipes, stored
from byol.config import Plan
from byol.reporting.run import Record

_SAMPLES = 32


def milliseconds(plan: Plan, records: Sequence[Record]) -> list[float]:
    """Of an update, between the lines of a run's log; not before its first line, where the machine is still warming up."""
    samples = plan.settings.batch_size * plan.settings.accumulate
    speeds = (r.values.get("images_per_second", 0.0) for r in records[1:])
    return [1e3 * samples / speed for speed in speeds if speed > 0]


def median(times: Sequence[float]) -> float | None:
    """None where there are none."""
    return statistics.median(times) if times else None


def passes(name: str, **options: object) -> dict[str, float]:
    """{"online": .., "target": .., "backward": ..}: batches through an encoder in one forward and backward pass of the method.

    Online passes have a gradient, those of the target have none. Patches and small views count whole. Counted on a small network.
    """
    cls: Any = methods.load(name)
    notes = dict.fromkeys(("online", "target", "backward"), 0)

    def count(part: nn.Module, args: object, y: Tensor) -> None:
        notes["online" if y.requires_grad else "target"] += len(y)
        if y.requires_grad:
            y.register_hook(lambda g: notes.update(backward=notes["backward"] + len(g)))  # type: ignore[no-untyped-call]

    known = {f.name for f in dataclasses.fields(cls.Config)}
    few = {"hidden": 16, "dim": 8, "bottleneck": 4, "queue": 64, "classes": 3, "channels": 1, "size": 8, "samples": _SAMPLES}
    config = stored.typed(cls.Config, {**options, **{k: v for k, v in few.items() if k in known}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, first, shape = small_net(name)
        first.register_forward_hook(count)
        method = cls(net, config)
        views = tuple(torch.randn(_SAMPLES, *shape) for _ in methods.views_of(cls, config))
        wanted = (*methods.rows_of(cls), *methods.rows_if_known(cls, config))
        rows = {row: torch.arange(_SAMPLES) if row == "index" else torch.arange(_SAMPLES) % 3 for row in wanted}
        method(views, **rows).loss.backward()
    return {kind: number / _SAMPLES for kind, number in notes.items()}


def small_net(name: str) -> tuple[nn.Module, nn.Module, tuple[int, int, int]]:
    """A small encoder of the data that the method is for, the part of it that each view passes through once, and the shape of a sample."""
    if recipes.kind_of(name) == "rgbd":
        shape = (6, 8, 8)
        frames = encoders.load("byoc-w4-v200", input=encoders.Input(channels=6, size=8, mean=(0.5,) * 6, std=(0.5,) * 6))
        return frames, frames.get_submodule("net.image"), shape
    if methods.encoder_kind(methods.load(name)) == "flow":
        colours = encoders.load("flow:small-w8-n2", input=encoders.Input(channels=3, size=8, mean=(0.5,) * 3, std=(0.5,) * 3))
        return colours, colours.get_submodule("net.first"), (3, 8, 8)
    net: Any = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.dim = 6
    net.halves = lambda x: net(x).chunk(2, 1)
    if methods.encoder_kind(methods.load(name)) == "patches":
        seen = encoders.Input(channels=1, size=16, mean=(0.5,), std=(0.5,))  # 7 x 7 patches, as of images of any size
        return encoders.wrap(encoders.Patches(net, encoders.Cut(4, 2), seen), input=seen), net[0], (1, 16, 16)
    return net, net[0], (1, 8, 8)
