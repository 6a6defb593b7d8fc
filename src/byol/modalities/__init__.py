"""What depends on the kind of data: a module for each, all with the same functions (`Modality`); whoever needs one asks `of`.

What else a new kind needs: its sources (`byol.data.open`), the names of its samples (`byol.data.source.WORDS`), a recipe
(`byol.recipes.AUTO`), and a baseline (`byol.evaluation.baselines.RAW`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from byol import views
from byol.data import Modality as Name
from byol.data import Source, Statistics
from byol.encoders import AnyInput
from byol.modalities import images, recordings, rgbd, sounds, volumes
from byol.views.changes import Change, Take

Raw = NDArray[np.generic]  # (H, W, C)


class Modality(Protocol):
    """The functions of a module; `raw` is what `sample` gives."""

    @property
    def Pipeline(self) -> type:  # a class
        """The numbers of a view: what can be set."""
        ...

    def names(self) -> list[str]:
        """The plans of views that there are."""
        ...

    def plan(
        self, name: str, source: Source, size: int, *, takes: Sequence[Take] | None, compiled: bool | None, changes: Mapping[str, Change]
    ) -> views.Plan:
        """The named plan for these data; `takes`, `compiled` and `changes` as in `byol.views.load`."""
        ...

    def measured(self, source: Source) -> Statistics:
        """What the data are like: of what the networks see, before it is normalised."""
        ...

    def input_of(self, plan: views.Plan, source: Source, size: int, stats: Statistics) -> AnyInput:
        """What an encoder sees at evaluation, when it is trained with this plan on views of that size."""
        ...

    def sample(self, source: Source, index: int) -> Raw:
        """A sample as its source reads it, as much of it as is shown; raises Unreadable."""
        ...

    def visible(self, raw: Raw, input: AnyInput | None) -> Raw:
        """(H, W, C) -> the same as a person can look at it, (H', W', C'), in the range of an image's input, else in [0, 1]."""
        ...

    def seen(self, plan: views.Plan, source: Source, raws: Sequence[Raw], ids: Tensor, seed: int, epoch: int, input: AnyInput) -> Tensor:
        """Samples of the source and their (B,) ids -> (V, B, C', H', W') in [0, 1]: their views, likewise."""
        ...

    def note(self, source: Source) -> str:
        """How these pictures relate to the data, in a sentence; empty where nothing has to be said."""
        ...


_ALL: Final[Mapping[Name, Modality]] = {"image": images, "recording": recordings, "sound": sounds, "rgbd": rgbd, "volume": volumes}


def of(name: Name) -> Modality:
    """The functions for a kind of data."""
    return _ALL[name]
