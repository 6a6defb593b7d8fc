"""The command that compares settings: ablate."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys

from byol import ablation
from byol.ablation import Asked, Interrupted
from byol.cli import AGAIN
from byol.cli.options import Ablate
from byol.cli.screen import Screen, quoted
from byol.config import Plan, Request
from byol.training import Record


class Board:
    """A `byol.ablation.Onlooker` that shows how far all runs together are."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.steps = 0
        self.done: dict[str, int] = {}  # updates of every run

    def planned(self, runs: int, left: int, jobs: int, steps: int) -> None:
        """How many runs there will be."""
        self.screen.clear()
        self.steps = steps
        ready = f", {runs - left:,} of them ready" if left < runs else ""
        at_once = f", {jobs} at a time" if jobs > 1 else ""
        self.screen.say(f"{runs:,} run{'s' * (runs != 1)}{ready}; {steps:,} steps to train{at_once}")

    def begins(self, name: str, plan: Plan) -> Steps:
        """A run begins, or goes on."""
        return Steps(self, name, plan)

    def failed(self, name: str, why: str) -> None:
        """A run died."""
        self.screen.tell(f"{name} failed, and the others go on; the same words try it again. {why}", 4, "  ")

    def show(self, name: str, done: int) -> None:
        """One run has come so far."""
        self.done[name] = done
        self.screen.progress("training", sum(self.done.values()), self.steps)


class Steps:
    """A `byol.training.Watcher` of one run."""

    def __init__(self, board: Board, name: str, plan: Plan) -> None:
        self.board, self.name, self.plan = board, name, plan
        self.verdict = ""

    def step(self, done: int) -> None:
        """An update is finished."""
        self.board.show(self.name, done)

    def log(self, record: Record) -> None:
        """A line was logged, after its update was told."""
        self.verdict = str(record["verdict"])
        if record["step"] == self.plan.steps:
            self.board.screen.tell(f"{self.name}: {self.plan.steps:,} steps, health {self.verdict}", 4, "  ")

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self.board.screen.tell(f"{self.name}: {text}", 4, "    ")


def ablate(options: Ablate, screen: Screen) -> int:
    """Every setting with every seed, and the table; 1 where a run died."""
    if options.epochs is not None and options.minutes is not None:
        raise ValueError("--epochs and --minutes both say how long a run is; give one of them")
    names = {f.name for f in dataclasses.fields(Request)} & {f.name for f in dataclasses.fields(Ablate)}
    request = Request(**{name: getattr(options, name) for name in names})
    asked = Asked(name=options.name, request=request, test=options.test, values=options.values, seeds=options.seeds)
    out = options.out or ablation.default_out(asked)
    screen.clear()
    screen.tell(f"Runs in {out}; what is there already is not trained again", 8)
    try:
        result = ablation.compare(asked, out, jobs=options.jobs, onlooker=Board(screen), progress=screen.progress)
    except Interrupted as stopped:
        return _interrupted(stopped, screen)
    screen.clear()
    for line in result.lines():
        screen.say(line)
    screen.say(f"{out}/results.json, {out}/results.svg: the same as numbers and as a picture")
    runs = [f"{out}/{ablation.folder(f.setting)}/seed-0" for f in result.findings if not f.same_as]
    screen.say(f"Next: byol report {' '.join(map(quoted, runs[:2]))} --out report.html")
    screen.result(result.to_json())
    return 1 if result.failed else 0


def _interrupted(stopped: Interrupted, screen: Screen) -> int:
    """Where the runs stand, and how to go on with all of them."""
    screen.clear()
    for run, step in stopped.saved.items():
        screen.say(f"Saved at step {step}: {run}")
    screen.say(f"The same words go on:  {shlex.join(['byol', *sys.argv[1:]])}")
    screen.result({"ended": "interrupted", "runs": stopped.saved})
    return 130 if stopped.signal in (None, signal.SIGINT) else AGAIN
