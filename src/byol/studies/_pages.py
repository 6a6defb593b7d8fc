"""What a study found, as lines of at most 80 columns and as files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from byol import stored
from byol.files import write_text
from byol.reporting import plot
from byol.reporting.html import duration
from byol.studies import Outcome, Study, names

WIDTH = 80
HEAD = "# Studies"  # the first line of the index


def write(study: Study, out: Path) -> Study:
    """All files of the study; the folder's README.md is made anew from what is there."""
    pictures = {f"{study.name}{f'-{i}' if i > 1 else ''}.svg": p for i, p in enumerate(study.outcome.plots, 1)}
    for file, drawn in pictures.items():
        write_text(out / file, plot.svg(drawn) + "\n")
    files = tuple(str(out / file) for file in (f"{study.name}.md", f"{study.name}.json", *pictures))
    study = dataclasses.replace(study, files=files)
    content = {k: v for k, v in study.to_json().items() if k != "files"}
    write_text(out / f"{study.name}.json", json.dumps(_finite(content), indent=1) + "\n")
    write_text(out / f"{study.name}.md", page(study, list(pictures)))
    readme = out / "README.md"
    if not readme.exists() or readme.read_text(encoding="utf-8", errors="replace").startswith(HEAD):  # never somebody else's
        write_text(readme, index(out))
    return study


def lines(outcome: Outcome) -> list[str]:
    """The table and what became of each claim, for people."""
    out = _table(outcome)
    for finding in outcome.findings:
        mark = f"{finding.verdict:<11}"
        out += wrap(finding.claim, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark))
        out += wrap(finding.evidence, WIDTH, initial_indent=" " * len(mark), subsequent_indent=" " * len(mark))
    return out


def page(study: Study, pictures: Sequence[str]) -> str:
    """The study as a page of Markdown."""
    o = study.outcome
    command = f"byol study {study.name} --seeds {' '.join(map(str, study.seeds))}"
    parts = [
        f"# {study.title}",
        study.about,
        f"Theory: {study.source}.",
        f"    {command}\n\nmade this page in {duration(study.seconds)} of processor time.",
        "## What became of the claims",
        "\n".join(f"* **{f.verdict.capitalize()}**: {f.claim} {f.evidence}" for f in o.findings),
        *(f"![{p.title}]({file})" for file, p in zip(pictures, o.plots, strict=True)),
        "## Numbers",
        "\n".join(_markdown_row(r) for r in (o.columns, ["---"] * len(o.columns), *([cell(v) for v in r] for r in o.rows))),
        "Settings: " + ", ".join(f"{k} {cell(v)}" for k, v in o.settings.items()) + ".",
    ]
    return "\n\n".join(parts) + "\n"


def index(folder: Path) -> str:
    """One line for each study whose files are in the folder."""
    rows = []
    for name in names():
        path = folder / f"{name}.json"
        if path.exists():
            found = stored.read_object(path)
            findings = found["findings"]
            assert isinstance(findings, list)
            held = sum(f["held"] is True for f in findings)
            rows.append(f"* [{name}]({name}.md): {found['title']} {held} of {len(findings)} claims held.")
    return "\n".join(
        [
            HEAD,
            "",
            f"Each page is written by the program that it is about: `byol study all --out {folder}` makes them all.",
            "`byol list studies` names the studies; a claim that does not hold is reported as a result.",
            "",
            *rows,
            "",
        ]
    )


def cell(value: str | float) -> str:
    """A number with no more digits than are read; words as they are."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "-"
    if float(value).is_integer() and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:.3g}" if not 1e3 <= abs(value) < 1e6 else f"{value:,.0f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def _table(outcome: Outcome) -> list[str]:
    """Words to the left, numbers to the right; where it would be too wide, the first cell of a row has a line of its own."""
    rows = [[cell(v) for v in row] for row in outcome.rows]
    widths = [max(map(len, column)) for column in zip(outcome.columns, *rows, strict=True)]
    right = [all(not isinstance(row[i], str) for row in outcome.rows) for i in range(len(widths))]
    own_line = sum(widths) + 2 * len(widths) > WIDTH
    out = []
    for row in (list(outcome.columns), *rows):
        cells = [f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in zip(row, widths, right, strict=True)]
        if own_line:
            out.append(f"  {row[0]}")
            cells[0] = "  "
        out.append(("  " + "  ".join(cells)).rstrip())
    return out


def _finite(value: object) -> object:
    """The value for strict JSON: what is not a finite number becomes null."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
