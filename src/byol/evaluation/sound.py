"""The linear protocols that sound is compared by: BYOL-A's of 2021, and EVAR's, which its second version is evaluated with.

A linear layer on standardised features of the frozen encoder, by Adam, until the accuracy on validation has not been reached again
for some epochs; the weights of its best epoch (of equal ones the last) are tested. Repeated with seed, seed + 1, ...; scores are averaged
over the repeats. Where a clip has several classes there is a sigmoid for each, and mAP takes the place of accuracy. Validation is the
data's own where it says so, else drawn from the training clips, stratified, anew for each repeat.

From the papers and released code (Niizumi et al. 2021, arXiv 2103.06695; nttcslab/eval-audio-repr): rates, epochs, patience, repeats,
a tenth to validate by, accuracy to stop by, and that statistics are those of all training clips, with the drawn validation. Unverified:
the batch of EVAR's classifier; 256 clips are what its encoder sees at once, and its code's classifier has a default of its own, 200.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from byol import rng
from byol.evaluation import splits
from byol.evaluation.metrics import measured
from byol.evaluation.probe import Prediction, Settings, Task, titled

RATES: Final = {  # of EVAR, by data set as its name is written without signs; its README says which
    "esc50": 1e-3, "urbansound8k": 3e-5, "us8k": 3e-5, "speechcommands": 3e-5, "spcv2": 3e-5, "nsynth": 1e-3,
    "voxceleb1": 4e-5, "vc1": 4e-5, "voxforge": 1e-4, "surge": 3e-5, "gtzan": 1e-3,
}  # fmt: skip
RATE: Final = 3e-4  # of EVAR, for all others


@dataclass(frozen=True, kw_only=True)
class SoundLinear:
    """BYOL-A's protocol."""

    lr: float = 1e-3
    epochs: int = 200  # at most
    batch_size: int = 200  # clips; all of them where there are fewer
    patience: int = 10  # epochs without the best accuracy on validation, before it stops
    repeats: int = 10  # trainings, with other seeds
    held_out: float = 0.1  # share of the training clips to validate by, where the data says nothing of validation

    def __post_init__(self) -> None:
        _check(self.lr, self.epochs, self.batch_size, self.patience, self.repeats, self.held_out)

    @property
    def name(self) -> str:
        """`sound-linear`, and what is not the default."""
        return titled("sound-linear", self)

    def describe(self) -> str:
        """`sound linear (Adam, ...)`"""
        how = f"{self.epochs} epochs at most, patience {self.patience}, mean of {self.repeats}"
        return f"sound linear (Adam {self.lr:g}, standardised, {how})"

    def settings(self) -> Settings:
        """The optimiser, and when it stops."""
        return {
            "solver": "Adam, no weight decay",
            "features": "standardised by the training set",
            "lr": self.lr,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "patience": self.patience,
            "repeats": self.repeats,
            "held_out": self.held_out,
        }

    def predict(self, task: Task) -> Prediction:
        """Train the repeats, score the test clips by each."""
        official = task.train.official
        val = None
        if official is not None and official.val.any() and not official.val.all():
            val = torch.from_numpy(official.val)
        scores, found = trained(task.train_x, task.train_y, val, task.test_x, classes=task.classes, protocol=self, seed=task.seed)
        settings: Settings = {"epoch": " ".join(str(f.epoch) for f in found), "validation": found[0].validation}
        return Prediction(scores.cpu(), settings)


@dataclass(frozen=True, kw_only=True)
class EvarLinear:
    """EVAR's protocol: the same with a rate for each data set."""

    lr: float | None = None  # none: by the data set's name, see RATES; 3e-4 for others
    epochs: int = 200  # at most
    batch_size: int = 256  # clips; all of them where there are fewer
    patience: int = 20  # epochs without the best accuracy on validation, before it stops
    repeats: int = 3  # trainings, with other seeds
    held_out: float = 0.1  # share of the training clips to validate by, where the data says nothing of validation

    def __post_init__(self) -> None:
        _check(self.lr or RATE, self.epochs, self.batch_size, self.patience, self.repeats, self.held_out)

    @property
    def name(self) -> str:
        """`evar-linear`, and what is not the default."""
        return titled("evar-linear", self)

    def describe(self) -> str:
        """`EVAR linear (Adam, ...)`"""
        how = f"{self.epochs} epochs at most, patience {self.patience}, mean of {self.repeats}"
        return f"EVAR linear (Adam, lr {'by data set' if self.lr is None else f'{self.lr:g}'}, standardised, {how})"

    def settings(self) -> Settings:
        """The optimiser, and when it stops; the rate is said beside each score."""
        return {**self.at(self.lr or RATE).settings(), "lr": "by data set" if self.lr is None else self.lr}

    def predict(self, task: Task) -> Prediction:
        """Train the repeats at the rate of the data set, score the test clips by each."""
        lr = self.lr or rate_of(task.train.spec)
        found = self.at(lr).predict(task)
        return Prediction(found.scores, {"lr": lr, **found.settings})

    def at(self, lr: float) -> SoundLinear:
        """The same protocol at this rate."""
        return SoundLinear(
            lr=lr, epochs=self.epochs, batch_size=self.batch_size, patience=self.patience, repeats=self.repeats, held_out=self.held_out
        )


def rate_of(data: str) -> float:
    """EVAR's learning rate for the data set that a path or name has as one of its parts; 3e-4 where there is none."""
    words = [re.sub(r"[^a-z0-9]", "", part) for part in re.split(r"[/\\:]", data.lower())]
    return next((RATES[w] for w in words if w in RATES), RATE)


