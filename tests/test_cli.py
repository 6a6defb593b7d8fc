import errno
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import numpy as np
import pyarrow.parquet
import pytest
import torch
from cli_calls import TINY, TINY_SET, byol, stripes
from PIL import Image
from safetensors import SafetensorError

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """One run from images to report, every command with --json; what each said."""
    folder = tmp_path_factory.mktemp("story")
    photos, run = stripes(folder / "photos"), folder / "runs" / "stripes"
    said = {
        "train": byol("train", photos, "--out", run, "--epochs", 3, *TINY, *TINY_SET, "--json"),
        "evaluate": byol("evaluate", run, photos, "--protocol", "knn", "--labels", "0.2", "1.0", "--draws", 2, "--json"),
        "embed": byol("embed", run, photos, "--out", folder / "features.npz", "--json"),
        "export": byol("export", run, "--out", folder / "encoder.safetensors", "--json"),
        "report": byol("report", run, "--json"),
        "resume": byol("resume", run, "--json"),
        "doctor": byol("doctor", photos, "--json"),
    }
    return folder, run, said


COMMANDS = ["train", "evaluate", "embed", "export", "report", "resume", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_succeeds_and_its_standard_output_is_one_json_object(story, command):
    call = story[2][command]
    assert call.code == 0, call.err
    assert len(call.out.splitlines()) == 1
    assert isinstance(json.loads(call.out), dict)
    assert call.err


@pytest.mark.parametrize("command", COMMANDS)
def test_piped_output_fits_80_columns_and_rewrites_nothing(story, command):
    folder, _, said = story
    for line in said[command].err.splitlines():
        assert "\x1b" not in line
        assert "\r" not in line
        assert len(line.replace(str(folder), "")) <= 80, line  # temporary folders have long names


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_by_naming_the_next_one(story, command):
    assert re.search(r"^(Next: |Suggested: |Or look at it: +byol )", "\n".join(story[2][command].err.splitlines()[-3:]), re.MULTILINE)


def test_a_run_says_what_it_did_and_where(story):
    _, run, said = story
    found = json.loads(said["train"].out)
    assert found["run"] == str(run)
    assert (found["ended"], found["step"], found["steps"], found["images"], found["skipped"]) == ("finished", 12, 12, 64, 0)
    assert found["encoder"] == str(run / "encoder.safetensors")
    assert {p.name for p in run.iterdir()} >= {"config.json", "plan.json", "data.json", "metrics.jsonl", "encoder.json", "views.png"}


def test_progress_reaches_a_hundred_percent_with_rate_loss_and_verdict(story):
    last = [line for line in story[2]["train"].err.splitlines() if line.startswith("epoch")][-1]
    assert re.fullmatch(r"epoch 3/3  100 %  [\d.,]+ img/s  loss \d\.\d{3}  tau 0\.9\d{3}  lr \S+  (OK|WARN)", last), last


def test_the_plan_is_told_with_its_reasons(story):
    told = story[2]["train"].err
    for said in ("64 images", "small-w16", "batch 16", "3 epochs = 12 steps", "asked for", "tau", "labels not used"):
        assert said in told, said


@pytest.mark.parametrize("ending", [".parquet", ".npz", ".npy"])
def test_embedding_says_how_to_read_each_kind_of_file(story, ending):
    folder, run, _ = story
    out = folder / f"f{ending}"
    call = byol("embed", run, folder / "photos", "--out", out, "--limit", 8)
    assert call.code == 0, call.err
    assert call.out.splitlines()[0] == f"{out}: 8 vectors, each with the name of its image"
    said = call.out.splitlines()[1]
    found = eval(re.match(r"Next: (\S+\(.*?\)(\[.*?\])?)", said)[1], {"numpy": numpy, "pyarrow": pyarrow})  # as a person would, in Python
    assert len(found["embedding"] if isinstance(found, dict) else found) == 8
    for name in re.findall(r"\S+\.json", said):
        assert Path(name).exists()


@pytest.mark.parametrize("subject", ["pixels", "random:small-w16"])
def test_a_baseline_is_evaluated_alone_and_leads_to_training(story, subject):
    folder, _, _ = story
    call = byol("evaluate", subject, folder / "photos", "--protocol", "knn")
    assert call.code == 0, call.err
    assert call.out.splitlines()[-1] == f"Next: byol train {folder / 'photos'}"


def test_an_evaluation_in_json_stands_beside_its_baselines(story):
    (found,) = json.loads(story[2]["evaluate"].out)["evaluations"]
    assert found["protocol"] == "knn"
    assert {(s["name"].split()[0] if s["name"].startswith(("pixels", "random")) else "run", s["labels"]) for s in found["scores"]} == {
        (name, labels) for name in ("pixels", "random", "run") for labels in (0.2, 1.0)
    }
    assert (story[1] / "evaluations" / "knn.json").exists()


def test_a_finished_run_is_not_resumed_but_said_to_be_finished(story):
    assert json.loads(story[2]["resume"].out)["ended"] == "finished"


def test_a_run_is_never_trained_over(story):
    folder, run, _ = story
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    call = byol("train", folder / "photos", "--out", run, *TINY)
    assert call.code == 2
    assert "byol resume" in call.err
    assert "--out" in call.err
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_a_dry_run_prints_every_setting_draws_the_views_and_begins_no_run(tmp_path):
    photos = stripes(tmp_path / "photos", n=32)
    call = byol("train", photos, "--out", tmp_path / "run", "--epochs", 3, *TINY, "--dry-run", "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out)
    told = re.sub(r"\s+", " ", call.err)
    for name in [*found["plan"]["settings"], *found["plan"]["method"]]:
        assert f"{name} =" in told, name
    assert "both views: crop" in told
    with Image.open(found["picture"]) as picture:
        assert picture.size[0] > 8 * 96
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["views.png"]


def test_a_dry_run_without_a_folder_writes_nothing_here(tmp_path, monkeypatch):
    photos = stripes(tmp_path / "photos", n=32)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert byol("train", photos, "--epochs", 3, *TINY, "--dry-run").code == 0
    assert list((tmp_path / "here").iterdir()) == []


def test_a_dry_run_of_the_own_plan_measures_how_long_it_takes(tmp_path):
    call = byol("train", "digits", "--limit", "64", "--epochs", 10, "--out", tmp_path / "run", "--dry-run", "--json")
    assert call.code == 0, call.err
    told = re.search(r"Time +about (\S+ \w+) here, at ([\d.,]+) img/s", call.err)
    found = json.loads(call.out)
    images = found["plan"]["steps"] * found["plan"]["settings"]["batch_size"]
    assert found["seconds"] == pytest.approx(images / float(told[2].replace(",", "")), rel=0.1)


@pytest.mark.parametrize("what", ["methods", "recipes", "encoders", "data", "views", "protocols", "studies"])
def test_lists_have_a_line_for_everything(what):
    call = byol("list", what, "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out)[what]
    assert found
    assert all(len(line) > 10 for line in found.values()), found
    assert max(map(len, call.err.splitlines())) <= 80


def test_the_protocols_of_the_command_line_are_those_of_the_evaluation():
    from byol.cli.options import PROTOCOLS

    assert set(json.loads(byol("list", "protocols", "--json").out)["protocols"]) == set(PROTOCOLS)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["train", "nowhere/"], ["nowhere/", "does not exist"]),
        (["train", "digits", "--bach-size", "64"], ["no option --bach-size; did you mean --batch-size?"]),
        (["train", "digits", "--set", "bach_size=3"], ["bach_size", "did you mean batch_size?"]),
        (["train", "digits", "--recipe", "imagnet-r50-100"], ["did you mean imagenet-r50-100?"]),
        (["train", "digits", "--method", "boyl"], ["did you mean byol?"]),
        (["train", "digits", "--encoder", "resnet81"], ["resnet81", "did you mean"]),
        (["train", "digits", "--batch-size", "5000"], ["1797 images", "--batch-size"]),
        (["train", "digits", "--epochs", "3", "--minutes", "1"], ["--epochs and --minutes"]),
        (["train", "digits", "--epochs", "-3"], ["epochs is -3"]),
        (["resume", "nowhere"], ["nowhere is not a run"]),
        (["evaluate", "nowhere", "digits"], ["nowhere"]),
        (["embed", "random:small-w16", "digits", "--out", "x.txt"], ["x.txt", ".parquet"]),
        (["export", "nowhere", "--out", "x.onnx"], ["nowhere"]),
        (["report", "nowhere"], ["nowhere"]),
    ],
)
def test_unusable_input_is_one_sentence_and_exit_code_2(words, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call = byol(*words)
    assert call.code == 2
    assert call.err.startswith("byol: ")
    assert "Traceback" not in call.err
    assert max(map(len, call.err.splitlines())) <= 80
    sentence = re.sub(r"\s+", " ", call.err)
    for part in parts:
        assert part in sentence
    assert list(tmp_path.iterdir()) == []


def test_an_error_is_json_too_where_json_was_asked_for():
    call = byol("train", "nowhere/", "--json")
    assert call.code == 2
    assert "nowhere/" in json.loads(call.out)["error"]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    call = byol("train", stripes(tmp_path / "photos", n=32), "--out", tmp_path / "file" / "run", "--epochs", 1, *TINY)
    assert call.code == 2
    assert call.err.startswith("byol: ")
    assert "Traceback" not in call.err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/last.safetensors"), "a/last.safetensors: the disk is full; free some space"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "a/plan.json"), "a/plan.json: not allowed to read or write there"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), "a: there is no such file or folder"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"), "out of memory; pass a smaller --batch-size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "was killed, as a rule for want of memory"),
    ],
)
def test_trouble_with_the_machine_is_one_sentence(error, sentence, monkeypatch):
    def fails(options, screen):
        raise error

    monkeypatch.setattr("byol.cli.look.doctor", fails)
    call = byol("doctor", "digits")
    assert call.code == 2
    assert sentence in re.sub(r"\s+", " ", call.err)


