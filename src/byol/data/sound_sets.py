"""The sets of sounds that papers on general audio representations compare on: NAME:FOLDER -> sources with labels, parts and folds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

import numpy as np

from byol.data import sound_lists as lists
from byol.data.compact import Names, narrow
from byol.data.encoded import Files, limited, look
from byol.data.labels import Labels
from byol.data.sound_clips import Cuts, EncodedClips, header_of
from byol.data.sound_lists import SPLITS, Listed
from byol.data.sound_reader import SoundReader
from byol.data.sounds import LOW, RATE, is_low, sound_source
from byol.data.source import Ids, Metric, Official, Progress, Source, shown


@dataclass(frozen=True)
class SoundSet:
    """What is compared on a set, and where it lies."""

    read: lists.Read
    places: tuple[tuple[str, str], ...]  # (the set's folder within FOLDER, a file or folder in it)
    what: str
    get: str  # what to fetch
    metric: Metric = "top-1"


def _beneath(mark: str, *folders: str) -> tuple[tuple[str, str], ...]:
    """The set's folder may be one of these, or FOLDER itself."""
    return tuple((folder, mark) for folder in (*folders, "."))


SOUND_SETS: Final = {
    "nsynth": SoundSet(
        lists.nsynth, _beneath("nsynth-train/examples.json", "nsynth"),
        "305,979 notes, 11 families of instruments", "nsynth-train.jsonwav.tar.gz, -valid and -test of Magenta",
    ),
    "urbansound8k": SoundSet(
        lists.urbansound8k, _beneath("metadata/UrbanSound8K.csv", "UrbanSound8K"),
        "8,732 sounds of cities, 10 classes in 10 folds", "UrbanSound8K.tar.gz of New York University",
    ),
    "voxceleb1": SoundSet(
        lists.voxceleb1, _beneath("iden_split.txt", "voxceleb1", "VoxCeleb1"),
        "153,516 utterances, 1,251 speakers", "vox1_dev_wav, vox1_test_wav and iden_split.txt of Oxford's VoxCeleb",
    ),
    "voxforge": SoundSet(
        lists.voxforge, _beneath("en", "voxforge", "VoxForge"),
        "some 176,000 utterances, 6 languages", "the archives of voxforge.org, each in a folder of its language (de, en, es, fr, it, ru)",
    ),
    "speechcommands": SoundSet(
        lists.speech_commands,
        _beneath("testing_list.txt", "speech_commands_v0.02", "SpeechCommands/speech_commands_v0.02"),
        "105,829 words of a second, 35 classes", "speech_commands_v0.02.tar.gz of Google, unpacked into a folder of that name",
    ),
    "speechcommands12": SoundSet(
        lists.speech_commands_12,
        _beneath("testing_list.txt", "speech_commands_v0.02", "SpeechCommands/speech_commands_v0.02"),
        "ten commands, silence and all other words", "speech_commands_v0.02.tar.gz and speech_commands_test_set_v0.02.tar.gz of Google, "
        "each unpacked into a folder of that name",
    ),
    "esc50": SoundSet(
        lists.esc50, _beneath("meta/esc50.csv", "ESC-50-master", "ESC-50"),
        "2,000 sounds of surroundings, 50 classes in 5 folds", "the archive of the repository karolpiczak/ESC-50",
    ),
    "fsd50k": SoundSet(
        lists.fsd50k, _beneath("FSD50K.ground_truth/dev.csv", "FSD50K", "fsd50k"), "51,197 clips of Freesound, 200 classes, several a clip",
        "FSD50K.dev_audio, FSD50K.eval_audio and FSD50K.ground_truth of Zenodo 4060432", "mAP",
    ),
    "gtzan": SoundSet(
        lists.gtzan, _beneath("blues", "genres", "genres_original", "gtzan", "gtzan/genres"), "1,000 pieces of music, 10 genres",
        "genres.tar.gz of GTZAN (and train_filtered.txt, valid_filtered.txt and test_filtered.txt for the split without faulty clips)",
    ),
    "cremad": SoundSet(
        lists.cremad, _beneath("AudioWAV", "CREMA-D", "crema-d", "cremad"),
        "7,442 sentences by 91 actors, 6 emotions", "the folder AudioWAV of the repository CheyneyComputerScience/CREMA-D",
    ),
    "fsdd": SoundSet(
        lists.spoken_digits, _beneath("0_jackson_0.wav", "fsdd", "free-spoken-digit-dataset/recordings"),
        "3,000 spoken digits by 6 speakers", "the folder recordings of the repository Jakobovski/free-spoken-digit-dataset",
    ),
}  # fmt: skip


def sound_set_names() -> dict[str, str]:
    """Every set as it is written, with one line on it."""
    return {f"{name}:FOLDER": f"{s.what}; {s.metric}; unpack it below FOLDER" for name, s in SOUND_SETS.items()}


def is_sound_set(spec: str) -> bool:
    """True for "esc50:/data"."""
    name, _, folder = spec.partition(":")
    return name.lower() in SOUND_SETS and bool(folder)


