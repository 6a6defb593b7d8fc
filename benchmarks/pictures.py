"""The pictures of docs/rgbd.md and docs/longitudinal.md, from data that are this project's own.

python benchmarks/pictures.py                                # trains LSSL on aging-shapes for some minutes
python benchmarks/pictures.py --walks runs/shapes            # from a run of LSSL that is there
python benchmarks/pictures.py --tiny --out /tmp/pictures     # a few updates, to see that it works
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import finish
from PIL import Image
from rgbd import room

import byol
from byol import registration
from byol import run as runs
from byol.encoders import Input
from byol.files import atomic
from byol.registration.subjects import ByFeatures, colour
from byol.registration.task import Frames
from byol.reporting.clouds import VIEWS, drawn, together
from byol.reporting.pictures import rgb, square
from byol.subjects import encoder_for

GAP = 8  # pixels between pictures
RGB = np.ndarray  # (H, W, 3) uint8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--walks", help="a run of LSSL on aging-shapes")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--tiny", action="store_true", help="a few frames and updates")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as own:
        clouds(Path(own), asked.out / "clouds.png", side=32 if asked.tiny else 128)
        walks(Path(asked.walks or shapes(Path(own) / "run", asked.tiny)), asked.out / "walks.png")
    finish("pictures", {"pictures": [str(asked.out / name) for name in ("clouds.png", "walks.png")]})


def shapes(out: Path, tiny: bool) -> Path:
    """LSSL on the synthetic subjects, as docs/longitudinal.md has it."""
    settings = ("optimizer=adamw", "lr=0.016", "weight_decay=1e-5")
    data, epochs = ("aging-shapes#0:64", 1) if tiny else ("aging-shapes", 25)
    byol.train(data, out, method="lssl", epochs=epochs, batch_size=32, set=settings)
    return out


def clouds(own: Path, out: Path, *, side: int) -> None:
    """Two frames of a wall, 8 apart, as taken and registered by patches of colour, from the camera and from aside."""
    folder = room(own / "room", 10, side)
    protocol = registration.load("registration:apart=8,stride=1")
    task = protocol.open(str(folder), None, None)
    _, encoder = encoder_for("random:byoc-w4", task.source())
    assert encoder is not None
    frames, pair = Frames(task.frames, encoder, 64), task.pairs[0]
    a, b = frames(pair.first), frames(pair.second)
    whole = frames.whole(pair.first), frames.whole(pair.second)
    found = next(iter(ByFeatures(colour, protocol, 0)(a, b, 0).values()))
    still = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    save(out, [[drawn(together(*motion, *whole), view, 260) for view in VIEWS for motion in (still, (found.R, found.t))]])


def walks(run: Path, out: Path) -> None:
    """What the method of a run shows of its first batch."""
    session, method = runs.reopen(run, device="cpu"), runs.restored(run)
    views, rows = next(iter(session.feed(alone=True)(0, 1)))
    (shown,) = method.exhibits(views, **rows)
    assert isinstance(session.input, Input)
    whole = np.full(3, session.input.low), np.full(3, session.input.high)
    raw = (session.input.unnormalise(row).permute(0, 2, 3, 1).numpy() for row in shown.pictures.float()[:4])
    save(out, [[square(rgb(x, whole), 96).repeat(3, 0).repeat(3, 1) for x in row] for row in raw])


def save(out: Path, grid: list[list[RGB]]) -> None:
    """Pictures of one size in rows, with white between them."""
    height, width = grid[0][0].shape[:2]
    page = np.full((len(grid) * (height + GAP) - GAP, len(grid[0]) * (width + GAP) - GAP, 3), 255, np.uint8)
    for r, row in enumerate(grid):
        for c, picture in enumerate(row):
            page[r * (height + GAP) : r * (height + GAP) + height, c * (width + GAP) : c * (width + GAP) + width] = picture
    with atomic(out) as temporary:
        Image.fromarray(page).save(temporary, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
