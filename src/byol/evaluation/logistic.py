"""Logistic regression with an l2 penalty, multinomial or one-vs-rest: many strengths solved together.

The problem is  min_W,b  sum_i CE(softmax(W'x_i + b), y_i) + l2/2 |W|^2  on standardised features, the bias unpenalised:
scikit-learn's with C = 1 / l2. Features of a network are strongly correlated, and L-BFGS needs hundreds of steps on
them; in the coordinates of their principal axes, each scaled by 1 / sqrt(variance / classes + l2 / n), it needs tens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import softplus

from byol.evaluation.lbfgs import minimise

_ENOUGH = 16  # samples per feature that the principal axes are taken from
_CPU_ROWS = 2048  # samples at a time: what is computed of them stays in the cache, which saves a sixth
_BYTES = 1 << 29  # of the logits that are held at a time


@dataclass(frozen=True, eq=False)
class Axes:
    """The standardised training features, their principal axes, and the way there for others."""

    mean: Tensor  # (D,)
    std: Tensor  # (D,), 1 where a feature is constant
    span: Tensor | None  # (D, r) orthonormal, spans all training samples; None where r = D
    basis: Tensor  # (r, r) orthonormal: the axes, one a column
    variance: Tensor  # (r,) along each axis
    z: Tensor  # (n, r) the training set

    def project(self, x: Tensor) -> Tensor:
        """(m, D) raw features -> (m, r)."""
        s = (x - self.mean).div_(self.std)
        return s if self.span is None else s @ self.span

    def rows(self, ids: Tensor) -> Axes:
        """The same axes with some of the training set."""
        return replace(self, z=self.z[ids])


@dataclass(frozen=True, eq=False)
class Fit:
    """P solved problems."""

    weight: Tensor  # (P, C, r)
    bias: Tensor  # (P, C)
    iterations: int
    converged: Tensor  # (P,) bool

    def repeated(self, i: int, count: int) -> Fit:
        """The solution of one problem, so many times."""
        ids = torch.full((count,), i % len(self.bias), device=self.bias.device)
        return Fit(self.weight[ids], self.bias[ids], self.iterations, self.converged[ids])

    def logits(self, z: Tensor) -> Tensor:
        """(m, r) projected features -> (P, m, C)."""
        return (z @ self.weight.flatten(0, 1).T).view(len(z), *self.bias.shape).transpose(0, 1) + self.bias[:, None]


def axes(x: Tensor, *, standardise: bool = True) -> Axes:
    """(n, D) training features -> their principal axes; with fewer samples than features only the n that matter."""
    mean = x.mean(0)
    s = x - mean
    std = torch.ones_like(mean)
    if standardise:
        std = (torch.stack([part.square().sum(0) for part in torch.split(s, _CPU_ROWS)]).sum(0) / len(s)).sqrt()
        std = torch.where(std > 1e-6 * mean.abs().clamp_min(1e-6), std, 1)
        s.div_(std)
    if len(s) >= s.shape[1]:
        # Axes of a part serve as well: they set the units that L-BFGS works in, and not where the minimum is.
        part = s[:: max(1, len(s) // (_ENOUGH * s.shape[1]))]
        variance, basis = torch.linalg.eigh(part.T @ part / len(part))
        return Axes(mean, std, None, basis, variance.clamp_min(0), s)
    # float64, because dividing by a small singular value magnifies the rounding of the Gram matrix.
    wide = s.double()
    variance, left = torch.linalg.eigh(wide @ wide.T / len(s))
    kept = variance > 1e-10 * variance[-1].clamp_min(1e-30)
    variance, left = variance[kept], left[:, kept]
    span = (wide.T @ left / (len(s) * variance).sqrt()).to(x.dtype)
    return Axes(mean, std, span, torch.eye(len(variance)).to(span), variance.to(x.dtype), s @ span)


def fit(design: Axes, y: Tensor, *, classes: int, l2: Tensor, tolerance: float = 3e-5, limit: int = 500, start: Fit | None = None) -> Fit:
    """(n,) labels, (P,) strengths -> the P minima; (n, C) labels of 1, 0 and -1 (not counted): one binary regression for each class.

    `tolerance` is of the gradient of the mean over samples, in the coordinates above; the default leaves the value within some
    1e-8 of the minimum. `start` is another solution of as many problems to begin at, in the same axes.
    """
    z, basis, problems, (n, r) = design.z, design.basis, len(l2), design.z.shape
    l2 = l2[:, None, None] / n
    # At W = 0 the Hessian is 1/C times the covariance, 1/4 of it for two classes: these units make it nearly the identity.
    flat, entropy = (classes, _entropy) if y.ndim == 1 else (4, _binary_entropy)
    units = (design.variance / flat + l2 + torch.finfo(z.dtype).eps).rsqrt()  # (P, 1, r)
    bias_unit = flat**0.5
    rows = max(1, _BYTES // (z.element_size() * problems * classes))
    rows = min(rows, _CPU_ROWS) if z.device.type == "cpu" else rows
    parts = list(zip(torch.split(z, rows), torch.split(y, rows), strict=True))

    def weights(v: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        v = v.view(len(ids), classes, r + 1)
        return (v[..., :-1] * units[ids]) @ basis.T, v[..., -1:] * bias_unit

    def objective(v: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        w, b = weights(v, ids)
        value, w_grad, b_grad = entropy(w, b, parts)
        grad = torch.cat([(w_grad / n + l2[ids] * w) @ basis * units[ids], b_grad * (bias_unit / n)], 2)
        return (value / n).to(v.dtype) + 0.5 * (l2[ids] * w * w).sum((1, 2)), grad.flatten(1)

    at = z.new_zeros(problems, classes, r + 1)
    if start is not None:
        at = torch.cat([start.weight @ basis / units, start.bias[..., None] / bias_unit], 2)
    found = minimise(objective, at.flatten(1), tolerance=tolerance, limit=limit)
    weight, bias = weights(found.x, torch.arange(problems, device=z.device))
    return Fit(weight, bias[..., 0], found.iterations, found.converged)


def _entropy(w: Tensor, b: Tensor, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """(Q, C, r), (Q, C, 1), samples and labels in parts -> the summed cross-entropy, (Q,) float64, and its gradients."""
    value = w.new_zeros(len(w), dtype=torch.float64)
    w_grad, b_grad = torch.zeros_like(w), torch.zeros_like(b)
    for z, y in parts:
        # Samples come last: both products read z as it lies, and the softmax adds whole rows. The other way takes four times as long.
        log_p = (w.flatten(0, 1) @ z.T).view(*b.shape[:2], len(z)).add_(b).log_softmax(1)
        label = y.expand(len(w), 1, -1)
        own = log_p.gather(1, label)
        value -= own.sum((1, 2))
        residual = log_p.exp_().scatter_(1, label, own.expm1())  # (Q, C, samples)
        w_grad.view(-1, w.shape[2]).addmm_(residual.flatten(0, 1), z)
        b_grad += residual.sum(2, keepdim=True)
    return value, w_grad, b_grad


def _binary_entropy(w: Tensor, b: Tensor, parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """The same of C independent regressions, whose labels (samples, C) are 1, 0, and -1 where a class is not counted."""
    value = w.new_zeros(len(w), dtype=torch.float64)
    w_grad, b_grad = torch.zeros_like(w), torch.zeros_like(b)
    for z, y in parts:
        logit = (w.flatten(0, 1) @ z.T).view(*b.shape[:2], len(z)).add_(b)
        known, label = (y >= 0).T, y.T.to(logit)
        value += (softplus(logit) - label * logit).where(known, 0).sum((1, 2), dtype=torch.float64)
        residual = (logit.sigmoid() - label).where(known, 0)
        w_grad.view(-1, w.shape[2]).addmm_(residual.flatten(0, 1), z)
        b_grad += residual.sum(2, keepdim=True)
    return value, w_grad, b_grad
