"""A folder with sequences of colour and depth -> a source of frames: colours and points in space, with poses where they are known."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from byol.data.compact import Names, narrow
from byol.data.decode import coerce, decode, file_error
from byol.data.encoded import Files, Looked, look
from byol.data.patience import Patience, Waited
from byol.data.rgbd_camera import Camera, camera_of, sample, scaled
from byol.data.rgbd_layouts import Sequence, holds_frames, sequences
from byol.data.source import Headers, Ids, Kind, Pixels, Progress, Rows, Source, Unreadable

SIDE: Final = 128  # pixels of a frame as it is read, in BYOC
CHANNELS: Final = 6  # red, green, blue; x, y, z


def is_rgbd(path: Path) -> bool:
    """True for a folder with a picture of 16-bit depth beside one of colour, in a layout of `rgbd_layouts`."""
    return path.is_dir() and holds_frames(path)


@dataclass(frozen=True)
class RgbdReader:
    """Reads frames as squares of colours and points; waits for what may come back (see `patience`)."""

    colours: Files
    depths: Files
    cameras: tuple[Camera, ...]
    which: npt.NDArray[np.integer]  # (N,) index into `cameras`
    side: int
    patience: Patience = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", Patience(self.colours.folder))

    def read(self, index: int, shrink: int = 1) -> Pixels:
        camera, side = self.cameras[self.which[index]], -(-self.side // shrink)
        depth = self._decoded(self.depths, index, "depth")
        if depth.shape[2] != 1 or depth.dtype != np.uint16:
            raise Unreadable("depth that is not 16-bit grey")
        colour = self._decoded(self.colours, index, "colour")
        if colour.dtype != np.uint8 or colour.shape[2] not in (1, 3):
            raise Unreadable("colour that is not of 8 bit")
        return sample(coerce(colour, 3, "uint8"), depth[..., 0], camera, side)  # type: ignore[arg-type]  # checked above

    def waited(self) -> list[Waited]:
        """What had to be waited for since this was asked last."""
        return self.patience.waited()

    def _decoded(self, files: Files, index: int, what: str) -> Pixels:
        try:
            return decode(self.patience.read(files.names[index], files.place(index), lambda: files.load(index)))
        except OSError as error:
            raise Unreadable(f"its {what}: {file_error(error)}") from error
        except Unreadable as error:
            raise Unreadable(f"its {what}: {error}") from error


def open_rgbd(spec: str, root: Path, *, side: int = SIDE, limit: int | None = None, progress: Progress | None = None) -> Source:
    """The frames of all sequences below a folder -> their source, in the order of sequences and of time; ValueError in one sentence.

    `groups` are sequences, `times` numbers of frames, `poses` camera to world, NaN where a pose is not known. A frame is read as
    (side, side, 6): see `rgbd_camera.sample`. Headers are read, pictures are not decoded. `limit` keeps the first frames of each
    sequence, so that frames some way apart are still there.
    """
    found = sequences(root)
    frames = [(number, frame) for number, one in enumerate(found) for frame in one.frames]
    skipped = [s for one in found for s in one.skipped]
    if not frames:
        first = f" (first: {skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise ValueError(f"{spec} holds no frame with colour and depth{first}; give a folder in the layout of 7-Scenes, TUM or ScanNet")
    groups = np.array([number for number, _ in frames])
    names = [f"{found[number].folder}{frame.name}" for number, frame in frames]
    colours, depths = (Files(str(root), Names.of(paths)) for paths in ((f.colour for _, f in frames), (f.depth for _, f in frames)))
    of_colour, of_depth = look(colours, progress), look(depths, progress)
    bad = _bad(of_colour, of_depth)
    used = np.array([i for i in range(len(frames)) if i not in bad], np.int64)
    if not len(used):
        raise ValueError(f"{spec} holds {len(frames):,} frames and none of them can be read (first: {names[0]}: {bad[0]})")
    cameras, notes = _cameras(root, found, groups, used, of_colour.headers, of_depth.headers)
    reader = RgbdReader(colours, depths, cameras, narrow(groups), side)
    poses = np.full((len(frames), 4, 4), np.nan)
    for i, (_, frame) in enumerate(frames):
        if frame.pose is not None:
            poses[i] = frame.pose
    source = Source(
        spec=spec,
        names=Names.of(names),
        reader=reader,
        channels=CHANNELS,
        dtype="float32",
        labels=None,
        classes=[],
        skipped=skipped,
        kind="folder",
        headers=_headers(of_colour.headers, of_depth.headers, side),
        notes=(),
        groups=groups,
        times=np.array([frame.number for _, frame in frames]),
        poses=poses,
        modality="rgbd",
    ).without(bad)
    source = replace(source, notes=(_told(found, source), *notes))
    return source if limit is None or limit >= len(source) else first_frames(source, limit)


def first_frames(source: Source, limit: int) -> Source:
    """At most `limit` frames, the first of each sequence."""
    if limit < 1:
        raise ValueError(f"a limit of {limit} frames leaves nothing; give 1 or more")
    assert source.groups is not None
    _, starts, numbers = np.unique(source.groups, return_index=True, return_inverse=True)
    place = np.arange(len(source)) - starts[numbers]  # in its sequence
    rows = np.sort(np.lexsort((numbers, place))[:limit])
    note = f"{len(rows):,} of {len(source):,} frames, the first of each sequence: so others that are some frames apart stay"
    return replace(source.subset(rows), notes=(*source.notes, note))


def intrinsics(source: Source, size: int = SIDE) -> npt.NDArray[np.float64]:
    """(N, 3, 3) cameras of frames that are squeezed to `size` pixels; the middle of the first pixel is 0, 0.

    A point lies within half a pixel of where this projects it, as it is that of a pixel of the larger picture.
    """
    sliced = source.reader if isinstance(source.reader, Rows) else Rows(source.reader, np.arange(len(source)))
    reader = sliced.reader
    assert isinstance(reader, RgbdReader)
    found = np.tile(np.eye(3), (len(reader.cameras), 1, 1))
    for matrix, camera in zip(found, reader.cameras, strict=True):
        matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2] = scaled(camera.focal, camera.size, (size, size))
    own: npt.NDArray[np.float64] = found[reader.which[sliced.rows]]
    return own


def _bad(colour: Looked, depth: Looked) -> dict[int, str]:
    """{index: reason} of the frames that cannot be used, by the headers of their pictures."""
    kinds = depth.headers.kinds
    bad: dict[int, str] = {}
    for i, (c, d) in enumerate(zip(colour.headers.kind.tolist(), depth.headers.kind.tolist(), strict=True)):
        for what, looked, kind in (("colour", colour, c), ("depth", depth, d)):
            if kind < 0 and i not in bad:
                bad[i] = f"its {what}: {looked.bad.get(i, 'no image')}"
        if i not in bad and kinds[d].dtype != "uint16":
            bad[i] = f"its depth: {kinds[d].dtype} {kinds[d].colour}, where 16-bit grey is needed"
    return bad


def _cameras(
    root: Path, found: list[Sequence], groups: Ids, used: Ids, colour: Headers, depth: Headers
) -> tuple[tuple[Camera, ...], list[str]]:
    """Of each sequence, by the size that most of its pictures have; and what was assumed."""
    cameras, said = [], []
    for number, one in enumerate(found):
        rows = used[groups[used] == number]
        if not len(rows):  # nothing of it is read
            cameras.append(Camera((1.0, 1.0, 0.0, 0.0), (1, 1), one.unit))
            continue
        sizes = [Counter(zip(h.width[rows].tolist(), h.height[rows].tolist(), strict=True)).most_common(1)[0][0] for h in (depth, colour)]
        camera, note = camera_of(root, one.folder, one.layout, one.unit, *sizes)
        cameras.append(camera)
        said.append(note)
    return tuple(cameras), [note for note in dict.fromkeys(said) if note]


def _headers(colour: Headers, depth: Headers, side: int) -> Headers:
    """Of frames as they are read; their kind says how they are stored."""
    n = len(colour)
    kinds: dict[Kind, int] = {}
    kind = np.zeros(n, np.int32)
    for i in range(n):
        sizes = [f"{h.width[i]}x{h.height[i]}" for h in (colour, depth)]
        formats = [h.kinds[h.kind[i]].format if h.kind[i] >= 0 else "none" for h in (colour, depth)]
        stored = Kind(" + ".join(formats), sizes[0] if sizes[0] == sizes[1] else f"{sizes[0]} + {sizes[1]}", CHANNELS, "float32")
        kind[i] = kinds.setdefault(stored, len(kinds))
    sides = np.full(n, side, np.int32)
    return Headers(sides, sides, colour.nbytes.astype(np.int64) + depth.nbytes, narrow(kind), tuple(kinds))


def _told(found: list[Sequence], source: Source) -> str:
    layouts = Counter(one.layout for one in found if one.frames)
    how = ", ".join(layouts)
    many = sum(layouts.values())
    assert source.poses is not None
    unknown = int(np.isnan(source.poses[:, 0, 0]).sum())
    poses = (
        "poses known" if not unknown else "poses not known" if unknown == len(source) else f"{unknown:,} of {len(source):,} poses not known"
    )
    return f"colour and depth in {many:,} sequence{'s' * (many != 1)} (layout: {how}), {poses}"
