"""One update of every method on the same batch: processor time and memory beside BYOL's.

    python benchmarks/step_methods.py                          # the table; 90 s of one core
    python benchmarks/step_methods.py --write                  # and docs/methods/cost.json, which pages.py puts into the docs
    python benchmarks/step_methods.py --methods NAME --write   # these alone, beside BYOL; the others stay as they are written
    python benchmarks/step_methods.py --tiny                   # a small network, one round: to see that it works

An update is what training does with views that are ready: passes, loss, backward, SGD and what follows it, in the middle of a run, in
float32. Options are those that recipe `auto` has on a CPU, SwAV and DINO without small views among them.

Time is processor time of one thread. Every method has its turn once a round, and the figure is the median over the rounds of its time
over BYOL's in the same round, so that other programs on the machine matter little. Memory is counted, not measured: what autograd keeps
for the backward pass when the forward pass ends, each piece of memory once, and parameters, their gradients and buffers. It is exact, and
the same on every CPU; what an operation takes for itself while it runs, and the optimiser's state, are not in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakSet

import torch
from measure import finish, machine, side_by_side, table
from torch import Tensor

from byol import encoders, methods, optim, recipes

FILE = Path(__file__).parent.parent / "docs" / "methods" / "cost.json"
WIDTHS = {"hidden": 1024, "dim": 256}  # of recipe `auto` on a CPU
CLASSES = 10
SAMPLES = 10_000
FACTS = {"classes": CLASSES, "samples": SAMPLES}
Costs = dict[str, dict[str, float]]


def of_images() -> list[str]:
    """The methods that take images."""
    return [name for name in methods.names() if recipes.kind_of(name) in ("", "image")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--methods", nargs="+", default=of_images(), choices=of_images(), metavar="NAME", help="default: all")
    parser.add_argument("--encoder", default="small-w16")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"into {FILE.relative_to(FILE.parent.parent.parent)}")
    parser.add_argument("--tiny", action="store_true", help="a small network, one round")
    asked = parser.parse_args()
    if asked.tiny:
        asked.encoder, asked.batch_size, asked.rounds = "small-w8-n2", 8, 1
    on = {k: getattr(asked, k) for k in ("encoder", "image_size", "batch_size", "rounds")} | {"threads": 1, **machine()}
    torch.set_num_threads(1)
    found = measured(["byol", *(name for name in asked.methods if name != "byol")], asked)
    title = f"{asked.encoder}, {asked.image_size} px, batch {asked.batch_size}, one thread; x BYOL"
    head = ("", "time", "memory", "ms", "kept MB", "weights MB")
    table(title, head, [(name, *(f"{value:.2f}" for value in costs.values())) for name, costs in found.items()])
    if asked.write:
        write(on, found)
    finish("step_methods", {**on, "methods": found})


def measured(names: list[str], asked: argparse.Namespace) -> Costs:
    """{method: its figures}; the first of them is what the others are compared with."""
    updates = {name: Update(name, asked.encoder, asked.image_size, asked.batch_size) for name in names}
    sizes = {name: memory(update) for name, update in updates.items()}
    rounds = []
    for number in range(1 + asked.rounds):
        times = side_by_side(updates, rounds=1, warm=0, clock=time.process_time)
        if number:  # the first one warms up
            rounds.append({name: t.median for name, t in times.items()})
    first = names[0]
    return {
        name: {
            "time": statistics.median(r[name] / r[first] for r in rounds),
            "memory": sum(sizes[name]) / sum(sizes[first]),
            "ms": 1e3 * statistics.median(r[name] for r in rounds),
            "kept_mb": sizes[name][0] / 1e6,
            "weights_mb": sizes[name][1] / 1e6,
        }
        for name in names
    }


class Update:
    """A method with its optimiser and a batch; called, it learns once from it."""

    def __init__(self, name: str, encoder: str, size: int, batch: int) -> None:
        cls = methods.load(name)
        shape = encoders.Input(channels=3, size=size, mean=(0.5,) * 3, std=(0.25,) * 3)
        torch.manual_seed(0)
        built = encoders.load(encoders.of_kind(encoder, methods.encoder_kind(cls)), input=shape)
        config = cls.Config(**options(name))
        self.method = cls(built, config).to(memory_format=torch.channels_last)
        layout = {"memory_format": torch.channels_last}
        self.views = tuple(torch.randn(batch, 3, size, size).contiguous(**layout) for _ in methods.views_of(cls, config))
        self.rows = {row: torch.arange(batch) % (SAMPLES if row == "index" else CLASSES) for row in methods.rows_of(cls)}
        groups = self.method.param_groups()
        self.optimizer = optim.make("sgd", groups, lr=0.01, weight_decay=1e-4, momentum=0.9, trust_coefficient=1e-3)
        self.method.after_step(0.5)

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.method(self.views, **self.rows).loss.backward()
        self.optimizer.step()
        self.method.after_step(0.5)


def options(name: str) -> dict[str, object]:
    """What recipe `auto` asks of the method on a CPU."""
    known = {f.name for f in dataclasses.fields(methods.load(name).Config)}
    return {k: v for k, v in (WIDTHS | recipes.own_values(name) | FACTS).items() if k in known}


class Kept:
    """A tensor that autograd keeps, for as long as it does."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def memory(update: Update) -> tuple[int, int]:
    """Bytes that autograd keeps when a forward pass has ended; bytes of parameters, their gradients and buffers."""
    kept: WeakSet[Kept] = WeakSet()

    def keep(tensor: Tensor) -> Kept:
        one = Kept(tensor)
        kept.add(one)
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one.tensor):
        out = update.method(update.views, **update.rows)
    parameters = list(update.method.parameters())
    standing = storages([*parameters, *update.method.buffers()])
    held = sum(size for place, size in storages(one.tensor for one in kept).items() if place not in standing)
    del out  # which the graph hangs on
    return held, sum(standing.values()) + sum(p.nbytes for p in parameters if p.requires_grad)


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """{place: bytes}, each piece of memory once, however many tensors look at it."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def write(on: dict[str, object], found: Costs) -> None:
    """Into the file, beside what is there of other methods; the program ends where that was measured elsewhere."""
    before = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"on": on, "methods": {}}
    others = {name: costs for name, costs in before["methods"].items() if name not in found and name in methods.names()}
    if others and before["on"] != on:
        sys.exit(f"{FILE.name} was measured otherwise: {before['on']}; measure all methods anew")
    rows = {name: {k: round(v, 3) for k, v in costs.items()} for name, costs in sorted({**others, **found}.items())}
    FILE.write_text(json.dumps({"on": on, "methods": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
