"""Residual networks v1 (He et al. 2016, arXiv 1512.03385) as BYOL uses them: post-activation, any width, no classifier.

Parameter names are torchvision's, so that weights go both ways. As in the released code of BYOL (Haiku), a bottleneck
strides in its 3x3 convolution ("v1.5", also torchvision's and timm's way), and every channel count is multiplied by
the width, the stem included. Three details are torchvision's rather than Haiku's: symmetric padding where TensorFlow
pads the far side more, normal weights by fan-out instead of a truncated normal by fan-in, and no projection on the first
shortcut of ResNet-18 and 34. The first of them can be had: `-same` in a name pads as TensorFlow does, which weights that were
trained so need. Other stems, of networks of others, have names too (`STEMS`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
SMALL_IMAGE = 64  # pixels; up to here the stem keeps the resolution


@dataclass(frozen=True)
class Stem:
    """The first convolution: kernel and stride in pixels, and whether a 3x3 max-pooling of stride 2 follows."""

    kernel: int
    stride: int
    pool: bool
    padding: int | None = None  # pixels on each side; None: as many as keep the size at stride 1
    relu: bool = True  # after the first batch norm

    def __str__(self) -> str:
        padded = "" if self.padding is None else f" padded by {self.padding}"
        return (
            f"{self.kernel}x{self.kernel}/{self.stride} stem{padded}{'' if self.relu else ' without ReLU'}{' + pool' if self.pool else ''}"
        )


STEM_LARGE = Stem(7, 2, pool=True)
STEM_SMALL = Stem(3, 1, pool=False)
STEMS = {
    "-stem7": STEM_LARGE,
    "-stem3": STEM_SMALL,
    "-stem3pool": Stem(3, 1, pool=True),
    "-stem3pad2": Stem(3, 1, pool=False, padding=2),  # solo-learn's for CIFAR: 34 pixels come out of 32
    "-stem3linear": Stem(3, 1, pool=False, relu=False),  # lightly's ResNetGenerator as nn.Sequential, which loses the function relu
}


@dataclass(frozen=True)
class Shape:
    """All that decides the layers of a residual net, but for the channels of the images."""

    blocks: tuple[int, ...]  # of each stage; each stage after the first halves height and width
    bottleneck: bool  # blocks of 1x1, 3x3 and 1x1 convolutions with four times the channels, not of two 3x3
    base: int  # channels of the stem and of the first stage, doubled by each later stage
    stem: Stem
    same: bool = False  # strided convolutions and the pooling are padded as TensorFlow's SAME, else alike on both sides

    @property
    def dim(self) -> int:
        """Features that come out."""
        return (self.base << (len(self.blocks) - 1)) * (4 if self.bottleneck else 1)

    def parameters(self, channels: int, norm: int = 2) -> int:
        """Numbers to learn, without building the net: convolutions have no bias, each of their outputs `norm`: a scale and an offset."""
        total, inputs = self.base * (channels * self.stem.kernel**2 + norm), self.base
        for stage, blocks in enumerate(self.blocks):
            c = self.base * 2**stage
            outputs = 4 * c if self.bottleneck else c
            for _ in range(blocks):
                block = c * (inputs + 9 * c + 2 * norm) + outputs * (c + norm) if self.bottleneck else c * (9 * inputs + 9 * c + 2 * norm)
                total += block + (outputs * (inputs + norm) if inputs != outputs else 0)
                inputs = outputs
        return total


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut: (B, inputs, H, W) -> (B, channels, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int, same: bool = False) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, channels, 3, stride, same)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(channels, channels, 3, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(inputs, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        y: Tensor = self.relu(self.bn2(self.conv2(x)) + shortcut)
        return y


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the shortcut: (B, inputs, H, W) -> (B, 4 channels, H / stride, W / stride)."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int, same: bool = False) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, channels, 1, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, 3, stride, same)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = _conv(channels, 4 * channels, 1, 1)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, 4 * channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        y: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return y


class ResNet(nn.Module):
    """(B, channels, H, W) -> (B, shape.dim), the global average of the last stage.

    `zero_init`: the last scale of each block starts at 0, so that blocks start as the identity: the released code does so
    (bottlenecks only), the paper's runs started at 1.
    """

    def __init__(self, shape: Shape, *, channels: int = 3, zero_init: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.zero_init = zero_init
        stem, block = shape.stem, Bottleneck if shape.bottleneck else BasicBlock
        self.conv1 = _conv(channels, shape.base, stem.kernel, stem.stride, shape.same)
        if stem.padding is not None:
            self.conv1.padding = (stem.padding, stem.padding)
        self.bn1 = nn.BatchNorm2d(shape.base)
        self.relu = nn.ReLU(inplace=True) if stem.relu else nn.Identity()
        self.maxpool = (SamePool() if shape.same else nn.MaxPool2d(3, stride=2, padding=1)) if stem.pool else nn.Identity()
        inputs = shape.base
        for i, blocks in enumerate(shape.blocks):
            width = shape.base * 2**i
            # torchvision's names, layer1 to layer4, so that its state dicts load.
            self.add_module(f"layer{i + 1}", _stage(block, inputs, width, blocks, 1 if i == 0 else 2, shape.same))
            inputs = width * block.expansion
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return self.feature_map(x).mean((2, 3))

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, shape.dim, h, w), the last stage before its average."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(len(self.shape.blocks)):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return x

    def reset_parameters(self) -> None:
        """Draw the weights from torch's generator: normal, variance 2 / fan-out (He et al. 2015, arXiv 1502.01852); norms to 1 and 0."""
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, nn.BatchNorm2d):
                m.reset_parameters()
        if self.zero_init:
            for m in self.modules():
                if isinstance(m, BasicBlock | Bottleneck):
                    nn.init.zeros_((m.bn3 if isinstance(m, Bottleneck) else m.bn2).weight)


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: ceil(n / stride) pixels come out, and the odd pixel of padding is on the far side."""

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, _same(x, self.kernel_size, self.stride, self.dilation))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class SamePool(nn.Module):
    """The 3x3 max-pooling of stride 2 padded as TensorFlow's SAME, after a ReLU: zeros then change no maximum."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, _same(x, (3, 3), (2, 2), (1, 1))), 3, 2)


