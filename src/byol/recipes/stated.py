"""What the files of methods state as literals, read without importing torch: recipes, values for `auto`, kind of data, published name."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NotRequired, TypedDict

from byol.config import Value


class Preset(TypedDict):
    """A recipe in the file of a method, `RECIPES = {"NAME": {...}}`, as a literal."""

    about: str  # a line for `byol list recipes`, with the published result
    expected: str  # the published result and its source; or that there is none
    source: str  # where the values come from
    values: dict[str, Value]  # fields of Settings, of the method's Config and of the views
    modality: NotRequired[str]  # the kind of data that it is for, where that is not images
    batch: NotRequired[int]  # images an update, reached by accumulation where a pass holds fewer


@cache
def literals(wanted: str) -> dict[str, dict[str, Preset]]:
    """{method: the literal of that name in its file}, of the files that have it."""
    found = {}
    for path in sorted((Path(__file__).parents[1] / "methods").glob("[!_]*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == wanted for t in node.targets):
                found[path.stem] = ast.literal_eval(node.value)
    return found


def own_values(method: str, modality: str = "image") -> Mapping[str, Value]:
    """What goes over the values of `auto` for this method: `AUTO` of its file; for other data than images `AUTO_RECORDING` and the like."""
    wanted = "AUTO" if modality == "image" else f"AUTO_{modality.upper()}"
    return literals(wanted).get(method, {})  # type: ignore[return-value]  # a literal of another shape


def kind_of(method: str) -> str:
    """The kind of data that the method is for, `MODALITY` of its file; empty where it is for any."""
    return str(literals("MODALITY").get(method, ""))


def published_as(method: str) -> str:
    """The name of the method in published tables, `PUBLISHED` of its file; empty where it is in none."""
    return str(literals("PUBLISHED").get(method, ""))
