"""The paper's linear protocol (Grill et al. 2020, appendix C.1): SGD on random crops and flips of a frozen encoder's images.

Nesterov momentum 0.9, 80 epochs, batches of 1024, no regularisation, a cosine from base lr x batch / 256 to 0, batch-norm
statistics untouched. The base lr is the one whose classifier is best on held-out training images; its twin, trained on
all of them, is tested. All classifiers take their steps on the same features, so the encoder runs once for all of them.
Ours: weights start at 0 (the released code draws them), and a classifier of the sweep leaves the held-out images of a
batch out instead of having batches of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from byol import views
from byol.data import Skipped, ids_at, load_memory, steps_per_epoch
from byol.encoders import Input, evaluation_views
from byol.evaluation import splits
from byol.evaluation.accuracy import hits
from byol.evaluation.features import embed, frozen
from byol.evaluation.probe import Prediction, Settings, Task, titled
from byol.feeds import HostFeed, MemoryFeed

_MOMENTUM = 0.9
_HELD_OUT = (0.1, 10_009)  # share of the training images, and at most the paper's number
_UNCHOSEN = 0.2  # the released code's, where there are too few labels to choose by


@dataclass(frozen=True, kw_only=True)
class LinearSgd:
    """The protocol."""

    epochs: int = 80
    batch_size: int = 1024  # images; all of them where there are fewer
    base_lrs: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1, 0.05)  # per 256 images
    augment: bool = True  # random crops and flips; False: the features of the evaluation view, far cheaper

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"{self.epochs} epochs in batches of {self.batch_size} are not possible; give 1 or more of each")
        if not self.base_lrs or min(self.base_lrs) <= 0:
            raise ValueError(f"the base learning rates are {self.base_lrs}; give one or more numbers above 0")

    @property
    def name(self) -> str:
        """`linear-sgd`, `linear-sgd-cached` without augmentation, and what else is not the default."""
        return titled("linear-sgd", self, short={"augment": "-cached"})

    def describe(self) -> str:
        """`linear (SGD, ...)`"""
        seen = "random crops and flips" if self.augment else "no augmentation"
        return f"linear (SGD, Nesterov 0.9, {self.epochs} epochs, batch {self.batch_size}, lr chosen on held-out train, {seen})"

    def settings(self) -> Settings:
        """The optimiser, its sweep, and what it sees."""
        return {
            "solver": "SGD, Nesterov 0.9, cosine, no weight decay",
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "base_lrs": " ".join(f"{v:g}" for v in self.base_lrs),
            "held_out": _HELD_OUT[0],
            "training_views": "random crops and flips" if self.augment else "the evaluation view",
        }

    def predict(self, task: Task) -> Prediction:
        """Sweep, choose, and score the test images with the classifier that saw all training images."""
        n, sweep = len(task.train_y), len(self.base_lrs)
        out = _held_out(task)
        used = task.train_x.new_ones(2 * sweep, n)
        used[:sweep, out] = 0
        batch = min(self.batch_size, n)
        steps = self.epochs * steps_per_epoch(n, batch)
        rates = task.train_x.new_tensor(self.base_lrs).repeat(2) * batch / 256
        batches = augmented(task, batch, steps) if self.augment else cached(task, batch, steps)
        weight, bias = train(batches, task.train_y, used, rates, classes=task.classes, steps=steps)
        chosen, how = (
            min(range(sweep), key=lambda i: abs(self.base_lrs[i] - _UNCHOSEN)),
            f"fixed: fewer than {splits.FEWEST} labels per class",
        )
        if len(out):
            logits = task.train_x[out] @ weight[:sweep] + bias[:sweep, None]
            chosen, how = int(hits(logits, task.train_y[out]).sum(1).argmax()), f"{len(out)} held out"
        settings: Settings = {"base_lr": self.base_lrs[chosen], "base_lr_chosen": how, "batch": batch, "steps": steps}
        return Prediction((task.test_x @ weight[sweep + chosen] + bias[sweep + chosen]).cpu(), settings)


def _held_out(task: Task) -> Tensor:
    """Indices of the training images to choose the learning rate by; none with too few labels."""
    labels = task.train_y.cpu().numpy()
    if not splits.enough_to_choose(labels):
        return task.train_y[:0]
    share = min(_HELD_OUT[0], _HELD_OUT[1] / len(labels))
    return torch.from_numpy(splits.held_out(labels, share, seed=task.seed)[1]).to(task.train_y.device)


def train(
    batches: Iterator[tuple[Tensor, Tensor]], y: Tensor, used: Tensor, rates: Tensor, *, classes: int, steps: int
) -> tuple[Tensor, Tensor]:
    """`steps` batches of ((B,) ids, (B, D) features), (n,) labels -> P linear classifiers: weights (P, D, C) and biases (P, C).

    Classifier p learns at the peak rate rates[p] from the samples where used[p] (n,) is 1; a batch without any leaves it as it is.
    """
    state: list[Tensor] = []  # parameters (P, D + 1, C), momentum
    for step, (ids, x) in enumerate(batches):
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        if not state:
            state = [x.new_zeros(len(rates), x.shape[1], classes) for _ in range(2)]
        w, momentum = state
        mask = used[:, ids]
        residual = (x @ w).softmax(2) - one_hot(y[ids], classes)  # (P, B, C)
        grad = x.T @ (residual * (mask / mask.sum(1, keepdim=True).clamp_min(1))[:, :, None])
        momentum.mul_(_MOMENTUM).add_(grad)
        lr = rates * 0.5 * (1 + math.cos(math.pi * step / steps))
        w -= lr[:, None, None] * (grad + _MOMENTUM * momentum)
    return state[0][:, :-1], state[0][:, -1]


def cached(task: Task, batch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The features of the evaluation view, a batch at a time."""
    for step in range(steps):
        ids = ids_at(step, n=len(task.train_y), batch=batch, seed=task.seed).to(task.train_x.device)
        yield ids, task.train_x[ids]


