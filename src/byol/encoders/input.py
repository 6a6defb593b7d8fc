"""What an encoder expects to see: channels, size, value range, mean and standard deviation."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from byol.stored import typed

LARGEST = 16_384  # pixels; of a larger side one image is a GB


@dataclass(frozen=True, kw_only=True)
class Input:
    """The input of an encoder; stored beside its weights, so that they are never used with another."""

    channels: int
    size: int  # pixels; height and width of what the encoder sees
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]  # per channel, of values in [0, 1]
    low: float = 0.0  # the raw value that becomes 0
    high: float = 255.0  # the raw value that becomes 1
    resize: int = 0  # pixels; the short side before the centre crop at evaluation; 0: as `size`
    points: int = 0  # of the last channels, which are places in space: images are squeezed whole, and these never blended

    def __post_init__(self) -> None:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"mean and std need one value for each of the {self.channels} channels, not {len(self.mean)} and {len(self.std)}"
            )
        if self.high <= self.low:
            raise ValueError(f"the value range {self.low} to {self.high} is empty; give low < high")
        if min(self.std, default=1.0) <= 0:
            raise ValueError(f"the standard deviations are {self.std}; give numbers above 0")
        if max(self.size, self.resize) > LARGEST:
            raise ValueError(f"the input is {max(self.size, self.resize):,} px wide; {LARGEST:,} is the most")
        if not 0 <= self.points <= self.channels:
            raise ValueError(f"{self.points} of {self.channels} channels cannot be places in space; give 0 to {self.channels}")
        if self.size < 1 or (self.resize and self.resize < self.size):
            raise ValueError(f"a crop of {self.size} px does not fit into a short side of {self.resize} px; give resize >= size >= 1")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the encoder sees."""
        return self.channels, self.size, self.size

    def scale(self, raw: Tensor) -> Tensor:
        """(B, C, H, W) raw values of any type -> float32 in [0, 1]; values outside the range are clipped."""
        x = torch.sub(raw, self.low).to(torch.float32) if self.low else raw.to(torch.float32)
        return x.mul(1 / (self.high - self.low)).clamp_(0, 1)

    def normalise(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """(B, C, H, W) in [0, 1] -> zero mean and unit variance per channel, as measured on the training data; in `out` if given."""
        shape = (1, self.channels, 1, 1)
        # Made on the host and sent without waiting: building them on the device would stop it at every call.
        mean, std = (torch.tensor(v, dtype=x.dtype).view(shape).to(x.device, non_blocking=True) for v in (self.mean, self.std))
        return torch.sub(x, mean, out=out).div_(std)

    def unnormalise(self, x: Tensor) -> Tensor:
        """(B, C, H, W) as `normalise` gives them -> the raw values that they were; what lies outside the range is clipped."""
        shape = (1, self.channels, 1, 1)
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(shape) for v in (self.mean, self.std))
        return self.low + (self.high - self.low) * (x * std + mean).clamp(0, 1)

    def to_json(self) -> dict[str, object]:
        """The fields as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> Input:
        """The input that `to_json` wrote; ValueError names the first thing that is not as it was written."""
        return typed(cls, fields)
