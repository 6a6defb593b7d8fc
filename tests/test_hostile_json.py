"""JSON of a run, an encoder or a log that nobody's program wrote: one sentence, or left out of the page; never a traceback."""

import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from cli_calls import byol as command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import byol
from byol import reporting, run, stored, training
from byol.config import Plan, Request, Settings
from byol.evaluation import Evaluation
from byol.reporting import run as reader

FILES = ["plan.json", "config.json", "data.json", "encoder.json", "evaluations/knn.json", "metrics.jsonl"]
TINY = {"encoder": "small-w1-n2", "epochs": 1, "batch_size": 4, "image_size": 8, "precision": "fp32", "device": "cpu", "workers": 0}
BAD = {
    "NaN": '{"a": NaN, "steps": NaN, "step": NaN}',
    "infinity": '{"steps": 1e999, "step": 1e999, "spread": -1e999}',
    "huge integers": f'{{"steps": {"9" * 400}, "step": {"9" * 400}}}',
    "an integer of 5,000 digits": f'{{"step": {"9" * 5000}}}',
    "deep nesting": "[" * 100_000,
    "deep objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "a list": "[1, 2]",
    "a number": "3",
    "null": "null",
    "nothing": "",
    "half": '{"settings": {"lr": 0.',
    "no text": "\xff\xfe\0\0",
    "wrong types": '{"settings": [], "views": "x", "method": null, "input": [], "request": 7, "skipped": {"a": 1}, "scores": "x"}',
    "wrong types inside": '{"settings": {"lr": "x"}, "request": {"set": 3}, "skipped": [1, {"name": []}], "scores": [1, {"top1": "x"}]}',
    "lone surrogates": '{"name": "\\ud800", "reason": "\\udfff", "step": 1, "verdict": "\\udc80"}',
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with an evaluation."""
    root = tmp_path_factory.mktemp("whole")
    np.savez(root / "x.npz", x=np.random.default_rng(0).integers(0, 255, (12, 8, 8), np.uint8), y=np.arange(12) % 2)
    byol.train(root / "x.npz", root / "run", set=("hidden=4", "dim=2", "channels_last=true"), **TINY)
    byol.evaluate(root / "run", root / "x.npz", protocols=("knn",), draws=1, device="cpu")
    return root / "run"


@pytest.fixture
def copy(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("what", ["NaN", "deep nesting", "wrong types inside"])
def test_damaged_json_of_a_run_is_never_a_traceback_on_the_screen(copy, monkeypatch, what):
    monkeypatch.setattr(reporting, "ONE", reporting.Extent(4, 1))
    (copy / "encoder.safetensors").unlink()  # a finished run is not resumed
    for file in FILES:
        good = (copy / file).read_bytes()
        (copy / file).write_text(BAD[what])
        calls = [command("resume", copy)]
        calls += [command("report", copy, "--out", copy / "page.html")] if file in FILES[:2] else []
        for call in calls:
            assert call.code in (0, 2)
            assert "Traceback" not in call.out + call.err
            assert call.code == 0 or len(call.err.strip()) > 20
        (copy / file).write_bytes(good)


@pytest.mark.parametrize("file", FILES)
def test_damaged_json_of_a_run_leaves_a_page_or_one_sentence(copy, file):
    for text in BAD.values():
        (copy / file).write_bytes(text.encode("latin-1"))
        _readable(copy)


def test_every_value_of_a_plan_has_its_type_checked(whole):
    fields = json.loads((whole / "plan.json").read_text())
    fields.pop("describe")
    assert Plan.from_json(fields).to_json() == Plan.from_json(json.loads(json.dumps(fields))).to_json()
    for name in fields["settings"]:
        for wrong in ([], {}, float("nan"), 10**30):
            with pytest.raises(ValueError, match=re.escape(name)):
                stored.typed(Settings, fields["settings"] | {name: wrong})


@pytest.mark.parametrize(("name", "value"), [("workers", 100_000), ("image_size", 10**9), ("batch_size", 0), ("epochs", -1), ("lr", -1.0)])
def test_settings_that_would_take_the_machine_are_refused(whole, name, value):
    fields = json.loads((whole / "plan.json").read_text())["settings"]
    with pytest.raises(ValueError, match=name):
        stored.typed(Settings, fields | {name: value})


def test_a_stored_dataclass_comes_back_as_it_was():
    request = Request(data="x", set=("lr=1", "a=b"), epochs=3, minutes=None)
    assert stored.typed(Request, json.loads(json.dumps(dataclasses.asdict(request)))) == request
    for wrong in ({"data": 3}, {"data": "x", "epochs": True}, {"data": "x", "epochs": 1.5}, {}, [], {"data": "x", "none": 1}):
        with pytest.raises(ValueError, match=r"config\.json of this run cannot be understood"):
            Request.from_json(wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from([10**400, 1e308, -1e308, 5e-324]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def _changed(content, path, value):
    """The content with the value at the place that the numbers of the path lead to."""
    if not path or not isinstance(content, dict | list) or not content:
        return value
    keys = sorted(content) if isinstance(content, dict) else range(len(content))
    key = list(keys)[path[0] % len(keys)]
    return {**content, key: _changed(content[key], path[1:], value)} if isinstance(content, dict) else [
        _changed(v, path[1:], value) if i == key else v for i, v in enumerate(content)
    ]  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.lists(st.integers(0, 40), max_size=4), JSON)
def test_any_value_anywhere_in_a_run_leaves_a_page_or_one_sentence(whole, tmp_path, file, path, value):
    folder = tmp_path / "run"
    if not folder.exists():
        shutil.copytree(whole, folder)
    good = (folder / file).read_bytes()
    lines = [json.dumps(_changed(json.loads(line), path, value)) for line in (good.splitlines() if file == FILES[-1] else [good])]
    (folder / file).write_text("\n".join(lines))
    try:
        _readable(folder)
    finally:
        (folder / file).write_bytes(good)


def _readable(folder):
    """Whatever reads a run gives a result or one sentence."""
    evaluation = folder / "evaluations/knn.json"
    for work in (
        lambda: _page(folder),
        lambda: run.reopen(folder),
        lambda: Evaluation.from_json(run.read_json(evaluation)),
        lambda: byol.load(folder),
    ):
        if said := _sentence(work):
            assert "\n" not in said
            assert len(said) > 20
    training.trim_log(folder / "metrics.jsonl", 100)


def _sentence(work):
    try:
        work()
    except ValueError as error:
        return f"{error}" if type(error) is ValueError else f"{type(error).__name__}\n"
    return ""


def _page(folder):
    found = reader.read(folder)
    for part in (
        reporting.facts,
        reporting.plan,
        reporting.data,
        reporting.repeat,
        reporting.worth,
        reporting.timeline,
        reporting.headline,
    ):
        part(found)
    for many in (reporting.curves, reporting.comparison, reporting.side_by_side, reporting.differences):
        many([found, found])
    HTMLParser().feed(reporting.curves([found]))


def test_a_log_of_anything_is_cut_where_it_should_be(tmp_path):
    log = tmp_path / "metrics.jsonl"
    good = '{"step": 1, "spread": "nan", "suspects": 0}'
    bad = [
        '{"step": 1e999}',
        '{"step": %s}' % ("9" * 5000),
        "[" * 100_000,
        "3",
        '{"step": 2, "spread": []}',
        '{"step": 2, "suspects": "x"}',
        "\x00",
    ]
    log.write_text("\n".join([good, *bad]))
    assert training.trim_log(log, 5) == [json.loads(good)]
    assert log.read_text() == good + "\n"
