"""The options of every command, as frozen dataclasses: a field with a `Place` is positional, the others are `--options`.

This file decides what `byol COMMAND --help` says and imports nothing heavy, so that help is immediate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

DATA = "folder, archive, list, .npz/.npy, or a name of `byol list data`"
ENCODER = "a run, a file (of others too), random:NAME, timm:NAME, byol-a:FILE.pth or pixels"


@dataclass(frozen=True)
class About:
    """What the help says of a field: what it means, with its unit and default, and what its value is called."""

    text: str
    value: str = ""


@dataclass(frozen=True)
class Place(About):
    """The same of a field that is given by its place, without `--name`."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    json: Annotated[bool, About("print one JSON object as the last line of standard output; all else goes to standard error")] = False


@dataclass(frozen=True, kw_only=True)
class Demo(Common):
    """The whole story on embedded digits, in about a minute."""

    out: Annotated[Path | None, About("run folder (default: runs/digits-demo, numbered when taken)", "RUN")] = None
    seed: Annotated[int, About("of weights, views and label draws (default: 0)", "N")] = 0


@dataclass(frozen=True, kw_only=True)
class Doctor(Common):
    """Is this data usable? Every image or sound is decoded and counted."""

    data: Annotated[str, Place(DATA, "DATA")]
    limit: Annotated[int | None, About("look at so many images or sounds, spread over the data", "N")] = None


@dataclass(frozen=True, kw_only=True)
class Train(Common):
    """Train an encoder on images or sounds without labels."""

    data: Annotated[str, Place(DATA, "DATA")]
    out: Annotated[Path | None, About("run folder (default: runs/NAME-OF-DATA, numbered when taken)", "RUN")] = None
    method: Annotated[str, About("see `byol list methods` (default: byol)", "NAME")] = "byol"
    recipe: Annotated[str, About("see `byol list recipes` (default: auto, from the data)", "NAME")] = "auto"
    encoder: Annotated[str | None, About("see `byol list encoders`; any timm name", "NAME")] = None
    epochs: Annotated[int | None, About("passes over the data", "N")] = None
    minutes: Annotated[float | None, About("in place of --epochs: as many as fit, by a measurement", "X")] = None
    batch_size: Annotated[int | None, About("images or sounds a forward pass", "B")] = None
    image_size: Annotated[int | None, About("height and width of a view, pixels; of sounds --set seconds=...", "S")] = None
    accumulate: Annotated[int | None, About("forward passes an update", "K")] = None
    precision: Annotated[Literal["auto", "fp32", "bf16"], About("of the forward pass (default: auto, measured)")] = "auto"
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], About("where to train (default: auto)")] = "auto"
    devices: Annotated[int, About("processes that share the work: one for each accelerator, or of the cores (default: 1)", "N")] = 1
    workers: Annotated[int | None, About("processes that decode (default: one a core for a GPU, none on a CPU)", "N")] = None
    seed: Annotated[int, About("of weights, order and views (default: 0)", "N")] = 0
    pretrained: Annotated[bool, About("start from timm's weights")] = False
    init: Annotated[str | None, About("start from the encoder of a run or of a file, of others too", "RUN")] = None
    compile: Annotated[bool, About("compile the networks first: a minute or two, then faster steps")] = False
    limit: Annotated[int | None, About("use so many images or sounds, spread over the data", "N")] = None
    download: Annotated[bool, About("fetch a named data set if it is not here")] = False
    on_collapse: Annotated[Literal["warn", "stop"], About("what to do when all features come out alike (default: warn)")] = "warn"
    set: Annotated[tuple[str, ...], About("any setting of the plan, e.g. lr=0.3 tau_base=0.99; --dry-run lists them", "KEY=VALUE")] = ()
    track: Annotated[
        tuple[Literal["csv", "tensorboard", "wandb", "mlflow"], ...],
        About("tell csv, tensorboard, wandb or mlflow, in the run folder (default: none)", "NAME"),
    ] = ()
    dry_run: Annotated[bool, About("print the whole plan, draw the views of a few samples, train nothing")] = False


@dataclass(frozen=True, kw_only=True)
class Resume(Common):
    """Go on with an interrupted run, bit for bit."""

    run: Annotated[str, Place("the run folder", "RUN")]
    devices: Annotated[int | None, About("processes that share the work (default: as many as it began with)", "N")] = None


