"""The command line: words in, a command run, an exit code out. Nothing else in the package knows argv or exit codes.

0 success; 1 a run that collapsed was stopped; 2 wrong usage or unusable input, with one sentence on standard error;
130 and 143 after Ctrl-C and SIGTERM, the run saved.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys

from byol.cli.screen import Screen, harmless, json_line, wrapped
from byol.cli.usage import Help, parse

# The module of each command is imported when it is run: most of them import torch, which takes seconds.
MODULES = {
    "look": ("doctor", "list"),
    "train": ("train", "resume"),
    "demo": ("demo",),
    "use": ("evaluate", "embed", "export", "report"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    # Threads that wait for one another in a loop, and do so for long, starve when other programs share the cores: steps took
    # 5 to 20 times as long. Not to loop at all halves the speed of a small network on free cores. Torch reads this when imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        return _run(words)
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except KeyboardInterrupt:
        return _complain("stopped; nothing had to be saved", 130, words)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        return _complain(sentence, 2, words)


def _run(words: list[str]) -> int:
    try:
        options = parse(words)
    except Help as text:
        print(text, flush=True)
        return 0
    command = type(options).__name__.lower()
    module = next(m for m, commands in MODULES.items() if command in commands)
    screen = Screen(json=options.json)
    try:
        if module != "look":
            screen.progress("starting", 0, 0)
        code: int = getattr(importlib.import_module(f"byol.cli.{module}"), command)(options, screen)
        return code
    finally:
        screen.clear()


def _complain(sentence: str, code: int, words: list[str]) -> int:
    """The sentence on standard error, and as JSON where that was asked for."""
    print(harmless("\n".join(wrapped(sentence, 6, "byol: "))), file=sys.stderr, flush=True)
    if "--json" in words:
        print(json_line({"error": sentence}), flush=True)
    return code


def _sentence(error: Exception) -> str | None:
    """What a person can do about an error; None for one that is a mistake of ours."""
    name = type(error).__name__
    if isinstance(error, OSError):
        return _about_file(error.errno or 0, error.strerror or str(error), error.filename)
    if name == "SafetensorError" and (found := re.search(r"os error (\d+)", str(error))):
        return _about_file(int(found[1]), os.strerror(int(found[1])), None)
    if name in ("MemoryError", "OutOfMemoryError"):
        return "out of memory; pass a smaller --batch-size (--accumulate keeps the update as large) or --image-size"
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return "a process that decodes images was killed, as a rule for want of memory; pass fewer --workers"
    return str(error) if isinstance(error, ValueError) else None


def _about_file(number: int, text: str, name: object) -> str:
    """What went wrong with which file, and how to mend it."""
    where = f"{name}: " if name else ""
    if number == errno.ENOSPC:
        return f"{where}the disk is full; free some space, or choose another place with --out"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{where}not allowed to read or write there; choose another place, e.g. with --out"
    if number == errno.ENOENT:
        return f"{where}there is no such file or folder"
    return f"{where}{text}"
