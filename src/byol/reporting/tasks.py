"""Evaluations without class labels on the page: a module for each family, all with the same functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from byol.reporting import dense, progression, registration
from byol.reporting.html import Markup, join
from byol.reporting.run import Run

_ALL: Final = (dense, registration, progression)


def there(run: Run) -> bool:
    """Whether the run has any that can be understood."""
    return any(part.results(run) for part in _ALL)


def worth(run: Run) -> Markup:
    """All of them; nothing where there are none."""
    return join(part.worth(run) for part in _ALL)


def sentence(run: Run) -> str:
    """The first of them in a few words; nothing where there are none."""
    return next((said for part in _ALL if (said := part.sentence(run))), "")


def side_by_side(runs: Sequence[Run]) -> Markup:
    """Those of several runs, what was measured in one way in one table."""
    return join(part.side_by_side(runs) for part in _ALL)
