"""Recordings of neurons: MYOW or BYOL on spike counts, and what a linear readout of frozen features says of behaviour.

    python benchmarks/neural.py mihi.npz chewie.npz                    # reaches: the angle, by trials
    python benchmarks/neural.py mouse.npz --method byol --epochs 50    # sleep: the state, in the order of time
    python benchmarks/neural.py --tiny                                 # a made recording, to see that it works

Beside the trained encoder: the counts themselves, and the same network untrained. Settings are those of MYOW's released code for
reaching monkeys, but for what is unverified in `byol.views.recordings`; no published number was had.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import finish, table
from torch import Tensor, nn

from byol import methods, optim, recipes, training
from byol.config import Plan, Settings
from byol.data.recordings import Recording, by_trial, in_time, open_recording
from byol.encoders.mlp import Mlp
from byol.evaluation.decoding import Part, reach, state
from byol.feeds import RecordingFeed
from byol.methods.byol import Options as Byol
from byol.methods.myow import Options as Myow
from byol.views.recordings import PLAIN, Pipeline, RecordingViews

HEADS = {"hidden": 256, "dim": 32, "tau_base": 0.9}


def main() -> None:
    """The table, and a last line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--method", choices=("myow", "byol"), default="myow")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, help="use only so many bins")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    files = asked.recordings or ([made(Path(tempfile.mkdtemp()) / "made.npz")] if asked.tiny else [])
    if not files:
        parser.error("give the .npz of a recording, or --tiny")
    found = []
    for path in files:
        for seed in range(asked.seeds):
            found.append({"recording": path.stem, **one(path, asked.method, 3 if asked.tiny else asked.epochs, seed, asked.limit)})
    for head in dict.fromkeys(tuple(row) for row in found):
        rows = [[f"{100 * v:.1f}" if isinstance(v, float) else str(v) for v in row.values()] for row in found if tuple(row) == head]
        table("% of held-out bins, " + ("reach within pi / 8 and 3 pi / 16" if "counts acc" in head else "weighted F1"), head, rows)
    finish("neural", {"method": asked.method, "epochs": asked.epochs, "rows": found})


def one(path: Path, name: str, epochs: int, seed: int, limit: int | None) -> dict[str, object]:
    """Train on the training trials of a recording, and read behaviour from counts, an untrained network, and the trained one."""
    r = first(open_recording(path), limit)
    trials = r.groups.max() > 0
    parts = by_trial(r.groups, (0.8, 0.1, 0.1), seed=seed) if trials else in_time(len(r), (0.7, 0.1, 0.2))
    counts = torch.from_numpy(r.counts)
    x = (counts - counts[parts[0]].mean(0)) / counts[parts[0]].std(0).clamp_min(1e-6)
    torch.manual_seed(seed)
    encoder = Mlp(x.shape[1])
    scores = {"counts": score(r, parts, x, trials), "untrained": score(r, parts, features(encoder, x), trials)}
    trained = train(r, x, parts[0], encoder, name, epochs, seed)
    scores[name] = score(r, parts, features(trained, x), trials)
    return {"bins": len(r), "seed": seed} | {f"{who} {what}": v for who, of in scores.items() for what, v in of.items()}


def train(r: Recording, x: Tensor, bins: np.ndarray, encoder: nn.Module, name: str, epochs: int, seed: int) -> nn.Module:
    """The encoder after a run of the ordinary loop."""
    mined = Myow(**HEADS, mined_hidden=64, mined_dim=16, neighbours=3, mined_weight=0.1, mined_from=0.01, mined_full=0.11, gap=150)
    options = mined if name == "myow" else Byol(**HEADS, target_init="copy")
    method = methods.load(name)(encoder, options)
    plan = planned(len(bins), name, epochs, seed)
    views = RecordingViews(x, *r.bounds(), (Pipeline(), Pipeline()) + ((PLAIN, PLAIN) if name == "myow" else ()))
    rows = {"groups": r.groups if r.groups.max() > 0 else None, "times": r.times} if name == "myow" else {}
    known = {k: v for k, v in rows.items() if v is not None}
    feed = RecordingFeed(views, batch=plan.settings.batch_size, seed=seed, rows=known, bins=bins)
    s = plan.settings
    groups = method.param_groups()
    made = optim.make(s.optimizer, groups, lr=0.0, weight_decay=s.weight_decay, momentum=s.momentum, trust_coefficient=s.trust_coefficient)
    with tempfile.TemporaryDirectory() as folder:
        training.fit(Path(folder), plan, method, made, feed)
    trained: nn.Module = method.encoder
    return trained


def planned(bins: int, name: str, epochs: int, seed: int) -> Plan:
    """LARS, rate 0.8 per 256, decay 1e-6, batch 256: MYOW's for reaching monkeys; the warm-up of 10 epochs is ours."""
    settings = Settings(
        method=name, encoder="mlp", image_size=1, views="recording", epochs=epochs, batch_size=min(256, bins // 2), accumulate=1,
        optimizer="lars", lr=0.8, weight_decay=1e-6, momentum=0.9, trust_coefficient=1e-3, warmup_epochs=10.0, precision="fp32",
        channels_last=False, device="cpu", seed=seed, workers=0, pretrained=False, on_collapse="warn", log_steps=100,
        checkpoint_minutes=60.0,
    )  # fmt: skip
    plan = Plan(settings=settings, method={}, views={}, reasons={}, images=bins, steps_per_epoch=1, steps=1, warmup_steps=0, peak_lr=0.0)
    return recipes.derived(plan)


@torch.no_grad()
def features(encoder: nn.Module, x: Tensor) -> Tensor:
    """(N, neurons) -> (N, D), in evaluation mode."""
    out: Tensor = encoder.eval()(x)
    return out


def score(r: Recording, parts: list[np.ndarray], x: Tensor, trials: bool) -> dict[str, float]:
    """Accuracies of the angle, or the weighted F1 of the state."""
    assert r.labels is not None
    train, val, test = (Part(x[p], torch.from_numpy(r.labels[p])) for p in parts)
    return vars(reach(train, val, test)) if trials else {"F1": state(train, val, test)}


def first(r: Recording, limit: int | None) -> Recording:
    """The first bins of a recording."""
    times, labels = (None if v is None else v[:limit] for v in (r.times, r.labels))
    return Recording(r.counts[:limit], r.groups[:limit], times, labels)


def made(path: Path) -> Path:
    """A recording of 20 neurons, each with a direction that it prefers, in 60 trials of 5 bins."""
    noise = np.random.default_rng(0)
    y = np.repeat(np.arange(60) % 8, 5)
    tuned = 3 + 2.5 * np.cos(y[:, None] * np.pi / 4 - np.linspace(0, 2 * np.pi, 20, endpoint=False))
    np.savez(path, x=noise.poisson(tuned).astype(np.float32), y=y, trial_lengths=np.full(60, 5))
    return path


if __name__ == "__main__":
    main()
