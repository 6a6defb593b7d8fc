"""Labels from folder names or from a column of values, and a smaller set that keeps their balance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from byol.data.compact import Integers, Names, bytewise
from byol.data.source import Ids

SPLITS: Final = frozenset({"train", "training", "trainval", "val", "valid", "validation", "dev", "test", "testing", "eval"})


@dataclass(frozen=True)
class Labels:
    """One label per sample, or none at all, and how they were found."""

    values: Ids | None = None  # (N,) index into `classes`, -1 = unknown
    classes: tuple[str, ...] = ()
    note: str = ""


def from_folders(names: Sequence[str]) -> Labels:
    """Relative paths with "/" -> labels by the first folder level that has two folders or more, if every image lies below it.

    Folders called train, val, test and the like on that level are splits, not classes: then the level below them counts.
    """
    folders, at = _folders(names)
    level = _first_level(folders)
    if level is None:
        return Labels()
    found = sorted({f[level] for f in folders}, key=bytewise)
    note = ""
    if SPLITS.issuperset(name.lower() for name in found):
        note = f"{', '.join(name + '/' for name in found)} are read together; to use one, give that folder"
        level += 1
        if any(len(f) <= level for f in folders) or len({f[level] for f in folders}) < 2:
            return Labels(note=note)
    labels = _encode([f[level] for f in folders], note)
    return labels if labels.values is None else replace(labels, values=labels.values[at])


def _folders(names: Sequence[str]) -> tuple[list[list[str]], Integers]:
    """The distinct folders of the names, each as its parts, and (N,) which of them each name is in."""
    folders, at = Names.of(names).folders()
    return [folder.split("/")[:-1] for folder in folders], at


def _first_level(folders: Sequence[Sequence[str]]) -> int | None:
    """The depth at which the folders first differ; None when an image lies above it."""
    shortest = min((len(f) for f in folders), default=0)
    return next((d for d in range(shortest) if any(f[d] != folders[0][d] for f in folders)), None)


def splits(names: Sequence[str]) -> dict[str, Ids]:
    """Indices per split folder (train/, val/, ...) when the first folders that differ are all splits; else empty."""
    folders, at = _folders(names)
    level = _first_level(folders)
    if level is None or not SPLITS.issuperset(f[level].lower() for f in folders):
        return {}
    split = [f[level] for f in folders]
    return {name: np.flatnonzero(np.array([s == name for s in split])[at]) for name in sorted(set(split))}


def from_values(values: Iterable[object]) -> Labels:
    """A column of classes -> labels; numbers are sorted as numbers, text bytewise; empty, None and -1 are unknown."""
    texts = ["" if v is None or v != v else _text(v) for v in values]
    return _encode(["" if t == "-1" else t for t in texts], "")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _encode(texts: Sequence[str], note: str) -> Labels:
    classes = set(texts) - {""}
    if not classes:
        return Labels(note=note)
    numbers = all(re.fullmatch(r"-?\d{1,18}", c) for c in classes)
    ordered = sorted(classes, key=lambda c: (int(c) if numbers else 0, bytewise(c)))
    index = {c: i for i, c in enumerate(ordered)}
    return Labels(np.array([index.get(t, -1) for t in texts], np.int64), tuple(ordered), note)


def spread(n: int, limit: int, labels: Ids | None) -> Ids:
    """`limit` of n indices, ascending: every (n / limit)-th in the order of (label, index), so each class keeps its share."""
    if limit >= n:
        return np.arange(n)
    order = np.arange(n) if labels is None else np.argsort(labels, kind="stable")
    # The middle of each of `limit` equal stretches.
    rows: Ids = np.sort(order[(np.arange(limit) * 2 + 1) * n // (2 * limit)])
    return rows
