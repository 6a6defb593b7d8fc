"""Programs that keep the numbers of runs: a run is told to them as it goes, and one that fails is left out of the rest of it.

A tracker is a file here, found by its name, with a class `Tracker`. RUN/metrics.jsonl and RUN/evaluations stay what counts: a
tracker holds a copy, in the run folder, that other programs read.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, get_args

from byol.config import Plan, Value
from byol.config import Tracker as Name
from byol.stored import read_object
from byol.training import Record, Watcher

NAMES: tuple[str, ...] = get_args(Name)
NEEDS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # the packages; csv needs none


class Tracker(Protocol):
    """`Tracker(run, plan, done)` of a file here. What a run logged after update `done` it logs again; no step may be there twice.

    Whatever a tracker raises switches it off; so do what its package raises when it is imported, which is done here and not above.
    """

    def log(self, record: Record) -> None:
        """A line of metrics.jsonl, as numbers and the words `verdict` and `reason`."""
        ...

    def note(self, step: int, text: str) -> None: ...

    def evaluated(self, scores: dict[str, float]) -> None:
        """All that evaluations of the run have found so far, in place of what was said before."""
        ...

    def close(self) -> None: ...


def check(names: Sequence[str]) -> None:
    """ValueError for a tracker whose package is not here; to be asked before the work."""
    for name in names:
        if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
            raise ValueError(f'--track {name} needs the package {NEEDS[name]}; install it with: pip install "byol[{name}]"')


class Tracked:
    """A `byol.training.Watcher` that passes on what it hears to another one, and to trackers."""

    def __init__(self, names: Sequence[str], run: Path, plan: Plan, done: int, watcher: Watcher | None) -> None:
        self.watcher, self._step, self._open = watcher, done, dict[str, Tracker]()
        failed = []
        for name in dict.fromkeys(names):
            try:
                with quiet():
                    self._open[name] = opened(name, run, plan, done)
            except Exception as error:
                failed.append(off(name, error))
        for text in [*failed, *(plan.notes if done == 0 else ())]:
            self._tell(text)
        if watcher:
            for text in failed:
                watcher.note(text)

    def step(self, done: int) -> None:
        """An update is finished."""
        self._step = done
        if self.watcher:
            self.watcher.step(done)

    def log(self, record: Record) -> None:
        """New numbers."""
        if self.watcher:
            self.watcher.log(record)
        for name, tracker in list(self._open.items()):
            self._try(name, lambda tracker=tracker: tracker.log(record))  # type: ignore[misc]

    def note(self, text: str) -> None:
        """What a person should know of this run."""
        if self.watcher:
            self.watcher.note(text)
        self._tell(text)

    def close(self) -> None:
        """The run has ended, however it did."""
        for name, tracker in list(self._open.items()):
            self._try(name, tracker.close)

    def _tell(self, text: str) -> None:
        for name, tracker in list(self._open.items()):
            self._try(name, lambda tracker=tracker: tracker.note(self._step, text))  # type: ignore[misc]

    def _try(self, name: str, act: Callable[[], None]) -> None:
        """A full disk, or a mistake of a package, is no reason to lose a run."""
        try:
            with quiet():
                act()
        except Exception as error:
            self._open.pop(name, None)
            self.note(off(name, error))


def quiet() -> AbstractContextManager[object]:
    """What the packages have to say about themselves, and about one another, is no matter of the run."""
    return warnings.catch_warnings(action="ignore")


def opened(name: str, run: Path, plan: Plan, done: int) -> Tracker:
    """The tracker of that name, at work for the run; anything may be raised."""
    check([name])
    tracker: Tracker = importlib.import_module(f"byol.trackers.{name}").Tracker(run, plan, done)
    return tracker


def off(name: str, error: Exception) -> str:
    """The one sentence on a tracker that failed."""
    why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return f"--track {name} is switched off ({why}); the run itself is whole, and its numbers are in metrics.jsonl"


@contextmanager
def tracking(names: Sequence[str], run: Path, plan: Plan, done: int, watcher: Watcher | None) -> Iterator[Watcher | None]:
    """Who is to be told how the run goes from update `done` on: the watcher, and with it the trackers, if there are any."""
    if not names:
        yield watcher
        return
    tracked = Tracked(names, run, plan, done, watcher)
    try:
        yield tracked
    finally:
        tracked.close()


def evaluated(names: Sequence[str], run: Path, plan: Plan) -> list[str]:
    """Tell the trackers of a run what its evaluations have found; a sentence for each one that failed."""
    failed = []
    for name in dict.fromkeys(names):
        try:
            with quiet():
                tracker = opened(name, run, plan, plan.steps)
                tracker.evaluated(scores(run))
                tracker.close()
        except Exception as error:
            failed.append(off(name, error))
    return failed


def scores(run: Path) -> dict[str, float]:
    """`knn/NAME/1/top-1` and so on -> the number, of all evaluations in the run; a damaged one is left out."""
    out = dict[str, float]()
    for path in sorted((run / "evaluations").glob("*.json")):
        try:
            result = read_object(path)
        except (OSError, ValueError):
            continue
        rows = result.get("scores")
        for score in rows if isinstance(rows, list) else []:
            if isinstance(score, dict):
                out |= _numbers(path.stem, score, str(result.get("metric", "top-1")))
    return out


def _numbers(protocol: str, score: dict[str, object], metric: str) -> dict[str, float]:
    """The numbers of one encoder or baseline; of several seeds their mean."""
    labels = score.get("labels")
    # A run goes by its last name: its folder is nobody's business, and MLflow refuses it.
    who = [str(score[key]).rstrip("/").rpartition("/")[2] for key in ("name", "mode", "direction", "features") if key in score]
    who += [f"{labels:g}"] if isinstance(labels, int | float) else []
    found: dict[str, object] = {metric: score.get("top1"), "top-5": score.get("top5")}
    for key in ("also", "metrics", "values"):
        several = score.get(key)
        found |= several if isinstance(several, dict) else {}
    means = {k: statistics.fmean(v) if isinstance(v, list) and v else v for k, v in found.items()}
    return {"/".join([protocol, *who, k]): float(v) for k, v in means.items() if isinstance(v, int | float)}


def settings(plan: Plan) -> dict[str, Value]:
    """Every number of the plan under one name: those of the method and of the views with its kind before."""
    own = {k: v for k, v in asdict(plan).items() if k in ("images", "steps_per_epoch", "steps", "warmup_steps", "peak_lr", "expected")}
    grouped = {f"{kind}.{k}": v for kind in ("method", "views") for k, v in getattr(plan, kind).items()}
    return {**asdict(plan.settings), **grouped, **own}


def numbers(record: Record) -> dict[str, float]:
    """The numbers of a line of the log, without its step."""
    return {k: float(v) for k, v in record.items() if k != "step" and not isinstance(v, str)}
