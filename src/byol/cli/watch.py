"""Training as a person sees it: how far, how fast, how long still, and whether it is healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byol.cli.screen import Meter, Screen, bar

if TYPE_CHECKING:
    from rich.text import Text

    from byol.config import Plan
    from byol.training import Record

COLOURS = {"OK": "green", "WARN": "yellow", "COLLAPSED": "bold red"}


class Watch:
    """A `byol.training.Watcher` that draws on a screen."""

    def __init__(self, screen: Screen, plan: Plan, *, resumed: bool = False, rate: str = "img/s") -> None:
        self.screen, self.plan, self.resumed, self.rate = screen, plan, resumed, rate
        self.meter: Meter | None = None  # begins with the first step: loading is not training
        self.record: Record = {}
        self._verdict = "OK"

    def step(self, done: int) -> None:
        """An update is finished."""
        if self.meter is None:
            self.screen.clear()
            if self.resumed:
                self.screen.say(f"        going on after step {done - 1:,} of {self.plan.steps:,}")
            self.meter = Meter(self.plan.steps, done)
        self.meter.update(done)
        if self.screen.moves:
            self.screen.move(self.picture)
        elif done < self.plan.steps and self.meter.due():
            self.screen.say(self.line())

    def log(self, record: Record) -> None:
        """New numbers; a verdict that changed is told once, with its reason."""
        before, self._verdict = self._verdict, str(record["verdict"])
        self.record = record
        if self._verdict not in ("OK", before):
            self.screen.tell(f"at step {record['step']}: {record['reason']}", 2, f"{self._verdict} ")
        if self.meter is not None and self.meter.done == self.plan.steps:
            if self.screen.moves:
                self.screen.move(self.picture, now=True)
            else:
                self.screen.say(self.line())

    def note(self, text: str) -> None:
        """What a person should know of this run."""
        self.screen.clear()
        self.screen.tell(text, 8, "Note")

    def line(self) -> str:
        """All of it in one line, for a file or a pipe."""
        return f"{self._epoch()}  {self._percent()}  {'  '.join(self._speed())}  {'  '.join(self._numbers())}  {self._verdict}".rstrip()

    def picture(self) -> Text:
        """All of it in two lines, for a terminal."""
        from rich.text import Text

        assert self.meter is not None
        place, speed = f" {self._epoch()}  ", f"   {'   '.join(self._speed())}"
        room = self.screen.columns() - len(place) - len(speed) - 8
        pieces = bar(self.meter.done / self.meter.total, max(4, min(24, room)), self.screen.stream)
        text = Text.assemble(place, *pieces, f" {self._percent()}", speed)
        if self.record:
            text.append(f"\n  {'   '.join(self._numbers())}   health ")
            text.append(self._verdict, COLOURS.get(self._verdict, ""))
            text.append(f"  {self._health()}")
        return text

    def _epoch(self) -> str:
        assert self.meter is not None
        epochs = self.plan.settings.epochs
        now = min(epochs, self.meter.done * epochs // self.plan.steps + 1)
        return f"epoch {now:>{len(str(epochs))}}/{epochs}"

    def _percent(self) -> str:
        return f"{self.meter.percent() if self.meter else 0:>3} %"

    def _speed(self) -> list[str]:
        assert self.meter is not None
        s = self.plan.settings
        return self.meter.speed(f" {self.rate}", times=s.batch_size * s.accumulate)

    def _numbers(self) -> list[str]:
        """loss, and the rates that change."""
        shown = [("loss", "loss", ".3f"), ("tau", "tau", ".4f"), ("lr", "lr", ".3g")]
        return [f"{name} {float(self.record[key]):{form}}" for name, key, form in shown if key in self.record]

    def _health(self) -> str:
        r = self.record
        most = self.plan.settings.batch_size - 1
        width = self.plan.method.get("dim")
        ceiling = min(most, width) if isinstance(width, int) else most
        return f"spread {float(r['spread']):.2f}, rank {float(r['rank']):.0f} of {ceiling}"
