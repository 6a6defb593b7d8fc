"""Which frames of colour and depth lie below a folder: 7-Scenes, TUM, exports of ScanNet, or color/ beside depth/.

A sequence is a folder with frame-N.color.png beside frame-N.depth.png, or with color/ (or rgb/) beside depth/; depth is 16-bit PNG.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from byol.data.compact import bytewise
from byol.data.rgbd_texts import Matrix, associated, nearest, read_listing, read_matrix, read_trajectory
from byol.data.source import Skipped

COLOURS: Final = ("color", "colour", "rgb")
POSES: Final = ("pose", "poses")
_DEEP: Final = 4  # levels of folders
_LOOKED: Final = 5_000  # entries that are looked at to tell frames from images
_TRIED: Final = 5  # pictures of depth that are looked at
_PAIR: Final = re.compile(r"(.+)\.(?:color|colour|rgb)\.(?:png|jpe?g|webp)", re.IGNORECASE)  # frame-000000.color.png
_NUMBER: Final = re.compile(r"(\d+)\D*$")


class Frame(NamedTuple):
    """A picture of colour and one of depth at the same moment."""

    name: str  # within its sequence
    number: int
    colour: str  # relative to the root
    depth: str
    pose: Matrix | None  # (4, 4) camera to world, metres


@dataclass
class Sequence:
    """The frames of a folder in the order of their numbers."""

    folder: str  # relative to the root, with "/" behind it; "" for the root
    layout: str
    frames: list[Frame] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)  # colours without depth
    unit: float = 1e-3  # metres of a step of depth


class _Folder(NamedTuple):
    path: str  # relative, with "/" behind it; "" for the root
    files: list[str]
    dirs: list[str]
    layout: str  # "" where it is no sequence


def holds_frames(root: Path) -> bool:
    """True for a folder with a sequence in it, as far as its first few thousand entries show."""
    left = _LOOKED
    for folder in _folders(root, most=_LOOKED):
        left -= len(folder.files) + len(folder.dirs)
        if folder.layout or left <= 0:
            return bool(folder.layout)
    return False


def sequences(root: Path) -> list[Sequence]:
    """All sequences below a folder, at most 4 levels deep, in the order of their names."""
    found = [folder for folder in _folders(root) if folder.layout]
    return [_READ[folder.layout](root, folder) for folder in sorted(found, key=lambda f: bytewise(f.path))]


def _folders(root: Path, most: int | None = None) -> Iterator[_Folder]:
    """Folders from the top, level by level, with at most so many entries of each; what is in a sequence is not gone into."""
    level = [""]
    for _ in range(_DEEP):
        below: list[str] = []
        for path in level:
            try:
                with os.scandir(root / path) as listed:
                    entries = [(e.name, e.is_dir()) for e in islice(listed, most) if not e.name.startswith(".")]
            except OSError:  # opening the data says so
                continue
            files, dirs = ([name for name, is_dir in entries if is_dir is wanted] for wanted in (False, True))
            folder = _Folder(path, files, dirs, _layout(root / path, files, dirs))
            yield folder
            below += [] if folder.layout else [f"{path}{name}/" for name in dirs]
        level = below


def _layout(folder: Path, files: list[str], dirs: list[str]) -> str:
    if "depth" in dirs and _one_of(COLOURS, dirs) and _any_deep(_first_files(folder / "depth")):
        if {"rgb.txt", "depth.txt"} <= set(files):
            return "TUM"
        return "ScanNet" if "intrinsic" in dirs else "color/ and depth/"
    pairs = islice((found[1] for name in files if (found := _PAIR.fullmatch(name))), _TRIED)
    return "7-Scenes" if _any_deep([folder / f"{stem}.depth.png" for stem in pairs]) else ""


def _first_files(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as listed:
            return [folder / entry.name for entry in islice(listed, _TRIED)]
    except OSError:
        return []


def _any_deep(files: list[Path]) -> bool:
    """Whether one of the files is a PNG of 16-bit grey, by its header."""
    return any(map(_deep, files))


def _deep(file: Path) -> bool:
    try:
        if not file.is_file():  # opening a pipe would wait for ever
            return False
        with file.open("rb") as opened:
            head = opened.read(26)
    except OSError:
        return False
    return head.startswith(b"\x89PNG\r\n\x1a\n") and head[24:26] == b"\x10\x00"


def _one_of(wanted: tuple[str, ...], there: list[str]) -> str:
    return next((name for name in wanted if name in there), "")


def _pairs(root: Path, folder: _Folder) -> Sequence:
    """frame-000000.color.png, .depth.png, .pose.txt."""
    out, files = Sequence(folder.path, folder.layout), set(folder.files)
    for name in files:
        if found := _PAIR.fullmatch(name):
            depth = f"{found[1]}.depth.png"
            pose = read_matrix(root / folder.path / f"{found[1]}.pose.txt", 4) if f"{found[1]}.pose.txt" in files else None
            _add(out, _short(found[1]), f"{folder.path}{name}", f"{folder.path}{depth}" if depth in files else "", pose)
    return _in_order(out)


def _beside(root: Path, folder: _Folder) -> Sequence:
    """color/N.jpg, depth/N.png, pose/N.txt; without depth/N.png any of the same name."""
    out = Sequence(folder.path, folder.layout)
    colour, poses = _one_of(COLOURS, folder.dirs), _one_of(POSES, folder.dirs)
    depths, texts = _stems(root / folder.path / "depth"), _stems(root / folder.path / poses) if poses else {}
    for stem, name in _stems(root / folder.path / colour).items():
        pose = read_matrix(root / folder.path / poses / texts[stem], 4) if stem in texts else None
        depth = f"{folder.path}depth/{depths[stem]}" if stem in depths else ""
        _add(out, _short(stem), f"{folder.path}{colour}/{name}", depth, pose)
    return _in_order(out)


def _stems(folder: Path) -> dict[str, str]:
    """{name without its ending: name} of the files of a folder."""
    try:
        names = sorted(os.listdir(folder), key=bytewise)
    except OSError:
        return {}
    return {name.rpartition(".")[0]: name for name in names if "." in name[1:] and not name.startswith(".")}


def _short(stem: str) -> str:
    return stem.removeprefix("frame-") or stem


def _add(out: Sequence, name: str, colour: str, depth: str, pose: Matrix | None) -> None:
    if not depth:
        out.skipped.append(Skipped(colour, "no depth of that name"))
        return
    found = _NUMBER.search(name)
    out.frames.append(Frame(name, int(found[1][-15:]) if found else -1, colour, depth, pose))


def _in_order(out: Sequence) -> Sequence:
    """By number; where numbers are missing or come twice they are counted anew."""
    out.frames.sort(key=lambda f: (f.number, bytewise(f.name)))
    out.skipped.sort(key=lambda s: bytewise(s.name))
    numbers = [f.number for f in out.frames]
    if -1 in numbers or len(set(numbers)) < len(numbers):
        out.frames = [f._replace(number=n) for n, f in enumerate(out.frames)]
    return out


def _tum(root: Path, folder: _Folder) -> Sequence:
    """rgb.txt and depth.txt (seconds, file) put together by their times, and groundtruth.txt; the number is the line of rgb.txt."""
    out, at = Sequence(folder.path, folder.layout, unit=1 / 5000), root / folder.path
    colours, depths = read_listing(at / "rgb.txt"), read_listing(at / "depth.txt")
    with_depth = associated([c.seconds for c in colours], [d.seconds for d in depths])
    truth = read_trajectory(at / "groundtruth.txt") if "groundtruth.txt" in folder.files else []
    poses = nearest([c.seconds for c in colours], [t.seconds for t in truth])
    for number, one in enumerate(colours):
        if number not in with_depth:
            out.skipped.append(Skipped(f"{folder.path}{one.file}", "no depth within 0.02 s"))
            continue
        depth = f"{folder.path}{depths[with_depth[number]].file}"
        pose = truth[poses[number]].pose if number in poses else None
        out.frames.append(Frame(f"{number:04d}", number, f"{folder.path}{one.file}", depth, pose))
    return out


_READ: Final = {"7-Scenes": _pairs, "TUM": _tum, "ScanNet": _beside, "color/ and depth/": _beside}
