import dataclasses
import shlex
from pathlib import Path

import pytest

from byol.cli.usage import parse
from byol.config import Request
from byol.reporting.curves import stretches
from byol.reporting.run import Record, Run
from byol.reporting.verdict import comparison, headline, mood, verdict


def run(verdicts, steps=None, scores=(), name="a", settings=None):
    """A run with one line of the log for each verdict, ten steps apart."""
    records = [Record(10 * (i + 1), i + 1.0, {}, v, "the reason" if v != "OK" else "") for i, v in enumerate(verdicts)]
    plan = {"settings": {"epochs": 3}, "steps": 10 * len(verdicts) if steps is None else steps, "steps_per_epoch": 10}
    shared = {"protocol": "knn", "description": "knn k=20", "settings": settings or {}, "train": 8, "test": 2, "classes": 2, "split": "s"}
    found = [{"name": n, "labels": share, "top1": top1, "interval": [top1 - 0.01, top1 + 0.01]} for n, share, top1 in scores]
    return Run(Path("runs") / name, name, plan, records=records, evaluations=[{**shared, "scores": found}] if scores else [])


def text(run):
    return headline(run).replace("\u00a0", " ")


OURS = [("pixels", 0.1, 0.384), ("random small", 0.1, 0.36), ("runs/a", 0.1, 0.633), ("pixels", 1.0, 0.5), ("runs/a", 1.0, 0.7)]


@pytest.mark.parametrize(
    ("verdicts", "said", "colour"),
    [
        (["OK", "OK"], "Healthy", "good"),
        (["OK", "WARN", "OK"], "Healthy", "good"),
        (["OK", "WARN"], "Finished with a warning", "doubt"),
        (["OK", "COLLAPSED", "OK"], "Healthy at the end", "doubt"),
        (["OK", "COLLAPSED", "COLLAPSED"], "Collapsed at step 11", "bad"),
        ([], "Not trained yet", "doubt"),
    ],
)
def test_the_verdict_follows_the_log(verdicts, said, colour):
    v = verdict(run(verdicts))
    assert (v.health, v.mood) == (said, colour)


def test_an_unfinished_run_is_never_called_healthy():
    v = verdict(run(["OK", "OK"], steps=80))
    assert v.health.replace("\u00a0", " ") == "Unfinished (step 20 of 80, 25 %), healthy so far"
    assert v.cure == "byol resume runs/a"


def test_the_headline_takes_a_tenth_of_the_labels_and_the_best_baseline():
    assert text(run(["OK"], scores=OURS)) == "Healthy. 63.3 % with 10 % of the labels, 24.9 points over the best baseline."


def test_without_a_tenth_the_headline_takes_the_most_labels():
    assert text(run(["OK"], scores=OURS[3:])) == "Healthy. 70.0 % with all of the labels, 20.0 points over the best baseline."


def test_a_gain_whose_interval_has_0_in_it_is_not_called_one():
    close = run(["OK"], scores=[("pixels", 1.0, 0.5), ("runs/a", 1.0, 0.514)])
    assert text(close) == "Healthy. 51.4 % with all of the labels, not clearly different from the best baseline (+1.4 points)."
    apart = run(["OK"], scores=[("pixels", 1.0, 0.5), ("runs/a", 1.0, 0.515)])  # two intervals of 1.0 either way make one of 1.41
    assert text(apart) == "Healthy. 51.5 % with all of the labels, 1.5 points over the best baseline."
    assert mood(close) == "doubt"


def test_features_below_a_baseline_are_said_to_be():
    worse = run(["OK"], scores=[("random small", 1.0, 0.5), ("runs/a", 1.0, 0.4)])
    assert text(worse) == "Healthy. 40.0 % with all of the labels, 10.0 points below the best baseline."
    assert mood(worse) == "doubt"


def test_a_number_without_a_baseline_says_so():
    assert text(run(["OK"], scores=[("runs/a", 1.0, 0.4)])) == "Healthy. 40.0 % with all of the labels; no baseline was measured."


def test_the_best_of_several_runs_is_named_with_those_too_near_to_tell():
    runs = [
        run(["OK"], scores=OURS, name="a"),
        run(["OK"], scores=[("x", 0.1, 0.62)], name="b"),
        run(["OK"], scores=[("x", 0.1, 0.3)], name="c"),
    ]
    said = comparison(runs).replace("\u00a0", " ")
    assert said == "3 runs, all healthy. Best: a, 63.3 % with 10 % of the labels, not clearly ahead of b."


def test_runs_under_different_settings_are_not_compared():
    runs = [run(["OK"], scores=OURS, settings={"k": 20}), run(["OK"], scores=OURS, settings={"k": 5}, name="b")]
    assert "not evaluated in the same way" in comparison(runs)


def test_a_line_of_the_log_speaks_of_the_steps_since_the_line_before():
    parts = stretches(run(["OK", "OK", "WARN", "OK"]).records)
    assert [(s.verdict, s.start, s.stop) for s in parts] == [("OK", 0, 20), ("WARN", 20, 30), ("OK", 30, 40)]


@pytest.mark.parametrize(
    "request_",
    [
        Request(data="photos"),
        Request(data="my photos; rm", epochs=3, workers=0, seed=7, pretrained=True, set=("lr=0.5", "tau_base=0.9"), precision="bf16"),
        Request(data="x.npz", minutes=1.5, limit=10, on_collapse="stop", download=True, device="cpu", encoder="timm:vit_tiny_patch16_224"),
    ],
)
def test_the_command_on_the_page_asks_for_the_same_run(request_):
    command = Run(Path("runs/a b"), "a b", {}, config={"request": dataclasses.asdict(request_)}).command()
    words = shlex.split(command)
    assert words[0] == "byol"
    options = parse(words[1:])
    assert Request(**{f.name: getattr(options, f.name) for f in dataclasses.fields(Request)}) == request_
    assert str(options.out) == "runs/a b"
