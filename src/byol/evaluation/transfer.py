"""The linear protocol of BYOL's transfer experiments (Grill et al. 2020, appendix D; methods of Kornblith et al. 2019).

No augmentation: the short side becomes the encoder's size (224 px in the paper) and the centre is cropped. On the frozen features
a multinomial logistic regression with an l2 penalty, by L-BFGS; of 45 strengths from 1e-6 to 1e5 the one that is best on the
validation images by the set's own metric; then a fit on training and validation images, tested once. Where an image has
several classes, one binary regression for each class, all with one strength.
Ours, as the paper does not say: a strength weighs |W|^2 / 2 against the summed cross-entropy, features are taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from byol.encoders import Encoder, SoundInput
from byol.evaluation import splits
from byol.evaluation.logistic import Axes, Fit, axes, fit
from byol.evaluation.metrics import measured
from byol.evaluation.probe import Prediction, Settings, Task, titled

GRID = tuple(10 ** (k / 4 - 6) for k in range(45))  # 1e-6 .. 1e5
SIZE = 224  # pixels, the paper's
_HELD_OUT = 0.2  # of the training images, where the data says nothing of validation
_UNCHOSEN = 1.0  # scikit-learn's default, where there are too few labels to choose by
_TOGETHER = 5  # strengths that are solved at once: fewer passes over the features than one by one, warmer starts than all at once
_ROUGH = 1e-3  # tolerance while choosing; the classifier that is tested is solved to 3e-5


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The protocol."""

    grid: tuple[float, ...] = GRID

    def __post_init__(self) -> None:
        if not self.grid or min(self.grid) <= 0:
            raise ValueError(f"the l2 strengths are {self.grid}; give one or more numbers above 0")

    @property
    def name(self) -> str:
        """`transfer`, and what is not the default."""
        return titled("transfer", self)

    def describe(self) -> str:
        """`transfer (L-BFGS, ...)`"""
        return f"transfer (L-BFGS, short side and centre crop, l2 of {len(self.grid)} chosen on validation, then train + validation)"

    def settings(self) -> Settings:
        """The grid and what the features are."""
        return {
            "solver": "L-BFGS",
            "features": "as they are",
            "l2": "on the summed cross-entropy: 1 / C of scikit-learn",
            "l2_grid": f"{min(self.grid):.3g} to {max(self.grid):.3g}, {len(self.grid)} values",
            "training_views": "short side and centre crop, no augmentation",
        }

    def predict(self, task: Task) -> Prediction:
        """Choose l2 on the validation images, fit on all training images from there, score the test images."""
        design = axes(task.train_x, standardise=False)
        l2, how, start = self._choose(design, task)
        found = fit(design, task.train_y, classes=task.classes, l2=design.z.new_tensor([l2]), start=start)
        settings: Settings = {"l2": float(f"{l2:.3g}"), "l2_chosen": how, "iterations": found.iterations}
        if not bool(found.converged):
            settings["converged"] = "no"
        if task.encoder is not None:
            settings["pixels"] = task.encoder.images.size
        return Prediction(found.logits(design.project(task.test_x))[0].cpu(), settings)

    def _choose(self, design: Axes, task: Task) -> tuple[float, str, Fit | None]:
        """The strength with the best metric on validation (of equal ones the lowest cross-entropy), how, and its classifier."""
        val, how = validation(task)
        if len(self.grid) == 1 or not bool(val.any()):
            return (self.grid[0], "given", None) if len(self.grid) == 1 else (_UNCHOSEN, how, None)
        val = val.to(design.z.device)
        kept, y, z = design.rows((~val).nonzero()[:, 0]), task.train_y[~val], design.z[val]
        metric = task.train.official.metric if task.train.official is not None else "top-1"
        best, found = (-1.0, -torch.inf), None
        start, at = None, _UNCHOSEN
        # From the strongest on: solutions of neighbours are near each other, so each few begin at the last one before them.
        for l2 in torch.split(z.new_tensor(sorted(self.grid, reverse=True)), _TOGETHER):
            solved = fit(kept, y, classes=task.classes, l2=l2, tolerance=_ROUGH, start=start and start.repeated(-1, len(l2)))
            for i, logits in enumerate(solved.logits(z)):
                judged = measured(metric, logits, task.train_y[val]), -_entropy(logits, task.train_y[val])
                if judged > best:
                    best, found, at = judged, solved.repeated(i, 1), float(l2[i])
            start = solved
        return at, how, found


def validation(task: Task) -> tuple[Tensor, str]:
    """(n,) bool, the training images that are chosen by, and these in words: the official ones, else a stratified fifth."""
    official = task.train.official
    if official is not None and official.val.any() and not official.val.all():
        return torch.from_numpy(official.val), f"{int(official.val.sum())} validation images"
    out = torch.zeros(len(task.train_y), dtype=torch.bool)
    if task.train_y.ndim == 2:
        return out, "fixed: no validation images"
    y = task.train_y.cpu().numpy()
    if not splits.enough_to_choose(y):
        return out, f"fixed: fewer than {splits.FEWEST} labels per class"
    out[torch.from_numpy(splits.held_out(y, _HELD_OUT, seed=task.seed, ties=splits.ties_of(task.train))[1])] = True
    return out, f"{int(out.sum())} held out"


def uncropped(encoder: Encoder) -> Encoder:
    """The same network where the short side becomes what it sees, so that the centre crop cuts off nothing of it."""
    if isinstance(encoder.input, SoundInput) or encoder.input.resize in (0, encoder.input.size):
        return encoder
    return Encoder(encoder.net, dim=encoder.dim, input=replace(encoder.input, resize=0), name=encoder.name, custom=True)


def _entropy(logits: Tensor, y: Tensor) -> float:
    """(m, C) logits and classes -> the mean cross-entropy."""
    if y.ndim == 1:
        return float(cross_entropy(logits, y))
    known = y >= 0
    return float(binary_cross_entropy_with_logits(logits[known], y[known].to(logits)))
