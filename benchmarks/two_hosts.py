"""Two hosts on one machine: network namespaces with an address each, torchrun on both, and a cable that is pulled in the middle.

    sudo python benchmarks/two_hosts.py            # a minute or two; needs root and iproute2; --tiny: a shorter run

A run of two processes, one a host, is trained whole and trained with the link cut after some updates: both hosts have to give up by
themselves, and the run, resumed over the mended link, has to end with the same bits.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import finish, table
from PIL import Image
from safetensors.numpy import load_file

HOSTS = {"byol-a": "10.77.0.1", "byol-b": "10.77.0.2"}  # namespace -> address
PATIENCE_MINUTES = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a short run, to see that it works")
    asked = parser.parse_args()
    why = cannot()
    if why:
        print(f"left out: {why}", file=sys.stderr)
        finish("two_hosts", {"skipped": why})
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        photos(place / "photos")
        network("add")
        try:
            result = measure(place, epochs=12 if asked.tiny else 60)
        finally:
            network("delete")
    rows = [(k.replace("_", " "), str(v)) for k, v in result.items()]
    table("Two hosts, one process each, over a veth pair", ("", ""), rows)
    finish("two_hosts", result)


def cannot() -> str:
    """Why this machine cannot do it; empty where it can."""
    if os.geteuid() or not shutil.which("ip"):
        return "network namespaces need root and the command ip (iproute2)"
    made = subprocess.run(["ip", "netns", "add", "byol-try"], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "delete", "byol-try"], capture_output=True, check=False)
    return made.stderr.strip()


def network(what: str) -> None:
    """Two namespaces joined by a pair of interfaces, made or taken away."""
    for host in HOSTS:
        subprocess.run(["ip", "netns", what, host], check=what == "add")
    if what == "add":
        first, second = HOSTS
        subprocess.run(["ip", "-n", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second], check=True)
        for host, address in HOSTS.items():
            for words in (["addr", "add", f"{address}/24", "dev", "cable"], ["link", "set", "cable", "up"], ["link", "set", "lo", "up"]):
                subprocess.run(["ip", "-n", host, *words], check=True)


def photos(folder: Path) -> None:
    noise = np.random.default_rng(0)
    folder.mkdir()
    for i in range(64):
        Image.fromarray(noise.integers(0, 255, (24, 20 + i % 2, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")


def start(*words: object) -> list[subprocess.Popen[str]]:
    """`byol WORDS` by torchrun on both hosts."""
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "cable", "BYOL_TIMEOUT_MINUTES": str(PATIENCE_MINUTES), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", next(iter(HOSTS.values())), "--master-port", "29511"]
    return [
        subprocess.Popen(
            ["ip", "netns", "exec", host, *torchrun, "--node-rank", str(rank), "-m", "byol", *map(str, words)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, host in enumerate(HOSTS)
    ]


def ended(team: list[subprocess.Popen[str]]) -> list[int]:
    """The exit codes; what was said is printed if it was no success."""
    said = [process.communicate(timeout=600)[0] for process in team]
    codes = [process.returncode for process in team]
    if any(codes):
        print("\n".join(f"-- host {i}\n{text}" for i, text in enumerate(said)), file=sys.stderr)
    return codes


def measure(place: Path, epochs: int) -> dict[str, object]:
    asked = [
        "--encoder",
        "small-w16",
        "--image-size",
        "16",
        "--epochs",
        epochs,
        "--batch-size",
        "16",
        "--precision",
        "fp32",
        "--workers",
        "0",
    ]
    asked += ["--device", "cpu", "--set", "hidden=16", "dim=8", "log_steps=1", "channels_last=true", "checkpoint_minutes=0"]
    whole, cut = place / "whole", place / "cut"
    codes = ended(start("train", place / "photos", "--out", whole, *asked))
    if any(codes):
        raise SystemExit(f"the whole run failed: {codes}")
    team = start("train", place / "photos", "--out", cut, *asked)
    log, wanted = cut / "metrics.jsonl", 2 * epochs
    while not log.exists() or log.read_text().count("\n") < wanted:
        if any(process.poll() is not None for process in team):
            raise SystemExit(f"the run ended before the link was cut: {ended(team)}")
        time.sleep(0.01)
    first = next(iter(HOSTS))
    subprocess.run(["ip", "-n", first, "link", "set", "cable", "down"], check=True)
    began, gone = time.monotonic(), []
    for process in team:
        process.wait(600)
        gone.append(round(time.monotonic() - began, 1))
    codes = ended(team)
    steps = log.read_text().count("\n")
    subprocess.run(["ip", "-n", first, "link", "set", "cable", "up"], check=True)
    resumed = ended(start("resume", cut))
    ours, theirs = (load_file(run / "encoder.safetensors") for run in (cut, whole))
    return {
        "updates": 4 * epochs,
        "link_cut_after_updates": steps,
        "patience_s": PATIENCE_MINUTES * 60,
        "seconds_until_each_host_gave_up": gone,
        "exit_codes_after_the_cut": codes,
        "exit_codes_of_resume": resumed,
        "same_bits_as_the_run_without_a_cut": all(np.array_equal(ours[k], theirs[k]) for k in theirs),
    }


if __name__ == "__main__":
    main()
