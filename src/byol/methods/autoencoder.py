"""Autoencoder: the pixels again from the features (Hinton & Salakhutdinov 2006).

The baseline of a generative kind. A convolutional decoder makes the view, as the encoder sees it, from the features alone; the loss is
the mean squared error per value of normalised pixels, 1 where nothing but the mean is known. Nothing asks that two views of an image be
alike, so that features keep what pixels hold and not what images mean.

Expect no published number: the decoder is this project's.

Use it to see what the views of the other methods add.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from byol.methods import Base, Exhibit, StepOutput, View
from byol.methods._decoder import DecoderOptions, decoder_for, same_shape, side_by_side, to_show
from byol.methods._heads import at_least_float32, width

RECIPES = {
    "autoencoder-cifar10-r18": {
        "about": "Autoencoder, ResNet-18, 100 epochs of CIFAR-10 with Adam; no number of its own was looked up",
        "expected": "none: no linear probe of an autoencoder at 32 px that could be quoted",
        "source": "rate, batch and epochs as autoencoders usually have them; the decoder is ours",
        "batch": 128,
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 100, "optimizer": "adam", "lr": 2e-3, "weight_decay": 0.0,
            "warmup_epochs": 0.0, "hidden": 512, "views": "crop", "min_area": 0.25,
        },
    },
}  # fmt: skip
AUTO = {"hidden": 128, "views": "crop", "lr": 0.1}
SHOWN = 12  # images in a report, four in a row


@dataclass(frozen=True, kw_only=True)
class Options(DecoderOptions):
    """The options of the autoencoder."""


class Autoencoder(Base):
    """One view in, the error of its reconstruction out."""

    Config = Options
    VIEWS = (View(0),)

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.decoder = decoder_for(encoder, width(encoder), hidden=c.hidden, channels=c.channels, size=c.size)
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """One view, (B, C, S, S) -> the mean of (x - x')^2 over all values."""
        x = views[0]
        y = self.encoder(x)
        again = at_least_float32(self.decoder(y))
        same_shape(again, x)
        return StepOutput((again - x).square().mean(), (y.detach(),))

    def risks(self) -> dict[str, str]:
        """There are none: features that are all alike cannot make images that are not."""
        return {}

    def exhibits(self, views: tuple[Tensor, ...]) -> list[Exhibit]:
        """Some images, each beside what the decoder makes of its features."""
        x = views[0][:SHOWN]
        with to_show(self):
            again = self.decoder(self.encoder(x))
        said = "Views as the encoder sees them, and what the decoder makes of their features alone."
        return [side_by_side("Reconstructions", said, {"view": x, "made": again}, across=4)]


METHOD = Autoencoder
