"""Linear predictors in closed form, from second moments of a batch (Richemond et al. 2023, arXiv 2302.04817, section 4).

A predictor is a matrix P, (D, D), and its prediction Z P: rows are images. `sigma` is Z^T Z / B of the online projections, (D, D),
and `cross` Z^T Z' / B with the target's, (D, D); the papers' Z^T Z is this with rows over the root of the batch. Every function keeps
type and device and loops over nothing but iterations of its own; only `optimal` and `direct_pred` decompose, in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor


def optimal(sigma: Tensor, cross: Tensor) -> Tensor:
    """(Z^T Z)^-1 Z^T Z': the linear regression of the targets on the projections (Grill et al. 2020, appendix).

    Where fewer images or dead units leave directions without any variance, the least of all that fit as well.
    """
    inverse: Tensor = torch.linalg.pinv(sigma.double(), hermitian=True)
    return (inverse @ cross.double()).to(sigma.dtype)


def direct_pred(sigma: Tensor) -> Tensor:
    """(Z^T Z)^1/2 by its eigenvectors (DirectPred, Tian et al. 2021)."""
    values, vectors = torch.linalg.eigh(sigma.double())
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root.to(sigma.dtype)


def direct_copy(sigma: Tensor) -> Tensor:
    """Z^T Z (DirectCopy, Wang et al. 2021)."""
    return sigma


def neumann(sigma: Tensor, cross: Tensor) -> Tensor:
    """2 Z^T Z' - Z^T Z Z^T Z': two terms of the series of the inverse, which converges for eigenvalues in (0, 2)."""
    return 2 * cross - sigma @ cross


def visser(sigma: Tensor, *, n: int, eta: float | None) -> Tensor:
    """P <- P + eta (sigma - P^2), n times from I / (2 eta), towards the root of sigma.

    Every eigenvalue falls to its root while eta times the largest root is at most 1/2, which the Frobenius norm sees to where `eta`
    is none; above 1 it never gets there.
    Directions without variance fade like 1 / (eta n) only: what is left of the start acts like a ridge.
    """
    step = 0.5 / _norm(sigma).sqrt() if eta is None else sigma.new_tensor(eta)
    p = _identity(sigma) / (2 * step)
    for _ in range(n):
        p = p + step * (sigma - p @ p)
    return p


def newton_schulz(sigma: Tensor, *, n: int) -> tuple[Tensor, Tensor]:
    """(the root of sigma, the inverse root of sigma over its Frobenius norm), both after n coupled iterations.

    An iteration raises a small eigenvalue's part by 3/2 alone, so nine of them leave those below 1e-3 of the norm too small: the
    papers' n is a part of the method, not an error to be mended.
    """
    norm = _norm(sigma)
    a, b, three = sigma / norm, _identity(sigma), 3 * _identity(sigma)
    for _ in range(n):
        c = three - b @ a
        a, b = a @ c / 2, c @ b / 2
    return a * norm.sqrt(), b


def ns(sigma: Tensor, *, n: int) -> Tensor:
    """About (Z^T Z)^1/2, by products alone."""
    return newton_schulz(sigma, n=n)[0]


def ns2(sigma: Tensor, *, n: int) -> Tensor:
    """About (Z^T Z)^1/4: twice `ns`."""
    return ns(ns(sigma, n=n), n=n)


def stiefel(sigma: Tensor, *, n: int) -> Tensor:
    """About (S^T S)^-1/2 S^T for S = Z^T Z, the orthogonal factor of S, times a scale as published: B S^T / |B|, far below 1."""
    _, b = newton_schulz(sigma.T @ sigma, n=n)
    return b @ sigma.T / _norm(b)


def spectral_norm(p: Tensor) -> Tensor:
    """The largest singular value, (), from above: the 1024th power of P^T P says it to 0.2 % up to D = 4096, and nothing is decomposed."""
    power = p.T @ p
    log = power.new_zeros(())
    for squarings in range(11):
        norm = _norm(power)
        log = log + norm.log() / 2**squarings
        power = power / norm
        power = power @ power
    return (log / 2).exp()


def _identity(sigma: Tensor) -> Tensor:
    return torch.eye(len(sigma), dtype=sigma.dtype, device=sigma.device)


def _norm(m: Tensor) -> Tensor:
    """Frobenius; never 0, so that a batch of zeros gives zeros."""
    norm: Tensor = torch.linalg.matrix_norm(m)
    return norm.clamp_min(1e-30)
