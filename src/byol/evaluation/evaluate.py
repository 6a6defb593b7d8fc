"""What features are worth: labelled images, a split, the features of everything compared, and a score under each protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from byol.evaluation.baselines import plain_input, raw
from byol.evaluation.features import BATCH, Features, Precision, Progress, extract, mean_length
from byol.evaluation.finetune import FineTune
from byol.evaluation.labelled import Parts, divide, in_classes_of, several, with_labels
from byol.evaluation.linear_sgd import LinearSgd
from byol.evaluation.probe import Probe
from byol.evaluation.result import Evaluation
from byol.evaluation.scoring import Division, Seen, Setting, under
from byol.evaluation.semi import Semi
from byol.evaluation.sound import EvarLinear, SoundLinear
from byol.evaluation.transfer import SIZE, Transfer, uncropped

Subject = tuple[str, Encoder | None]  # name and encoder; None: the pixels of what the last encoder sees
Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Looks:
    """The features of all images by every subject, as the protocols want to see them: cropped, or whole for a transfer."""

    names: list[str]
    encoders: list[Encoder]
    by_kind: dict[bool, list[Encoder]]  # whether for a transfer -> the encoders; most see the same either way
    every: list[Encoder]  # each of them once
    train: list[Features]  # of each
    test: list[Features]

    @classmethod
    def of(
        cls,
        subjects: Sequence[Subject],
        probes: Sequence[Probe],
        train: Source,
        test: Source | None,
        look: Callable[[Sequence[Encoder], Source], list[Features]],
    ) -> _Looks:
        encoders = _encoders(subjects, train)
        by_kind = {kind: [uncropped(e) for e in encoders] if kind else encoders for kind in {isinstance(p, Transfer) for p in probes}}
        every = list({id(e): e for of_kind in by_kind.values() for e in of_kind}.values())
        found = look(every, train)
        return cls([name for name, _ in subjects], encoders, by_kind, every, found, found if test is None else look(every, test))

    def seen(self, place: str) -> dict[bool, list[Seen]]:
        """By kind, on the device to compute on; ValueError for features that are no numbers."""
        called = {id(e): name for of_kind in self.by_kind.values() for name, e in zip(self.names, of_kind, strict=True)}
        train = [_checked(f, called[id(e)], place) for e, f in zip(self.every, self.train, strict=True)]
        one = self.test is self.train
        test = train if one else [_checked(f, called[id(e)], place) for e, f in zip(self.every, self.test, strict=True)]
        rows = {id(e): of_one for e, *of_one in zip(self.every, train, test, strict=True)}
        return {
            kind: [Seen(name, e, *rows[id(e)]) for name, e in zip(self.names, encoders, strict=True)]
            for kind, encoders in self.by_kind.items()
        }


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

    Without `test`, each fold of `train` tests in turn where it has official ones, else a stratified fifth: of whole groups where
    samples have them, the last in time where times are known. `draws` are of shares below 1. `workers` processes decode for protocols
    that train on crops; None: none on a CPU, which they would take it from, else one per core up to 8.
    Of several processes the first one gets the scores and the others nothing.
    Raises ValueError in one sentence when data, labels or settings cannot be used.
    """
    probes = _probes(protocols, [name for name, _ in subjects], len(labels), draws)
    _usable(probes, labels, train, test)
    notes = [*_unlabelled(train, test), *_unopened(train, test), *(train.notes if train.official is not None else ())]
    train = with_labels(train)
    test = None if test is None else in_classes_of(train, with_labels(test))
    for parts in divide(train, test, seed=seed):
        _draws(parts, labels, draws, seed)  # what is impossible is said before hours of features
    began = time.perf_counter()
    samples = mean_length(train.headers.width) if train.modality == "sound" else None  # of every clip, those that test too
    notes += _heard(train, samples)
    look = partial(extract, batch=batch, device=device, precision=precision, samples=samples, progress=progress)
    looks = _Looks.of(subjects, probes, train, test, look)
    if dist.rank():  # the features are shared work, what follows is not
        return []
    feature_seconds = round(time.perf_counter() - began, 3)
    train = _readable(train, looks.train, notes)
    readable_test = None if test is None else _readable(test, looks.test, notes)
    divided = divide(train, readable_test, seed=seed)
    seen = looks.seen("cpu" if device == "mps" else device)  # mps has no float64
    workers = workers if workers is not None else 0 if device == "cpu" else min(8, cores())
    blind = replace(train if readable_test is None else readable_test, labels=None, official=None)
    known = next((e.provenance["views"] for _, e in reversed(subjects) if e is not None and "views" in e.provenance), None)
    setting = Setting(
        divisions=[Division(p, train.subset(p.train), blind.subset(p.test), _draws(p, labels, draws, seed)) for p in divided],
        views=known if isinstance(known, dict) else None,
        seed=seed,
        precision=precision,
        workers=workers,
    )
    with dist.apart():  # the others have left
        results = [under(probe, seen[isinstance(probe, Transfer)], setting, progress) for probe in probes]
    notes += dict.fromkeys(note for parts in divided for note in parts.notes)
    more = [_smaller(looks.encoders) if isinstance(probe, Transfer) else [] for probe in probes]
    return [replace(r, notes=notes + m, feature_seconds=feature_seconds) for r, m in zip(results, more, strict=True)]


