"""Several processes on this machine, over gloo: the same numbers as one, and what happens when one of them fails."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from together import MIXING, TESTS, everything, start

import byol
from byol import dist, methods, recipes, run
from byol.training import trim_log

# Sums in another order: 24 updates of a network in float32. Nothing but rounding, which an update can double.
FLOAT32 = 1e-2


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The same trainings in 1, 2 and 4 processes."""
    out = tmp_path_factory.mktemp("together")
    teams = [start(count, [TESTS / "together.py", out], port=free_port()) for count in (2, 4)]
    everything(out)
    assert [p.wait(900) for team in teams for p in team] == [0] * 6
    return out


def log(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


KINDS = ["lars-1-float64", "sgd-2-float64", "adamw-1-float64", "sgd-1-float32"]


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(("name", "kind"), [*((n, k) for n in methods.names() for k in KINDS), *((n, "sgd-2-float64") for n in MIXING)])
def test_any_number_of_processes_gives_the_losses_and_weights_of_one(trained, name, kind, count):
    if "float32" in kind and recipes.kind_of(name) == "rgbd":
        pytest.skip("rounding decides between matches that are nearly as good as each other")
    alone, together = trained / f"{name}-{kind}-1", trained / f"{name}-{kind}-{count}"
    # AdamW scales up what little gradient there is, even the rounding of a bias before batch norm.
    bound = FLOAT32 if "float32" in kind else 1e-8 if "adamw" in kind else 1e-10
    ours, theirs = (torch.load(folder / "weights.pt", weights_only=True) for folder in (together, alone))
    for key, value in theirs.items():
        assert (ours[key] - value).abs().max() <= bound * max(1, value.abs().max()), key
    for mine, other in zip(log(together), log(alone), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], abs=bound)
        assert mine["grad_norm"] == pytest.approx(other["grad_norm"], rel=10 * bound)
        for key in ("spread", "negative_cosine", "rank", "target_cosine"):
            size = max(1, abs(other.get(key, 0)))  # a rank goes up to the dimension, the others to 1
            assert mine.get(key) == pytest.approx(other.get(key), abs=max(bound, 1e-5) * size), key  # health is measured in float32


@pytest.fixture
def photos(tmp_path):
    return pictures(tmp_path / "photos", 48)


def pictures(folder, count, *, one_size=False):
    noise = np.random.default_rng(0)
    for i in range(count):
        (folder / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        size = (20, 24) if i % 3 or one_size else (28, 20)
        Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / "ab"[i % 2] / f"{i:02}.png")
    return folder


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_shares_of_the_processes_are_the_views_of_one(tmp_path, monkeypatch, in_memory):
    session = run.prepare(byol.config.Request(data=str(pictures(tmp_path / "p", 24, one_size=in_memory)), image_size=16, batch_size=8))
    assert (session.memory is not None) is in_memory

    def views(rank, size):
        monkeypatch.setattr(dist, "rank", lambda: rank)
        monkeypatch.setattr(dist, "size", lambda: size)
        return [views for views, _ in session.feed()(2, 5)]

    alone = views(0, 1)
    shares = [views(rank, 4) for rank in range(4)]
    for step, whole in enumerate(alone):
        for view in (0, 1):
            torch.testing.assert_close(torch.cat([share[step][view] for share in shares]), whole[view], rtol=0, atol=1e-5)


