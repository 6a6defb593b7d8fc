"""What can be varied: the paper's ablations by name, each a list of settings beside what was published for them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from itertools import product

from byol import methods, published, recipes
from byol.config import Request
from byol.data import Modality
from byol.published import Row


@dataclass(frozen=True, kw_only=True)
class Study:
    """One ablation. A setting is pairs as `byol train --set` takes them, with a space between, or a word of `words`.

    `method=NAME` is another method; `encoder=+gn` is a suffix of the encoder that all runs have in common.
    """

    name: str
    what: str
    values: tuple[str, ...]  # the paper's, as far as they can be made here
    words: dict[str, str] = field(default_factory=dict)  # names of settings -> their pairs
    base: tuple[str, ...] = ()  # pairs of every setting, before its own
    theirs: dict[str, str] = field(default_factory=dict)  # settings -> the method they were published for, where it is another
    note: str = ""  # what is otherwise than in the paper
    modality: Modality | None = None  # the kind of data that it is of; None: any
    of_methods: bool = False  # its settings are methods, which differ in cost: ranked by what they reach, those that do not fit left out

    @property
    def key(self) -> str | None:
        """The one setting that is varied; None where several are."""
        keys = {pair.partition("=")[0] for v in self.values for pair in v.split()}
        return self.name if keys == {self.name} else None

    @property
    def table(self) -> str:
        """The published one."""
        return "linear" if self.of_methods else "sound-ablation" if self.modality == "sound" else self.name

    def pairs(self, value: str) -> tuple[str, ...]:
        """The settings of a run, as `--set` takes them."""
        return (*self.base, *self.words.get(value, value).split())

    def changes(self, value: str, request: Request) -> Request:
        """What is asked of a run of this setting, which goes over everything else."""
        pairs = self.pairs(value)
        method = [p.partition("=")[2] for p in pairs if p.startswith("method=")]
        others = tuple(p for p in pairs if not p.startswith("method="))
        return replace(request, method=method[-1] if method else request.method, set=(*request.set, *others))

    def setting(self, text: str) -> str:
        """A value as the user wrote it -> as the study has it: 0.9 -> tau_base=0.9; ValueError for what is none."""
        if text in self.values or text in self.words:
            return text
        if self.key and "=" not in text and " " not in text:
            return f"{self.key}={text}"
        if text and all("=" in pair for pair in text.split()) and ("method=" in text) >= self.of_methods:
            return " ".join(text.split())
        known = ", ".join(repr(v) for v in self.values)
        raise ValueError(f"--values {text}: no setting of {self.name}; give {'method=NAME ' * self.of_methods}KEY=VALUE, or one of {known}")

    def published(self, value: str) -> Row | None:
        """What was published for this setting, top-1; None where nothing was."""
        if self.of_methods:
            (name,) = (p.partition("=")[2] for p in self.pairs(value) if p.startswith("method="))
            called = recipes.published_as(name)
            return published.of_method(called) if called and value in self.words else None
        if self.modality == "sound":
            return published.value(self.table, value, method="BYOL-A", data="mean of 6 tasks")
        return published.value(self.table, value, method=self.theirs.get(value, "BYOL"))

    def published_cosines(self, value: str) -> tuple[float, float] | None:
        """Of positives and of negatives at the end of training; None where nothing was published."""
        found = [published.value(self.table, value, metric=f"cosine of {which}") for which in ("positives", "negatives")]
        return (found[0].value, found[1].value) if found[0] is not None and found[1] is not None else None


def _each(key: str, *values: object) -> tuple[str, ...]:
    return tuple(f"{key}={v}" for v in values)


_CROP = "jitter=0 gray=0 blur=0 solarize=0 flip=0"
_AUGMENTATIONS = {
    "baseline": "",
    "no flip": "flip=0",
    "no blur": "blur=0",
    "no colour": "jitter=0 gray=0",
    "no jitter": "jitter=0",
    "no grayscale": "gray=0",
    "no blur in T'": "view2.blur=0",
    "no solarize in T'": "view2.solarize=0",
    "neither in T'": "view2.blur=0 view2.solarize=0",
    "symmetric": "blur=0.5 solarize=0.2",
    "crop only": _CROP,
    "crop + flip": "jitter=0 gray=0 blur=0 solarize=0",
    "crop + colour": "flip=0 blur=0 solarize=0",
    "crop + blur": "flip=0 jitter=0 gray=0 solarize=0",
}
# BYOL-A's (table 5), each as it is with any recipe; noise is N(0, 0.4). Its baseline has both normalisations.
_SOUND_VIEWS = {
    "mixup + crop": "mixup=0.4 noise=0 crop=true",
    "mixup + noise + crop": "mixup=0.4 noise=0.4 crop=true",
    "noise + crop": "mixup=0 noise=0.4 crop=true",
    "crop": "mixup=0 noise=0 crop=true",
    "mixup": "mixup=0.4 noise=0 crop=false",
    "noise": "mixup=0 noise=0.4 crop=false",
}
_SOUND_NORMS = {
    "mixup + crop": "mixup=0.4 post=true",
    "no post-normalisation": "mixup=0.4 post=false",
    **{f"no pre-normalisation alpha={a}": f"mixup={a} post=true pre=none" for a in (0.05, 0.1, 0.4)},
}
_OF_SOUND = "published: averages over six tasks after a tenth of AudioSet, which compare with no score of one set"
_TARGETS = (
    *(("mlp", "ema", 0), ("mlp", "ema", 1), ("none", "ema", 1), ("mlp", "stop-gradient", 1), ("none", "online", 1)),
    *(("none", "stop-gradient", 1), ("mlp", "online", 1), ("mlp", "stop-gradient", 0), ("mlp", "online", 0)),
    *(("none", "ema", 0), ("none", "stop-gradient", 0), ("none", "online", 0)),
)
_CONTRASTIVE = "head_norm=none predictor=none beta=1 alpha=0.2"
_NORMS = (("batch", "batch"), ("batch", "none"), ("none", "batch"), ("none", "none"), ("layer", "layer"))
_RATES = (1, 1.5, 2, 5, 10)
_ENCODER_NORMS = {
    "batch norm": "",
    "batch norm in the encoder alone": "head_norm=none",
    "none": "encoder=+none head_norm=none",
    "data-dependent initialisation": "encoder=+data head_norm=data",
    "group norm + weight standardisation": "encoder=+gn+ws head_norm=group head_standardise=true",
}

STUDIES: dict[str, Study] = {
    s.name: s
    for s in (
        Study(
            name="methods",
            what="every method with its own values of the recipe, all else the same",
            values=tuple(methods.names()),
            words={name: f"method={name}" for name in methods.names()},
            of_methods=True,
        ),
        Study(
            name="batch_size",
            what="images a forward pass; gradients are accumulated, so that an update sees as many as before",
            values=_each("batch_size", 256, 128, 64, 32, 16),
        ),
        Study(
            name="augmentations",
            what="views with parts taken away",
            values=tuple(_AUGMENTATIONS),
            words=_AUGMENTATIONS,
            modality="image",
        ),
        Study(
            name="sound_views",
            what="what is done to a window of sound",
            values=tuple(_SOUND_VIEWS),
            words=_SOUND_VIEWS,
            base=("fader=0",),
            note=_OF_SOUND,
            modality="sound",
        ),
        Study(
            name="sound_norm",
            what="normalisation of sounds before and after they are changed",
            values=tuple(_SOUND_NORMS),
            words=_SOUND_NORMS,
            base=("noise=0", "crop=true", "fader=0"),
            note=_OF_SOUND,
            modality="sound",
        ),
        Study(name="tau_base", what="target momentum at the start", values=_each("tau_base", 1, 0.999, 0.99, 0.9, 0)),
        Study(
            name="target",
            what="predictor, target and negative pairs, from BYOL to SimCLR's loss",
            values=tuple(f"predictor={p} target={t} beta={b}" for p, t, b in _TARGETS),
        ),
        Study(
            name="alpha",
            what="temperature and weight of negative pairs",
            values=("beta=0", *(f"alpha={a} beta={b}" for b in ("0.1", "0.5", "1") for a in ("0.01", "0.1", "0.3", "1", "3", "10"))),
        ),
        Study(
            name="layers",
            what="layers of projector and predictor",
            values=tuple(f"projector_layers={a} predictor_layers={b}" for a, b in product((1, 2, 3), (1, 2, 3))),
        ),
        Study(name="dim", what="units of the projection", values=_each("dim", 16, 32, 64, 128, 256, 512)),
        Study(name="lr", what="learning rate per 256 images", values=_each("lr", 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 1)),
        Study(name="weight_decay", what="weight decay", values=_each("weight_decay", "1e-7", "5e-7", "1e-6", "5e-6", "1e-5")),
        Study(name="loss_norm", what="normalisation inside the loss", values=_each("loss_norm", "l2", "layer", "none", "batch")),
        Study(
            name="predictor_rate",
            what="the predictor's factor on the learning rate, with no average",
            values=tuple(f"tau_base=0 predictor_rate={v}" for v in (0, 1, 2, 10, 20)),
        ),
        Study(
            name="rates",
            what="factors on the rates of projector and predictor, with no average",
            values=tuple(f"tau_base=0 projector_rate={m} predictor_rate={v}" for m, v in product(_RATES, _RATES)),
        ),
        Study(
            name="norm",
            what="normalisation in projector and predictor",
            values=(*(f"head_norm={a} predictor_norm={b}" for a, b in _NORMS), "contrastive"),
            words={"contrastive": _CONTRASTIVE},
            base=("projection_norm=none",),  # the batch norm that `auto` has there on a CPU would be in every row
            theirs={"contrastive": "MoCo-style contrastive"},
            note="contrastive: here against the other images of a batch, by the objective of BYOL's ablations; published with MoCo's queue "
            "of 65,536 and a learning rate of its own (0.02, the others 0.8)",
        ),
        Study(
            name="encoder_norm",
            what="normalisation in encoder and heads",
            values=tuple(_ENCODER_NORMS),
            words=_ENCODER_NORMS,
            base=("projection_norm=none",),  # as in the study of norms
            note="published: 74.3 and 73.9 after 1000 epochs; 72.1, 0.1 and 65.7 after 300, third-hand (with batch norm 72.5 then, Grill "
            "et al. 2020), each with a rate and decay of its own that are not known; here all rows have the same",
        ),
    )
}


def load(name: str) -> Study:
    """The study of that name; ValueError with the nearest name if there is none."""
    if name not in STUDIES:
        near = difflib.get_close_matches(name, STUDIES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(STUDIES)}"
        raise ValueError(f"no ablation {name!r}; {hint}")
    return STUDIES[name]
