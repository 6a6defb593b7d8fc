"""The protocols by name, with settings of one's own after a colon: `knn:k=5,temperature=none`, `semi:lrs=0.01/0.1,list=names.txt`."""

from __future__ import annotations

from byol import asked
from byol.data import Source
from byol.evaluation.decoding import Reach, State
from byol.evaluation.finetune import FineTune
from byol.evaluation.knn import Knn
from byol.evaluation.linear import Linear
from byol.evaluation.linear_sgd import LinearSgd
from byol.evaluation.metrics import DIRECTIONS
from byol.evaluation.probe import Probe
from byol.evaluation.semi import Semi
from byol.evaluation.sound import EvarLinear, SoundLinear
from byol.evaluation.transfer import Transfer

_KINDS: dict[str, type[Knn | Linear | LinearSgd | Semi | FineTune | Transfer | Reach | State | SoundLinear | EvarLinear]] = {
    "knn": Knn,
    "linear": Linear,
    "linear-sgd": LinearSgd,
    "semi": Semi,
    "finetune": FineTune,
    "transfer": Transfer,
    "reach": Reach,
    "state": State,
    "sound-linear": SoundLinear,
    "evar-linear": EvarLinear,
}


def names() -> list[str]:
    """What `load` knows."""
    return list(_KINDS)


def describe(name: str) -> str:
    """A protocol and its default settings, in a few words."""
    return load(name).describe()


def load(text: str) -> Probe:
    """`NAME` or `NAME:KEY=VALUE,...` -> the protocol; ValueError for what is not there."""
    return asked.read(text, _KINDS, "protocol")


def suggested(source: Source) -> str:
    """The protocol that says most of these data: of a recording `reach` for the 8 directions of its trials, else `state`; "" for images."""
    if source.modality != "recording":
        return ""
    return "reach" if source.groups is not None and len(source.classes) == DIRECTIONS else "state"
