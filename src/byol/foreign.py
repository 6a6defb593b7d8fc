"""Our encoders as the plain networks of timm and torchvision: built by their code, filled strictly, and found to give the same features."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from byol.encoders import Encoder, Input
from byol.encoders.norms import Changes
from byol.encoders.norms import parse as norm_of
from byol.encoders.resnet import STEM_SMALL, ResNet
from byol.encoders.timm_nets import is_known

Library: TypeAlias = Literal["timm", "torchvision"]
TOLERANCE = 1e-5  # largest difference of features, relative to the largest one where that is above 1
_TORCHVISION = (18, 34, 50, 101, 152)


@dataclass(frozen=True)
class Plain:
    """A network of another library with an encoder's weights."""

    net: nn.Module  # on the CPU, in eval mode
    name: str  # as that library has it
    arguments: dict[str, object]  # what it was built with beside the name
    lines: tuple[str, ...]  # the Python that builds it


def plain(encoder: Encoder, library: Library) -> Plain:
    """The network of the library that takes the encoder's weights under their names, all of them and no others.

    ValueError in one sentence where there is none, or where its features differ by more than TOLERANCE.
    """
    if not isinstance(encoder.input, Input):
        raise ValueError(f"{encoder.name} takes log-mels of sound, which {library} does not make; export .safetensors, .onnx or .pt2")
    bare, changes = norm_of(encoder.name)
    if changes != Changes():
        raise ValueError(f"{encoder.name} is not built as plain {library} builds {bare}; export .safetensors, .onnx or .pt2")
    bare = bare.removeprefix("timm:").removesuffix("-stem7").removesuffix("-stem3")
    with torch.random.fork_rng(devices=[]):
        found = _timm(bare, encoder.input) if library == "timm" else _torchvision(bare, encoder)
    if found is None:
        raise ValueError(f"{library} has no network {encoder.name}; export .safetensors, .onnx or .pt2, or train --encoder resnet18")
    state = {k: v.detach().cpu() for k, v in encoder.net.state_dict().items()}
    try:
        found.net.load_state_dict(state)
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1].strip().rstrip(".")
        seen = f"{encoder.name} for {encoder.input.size} px"
        raise ValueError(f"{seen} is built otherwise than {library}'s {found.name} ({why}); export .safetensors, .onnx or .pt2") from error
    check(encoder, found.net.eval(), f"{library}'s {found.name}")
    return found


@torch.no_grad()
def check(encoder: Encoder, net: nn.Module, called: str) -> None:
    """ValueError unless the network gives the encoder's features, of one image and of several."""
    noise = torch.Generator().manual_seed(0)
    place = next(encoder.parameters()).device
    training = encoder.training
    encoder.eval()
    try:
        for count in (5, 1):
            x = torch.randn(count, *encoder.input.shape, generator=noise)
            ours, theirs = encoder(x.to(place)).cpu(), net(x)
            if theirs.shape != ours.shape or _apart(ours, theirs) > TOLERANCE:
                raise ValueError(f"{called} does not give the features of {encoder.name}; export .safetensors, .onnx or .pt2")
    finally:
        encoder.train(training)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))


def _timm(name: str, input: Input) -> Plain | None:
    if not is_known(name):
        return None
    import timm

    make: Callable[..., nn.Module] = timm.create_model
    arguments: dict[str, object] = {"num_classes": 0}
    if input.channels != 3:
        arguments["in_chans"] = input.channels
    try:  # networks for images of one size have to know it
        sized = arguments | {"img_size": input.size}
        net, arguments = make(name, **sized), sized
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        net = make(name, **arguments)
    said = "".join(f", {k}={v}" for k, v in arguments.items())
    return Plain(net, name, arguments, ("import timm", f"net = timm.create_model({json.dumps(name)}{said})"))


def _torchvision(name: str, encoder: Encoder) -> Plain | None:
    import torchvision

    if name not in {f"resnet{depth}" for depth in _TORCHVISION}:
        return None
    net = getattr(torchvision.models, name)(weights=None)
    net.fc = nn.Identity()
    lines = ["import torch, torchvision", f"net = torchvision.models.{name}()", "net.fc = torch.nn.Identity()"]
    channels = encoder.input.channels
    if isinstance(encoder.net, ResNet) and encoder.net.shape.stem == STEM_SMALL:
        net.conv1, net.maxpool = nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.Identity()
        lines += [f"net.conv1 = torch.nn.Conv2d({channels}, 64, 3, padding=1, bias=False)", "net.maxpool = torch.nn.Identity()"]
    elif channels != 3:
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        lines += [f"net.conv1 = torch.nn.Conv2d({channels}, 64, 7, stride=2, padding=3, bias=False)"]
    return Plain(net, name, {}, tuple(lines))
