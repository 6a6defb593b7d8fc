"""The command `demo`: the whole story, told while it happens."""

from __future__ import annotations

import time

from byol import api, demonstration
from byol import run as runs
from byol.cli.options import Demo
from byol.cli.plan import show_plan
from byol.cli.screen import Screen, duration
from byol.cli.train import interrupted
from byol.cli.watch import Watch


def demo(options: Demo, screen: Screen) -> int:
    """Train on digits without labels, then see what the labels say."""
    began = time.monotonic()
    out = options.out or api.default_out("digits-demo")
    runs.refuse_existing(out)
    files = demonstration.prepare(out, options.seed)
    session = demonstration.session(files, options.seed, screen.progress)
    screen.clear()
    screen.tell(
        f"{session.plan.images:,} handwritten digits of 8x8 pixels ({files.train}), labels not used; "
        f"the other 20 % ({files.test}) are not seen before the test",
        8,
        "Data",
    )
    show_plan(session, screen)
    screen.progress("first step", 0, 0)
    trained = api.begin(session, out, watcher=Watch(screen, session.plan))
    screen.clear(keep=True)
    if trained.outcome.ended == "interrupted":
        return interrupted(trained, screen)
    outcome = trained.outcome
    screen.say(f"Trained in {duration(outcome.seconds)}, health {outcome.record['verdict']}. Now what the labels say of it:")
    results = demonstration.compare(out, files, options.seed, screen.progress)
    screen.clear()
    for result in results:
        for line in result.lines():
            screen.say(line)
    page = api.report(out, progress=screen.progress)
    screen.clear()
    seconds = time.monotonic() - began
    screen.say(f"Done in {duration(seconds)}. Look at it: {page}")
    screen.say("Next, your own images:  byol doctor FOLDER, then byol train FOLDER")
    screen.result({**demonstration.summary(results, seconds), "run": str(out), "report": str(page)})
    return 0
