"""What is printed and how: plain lines when piped, lines that move on a terminal, one JSON object last when asked for."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import textwrap
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

WIDTH = 80  # columns
SHARE, EVERY = 0.05, 30.0  # of the work, or seconds, between two lines about training when piped
TASK = 10.0  # seconds between two lines about any other work when piped: what is quick is silent
REFRESH = 0.2  # seconds between two pictures of a line that moves


class Screen:
    """Where a command talks to: standard output, or standard error when JSON is to be alone there."""

    def __init__(self, *, json: bool, silent: bool = False) -> None:
        self.json = json and not silent
        # Of several processes one speaks.
        self.stream = open(os.devnull, "w", encoding="utf-8") if silent else sys.stderr if json else sys.stdout  # noqa: SIM115
        self.moves = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._live: Live | None = None
        self._shown = 0.0
        self._task: tuple[str, Meter] | None = None

    def say(self, text: str = "") -> None:
        """A line as it is, but for what would steer the terminal; a line that moves stays below it."""
        text = harmless(text)
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self.stream, flush=True)

    def tell(self, text: str, indent: int = 0, first: str = "") -> None:
        """Prose, wrapped: `first` before it, and further lines indented as far."""
        for line in wrapped(text, indent, first):
            self.say(line)

    def result(self, content: dict[str, object]) -> None:
        """The JSON object of `--json`, and nothing without it."""
        self.clear()
        if self.json:
            print(json_line(content), flush=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """How far a piece of work is; a new `what` begins a new piece. Quick work is silent when piped."""
        if self._task is None or self._task[0] != what:
            self.clear()
            self._task = (what, Meter(total, done))
        meter = self._task[1]
        meter.update(done)
        if self.moves:
            self.move(lambda: _task_line(what, meter, self.stream))
        elif meter.due(share=0, every=TASK):
            self.say(f"{what}: " + ", ".join([f"{done:,} of {total:,} ({meter.percent()} %)", *meter.speed("/s")]))

    def move(self, picture: Callable[[], Text], *, now: bool = False) -> None:
        """Draw the lines that move anew, a few times a second at most."""
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.stream, highlight=False)
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
        if now or time.monotonic() - self._shown >= REFRESH:
            self._shown = time.monotonic()
            self._live.update(picture(), refresh=True)

    def clear(self, *, keep: bool = False) -> None:
        """Take the lines that move off the screen, or leave them there as they are."""
        self._task = None
        if self._live is not None:
            self._live.transient = not keep
            self._live.stop()
            self._live = None

    def columns(self) -> int:
        """The width to draw in."""
        return min(WIDTH, self._live.console.width if self._live else WIDTH)


class Meter:
    """How far and how fast: the rate is that of the last half minute."""

    def __init__(self, total: int, done: int = 0) -> None:
        self.total, self.done = total, done
        self._began = time.monotonic()
        self._told, self._told_at = done, self._began
        self._samples = deque([(self._began, done)])

    def update(self, done: int) -> None:
        """So much is done now."""
        self.done = done
        now = time.monotonic()
        if now - self._samples[-1][0] >= REFRESH:
            self._samples.append((now, done))
            while now - self._samples[0][0] > EVERY:
                self._samples.popleft()

    def percent(self) -> int:
        """Whole percents, 100 only when all is done."""
        return 100 * self.done // max(1, self.total)

    def rate(self) -> float:
        """A second; 0 while nothing is known."""
        since, then = self._samples[0]
        return (self.done - then) / max(1e-9, time.monotonic() - since)

    def speed(self, unit: str, times: float = 1.0) -> list[str]:
        """["1,024 img/s", "24 min left"], as far as known."""
        rate = self.rate()
        if rate <= 0:
            return []
        left = [f"{duration((self.total - self.done) / rate)} left"] if self.done < self.total else []
        return [f"{number(rate * times)}{unit}", *left]

    def due(self, share: float = SHARE, every: float = EVERY) -> bool:
        """True when such a share of the work was done, or so many seconds went by, since it was true last."""
        now, more = time.monotonic(), self.done - self._told
        if more <= 0 or (now - self._told_at < every and not (share and more >= share * self.total)):
            return False
        self._told, self._told_at = self.done, now
        return True


def _task_line(what: str, meter: Meter, stream: TextIO) -> Text:
    from rich.text import Text

    if meter.total <= 0:
        return Text(f" {what}")
    pieces = bar(meter.done / meter.total, 18, stream)
    return Text.assemble(f" {what}  ", *pieces, f" {meter.percent():>3} %   ", "   ".join(meter.speed("/s")))


def bar(fraction: float, width: int, stream: TextIO) -> list[tuple[str, str]]:
    """A bar as (text, style) pieces; in plain signs where the terminal has no others."""
    heavy, half, light = "━╸─" if "utf" in (stream.encoding or "").lower() else "==-"
    halves = round(2 * width * min(1.0, max(0.0, fraction)))
    done = heavy * (halves // 2) + half * (halves % 2)
    return [(done, "cyan"), (light * (width - len(done)), "bright_black")]


def wrapped(text: str, indent: int = 0, first: str = "") -> list[str]:
    """Prose in lines of at most 80 columns; words that are longer stay whole, so that paths can be copied."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first.ljust(indent),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first]


def counted(count: int, one: str) -> str:
    """`1 epoch`, `2,000 epochs`."""
    return f"{count:,} {one}{'s' * (count != 1)}"


def number(x: float) -> str:
    """1,024, 31, 4.2, 0.03: no more digits than a person reads."""
    return f"{x:,.0f}" if x >= 10 else f"{x:.2g}"


def duration(seconds: float) -> str:
    """45 s, 31 min, 2 h 10 min, 3 days."""
    if not math.isfinite(seconds):
        return "long"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes / 1440:.1f} days"


def harmless(text: str) -> str:
    """The text with every sign that a terminal would obey, or that turns its direction, as an escape; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def json_line(content: object) -> str:
    """Strict JSON in one line; what would steer a terminal is escaped as JSON does it."""
    text = json.dumps(finite(content), ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def finite(value: object) -> object:
    """The value for strict JSON: what is not a finite number becomes null."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def quoted(word: object) -> str:
    """The word as a shell takes it."""
    return shlex.quote(str(word))
