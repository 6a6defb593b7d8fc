"""Bootstrap Your Own Latent: from a folder of images without labels to an encoder whose worth is shown.

`import byol` is quick: torch is imported when a name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from byol.ablation import ablate as ablate
    from byol.api import demo as demo
    from byol.api import doctor as doctor
    from byol.api import embed as embed
    from byol.api import evaluate as evaluate
    from byol.api import evaluate_task as evaluate_task
    from byol.api import export as export
    from byol.api import load as load
    from byol.api import pull as pull
    from byol.api import push as push
    from byol.api import report as report
    from byol.api import resume as resume
    from byol.api import train as train

_WORDS = ("ablate", "demo", "doctor", "embed", "evaluate", "evaluate_task", "export", "load", "pull", "push", "report", "resume", "train")
_PARTS = ("config", "data", "dense", "encoders", "evaluation", "health", "losses", "methods", "optim", "recipes", "rng", "views")

__all__ = [*_WORDS, *_PARTS, "__version__"]


def __getattr__(name: str) -> object:
    if name in _WORDS:
        return getattr(importlib.import_module("byol.ablation" if name == "ablate" else "byol.api"), name)
    if name in _PARTS:
        return importlib.import_module(f"byol.{name}")
    raise AttributeError(f"module 'byol' has no attribute {name!r}")
