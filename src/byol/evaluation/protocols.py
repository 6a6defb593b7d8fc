"""The protocols by name, with settings of one's own after a colon: `knn:k=5,temperature=none`, `semi:lrs=0.01/0.1,list=names.txt`."""

from __future__ import annotations

from difflib import get_close_matches
from typing import get_args, get_origin, get_type_hints

from byol.evaluation.finetune import FineTune
from byol.evaluation.knn import Knn
from byol.evaluation.linear import Linear
from byol.evaluation.linear_sgd import LinearSgd
from byol.evaluation.probe import Probe
from byol.evaluation.semi import Semi
from byol.evaluation.transfer import Transfer

_KINDS: dict[str, type[Knn] | type[Linear] | type[LinearSgd] | type[Semi] | type[FineTune] | type[Transfer]] = {
    "knn": Knn,
    "linear": Linear,
    "linear-sgd": LinearSgd,
    "semi": Semi,
    "finetune": FineTune,
    "transfer": Transfer,
}
Value = float | int | bool | str | tuple[float | int, ...] | None
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
    kinds = get_type_hints(kind)
    chosen: dict[str, Value] = {}
    for pair in filter(None, settings.split(",")):
        key, equals, value = pair.partition("=")
        if key not in kinds or not equals:
            there = f"{_near(key, list(kinds))}; there are {', '.join(kinds)}, each as KEY=VALUE"
            raise ValueError(f"the protocol {name} has no setting {pair!r}{there}")
        chosen[key] = _value(key, value, kinds[key])
    try:
        return kind(**chosen)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"the settings {settings!r} of {name} are of the wrong kind; give numbers, or none for plain votes") from None


def _value(key: str, text: str, kind: object) -> Value:
    """What the setting holds: numbers with / between them where it takes several, words where it takes words."""
    if get_origin(kind) is tuple:
        return tuple(_number(key, part) for part in text.split("/"))
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return text if kind is str or str in get_args(kind) else _number(key, text)


def _number(key: str, text: str) -> float | int:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"{key}={text}: give a number, true, false or none")


def _near(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
