"""SwAV: each view says to which prototypes the other one belongs (Caron et al. 2020, arXiv 2006.09882).

Projections are compared with prototypes, which are learned. Each of the two whole views is assigned to prototypes by Sinkhorn's algorithm,
so that the batch is spread evenly over all of them, and every other view has to tell that assignment: images are not compared with each
other, and cannot all go to one prototype. Small local views tell the assignments of the whole ones and are assigned to nothing
themselves (multi-crop). The assignment is of the images of all processes; with a batch smaller than the number of prototypes an even
spread means little, so a queue of earlier projections can be assigned beside it. Prototypes stay where they are at the beginning.

Unlike the released code, each view passes on its own, biases and normalisation do not decay, the rate begins at 0 and ends there, and the
queue is filled from the first update on, before it is used.

Expect, with the paper's recipe, ResNet-50, 800 epochs of ImageNet, batch 4096: 75.3 % linear top-1 (74.6 after 400, 72.1 after 100; with
two whole views alone 70.1 after 400).

Use it where clusters are wanted as well as features, or local views pay for themselves: images of 64 px and more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import normalise, products
from byol.methods import Base, Curve, StepOutput, View
from byol.methods._heads import at_least_float32, mlp, width

RECIPES = {
    "swav-imagenet-r50-800": {
        "about": "ResNet-50, 800 epochs of ImageNet, batch 4096, LARS, 2 + 6 views: 75.3 % linear top-1 (Caron et al. 2020)",
        "expected": "75.3 % linear top-1 on ImageNet with 4096 images a pass (Caron et al. 2020); less with fewer a pass",
        "source": "SwAV's released code, whose rate warms up from 0.3 and ends at 0.0048, of 4.8 for the batch",
        "batch": 4096,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 800, "optimizer": "lars", "lr": 0.3, "weight_decay": 1e-6,
            "momentum": 0.9, "trust_coefficient": 1e-3, "warmup_epochs": 10.0, "hidden": 2048, "dim": 128, "prototypes": 3000,
            "temperature": 0.1, "epsilon": 0.05, "iterations": 3, "local_views": 6, "frozen": 0.00125,
            "views": "torchvision", "min_area": 0.14, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur": 0.5,
            "solarize": 0.0, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "swav-imagenet-r50-200-b256": {
        "about": "ResNet-50, 200 epochs of ImageNet, batch 256 with a queue, LARS, 2 + 6 views: 72.7 % linear top-1 (released README)",
        "expected": "72.7 % linear top-1 on ImageNet, 74.3 % with 400 epochs (SwAV's released README)",
        "source": "SwAV's released code, whose rate ends at 0.0006",
        "batch": 256,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 200, "optimizer": "lars", "lr": 0.6, "weight_decay": 1e-6,
            "momentum": 0.9, "trust_coefficient": 1e-3, "warmup_epochs": 0.0, "hidden": 2048, "dim": 128, "prototypes": 3000,
            "temperature": 0.1, "epsilon": 0.05, "iterations": 3, "local_views": 6, "frozen": 0.005, "queue": 3840, "queue_from": 0.075,
            "views": "torchvision", "min_area": 0.14, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur": 0.5,
            "solarize": 0.0, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "swav-cifar10-r18": {
        "about": "ResNet-18, two views, 1000 epochs of CIFAR-10, batch 256, LARS: 89.2 % with the online classifier (solo-learn)",
        "expected": "89.17 % top-1 of the online classifier on CIFAR-10 (solo-learn, which also clips the LARS rate)",
        "source": "solo-learn's CIFAR recipe, whose stored version blurs half of the views",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 1000, "batch_size": 256, "accumulate": 1, "optimizer": "lars", "lr": 0.6,
            "weight_decay": 1e-6, "momentum": 0.9, "trust_coefficient": 0.02, "warmup_epochs": 10.0, "hidden": 2048, "dim": 128,
            "prototypes": 3000, "temperature": 0.1, "epsilon": 0.05, "iterations": 3, "local_views": 0, "frozen": 0.002, "queue": 3840,
            "queue_from": 0.05, "views": "small", "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "blur": 0.5,
            "solarize": 0.0,
        },
    },
}  # fmt: skip
PUBLISHED = "SwAV"
AUTO = {
    "hidden": 1024,
    "dim": 128,
    "projection_norm": "batch",
    "prototypes": 100,
    "local_views": 0,
    "queue": 1024,
    "frozen": 0.01,
    "lr": 0.05,
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of SwAV; the defaults are the released ones for ImageNet."""

    hidden: int = 2048  # units of the hidden layer of the projector
    dim: int = 128  # units of the projection
    projection_norm: Literal["none", "batch"] = "none"  # none: as released; batch: no scale or shift, so that no two begin alike
    prototypes: int = 3000  # what images are assigned to; about ten times as many as classes, and no more than images in batch and queue
    temperature: float = 0.1  # of what views tell
    epsilon: float = 0.05  # how soft assignments are
    iterations: int = 3  # of Sinkhorn's algorithm
    local_views: int = 6  # small views of small parts, beside the two whole ones; images alone have any that are smaller
    frozen: float = 0.00125  # share of the run in which prototypes stay as they are: an epoch of 800
    queue: int = 0  # projections of earlier batches that are assigned with this one, of each whole view; 0: none
    queue_from: float = 0.0  # share of the run from which the queue counts

    def __post_init__(self) -> None:
        for name in ("hidden", "dim", "iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.projection_norm not in ("none", "batch"):
            raise ValueError(f"projection_norm is {self.projection_norm!r}; give none or batch")
        if self.prototypes < 2:
            raise ValueError(f"prototypes is {self.prototypes}, and to be assigned takes a choice; give 2 or more")
        for name in ("local_views", "queue"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        for name in ("temperature", "epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")
        for name in ("frozen", "queue_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, a share of the run; give 0 to 1")


def _views(options: Options) -> tuple[View, ...]:
    return (View(0), View(1), *(View(i % 2, local=True) for i in range(options.local_views)))


class SwAV(Base):
    """Two whole views and any number of local ones in, the mean cross-entropy with the assignments of the whole ones out."""

    Config = Options
    VIEWS = staticmethod(_views)
    CURVES = (
        Curve(
            ("assigned_entropy", "told_entropy"),
            "How sure assignments are",
            "of the logarithm of the number of prototypes",
            "The mean entropy of an image's assignment, and of what views tell of it: 0 is a single prototype, 1 all of them alike.",
            zero=True,
            guides=((1.0, "all alike"),),
        ),
    )
    progress: Tensor
    queue: Tensor  # (2, Q, D), rows of length 1
    entered: Tensor  # (), projections that have entered each queue so far

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.projector = mlp(width(encoder), c.hidden, c.dim, output_bias=True, output_norm=c.projection_norm == "batch")
        self.prototypes = nn.Linear(c.dim, c.prototypes, bias=False)
        self.register_buffer("progress", torch.zeros(()))  # of the last step
        self.register_buffer("queue", torch.zeros(2, c.queue, c.dim))
        self.register_buffer("entered", torch.zeros((), dtype=torch.int64))
        self._assigned = 0  # images that were assigned together in the last pass
        self._unit_prototypes()
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views (B, C, S, S) and local ones (B, C, s, s) -> the mean over whole views i and all others v of CE(Q_i, scores_v / T)."""
        z = [normalise(at_least_float32(self.projector(self.encoder(view)))) for view in views]
        scores = [products(x, self._weights().to(x.dtype)) for x in z]
        told = [(s / self.config.temperature).log_softmax(1) for s in scores]
        self._assigned = len(views[0]) * dist.size() + self.config.queue
        assigned = [self._assignment(i, scores[i].detach()) for i in (0, 1)]
        if self.config.queue:
            self._enqueue(torch.stack([dist.gathered(x.detach()) for x in z[:2]]))
        pairs = [-(assigned[i] * t).sum(1).mean() for i in (0, 1) for v, t in enumerate(told) if v != i]
        metrics = {
            "assigned_entropy": _entropy(assigned[0], assigned[0].clamp_min(1e-30).log()),
            "told_entropy": _entropy(told[0].detach().exp(), told[0].detach()),
        }
        return StepOutput(torch.stack(pairs).mean(), tuple(x.detach() for x in z), metrics)

    def _weights(self) -> Tensor:
        """(K, D) prototypes, without a gradient while they are frozen."""
        fixed = self.prototypes.weight.detach()
        return fixed + (self.prototypes.weight - fixed) * (self.progress >= self.config.frozen)

    @torch.no_grad()
    def _assignment(self, view: int, scores: Tensor) -> Tensor:
        """(b, K) scores of a whole view here -> (b, K) assignments, found for the images of all processes and the queue of that view."""
        every = dist.gathered(scores)
        counts = torch.ones(len(every), dtype=torch.bool, device=every.device)
        if self.config.queue:
            # As one tensor of a size that does not change, whether or not the queue counts: no device has to be asked.
            earlier = products(self.queue[view].to(scores.dtype), self.prototypes.weight.to(scores.dtype))
            ready = (self.entered >= self.config.queue) & (self.progress >= self.config.queue_from)
            every, counts = torch.cat([every, earlier]), torch.cat([counts, ready.expand(len(earlier))])
        found = sinkhorn(every, epsilon=self.config.epsilon, iterations=self.config.iterations, counts=counts)
        return found[dist.rank() * len(scores) :][: len(scores)]

    @torch.no_grad()
    def _enqueue(self, z: Tensor) -> None:
        """(2, B, D) of all processes, in the order of the batch: over the oldest ones; of more than a queue holds, the last."""
        size = self.queue.shape[1]
        last = z[:, -size:]
        skipped = z.shape[1] - last.shape[1]
        places = (self.entered + skipped + torch.arange(last.shape[1], device=z.device)) % size
        self.queue.index_copy_(1, places, last.to(self.queue.dtype))
        self.entered.add_(z.shape[1])

    @torch.no_grad()
    def _unit_prototypes(self) -> None:
        self.prototypes.weight.copy_(normalise(self.prototypes.weight))

    def after_step(self, progress: float) -> None:
        """Prototypes are of length 1 again, before the next views are compared with them."""
        self._unit_prototypes()
        self.progress.fill_(progress)

    def risks(self) -> dict[str, str]:
        """Assignments as soft as what views tell suit prototypes that are all alike; few images cannot be spread over many prototypes."""
        c, found = self.config, {}
        if c.epsilon >= c.temperature:
            found[f"assignments are no surer than views (epsilon {c.epsilon:g})"] = "epsilon=0.05"
        if 0 < self._assigned < c.prototypes:
            found[f"{self._assigned:,} images are spread over {c.prototypes:,} prototypes"] = f"queue={c.prototypes + c.queue}"
        return found


def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int, counts: Tensor | None = None) -> Tensor:
    """(B, K) scores -> (B, K) rows of sum 1 that are spread over the K columns as evenly as so many iterations make them.

    Logarithms all the way, for exp(1 / epsilon) overflows half precision and a small epsilon any. Only rows that `counts` (B,) are
    spread; what the others hold is no assignment.
    """
    logs = scores / epsilon
    aside = None if counts is None else torch.where(counts, 0.0, -torch.inf).to(logs.dtype)[:, None]
    for _ in range(iterations):
        logs = logs - (logs if aside is None else logs + aside).logsumexp(0, keepdim=True)
        logs = logs - logs.logsumexp(1, keepdim=True)
    return logs.exp()


def _entropy(p: Tensor, logs: Tensor) -> Tensor:
    """(B, K), (B, K) -> (): the mean entropy of rows, as a share of that of the even distribution."""
    return -(p * logs).sum(1).mean() / math.log(p.shape[1])


METHOD = SwAV
