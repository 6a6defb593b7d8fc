"""DATA#A:B: the samples A to B - 1 of any data, in their order, counted as Python does: of frames in time, the last are DATA#-200:."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from byol.data.source import Source, shown

_PART: Final = re.compile(r"(.+)#(-?\d{0,12}):(-?\d{0,12})")


def divided(spec: str) -> tuple[str, str]:
    """DATA, and A:B or nothing; a path that is really called so is one."""
    found = _PART.fullmatch(spec)
    if found is None or Path(spec).expanduser().exists():
        return spec, ""
    return found[1], f"{found[2]}:{found[3]}"


def part_of(source: Source, spec: str, part: str) -> Source:
    """The samples of A:B; ValueError where there are none. It is no official set any more, which is a whole."""
    first, last = (int(text) if text.strip("-") else None for text in part.split(":"))
    rows = np.arange(len(source))[first:last]
    if not len(rows):
        raise ValueError(f"{shown(spec)} holds nothing: there are {len(source):,} {source.words.many}, counted from 0")
    note = f"numbers {rows[0]:,} to {rows[-1]:,} of {len(source):,} {source.words.many}, in their order"
    return replace(source.subset(rows), spec=spec, official=None, notes=(*source.notes, note))
