"""Kills a run at random moments and compares what is left of it with the same run uninterrupted, bit for bit.

    python benchmarks/kill.py 100        # 100 kills over fp32 and bf16, 0 and 2 worker processes: about half an hour
    python benchmarks/kill.py 1 --tiny   # fp32, no workers, no evaluation: some seconds

Every run is `byol train` on a folder of small photos that this program makes, in a process group of its own; SIGKILL takes the whole
group, and `byol resume` goes on. A third of the kills come at a random moment of the start, a third at a random moment of training, and a
third as soon as the temporary file of a checkpoint is seen. Nothing in the product knows of it. Compared are weights and optimiser state,
the log without its rates, the encoder's file, and an evaluation. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from measure import finish, table
from PIL import Image
from safetensors.torch import load_file

BATCH, IMAGES = 16, 48
MOMENTS = ("checkpoint", "training", "start")
PARTIAL = ".last.partial.safetensors"


@dataclass
class Tally:
    """What happened in one case."""

    kills: Counter[str] = field(default_factory=Counter)
    inside: int = 0  # kills that left a checkpoint half written
    runs: int = 0
    equal: int = 0
    differences: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kills", type=int, nargs="?", default=100)
    parser.add_argument("--tiny", action="store_true", help="fp32 without workers, a short run")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draws, began = random.Random(asked.seed), time.monotonic()
    cases = [("fp32", 0), ("fp32", 2), ("bf16", 0), ("bf16", 2)][: 1 if asked.tiny else 4]
    shares = [asked.kills // len(cases) + (n < asked.kills % len(cases)) for n in range(len(cases))]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        photos = make(Path(folder, "photos"))
        for (precision, workers), share in zip(cases, shares, strict=True):
            name = f"{precision}_workers_{workers}"
            words = options(precision, workers, epochs=20 if asked.tiny else 80)
            found[name] = case(photos, Path(folder, name), words, share, draws, evaluated=not asked.tiny)
    rows = [row(name, tally) for name, tally in found.items()]
    head = ("", "kills", "at a checkpoint", "in training", "at the start", "half written", "runs", "equal")
    table("Killed and resumed to the end, against uninterrupted", head, rows)
    for tally in found.values():
        print("\n".join(tally.differences))
    cases_json = {name: {**vars(tally), "kills": dict(tally.kills)} for name, tally in found.items()}
    total = {key: sum(getattr(t, key) for t in found.values()) for key in ("runs", "equal", "inside")}
    total["kills"] = sum(t.kills.total() for t in found.values())
    finish("kill", {**total, "seconds": round(time.monotonic() - began), "cases": cases_json})
    sys.exit(total["equal"] != total["runs"])


def row(name: str, t: Tally) -> tuple[str, ...]:
    return (name, str(t.kills.total()), *(str(t.kills[m]) for m in MOMENTS), str(t.inside), str(t.runs), f"{t.equal} of {t.runs}")


def make(photos: Path) -> Path:
    """Small photos in two class folders, of several sizes, so that they go through the host stage."""
    noise = np.random.default_rng(0)
    for i in range(IMAGES):
        size = (24 + 4 * (i % 3), 20 + 3 * (i % 5))
        image = noise.integers(0, 160, (*size, 3), dtype=np.uint8) + (90 if i % 2 else 0)
        (photos / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(photos / "ab"[i % 2] / f"{i:02}.png")
    return photos


def options(precision: str, workers: int, *, epochs: int) -> list[str]:
    """A run in which nothing is left to a measurement, with a checkpoint after every update."""
    words = f"--encoder small-w16 --image-size 16 --batch-size {BATCH} --epochs {epochs} --device cpu --precision {precision}"
    words += f" --workers {workers} --set hidden=256 dim=64 log_steps=3 checkpoint_minutes=0 channels_last=true"
    return words.split()


def case(photos: Path, folder: Path, words: list[str], kills: int, draws: random.Random, *, evaluated: bool) -> Tally:
    """Runs that are killed, until there were so many kills; each is then resumed to its end and compared."""
    whole = folder / "whole"
    to_the_end(start(["train", str(photos), "--out", str(whole), *words]))
    expected = state(whole, photos, evaluated)
    tally = Tally()
    while tally.kills.total() < kills:
        out = folder / f"run-{tally.runs}"
        while not (out / "encoder.json").exists():
            before = written(out / PARTIAL)
            begun = (out / "plan.json").exists()  # the last file of those that a run begins with
            process = start(["resume", str(out)] if begun else ["train", str(photos), "--out", str(out), *words])
            if tally.kills.total() < kills and (moment := kill(process, out, draws, tally)):
                tally.kills[moment] += 1
                tally.inside += written(out / PARTIAL) not in (0, before)
            else:
                to_the_end(process)
        tally.runs += 1
        different = compare(expected, state(out, photos, evaluated))
        tally.equal += not different
        tally.differences += [f"{out.name}: {what}" for what in different]
        print(f"{folder.name}: {tally.kills.total()} kills, {tally.equal} of {tally.runs} runs equal", file=sys.stderr, flush=True)
    return tally


def start(words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "byol", *words]
    # One thread in each: on shared cores threads that wait for each other make these runs slow, and time is what kills are drawn from.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def to_the_end(process: subprocess.Popen[str]) -> None:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(process.args)} ended with {process.returncode}:\n{out}")


def kill(process: subprocess.Popen[str], out: Path, draws: random.Random, tally: Tally) -> str:
    """Kill the group at a random moment; returns which kind of moment, or nothing where the run was quicker."""
    moment = min(MOMENTS, key=lambda m: tally.kills[m])
    last = out / "last.safetensors"
    before = written(last)
    if moment == "start":
        wait_for(process, lambda: False, draws.uniform(0, 6))
    else:
        wait_for(process, lambda: written(last) not in (0, before))
        wait_for(process, lambda: False, draws.uniform(0, 1.5))
    if moment == "checkpoint":
        stale = written(out / PARTIAL)  # of a kill before
        wait_for(process, lambda: written(out / PARTIAL) not in (0, stale))
        time.sleep(draws.choice([0, draws.uniform(0, 0.01)]))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return moment if process.returncode == -signal.SIGKILL else ""


def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool], seconds: float = 120.0) -> None:
    """Until something happened, the time is over or the process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if happened():
            return
        time.sleep(0.0002)


