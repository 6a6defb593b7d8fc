"""The published numbers as data: typed here once more by hand from the papers' tables, and shown only where they belong."""

import dataclasses
from collections import Counter

import pytest
from test_evaluation_result import evaluation

from byol import published
from byol.evaluation.table import published_lines
from byol.published.beside import SETS, SOUND_SETS, beside, recognised, said

COUNTS = {
    "linear": 63, "linear-variant": 6, "semi": 28, "transfer-linear": 4 * 12, "transfer-finetune": 5 * 12, "places365": 2 * 13 + 1,
    "segmentation": 4, "detection": 4, "depth": 3 * 5, "batch_size": 7 * 4, "augmentations": 14 * 4, "tau_base": 6, "target": 13,
    "alpha": 1 + 3 * 6, "layers": 9, "dim": 6, "lr": 7 * 2, "weight_decay": 5 * 2, "loss_norm": 4 * 2, "predictor_rate": 5, "rates": 25,
    "optimal_predictor": 1, "norm": 16, "encoder_norm": 5, "online": 17, "knn": 12, "linear-others": 7,
    "comparators": 21 + 27 + 2 + 4 + 12 + 46,
    "sound-linear": 6 * 7 + 3 + 5 + 1 + 2, "sound-ablation": 3 * 7 + 8, "evar-linear": 2 + 1 + 8,
}  # fmt: skip


def test_no_row_is_missing_from_any_table():
    assert Counter(r.table for r in published.everything()) == COUNTS


