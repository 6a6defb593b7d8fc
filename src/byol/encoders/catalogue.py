"""Encoders by name."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from byol.encoders import audio, flow, halves, lab, lssl, mlp, norms, patches, resnet, rgbd, small, timm_nets
from byol.encoders.encoder import Encoder, measure_dim
from byol.encoders.input import Input
from byol.encoders.sound_input import AnyInput, SoundInput

_SOUND = ("audio-small", "byol-a-v1-d512", "byol-a-v1-d1024", "byol-a-v1-d2048", "byol-a-v2")
_RGBD = ("byoc", "byoc-w16")
_BANDS = 64  # of the mel scale, where no input says it


def load(name: str, *, input: AnyInput, pretrained: bool = False, seed: int = 0, zero_init: bool = False) -> Encoder:
    """An encoder by name: `resnet18` ... `resnet200x4`, `small`, `small-w16`, `mlp`, `byol-a-v2`, `byoc`, any timm name, `timm:NAME`.

    A suffix replaces batch norm, or standardises weights: `resnet50+gn+ws` (see `byol.encoders.norms`).
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


def random_twin(encoder: Encoder, *, seed: int = 0) -> Encoder | None:
    """The same architecture with fresh random weights, in evaluation mode; None for a module that cannot be drawn anew.

    A module of one's own is copied, and every part of it that holds weights has to have torch's `reset_parameters`.
    """
    if not encoder.custom:
        try:
            return load(encoder.name, input=encoder.input, seed=seed).eval()
        except ValueError:
            return None
    twin = copy.deepcopy(encoder)
    parts = [m for m in twin.net.modules() if any(True for _ in m.parameters(recurse=False))]
    if not all(callable(getattr(m, "reset_parameters", None)) for m in parts):
        return None
    with _seeded(seed):
        for part in parts:
            part.reset_parameters()  # type: ignore[operator]  # seen to be callable above
    return twin.eval()


def names() -> list[str]:
    """The encoders that are ours; timm's names work as well."""
    return ["small-w16", "small", "small-w64", *_resnets(), "mlp", "lssl", "lssl-3d", *_SOUND, *_RGBD]


def describe(name: str, *, input: AnyInput | None = None) -> str:
    """One line on an encoder: parameters (for RGB unless `input` says otherwise), features, and the stem with the reason for it."""
    name = canonical(name)
    if split := halves.parse(name):
        return _of_halves(name, *split, input)
    if whole := patches.parse(name):
        return _of_patches(name, *whole, input)
    base, changes = norms.parse(name)
    other = f"; {changes.describe()}" if changes.describe() else ""
    if spec := mlp.parse(base):
        return _of_vectors(base, spec, input) + other
    if of := lssl.parse(base):
        return _of_visits(of, input) + other
    if heard := audio.parse(base):
        bands = _BANDS if input is None else _heard(base, input).bands
        millions = heard.parameters(bands, norm=0 if changes.norm == "none" else 2) / 1e6
        return f"{millions:.1f} M parameters, {heard.dim(bands)} features; sound, {bands} bands{other}"
    if frames := rgbd.parse(base):
        if input is not None:
            _of_frames(base, input)
        millions = frames.parameters(norm=0 if changes.norm == "none" else 2) / 1e6
        return f"{millions:.1f} M parameters, {rgbd.RGBD.dim} features; RGB-D frames, cells of {frames.voxel * 100:g} cm{other}"
    shape = _shape(base, _side(input) if input else resnet.SMALL_IMAGE + 1)
    if shape is None:
        return f"timm's {base.removeprefix('timm:')}, pooled features{other}"
    millions = shape.parameters(input.channels if input else 3, norm=0 if changes.norm == "none" else 2) / 1e6
    return f"{millions:.1f} M parameters, {shape.dim} features; {_stem(base, shape, input)}{other}"