def _probes(protocols: Sequence[str | Probe], names: Sequence[str], labels: int, draws: int) -> list[Probe]:
    """The protocols themselves; ValueError for an empty or ambiguous request."""
    if draws < 1 or not names or not protocols or not labels:
        counts = f"{len(names)} encoders, {len(protocols)} protocols, {labels} label shares, {draws} draws"
        raise ValueError(f"there is nothing to evaluate: {counts}; give one or more of each")
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise ValueError(f"two encoders are called {twice!r}, and their rows could not be told apart; give each its own name")
    return [named.load(p) if isinstance(p, str) else p for p in protocols]


def _usable(probes: Sequence[Probe], labels: Sequence[float], train: Source, test: Source | None) -> None:
    """ValueError for what cannot be done with these data."""
    if train.modality != "image" and (of_images := next((p.name for p in probes if _needs_images(p)), None)):
        has, others = {"sound": ("has sounds", "sound-linear or evar-linear")}.get(train.modality, ("is a recording", "reach or state"))
        raise ValueError(f"{of_images} is for images, and {train.spec} {has}; give knn, linear, {others}")
    if test is not None and "sound" in (train.modality, test.modality) and (train.modality, train.rate) != (test.modality, test.rate):
        others = ", ".join(f"{s.spec} has {s.words.many}" + f" of {s.rate:,} Hz" * (s.rate > 0) for s in (train, test))
        raise ValueError(f"{others}: one cannot be tested on the other; give data of the same kind and rate")
    if test is not None and train.modality != "image" and (train.modality, train.channels) != (test.modality, test.channels):
        others = ", ".join(f"{s.spec} has {s.channels} {s.words.channels}" for s in (train, test))
        raise ValueError(f"{others}: one cannot be tested on the other; give a recording of the same neurons")
    if several(train) is None:
        return
    what = f"the {train.words.many} of {train.spec} have several classes"
    if other := next((p.name for p in probes if not isinstance(p, Transfer | SoundLinear | EvarLinear)), None):
        mend = "sound-linear or evar-linear" if train.modality == "sound" else "transfer"
        raise ValueError(f"{what}, which {other} cannot predict; give --protocol {mend}")
    if set(labels) != {1.0}:
        raise ValueError(f"{what}, so shares of the labels cannot be drawn by class; leave --labels out")
    if test is None:
        raise ValueError(f"{what}, and no part of them can be held out by class; give the test {train.words.many}")


def _heard(source: Source, samples: int | None) -> list[str]:
    """A note on how much of a sound is heard."""
    if samples is None or int(np.ptp(source.headers.width)) == 0:
        return []
    return [f"every sound is cut, or followed by silence, to the mean length of {samples / source.rate:.2f} s"]


def _needs_images(probe: Probe) -> bool:
    """Whether it crops them, or is a protocol of image sets."""
    return isinstance(probe, Semi | FineTune | Transfer) or (isinstance(probe, LinearSgd) and probe.augment)


def _smaller(encoders: Sequence[Encoder]) -> list[str]:
    """A note where the images are not seen at the size of the paper."""
    size = encoders[-1].images.size
    return [] if size == SIZE else [f"seen at {size} px, the encoder's own size; the paper's is {SIZE}"]


def _draws(parts: Parts, labels: Sequence[float], draws: int, seed: int) -> dict[float, list[Ids]]:
    """Share of the labels -> the rows of each draw; all labels can be drawn in one way only."""
    every = np.arange(len(parts.train_y))
    drawn = partial(splits.draw_labels, parts.train_y, seed=seed, ties=parts.ties)
    return {s: [every] if s == 1 else [drawn(s, draw=d) for d in range(draws)] for s in labels}


def _encoders(subjects: Sequence[Subject], train: Source) -> list[Encoder]:
    """Every subject's encoder; raw data are seen as by the last real one."""
    real = [encoder for _, encoder in subjects if encoder is not None]
    baseline = raw(real[-1].input if real else plain_input(train))
    return [baseline if encoder is None else encoder for _, encoder in subjects]


def _readable(source: Source, found: Sequence[Features], notes: list[str]) -> Source:
    """The images that have features; a note about the others."""
    skipped = found[0].skipped
    if not skipped:
        return source
    notes.append(f"{len(skipped):,} images could not be read and are left out (first: {skipped[0].name}: {skipped[0].reason})")
    return source.subset(found[0].kept)


def _checked(found: Features, name: str, device: str) -> Tensor:
    """The features on the device; ValueError for what is no number."""
    bad = int((~np.isfinite(found.x)).any(1).sum())
    if bad:
        why = "its training diverged, or its input is wrong"
        raise ValueError(f"{name} gives features that are not finite numbers for {bad} of {len(found.x)} samples; {why}")
    return torch.from_numpy(found.x).to(device)


def _unopened(*sources: Source | None) -> list[str]:
    found = [s for source in sources if source is not None for s in source.skipped]
    return [f"{len(found):,} files left out (first: {found[0].name}: {found[0].reason})"] if found else []


def _unlabelled(*sources: Source | None) -> list[str]:
    count = sum(int((s.labels < 0).sum()) for s in sources if s is not None and s.labels is not None)
    many = next((s.words.many for s in sources if s is not None), "")
    return [f"{count:,} {many} without a label left out"] if count else []