def one(**wanted):
    (found,) = published.rows(**wanted)
    return found


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (74.3, {"table": "linear", "method": "BYOL", "network": "resnet50", "metric": "top-1", "setting": ""}),
        (73.7, {"table": "linear", "method": "BYOL", "network": "resnet50", "metric": "top-1", "setting": "batch_size=512"}),
        (94.8, {"table": "linear", "method": "BYOL", "network": "resnet200x2", "metric": "top-5"}),
        (94.2, {"table": "linear", "method": "BYOL", "network": "resnet101x3", "metric": "top-5"}),
        (80.9, {"table": "linear", "method": "Supervised", "network": "resnet152x3", "metric": "top-1"}),
        (76.5, {"table": "linear", "method": "SimCLR", "network": "resnet50x4", "metric": "top-1"}),
        (80.0, {"table": "linear-variant", "network": "resnet200x2", "metric": "top-1"}),
        (53.2, {"table": "semi", "method": "BYOL", "network": "resnet50", "metric": "top-1", "labels": 0.01}),
        (93.7, {"table": "semi", "method": "BYOL", "network": "resnet200x2", "metric": "top-5", "labels": 0.1}),
        (76.5, {"table": "semi", "method": "SimCLR (repro)", "metric": "top-1"}),
        (91.3, {"table": "transfer-linear", "method": "BYOL", "data": "cifar10"}),
        (94.7, {"table": "transfer-linear", "method": "Supervised", "data": "flowers102"}),
        (82.5, {"table": "transfer-linear", "method": "BYOL", "data": "voc2007"}),
        (72.6, {"table": "transfer-finetune", "method": "Random init", "data": "caltech101"}),
        (85.9, {"table": "transfer-finetune", "method": "SimCLR", "data": "cifar100"}),
        (51.0, {"table": "places365", "trained_on": "imagenet"}),
        (85.9, {"table": "places365", "method": "SimCLR (repro)", "data": "flowers102"}),
        (76.3, {"table": "segmentation", "method": "BYOL"}),
        (77.5, {"table": "detection", "method": "BYOL"}),
        (0.541, {"table": "depth", "method": "BYOL", "metric": "rms"}),
        (0.127, {"table": "depth", "method": "Supervised", "metric": "rel"}),
        (59.7, {"table": "batch_size", "setting": "batch_size=64", "method": "BYOL", "metric": "top-1"}),
        (86.3, {"table": "batch_size", "setting": "batch_size=256", "method": "SimCLR (repro)", "metric": "top-5"}),
        (63.4, {"table": "augmentations", "setting": "no colour", "method": "BYOL", "metric": "top-1"}),
        (66.4, {"table": "augmentations", "setting": "crop + blur", "method": "SimCLR (repro)", "metric": "top-5"}),
        (18.8, {"table": "tau_base", "setting": "tau_base=1"}),
        (0.3, {"table": "tau_base", "setting": "tau_base=0"}),
        (70.9, {"table": "target", "setting": "predictor=mlp target=ema beta=1"}),
        (69.4, {"table": "target", "setting": "predictor=none target=online beta=1"}),
        (53.9, {"table": "alpha", "setting": "alpha=0.01 beta=1"}),
        (72.6, {"table": "alpha", "setting": "alpha=10 beta=1"}),
        (61.9, {"table": "layers", "setting": "projector_layers=1 predictor_layers=1"}),
        (71.4, {"table": "layers", "setting": "projector_layers=3 predictor_layers=1"}),
        (69.9, {"table": "dim", "setting": "dim=16"}),
        (34.8, {"table": "lr", "setting": "lr=0.01", "metric": "top-1"}),
        (89.3, {"table": "weight_decay", "setting": "weight_decay=1e-5", "metric": "top-5"}),
        (65.3, {"table": "loss_norm", "setting": "loss_norm=batch", "metric": "top-1"}),
        (62.8, {"table": "predictor_rate", "setting": "tau_base=0 predictor_rate=2"}),
        (8.3, {"table": "rates", "setting": "tau_base=0 projector_rate=10 predictor_rate=10"}),
        (25.7, {"table": "rates", "setting": "tau_base=0 projector_rate=1 predictor_rate=1.5"}),
        (57.7, {"table": "norm", "setting": "head_norm=batch predictor_norm=batch", "metric": "top-1"}),
        (28.8, {"table": "norm", "method": "Random init"}),
        (74.3, {"table": "encoder_norm", "setting": "batch norm", "epochs": 1000, "verified": True}),
        (72.1, {"table": "encoder_norm", "setting": "batch norm in the encoder alone", "epochs": 300, "verified": False}),
        (0.1, {"table": "encoder_norm", "setting": "none", "epochs": 300, "verified": False}),
        (65.7, {"table": "encoder_norm", "setting": "data-dependent initialisation", "epochs": 300, "verified": False}),
        (73.9, {"table": "encoder_norm", "setting": "group norm + weight standardisation", "epochs": 1000, "verified": True}),
        (40.1, {"table": "sound-linear", "method": "BYOL-A", "network": "byol-a-v1-d2048", "data": "voxceleb1"}),
        (88.9, {"table": "sound-linear", "method": "BYOL-A", "network": "byol-a-v1-d512", "data": "speech-commands-35"}),
        (76.5, {"table": "sound-linear", "method": "BYOL-A", "network": "byol-a-v1-d1024", "data": "mean of 6 tasks"}),
        (59.1, {"table": "sound-linear", "method": "COLA'", "network": "512 features", "data": "speech-commands-12"}),
        (79.5, {"table": "sound-linear", "method": "COLA'", "network": "2048 features", "data": "voxforge"}),
        (71.7, {"table": "sound-linear", "method": "COLA", "data": "speech-commands-12"}),
        (88.1, {"table": "sound-linear", "method": "TRILL", "data": "voxforge"}),
        (78.2, {"table": "sound-linear", "method": "OpenL3"}),
        (72.7, {"table": "sound-linear", "method": "COALA", "data": "urbansound8k"}),
        (34.5, {"table": "sound-ablation", "setting": "crop", "data": "voxceleb1"}),
        (82.0, {"table": "sound-ablation", "setting": "mixup", "data": "speech-commands-35"}),
        (72.3, {"table": "sound-ablation", "setting": "mixup + crop", "data": "mean of 6 tasks"}),
        (70.3, {"table": "sound-ablation", "setting": "no pre-normalisation alpha=0.1"}),
        (70.1, {"table": "sound-ablation", "trained_on": "fsd50k"}),
        (72.4, {"table": "evar-linear", "data": "mean of 9 tasks"}),
        (37.6, {"table": "evar-linear", "data": "surge"}),
        (54.0, {"table": "comparators", "method": "InstDisc", "data": "imagenet", "source": "Misra & van der Maaten 2020 (PIRL), tables"}),
        (75.3, {"table": "comparators", "method": "SwAV", "network": "resnet50", "epochs": 800}),
        (70.1, {"table": "comparators", "method": "SwAV", "setting": "local_views=0"}),
        (67.5, {"table": "comparators", "method": "DINO", "network": "resnet50", "protocol": "kNN, as its authors report it"}),
        (73.2, {"table": "comparators", "method": "Barlow Twins", "verified": False, "metric": "top-1"}),
        (54.8, {"table": "comparators", "method": "VICReg", "labels": 0.01}),
        (92.07, {"table": "online", "method": "VICReg", "data": "cifar10"}),
        (60.2, {"table": "comparators", "method": "Local Aggregation", "data": "imagenet", "verified": True}),
        (69.9, {"table": "comparators", "method": "PIRL", "setting": "hidden=2048 with blur", "epochs": 800}),
        (56.6, {"table": "comparators", "method": "BigBiGAN", "network": "resnet50"}),
        (97.35, {"table": "comparators", "method": "BiGAN"}),
        (58.6, {"table": "comparators", "method": "CMC", "network": "resnet50 halves"}),
        (70.1, {"table": "comparators", "method": "InfoMin", "epochs": 200, "network": "resnet50"}),
        (71.5, {"table": "comparators", "method": "CPC v2", "network": "resnet161", "metric": "top-1"}),
        (81.1, {"table": "comparators", "method": "PIRL", "data": "voc07"}),
        (83.8, {"table": "comparators", "method": "PIRL", "labels": 0.1, "verified": False}),
        (69.1, {"table": "comparators", "method": "Local Aggregation", "metric": "AP50"}),
        (75.8, {"table": "comparators", "method": "CMC", "data": "imagenet100"}),
        (74.5, {"table": "comparators", "method": "InfoMin", "network": "resnext101"}),
    ],
)
def test_a_number_typed_again_by_hand_is_the_one_in_the_table(value, wanted):
    assert one(**wanted).value == value


