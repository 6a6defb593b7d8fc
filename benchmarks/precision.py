"""What bf16 changes: 200 updates on the embedded digits in bf16 and in fp32, with the same batches and views.

    python benchmarks/precision.py           # three seeds: a minute or two
    python benchmarks/precision.py --tiny    # one seed, 20 updates: some seconds

On the way: at every tenth update of the fp32 run the same pass from the same weights in bf16: how far loss, projections and gradient are
off. The yardstick is the pass in fp32 with weights rounded to bf16, the least that any bf16 does. At the end: the bf16 run against the fp32
run. Training is chaotic, and the smallest difference grows until the weights are others, so the yardstick there is another fp32 run whose
weights were nudged by a millionth at the start. Features are those of all digits by the encoder, compared by linear CKA (1: the same up to
rotation and scale). The last line of the output is JSON; the exit code is 1 above a bound.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import finish, table
from torch import Tensor, nn

from byol import evaluation
from byol import run as runs
from byol.config import Request
from byol.methods import StepOutput
from byol.training import Loop, autocast

# Above the worst that was seen (docs/reliability.md). The gradient has none: its yardstick says how little of it rounding leaves.
BOUNDS = {"loss": 0.01, "projections": 2e-3, "mean_loss": 0.15}
WORDS = {
    "loss": "loss of one pass, relative",
    "projections": "its projections, 1 - cosine",
    "gradient": "its gradient, 1 - cosine",
    "mean_loss": "mean loss of the run, relative",
    "cka": "features at the end, 1 - CKA",
}
SETTINGS = ("hidden=128", "dim=32", "log_steps=1000000", "channels_last=true")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="one seed, 20 updates")
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    steps, seeds = (20, 1) if asked.tiny else (200, asked.seeds)
    torch.set_num_threads(1)
    found = [deviation(seed, steps) for seed in range(seeds)]
    worst = {name: max(f[name] for f in found) for name in found[0]}
    rows = [(w, f"{worst[n]:.1e}", _shown(worst.get(f"yardstick_{n}")), _shown(BOUNDS.get(n))) for n, w in WORDS.items()]
    table(f"bf16 against fp32, {steps} updates, worst of {seeds} seeds", ("", "bf16", "yardstick", "bound"), rows)
    broken = [name for name, bound in BOUNDS.items() if not worst[name] <= bound]
    finish("precision", {"steps": steps, "seeds": seeds, "worst": worst, "bounds": BOUNDS, "above": broken})
    sys.exit(bool(broken))


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def deviation(seed: int, steps: int) -> dict[str, float]:
    """The figures of one seed; those of single passes are the largest of all steps."""
    sessions = {precision: session_of(seed, precision) for precision in ("fp32", "bf16")}
    start = sessions["fp32"].method()
    nudged = copy.deepcopy(start)
    with torch.no_grad():
        g = torch.Generator().manual_seed(seed)
        for p in nudged.parameters():
            p.mul_(1 + 1e-6 * torch.randn(p.shape, generator=g))
    passes: list[dict[str, float]] = []
    loss, features = follow(sessions["fp32"], copy.deepcopy(start), steps, passes)
    bf16_loss, bf16_features = follow(sessions["bf16"], start, steps)
    nudged_loss, nudged_features = follow(sessions["fp32"], nudged, steps)
    return {
        **{name: max(p[name] for p in passes) for name in passes[0]},
        "mean_loss": abs(bf16_loss / loss - 1),
        "yardstick_mean_loss": abs(nudged_loss / loss - 1),
        "cka": 1 - cka(bf16_features, features),
        "yardstick_cka": 1 - cka(nudged_features, features),
    }


def session_of(seed: int, precision: str) -> runs.Session:
    """Digits, a small network, batches of 64 and the rates that `byol train digits` takes for 20 epochs."""
    asked = {"epochs": 20, "batch_size": 64, "encoder": "small-w16", "image_size": 8, "device": "cpu", "seed": seed, "set": SETTINGS}
    return runs.prepare(Request(data="digits", precision=precision, **asked))


def follow(session: runs.Session, method: nn.Module, steps: int, passes: list[dict[str, float]] | None = None) -> tuple[float, np.ndarray]:
    """Train; the mean loss and the features of all images at the end. Into `passes` goes how far each step is off in bf16."""
    losses: list[Tensor] = []
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        loop = Loop(Path(folder), session.plan, method, session.optimizer(method), None, 0)
        forward = method.forward
        method.forward = lambda views: _kept(forward(views), losses)
        for step, (views, rows) in enumerate(session.feed()(0, steps)):
            if passes is not None and step % 10 == 0:
                passes.append(off(method, forward, views))
            loop.update(step, iter([(views, rows)]))
    method.forward = forward
    features = evaluation.features(runs.encoder_of(method), session.source, device="cpu").x
    return float(torch.stack(losses).mean()), np.asarray(features, np.float64)


def _kept(out: StepOutput, losses: list[Tensor]) -> StepOutput:
    losses.append(out.loss.detach())
    return out


def off(method: nn.Module, forward: Callable[[tuple[Tensor, ...]], StepOutput], views: tuple[Tensor, ...]) -> dict[str, float]:
    """One pass in bf16, and in fp32 with weights rounded to bf16, against fp32; the method stays as it is."""
    kept = copy.deepcopy(method.state_dict())
    rounded = {k: v.bfloat16().to(v.dtype) for k, v in kept.items()}
    found = []
    for weights, precision in ((kept, "fp32"), (kept, "bf16"), (rounded, "fp32")):
        method.load_state_dict(weights)
        with autocast("cpu", precision):
            out = forward(views)
        out.loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
        found.append((float(out.loss.detach()), torch.stack(out.projections).float(), gradient))
        method.zero_grad(set_to_none=True)
    method.load_state_dict(kept)
    (loss, z, gradient), cosine = found[0], nn.functional.cosine_similarity
    figures = {}
    for prefix, (other, z_other, gradient_other) in zip(("", "yardstick_"), found[1:], strict=True):
        figures[f"{prefix}loss"] = abs(other / loss - 1)
        figures[f"{prefix}projections"] = float(1 - cosine(z_other, z, dim=-1).mean())
        figures[f"{prefix}gradient"] = float(1 - cosine(gradient_other, gradient, dim=0))
    return figures


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Linear centred kernel alignment of (N, D) and (N, E) (Kornblith et al. 2019, eq. 3)."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float((np.linalg.norm(x.T @ y) ** 2) / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


if __name__ == "__main__":
    main()
