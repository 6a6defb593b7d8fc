"""Many smooth minimisations at once by L-BFGS (Nocedal and Wright 2006, algorithm 7.4), each with its own line search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# (Q, M) points of the problems numbered in (Q,) -> (Q,) values, (Q, M) gradients
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Pair = tuple[Tensor, Tensor, Tensor]  # step s (Q, M), change of the gradient y (Q, M), 1 / s.y (Q,)

_TRIES = 12
_DESCENT = 1e-4


@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the minimisations ended."""

    x: Tensor  # (P, M)
    iterations: int  # of the slowest
    converged: Tensor  # (P,) bool: the gradient's norm reached the tolerance


@dataclass(eq=False)
class _State:
    """The problems that still move."""

    ids: Tensor  # (Q,)
    x: Tensor  # (Q, M)
    value: Tensor  # (Q,)
    grad: Tensor  # (Q, M)
    stuck: Tensor  # (Q,) bool: no step along the last direction went lower
    pairs: list[Pair]  # oldest first

    def take(self, rows: Tensor) -> _State:
        pairs = [(s[rows], y[rows], rho[rows]) for s, y, rho in self.pairs]
        return _State(self.ids[rows], self.x[rows], self.value[rows], self.grad[rows], self.stuck[rows], pairs)


def minimise(objective: Objective, x: Tensor, *, tolerance: float, limit: int, memory: int = 10) -> Minimum:
    """(P, M) starts -> the minima of P independent problems; each stops when its gradient's norm is at most `tolerance`.

    One that rounding keeps from getting any lower stops as well. Those that stopped cost nothing more.
    """
    ids = torch.arange(len(x), device=x.device)
    value, grad = objective(x, ids)
    state = _State(ids, x, value, grad, torch.zeros_like(ids, dtype=torch.bool), [])
    found, converged, iterations = x.clone(), torch.zeros_like(state.stuck), 0
    for iterations in range(limit + 1):
        near = state.grad.norm(dim=1) <= tolerance
        found[state.ids], converged[state.ids] = state.x, near
        moving = ~(near | state.stuck)
        if iterations == limit or not bool(moving.any()):
            break
        state = _step(objective, state if bool(moving.all()) else state.take(moving), memory)
    return Minimum(found, iterations, converged)


def _step(objective: Objective, now: _State, memory: int) -> _State:
    """One iteration of every problem."""
    direction = _direction(now.grad, now.pairs)
    slope = (direction * now.grad).sum(1)
    step = torch.ones_like(now.value)
    for _ in range(_TRIES):
        x = now.x + step[:, None] * direction
        value, grad = objective(x, now.ids)
        good = _descends(now.value, slope, value, (direction * grad).sum(1), step)
        if bool(good.all()):
            break
        step = torch.where(good, step, _shorter(now.value, slope, value, step))
    else:
        x, grad = torch.where(good[:, None], x, now.x), torch.where(good[:, None], grad, now.grad)
        value = torch.where(good, value, now.value)
    pairs = [*now.pairs, _pair(x - now.x, grad - now.grad)][-memory:]
    return _State(now.ids, x, value, grad, ~good, pairs)


def _descends(value: Tensor, slope: Tensor, new_value: Tensor, new_slope: Tensor, step: Tensor) -> Tensor:
    """Armijo's rule; where rounding hides the change in value, its form in slopes (Hager and Zhang 2005, eq. 4.1)."""
    by_value = new_value <= value + _DESCENT * step * slope
    noise = 32 * torch.finfo(value.dtype).eps * value.abs()
    by_slope = (new_value <= value + noise) & (new_slope <= (2 * _DESCENT - 1) * slope)
    return by_value | by_slope


def _shorter(value: Tensor, slope: Tensor, new_value: Tensor, step: Tensor) -> Tensor:
    """The step to the minimum of the parabola through what is known, a tenth to a half of the last one."""
    bend = new_value - value - slope * step
    best = torch.where(bend > 0, -slope * step * step / (2 * bend), 0)
    return torch.minimum(torch.maximum(best.nan_to_num(0), 0.1 * step), 0.5 * step)


def _direction(grad: Tensor, pairs: list[Pair]) -> Tensor:
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
