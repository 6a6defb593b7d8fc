import json

import numpy as np
import pytest
import torch
from cli_calls import byol as command
from dense_files import save, scene

from byol import dense, encoders
from byol.dense.average_precision import Found, Truth, average_precision, iou
from byol.dense.boxes import read_coco, read_voc
from byol.dense.faster_rcnn import faster_rcnn
from byol.encoders import Input

RGB = Input(channels=3, size=64, mean=(0.2,) * 3, std=(0.3,) * 3)
TINY = "detection:iterations=2,batch_size=2,edge_min=64,edge_max=96"


def xml(boxes, extra=""):
    items = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax>"
        "</bndbox></object>"
        for name, (a, b, c, d), hard in boxes
    )
    return f'<?xml version="1.0"?>{extra}<annotation>{items}</annotation>'


def voc(root, n=6, size=(48, 64)):
    """VOC's folders; the box of each image is that of its bright square."""
    rng = np.random.default_rng(0)
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for i in range(n):
        image, mask = scene(rng, size)
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        save(root / "JPEGImages" / f"{i}.jpg", image)
        box = (columns[0] + 1, rows[0] + 1, columns[-1] + 1, rows[-1] + 1)
        (root / "Annotations" / f"{i}.xml").write_text(xml([("square", box, 0), ("far", (1, 1, 5, 5), 1)]))
    (root / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{i}\n" for i in range(n - 2)))
    (root / "ImageSets" / "Main" / "test.txt").write_text(f"{n - 2}\n{n - 1}\n")
    return root


def test_boxes_of_voc_count_from_1_with_their_edges_inside(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(xml([("cat", (1, 1, 10, 20), 0), ("dog", (5, 6, 4, 9), 0), ("cat", (3, 3, 4, 4), 1)]))
    found = read_voc(path, tmp_path / "a.jpg")
    np.testing.assert_array_equal(found.boxes, [[0, 0, 10, 20], [2, 2, 4, 4]])  # the box of no area is left out
    assert found.classes == ("cat", "cat")
    np.testing.assert_array_equal(found.ignored, [False, True])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (xml([], '<!DOCTYPE a [<!ENTITY e "boom">]>'), "declares a document type"),
        (xml([], '<!DOCTYPE a SYSTEM "file:///etc/passwd">'), "declares a document type"),
        (xml([], '<!DOCTYPE a [<!ENTITY e "boom">]>').encode("utf-16"), "declares a document type"),
        ("<annotation><object>", "damaged XML"),
        ("<annotation><object><name>cat</name></object></annotation>", "without xmin"),
        (xml([("cat", ("a", 1, 2, 3), 0)]), "without xmin"),
        (xml([("", (1, 1, 2, 3), 0)]), "without a class"),
        (xml([("cat", (1, 1, "nan", 3), 0)]), "are no numbers"),
    ],
)
def test_xml_that_is_damaged_or_could_do_harm_is_refused_by_name(tmp_path, text, sentence):
    path = tmp_path / "a.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if isinstance(text, bytes):
        path.write_bytes(text.decode("utf-16").replace('"1.0"', '"1.0" encoding="utf-16"').encode("utf-16"))
    with pytest.raises(ValueError, match=sentence) as caught:
        read_voc(path, tmp_path / "a.jpg")
    assert str(path) in str(caught.value)


COCO = {
    "images": [{"id": 7, "file_name": "b.png"}, {"id": 3, "file_name": "sub/a.png"}],
    "categories": [{"id": 90, "name": "cat"}],
    "annotations": [{"image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "iscrowd": 1}],
}


def test_cocos_boxes_are_corner_and_size_and_images_without_any_stay(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(COCO))
    first, second = read_coco(tmp_path / "a.json", tmp_path)
    assert (first.image, first.boxes.shape, second.image) == (tmp_path / "sub" / "a.png", (0, 4), tmp_path / "b.png")
    np.testing.assert_array_equal(second.boxes, [[1, 2, 4, 6]])
    assert second.ignored.tolist() == [True]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": [{"id": 7, "file_name": "../b.png"}]}, "outside its folder"),
        ({"images": [{"id": 7, "file_name": "/b.png"}]}, "outside its folder"),
        ({"categories": []}, "is not COCO's JSON"),
        ({"annotations": [{"image_id": 7, "category_id": 90, "bbox": [1, 2, 3]}]}, "is not COCO's JSON"),
        ({"images": 3}, "is not COCO's JSON"),
    ],
)
def test_json_that_is_no_list_of_boxes_is_refused(tmp_path, changes, sentence):
    (tmp_path / "a.json").write_text(json.dumps(COCO | changes))
    with pytest.raises(ValueError, match=sentence):
        read_coco(tmp_path / "a.json", tmp_path)


def found(*rows):
    """Rows of left, top, right, bottom, class, score."""
    a = np.array(rows, float).reshape(-1, 6)
    return Found(a[:, :4], a[:, 4].astype(int), a[:, 5])


def truth(*rows):
    """Rows of left, top, right, bottom, class, ignored."""
    a = np.array(rows, float).reshape(-1, 6)
    return Truth(a[:, :4], a[:, 4].astype(int), a[:, 5] == 1)


BOX = (0, 0, 10, 10)


