"""RUN/tensorboard: event files for `tensorboard --logdir`, the evaluations in a folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from byol.config import Plan
from byol.trackers import numbers, settings
from byol.training import Record

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

EVENTS = "events.out.tfevents.*"


class Tracker:
    """Scalars by the names of the log; settings, verdicts and notes as texts."""

    def __init__(self, run: Path, plan: Plan, done: int) -> None:
        self.folder, self.steps, self._verdict = run / "tensorboard", plan.steps, "OK"
        there = any(self.folder.glob(EVENTS))
        # What is in earlier files from this step on, TensorBoard leaves out.
        self.writer = _writer(self.folder, done + 1 if there else None)
        if not there:
            rows = [f"| {k} | {v} |" for k, v in settings(plan).items()]
            self.writer.add_text("settings", "\n".join(["| setting | value |", "|---|---|", *rows]), 0)

    def log(self, record: Record) -> None:
        """The numbers, and a verdict that changed; flushed, so that a disk that is full is known at once."""
        step = int(record["step"])
        for name, value in numbers(record).items():
            self.writer.add_scalar(name, value, step)
        before, self._verdict = self._verdict, str(record["verdict"])
        if self._verdict != before:
            self.writer.add_text("verdict", f"{self._verdict} {record['reason']}".strip(), step)
        self.writer.flush()

    def note(self, step: int, text: str) -> None:
        """A text at the step."""
        self.writer.add_text("note", text, step)

    def evaluated(self, scores: dict[str, float]) -> None:
        """The folder `evaluations`, made anew: TensorBoard shows it as a run of its own."""
        folder = self.folder / "evaluations"
        for old in folder.glob(EVENTS):
            old.unlink()
        writer = _writer(folder, None)
        for name, value in scores.items():
            writer.add_scalar(name, value, self.steps)
        writer.close()

    def close(self) -> None:
        """All is on the disk."""
        self.writer.close()


def _writer(folder: Path, purge_step: int | None) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=purge_step)
