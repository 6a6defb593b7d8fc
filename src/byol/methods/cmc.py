"""CMC: the lightness and the colours of an image are one thing, with two banks (Tian et al. 2019, arXiv 1906.05849).

An image is split in CIE Lab: one network sees L, the other ab, of the same crop. What one of them makes of an image has to find, among
rows of other images, the row of what the *other* made of it, and the other way round: compared with rows of its own kind it would be
InstDisc. Both banks share the negatives' indices; each has a Z of its own. `negatives_from=batch` needs no bank: cross-entropy among the
images of the batch, both directions.

The encoder that is trained and kept takes RGB, splits it and puts the features of both networks side by side: `lab:NAME` of the
catalogue, two networks of half of NAME's channels. `--encoder resnet18` is `lab:resnet18` here; `--encoder lab:whole:resnet18` has two
whole ones, and is to be compared with networks of twice the size. Both sides see the colours as the views leave them: a grey view has
none, so graying is off in these recipes and in `auto`, and should stay so.

The banks take 8 x dim bytes a sample (10 MB for 10,000 samples, 1.3 GB for ImageNet), in each checkpoint as well.

Expect, with two ResNet-50 of half the channels and 240 epochs of ImageNet, 58.6 % linear top-1 (released README); 66.2 % with a ResNet-50
in BYOL's comparison, of a later version with stronger views.

Use it where views should come from what is measured, such as colours and lightness, and not from distortions; colour images alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol import dist
from byol.encoders import Encoder
from byol.losses import normalise, products
from byol.methods import Base, Curve, StepOutput, View
from byol.methods._bank import Bank, BankOptions, head
from byol.methods._heads import at_least_float32, width

RECIPES = {
    "cmc-imagenet-r50-240": {
        "about": "Two ResNet-50 of half the channels, 240 epochs of ImageNet, batch 128, SGD: 58.6 % linear top-1 (released README)",
        "expected": "58.6 % linear top-1 on ImageNet (CMC's released README, {L, ab} without RandAugment)",
        "source": "CMC's released code; rate in steps there, along a cosine here; stems are halved as well here",
        "batch": 128,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 240, "optimizer": "sgd", "lr": 0.06, "weight_decay": 1e-4,
            "momentum": 0.9, "warmup_epochs": 0.0, "dim": 128, "negatives": 16384, "temperature": 0.07, "bank_momentum": 0.5,
            "views": "crop", "gray": 0.0, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "cmc-cifar10-r18": {
        "about": "Two ResNet-18 of half the channels, 200 epochs of CIFAR-10, batch 128, SGD; no number of its own was looked up",
        "expected": "none looked up: the released values for ImageNet, colours as in PyContrast, the negatives all of the bank",
        "source": "CMC's released code and PyContrast's colours",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "batch_size": 128, "accumulate": 1, "optimizer": "sgd", "lr": 0.06,
            "weight_decay": 5e-4, "momentum": 0.9, "warmup_epochs": 0.0, "dim": 128, "negatives": 0, "temperature": 0.1,
            "bank_momentum": 0.5, "views": "small", "min_area": 0.2, "saturation": 0.4, "gray": 0.0, "solarize": 0.0,
        },
    },
}  # fmt: skip
MODALITY = "image"
PUBLISHED = "CMC"
AUTO = {"dim": 128, "projection_norm": "batch", "negatives": 0, "temperature": 0.1, "gray": 0.0, "lr": 0.1}


@dataclass(frozen=True, kw_only=True)
class Options(BankOptions):
    """The options of CMC; the defaults are the released ones for ImageNet."""

    negatives: int = 16384  # rows drawn for every image, with replacement; 0: all rows, in a softmax
    negatives_from: Literal["bank", "batch"] = "bank"  # batch: those of the other images of the batch, without a bank

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives_from not in ("bank", "batch"):
            raise ValueError(f"negatives_from is {self.negatives_from!r}; give bank or batch")

    def banks(self) -> bool:
        return self.negatives_from == "bank"


class CMC(Base):
    """One view and which sample it is of in, the loss of both halves finding each other out; `after_step` writes the rows."""

    Config = Options
    ENCODER = "lab"
    VIEWS = (View(0),)
    ROWS = ("index",)
    CURVES = (
        Curve(("first_found", "second_found"), "Other half found", "share", "Images whose lightness finds their colours, and back.", True),
        Curve(("halves_cosine",), "Halves", "cosine", "Of lightness and colours of the same image.", True),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options) -> None:
        super().__init__()
        c = self.config = config
        self.encoder = encoder
        half = width(encoder) // 2
        self.first_projector, self.second_projector = head(half, c), head(half, c)
        _halves(encoder)  # refuses one that has none
        if c.banks():
            self.first_bank, self.second_bank = Bank(c, unit=False), Bank(c, unit=False)
        self.train()

    def forward(self, views: tuple[Tensor, ...], *, index: Tensor) -> StepOutput:
        """One view, (B, 3, S, S), and the samples, (B,) int64 -> the sum of both losses."""
        c = self.config
        columns = self.first_bank.columns(index) if c.banks() else None
        first, second = _halves(self.encoder)(views[0])
        v = normalise(at_least_float32(self.first_projector(first)))
        w = normalise(at_least_float32(self.second_projector(second)))
        if c.banks():
            # Across: with its own bank each half would be InstDisc.
            one, two = self.second_bank.contrast(v, index, columns), self.first_bank.contrast(w, index, columns)
            self.first_bank.keep(index, v, self.encoder)
            self.second_bank.keep(index, w, self.encoder)
            loss, found = one.loss + two.loss, (one.share, two.share)
        else:
            (one_loss, one_share), (two_loss, two_share) = in_batch(v, w, c.temperature), in_batch(w, v, c.temperature)
            loss, found = one_loss + two_loss, (one_share, two_share)
        cosine = (v.detach() * w.detach()).sum(1).mean()
        metrics = {"first_found": found[0], "second_found": found[1], "halves_cosine": cosine}
        return StepOutput(loss, (torch.cat([v.detach(), w.detach()], 1),), metrics)

    def after_step(self, progress: float) -> None:
        """Write the rows of the samples that the update saw."""
        if self.config.banks():
            self.first_bank.write()
            self.second_bank.write()

    def risks(self) -> dict[str, str]:
        """There are none: negatives keep images apart."""
        return {}


def in_batch(v: Tensor, w: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(b, D), (b, D) -> the cross-entropy of finding each v's own w among those of all processes; how many do."""
    scores = products(v, dist.gather(w)) / temperature
    own = dist.rank() * len(v) + torch.arange(len(v), device=v.device)
    right = (scores.detach().argmax(1) == own).to(v.dtype).mean()
    return nn.functional.cross_entropy(scores, own), right


def _halves(encoder: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """What gives the features of both networks of an encoder, as many each; ValueError where there are not two."""
    net = encoder.net if isinstance(encoder, Encoder) else encoder
    found: Callable[[Tensor], tuple[Tensor, Tensor]] | None = getattr(net, "halves", None)
    if found is None:
        name = encoder.name if isinstance(encoder, Encoder) else type(encoder).__name__
        raise ValueError(f"cmc trains two networks side by side, and {name} is one; give --encoder lab:NAME, or a module with .halves(x)")
    return found


METHOD = CMC
