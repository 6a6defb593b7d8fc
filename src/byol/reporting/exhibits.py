"""What a method shows of its own: its pictures of the first batch of the run, as rows on the page."""

from __future__ import annotations

import numpy as np

from byol import methods, modalities
from byol import run as runs
from byol.encoders import Input
from byol.methods import Exhibit
from byol.reporting.html import Markup, join, tag
from byol.reporting.look import PICTURE, Missing
from byol.reporting.pictures import encoded, rgb, square
from byol.reporting.run import Run


def has_exhibits(run: Run) -> bool:
    """Whether the method of the run shows something of its own."""
    name = str(run.settings.get("method"))
    return name in methods.names() and callable(getattr(methods.load(name), "exhibits", None))


def exhibits(run: Run) -> Markup:
    """All of them, in the order in which the method gives them; raises Missing."""
    try:
        session = runs.reopen(run.path, device="cpu")
        method = runs.restored(run.path)
        views, rows = next(iter(session.feed(alone=True)(0, 1)))
        shown: list[Exhibit] = method.exhibits(views, **rows)  # type: ignore[operator]  # seen by has_exhibits
    except (ValueError, OSError) as error:
        raise Missing(f"What {run.settings.get('method')} shows cannot be made: {error}.", run.says("report")) from None
    if not isinstance(session.input, Input):
        return join([])
    return join(_drawn(e, session.input, session.source.modality) for e in shown)


def _drawn(e: Exhibit, input: Input, modality: str) -> Markup:
    """The title, what is to be seen, and a grid of pictures under their columns."""
    grid = [tag("span", c, class_="column") for c in e.columns]
    visible = modalities.of(modality).visible  # type: ignore[arg-type]  # a modality of a source
    low, high = np.full(3, input.low), np.full(3, input.high)
    for row in e.pictures.float().cpu():
        x = input.unnormalise(row).permute(0, 2, 3, 1).numpy()  # (C, H, W, channels) raw values
        for column, raw in zip(e.columns, x, strict=True):
            picture = square(rgb(visible(raw, input), (low, high)), 2 * PICTURE)
            grid.append(tag("img", src=encoded(picture), alt=column, class_="pixels" if len(picture) < 64 else None, loading="lazy"))
    views = tag("div", tag("div", *grid, class_="views", style=f"--columns:{len(e.columns)}"), class_="scroll")
    return tag("div", tag("h3", e.title), tag("p", e.explanation, class_="note"), views, class_="protocol")
