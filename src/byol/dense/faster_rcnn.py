"""Faster R-CNN from torchvision's parts on an encoder: C4 for residual nets of ours and torchvision's, else on the last map.

C4: proposals from conv4 (stride 16), and conv5 on each of them. Other convolutional networks: proposals from their last map, and
two layers of 1024 units on each.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FasterRCNN, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from byol.encoders import Encoder, FeatureMap, Input

ANCHORS = ((32, 64, 128, 256, 512),)  # pixels
_UNITS = 1024
_STEM = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")

Targets = list[dict[str, Tensor]]


class Still(nn.Module):
    """A part of the encoder; `frozen`: its weights and batch-norm statistics stay, whatever mode the whole is in."""

    def __init__(self, part: nn.Module, *, frozen: bool, channels: int, pooled: bool = False) -> None:
        super().__init__()
        self.part, self.frozen, self.out_channels, self.pooled = part, frozen, channels, pooled
        part.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> Still:
        """As any module, but a frozen part always evaluates."""
        super().train(mode)
        if self.frozen:
            self.part.eval()
        return self

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


def faster_rcnn(encoder: Encoder, classes: int, *, frozen: bool, size: int) -> FasterRCNN:
    """A detector of `classes` classes and the ground on a copy of the encoder, for images of up to `size` px."""
    net = encoder.net
    if all(hasattr(net, part) for part in (*_STEM, "layer4")) and not hasattr(net, "layer5"):
        parts = {name: copy.deepcopy(net.get_submodule(name)) for name in (*_STEM, "layer4")}
        conv5 = parts.pop("layer4")
        stem = nn.Sequential()
        for name, part in parts.items():
            stem.add_module(name, part)
        with torch.no_grad():
            inputs = stem.eval()(torch.zeros(1, encoder.input.channels, 64, 64)).shape[1]
            outputs = conv5.eval()(torch.zeros(1, inputs, 14, 14)).shape[1]
        backbone, pool = Still(stem, frozen=frozen, channels=inputs), 14
        head: nn.Module = Still(conv5, frozen=frozen, channels=outputs, pooled=True)
    else:
        trunk = FeatureMap(encoder, size=(size, size))
        if trunk.fixed is not None:
            h, w = trunk.fixed
            raise ValueError(f"{encoder.name} is bound to images of {h} x {w} px, and detection has many sizes; take a convolutional one")
        backbone, pool, outputs = Still(trunk, frozen=frozen, channels=trunk.channels), 7, _UNITS
        head = TwoMLPHead(trunk.channels * pool * pool, _UNITS)
    model = FasterRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(ANCHORS, ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=pool, sampling_ratio=2),
        box_head=head,
        box_predictor=FastRCNNPredictor(outputs, classes + 1),
    )
    model.transform = Normalised(encoder.input)
    return model
