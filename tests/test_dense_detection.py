import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from cli_calls import byol as command
from dense_files import save, scene

from byol import dense, encoders
from byol.dense.average_precision import Found, Truth, average_precision, iou
from byol.dense.boxes import read_coco, read_voc
from byol.dense.faster_rcnn import faster_rcnn
from byol.dense.pyramid import Pyramid
from byol.dense.voc_precision import voc_average_precision
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


@pytest.mark.parametrize(
    ("said", "there", "ap"),
    [
        ([(*BOX, 1, 0.9)], [(*BOX, 1, 0)], 1.0),
        ([], [(*BOX, 1, 0)], 0.0),
        ([(0, 0, 10, 5, 1, 0.9)], [(*BOX, 1, 0)], 1.0),  # an IoU of 0.5 is enough
        ([(50, 50, 60, 60, 1, 0.9), (*BOX, 1, 0.8)], [(*BOX, 1, 0)], 0.5),
        ([(*BOX, 1, 0.9)], [(*BOX, 1, 0), (20, 20, 30, 30, 1, 0)], 6 / 11),  # recall 0.5: the points 0, 0.1 ... 0.5
        ([(*BOX, 1, 0.9)], [(*BOX, 1, 0), (20, 20, 30, 30, 2, 0)], 0.5),  # the mean of two classes
        ([(20, 20, 30, 30, 1, 0.95), (*BOX, 1, 0.9)], [(*BOX, 1, 0), (20, 20, 30, 30, 1, 1)], 1.0),  # a difficult one does not count
        # Right, found twice, right: precision 1 up to recall 1/3, then 2/3 up to 2/3, 0 beyond. 4 points, 3 points, 4 points.
        (
            [(*BOX, 1, 0.9), (*BOX, 1, 0.8), (20, 20, 30, 30, 1, 0.7)],
            [(*BOX, 1, 0), (20, 20, 30, 30, 1, 0), (40, 40, 50, 50, 1, 0)],
            (4 * 1 + 3 * 2 / 3) / 11,
        ),
        # The second overlaps the first truth most (0.8, taken) and another by 0.5: COCO gives it the free one, VOC does not.
        ([(*BOX, 1, 0.9), (2, 0, 10, 10, 1, 0.8)], [(*BOX, 1, 0), (2, 0, 18, 10, 1, 0)], 6 / 11),
    ],
)
def test_vocs_own_average_precision_of_cases_done_by_hand(said, there, ap):
    assert voc_average_precision([found(*said)], [truth(*there)], [1, 2]) == pytest.approx(ap)


def test_a_box_that_voc_finds_twice_is_a_second_one_to_coco():
    said, there = [found((*BOX, 1, 0.9), (2, 0, 10, 10, 1, 0.8))], [truth((*BOX, 1, 0), (2, 0, 18, 10, 1, 0))]
    assert average_precision(said, there, [1])["AP50"] == pytest.approx(1)
    assert voc_average_precision(said, there, [1]) == pytest.approx(6 / 11)


def devkit(said, there, c):
    """VOC2007's measure of one class, one box after the other, with exact recalls and edges inside the boxes."""
    boxes = sorted(((-s, i, tuple(b)) for i, f in enumerate(said) for b, k, s in zip(f.boxes, f.classes, f.scores, strict=True) if k == c))
    count = sum(int(k == c and not hard) for t in there for k, hard in zip(t.classes, t.ignored, strict=True))
    seen, right, rows = set(), 0, []
    wrong = 0
    for _, i, (x1, y1, x2, y2) in boxes:
        a, best, which = (x1 + 1, y1 + 1, x2, y2), -1.0, None
        for j, (b, k) in enumerate(zip(there[i].boxes, there[i].classes, strict=True)):
            g = (b[0] + 1, b[1] + 1, b[2], b[3])
            w, h = min(a[2], g[2]) - max(a[0], g[0]) + 1, min(a[3], g[3]) - max(a[1], g[1]) + 1
            if k != c or w <= 0 or h <= 0:
                continue
            both = w * h
            overlap = both / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (g[2] - g[0] + 1) * (g[3] - g[1] + 1) - both)
            if overlap > best:
                best, which = overlap, j
        if best >= 0.5 and there[i].ignored[which]:
            continue
        if best >= 0.5 and (i, which) not in seen:
            seen.add((i, which))
            right += 1
        else:
            wrong += 1
        rows.append((Fraction(right, count), right / (right + wrong)))
    return sum(max((p for r, p in rows if r >= Fraction(t, 10)), default=0.0) for t in range(11)) / 11


