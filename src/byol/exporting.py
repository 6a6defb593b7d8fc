"""Encoders in files that other programs read: .safetensors, .onnx, .pt2."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from byol.encoders import Encoder, load_weights, save_weights
from byol.encoders.store import description
from byol.files import atomic, check_ending

ENCODER_FILES = (".safetensors", ".onnx", ".pt2")
TOLERANCE = 1e-4  # largest difference of an exported graph's features, relative to the largest feature where that is above 1


def check_encoder_path(path: Path) -> None:
    """ValueError if `save_encoder` does not know the ending: to be asked before the work, not after."""
    check_ending(path, ENCODER_FILES)


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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
