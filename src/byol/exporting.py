"""Encoders and features in files that other programs read: .safetensors, .onnx, .pt2; .parquet, .npz, .npy."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from byol import dist
from byol.encoders import Encoder, load_weights, save_weights
from byol.encoders.store import description
from byol.files import atomic

ENCODER_FILES = (".safetensors", ".onnx", ".pt2")
EMBEDDING_FILES = (".parquet", ".npz", ".npy")
TOLERANCE = 1e-4  # largest difference of an exported graph's features, relative to the largest feature where that is above 1

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


def save_encoder(encoder: Encoder, out: Path, *, extra: Mapping[str, object]) -> None:
    """Write an encoder, whole or not at all; the ending of `out` says how, `extra` (JSON values) adds to where it comes from.

    .safetensors: the weights under timm's or torchvision's names, and a .json beside it (`load_encoder` reads them back).
    .onnx, .pt2: the graph from normalised (B, C, S, S) float32 to (B, dim), any B, with the description inside under `byol`;
    written only if its features equal the encoder's to TOLERANCE at batch sizes 1 and 5.
    """
    check_encoder_path(out)
    if out.suffix.lower() == ".safetensors":
        save_weights(encoder, out, extra=extra)
        return
    whole = copy.deepcopy(encoder).to("cpu", torch.float32).requires_grad_(False).eval()
    about = json.dumps(description(encoder, extra))
    write = _write_onnx if out.suffix.lower() == ".onnx" else _write_pt2
    with atomic(out) as temporary:
        try:
            run = write(whole, temporary, about)
        except RuntimeError as error:
            raise ValueError(f"torch cannot write {encoder.name} as {out.suffix}: {_first_line(error)}; export .safetensors") from error
        _check(whole, run, out)


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


def _write_onnx(encoder: Encoder, path: Path, about: str) -> Callable[[Tensor], Tensor]:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(f'.onnx needs the package {package}; install it with: pip install "byol[onnx]"') from error
    if sum(t.numel() * t.element_size() for t in encoder.state_dict().values()) >= 2**31:
        raise ValueError(f"{encoder.name} is above the 2 GB that one .onnx file can hold; export .safetensors or .pt2")
    import onnxruntime

    program = torch.onnx.export(
        encoder,
        (_example(encoder, 3),),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None
    program.model.metadata_props["byol"] = about
    program.save(str(path), external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(["features"], {"images": x.numpy()})[0])


def _write_pt2(encoder: Encoder, path: Path, about: str) -> Callable[[Tensor], Tensor]:
    program = torch.export.export(encoder, (_example(encoder, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path, extra_files={"byol": about})
    return torch.export.load(path).module()


def _check(encoder: Encoder, run: Callable[[Tensor], Tensor], out: Path) -> None:
    for batch in (1, 5):
        x = _example(encoder, batch)
        with torch.no_grad():
            ours, theirs = encoder(x), run(x)
        gap = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1)) if theirs.shape == ours.shape else float("inf")
        if not gap <= TOLERANCE:
            raise ValueError(f"{out} was not written: its features would differ from the encoder's by {gap:.2g}, above {TOLERANCE:g}")


def _example(encoder: Encoder, batch: int) -> Tensor:
    """(batch, C, H, W) of about zero mean and unit variance, always the same."""
    noise = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *encoder.input.shape, generator=noise)


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
