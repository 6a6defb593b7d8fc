"""Supervised learning by cross-entropy: what labels would have given, the baseline of the others.

One view, a linear classifier on the features, and the labels of the data; images without a label do not count.

Expect 76.4 % top-1 on ImageNet with a ResNet-50, as BYOL's own supervised networks have (Grill et al. 2020, table 1), with label
smoothing 0.1, weight decay 1e-4, RandAugment and at most 200 epochs.

Use it to see what labels would have given.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from byol import dist
from byol.methods import Base, StepOutput, View
from byol.methods._heads import at_least_float32, width

RECIPES = {
    "supervised-cifar10-r18": {
        "about": "ResNet-18, batch 128, 200 epochs of CIFAR-10 with SGD, from labels; no number of its own was looked up",
        "expected": "none looked up: the usual recipe of ResNets on CIFAR-10",
        "source": "the usual recipe of ResNets on CIFAR-10 (He et al. 2015: batch 128, momentum 0.9), with a cosine",
        "batch": 128,
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "optimizer": "sgd", "lr": 0.2, "weight_decay": 5e-4,
            "momentum": 0.9, "warmup_epochs": 5.0, "smoothing": 0.0, "views": "crop", "min_area": 0.25,
        },
    },
}  # fmt: skip
PUBLISHED = "Supervised"
AUTO = {"views": "crop", "weight_decay": 5e-4}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of supervised learning."""

    classes: int = 0  # of the labels
    smoothing: float = 0.1  # of the labels, as in the paper's supervised networks

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(
                f"classes is {self.classes}, and labels have to tell 2 or more apart; give labelled data, e.g. folders by class"
            )
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing is {self.smoothing}; give a number from 0 to below 1")


class Supervised(Base):
    """One view and labels in, the cross-entropy out."""

    Config = Options
    VIEWS = (View(0),)
    ROWS = ("labels",)

    def __init__(self, encoder: nn.Module, config: Options) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.classifier = nn.Linear(width(encoder), config.classes)
        self.train()

    def forward(self, views: tuple[Tensor, ...], *, labels: Tensor) -> StepOutput:
        """One view, (B, C, S, S), and labels, (B,), -1 for those that are not known -> the mean over those that are."""
        y = self.encoder(views[0])
        loss, right = cross_entropy(at_least_float32(self.classifier(y)), labels, self.config.smoothing)
        return StepOutput(loss, (y.detach(),), {"train_accuracy": right})

    def risks(self) -> dict[str, str]:
        """There are none: the labels tell images apart."""
        return {}


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """(B, C), (B,) int64, -1 where unknown -> the mean over those of all processes that are known, 0 if none is; how many are right."""
    each = nn.functional.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=smoothing, reduction="sum")
    known = labels >= 0
    # Of several processes, each divides by its share of those known to all, so that the mean over processes is the mean over images.
    count = dist.mean(known.sum().to(logits.dtype)).clamp_min(1e-6)
    return each / count, ((logits.detach().argmax(1) == labels) & known).sum() / count


METHOD = Supervised
