"""Evaluations of a run as they are stored, read back: who scored what under which protocol, and what the gain is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from byol.evaluation.baselines import is_baseline
from byol.evaluation.intervals import difference
from byol.published.beside import Beside, beside
from byol.reporting.html import number, percent, share
from byol.reporting.run import Run, listing, mapping, real

_ORDER = ("knn", "linear")  # never by score: the headline takes the first of these that there is


@dataclass(frozen=True)
class Score:
    """What one encoder or baseline reached with one share of the labels."""

    name: str
    labels: float  # share of the training labels
    top1: float  # or the result's own metric
    interval: tuple[float, float] | None  # 95 %
    top5: float | None
    n_labels: int | None
    draws: int
    folds: tuple[float, ...] = ()  # of each fold

    @property
    def baseline(self) -> bool:
        return is_baseline(self.name)


@dataclass(frozen=True)
class Result:
    """One protocol on one split."""

    protocol: str
    settings: str  # the protocol with its settings, as it is printed
    details: str  # every setting
    setting: str  # train, test, classes and split, in words
    classes: int
    scores: list[Score]
    notes: list[str]
    published: list[Beside]  # what was published on data of this name
    metric: str = "top-1"
    samples: str = "images"  # what they are called

    @property
    def called(self) -> str:
        """The metric at the beginning of a sentence."""
        return self.metric[:1].upper() + self.metric[1:]

    @property
    def shares(self) -> list[float]:
        """The label shares, ascending."""
        return sorted({s.labels for s in self.scores})

    def subjects(self, labels: float) -> list[Score]:
        return [s for s in self.scores if s.labels == labels and not s.baseline]

    def best_baseline(self, labels: float) -> Score | None:
        return max((s for s in self.scores if s.labels == labels and s.baseline), key=lambda s: s.top1, default=None)

    @property
    def conditions(self) -> tuple[str, str, str, str]:
        """What has to be equal for two results to be comparable."""
        return self.protocol, self.details or self.settings, self.setting, self.metric


def results(run: Run) -> list[Result]:
    """The evaluations of a run, in a fixed order of protocols; what cannot be understood is left out."""
    found = [r for e in run.evaluations if (r := _result(e)) is not None]
    return sorted(found, key=lambda r: (_ORDER.index(r.protocol) if r.protocol in _ORDER else len(_ORDER), r.protocol))


def _result(fields: dict[str, object]) -> Result | None:
    scores = [s for raw in listing(fields.get("scores")) if (s := _score(mapping(raw))) is not None]
    if not scores:
        return None
    train, test, classes = (int(real(fields.get(k)) or 0) for k in ("train", "test", "classes"))
    split = str(fields.get("split") or "")
    setting = f"{train:,} train / {test:,} test{f' ({split})' if split else ''}, {classes} classes"
    protocol = str(fields.get("protocol", "evaluation"))
    details = words(mapping(fields.get("settings")))
    settings = str(fields.get("description") or f"{protocol} {details}".strip())
    data = str(mapping(fields.get("asked")).get("data") or "")
    near = beside(data, classes, protocol, list(dict.fromkeys(s.labels for s in scores)), train=train, test=test)
    notes = [str(n) for n in listing(fields.get("notes"))]
    metric, samples = (str(fields.get(key) or usual) for key, usual in (("metric", "top-1"), ("samples", "images")))
    return Result(protocol, settings, details, setting, classes, scores, notes, near, metric, samples)


def _score(fields: dict[str, object]) -> Score | None:
    top1, labels = real(fields.get("top1")), real(fields.get("labels"))
    if top1 is None:
        return None
    ends = [v for x in listing(fields.get("interval")) if (v := real(x)) is not None]
    n = real(fields.get("n_labels"))
    return Score(
        name=str(fields.get("name", "encoder")),
        labels=1.0 if labels is None else labels,
        top1=top1,
        interval=(ends[0], ends[1]) if len(ends) == 2 else None,
        top5=real(fields.get("top5")),
        n_labels=None if n is None else int(n),
        draws=len(listing(fields.get("draws"))),
        folds=tuple(v for x in listing(fields.get("folds")) if (v := real(x)) is not None),
    )


def words(settings: dict[str, object]) -> str:
    """{"k": 20, "temperature": 0.1} -> 'k 20, temperature 0.1'."""
    return ", ".join(f"{k.replace('_', ' ')} {_word(v)}" for k, v in settings.items() if v is not None)


def _word(value: object) -> str:
    found = real(value)
    if found is not None:
        return number(found)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Finding:
    """The one number that a headline gives, with what it was compared with."""

    result: Result
    score: Score
    best: Score | None

    @property
    def points(self) -> float | None:
        """Percentage points over the best baseline."""
        return None if self.best is None else 100 * (self.score.top1 - self.best.top1)

    @property
    def clear(self) -> bool:
        """True when the difference is surely not 0."""
        return self.best is not None and differ(self.score, self.best)

    def sentence(self) -> str:
        """E.g. '63.3 % with 10 % of the labels, 24.9 points over the best baseline'."""
        named = "" if self.result.metric == "top-1" else f" {self.result.metric}"
        said = f"{percent(self.score.top1)}{named} with {'all' if self.score.labels == 1 else share(self.score.labels)} of the labels"
        points = self.points
        if points is None:
            return f"{said}; no baseline was measured"
        if self.clear and points > 0:
            return f"{said}, {points:.1f} points over the best baseline"
        if self.clear:
            return f"{said}, {-points:.1f} points below the best baseline"
        return f"{said}, not clearly different from the best baseline ({points:+.1f} points)".replace("-", "−")

    def protocol(self) -> str:
        """How it was measured, in one line."""
        beside = f"; best baseline: {self.best.name}, {percent(self.best.top1)}" if self.best else ""
        return f"{self.result.called} of {self.result.settings}; {self.result.setting}{beside}."


def differ(a: Score, b: Score) -> bool:
    """True when both have a 95 % interval, and that of their difference is without 0."""
    if a.interval is None or b.interval is None:
        return False
    low, high = difference(a.top1, a.interval, b.top1, b.interval)
    return low > 0 or high < 0


def finding(run: Run) -> Finding | None:
    """The number of the headline: the first protocol in a fixed order, at 10 % of the labels if measured, else at the most labels."""
    for result in results(run):
        shares = [s for s in result.shares if result.subjects(s)]
        if shares:
            labels = 0.1 if 0.1 in shares else shares[-1]
            return Finding(result, own(run, result.subjects(labels)), result.best_baseline(labels))
    return None


def own(run: Run, scores: Sequence[Score]) -> Score:
    """The score of the run itself: by its name, else the last that is no baseline."""
    named = [s for s in scores if s.name in (run.name, str(run.path))]
    return (named or list(scores))[-1]
