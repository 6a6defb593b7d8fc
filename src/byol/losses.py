"""The regression loss of BYOL (Grill et al. 2020, eq. 2) and the general objective of its ablations, which leads from it to InfoNCE."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from byol import dist


def normalise(x: Tensor) -> Tensor:
    """(B, D) -> (B, D) rows of length 1; like the released code, epsilon sits inside the maximum of the squared norm."""
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True).clamp_min(1e-12))


def regression_loss(p: Tensor, z: Tensor) -> Tensor:
    """(B, D), (B, D) -> (): batch mean of 2 - 2 cos(p, z), eq. 2; no gradient reaches z.

    BYOL's loss is the *sum* of this over both directions, in 0 to 8; halving it would halve the effective learning
    rate of every parameter that LARS does not adapt.
    """
    return cosine_loss(p, z.detach())


def objective(p: tuple[Tensor, Tensor], z: tuple[Tensor, Tensor], *, alpha: float, beta: float) -> Tensor:
    """Predictions and targets of both views, (B, D) each -> (): the negative of the paper's J with temperature alpha, both directions.

    beta 0 is BYOL's loss. beta 1 is 2 alpha times InfoNCE with the other 2B - 2 as negatives (SimCLR's NT-Xent summed over both
    directions), plus 4. Gradients reach the targets unless they are detached. Negatives come from all processes.
    """
    loss = cosine_loss(p[0], z[1]) + cosine_loss(p[1], z[0])
    if beta == 0:
        return loss
    every = (dist.gather(z[0]), dist.gather(z[1]))
    return loss + beta * (repulsion(p[0], every[0], every[1], alpha) + repulsion(p[1], every[1], every[0], alpha))


def cosine_loss(p: Tensor, z: Tensor) -> Tensor:
    """(B, D), (B, D) -> (): as `regression_loss`, and gradients reach z."""
    return (2 - 2 * (normalise(p) * normalise(z)).sum(dim=-1)).mean()


def repulsion(p: Tensor, same: Tensor, other: Tensor, alpha: float) -> Tensor:
    """(b, D) predictions; (B, D) targets of the same and of the other view, of all processes -> ().

    2 alpha times the mean over i of ln( sum over j != i of exp(S(v_i, v_j) / alpha) + sum over all j of exp(S(v_i, v'_j) / alpha) ).
    """
    p = normalise(p)
    with_same = products(p, normalise(same)) / alpha
    own = dist.rank() * len(p) + torch.arange(len(p), device=p.device)
    with_same = with_same.masked_fill(own[:, None] == torch.arange(len(same), device=p.device), -torch.inf)
    logits = torch.cat([with_same, products(p, normalise(other)) / alpha], dim=1)
    return 2 * alpha * logits.logsumexp(dim=1).mean()


def products(a: Tensor, b: Tensor) -> Tensor:
    """(A, D), (B, D) -> (A, B): all inner products, also under autocast in the precision that a and b have."""
    with nullcontext() if a.is_meta else torch.autocast(a.device.type, enabled=False):
        return a @ b.T


def squared_distance(p: Tensor, z: Tensor) -> Tensor:
    """(B, D), (B, D) -> (): the batch mean of |p - z|^2."""
    return (p - z).square().sum(dim=-1).mean()
