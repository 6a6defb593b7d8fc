"""What `byol --help` and `byol COMMAND --help` say, from the dataclasses of `options`, in at most 80 columns."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from dataclasses import MISSING, Field
from typing import Literal, get_args, get_origin, get_type_hints

from byol.cli.options import COMMANDS, About, Common, Place


def overview() -> str:
    """What `byol --help` says."""
    lines = ["byol: from images or sounds without labels to an encoder whose worth is shown.", ""]
    for command, cls in COMMANDS.items():
        lines += _row(f"byol {usage(command)}", _doc(cls), 28)
    return "\n".join([*lines, "", "byol COMMAND --help shows the options of a command; start with byol demo."])


def usage(command: str) -> str:
    """train -> "train DATA"; what must be given, without options."""
    cls = COMMANDS[command]
    needed = [f for f in dataclasses.fields(cls) if f.default is MISSING]
    return " ".join([command, *(called(cls, f) for f in needed)])


def about(cls: type[Common], f: Field[object]) -> About:
    """What is said of a field."""
    found = get_type_hints(cls, include_extras=True)[f.name].__metadata__[0]
    assert isinstance(found, About)
    return found


def describe(command: str) -> str:
    """What `byol COMMAND --help` says."""
    cls = COMMANDS[command]
    types = get_type_hints(cls)
    fields = sorted(dataclasses.fields(cls), key=lambda f: f.name == "json")
    lines = [*textwrap.wrap(f"usage: byol {usage(command)} [options]", 80), "", *textwrap.wrap(_doc(cls), 80), ""]
    for f in fields:
        several = " ..." if get_origin(types[f.name]) is tuple and not isinstance(about(cls, f), Place) else ""
        lines += _row(called(cls, f) + several, about(cls, f).text, 26)
    return "\n".join(lines)


def called(cls: type[Common], f: Field[object]) -> str:
    """How a field is written on the command line: DATA, --epochs N, --json."""
    value = about(cls, f).value or "|".join(choices(get_type_hints(cls)[f.name]))
    return " ".join(word for word in ("" if isinstance(about(cls, f), Place) else flag(f), value) if word)


def _row(left: str, right: str, width: int) -> list[str]:
    """Two columns, at most 80 wide; the right one starts a new line when the left one is too long."""
    columns = min(80, shutil.get_terminal_size((80, 24)).columns)
    indent = " " * (width + 2)
    wrapped = textwrap.wrap(right, max(30, columns - len(indent)), break_long_words=False, break_on_hyphens=False)
    if len(left) <= width - 2:
        return [f"  {left:<{width}}{wrapped[0]}", *(indent + line for line in wrapped[1:])]
    return [f"  {left}", *(indent + line for line in wrapped)]


def _doc(cls: type[Common]) -> str:
    return (cls.__doc__ or "").strip()


def flag(f: Field[object]) -> str:
    """The spelling of an option: batch_size -> --batch-size; one that is on by default is spelt --no-NAME."""
    return f"--{'no-' if f.default is True else ''}{f.name.replace('_', '-')}"


def choices(wanted: object) -> tuple[str, ...]:
    """The words that a Literal allows; none for other types."""
    return get_args(wanted) if get_origin(wanted) is Literal else ()
