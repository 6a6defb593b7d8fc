"""The command line called inside the test process, and images to call it with."""

import contextlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from byol.cli import main

# A network and a number of steps that take a second.
TINY = ["--encoder", "small-w16", "--image-size", "16", "--batch-size", "16", "--precision", "fp32", "--workers", "0"]
TINY_SET = ["--set", "hidden=16", "dim=8", "log_steps=2"]


@dataclass
class Call:
    """What a command line gave back."""

    code: int
    out: str
    err: str

    @property
    def lines(self):
        return (self.out + self.err).splitlines()


def byol(*words):
    """`byol WORDS` in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main([str(w) for w in words])
    return Call(code, out.getvalue(), err.getvalue())


def stripes(folder, n=64, *, sizes=(16,)):
    """A folder of n images in two class folders: lying and standing stripes, with noise; of several sizes they are read by workers."""
    rng = np.random.default_rng(0)
    for i in range(n):
        size = sizes[i % len(sizes)]
        wave = 128 + 100 * np.sin(np.arange(size) * (0.5 + i / n))
        image = np.broadcast_to(wave[:, None] if i % 2 else wave[None], (size, size))[..., None] + rng.normal(0, 10, (size, size, 3))
        path = folder / ("lying" if i % 2 else "standing") / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    return folder
