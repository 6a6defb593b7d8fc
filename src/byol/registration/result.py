"""The result of a registration: how far off every subject is, and how good its matches are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Final

from byol.published.beside import Beside

WIDTH = 80
_LONGEST = 21  # of a name; longer ones lose their beginning
# What a person sees of all that is measured: title -> metric, and whether it is a share.
_SHOWN: Final = {
    "R<=5": "rotation <= 5",
    "R<=10": "rotation <= 10",
    "R med": "rotation median",
    "t<=5": "translation <= 5",
    "t<=10": "translation <= 10",
    "t med": "translation median",
    "FMR": "feature-match recall",
}
_MEANING = "R degrees, t cm: % of pairs, and the median; FMR: % of pairs with features that match"


@dataclass(frozen=True, kw_only=True)
class RegistrationScore:
    """How one subject registers, by one kind of features."""

    name: str  # "random byoc-w16", or the run
    features: str  # "both", "visual", "geometric" or "none"
    metrics: dict[str, float]  # shares from 0 to 1, degrees and cm; what has no matches has no metrics of them
    pairs: dict[str, list[float]]  # the same of each pair


@dataclass(frozen=True, kw_only=True)
class RegistrationResult:
    """Everything under the protocol on one set of pairs."""

    protocol: str
    description: str  # the protocol and its settings, as printed
    settings: dict[str, object]
    pairs: list[str]  # the names of both frames
    size: int  # pixels
    split: str  # where the frames come from
    scores: list[RegistrationScore]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    asked: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The protocol and a table for people, at most 80 columns."""
        said = f"{self.description}, {len(self.pairs):,} pairs at {self.size} px ({self.split})"
        out = wrap(said, WIDTH, subsequent_indent="    ")
        out.append(" " * (_LONGEST + 13) + "".join(f"{title:>6}" for title in _SHOWN))
        for s in self.scores:
            name = s.name if len(s.name) <= _LONGEST else "..." + s.name[3 - _LONGEST :]
            out.append(f"  {name:<{_LONGEST}} {s.features:<10}" + "".join(f"{_cell(s, m):>6}" for m in _SHOWN.values()))
        return out + [w for text in (_MEANING, *self.notes) for w in wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")]

    def published(self) -> Beside | None:
        """None: the paper's numbers are known from memory alone, and are not repeated before they are checked."""
        return None

    def to_json(self) -> dict[str, object]:
        """Plain JSON values; no NaN."""
        return dataclasses.asdict(self)


def _cell(score: RegistrationScore, metric: str) -> str:
    value = score.metrics.get(metric)
    if value is None:
        return "-"
    return f"{value:.1f}" if metric.endswith("median") else f"{100 * value:.0f}"
