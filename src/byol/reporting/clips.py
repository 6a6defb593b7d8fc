"""Sounds inside the page, so that their pictures can be listened to: of each a second, of all no more than a given size."""

from __future__ import annotations

import base64
import importlib
import io
import wave

import numpy as np
from numpy.typing import NDArray

from byol.data import Source, Unreadable
from byol.reporting.html import Markup, number, tag

Mono = NDArray[np.float32]  # (samples,) in [-1, 1]

SECONDS, LOOKED_AT = 1, 10  # the loudest second of the first ten, which the pictures show
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # Hz


class Clips:
    """The clips of a page, each made when it is asked for, as long as there is room."""

    def __init__(self, source: Source, room: int) -> None:
        self._source, self._room = source, room if source.modality == "sound" else 0
        self._uris: dict[int, str] = {}  # by the place of the sound in the source

    def __len__(self) -> int:
        return len(self._uris)

    def __call__(self, place: int) -> int | None:
        """The number by which a picture calls the clip of this sound; None where there is none."""
        if place in self._uris:
            return place
        if self._room <= 0:
            return None
        try:
            uri = encoded(loudest(self._source, place), self._source.rate)
        except (Unreadable, OSError):
            return None
        if len(uri) > self._room:
            self._room = 0  # the first that does not fit is the last that is tried
            return None
        self._room -= len(uri)
        self._uris[place] = uri
        return place

    def has(self, place: int) -> int | None:
        """As when it is asked for, but none is made."""
        return place if place in self._uris else None

    def said(self) -> str:
        """What there is to hear, and how; nothing where there is nothing."""
        if not self._uris:
            return ""
        form = "MP3" if next(iter(self._uris.values())).startswith("data:audio/mpeg") else "WAV"
        size = f"{sum(map(len, self._uris.values())) / 1e6:.1f} MB"
        what = f"{number(len(self))} sounds can be heard, of each at most {SECONDS} s, the loudest of its first {LOOKED_AT} s"
        how = "A click on a picture plays its sound, as does Enter; the arrows go from one picture to the next."
        return f"{how} {what}, as {form}, {size} of this page."

    def listed(self, names: dict[int, str]) -> Markup:
        """A player for each clip, where the pictures find it and where it can be heard without a script; `names` by place."""
        if not self._uris:
            return Markup("")
        rows = (
            tag("li", tag("audio", controls=True, preload="none", src=uri, data_clip=place, aria_label=names[place]), names[place])
            for place, uri in sorted(self._uris.items())
        )
        return tag("details", tag("summary", "All sounds that can be heard, in a list"), tag("ul", *rows), class_="clips")


def loudest(source: Source, place: int) -> Mono:
    """(samples,): the loudest SECONDS of the first LOOKED_AT of a sound, or all of a shorter one."""
    frames = min(int(source.headers.width[place]), LOOKED_AT * source.rate)
    sound: Mono = source.window(place, 0, frames)[0, :, 0].astype(np.float32)
    length = SECONDS * source.rate
    if frames <= length:
        return sound
    energy = np.concatenate([[0.0], np.cumsum(np.square(sound, dtype=np.float64))])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return sound[start : start + length]


def encoded(sound: Mono, rate: int) -> str:
    """A data URI, the same for the same samples: MP3 where libsndfile can write it, which every browser plays; else 16-bit WAV."""
    out = io.BytesIO()
    try:
        soundfile = importlib.import_module("soundfile")
        mp3 = rate in _MP3_RATES and "MP3" in soundfile.available_formats()
    except (ImportError, OSError):
        mp3 = False
    if mp3:
        soundfile.write(out, sound, rate, format="MP3")
    else:
        with wave.open(out, "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes(np.rint(sound.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return f"data:audio/{'mpeg' if mp3 else 'wav'};base64,{base64.b64encode(out.getvalue()).decode()}"
