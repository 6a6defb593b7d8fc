import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "rgbd.py"


def last_line(*words):
    done = subprocess.run([sys.executable, PROGRAM, "--tiny", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(find_spec("ocnn") is None, reason="ocnn is not installed")
def test_a_tiny_run_is_scored_beside_what_needs_no_training(tmp_path):
    found = last_line("--out", tmp_path / "runs")
    assert found["seeds"] == [0]
    assert set(found["apart"]) == {"2", "3"}
    for rows in found["apart"].values():
        assert {"identity, none", "colour, visual", "trained, both", "trained, visual", "trained, geometric"} <= set(rows)
        assert {"random byoc-w4, both", "random byoc-w4, visual", "random byoc-w4, geometric"} <= set(rows)
        assert all(len(values) == 1 for numbers in rows.values() for values in numbers.values())
    assert len(list((tmp_path / "runs" / "seed-0" / "evaluations").glob("registration*.json"))) == 2


@pytest.mark.skipif(find_spec("ocnn") is None, reason="ocnn is not installed")
def test_the_pictures_of_the_pages_can_be_made(tmp_path):
    done = subprocess.run([sys.executable, PROGRAM.with_name("pictures.py"), "--tiny", "--out", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.glob("*.png")} == {"clouds.png", "walks.png"}
