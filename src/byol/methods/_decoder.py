"""Images made from features: the decoder that generative methods share, and how a report shows what it makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from byol.encoders import Encoder
from byol.methods import Exhibit

SMALLEST = 4  # pixels; the decoder's first map is this to twice this wide


@dataclass(frozen=True, kw_only=True)
class DecoderOptions:
    """What methods with a decoder share."""

    hidden: int = 256  # channels of the decoder's first map; halved with every doubling of its size, 16 at least
    channels: int = 0  # of the images; 0: as the encoder says
    size: int = 0  # pixels of the images; 0: as the encoder says

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise ValueError(f"hidden is {self.hidden}; give 1 or more")
        if self.channels < 0 or self.size < 0:
            raise ValueError(f"channels={self.channels} and size={self.size} are not possible; give 1 or more, or 0 for the encoder's")


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


@contextmanager
def to_show(method: nn.Module) -> Iterator[None]:
    """For a report: without gradients, in evaluation mode, with the same draws every time; afterwards all is as it was."""
    was = method.training
    method.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # those of other devices are not set back
        yield
    method.train(was)


def decoder_for(encoder: nn.Module, features: int, *, hidden: int, channels: int = 0, size: int = 0) -> nn.Sequential:
    """The decoder of what this encoder sees, from so many features; `channels` and `size` where it does not say them itself.

    What the encoder takes as a volume is made as one.
    """
    channels, size = shape_of(encoder, channels, size)
    return decoder(features, channels, size, hidden=hidden, volume=takes_volumes(encoder))


def shape_of(encoder: nn.Module, channels: int = 0, size: int = 0) -> tuple[int, int]:
    """Channels and pixels a side of what the encoder sees, where they are not given; ValueError where it does not say them."""
    known = (encoder.images.channels, encoder.images.size) if isinstance(encoder, Encoder) else (0, 0)
    channels, size = channels or known[0], size or known[1]
    if not (channels and size):
        name = type(encoder).__name__
        raise ValueError(f"{name} does not say how large its images are; give channels and size, or use byol.encoders.wrap")
    return channels, size


def takes_volumes(encoder: nn.Module) -> bool:
    """Whether the channels of what the encoder sees are the slices of a volume."""
    return bool(getattr(encoder.net if isinstance(encoder, Encoder) else encoder, "volume", False))


def same_shape(made: Tensor, x: Tensor) -> None:
    """ValueError unless what the decoder makes is as large as the views."""
    if made.shape != x.shape:
        raise ValueError(f"the decoder makes {tuple(made.shape[1:])} of views {tuple(x.shape[1:])}; give their channels and size")


def side_by_side(title: str, explanation: str, kinds: dict[str, Tensor], *, across: int) -> Exhibit:
    """{what stands above: (N, C, S, S)}, the same N of each -> rows of `across` images, each in all its kinds, as many as are full."""
    together = torch.stack(list(kinds.values()), 1)
    across = min(across, len(together))
    full = len(together) // across
    rows = together[: full * across].reshape(full, across * len(kinds), *together.shape[2:])
    return Exhibit(title, explanation, tuple(kinds) * across, rows)
