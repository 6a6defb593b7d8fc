"""Local Aggregation: images are drawn to the near ones of their clusters (Zhuang et al. 2019, arXiv 1903.12355).

As InstDisc, with a bank of the samples; but an image is not alone in its class. Of its `background`, the rows of the bank that are most
similar to it, those that share a cluster with it are its close neighbours, and the loss is - log of their share of the similarities.
Clusters are several k-means labelings of the whole bank, made anew after every epoch, each from seeds of its own. The first epochs are
InstDisc's: in an untrained bank an image's own row is not even in its background (`own_in_background` is logged), and where no row of its
clusters is, the loss is a constant without gradient. Z, which the released code fixes at 2.2456 N, is estimated as InstDisc's is.

The bank and the labels take 4 (dim + labelings) bytes a sample (5 MB for 10,000 samples, 707 MB for ImageNet), in each
checkpoint as well.

Expect, with a ResNet-50 and 200 epochs of ImageNet, 60.2 % linear top-1, of ten crops of an image (as PIRL's tables have it).

Use it where clusters are what is looked for; a step costs InstDisc's and, on large data, a search through the bank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import normalise
from byol.methods import Base, Curve, StepOutput, View
from byol.methods._bank import EPSILON, Bank, BankOptions, head
from byol.methods._clusters import kmeans
from byol.methods._heads import at_least_float32, width

RECIPES = {
    "local_aggregation-imagenet-r50-200": {
        "about": "ResNet-50, 200 epochs of ImageNet, batch 128, SGD: 60.2 % linear top-1 of ten crops (PIRL's tables)",
        "expected": "60.2 % linear top-1 of ten crops on ImageNet (as PIRL's tables have it)",
        "source": "Local Aggregation's released code; its rate falls tenfold after 152 and 189 epochs, here along a cosine",
        "batch": 128,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 200, "optimizer": "sgd", "lr": 0.06, "weight_decay": 1e-4,
            "momentum": 0.9, "warmup_epochs": 0.0, "dim": 128, "negatives": 4096, "background": 4096, "labelings": 10, "clusters": 30000,
            "temperature": 0.07, "bank_momentum": 0.5, "instdisc": 0.05, "views": "torchvision", "min_area": 0.2, "jitter": 1.0,
            "saturation": 0.4, "hue": 0.4, "blur": 0.0, "solarize": 0.0, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "local_aggregation-cifar10-r18": {
        "about": "ResNet-18, 200 epochs of CIFAR-10, batch 128, SGD; no number of its own was looked up",
        "expected": "none looked up: InstDisc's recipe for CIFAR-10, clusters of as many images as published",
        "source": "InstDisc's released code for CIFAR-10; clusters in proportion to the number of images, 5 labelings",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 200, "batch_size": 128, "accumulate": 1, "optimizer": "sgd", "lr": 0.06,
            "weight_decay": 5e-4, "momentum": 0.9, "warmup_epochs": 0.0, "dim": 128, "negatives": 0, "background": 2048,
            "labelings": 5, "clusters": 0, "temperature": 0.1, "bank_momentum": 0.5, "instdisc": 0.05, "views": "small", "min_area": 0.2,
            "jitter": 1.0, "saturation": 0.4, "hue": 0.4, "solarize": 0.0, "flip": 0.0,
        },
    },
}  # fmt: skip
PUBLISHED = "Local Aggregation"
AUTO = {
    "dim": 128,
    "projection_norm": "batch",
    "negatives": 0,
    "background": 1024,
    "labelings": 3,
    "temperature": 0.1,
    "instdisc": 0.25,
    "lr": 0.1,
}
IMAGENET = 1_281_167  # samples
SEED = 1234  # of the first labeling, and so on; as released


@dataclass(frozen=True, kw_only=True)
class Options(BankOptions):
    """The options of Local Aggregation; the defaults are the released ones for ImageNet."""

    background: int = 4096  # rows of the bank most similar to an image, among which its neighbours are
    labelings: int = 10  # k-means clusterings of the bank
    clusters: int = 0  # of each; 0: one for every 43 samples, as 30,000 of ImageNet
    iterations: int = 20  # of k-means
    instdisc: float = 0.05  # share of the run that is InstDisc: 10 of 200 epochs
    epochs: int = 1  # of the run, after each of which the bank is clustered anew; a run fills it in
    steps: int = 1  # updates of the run; a run fills it in

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("background", "labelings", "iterations", "epochs", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 <= self.instdisc <= 1:
            raise ValueError(f"instdisc is {self.instdisc}; give a number from 0 to 1, a share of the run")
        if not 0 <= self.clusters <= self.samples:
            raise ValueError(f"clusters is {self.clusters}, of {self.samples} samples; give fewer, or 0 for one for every 43")

    def k(self) -> int:
        """Clusters of a labeling."""
        return self.clusters or max(1, self.samples * 30_000 // IMAGENET)

    def clustering(self, progress: float) -> int:
        """Epochs since the bank was first clustered, at this progress, after each of which it is again; -1 as long as it was not."""
        update = min(round(progress * self.steps), self.steps - 1)  # after the last one nothing follows
        passed = update - round(self.instdisc * self.steps)
        return passed * self.epochs // self.steps if passed >= 0 and update else -1  # an untrained bank has no clusters


class LocalAggregation(Base):
    """One view and which sample it is of in, the loss out; `after_step` writes the rows and, once an epoch, clusters them."""

    Config = Options
    VIEWS = (View(0),)
    ROWS = ("index",)
    CURVES = (
        Curve(("own_in_background",), "Own row near", "share", "Of the images: those whose own row is in their background.", True),
        Curve(("close",), "Close neighbours", "rows", "Rows of the background that share a cluster with the image.", True),
    )
    progress: Tensor
    labels: Tensor  # (H, N) int32

    def __init__(self, encoder: nn.Module, config: Options) -> None:
        super().__init__()
        c = self.config = config
        self.encoder = encoder
        self.projector = head(width(encoder), config)
        self.bank = Bank(c, unit=True)
        # Each a cluster of its own, until the first clustering.
        self.register_buffer("labels", torch.arange(c.samples, dtype=torch.int32).expand(c.labelings, -1).clone())
        self.register_buffer("progress", torch.zeros(()))  # of the coming update
        self.train()

    def forward(self, views: tuple[Tensor, ...], *, index: Tensor) -> StepOutput:
        """One view, (B, C, S, S), and the samples, (B,) int64 -> InstDisc's loss at first, then Local Aggregation's."""
        columns = self.bank.columns(index)
        v = normalise(at_least_float32(self.projector(self.encoder(views[0]))))
        every = self.bank.scores(v)
        first = self.bank.contrast(v, index, columns, every)
        near, close, own = self._neighbours(every, index)
        # Both are computed: which one counts is known on the device alone.
        loss = torch.where(self.progress < self.config.instdisc, first.loss, aggregation(near, close))
        self.bank.keep(index, v, self.encoder)
        metrics = {
            "own_in_background": own.to(v.dtype).mean(),
            "close": close.sum(1).to(v.dtype).mean(),
            "own_similarity": first.similarity,
        }
        return StepOutput(loss, (v.detach(),), metrics)

    def _neighbours(self, every: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N), (B,) -> v m / T of the background, (B, k); which of it share a cluster, (B, k) bool; if the own row is there, (B,)."""
        near, rows = every.topk(min(self.config.background, self.config.samples), dim=1)
        close = torch.zeros_like(rows, dtype=torch.bool)
        for labels in self.labels:
            close |= labels[rows] == labels[index][:, None]
        return near, close, (rows == index[:, None]).any(1)

    def after_step(self, progress: float) -> None:
        """Write the rows of the samples that the update saw; when an epoch has passed, cluster them."""
        self.bank.write()
        following = progress + 1 / self.config.steps
        self.progress.fill_(following)
        # A pure function of the progress: a run that is resumed clusters when it would have done.
        if self.config.clustering(following) > self.config.clustering(progress):
            self._cluster()

    @torch.no_grad()
    def _cluster(self) -> None:
        c = self.config
        for h, labels in enumerate(self.labels):
            labels.copy_(kmeans(self.bank.rows, c.k(), iterations=c.iterations, seed=SEED + h))
        dist.from_first_tensors([self.labels])  # other devices may round otherwise

    def risks(self) -> dict[str, str]:
        """Neighbours of a bank that holds nothing yet."""
        return {"there is no start as InstDisc (instdisc 0)": "instdisc=0.05"} if self.config.instdisc == 0 else {}


def aggregation(near: Tensor, close: Tensor) -> Tensor:
    """(B, k) similarities over T of the background, (B, k) bool -> (): the mean of - log of the close ones' share of all."""
    share = (near.softmax(1) * close).sum(1)
    return -(share + EPSILON).log().mean()


METHOD = LocalAggregation
