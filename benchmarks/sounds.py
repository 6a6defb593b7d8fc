"""Sound: from files to windows, from windows to the views of BYOL-A, and what a long file costs.

    uv run --group bench python benchmarks/sounds.py            # a few minutes; --tiny: seconds, to see that it works

Files: the feed of a run, which decodes one window of every sound, beside a loader that decodes and resamples whole sounds with
soundfile and torchaudio (without it: soxr) and cuts a window out. Decoded sounds are not kept, as where they do not fit into memory.

Memory: processes of their own read windows of one file of 10 s, and of one of 10 hours; WAVs of 10 hours are holes and take no disk.

Views: every contender works on the same windows of 0.95 s at 16 kHz, in turns, on one core; figures are medians over the rounds, in seconds
of processor time. "One by one" is what data loaders do: a spectrogram, a sound drawn from a list, a slice of a canvas, torch's bicubic
interpolation; without torchaudio it starts from our spectrogram, one at a time.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from measure import Job, cores, finish, peer, side_by_side, table
from torch import Tensor

from byol.allocator import keep_freed_memory
from byol.data import Source, open_source, sound_reader
from byol.data.sound_loader import WindowBatches
from byol.logmel import EPS, LogMel
from byol.views import sounds

LOOP = "one by one, all of it"
Figures = dict[str, float]


FORMATS = ("wav", "flac", "mp3")
KINDS = {"16 kHz mono": (16_000, 1), "44.1 kHz stereo": (44_100, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="few sounds, one round, minutes for hours: to see that it works")
    parser.add_argument("--read", type=Path, metavar="FOLDER", help="only read windows of the sounds there; prints what it took")
    asked = parser.parse_args()
    if asked.read is not None:
        print(json.dumps(reading(asked.read)))
        return
    keep_freed_memory()  # as in a run
    count, rounds = (8, 1) if asked.tiny else (128, 5)
    torch.manual_seed(0)
    waves = 0.1 * torch.randn(count, sounds.load("byol-a-v1").samples)
    with cores(1):
        files = {kind: of_files(kind, count // 2, rounds) for kind in KINDS}
        found = {name: of_plan(name, waves, rounds) for name in sounds.PLANS}
    finish("sounds", {"sounds": count, "rounds": rounds, "files": files, **found, "memory": memory(60 if asked.tiny else 36_000)})


def of_files(kind: str, count: int, rounds: int) -> dict[str, Figures]:
    """Windows a second from sounds of 10 s: the feed of a run, its reader alone, and whole sounds."""
    rate, channels = KINDS[kind]
    sound_reader.CACHE = 0
    found, rows = {}, []
    for form in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            noise = np.random.default_rng(0)
            for n in range(count):
                soundfile.write(f"{folder}/{n:04}.{form}", 0.1 * noise.standard_normal((10 * rate, channels)), rate)
            source, plan = open_source(folder), sounds.load("byol-a-v1")
            feed = WindowBatches(source, plan, n=count, batch=count, seed=0)
            starts = plan.windows(torch.full((count,), 10 * source.rate), torch.arange(count), 0, 0).tolist()
            paths = sorted(Path(folder).iterdir())
            whole, by = whole_sounds(source.rate, plan.samples)
            jobs: dict[str, Job] = {
                "feed": lambda: feed.read(0),  # noqa: B023 - all called before the next format
                "reader": lambda: [source.window(i, at, plan.samples) for i, at in enumerate(starts)],  # noqa: B023
                "whole": lambda: [whole(path) for path in paths],  # noqa: B023
            }
            assert tuple(feed.read(0).crops.shape) == (1, count, plan.samples), "the host hands on waveforms, one for both views"
            times = side_by_side(jobs, rounds=rounds, clock=time.process_time)
        rates = {job: count / max(t.median, 1e-9) for job, t in times.items()}
        found[form] = rates
        share = min(1.0, rates["feed"] / rates["reader"])
        rows.append((form, f"{rates['feed']:,.0f}", f"{share:.0%}", f"{rates['whole']:,.0f}", f"{rates['feed'] / rates['whole']:.1f}"))
    table(f"files of 10 s, {kind}: windows/s, one core", ("", "byol", "of it decoding", f"whole sounds, {by}", "x"), rows)
    return found


def whole_sounds(rate: int, samples: int) -> tuple[Callable[[Path], Tensor], str]:
    """A path -> (samples,) from anywhere in the sound, as loaders do that decode and resample it first; and by what."""
    with_torchaudio = torchaudio_is_here()

    def window(path: Path) -> Tensor:
        values, own = soundfile.read(path, dtype="float32", always_2d=True)
        wave = torch.from_numpy(values.mean(1))
        if own != rate and with_torchaudio:
            from torchaudio.functional import resample

            wave = resample(wave, own, rate)
        elif own != rate:
            wave = torch.from_numpy(soxr.resample(wave.numpy(), own, rate))
        start = random.randint(0, len(wave) - samples)
        return wave[start : start + samples].clone()

    return window, "soundfile and torchaudio" if with_torchaudio else "soundfile and soxr"


def memory(seconds: int) -> dict[str, dict[str, Figures]]:
    """MiB at most, and milliseconds of processor time for a window, of a file of 10 s and of a long one."""
    found, rows = {}, []
    for kind, (rate, channels) in KINDS.items():
        for form in FORMATS:
            if form != "wav" and channels > 1 and seconds > 3600:
                continue  # minutes to write, and no other way through the code than one channel takes
            of = {"short": read_apart(form, 10, rate, channels), "long": read_apart(form, seconds, rate, channels)}
            found[f"{form}, {kind}"] = of
            short, long = of["short"], of["long"]
            cells = [f"{short['mib']:,.0f}", f"{long['mib']:,.0f}", f"{long['mib'] / short['mib']:.2f}"]
            rows.append((f"{form}, {kind}", *cells, f"{short['ms']:.1f}", f"{long['ms']:.1f}", f"{long['open']:.1f}"))
    long_one = f"{seconds // 3600} hours" if seconds >= 3600 else f"{seconds} s"
    head = ("", "MiB, 10 s", long_one, "x", "ms a window, 10 s", long_one, "s to open it")
    table("one file: the most memory of a process that reads windows of it", head, rows)
    return found


def read_apart(form: str, seconds: int, rate: int, channels: int) -> Figures:
    """What `reading` says of one file, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{form}"
        if form == "wav":
            holes(path, seconds, rate, channels)
        else:
            with soundfile.SoundFile(path, "w", rate, channels) as file:
                for _ in range(seconds // 10):
                    file.write(np.zeros((10 * rate, channels), np.float32))
        done = subprocess.run([sys.executable, __file__, "--read", folder], capture_output=True, text=True, check=True)
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures


def holes(path: Path, seconds: int, rate: int, channels: int) -> None:
    """A WAV of 8 bits, so that 10 hours stay below its 4 GB, that takes no room on a disk."""
    size = seconds * rate * channels
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, channels, rate, rate * channels, channels, 8, b"data", size
    )
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(len(head) + size)


