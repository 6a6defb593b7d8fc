"""The weights that a run begins with, where they are those of another run or of a file, ours or of others (`byol train --init`)."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

from torch import nn

from byol import encoders, exporting, others
from byol.encoders import AnyInput, Encoder, Input, SoundInput


def given(init: str, network: nn.Module | None) -> Encoder:
    """The encoder in a run or in a file; `network` is the module of one's own that it was made of. ValueError if it cannot be had."""
    return exporting.load_encoder(Path(init), net=copy.deepcopy(network))


def named(init: str, asked: str | None, found: Encoder) -> str:
    """The name of the encoder to be trained; ValueError if another was asked for."""
    if asked not in (None, found.name):
        raise ValueError(f"--init {init} holds {found.name}, not {asked}; leave --encoder out, or give other weights")
    return found.name


def input_of(init: str, found: Encoder, wanted: AnyInput, *, mean: bool, std: bool) -> AnyInput:
    """What the encoder is to see: as the data are, and, where `mean` and `std` say so, normalised as the weights were trained.

    ValueError for data that the weights were not made for.
    """
    theirs = found.input
    if isinstance(wanted, Input) and isinstance(theirs, Input) and wanted.channels == theirs.channels:
        return dataclasses.replace(wanted, mean=theirs.mean if mean else wanted.mean, std=theirs.std if std else wanted.std)
    if isinstance(wanted, SoundInput) and isinstance(theirs, SoundInput) and wanted.front == theirs.front:
        return dataclasses.replace(wanted, mean=theirs.mean if mean else wanted.mean, std=theirs.std if std else wanted.std)
    raise ValueError(f"--init {init} takes {_said(theirs)}, and these data are {_said(wanted)}; give weights trained on such data")


def encoder(init: str, input: AnyInput, network: nn.Module | None, name: str) -> Encoder:
    """A new encoder of this input with the weights; a target network begins with the same ones, since they are worth keeping."""
    found = given(init, network)
    if network is not None:
        return encoders.wrap(found.net, input=input, name=name)
    net = encoders.load(name, input=input).net
    try:
        net.load_state_dict(found.net.state_dict())
    except RuntimeError:
        seen = found.input.shape[-1]
        raise ValueError(
            f"--init {init}: {name} is built otherwise for what it sees here; pass --image-size {seen}, as it was trained"
        ) from None
    return Encoder(net, dim=found.dim, input=input, name=name)


def note(init: str, found: Encoder) -> str:
    """Where the weights come from, in words."""
    method, images = found.provenance.get("method"), found.provenance.get("images")
    made = f", trained by {method}" if isinstance(method, str) else ""
    many = f" on {images:,} samples" if isinstance(images, int) else ""
    theirs = f"; {words}" if (words := others.words(found)) else ""
    return f"weights: {found.name} of {init}{made}{many}{theirs}"


def _said(input: AnyInput) -> str:
    if isinstance(input, SoundInput):
        return f"sounds of {input.rate:,} Hz in {input.bands} bands"
    return f"samples of {input.channels} channel{'s' * (input.channels != 1)}"
