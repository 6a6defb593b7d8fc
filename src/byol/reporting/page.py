"""The page around the parts: head, policy, style, script. Nothing on it comes from the network, and nothing but its own script runs."""

from __future__ import annotations

import base64
import hashlib

from byol.reporting.html import Markup, join, tag
from byol.reporting.script import SCRIPT
from byol.reporting.style import style


def page(title: str, body: Markup) -> str:
    """A whole document; the content policy forbids every request and every script except the one below it."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style())),
    )
    whole = tag("body", tag("main", body), tag("script", Markup(SCRIPT)))
    return f"<!doctype html>\n{tag('html', head, whole, lang='en')}\n"


def section(key: str, title: str, *content: str, aside: str = "") -> Markup:
    """A part of the page under its heading; `key` is where links go."""
    small = [tag("small", aside)] if aside else []
    return tag("section", tag("h2", title, *small), *content, id=key)


def contents(sections: list[tuple[str, str]]) -> Markup:
    """Links to the sections."""
    return tag("nav", *(tag("a", title, href=f"#{key}") for key, title in sections))


def top(left: str) -> Markup:
    """The line over the headline, with the button for light and dark."""
    return tag("div", tag("span", left), tag("button", "Light / dark", type="button", class_="theme", hidden=True), class_="top")


def header(left: str, headline: str, mood: str, rest: list[Markup]) -> Markup:
    """What a person reads first."""
    title = tag("h1", tag("span", class_="mood", aria_hidden="true"), headline, class_=mood)
    return tag("header", top(left), title, join(rest))
