"""What features of a recording say of behaviour: the angle of a reach, or the state of sleep, by a linear readout.

As MYOW's released code evaluates (Azabou et al. 2021): AdamW, rate 0.01, 100 epochs, weight decay out of 2^-10 .. 2^9 chosen on
validation trials. Here every epoch is one step on all bins, and states are balanced by weights, not by a sampler.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

DIRECTIONS: Final = 8
DECAYS: Final = tuple(2.0**k for k in range(-10, 10))
EPOCHS, RATE = 100, 0.01

Score = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Reach:
    """How often the angle is right, in [0, 1]."""

    acc: float  # off by less than pi / 8: the direction is right
    delta_acc: float  # off by less than 3 pi / 16


@dataclass(frozen=True, eq=False)
class Part:
    """Bins with what is to be read from them."""

    x: Tensor  # (n, D)
    y: Tensor  # (n,) int64


def reach(train: Part, val: Part, test: Part) -> Reach:
    """The angle of a reach out of 8 directions, read as its cosine and sine."""

    def loss(out: Tensor) -> Tensor:
        return (out - _plane(train.y)).square().mean((1, 2)).sum()

    found = _chosen(train, val, test, 2, loss, lambda out, y: _off(out, y, math.pi / 8))
    return Reach(_off(found, test.y, math.pi / 8), _off(found, test.y, 3 * math.pi / 16))


def state(train: Part, val: Part, test: Part) -> float:
    """The weighted F1 of a classifier of states."""
    classes = int(max(p.y.max() for p in (train, val, test))) + 1
    counts = train.y.bincount(minlength=classes)
    weights = (len(train.y) / (classes * counts.clamp_min(1))).to(train.x.dtype)[train.y]

    def loss(out: Tensor) -> Tensor:
        entropy = -out.log_softmax(2)[:, torch.arange(len(train.y)), train.y]
        return (weights * entropy).mean(1).sum()

    found = _chosen(train, val, test, classes, loss, lambda out, y: weighted_f1(out.argmax(1), y))
    return weighted_f1(found.argmax(1), test.y)


def weighted_f1(predicted: Tensor, y: Tensor) -> float:
    """(m,), (m,) classes -> the mean of the F1 of each class that is there, weighted by how often it is."""
    total = 0.0
    for c in range(int(y.max()) + 1):
        hit = int(((predicted == c) & (y == c)).sum())
        said, there = int((predicted == c).sum()), int((y == c).sum())
        total += there * 2 * hit / max(1, said + there)
    return total / len(y)


def _plane(directions: Tensor) -> Tensor:
    """(n,) 0 .. 7 -> (n, 2) cosine and sine."""
    angle = directions * (2 * math.pi / DIRECTIONS)
    return torch.stack([angle.cos(), angle.sin()], 1)


def _off(out: Tensor, directions: Tensor, most: float) -> float:
    """(n, 2), (n,) -> the share of angles that are off by less than `most`."""
    gap = torch.atan2(out[:, 1], out[:, 0]) - directions * (2 * math.pi / DIRECTIONS)
    gap = torch.remainder(gap + math.pi, 2 * math.pi) - math.pi
    return float((gap.abs() < most).double().mean())


def _chosen(train: Part, val: Part, test: Part, out: int, loss: Callable[[Tensor], Tensor], score: Score) -> Tensor:
    """(m, out): what the readout says of the test bins whose decay has the best validation score; the least of equal ones.

    `loss`: (decays, n, out) -> the sum over decays of their losses.
    """
    mean, std = train.x.mean(0), train.x.std(0).clamp_min(1e-6)
    train_x, val_x, test_x = ((p.x - mean) / std for p in (train, val, test))
    # One readout for each decay, learning side by side; no gradient of one passes through another.
    weight = nn.Parameter(train_x.new_zeros(len(DECAYS), train_x.shape[1], out))
    bias = nn.Parameter(train_x.new_zeros(len(DECAYS), 1, out))
    keep = 1 - RATE * train_x.new_tensor(DECAYS)[:, None, None]  # AdamW's decay; the greatest of them end beyond all bounds
    optimizer = torch.optim.AdamW([weight, bias], lr=RATE, weight_decay=0.0)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        loss(train_x @ weight + bias).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            weight.mul_(keep)
            bias.mul_(keep)
        optimizer.step()
    with torch.no_grad():
        scores = [score(said.nan_to_num(), val.y) for said in val_x @ weight + bias]
        best = max(range(len(DECAYS)), key=scores.__getitem__)
        found: Tensor = test_x @ weight[best] + bias[best]
    return found
