"""HEAR's interface (2021): the encoders of sound as its evaluation kit takes them, `byol.hear` being the name of the module.

Timestamps lie every 40 ms from 0 on, with what `byol.over_time` finds there: frames of features are 40 ms apart in BYOL-A's second
version, and 80 ms in its first, which alone would be above the 50 ms that HEAR advises.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from byol import api, encoders
from byol.encoders import Encoder, SoundInput
from byol.over_time import Ear, interpolated, timestamps

HOP = 40  # ms
_TOGETHER = 64 * 10 * 16_000  # samples that are embedded at once: of an hour all activations would not fit anywhere


class HearModel(nn.Module):
    """An encoder of sound with the numbers that HEAR asks for; its weights stay as they are."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.ear = Ear.of(encoder)
        self.encoder = encoder.requires_grad_(False).eval()
        self.sample_rate = self.ear.input.rate
        self.scene_embedding_size = encoder.dim
        self.timestamp_embedding_size = encoder.dim

    def forward(self, audio: Tensor) -> Tensor:
        """(n, samples) -> (n, scene_embedding_size)."""
        return get_scene_embeddings(audio, self)


def load_model(model_file_path: str = "", *, encoder: str = "byol-a-v1-d512", seed: int = 0) -> HearModel:
    """The encoder of a run, of an exported .safetensors or of a released BYOL-A .pth file; with no path a random `encoder`, a baseline."""
    if not model_file_path:
        # The statistics of the released encoder: with random weights any will do.
        return HearModel(encoders.load(encoder, input=SoundInput(mean=-5.4919195, std=5.0389895), seed=seed))
    if Path(model_file_path).suffix == ".pth":
        return HearModel(encoders.load_byol_a(model_file_path))
    return HearModel(api.load(model_file_path))


def get_scene_embeddings(audio: Tensor, model: HearModel) -> Tensor:
    """(n, samples) in [-1, 1] at the model's rate -> (n, scene_embedding_size) float32: maximum plus mean over the whole clip."""
    return torch.cat([y.max(1).values + y.mean(1) for y in _frames(audio, model)])


def get_timestamp_embeddings(audio: Tensor, model: HearModel) -> tuple[Tensor, Tensor]:
    """(n, samples) in [-1, 1] at the model's rate -> (n, t, timestamp_embedding_size) float32, and (n, t) ms, the same for every sound."""
    parts = _frames(audio, model)
    times = timestamps(audio.shape[1], model.sample_rate, HOP)
    embedded = [interpolated(y, model.ear.places(times)) for y in parts]
    return torch.cat(embedded), times.float().to(audio.device).expand(len(audio), -1)


@torch.no_grad()
def _frames(audio: Tensor, model: HearModel) -> list[Tensor]:
    """(n, samples) -> parts of (n, T, D) float32: as many sounds at once as memory has room for."""
    if audio.ndim != 2 or not len(audio):
        raise ValueError(f"audio has the shape {tuple(audio.shape)}; give (sounds, samples)")
    model.eval()  # HEAR does not ask for it, and dropout would make every answer another
    with torch.autocast(audio.device.type, enabled=False):
        parts = torch.split(audio.float(), max(1, _TOGETHER // max(1, audio.shape[1])))
        return [model.ear.net.frames(encoders.log_mel(part, model.ear.input)).float() for part in parts]
