"""What must hold when things go wrong: numbers that are not finite, disks that are full or lie, signals, and two runs in one folder."""

import errno
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from cli_calls import TINY, TINY_SET, byol, stripes
from safetensors.torch import load_file, save_file
from test_cli import resumes_to_the_end, wait_for_steps
from test_training import build, feed_for, losses, make_plan, run

from byol import checkpoint, files, optim, stopping, training


def everything(method, optimizer):
    """All tensors that an update may change."""
    states = {f"{i}.{k}": v for i, s in enumerate(optimizer.state.values()) for k, v in s.items()}
    return {k: v.clone() for k, v in {**method.state_dict(), **states}.items()}


def poisoned(batches, bad):
    """The feed with views that are infinite in some passes."""

    def feed(start, stop):
        for step, (views, rows) in zip(range(start, stop), batches(start, stop), strict=True):
            yield (tuple(v * math.inf for v in views) if step in bad else views), rows

    return feed


def loop_of(tmp_path, optimizer_name, *, as_on_a_gpu):
    """A loop on the CPU; `as_on_a_gpu` never asks whether an update was finite. Fused optimisers skip on a CPU as well."""
    plan = make_plan(optimizer=optimizer_name, log_steps=1000)
    method, optimizer = build(plan)
    place = plan.settings.device
    loop = training.Loop(tmp_path, plan, method, optimizer, None, 0)
    if as_on_a_gpu:
        loop.plan = SimpleNamespace(**{**vars(plan), "settings": SimpleNamespace(**{**vars(plan.settings), "device": "cuda"})})
        loop._hold()
        loop.plan = plan
        assert loop.plan.settings.device == place
        assert not loop._asks
    return loop, method, optimizer, feed_for(plan)


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
@pytest.mark.parametrize("as_on_a_gpu", [False, True])
def test_an_update_that_is_not_finite_changes_nothing_at_all(tmp_path, name, as_on_a_gpu):
    loop, method, optimizer, feed = loop_of(tmp_path, name, as_on_a_gpu=as_on_a_gpu)
    for step, (views, rows) in enumerate(feed(1, 6), 1):
        before = everything(method, optimizer)
        loop.update(step, iter([(tuple(v * math.inf for v in views), rows)]))
        after = everything(method, optimizer)
        for key, value in after.items():
            assert torch.equal(value, before.get(key, torch.zeros_like(value))), f"{key} after update {step}"
        loop.update(step, iter([(views, rows)]))
        moved = everything(method, optimizer)
        assert not torch.equal(moved["target_projector.0.weight"], after["target_projector.0.weight"])
        assert not torch.equal(moved["encoder.net.1.running_mean"], after["encoder.net.1.running_mean"])
    assert int(loop._left_out) == 5


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw"])
def test_with_or_without_asking_the_device_updates_are_the_same(tmp_path, name):
    ends = []
    for as_on_a_gpu in (False, True):
        loop, method, optimizer, feed = loop_of(tmp_path, name, as_on_a_gpu=as_on_a_gpu)
        for step, batch in enumerate(poisoned(feed, {3, 4})(1, 8), 1):
            loop.update(step, iter([batch]))
        ends.append(everything(method, optimizer))
    assert ends[0].keys() == ends[1].keys()
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")


def test_a_loss_that_is_not_finite_is_enough(tmp_path):
    loop, method, optimizer, feed = loop_of(tmp_path, "sgd", as_on_a_gpu=False)
    forward, before = method.forward, everything(method, optimizer)

    def infinite(views):
        out = forward(views)
        return type(out)(out.loss + math.inf, out.projections, out.metrics)

    method.forward = infinite
    loop.update(1, feed(1, 2))
    assert all(torch.equal(v, before[k]) for k, v in everything(method, optimizer).items())


def fit_from_the_checkpoint(folder, plan, feed, *, stop_after=None):
    folder.mkdir(exist_ok=True)
    method, optimizer = build(plan)
    start = checkpoint.resume(folder, method=method, optimizer=optimizer).step
    done = iter(range(start + 1, plan.steps + 1))
    outcome = training.fit(folder, plan, method, optimizer, feed, start=start, interrupted=lambda: next(done) == stop_after)
    return method, outcome


