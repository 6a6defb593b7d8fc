"""A run: the folder, and the objects that train in it, built from what was asked or from what the folder says."""

from __future__ import annotations

from byol.run.deciding import Look, decide, look, speed_of
from byol.run.device import find_device, gains
from byol.run.folder import alone, create, machine, read_json, read_plan, refuse_existing, threads_of, write_json, write_left_out
from byol.run.notes import from_note, prepare, reopen, restored, to_note
from byol.run.session import OWN, Progress, Session, build, called, encoder_of, options_of, sees_labels, set_by_first_batch, views_by

__all__ = [
    "OWN",
    "Look",
    "Progress",
    "Session",
    "alone",
    "build",
    "called",
    "create",
    "decide",
    "encoder_of",
    "find_device",
    "from_note",
    "gains",
    "look",
    "machine",
    "options_of",
    "prepare",
    "read_json",
    "read_plan",
    "refuse_existing",
    "reopen",
    "restored",
    "sees_labels",
    "set_by_first_batch",
    "speed_of",
    "threads_of",
    "to_note",
    "views_by",
    "write_json",
    "write_left_out",
]
