import csv
import json
import math
import os
import signal
import struct
import sys
import time
import types
import warnings
from pathlib import Path

import pytest
from cli_calls import TINY, TINY_SET, byol, stripes

import byol as package
from byol import config, trackers
from byol.cli.options import Train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ASKED = {"encoder": "small-w16", "image_size": 16, "batch_size": 16, "precision": "fp32", "workers": 0, "epochs": 3}
SET = ("hidden=16", "dim=8", "log_steps=2")


class Onlooker:
    """Stops the run after one update as Ctrl-C does, or dies when another is logged."""

    def __init__(self, stop=None, die=None):
        self.stop, self.die, self.notes = stop, die, []

    def step(self, done):
        if done == self.stop:
            os.kill(os.getpid(), signal.SIGINT)
        if self.die is not None and done > self.die:
            raise RuntimeError("killed")

    def log(self, record):
        pass

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return stripes(tmp_path_factory.mktemp("tracked") / "stripes")


def logged(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def broken_off(data, run, *names):
    """A run of 12 updates: interrupted after 4, killed after 8, which the checkpoint does not have, and resumed to its end."""
    assert package.train(data, run, track=names, set=SET, watcher=Onlooker(stop=4), **ASKED).outcome.ended == "interrupted"
    dies, last = Onlooker(die=8), Onlooker()
    with pytest.raises(RuntimeError, match="killed"):
        package.resume(run, watcher=dies)
    assert [r["step"] for r in logged(run)] == [1, 2, 4, 6, 8]
    assert package.resume(run, watcher=last).outcome.ended == "finished"
    assert dies.notes + last.notes == []
    assert [r["step"] for r in logged(run)] == [1, 2, 4, 6, 8, 10, 12]
    return run


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return broken_off(data, tmp_path_factory.mktemp("runs") / "run", "csv", "tensorboard")


def events(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def test_a_run_that_was_killed_has_every_step_once_in_csv_with_the_numbers_of_the_log(run):
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, record in zip(rows, logged(run), strict=True):
        assert {k: str(v) for k, v in record.items()} | {"note": ""} == row


def test_a_run_that_was_killed_has_every_step_once_in_tensorboard_with_the_numbers_of_the_log(run):
    found, records = events(run / "tensorboard"), logged(run)
    assert set(found.Tags()["scalars"]) == {k for k, v in records[0].items() if not isinstance(v, str) and k != "step"}
    for name in found.Tags()["scalars"]:
        points = found.Scalars(name)
        assert [p.step for p in points] == [r["step"] for r in records]
        assert [p.value for p in points] == pytest.approx([r[name] for r in records], rel=1e-6)
    [settings] = found.Tensors("settings/text_summary")
    plan = json.loads((run / "plan.json").read_text())
    assert f"| lr | {plan['settings']['lr']} |".encode() in settings.tensor_proto.string_val[0]


def test_trackers_change_no_weight_of_a_run(data, run, tmp_path):
    package.train(data, tmp_path / "alone", set=SET, **ASKED)
    assert (tmp_path / "alone" / "encoder.safetensors").read_bytes() == (run / "encoder.safetensors").read_bytes()


def test_evaluations_of_a_tracked_run_are_told_however_often_it_is_evaluated(data, run):
    for draws in ("2", "3"):
        assert byol("evaluate", run, data, "--protocol", "knn", "--labels", "0.5", "1", "--draws", draws).code == 0
    stored = {p.stem: json.loads(p.read_text())["scores"] for p in (run / "evaluations").glob("*.json")}
    assert set(stored) == {"knn", "knn-2"}
    wanted = {f"{k}/{Path(s['name']).name}/{s['labels']:g}/top-1": s["top1"] for k, scores in stored.items() for s in scores}
    assert len(wanted) == 12  # run, pixels and random network, two shares of labels, twice
    with (run / "evaluations.csv").open(newline="") as file:
        assert {row["name"]: float(row["value"]) for row in csv.DictReader(file)} == wanted
    found = events(run / "tensorboard" / "evaluations")
    points = {name: found.Scalars(name) for name in found.Tags()["scalars"]}
    assert {name: [p.step for p in ps] for name, ps in points.items()} == {name: [12] for name in wanted}
    assert {name: ps[0].value for name, ps in points.items()} == pytest.approx(wanted, rel=1e-6)
    assert byol("report", run).code == 0
    assert byol("resume", run).code == 0


def test_numbers_of_every_kind_of_evaluation_are_told(tmp_path):
    kinds = {
        "depth": [{"name": "a", "mode": "frozen", "metrics": {"rms": [1.0, 3.0], "rel": [0.5]}}],
        "progression": [{"name": "a", "direction": "tau", "values": {"r": 0.5}, "intervals": {"r": [0, 1]}}],
        "registration": [{"name": "a", "features": "both", "metrics": {"R": 0.25}, "pairs": {"R": [0.0, 0.5]}}],
        "damaged": [None, 3, {"name": "a", "metrics": "x"}, {"metrics": {"x": [], "y": "z"}}],
    }
    (tmp_path / "evaluations").mkdir()
    for name, scores in kinds.items():
        (tmp_path / "evaluations" / f"{name}.json").write_text(json.dumps({"scores": scores}))
    (tmp_path / "evaluations" / "torn.json").write_text('{"scores": [')
    assert trackers.scores(tmp_path) == {
        "depth/a/frozen/rms": 2.0, "depth/a/frozen/rel": 0.5, "progression/a/tau/r": 0.5, "registration/a/both/R": 0.25
    }  # fmt: skip


class Bad:
    """A tracker that fails when it is told for the n-th time."""

    def __init__(self, *, after):
        self.left = after

    def __call__(self, run, plan, done):
        self._count()
        return self

    def log(self, record):
        self._count()

    def note(self, step, text):
        self._count()

    def evaluated(self, scores):
        self._count()

    def close(self):
        self._count()

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("after", [0, 2])
def test_a_tracker_that_fails_is_switched_off_with_one_note_and_the_run_goes_on(data, tmp_path, monkeypatch, after):
    monkeypatch.setitem(sys.modules, "byol.trackers.tensorboard", types.SimpleNamespace(Tracker=Bad(after=after)))
    seen = Onlooker()
    trained = package.train(data, tmp_path / "run", track=("tensorboard", "csv"), set=SET, watcher=seen, **ASKED)
    assert trained.outcome.ended == "finished"
    assert len(seen.notes) == 1
    assert "--track tensorboard is switched off ([Errno 28] No space left on device)" in seen.notes[0]
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert any("tensorboard is switched off" in row["note"] for row in csv.DictReader(file))
    done = byol("evaluate", tmp_path / "run", data, "--protocol", "knn", "--no-baselines")
    assert done.code == 0
    assert "--track tensorboard is switched off" in " ".join(done.out.split())


def test_a_folder_where_a_tracker_writes_a_file_costs_the_tracker_alone(data, tmp_path):
    (tmp_path / "run" / "metrics.csv").mkdir(parents=True)
    seen = Onlooker()
    assert package.train(data, tmp_path / "run", track=("csv",), set=SET, watcher=seen, **ASKED).outcome.ended == "finished"
    assert "--track csv is switched off" in seen.notes[0]


def test_a_csv_that_a_kill_cut_short_or_that_has_new_columns_is_made_whole(data, tmp_path):
    from byol.trackers.csv import Tracker

    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,note\n1,0.5,\n2,0.25,\n3,0.1\n2000,1,\nx,1,\n4,0.")
    tracker = Tracker(tmp_path, None, 3)
    assert path.read_text() == "step,loss,note\n1,0.5,\n2,0.25,\n"
    tracker.note(3, "a, b")
    tracker.log({"step": 4, "loss": math.nan, "rank": 2.0})
    assert path.read_text() == 'step,loss,rank,note\n1,0.5,,\n2,0.25,,\n4,nan,2.0,"a, b"\n'


def test_a_package_that_is_missing_is_one_sentence_before_anything_is_written(data, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    done = byol("train", data, "--out", tmp_path / "run", "--track", "csv", "wandb", *TINY, *TINY_SET)
    assert done.code == 2
    assert 'byol: --track wandb needs the package wandb; install it with: pip install "byol[wandb]"' in " ".join(done.err.split())
    assert not (tmp_path / "run").exists()


def test_names_of_trackers_are_checked_and_remembered():
    from typing import get_args, get_type_hints

    assert get_args(get_args(get_type_hints(Train)["track"])[0]) == trackers.NAMES
    with pytest.raises(ValueError, match="track is 'excel'; give one of csv, tensorboard, wandb, mlflow"):
        config.Request(data="x", track=("excel",))
    with pytest.raises(ValueError, match="track is 'csv'; give the names in a tuple"):
        config.Request(data="x", track="csv")
    asked = config.Request(data="x", track=("csv", "wandb"), set=("lr=1",))
    assert asked.words() == ["x", "--track", "csv", "wandb", "--set", "lr=1"]
    assert byol("train", "x", "--track", "excel").code == 2


def test_the_first_of_two_processes_tracks(data, tmp_path):
    done = byol_in_two("train", data, "--out", tmp_path / "run", "--track", "csv", "tensorboard", "--epochs", "1", *TINY, *TINY_SET)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + len(logged(tmp_path / "run"))
    assert len(list((tmp_path / "run" / "tensorboard").glob("events*"))) == 1


def byol_in_two(*words):
    import subprocess

    words = [sys.executable, "-m", "byol", *map(str, words), "--devices", "2"]
    return subprocess.run(words, capture_output=True, text=True, timeout=300)


def wandb_records(path):
    """A .wandb file is a LevelDB log of messages: blocks of 32 kB, records of (crc 4, length 2, kind 1)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from wandb.proto.wandb_internal_pb2 import Record

    content, at, message = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        message += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(message)
            message = b""


def test_a_run_that_was_killed_is_one_offline_folder_of_wandb_with_every_step_once(data, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = broken_off(data, tmp_path / "run", "wandb")
    assert byol("evaluate", run, data, "--protocol", "knn").code == 0
    [path] = (run / "wandb").glob("offline-run-*/*.wandb")
    until = time.monotonic() + 60  # W&B's own process writes the end of the file a little after `finish`
    records = list(wandb_records(path))
    while not any(r.HasField("exit") for r in records) and time.monotonic() < until:
        time.sleep(0.1)
        records = list(wandb_records(path))
    rows = [{i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in r.history.item} for r in records if r.HasField("history")]
    assert [row["_step"] for row in rows] == [r["step"] for r in logged(run)]
    assert [row["loss"] for row in rows] == [r["loss"] for r in logged(run)]
    assert [row["verdict"] for row in rows] == [r["verdict"] for r in logged(run)]
    [begun] = [r.run for r in records if r.HasField("run")]
    settings = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in begun.config.update}
    assert settings["lr"] == json.loads((run / "plan.json").read_text())["settings"]["lr"]
    told = {i.key or "/".join(i.nested_key) for r in records if r.HasField("summary") for i in r.summary.update}
    assert {f"evaluation/{name}" for name in trackers.scores(run)} <= told


def test_a_run_that_was_killed_has_every_step_once_in_mlflow(data, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    run = broken_off(data, tmp_path / "run", "mlflow")
    for _ in range(2):
        done = byol("evaluate", run, data, "--protocol", "knn")
        assert done.code == 0
        assert "switched off" not in done.out
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run / 'mlflow' / 'mlflow.db'}")
    [experiment] = client.search_experiments(filter_string="name = 'byol'")
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    for name in ("loss", "lr", "tau", "spread", "rank", "images_per_second"):
        history = sorted(client.get_metric_history(found.info.run_id, name), key=lambda m: m.step)
        assert [m.step for m in history] == [r["step"] for r in logged(run)]
        if name != "images_per_second":
            assert [m.value for m in history] == [r[name] for r in logged(run)]
    assert float(found.data.params["lr"]) == json.loads((run / "plan.json").read_text())["settings"]["lr"]
    assert found.data.tags["verdict"].split()[0] == logged(run)[-1]["verdict"]
    scores = trackers.scores(run)
    assert {name: found.data.metrics[f"evaluation/{name}"] for name in scores} == scores
    assert all(len(client.get_metric_history(found.info.run_id, f"evaluation/{name}")) == 1 for name in scores)


def test_a_csv_whose_last_row_alone_was_cut_short_loses_that_row_and_no_other(tmp_path):
    from byol.trackers.csv import Tracker

    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,note\n1,0.5,\n2,0.")
    Tracker(tmp_path, None, 1).log({"step": 2, "loss": 0.25})
    assert path.read_text() == "step,loss,note\n1,0.5,\n2,0.25,\n"
