"""Embed: the features of every sample, or of every moment of sounds, into a file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from byol import data as datas
from byol import dist, embeddings, evaluation, over_time
from byol import run as runs
from byol.api.training import Quiet
from byol.encoders import Encoder
from byol.evaluation.features import frozen
from byol.run import Progress
from byol.subjects import encoder_for


@dataclass(frozen=True)
class Embedded:
    """What `embed` wrote."""

    images: int  # or other samples
    skipped: list[datas.Skipped]  # files that could not be read
    vectors: int  # one for each image, or of sounds one for every moment
    words: datas.Words = datas.WORDS["image"]


def embed(
    encoder: str | Path | Encoder,
    data: str | Path,
    out: str | Path,
    *,
    hop: int | None = None,
    limit: int | None = None,
    device: str = "auto",
    precision: evaluation.Precision = "fp32",
    batch_size: int = evaluation.BATCH,
    progress: Progress = Quiet,
) -> Embedded:
    """Write the features of every image, with its name and its class if it has one, to .parquet, .npz or .npy.

    With `hop`, of every sound those at 0, hop, 2 hop ... ms, to .parquet: a row for each, its time in the column time_ms.
    Several processes write one part each into a folder OUT, which reads as one table: .parquet only.
    """
    if hop is not None:
        over_time.check_hop(hop)
        embeddings.check_timed_path(Path(out))
        if batch_size != evaluation.BATCH:
            raise ValueError(f"batch_size is {batch_size}, and with a hop sounds go through the network one by one; leave it out")
    place = runs.find_device(device)
    with dist.joined(place):
        path = embeddings.part_of(Path(out))
        source = datas.open_source(str(data), limit=limit)
        if hop is not None and source.modality != "sound":
            raise ValueError(f"{data} has {source.words.many}, and only sounds have a hop; leave it out")
        _, network = encoder_for(encoder, source)
        if network is None:
            raise ValueError(f"{encoder} is a baseline of `evaluate` and has no encoder to embed with; give a run or a file")
        mine = source.subset(np.arange(len(source))[dist.share(len(source))])
        if hop is not None:
            return _embed_over_time(network, source, mine, path, hop, place, precision, progress)
        return _embed(network, source, mine, path, place, precision, batch_size, progress)


def _embed(
    network: Encoder,
    source: datas.Source,
    mine: datas.Source,
    out: Path,
    device: str,
    precision: evaluation.Precision,
    batch_size: int,
    progress: Progress,
) -> Embedded:
    """One row for each sample of `mine`, the share of this process."""
    samples = evaluation.mean_length(source.headers.width) if source.modality == "sound" else None
    found = evaluation.features(network, mine, batch=batch_size, device=device, precision=precision, samples=samples, progress=progress)
    embedded = _together(source, len(found.kept), len(found.kept), found.skipped)
    labels = None if mine.labels is None else [_label(mine, int(i)) for i in found.kept]
    embeddings.write_embeddings(out, [mine.names[i] for i in found.kept], found.x, labels)
    dist.wait()
    return embedded


def _embed_over_time(
    network: Encoder,
    source: datas.Source,
    mine: datas.Source,
    out: Path,
    hop: int,
    device: str,
    precision: evaluation.Precision,
    progress: Progress,
) -> Embedded:
    """One row for each moment of each sound of `mine`, written as they come."""
    over_time.Ear.of(network)  # before there is a file
    seconds = [math.ceil(width / source.rate) for width in mine.headers.width.tolist()]
    whole, vectors, done, total, skipped = 0, 0, 0, sum(seconds), list[datas.Skipped]()
    with (
        embeddings.timed_rows(out, network.dim, labelled=mine.labels is not None) as rows,
        frozen(network, torch.device(device)),
    ):
        for i, name in enumerate(mine.names):
            until = 0
            try:
                for times, features in over_time.along(network, mine, i, hop, device=torch.device(device), precision=precision):
                    rows.add(name, None if mine.labels is None else _label(mine, i), times, features)
                    until = int(times[-1]) + hop
                    vectors += len(times)
                    progress("Seconds of sound", done + min(until // 1000, seconds[i]), total)
                whole += 1
            except datas.Unreadable as error:
                skipped.append(datas.Skipped(name, f"{error}" + (f"; only what is before {until:,} ms is in {out.name}" if until else "")))
            done += seconds[i]
        embedded = _together(source, whole, vectors, skipped)
    dist.wait()
    return embedded


def _label(source: datas.Source, index: int) -> str:
    """The class of a sample, or nothing."""
    assert source.labels is not None
    return source.classes[source.labels[index]] if source.labels[index] >= 0 else ""


def _together(source: datas.Source, samples: int, vectors: int, skipped: list[datas.Skipped]) -> Embedded:
    """What all processes embedded; ValueError if that is nothing."""
    every = dist.from_all({"samples": samples, "vectors": vectors, "skipped": [asdict(s) for s in skipped]})
    left_out = [datas.Skipped(**s) for part in every for s in part["skipped"]]
    count = sum(part["samples"] for part in every)
    if not count:
        many = source.words.many
        raise ValueError(f"{source.spec}: none of its {len(left_out)} {many} can be read; run `byol doctor` on it to see why")
    return Embedded(count, [*source.skipped, *left_out], sum(part["vectors"] for part in every), source.words)
