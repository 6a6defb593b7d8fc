"""Encoders and features in files that other programs read: .safetensors, .onnx, .pt2; .parquet, .npz, .npy."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.fx.experimental._config
from numpy.typing import NDArray
from torch import Tensor, nn

from byol import dist
from byol.encoders import Encoder, SoundInput, load_weights, save_weights
from byol.encoders.store import description
from byol.encoders.waveforms import FromWaveforms, log_mel
from byol.files import atomic

ENCODER_FILES = (".safetensors", ".onnx", ".pt2")
EMBEDDING_FILES = (".parquet", ".npz", ".npy")
TOLERANCE = 1e-4  # largest difference of an exported graph's features, relative to the largest feature where that is above 1

Takes: TypeAlias = Literal["waveform", "log-mel"]
Features: TypeAlias = NDArray[np.float32]
Array: TypeAlias = NDArray[np.generic]
Labels: TypeAlias = Sequence[str] | Sequence[int] | Array


def check_encoder_path(path: Path) -> None:
    """ValueError if `save_encoder` does not know the ending: to be asked before the work, not after."""
    _check_ending(path, ENCODER_FILES)


def check_embedding_path(path: Path) -> None:
    """ValueError if `write_embeddings` does not know the ending: to be asked before the work, not after."""
    _check_ending(path, EMBEDDING_FILES)


def part_of(path: Path) -> Path:
    """The file that this process writes: `path`, or of several processes a part in a folder of that name; ValueError where that cannot be.

    Parts of an earlier call are taken away first.
    """
    check_embedding_path(path)
    if dist.size() == 1:
        return path
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"{path}: several processes write one part each, which only .parquet can have; give FILE.parquet")

    def empty() -> None:
        if path.is_file():
            raise ValueError(f"{path} is a file, and several processes write a folder of parts; remove it, or give another name")
        for old in path.glob("part-*.parquet"):
            old.unlink()
        path.mkdir(parents=True, exist_ok=True)

    dist.from_first(empty)
    return path / f"part-{dist.rank():05}-of-{dist.size():05}.parquet"


def save_encoder(encoder: Encoder, out: Path, *, extra: Mapping[str, object], takes: Takes | None = None) -> None:
    """Write an encoder, whole or not at all; the ending of `out` says how, `extra` (JSON values) adds to where it comes from.

    .safetensors: the weights under timm's or torchvision's names, and a .json beside it (`load_encoder` reads them back).
    .onnx, .pt2: the graph from normalised images (B, C, S, S) float32 to (B, dim), any B, with the description inside under `byol`.
    Of an encoder of sound `takes` says from what: "waveform" (the default), (B, samples) in [-1, 1] at its rate, of any length, what
    is shorter than the unit of training followed by silence; "log-mel", (B, 1, bands, T) normalised, any T that the encoder takes.
    It is written only if its features equal the encoder's to TOLERANCE at batch sizes 1 and 5, and of sound at several lengths.
    """
    check_encoder_path(out)
    plain = out.suffix.lower() == ".safetensors"
    if takes is not None and (plain or not isinstance(encoder.input, SoundInput)):
        why = f"{out.suffix} holds weights, which take both" if plain else f"{encoder.name} takes images"
        raise ValueError(f"waveform or log-mel is what a graph of sound takes, and {why}; leave --takes out")
    if plain:
        save_weights(encoder, out, extra=extra)
        return
    whole = copy.deepcopy(encoder).to("cpu", torch.float32).requires_grad_(False).eval()
    form = _form(whole, takes)
    about = json.dumps({**description(encoder, extra), "takes": {form.input: list(form.axes)}})
    write = _write_onnx if out.suffix.lower() == ".onnx" else _write_pt2
    with atomic(out) as temporary:
        try:
            with torch.no_grad():
                wanted = [(x, form.of_encoder(x)) for x in form.examples()]
            run = write(form, temporary, about)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"torch cannot write {encoder.name} as {out.suffix}: {_first_line(error)}; export .safetensors") from error
        _check(wanted, run, out)


@dataclass(frozen=True)
class _Form:
    """What a graph takes and computes."""

    net: nn.Module
    of_encoder: Callable[[Tensor], Tensor]  # the same features, as the encoder gives them in Python
    input: str
    axes: Sequence[str | int]  # of the input: a name where any size goes
    sizes: Sequence[int]  # of the last axis where it has a name, to be tried

    def open(self) -> dict[int, str]:
        """The axes of the input where any size goes, by their place."""
        return {place: axis for place, axis in enumerate(self.axes) if isinstance(axis, str)}

    def examples(self) -> list[Tensor]:
        """Inputs of about zero mean, always the same; the first is one that any graph can be traced with."""
        noise = torch.Generator().manual_seed(0)
        inner = [axis for axis in self.axes[1:] if isinstance(axis, int)]
        places = [(*inner, size) for size in self.sizes] or [tuple(inner)]
        return [
            torch.randn(batch, *place, generator=noise) * (0.1 if self.input == "waveforms" else 1) for place in places for batch in (5, 1)
        ]


def _form(encoder: Encoder, takes: Takes | None) -> _Form:
    i = encoder.input
    if not isinstance(i, SoundInput):
        return _Form(encoder, encoder, "images", ("batch", *i.shape), ())
    if takes == "log-mel":
        return _Form(encoder, encoder, "log_mels", ("batch", 1, i.bands, "frames"), (i.frames, 4 * i.frames + 3))
    sizes = (2 * i.unit, i.unit // 3, 4 * i.unit + i.hop // 2)
    return _Form(FromWaveforms(encoder, i), lambda x: encoder(log_mel(x, i)), "waveforms", ("batch", "samples"), sizes)


def load_encoder(path: Path, *, net: nn.Module | None = None) -> Encoder:
    """The encoder of a run folder or of an exported .safetensors file, on the CPU, in eval mode.

    `net`: the module itself, for an encoder that was made from one of your own. ValueError for a missing, damaged or foreign file.
    """
    if path.is_dir():
        inside = path / "encoder.safetensors"
        if not inside.exists():
            raise ValueError(f"{path} has no encoder.safetensors; finish the run with `byol resume {path}`, or give another folder")
        path = inside
    return load_weights(path, net=net)


def write_embeddings(path: Path, names: Sequence[str], features: Features, labels: Labels | None = None) -> None:
    """Write (N, D) features with the names of their images, whole or not at all; the ending of `path` says how.

    .parquet: columns name, label (if given) and embedding (fixed-size list of float32). .npz: names, features, labels.
    .npy: the features alone, with names and labels in PATH.json beside it. ValueError for unequal lengths.
    """
    check_embedding_path(path)
    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or len(names) != len(features) or (labels is not None and len(labels) != len(features)):
        counts = f"{len(names)} names and {'no' if labels is None else len(labels)} labels"
        raise ValueError(f"features of shape {features.shape} do not go with {counts}; give (N, D), N names and N labels or none")
    plain = None if labels is None else np.asarray(labels)
    if plain is not None and plain.dtype.kind == "O":
        raise ValueError("the labels are neither all numbers nor all text; give one or the other")
    write = {".parquet": _write_parquet, ".npz": _write_npz, ".npy": _write_npy}[path.suffix.lower()]
    with atomic(path) as temporary:
        write(temporary, path, list(names), features, plain)


def _check_ending(path: Path, known: Sequence[str]) -> None:
    if path.suffix.lower() not in known:
        raise ValueError(f"{path} has {f'the ending {path.suffix!r}' if path.suffix else 'no ending'}; give one of {', '.join(known)}")


def _write_onnx(form: _Form, path: Path, about: str) -> Callable[[Tensor], Tensor]:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(f'.onnx needs the package {package}; install it with: pip install "byol[onnx]"') from error
    if sum(t.numel() * t.element_size() for t in form.net.state_dict().values()) >= 2**31:
        raise ValueError("the encoder is above the 2 GB that one .onnx file can hold; export .safetensors or .pt2")
    import onnxruntime

    program = torch.onnx.export(
        _program(form), dynamo=True, verbose=False, input_names=[form.input], output_names=["features"], dynamic_shapes=(form.open(),)
    )
    assert program is not None
    program.model.metadata_props["byol"] = about
    program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["features"], {form.input: x.numpy()})[0])


def _write_pt2(form: _Form, path: Path, about: str) -> Callable[[Tensor], Tensor]:
    torch.export.save(_program(form), path, extra_files={"byol": about})
    return torch.export.load(path).module()


def _program(form: _Form) -> torch.export.ExportedProgram:
    shapes = (dict.fromkeys(form.open(), torch.export.Dim.DYNAMIC),)
    # As torch.onnx does: else a length for which some layer has one frame would be refused when the graph runs.
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(form.net, (form.examples()[0],), dynamic_shapes=shapes)


def _check(wanted: Sequence[tuple[Tensor, Tensor]], run: Callable[[Tensor], Tensor], out: Path) -> None:
    for x, ours in wanted:
        with torch.no_grad():
            theirs = run(x)
        gap = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1)) if theirs.shape == ours.shape else float("inf")
        if not gap <= TOLERANCE:
            raise ValueError(f"{out} was not written: its features would differ from the encoder's by {gap:.2g}, above {TOLERANCE:g}")


def _write_parquet(temporary: Path, path: Path, names: list[str], features: Features, labels: Array | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"name": pa.array(map(_text, names), pa.string())}
    if labels is not None:
        columns["label"] = pa.array([_text(v) if isinstance(v, str) else v for v in labels.tolist()])
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
    pq.write_table(pa.table(columns), temporary)


def _text(name: str) -> str:
    """A name as UTF-8 can hold it: bytes that are no text appear as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _write_npz(temporary: Path, path: Path, names: list[str], features: Features, labels: Array | None) -> None:
    known = np.array(names, dtype=np.str_)
    if labels is None:
        np.savez(temporary, names=known, features=features)
    else:
        np.savez(temporary, names=known, features=features, labels=labels)


def _write_npy(temporary: Path, path: Path, names: list[str], features: Features, labels: Array | None) -> None:
    np.save(temporary, features, allow_pickle=False)
    with atomic(path.with_name(path.name + ".json")) as beside:
        beside.write_text(json.dumps({"names": names, "labels": None if labels is None else labels.tolist()}) + "\n", encoding="utf-8")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
