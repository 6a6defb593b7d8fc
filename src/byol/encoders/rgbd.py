"""The encoders of BYOC for RGB-D frames: features of every pixel's colour and of every point's surroundings (arXiv 2106.00677).

Channels of a frame are R, G, B, normalised, and X, Y, Z in metres in the camera's coordinates; a pixel is valid where Z > 0.
The visual one is a stem and two stages of ResNet-18 at full resolution. The geometric one is the sparse U-Net of the package ocnn, in
the shape of the paper's MinkUNet34C, on cells (voxels) that hold a point; what it is given of each is that it is there. A point has the
features of its cell, as in the paper's library, not interpolated ones.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from byol.encoders.resnet import BasicBlock

CHANNELS = 6
FEATURES = 32  # of each encoder, l2-normalised
# Metres from the camera: a frame of 10 m and a wide angle, moved and turned any way, stays inside the cube.
REACH = 20.0
_STAGES = 4  # of the U-Net, each of half the resolution
_AT_ONCE = 16  # frames, in evaluation mode


@dataclass(frozen=True)
class Shape:
    """All that decides the layers, and the side of a cell."""

    width: int = 64  # channels of the visual encoder; those of the geometric one follow
    whole: bool = True  # as many blocks as in the paper; else one wherever it has several
    voxel: float = 0.025  # metres; the paper's

    @property
    def down(self) -> tuple[int, ...]:
        """Channels of the U-Net on its way down."""
        return tuple(c * self.width // 64 for c in (32, 32, 64, 128, 256))

    @property
    def up(self) -> tuple[int, ...]:
        """Channels of the U-Net on its way up."""
        return tuple(c * self.width // 64 for c in (256, 256, 128, 96, 96))

    @property
    def down_blocks(self) -> tuple[int, ...]:
        """Residual blocks of each stage on its way down."""
        return (2, 3, 4, 6) if self.whole else (1, 1, 1, 1)

    @property
    def blocks(self) -> int:
        """Residual blocks of each of the two visual stages, and of each stage of the U-Net on its way up."""
        return 2 if self.whole else 1

    @property
    def depth(self) -> int:
        """Halvings of the cube down to a cell."""
        return math.ceil(math.log2(2 * REACH / self.voxel))

    @property
    def half(self) -> float:
        """Half the side of the cube, in metres."""
        return float(self.voxel * 2 ** (self.depth - 1))

    def parameters(self, norm: int = 2) -> int:
        """Numbers to learn, without building the net; `norm` for each channel that is normalised: a scale and an offset."""
        w = self.width
        visual = w * (3 * 9 + norm) + 4 * self.blocks * w * (9 * w + norm) + FEATURES * (w + norm)
        down, up = self.down, self.up
        total = visual + down[0] * (27 + norm)
        for i, blocks in enumerate(self.down_blocks):
            total += down[i + 1] * (8 * down[i] + norm) + 2 * blocks * down[i + 1] * (27 * down[i + 1] + norm)
        for i in range(_STAGES):
            inputs, c = up[i + 1] + down[-i - 2], up[i + 1]
            total += c * (8 * up[i] + norm) + c * (27 * inputs + norm) + (2 * self.blocks - 1) * c * (27 * c + norm)
            total += c * (inputs + norm) if inputs != c else 0
        return total + w * (up[-1] + norm) + FEATURES * (w + 1)


class RGBD(nn.Module):
    """(B, 6, S, S) -> (B, 64): the mean features of a frame's valid pixels, visual and geometric side by side; 0 where there is none."""

    dim = 2 * FEATURES
    NO_GRAPH = "it sorts the points of each frame into an octree, which no fixed graph does"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        w = shape.width
        self.image = nn.Sequential(
            nn.Conv2d(3, w, 3, padding=1, bias=False),
            nn.BatchNorm2d(w),
            nn.ReLU(inplace=True),
            *(BasicBlock(w, w, 1) for _ in range(2 * shape.blocks)),
            nn.Conv2d(w, FEATURES, 1, bias=False),
            nn.BatchNorm2d(FEATURES),
        )
        for part in self.image.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        self.cloud = _unet(shape)

    def forward(self, x: Tensor) -> Tensor:
        # In evaluation mode each frame is for itself: a few at a time take less memory, and no more time.
        return self._means(x) if self.training else torch.cat([self._means(part) for part in x.split(_AT_ONCE)])  # type: ignore[no-untyped-call]

    def _means(self, x: Tensor) -> Tensor:
        valid = x[:, 5] > 0
        points = x[:, 3:].permute(0, 2, 3, 1)
        geometric = torch.stack([_mean(f) for f in self.geometric([p[v] for p, v in zip(points, valid, strict=True)])])
        weight = valid[:, None].to(x.dtype)
        visual = (self.visual(x) * weight).sum((2, 3)) / weight.sum((2, 3)).clamp_min(1)
        return torch.cat([visual, geometric.to(visual.dtype)], 1)

    def visual(self, x: Tensor) -> Tensor:
        """(B, 6, S, S) -> (B, 32, S, S) of every pixel, of length 1, from its colour and that around it; at least float32."""
        y: Tensor = self.image(x[:, :3])
        if y.requires_grad:
            # Of a batch of one, torch's batch norm on a CPU gives wrong gradients where the one that comes in lies otherwise in memory.
            y.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
        return nn.functional.normalize(y.float() if y.dtype != torch.float64 else y, dim=1)

    def geometric(self, points: Sequence[Tensor]) -> list[Tensor]:
        """(n, 3) each, metres from the camera, any n -> (n, 32) each, of length 1; no point is lost within 20 m, turned or moved.

        Points of one cell have the same features: `thin` says which to take so that there is one of each. Never in half precision.
        """
        lengths = [len(p) for p in points]
        clouds = [p for p in points if len(p)]
        with torch.autocast(points[0].device.type, enabled=False):
            tree, rows = self._octree(clouds)
            if tree is None or tree.nnum_nempty[self.shape.depth - _STAGES] < 2:
                # Batch norm has no statistics of one value: two cells at opposite corners stand beside, and nobody gets their features.
                end = self.shape.half * 0.9
                tree, rows = self._octree([*clouds, points[0].new_tensor([[-end] * 3, [end] * 3])])
            there = points[0].new_ones(int(tree.nnum_nempty[self.shape.depth]), 1)
            cells = self.cloud(there, tree, self.shape.depth)
            # Cut before normalising, so that what is not asked for has a gradient of exactly 0.
            y = nn.functional.normalize(cells[rows[: sum(lengths)]], dim=1)
        parts: list[Tensor] = list(y.split(lengths))  # type: ignore[no-untyped-call]
        return parts

    def thin(self, points: Tensor) -> Tensor:
        """(n, 3) -> rows of the first point of every cell, in order."""
        # The same operations as in the octree, so that a point is in the same cell here and there.
        x, y, z = (points / self.shape.half + 1.0).mul(2**self.shape.depth / 2.0).long().unbind(1)
        _, which = torch.unique((((x << 20) + y) << 20) + z, return_inverse=True)
        first = torch.full((int(which.max()) + 1 if len(points) else 0,), len(points), device=points.device)
        rows: Tensor = first.scatter_reduce_(0, which, torch.arange(len(points), device=points.device), "amin").sort().values
        return rows

    def _octree(self, clouds: Sequence[Tensor]) -> tuple[Any, Tensor]:
        """(n, 3) each, n at least 1 -> their octree, None without any cloud, and for each point the row of its cell."""
        if not clouds:
            return None, torch.zeros(0, dtype=torch.int64)
        octree = _package("ocnn.octree")
        every = torch.cat([c.detach() for c in clouds]) / self.shape.half
        which = torch.cat([c.new_full((len(c), 1), k) for k, c in enumerate(clouds)])
        cloud = octree.Points(every.clamp(-1, 1 - 2.0**-20), batch_id=which, batch_size=len(clouds))
        depth = self.shape.depth
        tree = octree.Octree(depth, full_depth=2, batch_size=len(clouds), device=every.device, start_depth=depth - _STAGES)
        rows: Tensor = tree.build_octree(cloud)
        tree.construct_all_neigh()
        return tree, rows


