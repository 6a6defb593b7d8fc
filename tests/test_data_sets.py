import hashlib
import pickle
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from official_sets import MAKERS, VOC, images32, voc_xml
from torchvision import datasets

from byol.data import is_transfer, open_source, open_transfer, transfer_names
from byol.data.annotations import voc_objects
from byol.data.transfer_lists import VOC_CLASSES
from byol.data.transfer_sets import TRANSFER_SETS

# train, validation and test images of the miniatures, by the rules of the paper's table
COUNTS = {
    "food101": (18, 2, 6),
    "cifar10": (90, 10, 20),
    "cifar100": (359, 41, 100),
    "birdsnap": (15, 4, 4),
    "sun397": (80, 20, 6),
    "cars": (8, 2, 4),
    "aircraft": (6, 6, 6),
    "voc2007": (3, 3, 3),
    "dtd": (9, 9, 9),
    "pets": (12, 60, 9),
    "caltech101": (75, 15, 10),
    "flowers102": (3, 3, 6),
}
METRICS = {"aircraft": "mean per class", "pets": "mean per class", "caltech101": "mean per class", "flowers102": "mean per class"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """All twelve beside each other, as they would lie below one data folder."""
    folder = tmp_path_factory.mktemp("sets")
    for make in MAKERS.values():
        make(folder)
    return folder


def pairs(source):
    """{(name of the file, class)} of a source."""
    return sorted((Path(n).name, int(c)) for n, c in zip(source.names, source.labels, strict=True))


@pytest.mark.parametrize("name", TRANSFER_SETS)
def test_every_set_has_the_parts_metric_and_validation_of_the_papers_rules(root, name):
    train, test = open_source(f"{name}:{root}"), open_transfer(f"{name}:{root}", "test")
    val = train.official.val
    assert (int((~val).sum()), int(val.sum()), len(test)) == COUNTS[name]
    assert train.official.metric == test.official.metric == METRICS.get(name, "11-point mAP" if name == "voc2007" else "top-1")
    assert train.classes == test.classes
    assert not test.official.val.any()
    assert not set(train.names) & set(test.names)
    assert any("where the paper has" in note for note in train.notes), "a miniature is not as large as the paper's"
    assert train.read(0).shape[2] == 3
    again = open_source(f"{name}:{root}")
    assert np.array_equal(again.official.val, val)
    assert again.fingerprint() == train.fingerprint()


def test_the_papers_table_adds_up():
    whole = {
        "food101": 75_750,
        "cifar10": 50_000,
        "cifar100": 50_000,
        "birdsnap": 47_386,
        "sun397": 19_850,
        "cars": 8_144,
        "voc2007": 5_011,
    }
    whole |= {"pets": 3_680, "caltech101": 102 * 30}
    assert {name: sum(TRANSFER_SETS[name].counts[:2]) for name in whole} == whole
    assert len(TRANSFER_SETS) == 12


def test_shares_of_the_whole_sets_are_those_of_the_table():
    from byol.data.transfer_sets import _proportional

    sizes = {"food101": [750] * 101, "cifar10": [5000] * 10, "cifar100": [500] * 100, "cars": [42] * 108 + [41] * 88}
    for name, of_class in sizes.items():
        train, val, _ = TRANSFER_SETS[name].counts
        counts = _proportional(np.array(of_class), val / (train + val))
        assert counts.sum() == val, name
        assert np.ptp(counts / of_class) < 0.05


@pytest.mark.parametrize(("name", "of_each"), [("sun397", 10), ("pets", 20), ("caltech101", 5), ("birdsnap", None)])
def test_validation_of_so_many_a_class(root, name, of_each):
    train, test = open_source(f"{name}:{root}"), open_transfer(f"{name}:{root}", "test")
    found = np.bincount(train.labels[train.official.val], minlength=len(train.classes))
    expected = np.bincount(test.labels, minlength=len(train.classes)) if of_each is None else [of_each] * len(train.classes)
    assert found.tolist() == list(expected)


def test_food_cars_aircraft_textures_and_pets_are_those_of_torchvision(root):
    theirs = {
        "food101": [datasets.Food101(root, split=s) for s in ("train", "test")],
        "dtd": [datasets.DTD(root, split=s) for s in ("train", "val", "test")],
        "aircraft": [datasets.FGVCAircraft(root, split=s) for s in ("train", "val", "test")],
        "pets": [datasets.OxfordIIITPet(root, split=s) for s in ("trainval", "test")],
        "cars": [datasets.StanfordCars(root, split=s) for s in ("train", "test")],
    }
    for name, parts in theirs.items():
        rows = [_pairs_of_torchvision(part) for part in parts]
        train, test = open_source(f"{name}:{root}"), open_transfer(f"{name}:{root}", "test")
        assert pairs(train) == sorted(p for part in rows[:-1] for p in part), name
        assert pairs(test) == sorted(rows[-1]), name
        if len(parts) == 3:  # the creators' validation
            assert pairs(train.subset(np.flatnonzero(train.official.val))) == sorted(rows[1]), name
        if name != "pets":  # torchvision writes American Bulldog where the files say american_bulldog
            assert train.classes == list(parts[0].classes), name


def _pairs_of_torchvision(data):
    if hasattr(data, "_samples"):
        return [(Path(p).name, int(c)) for p, c in data._samples]
    files = data._images if hasattr(data, "_images") else data._image_files
    return [(Path(p).name, int(c)) for p, c in zip(files, data._labels, strict=True)]


def test_scenes_are_those_of_torchvision_divided_by_the_first_split(root):
    theirs = datasets.SUN397(root)
    train, test = open_source(f"sun397:{root}"), open_transfer(f"sun397:{root}", "test")
    assert [c.split("/", 1)[1] for c in train.classes] == theirs.classes
    assert sorted(pairs(train) + pairs(test)) == sorted(_pairs_of_torchvision(theirs))


def test_flowers_are_those_of_torchvision(root, monkeypatch):
    md5 = {f: hashlib.md5((root / "flowers-102" / f).read_bytes()).hexdigest() for f in ("imagelabels.mat", "setid.mat")}
    files = {"label": "imagelabels.mat", "setid": "setid.mat"}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", {k: (f, md5[f]) for k, f in files.items()})
    theirs = {s: datasets.Flowers102(root, split=s) for s in ("train", "val", "test")}
    train, test = open_source(f"flowers102:{root}"), open_transfer(f"flowers102:{root}", "test")
    assert pairs(train) == sorted(_pairs_of_torchvision(theirs["train"]) + _pairs_of_torchvision(theirs["val"]))
    assert pairs(test) == sorted(_pairs_of_torchvision(theirs["test"]))


def test_caltech_is_torchvisions_and_the_background(root):
    theirs = datasets.Caltech101(root)
    train, test = open_source(f"caltech101:{root}"), open_transfer(f"caltech101:{root}", "test")
    assert train.classes == ["BACKGROUND_Google", *theirs.categories]
    ours = Counter(train.classes[c] for c in [*train.labels, *test.labels])
    assert {c: n for c, n in ours.items() if c != "BACKGROUND_Google"} == Counter(theirs.categories[c] for c in theirs.y)
    assert np.bincount(train.labels).tolist() == [30, 30, 30]


def test_voc_has_the_classes_that_an_independent_reading_of_torchvisions_annotations_gives(root):
    for part, source in (("trainval", open_source(f"voc2007:{root}")), ("test", open_transfer(f"voc2007:{root}", "test"))):
        names = [part] if part == "test" else ["train", "val"]
        theirs = [d for n in names for d in _voc_of_torchvision(root, n)]
        assert [Path(n).name for n in source.names] == [name for name, _ in theirs]
        assert source.labels is None
        for row, (_, objects) in zip(source.official.targets, theirs, strict=True):
            easy, every = {n for n, hard in objects if hard == "0"}, {n for n, _ in objects}
            assert {VOC_CLASSES[i] for i in np.flatnonzero(row == 1)} == easy
            assert {VOC_CLASSES[i] for i in np.flatnonzero(row == -1)} == every - easy
    assert [len(VOC[p]) for p in ("train", "val", "test")] == [3, 3, 3]


def _voc_of_torchvision(root, image_set):
    data = datasets.VOCDetection(str(root), year="2007", image_set=image_set)
    for image, annotation in zip(data.images, data.annotations, strict=True):
        tree = data.parse_voc_xml(ElementTree.parse(annotation).getroot())
        yield Path(image).name, [(o["name"], o["difficult"]) for o in tree["annotation"]["object"]]


def test_birds_whose_pictures_are_not_there_are_no_part_of_the_set(root):
    train = open_source(f"birdsnap:{root}")
    assert train.classes == ["Acadian_Flycatcher", "Zone_tailed_Hawk"]
    assert "download/images/Acadian_Flycatcher/11.jpg" not in list(train.names)
    assert train.skipped == []
    assert pairs(open_transfer(f"birdsnap:{root}", "test")) == [("0.jpg", 0), ("1.jpg", 0), ("2.jpg", 0), ("5.jpg", 1)]


def test_cifar_in_its_binary_version_equals_the_pickled_one_read_by_torchvision(root, tmp_path, monkeypatch):
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    entries = {f"data_batch_{i}": {"data": images32(20, i - 1).reshape(20, -1), "labels": [j % 10 for j in range(20)]} for i in range(1, 6)}
    entries["test_batch"] = {"data": images32(20, 5).reshape(20, -1), "labels": [j % 10 for j in range(20)]}
    entries["batches.meta"] = {"label_names": [f"class{i}" for i in range(10)]}
    md5 = {}
    for name, entry in entries.items():
        (base / name).write_bytes(pickle.dumps(entry))
        md5[name] = hashlib.md5((base / name).read_bytes()).hexdigest()
    with pytest.raises(ValueError, match="byte for byte"):  # a pickle of anybody's is not opened
        open_source(f"cifar10:{tmp_path}")
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[f"data_batch_{i}", md5[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]})
    for part in ("train", "test"):
        ours, theirs = open_transfer(f"cifar10:{root}", part), open_transfer(f"cifar10:{tmp_path}", part)
        assert ours.fingerprint() == theirs.fingerprint()
        assert np.array_equal(ours.official.val, theirs.official.val)


