"""Short runs on the embedded digits, with the settings of `byol demo` and a network a quarter as wide, so that many fit into minutes."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from torch import nn

from byol import api, demonstration
from byol import run as runs
from byol.config import Request
from byol.encoders import Encoder
from byol.evaluation.intervals import deviation
from byol.studies import Line, Progress
from byol.training import Record, fit

ENCODER, BATCH, EPOCHS, LOG = "small-w16-n2", 64, 20, 10  # LOG: updates between two measurements
SETTINGS = (*demonstration.SETTINGS, "hidden=128", "dim=64", f"log_steps={LOG}")

Measure = Callable[[nn.Module], dict[str, float]]  # of the method, beside what every run logs


@dataclass(frozen=True)
class Run:
    """What one run logged, and what its features are worth."""

    records: list[Record]
    scores: dict[str, float]  # protocol -> top-1 in [0, 1] on the fifth of the digits that it never saw

    def curve(self, key: str) -> list[float]:
        """A logged number from the first update to the last."""
        return [float(r[key]) for r in self.records]

    def last(self, key: str) -> float:
        """It at the last update."""
        return float(self.records[-1][key])

    @property
    def collapsed(self) -> bool:
        """What byol's own health check says at the end."""
        return self.records[-1]["verdict"] == "COLLAPSED"


@dataclass(frozen=True)
class Runs:
    """Every setting with every seed, and what the untrained network is worth."""

    of: dict[str, list[Run]]
    untrained: list[dict[str, float]]
    settings: dict[str, str | int | float]


@dataclass
class _Onlooker:
    """Keeps the log and tells how far all runs are."""

    method: nn.Module
    measure: Measure
    tell: Callable[[int], None]
    records: list[Record] = field(default_factory=list)

    def step(self, done: int) -> None:
        self.tell(done)

    def log(self, record: Record) -> None:
        self.records.append({**record, **self.measure(self.method)})

    def note(self, text: str) -> None: ...


def train(
    wanted: Mapping[str, tuple[str, ...]],
    seeds: Sequence[int],
    progress: Progress,
    *,
    method: str = "byol",
    epochs: int = EPOCHS,
    protocols: Sequence[str] = (),
    measure: Measure = lambda method: {},
) -> Runs:
    """Every setting (its name -> KEY=VALUE pairs as `byol train --set` takes them) with every seed, which also splits the digits."""
    of: dict[str, list[Run]] = {name: [] for name in wanted}
    untrained: list[dict[str, float]] = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            files = demonstration.prepare(Path(folder), seed)
            base = Request(
                data=str(files.train), method=method, encoder=ENCODER, epochs=epochs, batch_size=BATCH, image_size=demonstration.SIZE,
                precision="fp32", device="cpu", seed=seed,
            )  # fmt: skip
            seen = runs.look(base)
            sessions = {name: runs.decide(replace(base, set=(*SETTINGS, *pairs)), seen) for name, pairs in wanted.items()}
            untrained.append(_worth(next(iter(sessions.values())).encoder(), files, seed, protocols))
            for name, session in sessions.items():
                before, steps = sum(map(len, of.values())), session.plan.steps
                tell = partial(_tell, progress, before * steps, len(wanted) * len(seeds) * steps)
                network = session.method()
                onlooker = _Onlooker(network, measure, tell)
                with tempfile.TemporaryDirectory() as run:
                    fit(Path(run), session.plan, network, session.optimizer(network), session.feed(), watcher=onlooker)
                of[name].append(Run(onlooker.records, _worth(runs.encoder_of(network), files, seed, protocols)))
    settings: dict[str, str | int | float] = {"data": "digits", "encoder": ENCODER, "epochs": epochs, "batch": BATCH}
    return Runs(of, untrained, settings | {"all else": "as in byol demo, with hidden 128 and dim 64"})


def _tell(progress: Progress, before: int, steps: int, done: int) -> None:
    progress("Training, updates of all runs", before + done, steps)


def _worth(encoder: Encoder, files: demonstration.Files, seed: int, protocols: Sequence[str]) -> dict[str, float]:
    """Protocol -> top-1 of the encoder's features."""
    if not protocols:
        return {}
    found = api.evaluate(encoder, files.train, test=files.test, protocols=protocols, seed=seed, baselines=False, device="cpu")
    return {e.protocol: e.scores[-1].top1 for e in found}


def line(name: str, found: Sequence[Run], key: str) -> Line:
    """A logged number over the epochs: the mean of the seeds, in a band from the lowest to the highest."""
    return band(name, found[0].curve("epoch"), [run.curve(key) for run in found])


def band(name: str, x: Sequence[float], curves: Sequence[Sequence[float]]) -> Line:
    """The mean of the seeds' curves, in a band from the lowest to the highest."""
    over = list(zip(*curves, strict=True))
    return Line(name, x, [statistics.fmean(v) for v in over], [min(v) for v in over], [max(v) for v in over])


def span(values: Sequence[float]) -> str:
    """'0.01 to 0.03', or the one value that there is; '-' of none."""
    ends = [f"{v:.3g}" for v in (min(values), max(values))] if values else ["-"]
    return " to ".join(dict.fromkeys(ends))


def mean(values: Sequence[float], digits: int = 2, times: float = 1.0) -> str:
    """'93.5 ± 0.6', or the mean alone of a single value."""
    said = f"{times * statistics.fmean(values):.{digits}f}"
    return f"{said} ± {times * deviation(values):.{digits}f}" if len(values) > 1 else said
