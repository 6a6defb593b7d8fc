"""What a method logs is drawn in the words of its own file, and the rest under its name."""

from pathlib import Path

import pytest
from test_reporting import Page

from byol import methods
from byol.reporting.curves import curves
from byol.reporting.run import Record, Run

PREDICTOR = {"predictor_stable_rank": 0.4, "predictor_value_q10": 0.1, "predictor_value_q50": 0.3, "predictor_value_q90": 0.8}


def a_run(method, name="one", **logged):
    records = [
        Record(k, k / 2, {"loss": 1.0 / k, "spread": 0.5, **{key: value / k for key, value in logged.items()}}, "OK", "") for k in (1, 2, 3)
    ]
    return Run(Path(name), name, {"settings": {"method": method}}, records=records)


def test_the_diagnostics_of_a_method_have_charts_in_its_own_words():
    page = Page(str(curves([a_run("closed_form", **PREDICTOR, brand_new=5.0)])))
    for curve in methods.load("closed_form").CURVES:
        assert (curve.title in page.said) is (curve.keys[0] in PREDICTOR), "what was not logged has no chart"
    lines = page.lines()
    assert {key: lines[key]["value"][0] for key in ("q10", "q50", "q90")} == {"q10": 0.1, "q50": 0.3, "q90": 0.8}
    assert lines["brand new"]["value"] == [5.0, 2.5, pytest.approx(5 / 3)]
    assert page.said.count("Logged by the method.") == 1


def test_a_loss_is_told_in_the_words_of_its_method_unless_methods_differ():
    assert "0 to 8" in Page(str(curves([a_run("byol")]))).said
    both = Page(str(curves([a_run("byol"), a_run("closed_form", "two", **PREDICTOR)])))
    assert "These methods have losses on different scales." in both.said
    assert "0 to 8" not in both.said
    assert "Predictor value q10" in both.said, "several runs have a chart a value"


@pytest.mark.parametrize("method", ["../byol", "no such method", "None"])
def test_a_run_of_a_method_that_is_not_here_is_drawn_all_the_same(method):
    page = Page(str(curves([a_run(method, thing=2.0)])))
    assert "Thing" in page.said
    assert len(page.lines()["loss"]["value"]) == 3


@pytest.mark.parametrize("name", methods.names())
def test_every_value_is_in_one_chart(name):
    keys = [key for curve in methods.curves_of(methods.load(name)) for key in curve.keys]
    assert len(keys) == len(set(keys))
