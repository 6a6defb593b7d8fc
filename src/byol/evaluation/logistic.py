"""Multinomial logistic regression with an l2 penalty: many strengths and training subsets solved together.

The problem is  min_W,b  sum_i CE(softmax(W'x_i + b), y_i) + l2/2 |W|^2  on standardised features, the bias unpenalised:
scikit-learn's with C = 1 / l2. Features of a network are strongly correlated, and L-BFGS needs hundreds of steps on
them; in the coordinates of their principal axes, each scaled by 1 / sqrt(variance / classes + l2 / n), it needs tens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from byol.evaluation.lbfgs import minimise


@dataclass(frozen=True, eq=False)
class Axes:
    """The training features in principal axes, and the way there for others."""

    mean: Tensor  # (D,)
    std: Tensor  # (D,), 1 where a feature is constant
    basis: Tensor  # (D, r) orthonormal; spans all training samples
    variance: Tensor  # (r,) of the training set along each axis
    z: Tensor  # (n, r) the training set

    def project(self, x: Tensor) -> Tensor:
        """(m, D) raw features -> (m, r)."""
        return (x - self.mean) / self.std @ self.basis


@dataclass(frozen=True, eq=False)
class Fit:
    """P solved problems."""

    weight: Tensor  # (P, r, C), along the axes
    bias: Tensor  # (P, C)
    iterations: int
    converged: Tensor  # (P,) bool

    def logits(self, z: Tensor) -> Tensor:
        """(m, r) projected features -> (P, m, C)."""
        return z @ self.weight + self.bias[:, None]


def axes(x: Tensor) -> Axes:
    """(n, D) training features -> their principal axes; with fewer samples than features only the n that matter."""
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs().clamp_min(1e-6), std, 1)
    s = (x - mean) / std
    if len(s) >= s.shape[1]:
        variance, basis = torch.linalg.eigh(s.T @ s / len(s))
    else:
        # float64, because dividing by a small singular value magnifies the rounding of the Gram matrix.
        wide = s.double()
        variance, left = torch.linalg.eigh(wide @ wide.T / len(s))
        kept = variance > 1e-10 * variance[-1].clamp_min(1e-30)
        variance, left = variance[kept], left[:, kept]
        basis = (wide.T @ left / (len(s) * variance).sqrt()).to(x.dtype)
    return Axes(mean, std, basis, variance.to(x.dtype).clamp_min(0), s @ basis)


def fit(design: Axes, y: Tensor, *, classes: int, l2: Tensor, used: Tensor | None = None, tolerance: float = 1e-5, limit: int = 500) -> Fit:
    """(n,) labels, (P,) strengths, (P, n) bool which samples train (None: all) -> the P minima.

    `tolerance` is of the gradient of the mean over samples, in the coordinates above.
    """
    problems, (n, r) = len(l2), design.z.shape
    counted = design.z.new_ones(problems, n) if used is None else used.to(design.z.dtype)
    share = (counted / counted.sum(1, keepdim=True)).T  # (n, P)
    l2 = l2 / counted.sum(1)
    z = torch.cat([design.z, torch.ones_like(design.z[:, :1])], 1)
    target = one_hot(y, classes).to(z.dtype)[:, None]  # (n, 1, C)
    penalty = torch.cat([l2[:, None].expand(problems, r), l2.new_zeros(problems, 1)], 1)[:, :, None]
    # At W = 0 the Hessian is 1/C times the covariance: these units make it nearly the identity.
    scale = ((torch.cat([design.variance, l2.new_ones(1)])[:, None] / classes + penalty) + torch.finfo(z.dtype).eps).rsqrt()

    def objective(v: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        q = len(ids)
        w = v.view(q, r + 1, classes) * scale[ids]
        log_p = (z @ w.transpose(0, 1).flatten(1)).view(n, q, classes).log_softmax(2)
        value = -((log_p * target).sum(2) * share[:, ids]).sum(0) + 0.5 * (penalty[ids] * w * w).sum((1, 2))
        residual = log_p.exp_().sub_(target).mul_(share[:, ids, None]).flatten(1)  # (n, Q C)
        grad = (z.T @ residual).view(r + 1, q, classes).transpose(0, 1) + penalty[ids] * w
        return value, (grad * scale[ids]).flatten(1)

    found = minimise(objective, z.new_zeros(problems, (r + 1) * classes), tolerance=tolerance, limit=limit)
    w = found.x.view(problems, r + 1, classes) * scale
    return Fit(w[:, :-1], w[:, -1], found.iterations, found.converged)
