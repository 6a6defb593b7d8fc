"""Rigid motions between clouds of points: correspondences by features, weighted Procrustes, errors of a pose.

A motion (R, t) takes a point p to R p + t. The geometry is that of BYOC (El Banani & Johnson 2021, arXiv 2106.00677).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_BLOCK = 1 << 24  # similarities held at a time: 64 MiB, so that clouds of any size can be matched
_EPSILON = 1e-9  # weight in all, and share of the largest singular value, below which points say nothing of a motion


def matches(f0: Tensor, f1: Tensor, *, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """(n, d), (m, d), l2-normalised -> rows i of f0, rows j of f1, weights w in [0, 1]: up to 2 `keep` of each, best first by direction.

    Each row's nearest in the other cloud, in both directions, and of each direction the `keep` of greatest weight w = 1 - d1 / d2
    (Lowe's ratio), where d = 1 - cos to the nearest and to the second nearest; 0 where both are the same, or there is no second.
    Gradients reach f0 and f1 through w.
    """
    i, j, w = _one_way(f0, f1, keep)
    back_j, back_i, back_w = _one_way(f1, f0, keep)
    return torch.cat([i, back_i]), torch.cat([j, back_j]), torch.cat([w, back_w])


def _one_way(f: Tensor, g: Tensor, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """(n, d), (m, d) -> (k,) rows of f, (k,) their nearest rows of g, (k,) weights; k at most `keep`, none where either is empty."""
    with torch.no_grad():
        near = nearest(f, g, k=2)
        if near.numel() == 0:
            near = near.new_zeros(0, 1)
        rows = _ratio(f[: len(near)], g, near).topk(min(keep, len(near))).indices
    return rows, near[rows, 0], _ratio(f[rows], g, near[rows])


def nearest(f: Tensor, g: Tensor, *, k: int) -> Tensor:
    """(n, d), (m, d) -> (n, min(k, m)) int64: rows of g of greatest dot product, best first; a block of f at a time."""
    k = min(k, len(g))
    if k == 0 or len(f) == 0:
        return torch.zeros(len(f), k, dtype=torch.int64, device=f.device)
    # Never in half precision, where neighbours could not be told apart.
    with torch.autocast(f.device.type, enabled=False):
        rows = max(1, _BLOCK // len(g))
        return torch.cat([(f[at : at + rows] @ g.T).topk(k, dim=1).indices for at in range(0, len(f), rows)])


def _ratio(f: Tensor, g: Tensor, near: Tensor) -> Tensor:
    """(n, d), (m, d), (n, 1 or 2) -> (n,) weights 1 - d1 / d2."""
    if near.shape[1] < 2:
        return 0 * (f * g[near[:, 0]]).sum(-1)
    # Of rows of length 1, 1 - cos is half the squared distance, which is exact where the rows are nearly the same.
    d1, d2 = ((f - g[near[:, k]]).square().sum(-1) / 2 for k in (0, 1))
    told = d2 > 1e-12
    return torch.where(told, 1 - d1 / d2.where(told, torch.ones_like(d2)), 0 * d1).clamp(0, 1)


def procrustes(p: Tensor, q: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """(..., n, 3), (..., n, 3), (..., n) of 0 or more -> R (..., 3, 3), t (..., 3), float64: the motion of least sum w |R p + t - q|^2.

    R is a rotation, never a reflection. Where the points do not say it (fewer than three, all on one line, or without weight) it is
    the identity, and t what is between the centroids, or 0. Gradients reach all three, and are 0 through a rotation that is not said.
    """
    p, q, w = p.double(), q.double(), w.double()
    total = w.sum(-1, keepdim=True)
    some = total > _EPSILON
    w = torch.where(some, w / total.where(some, torch.ones_like(total)), 0 * w)[..., None]
    p_mean, q_mean = (w * p).sum(-2), (w * q).sum(-2)
    cross = (w * (q - q_mean[..., None, :])).mT @ (p - p_mean[..., None, :])
    R: Tensor = _Rotation.apply(cross)
    return R, q_mean - (R @ p_mean[..., None])[..., 0]


class _Rotation(torch.autograd.Function):
    """(..., 3, 3) M -> the rotation R of greatest tr(R^T M), or the identity where M has fewer than two directions.

    The gradient is that of R itself. Through the factors of the SVD it would hold 1 / (s_i - s_j), which has no bounds where the points
    are spread alike in two directions, though R turns smoothly there. R's own holds 1 / (s_i + s_j) alone, with s_3 < 0 where
    a reflection would fit better; a pair that sums to 0 is a turn that the points do not say, and has no gradient.
    """

    @staticmethod
    def forward(ctx: Any, cross: Tensor) -> Tensor:
        A, s, Bt = torch.linalg.svd(cross)
        sign = torch.ones_like(s)
        sign[..., 2] = torch.where(torch.linalg.det(A @ Bt) < 0, -1.0, 1.0)
        told = (s[..., 1] > _EPSILON * s[..., 0])[..., None, None]
        R = torch.where(told, (A * sign[..., None, :]) @ Bt, torch.eye(3, dtype=s.dtype, device=s.device))
        ctx.save_for_backward(R, s * sign, Bt, told)
        return R

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        R, s, Bt, told = ctx.saved_tensors
        # dR = R B W B^T with W_ij = (K_ij - K_ji) / (s_i + s_j) and K = B^T R^T dM B.
        C = Bt @ R.mT @ grad @ Bt.mT
        sums = s[..., :, None] + s[..., None, :]
        possible = told & (sums > _EPSILON * s[..., :1, None])
        Y = torch.where(possible, (C - C.mT) / sums.where(possible, torch.ones_like(sums)), 0.0)
        back: Tensor = R @ Bt.mT @ Y @ Bt
        return back


def weighted_mean(x: Tensor, w: Tensor) -> Tensor:
    """(n,), (n,) of 0 or more -> (): sum w x / sum w, and 0 where there is no weight."""
    total = w.sum()
    some = total > _EPSILON
    return torch.where(some, (w * x).sum() / total.where(some, torch.ones_like(total)), 0 * (w * x).sum())


def move(R: Tensor, t: Tensor, p: Tensor) -> Tensor:
    """(..., 3, 3), (..., 3), (..., n, 3) -> (..., n, 3): R p + t, in the type of p."""
    return p @ R.mT.to(p.dtype) + t[..., None, :].to(p.dtype)


def residuals(R: Tensor, t: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """(..., 3, 3), (..., 3), (..., n, 3), (..., n, 3) -> (..., n): the distances |R p + t - q|; no gradient where one is 0."""
    apart = (move(R, t, p) - q).square().sum(-1)
    there = apart > 0
    return torch.where(there, apart.where(there, torch.ones_like(apart)).sqrt(), 0 * apart)


def fit_by_subsets(p: Tensor, q: Tensor, w: Tensor, *, subsets: int, share: float, u: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 3), (n, 3), (n,) -> R, t: of fits to so many random shares of the matches, that of least mean w |R p + t - q| over all of them.

    u (subsets, n or more), uniform in [0, 1), draws: a subset has the matches of its smallest numbers, three at least.
    """
    n = len(p)
    if u.shape[0] != subsets or u.shape[1] < n:
        raise ValueError(f"{subsets} subsets of {n} matches need as many draws, not {tuple(u.shape)}; give u (subsets, n)")
    size = min(n, max(3, math.ceil(share * n)))
    rows = u[:, :n].argsort(dim=1)[:, :size].to(p.device)
    R, t = procrustes(p[rows], q[rows], w[rows])
    errors = (w.double() * residuals(R, t, p.double(), q.double())).sum(-1)
    best = errors.argmin()
    return R[best], t[best]


def rotation_about(axis: Tensor, angle: Tensor) -> Tensor:
    """(..., 3) of length 1, (...,) radians -> (..., 3, 3) the rotation about it."""
    x, y, z = axis.unbind(-1)
    o = torch.zeros_like(x)
    K = torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).view(*x.shape, 3, 3)
    angle = angle[..., None, None]
    return torch.eye(3, dtype=axis.dtype, device=axis.device) + angle.sin() * K + (1 - angle.cos()) * (K @ K)


