"""CIFAR-10 against the clock: ResNet-18 (small stem) by BYOL, all images on the device, kNN and linear of the last epoch, minutes.

    python benchmarks/cifar10.py --out runs/cifar10 --epochs 200                       # a named data set that is already on this machine
    python benchmarks/cifar10.py TRAIN TEST --out runs/cifar10 --epochs 200            # folders, archives or .npz
    python benchmarks/cifar10.py TRAIN TEST --out runs/cifar10 --epochs 200 --stop-after 8   # in pieces: the same again goes on
    python benchmarks/cifar10.py --tiny                                                # a minute on a CPU, to see that it works

Published: 86.9 % kNN (k=200, T=0.1) after 200 epochs in 122 minutes, 91.0 % after 800 in 401 (lightly 1.x, one A6000; the maximum over
epochs), 92.58 % of the online classifier after 1000 epochs (solo-learn). Here it is the last epoch, whatever it gives.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path

from measure import finish, table

import byol
from byol.api import Trained
from byol.training import Record

PUBLISHED = {200: "86.9 kNN, 122 min (A6000)", 800: "91.0 kNN, 401 min (A6000)", 1000: "92.58 online classifier"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", nargs="?", default="cifar10", help="images to learn from and to label neighbours with")
    parser.add_argument("test", nargs="?", default="cifar10:test", help="images to test on")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"), help="run folder; when it holds a run, that one goes on")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile the networks first")
    parser.add_argument("--stop-after", type=float, help="minutes of training; the same command goes on from there")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings of the plan")
    parser.add_argument("--tiny", action="store_true", help="digits and a small network, interrupted once and resumed")
    asked = parser.parse_args()
    if not asked.tiny:
        return measured(asked)
    with tempfile.TemporaryDirectory() as folder:
        asked.train, asked.test, asked.out = "digits", None, Path(folder, "run")
        asked.epochs, asked.batch_size, asked.stop_after = 4, 128, 0.005
        asked.set = ["image_size=8", "encoder=small-w32-n3", "log_steps=1"]
        clock(asked.out, train(asked).outcome.seconds)
        asked.stop_after = None
        measured(asked)


def measured(asked: argparse.Namespace) -> None:
    """Train or go on, evaluate if that was the end, and say how long it took."""
    trained = train(asked)
    minutes, pieces = clock(asked.out, trained.outcome.seconds)
    outcome = trained.outcome
    result: dict[str, object] = {
        "epochs": asked.epochs,
        "batch_size": asked.batch_size,
        "ended": outcome.ended,
        "minutes": round(minutes, 2),
    }
    result |= {"pieces": pieces, "steps": outcome.step, "images_per_second": outcome.record.get("images_per_second")}
    rows = [
        ("training, minutes", f"{minutes:.1f} in {pieces} pieces"),
        ("published", PUBLISHED.get(asked.epochs, "nothing for so many epochs")),
    ]
    if outcome.ended == "finished":
        found = byol.evaluate(asked.out, asked.train, test=asked.test, protocols=["knn:k=200,temperature=0.1", "linear"])
        for evaluation in found:
            for score in evaluation.scores:
                name = f"{evaluation.protocol}, {score.name if score.baseline else 'byol'}"
                result[name] = score.top1
                rows.append((name, f"{100 * score.top1:.2f} %"))
    table(f"{asked.train}, {asked.epochs} epochs, last epoch", ("", ""), rows)
    finish("cifar10", result)


def train(asked: argparse.Namespace) -> Trained:
    """Start, or go on with, the run."""
    watcher = Limit(asked.stop_after)
    if (asked.out / "plan.json").exists():
        return byol.resume(asked.out, watcher=watcher)
    return byol.train(
        asked.train,
        asked.out,
        recipe="cifar10-r18-sgd",
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        seed=asked.seed,
        compile=asked.compile,
        set=tuple(asked.set),
        watcher=watcher,
    )


class Limit:
    """Asks the run to save and stop, as a scheduler would, once it has trained for so many minutes."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds = 60 * minutes if minutes else float("inf")
        self.began: float | None = None

    def step(self, done: int) -> None:
        self.began = self.began or time.monotonic()
        if time.monotonic() - self.began > self.seconds:
            self.seconds = float("inf")
            os.kill(os.getpid(), signal.SIGTERM)

    def log(self, record: Record) -> None:
        pass

    def note(self, text: str) -> None:
        print(text)


def clock(out: Path, seconds: float) -> tuple[float, int]:
    """(minutes, pieces) of training so far, this piece included; kept beside the run."""
    path = out / "clock.json"
    before = json.loads(path.read_text()) if path.exists() else []
    path.write_text(json.dumps([*before, seconds]))
    return (sum(before) + seconds) / 60, len(before) + 1


if __name__ == "__main__":
    main()
