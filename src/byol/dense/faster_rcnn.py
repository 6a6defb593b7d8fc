"""Faster R-CNN from torchvision's parts on an encoder: C4 for residual nets of ours and torchvision's, else on the last map; or FPN.

C4: proposals from conv4 (stride 16), and conv5 on each of them. Other convolutional networks: proposals from their last map, and
two layers of 1024 units on each. FPN: proposals from every level of a feature pyramid, and the two layers on each.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from byol.dense.pyramid import ANCHOR, Pyramid
from byol.dense.still import Still
from byol.encoders import Encoder, FeatureMap, Input

ANCHORS = ((32, 64, 128, 256, 512),)  # pixels, on a single map
ASPECTS = (0.5, 1.0, 2.0)  # height / width
_SIDE = 192  # pixels of the image that the stride of conv4 is measured on
_UNITS = 1024
_STEM = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")

Targets = list[dict[str, Tensor]]


class Map(Still):
    """(B, C, H, W) -> (B, channels, h, w), or its mean over the places: a part of the encoder whose output is one map."""

    def __init__(self, part: nn.Module, *, frozen: bool, channels: int, pooled: bool = False) -> None:
        super().__init__(part, frozen=frozen)
        self.out_channels, self.pooled = channels, pooled

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.part(x)
        return y.mean((2, 3)) if self.pooled else y


class Normalised(nn.Module):
    """Images in [0, 1] of several sizes -> one padded batch of normalised ones; torchvision's own transform would resize as well."""

    def __init__(self, input: Input) -> None:
        super().__init__()
        self.input = input

    def forward(self, images: list[Tensor], targets: Targets | None = None) -> tuple[ImageList, Targets | None]:
        sizes = [(int(i.shape[-2]), int(i.shape[-1])) for i in images]
        h, w = (-(-max(side) // 32) * 32 for side in zip(*sizes, strict=True))
        batch = images[0].new_zeros(len(images), self.input.channels, h, w)
        for place, image in zip(batch, images, strict=True):
            place[:, : image.shape[-2], : image.shape[-1]] = self.input.normalise(image[None])[0]
        return ImageList(batch, sizes), targets

    def postprocess(self, found: Targets, sizes: object, original: object) -> Targets:
        """Boxes as they are: they belong to the images that were given."""
        return found


@dataclass(frozen=True)
class Parts:
    """What differs between the detectors."""

    backbone: nn.Module  # with .out_channels; a map, or several by name
    anchors: Sequence[Sequence[int]]  # pixels, of each level
    levels: list[str]  # that boxes are cut out of
    pool: int  # height and width of what is cut out
    head: nn.Module
    outputs: int  # of the head


def faster_rcnn(encoder: Encoder, classes: int, *, frozen: bool, size: int, neck: str = "c4") -> FasterRCNN:
    """A detector of `classes` classes and the ground on a copy of the encoder, for images of up to `size` px.

    `neck`: "c4", or "fpn" for a feature pyramid. ValueError for an encoder that it cannot be put on.
    """
    parts = _fpn(encoder, frozen) if neck == "fpn" else _c4(encoder, frozen) if _has_conv5(encoder.net) else _last(encoder, frozen, size)
    model = FasterRCNN(
        parts.backbone,
        rpn_anchor_generator=AnchorGenerator(tuple(map(tuple, parts.anchors)), (ASPECTS,) * len(parts.anchors)),
        box_roi_pool=MultiScaleRoIAlign(parts.levels, output_size=parts.pool, sampling_ratio=2),
        box_head=parts.head,
        box_predictor=FastRCNNPredictor(parts.outputs, classes + 1),
    )
    model.transform = Normalised(encoder.images)
    return model


def _has_conv5(net: nn.Module) -> bool:
    return all(hasattr(net, part) for part in (*_STEM, "layer4")) and not hasattr(net, "layer5")


def _fpn(encoder: Encoder, frozen: bool) -> Parts:
    pyramid = Pyramid(encoder, frozen=frozen)
    anchors = [(ANCHOR * stride,) for stride in pyramid.strides]
    return Parts(pyramid, anchors, pyramid.pooled, 7, TwoMLPHead(pyramid.out_channels * 7 * 7, _UNITS), _UNITS)


def _c4(encoder: Encoder, frozen: bool) -> Parts:
    parts = {name: copy.deepcopy(encoder.net.get_submodule(name)) for name in (*_STEM, "layer4")}
    conv5 = parts.pop("layer4")
    stem = nn.Sequential()
    for name, part in parts.items():
        stem.add_module(name, part)
    with torch.no_grad():
        conv4 = stem.eval()(torch.zeros(1, encoder.images.channels, _SIDE, _SIDE))
        outputs = conv5.eval()(torch.zeros(1, conv4.shape[1], 14, 14)).shape[1]
    _check_stride(encoder, round(_SIDE / conv4.shape[2]))
    head = Map(conv5, frozen=frozen, channels=outputs, pooled=True)
    return Parts(Map(stem, frozen=frozen, channels=conv4.shape[1]), ANCHORS, ["0"], 14, head, outputs)


def _last(encoder: Encoder, frozen: bool, size: int) -> Parts:
    trunk = FeatureMap(encoder, size=(size, size))
    if trunk.fixed is not None:
        h, w = trunk.fixed
        raise ValueError(f"{encoder.name} is bound to images of {h} x {w} px, and detection has many sizes; take a convolutional one")
    _check_stride(encoder, trunk.stride)
    return Parts(Map(trunk, frozen=frozen, channels=trunk.channels), ANCHORS, ["0"], 7, TwoMLPHead(trunk.channels * 7 * 7, _UNITS), _UNITS)


def _check_stride(encoder: Encoder, stride: int) -> None:
    # torchvision's RoI align takes the nearest power of two for the scale, so that boxes would be cut out of other places.
    if stride & (stride - 1):
        raise ValueError(
            f"the map of {encoder.name} is 1/{stride} of the image, and boxes are cut out of 1/2, 1/4, 1/8, ...; take such a one"
        )