@dataclass(frozen=True, kw_only=True)
class Evaluate(Common):
    """What features are worth on labelled images or sounds."""

    encoder: Annotated[str, Place(ENCODER, "ENCODER")]
    data: Annotated[str, Place(DATA + "; with labels", "DATA")]
    test: Annotated[str | None, About("labelled test data (default: a stratified fifth of DATA)", "DATA")] = None
    protocol: Annotated[tuple[str, ...], About("see `byol list protocols` (default: knn linear)", "NAME")] = ("knn", "linear")
    labels: Annotated[tuple[float, ...], About("shares of the training labels, e.g. 0.01 0.1 1.0 (default: 1.0)", "X")] = (1.0,)
    draws: Annotated[int, About("draws of labels for each share below 1 (default: 5)", "N")] = 5
    seed: Annotated[int, About("of the split and the draws (default: 0)", "N")] = 0
    baselines: Annotated[bool, About("leave out raw data and the random network")] = True
    limit: Annotated[int | None, About("use so many images or sounds, spread over the data", "N")] = None
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], About("where to compute features (default: auto)")] = "auto"
    devices: Annotated[int, About("processes that share the features (default: 1)", "N")] = 1
    precision: Annotated[Literal["fp32", "bf16"], About("of the features (default: fp32)")] = "fp32"
    batch_size: Annotated[int, About("images or sounds a forward pass (default: 256)", "B")] = 256
    workers: Annotated[int | None, About("processes that decode where a protocol trains on crops (default: by the device)", "N")] = None


@dataclass(frozen=True, kw_only=True)
class Ablate(Common):
    """Vary one setting over several seeds, as in the paper."""

    name: Annotated[
        Literal[
            "methods", "batch_size", "augmentations", "sound_views", "sound_norm", "tau_base", "target", "alpha", "layers", "dim", "lr",
            "weight_decay", "loss_norm", "predictor_rate", "rates", "norm", "encoder_norm",
        ],
        Place("what to vary: methods, batch_size, augmentations, sound_views, sound_norm, tau_base, target, alpha, layers, dim, lr, "
              "weight_decay, loss_norm, predictor_rate, rates, norm or encoder_norm; see docs/ablations.md", "NAME"),
    ]  # fmt: skip
    data: Annotated[str, Place(DATA + "; with labels", "DATA")]
    out: Annotated[Path | None, About("folder of all runs (default: runs/ablate-NAME-DATA); one that is there goes on", "FOLDER")] = None
    test: Annotated[str | None, About("labelled test data (default: a stratified fifth of DATA)", "DATA")] = None
    values: Annotated[tuple[str, ...], About("settings in place of the paper's, e.g. 0.9 0.99, or 'alpha=1 beta=0.5'", "X")] = ()
    seeds: Annotated[int, About("runs of each setting (default: 3)", "N")] = 3
    jobs: Annotated[int | None, About("runs at a time, each in a process of its own (default: one on each GPU, or 1)", "N")] = None
    recipe: Annotated[str, About("see `byol list recipes` (default: auto, from the data)", "NAME")] = "auto"
    encoder: Annotated[str | None, About("see `byol list encoders`; any timm name", "NAME")] = None
    epochs: Annotated[int | None, About("passes over the data, of each run", "N")] = None
    minutes: Annotated[float | None, About("in place of --epochs: as many as fit, of each run, measured once", "X")] = None
    batch_size: Annotated[int | None, About("images or sounds a forward pass", "B")] = None
    image_size: Annotated[int | None, About("height and width of a view, pixels; of sounds --set seconds=...", "S")] = None
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], About("where to train (default: auto)")] = "auto"
    seed: Annotated[int, About("of the first run; the others count on (default: 0)", "N")] = 0
    limit: Annotated[int | None, About("use so many images or sounds, spread over the data", "N")] = None
    set: Annotated[tuple[str, ...], About("any setting of all runs, as in byol train", "KEY=VALUE")] = ()


