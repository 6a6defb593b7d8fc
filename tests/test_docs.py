import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def test_every_recipe_is_in_the_docs():
    from byol.recipes import RECIPES

    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in RECIPES if f"`{name}`" not in text] == []


def test_the_docs_give_the_thresholds_that_the_code_has():
    from byol import health

    text = (DOCS / "health.md").read_text(encoding="utf-8")
    for value in (health.SPREAD_COLLAPSED, health.SPREAD_FALLING, health.SPREAD_KEPT, health.SPREAD_WARN):
        assert f"{value:g}" in text
    assert f"rank below {health.RANK_COLLAPSED:g}" in text
    assert f"(rank below {health.RANK_WARN:g})" in text


def test_contributing_has_at_most_40_lines():
    assert len((DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 40


def test_the_pages_of_the_methods_are_as_their_files_say():
    program = DOCS.parent / "benchmarks" / "pages.py"
    done = subprocess.run([sys.executable, program, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
