"""From a folder of pictures to a classifier, with a handful of labels, and what it would have been without the encoder.

The pictures are the handwritten digits of scikit-learn as PNG files: one folder a class, 80 % to learn from, 20 % to test.

uv run python examples/few_labels.py             # a minute or two on two cores
uv run python examples/few_labels.py --tiny      # a few updates, to see that it works
uv run python examples/few_labels.py --keep F    # leave pictures and run in the folder F
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import byol

# A mirrored digit is another sign, and a small crop of one is any digit: views should change only what does not matter.
SETTINGS = ("views=small", "flip=0", "gray=0", "solarize=0", "min_area=0.6", "lr=0.5", "tau_base=0.99", "predictor_rate=1")
LABELLED = 50  # pictures that somebody has looked at


def write_pictures(folder: Path) -> None:
    """train/CLASS/NUMBER.png and test/CLASS/NUMBER.png, 16 px, grey."""
    digits = load_digits()
    parts = train_test_split(np.arange(len(digits.target)), test_size=0.2, random_state=0, stratify=digits.target)
    for part, ids in zip(("train", "test"), parts, strict=True):
        for i in ids:
            path = folder / part / str(digits.target[i]) / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[i] * 255 / 16).astype("uint8")).resize((16, 16), Image.Resampling.BICUBIC).save(path)


def own_classifier(encoder: Path | str, folder: Path) -> float:
    """The share of test pictures that a classifier of 50 labelled features gets right: `byol.embed`, then scikit-learn."""
    found = {}
    for part in ("train", "test"):
        out = folder / "features.npz"
        byol.embed(encoder, folder / part, out)
        with np.load(out) as table:
            found[part] = table["features"], table["labels"]
    x, y = found["train"]
    few = train_test_split(np.arange(len(y)), train_size=LABELLED, random_state=0, stratify=y)[0]
    mean, deviation = x.mean(0), x.std(0) + 1e-6  # of all pictures: this needs no labels
    model = LogisticRegression(max_iter=1000).fit((x[few] - mean) / deviation, y[few])
    x, y = found["test"]
    return float(model.score((x - mean) / deviation, y))


def main(folder: Path, tiny: bool) -> None:
    write_pictures(folder)
    usable = byol.doctor(folder / "train")
    print(f"{usable.images:,} pictures to learn from, without their labels")

    net = "small-w8-n3" if tiny else "small-w32-n3"
    trained = byol.train(
        folder / "train",
        folder / "run",
        encoder=net,
        epochs=1 if tiny else 40,
        batch_size=64,
        image_size=8,
        precision="fp32",
        set=SETTINGS,
    )
    print(f"health: {trained.outcome.record['verdict']}")

    # As honest as it gets: the same labels, the same test pictures and the same classifier for pixels and an untrained network.
    (result,) = byol.evaluate(
        trained.run, folder / "train", test=folder / "test", protocols=["linear"], labels=[0.01, 0.1, 1.0], draws=2 if tiny else 5
    )
    print("\n".join(result.lines()))

    print(f"A classifier of your own, {LABELLED} labels:")
    for says, encoder in (("untrained", f"random:{net}"), ("trained", trained.run)):
        print(f"  features of the {says:9} network: {100 * own_classifier(encoder, folder):.1f} % right")
    print("Expect tens of points over pixels with 1 % of the labels, and a few with all of them: then pixels are nearly enough.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        main(asked.keep or Path(own), asked.tiny)
