"""Denoising autoencoder: the clean image again from the features of a spoilt one (Vincent et al. 2008).

As `autoencoder`, but the encoder sees the view with some of its pixels dropped, or with noise on all of them, and the decoder has to
make the view as it was. What is missing can be filled in by what usually stands beside it, so that features have to know how images are
made and copying does not do; `drop=0 noise=0` is the autoencoder. Dropped pixels get the mean colour of the data, in all channels at
once; noise is in standard deviations of the data, 0.8 being about 0.2 of the range of pixels. Which pixels follow from the step.

Expect no published number: the decoder is this project's.

Use it to see what spoiling the input adds to an autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from byol.methods import Base, Curve, Exhibit, StepOutput, View
from byol.methods._decoder import DecoderOptions, decoder_for, same_shape, side_by_side, takes_volumes, to_show
from byol.methods._draws import normals, uniforms
from byol.methods._heads import at_least_float32, width

RECIPES = {
    "denoising_autoencoder-cifar10-r18": {
        "about": "Denoising autoencoder, a quarter of the pixels away, ResNet-18, 100 epochs of CIFAR-10; no number was looked up",
        "expected": "none: no linear probe at 32 px that could be quoted",
        "source": "rate, batch and epochs as autoencoders usually have them (Vincent et al. 2008 for the idea); the decoder is ours",
        "batch": 128,
        "values": {
            "encoder": "resnet18", "image_size": 32, "epochs": 100, "optimizer": "adam", "lr": 2e-3, "weight_decay": 0.0,
            "warmup_epochs": 0.0, "hidden": 512, "drop": 0.25, "noise": 0.0, "views": "crop", "min_area": 0.25,
        },
    },
}  # fmt: skip
AUTO = {"hidden": 128, "views": "crop", "optimizer": "adam", "lr": 2e-3, "weight_decay": 0.0}
SHOWN = 8  # images in a report, two in a row


@dataclass(frozen=True, kw_only=True)
class Options(DecoderOptions):
    """The options of the denoising autoencoder."""

    drop: float = 0.25  # share of the pixels that become the mean of the data
    noise: float = 0.0  # sigma of what is added to every value, in standard deviations of the data

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop is {self.drop:g}; give a share of the pixels from 0 to below 1")
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise is {self.noise:g}; give 0 or more standard deviations of the data")


class DenoisingAutoencoder(Base):
    """One view in, the error of its reconstruction from a spoilt copy out."""

    Config = Options
    VIEWS = (View(0),)
    CURVES = (Curve(("loss",), "Loss", "", "Squared error per value of the clean view; 1 where nothing but the mean is known."),)

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.decoder = decoder_for(encoder, width(encoder), hidden=c.hidden, channels=c.channels, size=c.size)
        self._volumes = takes_volumes(encoder)
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """One view, (B, C, S, S) -> the mean of (x - x')^2 over all values, x' made from the spoilt view."""
        x = views[0]
        y = self.encoder(self.spoilt(x))
        again = at_least_float32(self.decoder(y))
        same_shape(again, x)
        return StepOutput((again - x).square().mean(), (y.detach(),))

    def spoilt(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> the same with noise, and then with pixels dropped: other ones at every call."""
        c = self.config
        if c.noise:
            x = x + c.noise * normals(len(x), x[0].numel(), x.device).view(x.shape).to(x.dtype)
        if c.drop:
            places = x if self._volumes else x[:, :1]  # the channels of a volume are places of their own
            u = uniforms(len(x), places[0].numel(), x.device).view(places.shape)
            x = x.masked_fill(u < c.drop, 0.0)
        return x

    def risks(self) -> dict[str, str]:
        """Where nearly nothing is left of an image, the mean of all is the best guess for each."""
        return {f"{self.config.drop:.0%} of the pixels are dropped": "drop=0.25"} if self.config.drop > 0.9 else {}

    def exhibits(self, views: tuple[Tensor, ...]) -> list[Exhibit]:
        """Some images, as they are, as the encoder sees them, and as they are made from that."""
        x = views[0][:SHOWN]
        with to_show(self):
            spoilt = self.spoilt(x)
            again = self.decoder(self.encoder(spoilt))
        said = "Views, the same as they are spoilt for the encoder, and what the decoder makes of its features."
        return [side_by_side("Reconstructions", said, {"view": x, "spoilt": spoilt, "made": again}, across=2)]


METHOD = DenoisingAutoencoder
