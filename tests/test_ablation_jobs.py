"""`byol ablate --jobs N`: several processes come to what one comes to, whatever ends one or all of them."""

import json
import os
import signal
import subprocess
import sys

import pytest
from cli_calls import byol as command
from cli_calls import stripes

import byol
from byol import ablation
from byol import run as runs
from byol.ablation import Interrupted, pool
from byol.ablation.job import Silent
from byol.config import Request

SET = ("hidden=16", "dim=8", "log_steps=2", "workers=0")
ASKED = {"encoder": "small-w16", "image_size": 16, "batch_size": 16, "device": "cpu", "set": SET, "seeds": 1, "values": ("0.9", "0.99")}
WORDS = ["--encoder", "small-w16", "--image-size", 16, "--batch-size", 16, "--device", "cpu", "--set", *SET, "--seeds", 1]
EPOCHS = 20  # 40 updates: long enough to be cut off in the middle


class Watching(Silent):
    """Calls `then` at the first update that is told of each run."""

    def __init__(self, then):
        self.then, self.failures = then, {}

    def begins(self, name, plan):
        return Once(lambda: self.then(name))

    def failed(self, name, why):
        self.failures[name] = why


class Once:
    def __init__(self, then):
        self.then = then

    def step(self, done):
        then, self.then = self.then, lambda: None
        then()

    def log(self, record): ...
    def note(self, text): ...


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return stripes(tmp_path_factory.mktemp("jobs") / "photos", 32)


