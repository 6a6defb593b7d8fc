"""What was asked of a run, and what was decided for it; both frozen, both stored as JSON in the run folder."""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass, field
from typing import Literal, get_args, get_origin, get_type_hints

from byol.stored import typed

Value = str | int | float | bool | tuple[float, float] | None
Tracker = Literal["csv", "tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for; None leaves the choice to the recipe."""

    data: str  # folder, archive, list, .npz/.npy or name
    method: str = "byol"
    recipe: str = "auto"
    encoder: str | None = None
    epochs: int | None = None
    minutes: float | None = None  # in place of epochs: as many as fit, by a measurement at the start
    batch_size: int | None = None  # images a forward pass
    image_size: int | None = None  # pixels
    accumulate: int | None = None  # forward passes per update
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = 0
    workers: int | None = None  # processes that decode; None: by the number of cores
    pretrained: bool = False
    init: str | None = None  # a run or an exported file, whose encoder training starts from
    compile: bool = False  # the networks, by torch.compile
    limit: int | None = None  # use only so many images
    on_collapse: Literal["warn", "stop"] = "warn"
    download: bool = False
    set: tuple[str, ...] = ()  # KEY=VALUE, any field of Settings, of the method's Config or of the views
    track: tuple[Tracker, ...] = ()  # programs that are told how it goes

    def __post_init__(self) -> None:
        if not isinstance(self.track, tuple):
            raise ValueError(f"track is {self.track!r}; give the names in a tuple, e.g. ('csv',)")
        _check_choices(self)

    def folded(self) -> Request:
        """The same with every `set` pair that names a field of its own moved there, so that the recipe can follow it."""
        own = {f.name for f in dataclasses.fields(self)} & {f.name for f in dataclasses.fields(Settings)}
        mine = tuple(pair for pair in self.set if pair.partition("=")[0] in own)
        fields = parse_assignments(mine, {"request": type(self)})["request"]
        return dataclasses.replace(self, set=tuple(p for p in self.set if p not in mine), **fields)  # type: ignore[arg-type]

    def words(self) -> list[str]:
        """The options of `byol train` that ask for this, the data first; what was left to the recipe stays out."""
        words = [self.data]
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if f.name in ("data", "set", "track") or (value == f.default and type(value) is type(f.default)):
                continue
            words += [f"--{f.name.replace('_', '-')}", *([] if value is True else [str(value)])]
        return words + [w for name in ("track", "set") if (several := getattr(self, name)) for w in (f"--{name}", *several)]

    @classmethod
    def from_json(cls, fields: object) -> Request:
        """The request that was stored in a run's config.json; ValueError if that is damaged."""
        try:
            return typed(cls, fields)
        except ValueError as error:
            raise ValueError(f"config.json of this run cannot be understood ({error}); start a new run") from None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every number that the training loop uses, decided; the method's and the views' own are beside it in the plan."""

    method: str
    encoder: str
    image_size: int  # pixels
    views: str  # name of the view plan
    epochs: int
    batch_size: int  # images a forward pass
    accumulate: int  # forward passes per update
    optimizer: Literal["lars", "sgd", "adam", "adamw"]
    lr: float  # per 256 images
    weight_decay: float
    momentum: float
    trust_coefficient: float  # LARS only
    warmup_epochs: float
    precision: Literal["fp32", "bf16"]
    channels_last: bool  # memory layout of images and weights
    device: str
    seed: int
    workers: int
    pretrained: bool
    on_collapse: Literal["warn", "stop"]
    log_steps: int  # updates between two lines of the log
    checkpoint_minutes: float  # between two checkpoints
    mean: str = "data"  # per channel, comma-separated, in [0, 1]; `data`: measured
    std: str = "data"  # likewise
    compile: bool = False  # the networks, by torch.compile
    eps: float = 1e-8  # beside the root of the second moment; Adam and AdamW only
    init: str | None = None  # a run or an exported file, whose encoder training starts from
    lr_schedule: Literal["cosine", "constant"] = "cosine"  # after the warm-up: to 0 along half a cosine, or as it is

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in ("image_size", "epochs", "batch_size", "accumulate", "log_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        for name in ("lr", "weight_decay", "warmup_epochs", "workers", "checkpoint_minutes", "eps"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more")
        for name, most in (("image_size", 16_384), ("workers", 1024)):
            if getattr(self, name) > most:
                raise ValueError(f"{name} is {getattr(self, name)}; give {most} or less")
        if self.batch_size < 2:
            raise ValueError("batch_size is 1, and batch norm needs 2 or more images a pass; raise --batch-size")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run, decided: the settings, the method's and the views' own, each with its reason, and what follows from them."""

    settings: Settings
    method: dict[str, Value]  # fields of the method's Config
    views: dict[str, Value]  # fields of the view pipelines that differ from the named plan; `view2.blur`: of that view alone
    reasons: dict[str, str]  # why a value is what it is, by its name
    images: int
    steps_per_epoch: float  # updates; no whole number where `accumulate` does not divide the batches
    steps: int  # updates in all
    warmup_steps: int
    peak_lr: float  # lr x batch x accumulate / 256
    input: dict[str, object] = field(default_factory=dict)  # what the encoder sees: channels, size, range, mean, std
    expected: str = ""  # the published result of the recipe, with its source
    notes: tuple[str, ...] = field(default=())  # what a person should know before the first step

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> Plan:
        """The plan that `to_json` wrote; ValueError names the first thing that is not as it was written."""
        return typed(cls, fields)


def _check_choices(values: object) -> None:
    """ValueError for a field that holds none of the words of its type."""
    for name, wanted in get_type_hints(type(values)).items():
        value = getattr(values, name)
        several = get_origin(wanted) is tuple and isinstance(value, tuple)
        wanted = get_args(wanted)[0] if several else wanted
        for one in value if several else (value,):
            if get_origin(wanted) is Literal and one not in get_args(wanted):
                raise ValueError(f"{name} is {one!r}; give one of {', '.join(get_args(wanted))}")


def parse_assignments(pairs: tuple[str, ...], kinds: dict[str, type]) -> dict[str, dict[str, Value]]:
    """("lr=0.3", ...) -> {kind: {field: value}}, typed by the dataclass of that kind which has the field.

    A field of the kind `views` may be that of one view alone, `view2.blur`; a later `blur` is again that of all.
    Raises ValueError for a pair without `=`, a key that no kind has, and a value of the wrong type.
    """
    out: dict[str, dict[str, Value]] = {kind: {} for kind in kinds}
    owner = {f.name: kind for kind, cls in reversed(kinds.items()) for f in dataclasses.fields(cls)}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--set {pair}: write it as KEY=VALUE, e.g. --set lr=0.3")
        view, name = of_one_view(key) if "views" in kinds else (None, key)
        known = owner if view is None else {f.name: "views" for f in dataclasses.fields(kinds["views"])}
        if name not in known:
            raise ValueError(f"--set {key}: no such setting{' of one view' if view is not None else ''}; {_hint(key, name, known)}")
        kind = known[name]
        for before in [k for k in out[kind] if view is None and of_one_view(k)[1] == name]:
            del out[kind][before]
        out[kind][key] = _typed(key, text, get_type_hints(kinds[kind])[name])
    return out


def of_one_view(key: str) -> tuple[int | None, str]:
    """`view2.blur` -> (2, "blur"): a setting of the second view alone; (None, key) for one of all views."""
    found = re.fullmatch(r"view(\d{1,4})\.(.*)", key)
    return (int(found[1]), found[2]) if found else (None, key)


def _hint(key: str, name: str, known: dict[str, str]) -> str:
    """The nearest of the known names, written as `key` is, or all of them."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)  # below, `blur` is near `lr`
    return f"did you mean {key.removesuffix(name)}{near[0]}?" if near else f"there are: {', '.join(sorted(known))}"


def _typed(key: str, text: str, wanted: object) -> Value:
    """The text as a value of the wanted type: bool, int, float, str, a Literal of strings, or one of these or None."""
    if get_origin(wanted) is Literal:
        if text not in get_args(wanted):
            raise ValueError(f"--set {key}={text}: give one of {', '.join(get_args(wanted))}")
        return text
    if get_origin(wanted) is tuple:
        try:
            low, high = map(float, text.split(","))
        except ValueError:
            raise ValueError(f"--set {key}={text}: give two numbers with a comma between, e.g. {key}=0.1,2.0") from None
        return low, high
    kinds = get_args(wanted) or (wanted,)
    if type(None) in kinds and text.lower() == "none":
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind, words in ((int, "a whole number"), (float, "a number")):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                if kind is int and float in kinds:
                    continue
                raise ValueError(f"--set {key}={text}: give {words}") from None
    if str in kinds:
        return text
    if bool in kinds:
        raise ValueError(f"--set {key}={text}: give true or false")
    raise ValueError(f"--set {key}: this setting cannot be changed from the command line")
