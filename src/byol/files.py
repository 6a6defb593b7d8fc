"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A file to write in place of PATH, with its suffix: it becomes PATH at the end, or vanishes if the block fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name: what a kill leaves behind is written over the next time.
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        # Some writers (safetensors) make files that only their owner can read; whoever may read the run may read these.
        temporary.chmod(mode)
        with temporary.open("rb") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """The text in the file, in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