@pytest.mark.parametrize(("setting", "deviation"), [("batch_size=128", 0.5), ("batch_size=64", 1.5), ("batch_size=256", None)])
def test_deviations_stand_where_the_paper_gives_them(setting, deviation):
    assert one(table="batch_size", setting=setting, method="BYOL", metric="top-1").deviation == deviation


def test_every_row_has_a_source_a_protocol_and_a_possible_value():
    for r in published.everything():
        assert r.source, r
        assert r.protocol, r
        assert r.metric, r
        assert 0 <= r.value <= 100, r
        assert 0 < r.labels <= 1, r
        assert r.epochs is None or r.epochs > 0, r


def test_no_row_is_there_twice():
    told = {f.name for f in dataclasses.fields(published.Row)} - {"value", "deviation", "source", "verified", "note"}
    keys = Counter(tuple(getattr(r, name) for name in sorted(told)) for r in published.everything())
    assert [k for k, n in keys.items() if n > 1] == []


@pytest.mark.parametrize(
    ("wanted", "sentence"), [({"net": "x"}, "have no field 'net'"), ({"table": "linea"}, "no published table 'linea'")]
)
def test_a_question_about_what_there_is_not_is_one_sentence(wanted, sentence):
    with pytest.raises(ValueError, match=sentence):
        published.rows(**wanted)


@pytest.mark.parametrize(
    ("data", "classes", "name"),
    [
        ("cifar10", 10, "cifar10"), ("CIFAR-10:test", 10, "cifar10"), ("/data/imagenet/train", 1000, "imagenet"),
        ("flowers102:val", 102, "flowers102"), ("imagenette160:val", 10, "imagenette"),
        ("/data/imagenet/train", 10, None), ("photos", 10, None), ("digits", 10, None), ("my-cifar10-copy", 10, None), ("", 10, None),
    ],
)  # fmt: skip
def test_only_a_known_name_with_its_number_of_classes_is_recognised(data, classes, name):
    found = recognised(data, classes)
    assert (found and found.name) == name


def test_every_recognised_set_is_one_that_rows_are_about():
    measured_on = {r.data for r in published.everything()}
    assert {s.name for s in (*SETS, *SOUND_SETS)} <= measured_on


def test_a_users_own_folder_has_nothing_published_beside_it():
    assert published_lines(evaluation(asked={"data": "photos/"})) == []
    assert published_lines(evaluation()) == []


def cifar(protocol, **changes):
    return evaluation(shares=(1.0,), protocol=protocol, classes=10, asked={"data": "cifar10"}, **changes)


