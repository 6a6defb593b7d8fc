"""The commands that only look: doctor and list. Torch is imported for the lists that need it alone."""

from __future__ import annotations

import ast
from pathlib import Path

from byol import recipes
from byol.cli.options import Doctor, List
from byol.cli.screen import Screen, counted, duration, quoted


def doctor(options: Doctor, screen: Screen) -> int:
    """Is this data usable?"""
    from byol import data

    report = data.doctor(options.data, limit=options.limit, progress=lambda done, total: screen.progress("decoding", done, total))
    screen.clear()
    for line in report.lines():
        screen.say(line)
    found = report.to_json()
    if not found["usable"]:
        screen.result(found)
        return 2
    suggested = _suggested(options, "byoc" if isinstance(report, data.RgbdReport) else "byol", screen)
    screen.say(f"Suggested: {suggested['command']}")
    screen.tell(str(suggested["why"]), 11)
    screen.result(found | {"suggested": suggested})
    return 0


def _suggested(options: Doctor, method: str, screen: Screen) -> dict[str, object]:
    """The next command, with what it would train and for how long, by a plan and a few steps measured here."""
    from byol import api
    from byol.cli.plan import how_long, size_of

    command = f"byol train {quoted(options.data)}" + (f" --method {method}" if method != "byol" else "")
    found: dict[str, object] = {"command": command, "why": "--dry-run first shows plan and views"}
    if options.limit is not None:  # a look at a part does not say how long the whole takes
        return found
    session = api.plan(options.data, method=method, progress=screen.progress)
    seconds = how_long(session, screen)
    s = session.plan.settings
    why = f"{s.encoder}, {size_of(session)}, {counted(s.epochs, 'epoch')}, about {duration(seconds)} on this {s.device.upper()}"
    return found | {"why": why, "encoder": s.encoder, "image_size": s.image_size, "epochs": s.epochs, "seconds": round(seconds, 1)}


def list(options: List, screen: Screen) -> int:
    """What there is."""
    items = {"methods": methods, "recipes": of_recipes, "encoders": encoders, "data": data, "views": views, "protocols": protocols}
    items["studies"] = studies
    found = items[options.what]()
    width = max(map(len, found)) + 2
    for name, line in found.items():
        screen.tell(line, width, name)
    screen.result({options.what: found})
    return 0


def methods() -> dict[str, str]:
    """First docstring lines of the files in methods/, read without importing them: they import torch."""
    files = sorted(p for p in (Path(__file__).parents[1] / "methods").glob("*.py") if not p.stem.startswith("_"))
    return {p.stem: _first_line(ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))) for p in files}


def of_recipes() -> dict[str, str]:
    """What can be said of the recipes in a line, which holds the published result."""
    return {name: recipe.about for name, recipe in recipes.every().items()}


def encoders() -> dict[str, str]:
    """Our encoders; timm has a thousand more."""
    from byol import encoders as ours

    found = {name: ours.describe(name) for name in ours.names()}
    found["timm:NAME"] = "any encoder of timm by its name, e.g. timm:convnext_tiny or timm:vit_small_patch16_224"
    return found | {"NAME+gn+ws": "any of them with group norm for batch norm and standardised weights; also +ln, +none, +scale, +data"}


def data() -> dict[str, str]:
    """Data sets by name."""
    from byol import data as datas

    return datas.names() | datas.transfer_names() | datas.sound_set_names()


def views() -> dict[str, str]:
    """View plans, from the documentation of the functions that load them; those of recordings are named by `byol list methods`."""
    from byol import views as plans
    from byol.views import sounds

    found: dict[str, str] = {}
    for load, names in ((plans.load, plans.names()), (sounds.load, sounds.PLANS)):
        doc = [line.split(maxsplit=1) for line in (load.__doc__ or "").splitlines()]
        said = {words[0]: words[1] for words in doc if len(words) == 2}
        found |= {name: said.get(name, "") for name in names}
    return found


def protocols() -> dict[str, str]:
    """Evaluation protocols with their default settings."""
    from byol import evaluation, families

    said = {name: evaluation.describe(name) for name in evaluation.names()}
    return said | {name: families.of(name).describe(name) for name in families.names()}


def studies() -> dict[str, str]:
    """The titles of the files in studies/, read without importing them."""
    found = {}
    for path in sorted(p for p in (Path(__file__).parents[1] / "studies").glob("*.py") if not p.stem.startswith("_")):
        said = {
            target.id: node.value
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        found[path.stem.replace("_", "-")] = str(ast.literal_eval(said["TITLE"]))
    return found


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().split("\n")[0]
