"""VICReg: alike views, units that vary, units that say different things (Bardes et al. 2021, arXiv 2105.04906).

Three terms: the squared distance of the projections of both views; how far the deviation of each unit over the batch is below 1; and the
squared covariances of different units. The second is what keeps it from collapsing, the third what spreads images over all dimensions.
The distance is the mean over images and units: that is what the coefficients 25, 25 and 1 belong to, in the released code. Variances and
covariances are of the batch of all processes, with gradients to all of its images; those of an accumulated update are of each pass.

Unlike the released code, the rate begins at 0 and ends there.

Expect, with the paper's recipe, ResNet-50, 1000 epochs of ImageNet, batch 2048: 73.2 % linear top-1 (as quoted elsewhere, unverified).

Use it where collapse has to be seen and steered by a term of its own, or where the two views need different networks later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from byol import dist
from byol.losses import products
from byol.methods import Base, Curve, StepOutput
from byol.methods._heads import at_least_float32, cosine, mlp, width

RECIPES = {
    "vicreg-imagenet-r50-1000": {
        "about": "ResNet-50, 1000 epochs of ImageNet, batch 2048, LARS: 73.2 % linear top-1 (Bardes et al. 2021)",
        "expected": "73.2 % linear top-1 on ImageNet with 2048 images a pass (as quoted elsewhere: unverified); less with fewer a pass",
        "source": "VICReg's released code; its views are taken to be BYOL's (unverified)",
        "batch": 2048,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 1000, "optimizer": "lars", "lr": 0.2, "weight_decay": 1e-6,
            "momentum": 0.9, "trust_coefficient": 1e-3, "warmup_epochs": 10.0, "hidden": 8192, "dim": 8192, "invariance": 25.0,
            "variance": 25.0, "covariance": 1.0, "views": "torchvision", "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "vicreg-cifar10-r18": {
        "about": "ResNet-18, 1000 epochs of CIFAR-10, batch 256, LARS: 92.1 % with the online classifier (solo-learn; it clips the rate)",
        "expected": "92.07 % top-1 of the online classifier on CIFAR-10 (solo-learn, which also clips the LARS rate)",
        "source": "solo-learn's CIFAR recipe",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 1000, "batch_size": 256, "accumulate": 1, "optimizer": "lars", "lr": 0.3,
            "weight_decay": 1e-4, "momentum": 0.9, "trust_coefficient": 0.02, "warmup_epochs": 10.0, "hidden": 2048, "dim": 2048,
            "invariance": 25.0, "variance": 25.0, "covariance": 1.0, "views": "small", "min_area": 0.2, "solarize": 0.1,
        },
    },
}  # fmt: skip
PUBLISHED = "VICReg"
AUTO = {"hidden": 1024, "dim": 1024, "lr": 0.02}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of VICReg; the defaults are the paper's for ImageNet."""

    hidden: int = 8192  # units of the two hidden layers of the expander
    dim: int = 8192  # units of the projection
    invariance: float = 25.0  # weight of the distance of both views
    variance: float = 25.0  # weight of what deviations lack of 1
    covariance: float = 1.0  # weight of the squared covariances

    def __post_init__(self) -> None:
        for name in ("hidden", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("invariance", "variance", "covariance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")


class VICReg(Base):
    """Two views in, the weighted sum of invariance, variance and covariance out."""

    Config = Options
    CURVES = (
        Curve(
            ("invariance_term", "variance_term", "covariance_term"),
            "The three terms",
            "before their weights",
            "The mean squared distance of both views, what deviations lack of 1 (0.99: all projections are one), the squared covariances.",
            zero=True,
        ),
    )

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.projector = mlp(width(encoder), c.hidden, c.dim, layers=3)
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each -> the sum of the three terms."""
        c = self.config
        z = [at_least_float32(self.projector(self.encoder(view))) for view in views]
        invariance = (z[0] - z[1]).square().mean()
        (variance_v, covariance_v), (variance_w, covariance_w) = (spread_terms(x) for x in z)
        variance, covariance = (variance_v + variance_w) / 2, covariance_v + covariance_w
        loss = c.invariance * invariance + c.variance * variance + c.covariance * covariance
        metrics = {"invariance_term": invariance, "variance_term": variance, "covariance_term": covariance}
        found = {key: value.detach() for key, value in metrics.items()}
        found["positive_similarity"] = cosine(z[0].detach(), z[1].detach())
        return StepOutput(loss, (z[0].detach(), z[1].detach()), found)

    def risks(self) -> dict[str, str]:
        """Without its variance term it collapses, without its covariance term to few dimensions (paper, ablations)."""
        found: dict[str, str] = {}
        if self.config.variance == 0:
            found["nothing keeps images apart (variance 0)"] = "variance=25"
        if self.config.covariance == 0:
            found["nothing keeps units apart (covariance 0)"] = "covariance=1"
        return found


def spread_terms(z: Tensor) -> tuple[Tensor, Tensor]:
    """(B, D) -> what deviations lack of 1, mean over units; squared covariances of different units, summed, over D: () each."""
    images = len(z) * dist.size()
    centred = z - dist.average(z.mean(0))
    # Unbiased, over the images of all processes, each of which has the same number of them.
    covariances = dist.average(products(centred.T, centred.T) / len(z)) * (images / (images - 1))
    variances = covariances.diagonal()
    lacking = (1 - (variances + 1e-4).sqrt()).relu().mean()
    return lacking, (covariances.square().sum() - variances.square().sum()) / z.shape[1]


METHOD = VICReg
