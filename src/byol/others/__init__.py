"""Weights of others: a checkpoint of another library is recognised by its names and shapes, and becomes an encoder.

What the file does not say is assumed, and every assumption is said: in a warning, and in `provenance`, which exported files keep.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path

from byol import encoders
from byol.encoders import Encoder, Input
from byol.encoders.resnet import STEM_LARGE, parse
from byol.encoders.timm_nets import trained_on
from byol.others import deepmind, files, layouts

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, per channel, of values in [0, 1]
LARGE, SHORT_SIDE, SMALL = 224, 256, 32  # pixels
UNKNOWN = "unknown, ask who made them"


class Notice(UserWarning):
    """Whose weights were read, under which licence, and what was assumed."""


def split(text: str | Path) -> tuple[str | None, Path]:
    """`NAME:FILE` -> the encoder that the file is to be read as, and the file; None for a path alone."""
    found = re.fullmatch(r"((?:timm:)?[A-Za-z][\w.+-]+):(.+)", str(text), re.S)
    if found and not Path(text).exists() and Path(found[2]).suffix.lower() in files.ENDINGS:
        try:
            return encoders.canonical(found[1]), Path(found[2])
        except ValueError:
            if Path(found[2]).is_file():  # so the name is what is wrong
                raise
    return None, Path(text)


def is_foreign(text: str | Path) -> bool:
    """Whether it is a file that no run and no `byol export` wrote."""
    name, path = split(text)
    if name is not None:
        return True
    known = path.suffix.lower() in files.ENDINGS and path.is_file()
    return known and not (path.suffix.lower() == ".safetensors" and path.with_suffix(".json").exists())


def load(text: str | Path) -> Encoder:
    """The encoder in a checkpoint of others, on the CPU, in eval mode; a `Notice` says whose it is, and `provenance` keeps that.

    `NAME:FILE` reads the file as the encoder of that name. ValueError for a file that is missing, damaged, of no network that is
    known, or that would have to be run.
    """
    name, path = split(text)
    contents = files.read(path)
    if contents.deepmind and name is not None and not parse(name):
        raise ValueError(f"{path} holds DeepMind's residual network, which pads otherwise than {name}; give the file alone")
    try:
        found = _by_name(name, contents) if name is not None and not parse(name) else _residual(name, contents)
    except ValueError as error:
        beside = f" (and there is no {path.stem}.json beside it, as byol writes)" if path.suffix == ".safetensors" else ""
        raise ValueError(f"{path}{beside}: {error}") from error
    found.provenance |= {"weights": path.name, "sha256": _sha256(path)}
    warnings.warn(words(found), Notice, stacklevel=2)
    return found.eval()


def words(encoder: Encoder) -> str:
    """Whose weights an encoder has, what of the file was left out and assumed, and their licence; "" for weights of our own."""
    p = encoder.provenance
    if "whose" not in p:
        return ""
    said = {k: "; ".join(map(str, v)) for k, v in p.items() if k in ("left_out", "assumed") and isinstance(v, list | tuple) and v}
    parts = [f"{p.get('weights')}: {p['whose']}, {encoder.name}, {encoder.dim} features", f"licence: {p.get('licence')}"]
    parts += [f"left out: {said['left_out']}"] if "left_out" in said else []
    return ". ".join([*parts, *([f"assumed: {said['assumed']}"] if "assumed" in said else [])])


def _residual(name: str | None, contents: files.Contents) -> Encoder:
    """One of our residual nets; `name` overrides what the shapes say."""
    theirs = layouts.Trunk(contents.state, "DeepMind's BYOL, online network", "", ())
    trunk = theirs if contents.deepmind else layouts.trunk(contents.state)
    found, assumed = layouts.name_of(trunk)
    if contents.deepmind:
        found, assumed = f"{found}-same", []
    if name is not None:
        found, assumed = name, [f"it is {name}, as asked for"]
    spec = parse(found)
    assert spec is not None
    large = spec.stem in (None, STEM_LARGE)
    input = _input(trunk.state["conv1.weight"].shape[1], LARGE if large else SMALL, SHORT_SIDE if large else 0)
    if not contents.deepmind:
        assumed.append(f"images of {input.size} px, normalised by the mean and std of ImageNet")
    encoder = encoders.load(found, input=input)
    encoder.net.load_state_dict(layouts.fitting(trunk.state, encoder.net.state_dict()))
    return _kept(encoder, trunk.layout, (*trunk.left_out, *contents.beside), assumed, deepmind.LICENCE if contents.deepmind else UNKNOWN)


def _by_name(name: str, contents: files.Contents) -> Encoder:
    """A network that was named, of timm's or of ours."""
    input = trained_on(name.removeprefix("timm:")) if name.startswith("timm:") else _input(3, LARGE, SHORT_SIDE)
    encoder = encoders.load(name, input=input)
    wanted = encoder.net.state_dict()
    state, left_out = layouts.under(contents.state, wanted)
    encoder.net.load_state_dict(layouts.fitting(state, wanted))
    assumed = [f"it is {name}, as asked for", f"images of {input.size} px, normalised by mean {input.mean} and std {input.std}"]
    return _kept(encoder, "a state dict", (*left_out, *contents.beside), assumed, UNKNOWN)


def _kept(encoder: Encoder, whose: str, left_out: tuple[str, ...], assumed: list[str], licence: str) -> Encoder:
    """The same encoder, whose weights are not to be drawn anew."""
    kept = Encoder(encoder.net, dim=encoder.dim, input=encoder.input, name=encoder.name)
    kept.provenance = {"whose": whose, "licence": licence, "left_out": list(left_out), "assumed": assumed}
    return kept


def _input(channels: int, size: int, resize: int) -> Input:
    """ImageNet's statistics; for other channels than three their average."""
    mean, std = (v if channels == 3 else (sum(v) / 3,) * channels for v in (MEAN, STD))
    return Input(channels=channels, size=size, resize=resize, mean=mean, std=std)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
