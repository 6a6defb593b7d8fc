"""HEAR's interface (2021): the encoders of sound as its evaluation kit takes them, `byol.hear` being the name of the module.

Timestamps lie every 40 ms from 0 on. What is embedded there is interpolated between the two nearest frames of features, each of which
belongs to the middle of the frames of the spectrogram that it was made of: these are 40 ms apart in BYOL-A's second version, and
80 ms in its first, which alone would be above the 50 ms that HEAR advises.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from byol import api, encoders
from byol.encoders import Encoder, SoundInput
from byol.encoders.audio import AudioNet

HOP = 40  # ms
_TOGETHER = 64 * 10 * 16_000  # samples that are embedded at once: of an hour all activations would not fit anywhere


class HearModel(nn.Module):
    """An encoder of sound with the numbers that HEAR asks for; its weights stay as they are."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if not isinstance(encoder.input, SoundInput) or not isinstance(encoder.net, AudioNet):
            raise ValueError(f"{encoder.name} gives no features over time; give an encoder of sound, such as byol-a-v2")
        self.encoder = encoder.requires_grad_(False).eval()
        self.input = encoder.input
        self.net = encoder.net
        self.sample_rate = encoder.input.rate
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
    times = timestamps(audio.shape[1], model.sample_rate)
    stride, hop = model.net.shape.stride, 1000 * model.input.hop / model.sample_rate
    embedded = [interpolated(y, (times / hop - (stride - 1) / 2) / stride) for y in parts]
    return torch.cat(embedded), times.float().to(audio.device).expand(len(audio), -1)


def timestamps(samples: int, rate: int) -> Tensor:
    """(t,) float64 ms: 0, HOP, 2 HOP ... up to the end of so many samples; each from its number, so that none drifts."""
    return torch.arange(samples * 1000 // (rate * HOP) + 1, dtype=torch.float64) * HOP


def interpolated(y: Tensor, at: Tensor) -> Tensor:
    """(n, T, D), (t,) places between 0 and T - 1 -> (n, t, D), linear between neighbours; beyond an end what is there."""
    at = at.clamp(0, y.shape[1] - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=y.shape[1] - 1)
    share = (at - low).to(y)[:, None]
    low, high = low.to(y.device), high.to(y.device)
    return y[:, low] * (1 - share) + y[:, high] * share


@torch.no_grad()
def _frames(audio: Tensor, model: HearModel) -> list[Tensor]:
    """(n, samples) -> parts of (n, T, D) float32: as many sounds at once as memory has room for."""
    if audio.ndim != 2 or not len(audio):
        raise ValueError(f"audio has the shape {tuple(audio.shape)}; give (sounds, samples)")
    model.eval()  # HEAR does not ask for it, and dropout would make every answer another
    with torch.autocast(audio.device.type, enabled=False):
        parts = torch.split(audio.float(), max(1, _TOGETHER // max(1, audio.shape[1])))
        return [model.net.frames(encoders.log_mel(part, model.input)).float() for part in parts]
