"""Encoders by the name of a timm model, and timm's pre-trained weights."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial

from torch import nn

from byol.encoders.input import Input
from byol.encoders.sound_input import AnyInput


@dataclass(frozen=True)
class Weights:
    """Pre-trained weights of a timm model: where they come from, and the statistics of the images that they learnt from."""

    tag: str  # MODEL.TAG, as timm names them
    address: str  # the host or file that is asked for them
    cached: str | None  # the file, if it is on this machine already
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]


def known() -> list[str]:
    """The names of timm's models, without the tags of their weights."""
    import timm

    return list(timm.list_models())


def is_known(name: str) -> bool:
    """Whether timm has a model of that name; `MODEL.TAG` only if it has weights of that tag."""
    import timm
    from timm.models import get_pretrained_cfg

    try:
        return bool(timm.is_model(name)) and get_pretrained_cfg(name) is not None
    except RuntimeError:  # no such tag
        return False


def trained_on(name: str) -> Input:
    """What a timm model sees by default: the images of its weights, or of most."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name)
    assert cfg is not None  # of a name that is known
    channels, height, width = cfg.input_size
    size = max(height, width)
    return Input(channels=channels, size=size, resize=round(size / cfg.crop_pct), mean=tuple(cfg.mean), std=tuple(cfg.std))


def build(name: str, input: AnyInput, *, weights: Weights | None = None) -> nn.Module:
    """The timm model without its classifier, for images of that size and channels: random weights, or those given."""
    import timm

    channels, height, width = input.shape
    size = height if height == width else (height, width)

    overlay = {"file": weights.cached} if weights and weights.cached else None
    make = partial(
        timm.create_model, name, pretrained=weights is not None, pretrained_cfg_overlay=overlay, num_classes=0, in_chans=channels
    )
    try:
        try:
            return make(img_size=size)
        except TypeError as error:  # convolutional models take any size and no such argument
            if "img_size" not in str(error):
                raise
            return make()
    except (AssertionError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"timm cannot make {name} for {channels} channels and {height} x {width} px: {error}") from error


def pretrained(name: str, input: AnyInput) -> nn.Module:
    """The timm model with its pre-trained weights, from this machine's cache or else downloaded.

    ValueError if there are none, or they cannot be fetched; other channel counts than 3 get timm's adapted first convolution.
    """
    weights = weights_of(name)
    if weights.cached is None:
        _reach(weights)
    try:
        return build(name, input, weights=weights)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{_unavailable(weights)} ({str(error).splitlines()[0]}); {_MEND}") from error


def weights_of(name: str) -> Weights:
    """Where the pre-trained weights of a timm model are; asks nobody. ValueError if it has none."""
    from huggingface_hub import constants, try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise ValueError(f"timm has no pre-trained weights for {name}; leave --pretrained out, or take another encoder")
    tag = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else name
    found = None
    if cfg.hf_hub_id and not cfg.custom_load:
        found = try_to_load_from_cache(cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors")
    cached = found if isinstance(found, str) else None
    return Weights(tag, constants.ENDPOINT if cfg.hf_hub_id else str(cfg.url), cached, tuple(cfg.mean), tuple(cfg.std))


_MEND = (
    "run once where there is a network and copy that machine's Hugging Face cache "
    "(~/.cache/huggingface, or the folder that HF_HOME names) here, or leave --pretrained out"
)


def _unavailable(weights: Weights) -> str:
    return f"the pre-trained weights {weights.tag} cannot be fetched from {weights.address}"


def _reach(weights: Weights) -> None:
    """Ask the host once, for 10 seconds: timm's own attempts go on for most of a minute, with a screen of warnings."""
    try:
        urllib.request.urlopen(urllib.request.Request(weights.address, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        return  # it answered
    except OSError as error:
        raise ValueError(f"{_unavailable(weights)} ({getattr(error, 'reason', error)}); {_MEND}") from error