@dataclass(frozen=True, eq=False)
class Trained:
    """A linear layer, and how it came about."""

    weight: Tensor  # (C, D)
    bias: Tensor  # (C,)
    epoch: int  # whose weights these are, from 1
    stopped: int  # epochs that it was trained for
    validation: str  # what was validated by, in words

    def scores(self, x: Tensor) -> Tensor:
        """(m, D) standardised features -> (m, C)."""
        return x @ self.weight.T + self.bias


def trained(
    x: Tensor, y: Tensor, val: Tensor | None, test_x: Tensor, *, classes: int, protocol: SoundLinear, seed: int
) -> tuple[Tensor, list[Trained]]:
    """(n, D), (n,) or (n, C), (n,) bool or None, (m, D) -> (R, m, C) scores of the test clips by each repeat, and the R classifiers.

    `val`: the training clips that it validates by and does not learn from; None: drawn for each repeat.
    """
    x, test_x = standardised(x if val is None else x[~val], x, test_x)
    found = []
    for repeat in range(protocol.repeats):
        out, how = (val, "the data's own") if val is not None else drawn(y, protocol.held_out, seed + repeat)
        found.append(train(x, y, out.to(x.device), how, classes=classes, protocol=protocol, seed=seed + repeat))
    return torch.stack([f.scores(test_x) for f in found]), found


def standardised(train: Tensor, *parts: Tensor) -> list[Tensor]:
    """The parts with the mean and standard deviation of the training features taken away; what never varies is only centred."""
    std, mean = torch.std_mean(train, 0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs(), std, 1)
    return [(x - mean) / std for x in parts]


def drawn(y: Tensor, share: float, seed: int) -> tuple[Tensor, str]:
    """(n,) classes, or (n, C) of several -> (n,) bool, a share to validate by, and this in words; none with too few labels.

    It is stratified where a clip has one class.
    """
    out = torch.zeros(len(y), dtype=torch.bool)
    labels = y.cpu().numpy() if y.ndim == 1 else np.zeros(len(y), np.int64)
    if not splits.enough_to_choose(labels):
        return out, f"none: fewer than {splits.FEWEST} labels per class"
    out[torch.from_numpy(splits.held_out(labels, share, seed=seed)[1])] = True
    return out, f"{int(out.sum())} held out, drawn"


def train(x: Tensor, y: Tensor, val: Tensor, validation: str, *, classes: int, protocol: SoundLinear, seed: int) -> Trained:
    """(n, D) standardised features, (n,) classes, (n,) bool -> the linear layer of the epoch that is best where `val` is true.

    Where it is true nowhere, the last epoch's. The first weights and the order of the clips are those of the seed. Classes (n, C) of
    1, 0 and -1 (not counted) are learnt by a sigmoid each, and mAP is what is best.
    """
    learn = (~val).nonzero()[:, 0]
    val_x, val_y = x[val], y[val]
    linear = _drawn_layer(x, classes, seed)
    optimizer = torch.optim.Adam(linear.parameters(), lr=protocol.lr)
    best, kept = -1.0, Trained(linear.weight.detach().clone(), linear.bias.detach().clone(), 0, 0, validation)
    epoch = 0
    for epoch in range(1, protocol.epochs + 1):
        order = rng.permutation(seed, epoch, len(learn)).to(x.device)
        for rows in torch.split(learn[order], protocol.batch_size):
            optimizer.zero_grad()
            _loss(linear(x[rows]), y[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            score = _judged(linear(val_x), val_y) if len(val_y) else 0.0
        if score >= best:
            best, kept = score, Trained(linear.weight.detach().clone(), linear.bias.detach().clone(), epoch, epoch, validation)
        elif epoch - kept.epoch >= protocol.patience:
            break
    return Trained(kept.weight, kept.bias, kept.epoch, epoch, validation)


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    """(b, C), (b,) classes -> (): the mean cross-entropy; (b, C) of 1, 0 and -1: the mean binary one of what is counted."""
    if y.ndim == 1:
        return cross_entropy(logits, y)
    known = y >= 0
    return binary_cross_entropy_with_logits(logits[known], y[known].to(logits))


def _judged(logits: Tensor, y: Tensor) -> float:
    """What an epoch is chosen by: the accuracy, of several classes a clip mAP."""
    return measured("top-1" if y.ndim == 1 else "mAP", logits, y)


def _drawn_layer(like: Tensor, classes: int, seed: int) -> nn.Linear:
    """torch's linear layer with torch's first weights, from a generator of its own."""
    features = like.shape[1]
    linear = nn.Linear(features, classes, device="meta").to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for parameter in linear.parameters():
        nn.init.uniform_(parameter, -(features**-0.5), features**-0.5, generator=generator)
    return linear.to(like.device, like.dtype)


def _check(lr: float, epochs: int, batch_size: int, patience: int, repeats: int, held_out: float) -> None:
    if min(epochs, batch_size, patience, repeats) < 1:
        counts = f"{epochs} epochs, batch_size {batch_size}, patience {patience}, {repeats} repeats"
        raise ValueError(f"{counts} are not possible; give 1 or more of each")
    if not lr > 0:
        raise ValueError(f"the learning rate is {lr:g}; give a number above 0")
    if not 0 < held_out < 1:
        raise ValueError(f"the held-out share is {held_out:g}; give a number between 0 and 1")
