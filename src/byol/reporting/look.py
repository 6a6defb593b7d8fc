"""What the page shows of the data: a fixed sample of images, what the networks saw of some, and features of all of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from byol import encoders, exporting, modalities, rng
from byol.data import Source, Unreadable, open_source
from byol.encoders import AnyInput, Input, input_from_json
from byol.evaluation.features import extract
from byol.reporting.map import Flat, flatten
from byol.reporting.pictures import RGB, Raw, limits, rgb, square
from byol.reporting.run import Run, listing, mapping, real
from byol.run import find_device

Progress = Callable[[str, int, int], None]
Features = NDArray[np.float32]  # (N, D)
PICTURE = 96  # pixels, side of a stored picture
_SHOWN = 6  # images whose views are shown


class Missing(Exception):
    """A part of the page cannot be made: a sentence, and the command that makes it."""

    def __init__(self, sentence: str, cure: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence, self.cure = sentence, cure


@dataclass(frozen=True)
class Sample:
    """Some images of the run's data, the same for every report."""

    source: Source  # of these images alone
    data: Source  # the whole, from which they are drawn
    ids: list[int]  # of the training data
    pictures: list[RGB]  # square, at most PICTURE wide
    whole: dict[int, Raw]  # a few of the images as they are, by their place in the sample
    total: int  # images in the data
    changed: str  # how the data differs from that of the run; empty when it is the same

    @property
    def note(self) -> str:
        """What to know about the pictures."""
        return modalities.of(self.source.modality).note(self.source)

    def only(self, kept: list[int]) -> Sample:
        """Those of these places: of a long sound more is heard than is shown, and that may not be readable."""
        whole = {new: self.whole[old] for new, old in enumerate(kept) if old in self.whole}
        ids, pictures = [self.ids[k] for k in kept], [self.pictures[k] for k in kept]
        return replace(self, source=self.source.subset(kept), ids=ids, pictures=pictures, whole=whole)


@dataclass(frozen=True)
class Look:
    """Features of the sample under the trained encoder, and under the same architecture with random weights."""

    sample: Sample
    trained: Features
    random: Features | None
    encoder: str
    flat: Flat


def sample(run: Run, most: int, progress: Progress) -> Sample:
    """At most `most` images that can be read, drawn without replacement by a fixed seed; raises Missing."""
    source, changed = _source(run)
    drawn = sorted(int(i) for i in rng.permutation(0, 0, len(source), rng.STREAM_SAMPLE)[:most])
    kept: list[int] = []
    pictures: list[RGB] = []
    whole: dict[int, Raw] = {}
    modality, seen = modalities.of(source.modality), _input(run)
    for done, i in enumerate(drawn):
        progress("Reading images", done, len(drawn))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
                image = modality.sample(source, i)
        except (Unreadable, OSError):
            continue  # training lists it; for a look, another image is as good
        if len(whole) < _SHOWN and done >= len(drawn) * len(whole) // _SHOWN:
            whole[len(kept)] = image
        kept.append(i)
        pictures.append(square(rgb(modality.visible(image, seen)), PICTURE))
    progress("Reading images", len(drawn), len(drawn))
    if not kept:
        raise Missing(f"None of the images of {run.spec} can be read any more.", f"byol doctor {run.spec}")
    return Sample(source.subset(kept), source, kept, pictures, whole, len(source), changed)


def _source(run: Run) -> tuple[Source, str]:
    """The run's data as it is now, and a sentence if it is not what the run was trained on."""
    try:
        source = open_source(run.spec, limit=_whole(run.request.get("limit")))
    except (ValueError, OSError) as error:
        raise Missing(
            f"The images of this run cannot be opened, so views, neighbours and map are missing: {error}. Put them back, then:",
            run.says("report"),
        ) from None
    if not len(source):
        raise Missing(
            f"{run.spec} holds no images any more, so views, neighbours and map are missing. Put them back, then:", run.says("report")
        )
    then = run.data.get("fingerprint")
    if then is None or source.fingerprint() == then:
        return source, ""
    # What could not be decoded when the run read everything into memory is not part of its data.
    left_out = {str(mapping(s).get("name")) for s in listing(run.data.get("skipped"))}
    less = source.without({i: "left out by the run" for i, name in enumerate(source.names) if name in left_out})
    if less.fingerprint() == then:
        return less, ""
    count = int(real(run.data.get("images")) or 0)
    return (
        source,
        f"The data has changed since this run ({count:,} images then, {len(source):,} now); pictures are of the data as it is now.",
    )


def _input(run: Run) -> AnyInput | None:
    """What the run's encoder sees; None where the plan cannot be understood."""
    try:
        return input_from_json(mapping(run.plan.get("input")))
    except (ValueError, TypeError, KeyError):
        return None


def _whole(value: object) -> int | None:
    found = real(value)
    return None if found is None else int(found)


def views_of(run: Run, shown: Sample) -> tuple[list[list[RGB]], int]:
    """(rows, V): for each image kept whole the original, its V views of the first epoch and those of the second; raises Missing."""
    import torch

    try:
        seen = input_from_json(mapping(run.plan.get("input")))
        size, bottom, top = (seen.size, seen.low, seen.high) if isinstance(seen, Input) else (seen.frames, 0.0, 1.0)
        settings = run.settings
        changes = mapping(run.plan.get("views"))
        modality = modalities.of(shown.data.modality)
        plan = modality.plan(str(settings.get("views")), shown.data, size, takes=None, compiled=None, changes=changes)  # type: ignore[arg-type]
        images, places = list(shown.whole.values()), list(shown.whole)
        ids = torch.tensor([shown.ids[p] for p in places])
        seed = _whole(settings.get("seed")) or 0
        epochs = [modality.seen(plan, shown.data, images, ids, seed, epoch, seen) for epoch in (0, 1)]
    except (ValueError, TypeError, KeyError) as error:
        raise Missing(f"The views cannot be drawn again: {error}.", run.says("report")) from None
    rows = []
    for n, raw in enumerate(images):
        image = modality.visible(raw, seen)
        low, high = limits(image)
        stretch = ((low - bottom) / (top - bottom), (high - bottom) / (top - bottom))
        drawn = [np.moveaxis(v[n].numpy(), 0, 2) for epoch in epochs for v in epoch]
        rows.append([square(rgb(image), 2 * PICTURE), *(square(rgb(d, stretch), 2 * PICTURE) for d in drawn)])
    return rows, len(plan.pipelines)


def look(run: Run, shown: Sample, progress: Progress) -> Look:
    """Features of the sample and their map; raises Missing when there is no encoder or no map to be made."""
    if not (run.path / "encoder.safetensors").is_file():
        raise Missing("There is no encoder yet, because the run did not finish, so neighbours and map are missing.", run.says("resume"))
    try:
        encoder = exporting.load_encoder(run.path)
    except (ValueError, OSError) as error:
        raise Missing(f"The encoder cannot be loaded, so neighbours and map are missing: {error}.") from None
    twin = encoders.random_twin(encoder)
    found = extract([encoder, *([twin] if twin else [])], shown.source, device=find_device("auto"), progress=progress)
    if not len(found[0].kept):
        raise Missing("The images could be read once and then no more, so neighbours and map are missing.", f"byol doctor {run.spec}")
    shown = shown.only(found[0].kept.tolist())
    trained, random = np.nan_to_num(found[0].x), np.nan_to_num(found[1].x) if twin else None
    progress("Drawing the map", 0, 1)
    return Look(shown, trained, random, encoder.name, flatten(trained))
