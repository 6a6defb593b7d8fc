"""The programs under examples/ at toy sizes: they run, and end with the table that they promise."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"


@pytest.fixture
def told(monkeypatch, capsys, tmp_path):
    def run(program, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [program, *words])
        runpy.run_path(str(FOLDER / program), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def shares(lines, *names):
    """The last number of the line of each name; each a top-1 in per cent."""
    found = [float(next(line for line in lines if line.strip().startswith(name)).split()[-1]) for name in names]
    assert all(0 <= value <= 100 for value in found)
    return found


def test_few_labels_sets_the_encoder_beside_pixels_and_an_untrained_network(told):
    lines = told("few_labels.py", "--tiny", "--keep", "kept")
    assert lines[0] == "1,437 pictures to learn from, without their labels"
    table = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert {"pixels", "random", "kept/run"} <= set(table)
    assert sum("% right" in line for line in lines) == 2


def test_continued_compares_five_encoders_on_pictures_that_the_first_training_has_not_seen(told):
    lines = told("continued.py", "--tiny")
    found = shares(lines, "pixels", "untrained", "from random weights", "as the first left it", "continued")
    assert found[0] > 90  # known of digits, whatever we do: pixels with all 200 labels


def test_two_methods_gives_their_difference_seed_by_seed(told):
    lines = told("two_methods.py", "--tiny")
    assert "+-" in next(line for line in lines if line.strip().startswith("byol - simsiam"))


def test_two_methods_wants_two_methods(told):
    with pytest.raises(SystemExit):
        told("two_methods.py", "byol")


def test_the_loop_of_one_s_own_learns(told):
    lines = told("own_loop.py", "20")
    losses = [float(line.split("loss")[1].split()[0]) for line in lines]
    assert losses[-1] < losses[0]


def test_an_encoder_of_one_s_own_is_evaluated(told):
    assert any(line.strip().startswith("pixels") for line in told("own_encoder.py"))
