"""All recipes by name: those of BYOL, and those that the files of methods state."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial

from byol.config import Request
from byol.recipes.choices import Choices, Facts, Recipe
from byol.recipes.papers import OF_SOUND, RECIPES
from byol.recipes.stated import Preset, literals


@dataclass(frozen=True)
class Named:
    """A recipe with what can be said of it."""

    method: str
    about: str
    choose: Recipe
    modality: str = "image"  # the kind of data that it is for; `auto` is for any


def every() -> dict[str, Named]:
    """All recipes by name: those of BYOL, and those in the files of the other methods."""
    found = {}
    for name, recipe in RECIPES.items():
        about = (recipe.__doc__ or "").strip().split("\n")[0]
        found[name] = Named("byol", about, recipe, "sound" if name in OF_SOUND else "image")
    for method, presets in literals("RECIPES").items():
        for name, preset in presets.items():
            found[name] = Named(method, preset["about"], partial(_chosen, preset), preset.get("modality", "image"))
    return found


def load(name: str) -> Named:
    """The recipe of that name; ValueError with the nearest name if there is none."""
    known = every()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        raise ValueError(f"no recipe {name!r}; {hint}")
    return known[name]


def method_for(request: Request) -> str:
    """The method asked for, or that of the recipe; ValueError where they do not fit."""
    own = load(request.recipe).method
    if request.recipe == "auto" or own == request.method:
        return request.method
    if request.method != Request(data="").method:
        raise ValueError(f"recipe {request.recipe} is for --method {own}, not {request.method}; leave one of them out")
    return own


def _chosen(preset: Preset, facts: Facts) -> Choices:
    c = Choices(expected=preset["expected"]).put(preset["source"], **preset["values"])
    whole = preset.get("batch", 0)
    if not whole:
        return c
    fits = facts.batch_size or min(whole, 256)
    c.put(f"the batch of {whole} that it was published with; {fits} images a pass", batch_size=fits)
    return c.put(f"to reach the batch of {whole}", accumulate=max(1, round(whole / fits)))
