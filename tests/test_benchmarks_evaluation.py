import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "evaluation.py"


def test_a_tiny_run_holds_what_does_not_depend_on_the_clock():
    subjects = ["features", "jpeg", "knn", "linear", "grid", "transfer"]
    out = subprocess.run([sys.executable, PROGRAM, "--tiny", "--only", *subjects], check=True, capture_output=True, text=True).stdout
    found = json.loads(out.splitlines()[-1])
    assert found["knn"].keys() == {"k=20", "k=200"}
    for row in found["knn"].values():
        assert row["agreement"] > 0.99
        assert 0.3 < row["accuracy"]["byol"] < 0.95, "too easy or too hard to tell methods apart"
        assert 4 * 2000 * 300 < row["peak_bytes"] < row["bound_bytes"]  # no less than the similarities
    assert len(found["linear"]) == 4
    for row in found["linear"].values():
        ours, theirs = row["objective"]["byol"], row["objective"]["scikit-learn"]
        assert ours <= theirs * (1 + 1e-6)
        assert abs(row["accuracy"]["byol"] - row["accuracy"]["scikit-learn"]) < 0.01
    assert abs(found["grid"]["accuracy"]["byol"] - found["grid"]["accuracy"]["scikit-learn"]) < 0.03
    assert abs(found["transfer"]["accuracy"]["byol, all 45 strengths"] - found["transfer"]["accuracy"]["scikit-learn, one fit"]) < 0.1
    assert min(found["features"].values()) > 0
    assert min(found["jpeg"].values()) > 0