def directions(u: Tensor) -> Tensor:
    """(..., 2) uniform in [0, 1) -> (..., 3) of length 1, uniform over the sphere."""
    z, turn = 2 * u[..., 0] - 1, 2 * math.pi * u[..., 1]
    flat = (1 - z.square()).clamp_min(0).sqrt()
    return torch.stack([flat * turn.cos(), flat * turn.sin(), z], -1)


def between(pose0: Tensor, pose1: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 4, 4) each, camera to world -> R (..., 3, 3), t (..., 3): the motion that takes points of camera 0 to those of camera 1."""
    back = pose1[..., :3, :3].mT
    return back @ pose0[..., :3, :3], (back @ (pose0[..., :3, 3:] - pose1[..., :3, 3:]))[..., 0]


def rotation_error(R: Tensor, true: Tensor) -> Tensor:
    """(..., 3, 3), (..., 3, 3) -> (...,) degrees in [0, 180]: arccos((tr(R^T true) - 1) / 2), by the sine too: exact near 0."""
    D = R.mT @ true
    sine = torch.stack([D[..., 2, 1] - D[..., 1, 2], D[..., 0, 2] - D[..., 2, 0], D[..., 1, 0] - D[..., 0, 1]], -1).norm(dim=-1)
    return torch.rad2deg(torch.atan2(sine, D.diagonal(dim1=-2, dim2=-1).sum(-1) - 1))


def translation_error(t: Tensor, true: Tensor) -> Tensor:
    """(..., 3), (..., 3) -> (...,): the distance, in the unit of both."""
    distance: Tensor = (t - true).norm(dim=-1)
    return distance
