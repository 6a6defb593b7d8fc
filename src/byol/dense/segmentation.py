"""Semantic segmentation by a fully convolutional head, as MoCo and BYOL (Grill et al. 2020, appendix C.4) measure it.

Ours: the learning rate is one number, the middle of the paper's sweep, unless another is given, and one seed where the paper has
five; crops are no larger than the longest side of images that even the largest scale does not bring to 513 px; the trunk of other
networks than residual ones keeps its own stride. Not said there: momentum 0.9, and what fills the border (the mean, and void).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from byol.data import shown
from byol.dense import crops
from byol.dense.network import Dense
from byol.dense.pictures import Files, Pictures, Split, hold_out, listed_in, paired, read_mask, sample
from byol.dense.source import OfSplit
from byol.dense.task import Settings, check
from byol.dense.training import Tell, batches, cast, fit, in_order
from byol.encoders import Encoder, FeatureMap

Counts = NDArray[np.int64]
_MOST = 4096  # classes; more are no classes but a picture
_LISTS = (("train_aug", "SegmentationClassAug"), ("trainaug", "SegmentationClassAug"), ("train", "SegmentationClass"))


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """The protocol; the paper's values but for `lr`, which it sweeps over 1e-3 ... 1e-1."""

    iterations: int = 30_000  # updates
    batch_size: int = 16  # images
    crop: int = 513  # pixels, height and width; of small images their longest side
    lr: float = 0.01  # times 0.1 at 70 % and at 90 %
    weight_decay: float = 1e-4
    scale_min: float = 0.5  # of training images, times their own size
    scale_max: float = 2.0
    void: int = 255  # the class number of pixels that do not count
    seeds: int = 1  # trainings of each kind; the paper's 5
    mode: str = "both"  # frozen, finetuned, both

    def __post_init__(self) -> None:
        above = ("iterations", "batch_size", "crop", "lr", "scale_min", "scale_max", "seeds")
        check(asdict(self), above=above, least={"weight_decay": 0, "void": 0})
        if self.scale_max < self.scale_min:
            raise ValueError(f"scale_max={self.scale_max:g} is below scale_min={self.scale_min:g}; give scale_max >= scale_min")

    @property
    def name(self) -> str:
        return "segmentation"

    def describe(self) -> str:
        """`segmentation (FCN head, ...)`"""
        return f"segmentation (FCN head, {self.iterations:,} updates, batch {self.batch_size}, crop {self.crop}, lr {self.lr:g})"

    def open(self, data: str, test: str | None, limit: int | None) -> SegmentationTask:
        """VOC's folders, or `images` and `masks`, or `train` and `test` (or `val`) with these two inside."""
        split = open_split(data, test).limited(limit)
        tops = [_look(pictures, self.void) for pictures in (split.train, split.test)]
        longest = max(t.side for t in tops)
        # Images that even the largest scale does not bring to the size of a crop would be filling for the most part.
        side = self.crop if longest * self.scale_max >= self.crop else longest
        classes = max(t.classes for t in tops)
        if classes < 2:
            raise ValueError(f"the masks of {shown(data)} have one class beside void={self.void}; give masks of two classes or more")
        return SegmentationTask(self, split, classes, (side, side))


