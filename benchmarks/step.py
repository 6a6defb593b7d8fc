"""One BYOL update: ours beside the bare passes, lightly's building blocks and byol-pytorch, on the same network and views.

    uv run --group bench python benchmarks/step.py             # about 4 minutes on two cores; --tiny: seconds
    uv run --group bench python benchmarks/step.py --compile   # ours once more, compiled

Bare: the same forward and backward passes of the same networks and nothing else, no loss beyond a sum, no optimiser, no target that moves.
lightly: its heads, loss and `update_momentum` as its own BYOL example puts them together, with SGD. byol-pytorch 0.9.1: its class around
the same encoder, no simplicial embeddings; it sends both views through one batch norm, so its mathematics differs and it makes half as
many, larger passes. All have heads of 4096 and 256 units, float32 and the same number of threads.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from measure import Job, Time, finish, peer, side_by_side, table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from byol import run as runs
from byol.allocator import keep_freed_memory
from byol.config import Request
from byol.training import Loop

Views = tuple[Tensor, Tensor]
Parts = dict[str, nn.Module]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="small networks, one round: to see that it works")
    parser.add_argument("--compile", action="store_true", help="ours once more with the networks compiled")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of the passes of ours and of the bare ones")
    asked = parser.parse_args()
    keep_freed_memory()
    cases = [("resnet18", 32, 64), ("resnet50", 224, 8)] if not asked.tiny else [("small-w16", 32, 8)]
    rounds = 1 if asked.tiny else 7
    found = {f"{name}_{size}": case(name, size, batch, rounds, asked) for name, size, batch in cases}
    finish("step", {"rounds": rounds, "precision": asked.precision, "threads": torch.get_num_threads(), **found})


def case(name: str, size: int, batch: int, rounds: int, asked: argparse.Namespace) -> dict[str, object]:
    """One network: every contender's step on the same two views."""
    torch.manual_seed(0)
    device = runs.find_device("auto")
    views = tuple(torch.randn(batch, 3, size, size, device=device) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        jobs = ours(name, size, batch, views, Path(folder), asked.precision, compiled=False)
        if asked.compile:
            jobs |= ours(name, size, batch, views, Path(folder), asked.precision, compiled=True)
        encoder = session_of(name, size, batch, asked.precision).encoder().to(device)
        if asked.precision == "fp32":
            jobs |= peers(encoder, size, views)
        wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        times = side_by_side(jobs, rounds=rounds, warm=1 if device == "cpu" else 5, wait=wait)
        floor = floor_of(method_of(name, size, batch, device), views, device)
    bare = times["bare passes"]
    rows = [("floor: operations / best rate of torch", f"{1000 * floor:,.1f}", "", f"{floor / bare.median:.3f}")]
    rows += [(k, f"{1000 * t.median:,.1f}", f"{1000 * t.best:,.1f}", f"{t.median / bare.median:.3f}") for k, t in times.items()]
    table(f"{name}, {size} px, batch {batch}, {asked.precision}, {device}", ("", "median ms", "best ms", "x bare"), rows)
    return {"floor_ms": 1000 * floor, **{k: as_json(t, bare) for k, t in times.items()}}


def method_of(name: str, size: int, batch: int, device: str) -> nn.Module:
    return session_of(name, size, batch, "fp32").method().to(device)


def floor_of(method: nn.Module, views: Views, device: str) -> float:
    """Seconds that the operations of all passes would take at the best rate that torch reaches here in float32.

    Of a matrix product of 2048 rows and columns and a convolution of 256 channels; on some processors the one, on some the other.
    """
    with FlopCounterMode(display=False) as counter:
        method(views).loss.backward()
    a = torch.randn(2048, 2048, device=device)
    conv = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(device, memory_format=torch.channels_last)
    x = torch.randn(32, 256, 28, 28, device=device).contiguous(memory_format=torch.channels_last)
    operations = {"product": 2 * 2048**3, "convolution": 2 * 9 * 256 * 256 * 32 * 28 * 28}
    with torch.no_grad():
        wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        times = side_by_side({"product": lambda: a @ a, "convolution": lambda: conv(x)}, rounds=5, wait=wait)
    return counter.get_total_flops() / max(operations[name] / t.best for name, t in times.items())


def as_json(t: Time, bare: Time) -> dict[str, float]:
    return {
        "median_ms": 1000 * t.median,
        "best_ms": 1000 * t.best,
        "ratio_to_bare": t.median / bare.median,
        "best_ratio": t.best / bare.best,
    }


def session_of(name: str, size: int, batch: int, precision: str) -> runs.Session:
    """A run as `byol train` would plan it, for this network and batch, with the paper's heads."""
    images = np.zeros((batch, size, size, 3), np.uint8)
    images[0] = 255
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "x.npy"), images)
        sets = ("hidden=4096", "dim=256", "projection_norm=none", "predictor_rate=1", "optimizer=sgd", "channels_last=true", "log_steps=20")
        request = Request(
            data=f"{folder}/x.npy", encoder=name, image_size=size, batch_size=batch, precision=precision, epochs=1000, set=sets
        )
        return runs.prepare(request)


