"""Is this data usable? Decodes everything once and counts what a person should know before an hour is lost."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

import numpy as np

from byol.data.dated import visits
from byol.data.doctor_report import DoctorReport, Duplicates, Sizes
from byol.data.labels import splits
from byol.data.open import Spec, open_source
from byol.data.parallel import each
from byol.data.source import Headers, Progress, Source, Unreadable, channels_of
from byol.data.statistics import Moments, combine, moments

if TYPE_CHECKING:
    from byol.data.rgbd_doctor import RgbdReport
    from byol.data.sound_doctor import SoundReport

SMALL: Final = 32  # pixels; a random crop of a smaller side shows nearly nothing
FLAT: Final = 0.004  # standard deviation as a share of the value range, about one step of 8 bit


@dataclass(frozen=True)
class _Look:
    """What is kept of one decoded image."""

    pixels: bytes  # 16 bytes that are equal for equal pixels
    moments: Moments


def doctor(
    spec: Spec | Source, *, limit: int | None = None, download: bool = False, root: Path | None = None, progress: Progress | None = None
) -> DoctorReport | SoundReport | RgbdReport:
    """DATA (or an open source) -> the report on it; progress(done, total) is called while images are decoded.

    Raises ValueError as `open_source` does when there is no image at all.
    """
    source = spec if isinstance(spec, Source) else open_source(spec, limit=limit, download=download, root=root, fresh=True)
    if source.modality == "sound":
        from byol.data.sound_doctor import doctor_sounds  # which takes parts of this one

        return doctor_sounds(source, progress)
    if source.modality == "rgbd":
        from byol.data.rgbd_doctor import doctor_rgbd

        return doctor_rgbd(source, progress)
    looks = each(lambda i: _look(source, i), range(len(source)), progress)
    bad = {i: look for i, look in enumerate(looks) if isinstance(look, str)}
    good = [look for look in looks if isinstance(look, _Look)]
    source = source.without(bad)
    return _report(source, good)


def _look(source: Source, index: int) -> _Look | str:
    try:
        image = source.read(index)
    except Unreadable as error:
        return str(error)
    digest = hashlib.blake2b(f"{image.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return _Look(digest.digest(), moments(image))


def _report(source: Source, looks: list[_Look]) -> DoctorReport:
    report = DoctorReport(
        spec=source.spec,
        kind=source.kind,
        images=len(source),
        folders=_folders(source),
        bytes=int(source.headers.nbytes.sum()),
        channels=source.channels,
        dtype=source.dtype,
        formats=count(source.headers, "format"),
        colours=count(source.headers, "colour"),
        unreadable=tuple(source.skipped),
        ignored=source.ignored,
        notes=source.notes,
        modality=source.modality,
        visits=visits(source),
    )
    if not looks:
        return report
    parts = [look.moments for look in looks]
    total = combine(parts, source.dtype)
    report = replace(report, low=min(p.low for p in parts), high=max(p.high for p in parts), mean=total.mean, std=total.std)
    report = replace(report, classes=classes_of(source), unlabelled=0 if source.labels is None else int((source.labels < 0).sum()))
    if source.modality == "recording":
        return replace(report, silent=int((np.ptp(np.stack([p.mean for p in parts]), axis=0) == 0).sum()))
    if source.modality == "volume":  # all are read as cubes of one size
        return replace(report, duplicates=duplicates_of(source, [look.pixels for look in looks]))
    span = total.high - total.low
    return replace(
        report,
        sizes=_sizes(parts),
        small=sum(min(p.height, p.width) < SMALL for p in parts),
        flat=sum(float(np.sqrt(p.var).max()) < FLAT * span for p in parts),
        duplicates=duplicates_of(source, [look.pixels for look in looks]),
    )


def _folders(source: Source) -> int:
    """How many folders hold the images; 0 for data without folders."""
    if source.kind not in ("folder", "archive", "list"):
        return 0
    return len({PurePosixPath(folder) for folder in source.names.folders()[0]})


def count(headers: Headers, part: str) -> dict[str, int]:
    """How many samples there are of each value of a part of `Kind`, the most frequent first."""
    counts: Counter[str] = Counter()
    for row, n in zip(*np.unique(headers.kind, return_counts=True), strict=True):
        counts[str(getattr(headers.kinds[row], part))] += int(n)
    return dict(counts.most_common())


def _sizes(parts: list[Moments]) -> Sizes:
    areas = [p.height * p.width for p in parts]
    small, large = parts[int(np.argmin(areas))], parts[int(np.argmax(areas))]
    median = int(np.median([p.width for p in parts])), int(np.median([p.height for p in parts]))
    return Sizes((small.width, small.height), median, (large.width, large.height))


def classes_of(source: Source) -> dict[str, int]:
    """How many samples each class has; empty without labels."""
    if source.labels is None:
        return {}
    counts = np.bincount(source.labels[source.labels >= 0], minlength=len(source.classes))
    return {c: int(n) for c, n in zip(source.classes, counts, strict=True)}


def duplicates_of(source: Source, contents: list[bytes]) -> Duplicates:
    """Groups of samples with the same content, (N,) digests of it; those across classes and across train/ and test/ are told apart."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for i, content in enumerate(contents):
        found[content].append(i)
    groups = [members for members in found.values() if len(members) > 1]
    split = np.zeros(len(source), np.int64)
    for k, rows in enumerate(splits(source.names).values()):
        split[rows] = k
    labels = source.labels
    conflicts = [g for g in groups if labels is not None and len({int(labels[i]) for i in g} - {-1}) > 1]
    leaks = [g for g in groups if len({int(split[i]) for i in g}) > 1]
    return Duplicates(
        groups=len(groups),
        files=sum(map(len, groups)),
        conflicts=len(conflicts),
        leaks=len(leaks),
        examples=tuple(tuple(source.names[i] for i in g[:4]) for g in (conflicts + leaks + groups)[:3]),
    )


def describe(source: Source) -> str:
    """One line on a source: "4,316 images (1 skipped), RGB, 8 bit, 320x240, 5 classes"."""
    parts = [f"{len(source):,} {source.words.many}" + (f" ({len(source.skipped):,} skipped)" if source.skipped else "")]
    parts.append(channels_of(source))
    parts.append({"uint8": "8 bit", "uint16": "16 bit", "float32": "float"}[source.dtype])
    if len(source.headers) and source.modality == "image":
        size = f"{int(np.median(source.headers.width))}x{int(np.median(source.headers.height))}"
        parts.append(size if source.headers.one_size() else f"median {size}")
    if source.labels is not None:
        parts.append(f"{len(source.classes):,} classes")
    return ", ".join(parts)
