"""A run folder as a report reads it: tolerant of what is missing or damaged, since a page about half a run is still worth reading."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path

Value = str | int | float | bool | None
_FLAGS = ("out", "data", "set")  # written by hand in the command


@dataclass(frozen=True)
class Record:
    """One line of metrics.jsonl; values that were not finite are absent from `values`."""

    step: int
    epoch: float
    values: dict[str, float]
    verdict: str
    reason: str


@dataclass(frozen=True)
class Run:
    """What a run folder says."""

    path: Path
    name: str
    plan: dict[str, object]
    config: dict[str, object] = field(default_factory=dict)
    data: dict[str, object] = field(default_factory=dict)
    encoder: dict[str, object] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    evaluations: list[dict[str, object]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)  # files that could not be read

    @property
    def settings(self) -> dict[str, object]:
        return mapping(self.plan.get("settings"))

    @property
    def request(self) -> dict[str, object]:
        return mapping(self.config.get("request"))

    @property
    def spec(self) -> str:
        """The data as the user named it."""
        return str(self.request.get("data") or self.data.get("spec") or "DATA")

    @property
    def steps(self) -> int:
        """Updates planned."""
        return int(real(self.plan.get("steps")) or 0)

    @property
    def steps_per_epoch(self) -> int:
        return max(1, int(real(self.plan.get("steps_per_epoch")) or 1))

    @property
    def finished(self) -> bool:
        return bool(self.records) and self.records[-1].step >= self.steps

    def seconds(self) -> float:
        """Time spent training, from the rates in the log."""
        per_step = (real(self.settings.get("batch_size")) or 0) * (real(self.settings.get("accumulate")) or 1)
        last, total = 0, 0.0
        for r in self.records:
            rate = r.values.get("images_per_second", 0.0)
            total += (r.step - last) * per_step / rate if rate > 0 else 0.0
            last = r.step
        return total

    def command(self) -> str:
        """The command line that makes this run again; options that were left to the recipe stay out."""
        words = ["byol", "train", self.spec, "--out", str(self.path)]
        defaults = {"method": "byol", "recipe": "auto", "precision": "auto", "device": "auto", "on_collapse": "warn", "seed": 0}
        for key, value in self.request.items():
            # Not `value in (None, False)`: 0 workers are a choice, and 0 == False.
            if key in _FLAGS or value is None or value is False or value == defaults.get(key):
                continue
            words += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
        chosen = self.request.get("set")
        if isinstance(chosen, list | tuple) and chosen:
            words += ["--set", *map(str, chosen)]
        return shlex.join(words)

    def says(self, word: str, *more: str) -> str:
        """A command about this run, e.g. `byol resume RUN`."""
        return shlex.join(["byol", word, str(self.path), *more])


def read(path: Path, name: str | None = None) -> Run:
    """What is in the folder; ValueError if it is no run."""
    if not (path / "plan.json").is_file():
        raise ValueError(f"{path} is not a run: it has no plan.json; start one with `byol train DATA --out {path}`")
    damaged: list[str] = []
    plan = _object(path / "plan.json", damaged)
    if not plan:
        raise ValueError(f"{path / 'plan.json'} is damaged; a report needs it, so copy the run again or start it anew")
    return Run(
        path=path,
        name=name or path.name or str(path.resolve().name),
        plan=plan,
        config=_object(path / "config.json", damaged),
        data=_object(path / "data.json", damaged),
        encoder=_object(path / "encoder.json", damaged),
        records=_records(path / "metrics.jsonl", max(1, int(real(plan.get("steps_per_epoch")) or 1))),
        evaluations=[e for p in sorted((path / "evaluations").glob("*.json")) if (e := _object(p, damaged))],
        damaged=damaged,
    )


def read_all(paths: list[Path]) -> list[Run]:
    """The runs, under names that differ: the folder's, or the whole path where two folders have the same name."""
    last = [p.name for p in paths]
    return [read(p, p.name if last.count(p.name) == 1 else str(p)) for p in paths]


def _object(path: Path, damaged: list[str]) -> dict[str, object]:
    if not path.is_file():
        return {}
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        damaged.append(path.name)
        return {}
    return content


def _records(path: Path, steps_per_epoch: int) -> list[Record]:
    """The log in the order of its steps; a line cut short by a kill is left out."""
    if not path.is_file():
        return []
    found: dict[int, Record] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content: object = json.loads(line)
        except ValueError:
            continue
        fields = mapping(content)
        step = real(fields.get("step"))
        if step is not None:
            found[int(step)] = _record(int(step), fields, steps_per_epoch)
    return [found[s] for s in sorted(found)]


def _record(step: int, fields: dict[str, object], steps_per_epoch: int) -> Record:
    values = {k: v for k, raw in fields.items() if k not in ("step", "epoch") and (v := real(raw)) is not None}
    return Record(step, step / steps_per_epoch, values, str(fields.get("verdict", "")), str(fields.get("reason", "")))


def mapping(value: object) -> dict[str, object]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: object) -> list[object]:
    """The value if it is a JSON array, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def real(value: object) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None
