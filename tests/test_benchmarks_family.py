import json
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(__file__).parent.parent / "benchmarks"


def last_line(*words):
    done = subprocess.run([sys.executable, PROGRAMS / "family.py", "--tiny", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_methods_are_compared_on_the_same_terms_and_a_second_call_trains_nothing_again(tmp_path):
    found = last_line("--methods", "simsiam", "moco", "--out", tmp_path)
    assert set(found["methods"]) == {"simsiam", "moco"}
    for row in found["methods"].values():
        assert len(row["knn"]) == len(row["linear"]) == len(row["verdicts"]) == 1
        assert row["seconds_per_step"] > 0
    assert found["methods"]["simsiam"]["passes"] == {"online": 2, "target": 0, "backward": 2}
    assert found["methods"]["moco"]["passes"] == {"online": 2, "target": 2, "backward": 2}, "symmetric, as `auto` has it"
    assert "pixels" in found["baselines"]
    plans = [json.loads((tmp_path / name / "seed-0" / "plan.json").read_text()) for name in ("simsiam", "moco")]
    same = ("encoder", "image_size", "epochs", "batch_size", "precision", "channels_last", "views")
    assert len({tuple(plan["settings"][k] for k in same) for plan in plans}) == 1
    assert plans[0]["views"] == plans[1]["views"]
    before = (tmp_path / "simsiam" / "seed-0" / "encoder.safetensors").stat().st_mtime_ns
    again = last_line("--methods", "simsiam", "--out", tmp_path)
    assert again["methods"]["simsiam"] == found["methods"]["simsiam"]
    assert (tmp_path / "simsiam" / "seed-0" / "encoder.safetensors").stat().st_mtime_ns == before
