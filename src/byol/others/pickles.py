"""A pickle read as data: the tree of its values, in which nothing is imported, made or called.

A pickle is a program that makes objects by calling what it names. Here its opcodes are followed by hand, and what it names stays a
name: an object is a `Made`, which holds what it would have been made of. Arrays of NumPy are built from their bytes by `array`, whose
sizes are checked first. So a hostile file can fill memory with no more than its own size, and run nothing.
"""

from __future__ import annotations

import math
import pickletools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

# What Python itself has that pickles of arrays and containers need; all else of it is refused, and the names of other packages are inert.
_NEEDED = {
    "_codecs": {"encode"},
    "collections": {"OrderedDict", "defaultdict", "namedtuple"},
    "copyreg": {"_reconstructor", "__newobj__"},
    "copy_reg": {"_reconstructor", "__newobj__"},
    "builtins": {"object", "dict", "list", "tuple", "set", "frozenset", "bytes", "bytearray", "int", "float", "complex", "bool", "slice"},
}
_NEEDED["__builtin__"] = _NEEDED["builtins"] | {"long", "unicode", "str"}
_DTYPES = {f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}


class _Mark:
    """Where a list of arguments begins on the stack."""


@dataclass(frozen=True)
class Named:
    """What a pickle names, which is not looked for."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Made:
    """What a pickle would have made: by what, of what, and what it would have put into it."""

    by: object
    args: object
    state: object = None
    items: dict[object, object] = field(default_factory=dict)

    def mapping(self) -> dict[object, object]:
        """Its items, where it is a mapping: put into it, or the one dict that it is made of or holds; ValueError otherwise."""
        inside = [*self.args] if isinstance(self.args, tuple) else []
        held = [*self.state.values()] if isinstance(self.state, dict) else [*self.state] if isinstance(self.state, tuple) else []
        found = [d for d in (self.items, *inside, *held, self.state) if isinstance(d, dict) and d]
        if not found:
            raise ValueError("there is something else where a mapping should be")
        return found[0]


def read(path: Path) -> object:
    """The value in a file, of plain values, `Named` and `Made`; ValueError for what is truncated, malformed, or names what it may not."""
    with path.open("rb") as file:
        try:
            return _Machine().run(_Bounded(file, path.stat().st_size))
        except ValueError:
            raise
        except (IndexError, KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
            raise ValueError(f"its pickle is malformed ({type(error).__name__})") from error


def array(value: object) -> np.ndarray:
    """The array that a `Made` of NumPy is, or of dill; ValueError for any other value, and for sizes that are not those of its bytes."""
    by = value.by.name if isinstance(value, Made) and isinstance(value.by, Named) else None
    if not isinstance(value, Made) or not isinstance(value.args, tuple):
        raise ValueError("there is something else where an array should be")
    if by == "scalar" and len(value.args) == 2:
        return _filled((), _dtype(value.args[0]), value.args[1], fortran=False)
    # dill hands over at once what NumPy's own pickles set afterwards.
    state = value.args[2] if by == "_create_array" and len(value.args) > 2 else value.state if by == "_reconstruct" else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("there is something else where an array should be")
    _, shape, dtype, fortran, raw = state
    return _filled(shape, _dtype(dtype), raw, fortran=fortran is True)


def _filled(shape: object, dtype: np.dtype, raw: object, *, fortran: bool) -> np.ndarray:
    if not isinstance(shape, tuple) or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in shape) or not isinstance(raw, bytes):
        raise ValueError("an array is not made of sizes and bytes")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} has {len(raw):,} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _dtype(value: object) -> np.dtype:
    """Of numbers alone: an array of objects would hold what is to be made."""
    code = value.args[0] if isinstance(value, Made) and isinstance(value.args, tuple) and value.args else None
    named = isinstance(value, Made) and isinstance(value.by, Named) and value.by.name == "dtype"
    if not isinstance(value, Made) or not named or not isinstance(code, str) or code not in _DTYPES:
        raise ValueError("an array is of something else than numbers")
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
    return np.dtype(f"{'>' if isinstance(order, str) and order == '>' else '<'}{code}")


class _Bounded:
    """A file that is not asked for more than it has: a size in a pickle may say anything."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.tell, self.readline = file.tell, file.readline

    def read(self, n: int) -> bytes:
        if n > self._size - self._file.tell():
            raise ValueError("it is truncated")
        return self._file.read(n)


