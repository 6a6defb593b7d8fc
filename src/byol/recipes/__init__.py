"""Recipes: functions from facts about the data and the device to settings, each with its reason.

`auto` derives everything from the number and size of the images; the others hold published values and say what was
published with them. What the user asked for goes over what a recipe says. The recipes of BYOL are here; those of another
method are in its file, read as literals, so that they can be listed without importing torch.
"""

from __future__ import annotations

from byol.recipes.automatic import AUTO
from byol.recipes.choices import Choices, Facts, Recipe
from byol.recipes.named import Named, every, load, method_for
from byol.recipes.papers import RECIPES
from byol.recipes.resolving import PAYS, derived, resolve
from byol.recipes.stated import Preset, kind_of, own_values, published_as

__all__ = [
    "AUTO",
    "PAYS",
    "RECIPES",
    "Choices",
    "Facts",
    "Named",
    "Preset",
    "Recipe",
    "derived",
    "every",
    "kind_of",
    "load",
    "method_for",
    "own_values",
    "published_as",
    "resolve",
]
