"""Settings of one view alone: `--set view2.blur=0`, from the words to the views, and through plan, resume and `views=run`."""

import json

import pytest
from cli_calls import TINY, TINY_SET, byol, stripes

from byol import views
from byol.config import Plan, Request, Settings, parse_assignments
from byol.methods import load
from byol.recipes import Facts, resolve
from byol.views import Pipeline

KINDS = {"settings": Settings, "method": load("byol").Config, "views": Pipeline}


def planned(*pairs, **facts):
    about = {"images": 1000, "short_side": 224, "device": "cuda", "cores": 2} | facts
    return resolve(Request(data="x", set=pairs), Facts(**about), KINDS["method"], Pipeline, views.names())


@pytest.mark.parametrize(
    ("pairs", "blur", "solarize"),
    [
        ((), (1.0, 0.1), (0.0, 0.2)),
        (("view2.blur=0",), (1.0, 0.0), (0.0, 0.2)),
        (("view2.blur=0", "view2.solarize=0"), (1.0, 0.0), (0.0, 0.0)),
        (("blur=0.5", "view1.blur=0.3"), (0.3, 0.5), (0.0, 0.2)),
        (("view1.blur=0.3", "blur=0.5"), (0.5, 0.5), (0.0, 0.2)),  # what comes last counts
    ],
)
def test_a_setting_of_one_view_leaves_the_other_as_it_was(pairs, blur, solarize):
    plan = Plan.from_json(json.loads(json.dumps(planned(*pairs).to_json())))  # as a run folder keeps it
    made = views.load("paper", size=224, **plan.views)
    assert tuple(p.blur for p in made.pipelines) == blur
    assert tuple(p.solarize for p in made.pipelines) == solarize
    assert {k for k in plan.reasons if k.startswith("view2.")} == {p.partition("=")[0] for p in pairs if p.startswith("view2.")}


def test_one_view_can_have_back_what_a_recipe_takes_from_both():
    plan = planned("view2.solarize=0.2", device="cpu", short_side=32)
    assert [p.solarize for p in views.load("small", size=32, **plan.views).pipelines] == [0.0, 0.2]
    assert [p.solarize for p in views.load("small", size=32, **planned(device="cpu", short_side=32).views).pipelines] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ("view2.blurr=0", "--set view2.blurr: no such setting of one view; did you mean view2.blur?"),
        ("view2.tau_base=0.1", "--set view2.tau_base: no such setting of one view; there are: apart, aspect, blur"),
        ("view2.blur=much", "--set view2.blur=much: give a number"),
        ("view.blur=0", "--set view.blur: no such setting; "),
    ],
)
def test_what_a_view_does_not_have_is_one_sentence(pair, sentence):
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_assignments((pair,), KINDS)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("number", [0, 3, 9999])
def test_a_view_that_the_plan_does_not_make_is_one_sentence(tmp_path, number):
    call = byol("train", stripes(tmp_path / "photos", 24), "--out", tmp_path / "run", *TINY, "--set", f"view{number}.blur=0")
    assert call.code == 2
    assert f"view{number}.blur: the views small have no view {number}; give view1 to view2" in " ".join(call.err.split())
    assert not (tmp_path / "run").exists()


def test_a_run_keeps_the_setting_of_one_view_for_resume_and_for_evaluation_on_its_views(tmp_path):
    from byol import run as runs

    photos, out = stripes(tmp_path / "photos", 48), tmp_path / "run"
    words = [*TINY, "--epochs", 1, "--device", "cpu", *TINY_SET, "view2.flip=0", "view2.solarize=1", "solarize=0.5"]
    dry = byol("train", photos, *words, "--dry-run")
    assert dry.code == 0, dry.err
    assert "flip = 0.5 / 0" in dry.out
    assert "view 2: asked for (--set)" in " ".join(dry.out.split())
    assert byol("train", photos, "--out", out, *words).code == 0
    session = runs.reopen(out)
    assert [p.flip for p in session.views.pipelines] == [0.5, 0.0]
    assert [p.solarize for p in session.views.pipelines] == [0.5, 0.5], "a later setting of all views goes over that of one"
    seen = json.loads((out / "encoder.json").read_text())["provenance"]["views"]
    again = views.load(seen["name"], size=16, **seen["changes"])
    assert again.pipelines[0] == session.views.pipelines[0], "evaluation on the run's views takes the first of them"
    call = byol("evaluate", out, photos, "--protocol", "linear-sgd:views=run,epochs=1", "--no-baselines", "--json")
    assert call.code == 0, call.err


def test_the_reason_for_tau_counts_the_updates_that_there_are():
    """1,437 images are 11 batches of 128 and a rest that is left out."""
    for accumulate in (1, 3):
        facts = Facts(images=1437, short_side=8, device="cpu", cores=2)
        plan = resolve(Request(data="x", epochs=17, accumulate=accumulate), facts, KINDS["method"], Pipeline, views.names())
        assert plan.steps == 17 * 11 // accumulate
        assert plan.reasons["tau_base"].startswith(f"{plan.steps:,} updates: ")


def test_views_are_counted_as_the_method_takes_them():
    """A method of three views has T, T' and T' again here: the third is not the second."""
    takes = [(0, False), (1, False), (1, True)]
    made = views.load("paper", size=224, takes=takes, flip=0.1, **{"view3.flip": 1.0, "view3.blur": 0.0})
    assert [p.flip for p in made.pipelines] == [0.1, 0.1, 1.0]
    assert [p.blur for p in made.pipelines] == [1.0, 0.1, 0.0]
    plain, mild = views.load("paper", size=224, takes=takes, jitter=0.3).pipelines[1:]
    assert (plain.jitter, plain.solarize, plain.min_area) == (0.3, 0.2, 0.08)
    assert (mild.jitter, mild.solarize, mild.min_area) == (0, 0, 0.8), "what a mild view is goes over what is asked of all"
