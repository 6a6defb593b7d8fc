"""Checkpoints: one safetensors file with everything needed to go on, written atomically; nothing in it can run."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from byol.files import atomic
from byol.stored import parse


def save(path: Path, *, step: int, method: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Weights, buffers and optimiser state after `step` finished updates; the previous file stays until this one is whole."""
    tensors = {f"method/{k}": v for k, v in method.state_dict().items()}
    for name, state in _states(method, optimizer).items():
        tensors |= {f"optimizer/{name}/{k}": v for k, v in state.items() if isinstance(v, Tensor)}
    # Safetensors stores contiguous tensors only, each with memory of its own, which tied weights do not have; loading copies
    # into the layout that training uses.
    stored = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    with atomic(path) as temporary:
        save_file(stored, temporary, metadata={"byol": json.dumps({"step": step})})


def restore(path: Path, *, method: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put a checkpoint back into a method and its optimiser, bit for bit; returns the number of finished updates.

    Raises ValueError if the file is damaged or belongs to another network.
    """
    try:
        with safe_open(path, framework="pt") as f:
            step = _step(f.metadata())
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118  safe_open is no mapping
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint ({error}); take another one or start anew") from None
    weights = {k.removeprefix("method/"): v for k, v in tensors.items() if k.startswith("method/")}
    try:
        method.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} belongs to another network: {str(error).splitlines()[-1].strip()}") from None
    for name, parameter in method.named_parameters():
        prefix = f"optimizer/{name}/"
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if wrong := [k for k, v in found.items() if v.shape != parameter.shape and v.numel() != 1]:
            raise ValueError(f"{path} belongs to another network: {name} has a {wrong[0]} of another shape")
        if found:
            optimizer.state[parameter] = {k: _like(parameter, v) for k, v in found.items()}
    return step


def _step(metadata: dict[str, str] | None) -> int:
    """The number of finished updates; ValueError if that is not what is stored."""
    about = parse((metadata or {}).get("byol", "null"))
    step = about.get("step") if isinstance(about, dict) else None
    if not isinstance(step, int) or not 0 <= step < 2**53:
        raise ValueError("it does not say after which step it was written")
    return step


def _states(method: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, object]]:
    return {name: optimizer.state[p] for name, p in method.named_parameters() if p in optimizer.state}


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """The value in the parameter's memory layout, since sums in another order end in other bits; counters stay as they are."""
    if value.shape != parameter.shape:
        return value
    return torch.zeros_like(parameter, dtype=value.dtype).copy_(value)
