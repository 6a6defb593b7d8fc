"""Barlow Twins: units alike in both views, and unlike each other (Zbontar et al. 2021, arXiv 2103.03230).

Each unit of the projections is standardised over the batch, and units of one view are correlated with those of the other: those on the
diagonal of that matrix are drawn to 1, all others to 0. There are no negative pairs, no second network and no predictor. The loss sums
over the matrix, so that it grows with its size, and the weight of what is off the diagonal belongs to sums as well: fewer units want a
larger one, about as 1/d. The batch is that of all processes. Small batches make the matrix noisy; 256 images or more are better.

Unlike the released code, the rate begins at 0 and ends there (released: at 0.1 % of it).

Expect, with the paper's recipe, ResNet-50, 1000 epochs of ImageNet, batch 2048: 73.2 % linear top-1 (as quoted elsewhere, unverified).

Use it where nothing that follows or predicts is wanted, and memory allows for wide projections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import products
from byol.methods import Base, Curve, StepOutput
from byol.methods._heads import at_least_float32, cosine, mlp, width
from byol.optim import Group, param_groups

RECIPES = {
    "barlow_twins-imagenet-r50-1000": {
        "about": "ResNet-50, 1000 epochs of ImageNet, batch 2048, LARS: 73.2 % linear top-1 (Zbontar et al. 2021)",
        "expected": "73.2 % linear top-1 on ImageNet with 2048 images a pass (as quoted elsewhere: unverified); less with fewer a pass",
        "source": "Barlow Twins' released code, whose rate ends at 0.1 % of its peak",
        "batch": 2048,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 1000, "optimizer": "lars", "lr": 0.2, "bias_rate": 0.024,
            "weight_decay": 1e-6, "momentum": 0.9, "trust_coefficient": 1e-3, "warmup_epochs": 10.0, "hidden": 8192, "dim": 8192,
            "off_diagonal": 0.0051, "views": "torchvision", "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "barlow_twins-cifar10-r18": {
        "about": "ResNet-18, 1000 epochs of CIFAR-10, batch 256, LARS: 92.1 % with the online classifier (solo-learn; it clips the rate)",
        "expected": "92.10 % top-1 of the online classifier on CIFAR-10 (solo-learn, which also clips the LARS rate)",
        "source": "solo-learn's CIFAR recipe, whose loss is a tenth of this one",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 1000, "batch_size": 256, "accumulate": 1, "optimizer": "lars", "lr": 0.3,
            "bias_rate": 0.1, "weight_decay": 1e-3, "momentum": 0.9, "trust_coefficient": 0.02, "warmup_epochs": 10.0, "hidden": 2048,
            "dim": 2048, "off_diagonal": 0.0051, "views": "small",
        },
    },
}  # fmt: skip
PUBLISHED = "Barlow Twins"
AUTO = {"hidden": 1024, "dim": 256, "off_diagonal": 0.02, "lr": 0.005, "bias_rate": 1.0}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of Barlow Twins; the defaults are the paper's for ImageNet."""

    hidden: int = 8192  # units of the two hidden layers of the projector
    dim: int = 8192  # units of the projection
    off_diagonal: float = 0.0051  # weight of what is off the diagonal
    bias_rate: float = 0.024  # rate of biases and normalisation, a factor on that of the weights; the paper's 0.0048 over 0.2

    def __post_init__(self) -> None:
        for name in ("hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("off_diagonal", "bias_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")


class BarlowTwins(Base):
    """Two views in, what their cross-correlation lacks of the identity out."""

    Config = Options
    CURVES = (
        Curve(
            ("diagonal", "off_diagonal_rms"),
            "Cross-correlation",
            "",
            "The mean of what is on the diagonal, which is to become 1, and the root mean square of all else, which is to become 0.",
            guides=((1.0, "alike"), (0.0, "unlike")),
        ),
    )

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.projector = mlp(width(encoder), c.hidden, c.dim, layers=3)
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each -> sum of (1 - C_ii)^2 + weight x sum of C_ij^2."""
        z_v, z_w = (at_least_float32(self.projector(self.encoder(view))) for view in views)
        c = correlation(z_v, z_w)
        on = c.diagonal()
        off = c.square().sum() - on.square().sum()
        loss = (1 - on).square().sum() + self.config.off_diagonal * off
        pairs = max(1, c.numel() - len(on))
        metrics = {
            "diagonal": on.detach().mean(),
            "off_diagonal_rms": (off.detach() / pairs).clamp_min(0).sqrt(),
            "positive_similarity": cosine(z_v.detach(), z_w.detach()),
        }
        return StepOutput(loss, (z_v.detach(), z_w.detach()), metrics)

    def param_groups(self) -> list[Group]:
        """Those of the encoder and of the projector; biases and normalisation with their own rate."""
        return [Group(**{**g, "lr_scale": self.config.bias_rate}) if g["exclude"] else g for g in param_groups(self)]

    def risks(self) -> dict[str, str]:
        """Units that may all say the same."""
        return {"nothing keeps units apart (off_diagonal 0)": "off_diagonal=0.0051"} if self.config.off_diagonal == 0 else {}


def correlation(z_v: Tensor, z_w: Tensor) -> Tensor:
    """(B, D), (B, D) -> (D, D): of units of one view with units of the other, over the images of all processes."""
    return dist.average(products(standardised(z_v).T, standardised(z_w).T) / len(z_v))


def standardised(z: Tensor) -> Tensor:
    """(B, D) -> (B, D): each unit of mean 0 and deviation 1 over the images of all processes, as batch norm has it."""
    centred = z - dist.average(z.mean(0))
    return centred * torch.rsqrt(dist.average(centred.square().mean(0)) + 1e-5)


METHOD = BarlowTwins