def test_five_updates_in_a_row_end_the_run_on_the_last_good_state_and_four_do_not(tmp_path):
    plan = make_plan()
    batches = feed_for(plan)
    _, outcome = fit_from_the_checkpoint(tmp_path / "four", plan, poisoned(batches, {6, 7, 8, 9, 11, 12, 13}))
    assert outcome.ended == "finished"
    assert losses(tmp_path / "four")[-1]["left_out"] == 7
    good, _ = fit_from_the_checkpoint(tmp_path / "good", plan, batches, stop_after=6)
    _, outcome = fit_from_the_checkpoint(tmp_path / "five", plan, poisoned(batches, {*range(6, 11)}))
    assert (outcome.ended, outcome.step, outcome.left_out) == ("not finite", 11, range(6, 11))
    stored = load_file(tmp_path / "five" / "last.safetensors")
    for key, value in good.state_dict().items():
        assert torch.equal(stored[f"method/{key}"], value), key
    row = losses(tmp_path / "five")[-1]
    assert (row["step"], row["left_out"]) == (11, 5)
    assert "finite" in row["reason"]
    _, outcome = fit_from_the_checkpoint(tmp_path / "five", plan, poisoned(batches, {*range(6, 11)}))
    assert outcome.ended == "finished", "the next updates are sound"


@pytest.mark.parametrize("stop", [7, 8, 9])
def test_a_run_stopped_among_updates_that_are_left_out_ends_like_the_uninterrupted_one(tmp_path, stop):
    plan = make_plan(log_steps=5)
    feed = poisoned(feed_for(plan), {6, 7, 8, 12})
    whole, _ = fit_from_the_checkpoint(tmp_path / "whole", plan, feed)
    fit_from_the_checkpoint(tmp_path / "stopped", plan, feed, stop_after=stop)
    again, _ = fit_from_the_checkpoint(tmp_path / "stopped", plan, feed)
    assert all(torch.equal(again.state_dict()[k], v) for k, v in whole.state_dict().items())
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def test_a_rate_that_is_far_too_high_ends_with_the_names_of_the_samples(tmp_path):
    photos, out = stripes(tmp_path / "photos"), tmp_path / "run"
    high = ["optimizer=sgd", "lr=1e36", "warmup_epochs=0", "weight_decay=0"]
    call = byol("train", photos, "--out", out, "--epochs", 20, *TINY, *TINY_SET, *high, "--json")
    assert call.code == 1, call.err
    assert json.loads(call.out)["ended"] == "not finite"
    told = " ".join(call.err.split())
    assert "updates in a row" in told
    found = json.loads((out / "not-finite.json").read_text())["updates"]
    assert len(found) == 5
    assert all(len(update["ids"]) == len(update["names"]) == 16 for update in found)
    assert found[-1]["names"][0] in told
    assert all(v.isfinite().all() for v in load_file(out / "last.safetensors").values())


def two_generations(folder):
    plan = make_plan(epochs=1, checkpoint_minutes=0.0)
    run(folder, plan)
    return plan, *build(plan)


def test_whatever_bit_of_a_checkpoint_changes_it_is_refused_and_the_one_before_is_taken(tmp_path):
    plan, method, optimizer = two_generations(tmp_path)
    last = tmp_path / "last.safetensors"
    whole, draws = last.read_bytes(), random.Random(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    expected = load_file(last)
    for place in [*draws.sample(range(header), 40), *draws.sample(range(header, len(whole)), 40)]:
        changed = bytearray(whole)
        changed[place] ^= 1 << draws.randrange(8)
        last.write_bytes(changed)
        refused = ""
        try:
            step = checkpoint.restore(last, method=method, optimizer=optimizer)
        except ValueError as error:
            refused = str(error)
        if refused:
            assert re.search(r"last\.safetensors cannot be read", refused), place
            assert "\n" not in refused
        else:  # a bit without meaning, such as that of a blank
            assert step == plan.steps
            assert place < header
            assert all(torch.equal(v, expected[f"method/{k}"]) for k, v in method.state_dict().items()), place
    found = checkpoint.resume(tmp_path, method=method, optimizer=optimizer)
    assert found.step == plan.steps - 1
    assert "last.safetensors cannot be read" in found.note
    assert "previous.safetensors, after step 7" in found.note
    assert not last.exists(), "the next checkpoint must not push the good one out"
    assert (tmp_path / "damaged.safetensors").read_bytes() == changed


def test_the_run_goes_on_from_the_checkpoint_before_and_ends_the_same(tmp_path):
    plan, _, _ = two_generations(tmp_path / "whole")
    two_generations(tmp_path / "hurt")
    last = tmp_path / "hurt" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:1000])
    fit_from_the_checkpoint(tmp_path / "hurt", plan, feed_for(plan))
    ours, theirs = (load_file(tmp_path / name / "last.safetensors") for name in ("hurt", "whole"))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert losses(tmp_path / "hurt") == losses(tmp_path / "whole")


