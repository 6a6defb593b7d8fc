"""Monocular depth by four fast up-projection blocks and the reversed Huber loss (Laina et al. 2016, arXiv 1606.00373).

The values are those of BYOL's appendix. Ours, where it is silent or not checked against the paper: momentum 0.9 and the two
steps down of the learning rate, the order of the colour changes and that each is clipped to [0, 1], no 1x1 convolution before the
first block (Laina et al. have one), the loss at the size of the crop and over measured pixels only, metrics over all measured
pixels of the test crops together, and predictions below 1 mm counted as 1 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from byol.data import shown
from byol.dense import crops
from byol.dense.network import Dense
from byol.dense.nyu import open_nyu
from byol.dense.pictures import Files, Split, hold_out, paired, read_depth, sample
from byol.dense.source import OfSplit
from byol.dense.task import Settings, check
from byol.dense.training import Tell, batches, cast, fit, in_order
from byol.encoders import Encoder, FeatureMap, Input
from byol.views import ops

WIDTHS = (512, 256, 128, 64)  # of the four blocks
NEAREST = 1e-3  # metres; a prediction below it counts as this
_COLOURS = ("color", "colour", "rgb", "images")


@dataclass(frozen=True, kw_only=True)
class Depth:
    """The protocol, with the paper's values for NYU v2."""

    iterations: int = 7_500  # updates
    batch_size: int = 256  # images
    lr: float = 0.16  # times 0.1 at 70 % and at 90 %
    weight_decay: float = 5e-4
    shrink: float = 0.5  # the images are made so many times as large first
    height: int = 228  # pixels of the centre crop after that; no more than the image has
    width: int = 304
    units: float = 1000.0  # of the 16-bit maps that are one metre
    seeds: int = 1  # trainings of each kind
    mode: str = "both"  # frozen, finetuned, both

    def __post_init__(self) -> None:
        above = ("iterations", "batch_size", "lr", "shrink", "height", "width", "units", "seeds")
        check(asdict(self), above=above, least={"weight_decay": 0})

    @property
    def name(self) -> str:
        return "depth"

    def describe(self) -> str:
        """`depth (up-projection, berHu, ...)`"""
        return f"depth (up-projection, berHu, {self.iterations:,} updates, batch {self.batch_size}, lr {self.lr:g})"

    def open(self, data: str, test: str | None, limit: int | None) -> DepthTask:
        """A folder with `color` and `depth` (16-bit), `train` and `test` with these inside, or NYU v2's .mat."""
        split = open_split(data, test, self.units).limited(limit)
        h, w = split.train.target(0).shape
        size = (min(self.height, round(h * self.shrink)), min(self.width, round(w * self.shrink)))
        if min(size) < 1:
            raise ValueError(f"shrink={self.shrink:g} leaves nothing of images of {w} x {h} px; give a larger one")
        return DepthTask(self, split, size)