@pytest.mark.parametrize(
    ("said", "there", "ap50"),
    [
        ([(*BOX, 1, 0.9)], [(*BOX, 1, 0)], 1.0),
        ([], [(*BOX, 1, 0)], 0.0),
        ([(0, 0, 10, 4, 1, 0.9)], [(*BOX, 1, 0)], 0.0),  # an IoU of 0.4
        ([(*BOX, 1, 0.9), (*BOX, 1, 0.8)], [(*BOX, 1, 0)], 1.0),  # found twice, after it was right
        ([(50, 50, 60, 60, 1, 0.9), (*BOX, 1, 0.8)], [(*BOX, 1, 0)], 0.5),  # the wrong one first: precision 1/2 everywhere
        ([(*BOX, 1, 0.9)], [(*BOX, 1, 0), (20, 20, 30, 30, 1, 0)], 51 / 101),  # recall 0.5: 51 of the 101 points
        ([(*BOX, 1, 0.9)], [(*BOX, 1, 0), (20, 20, 30, 30, 2, 0)], 0.5),  # the mean of two classes
        ([(20, 20, 30, 30, 1, 0.95), (*BOX, 1, 0.9)], [(*BOX, 1, 0), (20, 20, 30, 30, 1, 1)], 1.0),  # a difficult one does not count
    ],
)
def test_average_precision_of_cases_done_by_hand(said, there, ap50):
    assert average_precision([found(*said)], [truth(*there)], [1, 2])["AP50"] == pytest.approx(ap50)


def random_boxes(rng, n):
    corner, side = rng.uniform(0, 40, (n, 2)), rng.uniform(5, 30, (n, 2))
    return np.concatenate([corner, corner + side], 1)


def test_iou_is_torchvisions():
    from torchvision.ops import box_iou

    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 9), random_boxes(rng, 7)
    np.testing.assert_allclose(iou(a, b), box_iou(torch.from_numpy(a), torch.from_numpy(b)), atol=1e-12)


def test_average_precision_is_pycocotools():
    pytest.importorskip("pycocotools", reason="pycocotools is not installed")
    from pycocotools.coco import COCO as Theirs
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(1)
    said, there, annotations, results = [], [], [], []
    for image in range(12):
        boxes, classes = random_boxes(rng, 8), rng.integers(1, 4, 8)
        moved, scores = np.concatenate([boxes + rng.normal(0, 2.5, (8, 4)), random_boxes(rng, 4)]), rng.uniform(0.1, 1, 12)
        labels = np.concatenate([classes, rng.integers(1, 4, 4)])
        there.append(Truth(boxes, classes, np.zeros(8, bool)))
        said.append(Found(moved, labels, scores))
        for k, (b, c) in enumerate(zip(boxes, classes, strict=True)):
            size = b[2:] - b[:2]
            annotations.append({"id": 100 * image + k + 1, "image_id": image, "category_id": int(c), "iscrowd": 0,
                                "bbox": [*b[:2], *size], "area": float(size.prod())})  # fmt: skip
        results += [{"image_id": image, "category_id": int(c), "bbox": [*b[:2], *(b[2:] - b[:2])], "score": float(s)}
                    for b, c, s in zip(moved, labels, scores, strict=True)]  # fmt: skip
    coco = Theirs()
    coco.dataset = {"images": [{"id": i} for i in range(12)], "annotations": annotations, "categories": [{"id": c} for c in (1, 2, 3)],
                    "info": {}}  # fmt: skip
    coco.createIndex()
    theirs = COCOeval(coco, coco.loadRes(results), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    ours = average_precision(said, there, [1, 2, 3])
    np.testing.assert_allclose([ours["AP"], ours["AP50"], ours["AP75"]], theirs.stats[:3], atol=1e-9)


def test_a_residual_net_proposes_from_conv4_and_judges_with_conv5():
    net = faster_rcnn(encoders.load("resnet18-stem7", input=RGB), 2, frozen=False, size=64)
    assert net.backbone(torch.rand(1, 3, 64, 96)).shape == (1, 256, 4, 6)
    assert net.roi_heads.box_head(torch.rand(5, 256, 14, 14)).shape == (5, 512)
    assert net.roi_heads.box_predictor.cls_score.out_features == 3


def test_a_frozen_detector_learns_only_its_heads():
    net = faster_rcnn(encoders.load("resnet18-stem7", input=RGB), 2, frozen=True, size=64).train()
    learnt = {name.split(".")[0] + "." + name.split(".")[1] for name, p in net.named_parameters() if p.requires_grad}
    assert learnt == {"rpn.head", "roi_heads.box_predictor"}
    assert not any(m.training for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_training_views_move_the_box_with_the_picture(tmp_path):
    task = dense.load("detection:edge_min=64,edge_max=200").open(str(voc(tmp_path)), None, None)
    for u in torch.rand(20, 2, generator=torch.Generator().manual_seed(0)):
        x, target = task._training_view(task.images.train[0], u, RGB)
        (box,) = target["boxes"].round().int().tolist()  # the difficult one is not learnt from
        assert target["labels"].tolist() == [2]
        bright = (x.mean(0) > 0.45).nonzero()
        assert abs(bright.amin(0) - torch.tensor([box[1], box[0]])).max() <= 4
        assert abs(bright.amax(0) + 1 - torch.tensor([box[3], box[2]])).max() <= 4


@pytest.mark.parametrize("encoder", ["random:small-w8-s4-n3", "random:small-w8-s4"])
def test_the_command_detects_frozen_and_finetuned(tmp_path, encoder):
    call = command("evaluate", encoder, voc(tmp_path), "--protocol", TINY, "--json")
    assert call.code == 0, call.err
    (result,) = json.loads(call.out)["evaluations"]
    assert (result["train"], result["test"], result["facts"]) == (4, 2, {"classes": 2})
    assert [s["mode"] for s in result["scores"]] == ["frozen", "finetuned"]
    assert all(0 <= v[0] <= 1 for s in result["scores"] for v in s["metrics"].values())


def test_a_transformer_of_one_size_is_refused(tmp_path):
    call = command("evaluate", "random:timm:test_vit", voc(tmp_path), "--protocol", TINY)
    assert call.code == 2
    assert "take a convolutional one" in " ".join(call.err.split())
