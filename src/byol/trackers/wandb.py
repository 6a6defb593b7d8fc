"""RUN/wandb: Weights & Biases, offline unless WANDB_MODE says otherwise; `wandb sync RUN/wandb/offline-run-*` sends it.

An offline run is one folder, written anew from metrics.jsonl whenever it goes on: what is sent has every step once.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from pathlib import Path

from byol.config import Plan
from byol.files import write_text
from byol.trackers import numbers, scores, settings
from byol.training import Record, trim_log


class Tracker:
    """The history has the names of the log, `verdict` and `note` among them; evaluations are in the summary."""

    def __init__(self, run: Path, plan: Plan, done: int) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline means that nobody hears of it
        import wandb

        own = _id(run)
        if mode == "offline":
            _remove(run / "wandb", own)
        quiet = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "byol"), name=run.resolve().name, id=own, resume="allow", reinit="create_new",
            mode=mode, dir=str(run), config=dict(settings(plan)), settings=quiet,
        )  # fmt: skip
        self._notes: list[str] = []
        if mode == "offline":
            for record in trim_log(run / "metrics.jsonl", done):
                self.log(record)
            self.evaluated(scores(run))

    def log(self, record: Record) -> None:
        """One line of the history. A server leaves out steps that it has, and so a resumed run has each once there, too."""
        words: dict[str, str] = {k: str(record[k]) for k in ("verdict", "reason") if k in record}
        words |= {"note": " | ".join(self._notes)} if self._notes else {}
        self.run.log({**numbers(record), **words}, step=int(record["step"]))
        self._notes = []

    def note(self, step: int, text: str) -> None:
        """It stands in the next line of the history."""
        self._notes.append(text)

    def evaluated(self, scores: dict[str, float]) -> None:
        """Numbers of the summary."""
        self.run.summary.update({f"evaluation/{name}": value for name, value in scores.items()})

    def close(self) -> None:
        """All is on the disk, or sent."""
        self.run.finish()


def _id(run: Path) -> str:
    """The name that W&B knows the run by, for good; drawn once."""
    path = run / "wandb" / "id.txt"
    if path.is_file() and re.fullmatch(r"[0-9a-f]{16}", found := path.read_text(encoding="utf-8", errors="replace").strip()):
        return found
    drawn = uuid.uuid4().hex[:16]
    write_text(path, drawn + "\n")
    return drawn


def _remove(folder: Path, own: str) -> None:
    """The offline folders of this very run; links are left alone, and so is what they lead to."""
    if not folder.is_symlink():
        for old in folder.glob(f"offline-run-*-{own}"):
            if not old.is_symlink():
                shutil.rmtree(old)
