"""Makes the twelve sets of the transfer experiments in miniature, each in the layout that its creators hand out."""

import json

import numpy as np
from data_files import pixels, write
from scipy.io import savemat


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def pictures(root, names):
    for seed, name in enumerate(names):
        write(root / name, pixels(10, 12, seed=seed), "JPEG")


def food101(root):
    base = root / "food-101"
    split = {
        "train": {c: [f"{c}/{i}" for i in range(10)] for c in ("apple_pie", "waffles")},
        "test": {c: [f"{c}/{i}" for i in range(90, 93)] for c in ("apple_pie", "waffles")},
    }
    for part, of_class in split.items():
        every = [name for names in of_class.values() for name in names]
        lines(base / "meta" / f"{part}.txt", every)
        (base / "meta" / f"{part}.json").write_text(json.dumps(of_class))
        pictures(base / "images", [f"{name}.jpg" for name in every])
    lines(base / "meta" / "classes.txt", split["train"])


def sun397(root):
    base = root / "SUN397"
    classes = ["/a/abbey", "/a/apartment_building/outdoor"]
    lines(base / "ClassName.txt", classes)
    for part, count in (("Training", 50), ("Testing", 3)):
        names = [f"{c}/sun_{part}{i}.jpg" for c in classes for i in range(count)]
        lines(base / "Partitions" / f"{part}_01.txt", names)
        pictures(base, [n[1:] for n in names])


def cars(root):
    base = root / "stanford_cars"
    kind = [(name, "O") for name in ("bbox_x1", "class", "fname")]
    (base / "devkit").mkdir(parents=True)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["AM General Hummer", "Acura RL"], object)})
    for part, path, count in (("train", "devkit/cars_train_annos.mat", 10), ("test", "cars_test_annos_withlabels.mat", 4)):
        rows = np.array([(1, i % 2 + 1, f"{i + 1:05d}.jpg") for i in range(count)], kind)
        savemat(base / path, {"annotations": rows})
        pictures(base / f"cars_{part}", [f"{i + 1:05d}.jpg" for i in range(count)])


def aircraft(root):
    base = root / "fgvc-aircraft-2013b" / "data"
    variants = ["707-320", "F/A-18", "MD-11 X"]
    lines(base / "variants.txt", variants)
    for at, part in enumerate(("train", "val", "test")):
        numbers = [f"{1000 * at + i:07d}" for i in range(6)]
        lines(base / f"images_variant_{part}.txt", [f"{n} {variants[i % 3]}" for i, n in enumerate(numbers)])
        pictures(base / "images", [f"{n}.jpg" for n in numbers])


VOC = {  # (class, difficult) of every image
    "train": {"000012": [("car", 0), ("car", 1)], "000017": [("person", 0), ("horse", 0)], "000023": [("person", 1)]},
    "val": {"000005": [("chair", 0), ("chair", 1)], "000007": [("car", 0)], "000009": [("horse", 1), ("person", 0), ("horse", 0)]},
    "test": {"000001": [("dog", 0), ("person", 0)], "000002": [("train", 0)], "000003": [("sofa", 1), ("chair", 0)]},
}


def voc_xml(objects):
    part = "<part><name>head</name><difficult>1</difficult></part>"
    rows = "".join(f"<object><name>{name}</name><difficult>{hard}</difficult>{part}</object>" for name, hard in objects)
    return f"<annotation><owner><name>somebody</name></owner>{rows}</annotation>"


def voc2007(root):
    base = root / "VOCdevkit" / "VOC2007"
    for part, images in VOC.items():
        lines(base / "ImageSets" / "Main" / f"{part}.txt", images)
        pictures(base / "JPEGImages", [f"{i}.jpg" for i in images])
        for name, objects in images.items():
            lines(base / "Annotations" / f"{name}.xml", [voc_xml(objects)])


def dtd(root):
    base = root / "dtd" / "dtd"
    for part in ("train", "val", "test"):
        names = [f"{c}/{c}_{part}{i}.jpg" for c in ("banded", "blotchy", "zigzagged") for i in range(3)]
        lines(base / "labels" / f"{part}1.txt", names)
        pictures(base / "images", names)


def pets(root):
    base = root / "oxford-iiit-pet"
    breeds = {"Abyssinian": 1, "american_bulldog": 2, "Bengal": 3}
    for part, numbers in (("trainval", range(24)), ("test", range(30, 33))):
        names = {f"{breed}_{i}": c for breed, c in breeds.items() for i in numbers}
        lines(base / "annotations" / f"{part}.txt", [f"{n} {c} 1 1" for n, c in names.items()])
        pictures(base / "images", [f"{n}.jpg" for n in names])


def birdsnap(root):
    base = root / "birdsnap"
    birds = {"7": "Acadian_Flycatcher", "2": "Zone_tailed_Hawk"}
    lines(base / "species.txt", ["id\tcommon\tscientific\tdir", *(f"{i}\tcommon name\tlatin name\t{d}" for i, d in birds.items())])
    names = {f"{d}/{n}.jpg": i for i, d in birds.items() for n in range(12)}
    lines(base / "images.txt", ["url\tmd5\tpath\tspecies_id", *(f"http\t0\t{n}\t{i}" for n, i in names.items())])
    tests = [f"Acadian_Flycatcher/{i}.jpg" for i in (0, 1, 2)] + ["Zone_tailed_Hawk/5.jpg"]
    lines(base / "test_images.txt", ["path", *tests])
    pictures(base / "download" / "images", [n for n in names if n != "Acadian_Flycatcher/11.jpg"])  # as if its address were dead


def caltech101(root):
    base = root / "caltech101" / "101_ObjectCategories"
    for c, count in (("BACKGROUND_Google", 33), ("Faces", 35), ("accordion", 32)):
        pictures(base / c, [f"image_{i + 1:04d}.jpg" for i in range(count)])


def flowers102(root):
    base = root / "flowers-102"
    pictures(base / "jpg", [f"image_{i + 1:05d}.jpg" for i in range(12)])
    savemat(base / "imagelabels.mat", {"labels": np.arange(12)[None] % 3 + 1})
    savemat(base / "setid.mat", {"trnid": [[4, 2, 3]], "valid": [[7, 8, 9]], "tstid": [[1, 5, 6, 10, 11, 12]]})


def images32(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def cifar10(root):
    base = root / "cifar-10-batches-bin"
    lines(base / "batches.meta.txt", [*(f"class{i}" for i in range(10)), ""])
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows = [np.append(np.uint8(i % 10), x.ravel()) for i, x in enumerate(images32(20, seed))]
        (base / f"{name}.bin").write_bytes(np.concatenate(rows).tobytes())


def cifar100(root):
    base = root / "cifar-100-binary"
    lines(base / "fine_label_names.txt", [f"class{i}" for i in range(100)])
    for seed, (name, count) in enumerate({"train": 400, "test": 100}.items()):
        rows = [np.concatenate([np.uint8([9, i % 100]), x.ravel()]) for i, x in enumerate(images32(count, seed))]
        (base / f"{name}.bin").write_bytes(np.concatenate(rows).tobytes())


MAKERS = {f.__name__: f for f in (food101, cifar10, cifar100, birdsnap, sun397, cars, aircraft, voc2007, dtd, pets, caltech101, flowers102)}