def same_padding(n: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Pixels before and after n of them, so that ceil(n / stride) come out; the far side has the odd one."""
    total = max((-(-n // stride) - 1) * stride + (kernel - 1) * dilation + 1 - n, 0)
    return total // 2, total - total // 2


def _same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """What F.pad takes for a (B, C, H, W): the width's two first."""
    height, width = (same_padding(x.shape[2 + i], kernel[i], stride[i], dilation[i]) for i in (0, 1))
    return *width, *height


def resnet(depth: int, width: int = 1, *, channels: int = 3, stem: Stem = STEM_LARGE, zero_init: bool = False) -> ResNet:
    """The paper's ResNet of that depth, every channel count times the width: 512 features up to depth 34, else 2048, times the width."""
    return ResNet(shape(depth, width, stem), channels=channels, zero_init=zero_init)


def shape(depth: int, width: int, stem: Stem, *, same: bool = False) -> Shape:
    """What `resnet` builds; `same`: padded as TensorFlow does. ValueError for a depth that the paper does not have."""
    if depth not in DEPTHS or width < 1:
        raise ValueError(f"no ResNet-{depth} of width {width}; give depth {', '.join(map(str, DEPTHS))} and width 1 or more")
    return Shape(DEPTHS[depth], depth >= 50, 64 * width, stem, same)


@dataclass(frozen=True)
class Spec:
    """What a name like `resnet50x2-stem3` says; `stem` None: by the size of the images."""

    depth: int
    width: int
    stem: Stem | None
    same: bool = False

    @property
    def plain(self) -> bool:
        """Whether pre-trained weights of timm, and its images above 64 px, fit it."""
        return self.width == 1 and self.stem in (None, STEM_LARGE) and not self.same


def parse(name: str) -> Spec | None:
    """The parts of `resnet{18,34,50,101,152,200}[x{1,2,3,4}][STEM][-same]`, STEM one of STEMS, or None for any other name."""
    found = re.fullmatch(r"resnet(\d+)(?:x([1-4]))?(-stem\w+)?(-same)?", name)
    if found is None or int(found[1]) not in DEPTHS or not (found[3] is None or found[3] in STEMS):
        return None
    stem = STEMS[found[3]] if found[3] else None
    return None if stem and found[4] and not stem.relu else Spec(int(found[1]), int(found[2] or 1), stem, bool(found[4]))


def stem_for(size: int) -> Stem:
    """The stem for images of so many pixels: small images keep their resolution."""
    return STEM_SMALL if size <= SMALL_IMAGE else STEM_LARGE


def _conv(inputs: int, outputs: int, kernel: int, stride: int, same: bool = False) -> nn.Conv2d:
    # Of stride 1, or of a single pixel, both paddings are the same.
    kind = SameConv2d if same and stride > 1 and kernel > 1 else nn.Conv2d
    return kind(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


def _stage(block: type[BasicBlock] | type[Bottleneck], inputs: int, channels: int, blocks: int, stride: int, same: bool) -> nn.Sequential:
    first = block(inputs, channels, stride, same)
    return nn.Sequential(first, *(block(channels * block.expansion, channels, 1) for _ in range(blocks - 1)))
