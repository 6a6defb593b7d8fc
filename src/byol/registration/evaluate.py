"""Registration by an encoder, by the same network from random weights, by colour, by ICP and FPFH, and by no motion at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from byol.data import Unreadable
from byol.encoders import Encoder, random_twin
from byol.geometry import move
from byol.registration import classical
from byol.registration.metrics import Alignment, measure, summary
from byol.registration.ply import write_ply
from byol.registration.protocol import Registration
from byol.registration.result import RegistrationResult, RegistrationScore
from byol.registration.subjects import ByFeatures, Subject, colour, of_features, open3d_is_there, sample, still
from byol.registration.task import Frame, Frames, Pair, Task

Progress = Callable[[str, int, int], None]  # (what, done, total)
Numbers = dict[str, dict[str, list[float]]]  # kind of features -> metric -> a value for each pair


def evaluate(
    name: str,
    encoder: Encoder,
    protocol: Registration,
    task: Task,
    *,
    baselines: bool = True,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    progress: Progress = lambda what, done, total: None,
) -> RegistrationResult:
    """Scores of the encoder and, before them, of everything that it has to beat; poses score alone, nothing is fitted to them."""
    began = time.perf_counter()
    own = of_features(encoder, protocol, seed, device, precision)
    subjects, notes = _baselines(name, encoder, protocol, seed, device, precision) if baselines else ({}, [])
    frames = Frames(task.frames, encoder, protocol.size)
    pairs, unreadable = _readable(task, frames)
    scores = []
    for called, subject in {**subjects, name: own}.items():
        ply = Path(protocol.ply) if protocol.ply and subject is own else None
        found: Numbers = {}
        for number, pair in enumerate(pairs):
            progress(called, number, len(pairs))
            _register(subject, frames, pair, number, sample(seed, number, frames(pair.first), protocol.points), found, ply)
        progress(called, len(pairs), len(pairs))
        scores += [RegistrationScore(name=called, features=kind, metrics=summary(of), pairs=of) for kind, of in found.items()]
    return RegistrationResult(
        protocol=protocol.name,
        description=protocol.describe(),
        settings=asdict(protocol),
        pairs=[p.name for p in pairs],
        size=frames.size,
        split=task.how,
        scores=scores,
        notes=[*notes, *task.notes, *unreadable],
        seconds=time.perf_counter() - began,
    )


def _baselines(
    name: str, encoder: Encoder, protocol: Registration, seed: int, device: str, precision: str
) -> tuple[dict[str, Subject], list[str]]:
    """What the encoder has to beat, and notes on what is not there."""
    found: dict[str, Subject] = {"identity": still, "colour": ByFeatures(colour, protocol, seed)}
    notes = []
    if open3d_is_there():
        found |= {"icp": classical.icp, "fpfh": classical.fpfh}
    else:
        notes.append("no icp and no fpfh: Open3D is not installed; pip install 'byol[open3d]' brings it")
    if not name.startswith("random "):
        twin = random_twin(encoder, seed=seed)
        if twin is None:
            notes.append(f"no random network: {encoder.name} cannot be drawn anew")
        else:
            found[f"random {encoder.name}"] = of_features(twin, protocol, seed, device, precision)
    return found, notes


def _readable(task: Task, frames: Frames) -> tuple[list[Pair], list[str]]:
    """The pairs whose frames can both be read, and a note on the others; ValueError where there are none."""
    bad: dict[int, str] = {}
    for index in dict.fromkeys(i for p in task.pairs for i in (p.first, p.second)):
        try:
            frames(index)
        except Unreadable as error:
            bad[index] = f"{task.frames.names[index]}: {error}"
    kept = [p for p in task.pairs if p.first not in bad and p.second not in bad]
    if not bad:
        return kept, []
    first = next(iter(bad.values()))
    if not kept:
        raise ValueError(f"no pair of {task.frames.spec} can be read (first: {first}); byol doctor says more")
    return kept, [f"{len(task.pairs) - len(kept)} pairs left out: frames that cannot be read (first: {first})"]


def _register(subject: Subject, frames: Frames, pair: Pair, number: int, rows: Tensor, found: Numbers, ply: Path | None) -> None:
    """One pair, its numbers added to `found`, and its clouds in a file of the folder `ply`."""
    a, b = frames(pair.first), frames(pair.second)
    aligned = subject(a, b, number)
    for kind, alignment in aligned.items():
        for metric, value in measure(alignment, pair, a, b, rows).items():
            found.setdefault(kind, {}).setdefault(metric, []).append(value)
    if ply is not None:
        write_registered(ply, pair, next(iter(aligned.values())), frames.whole(pair.first), frames.whole(pair.second))


def write_registered(folder: Path, pair: Pair, found: Alignment, a: Frame, b: Frame) -> Path:
    """Both clouds in the second camera's coordinates, in one file named by both frames."""
    path = folder / f"{pair.name.replace('/', '_').replace(' ', '-')}.ply"
    points = torch.cat([move(found.R, found.t, a.points), b.points])
    write_ply(path, points.numpy(), torch.cat([a.colours, b.colours]).numpy())
    return path