def scenes(rng, n=14, hard=0.25):
    """What is in n images, and what a detector of moderate skill says: some boxes moved, some doubled, some from nowhere."""
    said, there = [], []
    for _ in range(n):
        boxes, classes = random_boxes(rng, 7), rng.integers(1, 4, 7)
        again = rng.integers(0, 7, 4)
        moved = np.concatenate([boxes, boxes[again]]) + rng.normal(0, 2.5, (11, 4))
        labels = np.concatenate([classes, classes[again], rng.integers(1, 4, 4)])
        there.append(Truth(boxes, classes, rng.uniform(size=7) < hard))
        said.append(Found(np.concatenate([moved, random_boxes(rng, 4)]), labels, rng.uniform(0.05, 1, 15)))
    return said, there


def test_vocs_own_average_precision_is_a_slow_transcription_of_the_devkit():
    for seed in range(4):
        said, there = scenes(np.random.default_rng(seed))
        by_hand = np.mean([devkit(said, there, c) for c in (1, 2, 3)])
        assert voc_average_precision(said, there, [1, 2, 3]) == pytest.approx(by_hand, abs=1e-12)
        assert 0.1 < by_hand < 0.9
        assert by_hand != pytest.approx(average_precision(said, there, [1, 2, 3])["AP50"], abs=1e-4)


def test_vocs_own_average_precision_without_boxes_says_so():
    with pytest.raises(ValueError, match="no boxes in the test images"):
        voc_average_precision([found()], [truth((*BOX, 1, 1))], [1])


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


def resnet18(stem="-stem7"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return encoders.load(f"resnet18{stem}", input=RGB)


def torchvisions_detector(encoder, ours):
    """torchvision's Faster R-CNN with FPN on its own ResNet-18, with our weights."""
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.models.detection.faster_rcnn import FasterRCNN

    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d, trainable_layers=5)
    backbone.body.load_state_dict(encoder.net.state_dict())
    backbone.fpn.load_state_dict(ours.backbone.fpn.state_dict())
    theirs = FasterRCNN(backbone, num_classes=3)
    theirs.rpn.load_state_dict(ours.rpn.state_dict())
    theirs.roi_heads.load_state_dict(ours.roi_heads.state_dict())
    theirs.transform = ours.transform
    return theirs


