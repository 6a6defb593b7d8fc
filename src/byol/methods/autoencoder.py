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

from byol.encoders import Encoder
from byol.methods import StepOutput, View
from byol.methods._heads import at_least_float32, width
from byol.optim import Group, param_groups

AUTO = {"hidden": 128, "views": "crop", "lr": 0.1}
SMALLEST = 4  # pixels; the decoder's first map is this to twice this wide


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the autoencoder."""

    hidden: int = 256  # channels of the decoder's first map; halved with every doubling of its size, 16 at least
    channels: int = 0  # of the images; 0: as the encoder says
    size: int = 0  # pixels of the images; 0: as the encoder says

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden is {self.hidden}; give 1 or more")
        if self.channels < 0 or self.size < 0:
            raise ValueError(f"channels={self.channels} and size={self.size} are not possible; give 1 or more, or 0 for the encoder's")


class Autoencoder(nn.Module):
    """One view in, the error of its reconstruction out."""

    Config = Options
    VIEWS = (View(0),)

    def __init__(self, encoder: nn.Module, config: Options | None = None) -> None:
        super().__init__()
        c = self.config = config or Options()
        self.encoder = encoder
        self.decoder = decoder(width(encoder), *_image(encoder, c), hidden=c.hidden)
        self.train()

    def forward(self, views: tuple[Tensor, ...]) -> StepOutput:
        """One view, (B, C, S, S) -> the mean of (x - x')^2 over all values."""
        x = views[0]
        y = self.encoder(x)
        again = at_least_float32(self.decoder(y))
        if again.shape != x.shape:
            raise ValueError(f"the decoder makes {tuple(again.shape[1:])} of views {tuple(x.shape[1:])}; give their channels and size")
        return StepOutput((again - x).square().mean(), (y.detach(),))

    def after_step(self, progress: float) -> None:
        """Nothing follows the optimiser."""

    def param_groups(self) -> list[Group]:
        """Those of the encoder and of the decoder."""
        return param_groups(self)

    def schedule(self, progress: float) -> dict[str, float]:
        """There is none of its own."""
        return {}

    def diagnostics(self) -> dict[str, Tensor]:
        """There are none."""
        return {}

    def risks(self) -> dict[str, str]:
        """There are none: features that are all alike cannot make images that are not."""
        return {}


def decoder(features: int, channels: int, size: int, *, hidden: int) -> nn.Sequential:
    """(B, features) -> (B, channels, size, size): a linear layer to a small map, which is doubled to the size by convolutions."""
    doublings = max(0, (size // SMALLEST).bit_length() - 1)
    sides = [-(-size // 2**k) for k in range(doublings, -1, -1)]
    parts: list[nn.Module] = [nn.Linear(features, hidden * sides[0] ** 2, bias=False), nn.Unflatten(1, (hidden, sides[0], sides[0]))]
    for side in sides[1:]:
        parts += [nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), nn.Upsample(size=(side, side))]
        thinner = max(min(16, hidden), hidden // 2)
        parts.append(nn.Conv2d(hidden, thinner, 3, padding=1, bias=False))
        hidden = thinner
    parts += [nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 3, padding=1)]
    return nn.Sequential(*parts)


def _image(encoder: nn.Module, c: Options) -> tuple[int, int]:
    """Channels and size of the images: those of the options, or else of the encoder."""
    known = (encoder.images.channels, encoder.images.size) if isinstance(encoder, Encoder) else (0, 0)
    channels, size = c.channels or known[0], c.size or known[1]
    if not (channels and size):
        name = type(encoder).__name__
        raise ValueError(f"{name} does not say how large its images are; give channels and size, or use byol.encoders.wrap")
    return channels, size


METHOD = Autoencoder
