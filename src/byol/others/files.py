"""A file of weights by others as tensors by name: PyTorch's, safetensors, or DeepMind's pickle. Nothing in it can run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from byol.others import deepmind, pickles

ENDINGS = (".pth", ".pt", ".ckpt", ".tar", ".bin", ".pkl", ".safetensors")
_WRAPPED = ("state_dict", "model_state_dict", "model")  # where training programs put the state of the network
_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # what a file of PyTorch before 1.6 begins with


@dataclass(frozen=True)
class Contents:
    """What a file holds."""

    state: Mapping[str, Tensor]
    beside: tuple[str, ...]  # what is no tensor of a network: an optimiser, an epoch
    deepmind: bool = False  # and then the state has torchvision's names already


def read(path: Path) -> Contents:
    """The tensors in a file; ValueError, in one sentence, for one that is missing, damaged, or would have to be run."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY))
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"there is no file {path}; give a run folder, a file that `byol export` wrote, or weights of others") from None
    if path.suffix == ".safetensors":
        try:
            return Contents(load_file(path), ())
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({_first_line(error)}); copy it again") from error
    if start[:1] == b"\x80" and start != _LEGACY:
        return _pickled(path)
    return _by_torch(path)


def _pickled(path: Path) -> Contents:
    try:
        content = pickles.read(path)
        if not deepmind.is_theirs(content):
            raise ValueError("it is a pickle of something else than DeepMind's BYOL networks, and no file of torch.save")
        state, heads = deepmind.torch_names(*deepmind.online(content))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; give weights as torch.save or safetensors store them") from error
    assert isinstance(content, dict)
    others = ("target network", "optimiser", *(k for k in content if isinstance(k, str) and k != "experiment_state"))
    return Contents(state, (*heads, *others), deepmind=True)


def _by_torch(path: Path) -> Contents:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises nearly every type of exception on damaged bytes
        asks = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it asks for {asks[1]}" if asks else f"it holds Python objects, or is damaged: {_first_line(error)}"
        mend = "give a file of tensors alone, as torch.save(model.state_dict(), FILE) writes it"
        raise ValueError(f"{path} cannot be read without running what is in it: {why}; {mend}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__} and no tensors by name; give a state dict")
    return _unwrapped(path, content)


def _unwrapped(path: Path, content: Mapping[object, object]) -> Contents:
    """The one state of a network in what a program stored beside it."""
    if any(isinstance(v, Tensor) and v.ndim == 4 for v in content.values()):  # a convolution: it is the state itself
        flat = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
        return Contents(flat, tuple(str(k) for k in content if str(k) not in flat))
    inside = {str(k): v for k, v in content.items() if isinstance(v, Mapping) and any(isinstance(t, Tensor) for t in v.values())}
    chosen = next((k for k in _WRAPPED if k in inside), None) or (next(iter(inside)) if len(inside) == 1 else None)
    if chosen is None:
        has = f"several networks ({', '.join(list(inside)[:4])})" if inside else "no tensors by name"
        raise ValueError(f"{path} holds {has}; give a file with the state dict of one network")
    state = {str(k): v for k, v in inside[chosen].items() if isinstance(v, Tensor)}
    return Contents(state, tuple(str(k) for k in content if str(k) != chosen))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:80]
