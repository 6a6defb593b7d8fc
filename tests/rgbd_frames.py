"""RGB-D frames of small rooms as an encoder sees them, with the motion of the camera between two of the same."""

import torch

from byol import encoders, geometry


def frames(n, size=8, *, seed=3, near=1.0):
    """(n, 6, size, size) float32: random colours on a wavy surface `near` metres away and more; no depth at a few pixels."""
    g = torch.Generator().manual_seed(seed)
    v, u = torch.meshgrid(*[(torch.arange(size) + 0.5) / size - 0.5] * 2, indexing="ij")
    phase = 6 * torch.rand(n, 4, 1, 1, generator=g)
    z = near * (1.3 + 0.2 * torch.sin(8 * u + phase[:, 0]) + 0.2 * torch.cos(9 * v + 5 * u * phase[:, 1] + phase[:, 2]))
    z[torch.rand(z.shape, generator=g) < 0.1] = 0
    return torch.cat([torch.randn(n, 3, size, size, generator=g), torch.stack([u * z, v * z, z], 1)], 1)


def moved(x, *, seed=5, angle=0.2):
    """The same points from a camera that moved, (n, 6, S, S), with R (n, 3, 3) and t (n, 3), all the same: pixels see what they saw."""
    u = torch.rand(1, 5, generator=torch.Generator().manual_seed(seed)).to(x.dtype).expand(len(x), 5)
    R, t = geometry.rotation_about(geometry.directions(u[:, :2]), angle * u[:, 4]), 0.1 * geometry.directions(u[:, 2:4])
    points = geometry.move(R, t, x[:, 3:].flatten(2).mT).mT.reshape(x[:, 3:].shape)
    return torch.cat([x[:, :3], points * (x[:, 5:] > 0)], 1), R, t


def input_of(size=8):
    return encoders.Input(channels=6, size=size, low=-16, high=16, mean=(0.5,) * 6, std=(1 / 32,) * 6, points=3)


def encoder(size=8, name="byoc-w16-v200", seed=0):
    """Large cells, so that the few points of a small frame are neighbours; with fewer channels some would have the very same features."""
    return encoders.load(name, input=input_of(size), seed=seed)
