"""The programs under benchmarks/ at toy sizes: they run, and say what they are meant to say. Times are measured there, not tested here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


def last_line(program, *words):
    done = subprocess.run([sys.executable, FOLDER / program, "--tiny", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1], parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_views_compares_the_host_stage_and_the_device_stage_with_what_is_installed():
    found = last_line("views.py")
    assert {"byol, decode only", "byol, host stage", "byol, both stages"} <= found["224_px"].keys()
    assert all(value > 0 for value in found["32_px"].values())


def test_step_compares_the_update_with_the_bare_passes():
    found = last_line("step.py")["small-w16_32"]
    assert found["bare passes"]["ratio_to_bare"] == 1
    assert found["byol"]["median_ms"] > 0


def test_gpu_runs_without_a_gpu():
    found = last_line("gpu.py")
    assert found["limits"]["matrix_tflops"] > 0
    for case in (found["small-w16_32"], found["small-w16_64"]):
        assert {"images_per_s", "images_per_s_from_memory", "images_per_s_from_files"} <= case.keys()


def test_cifar10_goes_on_where_it_was_stopped_and_evaluates_the_last_epoch():
    found = last_line("cifar10.py")
    assert found["pieces"] == 2
    assert found["ended"] == "finished"
    assert found["steps"] == 4 * (1797 // 128)
    assert 0 < found["knn-k200-T0.1, byol"] <= 1
