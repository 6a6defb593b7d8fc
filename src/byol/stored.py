"""JSON that was stored, read back as data: whatever is wrong with it is a ValueError of a few words, never another exception."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from pathlib import Path
from typing import Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

LIMIT: Final = 256 << 20  # bytes; no JSON file of a run comes near it
_LARGEST: Final = 2**63 - 1

T = TypeVar("T")


def parse(text: str | bytes) -> object:
    """JSON -> its value. NaN and Infinity are taken, as Python writes them; numbers of thousands of digits are not."""
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start:,})") from None


def read_object(path: Path) -> dict[str, object]:
    """The JSON object in a file; FileNotFoundError if there is none, ValueError for anything else that is wrong."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")  # opening a pipe would wait for ever
        with path.open("rb") as file:
            text = file.read(LIMIT + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError((error.strerror or "it cannot be read").lower()) from None
    if len(text) > LIMIT:
        raise ValueError(f"it has more than {LIMIT:,} bytes")
    content = parse(text)
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def typed(cls: type[T], fields: object) -> T:
    """A dataclass from a JSON object, every value of the type that the class declares and every number finite."""
    if not isinstance(fields, dict):
        raise ValueError(f"{cls.__name__.lower()} is {_brief(fields)} where an object should be")
    hints, known = get_type_hints(cls), dataclasses.fields(cls)  # type: ignore[arg-type]
    names = {f.name for f in known}
    if foreign := [k for k in fields if k not in names]:
        raise ValueError(f"there is no field {_brief(foreign[0])}")
    needed = (f.name for f in known if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
    if absent := [name for name in needed if name not in fields]:
        raise ValueError(f"{absent[0]} is missing")
    return cls(**{name: convert(value, hints[name], name) for name, value in fields.items()})


def convert(value: object, wanted: object, name: str) -> object:
    """A JSON value as the wanted type; lists become tuples where the type says so. ValueError where it is another."""
    origin, args = get_origin(wanted), get_args(wanted)
    if wanted is object:
        return value
    if origin in (Union, types.UnionType):
        return _first_that_fits(value, args, name)
    if origin is Literal and isinstance(value, str | int) and value in args:
        return value
    if origin in (tuple, list) and isinstance(value, list | tuple):
        return _sequence(value, wanted, name)
    if origin is dict and isinstance(value, dict):
        return {k: convert(v, args[1], f"{name}.{_brief(k)}") for k, v in value.items()}
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return typed(wanted, value)
    if _is_plain(value, wanted):
        return value
    raise ValueError(f"{name} is {_brief(value)}, which cannot be")


def _is_plain(value: object, wanted: object) -> bool:
    if wanted in (None, type(None)):
        return value is None
    if isinstance(value, bool) or wanted in (bool, str):
        return wanted is type(value)
    if wanted is int:
        return isinstance(value, int) and abs(value) <= _LARGEST
    if isinstance(value, int):
        return wanted is float and abs(value) <= _LARGEST
    return wanted is float and isinstance(value, float) and math.isfinite(value)


def _first_that_fits(value: object, kinds: tuple[object, ...], name: str) -> object:
    for kind in kinds:
        try:
            return convert(value, kind, name)
        except ValueError:
            continue
    raise ValueError(f"{name} is {_brief(value)}, which cannot be")


def _sequence(value: list[object] | tuple[object, ...], wanted: object, name: str) -> object:
    args = get_args(wanted)
    if get_origin(wanted) is list or args[-1] is ...:
        found = [convert(v, args[0], f"{name}[{i}]") for i, v in enumerate(value)]
        return found if get_origin(wanted) is list else tuple(found)
    if len(value) != len(args):
        raise ValueError(f"{name} is {_brief(value)}, which cannot be")
    return tuple(convert(v, kind, f"{name}[{i}]") for i, (v, kind) in enumerate(zip(value, args, strict=True)))


def _brief(value: object) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # ValueError: an integer of more digits than Python writes
        text = f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."
