"""The command line read into the dataclasses of `options`; one sentence for every mistake.

Written out here, since generated parsers cannot keep what is promised: help in less than 0.3 s, errors in one sentence
with the nearest option, and options of several values that leave the DATA behind them alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections import deque
from dataclasses import MISSING
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

from byol.cli.help import about, called, choices, describe, flag, overview
from byol.cli.options import COMMANDS, PROTOCOLS, Common, Place

Value = str | int | float | bool | Path | tuple[object, ...]


class Help(Exception):
    """Not an error: the text that was asked for."""


def parse(argv: list[str]) -> Common:
    """["train", "photos/", "--epochs", "9"] -> Train(data="photos/", epochs=9).

    Raises ValueError with one sentence for wrong usage, and Help when help was asked for.
    """
    if not argv or argv[0] in ("-h", "--help"):
        raise Help(overview())
    command = argv[0]
    if command == "--version":
        from byol import __version__

        raise Help(f"byol {__version__}")
    if command not in COMMANDS:
        raise ValueError(_no_command(command))
    cls = COMMANDS[command]
    if "--help" in argv or "-h" in argv:
        raise Help(describe(command))
    return cls(**_Reader(command, cls).read(deque(argv[1:])))  # type: ignore[arg-type]  # checked against the fields


class _Reader:
    """One pass over the words of a command."""

    def __init__(self, command: str, cls: type[Common]) -> None:
        self.command, self.cls = command, cls
        self.types = get_type_hints(cls)
        self.fields = dataclasses.fields(cls)
        self.places = deque(f for f in self.fields if isinstance(about(cls, f), Place))
        self.options = {flag(f): f for f in self.fields if f not in self.places}
        self.values: dict[str, Value] = {}

    def read(self, words: deque[str]) -> dict[str, Value]:
        literal = False
        while words:
            word = words.popleft()
            if word == "--" and not literal:
                literal = True
            elif word.startswith("--") and not literal:
                self._option(word, words)
            else:
                self._place(word)
        missing = [f for f in self.fields if f.default is MISSING and f.name not in self.values]
        if missing:
            raise ValueError(f"{self.command} needs {_listed([called(self.cls, f) for f in missing])}; {self._see()}")
        return self.values

    def _option(self, word: str, words: deque[str]) -> None:
        name, equals, attached = word.partition("=")
        name = name.replace("_", "-")
        if name not in self.options:
            raise ValueError(self._no_option(name))
        field = self.options[name]
        wanted = self.types[field.name]
        if wanted is bool:
            if equals:
                raise ValueError(f"{name} takes no value; write it alone")
            self.values[field.name] = field.default is not True
            return
        if not equals and (not words or words[0].startswith("--")):
            raise ValueError(f"{name} needs a value: {called(self.cls, field)}")
        first = attached if equals else words.popleft()
        if get_origin(wanted) is not tuple:
            self.values[field.name] = _typed(name, first, wanted)
            return
        item = get_args(wanted)[0]
        found = [_typed(name, first, item)]
        while words and _belongs(words[0], field.name, item, places=bool(self.places)):
            found.append(_typed(name, words.popleft(), item))
        before = self.values.get(field.name, ())
        assert isinstance(before, tuple)
        self.values[field.name] = (*before, *found)

    def _place(self, word: str) -> None:
        if not self.places:
            raise ValueError(f"{self.command} cannot use {word!r}; {self._see()}")
        field = self.places[0]
        wanted = self.types[field.name]
        if get_origin(wanted) is tuple:
            before = self.values.get(field.name, ())
            assert isinstance(before, tuple)
            self.values[field.name] = (*before, word)
            return
        self.places.popleft()
        self.values[field.name] = _typed(called(self.cls, field), word, wanted)

    def _see(self) -> str:
        return f"see byol {self.command} --help"

    def _no_option(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.options, n=1)
        return f"no option {name}; " + (f"did you mean {near[0]}?" if near else self._see())


def _typed(name: str, text: str, wanted: object) -> Value:
    """The text as str, int, float, Path or one of a Literal's words (or None, which is never written out)."""
    if choices(wanted):
        if text in choices(wanted):
            return text
        raise ValueError(f"{name} {text}: give one of {', '.join(choices(wanted))}")
    kinds = get_args(wanted) or (wanted,)
    for kind, words in ((int, "a whole number"), (float, "a number")):
        if kind in kinds:
            try:
                value = kind(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise ValueError(f"{name} {text}: give {words}")
            return value
    if not text:
        raise ValueError(f"{name} is empty; give it a value")
    return Path(text) if Path in kinds else text


def _belongs(word: str, name: str, item: object, *, places: bool) -> bool:
    """Whether a further word is one more value of an option of several: what cannot be one is the next positional, if `places` are left."""
    if name == "values" and (not places or " " in word):  # settings with names of their own, "no colour"
        return not word.startswith("--")
    if name in ("set", "values") and "=" in word:
        return not word.startswith("--")
    if name == "set":
        return False
    if choices(item):
        return word in choices(item)
    if name == "protocol":
        return word.partition(":")[0] in PROTOCOLS
    try:
        float(word)
    except ValueError:
        return False
    return True


def _listed(words: list[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _no_command(word: str) -> str:
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    if near:
        return f"no command {word}; did you mean byol {near[0]}?"
    if Path(word).exists():
        return f"no command {word}; did you mean byol train {word}?"
    return f"no command {word}; there are: {', '.join(COMMANDS)}"
