"""An encoder as the Hugging Face Hub has models: a folder of weights, configuration and model card, sent there and fetched from there.

model.safetensors and model.json are what `byol export` writes anywhere; config.json is what timm reads where plain timm has the
network. Nothing that is fetched can run: only these files are, and the weights are checked against the SHA-256 beside them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from byol import __version__, foreign
from byol.card import card
from byol.encoders import Encoder, Input, load_weights
from byol.encoders.store import description, save_weights
from byol.foreign import Plain

FILES = ("model.safetensors", "model.json", "config.json", "README.md")


def write_folder(
    encoder: Encoder, out: Path, *, extra: Mapping[str, object], run: Path | None = None, data_licence: str | None = None, repo: str = ""
) -> None:
    """Write the files of a model into a folder, which is new or empty; the card says what `run` says, where there is one.

    Where plain timm has the network it has loaded the folder by `local-dir:` and given the encoder's features to 1e-5.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; give a new folder, or an empty one")
    try:
        plain: Plain | None = foreign.plain(encoder, "timm")
    except ValueError:  # it is for byol alone
        plain = None
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as made:
        folder = Path(made) / "model"  # the folder around it is for its owner alone
        folder.mkdir()
        save_weights(encoder, folder / "model.safetensors", extra=extra)
        config = description(encoder, extra) if plain is None else _timm_config(encoder, plain)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if plain is not None:
            foreign.check(encoder, _loaded_by_timm(folder), f"what timm loads of {out}")
        text = card(encoder, run, timm=plain is not None, network=str(extra.get("network", "online")), data_licence=data_licence, repo=repo)
        (folder / "README.md").write_text(text, encoding="utf-8")
        if out.exists():
            out.rmdir()
        os.replace(folder, out)


def push(folder: Path, repo: str, *, private: bool = False) -> str:
    """Send the files of `write_folder` to a repository OWNER/NAME, which is made if there is none; the address of the commit."""
    check_repo(repo)
    with _told(repo):
        from huggingface_hub import HfApi

        api = HfApi(library_name="byol", library_version=__version__)
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=list(FILES), commit_message="An encoder of byol")
        return str(done.commit_url)


def pull(repo: str, out: Path, *, revision: str | None = None) -> Encoder:
    """Fetch a model that `push` sent into a new folder, which `byol.load` and timm's `local-dir:` read; the encoder in it."""
    check_repo(repo)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; give a new folder, or an empty one")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as made:
        with _told(repo):
            from huggingface_hub import snapshot_download

            snapshot_download(repo, revision=revision, local_dir=made, allow_patterns=list(FILES), library_name="byol")
        if not (Path(made) / "model.json").exists():
            raise ValueError(f"{repo} has no model.json, so it is none that `byol push` sent; give another repository")
        found = load_weights(Path(made) / "model.safetensors")
        out.mkdir(exist_ok=True)
        for name in FILES:
            if (Path(made) / name).exists():
                shutil.move(Path(made) / name, out / name)
    return found


def check_repo(repo: str) -> None:
    """ValueError unless it is OWNER/NAME; to be asked before the work."""
    if not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", repo, re.ASCII):
        raise ValueError(f"{repo} is no repository of the Hub; give OWNER/NAME")


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """Whatever the Hub, or the way there, answers as one sentence."""
    try:
        yield
    except ImportError as error:
        raise ValueError('the Hub needs the package huggingface_hub; install it with: pip install "byol[hub]"') from error
    except Exception as error:  # of many types of two libraries, and none is a mistake of ours
        number = getattr(getattr(error, "response", None), "status_code", None)
        if number in (401, 403):
            mend = "log in with `hf auth login`, or set HF_TOKEN to a token that may write there"
        elif number == 404:
            mend = "there is no such repository, or your token may not see it"
        elif number is None and isinstance(error, OSError):
            mend = "see whether the network is there (HF_ENDPOINT names another host)"
        else:
            mend = "try again later"
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{repo}: {first}; {mend}") from error


def _timm_config(encoder: Encoder, plain: Plain) -> dict[str, object]:
    """config.json as timm's `save_for_hf` writes it; what an image goes through as `encoder.preprocess` does it."""
    i = encoder.input
    assert isinstance(i, Input)
    theirs = plain.net.pretrained_cfg
    kept = {k: theirs[k] for k in ("first_conv", "classifier", "fixed_input_size") if theirs.get(k) is not None}  # type: ignore[index,operator,union-attr]  # timm's dict
    return {
        "architecture": plain.name.partition(".")[0],
        "num_classes": 0,
        "num_features": encoder.dim,
        "model_args": {k: v for k, v in plain.arguments.items() if k != "num_classes"},
        "pretrained_cfg": {
            "tag": "byol",
            "custom_load": False,
            "input_size": list(i.shape),
            "interpolation": "bicubic",
            "crop_pct": i.size / (i.resize or i.size),
            "crop_mode": "center",
            "mean": list(i.mean),
            "std": list(i.std),
            "num_classes": 0,
            **kept,
        },
    }


def _loaded_by_timm(folder: Path) -> nn.Module:
    import timm

    net: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    return net
