"""Variational autoencoder: codes near to a prior, and the image from them (Kingma & Welling 2013, arXiv 1312.6114).

Two linear layers on the features give mu and log sigma^2 of a code, the decoder makes the view from z = mu + sigma eps, and the loss is
the negative bound on log p(x): the squared error summed over the values of the image, over 2 sigma_x^2, plus beta times the KL divergence
of N(mu, sigma^2) from N(0, 1) summed over the dimensions of the code. Both are then divided by the number of values, so that one learning
rate suits images of any size (nats per value, without the constant of the Gaussian). Dividing the error alone, as a mean over pixels
does, is the classical mistake: it makes beta 3,072 times as large for 32 px in colour, and nothing is left of the code.

beta rises from 0 during the first tenth of the run: a decoder that has learnt nothing yet gains nothing by a code, and a code that
costs from the start may never be used (posterior collapse). How many dimensions carry less than 0.01 nat is logged.

Evaluated are the features, as of all methods; the code is a layer on them. Pixels are Gaussian, sigma_x in standard deviations of the
data (0.4 is about 0.1 of their range); the prior is the paper's, the decoder this project's, without the paper's Bernoulli pixels.

Expect no published number: the decoder is this project's.

Use it to see what a prior adds to an autoencoder, and for samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from byol.methods import Base, Curve, Exhibit, StepOutput, View
from byol.methods._decoder import DecoderOptions, decoder_for, same_shape, side_by_side, to_show
from byol.methods._draws import normals
from byol.methods._heads import at_least_float32, width

RECIPES = {
    "vae-cifar10-r18": {
        "about": "Variational autoencoder, ResNet-18, 100 epochs of CIFAR-10 with Adam; no number of its own was looked up",
        "expected": "none: no linear probe of a VAE at 32 px that could be quoted",
        "source": "rate, batch, epochs and warm-up as VAEs usually have them (Kingma & Welling 2014 for the idea); the decoder is ours",
        "batch": 128,
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 100, "optimizer": "adam", "lr": 2e-3, "weight_decay": 0.0,
            "warmup_epochs": 0.0, "dim": 128, "hidden": 512, "beta": 1.0, "warmup": 0.1, "pixel_sigma": 0.4,
            "views": "crop", "min_area": 0.25,
        },
    },
}  # fmt: skip
AUTO = {"dim": 128, "hidden": 128, "views": "crop", "optimizer": "adam", "lr": 2e-3, "weight_decay": 0.0}
IDLE = 0.01  # nats; a dimension of less says next to nothing of the image
SHOWN = 12  # images in a report


@dataclass(frozen=True, kw_only=True)
class Options(DecoderOptions):
    """The options of the variational autoencoder."""

    dim: int = 128  # of the code
    beta: float = 1.0  # weight of the KL divergence; 1 is the bound, more is beta-VAE's
    warmup: float = 0.1  # share of the run in which beta rises from 0
    pixel_sigma: float = 0.4  # sigma_x of a pixel, in standard deviations of the data

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim < 1:
            raise ValueError(f"dim is {self.dim}; give 1 or more")
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"beta is {self.beta:g}; give 0 or more")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup is {self.warmup:g}; give a share of the run from 0 to 1")
        if not 0 < self.pixel_sigma < float("inf"):
            raise ValueError(f"pixel_sigma is {self.pixel_sigma:g}; give a number above 0, in standard deviations of the data")

    def weight(self, progress: float) -> float:
        """beta at this progress of the run."""
        return self.beta * min(1.0, progress / self.warmup) if self.warmup else self.beta


class VAE(Base):
    """One view in, the negative bound on its log-likelihood out."""

    Config = Options
    VIEWS = (View(0),)
    weight: Tensor
    CURVES = (
        Curve(("loss",), "Loss", "nats per value", "Squared error / 2 σₓ² + beta × KL, both over the number of values of an image."),
        Curve(("mse",), "Reconstruction", "", "Squared error per value; 1 where nothing but the mean is known.", True),
        Curve(("kl",), "KL divergence", "nats", "What the code says of an image, all dimensions together.", True),
        Curve(("kl_dimension_mean", "kl_dimension_most"), "KL divergence of a dimension", "nats", "The mean and the largest.", True),
        Curve(("idle",), "Idle dimensions", "share", "Below 0.01 nat. Most of them: the posterior has collapsed to the prior.", True),
        Curve(("beta",), "beta", "", "Rises during the first part of the run.", True),
    )  # fmt: skip

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.mu, self.log_variance = nn.Linear(width(encoder), c.dim), nn.Linear(width(encoder), c.dim)
        self.decoder = decoder_for(encoder, c.dim, hidden=c.hidden, channels=c.channels, size=c.size)
        self.register_buffer("weight", torch.tensor(c.weight(0.0)))  # beta, as of the last update
        self._idle: Tensor | None = None  # share of the dimensions, as of the last pass
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """One view, (B, C, S, S) -> (sum of (x - x')^2 / 2 sigma_x^2 + beta KL) / (C S S), the mean over B."""
        x = views[0]
        y = self.encoder(x)
        mu, log_variance = at_least_float32(self.mu(y)), at_least_float32(self.log_variance(y))
        z = mu + (log_variance / 2).exp() * normals(len(x), self.config.dim, x.device).to(mu.dtype)
        again = at_least_float32(self.decoder(z))
        same_shape(again, x)
        error = (again - x).square().flatten(1).sum(1)
        kl = divergence(mu, log_variance)
        # Both sums over one number: a mean over pixels beside a sum over dimensions would be another beta (see above).
        loss = (error / (2 * self.config.pixel_sigma**2) + self.weight * kl.sum(1)).mean() / x[0].numel()
        kl = kl.detach().mean(0)
        self._idle = (kl < IDLE).to(kl.dtype).mean()
        metrics = {"mse": error.detach().mean() / x[0].numel(), "kl": kl.sum(), "idle": self._idle}
        metrics |= {"kl_dimension_mean": kl.mean(), "kl_dimension_most": kl.amax()}
        return StepOutput(loss, (mu.detach(),), metrics)

    def after_step(self, progress: float) -> None:
        """beta of the next update."""
        self.weight.fill_(self.config.weight(progress))

    def schedule(self, progress: float) -> dict[str, float]:
        """What `after_step` sets at this progress, for the log."""
        return {"beta": self.config.weight(progress)}

    def risks(self) -> dict[str, str]:
        """Posterior collapse, where it is there, and what is known to lead to it."""
        c, risks = self.config, {}
        if float(self.weight) and self._idle is not None and float(self._idle) > 0.5:
            risks[f"{float(self._idle):.0%} of the code's dimensions carry less than {IDLE} nat"] = f"beta={c.beta / 10:g}"
        if c.beta > 1:
            risks[f"the prior weighs more than the bound asks for (beta {c.beta:g})"] = "beta=1.0"
        if not c.warmup:
            risks["the code costs its full price from the start (warmup 0)"] = "warmup=0.1"
        return risks

    def exhibits(self, views: tuple[Tensor, ...]) -> list[Exhibit]:
        """Some images beside what is made of their mean codes, and samples: what is made of codes from the prior."""
        x = views[0][:SHOWN]
        with to_show(self):
            samples = self.decoder(normals(2 * SHOWN, self.config.dim, x.device).to(x.dtype))
            again = self.decoder(self.mu(self.encoder(x)))
        said = "Views as the encoder sees them, and what the decoder makes of the mean of their codes."
        drawn = "What the decoder makes of codes drawn from the prior, of no image in particular."
        return [
            side_by_side("Reconstructions", said, {"view": x, "made": again}, across=4),
            side_by_side("Samples", drawn, {"sample": samples}, across=8),
        ]


def divergence(mu: Tensor, log_variance: Tensor) -> Tensor:
    """(B, D), (B, D) -> (B, D): KL(N(mu, sigma^2) || N(0, 1)) of every dimension in nats (Kingma & Welling 2013, appendix B)."""
    return 0.5 * (mu.square() + log_variance.exp() - 1 - log_variance)


METHOD = VAE