@dataclass(frozen=True, kw_only=True)
class Study(Common):
    """Put a theory to the test on a small scale: claims, table, plot."""

    name: Annotated[str, Place("see `byol list studies`; all does one after the other", "NAME")]
    out: Annotated[Path | None, About("folder of table, plots and page (default: runs/studies)", "FOLDER")] = None
    seeds: Annotated[tuple[int, ...], About("what is drawn at random, once for each (default: 0 1 2)", "N")] = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Embed(Common):
    """Write the features of every image or sound, with its name."""

    encoder: Annotated[str, Place(ENCODER, "ENCODER")]
    data: Annotated[str, Place(DATA, "DATA")]
    out: Annotated[Path, About("file to write: .parquet, .npz or .npy", "FILE")]
    hop: Annotated[int | None, About("of sounds: a row for every MS milliseconds, with its time (.parquet)", "MS")] = None
    limit: Annotated[int | None, About("use so many images or sounds, spread over the data", "N")] = None
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], About("where to compute features (default: auto)")] = "auto"
    devices: Annotated[int, About("processes that share the features (default: 1)", "N")] = 1
    precision: Annotated[Literal["fp32", "bf16"], About("of the features (default: fp32)")] = "fp32"
    batch_size: Annotated[int, About("images or sounds a forward pass (default: 256)", "B")] = 256


@dataclass(frozen=True, kw_only=True)
class Export(Common):
    """Write a run's encoder for other programs."""

    run: Annotated[str, Place("the run folder, or a file with weights, also of other libraries", "RUN")]
    out: Annotated[Path, About("file to write: .safetensors (+ .json), .onnx or .pt2; a folder with --format hub", "FILE")]
    format: Annotated[
        Literal["timm", "torchvision", "hub"] | None,
        About("for plain timm or torchvision, tried out, or a folder as the Hugging Face Hub has it", "timm|torchvision|hub"),
    ] = None
    network: Annotated[Literal["online", "target"], About("which of the two networks (default: online)")] = "online"
    takes: Annotated[
        Literal["waveform", "log-mel"] | None,
        About("what an .onnx or .pt2 of sound is given; log-mels normalised (default: waveform)", "waveform|log-mel"),
    ] = None

    data_licence: Annotated[str | None, About("what the model card of --format hub says of it (default: unknown)", "TEXT")] = None


@dataclass(frozen=True, kw_only=True)
class Push(Common):
    """Send an encoder and its model card to the Hugging Face Hub."""

    run: Annotated[str, Place("the run folder, or one that export --format hub wrote", "RUN")]
    repo: Annotated[str, Place("repository, made if there is none", "OWNER/NAME")]
    network: Annotated[Literal["online", "target"], About("which of the two networks (default: online)")] = "online"
    private: Annotated[bool, About("where the repository is new, nobody else sees it")] = False
    data_licence: Annotated[str | None, About("what the model card says of it (default: unknown)", "TEXT")] = None


@dataclass(frozen=True, kw_only=True)
class Pull(Common):
    """Fetch an encoder that was pushed; nothing in it can run."""

    repo: Annotated[str, Place("repository on the Hugging Face Hub", "OWNER/NAME")]
    out: Annotated[Path | None, About("new folder (default: NAME)", "FOLDER")] = None
    revision: Annotated[str | None, About("branch, tag or commit (default: the latest)", "REV")] = None


@dataclass(frozen=True, kw_only=True)
class Report(Common):
    """One HTML page about a run, or several side by side."""

    run: Annotated[tuple[str, ...], Place("the run folders", "RUN ...")]
    out: Annotated[Path | None, About("file to write (default: RUN/report.html)", "FILE")] = None


@dataclass(frozen=True, kw_only=True)
class List(Common):
    """What there is, one line each."""

    what: Annotated[
        Literal["methods", "recipes", "encoders", "data", "views", "protocols", "studies"],
        Place("methods, recipes, encoders, data, views, protocols or studies", "WHAT"),
    ]


# As `byol.families` and `byol.evaluation` have them; here without importing either. The first need something else than class labels.
TASKS = ("segmentation", "depth", "detection", "registration", "progression")
PROTOCOLS = ("knn", "linear", "linear-sgd", "semi", "finetune", "transfer", "reach", "state", "sound-linear", "evar-linear", *TASKS)

COMMANDS: dict[str, type[Common]] = {
    c.__name__.lower(): c for c in (Demo, Doctor, Train, Resume, Evaluate, Ablate, Study, Embed, Export, Push, Pull, Report, List)
}
