"""A process that does one job of an ablation, told by the one that started it (pool.py): `python -m byol.ablation.child`.

A line of JSON comes in on standard input; lines go out on standard output: {"step": n}, {"log": a record}, {"note": a sentence}, and
last {"ended": how, "step": n} or {"failed": a sentence}. Whatever else is printed goes to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any, TextIO

from byol import run as runs
from byol import stopping
from byol.ablation.job import Job, work
from byol.training import Record

EVERY = 0.2  # seconds between two messages about updates


class Teller:
    """A `byol.training.Watcher` that passes on what it hears."""

    def __init__(self, out: TextIO, steps: int) -> None:
        self.out, self.steps, self._told = out, steps, 0.0

    def tell(self, **message: object) -> None:
        """One message."""
        with suppress(BrokenPipeError):  # nobody listens any more, and the run is saved all the same
            self.out.write(json.dumps(message) + "\n")
            self.out.flush()

    def step(self, done: int) -> None:
        """An update is finished."""
        if done == self.steps or time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            self.tell(step=done)

    def log(self, record: Record) -> None:
        """A line was logged."""
        self.tell(log=record)

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self.tell(note=text)


def main() -> None:
    """Do what standard input says."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing that a library prints comes between the messages
    told: dict[str, Any] = json.loads(_line(0))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    teller = Teller(out, told["steps"])
    try:
        with stopping.raised():
            _work(told, teller)
    except (stopping.Stopped, KeyboardInterrupt):
        teller.tell(ended="interrupted", step=None)
    except (ValueError, OSError) as error:
        teller.tell(failed=str(error))


def _work(told: dict[str, Any], teller: Teller) -> None:
    job = Job(**told["job"])
    session = runs.from_note(told["note"]) if told["note"] is not None else None
    trained = work(job, session, teller)
    if trained is not None and trained.outcome.ended == "interrupted":
        teller.tell(ended="interrupted", step=trained.outcome.step)
    else:
        teller.tell(ended=job.ended(), step=None)


def _line(file: int) -> bytes:
    """The line that comes. Not by a buffered file: a thread that waits in one keeps Python from ending."""
    found = b""
    while not found.endswith(b"\n") and (more := os.read(file, 1 << 16)):  # nothing comes after it
        found += more
    return found


def _stop_with_parent() -> None:
    """When the process that watches is gone, save and stop: its end of standard input is closed then."""
    if not os.read(0, 1):
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
