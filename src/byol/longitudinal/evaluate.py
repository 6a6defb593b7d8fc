"""Progression: an encoder, the same network with random weights, and raw data, each along every direction that there is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from byol.data import Source
from byol.encoders import Encoder, random_twin
from byol.evaluation.baselines import RAW, plain_input, raw
from byol.evaluation.features import Features, Precision, extract
from byol.longitudinal.directions import Direction, first_component, mean_change, unit
from byol.longitudinal.measures import centred, measured
from byol.longitudinal.protocols import Progression, Task, subjects_of
from byol.longitudinal.result import ProgressionResult, ProgressionScore, Track

Progress = Callable[[str, int, int], None]  # (what, done, total)
Ids = NDArray[np.int64]
Column = NDArray[np.float64]

TRACKS = 24  # series that are kept to be drawn
_FITS: dict[str, Callable[[NDArray[np.float64], Column, Ids], Direction]] = {"PCA": first_component, "change": mean_change}


def evaluate(
    name: str,
    encoder: Encoder | None,
    protocol: Progression,
    task: Task,
    *,
    baselines: bool = True,
    seed: int = 0,
    device: str = "cpu",
    precision: Precision = "fp32",
    progress: Progress = lambda what, done, total: None,
) -> ProgressionResult:
    """Scores of raw data, of the random twin, and of the encoder; the encoder stays as it is. ValueError where no series is long enough."""
    began = time.perf_counter()
    every, notes = _subjects(name, encoder, task.train, baselines, seed)
    networks = [network for _, network in every]
    found = extract(networks, task.train, device=device, precision=precision, progress=progress)
    tested = found if task.test is None else extract(networks, task.test, device=device, precision=precision, progress=progress)
    fit_on, whole = _Samples.of(task.train, found[0]), _Samples.of(task.test or task.train, tested[0])
    keep, left_out = whole.long_enough(protocol.dates)
    if not keep.any():
        raise ValueError(f"{whole.source.spec} has no series of {protocol.dates} dates or more; write --protocol progression:dates=2")
    folds = task.folds[tested[0].kept] if task.test is None else None
    scores: list[ProgressionScore] = []
    lines: list[Column] = []
    for (called, network), train, test in zip(every, found, tested, strict=True):
        for direction, projection in projections(network, train.x, test.x, fit_on.times, fit_on.series, folds).items():
            m = measured(projection[keep], whole.times[keep], whole.series[keep], whole.subjects[keep], seed=seed)
            scores.append(ProgressionScore(name=called, direction=direction, values=m.values, intervals=m.intervals))
            lines.append(projection)
    shown = _shown(scores, name)
    notes += [*_left_out(left_out), *_unread(found, tested, task), *_seen_before(encoder, task)]
    return ProgressionResult(
        protocol=protocol.name,
        description=protocol.describe(),
        settings=asdict(protocol),
        train=len(fit_on.times),
        test=int(keep.sum()),
        subjects=len(np.unique(whole.subjects[keep])),
        series=len(np.unique(whole.series[keep])),
        split=task.how,
        scores=scores,
        tracks=_tracks(whole, keep, lines[shown]),
        shown=f"{scores[shown].name}, {scores[shown].direction}",
        samples=whole.source.words.many,
        notes=notes,
        seconds=time.perf_counter() - began,
    )


class _Samples:
    """What is known of the samples that could be read."""

    def __init__(self, source: Source) -> None:
        assert source.groups is not None
        assert source.times is not None
        self.source, self.series, self.subjects = source, source.groups, subjects_of(source)
        self.times = source.times.astype(np.float64)

    @classmethod
    def of(cls, source: Source, found: Features) -> _Samples:
        """Those that have features."""
        return cls(source.subset(found.kept))

    def long_enough(self, dates: int) -> tuple[NDArray[np.bool_], list[str]]:
        """(N,) whether its series has so many dates, and what the others are called by their first sample."""
        keep, short = np.ones(len(self.times), np.bool_), []
        for s in np.unique(self.series):
            here = self.series == s
            if len(np.unique(self.times[here])) < dates:
                keep &= ~here
                short.append(self.called(int(np.flatnonzero(here)[0])))
        return keep, short

    def called(self, index: int) -> str:
        """The series of a sample: the name of its subject where the data have one."""
        labels, name = self.source.labels, self.source.names[index]
        return name.rpartition("/")[0] or name if labels is None or labels[index] < 0 else self.source.classes[labels[index]]


def _subjects(
    name: str, encoder: Encoder | None, source: Source, baselines: bool, seed: int
) -> tuple[list[tuple[str, Encoder]], list[str]]:
    """Raw data, the random twin and the encoder, as far as they are asked for; and what is missing."""
    seen = raw(plain_input(source) if encoder is None else encoder.input)
    plain = [(RAW.get(source.modality, "raw"), seen)]
    if encoder is None:
        return plain, []
    if not baselines:
        return [(name, encoder)], []
    twin = None if name.startswith("random ") else random_twin(encoder, seed=seed)
    notes = [f"no random network: {encoder.name} cannot be drawn anew"] if twin is None and not name.startswith("random ") else []
    return [*plain, *([(f"random {encoder.name}", twin)] if twin else []), (name, encoder)], notes


def projections(
    encoder: Encoder,
    train: NDArray[np.float32],
    test: NDArray[np.float32],
    times: Column,
    series: Ids,
    folds: Ids | None = None,
) -> dict[str, Column]:
    """Features (N, D) with their times and series, and those to test (M, D) -> direction: (M,) how far these lie along it.

    With `folds`, (N,), the test samples are those of training, and each fold is fitted on the others. Along each direction the unit is
    the standard deviation of what it was fitted on, so that folds can be pooled. ValueError for features that are no finite numbers.
    """
    x, y = (_numbers(of) for of in (train, test))
    found: dict[str, Column] = {}
    if (learnt := encoder.kept.get("direction")) is not None:
        if len(learnt) != y.shape[1]:
            raise ValueError(f"{encoder.name} keeps a direction of {len(learnt)} numbers for {y.shape[1]} features; export it again")
        found["tau"] = _along(unit(np.array(learnt)), x, y)
    for word, fit in _FITS.items():
        if folds is None:
            found[word] = _along(fit(x, times, series), x, y)
            continue
        found[word] = np.empty(len(y))
        for fold in np.unique(folds):
            others = folds != fold
            found[word][~others] = _along(fit(x[others], times[others], series[others]), x[others], y[~others])
    return found


def _along(direction: Direction, train: NDArray[np.float64], test: NDArray[np.float64]) -> Column:
    """(M,): the projection of the test samples in standard deviations of that of the training samples."""
    spread = float((train @ direction).std())
    found: Column = test @ direction / (spread or 1.0)
    return found


def _numbers(x: NDArray[np.float32]) -> NDArray[np.float64]:
    if not np.isfinite(x).all():
        raise ValueError("the encoder gives features that are no finite numbers; take another one, or train it again")
    return x.astype(np.float64)


def _shown(scores: list[ProgressionScore], name: str) -> int:
    """Which score is drawn: of the encoder itself along its own direction, or along the one that follows time best."""
    own = [i for i, s in enumerate(scores) if s.name == name] or list(range(len(scores)))
    return next((i for i in own if scores[i].direction == "tau"), max(own, key=lambda i: scores[i].values["r"]))


def _tracks(whole: _Samples, keep: NDArray[np.bool_], projection: Column) -> list[Track]:
    """Some series of all subjects, spread evenly, centred, in the standard deviation that there is within series."""
    series = np.where(keep, whole.series, -1)
    there = np.unique(series[keep])
    within = centred(projection[keep], series[keep])
    scale = float(within.std()) or 1.0
    found = []
    for s in there[np.unique(np.linspace(0, len(there) - 1, min(TRACKS, len(there))).round().astype(int))]:
        of = np.flatnonzero(series == s)
        of = of[np.argsort(whole.times[of], kind="stable")]
        along = (projection[of] - projection[of].mean()) / scale
        found.append(
            Track(
                name=whole.called(int(of[0])),
                subject=int(whole.subjects[of[0]]),
                days=[int(t) for t in whole.times[of]],
                projection=[round(float(v), 4) for v in along],
            )
        )
    return found


def _left_out(short: list[str]) -> list[str]:
    if not short:
        return []
    named = ", ".join(dict.fromkeys(short[:5])) + (f" and {len(short) - 5:,} more" if len(short) > 5 else "")
    return [f"{len(short):,} series of too few dates not scored: {named}"]


def _unread(found: list[Features], tested: list[Features], task: Task) -> list[str]:
    skipped = [*found[0].skipped, *(tested[0].skipped if task.test is not None else [])]
    if not skipped:
        return []
    return [f"{len(skipped):,} could not be read and are left out (first: {skipped[0].name}: {skipped[0].reason})"]


def _seen_before(encoder: Encoder | None, task: Task) -> list[str]:
    """A note where the encoder learnt from the very samples that test it."""
    if encoder is None or task.test is not None or encoder.provenance.get("data") is None:
        return []
    if encoder.provenance["data"] != task.train.fingerprint():
        return []
    what = " and tau were" if "direction" in encoder.kept else " was"
    return [f"the encoder{what} trained on these subjects, test subjects too, without dates; --test takes others"]