class _Machine:
    """The stack of a pickle, and what it has put aside."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def run(self, file: _Bounded) -> object:
        for opcode, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]  # it takes anything that reads
            name = opcode.name
            if name == "STOP":
                break
            if name in _CONSTANTS:
                self.stack.append(argument)
            elif name in _FIXED:
                self.stack.append(_FIXED[name]())
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"its pickle has the opcode {name}, which no weights need")
        return self.stack.pop()

    def to_mark(self) -> list[object]:
        place = next(i for i in range(len(self.stack) - 1, -2, -1) if i < 0 or isinstance(self.stack[i], _Mark))
        if place < 0:
            raise ValueError("its pickle is malformed (no mark)")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def pop(self, count: int) -> list[object]:
        if count > len(self.stack):
            raise ValueError("its pickle is malformed (the stack is empty)")
        found = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return found

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("its pickle is malformed (a name is no text)")
        top = module.partition(".")[0]
        if (top in sys.stdlib_module_names or top in ("__builtin__", "copy_reg", "nt")) and name not in _NEEDED.get(module, ()):
            raise ValueError(f"its pickle names {module}.{name}, which weights have no use for; nothing of it was run")
        self.stack.append(Named(module, name))

    def make(self, by: object, args: object) -> None:
        # Of protocol 2: bytes are text in Latin-1 that is to be encoded.
        if by == Named("_codecs", "encode") and isinstance(args, tuple) and args[1:] == ("latin1",) and isinstance(args[0], str):
            self.stack.append(args[0].encode("latin1"))
        else:
            self.stack.append(Made(by, args))

    def build(self, state: object) -> None:
        made = self.stack[-1]
        if not isinstance(made, Made):
            raise ValueError("its pickle puts a state into what has none; nothing of it was run")
        made.state = state

    def put(self, pairs: list[object]) -> None:
        target = self.stack[-1]
        into = target.items if isinstance(target, Made) else target
        if not isinstance(into, dict):
            raise ValueError("its pickle puts items into what is no mapping")
        into.update(_dict(pairs))

    def extend(self, values: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Made):
            raise ValueError("its pickle appends to what is no list")

    def keep(self, place: object) -> None:
        self.memo[place if isinstance(place, int) else len(self.memo)] = self.stack[-1]


def _global(machine: _Machine, argument: object) -> None:
    machine.name(*str(argument).split(" ", 1))


def _dict(pairs: list[object]) -> dict[object, object]:
    # A tuple of tuples of tuples would be hashed, or written down, for ever: it stands for itself.
    keys = [k if k is None or isinstance(k, str | int | float | bytes) else Made("a key", k) for k in pairs[::2]]
    return dict(zip(keys, pairs[1::2], strict=True))


_CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_FIXED: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # nothing that is looked for is in sets
    "MARK": _Mark,
}
_STEPS: dict[str, Callable[[_Machine, object], object]] = {
    "POP": lambda m, _: m.pop(1),
    "POP_MARK": lambda m, _: m.to_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "LIST": lambda m, _: m.stack.append(m.to_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.to_mark())),
    "FROZENSET": lambda m, _: m.stack.append(m.to_mark()),
    "DICT": lambda m, _: m.stack.append(_dict(m.to_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.pop(3))),
    "APPEND": lambda m, _: m.extend(m.pop(1)),
    "APPENDS": lambda m, _: m.extend(m.to_mark()),
    "ADDITEMS": lambda m, _: m.extend(m.to_mark()),
    "SETITEM": lambda m, _: m.put(m.pop(2)),
    "SETITEMS": lambda m, _: m.put(m.to_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda m, _: m.name(*m.pop(2)),
    "REDUCE": lambda m, _: m.make(*m.pop(2)),
    "NEWOBJ": lambda m, _: m.make(*m.pop(2)),
    "NEWOBJ_EX": lambda m, _: m.make(*m.pop(3)[:2]),
    "BUILD": lambda m, _: m.build(m.pop(1)[0]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda m, a: m.keep(a)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, a: m.stack.append(m.memo[a])),  # type: ignore[index]  # of an int
}
