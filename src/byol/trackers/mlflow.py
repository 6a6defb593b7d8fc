"""RUN/mlflow/mlflow.db: a database of MLflow with this one run, for `mlflow ui --backend-store-uri sqlite:///RUN/mlflow/mlflow.db`."""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path
from typing import Any

from byol.config import Plan
from byol.trackers import numbers, settings
from byol.training import Record

_MOST = 100  # parameters in one request; more are refused


class Tracker:
    """Parameters are the settings, metrics the numbers of the log; notes are the description, the verdict is a tag."""

    def __init__(self, run: Path, plan: Plan, done: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before it is imported; nobody else hears of a run
        from mlflow import MlflowClient, entities

        for name in ("alembic", "mlflow"):  # they tell of every table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        folder = (run / "mlflow").resolve()
        folder.mkdir(exist_ok=True)
        self.entities, self.steps = entities, plan.steps
        self.client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        found = self.client.get_experiment_by_name("byol")
        experiment = found.experiment_id if found else self.client.create_experiment("byol", artifact_location=folder.as_uri())
        runs = self.client.search_runs([experiment], max_results=1)
        if runs:
            self.id = runs[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            self.id = self.client.create_run(experiment, run_name=run.resolve().name).info.run_id
            self._begin(plan)
        self._notes = list(filter(None, [self._tag("mlflow.note.content")]))
        # Resuming repeats an update bit for bit: what is there of later steps than `done` is what would be logged again.
        self._last = max((m.step for m in self.client.get_metric_history(self.id, "loss")), default=0)

    def _begin(self, plan: Plan) -> None:
        params = [self.entities.Param(_name(k), str(v)[:500]) for k, v in settings(plan).items()]
        for start in range(0, len(params), _MOST):
            self.client.log_batch(self.id, params=params[start : start + _MOST])

    def _tag(self, name: str) -> str:
        return str(self.client.get_run(self.id).data.tags.get(name, ""))

    def log(self, record: Record) -> None:
        """The numbers at their step; nothing for a step that is there."""
        step = int(record["step"])
        if step <= self._last:
            return
        self.client.log_batch(self.id, metrics=self._metrics(numbers(record), step))
        self.client.set_tag(self.id, "verdict", f"{record['verdict']} {record['reason']}".strip())
        self._last = step

    def _metrics(self, values: dict[str, float], step: int) -> list[Any]:
        now = int(time.time() * 1000)
        return [self.entities.Metric(_name(k), v, now, step) for k, v in values.items()]

    def note(self, step: int, text: str) -> None:
        """A paragraph of the description."""
        self._notes.append(f"step {step}: {text}")
        self.client.set_tag(self.id, "mlflow.note.content", "\n\n".join(self._notes)[-4000:])

    def evaluated(self, scores: dict[str, float]) -> None:
        """Metrics at the last step; those that are there and the same stay as they are."""
        there = self.client.get_run(self.id).data.metrics
        new = {f"evaluation/{k}": v for k, v in scores.items()}
        metrics = self._metrics({k: v for k, v in new.items() if there.get(_name(k)) != v}, self.steps)
        if metrics:
            self.client.log_batch(self.id, metrics=metrics)

    def close(self) -> None:
        """The run is over for MLflow, until it is resumed."""
        self.client.set_terminated(self.id)


def _name(text: str) -> str:
    """A name as MLflow takes them."""
    return re.sub(r"[^\w\-. :/]", "_", text, flags=re.ASCII)
