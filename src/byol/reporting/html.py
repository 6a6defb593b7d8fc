"""HTML that is escaped by construction: text becomes markup only through `tag`, so a file name can never become code."""

from __future__ import annotations

import html
from collections.abc import Iterable

Attribute = str | int | float | bool | None


class Markup(str):
    """Text that is HTML already; anything else is escaped when it is put into a tag."""

    __slots__ = ()


def printable(text: str) -> str:
    """The text without what cannot be shown: control and direction characters and bytes that are no text become escapes."""
    decoded = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\u00a0" else c.encode("unicode_escape").decode() for c in decoded)


def escape(text: str) -> Markup:
    """Text or markup -> markup."""
    return text if isinstance(text, Markup) else Markup(html.escape(printable(text), quote=True))


def tag(name: str, /, *children: str, **attributes: Attribute) -> Markup:
    """`<name attributes>children</name>`; children and values are escaped unless they are Markup.

    `class_` and `for_` lose their underscore, others become hyphens; None and False leave an attribute out.
    """
    words = "".join(_attribute(k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items() if v is not None and v is not False)
    if name in ("meta", "img", "input", "br"):
        return Markup(f"<{name}{words}>")
    return Markup(f"<{name}{words}>{join(children)}</{name}>")


def _attribute(name: str, value: Attribute) -> str:
    if value is True:
        return f" {name}"
    return f' {name}="{short(value) if isinstance(value, float) else escape(str(value))}"'


def join(parts: Iterable[str], between: str = "") -> Markup:
    """The parts, escaped where they are not markup, one after the other."""
    return Markup(escape(between).join(escape(p) for p in parts))


def short(value: float) -> str:
    """A coordinate: at most two decimals, no needless zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def number(value: float) -> str:
    """A number as a person reads it: four significant digits, thousands with commas, small ones as powers of ten."""
    if value != value or value in (float("inf"), float("-inf")):
        return "not finite"
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def percent(fraction: float, digits: int = 1) -> str:
    """0.633 -> '63.3 %', which no line break parts."""
    return f"{100 * fraction:.{digits}f}\u00a0%"


def share(fraction: float) -> str:
    """A share of the labels: 0.01 -> '1 %', 0.125 -> '12.5 %', which no line break parts."""
    return f"{100 * fraction:.4g}\u00a0%"


def duration(seconds: float) -> str:
    """'40 s', '31 min' or '2 h 05 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def command(text: str) -> Markup:
    """A command to copy."""
    return tag("code", text, class_="command")


def copyable(text: str) -> Markup:
    """A block of text with a button that copies it."""
    button = tag("button", "Copy", type="button", class_="copy", hidden=True)
    return tag("div", button, tag("pre", tag("code", text)), class_="copyable")


def missing(sentence: str, cure: str | None = None) -> Markup:
    """What is not here, in one sentence, and the command that makes it."""
    return tag("p", sentence, *([" ", command(cure)] if cure else []), class_="missing")


def table(head: list[str], rows: Iterable[list[str]], class_: str = "") -> Markup:
    """A table that scrolls sideways by itself on a narrow screen; cells that are `<td>` or `<th>` already stay as they are."""
    first = tag("thead", tag("tr", *(_cell(h, "th") for h in head)))
    body = tag("tbody", *(tag("tr", *(_cell(c, "th" if i == 0 else "td") for i, c in enumerate(row))) for row in rows))
    return tag("div", tag("table", first, body, class_=class_ or None), class_="scroll")


def _cell(content: str, name: str) -> Markup:
    if isinstance(content, Markup) and content.startswith(("<td", "<th")):
        return content
    return tag(name, content, scope="row" if name == "th" else None)
