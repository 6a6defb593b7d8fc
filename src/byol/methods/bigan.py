"""BiGAN: an encoder and a generator that a judge of pairs cannot tell apart (Donahue et al. 2017, arXiv 1605.09782).

The discriminator sees pairs of an image and a code: (x, E(x)) of a view, or (G(z), z) of a code from the prior, uniform in (-1, 1). It
learns to tell which; encoder and generator learn to be taken for each other, and at the best are each other's inverse, though no pixel
is ever compared. E(x) is a linear layer on the features, which are what is evaluated: the paper's own neighbours are better in the layer
before the code as well.

Two losses in one update, as released: the discriminator has its cross-entropy, encoder and generator the one with labels exchanged
(non-saturating), each with no gradient in what belongs to the other, both at the same weights. So one optimiser steps all of them at
once, and checkpoints, several processes and bf16 are those of any method. It takes a second pass through the discriminator. Gradient
reversal would take one, but is the minimax game, whose gradient vanishes for encoder and generator while the discriminator wins.

The discriminator normalises each image for itself and not over the batch, where it would see which half it is in. The released networks
are other ones (unverified: rate, decay); Adam's beta1 of 0.5 is set here for all of them.

Expect no number that can be compared: with its own networks 97.35 % 1-NN on MNIST in the layer before the code (log of the released
code, 400 epochs). Of the family, BigBiGAN reached 56.6 % linear top-1 on ImageNet with a ResNet-50 (as PIRL's tables have it).

Use it to see what an adversarial game adds to an autoencoder; watch that the discriminator is neither always right nor never.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from byol.methods import Base, Curve, Exhibit, StepOutput, View
from byol.methods._decoder import SMALLEST, DecoderOptions, decoder_for, same_shape, shape_of, side_by_side, takes_volumes, to_show
from byol.methods._draws import uniforms
from byol.methods._heads import at_least_float32, width
from byol.optim import Group, param_groups

RECIPES = {
    "bigan-cifar10-r18": {
        "about": "BiGAN, ResNet-18 as encoder, 400 epochs of CIFAR-10 with Adam; no number of its own was looked up",
        "expected": "none at 32 px: on MNIST, with MLPs, 97.35 % by 1-NN after 400 epochs (log of the released code)",
        "source": "rates and decay of Donahue et al. 2017 from memory (unverified); generator and discriminator are ours",
        "batch": 128,
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 400, "optimizer": "adam", "lr": 4e-4, "weight_decay": 2.5e-5,
            "warmup_epochs": 0.0, "dim": 200, "hidden": 512, "beta1": 0.5, "views": "crop", "min_area": 0.25,
        },
    },
}  # fmt: skip
AUTO = {
    "dim": 50,
    "hidden": 128,
    "judge_width": 32,
    "judge_hidden": 256,
    "views": "crop",
    "optimizer": "adam",
    "lr": 4e-4,
    "weight_decay": 2.5e-5,
}
SLOPE = 0.2  # of leaky rectifiers
SHOWN = 12  # images in a report


@dataclass(frozen=True, kw_only=True)
class Options(DecoderOptions):
    """The options of BiGAN."""

    dim: int = 200  # of the code; 50 for MNIST
    judge_width: int = 64  # channels of the discriminator's first layer; doubled with every halving of the map, 512 at most
    judge_hidden: int = 512  # units of its layers for the code and for both together
    judge_rate: float = 1.0  # times the learning rate, of the discriminator
    beta1: float = 0.5  # momentum of Adam and AdamW; other optimisers have their own

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dim", "judge_width", "judge_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if not 0 < self.judge_rate < float("inf"):
            raise ValueError(f"judge_rate is {self.judge_rate:g}; a discriminator that learns nothing teaches nothing: give more than 0")
        if not 0 <= self.beta1 < 1:
            raise ValueError(f"beta1 is {self.beta1:g}; give 0 or more and less than 1")


class BiGAN(Base):
    """One view in, the loss of the discriminator plus that of encoder and generator out."""

    Config = Options
    VIEWS = (View(0),)
    CURVES = (
        Curve(("loss",), "Loss", "nats", "That of the discriminator plus that of encoder and generator; 2 ln 2 where neither knows."),
        Curve(("judge_loss", "others_loss"), "Both players", "nats", "A gain of one is a loss of the other.", True, ((0.6931, "ln 2"),)),
        Curve(("judged_right",), "Discriminator right", "share", "Of all pairs. 1 for long: it has won, and little is learnt.", True,
              ((0.5, "guessing"),)),
        Curve(("code_std",), "Spread of codes", "", "Standard deviation of E(x), the mean over dimensions; of the prior 0.58.", True,
              ((3**-0.5, "prior"),)),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.code = nn.Linear(width(encoder), c.dim)
        self.generator = decoder_for(encoder, c.dim, hidden=c.hidden, channels=c.channels, size=c.size)
        channels, size = shape_of(encoder, c.channels, c.size)
        self.discriminator = Discriminator(c, channels, size, volume=takes_volumes(encoder))
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """One view, (B, C, S, S) -> the discriminator's cross-entropy plus the others' with exchanged labels, means over 2 B pairs."""
        x = views[0]
        encoded = at_least_float32(self.code(self.encoder(x)))
        z = self.prior(len(x), x.device).to(encoded.dtype)
        made = at_least_float32(self.generator(z))
        same_shape(made, x)
        images, codes = torch.cat([x, made]), torch.cat([encoded, z])
        judged = at_least_float32(self.discriminator(images.detach(), codes.detach()))
        # The same numbers again, now with a gradient in the pairs and none in the discriminator.
        fixed = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        seen = at_least_float32(functional_call(self.discriminator, fixed, (images, codes)))
        judge_loss, others_loss = told_apart(judged), told_apart(-seen)
        real, fake = judged.detach().chunk(2)
        metrics = {"judge_loss": judge_loss.detach(), "others_loss": others_loss.detach()}
        metrics["judged_right"] = torch.cat([real > 0, fake <= 0]).to(real.dtype).mean()
        metrics["code_std"] = encoded.detach().std(0).mean()
        return StepOutput(judge_loss + others_loss, (encoded.detach(),), metrics)

    def prior(self, rows: int, device: torch.device) -> Tensor:
        """(rows, dim) codes, uniform in [-1, 1)."""
        return 2 * uniforms(rows, self.config.dim, device) - 1

    def param_groups(self) -> list[Group]:
        """Those of encoder, code and generator, and the discriminator's with its factor on the rate."""
        c = self.config
        parts = ((self.encoder, 1.0), (self.code, 1.0), (self.generator, 1.0), (self.discriminator, c.judge_rate))
        groups = [(group, rate) for part, rate in parts for group in param_groups(part)]
        return [Group(**{**group, "lr_scale": rate, "betas": (c.beta1, 0.999)}) for group, rate in groups]

    def risks(self) -> dict[str, str]:
        """A discriminator that learns much faster than the others wins, and tells them nothing."""
        rate = self.config.judge_rate
        return {f"the discriminator learns {rate:g} times as fast": "judge_rate=1.0"} if rate > 4 else {}

    def exhibits(self, views: tuple[Tensor, ...]) -> list[Exhibit]:
        """Some images beside G(E(x)), which nobody asked to be alike, and samples of the generator."""
        x = views[0][:SHOWN]
        with to_show(self):
            samples = self.generator(self.prior(2 * SHOWN, x.device).to(x.dtype))
            again = self.generator(self.code(self.encoder(x)))
        said = "Views as the encoder sees them, and what the generator makes of their codes; no pixel was compared in training."
        drawn = "What the generator makes of codes drawn from the prior, of no image in particular."
        return [
            side_by_side("Reconstructions", said, {"view": x, "made": again}, across=4),
            side_by_side("Samples", drawn, {"sample": samples}, across=8),
        ]