def test_two_damaged_checkpoints_are_one_sentence(tmp_path):
    _, method, optimizer = two_generations(tmp_path)
    for name in ("last", "previous"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"last\.safetensors cannot be read .* nor previous\.safetensors .* start the run anew") as error:
        checkpoint.resume(tmp_path, method=method, optimizer=optimizer)
    assert "\n" not in str(error.value)


def test_checkpoints_of_earlier_versions_without_a_digest_are_read(tmp_path):
    _, method, optimizer = two_generations(tmp_path)
    last = tmp_path / "last.safetensors"
    save_file(load_file(last), last, metadata={"byol": json.dumps({"step": 8})})
    (tmp_path / "previous.safetensors").unlink()
    assert checkpoint.resume(tmp_path, method=method, optimizer=optimizer) == checkpoint.Found(8)


def test_a_disk_that_is_full_for_a_while_costs_checkpoints_and_nothing_else(tmp_path, monkeypatch):
    plan = make_plan(checkpoint_minutes=0.0, log_steps=1)
    whole, _, _ = run(tmp_path / "whole", plan)
    saves, writes = iter(range(100)), iter(range(100))
    save_file_, append_ = checkpoint.save_file, training.append

    def sometimes(wanted, real, count):
        def write(*args, **kwargs):
            if next(count) in wanted:
                raise OSError(errno.ENOSPC, "No space left on device", str(args[0]) if isinstance(args[0], os.PathLike) else None)
            return real(*args, **kwargs)

        return write

    monkeypatch.setattr(checkpoint, "save_file", sometimes({5, 6, 7}, save_file_, saves))
    monkeypatch.setattr(training, "append", sometimes({12, 13}, append_, writes))
    method, _, outcome = run(tmp_path / "full", plan)
    assert outcome.ended == "finished"
    assert all(torch.equal(method.state_dict()[k], v) for k, v in whole.state_dict().items())
    rows, others = losses(tmp_path / "full"), losses(tmp_path / "whole")
    warned = [row for row in rows if "cannot be written (No space left on device)" in row["reason"]]
    assert {row["verdict"] for row in warned} == {"WARN"}
    assert {"last.safetensors", "metrics.jsonl"} == {m for row in warned for m in re.findall(r"\w+\.\w+(?= cannot)", row["reason"])}
    assert [row["loss"] for row in rows] == [row["loss"] for row in others], "no line of the log is lost"
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["last.safetensors", "metrics.jsonl", "previous.safetensors"]


@pytest.fixture
def small_files():
    """No file of this process grows beyond 3,000 bytes: what a full disk or a quota does, from the kernel itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_checkpoint_that_the_kernel_refuses_leaves_both_generations(tmp_path, small_files):
    _, method, optimizer = two_generations(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    small_files()
    with pytest.raises(OSError, match="File too large") as error:
        checkpoint.save(tmp_path / "last.safetensors", step=99, method=method, optimizer=optimizer)
    assert error.value.filename == str(tmp_path / "last.safetensors"), "named by its own name, not by that of the temporary file"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_text_is_appended_whole_or_not_at_all(tmp_path, small_files):
    log = tmp_path / "metrics.jsonl"
    files.append(log, "a" * 2990 + "\n")
    small_files()
    with pytest.raises(OSError, match="File too large"):
        files.append(log, "b" * 100)
    assert log.read_text() == "a" * 2990 + "\n"


def test_a_run_whose_last_checkpoint_cannot_be_written_says_how_to_go_on(tmp_path, monkeypatch):
    photos, out = stripes(tmp_path / "photos"), tmp_path / "run"
    save_file_, count = checkpoint.save_file, iter(range(100))

    def full(*args, **kwargs):
        if next(count) >= 3:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return save_file_(*args, **kwargs)

    monkeypatch.setattr(checkpoint, "save_file", full)
    call = byol("train", photos, "--out", out, "--epochs", 2, *TINY, *TINY_SET, "checkpoint_minutes=0")
    told = " ".join(call.err.split())
    assert call.code == 2
    assert told == (
        f"byol: {out}/last.safetensors: your quota of that disk is used up; delete something there, or choose another place with --out; "
        f"`byol resume {out}` goes on from the last checkpoint"
    )
    monkeypatch.setattr(checkpoint, "save_file", save_file_)
    call = byol("resume", out)
    assert call.code == 0
    assert "going on after step 3 of 8" in call.out


def test_a_kill_between_the_two_files_of_the_encoder_is_made_good(tmp_path):
    photos, out = stripes(tmp_path / "photos"), tmp_path / "run"
    assert byol("train", photos, "--out", out, "--epochs", 1, *TINY, *TINY_SET).code == 0
    (out / "encoder.json").unlink()
    assert byol("resume", out).code == 0
    assert (out / "encoder.json").exists()


HOLD = """
import os, sys, time
from pathlib import Path
from byol import files
with files.locked(Path(sys.argv[1])) as held:
    if os.fork() == 0:
        files.let_go()
        print(os.getpid(), flush=True)
        time.sleep(60)
    time.sleep(60)
