"""The images of a task as a source, for what needs only them: the statistics of an encoder that no run has fixed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from byol.data import Names, Source, Unreadable
from byol.dense.pictures import Array, Pictures, Split


@dataclass(frozen=True)
class _Reader:
    pictures: Pictures

    def read(self, index: int, shrink: int = 1) -> Array:
        try:
            image = self.pictures.image(index)
        except ValueError as error:
            raise Unreadable(str(error)) from error
        return image if image.dtype in (np.uint8, np.uint16) else image.astype(np.float32)


def source_of(pictures: Pictures) -> Source:
    """The images, all taken to be of the kind of the first one."""
    if not len(pictures):
        raise ValueError("there are no training images; give a folder that holds some")
    first = pictures.image(0)
    dtype = "uint8" if first.dtype == np.uint8 else "uint16" if first.dtype == np.uint16 else "float32"
    return Source(
        spec="the training images",
        names=Names.of(str(i) for i in range(len(pictures))),
        reader=_Reader(pictures),
        channels=first.shape[2],
        dtype=dtype,  # type: ignore[arg-type]  # one of the three words
        labels=None,
        classes=[],
        skipped=[],
        kind="folder",
    )


class OfSplit:
    """What a task says of its images, of whatever kind their targets are."""

    split: Split

    @property
    def train(self) -> int:
        return len(self.split.train)

    @property
    def test(self) -> int:
        return len(self.split.test)

    @property
    def how(self) -> str:
        return self.split.how

    def source(self) -> Source:
        return source_of(self.split.train)
