"""The result of an evaluation: scores beside the protocol, the settings and the counts that they mean nothing without."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from byol.evaluation.baselines import is_baseline
from byol.evaluation.intervals import deviation
from byol.evaluation.probe import Settings
from byol.published.beside import Beside, beside
from byol.stored import typed


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one encoder or baseline reached with one share of the labels."""

    name: str  # "pixels", "random resnet18", or the run
    labels: float  # share of the training labels
    n_labels: int
    top1: float  # in [0, 1]; the mean over draws; of an evaluation with another metric than top-1, that one
    top5: float | None  # None with 5 classes or fewer
    interval: tuple[float, float]  # 95 %, of top1
    draws: list[float]  # top1 of each draw of labels; draw i is the same for everything compared
    dim: int  # features
    settings: Settings = field(default_factory=dict)  # what the protocol chose: l2, k, learning rate
    folds: list[float] = field(default_factory=list)  # top1 of each fold, the mean over draws; top1 is their mean. Empty without folds
    also: dict[str, float] = field(default_factory=dict)  # the other metrics of a protocol that has several, in [0, 1]

    @property
    def std(self) -> float:
        """The deviation over draws; 0 for one."""
        return deviation(self.draws)

    @property
    def fold_std(self) -> float:
        """The deviation over folds."""
        return deviation(self.folds)

    @property
    def baseline(self) -> bool:
        """True for pixels and random networks."""
        return is_baseline(self.name)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything under one protocol on one split."""

    protocol: str  # one word, as it was asked for
    description: str  # the protocol and its settings, as printed
    settings: Settings
    train: int  # labelled training images; with folds their mean
    test: int  # with folds all, each tested once
    classes: int
    split: str  # where the test images come from
    scores: list[Score]
    notes: list[str] = field(default_factory=list)  # what was left out, and why
    seconds: float = 0.0  # of the protocol
    feature_seconds: float = 0.0  # of computing all features, shared by the protocols
    samples: str = "images"  # what they are called
    metric: str = "top-1"  # what `top1` and `draws` of the scores are: a data set may have its own
    asked: dict[str, object] = field(default_factory=dict)  # what it was made of: encoder, data, test, labels, draws, seed, limit, ...

    def lines(self) -> list[str]:
        """The protocol and a table for people, at most 80 columns."""
        from byol.evaluation.table import lines

        return lines(self)

    def published(self) -> list[Beside]:
        """The published rows that these scores can be read beside; none for data without a known name."""
        shares = list(dict.fromkeys(s.labels for s in self.scores))
        return beside(str(self.asked.get("data", "")), self.classes, self.protocol, shares, train=self.train, test=self.test)

    def to_json(self) -> dict[str, object]:
        """Plain JSON values; no NaN."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> Evaluation:
        """The evaluation that `to_json` wrote; ValueError names the first thing that is not as it was written."""
        return typed(cls, fields)
