"""The family side by side: every method on the same data, encoder, batch and epochs with its `auto` values, over several seeds.

    python benchmarks/family.py                                                     # all methods on the embedded digits
    python benchmarks/family.py TRAIN TEST --out runs/family --epochs 50            # folders, archives, .npz or names
    python benchmarks/family.py --methods byol simsiam --seeds 5 --set views=small  # some of them; settings that go over `auto`
    python benchmarks/family.py --tiny --methods simsiam moco                       # some seconds, to see that it works

Every run is an ordinary run folder OUT/METHOD/seed-N, so that what was interrupted goes on with the same command, and what is there is
not done again; all methods with the first seed come first. What would be measured anew for each run is decided once, in OUT/family.json.
A step is an update; its time is what the log says, the median over the run. Passes are counted on a small encoder, in batches: forward
with a gradient, forward without, backward.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from measure import finish, table
from torch import Tensor, nn

import byol
from byol import api, demonstration, encoders, methods, recipes, stored
from byol.evaluation import Evaluation

PROTOCOLS = ("knn", "linear")
Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "train", nargs="?", default="digits", help="labelled images to learn from, without their labels; default: the digits"
    )
    parser.add_argument("test", nargs="?", help="images to test on; the digits bring their own")
    parser.add_argument("--methods", nargs="+", default=of_images(), choices=of_images(), metavar="NAME", help="default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--encoder", help="default: what `auto` chooses for the data")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings for all methods, over `auto`")
    parser.add_argument("--out", type=Path, default=Path("runs/family"))
    parser.add_argument("--tiny", action="store_true", help="few digits, one epoch, one seed, a small encoder")
    asked = parser.parse_args()
    asked.limit = None
    if not asked.tiny:
        return compare(asked)
    asked.seeds, asked.epochs, asked.encoder, asked.batch_size, asked.limit = 1, 1, "small-w8-n2", 16, 96
    asked.precision = "fp32"
    if asked.out != parser.get_default("out"):
        return compare(asked)
    with tempfile.TemporaryDirectory() as folder:
        asked.out = Path(folder)
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """Train and evaluate what is not there yet, then the table."""
    train, test = data(asked)
    shared = decided(asked, train)
    for seed in range(asked.seeds):
        for name in list(asked.methods):
            run = asked.out / name / f"seed-{seed}"
            print(f"{run}", file=sys.stderr, flush=True)
            try:
                trained(run, name, train, seed, shared)
            except ValueError as error:  # such as grey images, for a method that compares colours
                print(f"{name} is left out: {error}", file=sys.stderr)
                asked.methods.remove(name)
                continue
            evaluated(run, train, test, asked.limit, baselines=seed == 0 and name == asked.methods[0])
    rows = {name: summary(name, [asked.out / name / f"seed-{seed}" for seed in range(asked.seeds)]) for name in asked.methods}
    others = baselines(asked.out / asked.methods[0] / "seed-0")
    show(rows, others, shared)
    finish("family", {"data": str(asked.train), "shared": shared, "seeds": asked.seeds, "methods": rows, "baselines": others})


def data(asked: argparse.Namespace) -> tuple[str, str | None]:
    """Where to learn and where to test; of the digits, a fifth is kept for the test, which no method sees."""
    if asked.train != "digits" or asked.test is not None:
        return asked.train, asked.test
    files = demonstration.Files(asked.out / "data" / "train.npz", asked.out / "data" / "test.npz")
    if not files.test.exists():
        demonstration.prepare(asked.out / "data", seed=0)
    return str(files.train), str(files.test)


def decided(asked: argparse.Namespace, train: str) -> Row:
    """What all runs have in common, kept in the folder; the program ends where the folder holds another comparison."""
    fixed = {"epochs": asked.epochs, "batch_size": asked.batch_size, "image_size": asked.image_size, "encoder": asked.encoder}
    words = {"train": asked.train, "test": asked.test, "precision": asked.precision, "set": asked.set, "limit": asked.limit, **fixed}
    path = asked.out / "family.json"
    if path.exists():
        before = json.loads(path.read_text())
        if before["asked"] != words:
            sys.exit(f"{asked.out} holds another comparison, {before['asked']}; give the same words to go on, or another --out")
        return before["shared"]
    plan = api.plan(train, limit=asked.limit, precision=asked.precision, set=tuple(asked.set), **fixed).plan
    s = plan.settings
    names = ("encoder", "image_size", "epochs", "batch_size", "precision")
    shared = {k: getattr(s, k) for k in names} | {"limit": asked.limit}
    shared["set"] = [f"channels_last={str(s.channels_last).lower()}", *asked.set]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"asked": words, "shared": shared}, indent=1))
    return shared


def trained(run: Path, name: str, train: str, seed: int, shared: Row) -> None:
    """The run to its end, from where it stands; a signal ends the program, and the same command goes on."""
    if (run / "encoder.json").exists() or (run / "not-finite.json").exists():
        return
    if (run / "plan.json").exists():
        ended = byol.resume(run).outcome.ended
    else:
        ended = byol.train(train, run, method=name, seed=seed, **{**shared, "set": tuple(shared["set"])}).outcome.ended
    if ended == "interrupted":
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)


def evaluated(run: Path, train: str, test: str | None, limit: int | None, *, baselines: bool) -> None:
    """kNN and linear of the frozen encoder, in the run's folder."""
    if not (run / "encoder.json").exists() or all((run / "evaluations" / f"{p}.json").exists() for p in PROTOCOLS):
        return
    byol.evaluate(run, train, test=test, protocols=PROTOCOLS, baselines=baselines, limit=limit)


