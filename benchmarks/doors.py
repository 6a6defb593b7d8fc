"""Whether encoders of byol give their features where there is no byol: timm, torchvision, transformers, in an environment made for it.

    python benchmarks/doors.py            # a minute; makes an environment by uv, with the newest versions of the libraries
    python benchmarks/doors.py --tiny     # in this environment, byol made unimportable; transformers only where it is installed

Three encoders are trained for an epoch and exported. The code that loads them there is what `byol export` prints and what the model
card says, word for word. "features" is the largest difference for the same input, divided by the largest feature where that is above
1; "image" the largest difference of a photo-like image as the library prepares it, in grey levels of 255; "with it" that of the features
of the image so prepared. Fails above 1e-5 of features.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import finish, table
from PIL import Image

import byol
from byol.cli import main as command
from byol.foreign import TOLERANCE

PACKAGES = ("torch", "torchvision", "timm", "transformers", "safetensors", "huggingface_hub")
# Encoder and size -> the doors that take it.
CASES = {
    ("resnet18-stem7", 40): ("timm", "torchvision", "hub, timm", "hub, transformers"),
    ("resnet18", 32): ("torchvision",),
    ("timm:test_vit", 48): ("timm", "hub, timm", "hub, transformers"),
}
# Runs there: the code that was printed, then features of the same input, and of an image as the library prepares it.
THERE = """
import importlib.util, json, sys
if sys.argv[1] == "blocked":
    sys.modules["byol"] = None
elif importlib.util.find_spec("byol") is not None:
    sys.exit("byol can be imported here")
import numpy, PIL.Image, torch
names = {}
exec(sys.argv[2], names)
net = names.get("model") or names["net"]
features = lambda x: getattr(out := net(x), "pooler_output", out)
found = {"x": features(torch.from_numpy(numpy.load("x.npy")))}
image = PIL.Image.open("image.png")
if "transform" in names:
    found["seen"] = names["transform"](image)[None]
if "processor" in names:
    found["seen"] = names["processor"](image, return_tensors="pt")["pixel_values"]
if "seen" in found:
    found["image"] = features(found["seen"])
numpy.savez("found.npz", **{k: v.detach().numpy() for k, v in found.items()})
versions = {m: sys.modules[m].__version__ for m in ("torch", "torchvision", "timm", "transformers") if m in sys.modules}
print(json.dumps(versions))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="in this environment")
    tiny = parser.parse_args().tiny
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        python = sys.executable if tiny else environment(folder / "there")
        photos(folder / "photos")
        for (name, size), doors in CASES.items():
            run = folder / name.replace(":", "-")
            options = ("epochs=1", "batch_size=16", "hidden=16", "dim=8")
            byol.train(folder / "photos", run, encoder=name, image_size=size, device="cpu", workers=0, set=options)
            for door in doors:
                if not tiny or door != "hub, transformers" or importable("transformers"):
                    rows.append({"encoder": name, "door": door} | through(run, door, python, blocked=tiny))
    head = ("encoder", "door", "library", "features", "image", "with it")
    table("Features without byol, and images as the libraries prepare them", head, [shown(row) for row in rows])
    finish("doors", {"rows": rows, "byol_there": "made unimportable" if tiny else "not installed"})
    if any(row["features"] > TOLERANCE for row in rows):
        sys.exit(f"features differ by more than {TOLERANCE:g}")


def importable(name: str) -> bool:
    return subprocess.run([sys.executable, "-c", f"from {name} import AutoModel"], capture_output=True, check=False).returncode == 0


def environment(where: Path) -> str:
    """A new environment without byol; its Python."""
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, where], check=True)
    python = str(where / "bin" / "python")
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, *PACKAGES], check=True)
    return python


def photos(folder: Path, count: int = 64) -> None:
    """Waves of several directions and colours with noise, 150 x 120 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:120, 0:150]
    for i in range(count):
        waves = [np.sin(rng.uniform(-0.4, 0.4) * x + rng.uniform(-0.4, 0.4) * y + rng.uniform(0, 6)) for _ in range(3)]
        pixels = 128 + 90 * np.stack(waves, -1) + rng.normal(0, 10, (120, 150, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")


def through(run: Path, door: str, python: str, *, blocked: bool) -> dict[str, object]:
    """What becomes of the encoder of a run behind a door."""
    form, _, library = door.partition(", ")
    out = run / (form if form == "hub" else f"{form}.safetensors")
    code = printed(run, out, form, library or form)
    there = out if form == "hub" else run
    encoder = byol.load(run)
    x = torch.randn(6, *encoder.input.shape, generator=torch.Generator().manual_seed(0))
    image = Image.open(run.parent / "photos" / "00.png")
    np.save(there / "x.npy", x.numpy())
    image.save(there / "image.png")
    words = [python, "-I", "-c", THERE, "blocked" if blocked else "absent", code]
    done = subprocess.run(words, cwd=there, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{run.name} through {door}:\n{code}\n{done.stderr}")
    with np.load(there / "found.npz") as file:
        found = {k: torch.from_numpy(v) for k, v in file.items()}
    versions = json.loads(done.stdout.splitlines()[-1])
    with torch.no_grad():
        seen = encoder.preprocess(image)
        row: dict[str, object] = {"features": apart(encoder(x), found["x"]), "library": f"{library or form} {versions[library or form]}"}
        if "seen" in found:
            levels = torch.tensor(encoder.input.std).view(-1, 1, 1) * 255
            row["grey_levels"] = float(((found["seen"] - seen) * levels).abs().max())
            row["with_it"] = apart(encoder(seen), found["image"])
    return row | {"versions": versions}


def printed(run: Path, out: Path, form: str, library: str) -> str:
    """The Python that byol says, after an export: on the screen, or in the model card."""
    if not out.exists():
        with contextlib.redirect_stdout(io.StringIO()) as told:
            assert command(["export", str(run), "--out", str(out), "--format", form]) == 0
    if form != "hub":
        return re.sub(r"^  ", "", told.getvalue().partition("alone:\n")[2], flags=re.M)
    blocks = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), re.S)
    return next(block for block in blocks if f"import {library}\n" in block or f"from {library} import" in block)


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1)) if ours.shape == theirs.shape else float("inf")


def shown(row: dict[str, object]) -> tuple[str, ...]:
    prepared = (f"{row['grey_levels']:.2f}", f"{row['with_it']:.1g}") if "with_it" in row else ("", "")
    return str(row["encoder"]), str(row["door"]), str(row["library"]), f"{row['features']:.1g}", *prepared


if __name__ == "__main__":
    main()
