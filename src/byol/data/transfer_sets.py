"""The twelve classification sets that BYOL's transfer experiments compare on (Grill et al. 2020, appendix D): NAME:FOLDER -> sources.

`open_transfer` gives training and validation images as one source, which says which are which; the test images are another one.
What is drawn at random is drawn once, from a seed that never changes: everybody has the same split.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from byol.data import transfer_lists as lists
from byol.data.arrays import open_array
from byol.data.compact import Names
from byol.data.encoded import Files, limited, look, source_of
from byol.data.labels import Labels
from byol.data.named import SETS as FETCHED
from byol.data.source import Ids, Metric, Official, Progress, Source, shown
from byol.data.transfer_lists import Lists, Part

Mask = npt.NDArray[np.bool_]

_SEED: Final = 0
_VALIDATION, _TEST = 10, 11  # counters of the random orders


@dataclass(frozen=True)
class TransferSet:
    """What is compared on a set, where it lies, and how its validation images are found."""

    read: Callable[[Path], Lists]
    places: tuple[tuple[str, str], ...]  # (the set's folder within FOLDER, a file or folder in it)
    counts: tuple[int, int, int]  # images that train, validate and test in the paper's table
    metric: Metric
    what: str
    get: str  # what to fetch
    carve: int | Literal["official", "share", "as test"]  # validation images: so many a class, the creators', ...


TRANSFER_SETS: Final = {
    "food101": TransferSet(
        lists.food101, (("food-101", "meta"), (".", "meta")), (68_175, 7_575, 25_250), "top-1",
        "101 dishes, 5.0 GB", "food-101.tar.gz of ETH Zurich", "share",
    ),
    "cifar10": TransferSet(
        lists.cifar10,
        (("cifar-10-batches-bin", "batches.meta.txt"), (".", "batches.meta.txt"), ("cifar-10-batches-py", "batches.meta")),
        (45_000, 5_000, 10_000), "top-1", "10 classes of 32 px, 170 MB", "cifar-10-binary.tar.gz of the University of Toronto", "share",
    ),
    "cifar100": TransferSet(
        lists.cifar100,
        (("cifar-100-binary", "fine_label_names.txt"), (".", "fine_label_names.txt"), ("cifar-100-python", "meta")),
        (44_933, 5_067, 10_000), "top-1", "100 classes of 32 px, 170 MB", "cifar-100-binary.tar.gz of the University of Toronto", "share",
    ),
    "birdsnap": TransferSet(
        lists.birdsnap, (("birdsnap", "test_images.txt"), (".", "test_images.txt")), (42_405, 4_981, 2_443), "top-1",
        "500 birds, some 20 GB", "birdsnap.tgz (1.1), and the pictures by the get_birdsnap.py in it", "as test",
    ),
    "sun397": TransferSet(
        lists.sun397, (("SUN397", "a"), (".", "a")), (15_880, 3_970, 19_850), "top-1",
        "397 scenes, 37 GB", "SUN397.tar.gz and Partitions.zip of Princeton", 10,
    ),
    "cars": TransferSet(
        lists.cars, (("stanford_cars", "devkit"), (".", "devkit")), (6_494, 1_650, 8_041), "top-1",
        "196 cars, 2.0 GB", "cars_train, cars_test, devkit and cars_test_annos_withlabels.mat of Stanford", "share",
    ),
    "aircraft": TransferSet(
        lists.aircraft, (("fgvc-aircraft-2013b", "data"), (".", "data")), (3_334, 3_333, 3_333), "mean per class",
        "100 aircraft, 2.8 GB", "fgvc-aircraft-2013b.tar.gz of Oxford", "official",
    ),
    "voc2007": TransferSet(
        lists.voc2007, (("VOCdevkit/VOC2007", "ImageSets"), ("VOC2007", "ImageSets"), (".", "ImageSets")), (2_501, 2_510, 4_952),
        "11-point mAP", "20 classes, several an image, 0.9 GB", "VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar", "official",
    ),
    "dtd": TransferSet(
        lists.dtd, (("dtd/dtd", "labels"), ("dtd", "labels"), (".", "labels")), (1_880, 1_880, 1_880), "top-1",
        "47 textures, 0.6 GB", "dtd-r1.0.1.tar.gz of Oxford", "official",
    ),
    "pets": TransferSet(
        lists.pets, (("oxford-iiit-pet", "annotations"), (".", "annotations")), (2_940, 740, 3_669), "mean per class",
        "37 cats and dogs, 0.8 GB", "images.tar.gz and annotations.tar.gz of Oxford's pets", 20,
    ),
    "caltech101": TransferSet(
        lists.caltech101,
        (*((f"{f}101_ObjectCategories", ".") for f in ("caltech101/", "caltech-101/", "")), (".", "accordion")),
        (2_550, 510, 6_084), "mean per class", "102 classes with the background, 140 MB", "101_ObjectCategories.tar.gz of Caltech", 5,
    ),
    "flowers102": TransferSet(
        lists.flowers102, (("flowers-102", "setid.mat"), (".", "setid.mat")), (1_020, 1_020, 6_149), "mean per class",
        "102 flowers, 0.35 GB", "102flowers.tgz, imagelabels.mat and setid.mat of Oxford", "official",
    ),
}  # fmt: skip
_TRAIN_OF_CALTECH: Final = 30  # images a class, validation among them; all others test


def transfer_names() -> dict[str, str]:
    """Every set as it is written, with one line on it."""
    return {f"{name}:FOLDER": f"{s.what}; for --protocol transfer, {s.metric}; unpack it below FOLDER" for name, s in TRANSFER_SETS.items()}


def is_transfer(spec: str) -> bool:
    """True for "pets:/data", and for "pets" alone, which is looked for in $BYOL_DATA.

    "dtd" and "dtd:test" are those of `open_named`, which torchvision fetches.
    """
    name, _, rest = spec.partition(":")
    if name.lower() not in TRANSFER_SETS:
        return False
    folder = "/" in rest or (bool(rest) and Path(rest).is_dir())
    fetched = FETCHED.get(name.lower())
    return fetched is None or (folder and rest.lower() not in fetched.splits)


def open_transfer(
    spec: str, part: Literal["train", "test"] = "train", *, limit: int | None = None, progress: Progress | None = None
) -> Source:
    """The images that train and validate, or those that test; `Source.official` says what is what. ValueError if they are not there.

    `limit` keeps at most so many of the part, spread over its classes.
    """
    name, _, folder = spec.partition(":")
    known = TRANSFER_SETS[name.lower()]
    root = _root(spec, known, Path(folder or os.environ.get("BYOL_DATA") or Path.home() / ".cache" / "byol").expanduser())
    try:
        found = known.read(root)
    except OSError as error:
        place = error.filename or root
        raise ValueError(f"{spec}: {place} cannot be read ({(error.strerror or 'unknown error').lower()}); get {known.get}") from error
    train, val, test = _parts(known, found)
    if part == "test":
        source = _source(f"{spec} test", found, test, progress)
        official = Official(known.metric, np.zeros(len(test.names), bool), test.y if test.y.ndim == 2 else None)
        return limited(_marked(source, test, found.classes, official), limit)
    source = _source(spec, found, train, progress)
    official = Official(known.metric, val, train.y if train.y.ndim == 2 else None)
    counts = int((~val).sum()), int(val.sum()), len(test.names)
    return limited(_counted(_marked(source, train, found.classes, official), known, counts), limit)


def _root(spec: str, known: TransferSet, folder: Path) -> Path:
    """The set's own folder."""
    root = next((folder / place for place, mark in known.places if (folder / place / mark).exists()), None)
    if root is None:
        place, mark = known.places[0]
        at = shown(str(folder / place / mark))
        raise ValueError(f"{spec} is not in {shown(str(folder))}: {at} is missing; get {known.get} and unpack it there")
    return root