def parse(name: str) -> Shape | None:
    """The shape that `byoc[-wWIDTH][-vVOXEL]` names, VOXEL in millimetres, or None for any other name."""
    found = re.fullmatch(r"byoc(?:-w([1-9]\d{0,2}))?(?:-v([1-9]\d{0,2}))?", name)
    if found is None or (found[1] and int(found[1]) % 2):
        return None
    return Shape(int(found[1] or 64), found[1] is None, int(found[2] or 25) / 1000)


def _mean(features: Tensor) -> Tensor:
    """(n, D) -> (D,), 0 where n is."""
    return features.sum(0) / max(1, len(features))


def _unet(shape: Shape) -> nn.Module:
    def config_network(net: Any) -> None:
        unet.config_network(net)
        net.encoder_channel, net.decoder_channel = list(shape.down), list(shape.up)
        net.encoder_blocks, net.decoder_blocks = list(shape.down_blocks), [shape.blocks] * _STAGES
        net.head_channel = shape.width

    unet = _package("ocnn.models").UNet
    net: nn.Module = type("UNet", (unet,), {"config_network": config_network})(in_channels=1, out_channels=FEATURES, nempty=True)
    for part in net.modules():
        if hasattr(part, "max_buffer"):  # of convolutions: gathered a part at a time that stays in a processor's cache
            part.max_buffer = 1 << 20  # type: ignore[assignment]  # a number of its own
    return net


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError("features of points need the package ocnn; install it with: pip install 'byol[points]'") from error