def canonical(name: str) -> str:
    """The one spelling of a name: ours, or `timm:NAME`. ValueError, with the nearest names, if there is no such encoder."""
    if split := halves.parse(name):
        kind, half, whole = split
        return halves.name_of(kind, canonical(half), whole)
    if found := patches.parse(name):
        cut, part = found
        return patches.name_of(cut, canonical(part))
    base, changes = norms.parse(name)
    bare = base.removeprefix("timm:")
    if bare == base and _ours(base):
        return f"{base}{changes}"
    if timm_nets.is_known(bare):
        return f"timm:{bare}{changes}"
    stems = [other for stem in resnet.STEMS if _ours(other := f"{bare.partition('-')[0]}{stem}")]
    near = difflib.get_close_matches(bare.split(".")[0], sorted({*names(), *stems, *timm_nets.known()}), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "see `byol list encoders`"
    raise ValueError(f"no encoder {name!r}; {hint}")


def pretrained_statistics(name: str, channels: int = 3) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std, (channels,) each, of the images that timm's weights for this encoder were trained on.

    For grey images the average of the three; for other counts repeated, as timm repeats the first convolution.
    """
    weights = timm_nets.weights_of(_timm_name(canonical(name)))
    mean, std = (v if channels != 1 else (sum(v) / len(v),) for v in (weights.mean, weights.std))
    return tuple(mean[i % len(mean)] for i in range(channels)), tuple(std[i % len(std)] for i in range(channels))


def pretrained_name(name: str, *, input: AnyInput) -> str:
    """The name under which a pre-trained encoder can be built without its weights: with their stem where another would be chosen."""
    if resnet.parse(name) and resnet.stem_for(_side(input)) != resnet.STEM_LARGE:
        return f"{name.removesuffix('-stem7')}-stem7"
    return name


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


def of_kind(name: str, kind: str) -> str:
    """The name of the encoder of a kind that is built like the named one: `lab` and `resnet18` make `lab:resnet18`; "" is any kind."""
    return name if not kind or name.startswith(f"{kind}:") else f"{kind}:{name}"


def _build(name: str, input: AnyInput, zero_init: bool, part: int = 1) -> nn.Module:
    if split := halves.parse(name):
        kind, half, whole = split
        seen = halves.inputs(name, input)
        if not whole and _shape(norms.parse(half)[0], _side(input)) is None:
            mend = f"give a resnet or small one, or {halves.name_of(kind, half, True)}"
            raise ValueError(f"{half} cannot be built with half its channels; {mend}")
        one, two = (_build(half, i, zero_init, 1 if whole else 2) for i in seen)
        return flow.Flow(one, two) if kind == "flow" else lab.Lab(one, two, input)  # type: ignore[arg-type]  # an Input, as was seen
    if found := patches.parse(name):
        cut, seen_of_one = patches.resolved(name, found[0], input)
        return patches.Patches(_of_one(found[1], seen_of_one, zero_init), cut, input)  # type: ignore[arg-type]  # an Input, as was seen
    base, changes = norms.parse(name)
    net = _unchanged(base, input, zero_init, part)
    try:
        return norms.without_batch_norm(net, changes.norm, groups=changes.groups, standardise=changes.standardise)
    except ValueError as error:
        raise ValueError(f"no encoder {name!r}: {error}") from error


def _of_one(name: str, input: AnyInput, zero_init: bool) -> nn.Module:
    """The network of a patch: with layer norm, unless the name says another norm."""
    net = _build(name, input, zero_init)
    found = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in net.modules())
    return norms.without_batch_norm(net, "layer") if found else net


def _unchanged(name: str, input: AnyInput, zero_init: bool, part: int) -> nn.Module:
    """`part`: of the channels of a residual net of ours only so much, a half for 2."""
    if shape := _shape(name, _side(input), part):
        return resnet.ResNet(shape, channels=input.channels, zero_init=zero_init)
    if mlp.parse(name) and not zero_init:
        return mlp.build(name, math.prod(input.shape))
    if (of := lssl.parse(name)) and not zero_init:
        return lssl.LsslNet(of, channels=input.channels, size=input.shape[1])
    if zero_init:
        raise ValueError(f"zero_init is for resnet and small encoders, not {name}; leave it out")
    if heard := audio.parse(name):
        return audio.AudioNet(heard, bands=_heard(name, input).bands)
    if frames := rgbd.parse(name):
        _of_frames(name, input)
        return rgbd.RGBD(frames)
    return timm_nets.build(name.removeprefix("timm:"), input)


def _heard(name: str, input: AnyInput) -> SoundInput:
    """The input of an encoder of sound; ValueError for another one."""
    if not isinstance(input, SoundInput):
        raise ValueError(f"{name} is an encoder of sound, and these data are no sounds; take one of images, such as resnet18")
    return input


def _of_frames(name: str, input: AnyInput) -> None:
    """ValueError unless the input is one of RGB-D frames."""
    if isinstance(input, SoundInput) or input.channels != rgbd.CHANNELS:
        raise ValueError(
            f"{name} is an encoder of RGB-D frames (R, G, B, X, Y, Z), and these data have {input.shape[0]} channels; take one of images, "
            "such as resnet18"
        )


def _shape(name: str, size: int, part: int = 1) -> resnet.Shape | None:
    """The shape of one of ours for images of so many pixels, with one of `part` channels, or None for timm's."""
    spec = resnet.parse(name)
    shape = resnet.shape(spec.depth, spec.width, spec.stem or resnet.stem_for(size), same=spec.same) if spec else small.parse(name)
    return shape and replace(shape, base=max(1, shape.base // part))


def _pretrained(name: str, input: AnyInput) -> Encoder:
    net = timm_nets.pretrained(_timm_name(name), input)
    if spec := resnet.parse(name):
        ours = resnet.resnet(spec.depth, channels=input.channels)
        ours.load_state_dict(net.state_dict())
        net = ours
    return Encoder(net, dim=_dim(net, input), input=input, name=pretrained_name(name, input=input))


def _timm_name(name: str) -> str:
    """The timm model whose weights fit an encoder. ValueError if there is none."""
    if halves.parse(name):
        raise ValueError(f"there are no pre-trained weights for {name}, which is two networks; leave --pretrained out")
    if patches.parse(name):
        raise ValueError(f"there are no pre-trained weights for {name}, which sees patches; leave --pretrained out")
    base, changes = norms.parse(name)
    if changes != norms.Changes():
        raise ValueError(f"there are no pre-trained weights for {name}: those of {base} are for its batch norms; leave {changes} out")
    spec = resnet.parse(name)
    if (_ours(base) and not spec) or (spec and not spec.plain):
        raise ValueError(f"there are no pre-trained weights for {name}; take resnet18, 34, 50, 101, 152 or a timm name")
    return f"resnet{spec.depth}" if spec else name.removeprefix("timm:")


def _dim(net: nn.Module, input: AnyInput) -> int:
    if isinstance(net, audio.AudioNet | rgbd.RGBD):
        return net.dim
    return net.shape.dim if isinstance(net, resnet.ResNet) else measure_dim(net, input)


def _side(input: AnyInput) -> int:
    """The larger side of what the encoder sees, in pixels."""
    return max(input.shape[1:])


def _resnets() -> list[str]:
    return [f"resnet{depth}{'' if width == 1 else f'x{width}'}" for depth in resnet.DEPTHS for width in (1, 2, 3, 4)]


def _of_halves(name: str, kind: str, half: str, whole: bool, input: AnyInput | None) -> str:
    """The line on two networks side by side."""
    seen = halves.inputs(name, input) if input else (None, None)
    base, changes = norms.parse(half)
    shape = _shape(base, _side(input) if input else resnet.SMALL_IMAGE + 1, 1 if whole else 2)
    if shape is None:
        return f"two of: {describe(half, input=seen[0])}; {halves.KINDS[kind]}"
    norm = 0 if changes.norm == "none" else 2
    millions = (shape.parameters(1, norm) + shape.parameters(2, norm)) / 1e6
    other = f"; {changes.describe()}" if changes.describe() else ""
    return f"{millions:.1f} M parameters, {2 * shape.dim} features; two networks: {halves.KINDS[kind]}{other}"


def _of_patches(name: str, cut: patches.Cut, part: str, input: AnyInput | None) -> str:
    """The line on a network that sees patches."""
    norm = "" if norms.parse(part)[1].describe() else "layer norm"
    if input is None:
        size = f"{cut.patch} px, {cut.stride} px apart" if cut.patch else "a quarter of the image, overlapping by half"
        return f"patches of {size}, each through {part}{norm and f' with {norm}'}, and their mean"
    cut, seen = patches.resolved(name, cut, input)
    return f"{describe(part, input=seen)}{norm and f'; {norm}'}; the mean of patches of {cut.patch} px, {cut.stride} px apart"


def _of_vectors(name: str, spec: tuple[int, int], input: AnyInput | None) -> str:
    """The line on a perceptron; without an input for vectors of as many values as it has units."""
    with torch.device("meta"):  # draws nothing
        net = mlp.build(name, spec[0] if input is None else math.prod(input.shape))
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    return f"{millions:.2f} M parameters, {spec[0]} features; {spec[1]} hidden layers, for vectors"


def _of_visits(of: lssl.Spec, input: AnyInput | None) -> str:
    """The line on LSSL's; without an input for 64 px, or for 64^3 voxels."""
    with torch.device("meta"):  # draws nothing
        channels, size = (64 if of.volume else 3, 64) if input is None else (input.channels, input.shape[1])
        net = lssl.LsslNet(of, channels=channels, size=size)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    return f"{millions:.2f} M parameters, {net.dim} features; LSSL's, of {'volumes' if of.volume else 'images'}"


def _ours(name: str) -> bool:
    """Whether one of our files builds it."""
    return any(of.parse(name) for of in (resnet, small, mlp, audio, lssl, rgbd))


def _stem(name: str, shape: resnet.Shape, input: AnyInput | None) -> str:
    spec = resnet.parse(name)
    padded = ", SAME padding" if shape.same else ""
    if spec is None or spec.stem:
        return f"{shape.stem}{padded}"
    if input is None:
        return f"7x7/2 stem, 3x3/1 up to {resnet.SMALL_IMAGE} px{padded}"
    relation = "up to" if _side(input) <= resnet.SMALL_IMAGE else "above"
    return f"{shape.stem}, the choice {relation} {resnet.SMALL_IMAGE} px{padded}"


def _rgb(size: int) -> Input:
    return Input(channels=3, size=size, mean=(0.5,) * 3, std=(0.5,) * 3)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    # The CPU's generator alone: torch.manual_seed would also reseed the accelerators', which are not forked here.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
