"""The files that official data sets are annotated with, as data: text, VOC's XML, MATLAB's .mat; nothing in them runs or expands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.parsers import expat

import numpy as np
import numpy.typing as npt

_TEXT: Final = 64 << 20  # bytes; the largest official list has 24 MB
_XML: Final = 1 << 20
_MAT: Final = 4 << 20
_DEEP: Final = 100  # elements within each other; VOC has 4


def text_lines(path: Path) -> list[str]:
    """The lines that are not empty, without the white space at their ends; FileNotFoundError if there is no file."""
    try:
        lines = _content(path, _TEXT).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start:,}); take the list of the official archive") from None
    return [line.strip() for line in lines if line.strip()]


def inside(path: Path, names: Sequence[str]) -> list[str]:
    """The names as they are; ValueError for one that leads out of the folder of the images. `path` is the list they are from."""
    for name in names:
        if name.startswith(("/", "\\\\")) or ".." in name.split("/") or not name.isprintable():
            raise ValueError(
                f"{path} lists {name[:80]!r}, which is not below the folder of the images; take the list of the official archive"
            )
    return list(names)


def voc_objects(path: Path) -> list[tuple[str, bool]]:
    """[(class, difficult)] of the objects that an annotation of PASCAL VOC lists; a document type or an entity is refused."""
    found: list[tuple[str, bool]] = []
    where: list[str] = []
    texts: dict[str, str] = {}

    def start(name: str, attributes: object) -> None:
        where.append(name)
        if len(where) > _DEEP:
            raise ValueError(f"{path} is nested too deeply; take the annotations of the official archive")
        if where == ["annotation", "object"]:
            texts.clear()

    def text(data: str) -> None:
        # An object has parts, which have names of their own: those are a level deeper.
        if where[:-1] == ["annotation", "object"]:
            texts[where[-1]] = texts.get(where[-1], "") + data

    def end(name: str) -> None:
        if where == ["annotation", "object"]:
            found.append((texts.get("name", "").strip(), texts.get("difficult", "0").strip() == "1"))
        where.pop()

    def refuse(*_: object) -> None:
        raise ValueError(f"{path} declares a document type, which annotations of VOC do not; take those of the official archive")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.CharacterDataHandler, parser.EndElementHandler = start, text, end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(_content(path, _XML), True)
    except expat.ExpatError as error:
        raise ValueError(f"{path} is damaged or no XML ({error}); unpack the official archive again") from None
    return found


def mat(path: Path, name: str) -> npt.NDArray[np.generic]:
    """One variable of a MATLAB file, squeezed; structures become arrays with fields. FileNotFoundError if there is no file."""
    from io import BytesIO

    from scipy.io import loadmat

    content = _content(path, _MAT)
    try:
        return np.asarray(loadmat(BytesIO(content), squeeze_me=True, variable_names=[name])[name])
    except Exception as error:  # scipy raises nearly every type of exception on damaged bytes
        raise ValueError(f"{path} holds no {name} or is damaged ({str(error)[:80]}); unpack the official archive again") from None


def _content(path: Path, limit: int) -> bytes:
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file; unpack the official archive again")  # opening a pipe would wait for ever
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{path} has more than {limit:,} bytes, which the official one has not; unpack the official archive again")
    return content
