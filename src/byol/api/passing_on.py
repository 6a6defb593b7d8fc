"""Load, export, push and pull: encoders as modules, files, and repositories of the Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from torch import nn

from byol import checkpoint, exporting, foreign, hub
from byol import run as runs
from byol.encoders import Encoder
from byol.files import check_ending


def load(encoder: str | Path, *, net: nn.Module | None = None) -> Encoder:
    """The encoder of a run or of a file, ours or of others, in evaluation mode; `.dim`, `.input`, `.preprocess` say how to use it.

    An encoder of one's own needs its module, `net`, to put the weights into.
    """
    return exporting.load_encoder(Path(encoder), net=net)


def export(
    encoder: str | Path | Encoder,
    out: str | Path,
    *,
    network: str = "online",
    takes: Literal["waveform", "log-mel"] | None = None,
    format: Literal["timm", "torchvision", "hub"] | None = None,
    data_licence: str | None = None,
) -> Path:
    """Write an encoder as .safetensors (with .json beside), .onnx or .pt2; `network="target"` takes the target of a run.

    What the graph of an encoder of sound `takes` is a waveform, or a normalised log-mel spectrogram. With `format` "timm" or
    "torchvision" the .safetensors is written only if that library's plain network loads it strictly and gives the same features;
    "hub" writes a folder as the Hugging Face Hub has it, whose model card says the `data_licence`.
    """
    out = Path(out)
    if format != "hub" and data_licence is not None:
        raise ValueError("the licence of the data is for a model card, and only the format hub has one; leave it out")
    if format == "hub" and takes is not None:
        raise ValueError("waveform or log-mel is what a graph of sound takes, and the format hub holds weights; leave --takes out")
    if format in ("timm", "torchvision"):
        check_ending(out, (".safetensors",))
    chosen = _network(encoder, network)
    if format == "hub":
        run = None if isinstance(encoder, Encoder) else Path(encoder)
        hub.write_folder(chosen, out, extra={"network": network}, run=run, data_licence=data_licence)
        return out
    if format is not None:
        foreign.plain(chosen, format)
    exporting.save_encoder(chosen, out, extra={"network": network}, takes=takes)
    return out


def _network(encoder: str | Path | Encoder, network: str) -> Encoder:
    if network not in ("online", "target"):
        raise ValueError(f"no network {network!r}; give online or target")
    return target_of(encoder) if network == "target" else encoder if isinstance(encoder, Encoder) else load(encoder)


def push(run: str | Path, repo: str, *, network: str = "online", private: bool = False, data_licence: str | None = None) -> str:
    """Send the encoder of a run, with its model card, to OWNER/NAME on the Hugging Face Hub; the address of the commit.

    A folder that `export` wrote for the Hub is sent as it is, its card as you may have changed it.
    """
    hub.check_repo(repo)
    path = Path(run)
    if (path / "model.safetensors").exists() and not (path / "plan.json").exists():
        if data_licence is not None or network != "online":
            raise ValueError(f"{path} is sent as it is; change its README.md by hand, or give the run itself")
        return hub.push(path, repo, private=private)
    with tempfile.TemporaryDirectory(prefix="byol-") as made:
        folder = Path(made) / "model"
        hub.write_folder(_network(path, network), folder, extra={"network": network}, run=path, data_licence=data_licence, repo=repo)
        return hub.push(folder, repo, private=private)


def pull(repo: str, out: str | Path | None = None, *, revision: str | None = None) -> Path:
    """Fetch what `push` sent into a new folder, by default NAME of OWNER/NAME, for `load`; nothing in it can run."""
    folder = Path(out) if out is not None else Path(repo.rpartition("/")[2])
    hub.pull(repo, folder, revision=revision)
    return folder


def target_of(run: str | Path | Encoder) -> Encoder:
    """The target encoder of a run's last checkpoint."""
    if isinstance(run, Encoder) or not checkpoint.exists(Path(run)):
        raise ValueError(f"{run}: only a run with its checkpoint has a target network; export the online one instead")
    target = getattr(runs.restored(Path(run)), "target_encoder", None)
    if not isinstance(target, Encoder):
        raise ValueError(f"{run}: its method has no target network; export the online one instead")
    return target.eval()