class Discriminator(nn.Module):
    """(B, C, S, S), (B, dim) -> (B,): how much a pair looks like an image with its code, as a logit."""

    def __init__(self, config: Options, channels: int, size: int, *, volume: bool = False) -> None:
        super().__init__()
        c = config
        conv = nn.Conv3d if volume else nn.Conv2d
        planes, out, side = 1 if volume else channels, c.judge_width, size
        parts: list[nn.Module] = [nn.Unflatten(1, (1, channels))] if volume else []
        for place in range(max(0, (size // SMALLEST).bit_length() - 1)):
            norm = [nn.GroupNorm(1, out)] if place else []  # not of the first, which would hide how bright and rich an image is
            parts += [conv(planes, out, 4, stride=2, padding=1, bias=not norm), *norm, nn.LeakyReLU(SLOPE)]
            planes, out, side = out, min(max(512, c.judge_width), 2 * out), side // 2
        parts += [nn.Flatten(), nn.Linear(planes * side ** (3 if volume else 2), c.judge_hidden), nn.LeakyReLU(SLOPE)]
        self.image = nn.Sequential(*parts)
        self.code = nn.Sequential(nn.Linear(c.dim, c.judge_hidden), nn.LeakyReLU(SLOPE))
        last = nn.Linear(c.judge_hidden, 1)
        nn.init.zeros_(last.weight)  # it begins by knowing nothing: ln 2 for everyone
        nn.init.zeros_(last.bias)
        self.pair = nn.Sequential(nn.Linear(2 * c.judge_hidden, c.judge_hidden), nn.LeakyReLU(SLOPE), last)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        judged: Tensor = self.pair(torch.cat([self.image(x), self.code(z)], 1))
        return judged.squeeze(1)


def told_apart(judged: Tensor) -> Tensor:
    """(2 B,) logits, first of real pairs and then of made ones -> (): the mean cross-entropy of telling which is which."""
    real, fake = judged.chunk(2)
    return (softplus(-real).mean() + softplus(fake).mean()) / 2


METHOD = BiGAN
