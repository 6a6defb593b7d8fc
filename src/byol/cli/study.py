"""The command that puts theory to the test: study."""

from __future__ import annotations

from pathlib import Path

from byol import studies
from byol.cli.options import Study
from byol.cli.screen import Screen, duration, quoted
from byol.studies import _pages


def study(options: Study, screen: Screen) -> int:
    """One study, or all of them one after the other; the files of each are written when it ends."""
    out = options.out or Path("runs/studies")
    names = studies.names() if options.name == "all" else [options.name]
    done = []
    for name in names:
        module = studies.load(name)
        screen.clear()
        screen.tell(module.TITLE, 4, f"{name}: ")
        screen.tell(module.SOURCE, 8, "Theory")
        for i, claim in enumerate(module.CLAIMS):
            screen.tell(claim, 8, "" if i else "Claims")
        found = studies.conduct(name, out, seeds=options.seeds, progress=screen.progress)
        screen.clear()
        for line in _pages.lines(found.outcome):
            screen.say(line)
        screen.tell(", ".join(found.files), 8, f"Written after {duration(found.seconds)} of processor time: ")
        done.append(found)
    left = [name for name in studies.names() if name not in names]
    screen.say(f"Next: byol study {left[0]} --out {quoted(out)}" if left else f"Next: read {quoted(out / 'README.md')}")
    screen.result({"studies": [s.to_json() for s in done], "out": str(out)})
    return 0
