"""Images: what the program was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from byol import views
from byol.data import Source
from byol.encoders import Input
from byol.views import Pipeline as Pipeline
from byol.views import names as names
from byol.views.changes import Change, Take

Raw = NDArray[np.generic]


def plan(
    name: str, source: Source, size: int, *, takes: Sequence[Take] | None, compiled: bool | None, changes: Mapping[str, Change]
) -> views.ViewPlan:
    """The named plan for images of so many channels."""
    return views.load(name, size=size, channels=source.channels, compiled=compiled, takes=takes, **changes)  # type: ignore[arg-type]


def visible(raw: Raw, input: Input | None) -> Raw:
    """The image itself."""
    return raw


def seen(plan: views.Plan, source: Source, raws: Sequence[Raw], ids: Tensor, seed: int, epoch: int, input: Input) -> Tensor:
    """(V, B, C, S, S): what the networks see, before it is normalised."""
    assert isinstance(plan, views.ViewPlan)
    return plan.images(plan.host(raws, ids, seed, epoch), ids, seed, epoch, input)


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
