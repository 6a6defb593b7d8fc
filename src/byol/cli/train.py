"""The commands that train: train and resume."""

from __future__ import annotations

import dataclasses
import json
import shlex
import signal
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from byol import api, checkpoint, contact_sheet, dist
from byol import run as runs
from byol.api import Trained
from byol.cli import AGAIN
from byol.cli.notices import told
from byol.cli.options import Resume, Train
from byol.cli.plan import how_long, show_data, show_plan, show_whole
from byol.cli.screen import Screen, duration, number, quoted
from byol.cli.trouble import about_file
from byol.cli.watch import Watch
from byol.config import Request
from byol.evaluation import suggested
from byol.run import Session


@told
def train(options: Train, screen: Screen) -> int:
    """From images to an encoder, or with --dry-run to the plan alone."""
    if options.epochs is not None and options.minutes is not None:
        raise ValueError("--epochs and --minutes both say how long to train; give one of them")
    request = Request(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Request)})
    with dist.joined(runs.find_device(request.device)):
        return _train(options, request, screen)


def _train(options: Train, request: Request, screen: Screen) -> int:
    out = api.new_out(options.out, options.data)
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
    with dist.joined(runs.find_device("auto")):
        return _resume(Path(options.run), screen)


def _resume(run: Path, screen: Screen) -> int:
    if dist.from_first(lambda: all((run / name).exists() for name in ("encoder.safetensors", "encoder.json", "plan.json"))):
        screen.clear()
        screen.say(f"{run} is finished: {run}/encoder.safetensors")
        screen.say(f"Next: byol report {quoted(run)}")
        screen.result({"run": str(run), "ended": "finished", "encoder": f"{run}/encoder.safetensors"})
        return 0
    if dist.rank() == 0:
        runs.read_plan(run)
        with runs.alone(run):  # known before the data is read, which may take long
            pass
    session = runs.reopen(run, screen.progress)
    screen.clear()
    show_data(session, run, screen)
    show_plan(session, screen)
    screen.say(f"Run     {run}")
    return follow(lambda watch: api.resume(run, session=session, watcher=watch), session, run, screen, resumed=True)


def _dry_run(options: Train, session: Session, screen: Screen) -> int:
    """The whole plan and a picture of the views; no run is begun."""
    if dist.rank():
        return 0
    show_whole(session, screen)
    seconds = None
    if options.recipe == "auto" and options.encoder is None:  # the plan is made for this machine: another may not even fit into it
        seconds = how_long(session, screen)
        rate = session.plan.steps * session.plan.settings.batch_size * session.plan.settings.accumulate / seconds
        screen.say(f"Time    about {duration(seconds)} here, at {number(rate)} {session.source.words.rate} (a few steps were measured)")
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
        trained = begin(Watch(screen, session.plan, resumed=resumed, rate=session.source.words.rate))
    except KeyboardInterrupt:  # before the first step, where signals are not yet caught, or a second one
        screen.clear()
        screen.say(f"Stopped at once. Go on with:  byol resume {quoted(run)}")
        screen.result({"run": str(run), "ended": "interrupted"})
        return 130
    except OSError as error:
        raise ValueError(_unsaved(error, run)) from error
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
    elif outcome.ended == "not finite":
        _not_finite(trained, session, screen)
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


def _not_finite(trained: Trained, session: Session, screen: Screen) -> None:
    """Numbers that went wrong stopped it: what was in hand, and what may be tried."""
    updates, names, run = trained.outcome.left_out, trained.suspects, trained.run
    screen.tell(
        f"Stopped at step {updates.stop}: the loss or the gradient of {len(updates)} updates in a row (steps {updates.start + 1} to "
        f"{updates.stop}) is not finite. None of them had an effect; {run}/{checkpoint.LAST} holds the state before them."
    )
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    screen.tell(f"In the last of them: {', '.join(names[:4])}{more}; the samples of all are in {run}/not-finite.json.")
    many = session.source.words.many
    screen.tell(f"Look at these {many} (byol doctor); if they are sound, start again with a lower --set lr=... or --precision fp32.")


def _unsaved(error: OSError, run: Path) -> str:
    """Why the run could not be written, and that nothing of what was saved before is lost."""
    what = about_file(error, error.errno).partition("; ")
    kept = f"`byol resume {run}` goes on from the last checkpoint" if checkpoint.exists(run) else "nothing was saved before"
    return f"{what[0]}; {what[2] or 'mend that'}; {kept}"


def interrupted(trained: Trained, screen: Screen) -> int:
    """A signal stopped it: where it stands, and how to go on."""
    outcome = trained.outcome
    screen.say(f"Saved at step {outcome.step}. Go on with:  byol resume {quoted(trained.run)}")
    screen.result({"run": str(trained.run), "ended": outcome.ended, "step": outcome.step})
    return 130 if trained.signal in (None, signal.SIGINT) else AGAIN


def _measurable(session: Session, run: str) -> str:
    """How the worth of the features can be measured: by what the data themselves say, or by labels."""
    source, data = session.source, quoted(session.request.data)
    if source.poses is not None or source.dated is not None:
        seen, protocol = ("Poses of other frames", "registration") if source.poses is not None else ("Other subjects", "progression")
        return f"{seen} make that measurable:  byol evaluate {run} {data} --test OTHER_DATA --protocol {protocol}"
    if source.labels is None:
        return f"Labels make that measurable:  byol evaluate {run} LABELLED_DATA"
    protocol = suggested(source)
    return f"Labels make that measurable:  byol evaluate {run} {data}{f' --protocol {protocol}' * bool(protocol)}"


def _finished(trained: Trained, session: Session, screen: Screen) -> None:
    if dist.rank():
        return
    outcome, run = trained.outcome, quoted(trained.run)
    dim = json.loads((trained.run / "encoder.json").read_text(encoding="utf-8"))["dim"]
    verdict = outcome.record.get("verdict", "OK")
    screen.say(f"Done in {duration(outcome.seconds)}: {trained.run}/encoder.safetensors ({dim} features), health {verdict}")
    if verdict != "OK":
        screen.tell(str(outcome.record["reason"]), 2)
    screen.say(f"Did it help? {_measurable(session, run)}")
    screen.say(f"Or look at it:                             byol report {run}")
