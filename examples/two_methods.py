"""Is one method better than another? Both on the same pictures, network, budget and seeds, and the difference beside its deviation.

The pictures are the handwritten digits of scikit-learn, whose labels are used for the test alone. A method of your own is compared in the
same way: put it into `src/byol/methods/NAME.py` (the contract is on the page of the reference about parts), and give its name.

uv run python examples/two_methods.py                       # BYOL and SimSiam, three seeds each: some minutes on two cores
uv run python examples/two_methods.py byol barlow_twins --seeds 5
uv run python examples/two_methods.py --tiny                # a few updates, to see that it works
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import byol

# What holds for all: the views suit digits (no mirrored ones), the rest is left to the recipe.
SETTINGS = ("views=small", "flip=0", "gray=0", "solarize=0", "min_area=0.6")


def score(method: str, seed: int, folder: Path, tiny: bool) -> tuple[float, float]:
    """Top-1, in [0, 1], with 1 % of the labels: of the method, and of the untrained network beside it."""
    trained = byol.train(
        "digits#0:1400",
        folder / f"{method}-{seed}",
        method=method,
        encoder="small-w8-n3" if tiny else "small-w16-n3",
        epochs=1 if tiny else 20,
        batch_size=64,
        image_size=8,
        precision="fp32",
        seed=seed,
        set=SETTINGS,
    )
    (result,) = byol.evaluate(
        trained.run, "digits#0:1400", test="digits#1400:", protocols=["linear"], labels=[0.01], draws=2 if tiny else 5, seed=seed
    )
    own = next(s.top1 for s in result.scores if not s.baseline)
    return own, next(s.top1 for s in result.scores if s.name.startswith("random"))


def main(methods: list[str], seeds: int, folder: Path, tiny: bool) -> None:
    found = {m: np.array([score(m, seed, folder, tiny) for seed in range(seeds)]) * 100 for m in methods}
    print(f"linear, 1 % of the labels, top-1 %, {seeds} seeds")
    print(f"  {'untrained':14} {found[methods[0]][:, 1].mean():5.1f} +- {found[methods[0]][:, 1].std(ddof=1):.1f}")
    for name, scores in found.items():
        print(f"  {name:14} {scores[:, 0].mean():5.1f} +- {scores[:, 0].std(ddof=1):.1f}")
    # The same seed is the same split, the same labels and the same first weights, so differences are taken seed by seed.
    difference = found[methods[0]][:, 0] - found[methods[1]][:, 0]
    print(f"  {methods[0]} - {methods[1]}: {difference.mean():+.1f} +- {difference.std(ddof=1):.1f}, seed by seed")
    print("Expect both well above the untrained network. A difference below its deviation says nothing: take more seeds.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("methods", nargs="*", default=["byol", "simsiam"], help="two names of `byol list methods`")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    if len(asked.methods) != 2 or asked.seeds < 2:
        parser.error("give two methods and two seeds or more")
    with tempfile.TemporaryDirectory() as own:
        main(asked.methods, 2 if asked.tiny else asked.seeds, Path(own), asked.tiny)
