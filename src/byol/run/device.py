"""The device, and what pays on it: half precision, another layout of memory."""

from __future__ import annotations

import math
import time

import torch
from torch import nn

from byol import recipes
from byol.training import autocast


def find_device(asked: str) -> str:
    """The device asked for, or the best there is; ValueError if it is not here."""
    found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if asked == "auto":
        return found
    if asked not in ("cpu", found):
        raise ValueError(f"--device {asked}: there is none here; pass --device {found}, or leave it out")
    return asked


def gains(device: str, precision: str = "auto") -> tuple[float, float]:
    """How many times faster a small convolutional step is here in bf16 than in fp32, and then with the channels last than first.

    1.0 where bf16 is not to be had or not asked for. Each is the best of six, in turns.
    """
    has_bf16 = device == "cpu" or (device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False))
    kinds = {"fp32": {False}, "bf16": {True}}.get(precision, {False, has_bf16})
    times = {(b, last): math.inf for b in sorted(kinds) for last in (True, False)}
    for _ in range(6):
        for b, last in times:
            times[b, last] = min(times[b, last], _small_step(device, bf16=b, channels_last=last))
    gain = times[False, True] / times[True, True] if len(kinds) == 2 else 1.0
    best = precision == "bf16" or gain >= recipes.PAYS
    return gain, times[best, False] / times[best, True]


def _small_step(device: str, *, bf16: bool, channels_last: bool) -> float:
    """Seconds of a forward and backward pass of two convolutions."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    batch, size = (32, 16) if device == "cpu" else (256, 32)
    net = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
    net = net.to(device, memory_format=layout)  # type: ignore[call-overload]
    x = torch.ones(batch, 32, size, size, device=device)
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(torch.device(device).type, lambda: None)
    # On a CPU not the clock: other programs on the cores would decide.
    clock = time.thread_time if device == "cpu" else time.perf_counter
    wait()
    began = clock()
    with autocast(device, "bf16" if bf16 else "fp32"):
        loss = net(x).float().sum()
    loss.backward()
    wait()
    return clock() - began
