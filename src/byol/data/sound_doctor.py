"""Are these sounds usable? Decodes everything once and counts rates, lengths, clipping, silence and copies."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import numpy as np

from byol.data.doctor import classes_of, count, duplicates_of
from byol.data.doctor_report import WIDTH, Duplicates, bytes_text, counts_text, duplicates_text, layout, share, some, unreadable_text
from byol.data.parallel import each
from byol.data.sound_clips import Waves
from byol.data.sound_reader import SoundReader, blocks
from byol.data.source import Progress, Rows, Skipped, Source, Unreadable, shown

LOUD: Final = 0.98  # of full scale; from here on a run of equal samples is taken for clipping
RUN: Final = 3  # equal samples in a row
SILENT: Final = 1e-4  # of full scale, -80 dB: about three steps of 16 bits
SHORT: Final = 0.1  # seconds


@dataclass(frozen=True)
class Lengths:
    """Seconds of the clips."""

    shortest: float
    median: float
    longest: float
    total: float


@dataclass(frozen=True, kw_only=True)
class SoundReport:
    """Counts over the sounds that decode; `unreadable` are those that do not."""

    spec: str
    sounds: int
    bytes: int  # as stored
    rate: int  # Hz, at which they are read
    formats: dict[str, int]
    rates: dict[str, int]  # "44,100 Hz stereo", as stored
    unreadable: tuple[Skipped, ...]
    ignored: int  # files that are not sounds
    notes: tuple[str, ...] = ()
    lengths: Lengths | None = None  # None: nothing decodes
    short: int = 0  # below a tenth of a second
    clipped: int = 0  # with runs of equal samples at full scale
    beyond: int = 0  # with samples above full scale, which are cut off there
    silent: tuple[str, ...] = ()  # names of clips without a sample above -80 dB
    duplicates: Duplicates = field(default_factory=Duplicates)
    classes: dict[str, int] = field(default_factory=dict)  # sounds per class; empty: no labels
    unlabelled: int = 0

    def doubts(self) -> list[str]:
        """What speaks against using the data as it is, worst first; empty when nothing does."""
        copies = self.duplicates.files - self.duplicates.groups
        checks = (
            (self.duplicates.leaks, f"{some(self.duplicates.leaks, 'sound')} in more than one split: a test on them tells nothing"),
            (self.duplicates.conflicts, f"{some(self.duplicates.conflicts, 'sound')} under different labels"),
            (len(self.unreadable) > 0.01 * self.sounds, f"{share(len(self.unreadable), self.sounds)} unreadable"),
            (copies > 0.05 * self.sounds, f"{share(copies, self.sounds)} copies of others"),
            (len(self.silent) > 0.05 * self.sounds, f"{share(len(self.silent), self.sounds)} silent"),
            (self.clipped > 0.1 * self.sounds, f"{share(self.clipped, self.sounds)} clipped"),
            (self.beyond > 0.05 * self.sounds, f"{share(self.beyond, self.sounds)} beyond full scale"),
            (self.short > 0.05 * self.sounds, f"{share(self.short, self.sounds)} shorter than {SHORT:g} s"),
            (self.sounds < 100, f"only {self.sounds:,} sounds: more would help most"),
        )
        return [text for hit, text in checks if hit]

    def verdict(self) -> str:
        """One sentence: "Good to go.", "Usable, but ..." or "Not usable: ..."."""
        if self.sounds == 0:
            return f"Not usable: none of {len(self.unreadable):,} sounds can be decoded."
        if self.sounds < 2:
            return "Not usable: a single sound has nothing to be told apart from."
        if len(self.silent) == self.sounds:
            return f"Not usable: all of {self.sounds:,} sounds are silent."
        doubts = self.doubts()
        return f"Usable, but {'; '.join(doubts)}." if doubts else "Good to go."

    def lines(self) -> list[str]:
        """The report at 80 columns; the last line or lines are the verdict."""
        long = f"{_seconds(self.lengths.total)}, " if self.lengths else ""
        top = f"{shown(self.spec)}  {some(self.sounds, 'sound')}, {long}{bytes_text(self.bytes)}"
        return [*textwrap.wrap(top, WIDTH), *layout(list(self._cells())), *textwrap.wrap(self.verdict(), WIDTH)]

    def _cells(self) -> Iterator[tuple[str, str]]:
        """(label, text) in the order in which they are shown."""
        if self.lengths is not None:
            yield "lengths", _lengths(self.lengths)
        yield "formats", counts_text(self.formats)
        yield "stored", f"{counts_text(self.rates)} (read as {self.rate:,} Hz mono)"
        yield "unreadable", unreadable_text(self.unreadable)
        yield "duplicates", duplicates_text(self.duplicates, "samples")
        yield "labels", self._labels_text()
        for label, n, what in (("clipped", self.clipped, "with flat tops at full scale"), ("short", self.short, f"below {SHORT:g} s")):
            if n:
                yield label, f"{some(n, 'sound')} {what}"
        if self.beyond:
            yield "loud", f"{some(self.beyond, 'sound')} beyond full scale, cut off there"
        if self.silent:
            more = f" and {len(self.silent) - 3:,} more" if len(self.silent) > 3 else ""
            yield "silent", f"{len(self.silent):,}: {', '.join(map(shown, self.silent[:3]))}{more}"
        if self.ignored:
            yield "ignored", some(self.ignored, "file") + (" that is no sound" if self.ignored == 1 else " that are no sounds")
        for note in self.notes:
            yield "note", shown(note)

    def _labels_text(self) -> str:
        if not self.classes:
            return "none"
        low, high = min(self.classes.values()), max(self.classes.values())
        number = f"{low:,} each" if low == high else f"{low:,} to {high:,} each"
        return f"{len(self.classes):,} classes, {number}" + (f", {self.unlabelled:,} without" if self.unlabelled else "")

    def to_json(self) -> dict[str, object]:
        """The fields as plain JSON values, with the verdict and its reasons."""
        usable = self.sounds >= 2 and len(self.silent) < self.sounds
        return {**asdict(self), "verdict": self.verdict(), "doubts": self.doubts(), "usable": usable}


def doctor_sounds(source: Source, progress: Progress | None = None) -> SoundReport:
    """A source of `open_sounds` -> the report on it; progress(done, total) is called while sounds are decoded."""
    looks = each(lambda i: _look(source, i), range(len(source)), progress)
    source = source.without({i: look for i, look in enumerate(looks) if isinstance(look, str)})
    reader, good = _reader(source), [look for look in looks if isinstance(look, _Look)]
    report = SoundReport(
        spec=source.spec,
        sounds=len(source),
        bytes=int(source.headers.nbytes.sum()),
        rate=reader.rate,
        formats=count(source.headers, "format"),
        rates=count(source.headers, "colour"),
        unreadable=tuple(source.skipped),
        ignored=source.ignored,
        notes=source.notes,
    )
    if not good:
        return report
    seconds = source.headers.width / reader.rate
    return replace(
        report,
        lengths=Lengths(float(seconds.min()), float(np.median(seconds)), float(seconds.max()), float(seconds.sum())),
        short=int((seconds < SHORT).sum()),
        clipped=sum(look.clipped for look in good),
        beyond=sum(look.peak > 1 for look in good),
        silent=tuple(source.names[i] for i, look in enumerate(good) if look.peak < SILENT),
        duplicates=duplicates_of(source, [look.samples for look in good]),
        classes=classes_of(source),
        unlabelled=0 if source.labels is None else int((source.labels < 0).sum()),
    )


@dataclass(frozen=True)
class _Look:
    """What is kept of one decoded sound."""

    samples: bytes  # 16 bytes that are equal for equal samples
    peak: float  # largest absolute value; 1 is full scale
    clipped: bool


def _reader(source: Source) -> SoundReader:
    reader = source.reader.reader if isinstance(source.reader, Rows) else source.reader
    assert isinstance(reader, SoundReader)
    return reader


def _look(source: Source, index: int) -> _Look | str:
    row = int(source.reader.rows[index]) if isinstance(source.reader, Rows) else index
    digest, peak, clipped = hashlib.blake2b(digest_size=16), 0.0, False
    try:
        with _reader(source).clips.clip(row) as clip:
            digest.update(f"{clip.rate} {clip.channels}".encode())
            for waves in blocks(clip):
                digest.update(np.ascontiguousarray(waves).data)
                peak = max(peak, float(np.abs(waves).max()))
                clipped = clipped or flat_tops(waves)
    except Unreadable as error:
        return str(error)
    except OSError as error:
        return (error.strerror or "cannot be read").lower()
    return _Look(digest.digest(), peak, clipped)


def flat_tops(waves: Waves) -> bool:
    """(frames, channels) -> True where a channel stays at the same value at full scale, as no microphone does."""
    limited = waves.clip(-1, 1)
    same = (limited[1:] == limited[:-1]) & (np.abs(limited[1:]) >= LOUD)
    run = same[: len(same) - RUN + 2].copy()
    for step in range(1, RUN - 1):
        run &= same[step : len(run) + step]
    return bool(run.any())


def _lengths(lengths: Lengths) -> str:
    shortest, median, longest = map(_seconds, (lengths.shortest, lengths.median, lengths.longest))
    return f"all {shortest}" if shortest == longest else f"{shortest} to {longest}, median {median}"


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3600:,.1f} hours"
