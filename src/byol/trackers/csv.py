"""RUN/metrics.csv, a row for each line of the log, and RUN/evaluations.csv; the settings are in plan.json beside them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from byol.config import Plan
from byol.files import append, write_text
from byol.training import Record

Row = dict[str, str]


class Tracker:
    """Columns are the names of the log, and `note` for what was told since the row before."""

    def __init__(self, run: Path, plan: Plan, done: int) -> None:
        self.path, self.evaluations = run / "metrics.csv", run / "evaluations.csv"
        self._notes: list[str] = []
        self.columns, rows = _read(self.path)
        kept = [row for row in rows if (step := row.get("step", "")).isdecimal() and int(step) <= done]
        whole = _text(self.columns, kept, header=True) if self.columns else ""
        if self.path.exists() and self.path.read_text(encoding="utf-8", errors="replace") != whole:  # what a kill cut short goes as well
            write_text(self.path, whole)

    def log(self, record: Record) -> None:
        """A row at the end; a column that is new makes the file anew."""
        row = {k: str(v) for k, v in record.items()} | {"note": " | ".join(self._notes)}
        new = [k for k in row if k not in self.columns]
        if new:
            _, rows = _read(self.path)
            columns = [*(c for c in self.columns if c != "note"), *(k for k in new if k != "note"), "note"]
            write_text(self.path, _text(columns, [*rows, row], header=True))
            self.columns = columns
        else:
            append(self.path, _text(self.columns, [row]))
        self._notes = []

    def note(self, step: int, text: str) -> None:
        """It stands in the next row."""
        self._notes.append(text)

    def evaluated(self, scores: dict[str, float]) -> None:
        """One row for each number."""
        write_text(self.evaluations, _text(["name", "value"], [{"name": k, "value": str(v)} for k, v in scores.items()], header=True))

    def close(self) -> None:
        """Nothing is open."""


def _read(path: Path) -> tuple[list[str], list[Row]]:
    """The columns and the rows of a file; a row that a kill cut short is none."""
    if not path.exists():
        return [], []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if None not in row and None not in row.values()]
        return list(reader.fieldnames or []), rows


def _text(columns: list[str], rows: list[Row], *, header: bool = False) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
