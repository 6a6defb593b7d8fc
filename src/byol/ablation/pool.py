"""Jobs of an ablation side by side, each in a process of its own with its share of the cores and, where there are some, one of the GPUs."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue
from typing import IO, Any

import torch

from byol import run as runs
from byol import stopping
from byol.ablation.job import Job, Onlooker
from byol.config import Plan
from byol.data import cores
from byol.run import Session
from byol.training import Watcher

WAIT = 0.2  # seconds between two looks whether a signal came
TAIL = 6  # lines of what a process said last
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Ready:
    """A job with what its process has to know."""

    job: Job
    plan: Plan
    session: Callable[[], Session | None]  # of a run that begins; None for one that goes on


@dataclass
class Ended:
    """How the jobs ended that did not come to their end."""

    failed: dict[str, str] = field(default_factory=dict)  # name -> why
    saved: dict[str, int] = field(default_factory=dict)  # folder -> at which update a signal stopped it
    signal: int | None = None  # that stopped all


@dataclass
class Child:
    """A process and the job that it does."""

    job: Job
    process: subprocess.Popen[bytes]
    place: dict[str, str]
    watcher: Watcher | None
    errors: IO[bytes]  # what it wrote on standard error
    said: dict[str, Any] = field(default_factory=dict)  # its last message


def gpus(device: str) -> list[str]:
    """The GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them; none where runs do not train on such."""
    if runs.find_device(device) != "cuda":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[: torch.cuda.device_count()] if visible else [str(i) for i in range(torch.cuda.device_count())]


def places(jobs: int, device: str) -> list[dict[str, str]]:
    """The environment of each of so many processes: its share of the cores, and one of the GPUs in turn."""
    fixed = os.environ.get("OMP_NUM_THREADS", "")
    share = max(1, cores() // jobs)
    threads = min(share, int(fixed)) if fixed.isdecimal() and int(fixed) else share
    own = dict.fromkeys(_THREADS, str(threads))
    found = gpus(device)
    return [own | ({"CUDA_VISIBLE_DEVICES": found[i % len(found)]} if found else {}) for i in range(jobs)]


def at_once(ready: Sequence[Ready], free: list[dict[str, str]], onlooker: Onlooker) -> Ended:
    """Do the jobs, as many at a time as there are places. A signal stops all: runs are saved, and no other begins."""
    left, running, ended = deque(ready), list[Child](), Ended()
    messages: Queue[tuple[Child, dict[str, Any] | None]] = Queue()
    with stopping.noted() as received:
        try:
            while running or (left and not received):
                while left and free and not received:
                    running.append(_start(left.popleft(), free.pop(0), messages, onlooker))
                if received and ended.signal is None:
                    ended.signal = received[0]
                    _pass_on(running, received[0])
                try:
                    child, message = messages.get(timeout=WAIT)
                except Empty:
                    continue
                if message is not None:
                    _hear(child, message)
                    continue
                running.remove(child)
                free.append(child.place)
                _close(child, ended, onlooker)
        finally:  # a second Ctrl-C, or a mistake of ours
            for child in running:
                child.process.kill()
    if received:
        ended.signal = received[0]
    return ended


def _start(ready: Ready, place: dict[str, str], messages: Queue[tuple[Child, dict[str, Any] | None]], onlooker: Onlooker) -> Child:
    """The process, told what to do, with a thread that listens to it."""
    session = ready.session()
    told = {"job": dataclasses.asdict(ready.job), "note": session and runs.to_note(session), "steps": ready.plan.steps}
    errors = tempfile.TemporaryFile()  # noqa: SIM115  it is read when the process has ended
    process = subprocess.Popen(
        [sys.executable, "-m", "byol.ablation.child"],
        env={**os.environ, **place},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,  # what the terminal sends comes through this process, once
    )
    child = Child(ready.job, process, place, onlooker.begins(ready.job.name, ready.plan), errors)
    threading.Thread(target=_listen, args=(child, json.dumps(told).encode() + b"\n", messages), daemon=True).start()
    return child


def _listen(child: Child, told: bytes, messages: Queue[tuple[Child, dict[str, Any] | None]]) -> None:
    """Everything that the process says, and None when it has ended."""
    assert child.process.stdin is not None
    assert child.process.stdout is not None
    try:
        child.process.stdin.write(told)
        child.process.stdin.flush()  # and left open: its end says that this process is gone
        for line in child.process.stdout:
            messages.put((child, json.loads(line)))
    except (OSError, ValueError):  # it died, perhaps in the middle of a line
        pass
    child.process.wait()
    messages.put((child, None))


def _hear(child: Child, message: dict[str, Any]) -> None:
    child.said = message
    if child.watcher is None:
        return
    if "step" in message and "ended" not in message:
        child.watcher.step(message["step"])
    elif "log" in message:
        child.watcher.log(message["log"])
    elif "note" in message:
        child.watcher.note(message["note"])


def _close(child: Child, ended: Ended, onlooker: Onlooker) -> None:
    """What came of a process that has ended."""
    assert child.process.stdin is not None
    assert child.process.stdout is not None
    with suppress(OSError):  # it may have died before it heard all
        child.process.stdin.close()
    child.process.stdout.close()
    how, code = child.said.get("ended"), child.process.returncode
    if how == "interrupted" and child.said["step"] is not None:
        ended.saved[child.job.run] = child.said["step"]
    if (how and how != "interrupted") or ended.signal is not None:
        why = ""
    elif how == "interrupted":
        why = "a signal stopped it alone; the same words go on with it"
    elif "failed" in child.said:
        why = str(child.said["failed"])
    else:
        died = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        why = f"its process {died}{_tail(child.errors)}"
    child.errors.close()
    if why:
        ended.failed[child.job.name] = why
        onlooker.failed(child.job.name, why)


def _tail(errors: IO[bytes]) -> str:
    """What it wrote last, after a colon; nothing where it wrote nothing."""
    errors.seek(0)
    lines = [line.rstrip() for line in errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return ": " + " | ".join(lines[-TAIL:]) if lines else ""


def _pass_on(running: Sequence[Child], number: int) -> None:
    for child in running:
        if child.process.poll() is None:
            child.process.send_signal(number)
