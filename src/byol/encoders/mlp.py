"""A multi-layer perceptron: the encoder of what is a plain vector, such as the spike counts of one bin."""

from __future__ import annotations

import re

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


def parse(name: str) -> tuple[int, int] | None:
    """(width, depth) of `mlp[-wWIDTH][-dDEPTH]`, or None for any other name: units of every layer, features too, and hidden layers."""
    found = re.fullmatch(r"mlp(?:-w([1-9]\d{0,3}))?(?:-d([1-9]))?", name)
    return None if found is None else (int(found[1] or 128), int(found[2] or 3))


def build(name: str, inputs: int) -> Mlp:
    """The network of that name for vectors of so many values."""
    spec = parse(name)
    assert spec is not None
    return Mlp(inputs, hidden=spec[0], layers=spec[1], dim=spec[0])
