"""Checkpoints: safetensors files with everything needed to go on, written atomically; nothing in them can run.

A run keeps two: `last.safetensors` and, from before it, `previous.safetensors`. Each holds a digest of all that is in it, which
is compared when it is read; those of earlier versions have none and are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from byol.files import atomic
from byol.stored import parse, typed

LAST, PREVIOUS, DAMAGED = "last.safetensors", "previous.safetensors", "damaged.safetensors"
State = dict[str, Tensor]


@dataclass(frozen=True)
class Counts:
    """What a checkpoint counts besides its tensors."""

    step: int = 0  # finished updates
    left_out: int = 0  # those of them without effect, since a number in them was not finite
    in_a_row: int = 0  # those of them at the end


@dataclass(frozen=True)
class Found:
    """Where a run goes on."""

    step: int = 0  # finished updates; 0 where there is no checkpoint yet
    note: str = ""  # what a person should know: that the last checkpoint could not be used, and why


def exists(run: Path) -> bool:
    """Whether the run has a checkpoint, whole or not."""
    return any((run / name).exists() for name in (LAST, PREVIOUS))


def save(
    path: Path,
    *,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    views: nn.Module | None = None,
    left_out: int = 0,
    in_a_row: int = 0,
) -> None:
    """Weights, buffers and optimiser state after `step` finished updates; the file before stays, as `previous.safetensors`.

    `views`: what the views remember from step to step, where they do.
    Raises OSError if it cannot be written, and everything is as it was then.
    """
    tensors = {f"method/{k}": v for k, v in method.state_dict().items()}
    tensors |= {f"views/{k}": v for k, v in views.state_dict().items()} if views is not None else {}
    for name, state in _states(method, optimizer).items():
        tensors |= {f"optimizer/{name}/{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    # Safetensors stores contiguous tensors only, each with memory of its own, which tied weights do not have; loading copies
    # into the layout that training uses.
    stored = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    counts = Counts(step, left_out, in_a_row)
    with atomic(path, keep=path.with_name(PREVIOUS)) as temporary:
        save_file(stored, temporary, metadata={"byol": json.dumps({**vars(counts), "sha256": _digest(counts, stored)})})


def resume(run: Path, *, method: nn.Module, optimizer: torch.optim.Optimizer, views: nn.Module | None = None) -> Found:
    """Put the newest whole checkpoint of a run back; a damaged one is set aside and the one before it taken.

    Raises ValueError if none is whole, or if it belongs to another network.
    """
    if not exists(run):
        return Found()
    state, counts, trouble = _newest(run)
    _put(run / (PREVIOUS if trouble else LAST), state, method, optimizer, views)
    if trouble and (run / LAST).exists():  # else the next one would push the good one out
        os.replace(run / LAST, run / DAMAGED)
        trouble += f" and is kept as {DAMAGED}"
    return Found(counts.step, f"{trouble}; going on from {PREVIOUS}, after step {counts.step:,}" if trouble else "")


def load(run: Path, *, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """As `resume`, with nothing in the folder changed; returns the number of finished updates."""
    state, counts, trouble = _newest(run)
    _put(run / (PREVIOUS if trouble else LAST), state, method, optimizer)
    return counts.step


def restore(path: Path, *, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put one checkpoint back into a method and its optimiser, bit for bit; returns the number of finished updates.

    Raises ValueError if the file is damaged or belongs to another network.
    """
    state, counts = _read(path)
    _put(path, state, method, optimizer)
    return counts.step


def counts(run: Path, step: int) -> Counts:
    """What the checkpoint of a run after so many updates counts; nothing left out where there is none of that step."""
    for name in (LAST, PREVIOUS):
        try:
            with safe_open(run / name, framework="pt") as f:
                found, _ = _counts(f.metadata())
        except (SafetensorError, ValueError, OSError):
            continue
        if found.step == step:
            return found
    return Counts(step)


def _newest(run: Path) -> tuple[State, Counts, str]:
    """The tensors and counts of the newest whole checkpoint, and what is wrong with the last one if it is the one before."""
    try:
        return *_read(run / LAST), ""
    except ValueError as error:
        if not (run / PREVIOUS).exists():
            raise
        trouble = str(error).partition(";")[0] if (run / LAST).exists() else f"{run} has no {LAST}"
    try:
        return *_read(run / PREVIOUS), trouble
    except ValueError as error:
        raise ValueError(f"{trouble}, nor {PREVIOUS} ({str(error).partition(';')[0]}); start the run anew in another folder") from None


def _read(path: Path) -> tuple[State, Counts]:
    """All tensors and counts of a file; ValueError unless they are those that were written."""
    try:
        with safe_open(path, framework="pt") as f:
            found, digest = _counts(f.metadata())
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118  safe_open is no mapping
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint ({error}); take another one or start anew") from None
    if digest is not None and digest != _digest(found, tensors):
        changed = "it was changed since it was written: its SHA-256 differs"
        raise ValueError(f"{path} cannot be read as a checkpoint ({changed}); take another one or start anew")
    return tensors, found


def _counts(metadata: dict[str, str] | None) -> tuple[Counts, str | None]:
    """What is in the head of a checkpoint: the counts, and the digest unless it is of an earlier version; ValueError for anything else."""
    about = parse((metadata or {}).get("byol", "null"))
    if not isinstance(about, dict) or "step" not in about:
        raise ValueError("it does not say after which step it was written")
    digest = about.pop("sha256", None)
    found = typed(Counts, about)
    if min(vars(found).values()) < 0 or not isinstance(digest, str | None):
        raise ValueError("it does not say after which step it was written")
    return found, digest


def _digest(counts: Counts, tensors: State) -> str:
    """SHA-256 of counts, names, types, shapes and numbers: whatever bit of a file changes, one of them does, or the file is none."""
    digest = hashlib.sha256(json.dumps(vars(counts)).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _put(path: Path, tensors: State, method: nn.Module, optimizer: torch.optim.Optimizer, views: nn.Module | None = None) -> None:
    """The tensors into a method and its optimiser; ValueError if they belong to another network."""
    try:
        method.load_state_dict({k.removeprefix("method/"): v for k, v in tensors.items() if k.startswith("method/")})
        if views is not None:
            views.load_state_dict({k.removeprefix("views/"): v for k, v in tensors.items() if k.startswith("views/")})
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to another network: {str(error).splitlines()[-1].strip()}") from None
    for name, parameter in method.named_parameters():
        prefix = f"optimizer/{name}/"
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if wrong := [k for k, v in found.items() if v.shape != parameter.shape and v.numel() != 1]:
            raise ValueError(f"{path} belongs to another network: {name} has a {wrong[0]} of another shape")
        if found:
            optimizer.state[parameter] = {k: _like(parameter, v) for k, v in found.items()}


def _states(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, object]]:
    return {name: optimizer.state[p] for name, p in method.named_parameters() if p in optimizer.state}


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """The value in the parameter's memory layout, since sums in another order end in other bits; counters stay as they are."""
    if value.shape != parameter.shape:
        return value
    return torch.zeros_like(parameter, dtype=value.dtype).copy_(value)
