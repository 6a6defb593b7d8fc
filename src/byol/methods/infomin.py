"""InfoMin Aug: MoCo v2 with views that share less, and a jigsaw (Tian et al. 2020, arXiv 2005.10243).

Two views should share what the task needs and nothing else: of views too alike a network learns what is easy, of views too different
nothing. So views are changed more strongly than MoCo's, by two operations of RandAugment and, in its recipes, by colours of twice the
strength; and beside the query nine patches of a third, mild view, in random order, have to find the same key in the same queue. The patches
pass through the network of the queries on their own and have a head of their own, as in PIRL. `patch_weight=0` is MoCo v2, with two views.

The released code draws images anew over its processes before the keys are made (shuffling BN): see `moco`. The view of the jigsaw is a
crop of 80 % or more here, of 60 % there (`--set view3.min_area=0.6`). The paper's other half,
views that a flow learns, is `infomin_flow`.

Expect, with a ResNet-50 and batch 256, 70.1 % linear top-1 on ImageNet after 200 epochs, 73.0 % after 800 (PyContrast's README).

Use it to see what stronger views and patches add to MoCo v2; the encoder has to take images of any size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from byol.encoders import Encoder
from byol.losses import normalise
from byol.methods import BOTH, Curve, StepOutput, View, moco, pirl
from byol.methods._draws import uniforms
from byol.methods._heads import at_least_float32, mlp, width

RECIPES = {
    "infomin-imagenet-r50-200": {
        "about": "InfoMin Aug, ResNet-50, 200 epochs of ImageNet, batch 256, SGD: 70.1 % linear top-1 (PyContrast's README)",
        "expected": "70.1 % linear top-1 on ImageNet, 73.0 % with 800 epochs (PyContrast's README)",
        "source": "PyContrast's released code; there keys are shuffled over GPUs, and the jigsaw is of a crop of 60 % or more",
        "batch": 256,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 200, "optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-4,
            "momentum": 0.9, "warmup_epochs": 0.0, "hidden": 2048, "dim": 128, "queue": 65536, "temperature": 0.15, "tau": 0.999,
            "shuffle": 8, "patch_weight": 0.5, "cell": 85, "patch": 64, "views": "torchvision", "min_area": 0.2,
            "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur": 0.5, "kernel": 23, "solarize": 0.0,
            "operations": 2, "magnitude": 10.0, "magnitude_spread": 0.5, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "infomin-cifar10-r18": {
        "about": "InfoMin Aug, ResNet-18, 200 epochs of CIFAR-10, batch 128, SGD; no number of its own was looked up",
        "expected": "none looked up: lightly's recipe of MoCo v2 for CIFAR-10, with InfoMin's views and patches of 8 px",
        "source": "lightly's CIFAR-10 benchmark; colours and operations as in PyContrast's released code",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "batch_size": 128, "accumulate": 1, "optimizer": "sgd", "lr": 0.12,
            "weight_decay": 5e-4, "momentum": 0.9, "warmup_epochs": 0.0, "hidden": 512, "dim": 128, "queue": 4096, "temperature": 0.15,
            "tau": 0.99, "symmetric": True, "shuffle": 8, "patch_weight": 0.5, "cell": 11, "patch": 8, "views": "small", "min_area": 0.2,
            "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "solarize": 0.0,
            "operations": 2, "magnitude": 10.0, "magnitude_spread": 0.5,
        },
    },
}  # fmt: skip
PUBLISHED = "InfoMin"
MODALITY = "image"
AUTO = {"hidden": 1024, "dim": 128, "queue": 1024, "tau": 0.99, "symmetric": True, "operations": 2, "lr": 0.2}


@dataclass(frozen=True, kw_only=True)
class Options(moco.Options):
    """The options of InfoMin Aug; the defaults are the released ones for ImageNet."""

    temperature: float = 0.15  # of the similarities
    patch_weight: float = 0.5  # of the jigsaw's loss; the query's own has the rest; 0: there is none
    cell: int = 0  # pixels, a side of the jigsaw's cells; 0: a third of the view
    patch: int = 0  # pixels, a side of what is cut from a cell; 0: 64/85 of it

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.patch_weight <= 1:
            raise ValueError(f"patch_weight is {self.patch_weight}; give a number from 0 (MoCo v2) to 1")
        for name in ("cell", "patch"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more, or 0 for the default")


def _views(options: Options) -> tuple[View, ...]:
    """The queries', the keys', and that of the jigsaw."""
    return (*BOTH, View(0, mild=True)) if options.patch_weight else BOTH


class InfoMin(moco.MoCo):
    """Three views in, the weighted cross-entropy of the query and the jigsaw finding the key out."""

    Config = Options
    VIEWS = staticmethod(_views)
    CURVES = (Curve(("key_found", "patches_found"), "Key found", "share", "Queries and jigsaws most like their own key.", True),)

    config: Options

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        c = config or Options()
        super().__init__(encoder, c)
        if not c.patch_weight:
            return
        if isinstance(encoder, Encoder):
            pirl.takes_patches(encoder, pirl.sides(encoder.images.size, c.cell, c.patch)[1], "infomin")
        self.patch_projector = mlp(width(encoder), c.hidden, c.dim, norm="none", output_bias=True)
        self.jigsaw = nn.Linear(pirl.GRID**2 * c.dim, c.dim)
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Queries, keys and the view of the jigsaw, (B, C, S, S) each -> (1 - patch_weight) MoCo's loss + patch_weight the jigsaw's."""
        v, w, *wholes = views
        draws = [uniforms(len(whole), 3 * pirl.GRID**2, whole.device) for whole in wholes]  # before a pass draws numbers of its own
        known = self.queue.clone()  # which the keys of this pass enter
        out = super().forward((v, w))
        weight = self.config.patch_weight
        if not weight:
            return out
        key = out.projections[1]
        q = self._of_patches(wholes[0], draws[0])
        logits = self._logits(q, key, known)
        loss = nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))
        right = (logits.detach()[:, 0] >= logits.detach().amax(1)).to(logits.dtype).mean()
        loss = (1 - weight) * out.loss + weight * loss
        return StepOutput(loss, (*out.projections, q.detach()), {**out.metrics, "patches_found": right})

    def _of_patches(self, x: Tensor, u: Tensor) -> Tensor:
        """(B, C, S, S), (B, 27) -> (B, D) of length 1: all patches through the encoder, put together in random order."""
        count = pirl.GRID**2
        cell, patch = pirl.sides(x.shape[-1], self.config.cell, self.config.patch)
        parts = pirl.cut(x, u[:, : 2 * count].view(-1, count, 2), cell=cell, patch=patch)
        made = self.patch_projector(self.encoder(parts.flatten(0, 1))).view(len(x), count, -1)
        order = u[:, 2 * count :].argsort(dim=1, stable=True)
        shuffled = made.gather(1, order[:, :, None].expand_as(made))
        return normalise(at_least_float32(self.jigsaw(shuffled.flatten(1))))


METHOD = InfoMin
