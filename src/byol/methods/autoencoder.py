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
        self.decoder = decoder_for(encoder, width(encoder), hidden=c.hidden, channels=c.channels, size=c.size)
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


def decoder(features: int, channels: int, size: int, *, hidden: int, volume: bool = False) -> nn.Sequential:
    """(B, features) -> (B, channels, size, size): a linear layer to a small map, which is doubled to the size by convolutions.

    The channels of a `volume` are its slices, and the convolutions go over all three axes.
    """
    if volume and channels != size:
        raise ValueError(f"a volume of {channels} slices of {size} px is no cube; give as many")
    axes = 3 if volume else 2
    conv, norm = (nn.Conv3d, nn.BatchNorm3d) if volume else (nn.Conv2d, nn.BatchNorm2d)
    doublings = max(0, (size // SMALLEST).bit_length() - 1)
    sides = [-(-size // 2**k) for k in range(doublings, -1, -1)]
    parts: list[nn.Module] = [nn.Linear(features, hidden * sides[0] ** axes, bias=False), nn.Unflatten(1, (hidden, *axes * (sides[0],)))]
    for side in sides[1:]:
        parts += [norm(hidden), nn.ReLU(inplace=True), nn.Upsample(size=axes * (side,))]
        thinner = max(min(16, hidden), hidden // 2)
        parts.append(conv(hidden, thinner, 3, padding=1, bias=False))
        hidden = thinner
    parts += [norm(hidden), nn.ReLU(inplace=True), conv(hidden, 1 if volume else channels, 3, padding=1)]
    return nn.Sequential(*parts, *([nn.Flatten(1, 2)] if volume else []))


def decoder_for(encoder: nn.Module, features: int, *, hidden: int, channels: int = 0, size: int = 0) -> nn.Sequential:
    """The decoder of what this encoder sees, from so many features; `channels` and `size` where it does not say them itself.

    What the encoder takes as a volume is made as one.
    """
    known = (encoder.images.channels, encoder.images.size) if isinstance(encoder, Encoder) else (0, 0)
    channels, size = channels or known[0], size or known[1]
    if not (channels and size):
        name = type(encoder).__name__
        raise ValueError(f"{name} does not say how large its images are; give channels and size, or use byol.encoders.wrap")
    volume = bool(getattr(encoder.net if isinstance(encoder, Encoder) else encoder, "volume", False))
    return decoder(features, channels, size, hidden=hidden, volume=volume)


METHOD = Autoencoder
