"""The pages of the methods, docs/methods/*.md, from what stands in their files: run it when one is new or changed.

    python benchmarks/pages.py            # writes them
    python benchmarks/pages.py --check    # exits 1 and names what is not as it would be written

The paragraphs of a method's docstring that begin with "Expect" and "Use it" are what the table says of published numbers and of when to
use it. Passes are counted on a small network with the method's default options (`byol.ablation.cost`); time and memory stand in
docs/methods/cost.json, which step_methods.py writes.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path

import torch

from byol import methods, recipes
from byol.ablation.cost import passes, small_net
from byol.optim import NORMALISATION

FOLDER = Path(__file__).parent.parent / "docs" / "methods"
COST = json.loads((FOLDER / "cost.json").read_text(encoding="utf-8"))
SAMPLES = 99_991  # of the data, where a method has a row for each; the pages say `samples` for it
MADE = "<!-- Made by benchmarks/pages.py from the files of the methods; a change here is lost. -->"
INTRO = f"""{MADE}
# Methods

    byol train DATA --method NAME
    byol list methods

A method is one file in `src/byol/methods/`, found by its name: how views become a loss, and what follows the optimiser. Encoders, views,
optimisers, checkpoints, several processes, health and evaluation are the same for all of them. `--set KEY=VALUE` changes an option;
`--recipe NAME` takes published values (`byol list recipes`); without one, `auto` chooses for your data.

Passes are batches through an encoder in one step with the default options: forward with a gradient (online), forward without (target),
and backward. Each batch holds one view of every image, or one patch or small view, which count whole.
Buffers are what a method keeps beside its networks; they are in the checkpoint.

Time and memory are of an update, relative to BYOL's, all methods in turns in one process: {{encoder}}, {{image_size}} px,
batch {{batch_size}}, float32, one thread ({{processor}}, torch {{torch}}), with the options that `auto` has on a CPU (heads of 1024 and
256 units; SwAV and DINO have two views there, no small ones), {{rounds}} rounds: `python benchmarks/step_methods.py --write`. Time is
processor time, the median of the ratios of each round. Memory is counted, so that it is exact: what autograd keeps for the backward
pass, and parameters, their gradients and buffers; not what an operation takes while it runs, nor the optimiser's state.

Published numbers are the papers', under their conditions; none has been reproduced here unless [results](../results.md) say so.

| method | views | online | target | backward | time | memory | buffers | published | use it |
|---|---|---|---|---|---|---|---|---|---|
"""
OUTRO = """
Losses differ in scale, and with plain SGD the learning rate with them: a rate is for the loss that the method's page describes.
`byol ablate methods DATA` trains all methods on the same data, encoder and epochs and prints what they reach and what a step costs.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is not as it would be written")
    asked = parser.parse_args()
    made = pages()
    if asked.check:
        there = {p.name: p.read_text(encoding="utf-8") for p in FOLDER.glob("*.md")}
        stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
        if stale:
            sys.exit(f"docs/methods: {', '.join(stale)} not as the methods' files say; run `python benchmarks/pages.py`")
        return
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """{file name: its content}"""
    names = methods.names()
    return {
        "README.md": INTRO.format(**COST["on"]) + "".join(f"{row(name)}\n" for name in names) + OUTRO,
        **{f"{name}.md": page(name) for name in names},
    }


def row(name: str) -> str:
    """The method in the table."""
    count = passes(name)
    cells = [
        f"[`{name}`]({name}.md): {first_line(name).rstrip('.')}",
        str(len(methods.views_of(methods.load(name)))),
        *(f"{count[kind]:g}" for kind in ("online", "target", "backward")),
        *cost(name),
        buffers(name) or "none",
        paragraph(name, "Expect") or "see its page",
        paragraph(name, "Use it") or "see its page",
    ]
    return f"| {' | '.join(cells)} |"


def cost(name: str) -> tuple[str, str]:
    """Time and memory of an update, relative to BYOL's; of a method that is newer than the measurement, that it is not measured."""
    found = COST["methods"].get(name)
    return (f"{found['time']:.2f}", f"{found['memory']:.2f}") if found else ("not measured", "not measured")


def page(name: str) -> str:
    """All that there is to say of a method."""
    parts = [f"{MADE}\n# `{name}`\n", f"{document(name)}\n", f"    byol train DATA --method {name}\n", options(name)]
    for where, modality in (("", "image"), (" for a recording", "recording"), (" for RGB-D frames", "rgbd")):
        own = recipes.own_values(name, modality)
        if own:
            values = ", ".join(f"`{k}={spelled(v)}`" for k, v in own.items())
            parts.append(f"Over the values of recipe `auto`{where}: {values}.\n")
    return "\n".join([*parts, of_recipes(name)]).rstrip() + "\n"


def options(name: str) -> str:
    """The fields of the method's Config with their defaults and what the source says of them."""
    config = methods.load(name).Config
    said: dict[str, str] = {}
    for cls in (c for c in reversed(config.__mro__) if dataclasses.is_dataclass(c)):
        source = Path(inspect.getfile(cls)).read_text(encoding="utf-8").splitlines()
        for node in ast.walk(ast.parse("\n".join(source))):
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                for part in node.body:
                    if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                        said[part.target.id] = source[part.end_lineno - 1].partition("  # ")[2]
    fields = dataclasses.fields(config)
    if not fields:
        return ""
    rows = [f"| `{f.name}` | `{spelled(f.default)}` | {said.get(f.name, '').replace('|', chr(92) + '|')} |" for f in fields]
    return "\n".join(["| option | default | |", "|---|---|---|", *rows, ""])


def of_recipes(name: str) -> str:
    """The recipes of the method, with what was published and where the values come from."""
    own = getattr(sys.modules[methods.load(name).__module__], "RECIPES", {})
    if not own:
        return "Its recipes are in [recipes.md](../recipes.md).\n" if name == "byol" else "There is no recipe of its own.\n"
    rows = [f"| `{title}` | {r['about']} | {r['expected']} | {r['source']} |" for title, r in own.items()]
    return "\n".join(["| recipe | | published | source of the values |", "|---|---|---|---|", *rows, ""])


def document(name: str) -> str:
    """The docstring of the method's file."""
    methods.load(name)
    return inspect.cleandoc(sys.modules[f"byol.methods.{name}"].__doc__ or "")


def first_line(name: str) -> str:
    return document(name).split("\n")[0]


def paragraph(name: str, begins: str) -> str:
    """The paragraph of the docstring that begins so, without that beginning, on one line."""
    found = re.search(rf"^{begins}\b,? ?(.*?)(?=\n\n|\Z)", document(name), re.M | re.S)
    return " ".join(found[1].split()).rstrip(".").replace("|", "\\|") if found else ""


def buffers(name: str) -> str:
    """'queue (65536, 128)': what the method keeps beside its networks; statistics of normalisation and single numbers aside."""
    cls = methods.load(name)
    known = {f.name for f in dataclasses.fields(cls.Config)}
    needed = {k: v for k, v in {"classes": 3, "channels": 1, "size": 8, "samples": SAMPLES}.items() if k in known}
    with torch.random.fork_rng(devices=[]):
        method = cls(small_net(name)[0], cls.Config(**needed))
    found = []
    for part in method.modules():
        if not isinstance(part, NORMALISATION):
            found += [f"{key} {tuple(b.shape)}" for key, b in part.named_buffers(recurse=False) if b.ndim]
    return ", ".join(found).replace(str(SAMPLES), "samples")


def spelled(value: object) -> str:
    """A value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
