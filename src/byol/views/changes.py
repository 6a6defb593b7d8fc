"""The pipelines of a plan as they are wanted: in the order of a method's views, and with what a person changed in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

Change = float | str | tuple[float, float] | None
P = TypeVar("P")  # the pipeline of a kind of data: a frozen dataclass of numbers, pairs of numbers, words and switches


class Take(NamedTuple):
    """A view that is wanted."""

    of: int  # which pipeline
    mild: bool = False
    local: bool = False


_ONE: Final = re.compile(r"view(\d{1,4})\.(.*)")  # a setting of one view alone: view2.blur


def arranged(
    plan: str,
    pipelines: tuple[P, ...],
    takes: Sequence[Take] | None,
    mild: Mapping[str, Change],
    changes: Mapping[str, Change],
    local: Callable[[P], Mapping[str, Change]] = lambda p: {},
) -> tuple[P, ...]:
    """The plan's pipelines with what is changed in all of them, or the views `takes` of these; then what is changed in one alone.

    `mild`: what is different in a view that is to be mild, `local`: in one of a small part. Unknown names and values out of range are a
    ValueError.
    """
    alone = {key: change for key, change in changes.items() if _ONE.fullmatch(key)}
    found = tuple(changed(p, {k: c for k, c in changes.items() if k not in alone}) for p in pipelines)
    if takes is not None:
        wanted = [(found[take.of % len(found)], take) for take in (Take(*take) for take in takes)]
        found = tuple(changed(p, {**(mild if take.mild else {}), **(local(p) if take.local else {})}) for p, take in wanted)
    own: list[dict[str, Change]] = [{} for _ in found]
    for key, change in alone.items():
        number, _, name = key.removeprefix("view").partition(".")
        if not 1 <= int(number) <= len(found):
            raise ValueError(f"{key}: the views {plan} have no view {number}; give view1 to view{len(found)}")
        own[int(number) - 1][name] = change
    return tuple(changed(p, c) for p, c in zip(found, own, strict=True))


def changed(pipeline: P, changes: Mapping[str, Change]) -> P:
    """The pipeline with its fields replaced, each checked and of its own type."""
    known, kinds = [f.name for f in fields(pipeline)], get_type_hints(type(pipeline))  # type: ignore[arg-type]  # a dataclass
    for key in changes:
        if key not in known:
            raise ValueError(f"views have no setting {key!r}{near(key, known)}; there are {', '.join(known)}")
    new: dict[str, Any] = {key: _value(key, value, kinds[key]) for key, value in changes.items()}
    return replace(pipeline, **new)  # type: ignore[type-var]


def _value(key: str, value: Change, kind: object) -> object:
    """What the field holds: a word, a pair, a whole number or none, a switch, or a number; True and False are 1 and 0."""
    if get_origin(kind) is Literal:
        return str(value)  # the pipeline knows which words there are
    kinds = get_args(kind) or (kind,)
    if kinds in ((float, float), (int, int)):
        if isinstance(value, (tuple, list)) and len(value) == 2 and (kinds[0] is float or all(v == int(v) for v in value)):
            return kinds[0](value[0]), kinds[0](value[1])
        raise ValueError(f"{key} {value!r} is no pair; give two {'whole ' * (kinds[0] is int)}numbers, the least and the greatest")
    if value is None and type(None) in kinds:
        return None
    if kind is bool and value in (0, 1):
        return bool(value)
    whole = int in kinds
    if whole and isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer():
        return int(value)
    if whole or kind is bool or not isinstance(value, (int, float)):
        wanted = "true or false" if kind is bool else "a whole number" if whole else "a number"
        raise ValueError(f"{key} {value!r} is not {wanted}; give that")
    return float(value)


def near(word: str, known: list[str]) -> str:
    """ "(did you mean X?)", or nothing."""
    close = get_close_matches(word, known, n=2)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
