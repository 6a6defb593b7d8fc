"""The twelve sets of the transfer experiments as their creators hand them out: a folder -> the images of each part and their classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from byol.data.annotations import inside, mat, text_lines, voc_objects
from byol.data.source import Ids, Pixels

VOC_CLASSES: Final = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
]


@dataclass(frozen=True, eq=False)
class Part:
    """Some images of a set and their classes."""

    y: Ids  # (n,) index into the classes; (n, C) of 1, 0 and -1 (not counted) where an image has several
    names: list[str]  # (n,) paths below the set's root with "/"; of arrays any name
    x: Pixels | None = None  # (n, H, W, 3) uint8 where the set is an array


@dataclass(frozen=True, eq=False)
class Lists:
    """A set as it lies on the disk. Without `val` or `test` they are carved from `train`."""

    root: Path
    classes: list[str]
    train: Part
    val: Part | None = None
    test: Part | None = None


def food101(root: Path) -> Lists:
    """food-101: meta/classes.txt, meta/train.txt, meta/test.txt of CLASS/NUMBER, images/."""
    classes = text_lines(root / "meta" / "classes.txt")
    parts = [_of_lines(root / "meta" / f"{part}.txt", classes, lambda line: (line.split("/")[0], f"images/{line}.jpg")) for part in _TWO]
    return Lists(root, classes, parts[0], test=parts[1])


def sun397(root: Path) -> Lists:
    """SUN397: the first of the ten splits, Training_01.txt and Testing_01.txt of /a/abbey/sun_....jpg."""
    lists = next(
        (d for d in (root, root / "Partitions", root.parent, root.parent / "Partitions") if (d / "Training_01.txt").exists()), root
    )
    classes = [
        line.strip("/")
        for line in text_lines(next(d for d in (lists, root) if d == root or (d / "ClassName.txt").exists()) / "ClassName.txt")
    ]
    parts = [
        _of_lines(lists / f"{part}_01.txt", classes, lambda line: (line.strip("/").rpartition("/")[0], line.lstrip("/"))) for part in _SUN
    ]
    return Lists(root, classes, parts[0], test=parts[1])


def aircraft(root: Path) -> Lists:
    """fgvc-aircraft-2013b: data/variants.txt, data/images_variant_PART.txt of NUMBER VARIANT, data/images/."""
    classes = text_lines(root / "data" / "variants.txt")

    def entry(line: str) -> tuple[str, str]:
        number, _, variant = line.partition(" ")
        return variant.strip(), f"data/images/{number}.jpg"

    parts = [_of_lines(root / "data" / f"images_variant_{part}.txt", classes, entry) for part in _THREE]
    return Lists(root, classes, *parts)


def dtd(root: Path) -> Lists:
    """dtd: the first of the ten splits, labels/PART1.txt of CLASS/NAME.jpg, images/."""
    classes = sorted({line.split("/")[0] for part in _THREE for line in text_lines(root / "labels" / f"{part}1.txt")})
    parts = [_of_lines(root / "labels" / f"{part}1.txt", classes, lambda line: (line.split("/")[0], f"images/{line}")) for part in _THREE]
    return Lists(root, classes, *parts)


def pets(root: Path) -> Lists:
    """oxford-iiit-pet: annotations/trainval.txt and test.txt of NAME_NUMBER CLASS SPECIES BREED, images/."""
    paths = [root / "annotations" / f"{part}.txt" for part in ("trainval", "test")]
    rows = [(path, line.split()) for path in paths for line in text_lines(path) if not line.startswith("#")]
    numbers = {row[0].rpartition("_")[0]: _whole(path, row[1:2]) for path, row in rows}
    classes = sorted(numbers, key=lambda name: (numbers[name], name))

    def entry(line: str) -> tuple[str, str]:
        name = line.split()[0]
        return name.rpartition("_")[0], f"images/{name}.jpg"

    train, test = (_of_lines(path, classes, entry) for path in paths)
    return Lists(root, classes, train, test=test)


def birdsnap(root: Path) -> Lists:
    """birdsnap: species.txt, images.txt and test_images.txt, separated by tabs; images in download/images/ or images/.

    Many of the pictures' addresses are dead: those that are not on the disk are no part of the set.
    """
    species = _columns(root / "species.txt", "id", "dir")
    classes = [name for _, name in species]
    number = {key: i for i, (key, _) in enumerate(species)}
    at = next((f for f in ("download/images", "images") if (root / f).is_dir()), "images")
    tests = set(text_lines(root / "test_images.txt")[1:])
    known = _columns(root / "images.txt", "path", "species_id")
    inside(root / "images.txt", [path for path, _ in known])
    rows = [(path, key) for path, key in known if (root / at / path).is_file()]
    if strange := next((key for _, key in rows if key not in number), None):
        raise ValueError(
            f"{root / 'images.txt'} has the species {strange[:40]!r}, which species.txt lacks; unpack the official archive again"
        )
    train, test = (
        _part([f"{at}/{path}" for path, _ in some], [number[key] for _, key in some])
        for some in ([r for r in rows if r[0] not in tests], [r for r in rows if r[0] in tests])
    )
    return Lists(root, classes, train, test=test)


def cars(root: Path) -> Lists:
    """stanford_cars: devkit/cars_meta.mat, devkit/cars_train_annos.mat, cars_test_annos_withlabels.mat, cars_train/, cars_test/."""
    classes = [str(name) for name in np.atleast_1d(mat(root / "devkit" / "cars_meta.mat", "class_names"))]

    def part(path: Path, folder: str) -> Part:
        rows = np.atleast_1d(mat(path, "annotations"))
        if not {"class", "fname"} <= set(rows.dtype.names or ()):
            raise ValueError(f"{path} has no classes and names of images; take the one with labels of the official archive")
        names = inside(path, [str(n) for n in rows["fname"]])
        return _part([f"{folder}/{n}" for n in names], _from_one(path, rows["class"], len(classes)))

    labelled = next((p for p in (root / _CARS_TEST, root / "devkit" / _CARS_TEST) if p.exists()), root / _CARS_TEST)
    return Lists(root, classes, part(root / "devkit" / "cars_train_annos.mat", "cars_train"), test=part(labelled, "cars_test"))


def flowers102(root: Path) -> Lists:
    """flowers-102: imagelabels.mat, setid.mat (trnid, valid, tstid), jpg/image_00001.jpg."""
    labels = np.array(_from_one(root / "imagelabels.mat", np.atleast_1d(mat(root / "imagelabels.mat", "labels")), 1000))

    def part(name: str) -> Part:
        rows = np.array(_from_one(root / "setid.mat", np.atleast_1d(mat(root / "setid.mat", name)), len(labels)), np.int64)
        return _part([f"jpg/image_{i + 1:05d}.jpg" for i in rows], labels[rows])

    return Lists(root, [str(i + 1) for i in range(int(labels.max()) + 1)], part("trnid"), part("valid"), part("tstid"))


def caltech101(root: Path) -> Lists:
    """101_ObjectCategories: a folder for each class. BACKGROUND_Google is one of 102: only so there are 3,060 + 6,084 images."""
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    names = [sorted(entry.name for entry in os.scandir(root / c) if entry.name.lower().endswith(".jpg")) for c in classes]
    y = [i for i, of_class in enumerate(names) for _ in of_class]
    return Lists(root, classes, _part([f"{c}/{n}" for c, of_class in zip(classes, names, strict=True) for n in of_class], y))


def voc2007(root: Path) -> Lists:
    """VOCdevkit/VOC2007 of both archives: ImageSets/Main/PART.txt, Annotations/, JPEGImages/.

    A class is there if an object of it is not "difficult", and not counted where all of its objects are.
    """

    def part(name: str) -> Part:
        path = root / "ImageSets" / "Main" / f"{name}.txt"
        ids = inside(path, [line.split()[0] for line in text_lines(path)])
        y = np.stack([_voc_row(root / "Annotations" / f"{i}.xml") for i in ids]) if ids else np.zeros((0, len(VOC_CLASSES)), np.int64)
        return Part(y, [f"JPEGImages/{i}.jpg" for i in ids])

    return Lists(root, VOC_CLASSES, part("train"), part("val"), part("test"))


def cifar10(root: Path) -> Lists:
    """cifar-10-batches-bin, or cifar-10-batches-py through torchvision."""
    if not (root / "data_batch_1.bin").exists():
        return _cifar_of_torchvision(root, "CIFAR10")
    classes = text_lines(root / "batches.meta.txt")
    train = _records([root / f"data_batch_{i}.bin" for i in range(1, 6)], 1, len(classes), "train")
    return Lists(root, classes, train, test=_records([root / "test_batch.bin"], 1, len(classes), "test"))


def cifar100(root: Path) -> Lists:
    """cifar-100-binary, or cifar-100-python through torchvision; the fine classes."""
    if not (root / "train.bin").exists():
        return _cifar_of_torchvision(root, "CIFAR100")
    classes = text_lines(root / "fine_label_names.txt")
    train, test = (_records([root / f"{part}.bin"], 2, len(classes), part) for part in _TWO)
    return Lists(root, classes, train, test=test)


_TWO: Final = ("train", "test")
_SUN: Final = ("Training", "Testing")
_THREE: Final = ("train", "val", "test")
_CARS_TEST: Final = "cars_test_annos_withlabels.mat"


def _of_lines(path: Path, classes: Sequence[str], entry: Callable[[str], tuple[str, str]]) -> Part:
    """A list whose lines give (class, path of the image)."""
    pairs = [entry(line) for line in text_lines(path) if not line.startswith("#")]
    number = {name: i for i, name in enumerate(classes)}
    if (strange := next((c for c, _ in pairs if c not in number), None)) is not None:
        raise ValueError(f"{path} has the class {strange[:40]!r}, which the set does not know; unpack the official archive again")
    return _part(inside(path, [name for _, name in pairs]), [number[c] for c, _ in pairs])


def _part(names: list[str], y: Sequence[int] | npt.NDArray[np.integer]) -> Part:
    return Part(np.asarray(y, np.int64).reshape(-1), names)


def _columns(path: Path, *wanted: str) -> list[tuple[str, str]]:
    """Two columns, by their names in the first row, of a table separated by tabs."""
    rows = [line.split("\t") for line in text_lines(path)]
    if not rows or not set(wanted) <= set(rows[0]):
        raise ValueError(f"{path} has no columns {' and '.join(wanted)}; unpack the official archive again")
    a, b = (rows[0].index(name) for name in wanted)
    if short := next((i for i, row in enumerate(rows, 1) if len(row) <= max(a, b)), None):
        raise ValueError(f"{path} is cut off in row {short:,}; unpack the official archive again")
    return [(row[a], row[b]) for row in rows[1:]]


def _whole(path: Path, cells: Sequence[str]) -> int:
    if not cells or not cells[0].isdecimal() or len(cells[0]) > 9:
        raise ValueError(f"{path} has a row without the number of its class; unpack the official archive again")
    return int(cells[0])


def _from_one(path: Path, values: npt.NDArray[np.generic], count: int) -> list[int]:
    """MATLAB's numbers 1 .. count -> 0 .. count - 1."""
    try:
        numbers = [int(v) - 1 for v in values]
    except (TypeError, ValueError, OverflowError):
        numbers = [-1]
    if not numbers or min(numbers) < 0 or max(numbers) >= count:
        raise ValueError(f"{path} holds values that are no numbers from 1 to {count:,}; unpack the official archive again")
    return numbers


