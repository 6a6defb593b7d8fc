"""Runs `byol demo --json` as a user would and checks what it promises: BYOL beats both baselines at 10 % of the labels."""

import json
import subprocess
import sys
import tempfile

with tempfile.TemporaryDirectory() as folder:
    command = ["byol", "demo", "--json", "--out", f"{folder}/demo"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
scores = json.loads(done.stdout.splitlines()[-1])
for name in ("pixels", "random", "byol"):
    print(f"{name:8}", {k: round(v, 3) for k, v in scores[name].items()})
print(f"{scores['seconds']:.0f} s")
best = max(scores["pixels"]["0.1"], scores["random"]["0.1"])
if scores["byol"]["0.1"] < best + 0.02:
    sys.exit(f"BYOL reached {scores['byol']['0.1']:.3f} at 10 % of the labels and does not beat {best:.3f} clearly")
