"""An encoder on disk: its weights as safetensors, under the names of torchvision or timm, and a JSON file beside them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from byol.encoders.catalogue import load
from byol.encoders.encoder import Encoder, wrap
from byol.encoders.sound_input import AnyInput, input_from_json
from byol.files import atomic
from byol.stored import read_object

FORMAT = "byol encoder 1"


def description(encoder: Encoder, extra: Mapping[str, object]) -> dict[str, object]:
    """What has to be known to use the encoder, as JSON values; `extra` adds to where it comes from."""
    return {
        "format": FORMAT,
        "name": encoder.name,
        "custom": encoder.custom,
        "dim": encoder.dim,
        "input": encoder.input.to_json(),
        "byol": importlib.metadata.version("byol"),
        "provenance": {**encoder.provenance, **extra},
    }


def save_weights(encoder: Encoder, path: Path, *, extra: Mapping[str, object]) -> None:
    """Write PATH (.safetensors: the state of `encoder.net`) and beside it .json with the rest and the SHA-256 of the weights."""
    # Safetensors takes contiguous tensors that share no memory; channels-last or tied weights are neither.
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in encoder.net.state_dict().items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
        facts = {**description(encoder, extra), "weights": path.name, "sha256": _sha256(temporary)}
        text = json.dumps(facts, indent=1)  # before anything is replaced: `extra` may be no JSON
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load_weights(path: Path, *, net: nn.Module | None = None) -> Encoder:
    """The encoder that `save_weights` wrote, on the CPU, in eval mode; `net` is needed for one that was a module of your own.

    ValueError for a file that is missing, damaged, foreign, or of another network; nothing in it can run.
    """
    facts = _facts(path)
    name, input = str(facts["name"]), _input(path.with_suffix(".json"), facts["input"])
    if net is None and facts.get("custom"):
        raise ValueError(f"{path} holds the weights of a module of your own ({name}); pass that module as net=")
    try:
        encoder = load(name, input=input) if net is None else wrap(net, input=input, name=name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    try:
        encoder.net.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{path} does not fit {name}: {_last_line(error)}") from error
    if encoder.dim != facts["dim"]:
        raise ValueError(f"{path} is an encoder of {facts['dim']} features, and {name} gives {encoder.dim}; pass the module it was made of")
    kept = Encoder(encoder.net, dim=encoder.dim, input=input, name=name, custom=bool(facts.get("custom")))
    kept.provenance = _mapping(path.with_suffix(".json"), facts.get("provenance", {}))
    return kept.eval()


def _facts(path: Path) -> dict[str, object]:
    """The JSON beside the weights, once the weights are found to be those it was written with."""
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} is no .safetensors file; give a run folder or a file that `byol export` wrote as .safetensors")
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give a run folder or a file that `byol export` wrote")
    beside = path.with_suffix(".json")
    try:
        facts = read_object(beside)
    except FileNotFoundError:
        raise ValueError(f"{path} has no {beside.name} beside it, which says what it takes; copy both files") from None
    except ValueError as error:
        raise ValueError(f"{beside} is damaged ({error}); copy or export it again") from None
    if facts.get("format") != FORMAT or not {"name", "dim", "input", "sha256"} <= facts.keys():
        raise ValueError(f"{beside} does not describe an encoder ({FORMAT!r}); give a file that `byol export` wrote")
    if _sha256(path) != facts["sha256"]:
        raise ValueError(f"{path} is truncated or was changed: its SHA-256 is not that of {beside.name}; copy or export both again")
    return facts


def _input(where: Path, value: object) -> AnyInput:
    try:
        return input_from_json(_mapping(where, value))
    except ValueError as error:
        raise ValueError(f"{where} does not describe an encoder: of its input, {error}; copy or export it again") from error


def _mapping(where: Path, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} does not describe an encoder; give a file that `byol export` wrote")
    return value


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()
