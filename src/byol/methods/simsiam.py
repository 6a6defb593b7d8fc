"""SimSiam: BYOL without a moving average (Chen & He 2020, arXiv 2011.10566).

A predictor maps the projection of one view to that of the other, which takes no gradient; the same encoder and projector serve both
sides. What keeps it from collapsing is the stop-gradient together with the predictor, whose learning rate stays at its peak. The loss is
the paper's -1/2 (cos + cos), in -1 to 1: a quarter of BYOL's and shifted, so that a rate for BYOL's loss is four times as large here for
the same step, and weight decay a quarter. Unlike the released code, biases and normalisation do not decay.

Expect, with the paper's recipe, ResNet-50, 100 epochs of ImageNet, batch 256: 68.3 % linear top-1.

Use it for the least time among methods without negative pairs, and with large encoders the least memory: there is no second network,
but the heads are wider. Short runs are where it falls behind BYOL (lightly's benchmark on CIFAR-10, kNN: 81.9 against 86.9 % after 200
epochs, 90.4 against 91.0 % after 800).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from byol.losses import normalise
from byol.methods import Base, StepOutput
from byol.methods._heads import at_least_float32, mlp, width
from byol.optim import Group, param_groups

RECIPES = {
    "simsiam-imagenet-r50-100": {
        "about": "ResNet-50, 100 epochs of ImageNet, batch 256, SGD: 68.3 % linear top-1 (Chen & He 2020)",
        "expected": "68.3 % linear top-1 on ImageNet (Chen & He 2020, batch 256; 68.1 % with batch 512)",
        "source": "SimSiam's released code; there biases and normalisation decay as well, and torchvision makes the views",
        "batch": 256,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 100, "optimizer": "sgd", "lr": 0.05, "weight_decay": 1e-4,
            "momentum": 0.9, "warmup_epochs": 0.0, "hidden": 2048, "dim": 2048, "bottleneck": 512, "projector_layers": 3,
            "views": "torchvision", "min_area": 0.2, "saturation": 0.4, "blur": 0.5, "solarize": 0.0,
            "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "simsiam-cifar10-r18": {
        "about": "ResNet-18, 800 epochs of CIFAR-10, batch 512, SGD: 91.8 % linear top-1 (Chen & He 2020; unverified)",
        "expected": "91.8 % linear top-1 on CIFAR-10 (Chen & He 2020, appendix; unverified)",
        "source": "Chen & He 2020, appendix on CIFAR-10 (unverified)",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 800, "batch_size": 512, "accumulate": 1, "optimizer": "sgd", "lr": 0.03,
            "weight_decay": 5e-4, "momentum": 0.9, "warmup_epochs": 0.0, "hidden": 2048, "dim": 2048, "bottleneck": 512,
            "projector_layers": 2, "views": "small", "min_area": 0.2, "saturation": 0.4, "solarize": 0.0,
        },
    },
    "simsiam-cifar10-r18-200": {
        "about": "ResNet-18, 200 epochs of CIFAR-10, batch 128, SGD: 81.9 % kNN (lightly's benchmark)",
        "expected": "81.9 % kNN (k=200, T=0.1) on CIFAR-10 (lightly's benchmark; 77.9 % in another version of its table)",
        "source": "lightly's CIFAR-10 benchmark, whose predictor's rate follows the cosine",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "batch_size": 128, "accumulate": 1, "optimizer": "sgd", "lr": 0.12,
            "weight_decay": 5e-4, "momentum": 0.9, "warmup_epochs": 0.0, "hidden": 2048, "dim": 2048, "bottleneck": 512,
            "projector_layers": 2, "constant_predictor_rate": False, "views": "small", "saturation": 0.4, "solarize": 0.0,
        },
    },
}  # fmt: skip
PUBLISHED = "SimSiam"
AUTO = {"hidden": 1024, "dim": 1024, "bottleneck": 256, "projector_layers": 2}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of SimSiam; the defaults are the paper's for ImageNet."""

    hidden: int = 2048  # units of the hidden layers of the projector
    dim: int = 2048  # units of the projection
    bottleneck: int = 512  # units of the predictor's hidden layer
    projector_layers: int = 3  # linear layers; the paper has 2 for CIFAR-10
    constant_predictor_rate: bool = True  # the predictor learns at the peak rate to the end (released: --fix-pred-lr)
    # What the paper's ablations take away; both collapse.
    predictor: Literal["mlp", "none"] = "mlp"
    stop_gradient: bool = True

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "bottleneck", "projector_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")


class SimSiam(Base):
    """Two views in, the symmetric loss out."""

    Config = Options

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.projector = mlp(width(encoder), c.hidden, c.dim, output_norm=True, layers=c.projector_layers)
        self.predictor = mlp(c.dim, c.bottleneck, c.dim, output_bias=True) if c.predictor == "mlp" else nn.Identity()
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views, (B, C, S, S) each -> the mean of -cos over both directions, in -1 to 1."""
        # Each view passes on its own, so that batch norm sees one view at a time, as in the released code.
        z = [self.projector(self.encoder(view)) for view in views]
        p = [normalise(at_least_float32(self.predictor(x))) for x in z]
        targets = [normalise(at_least_float32(x.detach() if self.config.stop_gradient else x)) for x in z]
        cosines = (p[0] * targets[1]).sum(1).mean() + (p[1] * targets[0]).sum(1).mean()
        return StepOutput(-cosines / 2, (z[0].detach(), z[1].detach()), {"predictor_cosine": cosines.detach() / 2})

    def param_groups(self) -> list[Group]:
        """All parameters; those of the predictor keep the peak rate."""
        if not self.config.constant_predictor_rate:
            return param_groups(self)
        fixed = [Group(**{**group, "constant": True}) for group in param_groups(self.predictor)]
        return [*param_groups(self.encoder), *param_groups(self.projector), *fixed]

    def risks(self) -> dict[str, str]:
        """Without its predictor or the stop-gradient it collapses (paper, section 4)."""
        found: dict[str, str] = {}
        if self.config.predictor == "none":
            found["there is no predictor"] = "predictor=mlp"
        if not self.config.stop_gradient:
            found["the gradient reaches both sides"] = "stop_gradient=true"
        return found


METHOD = SimSiam