def test_cifar100_has_the_fine_classes(root):
    train = open_source(f"cifar100:{root}")
    assert np.array_equal(train.labels, np.arange(400) % 100)
    np.testing.assert_array_equal(train.read(3), images32(400, 0)[3].transpose(1, 2, 0))


def test_a_limit_keeps_classes_and_validation_with_their_images(root):
    whole, some = open_source(f"pets:{root}"), open_source(f"pets:{root}", limit=30)
    at = {name: i for i, name in enumerate(whole.names)}
    rows = [at[name] for name in some.names]
    assert np.array_equal(some.labels, whole.labels[rows])
    assert np.array_equal(some.official.val, whole.official.val[rows])
    several = open_source(f"voc2007:{root}", limit=2)
    assert several.official.targets.shape == (2, 20)


def test_an_unreadable_image_takes_its_class_and_its_part_with_it(tmp_path):
    MAKERS["dtd"](tmp_path)
    whole = open_source(f"dtd:{tmp_path}")
    (tmp_path / "dtd/dtd/images/banded/banded_train1.jpg").write_bytes(b"")
    less = open_source(f"dtd:{tmp_path}")
    assert len(less) == len(less.official.val) == len(whole) - 1
    assert pairs(less) == [p for p in pairs(whole) if p[0] != "banded_train1.jpg"]
    assert int(less.official.val.sum()) == 9
    assert less.skipped[0].reason == "0 bytes"


