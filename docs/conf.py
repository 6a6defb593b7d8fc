"""How Sphinx makes the site of docs/: the map of its pages, and docstrings and the command line's help as pages.

The Markdown stays readable where it lies, so what only a site needs is added here: `toctree`s, and references instead of copies.

uv run --group docs sphinx-build -W --keep-going -q -b html docs build/site
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import textwrap
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

os.environ["COLUMNS"] = "80"  # of the help

import byol
from byol.cli import help as cli_help
from byol.cli.options import COMMANDS

project, author, release = "byol", "the authors of byol", byol.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
html_theme, html_title, html_copy_source = "furo", "byol", False
html_static_path, html_css_files = ["site"], ["site.css"]
exclude_patterns = ["site"]
myst_heading_anchors = 4  # links to headings, as on GitHub
highlight_language = "none"  # indented blocks are commands and their output
nitpicky = False  # types of other libraries have no page here; links between pages are checked all the same
autodoc_inherit_docstrings = False  # torch's say nothing of ours
autodoc_typehints, autodoc_member_order, autodoc_preserve_defaults = "signature", "bysource", True
python_maximum_signature_line_length = 88
add_module_names = False

HOW_TO = ("own_photos", "few_labels", "continue", "sound", "channels", "cluster", "export", "report", "collapsed", "coming_from")
# Caption -> pages.
MAP = {
    "How to": [f"howto/{p}" for p in HOW_TO] + ["examples"],
    "In depth": [
        *("data", "recipes", "encoders", "evaluation", "health", "ablations", "predictors", "scaling", "sharing", "weights_of_others"),
        *("sound", "sound_data", "rgbd", "longitudinal", "recordings", "published"),
    ],
    "Methods": ["methods/README"],
    "Findings": ["results", "performance", "reliability", "parity", "studies/README"],
    "Reference": [f"reference/{p}" for p in ("command_line", "words", "parts", "evaluation", "data", "others")],
}
CHILDREN = ("methods/README", "studies/README")  # pages with the others of their folder below them


def with_toctree(app: Sphinx, name: str, source: list[str]) -> None:
    """The first page gets the map, and a folder's first page the others of its folder."""
    if name == "index":
        source[0] += "".join(toctree(pages, caption) for caption, pages in MAP.items())
    elif name in CHILDREN:
        here = sorted(p.stem for p in Path(app.srcdir, name).parent.glob("*.md") if p.stem != "README")
        source[0] += toctree(here)


def toctree(pages: list[str], caption: str = "") -> str:
    return "\n".join(["\n\n```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), "", *pages, "```\n"])


class CommandLine(Directive):
    """`byol --help` and the help of every command, from the parser itself: this page cannot be stale."""

    def run(self) -> list[nodes.Node]:
        made: list[nodes.Node] = [nodes.literal_block("", cli_help.overview())]
        for command in COMMANDS:
            part = nodes.section(
                "", nodes.title("", f"byol {command}"), nodes.literal_block("", cli_help.describe(command)), ids=[f"byol-{command}"]
            )
            made.append(part)
        return made


def as_rest(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Our docstrings are plain text: `code` in single backticks, and characters that would be markup elsewhere."""
    if inspect.isclass(found) and dataclasses.is_dataclass(found):
        if "".join(lines).startswith(f"{found.__name__}("):  # what dataclass puts where nothing is said
            lines.clear()
        lines += ["", *fields(found)]
    lines[:] = "\n".join(paragraph(p) for p in re.split(r"\n\s*\n", "\n".join(lines))).split("\n")


def paragraph(text: str) -> str:
    """A paragraph of a docstring in reStructuredText, an empty line after it."""
    if text.startswith("    "):
        return f"::\n\n{text}\n"
    rows = text.split("\n")
    if any(row.startswith("    ") for row in rows) or text.startswith("- "):  # items, each with its further lines indented
        items = [f"* {row.removeprefix('- ')}" if row[:1].strip() else f"  {row.strip()}" for row in rows]
        return escaped("\n".join(items), keep=r"(?m)^\* ") + "\n"
    return escaped(text) + "\n"


def escaped(text: str, keep: str = r"(?!)") -> str:
    """`code` becomes ``code``; all else is letters."""
    parts = re.split(r"(`[^`]+`)", text)
    plain = [re.sub(r"[\\*_|`]", lambda m: "\\" + m[0], p) if i % 2 == 0 else f"`{p}`" for i, p in enumerate(parts)]
    return re.sub(r"(?m)^\\\* ", "* ", "".join(plain)) if keep != r"(?!)" else "".join(plain)


def fields(found: type) -> list[str]:
    """The fields of a dataclass with what the source says of them, an item each."""
    said: dict[str, str] = {}
    for cls in (c for c in reversed(found.__mro__) if dataclasses.is_dataclass(c)):
        source = textwrap.dedent(inspect.getsource(cls)).splitlines()
        for node in ast.parse("\n".join(source)).body[0].body:  # type: ignore[attr-defined]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                said[node.target.id] = source[node.end_lineno - 1].partition("  # ")[2]
    return [f"- `{f.name}`: {said.get(f.name) or spelled(f.type)}" for f in dataclasses.fields(found)]  # type: ignore[arg-type]


def spelled(kind: object) -> str:
    return f"`{kind}`" if isinstance(kind, str) else f"`{getattr(kind, '__name__', kind)}`"


def setup(app: Sphinx) -> None:
    app.connect("source-read", with_toctree)
    app.connect("autodoc-process-docstring", as_rest)
    app.add_directive("command-line", CommandLine)
