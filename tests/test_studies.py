import ast
import json
import math
import subprocess
import sys
import types
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cli_calls import byol

from byol import studies
from byol.reporting import plot
from byol.studies import Finding, Line, Outcome, Plot, _pages

FOLDER = Path(studies.__file__).parent


def a_study(held=True, interrupt=False):
    """A module as a study is, which takes no time."""

    def run(seeds, progress):
        progress("drawing", 0, len(seeds))
        if interrupt:
            raise KeyboardInterrupt
        line = Line("a", [1, 2, 3], [1.0, math.nan, 2.0], [0.5, 0.5, 1.5], [1.5, 1.5, 2.5])
        findings = (Finding("One is one.", held, "It is 1.00."),)
        return Outcome(("what", "value"), [("a", 1.25), ("b", math.inf)], findings, (Plot("A", "x", "y", (line,)),) * 2, {"n": len(seeds)})

    return types.SimpleNamespace(
        __doc__="About a study.", TITLE="One is said to be one.", CLAIMS=("One is one.",), SOURCE="Peano 1889", run=run
    )


@pytest.fixture
def pretended(monkeypatch):
    """Studies `one` and `two` in place of ours."""
    found = {"one": a_study(), "two": a_study(held=False)}
    monkeypatch.setattr(studies, "names", lambda: list(found))
    monkeypatch.setattr(_pages, "names", lambda: list(found))
    monkeypatch.setattr(studies, "load", found.__getitem__)
    return found


@pytest.mark.parametrize("name", studies.names())
def test_every_file_keeps_the_contract(name):
    module = studies.load(name)
    assert module.__doc__
    assert module.TITLE.endswith(".")
    assert module.SOURCE
    assert all(claim.endswith(".") and "\n" not in claim for claim in module.CLAIMS)
    assert callable(module.run)


def test_a_new_file_is_a_new_study_everywhere():
    files = {p.stem.replace("_", "-") for p in FOLDER.glob("*.py") if not p.stem.startswith("_")}
    assert set(studies.names()) == files
    assert set(json.loads(byol("list", "studies", "--json").out)["studies"]) == files


def test_listing_studies_imports_no_torch():
    code = "import sys\nfrom byol.cli import main\nmain(['list', 'studies'])\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_wrong_name_gives_the_nearest_one_in_a_sentence(tmp_path):
    call = byol("study", "multipel-descent", "--out", tmp_path)
    assert call.code == 2
    assert call.err == "byol: no study 'multipel-descent'; did you mean multiple-descent?\n"
    assert "and all" in byol("study", "qqq").err


