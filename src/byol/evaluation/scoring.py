"""From features to scores: every subject under one protocol, with every draw of labels, in every division into train and test."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol.data import Source
from byol.encoders import Encoder
from byol.evaluation.accuracy import hits
from byol.evaluation.baselines import RAW, OverTime, Shrink
from byol.evaluation.features import Precision, Progress
from byol.evaluation.intervals import over_draws, wilson
from byol.evaluation.labelled import Parts
from byol.evaluation.metrics import SHARES, Measure, interval, measured
from byol.evaluation.probe import Prediction, Probe, Settings, Task
from byol.evaluation.result import Evaluation, Score

Ids = NDArray[np.int64]

_TOP5_FROM = 6  # classes


@dataclass(frozen=True, eq=False)
class Seen:
    """One subject with its features, on the device to compute on."""

    name: str
    encoder: Encoder
    train_x: Tensor  # (N, D) of all samples of the training data
    test_x: Tensor  # (M, D) of all that may test: the same ones where no other data test


@dataclass(frozen=True, eq=False)
class Division:
    """A training and a test part; data with folds have one for each fold."""

    parts: Parts
    train: Source  # the n training samples
    test: Source  # the m test samples, without their labels
    draws: dict[float, list[Ids]]  # share of the labels -> the rows of `train` of each draw


@dataclass(frozen=True, eq=False)
class Setting:
    """What every protocol and subject have in common."""

    divisions: list[Division]
    views: Mapping[str, object] | None  # of the last encoder that knows its own
    seed: int
    precision: Precision
    workers: int


def under(probe: Probe, seen: Sequence[Seen], setting: Setting, progress: Progress) -> Evaluation:
    """Everything under one protocol."""
    began = time.perf_counter()
    first, scores = setting.divisions[0], []
    metrics = _metrics(probe, first.parts)
    total = len(seen) * len(setting.divisions) * sum(map(len, first.draws.values()))
    done = 0
    for subject in seen:
        for share, draws in first.draws.items():
            outcomes: list[list[Prediction]] = []
            for draw in range(len(draws)):
                outcomes.append([])
                for division in setting.divisions:
                    progress(probe.name, done, total)
                    outcomes[-1].append(_once(probe, subject, setting, division, division.draws[share][draw], progress))
                    done += 1
            scores.append(_score(subject, share, outcomes, setting.divisions, metrics))
    progress(probe.name, done, total)
    return Evaluation(
        protocol=probe.name,
        description=probe.describe().replace(RAW["image"], RAW[first.train.modality]),
        settings=probe.settings() | {"seed": setting.seed},
        train=_mean_count([d.parts.train for d in setting.divisions]),
        test=sum(len(d.parts.test) for d in setting.divisions),
        classes=first.parts.classes,
        split=first.parts.how,
        samples=first.train.words.many,
        metric=metrics[0],
        scores=scores,
        seconds=round(time.perf_counter() - began, 3),
    )


def _metrics(probe: Probe, parts: Parts) -> tuple[Measure, ...]:
    """Those of the protocol, the first one being its score, or the one of the data."""
    own: tuple[Measure, ...] = getattr(probe, "METRICS", ())
    return own or (parts.metric,)


def _once(probe: Probe, subject: Seen, setting: Setting, division: Division, rows: Ids, progress: Progress) -> Prediction:
    """Train with the labels of one draw. The protocol gets no test label."""
    parts, device = division.parts, subject.train_x.device
    return probe.predict(
        Task(
            train_x=subject.train_x[torch.from_numpy(parts.train[rows]).to(device)],
            train_y=torch.from_numpy(parts.train_y[rows]).to(device),
            test_x=subject.test_x[torch.from_numpy(parts.test).to(device)],
            classes=parts.classes,
            encoder=subject.encoder,
            train=division.train if len(rows) == len(division.train) else division.train.subset(rows),
            centred=isinstance(subject.encoder.net, Shrink | OverTime),
            seed=setting.seed,
            precision=setting.precision,
            workers=setting.workers,
            test=division.test,
            views=setting.views,
            progress=progress,
        )
    )


def _score(
    subject: Seen, share: float, outcomes: Sequence[Sequence[Prediction]], divisions: Sequence[Division], metrics: Sequence[Measure]
) -> Score:
    """The outcomes of each draw in each division, measured on the test labels; a draw's score is the mean over the divisions."""
    tests = [torch.from_numpy(d.parts.test_y) for d in divisions]
    (metric, *others), count = metrics, sum(map(len, tests))

    def found(value: Callable[[Tensor, Tensor], float]) -> list[list[float]]:
        return [[value(o.scores, y) for o, y in zip(of_draw, tests, strict=True)] for of_draw in outcomes]

    by_draw = found(partial(measured, metric))
    top1 = [_mean(of_draw) for of_draw in by_draw]
    top5 = metric == "top-1" and divisions[0].parts.classes >= _TOP5_FROM
    used, n = outcomes[0][0].used, len(divisions[0].parts.train)
    return Score(
        name=subject.name,
        labels=share if used is None else used / n,
        n_labels=_mean_count([d.draws[share][0] for d in divisions]) if used is None else used,
        top1=_mean(top1),
        top5=_mean([_mean(of_draw) for of_draw in found(_top5)]) if top5 else None,
        interval=over_draws(top1, count) if len(top1) > 1 else _of_one(metric, top1[0], outcomes[0], tests),
        draws=top1,
        folds=[_mean(of_fold) for of_fold in zip(*by_draw, strict=True)] if len(divisions) > 1 else [],
        dim=subject.train_x.shape[1],
        settings=_merged([o.settings for of_draw in outcomes for o in of_draw]),
        also={m: _mean([_mean(of_draw) for of_draw in found(partial(measured, m))]) for m in others},
    )


def _top5(scores: Tensor, y: Tensor) -> float:
    return float(hits(scores, y, 5).double().mean())


def _of_one(metric: Measure, value: float, outcomes: Sequence[Prediction], tests: Sequence[Tensor]) -> tuple[float, float]:
    """The 95 % interval of a single draw, over all test samples: where there are folds, each sample is tested in one of them."""
    count = sum(map(len, tests))
    if metric in SHARES:
        return wilson(round(value * count), count)
    return interval(metric, torch.cat([o.scores for o in outcomes], -2), torch.cat(list(tests)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_count(rows: Sequence[Ids]) -> int:
    return round(_mean([len(r) for r in rows]))


def _merged(settings: Sequence[Settings]) -> Settings:
    """What was chosen in every draw: one value where all agree, else the values in their order."""
    out: Settings = {}
    for key in dict.fromkeys(k for s in settings for k in s):
        values = [s.get(key, "") for s in settings]
        out[key] = values[0] if len(set(values)) == 1 else " | ".join(map(str, values))
    return out
