"""Sounds as they lie on the disk, opened one at a time: any rate, channel count and length, any part of them, or a short reason why not."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from byol.data import sniff
from byol.data.archive import PlainTar
from byol.data.arrays import load_one
from byol.data.compact import Integers, Names
from byol.data.encoded import Blobs, Files, at_once
from byol.data.header import Header
from byol.data.source import Kind, Unreadable

if TYPE_CHECKING:
    import soundfile

Waves: TypeAlias = npt.NDArray[np.float32]  # (frames, channels), as stored: mostly in [-1, 1]

RATES: Final = (100, 1_000_000)  # Hz; what says another rate is damaged
LONGEST: Final = 2**31 - 1  # frames at the rate of the source, which is a day at 24 kHz
_NO_LENGTH: Final = 2**62  # frames; what libsndfile says where a stream was written without its length
_SLACK: Final = 64  # bytes that a WAV may lack of what its header says: some programs count wrongly by the header itself
_SMALLEST: Final = 44  # bytes, of the header of a WAV; those of the other formats are longer, or worth nothing alone
_LAST_PAGE: Final = 1 << 18  # frames; libsndfile goes wrong by some frames when it jumps into the last page of an Ogg file
_SYSTEM_ERROR: Final = 2  # of libsndfile: reading failed, not decoding
_NAMES: Final = {"WAVEX": "wav", "RF64": "wav", "MPEG": "mp3", "NIST": "sphere"}
_CHANNELS: Final = {1: "mono", 2: "stereo"}


class Clip(Protocol):
    """An open sound."""

    rate: int  # Hz
    channels: int
    frames: int

    def read(self, start: int, count: int) -> Waves:
        """(count, channels) from frame `start` on, within the sound; raises Unreadable or OSError."""
        ...


class Clips(Protocol):
    """Sounds by index; pickles small."""

    @property
    def names(self) -> Names: ...

    @property
    def folder(self) -> str:
        """What has to be there for anything to be read."""
        ...

    def place(self, index: int) -> str:
        """The path of the file that holds it."""
        ...

    def clip(self, index: int) -> AbstractContextManager[Clip]:
        """The sound, open; raises OSError or Unreadable."""
        ...


@dataclass(frozen=True)
class EncodedClips:
    """Sound files anywhere."""

    blobs: Blobs

    @property
    def names(self) -> Names:
        return self.blobs.names

    @property
    def folder(self) -> str:
        return self.blobs.folder

    def place(self, index: int) -> str:
        return self.blobs.place(index)

    @contextmanager
    def clip(self, index: int) -> Iterator[Clip]:
        with _opened(self.blobs, index) as (file, _), decoder(file) as clip:
            yield clip


@dataclass(frozen=True)
class Cuts:
    """Parts of sounds as sounds of their own."""

    clips: Clips
    names: Names
    rows: Integers  # (N,) which sound each is a part of
    starts: Integers  # (N,) its first frame, at the sound's own rate
    counts: Integers  # (N,) its frames; 0: all of the sound

    @property
    def folder(self) -> str:
        return self.clips.folder

    def place(self, index: int) -> str:
        return self.clips.place(int(self.rows[index]))

    @contextmanager
    def clip(self, index: int) -> Iterator[Clip]:
        with self.clips.clip(int(self.rows[index])) as whole:
            count = int(self.counts[index])
            yield _Cut(whole, int(self.starts[index]), count) if count else whole


class _Cut:
    def __init__(self, whole: Clip, start: int, count: int) -> None:
        if start + count > whole.frames:
            raise Unreadable(f"ends after {whole.frames:,} frames, and {start + count:,} are asked for")
        self._whole, self._start = whole, start
        self.rate, self.channels, self.frames = whole.rate, whole.channels, count

    def read(self, start: int, count: int) -> Waves:
        return self._whole.read(self._start + start, count)


@dataclass
class Stream:
    """One long sound in an array of an .npz, decoded or as the bytes of a sound file, kept in memory from its first use on."""

    path: str
    key: str
    rate: int
    _clip: Clip | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "key": self.key, "rate": self.rate, "_clip": None}

    @property
    def names(self) -> Names:
        return Names.of([self.key])

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path) or "."

    def place(self, index: int) -> str:
        return self.path

    @contextmanager
    def clip(self, index: int) -> Iterator[Clip]:
        if self._clip is None:
            self._clip = self._load()
        yield self._clip

    def _load(self) -> Clip:
        try:
            values = load_one(Path(self.path), self.key)
        except ValueError as error:
            raise Unreadable(str(error)) from error
        if values.dtype == np.uint8:
            with decoder(io.BytesIO(values.tobytes())) as clip:
                return ArrayClip(clip.read(0, clip.frames), clip.rate)
        return ArrayClip(values.reshape(-1, 1), self.rate)


class ArrayClip:
    """(frames, channels) in memory; integers are divided by their range."""

    def __init__(self, values: npt.NDArray[np.generic], rate: int) -> None:
        self._values = values
        self._scale = np.float32(1 if values.dtype.kind == "f" else 2.0 ** (1 - 8 * values.dtype.itemsize))
        self.rate, (self.frames, self.channels) = rate, values.shape

    def read(self, start: int, count: int) -> Waves:
        return _finite(self._values[start : start + count].astype(np.float32) * self._scale)


class _Decoded:
    """A clip that libsndfile decodes as it is read."""

    def __init__(self, sound: soundfile.SoundFile) -> None:
        self._sound, self._at = sound, 0
        self.rate, self.channels, self.frames = int(sound.samplerate), int(sound.channels), int(sound.frames)
        if self.frames >= _NO_LENGTH:
            raise Unreadable("its header does not say how long it is; write it again")
        if not self.frames:
            raise Unreadable("no sound in it (0 frames)")
        if not RATES[0] <= self.rate <= RATES[1]:
            raise Unreadable(f"a rate of {self.rate:,} Hz, and a sound may have {RATES[0]:,} to {RATES[1]:,}")

    def read(self, start: int, count: int) -> Waves:
        from soundfile import LibsndfileError

        first = start
        try:
            if start != self._at:
                first = self._jump(start)
            waves = cast(Waves, self._sound.read(start + count - first, dtype="float32", always_2d=True))
        except LibsndfileError as error:
            raise _why(error) from error
        if len(waves) < start + count - first:
            raise Unreadable(f"truncated: {first + len(waves):,} of {self.frames:,} frames")
        self._at = start + count
        return _finite(waves[start - first :])

    def _jump(self, start: int) -> int:
        """Goes to a frame at `start` or before it, and says which."""
        if self._sound.format == "OGG":
            start = min(start, max(0, self.frames - _LAST_PAGE))
        self._sound.seek(start)
        return start


@contextmanager
def decoder(file: BinaryIO) -> Iterator[Clip]:
    """An open file of a sound -> a clip that decodes it; raises Unreadable."""
    try:
        import soundfile
    except ImportError as error:
        raise ValueError("sounds are read by soundfile, which is not installed; pip install 'byol[audio]'") from error
    try:
        # libsndfile reads files of the system by itself, others call by call.
        sound = soundfile.SoundFile(file.fileno(), closefd=False) if isinstance(file, io.FileIO) else soundfile.SoundFile(file)
    except soundfile.LibsndfileError as error:
        raise _why(error) from error
    with sound:
        yield _Decoded(sound)


def _why(error: soundfile.LibsndfileError) -> Exception:
    if error.code == _SYSTEM_ERROR:
        return OSError(errno.EIO, os.strerror(errno.EIO))
    text = error.error_string.strip(" .").removeprefix("Error : ")
    return Unreadable(f"cannot be decoded ({text[:80].lower()})")


def _finite(waves: Waves) -> Waves:
    if not np.isfinite(waves).all():
        raise Unreadable(f"{int((~np.isfinite(waves)).sum()):,} of {waves.size:,} values are NaN or infinite")
    return waves


@contextmanager
def _opened(blobs: Blobs, index: int) -> Iterator[tuple[BinaryIO, int]]:
    """The file, open at its start, and its bytes; raises OSError or Unreadable. What is no sound may be cut off after its beginning."""
    if isinstance(blobs, Files):
        with _regular(blobs.place(index)) as found:
            yield found
    elif isinstance(blobs, PlainTar):
        with blobs.part(index) as part:
            yield part, blobs.places[index][1]
    else:
        beginning, size = blobs.open(index)
        with beginning:
            head = beginning.read(sniff.HEAD)
        yield io.BytesIO(head if sniff.sound_of(head) is None else blobs.load(index)), size


@contextmanager
def _regular(path: str) -> Iterator[tuple[BinaryIO, int]]:
    try:
        file = open(path, "rb", buffering=0, opener=at_once)  # noqa: SIM115 - closed below
    except ValueError:
        raise Unreadable("a zero byte in its name, which no file can have") from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("no regular file (a pipe or a device)")
        yield cast(BinaryIO, file), status.st_size


def header_of(blobs: Blobs, index: int, rate: int) -> Header | None:
    """What is known of a sound without decoding it: height 1, width in frames at `rate`; None for what was never meant as a sound.

    Raises OSError or Unreadable. Of compressed sounds the last frame is decoded, because their headers say nothing of what is missing.
    """
    name = blobs.names[index]
    with _opened(blobs, index) as (file, size):
        head = file.read(sniff.HEAD)
        file.seek(0)
        if sniff.sound_of(head) is None:
            if sniff.sound_promised(name) is None:
                return None
            raise Unreadable(_no_sound(name, head, size))
        _check_length(head, size)
        with decoder(file) as clip:
            if sniff.sound_of(head) in ("FLAC", "MP3"):
                _try_the_end(clip)
            return Header(kind_of(clip, _format(clip)), 1, frames_at(clip.frames, clip.rate, rate), size)


def _try_the_end(clip: Clip) -> None:
    try:
        clip.read(clip.frames - 1, 1)
    except Unreadable as error:
        raise Unreadable(f"its end is missing or damaged, of {clip.frames:,} frames") from error


def kind_of(clip: Clip, form: str) -> Kind:
    """What a sound is, in words."""
    return Kind(form, f"{clip.rate:,} Hz {_CHANNELS.get(clip.channels, f'{clip.channels} channels')}", clip.channels, "float32")


def frames_at(frames: int, of: int, rate: int) -> int:
    """Frames at the rate `of` -> those that resampling to `rate` gives; raises Unreadable where their number is too large."""
    found = max(1, (2 * frames * rate + of) // (2 * of))
    if found > LONGEST:
        raise Unreadable(f"{frames / of / 3600:,.0f} hours, and at {rate:,} Hz a sound may have {LONGEST / rate / 3600:,.0f}")
    return found


def _format(clip: Clip) -> str:
    form = clip._sound.format if isinstance(clip, _Decoded) else "array"
    return _NAMES.get(form, form.lower())


def _no_sound(name: str, head: bytes, size: int) -> str:
    promised = sniff.sound_promised(name)
    if size == 0:
        return "0 bytes"
    if promised in ("AAC", "WMA"):
        return f"{promised}, which libsndfile cannot read; convert it to FLAC or WAV"
    if size < _SMALLEST:
        return f"{size} bytes, too few for a sound"
    return f"not {'an' if promised and promised[0] in 'AMO' else 'a'} {promised} sound (starts with {sniff.start_of(head)})"


def _check_length(head: bytes, size: int) -> None:
    """Raises Unreadable for a WAV shorter than it says; libsndfile would read what there is."""
    if size < _SMALLEST:
        raise Unreadable(f"{size} bytes, too few for a sound")
    claimed = int.from_bytes(head[4:8], "little") + 8
    # A program that wrote into a pipe could not know the length, and left the largest number there is, or nearly.
    if head[:4] == b"RIFF" and size + _SLACK < claimed < 0x7FFF_0000:
        raise Unreadable(f"truncated: {size:,} of {claimed:,} bytes")
