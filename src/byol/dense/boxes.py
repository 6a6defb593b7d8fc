"""Images with labelled boxes: VOC's XML files and COCO's JSON. No document type, no entity, no path out of the folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from byol.data import shown
from byol.dense.pictures import listed_in
from byol.stored import parse

LARGEST: Final = 16 << 20  # bytes of an XML file
_COCO = "_annotations.coco.json"  # where annotations lie beside the images


@dataclass(frozen=True)
class Labelled:
    """One image and its boxes."""

    image: Path
    boxes: NDArray[np.float32]  # (n, 4) left, top, right, bottom in pixels, the right and lower edges outside
    classes: tuple[str, ...]  # (n,)
    ignored: NDArray[np.bool_]  # (n,) difficult (VOC) or a crowd (COCO): not learnt from, and neither right nor wrong when found


@dataclass(frozen=True)
class Images:
    """Training and test images with boxes."""

    train: list[Labelled]
    test: list[Labelled]
    how: str  # where the test images come from


def open_images(data: str, test: str | None) -> Images:
    """VOC's or COCO's folders; ValueError for any other."""
    root = Path(data)
    if test is not None:
        return Images(_part(root, _TRAIN), _part(Path(test), _TEST), f"--test {shown(test)}")
    if (root / "Annotations").is_dir():
        lists = root / "ImageSets" / "Main"
        if not any((lists / f"{name}.txt").is_file() for name in _TEST):
            every = _voc(root, None)
            cut = len(every) - max(1, len(every) // 5)
            return Images(every[:cut], every[cut:], "the last fifth of DATA, by name")
    return Images(_part(root, _TRAIN), _part(root, _TEST), "the data set's own split")


_TRAIN, _TEST = ("trainval", "train"), ("test", "val", "valid")
_LAYOUTS = (
    "give VOC's folder with Annotations/, JPEGImages/ and ImageSets/Main/, COCO's with annotations/instances_train*.json and "
    f"instances_val*.json, or train/ and test/ with {_COCO} beside the images"
)


def _part(root: Path, names: tuple[str, ...]) -> list[Labelled]:
    """The first of these parts that the folder has, or all of it where it has no parts."""
    if (root / "Annotations").is_dir():
        found = next((n for n in names if (root / "ImageSets" / "Main" / f"{n}.txt").is_file()), None)
        return _voc(root, found)
    for name in names:
        for path in (root / name / _COCO, *sorted((root / "annotations").glob(f"instances_{name}*.json"))):
            if path.is_file():
                part = path.stem.removeprefix("instances_")
                folders = (path.parent if path.name == _COCO else root / part, root / "images" / part, root / "images")
                return read_coco(path, next((f for f in folders if f.is_dir()), root))
    if (root / _COCO).is_file():
        return read_coco(root / _COCO, root)
    raise ValueError(f"{shown(str(root))} has no boxes to learn from; {_LAYOUTS}")


def _voc(root: Path, part: str | None) -> list[Labelled]:
    """The images of a list in ImageSets/Main, or all that have an XML file."""
    files = {p.stem: p for p in sorted((root / "JPEGImages").glob("*"))} if (root / "JPEGImages").is_dir() else {}
    names = listed_in(root / "ImageSets" / "Main" / f"{part}.txt") if part else sorted(p.stem for p in (root / "Annotations").glob("*.xml"))
    if missing := [n for n in names if n not in files]:
        raise ValueError(f"{shown(str(root))} has no image {shown(missing[0])} in JPEGImages/; add it, or take its name off the list")
    if len(names) < 2:
        raise ValueError(f"{shown(str(root))} has {len(names)} annotated image(s); give two or more")
    return [read_voc(root / "Annotations" / f"{n}.xml", files[n]) for n in names]


def read_voc(path: Path, image: Path) -> Labelled:
    """The boxes of one XML file, whose pixels count from 1 and whose right and lower edges are inside the box."""
    boxes: list[tuple[float, ...]] = []
    classes, ignored = [], []
    for item in _tree(path).iter("object"):
        name, box = item.findtext("name"), item.find("bndbox")
        try:
            corners = [float(box.findtext(k) or "") for k in ("xmin", "ymin", "xmax", "ymax")] if box is not None else []
            boxes.append((corners[0] - 1, corners[1] - 1, corners[2], corners[3]))
        except (ValueError, IndexError):
            raise ValueError(f"{shown(str(path))} has an object without xmin, ymin, xmax and ymax; mend it, or take it away") from None
        classes.append((name or "").strip())
        ignored.append((item.findtext("difficult") or "0").strip() == "1")
    return _labelled(path, image, boxes, classes, ignored)


def read_coco(path: Path, folder: Path) -> list[Labelled]:
    """The images of a JSON file with their boxes, by image number; images without boxes too."""
    try:
        content = parse(path.read_bytes())
        assert isinstance(content, dict)
        names = {c["id"]: str(c["name"]) for c in content["categories"]}
        images = {i["id"]: str(i["file_name"]) for i in content["images"]}
        boxes: dict[object, list[tuple[float, ...]]] = {i: [] for i in images}
        classes: dict[object, list[str]] = {i: [] for i in images}
        ignored: dict[object, list[bool]] = {i: [] for i in images}
        for a in content["annotations"]:
            x, y, w, h = (float(v) for v in a["bbox"])
            boxes[a["image_id"]].append((x, y, x + w, y + h))
            classes[a["image_id"]].append(names[a["category_id"]])
            ignored[a["image_id"]].append(bool(a.get("iscrowd", 0)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {error}"[:80]
        raise ValueError(
            f"{shown(str(path))} is not COCO's JSON of boxes ({reason}); give one with images, annotations, categories"
        ) from None
    for name in images.values():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{shown(str(path))} names the image {shown(name)}, outside its folder; give names inside it")
    return [_labelled(path, folder / images[i], boxes[i], classes[i], ignored[i]) for i in sorted(images, key=str)]


def _labelled(path: Path, image: Path, boxes: Sequence[tuple[float, ...]], classes: list[str], ignored: list[bool]) -> Labelled:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    if not np.isfinite(array).all() or "" in classes:
        raise ValueError(f"{shown(str(path))} has a box without a class, or whose corners are no numbers; mend it, or take it away")
    # Boxes of no area teach nothing and cannot be found.
    kept = (array[:, 2] > array[:, 0]) & (array[:, 3] > array[:, 1])
    return Labelled(image, array[kept], tuple(c for c, k in zip(classes, kept, strict=True) if k), np.array(ignored, bool)[kept])


def _tree(path: Path) -> Element:
    """An XML file as a tree; ValueError for one that declares a document type, which is how entities come in."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"{shown(str(path))} cannot be read ({(error.strerror or 'unknown error').lower()})") from None
    if len(text) > LARGEST:
        raise ValueError(f"{shown(str(path))} has more than {LARGEST:,} bytes; give a file for each image")
    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse(path)
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"{shown(str(path))} is damaged XML ({error}); mend it, or take it away") from None
    root: Element = builder.close()
    return root


def _refuse(path: Path) -> Callable[..., None]:
    def doctype(*_: object) -> None:
        raise ValueError(f"{shown(str(path))} declares a document type, which may hold entities; take the <!DOCTYPE ...> out")

    return doctype
