"""Runs every code block of the README, in order, in a folder with a few photos of its own.

Blocks marked ```bash and ```python run as they stand, but for two things: `uv run pytest` and the `pip install` lines are
skipped (the first runs on its own, the second would change the environment), and `byol train` gets `--epochs 1`.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
SKIPPED = re.compile(r"^(uv run pytest|pip install|python -m pip|uv run byol demo|pytest$|byol demo|git clone|uv (add|pip))")


def photos(folder: Path) -> None:
    """Two kinds of pictures, 40 of each, that a network can tell apart."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for kind, colour in (("daisy", (220, 200, 40)), ("rose", (200, 30, 60))):
        (folder / kind).mkdir(parents=True)
        for i in range(40):
            picture = np.clip(noise.normal(colour, 40, (48, 64, 3)), 0, 255).astype("uint8")
            Image.fromarray(picture).save(folder / kind / f"{i:03}.png")


def lines_of(block: str) -> list[str]:
    """The commands of a shell block, comments and skipped ones left out."""
    commands = [line.split(" #")[0].strip() for line in block.splitlines()]
    commands = [c for c in commands if c and not c.startswith("#") and not SKIPPED.match(c)]
    return [c + " --epochs 1" if re.match(r"(uv run )?byol train", c) else c for c in commands]


def main() -> None:
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    if not blocks:
        sys.exit("README.md has no code blocks to run")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder) / "photos")
        for kind, block in blocks:
            commands = [[sys.executable, "-c", block]] if kind == "python" else [["bash", "-ec", c] for c in lines_of(block)]
            for command in commands:
                print("$", command[-1].strip(), flush=True)
                subprocess.run(command, cwd=folder, env=environment, check=True)


main()
