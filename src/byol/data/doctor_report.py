"""What the doctor found, for a person (80 columns) and for a program (JSON), with a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Final

from byol.data.dated import Visits
from byol.data.source import WORDS, Depth, Modality, Skipped, shown

WIDTH: Final = 80
_TEXT: Final = 13  # column where the text of a row starts
_RIGHT: Final = 53  # column where a second cell on the same line starts
_DEPTHS: Final = {"uint8": "8 bit", "uint16": "16 bit", "float32": "float"}


@dataclass(frozen=True)
class Sizes:
    """(width, height) in pixels; the smallest and the largest by area, the median of each side."""

    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True)
class Duplicates:
    """Images that have exactly the same pixels."""

    groups: int = 0
    files: int = 0  # in these groups, the first of each included
    conflicts: int = 0  # groups whose images have different labels
    leaks: int = 0  # groups with images in more than one of train/, val/, test/
    examples: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class DoctorReport:
    """Counts over the images that decode; `unreadable` are those that do not."""

    spec: str
    kind: str
    images: int
    folders: int  # 0: the data has none
    bytes: int  # as stored
    channels: int
    dtype: Depth
    formats: dict[str, int]
    colours: dict[str, int]
    unreadable: tuple[Skipped, ...]
    ignored: int  # files that are not images
    notes: tuple[str, ...] = ()
    sizes: Sizes | None = None  # None: nothing decodes
    low: float = 0.0  # raw values as observed
    high: float = 0.0
    mean: tuple[float, ...] = ()  # per channel, of values scaled to [0, 1]
    std: tuple[float, ...] = ()
    small: int = 0  # images with a side below 32 pixels
    flat: int = 0  # images of nearly one value
    duplicates: Duplicates = field(default_factory=Duplicates)
    classes: dict[str, int] = field(default_factory=dict)  # images per class; empty: no labels
    unlabelled: int = 0  # images without a label where others have one
    modality: Modality = "image"  # of another: no sizes, copies and flat images
    visits: Visits | None = None  # of samples that have dates
    silent: int = 0  # neurons of a recording that never change

    def doubts(self) -> list[str]:
        """What speaks against using the data as it is, worst first; empty when nothing does."""
        copies = self.duplicates.files - self.duplicates.groups
        small = 0 if self.sizes is None or min(self.sizes.median) < 32 else self.small
        checks = (
            (self.duplicates.leaks, f"{some(self.duplicates.leaks, 'picture')} in more than one split: a test on them tells nothing"),
            (self.duplicates.conflicts, f"{some(self.duplicates.conflicts, 'picture')} under different labels"),
            (len(self.unreadable) > 0.01 * self.images, f"{share(len(self.unreadable), self.images)} unreadable"),
            (copies > 0.05 * self.images, f"{share(copies, self.images)} copies of others"),
            (self.flat > 0.01 * self.images, f"{share(self.flat, self.images)} of nearly one colour"),
            (small > 0.05 * self.images, f"{share(small, self.images)} with a side below 32 pixels"),
            (self.silent, f"{some(self.silent, 'neuron')} that never change{'s' * (self.silent == 1)}"),
            (self.images < 100, f"only {self.images:,} {WORDS[self.modality].many}: more would help most"),
        )
        return [text for hit, text in checks if hit]

    def verdict(self) -> str:
        """One sentence: "Good to go.", "Usable, but ..." or "Not usable: ..."."""
        if self.images == 0:
            return f"Not usable: none of {len(self.unreadable):,} {WORDS[self.modality].many} can be decoded."
        if self.images < 2:
            return f"Not usable: a single {WORDS[self.modality].one} has nothing to be told apart from."
        doubts = self.doubts()
        return f"Usable, but {'; '.join(doubts)}." if doubts else "Good to go."

    def lines(self) -> list[str]:
        """The report at 80 columns; the last line or lines are the verdict."""
        where = f" in {self.folders:,} folder{'s' * (self.folders != 1)}" if self.folders else ""
        title = f"{some(self.images, WORDS[self.modality].one)}{where}, {bytes_text(self.bytes)}"
        fits = len(shown(self.spec)) + 2 + len(title) <= WIDTH
        top = [f"{shown(self.spec)}  {title}"] if fits else [*textwrap.wrap(shown(self.spec), WIDTH), f"  {title}"]
        return [*top, *layout(list(self._cells())), *textwrap.wrap(self.verdict(), WIDTH)]

    def _cells(self) -> Iterator[tuple[str, str]]:
        """(label, text) in the order in which they are shown."""
        if self.sizes is not None:
            yield "sizes", _size_text(self.sizes)
        if self.modality == "image":
            yield "formats", counts_text(self.formats)
            yield "channels", self._channels_text()
        elif self.modality == "volume":
            yield "formats", counts_text(self.formats)
            yield "voxels", _most_text(self.colours)
        else:
            yield WORDS[self.modality].channels, f"{self.channels:,}"
        yield "depth", _DEPTHS[self.dtype]
        if self.dtype != "uint8" and self.images:
            yield "values", f"{self.low:,.6g} to {self.high:,.6g}"
        if self.modality in ("image", "volume"):
            yield "unreadable", unreadable_text(self.unreadable)
            yield "duplicates", duplicates_text(self.duplicates)
        yield "labels", self._labels_text()
        if self.visits is not None:
            yield from _visits_cells(self.visits)
        if self.flat:
            yield "flat", f"{some(self.flat, 'image')} of nearly one colour"
        if self.small:
            yield "small", f"{some(self.small, 'image')} with a side below 32 pixels"
        if self.ignored:
            yield "ignored", some(self.ignored, "file") + (" that is no image" if self.ignored == 1 else " that are no images")
        for note in self.notes:
            yield "note", shown(note)

    def _channels_text(self) -> str:
        read = {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels} channels")
        other = any(c not in (read, "1 bit") for c in self.colours)
        many = counts_text(self.colours) if len(self.colours) > 1 else next(iter(self.colours), read)
        deep = any(c.endswith("16 bit") for c in self.colours)
        return many + (f" (read as {read}{' of 8 bit' if deep else ''})" if other else "")

    def _labels_text(self) -> str:
        if not self.classes:
            return "none"
        name = "class folders" if self.kind in ("folder", "archive") else "classes"
        low, high = min(self.classes.values()), max(self.classes.values())
        each = f"{low:,} each" if low == high else f"{low:,} to {high:,} each"
        unknown = f", {self.unlabelled:,} without" if self.unlabelled else ""
        return f"{len(self.classes):,} {name}, {each}{unknown}"

    def to_json(self) -> dict[str, object]:
        """The fields as plain JSON values, with the verdict and its reasons."""
        return {**asdict(self), "verdict": self.verdict(), "doubts": self.doubts(), "usable": self.images >= 2}


def some(n: int, noun: str) -> str:
    """ "1 image", "2 images"."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def share(part: int, whole: int) -> str:
    """ "3 (2 %)"."""
    return f"{part:,} ({100 * part / max(1, whole):.0f} %)"


