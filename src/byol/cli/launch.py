"""`--devices N`: the same command in N processes, watched over by this one, which imports no torch and computes nothing.

Torch's launcher serves as well (`torchrun --nproc-per-node N -m byol train ...`) and is the one for several machines; this one passes
exit codes and signals on as a single process would have them, and says where a process stood that ended the others.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO

GRACE = 10.0  # seconds that the others get to end by themselves, once one has failed
LAST_WORDS = 5.0  # seconds to print where they stood, after that
PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
PARENT = "BYOL_PARENT"  # the end of a pipe that closes when the watching process is gone
LOST = 3  # the exit code of a process that another one left alone
_TOLD_LINES = 40


def launch(words: Sequence[str], count: int) -> int:
    """Run `byol WORDS` in so many processes; the exit code is that of the first, or of whichever failed before it."""
    if count < 1:
        raise ValueError(f"--devices {count}: give 1 or more")
    read_end, write_end = os.pipe()
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    errors = [tempfile.TemporaryFile() for _ in range(count)]  # noqa: SIM115  they are read when all is over
    team = []
    for rank in range(count):
        env = {**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank), PARENT: str(read_end)}
        # A session of its own: what the terminal sends comes through this process, once.
        quiet = {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": errors[rank]}
        command = [sys.executable, "-m", "byol", *words]
        team.append(subprocess.Popen(command, env=env, start_new_session=True, pass_fds=[read_end], **quiet))  # type: ignore[call-overload]
    os.close(read_end)
    known = [getattr(signal, name) for name in PASSED_ON if hasattr(signal, name)]
    before = {number: signal.signal(number, lambda n, frame: _pass_on(team[0], n)) for number in known}
    try:
        return _watch(team, errors)
    finally:
        for process in team:
            process.kill()
        os.close(write_end)
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """In a process that `launch` started: end at once when the one that watches is gone, killed perhaps."""
    if PARENT in os.environ:
        end = int(os.environ.pop(PARENT))
        os.set_inheritable(end, False)
        threading.Thread(target=lambda: os.read(end, 1) or os._exit(1), daemon=True).start()


def _pass_on(first: subprocess.Popen[bytes], number: int) -> None:
    # The others hear of it from the first, so that all stop after the same step.
    if first.poll() is None:
        first.send_signal(number)


def _watch(team: Sequence[subprocess.Popen[bytes]], errors: Sequence[IO[bytes]]) -> int:
    """Until all have ended; if one fails the others are ended, too. The exit code of the first, or of the one that failed."""
    while not any(codes := [process.poll() for process in team]):
        if None not in codes:
            return 0
        time.sleep(0.05)
    _wait(team, GRACE)
    # Whoever only lost the others is not the one to ask; what the first one has to say it has said.
    codes = [process.poll() for process in team]
    failed = min((rank for rank, code in enumerate(codes) if code), key=lambda rank: (codes[rank] == LOST, rank))
    hung = [rank for rank, process in enumerate(team) if process.poll() is None]
    for rank in hung:
        team[rank].send_signal(signal.SIGABRT)  # Python prints where each of its threads stands
    _wait(team, LAST_WORDS)
    if failed:
        _tell(failed, team, errors)
    for rank in hung:
        if rank not in (0, failed):
            _tell(rank, team, errors, "did not answer and was ended; it stood here")
    code = codes[failed]
    return 1 if code is None or code < 0 or code == LOST else code


def _wait(team: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(process.poll() is None for process in team):
        time.sleep(0.05)


def _tell(rank: int, team: Sequence[subprocess.Popen[bytes]], errors: Sequence[IO[bytes]], what: str = "") -> None:
    """What a process wrote last on standard error."""
    code = team[rank].poll()
    how = what or (f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with exit code {code}")
    errors[rank].seek(0)
    lines = errors[rank].read().decode("utf-8", "replace").splitlines()[-_TOLD_LINES:]
    print("\n".join([f"byol: process {rank} of 0 to {len(team) - 1} {how}{':' if lines else ''}", *lines]), file=sys.stderr, flush=True)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port
