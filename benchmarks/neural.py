"""Recordings of neurons: what methods learn from spike counts, and what a linear readout of frozen features says of behaviour.

    python benchmarks/neural.py mihi.npz chewie.npz --seeds 5          # reaches: the angle, a fifth of the trials held out
    python benchmarks/neural.py mouse.npz --methods byol --epochs 50   # sleep: the state, the last fifth of the time held out
    python benchmarks/neural.py --tiny                                 # a made recording, to see that it works

What `byol train` and `byol evaluate` do, on two files: no method sees the test bins. Beside the trained encoders stand the counts
themselves and the same network untrained, and above them the network that learnt with labels (supervised). A seed draws the held-out
trials, the weights and the views. Settings are those of recipe auto.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import finish, table

import byol
from byol.data import Source, load_memory, open_source
from byol.evaluation import splits, suggested

METHODS = ("byol", "myow", "supervised")
Row = dict[str, object]


def main() -> None:
    """A table for each kind of score, and a last line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--epochs", type=int, help="as recipe auto chooses them, unless given")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=(), metavar="KEY=VALUE", help="as for `byol train`, of every method")
    parser.add_argument("--limit", type=int, help="use only so many bins")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        files = asked.recordings or ([made(Path(folder) / "made.npz")] if asked.tiny else [])
        if not files:
            parser.error("give the .npz of a recording, or --tiny")
        epochs = 3 if asked.tiny else asked.epochs
        rows: list[Row] = []
        for path in files:
            for seed in range(asked.seeds):
                rows += one(path, asked.methods, epochs, seed, tuple(asked.set), asked.limit, Path(folder) / f"{path.stem}-{seed}")
    for scores in dict.fromkeys(tuple(r)[4:] for r in rows):
        show([r for r in rows if tuple(r)[4:] == scores], scores)
    finish("neural", {"methods": list(asked.methods), "epochs": epochs, "set": list(asked.set), "rows": rows})


def one(path: Path, methods: list[str], epochs: int | None, seed: int, set: tuple[str, ...], limit: int | None, folder: Path) -> list[Row]:
    """Train every method on the training part of a recording, and read the test part from counts, an untrained network, and each."""
    source = open_source(path, limit=limit)
    protocol = suggested(source)
    train, test = divided(source, seed, folder)
    found: dict[str, Row] = {}
    for method in methods:
        run = byol.train(train, folder / method, method=method, epochs=epochs, seed=seed, device="cpu", set=set).run
        (result,) = byol.evaluate(run, train, test=test, protocols=[protocol], seed=seed, device="cpu")
        for score in result.scores:
            subject = {"counts": "counts", str(run): method}.get(score.name, "untrained")
            about = {"recording": path.stem, "bins": len(source), "seed": seed, "subject": subject}
            found[subject] = about | {result.metric: score.top1} | score.also
    return list(found.values())


def divided(source: Source, seed: int, folder: Path) -> tuple[Path, Path]:
    """Two files: a fifth of the trials of each direction, or the last fifth of the time, and the rest."""
    folder.mkdir(parents=True)
    counts, _ = load_memory(source)
    assert counts is not None
    assert source.labels is not None
    known = {"groups": source.groups, "times": source.times, "y": source.labels}
    parts = splits.stratified(source.labels, 0.2, seed=seed, ties=splits.ties_of(source))
    for name, rows in zip(("train.npz", "test.npz"), parts, strict=True):
        np.savez(folder / name, x=counts[rows, :, 0, 0], **{k: v[rows] for k, v in known.items() if v is not None})
    return folder / "train.npz", folder / "test.npz"


def show(rows: list[Row], scores: tuple[str, ...]) -> None:
    """Means over seeds, a line for each recording and subject, with their deviation."""
    lines = []
    for who in dict.fromkeys((r["recording"], r["subject"]) for r in rows):
        mine = [r for r in rows if (r["recording"], r["subject"]) == who]
        lines.append([f"{who[0]}, {who[1]}", *(said([float(str(r[s])) for r in mine]) for s in scores)])
    table(f"% of held-out bins, mean over {len({r['seed'] for r in rows})} seeds", ["", *scores], lines)


def said(values: list[float]) -> str:
    """ "51.3 +- 2.0"; one value alone has no deviation."""
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} +- {100 * statistics.stdev(values):.1f}"


def made(path: Path) -> Path:
    """A recording of 20 neurons, each with a direction that it prefers, in 80 trials of 5 bins."""
    noise = np.random.default_rng(0)
    y = np.repeat(np.arange(80) % 8, 5)
    tuned = 3 + 2.5 * np.cos(y[:, None] * np.pi / 4 - np.linspace(0, 2 * np.pi, 20, endpoint=False))
    np.savez(path, x=noise.poisson(tuned).astype(np.float32), y=y, trial_lengths=np.full(80, 5))
    return path


if __name__ == "__main__":
    main()
