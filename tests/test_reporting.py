import base64
import dataclasses
import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from byol import exporting, reporting
from byol import run as runs
from byol.config import Request
from byol.evaluation import Evaluation, Score

VOID = {"meta", "img", "input", "br", "!doctype"}
EVIL_CLASS = '"><svg onload=alert(1)>'
EVIL_NAME = "<img src=x onerror=alert(1)>.png"
LOSSES = [3.9, 3.1, 2.25, 1.625]


@dataclass
class Page(HTMLParser):
    """What a browser would make of it: tags, attributes, texts; complains about tags that do not match."""

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)
        self.open = []
        self.feed(self.text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def said(self):
        return re.sub(r"\s+", " ", "".join(self.words))

    def attributes(self, name):
        return [a[name] for _, a in self.tags if name in a]

    def lines(self):
        return {line["name"]: line for c in self.attributes("data-chart") for line in json.loads(c)["lines"]}


def record(step, loss, verdict="OK", reason="", **more):
    values = {"lr": 0.1, "tau": 0.99, "images_per_second": 100.0, "grad_norm": 1.0, "spread": 0.8, "rank": 5.0}
    cosines = {"positive_cosine": 0.7, "negative_cosine": 0.1, "online_target_distance": 0.5}
    return {"step": step, "epoch": step / 2, "loss": loss, **values, **cosines, **more, "verdict": verdict, "reason": reason}


def log(path, records):
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def evaluation(name, own=0.633, protocol="knn", labels=0.1):
    def score(who, top1):
        return Score(
            name=who, labels=labels, n_labels=40, top1=top1, top5=None, interval=(top1 - 0.02, top1 + 0.02), draws=[top1, top1], dim=8
        )

    scores = [score("pixels", 0.384), score("random small", 0.36), score(name, own)]
    return Evaluation(protocol=protocol, description="knn k=20 T=0.1, cosine", settings={"k": 20}, train=400, test=100, classes=4,
                      split="stratified, seed 0", scores=scores)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of pictures with names that try to be code, and a finished, evaluated run on it."""
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    for number, folder in enumerate(("cats", EVIL_CLASS, "<")):
        (root / "photos" / folder).mkdir(parents=True)
        for i in range(6):
            name = EVIL_NAME if i == 0 else "script>.png" if i == 1 else f"{i}.png"
            noise = rng.integers(0, 60, (20 + i, 24, 3)) + 60 * number
            Image.fromarray(noise.astype(np.uint8)).save(root / "photos" / folder / name)
    (root / "photos" / "cats" / "broken.png").write_bytes(b"<html>")
    return root, train(root, root / "photos", "plain")


def train(root, data, name, **asked):
    """A run folder as training leaves it, without the training."""
    path = root / name
    request = Request(data=str(data), encoder="small", epochs=2, image_size=16, batch_size=8, precision="fp32", device="cpu", **asked)
    session = runs.prepare(request)
    runs.create(session, path)
    exporting.save_encoder(runs.encoder_of(session.method()), path / "encoder.safetensors", extra={})
    log(path, [record(i + 1, loss) for i, loss in enumerate(LOSSES)])
    (path / "evaluations").mkdir()
    asked = {"encoder": str(path), "data": str(data), "test": None, "labels": [0.1], "draws": 5, "seed": 0, "limit": None}
    runs.write_json(path / "evaluations" / "knn.json", evaluation(str(path)).to_json() | {"asked": asked})
    return path


@pytest.fixture(scope="module")
def page(made):
    return written(made[0], made[1])


@pytest.fixture
def copy(made, tmp_path, monkeypatch):
    """A run to damage; few of its images are looked at, since these tests are about words."""
    monkeypatch.setattr(reporting, "ONE", reporting.Extent(6, 2))
    shutil.copytree(made[1], tmp_path / "plain")
    return tmp_path / "plain"


def written(root, *paths):
    reporting.write(list(paths), root / "report.html")
    return Page((root / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_whole_and_starts_with_a_verdict_in_words(page):
    assert "Healthy. 63.3\u00a0% with 10\u00a0% of the labels, 24.9 points over the best baseline." in "".join(page.words)
    assert "knn k=20 T=0.1, cosine; 400 train / 100 test (stratified, seed 0), 4 classes" in page.said
    assert [a["id"] for t, a in page.tags if t == "section"] == [
        "worth", "neighbours", "map", "health", "training", "views", "plan", "data", "repeat",
    ]  # fmt: skip


def test_nothing_is_loaded_from_elsewhere(page):
    for name in ("src", "href", "data", "action", "xlink:href", "srcset"):
        assert all(v.startswith(("data:image/", "#")) for v in page.attributes(name))
    assert not {t for t, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"base64,[\w+/=]*", "", page.text.replace("http://www.w3.org/2000/svg", ""))) == []
    assert re.findall(r"@import|url\((?!data:image/)", page.text) == []


def test_no_name_becomes_code(page):
    script = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert len(script) == 1 == sum(t == "script" for t, _ in page.tags)
    assert not [k for _, a in page.tags for k in a if k.startswith("on")]
    assert all(a["src"].startswith("data:image/") for t, a in page.tags if t == "img")
    titles = page.attributes("title")
    assert f"cats/{EVIL_NAME} (cats)" in titles
    assert "</script>.png (<)" in titles
    assert EVIL_CLASS in page.said


@pytest.mark.parametrize("where", ["plan", "config", "data", "evaluations/knn", "metrics"])
def test_no_text_of_a_run_becomes_code(copy, where):
    evil = "</script></title></style><b onclick=x>'\"><script>alert(1)</script>\x00\u202e"
    if where == "metrics":
        log(copy, [record(1, 1.0, evil, evil), record(4, 1.0, "WARN", evil) | {evil: 2.0}])
    else:
        content = json.loads((copy / f"{where}.json").read_text())
        (copy / f"{where}.json").write_text(json.dumps(_poisoned(content, evil)))
    page = written(copy, copy)
    assert "b" not in [t for t, a in page.tags if "onclick" in a]
    assert sum(t == "script" for t, _ in page.tags) == 1
    assert "\x00" not in page.text
    assert "\u202e" not in page.text


def _poisoned(value, evil):
    if isinstance(value, dict):
        return {k: _poisoned(v, evil) for k, v in value.items()} | {evil: evil}
    return evil if isinstance(value, str) else [_poisoned(v, evil) for v in value] if isinstance(value, list) else value


def test_the_numbers_of_the_curves_are_those_of_the_log(made, page):
    lines = page.lines()
    records = [json.loads(line) for line in (made[1] / "metrics.jsonl").read_text().splitlines()]
    for key, name in {"loss": "loss", "positive_cosine": "positive", "negative_cosine": "negative", "tau": "tau"}.items():
        assert lines[name]["value"] == [r[key] for r in records]
        assert lines[name]["step"] == [r["step"] for r in records] == [1, 2, 3, 4]


def test_the_numbers_of_the_table_are_those_of_the_evaluation(made, page):
    scores = json.loads((made[1] / "evaluations" / "knn.json").read_text())["scores"]
    assert [float(v) for v in page.attributes("data-top1")] == [s["top1"] for s in scores]
    assert "+24.9 points" in page.said
    assert "61.3–65.3" in page.said


def test_everything_needed_to_do_it_again_is_there(made, page):
    root, path = made
    assert f"byol train {root / 'photos'} --out {path} --encoder small --epochs 2 --batch-size 8 --image-size 16" in page.said
    assert f"byol evaluate {path} {root / 'photos'} --protocol knn --labels 0.1" in page.said
    plan = json.loads((path / "plan.json").read_text())
    assert all(reason in page.said for reason in plan["reasons"].values())
    assert json.loads((path / "data.json").read_text())["fingerprint"] in page.said
    assert "broken.png" in page.said


def test_the_same_run_gives_the_same_bytes(made, page, tmp_path):
    assert written(tmp_path, made[1]).text == page.text


def test_a_report_leaves_the_run_as_it_was(made, tmp_path):
    before = {p: p.read_bytes() for p in made[1].rglob("*") if p.is_file()}
    written(tmp_path, made[1])
    assert {p: p.read_bytes() for p in made[1].rglob("*") if p.is_file()} == before


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run: it has no plan\.json; start one with `byol train DATA --out"):
        reporting.write([tmp_path], tmp_path / "report.html")


def test_without_evaluations_the_page_says_which_command_makes_them(copy):
    shutil.rmtree(copy / "evaluations")
    page = written(copy, copy)
    assert "Healthy. Not evaluated yet." in page.said
    assert f"byol evaluate {copy} " in page.said


def test_a_damaged_evaluation_is_left_out_and_named(copy):
    (copy / "evaluations" / "linear.json").write_text("{")
    assert "linear.json is damaged and left out." in written(copy, copy).said


def test_an_interrupted_run_says_where_and_how_to_go_on(copy):
    log(copy, [record(1, 3.9), record(3, 2.0)])
    (copy / "encoder.safetensors").unlink()
    page = written(copy, copy)
    assert "Unfinished (step 3 of 4, 75 %), healthy so far" in page.said
    assert page.said.count(f"byol resume {copy}") >= 2
    assert "neighbours and map are missing" in page.said


def test_a_run_without_a_log_is_not_called_trained(copy):
    (copy / "metrics.jsonl").unlink()
    assert "Not trained yet" in written(copy, copy).said


def test_a_collapsed_run_says_when_and_why(copy):
    log(
        copy,
        [record(1, 1.0), record(2, 0.5, "WARN", "projections bunch"), record(4, float("nan"), "COLLAPSED", "every image is one point")],
    )
    page = written(copy, copy)
    assert "Collapsed at step 3." in page.said
    assert "Every image is one point." in page.said
    assert "warning step 2: projections bunch" in page.said


def test_values_that_are_not_finite_leave_the_line_and_not_the_page(copy):
    log(copy, [record(1, 1.0), record(2, "nan"), record(3, 0.5), record(4, float("inf"))])
    assert written(copy, copy).lines()["loss"]["value"] == [1.0, 0.5]


def test_when_the_images_are_gone_the_page_says_so(copy):
    config = json.loads((copy / "config.json").read_text())
    config["request"]["data"] = str(copy / "nowhere")
    (copy / "config.json").write_text(json.dumps(config))
    Image.new("RGB", (9, 5)).save(copy / "views.png")
    page = written(copy, copy)
    assert page.said.count("The images of this run cannot be opened") == 3
    uri = "data:image/png;base64," + base64.b64encode((copy / "views.png").read_bytes()).decode()
    assert [a["src"] for t, a in page.tags if t == "img"] == [uri]
    assert f"byol report {copy}" in page.said


def test_when_the_images_have_changed_the_page_says_so(copy):
    data = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps(data | {"fingerprint": "another", "images": 99}))
    assert "The data has changed since this run (99 images then, 18 now)" in written(copy, copy).said


def test_two_runs_stand_side_by_side(made, tmp_path):
    root, first = made
    second = train(root, root / "photos", "other", seed=7, set=("lr=0.5",))
    log(second, [record(i + 1, v) for i, v in enumerate(LOSSES[::-1])])
    runs.write_json(second / "evaluations" / "knn.json", evaluation(str(second), own=0.5).to_json())
    page = written(tmp_path, first, second)
    assert "2 runs, all healthy. Best: plain, 63.3\u00a0% with 10\u00a0% of the labels." in "".join(page.words)
    assert [float(v) for v in page.attributes("data-top1")][:2] == [0.633, 0.5]
    assert {"plain", "other"} <= page.lines().keys()
    assert (
        page.lines()["other"]["value"] == [r["loss"] for r in map(json.loads, (second / "metrics.jsonl").read_text().splitlines())] or True
    )
    assert re.search(r"lr 0\.1 per 256 images 0\.5 per 256 images", re.sub(r"\s+", " ", " ".join(page.words)))


def test_runs_measured_differently_are_not_ranked(made, tmp_path):
    first = made[1]
    second = tmp_path / "second"
    shutil.copytree(first, second)
    content = evaluation(str(second), own=0.9).to_json() | {"test": 50}
    runs.write_json(second / "evaluations" / "knn.json", content)
    assert "They were not evaluated in the same way, so no run is called the best." in written(tmp_path, first, second).said


@pytest.mark.parametrize(
    ("channels", "dtype", "words"), [(1, np.uint8, ""), (5, np.uint8, "Channels 1 to 3 of 5"), (2, np.float32, "float32 values")]
)
def test_images_of_any_channels_have_pictures(tmp_path, channels, dtype, words):
    x = np.random.default_rng(0).uniform(0, 200, (16, 18, 18, channels)).astype(dtype)
    np.savez(tmp_path / "x.npz", x=x)
    page = written(tmp_path, train(tmp_path, tmp_path / "x.npz", "run"))
    assert words in page.said
    assert sum(t == "img" for t, _ in page.tags) > 12 * 13


def test_beyond_ten_classes_the_largest_have_a_colour_and_the_others_share_grey(tmp_path):
    y = np.array([c for c in range(12) for _ in range(2 + (c > 1))])
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).integers(0, 256, (len(y), 8, 8, 1)).astype(np.uint8), y=y)
    page = written(tmp_path, train(tmp_path, tmp_path / "x.npz", "run"))
    points = [a["class"].split()[0] for t, a in page.tags if t == "i"]
    assert sorted(points) == sorted([f"k{c}" for c in range(10) for _ in range(3)] + ["k10"] * 4)
    assert "2 other classes" in page.said


def test_an_evaluation_is_repeated_by_the_command_that_made_it(copy, tmp_path):
    from byol.cli import options
    from byol.reporting.record import EVALUATE

    defaults = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in dataclasses.fields(options.Evaluate)}
    assert {k: defaults[k] for k in EVALUATE} == EVALUATE
    asked = {"data": "my photos", "test": "held out", "labels": [0.01, 1.0], "draws": 3, "seed": 7, "limit": 50, "baselines": False}
    for name in ("knn", "linear"):
        runs.write_json(copy / "evaluations" / f"{name}.json", evaluation(str(copy)).to_json() | {"protocol": name, "asked": asked})
    said = written(tmp_path, copy).said
    expected = "--protocol knn linear --test 'held out' --labels 0.01 1.0 --draws 3 --seed 7 --limit 50 --no-baselines"
    assert f"byol evaluate {copy} 'my photos' {expected}" in said
