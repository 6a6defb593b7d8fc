"""The result of a progression: every encoder along every direction, with intervals over subjects, and the lines of some of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from textwrap import wrap

from byol.longitudinal.measures import ABOUT, Interval
from byol.published.beside import Beside

WIDTH = 80
_LONGEST = 22  # of a name; longer ones lose their beginning
DIRECTIONS = {
    "tau": "learnt by the method",
    "PCA": "first principal component of training samples",
    "change": "mean of later less earlier over training pairs",
}


@dataclass(frozen=True, kw_only=True)
class ProgressionScore:
    """How one direction of one encoder's features follows time."""

    name: str
    direction: str  # a word of DIRECTIONS
    values: dict[str, float]
    intervals: dict[str, Interval | None]


@dataclass(frozen=True, kw_only=True)
class Track:
    """A series of a test subject: where its samples lie along the direction of the best score of the encoder itself."""

    name: str
    subject: int
    days: list[int]
    projection: list[float]  # in standard deviations within series


@dataclass(frozen=True, kw_only=True)
class ProgressionResult:
    """Everything under the protocol on one split."""

    protocol: str
    description: str  # the protocol and its settings, as printed
    settings: dict[str, object]
    train: int  # samples to fit directions on
    test: int  # samples that are scored
    subjects: int  # of these
    series: int  # of these
    split: str  # where the test subjects come from
    scores: list[ProgressionScore]
    tracks: list[Track]
    shown: str  # what the tracks are of: "NAME, DIRECTION"
    samples: str = "images"  # what they are called
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    asked: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The protocol and a table for people, at most 80 columns."""
        series = f" in {self.series:,} series" if self.series != self.subjects else ""
        many = f"{self.test:,} {self.samples} of {self.subjects:,} subjects{series} ({self.split})"
        out = wrap(f"{self.description}; {many}", WIDTH, subsequent_indent="    ")
        out.append(f"  {'':<{_LONGEST}} {'direction':<10}{'r':>6} {'95 %':<15}{'rho':>6}{'mean r':>8}{'ordered':>9}")
        for s in self.scores:
            name = s.name if len(s.name) <= _LONGEST else "..." + s.name[3 - _LONGEST :]
            ends = s.intervals.get("r")
            between = "" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"
            v = s.values
            numbers = f"{v['r']:>6.2f} {between:<15}{v['rho']:>6.2f}{v['mean r']:>8.2f}{v['ordered']:>9.2f}"
            out.append(f"  {name:<{_LONGEST}} {s.direction:<10}{numbers}")
        used = dict.fromkeys(s.direction for s in self.scores)
        said = [f"{name}: {text}" for name, text in ABOUT.items()] + [f"{d}: {DIRECTIONS[d]}" for d in used]
        return out + [w for text in (*said, *self.notes) for w in wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")]

    def published(self) -> Beside | None:
        """None are kept of this kind."""
        return None

    def to_json(self) -> dict[str, object]:
        """Plain JSON values; no NaN."""
        return dataclasses.asdict(self)
