"""A run folder as a report reads it: tolerant of what is missing or damaged, since a page about half a run is still worth reading."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

from byol.config import Request
from byol.data import WORDS, Words
from byol.stored import parse, read_object

Value = str | int | float | bool | None
_LAST, _LARGEST = 2**53, 1e100  # the last step, and the largest number, that a page is made of
OWN = "own"  # the name of an encoder that the user gave as a module


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
    def words(self) -> Words:
        """What its samples are called."""
        return WORDS.get(str(self.data.get("modality")), WORDS["image"])

    @property
    def steps(self) -> int:
        """Updates planned."""
        return int(real(self.plan.get("steps")) or 0)

    @property
    def steps_per_epoch(self) -> float:
        return _steps_per_epoch(self.plan)

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
        """The command line that makes this run again: what was asked for, and what was measured then as it came out."""
        try:
            asked = Request.from_json(self.request)
        except ValueError:
            asked = Request(data=self.spec)
        decided = self.settings
        if asked.minutes is not None and isinstance(epochs := decided.get("epochs"), int):
            asked = replace(asked, minutes=None, epochs=epochs)
        if asked.precision == "auto" and decided.get("precision") in ("fp32", "bf16"):
            asked = replace(asked, precision=decided["precision"])  # type: ignore[arg-type]  # one of the two
        if isinstance(layout := decided.get("channels_last"), bool) and not any(p.startswith("channels_last=") for p in asked.set):
            asked = replace(asked, set=(*asked.set, f"channels_last={str(layout).lower()}"))  # measured, like the precision
        data, *options = asked.words()
        if asked.encoder == self.settings.get("encoder") == OWN:
            return f"# trained an encoder of your own, from Python: byol.train({data!r}, encoder=your_module)"
        return shlex.join(["byol", "train", data, "--out", str(self.path), *options])

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
        records=_records(path / "metrics.jsonl", _steps_per_epoch(plan)),
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
        return read_object(path)
    except (OSError, ValueError):
        damaged.append(path.name)
        return {}


def _steps_per_epoch(plan: dict[str, object]) -> float:
    found = real(plan.get("steps_per_epoch"))
    return found if found is not None and found >= 1e-6 else 1.0


def _records(path: Path, steps_per_epoch: float) -> list[Record]:
    """The log in the order of its steps; a line cut short by a kill is left out."""
    if not path.is_file():
        return []
    found: dict[int, Record] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = parse(line)
        except ValueError:
            continue
        fields = mapping(content)
        step = real(fields.get("step"))
        if step is not None and 1 <= step <= _LAST:
            found[int(step)] = _record(int(step), fields, steps_per_epoch)
    return [found[s] for s in sorted(found)]


def _record(step: int, fields: dict[str, object], steps_per_epoch: float) -> Record:
    values = {k: v for k, raw in fields.items() if k not in ("step", "epoch") and (v := real(raw)) is not None}
    return Record(step, step / steps_per_epoch, values, str(fields.get("verdict", "")), str(fields.get("reason", "")))


def mapping(value: object) -> dict[str, object]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: object) -> list[object]:
    """The value if it is a JSON array, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def real(value: object) -> float | None:
    """The value if it is a finite number that charts can be drawn with, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:  # false for NaN
        return value
    return None