def test_a_mistake_of_ours_is_not_hidden_behind_a_sentence(monkeypatch):
    def fails(options, screen):
        raise RuntimeError("a bug")

    monkeypatch.setattr("byol.cli.look.doctor", fails)
    with pytest.raises(RuntimeError, match="a bug"):
        byol("doctor", "digits")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_takes_less_than_0_3_seconds(words):
    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "byol", *words], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Of the processor, not of the clock: other work on the machine is not ours.
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.3


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["list", "recipes"], ["list", "methods"], ["doctor", "--help"]])
def test_looking_around_imports_no_torch(words):
    code = f"import sys; from byol.cli import main; main({words!r}); sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_reader_that_goes_away_leaves_no_traceback():
    code = f"{sys.executable} -m byol list data | head -1"
    done = subprocess.run(["bash", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("digits")
    assert done.stderr == ""


def logged(run):
    log = run / "metrics.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.exists() else []


def wait_for_steps(run, alive):
    end = time.monotonic() + 60
    while len(logged(run)) < 2 and alive() and time.monotonic() < end:
        time.sleep(0.02)


def resumes_to_the_end(run, out, steps):
    last = out.splitlines()[-1]
    assert re.match(r"Saved at step \d+\. Go on with:  byol resume ", last), out
    step = int(last.split()[3].rstrip("."))
    call = byol("resume", run)
    assert call.code == 0, call.err
    assert f"going on after step {step} of {steps}" in call.out
    assert logged(run) == sorted(set(logged(run)))
    assert logged(run)[-1] == steps


def test_ctrl_c_saves_the_run_exits_130_and_resume_finishes_it(tmp_path):
    photos, run = stripes(tmp_path / "photos"), tmp_path / "run"

    def press():
        wait_for_steps(run, lambda: True)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    call = byol("train", photos, "--out", run, "--epochs", 20, *TINY, *TINY_SET)
    finger.join()
    assert call.code == 130
    assert call.err == ""
    resumes_to_the_end(run, call.out, 80)


def test_a_terminated_group_of_processes_saves_the_run_and_exits_75(tmp_path):
    # Schedulers send SIGTERM to every process of a job: the worker that decodes must not leave before the run is saved.
    photos, run = stripes(tmp_path / "photos", sizes=(16, 17)), tmp_path / "run"
    words = ["train", photos, "--out", run, "--epochs", 20, *TINY[:-1], "1", *TINY_SET]
    command = [sys.executable, "-m", "byol", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=ENVIRONMENT)
    wait_for_steps(run, lambda: process.poll() is None)
    os.killpg(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (75, ""), out + err
    resumes_to_the_end(run, out, 80)


def test_a_run_that_collapses_is_stopped_with_exit_code_1_when_asked(tmp_path):
    photos = stripes(tmp_path / "photos")
    collapse = ["--set", "tau_base=0", "head_norm=none", "lr=3", "hidden=16", "dim=8", "log_steps=5", "warmup_epochs=0"]
    call = byol("train", photos, "--out", tmp_path / "run", "--epochs", 60, *TINY, *collapse, "--on-collapse", "stop", "--json")
    assert call.code == 1, call.err
    assert json.loads(call.out)["ended"] == "collapsed"
    assert "COLLAPSED at step" in call.err
    assert "--on-collapse stop" in call.err
    again = shlex.split(" ".join(call.err.split("other settings:")[1].split()))
    assert again[:3] == ["byol", "train", str(photos)]
    assert "tau_base=0.99" in again
    assert "tau_base=0" not in again
    assert {"--encoder", "--batch-size", "head_norm=none", "lr=3"} <= set(again), "what was asked stays"


def test_the_doctor_names_the_network_and_the_time_of_the_run_that_it_suggests(story):
    folder, _, said = story
    suggested = json.loads(said["doctor"].out)["suggested"]
    assert suggested["command"] == f"byol train {folder / 'photos'}"
    assert suggested["encoder"] in suggested["why"]
    assert suggested["seconds"] > 0


def test_the_doctor_suggests_a_run_for_two_images_too(tmp_path):
    np.save(tmp_path / "two.npy", np.random.default_rng(0).integers(0, 255, (2, 16, 16), np.uint8))
    call = byol("doctor", tmp_path / "two.npy", "--json")
    assert call.code == 0
    assert json.loads(call.out)["suggested"]["encoder"] == "small-w16"
    assert "only 2 images" in call.err
