"""The whole story in about a minute: digits embedded in scikit-learn, from images without labels to a report.

The network trains on 80 % of the images without their labels; the other 20 % it never sees before the evaluation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from byol.config import Request
from byol.data import open_source

if TYPE_CHECKING:
    from byol.api import Trained
    from byol.evaluation import Evaluation
    from byol.run import Progress, Session
    from byol.training import Watcher

# Tuned for the digits, `auto` decides the rest. A mirrored digit is another sign, a small crop of one is any digit, and colour says
# nothing: with flips alone 10 points are lost at 1 % of the labels.
SETTINGS = (
    *("views=small", "flip=0", "gray=0", "solarize=0", "min_area=0.6"),
    *(
        "lr=0.5",
        "weight_decay=5e-4",
        "tau_base=0.99",
        "hidden=512",
        "dim=128",
        "predictor_rate=1",
        "projection_norm=none",
        "target_init=fresh",
    ),
)
ENCODER, EPOCHS, BATCH, SIZE = "small-w32-n3", 60, 64, 8

TEST_SHARE = 0.2
LABELS = (0.01, 0.1, 1.0)
DRAWS = 5
PROTOCOLS = ("linear", "knn:centred=true")  # every feature centred: pixels gain most from it, and none is favoured


@dataclass(frozen=True)
class Files:
    """The two parts of the digits, each an .npz with x and y."""

    train: Path
    test: Path


def prepare(out: Path, seed: int) -> Files:
    """Split the digits by class and write both parts into the run folder, so that every later command can be given them."""
    from byol.evaluation import splits

    digits = open_source("digits")
    assert digits.labels is not None
    x = np.stack([digits.read(i)[:, :, 0] for i in range(len(digits))])
    files = Files(out / "train.npz", out / "test.npz")
    out.mkdir(parents=True, exist_ok=True)
    for path, ids in zip((files.train, files.test), splits.stratified(digits.labels, TEST_SHARE, seed=seed), strict=True):
        np.savez_compressed(path, x=x[ids], y=digits.labels[ids])
    return files


def request(files: Files, seed: int) -> Request:
    """What is asked of the demonstration's run."""
    return Request(
        data=str(files.train), encoder=ENCODER, epochs=EPOCHS, batch_size=BATCH, image_size=SIZE, precision="fp32", seed=seed, set=SETTINGS
    )


def session(files: Files, seed: int, progress: Progress) -> Session:
    """The demonstration's run, decided; its reasons say who asked: this file, not the user."""
    from byol import run as runs

    decided = runs.prepare(request(files, seed), progress)
    reasons = {k: "chosen for the digits" if v.startswith("asked for") else v for k, v in decided.plan.reasons.items()}
    return replace(decided, plan=replace(decided.plan, reasons=reasons))


def compare(run: Path, files: Files, seed: int, progress: Progress) -> list[Evaluation]:
    """The run beside pixels and a random network, with 1 %, 10 % and all of the labels."""
    from byol import api

    return api.evaluate(
        run, files.train, test=files.test, protocols=PROTOCOLS, labels=LABELS, draws=DRAWS, seed=seed, device="cpu", progress=progress
    )


def summary(results: Sequence[Evaluation], seconds: float) -> dict[str, object]:
    """{"pixels": {"0.01": top-1, ...}, "random": .., "byol": .., "seconds": ..} of the first protocol, the others under their names."""
    tables = {r.protocol: _table(r) for r in results}
    first, *others = results
    return {
        "protocol": first.protocol,
        **tables[first.protocol],
        "seconds": round(seconds, 1),
        **{r.protocol: tables[r.protocol] for r in others},
    }


def _table(result: Evaluation) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for score in result.scores:
        name = score.name.split()[0]
        table.setdefault(name if name in ("pixels", "random") else "byol", {})[str(score.labels)] = score.top1
    return table


def demo(
    out: str | Path | None = None, *, seed: int = 0, watcher: Watcher | None = None, progress: Progress | None = None
) -> dict[str, object]:
    """Train on the digits, evaluate, write the report; the top-1 of pixels, a random network and BYOL by share of labels.

    Keys as `summary`, and `run` and `report`, where to look further. Raises KeyboardInterrupt when a signal stopped it.
    """
    from byol import api
    from byol import run as runs

    began = time.monotonic()
    tell = progress or api.Quiet
    folder = Path(out) if out is not None else api.default_out("digits-demo")
    runs.refuse_existing(folder)
    files = prepare(folder, seed)
    trained: Trained = api.begin(session(files, seed, tell), folder, watcher=watcher)
    if trained.outcome.ended != "finished":
        raise KeyboardInterrupt
    results = compare(folder, files, seed, tell)
    page = api.report(folder, progress=tell)
    return {**summary(results, time.monotonic() - began), "run": str(folder), "report": str(page)}
