"""The linear protocol: logistic regression on frozen features by L-BFGS, its l2 strength chosen on training labels alone.

As BYOL's transfer experiments (Grill et al. 2020, appendix D; methods of Kornblith et al. 2019): a log grid of strengths,
the best one on held-out training samples, then a fit on all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from byol.evaluation import splits
from byol.evaluation.accuracy import hits
from byol.evaluation.logistic import Axes, axes, fit
from byol.evaluation.probe import Prediction, Settings, Task, titled

GRID = tuple(10 ** (k / 2) for k in range(-2, 11))  # 0.1 .. 100,000
_FEW = 1000  # labels; below, one part held out is too small to choose by, and all folds together are not
_FOLDS = 5
_UNCHOSEN = 1.0  # scikit-learn's default, where there are too few labels to choose by
_ROUGH = 1e-3  # tolerance while choosing; the classifier that is tested is solved to 3e-5
_BYTES = 1 << 31  # of what the problems solved together remember of their steps ...
_VECTORS = 32  # ... each so many times its weights


@dataclass(frozen=True, kw_only=True)
class Linear:
    """The protocol; a strength weighs |W|^2 / 2 against the summed cross-entropy: 1 / C of scikit-learn."""

    grid: tuple[float, ...] = GRID
    held_out: float = 0.2  # share of the training labels to choose by

    def __post_init__(self) -> None:
        if not self.grid or min(self.grid) <= 0:
            raise ValueError(f"the l2 strengths are {self.grid}; give one or more numbers above 0")
        if not 0 < self.held_out < 1:
            raise ValueError(f"the held-out share is {self.held_out:g}; give a number between 0 and 1")

    @property
    def name(self) -> str:
        """`linear`, and what is not the default."""
        return titled("linear", self)

    def describe(self) -> str:
        """`linear (L-BFGS, ...)`"""
        how = "given" if len(self.grid) == 1 else f"chosen on {self.held_out:.0%} of train; {_FOLDS} folds below {_FEW:,} labels"
        return f"linear (L-BFGS, standardised, l2 {how})".replace("%", " %")

    def settings(self) -> Settings:
        """The grid and how one of it is chosen."""
        return {
            "solver": "L-BFGS",
            "features": "standardised by the training set",
            "l2": "on the summed cross-entropy: 1 / C of scikit-learn",
            "l2_grid": f"{min(self.grid):.3g} to {max(self.grid):.3g}, {len(self.grid)} values",
            "held_out": self.held_out,
            "folds": f"{_FOLDS} below {_FEW} labels",
        }

    def predict(self, task: Task) -> Prediction:
        """Choose l2, fit on all training labels, score the test images."""
        design = axes(task.train_x)
        l2, how = self._choose(design, task)
        found = fit(design, task.train_y, classes=task.classes, l2=design.z.new_tensor([l2]))
        settings: Settings = {"l2": float(f"{l2:.3g}"), "l2_chosen": how, "iterations": found.iterations}
        if not bool(found.converged):
            settings["converged"] = "no"
        return Prediction(found.logits(design.project(task.test_x))[0].cpu(), settings)

    def _choose(self, design: Axes, task: Task) -> tuple[float, str]:
        """The strength with the most correct held-out samples (of equal ones the lowest cross-entropy), and how it was found."""
        if len(self.grid) == 1:
            return self.grid[0], "given"
        rounds, how = held_out_rounds(task.train_y, self.held_out, task.seed, splits.ties_of(task.train))
        if not len(rounds):
            return _UNCHOSEN, how
        at_once = max(1, _BYTES // (_VECTORS * 4 * task.train_x.shape[1] * task.classes))
        strengths = torch.split(torch.tensor(self.grid, dtype=design.z.dtype), at_once)
        judged = [torch.cat([_judge(design, task, out, l2) for l2 in strengths]) for out in rounds]
        correct, entropy = torch.stack(judged).sum(0).unbind(1)
        best = torch.where(correct == correct.max(), entropy, torch.inf).argmin()
        return self.grid[int(best)], how


def held_out_rounds(labels: Tensor, share: float, seed: int, ties: splits.Ties = splits.FREE) -> tuple[Tensor, str]:
    """(n,) labels -> (R, n) bool, what each round holds out for choosing, and this in words; R = 0 with too few labels to choose by."""
    y = labels.cpu().numpy()
    if not splits.enough_to_choose(y):
        return torch.zeros(0, len(y), dtype=torch.bool), f"fixed: fewer than {splits.FEWEST} labels per class"
    if len(y) >= _FEW:
        out = torch.zeros(1, len(y), dtype=torch.bool)
        out[0, torch.from_numpy(splits.held_out(y, share, seed=seed, ties=ties)[1])] = True
        return out, f"{int(out.sum())} held out"
    fold = torch.from_numpy(splits.folds(y, _FOLDS, seed=seed, ties=ties))
    return fold == torch.arange(_FOLDS)[:, None], f"{_FOLDS} folds"


def _judge(design: Axes, task: Task, out: Tensor, l2: Tensor) -> Tensor:
    """(n,) what is held out, (P,) strengths -> (P, 2) held-out samples that come out right, and their summed cross-entropy."""
    kept, out = ((~out).nonzero()[:, 0].to(design.z.device), out.nonzero()[:, 0].to(design.z.device))
    found = fit(design.rows(kept), task.train_y[kept], classes=task.classes, l2=l2.to(design.z), tolerance=_ROUGH)
    y = task.train_y[out]
    logits = found.logits(design.z[out])  # (P, m, C)
    entropy = -logits.log_softmax(2).gather(2, y.expand(logits.shape[:2])[..., None])
    return torch.stack([hits(logits, y).sum(1).double(), entropy.sum((1, 2)).double()], 1).cpu()
