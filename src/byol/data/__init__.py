"""Data in any form -> named samples, their statistics, batches by step, and a doctor's report. Importing this imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from byol.data.compact import Names
from byol.data.decode import read_image
from byol.data.doctor import describe, doctor
from byol.data.doctor_report import DoctorReport
from byol.data.labels import splits
from byol.data.memory import MAX_BYTES, load_memory
from byol.data.named import names, splits_of
from byol.data.open import open_source
from byol.data.parallel import cores, each, threads
from byol.data.patience import Waited
from byol.data.recordings import stretches
from byol.data.rgbd import intrinsics, is_rgbd, open_rgbd
from byol.data.rgbd_doctor import RgbdReport
from byol.data.shards import present
from byol.data.sound_doctor import SoundReport, doctor_sounds
from byol.data.sound_sets import is_sound_set, open_sound_set, sound_set_names
from byol.data.sounds import is_sounds, open_sounds
from byol.data.source import (
    WORDS,
    Headers,
    Kind,
    Metric,
    Modality,
    Official,
    Reader,
    Skipped,
    Source,
    Unreadable,
    Words,
    channels_of,
    cut,
    shown,
)
from byol.data.statistics import Statistics, statistics
from byol.data.transfer_sets import is_transfer, open_transfer, transfer_names

if TYPE_CHECKING:
    from byol.data.loader import HostBatch, HostBatches, PairPlan, ids_at, steps_per_epoch
    from byol.data.sound_loader import WindowBatches

__all__ = [
    "MAX_BYTES",
    "WORDS",
    "DoctorReport",
    "Headers",
    "HostBatch",
    "HostBatches",
    "Kind",
    "Metric",
    "Modality",
    "Names",
    "Official",
    "PairPlan",
    "Reader",
    "RgbdReport",
    "Skipped",
    "SoundReport",
    "Source",
    "Statistics",
    "Unreadable",
    "Waited",
    "WindowBatches",
    "Words",
    "channels_of",
    "cores",
    "cut",
    "describe",
    "doctor",
    "doctor_sounds",
    "each",
    "ids_at",
    "intrinsics",
    "is_rgbd",
    "is_sound_set",
    "is_sounds",
    "is_transfer",
    "load_memory",
    "names",
    "open_rgbd",
    "open_sound_set",
    "open_sounds",
    "open_source",
    "open_transfer",
    "present",
    "read_image",
    "shown",
    "sound_set_names",
    "splits",
    "splits_of",
    "statistics",
    "steps_per_epoch",
    "stretches",
    "threads",
    "transfer_names",
]


def __getattr__(name: str) -> object:
    # The loader needs torch, which takes seconds to import; `byol doctor` does without it.
    if name in ("HostBatch", "HostBatches", "PairPlan", "ids_at", "steps_per_epoch"):
        return getattr(importlib.import_module("byol.data.loader"), name)
    if name == "WindowBatches":
        return getattr(importlib.import_module("byol.data.sound_loader"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