@dataclass(frozen=True)
class SegmentationTask(OfSplit):
    """Images and masks, ready to learn from."""

    settings: Segmentation
    split: Split
    classes: int
    size: crops.Size  # of a crop

    @property
    def facts(self) -> Settings:
        return {"classes": self.classes, "crop": self.size[0]}

    def learn(self, encoder: Encoder, *, frozen: bool, seed: int, device: str, precision: str, tell: Tell) -> dict[str, float]:
        """mIoU and the share of pixels that are right, on the centre crops of the test images."""
        s = self.settings
        trunk = FeatureMap(encoder, size=self.size)
        network = Dense(trunk, fcn_head(trunk.channels, self.classes), frozen=frozen).to(device)
        batch = min(s.batch_size, self.train)

        def loss(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
            x, y = (torch.stack(v).to(device) for v in zip(*pairs, strict=True))
            with cast(device, precision):
                logits = network(encoder.images.normalise(x))
            return pixel_loss(logits, y.long(), s.void)

        steps = batches(lambda i, u: self._crop(encoder, i, u), n=self.train, batch=batch, steps=s.iterations, seed=seed, draws=4)
        fit(network, steps, loss, count=s.iterations, lr=s.lr, weight_decay=s.weight_decay, tell=tell)
        return scores(self._confusion(network, encoder, device, precision, batch))

    def _crop(self, encoder: Encoder, index: int, u: Tensor) -> tuple[Tensor, Tensor]:
        s = self.settings
        x, y = sample(self.split.train, index, encoder.images)
        # Filled with the mean, which is 0 once normalised.
        return crops.random(x, y.int(), u, self.size, (s.scale_min, s.scale_max), encoder.images.mean, s.void)

    @torch.no_grad()
    def _confusion(self, network: nn.Module, encoder: Encoder, device: str, precision: str, batch: int) -> Counts:
        s = self.settings

        def centre(index: int) -> tuple[Tensor, Tensor]:
            x, y = sample(self.split.test, index, encoder.images)
            return crops.centre(x, y.int(), self.size, encoder.images.mean, s.void)

        total = np.zeros((self.classes, self.classes), np.int64)
        for pairs in in_order(centre, self.test, batch):
            x, y = (torch.stack(v) for v in zip(*pairs, strict=True))
            with cast(device, precision):
                said = network(encoder.images.normalise(x.to(device))).argmax(1).cpu()
            total += confusion(y.numpy(), said.numpy(), self.classes, s.void)
        return total


def fcn_head(channels: int, classes: int, width: int = 256) -> nn.Sequential:
    """(B, channels, h, w) -> (B, classes, h, w): two 3x3 convolutions of dilation 6 with batch norm and ReLU, then 1x1."""
    layers: list[nn.Module] = []
    for inputs in (channels, width):
        layers += [nn.Conv2d(inputs, width, 3, padding=6, dilation=6, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(width, classes, 1))


def pixel_loss(logits: Tensor, y: Tensor, void: int) -> Tensor:
    """(B, K, H, W), (B, H, W) int64 -> (): cross-entropy averaged over the pixels that are not void; 0 where all are."""
    counted = (y != void).sum().clamp_min(1)
    # A batch of void alone would be 0 / 0.
    return cross_entropy(logits, y, ignore_index=void, reduction="sum") / counted


def confusion(truth: NDArray[np.integer], said: NDArray[np.integer], classes: int, void: int) -> Counts:
    """Class numbers of the same shape -> (K, K) pixels of true class (row) and said class (column); void ones do not count."""
    kept = truth != void
    pairs = truth[kept].astype(np.int64) * classes + said[kept]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def scores(counts: Counts) -> dict[str, float]:
    """(K, K) pixels -> the mean over classes of intersection / union, and the share of right pixels.

    Over the whole test set, not image by image; classes that are neither there nor said are left out of the mean.
    """
    hit = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - hit
    there = union > 0
    if not there.any():
        raise ValueError("every pixel of the test masks is void; give another test set, or another void=")
    return {"mIoU": float((hit[there] / union[there]).mean()), "pixel accuracy": float(hit.sum() / counts.sum())}


def open_split(data: str, test: str | None) -> Split:
    """Training and test images of a folder, or of two."""
    root = Path(data)
    if not root.is_dir():
        raise ValueError(f"{shown(data)} is no folder; {_LAYOUTS}")
    if test is not None:
        return Split(_whole(root, "train"), _whole(Path(test), "test"), f"--test {shown(test)}")
    if (root / "SegmentationClass").is_dir():
        return Split(_voc(root, "train"), _voc(root, "test"), "VOC's val")
    for name in ("test", "val"):
        if (root / "train" / "images").is_dir() and (root / name / "images").is_dir():
            return Split(_beside(root / "train"), _beside(root / name), f"the folder {name}")
    return hold_out(_beside(root))


_LAYOUTS = (
    "give a folder with images/ and masks/ (the same file names), or with train/ and test/ that hold both, "
    "or VOC's with JPEGImages/, SegmentationClass/ and ImageSets/"
)


def _whole(root: Path, part: str) -> Files:
    if (root / "SegmentationClass").is_dir():
        return _voc(root, part)
    return _beside(root / part if (root / part / "images").is_dir() else root)


def _beside(root: Path) -> Files:
    if not (root / "images").is_dir() or not (root / "masks").is_dir():
        raise ValueError(f"{shown(str(root))} has no masks to learn from; {_LAYOUTS}")
    return paired(root / "images", root / "masks", read_mask, "mask")


def _voc(root: Path, part: str) -> Files:
    """VOC2012: `train_aug` with its own masks where it is there, else `train`; tested on `val`."""
    lists = root / "ImageSets" / "Segmentation"
    name, folder = "val", "SegmentationClass"
    if part == "train":
        there = [(n, f) for n, f in _LISTS if (lists / f"{n}.txt").is_file()]
        name, folder = next(((n, f) for n, f in there if (root / f).is_dir()), ("train", folder))
    names = listed_in(lists / f"{name}.txt")
    files = Files(tuple(root / "JPEGImages" / f"{n}.jpg" for n in names), tuple(root / folder / f"{n}.png" for n in names), read_mask)
    if not names:
        raise ValueError(f"{shown(str(lists / name))}.txt names no images; give VOC's own list")
    return files


@dataclass(frozen=True)
class _Look:
    classes: int
    side: int  # pixels, of the largest


def _look(pictures: Pictures, void: int) -> _Look:
    """The number of classes and the longest side, from all masks."""
    classes, side = 0, 0
    for masks in in_order(pictures.target, len(pictures), 64):
        for mask in masks:
            counted = mask[mask != void].astype(np.int64)
            classes = max(classes, int(counted.max(initial=-1)) + 1)
            side = max(side, *mask.shape)
            if int(counted.min(initial=0)) < 0 or classes > _MOST:
                raise ValueError(f"a mask has the class number {classes - 1}; give 0 to {_MOST - 1}, and void= for what is none")
    return _Look(classes, side)
