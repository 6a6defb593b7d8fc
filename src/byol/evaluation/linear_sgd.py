"""The paper's linear protocol (Grill et al. 2020, appendix C.1): SGD on random crops and flips of a frozen encoder's images.

Nesterov momentum 0.9, 80 epochs, batches of 1024, no regularisation, a cosine from base lr x batch / 256 to 0, batch-norm
statistics untouched. The base lr is the one whose classifier is best on held-out training images; its twin, trained on
all of them, is tested. All classifiers take their steps on the same features, so the encoder runs once for all of them.
Ours: weights start at 0 (the released code draws them), and a classifier of the sweep leaves the held-out images of a
batch out instead of having batches of its own.

The variant of the same appendix: views=run (the augmentations of pre-training in place of crops and flips), tclip=20 (logits
become 20 tanh(logits / 20)) and penalty=0.01 (on the mean square of these).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from byol import views
from byol.data import ids_at, steps_per_epoch
from byol.evaluation import splits
from byol.evaluation.accuracy import hits
from byol.evaluation.crops import crops, spatial
from byol.evaluation.features import embed, frozen
from byol.evaluation.probe import Prediction, Settings, Task, titled
from byol.views import ViewPlan

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
    views: str = "crop"  # "run": those that the encoder was trained with; or a named plan
    tclip: float = 0.0  # logits become tclip tanh(logits / tclip); 0: they stay
    penalty: float = 0.0  # times the mean square of the logits

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"{self.epochs} epochs in batches of {self.batch_size} are not possible; give 1 or more of each")
        if not self.base_lrs or min(self.base_lrs) <= 0:
            raise ValueError(f"the base learning rates are {self.base_lrs}; give one or more numbers above 0")
        if self.views not in ("run", *views.names()):
            raise ValueError(f"there are no views {self.views!r}; give run or one of {', '.join(views.names())}")
        if self.views != "crop" and not self.augment:
            raise ValueError(f"views={self.views} augments and augment=false does not; leave one of them out")
        if self.tclip < 0 or self.penalty < 0:
            raise ValueError(f"tclip {self.tclip:g} and penalty {self.penalty:g} are not possible; give numbers from 0 up")

    @property
    def name(self) -> str:
        """`linear-sgd`, `linear-sgd-cached` without augmentation, and what else is not the default."""
        return titled("linear-sgd", self, short={"augment": "-cached"})

    def describe(self) -> str:
        """`linear (SGD, ...)`"""
        extra = f"{f', tclip {self.tclip:g}' * (self.tclip > 0)}{f', logit penalty {self.penalty:g}' * (self.penalty > 0)}"
        how = f"{self.epochs} epochs, batch {self.batch_size}, lr chosen on held-out train"
        return f"linear (SGD, Nesterov 0.9, {how}, {self._seen('no augmentation')}{extra})"

    def _seen(self, plain: str) -> str:
        if not self.augment:
            return plain
        return {"crop": "random crops and flips", "run": "the views of pre-training"}.get(self.views, f"views {self.views}")

    def settings(self) -> Settings:
        """The optimiser, its sweep, and what it sees."""
        return {
            "solver": "SGD, Nesterov 0.9, cosine, no weight decay",
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "base_lrs": " ".join(f"{v:g}" for v in self.base_lrs),
            "held_out": _HELD_OUT[0],
            "training_views": self._seen("the evaluation view"),
            "tclip": self.tclip,
            "logit_penalty": self.penalty,
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
        batches = augmented(task, batch, steps, self._plan(task)) if self.augment else cached(task, batch, steps)
        weight, bias = train(batches, task.train_y, used, rates, classes=task.classes, steps=steps, tclip=self.tclip, penalty=self.penalty)
        chosen, how = (
            min(range(sweep), key=lambda i: abs(self.base_lrs[i] - _UNCHOSEN)),
            f"fixed: fewer than {splits.FEWEST} labels per class",
        )
        if len(out):
            logits = task.train_x[out] @ weight[:sweep] + bias[:sweep, None]
            chosen, how = int(hits(logits, task.train_y[out]).sum(1).argmax()), f"{len(out)} held out"
        settings: Settings = {"base_lr": self.base_lrs[chosen], "base_lr_chosen": how, "batch": batch, "steps": steps}
        return Prediction((task.test_x @ weight[sweep + chosen] + bias[sweep + chosen]).cpu(), settings)

    def _plan(self, task: Task) -> ViewPlan:
        """What the training images go through."""
        size, channels = task.encoder.images.size, task.train.channels
        if self.views == "crop":
            return spatial(task.train, task.encoder.images)
        if self.views != "run":
            return views.load(self.views, size=size, channels=channels)
        if task.views is None:
            known = ", ".join(views.names())
            raise ValueError(f"views=run: the encoder does not say what views it was trained with; give views= one of {known}")
        name, changes = task.views.get("name"), task.views.get("changes")
        if not isinstance(name, str) or not isinstance(changes, dict):
            raise ValueError(f"views=run: the encoder's description of its views cannot be used ({name!r}); export it again")
        return views.load(name, size=size, channels=channels, **changes)


def _held_out(task: Task) -> Tensor:
    """Indices of the training images to choose the learning rate by; none with too few labels."""
    labels = task.train_y.cpu().numpy()
    if not splits.enough_to_choose(labels):
        return task.train_y[:0]
    share = min(_HELD_OUT[0], _HELD_OUT[1] / len(labels))
    return torch.from_numpy(splits.held_out(labels, share, seed=task.seed, ties=splits.ties_of(task.train))[1]).to(task.train_y.device)


def train(
    batches: Iterator[tuple[Tensor, Tensor]],
    y: Tensor,
    used: Tensor,
    rates: Tensor,
    *,
    classes: int,
    steps: int,
    tclip: float = 0.0,
    penalty: float = 0.0,
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
        residual = _residual(x @ w, one_hot(y[ids], classes), tclip, penalty)  # (P, B, C)
        grad = x.T @ (residual * (mask / mask.sum(1, keepdim=True).clamp_min(1))[:, :, None])
        momentum.mul_(_MOMENTUM).add_(grad)
        lr = rates * 0.5 * (1 + math.cos(math.pi * step / steps))
        w -= lr[:, None, None] * (grad + _MOMENTUM * momentum)
    return state[0][:, :-1], state[0][:, -1]


def _residual(logits: Tensor, labels: Tensor, tclip: float, penalty: float) -> Tensor:
    """The gradient of CE(c, labels) + penalty mean(c^2) by the logits, where c = tclip tanh(logits / tclip), or the logits; (P, B, C)."""
    slope = 1.0
    if tclip:
        squashed = (logits / tclip).tanh()
        logits, slope = tclip * squashed, 1 - squashed.square()  # type: ignore[assignment]
    return (logits.softmax(2) - labels + (2 * penalty / logits.shape[2]) * logits) * slope


def cached(task: Task, batch: int, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The features of the evaluation view, a batch at a time."""
    for step in range(steps):
        ids = ids_at(step, n=len(task.train_y), batch=batch, seed=task.seed).to(task.train_x.device)
        yield ids, task.train_x[ids]


def augmented(task: Task, batch: int, steps: int, plan: ViewPlan | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """The features of augmented images, new ones every epoch, a batch at a time: of random crops and flips, or of the plan's first view."""
    device, input = task.train_x.device, task.encoder.images
    batches = crops(task.train, plan or spatial(task.train, input), input, batch=batch, seed=task.seed, device=device, workers=task.workers)
    with frozen(task.encoder, device):
        for ids, x in batches(steps):
            yield ids, embed(task.encoder, x, task.precision)
