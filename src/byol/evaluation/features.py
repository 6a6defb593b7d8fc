"""Features of every image: (encoder, source) -> (n, D), in the order of the source, without touching the encoder's state."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import compress
from math import ceil
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import dist, over_time
from byol.allocator import keep_freed_memory
from byol.data import Skipped, Source, Unreadable, threads
from byol.data.arrays import memory_limit
from byol.encoders import Encoder, Input, SoundInput, evaluation_view, evaluation_views, resampled, spectrogram

Array = NDArray[np.generic]
Precision = Literal["fp32", "bf16"]
Progress = Callable[[str, int, int], None]  # what is being done, done, total

BATCH = 256
LONG = 120  # s of a sound that go through a network at once, where it can be heard in stretches
_WAVES = 1 << 25  # samples of sounds that are held at once
_PER_SECOND = 3_000_000  # bytes that a second of sound takes in a network
_CPU_PIXELS = 64 * 224 * 224  # a pass on a CPU: few enough for its activations to fit anywhere, and enough for the calls to cost nothing


@dataclass(frozen=True, eq=False)
class Features:
    """Features and what they belong to."""

    x: NDArray[np.float32]  # (n, D)
    kept: NDArray[np.int64]  # (n,) ascending: the index in the source of each row
    skipped: list[Skipped]  # images that could not be read


def features(
    encoder: Encoder,
    source: Source,
    *,
    batch: int = BATCH,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    samples: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Features:
    """The features of all images that can be read, by the geometry of evaluation and without gradient.

    Sounds are cut, or followed by silence, to so many `samples` at the rate of the source; None: to their mean length. Above LONG s
    they are heard in stretches where the network has frames; ValueError where it has none and they would not fit into memory.
    The encoder runs in evaluation mode: batch-norm statistics stay, and mode and device are put back afterwards.
    """
    return _here([encoder], source, batch, torch.device(device), precision, samples, progress)[0]


def extract(
    encoders: Sequence[Encoder],
    source: Source,
    *,
    batch: int = BATCH,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    samples: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> list[Features]:
    """As `features` for several encoders, every image decoded once; all rows belong to the same images.

    Several processes share the work: each decodes and computes a part, and all get the whole.
    """
    if samples is None and source.modality == "sound":
        samples = mean_length(source.headers.width)
    if dist.size() == 1:
        return _here(encoders, source, batch, torch.device(device), precision, samples, progress)
    part = np.arange(len(source))[dist.share(len(source))]
    mine = _here(encoders, source.subset(part), batch, torch.device(device), precision, samples, progress)
    kept = dist.rows_of_all(torch.from_numpy(part[mine[0].kept])).numpy()
    skipped = [Skipped(**s) for of_one in dist.from_all([asdict(s) for s in mine[0].skipped]) for s in of_one]
    return [Features(dist.rows_of_all(torch.from_numpy(f.x)).numpy(), kept, skipped) for f in mine]


def _here(
    encoders: Sequence[Encoder],
    source: Source,
    batch: int,
    device: torch.device,
    precision: Precision,
    samples: int | None,
    progress: Progress,
) -> list[Features]:
    """All of it in this process."""
    keep_freed_memory()
    read: Callable[[int], Array] = source.read
    if source.modality == "sound":
        samples = samples or mean_length(source.headers.width)
        read, batch = partial(source.window, start=0, frames=samples), max(1, min(batch, _WAVES // samples))
    out = [np.empty((len(source), e.dim), np.float32) for e in encoders]
    pairs = list(zip(encoders, out, strict=True))
    long = [samples is not None and _in_stretches(e, source, samples) for e in encoders]
    at_once = [pair for pair, apart in zip(pairs, long, strict=True) if not apart]
    bad: dict[int, str] = {}
    with ExitStack() as stack:
        for encoder in encoders:
            stack.enter_context(frozen(encoder, device))
        if samples is not None and any(long):
            _long(list(compress(pairs, long)), source, samples, bad, device, precision, progress)
        if at_once:
            progress("Features", 0, len(source))
        for ids, images in _batches(source, batch, bad, read) if at_once else ():
            views: dict[tuple[object, ...], Tensor] = {}
            for encoder, rows in at_once:
                key = _geometry(encoder, source)
                if key not in views:
                    views[key] = _seen(images, encoder, source, device)
                rows[ids] = embed(encoder, views[key], precision).cpu().numpy()
            progress("Features", int(ids[-1]) + 1, len(source))
    kept = np.array([i for i in range(len(source)) if i not in bad], np.int64)
    skipped = [Skipped(source.names[i], reason) for i, reason in sorted(bad.items())]
    return [Features(x[kept] if bad else x, kept, skipped) for x in out]


def _in_stretches(encoder: Encoder, source: Source, samples: int) -> bool:
    """Whether a sound of so many samples is heard in parts; ValueError where it has to be, and cannot."""
    seconds = samples / source.rate
    if seconds <= LONG or isinstance(encoder.net, over_time.Framed):
        return seconds > LONG
    if seconds * _PER_SECOND > memory_limit():
        longest = int(source.headers.width.argmax())
        what = f"{source.names[longest]} is {source.headers.width[longest] / source.rate / 60:,.0f} minutes long"
        heard = f"{encoder.name} hears {seconds / 60:,.0f} minutes of every sound at once, for which there is too little memory"
        raise ValueError(f"{what}, and {heard}; cut the sounds, or give an encoder that hears them in parts, such as byol-a-v2")
    return False


def _long(
    pairs: Sequence[tuple[Encoder, NDArray[np.float32]]],
    source: Source,
    samples: int,
    bad: dict[int, str],
    device: torch.device,
    precision: Precision,
    progress: Progress,
) -> None:
    """Fills the rows of each of these encoders, a stretch of a sound at a time."""
    seconds, done = ceil(samples / source.rate), 0
    for encoder, rows in pairs:
        for i in range(len(source)):
            try:
                for n, y in enumerate(over_time.as_one(encoder, source, i, samples, device=device, precision=precision)):
                    progress("Seconds of sound", done + min(n * over_time.STRETCH, seconds), len(pairs) * len(source) * seconds)
                    rows[i] = y.numpy()
            except Unreadable as error:
                bad[i] = str(error)
            done += seconds
    progress("Seconds of sound", done, done)


@torch.inference_mode()
def embed(encoder: Encoder, views: Tensor, precision: str) -> Tensor:
    """(B, C, S, S) values in [0, 1] -> (B, D) float32, on the encoder's device; the encoder has to be in evaluation mode."""
    out = []
    pixels = views.shape[-2] * views.shape[-1]
    for part in torch.split(views, min(BATCH, max(1, _CPU_PIXELS // pixels)) if views.device.type == "cpu" else BATCH):
        # Convolutions are faster with the channels last, and it is enough that one operand says so.
        x = encoder.input.normalise(part).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bf16"):
            out.append(encoder(x).float())
    return torch.cat(out)


def see(images: Sequence[Array], input: Input, device: torch.device) -> Tensor:
    """(H, W, C) images -> (B, C, S, S) in [0, 1], the evaluation view; as one batch on the device when they have one size."""
    if len({image.shape for image in images}) > 1:
        return input.scale(torch.stack([evaluation_view(image, input) for image in images]).to(device))
    raw = torch.from_numpy(np.stack(images)).movedim(-1, 1)
    # 8-bit values travel as they are: a quarter of the bytes.
    return input.scale(evaluation_views(raw.to(device) if raw.dtype == torch.uint8 else raw, input).to(device))


@contextmanager
def frozen(encoder: Encoder, device: torch.device) -> Iterator[None]:
    """The encoder in evaluation mode on the device; every part has its own mode, and the whole its place, back afterwards."""
    modes = {module: module.training for module in encoder.modules()}
    tensors = (*encoder.parameters(), *encoder.buffers())
    before = tensors[0].device if tensors else device
    encoder.eval().to(device)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        encoder.to(before)


def _seen(samples: Sequence[Array], encoder: Encoder, source: Source, device: torch.device) -> Tensor:
    """What is read -> what the encoder sees of it, (B, C, S, S) in [0, 1] or (B, 1, bands, T) log-mel."""
    if source.modality == "sound":
        return hear(samples, sounds_of(encoder), source.rate, device)
    return see(samples, encoder.images, device)


def mean_length(lengths: Sequence[int] | NDArray[np.integer]) -> int:
    """Samples of each clip of a task -> of all of them when it is evaluated: their mean, rounded, and one at least."""
    if not len(lengths):
        raise ValueError("there are no clips to take the mean length of; give the data of the task")
    return max(1, round(sum(map(int, lengths)) / len(lengths)))


def sounds_of(encoder: Encoder) -> SoundInput:
    """Its input, where it is one of sound; ValueError for an encoder of images."""
    if not isinstance(encoder.input, SoundInput):
        raise ValueError(f"{encoder.name} is an encoder of images, and the data are sounds; give one of sound, such as audio-small")
    return encoder.input


def hear(waves: Sequence[Array], input: SoundInput, rate: int, device: torch.device) -> Tensor:
    """(1, T, 1) waveforms of one length and of `rate` Hz -> (B, 1, bands, frames) log-mel at the rate of the input, not normalised."""
    x = resampled(np.stack([wave[0, :, 0] for wave in waves]).astype(np.float32, copy=False), rate, input.rate)
    return spectrogram(torch.from_numpy(np.ascontiguousarray(x)).to(device), input)


def _geometry(encoder: Encoder, source: Source) -> tuple[object, ...]:
    """Encoders that agree in this see the same view."""
    if source.modality == "sound":
        heard = sounds_of(encoder)
        return heard.front, heard.unit
    input = encoder.images
    return input.channels, input.size, input.resize or input.size, hash((input.low, input.high, input.points))


def _batches(
    source: Source, batch: int, bad: dict[int, str], read_one: Callable[[int], Array]
) -> Iterator[tuple[NDArray[np.int64], list[Array]]]:
    """(indices, images) a batch at a time, without the unreadable ones, which go to `bad`; the next batch is decoded meanwhile."""

    def read(index: int) -> Array | str:
        try:
            return read_one(index)
        except Unreadable as error:
            return str(error)

    # Pillow warns of odd metadata, file by file. The filter belongs to the process, so it is set here and not in the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads()) as pool:
        warnings.simplefilter("ignore")
        starts = range(0, len(source), batch)
        ahead = pool.map(read, range(min(batch, len(source))))
        for start in starts:
            results = list(ahead)
            following = start + batch
            ahead = pool.map(read, range(following, min(following + batch, len(source))))
            bad |= {start + i: r for i, r in enumerate(results) if isinstance(r, str)}
            good = [(start + i, r) for i, r in enumerate(results) if not isinstance(r, str)]
            if good:
                yield np.array([i for i, _ in good], np.int64), [image for _, image in good]
