"""The programs under benchmarks/ at toy sizes: they run, and say what they are meant to say. Times are measured there, not tested here."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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


def test_every_method_s_update_is_set_beside_byol_s_and_its_memory_is_what_can_be_counted_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import step_methods
    import torch
    from torch import nn

    found = step_methods.measured(["byol", "simsiam"], SimpleNamespace(encoder="small-w8-n2", image_size=16, batch_size=4, rounds=2))
    assert found["byol"]["time"] == found["byol"]["memory"] == 1
    assert all(value > 0 for costs in found.values() for value in costs.values())

    class Squares(nn.Module):
        """Keeps x, (4, 8), for its weight, (8, 8), and the outcome, (4, 8), for the square; the weight stands, and is none of it."""

        def __init__(self):
            super().__init__()
            self.layer, self.frozen = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False).requires_grad_(False)

        def forward(self, views):
            with torch.no_grad():
                self.frozen(views[0])
            return (self.layer(views[0]) ** 2).sum()

    update = SimpleNamespace(method=Squares(), views=(torch.randn(4, 8),), rows={})
    assert step_methods.memory(update) == (4 * (4 * 8 + 4 * 8), 4 * (64 + 64 + 64))


def test_the_file_of_costs_keeps_other_methods_unless_they_were_measured_elsewhere(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    import step_methods

    monkeypatch.setattr(step_methods, "FILE", tmp_path / "cost.json")
    step_methods.write({"torch": "1"}, {"byol": {"time": 1.0}, "moco": {"time": 0.51234}})
    step_methods.write({"torch": "1"}, {"byol": {"time": 1.0}, "simsiam": {"time": 0.7}})
    kept = json.loads(step_methods.FILE.read_text())
    assert kept["methods"] == {"byol": {"time": 1.0}, "moco": {"time": 0.512}, "simsiam": {"time": 0.7}}
    with pytest.raises(SystemExit, match="measured otherwise"):
        step_methods.write({"torch": "2"}, {"byol": {"time": 1.0}})
    assert json.loads(step_methods.FILE.read_text()) == kept


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
