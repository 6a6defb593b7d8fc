"""What the library warns of, said on the screen: whose weights are read, and under which licence."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TypeVar

from byol import others
from byol.cli.screen import Screen

T = TypeVar("T")


def told(command: Callable[[T, Screen], int]) -> Callable[[T, Screen], int]:
    """The command, during which each notice on weights of others is told once, as soon as they are read."""

    @functools.wraps(command)
    def wrapped(options: T, screen: Screen) -> int:
        before: set[str] = set()
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: object) -> None:
            if not issubclass(category, others.Notice):
                usual(message, category, *where)  # type: ignore[arg-type]  # as they came
            elif str(message) not in before:
                before.add(str(message))
                screen.clear()
                screen.tell(str(message), 9, "Weights  ")

        with warnings.catch_warnings():
            warnings.simplefilter("always", others.Notice)
            warnings.showwarning = show  # type: ignore[assignment]  # it is called with these, by their place
            return command(options, screen)

    return wrapped
