"""The encoders of BYOL-A: log-mel spectrograms of any length -> features (Niizumi et al. 2021, arXiv 2103.06695, and 2022, 2204.07402).

Blocks of convolution, batch norm, ReLU and max-pooling; channels and bands of a frame side by side through two linear layers; then
the maximum over time plus the mean over time. Names and order of parameters are those of the released code (AudioNTT2020 and
AudioNTT2022), so that its weights load.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_DROPOUT = 0.3
_KERNEL = 9  # weights of a 3x3 convolution


@dataclass(frozen=True)
class Shape:
    """All that decides the layers, but for the bands of the spectrogram."""

    blocks: int  # of 3x3 convolution, batch norm, ReLU and 2x2 max-pooling
    channels: int  # of every convolution
    hidden: int  # units of the first linear layer
    out: int  # units of the second
    stacked: bool = False  # a frame's features are those of the convolutions and after them the linear layers', as in version 2

    @property
    def stride(self) -> int:
        """Frames of the spectrogram for one frame of features."""
        return int(2**self.blocks)

    def flat(self, bands: int) -> int:
        """Features of a frame before the linear layers."""
        return self.channels * (bands // self.stride)

    def dim(self, bands: int) -> int:
        """Features that come out."""
        return self.out + (self.flat(bands) if self.stacked else 0)

    def parameters(self, bands: int, norm: int = 2) -> int:
        """Numbers to learn, without building the net; `norm` for each channel that is normalised: a scale and an offset."""
        c = self.channels
        convolutions = c * (_KERNEL + 1 + norm) + (self.blocks - 1) * c * (_KERNEL * c + 1 + norm)
        return convolutions + (self.flat(bands) + 1) * self.hidden + (self.hidden + 1) * self.out


V2 = Shape(blocks=2, channels=64, hidden=2048, out=2048, stacked=True)


def v1(dim: int) -> Shape:
    """The encoder of the first paper; 512, 1024 and 2048 features are the published sizes."""
    return Shape(blocks=3, channels=64, hidden=dim, out=dim)


def small(channels: int = 32, dim: int = 256) -> Shape:
    """The first paper's encoder for a CPU: half its channels make a quarter of its work."""
    return Shape(blocks=3, channels=channels, hidden=dim, out=dim)


class AudioNet(nn.Module):
    """(B, 1, bands, T) normalised log-mel -> (B, dim), for any T of one frame of features or more."""

    def __init__(self, shape: Shape, *, bands: int = 64) -> None:
        super().__init__()
        if bands < shape.stride:
            raise ValueError(f"{bands} bands are too few for {shape.blocks} blocks that halve them; give {shape.stride} or more")
        self.shape = shape
        self.bands = bands
        self.dim = shape.dim(bands)
        self.features = nn.Sequential(*(part for i in range(shape.blocks) for part in _block(shape.channels if i else 1, shape.channels)))
        self.fc = nn.Sequential(
            nn.Linear(shape.flat(bands), shape.hidden),
            nn.ReLU(),
            nn.Dropout(p=_DROPOUT),
            nn.Linear(shape.hidden, shape.out),
            nn.ReLU(),
        )

    @property
    def stride(self) -> int:
        """Frames of the spectrogram for one frame of features."""
        return self.shape.stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.frames(x)
        return self.pooled(y.max(1).values, y.mean(1))

    def pooled(self, peak: Tensor, mean: Tensor, std: Tensor | None = None) -> Tensor:
        """Of all frames: (B, dim) each -> (B, dim)."""
        return peak + mean

    def frames(self, x: Tensor) -> Tensor:
        """(B, 1, bands, T) -> (B, T // stride, dim): the features of every moment, before they are pooled over time."""
        if x.shape[2] != self.bands or x.shape[3] < self.shape.stride:
            least = f"(B, 1, {self.bands}, {self.shape.stride} or more)"
            raise ValueError(f"a spectrogram of shape {tuple(x.shape)} does not fit this encoder, which takes {least}; pad it with silence")
        y = self.features(x)  # (B, channels, bands', T')
        # Bands first and then channels: the order that the released weights were trained in.
        y = y.permute(0, 3, 2, 1).flatten(2)
        z: Tensor = self.fc(y)
        return torch.cat([y, z], 2) if self.shape.stacked else z

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator, as torch draws those of its layers."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
                part.reset_parameters()


def parse(name: str) -> Shape | None:
    """The shape that `byol-a-v1-dDIM`, `byol-a-v2` or `audio-small[-cCHANNELS][-dDIM]` names, or None for any other name."""
    if name == "byol-a-v2":
        return V2
    if found := re.fullmatch(r"byol-a-v1-d([1-9]\d{0,4})", name):
        return v1(int(found[1]))
    found = re.fullmatch(r"audio-small(?:-c([1-9]\d{0,3}))?(?:-d([1-9]\d{0,4}))?", name)
    if found is None:
        return None
    return small(**{part: int(text) for part, text in zip(("channels", "dim"), found.groups(), strict=True) if text})


def name_of(shape: Shape) -> str:
    """The name of one of the two papers' encoders. ValueError for a shape that is in neither."""
    name = "byol-a-v2" if shape == V2 else f"byol-a-v1-d{shape.out}"
    if parse(name) != shape:
        raise ValueError(f"{shape} is no encoder of BYOL-A; its names are byol-a-v1-dDIM and byol-a-v2")
    return name


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
