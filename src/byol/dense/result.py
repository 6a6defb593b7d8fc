"""The result of a dense transfer: metrics beside the protocol, and beside the same network from random weights."""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass, field
from textwrap import wrap

from byol.dense.task import Settings
from byol.published.beside import Beside, beside_dense

WIDTH = 80
_LONGEST = 22  # of a name; longer ones lose their beginning
SHARES = ("mIoU", "pixel accuracy", "< 1.25", "< 1.25^2", "< 1.25^3", "AP50", "AP75", "AP", "AP50 (VOC07)")  # printed in %


@dataclass(frozen=True, kw_only=True)
class DenseScore:
    """What one encoder reached, frozen or fine-tuned."""

    name: str  # "random resnet18", or the run
    mode: str  # "frozen" or "finetuned"
    metrics: dict[str, list[float]]  # the value of each seed; the first metric is the one that counts


@dataclass(frozen=True, kw_only=True)
class DenseResult:
    """Everything under one protocol on one split."""

    protocol: str
    description: str  # the protocol and its settings, as printed
    settings: dict[str, object]
    facts: Settings  # what the data decided: classes, crops
    train: int  # images
    test: int
    split: str  # where the test images come from
    scores: list[DenseScore]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    asked: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The protocol and a table for people, at most 80 columns."""
        facts = ", ".join(f"{k} {v}" for k, v in self.facts.items())
        out = wrap(
            f"{self.description}, {self.train:,} train / {self.test:,} test ({self.split}), {facts}", WIDTH, subsequent_indent="    "
        )
        names = list(self.scores[0].metrics)
        cell = 15 if self._seeds() > 1 and len(names) < 3 else 9
        widths = {n: max(cell, len(_title(n)) + 1) for n in names}
        out.append(" " * (_LONGEST + 13) + "".join(f"{_title(n):>{w}}" for n, w in widths.items()))
        for s in self.scores:
            name = s.name if len(s.name) <= _LONGEST else "..." + s.name[3 - _LONGEST :]
            out.append(f"  {name:<{_LONGEST}} {s.mode:<10}" + "".join(f"{_cell(n, s.metrics[n], cell):>{w}}" for n, w in widths.items()))
        seeds = self._seeds()
        said = [f"mean {'+- deviation ' if cell > 9 else ''}of {seeds} seeds"] if seeds > 1 else ["one seed"]
        return out + [w for text in (*said, *self.notes) for w in wrap(text, WIDTH, initial_indent="  ")]

    def published(self) -> Beside | None:
        """The published rows that these scores can be read beside; None for data without a known name."""
        data, classes = str(self.asked.get("data", "")), int(self.facts.get("classes", 0))
        return beside_dense(data, classes, self.protocol, train=self.train, test=self.test)

    def _seeds(self) -> int:
        return max(len(v) for s in self.scores for v in s.metrics.values())

    def to_json(self) -> dict[str, object]:
        """Plain JSON values; no NaN."""
        return dataclasses.asdict(self)


def _title(metric: str) -> str:
    return {"pixel accuracy": "pixels %"}.get(metric, f"{metric} %" if metric in SHARES and "<" not in metric else metric)


def _cell(metric: str, values: list[float], width: int) -> str:
    mean = statistics.fmean(values)
    factor, digits = (100, 1) if metric in SHARES else (1, 3)
    text = f"{factor * mean:.{digits}f}"
    return f"{text} +- {factor * statistics.stdev(values):.{digits}f}" if len(values) > 1 and width > 9 else text
