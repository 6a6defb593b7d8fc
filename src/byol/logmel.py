"""Log-mel spectrograms: what a network for sound sees of a waveform, in batches and on any device.

The mel scale is HTK's, 2595 log10(1 + f / 700), and its triangles have height 1, as torchaudio's are by default and as BYOL-A's first
version took them. Other scales and norms (librosa's, nnAudio's) make other numbers: a network has to get those it has learnt from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

EPS: Final = torch.finfo(torch.float32).eps
_TOGETHER: Final = 16  # waveforms at a time on a CPU: the spectra of a whole batch would not stay in its cache


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """From samples to log-mel frames; the defaults are BYOL-A's (Niizumi et al. 2021, arXiv 2103.06695)."""

    rate: int = 16000  # samples a second
    window: int = 1024  # samples, a Hann window
    fft: int = 1024  # samples that are transformed: the window in the middle of zeros
    hop: int = 160  # samples from one frame to the next
    bands: int = 64  # on the mel scale
    f_min: float = 60.0  # Hz, where the first band begins
    f_max: float = 7800.0  # Hz, where the last band ends
    power: float = 2.0  # of the magnitudes: 2 sums energies
    eps: float = EPS  # added before the logarithm

    def __post_init__(self) -> None:
        for name in ("rate", "window", "fft", "hop", "bands", "power", "eps"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} {getattr(self, name)} is not above 0; give a positive number")
        if self.window > self.fft:
            raise ValueError(f"a window of {self.window} samples is longer than fft {self.fft}; give an fft of {self.window} or more")
        if self.fft % 2:
            raise ValueError(f"fft {self.fft} is odd, so that a frame has no sample in its middle; give {self.fft + 1}")
        if not 0 <= self.f_min < self.f_max:
            raise ValueError(f"f_min {self.f_min:g} and f_max {self.f_max:g} are no range of Hz; give 0 <= f_min < f_max")
        if self.f_max > self.rate / 2:
            raise ValueError(f"f_max {self.f_max:g} Hz is above half the rate of {self.rate:,} Hz; give {self.rate / 2:g} Hz or less")
        empty = torch.nonzero(filters(self).sum(1) == 0)
        if len(empty):
            raise ValueError(
                f"bands {self.bands} are too many for fft {self.fft}: no frequency of it lies in band {int(empty[0]) + 1}; "
                "give fewer bands or a longer fft"
            )

    @classmethod
    def at(cls, rate: int) -> FrontEnd:
        """The same windows, hops and share of the frequencies at another rate: 64 ms, 10 ms, and up to 3,900 Hz at 8,000."""
        window = 2 * round(0.032 * rate)
        return cls(rate=rate, window=window, fft=window, hop=round(0.01 * rate), f_max=0.4875 * rate)

    def samples(self, seconds: float) -> int:
        """How many samples so many seconds are."""
        return round(self.rate * seconds)

    def frames(self, samples: int) -> int:
        """How many frames so many samples give: their centres lie at 0, hop, 2 hop, ..."""
        return 1 + samples // self.hop


def filters(front: FrontEnd) -> Tensor:
    """-> (bands, 1 + fft // 2) float64: the triangles of the mel bands, of height 1."""
    ends = torch.tensor([front.f_min, front.f_max], dtype=torch.float64)
    low, high = (2595 * torch.log10(1 + ends / 700)).tolist()
    mels = torch.linspace(low, high, front.bands + 2, dtype=torch.float64)
    corners = 700 * (10 ** (mels / 2595) - 1)
    left, middle, right = (corners[i : i + front.bands, None] for i in range(3))
    f = torch.arange(1 + front.fft // 2, dtype=torch.float64) * front.rate / front.fft
    return torch.minimum((f - left) / (middle - left), (right - f) / (right - middle)).clamp_(min=0)


class LogMel(nn.Module):
    """Waveforms in, log-mel spectrograms out; nothing that learns, and nothing to save."""

    hann: Tensor  # (window,)
    mel: Tensor  # (1 + fft // 2, bands)

    def __init__(self, front: FrontEnd | None = None) -> None:
        super().__init__()
        self.front = front or FrontEnd()
        self.register_buffer("hann", torch.hann_window(self.front.window), persistent=False)
        self.register_buffer("mel", filters(self.front).T.float().contiguous(), persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """(B, T) float32 in [-1, 1] on the device of this module -> (B, 1, bands, 1 + T // hop): ln(mel energies + eps)."""
        if waves.ndim != 2:
            raise ValueError(f"waveforms have the shape {tuple(waves.shape)}; give (batch, samples)")
        frames = self.front.frames(waves.shape[1])
        # Half precision has no Fourier transform, and too few digits for energies.
        with torch.autocast(waves.device.type, enabled=False):
            parts = torch.split(waves.float(), _TOGETHER if waves.device.type == "cpu" else max(1, len(waves)))
            found = torch.cat([self._of(part)[:, :frames] for part in parts])
        return found.transpose(1, 2)[:, None].contiguous()

    def _of(self, waves: Tensor) -> Tensor:
        """(B, T) -> (B, frames, bands); at least as many frames as T has."""
        front = self.front
        short = front.fft // 2 + 1 - waves.shape[1]
        if short > 0:  # nothing that could be reflected: silence first, whose frames are left out afterwards
            waves = nn.functional.pad(waves, (0, short))
        spectrum = torch.stft(
            waves, front.fft, front.hop, front.window, self.hann, center=True, pad_mode="reflect", normalized=False, return_complex=True
        ).transpose(1, 2)
        energies = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        return (energies if front.power == 2 else energies.pow_(front.power / 2)).matmul(self.mel).add_(front.eps).log_()


class ConvolvedLogMel(nn.Module):
    """The same numbers as `LogMel`, to rounding, of operations that every runtime has and at any length: a graph that can be exported."""

    waves: Tensor  # (2 used, 1, fft): the cosines and then the sines of the frequencies that a band has, under the window
    mel: Tensor  # (bands, used, 1)

    def __init__(self, front: FrontEnd) -> None:
        super().__init__()
        self.front = front
        mel = filters(front)
        used = torch.nonzero(mel.sum(0)).flatten()
        before = (front.fft - front.window) // 2
        hann = nn.functional.pad(torch.hann_window(front.window, dtype=torch.float64), (before, front.fft - front.window - before))
        # Reduced before it is multiplied by 2 pi: a phase of thousands of turns would lose its last digits.
        phase = 2 * math.pi / front.fft * (used[:, None] * torch.arange(front.fft) % front.fft)
        self.register_buffer("waves", (torch.cat([phase.cos(), phase.sin()]) * hann)[:, None].float(), persistent=False)
        self.register_buffer("mel", mel[:, used, None].float(), persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """(B, T) float32, T above fft // 2 -> (B, 1, bands, 1 + T // hop)."""
        half = self.front.fft // 2
        padded = nn.functional.pad(waves[:, None], (half, half), mode="reflect")
        real, imaginary = nn.functional.conv1d(padded, self.waves, stride=self.front.hop).chunk(2, 1)
        energies = real * real + imaginary * imaginary
        powers = energies if self.front.power == 2 else energies ** (self.front.power / 2)
        return (nn.functional.conv1d(powers, self.mel) + self.front.eps).log()[:, None]
