import json

import numpy as np
import pytest
from cli_calls import byol

from byol import demonstration
from byol.data import open_source


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """`byol demo` with a single epoch and a single draw of labels: the same story, shorter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstration, "EPOCHS", 1)
        patch.setattr(demonstration, "DRAWS", 1)
        out = tmp_path_factory.mktemp("demo") / "run"
        return out, byol("demo", "--out", out, "--json")


def test_the_demo_compares_pixels_random_and_byol_at_three_shares_of_labels(told):
    _, call = told
    assert call.code == 0, call.err
    found = json.loads(call.out)
    assert found["seconds"] > 0
    for table in (found, found["knn-k20-T0.1-centred"]):
        for name in ("pixels", "random", "byol"):
            assert list(table[name]) == ["0.01", "0.1", "1.0"]
            assert all(0 < top1 <= 1 for top1 in table[name].values())
        # Known of these images, whatever we do: their pixels alone are told apart well with all labels.
        assert table["pixels"]["1.0"] > 0.94


def test_the_demo_writes_a_report_and_names_the_next_command(told):
    out, call = told
    assert (out / "report.html").exists()
    assert "byol train FOLDER" in call.err.splitlines()[-1]


def test_the_demo_says_that_the_test_images_were_not_seen_and_they_were_not(told):
    out, call = told
    assert "are not seen before the test" in " ".join(call.err.split())
    with np.load(out / "train.npz") as train, np.load(out / "test.npz") as test:
        seen, unseen = train["x"], test["x"]
        labels = np.concatenate([train["y"], test["y"]])
    data = json.loads((out / "data.json").read_text())
    assert (data["spec"], data["images"]) == (str(out / "train.npz"), len(seen))
    digits = open_source("digits")
    both = {image.tobytes() for image in np.concatenate([seen, unseen])}
    assert both == {digits.read(i).tobytes() for i in range(len(digits))}
    assert len(seen) + len(unseen) == len(digits)
    assert not {image.tobytes() for image in seen} & {image.tobytes() for image in unseen}
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(digits.labels))


def test_the_demo_does_not_run_over_another_run(told):
    out, _ = told
    call = byol("demo", "--out", out)
    assert call.code == 2
    assert "holds a run already" in call.err