def reading(folder: Path, steps: int = 40) -> Figures:
    """Windows of all the sounds in a folder by the feed of a run: MiB at most, ms a window, seconds until it is open."""
    sound_reader.CACHE = 0
    began = time.process_time()
    source: Source = open_source(folder, fresh=True)
    opened = time.process_time()
    feed = WindowBatches(source, sounds.load("byol-a-v1"), n=len(source), batch=1, seed=0)
    for step in range(steps):
        feed.read(step)
    spent = 1e3 * (time.process_time() - opened) / steps
    # Not getrusage: its maximum begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return {"mib": int(status.partition("VmHWM:")[2].split()[0]) / 1024, "ms": spent, "open": opened - began}


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
    if not torchaudio_is_here():
        return lambda wave: logmel(wave[None])[0], "byol"
    from torchaudio.transforms import MelSpectrogram

    mel = MelSpectrogram(
        sample_rate=f.rate, n_fft=f.fft, win_length=f.window, hop_length=f.hop, n_mels=f.bands, f_min=f.f_min, f_max=f.f_max, power=2
    )
    return lambda wave: (mel(wave[None]) + EPS).log(), "torchaudio"


def torchaudio_is_here() -> bool:
    """Whether it can be compared with."""
    torch.version.cuda = None  # else torchaudio compares the one it was built for, and may refuse to be imported
    return peer("torchaudio")


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
