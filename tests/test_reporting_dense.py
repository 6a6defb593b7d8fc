"""Segmentation, depth, detection and metrics other than top-1 on the page."""

import dataclasses

import numpy as np
import pytest
from test_reporting import Page
from test_reporting_verdict import run as logged

from byol import dense
from byol.evaluation import Evaluation, Score
from byol.reporting.html import join, tag
from byol.reporting.record import repeat
from byol.reporting.scores import finding
from byol.reporting.verdict import comparison, headline
from byol.reporting.worth import side_by_side, worth

DEPTH = {
    "random small": {"< 1.25": [0.2, 0.3, 0.25], "rms": [1.5, 1.25, 1.375]},
    "runs/a": {"< 1.25": [0.5, 0.5, 0.44], "rms": [0.9, 1, 0.8]},
}
EVIL = "<svg onload=alert(1)>"


def result(protocol, metrics, data="frames", modes=("frozen", "finetuned"), facts=None, **more):
    scores = [dense.DenseScore(name=n, mode=mode, metrics=found) for mode in modes for n, found in metrics.items()]
    return dense.DenseResult(
        protocol=protocol, description=f"{protocol} (head, 7,500 updates)", settings={"lr": 0.16}, facts=facts or {"height": 228},
        train=795, test=654, split="the official split", scores=scores, asked={"data": data, "protocol": protocol}, **more
    )  # fmt: skip


def run(*results, name="a"):
    """A healthy run with these evaluations as they are read from its files."""
    return dataclasses.replace(logged(["OK"], name=name), evaluations=[r if isinstance(r, dict) else r.to_json() for r in results])


def shown(content):
    return Page(tag("main", content))


def plain(text):
    return text.replace("\u00a0", " ")


def test_dense_results_have_a_mean_and_a_deviation_over_seeds_beside_random_weights():
    page = shown(worth(run(result("depth", DEPTH))))
    said = plain(page.said)
    for name, found in DEPTH.items():
        assert f"{100 * np.mean(found['< 1.25']):.1f} %± {100 * np.std(found['< 1.25'], ddof=1):.1f}" in said
        assert f"{np.mean(found['rms']):.3f}± {np.std(found['rms'], ddof=1):.3f}" in said
        assert [float(v) for v in page.attributes("data-mean")].count(np.mean(found["rms"])) == 2
        assert said.count(name) == 2  # frozen and finetuned
    assert "depth (head, 7,500 updates)" in said
    assert (
        "< 1.25, rms on frames; 795 train / 654 test (the official split), height 228. Mean of 3 seeds; small: their standard deviation."
        in said
    )
    assert "< 1.25rms, m (lower is better)" in said  # the heads of the columns
    assert said.count("against random weightsfrozen+23.0 points−0.475") == 1
    assert "Published" not in said


@pytest.mark.parametrize(
    ("protocol", "metrics", "data", "facts", "numbers"),
    [
        ("segmentation", {"runs/a": {"mIoU": [0.5]}}, "sets/VOC2012", {"classes": 21},
         ["BYOL resnet50: mIoU 76.3", "MoCo resnet50: mIoU 72.5"]),
        ("detection", {"runs/a": {"AP50": [0.5]}}, "VOC2007/", {"classes": 20}, ["BYOL resnet50: AP50 77.5", "the paper is ambiguous"]),
        ("depth", DEPTH, "nyu_depth_v2_labeled.mat", {"height": 228},
         ["BYOL resnet50: <1.25 84.6, <1.25^2 96.7, <1.25^3 99.1, rms 0.541, rel 0.129"]),
    ],
)  # fmt: skip
def test_published_numbers_stand_apart_from_measured_ones(protocol, metrics, data, facts, numbers):
    measured = result(protocol, metrics, data=data, facts=facts)
    page = shown(worth(run(measured)))
    (at,) = [i for i, (t, a) in enumerate(page.tags) if a.get("class") == "note published"]
    assert all(t != "td" for t, _ in page.tags[at:])  # below the table, not in it
    said = page.said[page.said.index("Published, for scale, not measured here:") :]
    assert all(n in said for n in numbers)
    assert "Grill et al. 2020" in said
    assert measured.published() is not None
    for other in (result(protocol, metrics, data="photos", facts=facts), result("x", metrics, data=data, facts=facts)):
        assert "Published" not in shown(worth(run(other))).said
        assert other.published() is None


def test_other_classes_or_images_than_the_published_are_told():
    seg = {"runs/a": {"mIoU": [0.5]}}
    assert result("segmentation", seg, data="VOC2012", facts={"classes": 5}).published() is None
    said = result("segmentation", seg, data="VOC2012", facts={"classes": 21}).published().differences
    assert "10,582 train / 1,449 test images there" in said
    assert "images there" not in result("depth", DEPTH, data="nyu").published().differences