def test_a_study_leaves_table_page_and_picture(pretended, tmp_path):
    call = byol("study", "one", "--out", tmp_path, "--seeds", "4", "7", "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out)["studies"][0]
    assert found["seeds"] == [4, 7]
    assert found["rows"] == [["a", 1.25], ["b", None]]  # strict JSON knows no infinity
    assert found["findings"] == [{"claim": "One is one.", "held": True, "evidence": "It is 1.00."}]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["README.md", "one-2.svg", "one.json", "one.md", "one.svg"]
    stored = json.loads((tmp_path / "one.json").read_text())
    assert stored == {k: v for k, v in found.items() if k != "files"}
    page = (tmp_path / "one.md").read_text()
    for piece in (
        "# One is said to be one.",
        "About a study.",
        "Peano 1889",
        "**Held**: One is one. It is 1.00.",
        "(one-2.svg)",
        "| a | 1.25 |",
    ):
        assert piece in page
    assert max(map(len, call.err.splitlines())) <= 80 + len(str(tmp_path))
    assert "Next: byol study two" in call.err


def test_all_studies_are_done_and_listed_with_what_held(pretended, tmp_path):
    call = byol("study", "all", "--out", tmp_path)
    assert call.code == 0, call.err
    assert "not held" in call.out
    index = (tmp_path / "README.md").read_text()
    assert "[one](one.md): One is said to be one. 1 of 1 claims held." in index
    assert "[two](two.md): One is said to be one. 0 of 1 claims held." in index


def test_what_is_done_stays_after_an_interrupt(pretended, tmp_path):
    pretended["two"] = a_study(interrupt=True)
    assert byol("study", "all", "--out", tmp_path).code == 130
    assert (tmp_path / "one.json").exists()
    assert not (tmp_path / "two.json").exists()


def test_a_readme_of_somebody_else_is_left_alone(pretended, tmp_path):
    (tmp_path / "README.md").write_text("# My project\n")
    assert byol("study", "one", "--out", tmp_path).code == 0
    assert (tmp_path / "README.md").read_text() == "# My project\n"


@pytest.mark.parametrize("seeds", [["1", "1"], ["-1"]])
def test_seeds_that_cannot_be_used_are_refused(pretended, tmp_path, seeds):
    call = byol("study", "one", "--out", tmp_path, "--seeds", *seeds)
    assert (call.code, list(tmp_path.iterdir())) == (2, [])
    assert call.err.startswith("byol: seeds ")


def test_a_claim_that_could_not_be_judged_is_neither_held_nor_not():
    assert [Finding("c", held, "").verdict for held in (True, False, None)] == ["held", "not held", "not judged"]


@pytest.mark.parametrize("width", [20, 60])
def test_tables_of_any_width_fit_80_columns(width):
    outcome = Outcome(("name", *"abcdefg"), [("x" * width, *[1234.5678] * 7)], (), (), {})
    lines = _pages.lines(outcome)
    assert max(map(len, lines)) <= 80
    assert lines[-1].split()[-7:] == ["1,235"] * 7


def test_plots_are_xml_whatever_they_are_called():
    evil = Plot("<script>&", "x", "y", (Line("</svg>\x1b", [1, 2], [1.0, 2.0]),), guides=((1.5, "<g>"),), marks=((1.0, "&"),))
    tree = ElementTree.fromstring(plot.svg(evil))
    assert "<script>&" in [e.text for e in tree.iter("{http://www.w3.org/2000/svg}text")]


def circles(drawn):
    return [
        (float(e.get("cx")), float(e.get("cy"))) for e in ElementTree.fromstring(plot.svg(drawn)).iter("{http://www.w3.org/2000/svg}circle")
    ]


def test_points_that_an_axis_cannot_show_are_left_out():
    line = Line("a", [1, 2, 3, 4, 5], [1.0, math.inf, 0.0, -1.0, 10.0])
    assert len(circles(Plot("", "", "", (line,), log_y=True))) == 2
    assert len(circles(Plot("", "", "", (line,)))) == 4


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors():
    (a, _), (b, _), (c, _) = circles(Plot("", "", "", (Line("a", [1, 10, 100], [1.0, 1.0, 1.0]),), log_x=True))
    assert b - a == pytest.approx(c - b, abs=0.1)


def test_titles_are_literals_that_are_read_without_importing():
    for path in FOLDER.glob("[a-z]*.py"):
        assigned = {
            n.targets[0].id: n.value for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign) and hasattr(n.targets[0], "id")
        }
        assert isinstance(ast.literal_eval(assigned["TITLE"]), str)


def test_the_pages_of_the_docs_have_the_claims_of_their_studies(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)
    pages = Path("docs/studies")
    for name in (p.stem for p in pages.glob("*.json")):
        stored = json.loads((pages / f"{name}.json").read_text())
        assert tuple(f["claim"] for f in stored["findings"]) == studies.load(name).CLAIMS
        assert (pages / f"{name}.md").read_text().startswith(f"# {studies.load(name).TITLE}\n")
        for i in range(len(stored["plots"])):
            ElementTree.parse(pages / f"{name}{f'-{i + 1}' if i else ''}.svg")
    assert (pages / "README.md").read_text() == _pages.index(pages)
