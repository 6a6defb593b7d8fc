"""The command line: words in, a command run, an exit code out. Nothing else in the package knows argv or exit codes.

0 success; 1 a run was stopped that collapsed or whose numbers are not finite, or one of an ablation died; 2 wrong usage or unusable
input, with one sentence on standard error; 75 (EX_TEMPFAIL: try again) a run was asked to stop by a signal and goes on when it is
resumed; 130 the same after Ctrl-C; 3 one of several processes that torchrun started lost the others.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

from byol import stored
from byol.cli import launch
from byol.cli.options import Common, Resume
from byol.cli.screen import Screen, harmless, json_line, wrapped
from byol.cli.trouble import LOST, sentence
from byol.cli.usage import Help, parse
from byol.stopping import Stopped, raised

# The module of each command is imported when it is run: most of them import torch, which takes seconds.
MODULES = {
    "look": ("doctor", "list"),
    "train": ("train", "resume"),
    "demo": ("demo",),
    "ablate": ("ablate",),
    "study": ("study",),
    "share": ("push", "pull"),
    "use": ("evaluate", "embed", "export", "report"),
}

AGAIN = 75  # EX_TEMPFAIL of sysexits.h: a run was asked to stop and can go on


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
    except Stopped as stopped:
        name = signal.Signals(stopped.number).name
        return _complain(f"stopped by {name} where nothing had to be saved; the same command begins again", AGAIN, words)
    except Exception as error:
        what = sentence(error)
        if what is None:
            raise
        if not what:  # one of several processes, and the first has said it
            return 2
        return _complain(what, launch.LOST if what is LOST else 2, words)


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
        # A scheduler may take the machine away while torch is imported and the data read: no less a reason to try again.
        with raised() if module in ("train", "ablate") else nullcontext():
            code: int = getattr(importlib.import_module(f"byol.cli.{module}"), command)(options, screen)
        return code
    finally:
        screen.clear()


def devices_of(options: Common) -> int:
    """How many processes are asked for; a run goes on with as many as it had."""
    asked = getattr(options, "devices", 1)
    if asked is None and isinstance(options, Resume):
        try:
            asked = stored.read_object(Path(options.run) / "config.json").get("processes")
        except (OSError, ValueError):
            return 1  # no run, which is said where runs are opened
    return asked if isinstance(asked, int) else 1


def _complain(what: str, code: int, words: list[str]) -> int:
    """The sentence on standard error, and as JSON where that was asked for."""
    print(harmless("\n".join(wrapped(what, 6, "byol: "))), file=sys.stderr, flush=True)
    if "--json" in words:
        print(json_line({"error": what}), flush=True)
    return code
