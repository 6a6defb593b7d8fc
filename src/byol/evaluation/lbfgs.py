"""Many smooth minimisations at once by L-BFGS (Nocedal and Wright 2006, algorithm 7.4), each with its own line search."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]  # (P, M) points -> (P,) values, (P, M) gradients
Pair = tuple[Tensor, Tensor, Tensor]  # step s (P, M), change of the gradient y (P, M), 1 / s.y (P,)

_HALVINGS = 25
_ARMIJO = 1e-4


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the minimisations ended."""

    x: Tensor  # (P, M)
    value: Tensor  # (P,)
    iterations: int
    converged: Tensor  # (P,) bool: the gradient's norm reached the tolerance


def minimise(objective: Objective, x: Tensor, *, tolerance: float, limit: int, memory: int = 10) -> Minimum:
    """(P, M) starts -> the minima of P independent problems; stops where the gradient's norm is at most `tolerance`.

    A problem that is done, or that rounding keeps from getting lower, stands still while the others go on.
    """
    value, grad = objective(x)
    pairs: deque[Pair] = deque(maxlen=memory)
    stuck = torch.zeros_like(value, dtype=torch.bool)
    iterations = 0
    while iterations < limit:
        done = (grad.norm(dim=1) <= tolerance) | stuck
        if bool(done.all()):
            break
        direction = _direction(grad, pairs).masked_fill(done[:, None], 0)
        new_x, new_value, new_grad, failed = _line_search(objective, x, value, grad, direction)
        pairs.append(_pair(new_x - x, new_grad - grad))
        x, value, grad, stuck = new_x, new_value, new_grad, stuck | failed
        iterations += 1
    return Minimum(x, value, iterations, grad.norm(dim=1) <= tolerance)


def _direction(grad: Tensor, pairs: deque[Pair]) -> Tensor:
    """The two-loop recursion: minus the approximate inverse Hessian times the gradient; downhill in any case."""
    q, alphas = grad.clone(), []
    for s, y, rho in reversed(pairs):
        alphas.append(rho * (s * q).sum(1))
        q -= alphas[-1][:, None] * y
    if pairs:
        s, y, rho = pairs[-1]
        q *= torch.where(rho > 0, (s * y).sum(1) / (y * y).sum(1).clamp_min(1e-30), 1)[:, None]
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q += (alpha - rho * (y * q).sum(1))[:, None] * s
    return -torch.where(((q * grad).sum(1) > 0)[:, None], q, grad)


def _pair(s: Tensor, y: Tensor) -> Pair:
    """A pair without positive curvature gets rho 0, which leaves it out of the recursion."""
    sy = (s * y).sum(1)
    keep = sy > torch.finfo(s.dtype).eps * (y * y).sum(1)
    return s, y, torch.where(keep, 1 / sy.where(keep, torch.ones_like(sy)), 0)


def _line_search(
    objective: Objective, x: Tensor, value: Tensor, grad: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halve each problem's step until it descends enough (Armijo) -> point, value, gradient, (P,) whether it failed to."""
    slope = (direction * grad).sum(1)
    # Rounding of the value must not turn good steps down near the minimum.
    slack = 4 * torch.finfo(x.dtype).eps * value.abs()
    step = torch.ones_like(value)
    for _ in range(_HALVINGS):
        new_x = x + step[:, None] * direction
        new_value, new_grad = objective(new_x)
        good = new_value <= value + _ARMIJO * step * slope + slack
        if bool(good.all()):
            return new_x, new_value, new_grad, ~good
        step = torch.where(good, step, step / 2)
    back = good[:, None]
    return torch.where(back, new_x, x), torch.where(good, new_value, value), torch.where(back, new_grad, grad), ~good