def augmented(task: Task, batch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The features of random crops and flips, new ones every epoch, a batch at a time."""
    device, size = task.train_x.device, task.encoder.input.size
    plan = views.load("crop", size=size, channels=task.train.channels)
    plan = replace(plan, pipelines=plan.pipelines[:1])
    seen = _values(task)
    memory, source = load_memory(task.train)
    if len(source) != len(task.train):
        raise ValueError(f"{len(task.train) - len(source)} images of {task.train.spec} could be read once and then no more; try again")
    feed = (
        MemoryFeed(memory, plan, seen, batch=batch, seed=task.seed, device=str(device))
        if memory is not None
        else HostFeed(source, plan, seen, batch=batch, seed=task.seed, device=str(device), workers=task.workers, on_bad=_unreadable)
    )
    with frozen(task.encoder, device):
        for step, (x,) in enumerate(feed(0, steps)):
            # Crops have the encoder's size already: this only turns grey into RGB, or the reverse, where it has to.
            x = evaluation_views(x, replace(task.encoder.input, resize=0))
            ids = ids_at(step, n=len(source), batch=batch, seed=task.seed, order=None if memory is not None else source.order)
            yield ids.to(device), embed(task.encoder, x, task.precision)


def _values(task: Task) -> Input:
    """What turns the raw values of the training images into [0, 1]; the encoder's own mean and deviation come later."""
    low, high = task.encoder.input.low, task.encoder.input.high
    if task.train.dtype == "uint16" and (low, high) == (0, 255):
        high = 65535.0
    channels = task.train.channels
    return Input(channels=channels, size=task.encoder.input.size, mean=(0.0,) * channels, std=(1.0,) * channels, low=low, high=high)


def _unreadable(bad: list[Skipped]) -> None:
    # Another image would take its place, with the wrong label.
    raise ValueError(f"{bad[0].name} could be read once and then no more ({bad[0].reason}); try again")
