import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "scale.py"


def test_a_tiny_run_holds_what_does_not_depend_on_the_clock(tmp_path):
    command = [sys.executable, PROGRAM, "--tiny", "--work", tmp_path]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = json.loads(out.splitlines()[-1])
    assert [row["n"] for row in found["folders"]] == [100, 1000]
    for row in found["folders"]:
        assert row["index_kept"]
        assert row["same_fingerprint"]
        assert row["index_bytes_per_file"] < 120
    large = found["folders"][-1]
    assert large["held_bytes_per_file"] < 150  # some tens of kB whatever the size
    assert [row["n"] for row in found["ids"]] == [10**4, 10**6, 10**8, 10**10]
    assert {"first_s", "next_s", "fingerprint_s", "held_bytes", "step_us"} <= found["exponents"].keys()
    assert list(tmp_path.iterdir()) == []
