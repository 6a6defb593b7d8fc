"""A multi-layer perceptron: the encoder of what is a plain vector, such as the spike counts of one bin."""

from __future__ import annotations

from torch import Tensor, nn


class Mlp(nn.Module):
    """(B, inputs) -> (B, dim): `layers` of Linear, batch norm and ReLU with `hidden` units, then Linear.

    128 units and 3 layers are MYOW's for reaching monkeys (Azabou et al. 2021, released code).
    """

    def __init__(self, inputs: int, *, hidden: int = 128, layers: int = 3, dim: int = 128) -> None:
        super().__init__()
        if min(inputs, hidden, dim) < 1 or layers < 0:
            raise ValueError(f"inputs={inputs}, hidden={hidden}, layers={layers}, dim={dim} make no network; give 1 or more of each")
        self.dim = dim
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Linear(inputs, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
            inputs = hidden
        self.net = nn.Sequential(*parts, nn.Linear(inputs, dim))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x.flatten(1))
        return y

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's generator."""
        for part in self.net:
            if isinstance(part, nn.Linear | nn.BatchNorm1d):
                part.reset_parameters()