def ours(name: str, size: int, batch: int, views: Views, folder: Path, precision: str, *, compiled: bool) -> dict[str, Job]:
    """The update of `byol.training`, with all that it does, and the same passes without it."""
    session = session_of(name, size, batch, precision)
    session.plan = replace(session.plan, settings=replace(session.plan.settings, compile=compiled))
    method = session.method()
    loop = Loop(folder, session.plan, method, session.optimizer(method), None, 0)
    step = iter(range(1, 10**9))
    tag = ", compiled" if compiled else ""

    def update() -> None:
        loop.update(next(step), iter([(views, {})]))

    parts = dict(copy.deepcopy(method).named_children())
    for part in parts.values() if compiled else ():
        part.compile()  # a copy forgets that
    bf16 = torch.autocast(views[0].device.type, torch.bfloat16, enabled=precision == "bf16")

    def bare() -> None:
        with bf16:
            outputs = [parts["predictor"](parts["projector"](parts["encoder"](v))) for v in views]
            with torch.no_grad():
                for v in views:
                    parts["target_projector"](parts["target_encoder"](v))
        torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])
        for part in parts.values():
            part.zero_grad(set_to_none=True)

    return {f"bare passes{tag}": bare, f"byol{tag}": update}


def peers(encoder: nn.Module, size: int, views: Views) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    if peer("lightly"):
        jobs["lightly's building blocks"] = lightly_step(copy.deepcopy(encoder), views)
    if peer("byol_pytorch"):
        jobs["byol-pytorch"] = byol_pytorch_step(copy.deepcopy(encoder), size, views)
    return jobs


def lightly_step(backbone: nn.Module, views: Views) -> Job:
    """As in lightly's examples/pytorch/byol.py."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    device = views[0].device
    projector, predictor = BYOLProjectionHead(backbone.dim, 4096, 256).to(device), BYOLPredictionHead(256, 4096, 256).to(device)
    slow_backbone, slow_projector = copy.deepcopy(backbone), copy.deepcopy(projector)
    for module in (slow_backbone, slow_projector):
        deactivate_requires_grad(module)
    criterion = NegativeCosineSimilarity()
    optimizer = torch.optim.SGD([p for m in (backbone, projector, predictor) for p in m.parameters()], lr=0.06)

    def step() -> None:
        update_momentum(backbone, slow_backbone, m=0.996)
        update_momentum(projector, slow_projector, m=0.996)
        first, second = views
        p0 = predictor(projector(backbone(first).flatten(1)))
        z0 = slow_projector(slow_backbone(first).flatten(1)).detach()
        p1 = predictor(projector(backbone(second).flatten(1)))
        z1 = slow_projector(slow_backbone(second).flatten(1)).detach()
        loss = 0.5 * (criterion(p0, z1) + criterion(p1, z0))
        loss.detach()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def byol_pytorch_step(net: nn.Module, size: int, views: Views) -> Job:
    """As in its README, with the views given and SGD in place of Adam."""
    from byol_pytorch import BYOL

    learner = BYOL(net, size, -1, 256, 4096, lambda x: views[0], lambda x: views[1], use_simplicial_embeddings=False)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.06)

    def step() -> None:
        loss = learner(views[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.update_moving_average()

    return step


if __name__ == "__main__":
    main()