def test_a_measured_linear_score_on_cifar10_has_the_papers_beside_it_and_says_how_they_differ():
    text = " ".join(" ".join(published_lines(cifar("linear"))).split())
    assert "not measured here" in text
    assert "91.3 BYOL, resnet50, 1000 epochs on imagenet" in text
    assert "92.6 BYOL, resnet18, 1000 epochs on cifar10" in text
    assert "L-BFGS" in text
    assert "50,000 train / 10,000 test images there" in text
    assert "Source: Grill et al. 2020" in text


def test_the_counts_are_no_difference_where_they_are_the_published_ones():
    (first, *_) = beside("cifar10", 10, "linear", [1.0], train=50_000, test=10_000)
    assert "there" not in first.differences


def test_neighbours_are_compared_with_neighbours_alone():
    groups = cifar("knn-k-200").published()
    assert [r.table for g in groups for r in g.rows] == ["knn"] * len(groups[0].rows)
    assert {r.value for r in groups[0].rows if r.method == "BYOL"} == {86.9, 86.8, 91.0}


def test_a_share_of_the_labels_has_no_number_of_all_labels_beside_it():
    assert beside("cifar10", 10, "linear", [0.01], train=1, test=1) == []
    shares = {r.labels for g in beside("imagenet", 1000, "semi", [0.01], train=1, test=1) for r in g.rows}
    assert shares == {0.01}


@pytest.mark.parametrize("protocol", ["linear", "knn", "sound-linear", "evar-linear"])
@pytest.mark.parametrize("name", sorted({s.called[0] for s in (*SETS, *SOUND_SETS)}))
def test_every_line_fits_into_80_columns(name, protocol):
    classes = next(s.classes for s in (*SETS, *SOUND_SETS) if name in s.called)
    lines = published_lines(evaluation(shares=(1.0,), protocol=protocol, classes=classes, asked={"data": name}))
    assert max(map(len, lines), default=0) <= 80


def test_what_was_measured_stays_as_it_is():
    assert cifar("linear").lines() == evaluation(shares=(1.0,), protocol="linear", classes=10, asked={"data": "photos"}).lines()


def sound_average(tasks, **wanted):
    """The mean of the rows of single tasks, and the published mean."""
    found = {r.data: r.value for r in published.rows(**wanted)}
    mean = found.pop(f"mean of {tasks} tasks")
    assert len(found) == tasks
    return sum(found.values()) / tasks, mean


@pytest.mark.parametrize("method", ["BYOL-A", "COLA'"])
@pytest.mark.parametrize("dim", [512, 1024, 2048])
def test_the_rows_of_sound_have_the_mean_that_was_published(method, dim):
    network = f"byol-a-v1-d{dim}" if method == "BYOL-A" else f"{dim} features"
    ours, theirs = sound_average(6, table="sound-linear", method=method, network=network)
    assert abs(ours - theirs) < 0.1


@pytest.mark.parametrize("setting", ["mixup + crop", "crop", "mixup"])
def test_the_ablations_of_sound_have_the_mean_that_was_published(setting):
    ours, theirs = sound_average(6, table="sound-ablation", setting=setting)
    assert abs(ours - theirs) < 0.1


def test_the_tasks_of_evar_are_unverified_but_have_the_mean_of_the_abstract():
    found = [
        r for r in published.rows(table="evar-linear") if r.protocol.startswith("EVAR linear, lr by task, 200 epochs at most, mean of 3")
    ]
    tasks = [r for r in found if not r.data.startswith("mean")]
    assert abs(sum(r.value for r in tasks) / 9 - 72.4) < 0.05
    assert [r.data for r in tasks if r.verified] == ["voxceleb1"]
    assert all("unverified" in r.note for r in tasks if not r.verified)
    assert "unverified" in said(one(table="evar-linear", data="esc50"))


def test_a_measured_score_on_speech_commands_has_the_papers_beside_it():
    (group,) = beside("data/speech_commands", 35, "sound-linear", [1.0], train=94_824, test=11_005)
    assert [(r.method, r.value) for r in group.rows] == [("BYOL-A", 92.2), ("COLA'", 76.8)]
    assert "there" not in group.differences
    (group,) = beside("data/speech_commands", 12, "sound-linear-repeats-2", [1.0], train=1, test=1)
    assert [r.value for r in group.rows] == [91.0, 76.7]
    assert beside("data/speech_commands", 35, "linear", [1.0], train=1, test=1) == []
