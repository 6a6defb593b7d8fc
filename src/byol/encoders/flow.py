"""Two networks side by side behind an invertible flow on pixels, which is trained with them (InfoMin's learned views, Tian et al. 2020).

The flow makes of the three colours of every pixel three other channels; one network sees the first of them, the other the rest. Four
layers, each an invertible 1x1 convolution and an additive coupling with a small network: so no colour is lost and no volume changed,
whatever the weights are. The paper's own flow is not known to us in detail. The convolution is a rotation here, drawn evenly from all,
so that its inverse is exact and stays so; a coupling adds nothing at the beginning and at most one standard deviation ever.

`flow:NAME`, `flow:whole:NAME`: see `byol.encoders.halves`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from byol.encoders.halves import Halves

LAYERS = 4
HIDDEN = 16  # units between what a coupling sees and what it adds


class Layer(nn.Module):
    """(B, 3, H, W) -> the same shape, invertible: colours are turned, then the first `kept` say what is added to the others."""

    def __init__(self, kept: int) -> None:
        super().__init__()
        self.kept = kept
        self.turn = nn.Parameter(torch.empty(4))  # a quaternion, of any length but 0
        self.into = nn.Parameter(torch.empty(HIDDEN, kept))
        self.into_bias = nn.Parameter(torch.empty(HIDDEN))
        self.out = nn.Parameter(torch.empty(3 - kept, HIDDEN))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for drawn in (self.turn, self.into, self.into_bias):
            nn.init.normal_(drawn)
        nn.init.zeros_(self.out)

    def forward(self, x: Tensor) -> Tensor:
        y = _mixed(x, rotation(self.turn))
        a, b = y[:, : self.kept], y[:, self.kept :]
        return torch.cat([a, b + self._added(a)], 1)

    def inverse(self, y: Tensor) -> Tensor:
        """(B, 3, H, W) -> the x that gives it."""
        a, b = y[:, : self.kept], y[:, self.kept :]
        return _mixed(torch.cat([a, b - self._added(a)], 1), rotation(self.turn).T)

    def _added(self, a: Tensor) -> Tensor:
        """(B, k, H, W) -> (B, 3 - k, H, W), in (-1, 1): one hidden layer, pixel by pixel."""
        hidden = torch.relu(_mixed(a, self.into) + self.into_bias.view(1, -1, 1, 1))
        # Without a bound a flow that hides carries colours so far away that rounding, above all bf16's, loses what was small.
        return torch.stack([(hidden * row.view(1, -1, 1, 1)).sum(1) for row in self.out], 1).tanh()


class Flow(Halves):
    """(B, 3, H, W) normalised RGB -> (B, sum of both): `first` sees channel 1 of the flow's, `second` channels 2 and 3."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.flow = nn.ModuleList(Layer(1 + i % 2) for i in range(LAYERS))
        self.first, self.second = first, second

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) normalised -> (B, 1, H, W), (B, 2, H, W): what the flow makes of it."""
        for layer in self.flow:
            x = layer(x)
        return x[:, :1], x[:, 1:]

    def inverse(self, one: Tensor, two: Tensor) -> Tensor:
        """(B, 1, H, W), (B, 2, H, W) -> (B, 3, H, W): the image that `split` gives these of."""
        y = torch.cat([one, two], 1)
        for layer in reversed(self.flow):
            y = layer.inverse(y)  # type: ignore[operator]  # a Layer
        return y

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return self.first, self.second


def rotation(q: Tensor) -> Tensor:
    """(4,) a quaternion (w, x, y, z) of any length but 0 -> (3, 3); evenly over all rotations where q is normal."""
    w, x, y, z = (q / q.square().sum().sqrt()).unbind()
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row) for row in rows])


def _mixed(x: Tensor, weight: Tensor) -> Tensor:
    """(B, k, H, W), (n, k) -> (B, n, H, W): a 1x1 convolution."""
    # No matrix product, which autocast would round: then the inverse would not give the image back.
    parts = [weight[:, j].view(1, -1, 1, 1) * x[:, j : j + 1] for j in range(weight.shape[1])]
    return torch.stack(parts).sum(0)
