"""Data sets by name: the embedded digits, and those that torchvision knows how to fetch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from byol.data import aging_shapes
from byol.data.arrays import open_array
from byol.data.compact import Names
from byol.data.encoded import Files, limited, look, source_of
from byol.data.labels import Labels
from byol.data.source import Ids, Progress, Source

_TRAIN_TEST: Final = ("train", "test")
_TRAIN_VAL_TEST: Final = ("train", "val", "test")


@dataclass(frozen=True)
class Named:
    """How torchvision calls a data set; the first split is the one that the bare name means."""

    cls: str
    megabytes: int  # about, to fetch
    what: str
    splits: tuple[str, ...] = _TRAIN_TEST
    by_flag: bool = False  # torchvision wants train=True, not split="train"
    size: str = ""  # Imagenette's choice of resolution


SETS: Final = {
    "cifar10": Named("CIFAR10", 170, "60,000 photos 32x32, 10 classes", by_flag=True),
    "cifar100": Named("CIFAR100", 170, "60,000 photos 32x32, 100 classes", by_flag=True),
    "stl10": Named("STL10", 2640, "113,000 photos 96x96, 10 classes; most unlabelled", ("unlabeled", "train", "test")),
    "svhn": Named("SVHN", 180, "house numbers 32x32, 10 classes", ("train", "test", "extra")),
    "mnist": Named("MNIST", 12, "70,000 digits 28x28, grey", by_flag=True),
    "fashionmnist": Named("FashionMNIST", 31, "70,000 clothes 28x28, grey, 10 classes", by_flag=True),
    "kmnist": Named("KMNIST", 21, "70,000 Japanese letters 28x28, grey, 10 classes", by_flag=True),
    "usps": Named("USPS", 7, "9,298 digits 16x16, grey", by_flag=True),
    "imagenette": Named("Imagenette", 340, "13,394 photos, short side 320, 10 classes", ("train", "val"), size="320px"),
    "imagenette160": Named("Imagenette", 99, "13,394 photos, short side 160, 10 classes", ("train", "val"), size="160px"),
    "flowers102": Named("Flowers102", 345, "8,189 flowers, 102 classes", _TRAIN_VAL_TEST),
    "oxfordiiitpet": Named("OxfordIIITPet", 810, "7,349 cats and dogs, 37 classes", ("trainval", "test")),
    "food101": Named("Food101", 5000, "101,000 dishes, 101 classes"),
    "dtd": Named("DTD", 600, "5,640 textures, 47 classes", _TRAIN_VAL_TEST),
    "fgvcaircraft": Named("FGVCAircraft", 2750, "10,000 aircraft, 100 classes", ("trainval", "train", "val", "test")),
    "eurosat": Named("EuroSAT", 90, "27,000 satellite pictures 64x64, 10 classes", ("all",)),
    "gtsrb": Named("GTSRB", 360, "51,839 traffic signs, 43 classes"),
    "country211": Named("Country211", 11500, "63,300 photos, 211 countries", ("train", "valid", "test")),
}


def names() -> dict[str, str]:
    """Every name that `open_source` knows, with one line on it."""
    lines = {"digits": "1,797 handwritten digits 8x8, grey, 10 classes; embedded in scikit-learn, nothing to fetch"}
    count, side = aging_shapes.SUBJECTS * aging_shapes.VISITS, aging_shapes.SIZE
    lines[aging_shapes.NAME] = f"{count:,} synthetic shapes {side}x{side} that flatten with age, grey; others as :test; nothing to fetch"
    for name, named in SETS.items():
        lines[name] = f"{named.what}; {', '.join(splits_of(name))}; about {_size(named)} through torchvision"
    return lines


def splits_of(name: str) -> list[str]:
    """The specs of a named set: ["cifar10", "cifar10:test"]; the bare name is its first split."""
    return [name, *(f"{name}:{split}" for split in SETS[name].splits[1:])]


def known(spec: str) -> bool:
    """True for "digits", "cifar10", "CIFAR10:test"."""
    name = spec.lower().partition(":")[0]
    return name in ("digits", aging_shapes.NAME) or name in SETS


def open_named(
    spec: str, *, limit: int | None = None, download: bool = False, root: Path | None = None, progress: Progress | None = None
) -> Source:
    """NAME or NAME:SPLIT -> its source; fetches nothing unless `download` is True."""
    name, _, split = spec.lower().partition(":")
    if name == "digits":
        if split:
            raise ValueError(f"digits has no split {split!r}; give digits")
        return _digits(spec, limit)
    if name == aging_shapes.NAME:
        if split not in ("", "test"):
            raise ValueError(f"{name} has no split {split!r}; give {name} or {name}:test")
        return limited(aging_shapes.draw(seed=int(split == "test")).source(spec), limit)
    named = SETS[name]
    split = split or named.splits[0]
    if split not in named.splits:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(named.splits)}")
    folder = root or Path.home() / ".cache" / "byol"
    data = _torchvision(spec, named, split, folder, download)
    return _source(spec, name, split, data, limit, progress)


def _digits(spec: str, limit: int | None) -> Source:
    """scikit-learn's digits: 1,797 of 8x8, whose values 0 to 16 become 0 to 255."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = np.round(np.asarray(bunch.images) * (255 / 16)).astype(np.uint8)
    source = open_array(x, np.asarray(bunch.target), spec=spec, kind="digits", limit=limit)
    return replace(source, notes=source.notes[1:])