def open_sound_set(
    name: str,
    folder: Path,
    part: Literal["train", "test"] = "train",
    *,
    rate: int = RATE,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Source:
    """The clips that train and validate, or those that test; `Source.official` says which validate. ValueError if they are not there.

    A set with folds is one part, "train", and `official.folds` says the fold of each clip. `groups` are speakers, or the recordings
    that clips were cut from. `limit` keeps at most so many of the part, spread over its classes.
    """
    known = SOUND_SETS.get(name.lower())
    if known is None:
        raise ValueError(f"there is no set of sounds {name!r}; there are {', '.join(SOUND_SETS)}")
    root = _root(name, known, folder)
    try:
        found = known.read(root)
    except OSError as error:
        place = error.filename or root
        raise ValueError(f"{name}: {place} cannot be read ({(error.strerror or 'unknown error').lower()}); get {known.get}") from error
    rows = _rows_of(name, known, found, part)
    spec = f"{name}:{folder}" + (" test" if part == "test" else "")
    return limited(_source(spec, known, found, rows, rate, progress), limit)


def open_set_at_own_rate(name: str, folder: Path, *, limit: int | None = None, progress: Progress | None = None) -> Source:
    """The part that trains and validates, at the rate that `sounds.open_at_own_rate` takes."""
    source = open_sound_set(name, folder, limit=limit, progress=progress)
    return open_sound_set(name, folder, rate=LOW, limit=limit, progress=progress) if is_low(source) else source


def _root(name: str, known: SoundSet, folder: Path) -> Path:
    """The set's own folder."""
    root = next((folder / place for place, mark in known.places if (folder / place / mark).exists()), None)
    if root is None:
        place, mark = known.places[0]
        at = shown(str(folder / place / mark))
        raise ValueError(f"{name} is not in {shown(str(folder))}: {at} is missing; get {known.get} and unpack it there")
    return root


def _rows_of(name: str, known: SoundSet, found: Listed, part: str) -> Ids:
    """The clips of a part."""
    if found.split is None:
        if part == "test":
            raise ValueError(f"{name} has folds and no test part; open its one part, and test on each fold of official.folds in turn")
        rows = np.arange(len(found.names))
    else:
        wanted = [SPLITS.index("test")] if part == "test" else [SPLITS.index("train"), SPLITS.index("val")]
        rows = np.flatnonzero(np.isin(found.split, wanted))
    if not len(rows):
        raise ValueError(f"{found.root} has no sounds of the {'test' if part == 'test' else 'training'} part; get {known.get}")
    return rows


def _source(spec: str, known: SoundSet, found: Listed, rows: Ids, rate: int, progress: Progress | None) -> Source:
    files = list(dict.fromkeys(found.names[i] for i in rows))  # a noise that is cut into seconds is one file
    blobs = Files(str(found.root), Names.of(files))
    source = sound_source(blobs, look(blobs, progress, partial(header_of, rate=rate)), rate, spec=spec, labels=lambda used: Labels())
    place = {name: i for i, name in enumerate(source.names)}
    rows = np.array([i for i in rows if found.names[i] in place], np.int64)  # some may be unreadable
    source = source.subset([place[found.names[i]] for i in rows]) if found.counts is None else _cut(source, blobs, found, rows, rate)
    official = Official(
        known.metric,
        np.zeros(len(rows), bool) if found.split is None else found.split[rows] == SPLITS.index("val"),
        found.y[rows] if found.y.ndim == 2 else None,
        None if found.folds is None else found.folds[rows],
    )
    return replace(
        source,
        labels=None if found.y.ndim == 2 else found.y[rows],
        classes=list(found.classes),
        official=official,
        groups=None if found.groups is None else found.groups[rows],
        notes=(*source.notes, *found.notes),
    )


def _cut(source: Source, blobs: Files, found: Listed, rows: Ids, rate: int) -> Source:
    """The clips of these rows, of which some are parts of the files of the source."""
    assert found.starts is not None
    assert found.counts is not None
    starts, counts = found.starts[rows], found.counts[rows]
    names = Names.of(f"{found.names[i]}@{found.starts[i]}" if found.counts[i] else found.names[i] for i in rows)
    file = {name: i for i, name in enumerate(blobs.names)}
    of = {name: i for i, name in enumerate(source.names)}
    headers = source.headers.take(np.array([of[found.names[i]] for i in rows], np.int64))
    # A part is a second long at any rate; its bytes are its share of the file's.
    width = np.where(counts > 0, rate, headers.width)
    nbytes = np.where(counts > 0, headers.nbytes * rate // np.maximum(headers.width, 1), headers.nbytes)
    clips = Cuts(EncodedClips(blobs), names, narrow(np.array([file[found.names[i]] for i in rows])), narrow(starts), narrow(counts))
    return replace(
        source, names=names, reader=SoundReader(clips, rate, narrow(width)), headers=replace(headers, width=width, nbytes=nbytes)
    )
