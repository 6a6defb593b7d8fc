"""BYOC on a folder of RGB-D frames: how well the frames that were held out are registered, beside everything that needs no training.

    python benchmarks/rgbd.py FOLDER                         # 800 of 1,000 frames to learn from, three seeds, pairs 10 and 20 apart
    python benchmarks/rgbd.py FOLDER --epochs 40 --set lr=1e-3 --seeds 0 1 2 3 4
    python benchmarks/rgbd.py --tiny                         # a room of its own, a minute, to see that it works

The last frames of FOLDER are held out. Every seed is an ordinary run folder OUT/seed-N with its evaluations, so that what was interrupted
goes on with the same command, and what is there is not done again. A seed draws the weights (of the random network too) and the matches
that a motion is fitted to. Poses score; nothing is trained or chosen by them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import finish, table
from PIL import Image

import byol
from byol import api, data

SHOWN = {
    "R<=5 %": "rotation <= 5", "R mean": "rotation mean", "R median": "rotation median", "t<=5 %": "translation <= 5",
    "t<=10 %": "translation <= 10", "t mean": "translation mean", "t median": "translation median", "chamfer": "chamfer median",
    "FMR %": "feature-match recall", "inliers %": "inliers of kept", "2 px %": "within 2 px",
}  # fmt: skip
Numbers = dict[str, list[float]]  # metric -> a value for each seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", help="RGB-D frames with poses, one sequence after the other")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--held", type=int, default=200, help="frames at the end that are tested on (default: 200)")
    parser.add_argument("--apart", type=int, nargs="+", default=[10, 20], help="frames between the two of a pair (default: 10 20)")
    parser.add_argument("--stride", type=int, default=4, help="frames from one pair to the next (default: 4)")
    parser.add_argument("--encoder", help="default: what `auto` chooses for the data")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings over `auto`")
    parser.add_argument("--out", type=Path, default=Path("runs/rgbd"))
    parser.add_argument("--tiny", action="store_true", help="a room of its own, few frames, one epoch, one seed")
    asked = parser.parse_args()
    if asked.tiny:
        asked.seeds, asked.held, asked.apart, asked.stride, asked.epochs = [0], 8, [2, 3], 4, 1
        asked.encoder, asked.image_size, asked.batch_size, asked.set = "byoc-w4", 16, 2, ["apart=2,2"]
    elif asked.folder is None:
        parser.error("give a folder of RGB-D frames, or --tiny")
    with tempfile.TemporaryDirectory() as own:
        if asked.tiny:
            asked.folder = asked.folder or str(room(Path(own) / "room", 24))
            asked.out = asked.out if asked.out != parser.get_default("out") else Path(own) / "runs"
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """Train and evaluate what is not there yet, then the tables."""
    frames = len(data.open_source(asked.folder))
    if not max(asked.apart) < asked.held < frames - max(asked.apart):
        sys.exit(f"{asked.folder} has {frames:,} frames, of which {asked.held} cannot be held out; give another --held")
    learn, test = f"{asked.folder}#0:{frames - asked.held}", f"{asked.folder}#{frames - asked.held}:{frames}"
    found: dict[str, dict[str, Numbers]] = {str(apart): {} for apart in asked.apart}
    for seed in asked.seeds:
        run = asked.out / f"seed-{seed}"
        print(f"{run}", file=sys.stderr, flush=True)
        trained(run, learn, seed, asked)
        for apart in asked.apart:
            for score in evaluated(run, learn, test, f"registration:apart={apart},stride={asked.stride}", seed):
                called = "trained" if score["name"] == str(run) else score["name"]
                for metric, value in score["metrics"].items():
                    found[str(apart)].setdefault(f"{called}, {score['features']}", {}).setdefault(metric, []).append(value)
    for apart, rows in found.items():
        show(f"{frames - asked.held} frames to learn from, {asked.held} held out, pairs {apart} apart, {len(asked.seeds)} seeds", rows)
    finish("rgbd", {"learn": learn, "test": test, "stride": asked.stride, "seeds": asked.seeds, "apart": found})


def trained(run: Path, learn: str, seed: int, asked: argparse.Namespace) -> None:
    """The run to its end, from where it stands; a signal ends the program, and the same command goes on."""
    if (run / "encoder.json").exists():
        return
    if (run / "plan.json").exists():
        ended = byol.resume(run).outcome.ended
    else:
        sizes = {"epochs": asked.epochs, "image_size": asked.image_size, "batch_size": asked.batch_size, "encoder": asked.encoder}
        ended = byol.train(learn, run, method="byoc", seed=seed, set=tuple(asked.set), **sizes).outcome.ended
    if ended != "finished":
        print(f"training ended: {ended}; the same command goes on", file=sys.stderr)
        sys.exit(130)


def evaluated(run: Path, learn: str, test: str, protocol: str, seed: int) -> list[dict]:
    """The scores of a run and of its baselines; from its folder where they are there."""
    for path in sorted((run / "evaluations").glob("registration*.json")):
        kept = json.loads(path.read_text())
        if (kept["asked"]["protocol"], kept["asked"]["test"], kept["asked"]["seed"]) == (protocol, test, seed):
            return kept["scores"]
    result = api.evaluate_task(run, learn, test=test, protocol=protocol, seed=seed)
    for note in result.notes:
        print(f"  {note}", file=sys.stderr)
    return result.to_json()["scores"]


def show(title: str, rows: dict[str, Numbers]) -> None:
    """Means over the seeds, and their deviation where there is more than one."""
    table(title, ("", *SHOWN), [(name, *(cell(numbers.get(m), head) for head, m in SHOWN.items())) for name, numbers in rows.items()])


def cell(values: list[float] | None, head: str) -> str:
    if not values:
        return "-"
    factor, digits = (100, 0) if head.endswith("%") else (1, 1)
    mean = f"{factor * statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} +- {factor * statistics.stdev(values):.{digits}f}"


def room(folder: Path, frames: int, size: int = 32) -> Path:
    """A wavy wall that a camera passes by: colours, depth in millimetres, poses and the camera, as files."""
    for part in ("color", "depth", "pose"):
        (folder / part).mkdir(parents=True)
    focal, middle = 0.9 * size, (size - 1) / 2
    rows, columns = np.mgrid[:size, :size]
    rays = np.stack([(columns - middle) / focal, (rows - middle) / focal, np.ones((size, size))], -1)
    for i in range(frames):
        pose, turn = np.eye(4), np.radians(1.5 * i)
        pose[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
        pose[:3, 3] = [-0.04 * i, 0.01 * i, 0]
        world, depth = rays @ pose[:3, :3].T, np.full((size, size), 2.0)
        for _ in range(60):
            p = pose[:3, 3] + depth[..., None] * world
            depth += 0.7 * (3 + 0.2 * np.sin(2 * p[..., 0]) + 0.2 * np.cos(3 * p[..., 1]) - p[..., 2]) / world[..., 2]
        colour = 0.5 + 0.25 * np.sin((pose[:3, 3] + depth[..., None] * world) * [3.0, 4.0, 5.0]) * [1, 1, 1.5]
        Image.fromarray(np.rint(255 * colour.clip(0, 1)).astype(np.uint8)).save(folder / "color" / f"{i:04d}.png")
        Image.fromarray(np.rint(1000 * depth).astype(np.uint16)).save(folder / "depth" / f"{i:04d}.png")
        np.savetxt(folder / "pose" / f"{i:04d}.txt", pose)
    np.savetxt(folder / "intrinsics.txt", [[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
    return folder


if __name__ == "__main__":
    main()
