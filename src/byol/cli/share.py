"""The commands of the Hugging Face Hub: push and pull."""

from __future__ import annotations

from byol import api
from byol.cli.options import Pull, Push
from byol.cli.screen import Screen, quoted


def push(options: Push, screen: Screen) -> int:
    """An encoder and its card, for others."""
    screen.progress("sending", 0, 0)
    address = api.push(options.run, options.repo, network=options.network, private=options.private, data_licence=options.data_licence)
    screen.clear()
    screen.say(f"{options.repo}: {address}")
    screen.say(f"Next: byol pull {quoted(options.repo)}")
    screen.result({"repo": options.repo, "commit": address, "network": options.network})
    return 0


def pull(options: Pull, screen: Screen) -> int:
    """An encoder of others."""
    screen.progress("fetching", 0, 0)
    folder = api.pull(options.repo, options.out, revision=options.revision)
    screen.clear()
    screen.say(f"{folder}: the encoder of {options.repo}, its weights as their SHA-256 says; what it was made of is in {folder}/README.md")
    screen.say(f'Next: byol.load("{folder}") in Python, or byol evaluate {quoted(folder)} DATA')
    screen.result({"repo": options.repo, "out": str(folder)})
    return 0
