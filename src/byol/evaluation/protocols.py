"""The protocols by name, with settings of one's own after a colon: `knn`, `knn:k=5,temperature=none`, `linear-sgd:augment=false`."""

from __future__ import annotations

import dataclasses
from difflib import get_close_matches

from byol.evaluation.knn import Knn
from byol.evaluation.linear import Linear
from byol.evaluation.linear_sgd import LinearSgd
from byol.evaluation.probe import Probe
from byol.evaluation.transfer import Transfer

_KINDS: dict[str, type[Knn] | type[Linear] | type[LinearSgd] | type[Transfer]] = {
    "knn": Knn,
    "linear": Linear,
    "linear-sgd": LinearSgd,
    "transfer": Transfer,
}
_WORDS = {"true": True, "false": False, "none": None}


def names() -> list[str]:
    """What `load` knows."""
    return list(_KINDS)


def describe(name: str) -> str:
    """A protocol and its default settings, in a few words."""
    return load(name).describe()


def load(text: str) -> Probe:
    """`NAME` or `NAME:KEY=VALUE,...` -> the protocol; ValueError for what is not there."""
    name, _, settings = text.partition(":")
    if name not in _KINDS:
        raise ValueError(f"there is no protocol {name!r}{_near(name, names())}; there are {', '.join(names())}")
    kind = _KINDS[name]
    fields = [f.name for f in dataclasses.fields(kind) if not isinstance(f.default, tuple)]
    chosen: dict[str, float | int | bool | None] = {}
    for pair in filter(None, settings.split(",")):
        key, equals, value = pair.partition("=")
        if key not in fields or not equals:
            there = f"{_near(key, fields)}; there are {', '.join(fields)}, each as KEY=VALUE"
            raise ValueError(f"the protocol {name} has no setting {pair!r}{there}")
        chosen[key] = _value(key, value)
    try:
        return kind(**chosen)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"the settings {settings!r} of {name} are of the wrong kind; give numbers, or none for plain votes") from None


def _value(key: str, text: str) -> float | int | bool | None:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"{key}={text}: give a number, true, false or none")


def _near(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