def byol_command(*words, **env):
    return subprocess.Popen(
        [sys.executable, "-m", "byol", *map(str, words)],
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finished(*words):
    process = byol_command(*words)
    said = process.communicate(timeout=300)
    assert process.returncode == 0, said


TINY = ["--encoder", "small-w16", "--image-size", "16", "--epochs", "12", "--batch-size", "16", "--precision", "fp32", "--workers", "0"]
SET = ["--set", "hidden=16", "dim=8", "log_steps=1", "channels_last=true", "checkpoint_minutes=0"]


def until_logged(out, lines, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_text().count("\n") >= lines:
            return
        time.sleep(0.01)
    raise AssertionError(f"the run did not come so far: {process.communicate(timeout=5)}")


def of_the_team(process):
    """The processes that the command started, by rank."""
    rank_of = {}
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        rank_of.update({int(w[5:]): int(pid) for w in words if w.startswith(b"RANK=")})
    return [rank_of[rank] for rank in sorted(rank_of)]


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="finds the processes in /proc, which is Linux's")


@needs_proc
def test_a_run_of_two_processes_is_killed_resumed_bit_for_bit_and_goes_on_with_another_number(photos, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    finished("train", photos, "--out", whole, "--devices", 2, *TINY, *SET)
    process = byol_command("train", photos, "--out", out, "--devices", 2, *TINY, *SET)
    until_logged(out, 8, process)
    os.kill(of_the_team(process)[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "process 1 of 0 to 1 was killed by SIGKILL" in said
    assert "Traceback" not in said
    resumed = byol_command("resume", out)  # as many processes as it began with
    until_logged(out, 14, resumed)
    resumed.send_signal(signal.SIGTERM)
    said, _ = resumed.communicate(timeout=60)
    assert "byol resume" in said
    assert resumed.returncode not in (0, 1, 2)
    halfway = trim_log(out / "metrics.jsonl", 10**9)[-1]["step"]
    assert halfway < 36
    for name in ("config.json", "plan.json", "data.json", "metrics.jsonl", "last.safetensors"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_bytes((out / name).read_bytes())
    finished("resume", out)
    ours, theirs = (byol.load(folder).state_dict() for folder in (out, whole))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    # One goes on where two stood: the same samples and views, sums in another order.
    byol.resume(tmp_path / "other")
    assert [r["step"] for r in log(tmp_path / "other")] == [r["step"] for r in log(whole)]
    following = [r["loss"] for r in log(tmp_path / "other") if r["step"] == halfway + 1]
    assert following == pytest.approx([r["loss"] for r in log(whole) if r["step"] == halfway + 1], abs=1e-3)


HANG = """
import os, sys
if os.environ.get("RANK") == "1" and "train" in sys.argv:
    import threading, time
    def later():
        while "byol.training" not in sys.modules or not hasattr(sys.modules["byol.training"], "Loop"):
            time.sleep(0.01)
        loop, update = sys.modules["byol.training"].Loop, sys.modules["byol.training"].Loop.update
        def stuck_in_a_driver(self, step, passes):
            if step == 3:
                time.sleep(1000)
            update(self, step, passes)
        loop.update = stuck_in_a_driver
    threading.Thread(target=later, daemon=True).start()
"""


def test_a_process_that_hangs_takes_the_others_down_and_says_where_it_stood(photos, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HANG)
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    process = byol_command(
        "train", photos, "--out", tmp_path / "run", "--devices", 2, *TINY, *SET, PYTHONPATH=path, BYOL_TIMEOUT_MINUTES="0.3"
    )
    _, said = process.communicate(timeout=120)
    assert process.returncode not in (0, None)
    assert "another process ended, or did not answer" in said
    assert "stuck_in_a_driver" in said
    finished("resume", tmp_path / "run")


@needs_proc
def test_no_process_outlives_the_one_that_watches(photos, tmp_path):
    process = byol_command("train", photos, "--out", tmp_path / "run", "--devices", 2, *TINY, *SET)
    until_logged(tmp_path / "run", 3, process)
    team = of_the_team(process)
    process.kill()
    process.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(alive(pid) for pid in team):
        time.sleep(0.05)
    assert not any(alive(pid) for pid in team)


def alive(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_embed_writes_one_part_each_and_evaluate_scores_as_one_process_does(photos, tmp_path):
    (photos / "a" / "torn.png").write_bytes((photos / "a" / "00.png").read_bytes()[:200])
    out = tmp_path / "run"
    byol.train(photos, out, encoder="small-w16", image_size=16, epochs=1, batch_size=16, precision="fp32", device="cpu")
    one = byol.embed(out, photos, tmp_path / "one.parquet", device="cpu")
    process = byol_command("embed", out, photos, "--out", tmp_path / "two.parquet", "--devices", 2, "--device", "cpu", "--json")
    said, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    assert sorted(p.name for p in (tmp_path / "two.parquet").iterdir()) == [f"part-0000{i}-of-00002.parquet" for i in (0, 1)]
    whole, parts = (pyarrow.parquet.read_table(tmp_path / f"{n}.parquet").to_pydict() for n in ("one", "two"))
    assert parts["name"] == whole["name"]
    assert parts["label"] == whole["label"]
    np.testing.assert_allclose(parts["embedding"], whole["embedding"], rtol=1e-4, atol=1e-5)
    told = json.loads(said.splitlines()[-1])
    assert told["images"] == one.images == 48
    assert len(told["skipped"]) == len(one.skipped) == 1
    asked = ("knn", "linear-sgd:epochs=2,batch_size=16")  # the second trains on crops, in the first process alone
    scores = byol.evaluate(out, photos, protocols=asked, device="cpu")
    process = byol_command("evaluate", out, photos, "--protocol", *asked, "--devices", 2, "--device", "cpu", "--json")
    said, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    for found, alone in zip(json.loads(said.splitlines()[-1])["evaluations"], scores, strict=True):
        assert [s["top1"] for s in found["scores"]] == pytest.approx([s.top1 for s in alone.scores], abs=0.15)
        assert [s["settings"] for s in found["scores"]] == [s.settings for s in alone.scores]  # batch and steps among them


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--devices", "0"], "--devices 0: give 1 or more"),
        (["--devices", "3"], "a batch of 16 images cannot be shared equally by 3 processes"),
        (["--devices", "2", "--set", "lr=fast"], "give a number"),
    ],
)
def test_what_several_processes_cannot_do_is_said_once(photos, tmp_path, words, sentence):
    process = byol_command("train", photos, "--out", tmp_path / "run", *TINY, *words)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2
    assert " ".join(said.split()).count(sentence) == 1
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()
