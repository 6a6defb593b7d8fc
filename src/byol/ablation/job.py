"""One run of an ablation: trained to its end, or from where it stands, and evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Protocol

from byol import api, stored
from byol import run as runs
from byol.config import Plan
from byol.evaluation import Evaluation
from byol.run import Progress, Session
from byol.training import Watcher

PROTOCOLS = ("knn", "linear")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done for one run. What is in its folder already is not done again."""

    name: str  # "tau_base=0.9, seed 0"
    run: str  # its folder
    data: str
    test: str | None
    limit: int | None
    device: str
    baselines: bool  # also evaluate pixels and the untrained network

    def ended(self) -> str:
        """How the run ended: "finished", "not finite", or "" while it can go on."""
        return ended(Path(self.run))

    def done(self) -> bool:
        """True when there is nothing to do."""
        found = [score(Path(self.run), p) for p in PROTOCOLS]
        scored = all(e and (not self.baselines or any(s.baseline for s in e.scores)) for e in found)
        return self.ended() == "not finite" or (self.ended() == "finished" and scored)


class Onlooker(Protocol):
    """Who is told how an ablation goes, always from the thread that asked for it."""

    def planned(self, runs: int, left: int, jobs: int, steps: int) -> None:
        """So many runs there are, so many of them are not done, which take so many updates; so many train at a time."""

    def begins(self, name: str, plan: Plan) -> Watcher | None:
        """A run begins, or goes on; who is told of its updates."""

    def failed(self, name: str, why: str) -> None:
        """A run died; the others go on."""


class Silent:
    """An `Onlooker` that says nothing."""

    def planned(self, runs: int, left: int, jobs: int, steps: int) -> None: ...
    def begins(self, name: str, plan: Plan) -> Watcher | None: ...
    def failed(self, name: str, why: str) -> None: ...


def work(job: Job, session: Session | None, watcher: Watcher | None, progress: Progress = api.Quiet) -> api.Trained | None:
    """Train the run and write its scores into its folder; `session` is None for one that has begun and goes on.

    Returns how the training ended, None where it had before. A signal ends it without scores; so do numbers that are not finite.
    """
    run, trained = Path(job.run), None
    if not job.ended():
        if session is not None:
            trained = api.begin(session, run, watcher=watcher)
        else:
            trained = api.resume(run, session=runs.reopen(run, progress), watcher=watcher)
    if job.ended() == "finished" and not job.done():
        api.evaluate(
            run,
            job.data,
            test=job.test,
            protocols=PROTOCOLS,
            baselines=job.baselines,
            limit=job.limit,
            device=job.device,
            progress=progress,
        )
    return trained


def ended(run: Path) -> str:
    """How a run ended: "finished", "not finite", or "" while it can go on."""
    if all((run / name).exists() for name in ("encoder.safetensors", "encoder.json")):
        return "finished"
    return "not finite" if (run / "not-finite.json").exists() else ""


def score(run: Path, protocol: str) -> Evaluation | None:
    """What is stored; None where there is nothing, or nothing that can be read.

    The same evaluation with baselines goes before it: it was made where a study of fewer settings began with this run.
    """
    first = _stored(run / "evaluations" / f"{protocol}.json")
    if first is None:
        return None
    numbered = (run / "evaluations" / f"{protocol}-{n}.json" for n in count(2))
    others = (_stored(path) for path in takewhile(Path.exists, numbered))
    with_baselines = first.asked | {"baselines": True}
    return next((e for e in others if e and e.asked == with_baselines), first)


def _stored(path: Path) -> Evaluation | None:
    try:
        return Evaluation.from_json(stored.read_object(path))
    except (OSError, ValueError):
        return None