def bytes_text(n: int) -> str:
    """ "1.5 MB"."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.1f} {unit}" if n < 10 * size else f"{n / size:,.0f} {unit}"
    return f"{n} bytes"


def counts_text(counts: dict[str, int]) -> str:
    """ "jpeg 12, png 3"."""
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())


def _most_text(counts: dict[str, int]) -> str:
    """The three most frequent, a line each."""
    more = [f"and {len(counts) - 3:,} other kinds"] if len(counts) > 3 else []
    return "\n".join([f"{n:,} of {name}" for name, n in list(counts.items())[:3]] + more)


def _size_text(sizes: Sizes) -> str:
    small, median, large = (f"{w}x{h}" for w, h in (sizes.smallest, sizes.median, sizes.largest))
    return f"all {small}" if small == large else f"from {small} to {large}, median {median}"


def _visits_cells(v: Visits) -> Iterator[tuple[str, str]]:
    low, usual, high = v.dates
    each = f"{low:,} date{'s' * (low != 1)} each" if low == high else f"{low:,} to {high:,} dates each, median {usual:,}"
    yield "subjects", f"{v.subjects:,} with {v.series:,} series, {each}"
    yield "dates", f"{v.first} to {v.last}"
    if v.gaps is None:
        yield "gaps", "none: no series has two dates"
    else:
        low, usual, high = v.gaps
        yield "gaps", f"{some(usual, 'day')} as a rule, {low:,} to {high:,}"
        near = f"{v.near[0]:,} to {v.near[1]:,}" if v.near[0] < v.near[1] else f"{v.near[0]:,}"
        yield "pairs", f"{v.pairs:,} in a series that are about so far apart ({near} day{'s' * (near != '1')})"
    if v.undated:
        more = [f"and {len(v.undated) - 3:,} more"] if len(v.undated) > 3 else []
        yield "undated", "\n".join([f"{len(v.undated):<6,} {shown(v.undated[0])}", *map(shown, v.undated[1:3]), *more])


def unreadable_text(skipped: tuple[Skipped, ...]) -> str:
    """How many, and the first of them, a line each."""
    if not skipped:
        return "none"
    first = [f"{shown(s.name)}: {s.reason}" for s in skipped[:3]]
    more = [f"and {len(skipped) - 3:,} more"] if len(skipped) > 3 else []
    return f"{len(skipped):<6,} " + "\n".join(first + more)


def duplicates_text(found: Duplicates, same: str = "pixels") -> str:
    """How many groups of copies, across what, and the first."""
    if not found.groups:
        return "none"
    text = f"{some(found.groups, 'group')}, {found.files:,} files (same {same})"
    across = [f"{found.conflicts:,} across classes"] * bool(found.conflicts) + [f"{found.leaks:,} across splits"] * bool(found.leaks)
    if not across:
        return text
    return f"{text}, {', '.join(across)}\nfirst: {' = '.join(map(shown, found.examples[0]))}"


def layout(cells: list[tuple[str, str]]) -> list[str]:
    """Cells -> lines; two cells share a line when both are short."""
    lines: list[str] = []
    while cells:
        label, text = cells.pop(0)
        head = f"  {label:<{_TEXT - 3}} "
        if cells and _TEXT + len(text) < _RIGHT - 1 and "\n" not in text:
            right = f"{cells[0][0]:<8} {cells[0][1]}"
            if "\n" not in right and _RIGHT + len(right) <= WIDTH:
                cells.pop(0)
                lines.append(f"{head + text:<{_RIGHT}}{right}")
                continue
        for part in text.split("\n"):
            wrapped = textwrap.wrap(part, WIDTH - _TEXT, subsequent_indent="  ", break_on_hyphens=False) or [""]
            lines += [(head if i == 0 else " " * _TEXT) + line for i, line in enumerate(wrapped)]
            head = " " * _TEXT
    return lines