def _parts(known: TransferSet, found: Lists) -> tuple[Part, Mask, Part]:
    """Train and validation together, which of them validate, and test."""
    train, test = found.train, found.test
    if not train.names or (test is not None and not test.names):
        raise ValueError(f"{found.root} has no images of the {'test' if train.names else 'training'} part; get {known.get}")
    if found.val is not None:
        assert test is not None
        y, names = np.concatenate([train.y, found.val.y]), [*train.names, *found.val.names]
        return Part(y, names), np.arange(len(names)) >= len(train.names), test
    if test is None:
        used = _some_of_each(train.y, np.full(len(found.classes), _TRAIN_OF_CALTECH), _TEST)
        train, test = _rows(train, np.flatnonzero(used)), _rows(train, np.flatnonzero(~used))
    sizes = np.bincount(train.y, minlength=len(found.classes))
    if known.carve == "share":
        counts = _proportional(sizes, known.counts[1] / sum(known.counts[:2]))
    elif known.carve == "as test":
        counts = np.bincount(test.y, minlength=len(found.classes))
    else:
        counts = np.full(len(found.classes), known.carve)
    return train, _some_of_each(train.y, counts, _VALIDATION), test


def _rows(part: Part, rows: Ids) -> Part:
    return Part(part.y[rows], [part.names[i] for i in rows])


def _some_of_each(y: Ids, counts: Ids, purpose: int) -> Mask:
    """(n,) classes, (C,) how many of each -> (n,) bool: so many at random; the last one of a class is never taken."""
    from byol import rng

    order = rng.permutation(_SEED, purpose, len(y), stream=rng.STREAM_SPLIT).numpy()
    out = np.zeros(len(y), bool)
    for c, count in enumerate(counts):
        members = order[y[order] == c]
        out[members[: max(0, min(int(count), len(members) - 1))]] = True
    return out


def _proportional(sizes: Ids, share: float) -> Ids:
    """(C,) -> (C,) that share of each, whose sum is that share of all (largest remainder)."""
    quota = sizes * share
    counts: Ids = np.floor(quota).astype(np.int64)
    counts[np.argsort(counts - quota, kind="stable")[: round(float(quota.sum())) - int(counts.sum())]] += 1
    return counts


def _source(spec: str, found: Lists, part: Part, progress: Progress | None) -> Source:
    if part.x is not None:
        source = open_array(part.x, None, spec=spec, kind="array")
        return replace(source, names=Names.of(part.names), notes=())
    blobs = Files(str(found.root), Names.of(part.names))
    return source_of(blobs, look(blobs, progress), spec=spec, kind="list", labels=lambda used: Labels())


def _marked(source: Source, part: Part, classes: Sequence[str], official: Official) -> Source:
    """The source of a part with its classes and what is official; some images of the part may be unreadable."""
    row = {name: i for i, name in enumerate(part.names)}
    rows = np.array([row[name] for name in source.names], np.int64)
    labels = None if part.y.ndim == 2 else part.y[rows]
    return replace(source, labels=labels, classes=list(classes), official=official.take(rows))


def _counted(source: Source, known: TransferSet, counts: tuple[int, int, int]) -> Source:
    """With a note where the set is not as large as in the paper's table."""
    if counts == known.counts:
        return source
    ours, theirs = (" / ".join(f"{n:,}" for n in c) for c in (counts, known.counts))
    return replace(source, notes=(*source.notes, f"{ours} images train / validate / test, where the paper has {theirs}"))
