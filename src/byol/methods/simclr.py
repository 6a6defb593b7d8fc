"""SimCLR: contrast within the batch (Chen et al. 2020, arXiv 2002.05709).

The two views of an image attract each other and repel the 2B - 2 views of the other images of the batch: NT-Xent, the cross-entropy of
finding the other view among them. Negatives come from all processes, with gradients on both sides, but not from other passes of an
accumulated update. The loss is the paper's, the mean over all 2B views; the released code sums the two directions, so that its loss is
twice this one, which LARS makes up for except in biases and normalisation.

Expect, with the paper's recipe, ResNet-50, 1000 epochs of ImageNet, batch 4096: 69.3 % linear top-1 (69.1 % released).

Use it where large batches fit and collapse must be impossible; smaller batches and milder colour changes cost it more than BYOL (BYOL's
own comparison, 300 epochs: 67.9 % with batch 4096, 64.3 % with 256; BYOL 72.5 and 71.8 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from byol.losses import objective
from byol.methods import Base, StepOutput
from byol.methods._heads import at_least_float32, cosine, mlp, width

RECIPES = {
    "simclr-imagenet-r50-1000": {
        "about": "ResNet-50, 1000 epochs of ImageNet, batch 4096, LARS: 69.3 % linear top-1 (Chen et al. 2020)",
        "expected": "69.3 % linear top-1 on ImageNet with 4096 images a pass (Chen et al. 2020; 69.1 % released); less with fewer a pass",
        "source": "SimCLR's released code, whose loss is twice this one; an earlier README of it has weight decay 1e-6",
        "batch": 4096,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 1000, "optimizer": "lars", "lr": 0.3, "weight_decay": 1e-4,
            "momentum": 0.9, "trust_coefficient": 1e-3, "warmup_epochs": 10.0, "hidden": 2048, "dim": 128, "temperature": 0.1,
            "views": "torchvision", "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur": 0.5, "solarize": 0.0,
            "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "simclr-cifar10-r18": {
        "about": "ResNet-18, 1000 epochs of CIFAR-10, batch 512, LARS: about 91 % linear top-1 (released README)",
        "expected": "about 91 % linear top-1 on CIFAR-10 (SimCLR's released README)",
        "source": "SimCLR's released README, whose loss is twice this one; an earlier version of it has weight decay 1e-6",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 1000, "batch_size": 512, "accumulate": 1, "optimizer": "lars", "lr": 1.0,
            "weight_decay": 1e-4, "momentum": 0.9, "trust_coefficient": 1e-3, "warmup_epochs": 10.0, "hidden": 512, "dim": 128,
            "temperature": 0.5, "views": "small", "saturation": 0.4, "solarize": 0.0,
        },
    },
    "simclr-cifar10-r18-sgd": {
        "about": "ResNet-18, 200 epochs of CIFAR-10, batch 128, SGD: 84.7 % kNN (lightly's benchmark)",
        "expected": "84.7 % kNN (k=200, T=0.1) on CIFAR-10 (lightly's benchmark; 82.2 % in another version of its table)",
        "source": "lightly's CIFAR-10 benchmark",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "batch_size": 128, "accumulate": 1, "optimizer": "sgd", "lr": 0.12,
            "weight_decay": 5e-4, "momentum": 0.9, "warmup_epochs": 0.0, "hidden": 512, "dim": 128, "temperature": 0.5,
            "views": "small", "saturation": 0.4, "solarize": 0.0,
        },
    },
}  # fmt: skip
PUBLISHED = "SimCLR"
AUTO = {"hidden": 1024, "dim": 128, "temperature": 0.2, "lr": 0.2}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of SimCLR; the defaults are the paper's for ImageNet."""

    hidden: int = 2048  # units of the hidden layer of the projection head
    dim: int = 128  # units of the projection
    temperature: float = 0.1  # of the similarities; the paper has 0.5 for CIFAR-10

    def __post_init__(self) -> None:
        for name in ("hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; give a number above 0")


class SimCLR(Base):
    """Two views in, NT-Xent out."""

    Config = Options

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        scaled = nn.BatchNorm1d(c.dim)
        scaled.bias.requires_grad_(False)  # it stays 0: the last one scales and does not shift, as in the released code
        self.projector = nn.Sequential(*mlp(width(encoder), c.hidden, c.dim), scaled)
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each -> NT-Xent, the mean over their 2B images; ln(2B - 1) where all projections are one."""
        # Each view passes on its own, as with the other methods here; in the released code both share their statistics.
        z_v, z_w = (at_least_float32(self.projector(self.encoder(view))) for view in views)
        t = self.config.temperature
        # The general objective is 4 + 4 T x NT-Xent where predictions and targets are the projections (byol.losses).
        loss = (objective((z_v, z_w), (z_v, z_w), alpha=t, beta=1.0) - 4) / (4 * t)
        return StepOutput(loss, (z_v.detach(), z_w.detach()), {"positive_similarity": cosine(z_v.detach(), z_w.detach())})

    def risks(self) -> dict[str, str]:
        """There are none: negative pairs keep images apart."""
        return {}


METHOD = SimCLR
