"""Two networks side by side: one sees the lightness of an image, the other its colours (the encoder of CMC, Tian et al. 2019).

`lab:NAME`, `lab:whole:NAME`: see `byol.encoders.halves`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from byol.encoders.halves import Halves
from byol.encoders.input import Input

_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))  # of linear sRGB
_WHITE = (0.95047, 1.0, 1.08883)  # D65
# So that all colours of sRGB lie in [-1, 1]; in CMC's released code.
_MEAN = (50.0, (-86.183 + 98.233) / 2, (-107.857 + 94.478) / 2)
_STD = (50.0, (86.183 + 98.233) / 2, (107.857 + 94.478) / 2)


class Lab(Halves):
    """(B, 3, H, W) normalised RGB -> (B, sum of both): `lightness` sees (B, 1, H, W), `colour` (B, 2, H, W)."""

    mean: Tensor  # (3, 1, 1) each
    std: Tensor
    lab_mean: Tensor
    lab_std: Tensor

    def __init__(self, lightness: nn.Module, colour: nn.Module, input: Input) -> None:
        super().__init__()
        self.lightness, self.colour = lightness, colour
        # Of the views, to be undone: they follow from the input, which is stored beside the weights.
        for name, values in (("mean", input.mean), ("std", input.std), ("lab_mean", _MEAN), ("lab_std", _STD)):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised -> (B, 1, H, W), (B, 2, H, W): L and ab, all colours in [-1, 1]."""
        rgb = (x * self.std + self.mean).clamp(0, 1)
        scaled = (lab(rgb) - self.lab_mean) / self.lab_std
        return scaled[:, :1], scaled[:, 1:]

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.lightness, self.colour


def lab(rgb: Tensor) -> Tensor:
    """(B, 3, ...) sRGB in [0, 1] -> the same shape: CIE L*a*b* (L 0 to 100) for D65, as scikit-image has it."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    r, g, b = linear.unbind(1)
    # No matrix product, which autocast would round.
    xyz = [(row[0] * r + row[1] * g + row[2] * b) / white for row, white in zip(_XYZ, _WHITE, strict=True)]
    x, y, z = (torch.where(v > 0.008856, v.clamp_min(0.008856) ** (1 / 3), 7.787 * v + 16 / 116) for v in xyz)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
