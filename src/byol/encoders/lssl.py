"""The encoder of LSSL: four blocks of convolution and max-pooling, of images or of whole volumes (Zhao et al. 2021, arXiv 2006.06930).

Channels, kernel and features are those of the released code (ZucksLiu/LSSL): 16, 32, 64, 16 channels, a linear layer to 512, tanh.
There it takes volumes of 64^3 voxels; images are ours.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from torch import Tensor, nn

CHANNELS: Final = (16, 32, 64, 16)
DIM: Final = 512
_SMALLEST: Final = 2 ** len(CHANNELS)  # pixels, of which one is left


class Spec(NamedTuple):
    """What a name says."""

    volume: bool  # the channels of a sample are its slices
    tanh: bool


class LsslNet(nn.Module):
    """(B, C, S, S) -> (B, 512); of a volume, whose channels are slices, by convolutions over all three axes."""

    dim = DIM

    def __init__(self, spec: Spec, *, channels: int, size: int) -> None:
        super().__init__()
        if size < _SMALLEST:
            raise ValueError(f"{name_of(spec)} halves its input {len(CHANNELS)} times, and {size} px are too few; give {_SMALLEST} or more")
        if spec.volume and channels != size:
            raise ValueError(f"{name_of(spec)} takes cubes, and {channels} channels of {size} px are none; give volumes, or take lssl")
        self.volume = spec.volume
        blocks: list[nn.Module] = []
        inputs = 1 if spec.volume else channels
        for outputs in CHANNELS:
            blocks += _block(inputs, outputs, spec.volume)
            inputs = outputs
        self.features = nn.Sequential(*blocks, nn.Flatten())
        flat = CHANNELS[-1] * (size // _SMALLEST) ** (3 if spec.volume else 2)
        self.fc = nn.Sequential(nn.Linear(flat, DIM), *([nn.Tanh()] if spec.tanh else []))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.features(x[:, None] if self.volume else x))
        return y

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator, as torch draws those of its layers."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Conv3d | nn.Linear):
                part.reset_parameters()


def parse(name: str) -> Spec | None:
    """What `lssl[-3d][-linear]` names, or None for any other name; `-linear`: without the tanh."""
    found = re.fullmatch(r"lssl(-3d)?(-linear)?", name)
    return None if found is None else Spec(bool(found[1]), not found[2])


def name_of(spec: Spec) -> str:
    """The name that `parse` reads."""
    return f"lssl{'-3d' * spec.volume}{'-linear' * (not spec.tanh)}"


def _block(inputs: int, outputs: int, volume: bool) -> list[nn.Module]:
    if volume:
        return [nn.Conv3d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool3d(2)]
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
