"""Encoders by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from byol.encoders import resnet, small, timm_nets
from byol.encoders.encoder import Encoder, measure_dim
from byol.encoders.input import Input


def load(name: str, *, input: Input, pretrained: bool = False, seed: int = 0, zero_init: bool = False) -> Encoder:
    """An encoder by name: `resnet18` ... `resnet200x4`, `small`, `small-w16`, any timm name, `timm:NAME`.

    Random weights are drawn on the CPU from `seed`, and torch's own generator stays as it was. `pretrained` takes timm's
    weights, from this machine's cache or downloaded. `zero_init` starts the blocks of our residual nets as the identity.
    ValueError for an unknown name, and for weights that cannot be had.
    """
    name = canonical(name)
    make = partial(_build, name, input, zero_init)
    with _seeded(seed):
        if pretrained:
            return _pretrained(name, input)
        net = make()
        return Encoder(net, dim=_dim(net, input), input=input, name=name, build=make)


def names() -> list[str]:
    """The encoders that are ours; timm's names work as well."""
    return ["small-w16", "small", "small-w64", *_resnets()]


def describe(name: str, *, input: Input | None = None) -> str:
    """One line on an encoder: shape, parameters (for RGB unless `input` says otherwise), features, and the stem with the reason."""
    name = canonical(name)
    if name.startswith("timm:"):
        return f"timm's {name.removeprefix('timm:')}, pooled features"
    # Nothing is drawn on the meta device, so that even 375 million parameters are counted at once.
    with torch.device("meta"):
        net = _build(name, input or _rgb(resnet.SMALL_IMAGE + 1), False)
    assert isinstance(net, resnet.ResNet)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    return f"{_shape(name)}, {millions:.1f} M, {net.dim} features; {_stem(name, input)}"


def canonical(name: str) -> str:
    """The one spelling of a name: ours, or `timm:NAME`. ValueError, with the nearest names, if there is no such encoder."""
    bare = name.removeprefix("timm:")
    if bare == name and (resnet.parse(name) or small.parse(name)):
        return name
    if timm_nets.is_known(bare):
        return f"timm:{bare}"
    near = difflib.get_close_matches(bare, {*names(), *timm_nets.known()}, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `byol list encoders`"
    raise ValueError(f"no encoder {name!r}; {hint}")


def pretrained_statistics(name: str, channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std, (channels,) each, of the images that timm's weights for this encoder were trained on.

    For grey images the average of the three; for other counts repeated, as timm repeats the first convolution.
    """
    weights = timm_nets.weights_of(_timm_name(canonical(name)))
    mean, std = (v if channels != 1 else (sum(v) / len(v),) for v in (weights.mean, weights.std))
    return tuple(mean[i % len(mean)] for i in range(channels)), tuple(std[i % len(std)] for i in range(channels))


def pretrained_note(name: str) -> str:
    """What `pretrained` would do: the weights' name, and that they are on this machine, or their address and size."""
    source = _timm_name(canonical(name))
    weights = timm_nets.weights_of(source)
    if weights.cached is not None:
        return f"{weights.tag}, from this machine's cache"
    with torch.device("meta"):
        net = timm_nets.build(source, _rgb(224))
    megabytes = sum(t.numel() for t in net.state_dict().values()) * 4 / 1e6
    return f"{weights.tag}, downloads about {megabytes:.0f} MB from {weights.address}"


def _build(name: str, input: Input, zero_init: bool) -> nn.Module:
    if spec := resnet.parse(name):
        stem = spec.stem or resnet.stem_for(input.size)
        return resnet.resnet(spec.depth, spec.width, channels=input.channels, stem=stem, zero_init=zero_init)
    if shape := small.parse(name):
        return small.small(shape, channels=input.channels, zero_init=zero_init)
    if zero_init:
        raise ValueError(f"zero_init is for resnet and small encoders, not {name}; leave it out")
    return timm_nets.build(name.removeprefix("timm:"), input)


def _pretrained(name: str, input: Input) -> Encoder:
    net = timm_nets.pretrained(_timm_name(name), input)
    if spec := resnet.parse(name):
        ours = resnet.resnet(spec.depth, channels=input.channels)
        ours.load_state_dict(net.state_dict())
        net = ours
        # The weights come with their stem, so the name says so where another would be chosen.
        if resnet.stem_for(input.size) != resnet.STEM_LARGE:
            name = f"{name.removesuffix('-stem7')}-stem7"
    return Encoder(net, dim=_dim(net, input), input=input, name=name)


def _timm_name(name: str) -> str:
    """The timm model whose weights fit an encoder. ValueError if there is none."""
    spec = resnet.parse(name)
    if small.parse(name) or (spec and (spec.width > 1 or spec.stem == resnet.STEM_SMALL)):
        raise ValueError(f"there are no pre-trained weights for {name}; take resnet18, 34, 50, 101, 152 or a timm name")
    return f"resnet{spec.depth}" if spec else name.removeprefix("timm:")


def _dim(net: nn.Module, input: Input) -> int:
    return net.dim if isinstance(net, resnet.ResNet) else measure_dim(net, input)


def _resnets() -> list[str]:
    return [f"resnet{depth}{'' if width == 1 else f'x{width}'}" for depth in resnet.DEPTHS for width in (1, 2, 3, 4)]


def _shape(name: str) -> str:
    if spec := resnet.parse(name):
        return f"ResNet-{spec.depth}" + (f" {spec.width}x" if spec.width > 1 else "")
    shape = small.parse(name) or small.Spec()
    return f"4 x {shape.depth} residual blocks, {shape.width} to {8 * shape.width} channels"


def _stem(name: str, input: Input | None) -> str:
    spec, shape = resnet.parse(name), small.parse(name)
    asked = small.stem(shape) if shape else spec.stem if spec else None
    if asked:
        return str(asked)
    if input is None:
        return f"{resnet.STEM_LARGE}, or {resnet.STEM_SMALL} up to {resnet.SMALL_IMAGE} px"
    relation = "up to" if input.size <= resnet.SMALL_IMAGE else "above"
    return f"{resnet.stem_for(input.size)}, the choice {relation} {resnet.SMALL_IMAGE} px"


def _rgb(size: int) -> Input:
    return Input(channels=3, size=size, mean=(0.5,) * 3, std=(0.5,) * 3)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # The CPU's generator alone: torch.manual_seed would also reseed the accelerators', which are not forked here.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