def written(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def state(run: Path, photos: Path, evaluated: bool) -> dict[str, object]:
    """All that has to be the same; the rates are the clock's."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found: dict[str, object] = {
        "last.safetensors": load_file(run / "last.safetensors"),
        "encoder.safetensors": load_file(run / "encoder.safetensors"),
        "metrics.jsonl": [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines],
    }
    if evaluated:
        words = ["evaluate", str(run), str(photos), "--protocol", "knn", "linear", "--device", "cpu", "--json"]
        done = subprocess.run([sys.executable, "-m", "byol", *words], check=True, capture_output=True, text=True)
        found["evaluation"] = without_times(json.loads(done.stdout.splitlines()[-1]), str(run))
    return found


def without_times(value: object, run: str) -> object:
    """The value without its seconds and with another name for the run."""
    if isinstance(value, dict):
        return {k: without_times(v, run) for k, v in value.items() if "second" not in k}
    if isinstance(value, list):
        return [without_times(v, run) for v in value]
    return value.replace(run, "RUN") if isinstance(value, str) else value


def compare(expected: dict[str, object], found: dict[str, object]) -> list[str]:
    """What differs, in words."""
    different = []
    for name, ours in expected.items():
        theirs = found[name]
        if name.endswith(".safetensors"):
            same = ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
        else:
            same = ours == theirs
        different += [] if same else [f"{name} differs"]
    return different


if __name__ == "__main__":
    main()
