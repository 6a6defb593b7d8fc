"""What a recipe may know, and what it gives: values under construction, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from byol.config import Value


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a recipe may know."""

    images: int
    short_side: int  # pixels, the median
    device: str
    cores: int
    bf16_gain: float | None = 1.0  # speed of bf16 over fp32 on this device, measured; None: it cannot pay
    channels_last_gain: float | None = 1.0  # speed with the channels last over channels first, likewise
    classes: int = 0  # of the labels; 0: there are none
    modality: str = "image"  # what a sample is (`byol.data.Modality`)
    grouped: bool = False  # whether it is known which samples belong together, such as the bins of a trial
    # What the user fixed, from which other values follow.
    epochs: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    accumulate: int | None = None


@dataclass
class Choices:
    """Values under construction, each with its reason."""

    values: dict[str, Value] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    expected: str = ""

    def put(self, reason: str, **values: Value) -> Choices:
        """Add values that share a reason."""
        self.values |= values
        self.reasons |= dict.fromkeys(values, reason)
        return self


Recipe = Callable[[Facts], Choices]
