import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="remote shards are read through fsspec, which is not installed")
pytest.importorskip("aiohttp", reason="fsspec reads http through aiohttp, which is not installed")
PROGRAM = Path(__file__).parent.parent / "benchmarks" / "shards.py"


def test_a_tiny_run_holds_what_does_not_depend_on_the_clock(tmp_path):
    command = [sys.executable, PROGRAM, "--tiny", "--work", tmp_path]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    assert found["remote"]["window 16, copies there"]["bytes"] == 0
    single = {f["processes"]: f["share"] for f in found["processes"] if f["mode"] == "window all"}
    for processes, shares in single.items():
        assert sum(shares) < 1
        assert max(shares) < 1.1 / processes
    quality = {f["order"]: f for f in found["shuffle"]}
    full, window = quality["full permutation (local)"], quality["window of 16 shards"]
    assert abs(window["same_shard"] - full["same_shard"]) < 0.02
    assert window["entropy"] > 0.95 * full["entropy"]
    assert window["within"] < 1.2 * full["within"]
    assert list(tmp_path.iterdir()) == []
