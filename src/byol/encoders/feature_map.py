"""The last feature map of an encoder, for what is learnt at every place of an image: segmentation, depth, detection."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from byol.encoders.encoder import Encoder
from byol.encoders.resnet import ResNet


class FeatureMap(nn.Module):
    """(B, C, H, W) normalised images of any size -> (B, channels, h, w): the last map of a copy of an encoder's network.

    `dense`: where a residual net halves the image five times, its last stage keeps the size instead (total stride 16). A
    transformer is set to images of `size` (height, width), rounded up to whole patches, and what it gets is resized to that.
    ValueError for a network that gives features without places.
    """

    def __init__(self, encoder: Encoder, *, size: tuple[int, int], dense: bool = True) -> None:
        super().__init__()
        self.net = copy.deepcopy(encoder.net)
        self.input = encoder.input
        self.fixed = _fix_size(self.net, size)  # (height, width) that the network is bound to, or None
        self.channels, self.stride = _measure(self, encoder, size)
        last = last_stage(self.net)
        if dense and last is not None and self.stride == 32:
            dilate(last)
            self.channels, self.stride = _measure(self, encoder, size)

    def forward(self, x: Tensor) -> Tensor:
        if self.fixed is not None and tuple(x.shape[-2:]) != self.fixed:
            x = interpolate(x, self.fixed, mode="bilinear", antialias=True, align_corners=False)
        return last_map(self.net, x)


def last_map(net: nn.Module, x: Tensor) -> Tensor:
    """(B, C, H, W) -> the last feature map of our, torchvision's or timm's network, or of a module that gives one itself."""
    if hasattr(net, "feature_map"):  # ours
        found: Tensor = net.feature_map(x)  # type: ignore[operator]
        return found
    if hasattr(net, "forward_intermediates"):  # timm's: also for transformers, whose tokens it lays out as a map
        maps: list[Tensor] = net.forward_intermediates(x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)  # type: ignore[operator]
        return maps[-1]
    if all(hasattr(net, part) for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")):
        for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):  # torchvision's residual nets
            x = net.get_submodule(part)(x)
        return x
    y: Tensor = net(x)
    if y.ndim != 4:
        raise ValueError(
            f"{type(net).__name__} gives features of shape {tuple(y.shape)} and no feature map; make it return (B, channels, H, W)"
        )
    return y


def last_stage(net: nn.Module) -> nn.Module | None:
    """conv5 of a residual net of ours, torchvision's or timm's; None for other networks."""
    if isinstance(net, ResNet):
        return net.get_submodule(f"layer{len(net.shape.blocks)}")
    found = getattr(net, "layer4", None)
    return found if isinstance(found, nn.Module) else None


def dilate(stage: nn.Module) -> None:
    """All strides of a stage become 1 and its 3x3 convolutions get dilation 2; the weights stay (the FCN of MoCo and BYOL)."""
    for m in stage.modules():
        if isinstance(m, nn.Conv2d):
            m.stride = (1, 1)
            if m.kernel_size == (3, 3):
                m.dilation, m.padding = (2, 2), (2, 2)
        elif isinstance(m, nn.AvgPool2d):  # the shortcut of ResNet-D
            m.kernel_size = m.stride = 1


def _fix_size(net: nn.Module, size: tuple[int, int]) -> tuple[int, int] | None:
    """Set a transformer of timm to images of about that size; None for networks that take any."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if patch is None or not hasattr(net, "set_input_size"):
        return None
    h, w = (-(-s // p) * p for s, p in zip(size, patch, strict=True))
    net.set_input_size(img_size=(h, w))  # type: ignore[operator]  # seen to be there
    return h, w


@torch.no_grad()
def _measure(maps: FeatureMap, encoder: Encoder, size: tuple[int, int]) -> tuple[int, int]:
    """Channels and total stride, in pixels, by a black image; statistics and modes stay as they are."""
    modes = {m: m.training for m in maps.modules()}
    maps.eval()
    side = maps.fixed or tuple(max(64, 32 * (s // 32)) for s in size)
    like = next(maps.parameters(), torch.zeros(()))
    try:
        y = maps(torch.zeros(1, maps.input.channels, *side, device=like.device, dtype=like.dtype))
    except (RuntimeError, TypeError, AssertionError, IndexError) as error:
        raise ValueError(f"{encoder.name} takes no image of {side[0]} x {side[1]} px: {str(error).splitlines()[0]}") from error
    finally:
        for m, mode in modes.items():
            m.training = mode
    return y.shape[1], max(1, round(side[0] / y.shape[2]))