def _size(named: Named) -> str:
    return f"{named.megabytes / 1000:.1f} GB" if named.megabytes >= 1000 else f"{named.megabytes} MB"


def _torchvision(spec: str, named: Named, split: str, folder: Path, download: bool) -> object:
    """The torchvision data set, from the folder or, if asked, from the net."""
    absent = (
        f"{spec} is not in {folder}: fetching it takes about {_size(named)}; say so with --download (download=True), "
        "or give a folder of your own"
    )
    # torchvision takes seconds to import: not needed to say that an empty folder is empty.
    if not download and not (folder.is_dir() and any(folder.iterdir())):
        raise ValueError(absent)
    from torchvision import datasets

    make, options = getattr(datasets, named.cls), _options(named, split, folder)
    try:
        return make(**options)
    except (RuntimeError, OSError) as error:
        if not download:
            raise ValueError(absent) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return make(**options, download=True)
    except (RuntimeError, OSError, ValueError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ValueError(f"{spec} could not be fetched ({text}); try again, or put it into {folder} yourself") from error


def _options(named: Named, split: str, folder: Path) -> dict[str, object]:
    options: dict[str, object] = {"root": str(folder)}
    if named.by_flag:
        options["train"] = split == "train"
    elif named.splits != ("all",):
        options["split"] = split
    if named.size:
        options["size"] = named.size
    return options


def _source(spec: str, name: str, split: str, data: object, limit: int | None, progress: Progress | None) -> Source:
    """A torchvision data set that keeps an array or a list of files -> our source of the same."""
    classes = tuple(str(c) for c in getattr(data, "classes", ()))
    pictures = getattr(data, "data", None)
    if pictures is not None:
        x = np.asarray(pictures)
        found = _labels(getattr(data, "targets", getattr(data, "labels", None)), classes)
        source = open_array(x, None, spec=spec, kind="torchvision")
        source = replace(source, labels=found.values, classes=list(found.classes), notes=())
        source = replace(source, names=Names.of(f"{name}/{split}/{i}" for i in range(len(x))))
        return limited(source, limit)
    paths, values = _files(data)
    found = _labels(values, classes)
    root = os.path.commonpath([os.path.dirname(p) for p in paths])
    blobs = Files(root, Names.of(Path(p).relative_to(root).as_posix() for p in paths))

    def labels(used: Ids) -> Labels:
        return Labels() if found.values is None else Labels(found.values[used], found.classes)

    return source_of(blobs, look(blobs, progress), spec=spec, kind="torchvision", labels=labels, limit=limit)


def _files(data: object) -> tuple[list[str], Sequence[int]]:
    """The paths and classes of a torchvision data set of files, in its order."""
    for attribute in ("_samples", "samples"):
        if (pairs := getattr(data, attribute, None)) is not None:
            return [str(p) for p, _ in pairs], [int(c) for _, c in pairs]
    for attribute in ("_image_files", "_images"):
        if (paths := getattr(data, attribute, None)) is not None:
            return [str(p) for p in paths], [int(c) for c in getattr(data, "_labels", ())]
    raise ValueError(f"this version of torchvision keeps {type(data).__name__} in a way that is not known here; use its folder instead")


def _labels(values: Sequence[int] | None, classes: tuple[str, ...]) -> Labels:
    if values is None or not len(values):
        return Labels()
    labels = np.asarray(values, np.int64)
    return Labels(labels, classes or tuple(str(c) for c in range(int(labels.max()) + 1)))
