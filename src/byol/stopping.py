"""Signals that ask a program to stop: of a person, of the system that shuts down, of the schedulers of clusters."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# SLURM's --signal sends the user's two as a rule; SIGXCPU says that the processor's time is used up; SIGHUP that the terminal is gone.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name))


class Stopped(BaseException):
    """A signal asked to stop where nothing has to be finished first; no Exception, as KeyboardInterrupt is none."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def noted() -> Iterator[list[int]]:
    """Signals only note themselves in the list: the step in hand is finished and saved. A second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        # Only a person's impatience: schedulers repeat themselves, or send one signal after another, while the run is being saved.
        if number == signal.SIGINT and number in received:
            raise KeyboardInterrupt
        received.append(number)

    with _handled(SIGNALS, note):
        yield received


@contextmanager
def raised() -> Iterator[None]:
    """Signals raise `Stopped`, but for Ctrl-C, which stays the KeyboardInterrupt that it is."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled(tuple(s for s in SIGNALS if s != signal.SIGINT), stop):
        yield


@contextmanager
def _handled(numbers: tuple[int, ...], handler: object) -> Iterator[None]:
    """The handler for these signals, and what was there before afterwards; nothing in a thread, whose signals are another's."""
    before = {}
    try:
        for number in numbers:
            # What nohup has made deaf to SIGHUP stays deaf to it.
            if signal.getsignal(number) != signal.SIG_IGN or number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, handler)  # type: ignore[arg-type]
    except ValueError:  # not the main thread
        pass
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
