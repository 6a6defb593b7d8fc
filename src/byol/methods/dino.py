"""DINO: a student tells what its own average makes of the image (Caron et al. 2021, arXiv 2104.14294).

The teacher is the moving average of the student, as BYOL's target, but there is no predictor: both end in a softmax over many outputs,
and the student's cross-entropy with the teacher's is the loss. Two things keep it from collapsing, and each alone does not: the teacher's
outputs are centred by a moving mean over the images of all processes, so that none of them wins always, and sharpened by a low
temperature, so that they do not all become alike. The teacher sees the two whole views; the student also small local ones (multi-crop).

Unlike the released code, each view passes on its own, gradients are not clipped (released: at norm 3 for each parameter), weight decay
does not change in the run (released for ViT: 0.04 to 0.4), biases and normalisation do not decay, and the rate ends at 0.

Expect 75.3 % linear top-1 and 67.5 % kNN on ImageNet with ResNet-50 (released README), 77.0 and 74.5 % with ViT-S/16.

Use it where neighbours count: its features are made for kNN. Small batches want a slower teacher (tau_base=0.9995 with 256).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from byol import dist
from byol.losses import normalise, products
from byol.methods import Curve, StepOutput, View
from byol.methods._heads import at_least_float32, width
from byol.methods._targets import Follower, twins
from byol.optim import Schedule, target_momentum

RECIPES = {
    "dino-imagenet-r50-100": {
        "about": "ResNet-50, 100 epochs of ImageNet, batch 512, SGD, 2 + 8 views: the released command for convnets",
        "expected": "none found for this command; the released ResNet-50 has 75.3 % linear top-1 and 67.5 % kNN on ImageNet",
        "source": "DINO's released README and code, which also clips gradients at norm 3",
        "batch": 512,
        "values": {
            "encoder": "resnet50", "image_size": 224, "epochs": 100, "optimizer": "sgd", "lr": 0.03, "weight_decay": 1e-4,
            "momentum": 0.9, "warmup_epochs": 10.0, "hidden": 2048, "bottleneck": 256, "dim": 65536, "temperature": 0.1,
            "teacher_temperature": 0.04, "tau_base": 0.996, "center_momentum": 0.9, "local_views": 8, "frozen": 0.01,
            "views": "torchvision", "min_area": 0.14, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225",
        },
    },
    "dino-cifar10-r18": {
        "about": "ResNet-18, two views, 1000 epochs of CIFAR-10, batch 256, LARS: 89.5 % with the online classifier (solo-learn)",
        "expected": "89.52 % top-1 of the online classifier on CIFAR-10 (solo-learn, which also clips the LARS rate)",
        "source": "solo-learn's CIFAR recipe; temperatures and centring are taken to be its defaults, the paper's (unverified)",
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 1000, "batch_size": 256, "accumulate": 1, "optimizer": "lars", "lr": 0.3,
            "weight_decay": 1e-6, "momentum": 0.9, "trust_coefficient": 0.02, "warmup_epochs": 10.0, "hidden": 2048, "bottleneck": 256,
            "dim": 4096, "temperature": 0.1, "teacher_temperature": 0.07, "teacher_temperature_start": 0.04, "teacher_warmup": 0.05,
            "tau_base": 0.9995, "center_momentum": 0.9, "local_views": 0, "frozen": 0.001, "views": "small",
        },
    },
}  # fmt: skip
PUBLISHED = "DINO"
AUTO = {"hidden": 1024, "bottleneck": 128, "dim": 1024, "head_norm": "batch", "local_views": 0, "tau_base": 0.99, "lr": 0.1}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of DINO; the defaults are the released ones."""

    hidden: int = 2048  # units of the two hidden layers of the head
    bottleneck: int = 256  # units before the last layer, of length 1
    dim: int = 65536  # outputs of the softmax; for small data 1 to 8 thousand
    head_norm: Literal["batch", "none"] = "none"  # between the layers of the head
    temperature: float = 0.1  # of the student
    teacher_temperature: float = 0.04  # of the teacher
    teacher_temperature_start: float = 0.04  # of the teacher in the first step
    teacher_warmup: float = 0.0  # share of the run in which it goes from one to the other
    tau_base: float = 0.996  # how much of itself the teacher keeps at step 0
    tau_schedule: Schedule = "cosine"  # reaches 1 at the end; constant stays
    center_momentum: float = 0.9  # how much of itself the centre keeps at a pass; 1: there is no centring
    local_views: int = 8  # small views of small parts, which the student alone sees; images alone have any that are smaller
    frozen: float = 0.01  # share of the run in which the last layer stays as it is: an epoch of 100

    def __post_init__(self) -> None:
        for name in ("hidden", "bottleneck"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.dim < 2:
            raise ValueError(f"dim is {self.dim}, and a softmax takes a choice; give 2 or more")
        if self.local_views < 0:
            raise ValueError(f"local_views is {self.local_views}; give 0 or more")
        for name in ("temperature", "teacher_temperature", "teacher_temperature_start"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number above 0")
        for name in ("teacher_warmup", "tau_base", "center_momentum", "frozen"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number from 0 to 1")

    def tau(self, progress: float) -> float:
        """The teacher's momentum at this progress."""
        return target_momentum(progress, self.tau_base, self.tau_schedule)


def _views(options: Options) -> tuple[View, ...]:
    return (View(0), View(1), *(View(0, local=True) for _ in range(options.local_views)))


class Head(nn.Module):
    """(B, inputs) -> (B, bottleneck) of length 1, whose products with rows of length 1 are the (B, dim) outputs."""

    def __init__(self, inputs: int, c: Options) -> None:
        super().__init__()
        norm = nn.BatchNorm1d if c.head_norm == "batch" else nn.Identity
        parts: list[nn.Module] = []
        for units in (c.hidden, c.hidden):
            parts += [nn.Linear(inputs, units), norm(units), nn.GELU()]
            inputs = units
        self.layers = nn.Sequential(*parts, nn.Linear(inputs, c.bottleneck))
        self.last = nn.Linear(c.bottleneck, c.dim, bias=False)
        for part in self.layers:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(self, y: Tensor) -> Tensor:
        return normalise(at_least_float32(self.layers(y)))

    def outputs(self, z: Tensor, learns: Tensor | float = 1.0) -> Tensor:
        """(B, bottleneck) -> (B, dim); where `learns` is 0, the last layer has no gradient."""
        fixed = self.last.weight.detach()
        return products(z, normalise(fixed + (self.last.weight - fixed) * learns).to(z.dtype))


class DINO(Follower):
    """Two whole views and any number of local ones in, the mean cross-entropy of the student with the teacher out."""

    Config = Options
    VIEWS = staticmethod(_views)
    CURVES = (
        Curve(
            ("teacher_entropy",),
            "How sure the teacher is",
            "of the logarithm of the number of outputs",
            "The mean entropy of the teacher's softmax: at 0 it says the same of every image, at 1 nothing of any; both are collapse.",
            zero=True,
            guides=((0.0, "one output"), (1.0, "all alike")),
        ),
        Curve(
            ("teacher_student_kl",),
            "From student to teacher",
            "nats",
            "The divergence of the student's softmax from the teacher's, for the other whole view; 0 for long is collapse.",
            zero=True,
        ),
    )
    progress: Tensor
    center: Tensor  # (dim,), the moving mean of the teacher's outputs

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.head = Head(width(encoder), c)
        self.target_encoder, self.target_head = twins((encoder, self.head), fresh=False)
        self.register_buffer("progress", torch.zeros(()))  # of the last step
        self.register_buffer("center", torch.zeros(c.dim))
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """Two views (B, C, S, S) and local ones (B, C, s, s) -> mean over whole views i, all others v of CE(teacher_i, student_v)."""
        with torch.no_grad():
            outputs = torch.stack([self.target_head.outputs(self.target_head(self.target_encoder(view))) for view in views[:2]])  # type: ignore[operator]
            teacher = ((outputs - self.center.to(outputs.dtype)) / self._temperature().to(outputs.dtype)).log_softmax(-1)
            self.center.lerp_(dist.mean(outputs.mean((0, 1))).to(self.center.dtype), 1 - self.config.center_momentum)
        z = [self.head(self.encoder(view)) for view in views]
        learns = self.progress >= self.config.frozen
        student = [(self.head.outputs(x, learns) / self.config.temperature).log_softmax(-1) for x in z]
        p = teacher.exp()
        pairs = [-(p[i] * s).sum(1).mean() for i in (0, 1) for v, s in enumerate(student) if v != i]
        entropy = -(p * teacher).sum(-1).mean((1,))
        metrics = {
            "teacher_entropy": entropy.mean() / math.log(self.config.dim),
            "teacher_student_kl": pairs[0].detach() - entropy[0],
        }
        return StepOutput(torch.stack(pairs).mean(), tuple(x.detach() for x in z), metrics)

    def _temperature(self) -> Tensor:
        """The teacher's, (), at the progress of the last step."""
        c = self.config
        gone = (self.progress / c.teacher_warmup).clamp_max(1) if c.teacher_warmup else torch.ones_like(self.progress)
        return c.teacher_temperature_start + (c.teacher_temperature - c.teacher_temperature_start) * gone

    def after_step(self, progress: float) -> None:
        """Move the teacher, with tau at progress = k/K."""
        super().after_step(progress)
        self.progress.fill_(progress)

    def risks(self) -> dict[str, str]:
        """Without centring one output wins, without sharpening none does (paper, section 5)."""
        c = self.config
        found: dict[str, str] = {}
        if c.center_momentum == 1:
            found["the teacher is not centred (center_momentum 1)"] = "center_momentum=0.9"
        for name in ("teacher_temperature", "teacher_temperature_start"):
            if getattr(c, name) >= c.temperature:
                found[f"the teacher is no sharper than the student ({name} {getattr(c, name):g})"] = f"{name}={0.4 * c.temperature:g}"
        if c.tau_base == 0:
            found["the teacher is the student itself (tau_base 0)"] = "tau_base=0.996"
        return found

    def _pairs(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """What follows, and what is followed."""
        return [self.target_encoder, self.target_head], [self.encoder, self.head]


METHOD = DINO