def summary(name: str, runs: list[Path]) -> Row:
    """One method over its seeds; a run without an end has no scores."""
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in runs]
    plan = json.loads((runs[0] / "plan.json").read_text())
    images = plan["settings"]["batch_size"] * plan["settings"]["accumulate"]
    times = [images / row["images_per_second"] for log in logs for row in log[1:] if row["images_per_second"] > 0]
    return {
        **{p: [s.top1 for run in runs for s in scores(run, p) if not s.baseline] for p in PROTOCOLS},
        "verdicts": [log[-1]["verdict"] for log in logs],
        "spread": [log[-1]["spread"] for log in logs],
        "rank": [log[-1]["rank"] for log in logs],
        "seconds_per_step": statistics.median(times) if times else None,
        "passes": passes(name, **plan["method"]),
        "views": len(methods.views_of(methods.load(name))),
    }


def scores(run: Path, protocol: str) -> list[byol.evaluation.Score]:
    """What is stored; nothing where the run has no evaluation."""
    path = run / "evaluations" / f"{protocol}.json"
    return Evaluation.from_json(json.loads(path.read_text())).scores if path.exists() else []


def baselines(run: Path) -> dict[str, dict[str, float]]:
    """{"pixels": {"knn": .., "linear": ..}, "random ...": ..}"""
    found: dict[str, dict[str, float]] = {}
    for protocol in PROTOCOLS:
        for score in scores(run, protocol):
            if score.baseline:
                found.setdefault(score.name, {})[protocol] = score.top1
    return found


def show(rows: dict[str, Row], others: dict[str, dict[str, float]], shared: Row) -> None:
    """The table for people."""
    lines = []
    for name, row in rows.items():
        count = row["passes"]
        step = f"{1e3 * row['seconds_per_step']:.1f}" if row["seconds_per_step"] else "-"
        cells = [spelled(row[p]) for p in PROTOCOLS]
        lines.append([name, *cells, " ".join(row["verdicts"]), step, " + ".join(f"{count[k]:g}" for k in ("online", "target", "backward"))])
    lines += [[name, *(f"{100 * found[p]:.1f}" for p in PROTOCOLS), "", "", ""] for name, found in others.items()]
    title = f"{shared['encoder']}, {shared['image_size']} px, {shared['epochs']} epochs, batch {shared['batch_size']}; top-1 in %"
    table(title, ("method", "kNN", "linear", "health", "ms a step", "passes"), lines)


def spelled(top1: list[float]) -> str:
    """'97.1 ± 0.3', of one seed '97.1'"""
    if not top1:
        return "-"
    spread = f" ± {100 * statistics.stdev(top1):.1f}" if len(top1) > 1 else ""
    return f"{100 * statistics.mean(top1):.1f}{spread}"


def passes(name: str, **options: object) -> dict[str, float]:
    """{"online": .., "target": .., "backward": ..}: batches through an encoder in one forward and backward pass of the method."""
    cls = methods.load(name)
    notes = dict.fromkeys(("online", "target", "backward"), 0)
    size = 32

    def count(part: nn.Module, args: object, y: Tensor) -> None:
        notes["online" if y.requires_grad else "target"] += len(y)
        if y.requires_grad:
            y.register_hook(lambda g: notes.update(backward=notes["backward"] + len(g)))

    known = {f.name for f in dataclasses.fields(cls.Config)}
    few = {"hidden": 16, "dim": 8, "bottleneck": 4, "queue": 64, "classes": 3, "channels": 1, "size": 8, "samples": size}
    config = stored.typed(cls.Config, {**options, **{k: v for k, v in few.items() if k in known}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net, first, shape = small_net(name)
        first.register_forward_hook(count)
        method = cls(net, config)
        views = tuple(torch.randn(size, *shape) for _ in methods.views_of(cls))
        rows = {row: torch.arange(size) if row == "index" else torch.arange(size) % 3 for row in methods.rows_of(cls)}
        method(views, **rows).loss.backward()
    return {kind: number / size for kind, number in notes.items()}


def small_net(name: str) -> tuple[nn.Module, nn.Module, tuple[int, int, int]]:
    """A small encoder of the data that the method is for, the part of it that each view passes through once, and the shape of a sample."""
    if recipes.kind_of(name) == "rgbd":
        shape = (6, 8, 8)
        frames = encoders.load("byoc-w4-v200", input=encoders.Input(channels=6, size=8, mean=(0.5,) * 6, std=(0.5,) * 6))
        return frames, frames.get_submodule("net.image"), shape
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.dim = 6
    net.halves = lambda x: net(x).chunk(2, 1)
    if methods.encoder_kind(methods.load(name)) == "patches":
        seen = encoders.Input(channels=1, size=8, mean=(0.5,), std=(0.5,))
        return encoders.wrap(encoders.Patches(net, encoders.Cut(4, 2), seen), input=seen), net[0], (1, 8, 8)
    return net, net[0], (1, 8, 8)


def of_images() -> list[str]:
    """The methods that take images."""
    return [name for name in methods.names() if recipes.kind_of(name) in ("", "image")]


if __name__ == "__main__":
    main()
