"""Which published numbers belong beside a measured one, and how the two differ, in words.

Only data with a known name has any: a name of `byol list data`, or a folder called so, with as many classes as the set has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from byol.published import Row, rows


@dataclass(frozen=True)
class Set:
    """A data set that published numbers are about."""

    name: str  # as the rows have it
    classes: int
    train: int  # images that the published classifier learned from, with its validation images; 0: not said
    test: int
    called: tuple[str, ...]  # what folders and `byol list data` call it, without signs between


SETS = (
    Set("imagenet", 1000, 0, 0, ("imagenet", "imagenet1k", "ilsvrc", "ilsvrc2012", "ilsvrc12")),
    Set("cifar10", 10, 50_000, 10_000, ("cifar10",)),
    Set("cifar100", 100, 50_000, 10_000, ("cifar100",)),
    Set("food101", 101, 75_750, 25_250, ("food101",)),
    Set("birdsnap", 500, 47_386, 2_443, ("birdsnap",)),
    Set("sun397", 397, 19_850, 19_850, ("sun397",)),
    Set("cars", 196, 8_144, 8_041, ("stanfordcars", "cars196")),
    Set("aircraft", 100, 6_667, 3_333, ("fgvcaircraft",)),
    Set("dtd", 47, 3_760, 1_880, ("dtd",)),
    Set("pets", 37, 3_680, 3_669, ("oxfordiiitpet", "oxfordpets", "oxfordiiitpets")),
    Set("caltech101", 101, 3_060, 6_084, ("caltech101",)),
    Set("flowers102", 102, 2_040, 6_149, ("flowers102", "oxfordflowers102")),
    Set("places365", 365, 1_803_460, 36_500, ("places365",)),
    Set("stl10", 10, 0, 0, ("stl10",)),
    Set(
        "imagenette", 10, 9_469, 3_925, ("imagenette", "imagenette2", "imagenette160", "imagenette320", "imagenette2160", "imagenette2320")
    ),
)
SOUND_SETS = (
    Set("nsynth", 11, 0, 0, ("nsynth",)),
    Set("urbansound8k", 10, 0, 0, ("urbansound8k", "us8k")),
    Set("voxceleb1", 1211, 0, 0, ("voxceleb1", "vc1")),
    Set("voxforge", 6, 0, 0, ("voxforge",)),
    Set("speech-commands-12", 12, 0, 0, ("speechcommands", "speechcommandsv2", "spcv2")),
    Set("speech-commands-35", 35, 94_824, 11_005, ("speechcommands", "speechcommandsv2", "spcv2")),
    Set("esc50", 50, 0, 0, ("esc50",)),
    Set("crema-d", 6, 0, 0, ("cremad",)),
    Set("gtzan", 10, 0, 0, ("gtzan",)),
)
DENSE_SETS = (
    Set("voc2012", 21, 10_582, 1_449, ("voc2012", "pascalvoc2012", "voctrainval2012")),
    Set("voc2007-detection", 20, 5_011, 4_952, ("voc2007", "pascalvoc2007")),
    Set("nyu-v2", 0, 795, 654, ("nyu", "nyuv2", "nyudepthv2", "nyudepthv2labeledmat")),
)
_DENSE_TABLES = {"segmentation": "voc2012", "detection": "voc2007-detection", "depth": "nyu-v2"}  # the data of each
# Tables by the first word of a measured protocol.
_TABLES = {
    "knn": ("knn",),
    "linear": ("linear", "transfer-linear", "norm", "online"),
    "transfer": ("transfer-linear",),
    "semi": ("semi",),
    "finetune": ("transfer-finetune", "semi"),
    "sound": ("sound-linear",),
    "evar": ("evar-linear",),
}
_METHODS = (
    "BYOL",
    "SimCLR",
    "SimCLR (repro)",
    "Supervised",
    "BYOL-A",
    "BYOL-A v2",
    "COLA'",
)  # no more: a line for scale, not a leader board
_NETWORKS = ("resnet50", "resnet18", "byol-a-v1-d2048", "2048 features", "byol-a-v2")


@dataclass(frozen=True)
class Beside:
    """Published rows of one table, for one measured protocol on one data set."""

    rows: list[Row]
    differences: str  # what was otherwise there, in words

    @property
    def source(self) -> str:
        """Where they were published."""
        return "; ".join(dict.fromkeys(r.source for r in self.rows))


def said(r: Row) -> str:
    """'91.3  BYOL, resnet50, 1000 epochs on imagenet'."""
    share = f", {100 * r.labels:g} % of the labels" if r.labels < 1 else ""
    how = f", {r.epochs} epochs on {r.trained_on}" if r.epochs else f", trained on {r.trained_on}" if r.trained_on else ""
    setting = f", {r.setting}" if r.setting and r.table != "norm" else ""  # of that one only BYOL as it is stands beside anything
    return f"{r.value:.1f}  {r.method}, {r.network}{how}{share}{setting}{'' if r.verified else ', unverified'}"


def by_method(group: Beside) -> list[str]:
    """'BYOL resnet50: <1.25 84.6, rms 0.541': a method with all its metrics, for tables that have several."""
    methods = groupby(group.rows, key=lambda r: (r.method, r.network))
    return [f"{method} {network}: " + ", ".join(f"{r.metric} {r.value:g}" for r in found) for (method, network), found in methods]


def recognised(data: str, classes: int, sets: Sequence[Set] = SETS) -> Set | None:
    """The set that a DATA names, by its own name or by that of a folder in its path, if it has as many classes; else None."""
    words = [re.sub(r"[^a-z0-9]", "", part) for part in re.split(r"[/\\:]", data.lower())]
    return next((s for s in sets if s.classes == classes and any(w in s.called for w in words)), None)


def beside_dense(data: str, classes: int, protocol: str, *, train: int, test: int) -> Beside | None:
    """The published rows that segmentation, detection or depth on this data can be read beside; `classes` 0 for depth."""
    known = recognised(data, classes, DENSE_SETS)
    if known is None or _DENSE_TABLES.get(protocol) != known.name:
        return None
    found = rows(table=protocol, data=known.name)
    notes = list(dict.fromkeys(r.note for r in found if r.note))
    return Beside(found, "; ".join([_differences(found[0], known, train, test), *notes]))


def beside(data: str, classes: int, protocol: str, shares: list[float], *, train: int, test: int) -> list[Beside]:
    """The published rows that a measured protocol can be read beside, table by table; none where nothing belongs.

    `data` as the user named it; `shares` of the labels that were measured; `train` and `test` images.
    """
    known = recognised(data, classes, (*SETS, *SOUND_SETS))
    tables = _TABLES.get(re.split(r"[-:]", protocol)[0], ()) if known else ()
    groups = []
    for table in tables:
        found = [r for r in rows(table=table, data=known.name) if _belongs(r, shares)] if known else []
        if found and known:
            groups.append(Beside(found, _differences(found[0], known, train, test)))
    return groups


def _belongs(r: Row, shares: list[float]) -> bool:
    """The usual networks and methods at the measured shares; settings of ablations are beside `byol ablate`."""
    usual = r.method in _METHODS and r.network in _NETWORKS and r.labels in shares
    plain = r.table in ("linear", "knn", "online") or r.setting in ("", "head_norm=batch predictor_norm=batch")
    return usual and plain and r.metric != "top-5" and not r.metric.startswith("cosine")


def _differences(r: Row, known: Set, train: int, test: int) -> str:
    """What was otherwise: encoder and its data always, the classifier, and the images where they are not the published ones."""
    parts = ["other encoders, training data and epochs", f"protocol: {r.protocol}"]
    if r.metric != "top-1" and r.table not in _DENSE_TABLES:  # there every number has its metric beside it
        parts.append(f"the number is {r.metric}")
    if known.test and (train, test) != (known.train, known.test):
        parts.append(f"{known.train:,} train / {known.test:,} test images there")
    if r.note.startswith("another implementation"):
        parts.append(r.note)
    return "; ".join(parts)
