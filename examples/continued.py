"""Continue from a trained encoder: many pictures of one kind first, then the few of your own.

The many are the digits 0 to 4 of scikit-learn, the few are 200 of the digits 5 to 9, which the first training has not seen. Three
ways to an encoder for the few: from random weights, as the first training left it, and continued on the few from there (`--init`).

uv run python examples/continued.py             # a minute or two on two cores
uv run python examples/continued.py --tiny      # a few updates, to see that it works
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import byol

SETTINGS = ("views=small", "flip=0", "gray=0", "solarize=0", "min_area=0.6")  # a mirrored digit is another sign


def write_arrays(folder: Path) -> None:
    """many.npz, few.npz and test.npz: x (N, 8, 8) uint8, y (N,)."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = (digits.images[order] * 255 / 16).astype(np.uint8), digits.target[order]
    new = np.flatnonzero(y >= 5)
    for name, ids in (("many", np.flatnonzero(y < 5)), ("few", new[:200]), ("test", new[200:])):
        np.savez(folder / f"{name}.npz", x=x[ids], y=y[ids])


def train(folder: Path, data: str, out: str, epochs: int, **asked: object) -> Path:
    how = {"batch_size": 50, "image_size": 8, "precision": "fp32", "set": SETTINGS}
    return byol.train(folder / data, folder / out, epochs=epochs, **how, **asked).run


def main(folder: Path, tiny: bool) -> None:
    write_arrays(folder)
    net = "small-w8-n3" if tiny else "small-w16-n3"
    first = train(folder, "many.npz", "first", 1 if tiny else 30, encoder=net)
    # The encoder and its normalisation are taken over, so that no --encoder is given.
    continued = train(folder, "few.npz", "continued", 1 if tiny else 40, init=str(first))
    scratch = train(folder, "few.npz", "scratch", 1 if tiny else 40, encoder=net)

    print("linear on 10 % and all of the 200 labels, top-1 %, five draws of the 10 %")
    ways = {
        "pixels": "pixels",
        f"random:{net}": "untrained",
        scratch: "from random weights",
        first: "as the first left it",
        continued: "continued",
    }
    for encoder, says in ways.items():
        (result,) = byol.evaluate(
            encoder, folder / "few.npz", test=folder / "test.npz", protocols=["linear"], labels=[0.1, 1.0], baselines=False
        )
        print(f"  {says:22}" + "".join(f"{100 * s.top1:8.1f}" for s in result.scores))
    print(
        "Expect what was trained on the few themselves to be best, and the encoder of other digits alone to be hardly better than pixels."
    )
    print("Continuing and random weights are a point apart: with one seed that is no difference; examples/two_methods.py takes several.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        main(Path(own), asked.tiny)
