"""What The Edge of Orthogonality proves of linear predictors, calculated in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from byol import methods, optim
from byol.methods.closed_form import Options, predictor
from byol.studies import Line

IMAGES, FEATURES = 400, 16  # of the random projections
SPECTRUM = np.logspace(0, -1, FEATURES)  # their scales, so that principal directions differ
NOISES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
INPUTS, WIDTH, VIEW_NOISE = 12, 8, 0.3  # of the linear network and its views
DECAY, TIME, RATES = 0.1, 15.0, (0.02, 0.01, 0.005)  # λ, updates times rate, and the steps


@dataclass(frozen=True)
class Exact:
    """Of one seed: every number is 0 where the claim holds exactly, but for `identity` and `fading`, which are curves."""

    projection: float  # relative
    loss: float  # relative
    identity: list[float]  # the distance of the optimal predictor to the identity over root of D, for every noise
    pca: list[float]  # the relative distance of the prediction of rank k = 1 .. D - 1 to that by k-PCA
    fading: list[Line]  # of every rate: |A A' - P' P| over time
    misses: list[float]  # of every rate: the greatest distance to its decay, over |A A' - P' P| at the start

    @classmethod
    def of(cls, rng: np.random.Generator) -> Exact:
        z = rng.standard_normal((IMAGES, FEATURES)) * SPECTRUM
        seed = int(rng.integers(2**31))  # the same start for all rates
        fading, misses = zip(*(balanced(rate, seed) for rate in RATES), strict=True)
        return cls(*projected(z, z + 0.3 * rng.standard_normal(z.shape)), to_identity(z, rng), to_pca(z), list(fading), list(misses))


def optimal(z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(N, D), (N, E) -> (D, E): the library's optimal linear predictor of the rows of t from those of z."""
    a, b = torch.from_numpy(z), torch.from_numpy(t)
    return predictor(Options(predictor="lrp"), a.T @ a / len(a), a.T @ b / len(a)).numpy()


def projected(z: np.ndarray, t: np.ndarray) -> tuple[float, float]:
    """How far prediction and loss are from the projection on the columns of z and what it leaves, relative."""
    q = np.linalg.qr(z)[0]
    inside = q @ (q.T @ t)
    prediction, outside = z @ optimal(z, t), np.square(t - inside).sum()
    off = float(np.linalg.norm(prediction - inside) / np.linalg.norm(inside))
    return off, abs(float(np.square(prediction - t).sum() / outside) - 1)


def to_identity(z: np.ndarray, rng: np.random.Generator) -> list[float]:
    """|P - I| over root of D with noise of its own for each of NOISES."""
    gaps = (optimal(z, z + noise * rng.standard_normal(z.shape)) - np.eye(z.shape[1]) for noise in NOISES)
    return [float(np.linalg.norm(gap) / math.sqrt(z.shape[1])) for gap in gaps]


def to_pca(z: np.ndarray, rounds: int = 400) -> list[float]:
    """For every k: least squares in turns for the two factors of a predictor of rank k, against the singular vectors of z."""
    u, s, vt = np.linalg.svd(z, full_matrices=False)
    gaps = []
    for k in range(1, z.shape[1]):
        first = np.eye(z.shape[1])[:, :k]
        for _ in range(rounds):
            second = optimal(z @ first, z)  # (k, D)
            first = optimal(z, z @ np.linalg.pinv(second))
        wanted = (u[:, :k] * s[:k]) @ vt[:k]
        gaps.append(float(np.linalg.norm(z @ first @ second - wanted) / np.linalg.norm(wanted)))
    return gaps


class _Inputs(nn.Module):
    """The encoder of a linear network: its inputs as they are, so that the projector, one layer, is A."""

    dim = INPUTS

    def forward(self, x: Tensor) -> Tensor:
        return x


def balanced(rate: float, seed: int) -> tuple[Line, float]:
    """|A Aᵀ - Pᵀ P| over time at this rate, and how far at most the matrix is from its decay, over its norm at the start.

    Views are noisy copies of the same inputs, the target the moving average of the encoder; time is the number of updates times the rate.
    """
    cls, draw = methods.load("closed_form"), torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = cls(_Inputs(), Options(dim=WIDTH, projector_layers=1, predictor="trainable")).double()
    encoder, head = method.projector[0].weight, method.predictor.weight
    optimizer = optim.make("sgd", method.param_groups(), lr=rate, weight_decay=DECAY, momentum=0.0, trust_coefficient=1.0)
    inputs = torch.randn(256, INPUTS, generator=draw, dtype=torch.float64)
    views = tuple(inputs + VIEW_NOISE * torch.randn(inputs.shape, generator=draw, dtype=torch.float64) for _ in range(2))

    def gap() -> Tensor:
        difference: Tensor = encoder @ encoder.T - head.T @ head
        return difference.detach()

    start, norms, misses = gap(), [], []
    for i in range(updates := round(TIME / rate)):
        now = gap()
        norms.append(float(now.norm() / start.norm()))
        misses.append(float((now - start * math.exp(-2 * DECAY * rate * i)).norm() / start.norm()))
        optimizer.zero_grad()
        method(views).loss.backward()
        optimizer.step()
        method.after_step(0.0)
    every = max(1, updates // 40)
    return Line(f"step {rate:g}", [rate * i for i in range(0, updates, every)], norms[::every]), max(misses)
