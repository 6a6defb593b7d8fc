"""The commands that train: train and resume."""

from __future__ import annotations

import dataclasses
import json
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from byol import api, contact_sheet
from byol import run as runs
from byol.api import Trained
from byol.cli.options import Resume, Train
from byol.cli.plan import how_long, show_data, show_plan, show_whole
from byol.cli.screen import Screen, duration, number, quoted
from byol.cli.watch import Watch
from byol.config import Request
from byol.run import Session


def train(options: Train, screen: Screen) -> int:
    """From images to an encoder, or with --dry-run to the plan alone."""
    if options.epochs is not None and options.minutes is not None:
        raise ValueError("--epochs and --minutes both say how long to train; give one of them")
    request = Request(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Request)})
    out = options.out or api.default_out(options.data)
    runs.refuse_existing(out)
    session = runs.prepare(request, screen.progress)
    screen.clear()
    show_data(session, None if options.dry_run else out, screen)
    if options.dry_run:
        return _dry_run(options, session, screen)
    show_plan(session, screen)
    screen.say("        --dry-run shows all of it; --set KEY=VALUE changes any of it")
    screen.say(f"Run     {out}")
    return follow(lambda watch: api.begin(session, out, watcher=watch), session, out, screen)


def resume(options: Resume, screen: Screen) -> int:
    """Go on where the last checkpoint stands."""
    run = Path(options.run)
    if (run / "encoder.safetensors").exists() and (run / "plan.json").exists():
        screen.clear()
        screen.say(f"{run} is finished: {run}/encoder.safetensors")
        screen.say(f"Next: byol report {quoted(run)}")
        screen.result({"run": str(run), "ended": "finished", "encoder": f"{run}/encoder.safetensors"})
        return 0
    session = runs.reopen(run, screen.progress)
    screen.clear()
    show_data(session, run, screen)
    show_plan(session, screen)
    screen.say(f"Run     {run}")
    return follow(lambda watch: api.resume(run, session=session, watcher=watch), session, run, screen, resumed=True)


def _dry_run(options: Train, session: Session, screen: Screen) -> int:
    """The whole plan and a picture of the views; no run is begun."""
    show_whole(session, screen)
    seconds = None
    if options.recipe == "auto" and options.encoder is None:  # the plan is made for this machine: another may not even fit into it
        seconds = how_long(session, screen)
        rate = session.plan.steps * session.plan.settings.batch_size * session.plan.settings.accumulate / seconds
        screen.say(f"Time    about {duration(seconds)} here, at {number(rate)} img/s (a few steps were measured)")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / "views.png"
    else:
        path = Path(tempfile.mkdtemp(prefix="byol-")) / "views.png"
    contact_sheet.write(session, path)
    screen.say(f"Picture of the views: {path}")
    screen.say("Nothing was trained: leave out --dry-run to begin.")
    screen.result(
        {"plan": session.plan.to_json(), "views": session.views.describe(), "picture": str(path), "seconds": seconds and round(seconds, 1)}
    )
    return 0


def follow(begin: Callable[[Watch], Trained], session: Session, run: Path, screen: Screen, *, resumed: bool = False) -> int:
    """Train in sight of a person, to whichever end; returns the exit code."""
    screen.progress("first step", 0, 0)
    session.tell = lambda text: screen.tell(text, 2, "  ")
    try:
        trained = begin(Watch(screen, session.plan, resumed=resumed))
    except KeyboardInterrupt:  # before the first step, where signals are not yet caught, or a second one
        screen.clear()
        screen.say(f"Stopped at once. Go on with:  byol resume {quoted(run)}")
        screen.result({"run": str(run), "ended": "interrupted"})
        return 130
    screen.clear(keep=True)
    return _ended(trained, session, screen)


def _ended(trained: Trained, session: Session, screen: Screen) -> int:
    """How it ended, what it means, and what to do next."""
    outcome, plan = trained.outcome, session.plan
    code = 0
    if outcome.ended == "interrupted":
        return interrupted(trained, screen)
    if outcome.ended == "collapsed":
        screen.tell(f"Stopped at step {outcome.step} (--on-collapse stop). Start again with other settings:", 0)
        key = outcome.mend.partition("=")[0]
        others = (pair for pair in session.request.set if pair.partition("=")[0] != key)
        asked = replace(session.request, set=(*others, outcome.mend))
        screen.tell(shlex.join(["byol", "train", *asked.words()]), 2, "  ")
        code = 1
    else:
        _finished(trained, session, screen)
    record: dict[str, object] = {k: outcome.record[k] for k in ("loss", "verdict", "reason", "spread", "rank") if k in outcome.record}
    found: dict[str, object] = {"run": str(trained.run), "ended": outcome.ended, "step": outcome.step, "steps": plan.steps}
    found |= {"images": plan.images, "skipped": trained.skipped, "seconds": round(outcome.seconds, 1), **record}
    if outcome.ended == "finished":
        found["encoder"] = f"{trained.run}/encoder.safetensors"
    screen.result(found)
    return code


def interrupted(trained: Trained, screen: Screen) -> int:
    """A signal stopped it: where it stands, and how to go on."""
    outcome = trained.outcome
    screen.say(f"Saved at step {outcome.step}. Go on with:  byol resume {quoted(trained.run)}")
    screen.result({"run": str(trained.run), "ended": outcome.ended, "step": outcome.step})
    return 128 + (trained.signal or 2)


def _finished(trained: Trained, session: Session, screen: Screen) -> None:
    outcome, run = trained.outcome, quoted(trained.run)
    dim = json.loads((trained.run / "encoder.json").read_text(encoding="utf-8"))["dim"]
    verdict = outcome.record.get("verdict", "OK")
    screen.say(f"Done in {duration(outcome.seconds)}: {trained.run}/encoder.safetensors ({dim} features), health {verdict}")
    if verdict != "OK":
        screen.tell(str(outcome.record["reason"]), 2)
    data = quoted(session.request.data) if session.source.labels is not None else "LABELLED_DATA"
    screen.say(f"Did it help? Labels make that measurable:  byol evaluate {run} {data}")
    screen.say(f"Or look at it:                             byol report {run}")