def test_the_headline_speaks_of_pixels_where_no_labels_were_compared():
    assert plain(headline(run(result("depth", DEPTH)))) == "Healthy. Depth, frozen: < 1.25 48.0 %, 23.0 points over random weights."
    worse = {"random small": DEPTH["runs/a"], "runs/a": DEPTH["random small"]}
    assert plain(headline(run(result("depth", worse)))).endswith("< 1.25 25.0 %, 23.0 points below random weights.")
    alone = result("depth", {"runs/a": {"rel": [0.25]}}, modes=("finetuned",))
    assert headline(run(alone)) == "Healthy. Depth, finetuned: rel 0.250."
    assert comparison([run(alone), run(alone, name="b")]).endswith("None is evaluated by class labels.")


def test_runs_stand_side_by_side_only_where_they_were_measured_in_one_way():
    first, second = run(result("depth", DEPTH)), run(result("depth", DEPTH), name="b")
    page = shown(side_by_side([first, second]))
    assert sum(t == "table" for t, _ in page.tags) == 1
    assert page.said.count("< 1.25, frozen") == 1
    other = run(dataclasses.replace(result("depth", DEPTH), settings={"lr": 0.1}), name="b")
    page = shown(side_by_side([first, other, run(name="c")]))
    assert sum(t == "table" for t, _ in page.tags) == 2
    assert "c is not evaluated yet" in page.said
    assert "a is not evaluated yet" not in page.said


def test_what_is_damaged_or_means_harm_is_left_out_or_escaped():
    good = result("depth", DEPTH).to_json()
    scores = [
        {"name": EVIL, "mode": EVIL, "metrics": {EVIL: [0.5], "torn": [None], "nan": ["x"], "none": [], "flat": 3}},
        {"name": "other", "mode": "frozen", "metrics": {"rms": [1.5]}},
        {"name": "none", "metrics": {}}, {"metrics": 3}, "text", None,
    ]  # fmt: skip
    for changes in ({"scores": scores, "description": EVIL, "facts": [1]}, {"scores": scores, "facts": {"classes": "many"}, "asked": 3}):
        page = shown(worth(run(good | changes)))
        assert EVIL in page.said
        assert not [t for t, _ in page.tags if t == "svg"]
        assert not {"torn", "nan", "flat"} & set(page.said.split())
    assert "not evaluated yet" in shown(worth(run(good | {"scores": "none"}))).said


def test_dense_protocols_and_others_are_repeated_by_commands_of_their_own():
    knn = {"protocol": "knn", "asked": {"data": "frames", "protocol": "knn"}, "scores": []}
    said = plain(shown(repeat(run(knn, result("depth", DEPTH), result("detection", DEPTH)))).said)
    assert "byol evaluate runs/a frames --protocol knn" in said
    assert "byol evaluate runs/a frames --protocol depth detection" in said


def transfer(metric):
    def score(name, value):
        return Score(name=name, labels=1.0, n_labels=40, top1=value, top5=None, interval=(value - 0.02, value + 0.02), draws=[value], dim=8)

    return Evaluation(protocol="transfer", description="transfer (L-BFGS)", settings={}, train=400, test=100, classes=20, split="its own",
                      scores=[score("pixels", 0.3), score("runs/a", 0.5)], metric=metric)  # fmt: skip


@pytest.mark.parametrize("metric", ["11-point mAP", "mean per class"])
def test_a_metric_that_is_not_top_1_is_named_wherever_its_numbers_are(metric):
    measured = run(transfer(metric))
    page = shown(worth(measured))
    named = metric[0].upper() + metric[1:]
    assert f"{named}, 400 train / 100 test (its own), 20 classes." in page.said
    assert f"{metric}, all of the labels" in page.said
    assert plain(headline(measured)) == f"Healthy. 50.0 % {metric} with all of the labels, 20.0 points over the best baseline."
    assert finding(measured).protocol().startswith(f"{named} of transfer")
    both = shown(join([worth(measured), side_by_side([measured, run(transfer(metric), name="b")])]))
    assert "op-1" not in both.said
    assert ("chance" in page.said) == (metric == "mean per class")
    assert "They were not evaluated in the same way" in comparison([measured, run(transfer("top-1"), name="b")])
    assert f"50.0 % {metric} with all" in plain(comparison([measured, run(transfer(metric), name="b")]))


def test_top_1_is_called_so_where_it_was_measured():
    said = shown(worth(run(transfer("top-1")))).said
    assert "Top-1, 400 train" in said
    assert "all of the labels" in said
    assert "chance 5" in said
