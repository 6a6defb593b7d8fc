"""Sets of sounds as their creators hand them out: a folder -> the clips, their classes, and the part or the fold of each."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from byol.data import sniff
from byol.data.annotations import inside, text_lines
from byol.data.compact import Names
from byol.data.encoded import Files
from byol.data.sound_clips import EncodedClips
from byol.data.source import Ids, Unreadable
from byol.stored import LIMIT, parse

Split: TypeAlias = Literal["train", "val", "test", "none"]
SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test", "none")  # none: not used by the official lists
Codes: TypeAlias = npt.NDArray[np.int8]  # index into SPLITS

_SEED: Final = 0
_SPEAKERS, _TAKES, _FOLDS = 20, 21, 22  # counters of the random orders
_COMMANDS: Final = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
_EMOTIONS: Final = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")


@dataclass(frozen=True, eq=False)
class Listed:
    """The clips of a set, wherever the split comes from."""

    root: Path
    names: list[str]  # (n,) paths below the root with "/"
    y: Ids  # (n,) index into the classes; (n, C) of 1 and 0 where a clip has several
    classes: list[str]
    split: Codes | None = None  # (n,); None: the set has folds instead
    folds: Ids | None = None  # (n,) 0, 1, ...
    groups: Ids | None = None  # (n,) speaker, or recording that the clip was cut from
    notes: tuple[str, ...] = ()
    starts: Ids | None = None  # (n,) the first frame of a clip that is cut out of a longer one, at its own rate; None: all are whole
    counts: Ids | None = None  # (n,) its frames; 0: the clip is whole


def nsynth(root: Path) -> Listed:
    """nsynth-train/, nsynth-valid/, nsynth-test/, each with examples.json and audio/NOTE.wav; the family of the instrument is the class."""
    names: list[str] = []
    families: list[str] = []
    instruments: list[str] = []
    split: list[Split] = []
    parts: tuple[tuple[str, Split], ...] = (("train", "train"), ("valid", "val"), ("test", "test"))
    for part, code in parts:
        path = root / f"nsynth-{part}" / "examples.json"
        for note, about in _json_object(path).items():
            if not isinstance(about, dict) or not isinstance(about.get("instrument_family_str"), str):
                raise ValueError(f"{path} has a note without instrument_family_str; unpack the official archive again")
            names.append(inside(path, [f"nsynth-{part}/audio/{note}.wav"])[0])
            families.append(about["instrument_family_str"])
            instruments.append(str(about.get("instrument_str", "")))
            split.append(code)
    y, classes = _coded(families)
    return Listed(root, names, y, classes, _codes(split), groups=_coded(instruments)[0])


def urbansound8k(root: Path) -> Listed:
    """metadata/UrbanSound8K.csv (slice_file_name, fsID, fold, class), audio/foldN/; ten folds."""
    path = root / "metadata" / "UrbanSound8K.csv"
    rows = _table(path, "slice_file_name", "fsID", "fold", "class")
    names = inside(path, [f"audio/fold{fold}/{name}" for name, _, fold, _ in rows])
    y, classes = _coded([c for *_, c in rows])
    return Listed(root, names, y, classes, folds=_folds(path, [r[2] for r in rows]), groups=_coded([r[1] for r in rows])[0])


def esc50(root: Path) -> Listed:
    """meta/esc50.csv (filename, fold, category, src_file), audio/; five folds."""
    path = root / "meta" / "esc50.csv"
    rows = _table(path, "filename", "fold", "category", "src_file")
    y, classes = _coded([r[2] for r in rows])
    names = inside(path, [f"audio/{r[0]}" for r in rows])
    return Listed(root, names, y, classes, folds=_folds(path, [r[1] for r in rows]), groups=_coded([r[3] for r in rows])[0])


def voxceleb1(root: Path) -> Listed:
    """iden_split.txt (1, 2 or 3 for train, validation, test; SPEAKER/VIDEO/NUMBER.wav); wav/, or dev/wav/ and test/wav/."""
    path = root / "iden_split.txt"
    rows = [line.split(maxsplit=1) for line in text_lines(path)]
    if strange := next((i for i, row in enumerate(rows, 1) if len(row) < 2 or row[0] not in ("1", "2", "3") or "/" not in row[1]), None):
        raise ValueError(f"{path} has no part and path in row {strange:,}; fetch the official list again")
    inside(path, [name for _, name in rows])
    speakers = {name.split("/")[0] for _, name in rows}
    places = {s: next((p for p in ("wav", "dev/wav", "test/wav") if (root / p / s).is_dir()), "wav") for s in speakers}
    y, classes = _coded([name.split("/")[0] for _, name in rows])
    videos = _coded([name.rpartition("/")[0] for _, name in rows])[0]
    codes = np.array([int(part) - 1 for part, _ in rows], np.int8)
    return Listed(root, [f"{places[name.split('/')[0]]}/{name}" for _, name in rows], y, classes, codes, groups=videos)


def voxforge(root: Path) -> Listed:
    """LANGUAGE/SPEAKER-DATE-CODE/wav/*.wav (or .flac); the language is the class, speakers are divided 70 / 10 / 20 %."""
    names = [n for n in _sounds_below(root) if n.count("/") >= 2]
    y, classes = _coded([n.split("/")[0] for n in names])
    # "anonymous" is many people: each of their recordings counts as a speaker.
    speakers = [n.split("/")[1] if n.split("/")[1].startswith("anonymous") else n.split("/")[1].split("-")[0] for n in names]
    return _with_drawn(root, names, y, classes, speakers, (0.7, 0.1))


def cremad(root: Path) -> Listed:
    """AudioWAV/ACTOR_SENTENCE_EMOTION_LEVEL.wav; six emotions, the 91 actors are divided 70 / 10 / 20 %."""
    folder = "AudioWAV/" if (root / "AudioWAV").is_dir() else ""
    fields = [(n, Path(n).stem.split("_")) for n in _sounds_below(root) if n.startswith(folder)]
    used = [(n, f) for n, f in fields if len(f) == 4 and f[2] in _EMOTIONS]
    y = np.array([_EMOTIONS.index(f[2]) for _, f in used], np.int64)
    return _with_drawn(root, [n for n, _ in used], y, list(_EMOTIONS), [f[0] for _, f in used], (0.7, 0.1))


def speech_commands(root: Path) -> Listed:
    """WORD/SPEAKER_nohash_N.wav, validation_list.txt, testing_list.txt; 35 words."""
    names = [n for n in _sounds_below(root) if n.count("/") == 1 and not n.startswith("_")]
    y, classes = _coded([n.split("/")[0] for n in names])
    return Listed(root, names, y, classes, _by_lists(root, names), groups=_coded([_speaker(n) for n in names])[0])


def speech_commands_12(root: Path) -> Listed:
    """Ten commands, _silence_ and _unknown_, as TensorFlow Datasets has them.

    All other words are _unknown_. For training, _silence_ is every half second of _background_noise_/, a second long; of
    running_tap.wav for validation. All of the test is the folder of speech_commands_test_set_v0.02, which has its own _silence_.
    """
    tests = _test_folder(root)
    below = _sounds_below(root)
    words = [n for n in below if n.count("/") == 1 and not n.startswith("_")]
    codes = _by_lists(root, words)
    kept = [(n, int(c), 0, 0) for n, c in zip(words, codes, strict=True) if SPLITS[c] != "test"]
    for n in below:
        if n.startswith("_background_noise_/"):
            code = SPLITS.index("val" if n.endswith("/running_tap.wav") else "train")
            kept += [(n, code, start, count) for start, count in _seconds_of(root / n)]
    kept += [(f"{tests}/{n}", SPLITS.index("test"), 0, 0) for n in _sounds_below(root / tests)]
    classes = [*_COMMANDS, "_silence_", "_unknown_"]
    names, split, starts, counts = (list(column) for column in zip(*kept, strict=True))
    y = np.array([classes.index(_twelfth(n)) for n in names], np.int64)
    return Listed(root, names, y, classes, np.array(split, np.int8), starts=np.array(starts, np.int64), counts=np.array(counts, np.int64))


def fsd50k(root: Path) -> Listed:
    """FSD50K.ground_truth/ (vocabulary.csv, dev.csv: fname, labels, split; eval.csv), FSD50K.dev_audio/, FSD50K.eval_audio/."""
    truth = root / "FSD50K.ground_truth"
    classes = [row[1] for row in _rows(truth / "vocabulary.csv") if len(row) > 1]
    number = {name: i for i, name in enumerate(classes)}
    names: list[str] = []
    labels: list[str] = []
    split: list[Split] = []
    for part in ("dev", "eval"):
        path = truth / f"{part}.csv"
        rows = _table(path, "fname", "labels", *(("split",) if part == "dev" else ()))
        names += inside(path, [f"FSD50K.{part}_audio/{row[0]}.wav" for row in rows])
        labels += [row[1] for row in rows]
        split += ["test" if part == "eval" else "val" if row[2] == "val" else "train" for row in rows]
    y = np.zeros((len(names), len(classes)), np.int64)
    for row, text in enumerate(labels):
        for label in text.split(","):
            if label not in number:
                raise ValueError(f"{truth} labels {names[row]} as {label[:40]!r}, which vocabulary.csv lacks; unpack the archive again")
            y[row, number[label]] = 1
    return Listed(root, names, y, classes, _codes(split))


def gtzan(root: Path) -> Listed:
    """GENRE/GENRE.NUMBER.wav (or .au); with train_filtered.txt, valid_filtered.txt and test_filtered.txt that split, else ten folds."""
    names = [n for n in _sounds_below(root) if n.count("/") == 1]
    y, classes = _coded([n.split("/")[0] for n in names])
    lists = [next((p for p in (root / f, root.parent / f) if p.is_file()), None) for f in _FILTERED]
    if any(lists) and not all(lists):
        raise ValueError(f"{root} has some of {', '.join(_FILTERED)} and not all; add the others, or remove these")
    if not all(lists):
        return Listed(root, names, y, classes, folds=_drawn_folds(y, 10), notes=("ten folds drawn here, a tenth of each genre in each",))
    # Clips that no list has are faulty: repeated, distorted or of the wrong genre.
    code = {_stem(line): i for i, path in enumerate(lists) if path is not None for line in text_lines(path)}
    return Listed(root, names, y, classes, np.array([code.get(_stem(n), SPLITS.index("none")) for n in names], np.int8))


def spoken_digits(root: Path) -> Listed:
    """DIGIT_SPEAKER_TAKE.wav; takes 0 to 4 test, a fifth of the others, drawn here, validates."""
    fields = [(n, Path(n).stem.split("_")) for n in _sounds_below(root)]
    used = [(n, f) for n, f in fields if len(f) == 3 and f[0].isdecimal() and f[2].isdecimal()]
    y, classes = _coded([f[0] for _, f in used])
    test = np.array([int(f[2]) < 5 for _, f in used], bool)
    val = ~test & (_drawn_order(_TAKES, len(used)) % 5 == 0)
    codes = np.where(test, SPLITS.index("test"), np.where(val, SPLITS.index("val"), 0)).astype(np.int8)
    return Listed(root, [n for n, _ in used], y, classes, codes, groups=_coded([f[1] for _, f in used])[0])


_FILTERED: Final = ("train_filtered.txt", "valid_filtered.txt", "test_filtered.txt")


def _coded(texts: Sequence[str]) -> tuple[Ids, list[str]]:
    """Texts -> (n,) index into the sorted distinct ones, and these."""
    classes = sorted(set(texts))
    index = {c: i for i, c in enumerate(classes)}
    return np.array([index[t] for t in texts], np.int64), classes


def _codes(split: Iterable[Split]) -> Codes:
    return np.array([SPLITS.index(s) for s in split], np.int8)


def _json_object(path: Path) -> dict[str, object]:
    if path.stat().st_size > 2 * LIMIT or not path.is_file():
        raise ValueError(f"{path} is no list of notes; unpack the official archive again")
    try:
        found = parse(path.read_bytes())
    except (ValueError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); unpack the official archive again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no notes; unpack the official archive again")
    return found


def _rows(path: Path) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO("\n".join(text_lines(path)), newline="")) if row]


def _table(path: Path, *wanted: str) -> list[list[str]]:
    """The wanted columns of a CSV, by their names in the first row."""
    rows = _rows(path)
    if not rows or not set(wanted) <= set(rows[0]):
        raise ValueError(f"{path} has no columns {', '.join(wanted)}; unpack the official archive again")
    at = [rows[0].index(name) for name in wanted]
    if short := next((i for i, row in enumerate(rows, 1) if len(row) <= max(at)), None):
        raise ValueError(f"{path} is cut off in row {short:,}; unpack the official archive again")
    return [[row[i] for i in at] for row in rows[1:]]


def _folds(path: Path, texts: Sequence[str]) -> Ids:
    if strange := next((t for t in texts if not t.isdecimal() or len(t) > 3 or int(t) < 1), None):
        raise ValueError(f"{path} has the fold {strange[:20]!r}; unpack the official archive again")
    return np.array([int(t) - 1 for t in texts], np.int64)


def _sounds_below(root: Path) -> list[str]:
    """Every sound below a folder by its name, sorted; FileNotFoundError if there is no folder."""
    os.stat(root)
    found = (Path(folder, name).relative_to(root).as_posix() for folder, _, names in os.walk(root) for name in names)
    return sorted(n for n in found if sniff.sound_promised(n) and "/." not in f"/{n}")


def _by_lists(root: Path, names: Sequence[str]) -> Codes:
    val, test = (set(text_lines(root / f"{part}_list.txt")) for part in ("validation", "testing"))
    return _codes("test" if n in test else "val" if n in val else "train" for n in names)


def _speaker(name: str) -> str:
    return Path(name).stem.partition("_nohash_")[0]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _test_folder(root: Path) -> str:
    """Where the test set of twelve classes lies, relative to the root."""
    for place in ("speech_commands_test_set_v0.02", "../speech_commands_test_set_v0.02", "../test"):
        if (root / place / "_silence_").is_dir():
            return place
    raise FileNotFoundError(2, "missing", str(root.parent / "speech_commands_test_set_v0.02" / "_silence_"))


def _twelfth(name: str) -> str:
    word = name.split("/")[-2]
    return word if word in _COMMANDS else "_silence_" if word in ("_silence_", "_background_noise_") else "_unknown_"


def _seconds_of(path: Path) -> list[tuple[int, int]]:
    """(first frame, frames) of every second that is cut out of a noise, each half a second after the one before."""
    try:
        with EncodedClips(Files(str(path.parent), Names.of([path.name]))).clip(0) as clip:
            return [(start, clip.rate) for start in range(0, clip.frames - clip.rate, clip.rate // 2)]
    except Unreadable as error:
        raise ValueError(f"{path}: {error}; unpack the official archive again") from error


def _with_drawn(root: Path, names: list[str], y: Ids, classes: list[str], speakers: list[str], shares: tuple[float, float]) -> Listed:
    """With the split of splits.csv (file_name, split) where that lies in the root, else one by speakers that is drawn here."""
    groups, known = _coded(speakers)
    path = root / "splits.csv"
    if path.is_file():
        said = {Path(name).name if "/" not in name else name: part for name, part in _table(path, "file_name", "split")}
        codes = np.array([_CODES.get(said.get(n, said.get(Path(n).name, "")), SPLITS.index("none")) for n in names], np.int8)
        return Listed(root, names, y, classes, codes, groups=groups)
    order = _drawn_order(_SPEAKERS, len(known))
    cuts = np.round(np.cumsum(shares) * len(known))
    of_speaker = np.searchsorted(cuts, order, side="right").astype(np.int8)
    note = f"{len(known):,} speakers divided 70 / 10 / 20 % here; put splits.csv (file_name, split) into {root.name}/ for another split"
    return Listed(root, names, y, classes, of_speaker[groups], groups=groups, notes=(note,))


_CODES: Final = {"train": 0, "valid": 1, "val": 1, "validation": 1, "test": 2}


def _drawn_order(purpose: int, n: int) -> Ids:
    """(n,) the place of each in a random order that is the same for everybody."""
    from byol import rng

    order: Ids = np.argsort(rng.permutation(_SEED, purpose, n, stream=rng.STREAM_SPLIT).numpy())
    return order


def _drawn_folds(y: Ids, count: int) -> Ids:
    """(n,) classes -> (n,) folds with the same share of each class."""
    order = np.lexsort((_drawn_order(_FOLDS, len(y)), y))
    folds = np.empty(len(y), np.int64)
    folds[order] = np.arange(len(y)) % count
    return folds


Read: TypeAlias = Callable[[Path], Listed]
