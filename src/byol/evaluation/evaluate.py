"""What features are worth: labelled images, a split, the features of everything compared, and a score under each protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import dist
from byol.data import Source, cores
from byol.encoders import Encoder
from byol.evaluation import protocols as named
from byol.evaluation import splits
from byol.evaluation.accuracy import hits
from byol.evaluation.baselines import Shrink, pixels, plain_input
from byol.evaluation.features import BATCH, Features, Precision, Progress, extract
from byol.evaluation.intervals import over_draws, wilson
from byol.evaluation.labelled import Parts, divide, in_classes_of, with_labels
from byol.evaluation.probe import Prediction, Probe, Settings, Task
from byol.evaluation.result import Evaluation, Score

Subject = tuple[str, Encoder | None]  # name and encoder; None: the pixels of what the last encoder sees
Ids = NDArray[np.int64]

_TOP5_FROM = 6  # classes


@dataclass(frozen=True, eq=False)
class _Seen:
    """One subject with its features."""

    name: str
    encoder: Encoder
    train_x: Tensor  # (n, D)
    test_x: Tensor  # (m, D)


@dataclass(frozen=True, eq=False)
class _Setting:
    """What every protocol and subject have in common."""

    parts: Parts
    train: Source  # the n training images
    draws: dict[float, list[Ids]]  # share of the labels -> the training rows of each draw
    seed: int
    precision: Precision
    workers: int


def evaluate(
    subjects: Sequence[Subject],
    train: Source,
    test: Source | None = None,
    *,
    protocols: Sequence[str | Probe] = ("knn", "linear"),
    labels: Sequence[float] = (1.0,),
    draws: int = 5,
    seed: int = 0,
    device: str = "cpu",
    precision: Precision = "fp32",
    batch: int = BATCH,
    workers: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> list[Evaluation]:
    """Scores of every subject under every protocol with every share of the training labels: same split, same draws, same images.

    Without `test`, a stratified fifth of `train` tests. `draws` are of shares below 1. `workers` processes decode for
    protocols that train on crops; None: none on a CPU, which they would take it from, else one per core up to 8.
    Of several processes the first one gets the scores and the others nothing.
    Raises ValueError in one sentence when data, labels or settings cannot be used.
    """
    probes = _probes(protocols, [name for name, _ in subjects], len(labels), draws)
    notes = [*_unlabelled(train, test), *_unopened(train, test)]
    train = with_labels(train)
    test = None if test is None else in_classes_of(train, with_labels(test))
    _draws(divide(train, test, seed=seed), labels, draws, seed)  # what is impossible is said before hours of features
    began = time.perf_counter()
    encoders = _encoders(subjects, train)
    look = partial(extract, encoders, batch=batch, device=device, precision=precision, progress=progress)
    found = look(train)
    found_test = found if test is None else look(test)
    if dist.rank():  # the features are shared work, what follows is not
        return []
    feature_seconds = round(time.perf_counter() - began, 3)
    train = _readable(train, found, notes)
    parts = divide(train, None if test is None else _readable(test, found_test, notes), seed=seed)
    place = "cpu" if device == "mps" else device  # mps has no float64
    seen = [
        _Seen(name, encoder, _rows(f, parts.train, name, place), _rows(t, parts.test, name, place))
        for (name, _), encoder, f, t in zip(subjects, encoders, found, found_test, strict=True)
    ]
    workers = workers if workers is not None else 0 if device == "cpu" else min(8, cores())
    setting = _Setting(parts, train.subset(parts.train), _draws(parts, labels, draws, seed), seed, precision, workers)
    with dist.apart():  # the others have left
        results = [_under(probe, seen, setting, progress) for probe in probes]
    return [replace(r, notes=notes + parts.notes, feature_seconds=feature_seconds) for r in results]


def _probes(protocols: Sequence[str | Probe], names: Sequence[str], labels: int, draws: int) -> list[Probe]:
    """The protocols themselves; ValueError for an empty or ambiguous request."""
    if draws < 1 or not names or not protocols or not labels:
        counts = f"{len(names)} encoders, {len(protocols)} protocols, {labels} label shares, {draws} draws"
        raise ValueError(f"there is nothing to evaluate: {counts}; give one or more of each")
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise ValueError(f"two encoders are called {twice!r}, and their rows could not be told apart; give each its own name")
    return [named.load(p) if isinstance(p, str) else p for p in protocols]


def _under(probe: Probe, seen: Sequence[_Seen], setting: _Setting, progress: Progress) -> Evaluation:
    """Everything under one protocol."""
    began = time.perf_counter()
    parts, scores = setting.parts, []
    total = len(seen) * sum(map(len, setting.draws.values()))
    done = 0
    for subject in seen:
        for share, draws in setting.draws.items():
            outcomes = []
            for rows in draws:
                progress(probe.name, done, total)
                outcomes.append(_once(probe, subject, setting, rows))
                done += 1
            scores.append(_score(subject, share, len(draws[0]), outcomes, parts))
    progress(probe.name, done, total)
    return Evaluation(
        protocol=probe.name,
        description=probe.describe(),
        settings=probe.settings() | {"seed": setting.seed},
        train=len(parts.train),
        test=len(parts.test),
        classes=parts.classes,
        split=parts.how,
        scores=scores,
        seconds=round(time.perf_counter() - began, 3),
    )


def _once(probe: Probe, subject: _Seen, setting: _Setting, rows: Ids) -> Prediction:
    """Train with the labels of one draw. The protocol gets no test label."""
    ids = torch.from_numpy(rows)
    return probe.predict(
        Task(
            train_x=subject.train_x[ids.to(subject.train_x.device)],
            train_y=torch.from_numpy(setting.parts.train_y[rows]).to(subject.train_x.device),
            test_x=subject.test_x,
            classes=setting.parts.classes,
            encoder=subject.encoder,
            train=setting.train if len(rows) == len(setting.train) else setting.train.subset(rows),
            centred=isinstance(subject.encoder.net, Shrink),
            seed=setting.seed,
            precision=setting.precision,
            workers=setting.workers,
        )
    )


def _score(subject: _Seen, share: float, n_labels: int, outcomes: Sequence[Prediction], parts: Parts) -> Score:
    """The outcomes of one or more draws, measured on the test labels."""
    y = torch.from_numpy(parts.test_y)
    right = [int(hits(o.scores, y).sum()) for o in outcomes]
    top1 = [r / len(y) for r in right]
    top5 = [float(hits(o.scores, y, 5).double().mean()) for o in outcomes] if parts.classes >= _TOP5_FROM else []
    return Score(
        name=subject.name,
        labels=share,
        n_labels=n_labels,
        top1=sum(top1) / len(top1),
        top5=sum(top5) / len(top5) if top5 else None,
        interval=over_draws(top1, len(y)) if len(top1) > 1 else wilson(right[0], len(y)),
        draws=top1,
        dim=subject.train_x.shape[1],
        settings=_merged([o.settings for o in outcomes]),
    )


def _merged(settings: Sequence[Settings]) -> Settings:
    """What was chosen in every draw: one value where all agree, else the values in their order."""
    out: Settings = {}
    for key in dict.fromkeys(k for s in settings for k in s):
        values = [s.get(key, "") for s in settings]
        out[key] = values[0] if len(set(values)) == 1 else " | ".join(map(str, values))
    return out


def _draws(parts: Parts, labels: Sequence[float], draws: int, seed: int) -> dict[float, list[Ids]]:
    """Share of the labels -> the rows of each draw; all labels can be drawn in one way only."""
    return {s: [splits.draw_labels(parts.train_y, s, seed=seed, draw=d) for d in range(1 if s == 1 else draws)] for s in labels}


def _encoders(subjects: Sequence[Subject], train: Source) -> list[Encoder]:
    """Every subject's encoder; pixels share the view of the last real one."""
    real = [encoder for _, encoder in subjects if encoder is not None]
    baseline = pixels(real[-1].input if real else plain_input(train))
    return [baseline if encoder is None else encoder for _, encoder in subjects]


def _readable(source: Source, found: Sequence[Features], notes: list[str]) -> Source:
    """The images that have features; a note about the others."""
    skipped = found[0].skipped
    if not skipped:
        return source
    notes.append(f"{len(skipped):,} images could not be read and are left out (first: {skipped[0].name}: {skipped[0].reason})")
    return source.subset(found[0].kept)


def _rows(found: Features, rows: Ids, name: str, device: str) -> Tensor:
    """Some rows of the features on the device; ValueError for features that are no numbers."""
    x = found.x[rows]
    bad = int((~np.isfinite(x)).any(1).sum())
    if bad:
        why = "its training diverged, or its input is wrong"
        raise ValueError(f"{name} gives features that are not finite numbers for {bad} of {len(x)} images; {why}")
    return torch.from_numpy(x).to(device)


def _unopened(*sources: Source | None) -> list[str]:
    found = [s for source in sources if source is not None for s in source.skipped]
    return [f"{len(found):,} files left out (first: {found[0].name}: {found[0].reason})"] if found else []


def _unlabelled(*sources: Source | None) -> list[str]:
    count = sum(int((s.labels < 0).sum()) for s in sources if s is not None and s.labels is not None)
    return [f"{count:,} images without a label left out"] if count else []
