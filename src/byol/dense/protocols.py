"""The protocols by name, with settings of one's own after a colon: `segmentation:iterations=500,void=11,mode=frozen`."""

from __future__ import annotations

from byol import asked
from byol.dense.depth import Depth
from byol.dense.detection import Detection
from byol.dense.segmentation import Segmentation
from byol.dense.task import Transfer

_KINDS: dict[str, type[Segmentation | Depth | Detection]] = {
    "segmentation": Segmentation,
    "depth": Depth,
    "detection": Detection,
}


def names() -> list[str]:
    """What `load` knows."""
    return list(_KINDS)


def describe(name: str) -> str:
    """A protocol and its default settings, in a few words."""
    return load(name).describe()


def load(text: str) -> Transfer:
    """`NAME` or `NAME:KEY=VALUE,...` -> the protocol; ValueError for what is not there."""
    return asked.read(text, _KINDS, "dense protocol")
