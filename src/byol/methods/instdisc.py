"""InstDisc: every image a class of its own, kept in a bank (Wu et al. 2018, arXiv 1805.01978).

One view of an image has to find, among rows of other images, the row that holds what the network made of it in earlier epochs: so
invariance comes from changes that differ from epoch to epoch. The rows are the bank of the data, a vector for each sample; negatives
are drawn from it and told from noise (NCE) with a constant Z, estimated by the first batch and kept; `negatives=0` is a softmax over all
rows, as the released code has it for CIFAR-10. The paper's proximal term, prox |v - row|^2, is an option: the released code has none,
and the paper's weight of it was not found (unverified).

On few images NCE with the published values spoils the features: on the embedded digits, after 10 epochs, 63.8 % by nearest neighbours where
an untrained network has 92.5 % and the softmax reaches 96.4 %. Recipe `auto` takes the softmax, and a batch norm after the head
(`projection_norm`), without which all vectors begin so alike that a short run does not get away from there.

The bank takes 4 x dim bytes a sample (5 MB for 10,000 samples, 656 MB for ImageNet), in each checkpoint as well.

Expect, with a ResNet-50 and 200 epochs of ImageNet, 54.0 % linear top-1 (as PIRL's tables have it) and 46.8 % by nearest neighbours
(released README, features of the head; those of the encoder are not comparable).

Use it as the simplest of the contrastive kind: one pass a step, at a third of BYOL's cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from byol.losses import normalise
from byol.methods import Base, Curve, StepOutput, View
from byol.methods._bank import Bank, BankOptions, head
from byol.methods._heads import at_least_float32, width

RECIPES = {
    "instdisc-imagenet-r50-200": {
        "about": "ResNet-50, 200 epochs of ImageNet, batch 256, SGD: 54.0 % linear top-1 (PIRL's tables), 46.8 % kNN (released README)",
        "expected": "54.0 % linear top-1 on ImageNet (as PIRL's tables have it); 46.8 % kNN on the head's features (released README), "
        "which `byol evaluate` does not look at",
        "source": "InstDisc's released code; its rate falls tenfold at epochs 120 and 160, here along a cosine",
        "batch": 256,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 200, "optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-4,
            "momentum": 0.9, "warmup_epochs": 0.0, "dim": 128, "negatives": 4096, "temperature": 0.07, "bank_momentum": 0.5,
            "views": "torchvision", "min_area": 0.2, "jitter": 1.0, "saturation": 0.4, "hue": 0.4, "blur": 0.0, "solarize": 0.0,
            "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "instdisc-cifar10-r18": {
        "about": "ResNet-18, 200 epochs of CIFAR-10, batch 128, full softmax: 80.8 % kNN on the head's features (from memory, unverified)",
        "expected": "80.8 % kNN on CIFAR-10, on the head's features, which `byol evaluate` does not look at (from memory: unverified)",
        "source": "InstDisc's released code; its rate falls tenfold at epochs 120 and 160, here along a cosine",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "batch_size": 128, "accumulate": 1, "optimizer": "sgd", "lr": 0.06,
            "weight_decay": 5e-4, "momentum": 0.9, "warmup_epochs": 0.0, "dim": 128, "negatives": 0, "temperature": 0.1,
            "bank_momentum": 0.5, "views": "small", "min_area": 0.2, "jitter": 1.0, "saturation": 0.4, "hue": 0.4, "solarize": 0.0,
            "flip": 0.0,
        },
    },
}  # fmt: skip
PUBLISHED = "InstDisc"
AUTO = {"dim": 128, "projection_norm": "batch", "negatives": 0, "temperature": 0.1, "lr": 0.1}


@dataclass(frozen=True, kw_only=True)
class Options(BankOptions):
    """The options of InstDisc; the defaults are the released ones for ImageNet."""

    prox: float = 0.0  # weight of |v - row|^2; the paper's is unverified, the released code has none

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.prox < float("inf"):
            raise ValueError(f"prox is {self.prox}; give 0 or more")


class InstDisc(Base):
    """One view and which sample it is of in, the loss of finding that sample's row out; `after_step` writes the rows."""

    Config = Options
    VIEWS = (View(0),)
    ROWS = ("index",)
    CURVES = (
        Curve(("own_found",), "Own row found", "share", "Images more like their own row of the bank than all negatives.", True),
        Curve(("own_similarity",), "Own row", "cosine", "Of images with their own rows, written in the epoch before.", True),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = head(width(encoder), config)
        self.bank = Bank(config, unit=False)
        self.train()

    def forward(self, views: tuple[Tensor, ...], *, index: Tensor) -> StepOutput:
        """One view, (B, C, S, S), and the samples, (B,) int64 -> the loss, mean over B."""
        columns = self.bank.columns(index)
        v = normalise(at_least_float32(self.projector(self.encoder(views[0]))))
        found = self.bank.contrast(v, index, columns)
        loss = found.loss
        if self.config.prox:
            loss = loss + self.config.prox * (v - self.bank.rows[index]).square().sum(1).mean()
        self.bank.keep(index, v, self.encoder)
        return StepOutput(loss, (v.detach(),), {"own_found": found.share, "own_similarity": found.similarity})

    def after_step(self, progress: float) -> None:
        """Write the rows of the samples that the update saw."""
        self.bank.write()

    def risks(self) -> dict[str, str]:
        """There are none: negatives keep images apart."""
        return {}


METHOD = InstDisc
