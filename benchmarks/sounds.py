"""Sound: from waveforms to the views of BYOL-A, beside the same ops done for one sample after the other with torchaudio.

    uv run --group bench python benchmarks/sounds.py            # about half a minute; --tiny: seconds, to see that it works

Every contender works on the same windows of 0.95 s at 16 kHz, in turns, on one core; figures are medians over the rounds, in seconds
of processor time. "One by one" is what data loaders do: a spectrogram, a sound drawn from a list, a slice of a canvas, torch's bicubic
interpolation; without torchaudio it starts from our spectrogram, one at a time.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import deque
from collections.abc import Callable

import torch
from measure import Job, cores, finish, peer, side_by_side, table
from torch import Tensor

from byol.allocator import keep_freed_memory
from byol.logmel import EPS, LogMel
from byol.views import sounds

LOOP = "one by one, all of it"
Figures = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="few sounds, one round: to see that it works")
    asked = parser.parse_args()
    keep_freed_memory()  # as in a run
    count, rounds = (8, 1) if asked.tiny else (128, 5)
    torch.manual_seed(0)
    waves = 0.1 * torch.randn(count, sounds.load("byol-a-v1").samples)
    with cores(1):
        found = {name: of_plan(name, waves, rounds) for name in sounds.PLANS}
    finish("sounds", {"sounds": count, "rounds": rounds, **found})


def of_plan(name: str, waves: Tensor, rounds: int) -> Figures:
    """Pairs of views a second: the front end alone, the views alone, everything."""
    plan = sounds.load(name, memory=min(2048, 8 * len(waves)))
    state, ids, bare = plan.state((-5.0, 4.0)), torch.arange(len(waves)), LogMel()
    plan.device(waves, ids, 0, 0, state)  # so that the bank holds something
    spectrogram, kind = front_end(bare)
    one_by_one = OneByOne(spectrogram, plan.pipeline)
    ready = state.normalised(bare(waves))
    u = torch.rand(len(waves), plan.pipeline.draws(0), generator=torch.Generator().manual_seed(0))
    jobs: dict[str, Job] = {
        f"log-mel alone, one by one, {kind}": lambda: [spectrogram(w) for w in waves],
        "log-mel alone, byol": lambda: bare(waves),
        "ops of two views alone, one by one": lambda: [(one_by_one.view(x), one_by_one.view(x)) for x in ready],
        "ops of two views alone, byol": lambda: [sounds.changed(ready, u, plan.pipeline, state) for _ in range(2)],
        LOOP: lambda: one_by_one(waves),
        "byol, all of it": lambda: plan.device(waves, ids, 0, 0, state),
    }
    times = side_by_side(jobs, rounds=rounds, clock=time.process_time)
    figures = {job: len(waves) / max(t.median, 1e-9) for job, t in times.items()}
    rows = [(job, f"{value:,.0f}", f"{value / figures[LOOP]:.2f}") for job, value in figures.items()]
    table(f"{name}: waveforms of 0.95 s to two views of 64x96, one core", ("", "sounds/s", f"x {LOOP.split(',')[0]}"), rows)
    return figures


def front_end(logmel: LogMel) -> tuple[Callable[[Tensor], Tensor], str]:
    """(T,) -> (1, bands, frames), and by what."""
    f = logmel.front
    torch.version.cuda = None  # else torchaudio compares the one it was built for, and may refuse to be imported
    if not peer("torchaudio"):
        return lambda wave: logmel(wave[None])[0], "byol"
    from torchaudio.transforms import MelSpectrogram

    mel = MelSpectrogram(
        sample_rate=f.rate, n_fft=f.fft, win_length=f.window, hop_length=f.hop, n_mels=f.bands, f_min=f.f_min, f_max=f.f_max, power=2
    )
    return lambda wave: (mel(wave[None]) + EPS).log(), "torchaudio"


class OneByOne:
    """The same views as a data loader makes them: every sample on its own, with Python's own random numbers."""

    def __init__(self, spectrogram: Callable[[Tensor], Tensor], pipeline: sounds.Pipeline) -> None:
        self.spectrogram, self.pipeline = spectrogram, pipeline
        self.bank: deque[Tensor] = deque(maxlen=pipeline.memory)

    def __call__(self, waves: Tensor) -> Tensor:
        """(B, T) -> (2 B, 1, F, T), normalised over all of them."""
        pairs = []
        for wave in waves:
            x = (self.spectrogram(wave) + 5) / 4
            pairs.append((self.view(x), self.view(x)))
        both = torch.stack([view for side in (0, 1) for view in [pair[side] for pair in pairs]])
        return (both - both.mean()) / both.std()

    def view(self, x: Tensor) -> Tensor:
        """(1, F, T) -> (1, F, T)."""
        p, mixed = self.pipeline, x
        if self.bank:
            share = p.mixup * random.random()
            mixed = torch.log((1 - share) * x.exp() + share * random.choice(self.bank).exp() + EPS)
        self.bank.append(x)
        mixed = self.crop(mixed)
        if p.fader:
            mixed = mixed + torch.linspace(random.uniform(-1, 1), random.uniform(-1, 1), x.shape[2])
        return mixed

    def crop(self, x: Tensor) -> Tensor:
        """(1, F, T) -> (1, F, T)."""
        bands, frames = x.shape[1:]
        wide = int(1.5 * frames)
        canvas = torch.zeros(1, bands, wide)
        before = (wide - frames) // 2
        canvas[:, :, before : before + frames] = x
        height = min(bands, int(random.uniform(0.6, 1.5) * bands))
        width = min(wide, int(random.uniform(0.6, 1.5) * frames))
        top, left = random.randint(0, bands - height), random.randint(0, wide - width)
        cut = canvas[None, :, top : top + height, left : left + width]
        return torch.nn.functional.interpolate(cut, size=(bands, frames), mode="bicubic", align_corners=True)[0]


if __name__ == "__main__":
    main()
