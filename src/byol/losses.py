"""The regression loss of BYOL (Grill et al. 2020, eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor


def normalise(x: Tensor) -> Tensor:
    """(B, D) -> (B, D) rows of length 1; like the released code, epsilon sits inside the maximum of the squared norm."""
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True).clamp_min(1e-12))


def regression_loss(p: Tensor, z: Tensor) -> Tensor:
    """(B, D), (B, D) -> (): batch mean of 2 - 2 cos(p, z), eq. 2; no gradient reaches z.

    BYOL's loss is the *sum* of this over both directions, in 0 to 8; halving it would halve the effective learning
    rate of every parameter that LARS does not adapt.
    """
    return (2 - 2 * (normalise(p) * normalise(z.detach())).sum(dim=-1)).mean()
