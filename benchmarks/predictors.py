"""Linear predictors in closed form beside the trained one, on the embedded digits: what features are worth, how orthogonal P stays.

    python benchmarks/predictors.py                                    # all nine, about a minute each on one core
    python benchmarks/predictors.py --only stiefel trainable --alpha 0 0.3 --set rescale_predictor=none
    python benchmarks/predictors.py --tiny                             # two of them, four epochs: some seconds

kNN and linear top-1 of a held-out fifth after the last epoch, spread of the projections (0: collapsed), and of the predictor: stable
rank and trace as shares of the dimension, at the start and at the end, and its distance to the nearest orthogonal matrix. The paper
(Richemond et al. 2023) says that stable rank and trace rise; a minute of digits is no test of its ImageNet figures. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import get_args, get_type_hints

import torch
from measure import finish, table

import byol
from byol import methods

HEAD = ("predictor, ridge", "kNN", "linear", "spread", "stable rank", "trace", "to orthogonal", "health")


def main() -> None:
    names = get_args(get_type_hints(methods.load("closed_form").Config)["predictor"])  # type: ignore[attr-defined]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--alpha", nargs="+", type=float, default=[0.3], help="ridges; the trained predictor has none")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings of the plan")
    parser.add_argument("--tiny", action="store_true", help="two predictors, four epochs")
    asked = parser.parse_args()
    if asked.tiny:
        asked.only, asked.epochs, asked.set = ["stiefel", "trainable"], 4, ["hidden=64", "dim=16"]
    torch.set_num_threads(1)
    found: dict[str, dict[str, object]] = {}
    for name in asked.only:
        for alpha in asked.alpha[:1] if name == "trainable" else asked.alpha:
            key = name if name == "trainable" else f"{name}, {alpha:g}"
            found[key] = outcome(name, alpha, asked)
            print(f"{key}: {found[key]}", flush=True)
    table(f"digits, {asked.epochs} epochs", HEAD, [(key, *_row(f)) for key, f in found.items()])
    finish("predictors", {"epochs": asked.epochs, "seed": asked.seed, "set": asked.set, "predictors": found})


def outcome(name: str, alpha: float, asked: argparse.Namespace) -> dict[str, object]:
    """Train with one predictor and say what came of it."""
    settings = (f"predictor={name}", f"alpha={alpha}", "log_steps=10", *asked.set)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run")
        byol.train("digits", out, method="closed_form", epochs=asked.epochs, seed=asked.seed, set=settings, precision="fp32", device="cpu")
        scores = {e.protocol: e.scores[-1].top1 for e in byol.evaluate(out, "digits", baselines=False, device="cpu")}
        log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    first, last = log[0], log[-1]
    shown = {key: [first[f"predictor_{key}"], last[f"predictor_{key}"]] for key in ("stable_rank", "trace", "polar_distance")}
    return {**{k: round(v, 4) for k, v in scores.items()}, "spread": last["spread"], "verdict": last["verdict"], **shown}


def _row(f: dict[str, object]) -> tuple[str, ...]:
    shares = (" → ".join(f"{x:.2f}" for x in f[key]) for key in ("stable_rank", "trace", "polar_distance"))  # type: ignore[attr-defined]
    return f"{f['knn']:.1%}", f"{f['linear']:.1%}", f"{f['spread']:.2f}", *shares, str(f["verdict"])


if __name__ == "__main__":
    main()
