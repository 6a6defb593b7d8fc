"""An encoder's feature map and a head on it that says something about every pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from byol.encoders import FeatureMap


class Dense(nn.Module):
    """(B, C, H, W) normalised images -> (B, K, H, W): the head on the feature map, brought to the images' size (bilinear).

    `frozen`: weights and batch-norm statistics of the encoder stay as they are, whatever mode the whole is in.
    """

    def __init__(self, trunk: FeatureMap, head: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.trunk, self.head, self.frozen = trunk, head, frozen
        trunk.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> Dense:
        """As any module, but a frozen encoder always evaluates."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            maps = self.trunk(x)
        return interpolate(self.head(maps).float(), x.shape[-2:], mode="bilinear", align_corners=False)
