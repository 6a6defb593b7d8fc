"""The protocols by name, with settings of one's own after a colon: `segmentation:iterations=500,void=11,mode=frozen`."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches
from typing import get_type_hints

from byol.dense.depth import Depth
from byol.dense.detection import Detection
from byol.dense.segmentation import Segmentation
from byol.dense.task import Transfer

_KINDS: dict[str, type[Segmentation] | type[Depth] | type[Detection]] = {
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
    name, _, settings = text.partition(":")
    if name not in _KINDS:
        raise ValueError(f"there is no dense protocol {name!r}; there are {', '.join(_KINDS)}")
    kind = _KINDS[name]
    types = get_type_hints(kind)
    fields = [f.name for f in dataclasses.fields(kind)]
    chosen: dict[str, int | float | str] = {}
    for pair in filter(None, settings.split(",")):
        key, equals, value = pair.partition("=")
        if key not in fields or not equals:
            near = get_close_matches(key, fields, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"the protocol {name} has no setting {pair!r}{hint}; there are {', '.join(fields)}, each as KEY=VALUE")
        try:
            chosen[key] = types[key](value)
        except ValueError:
            raise ValueError(f"{key}={value}: give {'a whole number' if types[key] is int else 'a number'}") from None
    return kind(**chosen)  # type: ignore[arg-type]  # of the fields' types
