"""What methods draw at every pass: the same on any device and for any number of processes, and again the same after a resume."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from byol import dist, rng


def words(rows: int, k: int, device: torch.device) -> Tensor:
    """(rows, k) random 32-bit words, int64: this process's part of those of all, on any device and for any number of processes the same.

    They follow from torch's generator on the CPU, which has to stand alike in all processes.
    """
    seed = int(torch.randint(2**62, (), device="cpu"))
    places = dist.rank() * rows + torch.arange(rows, device=device)
    return rng.words(seed, 0, rng.STREAM_METHOD, places, k)


def uniforms(rows: int, k: int, device: torch.device) -> Tensor:
    """(rows, k) float32 in [0, 1), drawn as `words` are."""
    return (words(rows, k, device) >> 8).to(torch.float32) * 2.0**-24


def normals(rows: int, k: int, device: torch.device) -> Tensor:
    """(rows, k) float32 of a standard normal distribution, drawn as `words` are (Box & Muller 1958)."""
    u, v = uniforms(rows, k + k % 2, device).view(rows, -1, 2).unbind(2)
    radius, angle = (-2 * (1 - u).log()).sqrt(), 2 * math.pi * v  # 1 - u is above 0, u may be 0
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 2).flatten(1)[:, :k]