@pytest.fixture(scope="module")
def one_by_one(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "out"
    return out, byol.ablate("tau_base", photos, out, epochs=EPOCHS, jobs=1, **ASKED)


def weights(out):
    return {path.parent.parent.name: path.read_bytes() for path in out.glob("*/seed-0/encoder.safetensors")}


def test_runs_side_by_side_and_stopped_by_a_signal_go_on_to_the_weights_of_one_by_one(photos, one_by_one, tmp_path):
    """First one run that is stopped in the middle, then the same words, which go on with it and begin the other beside it."""
    before = signal.getsignal(signal.SIGTERM)
    stop = Watching(lambda name: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted) as stopped:
        byol.ablate("tau_base", photos, tmp_path / "out", epochs=EPOCHS, jobs=2, onlooker=stop, **ASKED | {"values": ("0.9",)})
    assert stopped.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    ((run, step),) = stopped.value.saved.items()
    assert run == str(tmp_path / "out" / "tau_base=0.9" / "seed-0")
    assert 0 < step < 2 * EPOCHS
    assert not (tmp_path / "out" / "tau_base=0.9" / "seed-0" / "encoder.safetensors").exists()
    words = ["ablate", "tau_base", photos, "--out", tmp_path / "out", *WORDS, "--epochs", EPOCHS, "--values", "0.9", "0.99"]
    call = command(*words, "--jobs", 2, "--json")
    assert call.code == 0, call.err
    assert f"2 runs; {4 * EPOCHS} steps to train, 2 at a time" in call.err
    assert max(map(len, (line for line in call.err.splitlines() if str(tmp_path) not in line))) <= 80
    out, result = one_by_one
    assert weights(tmp_path / "out") == weights(out)
    told = json.loads(call.out)
    assert [(f["knn"], f["linear"], f["positive_cosine"]) for f in told["findings"]] == [
        (f.knn, f.linear, f.positive_cosine) for f in result.findings
    ]
    assert told["baselines"].keys() == result.baselines.keys()
    assert told["failed"] == {}


def blocked(out, setting):
    """A part of a run, which nothing may write over."""
    folder = out / setting / "seed-0"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("")


def test_a_run_that_is_killed_is_said_and_the_others_go_on(photos, tmp_path, monkeypatch):
    started, start = [], subprocess.Popen

    def killed(*args, **options):
        started.append(start(*args, **options))
        if len(started) == 1:
            started[0].kill()
        return started[-1]

    blocked(tmp_path / "out", "tau_base=0.99")
    monkeypatch.setattr(pool.subprocess, "Popen", killed)
    onlooker = Watching(lambda name: None)
    result = byol.ablate("tau_base", photos, tmp_path / "out", epochs=1, jobs=2, onlooker=onlooker, **ASKED)
    assert len(started) == 2
    assert result.failed["tau_base=0.9, seed 0"] == "its process was killed by SIGKILL"
    assert "holds a run already" in result.failed["tau_base=0.99, seed 0"]
    assert onlooker.failures == result.failed
    text = " ".join("\n".join(result.lines()).split())
    assert text.count("(1 lost)") == 2
    assert "tau_base=0.9, seed 0 failed: its process was killed by SIGKILL" in text


def test_the_last_words_of_a_process_that_died_are_told(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pool.sys, "executable", "/bin/sh")
    result = byol.ablate("tau_base", photos, tmp_path / "out", epochs=1, jobs=2, **ASKED | {"values": ("0.9",)})
    (why,) = result.failed.values()
    assert why.startswith("its process ended with exit code ")
    assert "byol.ablation.child" in why


def test_a_run_that_cannot_be_trained_ends_the_command_with_1_and_a_sentence(photos, tmp_path):
    out = tmp_path / "out"
    blocked(out, "tau_base=0.9")
    call = command("ablate", "tau_base", photos, "--out", out, *WORDS, "--epochs", 1, "--values", "0.9", "0.99")
    assert call.code == 1, call.err
    told = " ".join(call.out.split())
    assert "tau_base=0.9, seed 0 failed, and the others go on; the same words try it again." in told
    assert "holds a run already" in told
    assert "Traceback" not in told
    assert (out / "tau_base=0.99" / "seed-0" / "encoder.safetensors").exists()
    assert max(map(len, (line for line in call.out.splitlines() if str(tmp_path) not in line))) <= 80


def test_a_process_whose_parent_is_gone_saves_and_stops(photos, tmp_path):
    request = Request(
        data=str(photos), epochs=EPOCHS * 10, precision="fp32", **{k: ASKED[k] for k in ("encoder", "image_size", "set", "device")}
    )
    session = runs.prepare(request)
    run = tmp_path / "run"
    job = {"name": "x", "run": str(run), "data": str(photos), "test": None, "limit": None, "device": "cpu", "baselines": False}
    told = {"job": job, "note": runs.to_note(session), "steps": session.plan.steps}
    process = subprocess.Popen([sys.executable, "-m", "byol.ablation.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        process.stdin.write(json.dumps(told).encode() + b"\n")
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        process.stdin.close()
        last = json.loads(process.stdout.read().splitlines()[-1])
    assert first == {"step": 1}
    assert last["ended"] == "interrupted"
    assert 0 < last["step"] < session.plan.steps
    assert (run / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("jobs", "cores", "gpus", "threads", "devices"),
    [
        (1, 8, [], "8", [None]),
        (3, 8, [], "2", [None] * 3),
        (16, 8, [], "1", [None] * 16),
        (4, 8, ["0", "1", "2"], "2", ["0", "1", "2", "0"]),
        (2, 8, ["5", "GPU-a", "7"], "4", ["5", "GPU-a"]),
    ],
)
def test_every_process_has_its_share_of_the_cores_and_the_next_gpu(monkeypatch, jobs, cores, gpus, threads, devices):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(pool, "cores", lambda: cores)
    monkeypatch.setattr(pool, "gpus", lambda device: gpus)
    found = pool.places(jobs, "auto")
    assert [p["OMP_NUM_THREADS"] for p in found] == [threads] * jobs
    assert [p.get("CUDA_VISIBLE_DEVICES") for p in found] == devices


def test_a_smaller_number_of_threads_that_was_asked_for_stays(monkeypatch):
    monkeypatch.setattr(pool, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert [pool.places(jobs, "cpu")[0]["OMP_NUM_THREADS"] for jobs in (1, 2, 4)] == ["3", "3", "2"]


def test_runs_that_share_a_device_share_its_minutes(photos, tmp_path, monkeypatch):
    asked = []

    def prepared(request, progress):
        asked.append(request.minutes)
        raise ValueError("enough")

    monkeypatch.setattr(runs, "prepare", prepared)
    for jobs in (1, 3):
        with pytest.raises(ValueError, match="enough"):
            byol.ablate("tau_base", photos, tmp_path / "out", minutes=6.0, device="cpu", jobs=jobs)
    assert asked == [6.0, 2.0]


def test_no_jobs_at_all_is_one_sentence(photos, tmp_path):
    call = command("ablate", "tau_base", photos, "--out", tmp_path / "out", "--jobs", 0, "--device", "cpu")
    assert call.code == 2
    assert "--jobs 0: give 1 or more" in call.err


def test_the_word_in_python_is_that_of_the_ablations():
    assert byol.ablate is ablation.ablate
    assert "ablate" in byol.__all__