def _voc_row(path: Path) -> Ids:
    """(C,) of 1, 0 and -1."""
    row = np.zeros(len(VOC_CLASSES), np.int64)
    for name, difficult in voc_objects(path):
        if name not in VOC_CLASSES:
            raise ValueError(f"{path} has an object of the class {name[:40]!r}, which VOC2007 has not; unpack the official archive again")
        i = VOC_CLASSES.index(name)
        row[i] = row[i] or -1 if difficult else 1
    return row


def _records(paths: Sequence[Path], labels: int, classes: int, part: str) -> Part:
    """Files of records: `labels` bytes, of which the last is the class, then 3 x 32 x 32 of pixels."""
    size = labels + 3072
    found = []
    for path in paths:
        data = np.fromfile(path, np.uint8)
        if not len(data) or len(data) % size or data[labels - 1 :: size].max() >= classes:
            raise ValueError(
                f"{path} does not hold records of {size:,} bytes with classes below {classes}; unpack the official archive again"
            )
        found.append(data.reshape(-1, size))
    rows = np.concatenate(found)
    x = np.ascontiguousarray(rows[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Part(rows[:, labels - 1].astype(np.int64), [f"{part}/{i}" for i in range(len(x))], x)


def _cifar_of_torchvision(root: Path, cls: str) -> Lists:
    """The version for Python is pickled; torchvision opens those files only whose MD5 is that of the official ones."""
    from torchvision import datasets

    try:
        train, test = (getattr(datasets, cls)(str(root.parent), train=part == "train") for part in _TWO)
    except RuntimeError:
        raise ValueError(
            f"{root} does not hold the official files, byte for byte; unpack the archive again, or take the binary version"
        ) from None
    parts = [
        Part(np.asarray(d.targets, np.int64), [f"{p}/{i}" for i in range(len(d.data))], d.data)
        for d, p in zip((train, test), _TWO, strict=True)
    ]
    return Lists(root, [str(c) for c in train.classes], parts[0], test=parts[1])
