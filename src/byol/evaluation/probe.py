"""What a protocol is given and what it gives back. Test labels are not part of it: no protocol can look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol

from torch import Tensor

from byol.data import Source
from byol.encoders import Encoder
from byol.evaluation.features import Precision, Progress

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
    precision: Precision  # of the encoder
    workers: int  # processes that decode
    test: Source | None = None  # the m test images without their labels, for a protocol that changes the encoder
    views: Mapping[str, object] | None = None  # those that the evaluated encoder was trained with: name, size and changes; None: unknown
    progress: Progress = lambda what, done, total: None  # for a protocol that takes long


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier says about the test images, and what was chosen on the way."""

    scores: Tensor  # (m, classes), the higher the likelier; (R, m, classes) of R classifiers whose results are averaged
    settings: Settings = field(default_factory=dict)
    used: int | None = None  # training labels, where the protocol has a list of its own; None: all of the task's


def titled(base: str, probe: object, *, short: Mapping[str, str] | None = None) -> str:
    """The base name, and every setting that is not the default's: results of other settings do not replace each other."""
    words = {name: f"-{name.replace('_', '-')}-{written(value).replace('/', '+')}" for name, value in _not_default(probe)}
    return base + "".join((words | dict(short or {}))[name] for name in words)


def changed(probe: object) -> str:
    """`lrs=0.1/0.01, steps=500`: the settings that are not the default's, as they are asked for."""
    return ", ".join(f"{name}={written(value)}" for name, value in _not_default(probe))


def written(value: object) -> str:
    """A setting as it is asked for: several numbers with / between them."""
    return "/".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def _not_default(probe: object) -> list[tuple[str, object]]:
    pairs = [(f, getattr(probe, f.name)) for f in fields(probe)]  # type: ignore[arg-type]
    return [(f.name, value) for f, value in pairs if value != f.default]


class Probe(Protocol):
    """A protocol with its settings: trains a classifier on a task and predicts its test images.

    One that is scored by metrics of its own names them in `METRICS`, the first one being its score.
    """

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
