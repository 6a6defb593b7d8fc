"""Makes image files for the data tests: ordinary ones and awkward ones."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

EXIF_ORIENTATION = 0x0112


def pixels(height=12, width=16, channels=3, seed=0, dtype=np.uint8):
    """A smooth picture with some noise, (H, W, C) or (H, W) for one channel."""
    rng = np.random.default_rng(seed)
    top = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    ramp = np.add.outer(np.linspace(0, 0.5, height), np.linspace(0, 0.3, width))[..., None]
    image = ((ramp + 0.2 * rng.random((height, width, channels))) * top).astype(dtype)
    return image[..., 0] if channels == 1 else image


def noise(size=64, seed=0):
    """(size, size, 3) of uint8 that no format can make small, so that cutting a file always costs pixels."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def encoded(image, form, **options):
    """An array or a Pillow image -> encoded bytes."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def damaged(seed=0):
    """A PNG whose header and length are fine but whose pixels do not decode."""
    data = bytearray(encoded(pixels(seed=seed), "PNG"))
    at = data.index(b"IDAT") + 6
    data[at : at + 8] = bytes(8)
    return bytes(data)


def write(path, image, form="PNG", **options):
    """Writes an encoded image, making folders as needed; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image, form, **options))
    return path


def folder(root, names, size=(12, 16), **options):
    """A folder of PNG files of these names, each with other pixels; returns the root."""
    for seed, name in enumerate(names):
        write(Path(root) / name, pixels(*size, seed=seed), **options)
    return Path(root)
