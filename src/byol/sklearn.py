"""BYOL as a transformer of scikit-learn: fit learns an encoder without labels, transform gives its features.

It works in a `Pipeline`, in a grid search and with `clone`; what is fitted can be pickled.
"""

from __future__ import annotations

import copy
import math
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from byol import api, evaluation, methods
from byol import data as datas
from byol import run as runs
from byol.encoders import Encoder

Array = NDArray[np.generic]
_ROWS = 4096  # vectors that go through the network at once


class BYOLTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # sklearn has no types
    """Rows or images (n, ...) -> features (n, dim) of an encoder that `fit` trains on them by `byol.train`.

    X is (n, features), or images (n, h, w), (n, h, w, c) or (n, c, h, w) with raw values, as `byol train` takes them. Rows become
    images where `image_shape` is given; otherwise columns are standardised and a perceptron is trained, its views by noise and
    columns left out.

    method, recipe, encoder, epochs, batch_size, image_size, device: as in `byol train`; None leaves the choice to the recipe, whose
        number of epochs is for a good encoder, not for a quick search.
    settings: ("lr=0.3", "tau_base=0.99", ...), as `--set` of `byol train`.
    image_shape: (h, w) or (h, w, c) of the images that the rows of a 2-d X are.
    run: a new folder that keeps the run with its data, for `byol report` and `byol export`; None: a temporary one.
    random_state: of weights, order and views. The same number on the same machine and cores gives the same features.

    After `fit`: `encoder_`, as `byol.load` gives it; `verdict_`, the health of training (OK, WARN or COLLAPSED) and `reason_`.
    ValueError in one sentence where the data or a setting cannot be used; RuntimeError where training did not end.
    """

    def __init__(
        self,
        *,
        method: str = "byol",
        recipe: str = "auto",
        encoder: str | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        image_size: int | None = None,
        settings: tuple[str, ...] = (),
        image_shape: tuple[int, ...] | None = None,
        device: str = "auto",
        run: str | Path | None = None,
        random_state: int | RandomState | None = 0,
    ) -> None:
        self.method = method
        self.recipe = recipe
        self.encoder = encoder
        self.epochs = epochs
        self.batch_size = batch_size
        self.image_size = image_size
        self.settings = settings
        self.image_shape = image_shape
        self.device = device
        self.run = run
        self.random_state = random_state

    def fit(self, X: Array, y: Array | None = None) -> BYOLTransformer:
        """Train on X; y, one class a row, is looked at by a method that learns from labels alone (`supervised`)."""
        X = validate_data(self, X, dtype="numeric", allow_nd=True, ensure_min_samples=2)
        labels = y if "labels" in methods.rows_of(methods.load(self.method)) else None
        self.sample_shape_: tuple[int, ...] = X.shape[1:]
        if self.image_shape is not None and math.prod(self.image_shape) != math.prod(self.sample_shape_):
            raise ValueError(
                f"image_shape {self.image_shape} does not hold the {math.prod(self.sample_shape_)} values of a row of X; mend one"
            )
        if self._takes_rows():
            # In float64 before anything is in float32: columns may be of any scale.
            self.mean_, self.scale_ = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
            self.scale_[self.scale_ < 10 * np.finfo(np.float64).eps * np.abs(self.mean_)] = 1  # a constant column, but for rounding
            self.scale_[self.scale_ == 0] = 1
        with tempfile.TemporaryDirectory(prefix="byol-") if self.run is None else nullcontext(str(self.run)) as folder:
            self._train(X, labels, Path(folder))
        self._n_features_out = self.encoder_.dim
        return self

    def transform(self, X: Array) -> Array:
        """(n, ...) like those of `fit` -> (n, dim), of X's type where that is float32 or float64, else float32."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype="numeric", allow_nd=True)
        if X.shape[1:] != self.sample_shape_:
            raise ValueError(f"X has samples of shape {X.shape[1:]}, and those of fit had {self.sample_shape_}; give such")
        found = self._of_rows(X) if self._takes_rows() else self._of_images(X)
        return found.astype(X.dtype if X.dtype in (np.float32, np.float64) else np.float32, copy=False)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _takes_rows(self) -> bool:
        return len(self.sample_shape_) == 1 and self.image_shape is None

    def _train(self, X: Array, labels: Array | None, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        runs.refuse_existing(folder)
        held = {"x": self._standard(X) if self._takes_rows() else self._images(X)}
        if self._takes_rows():
            held["groups"] = np.arange(len(X))  # rows are in no order: a view is of its own row
        if labels is not None:
            held["y"] = np.unique(labels, return_inverse=True)[1]
        np.savez(folder / "data.npz", **held)  # type: ignore[arg-type]  # numpy's stub takes these for its own option
        trained = api.train(
            folder / "data.npz",
            folder,
            encoder=self.encoder,
            method=self.method,
            recipe=self.recipe,
            epochs=self.epochs,
            batch_size=self.batch_size,
            image_size=self.image_size,
            device=self.device,
            # What the recipe would measure on this machine could be otherwise the next time.
            precision="fp32",
            workers=0,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            set=("channels_last=false", *self.settings),
        )
        if trained.signal is not None:
            raise KeyboardInterrupt
        if trained.outcome.ended != "finished":
            raise RuntimeError(
                f"training ended as {trained.outcome.ended} at step {trained.outcome.step}; try settings=('lr=...',) with a lower rate"
            )
        self.encoder_: Encoder = api.load(folder)
        self.verdict_, self.reason_ = str(trained.outcome.record["verdict"]), str(trained.outcome.record["reason"])

    def _images(self, X: Array) -> Array:
        return X if self.image_shape is None else X.reshape(len(X), *self.image_shape)

    def _standard(self, X: Array) -> NDArray[np.float32]:
        """(n, columns) -> the same in deviations from their means."""
        found: NDArray[np.float32] = ((X - self.mean_) / self.scale_).astype(np.float32)
        return found

    @torch.no_grad()
    def _of_rows(self, X: Array) -> Array:
        # In float64, where a row alone and the same among others agree to more digits than anybody looks at.
        place = torch.device(runs.find_device(self.device))
        place = torch.device("cpu") if place.type == "mps" else place  # which has no float64
        net = copy.deepcopy(self.encoder_.net).to(place, torch.float64).eval()
        parts = [
            net(self.encoder_.preprocess(self._standard(X[i : i + _ROWS])).to(place, torch.float64)).cpu() for i in range(0, len(X), _ROWS)
        ]
        return torch.cat(parts).numpy()

    def _of_images(self, X: Array) -> Array:
        source = datas.open_source(self._images(X))
        return evaluation.features(self.encoder_, source, device=runs.find_device(self.device)).x
