"""Encoders in files that other programs read: .safetensors, .onnx, .pt2."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
import torch.fx.experimental._config
from torch import Tensor, nn

from byol import others
from byol.encoders import Encoder, SoundInput, load_weights, save_weights
from byol.encoders.store import description
from byol.encoders.waveforms import FromWaveforms, log_mel
from byol.files import atomic, check_ending

ENCODER_FILES = (".safetensors", ".onnx", ".pt2")
TOLERANCE = 1e-4  # largest difference of an exported graph's features, relative to the largest feature where that is above 1

Takes: TypeAlias = Literal["waveform", "log-mel"]


def check_encoder_path(path: Path) -> None:
    """ValueError if `save_encoder` does not know the ending: to be asked before the work, not after."""
    check_ending(path, ENCODER_FILES)


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
    if reason := getattr(encoder.net, "NO_GRAPH", ""):
        raise ValueError(f"{encoder.name} cannot be written as {out.suffix}: {reason}; export .safetensors")
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
    """The encoder of a run folder, of an exported .safetensors file, of a folder of the Hub or of others, on the CPU, in eval mode.

    `net`: the module itself, for an encoder that was made from one of your own. A checkpoint of another library is recognised
    (`byol.others`); `NAME:FILE` reads it as that encoder. ValueError for a file that is missing, damaged or not recognised.
    """
    if net is None and others.is_foreign(path):
        return others.load(path)
    if path.is_dir():
        inside = next((p for name in ("encoder.safetensors", "model.safetensors") if (p := path / name).exists()), None)
        if inside is None:
            raise ValueError(f"{path} has no encoder.safetensors; finish the run with `byol resume {path}`, or give another folder")
        path = inside
    return load_weights(path, net=net)


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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
