"""What becomes of every file and data set of the corpus, through the public way, and that the documentation says so."""

import os
import re
import warnings
from pathlib import Path

import pytest
from bad_files import DATA, FILES, GOOD
from data_files import folder

import byol
from byol.data import doctor, open_source, read_image
from byol.run import read_json

PAGE = Path(__file__).parent.parent / "docs" / "reliability.md"
TINY = {"encoder": "small-w1-n2", "epochs": 1, "batch_size": 4, "image_size": 8, "precision": "fp32", "device": "cpu", "workers": 0}
SET = ("hidden=4", "dim=2", "channels_last=true")


@pytest.fixture
def forbidden(monkeypatch):
    """Who runs the tests may be root, whom no permission stops."""
    real = os.open

    def refuse(path, *rest, **more):
        if str(path).endswith("forbidden.png"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)


@pytest.fixture
def corpus(tmp_path, forbidden):
    root = folder(tmp_path / "photos", GOOD)
    for file in FILES:
        file.make(root)
    return root


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of broken metadata, which the loaders keep quiet too
def test_every_file_of_the_corpus_has_its_documented_outcome(corpus):
    source, report = open_source(corpus), doctor(corpus)
    skipped = {s.name: s.reason for s in report.unreadable}
    sizes = dict(zip(source.names, zip(source.headers.height.tolist(), source.headers.width.tolist(), strict=True), strict=True))
    outcomes = {}
    for file in FILES:
        if file.outcome.startswith("skipped: "):
            assert file.outcome.removeprefix("skipped: ") in skipped.pop(file.name, "not skipped"), file.what
        elif file.size is not None:
            assert sizes.pop(file.name, "not used") == file.size, file.what
            outcomes[file.name] = source.read(source.names.index(file.name))
        else:
            assert file.name not in sizes, file.what
    assert skipped == {}
    damaged_inside = {"inside.png", "nan.npy", "inf.npy", "wide.npy", "scans.jpg"}  # seen when they are decoded
    assert set(sizes) - damaged_inside == set(GOOD)
    assert source.ignored == sum(f.outcome == "ignored" for f in FILES) + 1  # the text in the folder called .jpg
    for name, image in outcomes.items():
        assert image.shape == (*next(f.size for f in FILES if f.name == name), 3)
        assert image.dtype == source.dtype == "float32"
    assert not Path("pickle-was-executed").exists()


def test_a_run_on_the_whole_corpus_ends_and_lists_what_was_left_out(corpus, tmp_path):
    done = byol.train(corpus, tmp_path / "run", set=SET, **TINY)
    assert done.outcome.ended == "finished"
    listed = read_json(tmp_path / "run" / "data.json")["skipped"]
    assert {s["name"] for s in listed} <= {f.name for f in FILES if f.outcome.startswith("skipped")}
    assert len(listed) >= 20


def test_red_ink_of_cmyk_is_red_with_and_without_adobes_marker():
    for name in ("adobe.jpg", "cmyk.jpg"):
        red, green, blue = read_image(next(f.content for f in FILES if f.name == name)).mean((0, 1))
        assert red > 200
        assert max(green, blue) < 60


@pytest.mark.parametrize("data", DATA, ids=lambda d: d.what)
def test_every_data_set_of_the_corpus_has_its_documented_outcome(tmp_path, data):
    spec = data.make(tmp_path / "data")
    way, _, rest = data.outcome.partition(": ")
    if way == "doubt":
        assert rest in doctor(spec).verdict()
    elif way == "refused":
        with pytest.raises(ValueError, match=re.escape(rest)) as told:
            _ask(data.ask, spec, tmp_path)
        assert "\n" not in str(told.value)
    else:
        _ask(data.ask, spec, tmp_path)


def _ask(what, spec, tmp_path):
    if what == "open":
        return open_source(spec)
    if what == "evaluate":
        return byol.evaluate("random:small-w1-n2", spec, protocols=("knn",), draws=1, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = byol.train(spec, tmp_path / "run", set=SET, **TINY)
    assert done.outcome.ended == "finished"
    return done


def test_the_table_of_the_documentation_is_the_corpus():
    assert len(FILES) + len(DATA) >= 60
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert [(f.what, f.outcome) for f in [*FILES, *DATA] if (f.what, f.outcome) not in rows] == []
    whole = PAGE.read_text(encoding="utf-8").partition("## Bad data")[2].partition("\n## ")[0]
    table = re.findall(r"^\| (.+?) \| ((?:used|skipped|ignored|refused|doubt).*?) \|$", whole, re.M)
    assert sorted(table) == sorted((f.what, f.outcome) for f in [*FILES, *DATA])


def test_a_pipe_as_data_is_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(ValueError, match="neither a folder nor a regular file"):
        open_source(tmp_path / "pipe.npy")


def test_features_of_names_that_are_no_text_can_be_written(tmp_path):
    root = folder(tmp_path / "photos", [os.fsdecode(b"caf\xe9.png"), "b.png"])
    for name in ("e.parquet", "e.npz", "e.npy"):
        assert byol.embed("random:small-w1-n2", root, tmp_path / name, device="cpu").images == 2