def test_a_set_may_be_named_by_its_own_folder_or_found_in_the_data_folder(root, monkeypatch):
    assert len(open_source(f"pets:{root}/oxford-iiit-pet")) == 72
    monkeypatch.setenv("BYOL_DATA", str(root))
    assert len(open_source("pets")) == 72
    assert is_transfer("PETS")
    assert not is_transfer("cifar10")  # what torchvision fetches keeps its meaning
    assert not is_transfer("dtd:val")
    assert is_transfer("dtd:data/val")


@pytest.mark.parametrize("name", TRANSFER_SETS)
def test_a_set_that_is_not_there_is_one_sentence_that_says_what_to_get_and_where_it_goes(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name}:.* is missing; get .* and unpack it there") as caught:
        open_source(f"{name}:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert f"{name}:FOLDER" in transfer_names()


def test_a_missing_list_is_one_sentence(tmp_path):
    MAKERS["dtd"](tmp_path)
    (tmp_path / "dtd/dtd/labels/val1.txt").unlink()
    with pytest.raises(ValueError, match=r"val1.txt cannot be read \(no such file or directory\); get dtd"):
        open_source(f"dtd:{tmp_path}")


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE a [<!ENTITY x "car">]><annotation><object><name>&x;</name></object></annotation>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
        "<a>" * 1000,
        "<annotation><object>",
        "no XML",
        "",
        f"<annotation>{' ' * (2 << 20)}</annotation>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_hostile_xml_is_refused_in_one_sentence(tmp_path, text, encoding):
    path = tmp_path / "000001.xml"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match="official") as caught:
        voc_objects(path)
    assert "\n" not in str(caught.value)


