import struct

import numpy as np
import pytest
from data_files import pixels, write
from sklearn.datasets import load_digits

from byol.data import describe, names, open_source, splits_of


def test_digits_are_those_of_scikit_learn_from_0_to_255():
    source = open_source("digits")
    bunch = load_digits()
    ours = np.stack([source.read(i)[..., 0] for i in range(len(source))])
    assert ours.dtype == np.uint8
    np.testing.assert_allclose(ours / 255, bunch.images / 16, atol=0.5 / 255)
    np.testing.assert_array_equal(source.labels, bunch.target)
    assert (source.kind, source.classes) == ("digits", [str(d) for d in range(10)])
    assert describe(source) == "1,797 images, grey, 8 bit, 8x8, 10 classes"


def test_a_limit_on_digits_keeps_the_balance():
    assert np.ptp(np.bincount(open_source("digits", limit=200).labels)) <= 2


def test_nothing_is_fetched_unless_asked(tmp_path):
    with pytest.raises(ValueError, match=r"cifar10 is not in .*: fetching it takes about 170 MB; say so with --download"):
        open_source("cifar10", root=tmp_path / "sets")
    assert list(tmp_path.iterdir()) == []


def test_a_set_that_is_not_there_is_one_sentence_although_others_are(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"stl10 is not in .* takes about 2.6 GB"):
        open_source("stl10", root=tmp_path)


def test_a_failed_fetch_is_one_sentence(tmp_path, monkeypatch):
    from torchvision import datasets

    def no_net(root, train, download=False):
        raise RuntimeError("Dataset not found" if not download else "<urlopen error no route to host>")

    monkeypatch.setattr(datasets, "CIFAR10", no_net)
    with pytest.raises(ValueError, match=r"cifar10 could not be fetched .*no route to host"):
        open_source("cifar10", root=tmp_path, download=True)


def test_unknown_splits_are_named():
    with pytest.raises(ValueError, match="cifar10 has no split 'val'; it has train, test"):
        open_source("cifar10:val")
    with pytest.raises(ValueError, match="digits has no split"):
        open_source("digits:test")


def test_every_name_has_one_line_with_its_size():
    lines = names()
    assert "digits" in lines
    assert all("\n" not in line and ("MB" in line or "GB" in line or "nothing to fetch" in line) for line in lines.values())
    assert splits_of("cifar10") == ["cifar10", "cifar10:test"]


def test_a_torchvision_set_of_arrays_is_read(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    x, y = np.stack([pixels(28, 28, 1, seed=s) for s in range(4)]), np.uint8([5, 0, 9, 1])
    for part, images in (("train", x), ("t10k", 255 - x)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 4, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 4) + y.tobytes())
    for spec, images in (("mnist", x), ("MNIST:test", 255 - x)):
        source = open_source(spec, root=tmp_path)
        assert (source.kind, source.channels, len(source.classes)) == ("torchvision", 1, 10)
        np.testing.assert_array_equal(np.stack([source.read(i)[..., 0] for i in range(4)]), images)
        assert source.labels.tolist() == y.tolist()


def test_a_torchvision_set_of_files_is_read_and_bad_files_are_skipped(tmp_path):
    base = tmp_path / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)
    rows = [("Abyssinian_1", 1), ("Beagle_1", 2), ("Beagle_2", 2)]
    (base / "annotations" / "trainval.txt").write_text("".join(f"{n} {c} 1 1\n" for n, c in rows))
    for seed, (name, _) in enumerate(rows):
        write(base / "images" / f"{name}.jpg", pixels(seed=seed), "PNG")
    (base / "images" / "Beagle_1.jpg").write_bytes(b"")
    source = open_source("oxfordiiitpet", root=tmp_path)
    assert source.names == ["Abyssinian_1.jpg", "Beagle_2.jpg"]
    assert (source.classes, source.labels.tolist()) == (["Abyssinian", "Beagle"], [0, 1])
    assert source.skipped[0].reason == "0 bytes"
    np.testing.assert_array_equal(source.read(1), pixels(seed=2))


def test_every_named_set_exists_in_torchvision_with_these_splits():
    from torchvision import datasets

    from byol.data.named import SETS

    for name, named in SETS.items():
        wanted = "train" if named.by_flag else "split"
        code = getattr(datasets, named.cls).__init__.__code__
        assert named.splits == ("all",) or wanted in code.co_varnames, name
