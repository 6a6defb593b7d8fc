"""The feature pyramid (Lin et al. 2017, arXiv 1612.03144) on the stages of a residual net, from torchvision's parts."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d
from torchvision.ops import FeaturePyramidNetwork

from byol.dense.still import Still
from byol.encoders import Encoder

FINEST, COARSEST = 4, 64  # strides, in pixels, of the first and the last level: P2 and P6
WIDTH = 256  # channels of every level
ANCHOR = 8  # an anchor of a level is so many times as wide as its stride: 32, 64, 128, 256 and 512 px
_STEMS = (("conv1", "bn1", "relu", "maxpool"), ("conv1", "bn1", "act1", "maxpool"))  # ours and torchvision's; timm's
_SIDE = 192  # pixels of the image that strides are measured on
_MEND = "leave neck=fpn out, or take a residual net"


class Stages(nn.Module):
    """(B, C, H, W) normalised images -> the maps of a copy of a residual net's stages layer1, layer2, ..., the finest first."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        net = encoder.net
        stem = next((s for s in _STEMS if all(hasattr(net, part) for part in s)), None)
        if stem is None or not hasattr(net, "layer2"):
            raise ValueError(f"{encoder.name} has no stages layer1, layer2, ... to put a feature pyramid on; {_MEND}")
        self.stem = nn.Sequential(*(copy.deepcopy(net.get_submodule(part)) for part in stem))
        self.stages = nn.ModuleList()
        while hasattr(net, name := f"layer{len(self.stages) + 1}"):
            self.stages.append(copy.deepcopy(net.get_submodule(name)))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Pyramid(nn.Module):
    """(B, C, H, W) normalised images -> {"0": ..., "1": ...}: maps of 256 channels, of `strides` that double up to 64.

    Stages that halve the image less than twice take no part; levels beyond the last stage are drawn from it, every second pixel.
    `frozen`: the stages stay as they are; the pyramid learns. ValueError for an encoder without such stages.
    """

    def __init__(self, encoder: Encoder, *, frozen: bool) -> None:
        super().__init__()
        stages = Stages(encoder)
        channels, strides = _measured(stages, encoder)
        self.first = sum(s < FINEST for s in strides)
        kept = strides[self.first :]
        powers = all(s & (s - 1) == 0 for s in kept)
        if len(kept) < 2 or kept[-1] > COARSEST or not powers or any(b != 2 * a for a, b in pairwise(kept)):
            said = ", ".join(map(str, strides))
            raise ValueError(
                f"{encoder.name} has stages of the strides {said}, and a feature pyramid takes two or more of 4, 8, 16, ... px; "
                f"{_MEND} of such"
            )
        self.more = (COARSEST // kept[-1]).bit_length() - 1
        self.body = Still(stages, frozen=frozen)
        self.fpn = FeaturePyramidNetwork(channels[self.first :], WIDTH)
        self.out_channels = WIDTH
        self.strides = (*kept, *(kept[-1] * 2**k for k in range(1, self.more + 1)))
        self.pooled = [str(i) for i in range(len(kept))]  # the levels that boxes are cut out of

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps: list[Tensor] = self.body.part(x)
        levels: dict[str, Tensor] = self.fpn({str(i): m for i, m in enumerate(maps[self.first :])})
        for _ in range(self.more):  # torchvision's LastLevelMaxPool, as often as there are levels to come
            levels[str(len(levels))] = max_pool2d(levels[str(len(levels) - 1)], kernel_size=1, stride=2)
        return levels


@torch.no_grad()
def _measured(stages: Stages, encoder: Encoder) -> tuple[list[int], list[int]]:
    """Channels and strides of the stages, by a black image."""
    like = next(stages.parameters())
    maps = stages.eval()(torch.zeros(1, encoder.input.channels, _SIDE, _SIDE, device=like.device, dtype=like.dtype))
    return [m.shape[1] for m in maps], [round(_SIDE / m.shape[2]) for m in maps]
