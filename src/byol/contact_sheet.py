"""A picture of what the networks see: a few real samples, each above its views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from byol import modalities
from byol.data import Source, Unreadable
from byol.encoders import AnyInput, Input
from byol.files import atomic
from byol.run import Session

Picture = NDArray[np.uint8]  # (H, W, 3)

SAMPLES = 8
TILE = 96  # pixels at least, so that small images can be seen
GAP = 4  # pixels
LABEL = 14  # pixels above each row


def write(session: Session, path: Path) -> Path:
    """Draw up to 8 samples, spread over the data, and their views in the first epoch; a PNG, written whole or not at all."""
    source, input, modality = session.source, session.input, modalities.of(session.source.modality)
    ids, raws = samples(source)
    views = modality.seen(session.views, source, raws, torch.tensor(ids), session.plan.settings.seed, 0, input)
    side = views.shape[-1]
    rows = [[whole(modality.visible(raw, input), input, side) for raw in raws]] + [[to_rgb(v) for v in view] for view in views]
    names = ["as they are", *(f"view {n}" for n in range(1, len(rows)))]
    with atomic(path) as temporary:
        sheet(rows, names).save(temporary, format="PNG")
    return path


def samples(source: Source) -> tuple[list[int], list[NDArray[np.generic]]]:
    """Indices and (H, W, C) images, evenly spread; what cannot be read gives its place to the next that can."""
    ids: list[int] = []
    images: list[NDArray[np.generic]] = []
    for start in np.unique(np.linspace(0, len(source) - 1, SAMPLES).astype(int)).tolist():
        for index in range(start, min(start + 20, len(source))):
            if index in ids:
                continue
            try:
                image = modalities.of(source.modality).sample(source, index)
            except Unreadable:
                continue
            ids.append(index)
            images.append(image)
            break
    if not ids:
        raise ValueError(f"{source.spec}: no sample could be read; run `byol doctor` on it to see why")
    return ids, images


def whole(image: NDArray[np.generic], input: AnyInput, side: int) -> Picture:
    """(H, W, C) raw, of a sound in [0, 1] -> (S, S, 3) of that side: the image as it is, made to fit, on grey."""
    x = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    scaled = to_rgb(input.scale(x) if isinstance(input, Input) else x)
    fitted = Image.fromarray(scaled)
    ratio = side / max(fitted.size)
    size = (max(1, round(fitted.width * ratio)), max(1, round(fitted.height * ratio)))
    canvas = Image.new("RGB", (side, side), (128, 128, 128))
    canvas.paste(fitted.resize(size, Image.Resampling.BICUBIC), ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas)


def to_rgb(x: Tensor) -> Picture:
    """(C, H, W) in [0, 1] -> (H, W, 3): grey for one channel, the mean of two, the first three of more."""
    x = x[:3] if len(x) >= 3 else x.mean(dim=0, keepdim=True).expand(3, -1, -1)
    pixels = (x.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8)
    return pixels.cpu().numpy()


def sheet(rows: list[list[Picture]], names: list[str]) -> Image.Image:
    """Rows of equal tiles, each row below its name; small tiles are enlarged by whole numbers, so that pixels stay pixels."""
    side = len(rows[0][0])
    tile = side * max(1, -(-TILE // side))
    canvas = Image.new("RGB", (GAP + len(rows[0]) * (tile + GAP), GAP + len(rows) * (LABEL + tile + GAP)), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    for r, (row, name) in enumerate(zip(rows, names, strict=True)):
        top = GAP + r * (LABEL + tile + GAP)
        draw.text((GAP, top), name, fill=(0, 0, 0))
        for c, picture in enumerate(row):
            image = Image.fromarray(picture).resize((tile, tile), Image.Resampling.NEAREST)
            canvas.paste(image, (GAP + c * (tile + GAP), top + LABEL))
    return canvas