"""


def test_a_run_folder_is_for_one_process_and_free_when_that_is_killed(tmp_path):
    photos, out = stripes(tmp_path / "photos"), tmp_path / "run"
    assert byol("train", photos, "--out", out, "--epochs", 1, *TINY, *TINY_SET).code == 0
    (out / "encoder.json").unlink()
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != ".lock"}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, out], stdout=subprocess.PIPE, text=True)
    worker = int(holder.stdout.readline())
    try:
        call = byol("resume", out)
        assert call.code == 2
        told = " ".join(call.err.split())
        assert f"{out} is in use by process {holder.pid} on {os.uname().nodename}, which trains in it" in told
        assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != ".lock"} == before
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    try:
        assert byol("resume", out).code == 0, "its worker still lives and does not keep the folder"
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch):
    import fcntl

    from byol import run as runs

    def refuses(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    told = []
    with runs.alone(tmp_path, SimpleNamespace(note=told.append)):
        pass
    assert len(told) == 1
    assert "without locks" in told[0]


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_signals_are_noted_and_only_a_second_ctrl_c_stops_at_once(number):
    with stopping.noted() as received:
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [number, signal.SIGTERM]
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)


def test_what_nohup_has_made_deaf_stays_deaf():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.noted() as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == []
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_of_a_scheduler_saves_the_run_and_asks_to_be_started_again(tmp_path):
    photos, out = stripes(tmp_path / "photos"), tmp_path / "run"

    def scheduler():
        wait_for_steps(out, lambda: True)
        os.kill(os.getpid(), signal.SIGUSR1)

    other = threading.Thread(target=scheduler)
    other.start()
    call = byol("train", photos, "--out", out, "--epochs", 12, *TINY, *TINY_SET)
    other.join()
    assert (call.code, call.err) == (75, "")
    resumes_to_the_end(out, call.out, 48)


def test_a_signal_before_there_is_anything_to_save_asks_for_the_same_command_again(tmp_path, monkeypatch):
    photos, out = stripes(tmp_path / "photos"), tmp_path / "run"
    monkeypatch.setattr("byol.run.prepare", lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGTERM))
    call = byol("train", photos, "--out", out, *TINY, *TINY_SET)
    assert call.code == 75
    assert "SIGTERM" in call.err
    assert not out.exists()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lars_with_found_inf_0_takes_the_step_that_it_takes_without_and_with_1_none(weight_decay):
    ends = {}
    for found in (None, 0.0, 1.0):
        g = torch.Generator().manual_seed(0)
        net = torch.nn.Linear(3, 4).double()
        optimizer = optim.make("lars", optim.param_groups(net), lr=0.3, weight_decay=weight_decay, momentum=0.9, trust_coefficient=0.01)
        for k, p in enumerate(net.parameters()):
            p.data.copy_(torch.randn(p.shape, generator=g, dtype=p.dtype))
            optimizer.state[p]["momentum_buffer"] = torch.full_like(p, k + 1.0)
            p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype)
        if found is not None:
            optimizer.found_inf = torch.tensor(found)
        before = [v.clone() for p in net.parameters() for v in (p.detach(), optimizer.state[p]["momentum_buffer"])]
        if found:
            net.weight.grad[0, 0] = math.nan
        optimizer.step()
        ends[found] = [v.clone() for p in net.parameters() for v in (p.detach(), optimizer.state[p]["momentum_buffer"])]
    for plain, masked, skipped, was in zip(ends[None], ends[0.0], ends[1.0], before, strict=True):
        torch.testing.assert_close(masked, plain, rtol=1e-12, atol=1e-12)
        assert not torch.equal(plain, was)
        assert torch.equal(skipped, was)
