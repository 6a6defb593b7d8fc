"""A protocol as it is asked for, in one word with settings after a colon: `knn:k=5,temperature=none`, `semi:lrs=0.01/0.1`."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import NoneType
from typing import TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
Number = int | float
Value = Number | bool | str | tuple[Number, ...] | None
_SAID = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "none"}


def read(text: str, kinds: Mapping[str, type[T]], what: str) -> T:
    """`NAME` or `NAME:KEY=VALUE,...` -> the dataclass of that name, its fields of the types that they are declared with.

    Several numbers have / between them. ValueError for a name, a key or a value that there is not; `what` the names are of.
    """
    name, _, settings = text.partition(":")
    if name not in kinds:
        raise ValueError(f"there is no {what} {name!r}{_near(name, list(kinds))}; there are {', '.join(kinds)}")
    fields = get_type_hints(kinds[name])
    chosen: dict[str, Value] = {}
    for pair in filter(None, settings.split(",")):
        key, equals, value = pair.partition("=")
        if key not in fields or not equals:
            there = f"{_near(key, list(fields))}; there are {', '.join(fields)}, each as KEY=VALUE"
            raise ValueError(f"the protocol {name} has no setting {pair!r}{there}")
        chosen[key] = _value(key, value, fields[key])
    return kinds[name](**chosen)


def _value(key: str, text: str, declared: object) -> Value:
    """The text as the declared type: one, several of a union, or a tuple of one."""
    if get_origin(declared) is tuple:
        (kind, _) = get_args(declared)
        try:
            return tuple(kind(part) for part in text.split("/"))
        except ValueError:
            raise ValueError(f"{key}={text}: give {_SAID[kind]}, or several with / between them") from None
    kinds = get_args(declared) or (declared,)
    if NoneType in kinds and text.lower() == "none":
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):
        try:
            if number in kinds:
                return number(text)
        except ValueError:
            continue
    if str in kinds:
        return text
    raise ValueError(f"{key}={text}: give {' or '.join(_SAID[k] for k in kinds)}")


def _near(word: str, known: list[str]) -> str:
    close = get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