def test_parts_of_an_object_have_no_say_in_its_class(tmp_path):
    path = tmp_path / "1.xml"
    path.write_text(voc_xml([("dog", 0), ("cat", 1)]))
    assert voc_objects(path) == [("dog", False), ("cat", True)]


@pytest.mark.parametrize("line", ["../../secret_1 1 1 1", "a/../../b_1 1 1 1"])
def test_a_list_cannot_lead_out_of_the_folder_of_the_images(tmp_path, line):
    MAKERS["pets"](tmp_path)
    with open(tmp_path / "oxford-iiit-pet/annotations/trainval.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match="not below the folder"):
        open_source(f"pets:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "path", "content"),
    [
        ("cars", "stanford_cars/devkit/cars_meta.mat", b"MATLAB 5.0 MAT-file" + bytes(200)),
        ("cars", "stanford_cars/devkit/cars_train_annos.mat", pickle.dumps(print)),
        ("flowers102", "flowers-102/setid.mat", b""),
        ("flowers102", "flowers-102/imagelabels.mat", bytes(5 << 20)),
        ("pets", "oxford-iiit-pet/annotations/test.txt", b"\xff\xfe\x00"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", b"Bengal_1\n"),
        ("pets", "oxford-iiit-pet/annotations/test.txt", b"Bengal_1 " + b"9" * 5000),
        ("pets", "oxford-iiit-pet/annotations/test.txt", b""),
        ("aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt", b"0001000 Concorde\n"),
        ("birdsnap", "birdsnap/images.txt", b"url\tpath\n"),
        ("birdsnap", "birdsnap/images.txt", b"url\tpath\tspecies_id\nhttp\n"),
        ("birdsnap", "birdsnap/species.txt", b"id\tdir\n"),
        ("voc2007", "VOCdevkit/VOC2007/Annotations/000005.xml", voc_xml([("unicorn", 0)]).encode()),
        ("cifar10", "cifar-10-batches-bin/test_batch.bin", bytes(3072)),
        ("cifar10", "cifar-10-batches-bin/test_batch.bin", b"\x63" + bytes(3072)),
        ("cifar10", "cifar-10-batches-bin/data_batch_2.bin", b""),
    ],
)
def test_a_damaged_file_of_a_set_is_one_sentence(tmp_path, name, path, content):
    MAKERS[name](tmp_path)
    (tmp_path / path).write_bytes(content)
    with pytest.raises(ValueError, match=r"archive|get ") as caught:
        open_source(f"{name}:{tmp_path}")
    assert "\n" not in str(caught.value)