def test_a_pyramid_and_the_detector_on_it_are_torchvisions():
    encoder = resnet18()
    ours = faster_rcnn(encoder, 2, frozen=False, size=128, neck="fpn").eval()
    theirs = torchvisions_detector(encoder, ours).eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 3, 96, 128, generator=generator)
    with torch.no_grad():
        for a, b in zip(ours.backbone(x).values(), theirs.backbone(x).values(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        images = [torch.rand(3, 90, 128, generator=generator), torch.rand(3, 64, 100, generator=generator)]
        for a, b in zip(ours(images), theirs(images), strict=True):
            assert len(a["boxes"]) > 5
            assert a.keys() == b.keys()
            assert all(torch.allclose(a[k], b[k], atol=1e-4) for k in a)


def test_the_losses_of_a_pyramid_are_torchvisions_in_training():
    encoder = resnet18()
    ours = faster_rcnn(encoder, 2, frozen=False, size=128, neck="fpn").train()
    theirs = torchvisions_detector(encoder, ours).train()
    images = [torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(1))]
    targets = [{"boxes": torch.tensor([[10.0, 12.0, 60.0, 70.0]]), "labels": torch.tensor([2])}]
    found = []
    for net in (ours, theirs):
        with torch.random.fork_rng():
            torch.manual_seed(3)  # of the proposals that are drawn
            found.append(net(images, targets))
    assert found[0].keys() == found[1].keys()
    for name, loss in found[0].items():
        torch.testing.assert_close(loss, found[1][name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "strides", "sources"),
    [
        ("resnet18-stem7", (4, 8, 16, 32, 64), 4),
        ("resnet18-stem3", (4, 8, 16, 32, 64), 2),  # the stages of strides 1 and 2 take no part
        ("small-w8", (4, 8, 16, 32, 64), 2),
        ("small-w8-s4-n3", (4, 8, 16, 32, 64), 3),
        ("timm:test_resnet", (4, 8, 16, 32, 64), 4),
    ],
)
def test_the_levels_of_a_pyramid_have_the_strides_that_it_names(name, strides, sources):
    pyramid = Pyramid(encoders.load(name, input=RGB), frozen=True).eval()
    with torch.no_grad():
        levels = pyramid(torch.zeros(1, 3, 128, 192))
    assert pyramid.strides == strides
    assert pyramid.pooled == [str(i) for i in range(sources)]
    assert [tuple(v.shape) for v in levels.values()] == [(1, 256, 128 // s, 192 // s) for s in strides]


def test_each_level_of_a_pyramid_has_anchors_of_one_size():
    net = faster_rcnn(resnet18(), 2, frozen=True, size=64, neck="fpn")
    assert net.rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,), (512,))
    assert net.rpn.anchor_generator.num_anchors_per_location() == [3] * 5


def test_the_stages_of_a_timm_net_end_in_its_own_map():
    encoder = encoders.load("timm:test_resnet", input=RGB)
    net = Pyramid(encoder, frozen=True)
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(net.eval().body.part(x)[-1], encoder.net.eval().forward_features(x))


def test_a_frozen_pyramid_learns_but_its_stages_do_not():
    net = faster_rcnn(resnet18(), 2, frozen=True, size=64, neck="fpn").train()
    learnt = {".".join(name.split(".")[:2]) for name, p in net.named_parameters() if p.requires_grad}
    assert learnt == {"backbone.fpn", "rpn.head", "roi_heads.box_head", "roi_heads.box_predictor"}
    before = {k: v.clone() for k, v in net.backbone.body.state_dict().items()}
    target = {"boxes": torch.tensor([[5.0, 5.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
    loss = torch.stack(list(net([torch.rand(3, 64, 64)], [target]).values())).sum()
    loss.backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    after = net.backbone.body.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())  # weights, and the statistics of batch norm
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.backbone.fpn.inner_blocks.parameters())


def test_a_finetuned_pyramid_leaves_the_encoder_that_was_given_as_it_is():
    encoder = resnet18()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    net = faster_rcnn(encoder, 2, frozen=False, size=64, neck="fpn").train()
    target = {"boxes": torch.tensor([[5.0, 5.0, 40.0, 50.0]]), "labels": torch.tensor([1])}
    torch.stack(list(net([torch.rand(3, 64, 64)], [target]).values())).sum().backward()
    assert all(p.grad is not None for p in net.backbone.body.parameters())
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("name", "neck", "sentence"),
    [
        ("timm:test_vit", "fpn", "has no stages layer1"),
        ("timm:test_efficientnet", "fpn", "has no stages layer1"),
        ("small-w8-n3", "fpn", "stages of the strides 1, 2, 4, and a feature pyramid takes two or more"),
        ("small-w8-s3", "fpn", "stages of the strides 3, 6, 12, 24"),
        ("small-w8-s3", "c4", "is 1/12 of the image, and boxes are cut out of 1/2, 1/4"),
    ],
)
def test_an_encoder_that_a_detector_cannot_be_put_on_is_refused_in_one_sentence(name, neck, sentence):
    with pytest.raises(ValueError, match=sentence):
        faster_rcnn(encoders.load(name, input=RGB), 2, frozen=True, size=64, neck=neck)


def test_the_command_detects_with_a_pyramid(tmp_path):
    words = "detection:iterations=1,batch_size=1,edge_min=64,edge_max=64,mode=frozen,neck=fpn"
    call = command("evaluate", "random:small-w8-s4", voc(tmp_path), "--protocol", words, "--no-baselines", "--json")
    assert call.code == 0, call.err
    (result,) = json.loads(call.out)["evaluations"]
    assert result["settings"]["neck"] == "fpn"
    assert result["description"].startswith("detection (Faster R-CNN with FPN, 1 updates")
    assert list(result["scores"][0]["metrics"]) == ["AP50", "AP75", "AP", "AP50 (VOC07)"]
    assert max(len(line.replace(str(tmp_path), "")) for line in call.err.splitlines()) <= 80
    call = command("evaluate", "random:small-w8-s4", tmp_path, "--protocol", f"{TINY},neck=giraffe")
    assert (call.code, "neck=giraffe is not known; give one of c4, fpn" in " ".join(call.err.split())) == (2, True)


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