@dataclass(frozen=True)
class DepthTask(OfSplit):
    """Images and depth maps, ready to learn from."""

    settings: Depth
    split: Split
    size: crops.Size  # of a crop

    @property
    def facts(self) -> Settings:
        return {"height": self.size[0], "width": self.size[1]}

    def learn(self, encoder: Encoder, *, frozen: bool, seed: int, device: str, precision: str, tell: Tell) -> dict[str, float]:
        """The shares of pixels within 1.25, 1.25^2 and 1.25^3 of the truth, rms in metres and rel."""
        s = self.settings
        trunk = FeatureMap(encoder, size=self.size, dense=False)
        network = Dense(trunk, up_head(trunk.channels), frozen=frozen).to(device)
        batch = min(s.batch_size, self.train)

        def loss(triples: Sequence[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
            x, y, u = (torch.stack(v).to(device) for v in zip(*triples, strict=True))
            with cast(device, precision):
                said = network(encoder.images.normalise(coloured(x, u)))[:, 0]
            return berhu(said, y, y > 0)

        def crop(index: int, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x, y = self._centre(self.split.train, index, encoder.images)
            return (x.flip(-1), y.flip(-1), u) if float(u[0]) < 0.5 else (x, y, u)

        steps = batches(crop, n=self.train, batch=batch, steps=s.iterations, seed=seed, draws=5)
        fit(network, steps, loss, count=s.iterations, lr=s.lr, weight_decay=s.weight_decay, tell=tell)
        return self._scores(network, encoder, device, precision, batch)

    def _centre(self, pictures: object, index: int, input: Input) -> tuple[Tensor, Tensor]:
        x, y = sample(pictures, index, input)  # type: ignore[arg-type]  # both halves of the split
        size = (max(1, round(y.shape[0] * self.settings.shrink)), max(1, round(y.shape[1] * self.settings.shrink)))
        return crops.centre(*crops.resized(x, y, size), self.size, input.mean, 0.0)

    @torch.no_grad()
    def _scores(self, network: nn.Module, encoder: Encoder, device: str, precision: str, batch: int) -> dict[str, float]:
        sums = Sums()
        for pairs in in_order(partial(self._centre, self.split.test, input=encoder.images), self.test, batch):
            x, y = (torch.stack(v) for v in zip(*pairs, strict=True))
            with cast(device, precision):
                said = network(encoder.images.normalise(x.to(device)))[:, 0].float().cpu()
            sums.add(said.numpy(), y.numpy())
        return sums.metrics()


class UpProjection(nn.Module):
    """(B, inputs, h, w) -> (B, outputs, 2h, 2w): a residual block whose both ways begin with a 5x5 convolution of the unpooled map.

    Unpooling puts each value at the upper left of 2x2 zeros. The transposed convolution below is that, without the zeros: the
    same numbers as the four small interleaved convolutions of the paper ("fast up-convolution").
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up = _up(inputs, outputs)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential(_up(inputs, outputs), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv(torch.relu(self.bn1(self.up(x)))))
        return torch.relu(y + self.shortcut(x))


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1, bias=False)


def up_head(channels: int) -> nn.Sequential:
    """(B, channels, h, w) -> (B, 1, 16h, 16w) metres: the four blocks, then a 3x3 convolution."""
    widths = (channels, *WIDTHS)
    blocks = [UpProjection(a, b) for a, b in pairwise(widths)]
    return nn.Sequential(*blocks, nn.Conv2d(WIDTHS[-1], 1, 3, padding=1))


def berhu(said: Tensor, truth: Tensor, counted: Tensor) -> Tensor:
    """(B, H, W) twice and a mask -> (): |e| up to c, (e^2 + c^2) / 2c above; c is a fifth of the batch's largest |e|; 0 without pixels."""
    e = torch.where(counted, said - truth, 0).abs()
    c = (0.2 * e.detach().amax()).clamp_min(torch.finfo(e.dtype).tiny ** 0.5)
    return torch.where(e <= c, e, (e * e + c * c) / (2 * c)).sum() / counted.sum().clamp_min(1)


def coloured(x: Tensor, u: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1], u (B, 5) -> brightness +-0.1255, saturation times U(0.5, 1.5), hue +-0.2, grey with p = 0.3.

    u[:, 0] is the flip's. Of images without colours only the brightness changes.
    """
    x = ops.brightness_added(x.clone(), u[:, 1:2], 0.1255)
    if x.shape[1] != 3:
        return x
    x = ops.hue(ops.saturation_hsv(x, u[:, 2:3], 0.5).clone(), u[:, 3:4], 0.2)
    return torch.where((u[:, 4] < 0.3)[:, None, None, None], ops.grayscale(x.clone(), u), x)


class Sums:
    """Metrics over the measured pixels of many images, summed in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.within = np.zeros(3)
        self.squares = self.relative = 0.0

    def add(self, said: NDArray[np.floating], truth: NDArray[np.floating]) -> None:
        """Metres of the same shape; where the truth is 0 nothing was measured."""
        measured = truth > 0
        d, p = truth[measured].astype(np.float64), np.maximum(said[measured].astype(np.float64), NEAREST)
        ratio = np.maximum(d / p, p / d)
        self.count += len(d)
        self.within += [(ratio < 1.25**k).sum() for k in (1, 2, 3)]
        self.squares += float(((p - d) ** 2).sum())
        self.relative += float((np.abs(p - d) / d).sum())

    def metrics(self) -> dict[str, float]:
        """ValueError if no pixel was measured."""
        if not self.count:
            raise ValueError("no pixel of the test depth maps is measured (0 and 65535 are not); give others")
        near = {f"< 1.25{power}": float(v) / self.count for power, v in zip(("", "^2", "^3"), self.within, strict=True)}
        return near | {"rms": (self.squares / self.count) ** 0.5, "rel": self.relative / self.count}


def open_split(data: str, test: str | None, units: float) -> Split:
    """Training and test images of a folder or a .mat file, or of two."""
    root = Path(data)
    if root.suffix.lower() == ".mat" and root.is_file():
        if test is not None:
            raise ValueError(f"{shown(data)} brings its own test images; leave --test out")
        return open_nyu(root)
    if not root.is_dir():
        raise ValueError(f"{shown(data)} is neither a folder nor a .mat file; {_LAYOUTS}")
    if test is not None:
        return Split(_beside(root, units), _beside(Path(test), units), f"--test {shown(test)}")
    for name in ("test", "val"):
        if (root / "train" / "depth").is_dir() and (root / name / "depth").is_dir():
            return Split(_beside(root / "train", units), _beside(root / name, units), f"the folder {name}")
    return hold_out(_beside(root, units))


_LAYOUTS = (
    "give a folder with color/ and depth/ (16-bit PNG, the same file names), one with train/ and test/ that hold both, or NYU v2's .mat"
)


def _beside(root: Path, units: float) -> Files:
    colours = next((root / name for name in _COLOURS if (root / name).is_dir()), None)
    if colours is None or not (root / "depth").is_dir():
        raise ValueError(f"{shown(str(root))} has no depth maps to learn from; {_LAYOUTS}")
    return paired(colours, root / "depth", partial(read_depth, units=units), "depth map")
