"""The command line: words in, a command run, an exit code out. Nothing else in the package knows argv or exit codes.

0 success; 1 a run that collapsed was stopped; 2 wrong usage or unusable input, with one sentence on standard error;
130 and 143 after Ctrl-C and SIGTERM, the run saved.
"""

from __future__ import annotations

import errno
import faulthandler
import importlib
import json
import os
import re
import sys
from pathlib import Path

from byol.cli import launch
from byol.cli.options import Common, Resume
from byol.cli.screen import Screen, wrapped
from byol.cli.usage import Help, parse

# The module of each command is imported when it is run: most of them import torch, which takes seconds.
MODULES = {
    "look": ("doctor", "list"),
    "train": ("train", "resume"),
    "demo": ("demo",),
    "use": ("evaluate", "embed", "export", "report"),
}


LOST = "another process ended, or did not answer in time; go on with byol resume"


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are no text
    # Threads that wait for one another in a loop, and do so for long, starve when other programs share the cores: steps took
    # 5 to 20 times as long. Not to loop at all halves the speed of a small network on free cores. Torch reads this when imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "RANK" in os.environ:
        faulthandler.enable()  # one of several processes: where it hangs can be asked
        launch.end_with_parent()
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
        return _complain(sentence, launch.LOST if sentence is LOST else 2, words) if sentence else 2


def _run(words: list[str]) -> int:
    try:
        options = parse(words)
    except Help as text:
        print(text, flush=True)
        return 0
    count = devices_of(options)
    if count != 1 and "RANK" not in os.environ:
        return launch.launch(words, count)
    command = type(options).__name__.lower()
    module = next(m for m, commands in MODULES.items() if command in commands)
    screen = Screen(json=options.json, silent=os.environ.get("RANK", "0") != "0")
    try:
        if module != "look":
            screen.progress("starting", 0, 0)
        code: int = getattr(importlib.import_module(f"byol.cli.{module}"), command)(options, screen)
        return code
    finally:
        screen.clear()


def devices_of(options: Common) -> int:
    """How many processes are asked for; a run goes on with as many as it had."""
    asked = getattr(options, "devices", 1)
    if asked is None and isinstance(options, Resume):
        try:
            began = json.loads((Path(options.run) / "config.json").read_text(encoding="utf-8"))
            return int(began.get("processes", 1))
        except (OSError, ValueError, TypeError, AttributeError):
            return 1  # no run, which is said where runs are opened
    return asked if isinstance(asked, int) else 1


def _complain(sentence: str, code: int, words: list[str]) -> int:
    """The sentence on standard error, and as JSON where that was asked for."""
    print("\n".join(wrapped(sentence, 6, "byol: ")), file=sys.stderr, flush=True)
    if "--json" in words:
        print(json.dumps({"error": sentence}), flush=True)
    return code


def _sentence(error: Exception) -> str | None:
    """What a person can do about an error; None for one that is a mistake of ours."""
    name = type(error).__name__
    if name == "Told":  # one of several processes: the first has said it
        return ""
    if isinstance(error, OSError):
        return _about_file(error.errno or 0, error.strerror or str(error), error.filename)
    if name == "SafetensorError" and (found := re.search(r"os error (\d+)", str(error))):
        return _about_file(int(found[1]), os.strerror(int(found[1])), None)
    if name in ("MemoryError", "OutOfMemoryError"):
        return "out of memory; pass a smaller --batch-size (--accumulate keeps the update as large) or --image-size"
    if "RANK" in os.environ and (name == "DistBackendError" or "gloo" in str(error)):
        return LOST
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
