"""The weights that BYOL-A's authors released, read from their files: AudioNTT2020-BYOLA-*.pth and AudioNTT2022-BYOLA-*.pth."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from byol.encoders import audio
from byol.encoders.encoder import Encoder
from byol.encoders.sound_input import SoundInput

LICENCE = (
    "the weights that NTT released for BYOL-A are under its SOFTWARE LICENSE AGREEMENT FOR EVALUATION, which is no open-source licence: "
    "for evaluating the paper's method inside your own organisation, and not to be passed on; "
    "read it before you use them (github.com/nttcslab/byol-a)"
)
# The mean and std of log-mel spectrograms that the READMEs give as examples. One's own data have others: pass `input`.
_STATISTICS = {3: (-5.4919195, 5.0389895), 2: (-9.660292, 4.7219563)}  # by blocks: version 1, and 2 (Speech Commands)
_WRAPPED = ("state_dict", "model")  # where training programs put the state of the network
_PREFIXES = ("", "model.", "body.", "module.")


def load_byol_a(path: str | Path, *, input: SoundInput | None = None) -> Encoder:
    """The encoder of a released file, on the CPU, in eval mode; a warning states its licence, which `provenance` keeps.

    `input`: the spectrogram with the statistics of one's own data, as the authors evaluate; None: the example of their README.
    ValueError for a file that is missing, damaged or of another network, and for the first tensor that has no place in this one.
    """
    path = Path(path)
    state = _state(path)
    shape, bands = _shape(path, state)
    mean, std = _STATISTICS[shape.blocks]
    input = input or SoundInput(mean=mean, std=std, bands=bands)
    if input.bands != bands:
        raise ValueError(f"{path} is for spectrograms of {bands} bands, not {input.bands}; give an input with bands={bands}")
    net = audio.AudioNet(shape, bands=bands)
    _put(path, state, net)
    name = audio.name_of(shape)
    encoder = Encoder(net, dim=net.dim, input=replace(input), name=name)
    encoder.provenance = {"weights": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "licence": LICENCE}
    warnings.warn(f"{path.name}: {LICENCE}", stacklevel=2)
    return encoder.eval()


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors of the file by their names in the network; nothing in it can run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}; give one of BYOL-A's .pth files") from None
    except Exception as error:  # torch's reader raises nearly every type of exception on damaged bytes
        raise ValueError(f"{path} is no PyTorch file of plain tensors ({_first_line(error)}); give one of BYOL-A's .pth files") from error
    inside = next((content[key] for key in _WRAPPED if isinstance(content, dict) and key in content), content)
    if not isinstance(inside, dict) or not inside or not all(isinstance(v, Tensor) and isinstance(k, str) for k, v in inside.items()):
        raise ValueError(f"{path} holds no tensors by name; give one of BYOL-A's .pth files")
    prefix = next((p for p in _PREFIXES if all(k.startswith(p + "features.") or k.startswith(p + "fc.") for k in inside)), "")
    return {k.removeprefix(prefix): v for k, v in inside.items()}


def _shape(path: Path, state: dict[str, Tensor]) -> tuple[audio.Shape, int]:
    """Which of the two networks, and for how many bands: by the sizes of its tensors."""
    try:
        blocks = 3 if "features.8.weight" in state else 2
        channels = state["features.0.weight"].shape[0]
        hidden, flat = state["fc.0.weight"].shape
        out = state["fc.3.weight"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{path} is of another network than BYOL-A's ({error} is not there or odd); give one of its .pth files") from None
    shape = audio.Shape(blocks=blocks, channels=channels, hidden=hidden, out=out, stacked=blocks == 2)
    audio.name_of(shape)
    return shape, flat // channels * shape.stride


def _put(path: Path, state: dict[str, Tensor], net: audio.AudioNet) -> None:
    """Every tensor of the file into its place of the same shape, and every place filled."""
    wanted = net.state_dict()
    for key in [*state, *wanted]:
        if key not in wanted or key not in state:
            side = "has no place in the network" if key in state else "is missing"
            raise ValueError(f"{path}: the tensor {key} {side}; give BYOL-A's own .pth file, of the encoder alone")
        if state[key].shape != wanted[key].shape:
            shapes = f"{tuple(state[key].shape)}, not {tuple(wanted[key].shape)}"
            raise ValueError(f"{path}: the tensor {key} has the shape {shapes}; give BYOL-A's own .pth file")
    net.load_state_dict(state)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:80]
