"""Studies: the theory as programs that can say no. One file each, found by file name: a new file here is a new study everywhere.

The contract of a file `some_name.py`, which is study `some-name`: its docstring says in a paragraph or two what is looked at and how;
`TITLE` (one line, a plain literal: it is read without importing the file), `CLAIMS` (one sentence each, worded so that it can fail),
`SOURCE` (where the theory is from), and `run(seeds, progress) -> Outcome`, which takes minutes on one core of a CPU, needs no download
and tells `progress` (what, done, total) as it goes. A claim that does not hold is a result, and is said as clearly as one that does.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from byol.reporting.plot import Line, Plot

__all__ = ["Finding", "Line", "Outcome", "Plot", "Progress", "Study", "conduct", "load", "names"]

Progress = Callable[[str, int, int], None]  # (what is done, so much of it, of so much)


@dataclass(frozen=True)
class Finding:
    """What became of a claim."""

    claim: str
    held: bool | None  # None: it could not be judged
    evidence: str  # one or two sentences with the numbers, over all seeds

    @property
    def verdict(self) -> str:
        """In words."""
        return {True: "held", False: "not held", None: "not judged"}[self.held]


@dataclass(frozen=True)
class Outcome:
    """What a study found."""

    columns: tuple[str, ...]
    rows: list[tuple[str | float, ...]]
    findings: tuple[Finding, ...]  # one for each claim, in their order
    plots: tuple[Plot, ...]
    settings: dict[str, str | int | float]


@dataclass(frozen=True)
class Study:
    """A study that was run."""

    name: str
    title: str
    about: str
    source: str
    seeds: tuple[int, ...]
    seconds: float  # of processor time
    outcome: Outcome
    files: tuple[str, ...] = field(default=())  # as written

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        found = dataclasses.asdict(self)
        outcome = found.pop("outcome")
        return {k: v for k, v in (found | outcome).items() if k != "about"}


def names() -> list[str]:
    """The studies that there are: the files of this folder."""
    return sorted(p.stem.replace("_", "-") for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))


def load(name: str) -> ModuleType:
    """The file of a study by its name; ValueError with the nearest name if there is none."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names())}, and all"
        raise ValueError(f"no study {name!r}; {hint}")
    return importlib.import_module(f"byol.studies.{name.replace('-', '_')}")


def conduct(name: str, out: str | Path, *, seeds: Sequence[int] = (0, 1, 2), progress: Progress | None = None) -> Study:
    """Run a study; NAME.json, NAME.md and NAME.svg (NAME-2.svg, ...) go into the folder, and its README.md lists what is there.

    Raises ValueError in one sentence for seeds that cannot be used.
    """
    from byol.studies import _pages

    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds {' '.join(map(str, seeds))}: give whole numbers from 0 on, each once")
    module = load(name)
    began = time.process_time()
    outcome: Outcome = module.run(tuple(seeds), progress or (lambda what, done, total: None))
    about = (module.__doc__ or "").strip()
    study = Study(name, module.TITLE, about, module.SOURCE, tuple(seeds), round(time.process_time() - began, 1), outcome)
    return _pages.write(study, Path(out))
