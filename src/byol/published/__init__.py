"""What was published: every number of the papers' tables with its protocol and source, and which of them belong beside a measured one.

The numbers are data (`results.csv`), not code. None of them was measured with this package.
"""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("results.csv")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One published number."""

    table: str  # "linear", "transfer-linear", ...; of ablations of images the name that `byol ablate` takes
    method: str  # "SimCLR (repro)": as BYOL's authors reproduced it
    network: str
    epochs: int | None  # of training without labels; None: not said, or none
    trained_on: str  # data without labels (of a supervised network, with them); empty: none
    data: str  # what it was measured on
    labels: float  # share of the training labels
    setting: str  # what was varied, e.g. "tau_base=0.99"; else empty
    protocol: str
    metric: str
    value: float  # percent, but for rms, rel and cosines
    deviation: float | None  # over seeds, where it is given
    source: str
    verified: bool  # the number was read in its source, not in a third place
    note: str

    def to_json(self) -> dict[str, object]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


@cache
def everything() -> tuple[Row, ...]:
    """All rows, in the order of the papers."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_row(fields) for fields in csv.DictReader(file))


def _row(f: dict[str, str]) -> Row:
    return Row(
        table=f["table"],
        method=f["method"],
        network=f["network"],
        epochs=int(f["epochs"]) if f["epochs"] else None,
        trained_on=f["trained_on"],
        data=f["data"],
        labels=float(f["labels"]),
        setting=f["setting"],
        protocol=f["protocol"],
        metric=f["metric"],
        value=float(f["value"]),
        deviation=float(f["deviation"]) if f["deviation"] else None,
        source=f["source"],
        verified=f["verified"] == "yes",
        note=f["note"],
    )


def tables() -> list[str]:
    """The names of the tables."""
    return list(dict.fromkeys(r.table for r in everything()))


def rows(**wanted: str | float | None) -> list[Row]:
    """The rows whose fields have these values: `rows(table="linear", network="resnet50", metric="top-1")`.

    Raises ValueError for a field that rows do not have, and for a table that there is not.
    """
    known = [f.name for f in dataclasses.fields(Row)]
    odd = next((name for name in wanted if name not in known), None)
    if odd is not None:
        raise ValueError(f"published rows have no field {odd!r}; they have {', '.join(known)}")
    if "table" in wanted and wanted["table"] not in tables():
        raise ValueError(f"there is no published table {wanted['table']!r}; there are {', '.join(tables())}")
    return [r for r in everything() if all(getattr(r, name) == value for name, value in wanted.items())]


def of_method(method: str) -> Row | None:
    """The row by which a method is compared with others, linear on ImageNet with a ResNet-50; None where nothing was published.

    BYOL's own table first, then the methods' reports, of which the first is the one that their authors stand for, then other people's.
    """
    for table in ("linear", "comparators", "linear-others"):
        found = rows(table=table, method=method, network="resnet50", data="imagenet", metric="top-1", labels=1.0)
        if found:
            return found[0]
    return None


def value(table: str, setting: str, *, method: str = "BYOL", metric: str = "top-1", **wanted: str | float | None) -> Row | None:
    """The row of an ablation at a setting such as "tau_base=0.99"; None where nothing was published."""
    found = rows(table=table, setting=setting, method=method, metric=metric, **wanted)
    return found[0] if found else None
