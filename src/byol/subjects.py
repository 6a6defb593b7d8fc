"""What is compared: the encoder that a few words name, on the data that it is used on, and the baselines beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from byol import data as datas
from byol import encoders, evaluation, exporting, others
from byol.encoders import Encoder
from byol.modalities import rgbd, sounds

Subject = tuple[str, Encoder | None]  # None: raw data


def encoder_for(spec: str | Path | Encoder, source: datas.Source, *, seed: int = 0) -> Subject:
    """(name, encoder) of a run, a file, `random:NAME` (of that seed), `timm:NAME`, `byol-a:PATH` or raw data (None).

    The last are `pixels`, `counts` of a recording, and `log-mel` of sounds; `byol-a:` is a released file of BYOL-A's authors.
    """
    if isinstance(spec, Encoder):
        return spec.name, _fitting(spec.eval(), spec.name, source)
    text = str(spec)
    raw = evaluation.RAW[source.modality]
    if text in ("pixels", raw):
        return raw, None
    if text.startswith("random:"):
        name = text.removeprefix("random:")
        return f"random {name}", encoders.load(name, input=input_for(source), seed=seed).eval()
    if text.startswith("timm:") and others.split(text)[0] is None:
        return text, encoders.load(text, input=input_for(source, pretrained=text), pretrained=True).eval()
    if text.startswith("byol-a:"):
        return text, _released(text, source)
    found = _fitting(exporting.load_encoder(Path(text)), text, source)
    if others.is_foreign(text) and isinstance(found.input, encoders.Input):
        # Weights of others take values in [0, 1], whatever those of the data are.
        stats = datas.statistics(source)
        found.input = replace(found.input, low=float(stats.low), high=float(stats.high))
    return text, found


def _released(text: str, source: datas.Source) -> Encoder:
    """The network as it was released, with the statistics of these data, as its authors evaluate it."""
    if source.modality != "sound":
        raise ValueError(f"{text} is an encoder of sounds, and {source.spec} has {source.words.many}; give sounds")
    found = encoders.load_byol_a(text.removeprefix("byol-a:"))
    assert isinstance(found.input, encoders.SoundInput)
    mine = sounds.measured(source, found.input.front)
    found.input = replace(found.input, mean=mine.mean[0], std=mine.std[0])
    return found


def _fitting(found: Encoder, text: str, source: datas.Source) -> Encoder:
    """The encoder; ValueError where it cannot take these data."""
    if source.modality == "sound" and not isinstance(found.input, encoders.SoundInput):
        raise ValueError(f"{text} is an encoder of images, and {source.spec} has sounds; give one that was trained on sounds")
    if source.modality != "sound" and isinstance(found.input, encoders.SoundInput):
        raise ValueError(f"{text} is an encoder of sounds, and {source.spec} has {source.words.many}; give sounds")
    if source.modality == "rgbd" and not (isinstance(found.input, encoders.Input) and found.input.points):
        raise ValueError(f"{text} is no encoder of RGB-D frames, which {source.spec} has; give one that was trained on frames")
    if source.modality == "recording" and found.input.channels != source.channels:
        takes, has = f"{found.input.channels} {source.words.channels}", f"{source.spec} has {source.channels}"
        raise ValueError(f"{text} takes {takes} and {has}; give a recording of the same neurons")
    return found


def input_for(source: datas.Source, *, pretrained: str | None = None) -> encoders.AnyInput:
    """The input of an encoder that no run has fixed: the images' own size up to 224, statistics of the data or of the weights."""
    if source.modality == "sound":
        return sounds.own_input(source)
    if source.modality == "rgbd":
        return rgbd.own_input(source)
    stats = datas.statistics(source)
    mean, std = stats.mean, stats.std
    if pretrained is not None:
        mean, std = encoders.pretrained_statistics(pretrained, source.channels)
    return encoders.Input(
        channels=source.channels,
        size=int(min(224, stats.height, stats.width)),
        mean=tuple(map(float, mean)),
        std=tuple(map(float, std)),
        low=float(stats.low),
        high=float(stats.high),
    )


def with_baselines(subject: Subject, source: datas.Source, *, seed: int) -> tuple[list[Subject], list[str]]:
    """Raw data, of sounds also `mfcc`, the same network with random weights, and the subject; and notes on what is not there."""
    name, encoder = subject
    if encoder is None:
        return [subject], []
    twin = encoders.random_twin(encoder, seed=seed)
    drawn = [(f"random {encoder.name}", twin)] if twin and not name.startswith("random ") else []
    more = [("mfcc", evaluation.mfcc(encoder.input))] if isinstance(encoder.input, encoders.SoundInput) else []
    notes = [] if twin is not None else [f"no random network: {encoder.name} cannot be drawn anew"]
    return [(evaluation.RAW[source.modality], None), *more, *drawn, subject], notes
