"""What a protocol is given and what it gives back. Test labels are not part of it: no protocol can look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol

from torch import Tensor

from byol.data import Source
from byol.encoders import Encoder

Settings = dict[str, float | int | str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One training set with labels and the test images, as one encoder sees them."""

    train_x: Tensor  # (n, D) float32 features, on the device to compute on
    train_y: Tensor  # (n,) int64 in 0 .. classes-1, likewise; (n, classes) of 1, 0, -1 where an image has several
    test_x: Tensor  # (m, D) float32
    classes: int
    encoder: Encoder  # frozen
    train: Source  # the n training images, for a protocol that augments them
    centred: bool  # the features mean little before the training mean is subtracted (pixels)
    seed: int
    precision: str  # of the encoder: "fp32" or "bf16"
    workers: int  # processes that decode


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier says about the test images, and what was chosen on the way."""

    scores: Tensor  # (m, classes), the higher the likelier
    settings: Settings = field(default_factory=dict)


def titled(base: str, probe: object, *, short: Mapping[str, str] | None = None) -> str:
    """The base name, and every setting that is not the default's: results of other settings do not replace each other."""
    changed = {f.name: getattr(probe, f.name) for f in fields(probe) if getattr(probe, f.name) != f.default}  # type: ignore[arg-type]
    return base + "".join((short or {}).get(name, f"-{name.replace('_', '-')}-{value}") for name, value in changed.items())


class Probe(Protocol):
    """A protocol with its settings: trains a classifier on a task and predicts its test images."""

    @property
    def name(self) -> str:
        """One word: "knn", "linear", ..."""
        ...

    def describe(self) -> str:
        """The protocol and its settings in a few words, as printed above its numbers."""
        ...

    def settings(self) -> Settings:
        """The same for machines."""
        ...

    def predict(self, task: Task) -> Prediction:
        """Train on the task's training set, then score its test images."""
        ...
