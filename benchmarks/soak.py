"""A long run of a tiny network: do memory, file handles and threads stay as they are?

    python benchmarks/soak.py                # 20,000 updates, a checkpoint every six seconds, ten evaluations: about a quarter of an hour
    python benchmarks/soak.py --tiny         # 200 updates: some seconds

The photos are files, read by one worker process. Sampled are the resident memory of this process and of the worker, open file handles and
threads. A slope is fitted to the means of ten blocks of the last four fifths of the samples (samples beside each other are not
independent, blocks nearly), with the 95 % interval of Student's t for 8 degrees of freedom. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from measure import finish, table
from PIL import Image

import byol
from byol import run as runs
from byol.training import Record

BLOCKS, STUDENT = 10, 2.306
QUANTITIES = ("memory_mib", "worker_memory_mib", "handles", "threads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--evaluations", type=int, default=10, help="evaluations in the same process on the way")
    parser.add_argument("--tiny", action="store_true", help="200 updates, 2 evaluations")
    asked = parser.parse_args()
    steps, evaluations = (200, 2) if asked.tiny else (asked.steps, asked.evaluations)
    torch.set_num_threads(1)  # threads that wait for each other on shared cores would make a long test of a short one
    with tempfile.TemporaryDirectory() as folder:
        photos, out = make(Path(folder, "photos")), Path(folder, "run")
        watch = Samples(out, photos, every=max(4, steps // 1000), evaluate_every=steps // max(1, evaluations) if evaluations else steps + 1)
        began = time.monotonic()
        settings = ("hidden=16", "dim=8", "log_steps=20", f"checkpoint_minutes={0 if asked.tiny else 0.1}", "channels_last=true")
        asked_of = {"encoder": "small-w8", "image_size": 16, "batch_size": 8, "precision": "fp32", "device": "cpu", "workers": 1}
        trained = byol.train(photos, out, watcher=watch, epochs=-(-steps // 8), set=settings, **asked_of)
        seconds = time.monotonic() - began
    found = {name: trend(watch.steps, getattr(watch, name)) for name in QUANTITIES}
    rows = [
        (n, f"{f['first']:.1f}", f"{f['last']:.1f}", f"{f['most']:.1f}", f"{f['slope']:+.4f} ± {f['half_width']:.4f}")
        for n, f in found.items()
    ]
    table(f"{trained.outcome.step:,} updates in {seconds:.0f} s", ("", "first", "last", "most", "per 1,000 updates"), rows)
    counts = {"steps": trained.outcome.step, "seconds": round(seconds), "checkpoints": watch.checkpoints, "evaluations": watch.evaluations}
    finish("soak", {**counts, "samples": len(watch.steps), **found})


def make(photos: Path) -> Path:
    """64 photos of two sizes, so that they are read by the worker, in two class folders."""
    noise = np.random.default_rng(0)
    for i in range(64):
        image = noise.integers(0, 160, (20 + 4 * (i % 2), 20, 3), dtype=np.uint8) + (90 if i % 2 else 0)
        (photos / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(photos / "ab"[i % 2] / f"{i}.jpg")
    return photos


@dataclass
class Samples:
    """Watches the run from within: what it holds now, and an evaluation of its last checkpoint now and then."""

    run: Path
    photos: Path
    every: int
    evaluate_every: int
    steps: list[int] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    worker_memory_mib: list[float] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    evaluations: int = 0
    checkpoints: int = 0
    saved: float = 0.0  # when the last checkpoint was written

    def step(self, done: int) -> None:
        last = self.run / "last.safetensors"
        if last.exists() and last.stat().st_mtime != self.saved:
            self.saved = last.stat().st_mtime
            self.checkpoints += 1
        if done % self.evaluate_every == 0 and last.exists():
            encoder = runs.encoder_of(runs.restored(self.run))
            byol.evaluate(encoder, self.photos, protocols=["knn"], baselines=False, device="cpu")
            self.evaluations += 1
        if done % self.every == 0:
            self.steps.append(done)
            self.memory_mib.append(resident("self"))
            self.worker_memory_mib.append(sum(map(resident, children())))
            self.handles.append(len(os.listdir("/proc/self/fd")))
            self.threads.append(len(os.listdir("/proc/self/task")))

    def log(self, record: Record) -> None:
        pass

    def note(self, text: str) -> None:
        print(text)


def resident(process: str) -> float:
    """MiB of a process that are in memory."""
    return int(Path("/proc", process, "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def children() -> list[str]:
    return [child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()]


def trend(steps: list[int], values: list[float]) -> dict[str, float]:
    """First, last and largest value, and the slope over 1,000 updates of the block means, with its half interval."""
    kept = slice(len(steps) // 5, None)
    x = np.array([b.mean() for b in np.array_split(np.array(steps[kept], float), BLOCKS)]) / 1000
    y = np.array([b.mean() for b in np.array_split(np.array(values[kept], float), BLOCKS)])
    slope, start = np.polyfit(x, y, 1)
    spread = np.sqrt(((y - slope * x - start) ** 2).sum() / (BLOCKS - 2))
    half = STUDENT * spread / np.sqrt(((x - x.mean()) ** 2).sum())
    return {"first": values[0], "last": values[-1], "most": max(values), "slope": float(slope), "half_width": float(half)}


if __name__ == "__main__":
    main()
