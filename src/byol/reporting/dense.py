"""Segmentation, depth and detection on the page: every metric by its name, frozen and fine-tuned, beside random weights."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from byol.dense.result import SHARES
from byol.evaluation.baselines import is_baseline
from byol.published.beside import Beside, beside_dense, by_method
from byol.reporting.html import Markup, join, percent, table, tag
from byol.reporting.run import Run, listing, mapping, real
from byol.reporting.scores import words

_UNITS = {"rms": "rms, m (lower is better)", "rel": "rel (lower is better)"}


@dataclass(frozen=True)
class DenseScore:
    """What one encoder reached, frozen or fine-tuned."""

    name: str
    mode: str
    metrics: dict[str, list[float]]  # a value for each seed

    def mean(self, metric: str) -> float | None:
        """Over the seeds; None where it was not measured."""
        values = self.metrics.get(metric)
        return statistics.fmean(values) if values else None


@dataclass(frozen=True)
class DenseResult:
    """One protocol on one data set."""

    protocol: str
    settings: str  # the protocol with its settings, as it is printed
    details: str  # every setting
    data: str  # as it was asked for
    setting: str  # train, test and what the data decided, in words
    scores: list[DenseScore]
    notes: list[str]
    published: Beside | None

    @property
    def metrics(self) -> list[str]:
        """The first is the one that counts."""
        return list(dict.fromkeys(m for s in self.scores for m in s.metrics))

    @property
    def modes(self) -> list[str]:
        return list(dict.fromkeys(s.mode for s in self.scores))

    @property
    def seeds(self) -> int:
        return max(len(v) for s in self.scores for v in s.metrics.values())

    @property
    def conditions(self) -> tuple[str, str, str]:
        """What has to be equal for two results to be comparable."""
        return self.protocol, self.details or self.settings, self.setting

    def own(self, mode: str) -> DenseScore | None:
        """The encoder's."""
        return next((s for s in reversed(self.scores) if s.mode == mode and not is_baseline(s.name)), None)

    def random(self, mode: str) -> DenseScore | None:
        """The same network's from random weights."""
        return next((s for s in self.scores if s.mode == mode and is_baseline(s.name)), None)


def results(run: Run) -> list[DenseResult]:
    """Those of a run; what cannot be understood is left out."""
    return [r for e in run.evaluations if (r := _result(e)) is not None]


def _result(fields: dict[str, object]) -> DenseResult | None:
    scores = [s for raw in listing(fields.get("scores")) if (s := _score(mapping(raw))) is not None]
    if not scores:
        return None
    train, test = (int(real(fields.get(k)) or 0) for k in ("train", "test"))
    facts, split = mapping(fields.get("facts")), str(fields.get("split") or "")
    protocol = str(fields.get("protocol", "evaluation"))
    details = words(mapping(fields.get("settings")))
    setting = ", ".join(filter(None, [f"{train:,} train / {test:,} test{f' ({split})' if split else ''}", words(facts)]))
    data = str(mapping(fields.get("asked")).get("data") or "")
    near = beside_dense(data, int(real(facts.get("classes")) or 0), protocol, train=train, test=test)
    settings = str(fields.get("description") or f"{protocol} {details}".strip())
    return DenseResult(protocol, settings, details, data, setting, scores, [str(n) for n in listing(fields.get("notes"))], near)


def _score(fields: dict[str, object]) -> DenseScore | None:
    """Metrics with a value that is no number are left out."""
    read = {m: [real(v) for v in listing(values)] for m, values in mapping(fields.get("metrics")).items()}
    metrics = {m: [v for v in values if v is not None] for m, values in read.items() if values and None not in values}
    return DenseScore(str(fields.get("name", "encoder")), str(fields.get("mode", "")), metrics) if metrics else None


def worth(run: Run) -> Markup:
    """All of them; nothing where there are none."""
    return join(_protocol(r) for r in results(run))


def sentence(run: Run) -> str:
    """E.g. 'Segmentation, frozen: mIoU 63.3 %, 24.9 points over random weights'; nothing where there are none."""
    for r in results(run):
        score, metric = r.own(r.modes[0]), r.metrics[0]
        value = score.mean(metric) if score else None
        if value is not None:
            gain = _gain(r, r.modes[0], metric)
            said = f", {gain.lstrip('+−')} {'below' if gain[0] == '−' else 'over'} random weights" if gain else ""
            return f"{r.protocol.capitalize()}, {r.modes[0]}: {_title(metric)} {_number(metric, value)}{said}"
    return ""


