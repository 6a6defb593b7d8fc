"""The encoder f: a plain module with what is needed to use it: its input, the number of its features, its name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from byol.encoders import waveforms
from byol.encoders.input import Input
from byol.encoders.preprocess import Images, preprocess
from byol.encoders.sound_input import AnyInput, SoundInput
from byol.stored import convert


class Encoder(nn.Module):
    """(B, C, S, S) normalised images, or (B, 1, bands, T) log-mel of sound -> (B, dim) features; feature maps (B, dim, H, W) are averaged.

    `net` is the module itself, and the keys of its state dict are those of torchvision, timm or your own module.
    """

    def __init__(
        self, net: nn.Module, *, dim: int, input: AnyInput, name: str, build: Callable[[], nn.Module] | None = None, custom: bool = False
    ) -> None:
        super().__init__()
        self.net = net
        self.dim = dim
        self.input = input
        self.name = name
        self.custom = custom  # made elsewhere: the name alone does not rebuild it
        self.provenance: dict[str, object] = {}  # where the weights come from, as JSON values; filled when they are read from a file
        self._build = build  # a new net of the same kind, from torch's generator; None: these weights are worth keeping

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x)
        return y.mean((2, 3)) if y.ndim == 4 else y

    @property
    def images(self) -> Input:
        """`input`, where it is one of images; ValueError for an encoder of sound."""
        if isinstance(self.input, SoundInput):
            raise ValueError(f"{self.name} is an encoder of sound, and this takes one of images; give another encoder")
        return self.input

    @property
    def kept(self) -> dict[str, list[float]]:
        """What its method keeps beside the weights, such as {"direction": (dim,)} of LSSL; ValueError where a file holds anything else."""
        found: dict[str, list[float]] = convert(self.provenance.get("kept", {}), dict[str, list[float]], "kept")  # type: ignore[assignment]
        return found

    def preprocess(self, images: Images, *, rate: int | None = None) -> Tensor:
        """Paths, PIL images, arrays, tensors, or a list of them -> (B, C, S, S), ready for `forward`, on the encoder's device.

        As at evaluation: short side to `input.resize`, centre crop, normalised. ValueError for what is no image. An encoder of sound
        takes paths or waveforms of `rate` Hz instead, and gives (B, 1, bands, frames): see `byol.encoders.waveforms.preprocess`.
        """
        device = _placement(self.net)[0]
        if isinstance(self.input, SoundInput):
            return waveforms.preprocess(images, self.input, rate=rate, device=device)
        if rate is not None:
            raise ValueError(f"{self.name} is an encoder of images, which have no rate of {rate} Hz; leave rate out")
        return preprocess(images, self.input).to(device)

    @property
    def reset_parameters(self) -> Callable[[], None]:
        """Draws all weights anew from torch's generator, as `load` does; absent where weights are pre-trained, read or wrapped."""
        if self._build is None:
            raise AttributeError(f"the weights of {self.name} are worth keeping")
        return self._redraw

    def _redraw(self) -> None:
        assert self._build is not None
        # Drawn on the CPU wherever the encoder is, so that a seed gives the same weights on every device.
        with torch.device("cpu"):
            fresh = self._build()
        self.net.load_state_dict(fresh.state_dict())


def wrap(module: nn.Module, *, input: AnyInput, dim: int | None = None, name: str = "custom") -> Encoder:
    """Your own module as an encoder: it gives (B, dim), or a feature map (B, dim, H, W), which is averaged.

    It is tried once on a black batch in eval mode; weights, statistics and modes stay as they are. ValueError if it does
    not take such a batch, gives anything else, or not `dim` features.
    """
    measured = measure_dim(module, input)
    if dim is not None and dim != measured:
        raise ValueError(f"the module gives {measured} features, not dim={dim}; leave dim out, or take another module")
    return Encoder(module, dim=measured, input=input, name=name, custom=True)


@torch.no_grad()
def measure_dim(module: nn.Module, input: AnyInput) -> int:
    """The number of features that a module gives for its input."""
    shape = (2, *input.shape)
    device, dtype = _placement(module)
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        y: object = module(torch.zeros(shape, device=device, dtype=dtype))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        raise ValueError(f"{type(module).__name__} does not take a batch of shape {shape}: {_first_line(error)}") from error
    finally:
        # One by one: a frozen part may have been in eval mode inside a training whole.
        for m, mode in modes.items():
            m.training = mode
    if not isinstance(y, Tensor) or y.ndim not in (2, 4) or y.shape[0] != 2:
        what = f"a tensor of shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"a {type(y).__name__}"
        raise ValueError(f"{type(module).__name__} gives {what} for a batch of 2; an encoder gives (B, dim) or (B, dim, H, W)")
    return y.shape[1]


def _placement(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    first = next((t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()), torch.zeros(()))
    return first.device, first.dtype


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
