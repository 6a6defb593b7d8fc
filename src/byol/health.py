"""Is training healthy? Measured on projections alone, so no labels are needed and any method can be asked.

The numbers are those of methods that watch for collapse: the spread of normalised projections against 1/sqrt(d)
(Chen & He 2020), the effective rank (Roy & Vetterli 2007), and the cosines of positive and negative pairs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from byol.losses import normalise

Verdict = Literal["OK", "WARN", "COLLAPSED"]

# Collapsed: every image gets nearly the same direction. Fitted on some twenty small runs (digits and CIFAR, SGD): healthy ones
# stayed above 0.5 and above two thirds of their own first measurement; doomed ones fall through both lines early, those with a
# slow warm-up through the second first.
SPREAD_COLLAPSED = 0.1
SPREAD_FALLING, SPREAD_KEPT = 0.3, 0.35
SPREAD_WARN = 0.25
# One dimension only is collapse too (dimensional collapse); a handful is a reason to look.
RANK_COLLAPSED = 1.2
RANK_WARN = 2.0


@dataclass(frozen=True)
class Measurement:
    """What one batch of projections tells."""

    spread: float  # std of normalised projections per dimension times sqrt(d): 1 is isotropic, 0 is one point
    rank: float  # effective rank, exp of the entropy of the covariance's eigenvalues; at most min(batch - 1, d)
    positive_cosine: float  # mean over pairs of views of one image
    negative_cosine: float  # mean over pairs of different images
    dim: int
    batch: int


@torch.no_grad()
def measure(projections: tuple[Tensor, ...]) -> Measurement:
    """One (B, D) per view -> the measurement; one read from the device."""
    z = torch.stack([normalise(p.float()) for p in projections])
    views, batch, dim = z.shape
    first = z[0] - z[0].mean(dim=0)
    spread = first.square().mean(dim=0).sqrt().mean() * math.sqrt(dim)
    # The Gram matrix has the covariance's eigenvalues and is the smaller of the two as a rule.
    gram = first @ first.T if batch <= dim else first.T @ first
    total = z.sum(dim=1)
    negative = (total.square().sum(dim=-1) - batch).mean() / (batch * (batch - 1))
    pairs = [(z[i] * z[j]).sum(dim=-1).mean() for i in range(views) for j in range(i)]
    positive = torch.stack(pairs).mean() if pairs else torch.full_like(spread, math.nan)
    trace = gram.diagonal().sum()
    values = torch.stack([spread, positive, negative, trace]).cpu()
    rank = _effective_rank(gram.cpu().double()) if bool(values.isfinite()[[0, 3]].all()) else math.nan
    return Measurement(float(values[0]), rank, float(values[1]), float(values[2]), dim, batch)


def _effective_rank(gram: Tensor) -> float:
    eigenvalues = torch.linalg.eigvalsh(gram).clamp_min(0)
    if float(eigenvalues.sum()) <= 1e-12:
        return 1.0
    p = eigenvalues / eigenvalues.sum()
    return float(torch.exp(-(p * (p + 1e-300).log()).sum()))


def verdict(
    m: Measurement,
    *,
    step: int,
    warmup: int,
    lr: float,
    first_spread: float = 0.0,
    non_finite: int = 0,
    risks: Mapping[str, str] | None = None,
    options: Collection[str] = (),
    directions: bool = True,
) -> tuple[Verdict, str]:
    """The verdict on a measurement, the reason and what to try; before `warmup` ends it says only what is certain.

    `first_spread` is the run's first measurement, 0 where it is not known; `risks` are those of the method (see `Method.risks`),
    `options` the names of what can be set of it: nothing else is advised.
    `directions` is False of a method that is meant to use few of them: then only the spread tells.
    """
    ceiling = min(m.batch - 1, m.dim)
    if not math.isfinite(m.spread):
        return "COLLAPSED", f"the projections are no longer finite numbers; lower the rate (lr is {lr:.3g} now) or use --precision fp32"
    if m.spread < SPREAD_COLLAPSED or m.spread < min(SPREAD_FALLING, SPREAD_KEPT * first_spread):
        what = f"every image gets nearly the same projection (spread {m.spread:.2f} of 1.00, rank {m.rank:.0f} of {ceiling})"
        return "COLLAPSED", what + "; " + _advice(lr, risks or {}, options)
    if directions and m.rank < RANK_COLLAPSED and ceiling > 4:
        what = f"the projections lie on one line (rank {m.rank:.1f} of {ceiling}, spread {m.spread:.2f})"
        return "COLLAPSED", what + "; " + _advice(lr, risks or {}, options)
    if non_finite:
        return "WARN", f"{non_finite} updates had a loss or gradient that was not finite and were left out; lower lr if this goes on"
    if step >= warmup and m.spread < SPREAD_WARN:
        return "WARN", f"projections bunch together (spread {m.spread:.2f} of 1.00); " + _advice(lr, risks or {}, options)
    if directions and step >= warmup and m.rank < min(RANK_WARN, ceiling / 2):
        return "WARN", f"projections use few directions (rank {m.rank:.1f} of {ceiling}); " + _advice(lr, risks or {}, options)
    return "OK", ""


_TRY = {"tau_base": "tau_base nearer to 1", "predictor": "a predictor", "head_norm": "heads with batch norm"}


def _advice(lr: float, risks: Mapping[str, str], options: Collection[str]) -> str:
    if risks:
        return "likely cause: " + "; ".join(f"{what} (try --set {setting})" for what, setting in risks.items())
    return ", ".join(
        [f"try a lower rate (lr is {lr:.3g} now)", "a larger batch", *(what for name, what in _TRY.items() if name in options)]
    )
