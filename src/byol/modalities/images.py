"""Images: what the program was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from byol import views
from byol.data import Source, Statistics, Unreadable, statistics
from byol.encoders import AnyInput, Input
from byol.views import Pipeline as Pipeline
from byol.views.changes import Change, Take

Raw = NDArray[np.generic]


def names() -> list[str]:
    """Those of single images, and `visits` of two that were made at different times."""
    return [*views.names(), views.visits.NAME]


def plan(
    name: str, source: Source, size: int, *, takes: Sequence[Take] | None, compiled: bool | None, changes: Mapping[str, Change]
) -> views.Plan:
    """The named plan for images of so many channels."""
    if name != views.visits.NAME:
        return views.load(name, size=size, channels=source.channels, compiled=compiled, takes=takes, **changes)  # type: ignore[arg-type]
    if source.groups is None or source.times is None:
        raise ValueError(
            f"the views {name} need to know whose {source.words.many} are and when they were made, and {source.spec} does not say it; "
            "name files SUBJECT/DATE, or give a list with the columns path, subject and date"
        )
    return views.visits.load(
        source.groups, source.times, size=size, channels=source.channels, compiled=compiled, takes=takes, **changes
    )  # fmt: skip


def measured(source: Source) -> Statistics:
    """Of the values."""
    return statistics(source)


def input_of(plan: views.Plan, source: Source, size: int, stats: Statistics) -> Input:
    """An image as the views show it, with the usual margin around the crop of evaluation, without enlarging what is smaller."""
    # Visits are seen whole; a crop of each is followed by a margin at evaluation.
    whole = isinstance(plan, views.VisitViews) and plan.pipelines[0].min_area == 1
    resize = size if whole else max(size, min(int(min(stats.height, stats.width)), round(size * 256 / 224)))
    return Input(
        channels=source.channels, size=size, mean=stats.mean, std=stats.std, low=float(stats.low), high=float(stats.high), resize=resize
    )


def sample(source: Source, index: int) -> Raw:
    """(H, W, C), whole."""
    return source.read(index)


def visible(raw: Raw, input: AnyInput | None) -> Raw:
    """The image itself."""
    return raw


def seen(plan: views.Plan, source: Source, raws: Sequence[Raw], ids: Tensor, seed: int, epoch: int, input: AnyInput) -> Tensor:
    """(V, B, C, S, S): what the networks see, before it is normalised."""
    assert isinstance(input, Input)
    if isinstance(plan, views.VisitViews):
        own = dict(zip(ids.tolist(), raws, strict=True))
        return plan.images(
            [[_other(source, i, own) for i in of] for of in plan.partners(ids, seed, epoch).tolist()], ids, seed, epoch, input
        )
    assert isinstance(plan, views.ViewPlan)
    return plan.images(plan.host(raws, ids, seed, epoch), ids, seed, epoch, input)


def _other(source: Source, index: int, own: dict[int, Raw]) -> Raw:
    """A sample that may be one of these; where it cannot be read, some one of these."""
    if index not in own:
        try:
            return source.read(index)
        except Unreadable:
            return next(iter(own.values()))
    return own[index]


def note(source: Source) -> str:
    """How channels and values are shown."""
    said, channels = [], source.channels
    if channels == 2:
        said.append("Channel 1 is shown as red, channel 2 as green and blue.")
    if channels > 3:
        said.append(f"Channels 1 to 3 of {channels} are shown as red, green and blue.")
    if source.dtype != "uint8":
        said.append(f"The {source.dtype} values are stretched from the 1st to the 99th percentile of each picture, for the eye only.")
    return " ".join(said)
