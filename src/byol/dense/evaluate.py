"""Dense transfer: an encoder and the same network from random weights, each frozen and fine-tuned, at the same budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import torch

from byol.dense.result import DenseResult, DenseScore
from byol.dense.task import Task, Transfer
from byol.encoders import Encoder, random_twin

Progress = Callable[[str, int, int], None]  # (what, done, total)


def evaluate(
    name: str,
    encoder: Encoder,
    protocol: Transfer,
    task: Task,
    *,
    baselines: bool = True,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    progress: Progress = lambda what, done, total: None,
) -> DenseResult:
    """Scores of the encoder and, before it, of its random twin (of another draw for every seed); the encoder stays as it is."""
    began = time.perf_counter()
    seeds = range(seed, seed + protocol.seeds)
    twins = baselines and not name.startswith("random ") and random_twin(encoder, seed=seed) is not None
    scores = []
    for mode in ("frozen", "finetuned") if protocol.mode == "both" else (protocol.mode,):
        for subject in (*((f"random {encoder.name}",) if twins else ()), name):
            found: dict[str, list[float]] = {}
            for s in seeds:
                drawn = subject.startswith("random ")
                network = (random_twin(encoder, seed=s) if drawn else None) or encoder
                metrics = _learn(task, network, mode == "frozen", s, device, precision, f"{subject}, {mode}", progress)
                for metric, value in metrics.items():
                    found.setdefault(metric, []).append(value)
            scores.append(DenseScore(name=subject, mode=mode, metrics=found))
    missing = baselines and not twins and not name.startswith("random ")
    return DenseResult(
        protocol=protocol.name,
        description=protocol.describe(),
        settings=asdict(protocol),  # type: ignore[call-overload]  # a dataclass of settings
        facts=task.facts,
        train=task.train,
        test=task.test,
        split=task.how,
        scores=scores,
        notes=[f"no random network: {encoder.name} cannot be drawn anew"] if missing else [],
        seconds=time.perf_counter() - began,
    )


def _learn(
    task: Task, encoder: Encoder, frozen: bool, seed: int, device: str, precision: str, what: str, progress: Progress
) -> dict[str, float]:
    # The head is drawn on the CPU from torch's generator, which stays as it was; detection also samples from the device's.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return task.learn(
            encoder,
            frozen=frozen,
            seed=seed,
            device=device,
            precision=precision,
            tell=lambda done, total: progress(what, done, total),
        )
