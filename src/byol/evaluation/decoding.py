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

from byol.evaluation import splits
from byol.evaluation.metrics import DIRECTIONS, near, plane, weighted_f1
from byol.evaluation.probe import Prediction, Settings, Task, titled

DECAYS: Final = tuple(2.0**k for k in range(-10, 10))
EPOCHS, RATE = 100, 0.01
_HOW: Final = f"{EPOCHS} steps of AdamW, decay chosen"


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The protocol: the angle of a reach out of 8 directions, in the order of their names, read as its cosine and sine."""

    held_out: float = 0.125  # share of the training groups to choose the decay by: a tenth of all, as released

    METRICS = ("within pi/8", "within 3pi/16")

    @property
    def name(self) -> str:
        """`reach`, and what is not the default."""
        return titled("reach", self)

    def describe(self) -> str:
        """`reach (angle of 8 directions, ...)`"""
        return f"reach (angle of {DIRECTIONS} directions, linear, {_HOW} on {100 * self.held_out:g} % of train)"

    def settings(self) -> Settings:
        """How the decay is chosen."""
        return _settings(self.held_out)

    def predict(self, task: Task) -> Prediction:
        """Read the angle; a direction's score is the projection on it, greatest where it is right within pi / 8."""
        if task.classes != DIRECTIONS:
            what = f"reach reads an angle out of {DIRECTIONS} directions, and the training part has {task.classes}"
            raise ValueError(f"{what}; give --protocol state")
        target = plane(task.train_y).to(task.train_x.dtype)

        def loss(out: Tensor, rows: Tensor) -> Tensor:
            return (out - target[rows]).square().mean((1, 2)).sum()

        out, chosen = _read(task, self.held_out, 2, loss, lambda out, y: float(near(out, y, math.pi / 8).double().mean()))
        return Prediction(out.double().cpu() @ plane(torch.arange(DIRECTIONS)).T, chosen)


@dataclass(frozen=True, kw_only=True)
class State:
    """The protocol: a classifier of states, each of which counts as much however rare it is."""

    held_out: float = 0.125  # share of the training samples to choose the decay by: a tenth of all, as released

    METRICS = ("weighted F1",)

    @property
    def name(self) -> str:
        """`state`, and what is not the default."""
        return titled("state", self)

    def describe(self) -> str:
        """`state (linear, ...)`"""
        return f"state (linear, states balanced, {_HOW} on {100 * self.held_out:g} % of train)"

    def settings(self) -> Settings:
        """How the decay is chosen."""
        return _settings(self.held_out)

    def predict(self, task: Task) -> Prediction:
        """Read the state."""
        y, every = task.train_y, task.classes

        def loss(out: Tensor, rows: Tensor) -> Tensor:
            counts = y[rows].bincount(minlength=every)
            weights = (len(rows) / (every * counts.clamp_min(1))).to(out.dtype)[y[rows]]
            entropy = -out.log_softmax(2)[:, torch.arange(len(rows), device=y.device), y[rows]]
            return (weights * entropy).mean(1).sum()

        out, chosen = _read(task, self.held_out, every, loss, lambda out, y: weighted_f1(out.argmax(1), y))
        return Prediction(out.cpu(), chosen)


def _settings(held_out: float) -> Settings:
    return {
        "solver": f"AdamW, rate {RATE:g}, {EPOCHS} steps on all samples",
        "features": "standardised by the training set",
        "decays": f"{min(DECAYS):.3g} to {max(DECAYS):g}, {len(DECAYS)} values",
        "held_out": held_out,
    }


def _read(
    task: Task, held_out: float, width: int, loss: Callable[[Tensor, Tensor], Tensor], score: Callable[[Tensor, Tensor], float]
) -> tuple[Tensor, Settings]:
    """(m, width): what the readout says of the test samples whose decay has the best validation score, the least of equal ones; and how.

    `loss`: (decays, n, width) of some (n,) rows of the training set -> the sum over decays of their losses.
    """
    y = task.train_y.cpu().numpy()
    kept, out = (torch.from_numpy(p) for p in splits.held_out(y, held_out, seed=task.seed, ties=splits.ties_of(task.train)))
    rows, val = kept.to(task.train_x.device), (out if len(out) else kept).to(task.train_x.device)
    mean, std = task.train_x[rows].mean(0), task.train_x[rows].std(0).clamp_min(1e-6)
    train_x, val_x, test_x = ((x - mean) / std for x in (task.train_x[rows], task.train_x[val], task.test_x))
    weight, bias = _readouts(train_x, width, lambda said: loss(said, rows))
    with torch.no_grad():
        scores = [score(said.nan_to_num(), task.train_y[val]) for said in val_x @ weight + bias]
        best = max(range(len(DECAYS)), key=scores.__getitem__)
        found = test_x @ weight[best] + bias[best]
    return found, {"weight_decay": DECAYS[best], "weight_decay_chosen": f"{len(out)} held out"}


def _readouts(x: Tensor, width: int, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(n, D) -> weights (decays, D, width) and biases (decays, 1, width), learning side by side, each from its own loss alone."""
    weight = nn.Parameter(x.new_zeros(len(DECAYS), x.shape[1], width))
    bias = nn.Parameter(x.new_zeros(len(DECAYS), 1, width))
    keep = 1 - RATE * x.new_tensor(DECAYS)[:, None, None]  # AdamW's decay; the greatest of them end beyond all bounds
    optimizer = torch.optim.AdamW([weight, bias], lr=RATE, weight_decay=0.0)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        loss(x @ weight + bias).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            weight.mul_(keep)
            bias.mul_(keep)
        optimizer.step()
    return weight.detach(), bias.detach()
