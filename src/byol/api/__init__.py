"""The words of the command line as Python functions: train, resume, evaluate, embed, export, report, doctor, load, demo."""

from __future__ import annotations

from pathlib import Path

from byol import data as datas
from byol import demonstration, reporting
from byol.api.embedding import Embedded, embed
from byol.api.evaluating import evaluate, evaluate_task, store, stored
from byol.api.passing_on import export, load, pull, push, target_of
from byol.api.training import Quiet, Trained, begin, default_out, new_out, plan, resume, train
from byol.run import Progress

__all__ = [
    "Embedded",
    "Quiet",
    "Trained",
    "begin",
    "default_out",
    "demo",
    "doctor",
    "embed",
    "evaluate",
    "evaluate_task",
    "export",
    "load",
    "new_out",
    "plan",
    "pull",
    "push",
    "report",
    "resume",
    "store",
    "stored",
    "target_of",
    "train",
]

demo = demonstration.demo


def doctor(
    data: str | Path, *, limit: int | None = None, progress: Progress = Quiet
) -> datas.DoctorReport | datas.SoundReport | datas.RgbdReport:
    """Is this data usable? Decodes every image, sound or frame, and counts; nothing is written."""
    return datas.doctor(str(data), limit=limit, progress=lambda done, total: progress("Reading", done, total))


def report(run: str | Path, *others: str | Path, out: str | Path | None = None, progress: Progress = Quiet) -> Path:
    """One self-contained HTML page about one run or several side by side; by default RUN/report.html."""
    out = Path(out) if out is not None else Path(run) / "report.html"
    reporting.write([Path(run), *map(Path, others)], out, progress=progress)
    return out