def _protocol(r: DenseResult) -> Markup:
    many = f"Mean of {r.seeds} seeds; small: their standard deviation." if r.seeds > 1 else "One seed."
    notes = [f"{', '.join(map(_title, r.metrics))}{f' on {r.data}' if r.data else ''}; {r.setting}. {many}", *r.notes]
    paragraphs = join(tag("p", text, class_="note") for text in notes)
    return tag("div", tag("h3", r.settings), paragraphs, _table(r), _published(r), class_="protocol")


def _table(r: DenseResult) -> Markup:
    rows: list[list[str]] = []
    for mode in r.modes:
        rows += [[s.name, _mode(mode), *(_cell(m, s) for m in r.metrics)] for s in r.scores if s.mode == mode]
        gains = [_gain(r, mode, m) for m in r.metrics]
        if any(gains):
            rows.append(["against random weights", _mode(mode), *(tag("td", g or "–", class_="gain") for g in gains)])
    return table(["", "encoder", *(_UNITS.get(m, _title(m)) for m in r.metrics)], rows, "numbers")


def _title(metric: str) -> str:
    return metric.replace("^2", "²").replace("^3", "³")


def _mode(mode: str) -> Markup:
    return tag("td", mode, class_="mode")


def _cell(metric: str, score: DenseScore | None, more: str = "") -> Markup:
    """The mean with its deviation; the exact values as data, for whoever reads the page by program."""
    mean = score.mean(metric) if score else None
    if score is None or mean is None:
        return tag("td", "–")
    values = score.metrics[metric]
    spread = statistics.stdev(values) if len(values) > 1 else None
    small = [] if spread is None else [f"± {100 * spread:.1f}" if metric in SHARES else f"± {spread:.3f}"]
    return tag("td", _number(metric, mean), *(tag("small", text) for text in [*small, more] if text), data_mean=repr(mean))


def _number(metric: str, value: float) -> str:
    return percent(value) if metric in SHARES else f"{value:.3f}"


def _gain(r: DenseResult, mode: str, metric: str) -> str:
    ours, theirs = (s.mean(metric) if s else None for s in (r.own(mode), r.random(mode)))
    if ours is None or theirs is None:
        return ""
    text = f"{100 * (ours - theirs):+.1f} points" if metric in SHARES else f"{ours - theirs:+.3f}"
    return text.replace("-", "−")


def _published(r: DenseResult) -> Markup:
    """Published numbers on data of this name, apart from all that was measured; nothing for other data."""
    if r.published is None:
        return join([])
    text = (
        f"Published, for scale, not measured here: {'; '.join(by_method(r.published))} ({r.published.differences}). {r.published.source}."
    )
    return tag("p", text, class_="note published")


def side_by_side(runs: Sequence[Run]) -> Markup:
    """A table for every protocol on every data set, a column for each run: what stands in one row was measured in one way."""
    found = {r.path: {x.conditions: x for x in results(r)} for r in runs}
    conditions = list(dict.fromkeys(c for r in runs for c in found[r.path]))
    return join(_same_way(runs, [found[r.path].get(c) for r in runs]) for c in conditions)


def _same_way(runs: Sequence[Run], measured: Sequence[DenseResult | None]) -> Markup:
    some = next(x for x in measured if x)
    rows: list[list[str]] = [
        [f"{_UNITS.get(metric, _title(metric))}, {mode}", *(_column(x, mode, metric) for x in measured)]
        for mode in some.modes
        for metric in some.metrics
    ]
    said = f"{some.setting}. Small: deviation over seeds, and the difference to random weights. Settings: {some.details}."
    return tag("div", tag("h3", some.settings), tag("p", said, class_="note"), table(["", *(r.name for r in runs)], rows, "numbers wide"))


def _column(r: DenseResult | None, mode: str, metric: str) -> Markup:
    if r is None:
        return tag("td", "–")
    gain = _gain(r, mode, metric)
    return _cell(metric, r.own(mode), f"{gain} to random weights" if gain else "")
