"""The command that compares settings: ablate."""

from __future__ import annotations

import dataclasses
import shlex
import sys

from byol import ablation
from byol.ablation import Asked, Interrupted
from byol.cli.options import Ablate
from byol.cli.screen import Screen, quoted
from byol.cli.train import interrupted
from byol.config import Plan, Request
from byol.training import Record


class Steps:
    """A `byol.training.Watcher` that shows how far one run is."""

    def __init__(self, screen: Screen, name: str, plan: Plan) -> None:
        self.screen, self.name, self.plan = screen, name, plan
        self.verdict = ""

    def step(self, done: int) -> None:
        """An update is finished."""
        self.screen.progress(self.name, done, self.plan.steps)
        if done == self.plan.steps:
            self.screen.clear()
            self.screen.say(f"  {self.name}: {done:,} steps, health {self.verdict or 'OK'}")

    def log(self, record: Record) -> None:
        """A line was logged."""
        self.verdict = str(record["verdict"])

    def note(self, text: str) -> None:
        """Something that a person should know."""
        self.screen.tell(text, 4, "    ")


def ablate(options: Ablate, screen: Screen) -> int:
    """Every setting with every seed, and the table."""
    if options.epochs is not None and options.minutes is not None:
        raise ValueError("--epochs and --minutes both say how long a run is; give one of them")
    names = {f.name for f in dataclasses.fields(Request)} & {f.name for f in dataclasses.fields(Ablate)}
    request = Request(**{name: getattr(options, name) for name in names})
    asked = Asked(name=options.name, request=request, test=options.test, values=options.values, seeds=options.seeds)
    out = options.out or ablation.default_out(asked)
    screen.clear()
    screen.say(f"Runs in {out}; what is there already is not trained again")
    try:
        result = ablation.ablate(asked, out, watching=lambda name, plan: Steps(screen, name, plan), progress=screen.progress)
    except Interrupted as stopped:
        screen.clear()
        screen.say(f"The same words go on:  {shlex.join(['byol', *sys.argv[1:]])}")
        return interrupted(stopped.trained, screen)
    screen.clear()
    for line in result.lines():
        screen.say(line)
    screen.say(f"{out}/results.json, {out}/results.svg: the same as numbers and as a picture")
    runs = [f"{out}/{ablation.folder(f.setting)}/seed-0" for f in result.findings if not f.same_as]
    screen.say(f"Next: byol report {' '.join(map(quoted, runs[:2]))} --out report.html")
    screen.result(result.to_json())
    return 0
