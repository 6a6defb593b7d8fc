import json

import numpy as np
import pytest
import torch
from cli_calls import TINY as TINY_RUN
from cli_calls import TINY_SET
from cli_calls import byol as command
from dense_files import masked, save, scene
from sklearn.metrics import confusion_matrix, jaccard_score

import byol
from byol import dense, encoders
from byol.cli.screen import Screen
from byol.cli.usage import parse
from byol.cli.use import evaluate
from byol.dense import crops
from byol.dense.network import Dense
from byol.dense.pictures import read_mask
from byol.dense.segmentation import confusion, fcn_head, pixel_loss, scores
from byol.encoders import FeatureMap, Input

RGB = Input(channels=3, size=24, mean=(0.2,) * 3, std=(0.3,) * 3)
TINY = "segmentation:iterations=3,batch_size=4,void=11"


def test_miou_is_the_macro_jaccard_score_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 6, (5, 30, 40)), rng.integers(0, 5, (5, 30, 40))
    truth[truth == 5] = 255
    kept = truth != 255
    counts = confusion(truth, said, 5, 255)
    np.testing.assert_array_equal(counts, confusion_matrix(truth[kept], said[kept], labels=range(5)))
    found = scores(counts)
    assert found["mIoU"] == pytest.approx(jaccard_score(truth[kept], said[kept], average="macro"))
    assert found["pixel accuracy"] == pytest.approx((truth == said)[kept].mean())


def test_a_class_that_is_neither_there_nor_said_does_not_count():
    assert scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))["mIoU"] == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_the_loss_leaves_void_pixels_out_and_is_0_without_any_others():
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    y = torch.randint(0, 3, (2, 4, 5))
    y[0, :2] = 11
    by_hand = -logits.log_softmax(1).gather(1, y.clamp(max=2)[:, None])[:, 0][y != 11].mean()
    torch.testing.assert_close(pixel_loss(logits, y, 11), by_hand)
    assert pixel_loss(logits, torch.full_like(y, 11), 11) == 0


def test_crops_move_image_and_mask_together():
    u = torch.rand(200, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(40, 60, dtype=torch.int32)
    mask[10:30, 20:50] = 1
    for row in u:
        x, y = crops.random(mask[None].float(), mask, row, (50, 50), (0.5, 2.0), (0.0,), 255)
        assert x.shape == (1, 50, 50)
        assert set(y.unique().tolist()) <= {0, 1, 255}
        # The edge of the image is between pixels, the mask's is not.
        assert ((x[0] > 0.5) != (y == 1)).float().mean() < 0.05
        assert (x[0][y == 255] == 0).all()


def test_crops_are_mirrored_half_of_the_time():
    ramp = torch.arange(8.0).expand(8, 8)
    u = torch.rand(400, 4, generator=torch.Generator().manual_seed(1))
    turned = sum(bool(y[0, 0] > y[0, -1]) for y in (crops.random(ramp[None], ramp, row, (8, 8), (1, 1), (0.0,), -1)[1] for row in u))
    assert 160 < turned < 240


def test_the_head_sees_as_far_as_two_convolutions_of_dilation_6():
    head = fcn_head(2, 3, width=4).eval()
    x = torch.zeros(1, 2, 61, 61, requires_grad=True)
    head(x)[0, :, 30, 30].sum().backward()
    reach = x.grad.abs().sum((0, 1)).nonzero()
    assert set((reach - 30).unique().tolist()) <= {-12, -6, 0, 6, 12}


def test_a_frozen_encoder_keeps_weights_and_statistics_and_a_finetuned_one_does_not():
    for frozen in (True, False):
        net = Dense(FeatureMap(encoders.load("small-w8", input=RGB), size=(24, 24)), torch.nn.Conv2d(64, 2, 1), frozen=frozen).train()
        before = {k: v.clone() for k, v in net.trunk.state_dict().items()}
        optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
        net(torch.rand(4, 3, 24, 24)).square().mean().backward()
        optimizer.step()
        same = [torch.equal(v, before[k]) for k, v in net.trunk.state_dict().items()]
        assert all(same) if frozen else not any(v for k, v in zip(before, same, strict=True) if k.endswith(("weight", "running_mean")))


def test_a_head_on_a_frozen_encoder_learns_to_find_squares(tmp_path):
    masked(tmp_path)
    result = byol.evaluate_task(
        "random:small-w16", tmp_path, protocol="segmentation:iterations=60,batch_size=8,void=11,mode=frozen,lr=0.05,scale_min=1,scale_max=1"
    )
    (score,) = result.scores
    assert (result.train, result.test, result.facts) == (10, 2, {"classes": 2, "crop": 32})
    # The square covers a seventh of the image: saying "ground" everywhere is an mIoU of 0.43.
    assert score.metrics["mIoU"][0] > 0.6


def test_the_command_compares_with_the_random_network_frozen_and_finetuned(tmp_path):
    masked(tmp_path / "train", 8)
    masked(tmp_path / "test", 4, seed=1)
    run = ["--out", tmp_path / "run", "--epochs", 1, *TINY_RUN, "--batch-size", 4]
    call = command("train", tmp_path / "train" / "images", *run, *TINY_SET)
    assert call.code == 0, call.err
    call = command("evaluate", tmp_path / "run", tmp_path, "--protocol", TINY, "--json")
    assert call.code == 0, call.err
    (found,) = json.loads(call.out)["evaluations"]
    assert [(s["name"].split("/")[-1], s["mode"]) for s in found["scores"]] == [
        (name, mode) for mode in ("frozen", "finetuned") for name in ("random small-w16", "run")
    ]
    assert found["train"] == 8
    assert found["split"] == "the folder test"
    stored = json.loads((tmp_path / "run" / "evaluations" / "segmentation.json").read_text())
    assert stored["scores"] == found["scores"]
    assert command("report", tmp_path / "run").code == 0
    assert max(len(line.replace(str(tmp_path), "")) for line in call.err.splitlines()) <= 80


def test_the_same_seed_gives_the_same_scores(tmp_path):
    masked(tmp_path)
    one, two = (byol.evaluate_task("random:small-w8", tmp_path, protocol=TINY, device="cpu").scores for _ in range(2))
    assert one == two


def test_voc_masks_are_palette_numbers_and_its_lists_say_which_is_which(tmp_path):
    rng = np.random.default_rng(0)
    for i, part in enumerate(("train", "train", "val")):
        image, mask = scene(rng)
        mask[mask == 1] = 20
        mask[:, 0] = 255
        (tmp_path / "JPEGImages").mkdir(exist_ok=True)
        save(tmp_path / "JPEGImages" / f"{i}.jpg", image)
        save(tmp_path / "SegmentationClass" / f"{i}.png", mask, "P")
        lists = tmp_path / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        with (lists / f"{part}.txt").open("a") as file:
            file.write(f"{i}\n")
    assert set(np.unique(read_mask(tmp_path / "SegmentationClass" / "0.png"))) == {0, 20, 255}
    task = dense.load("segmentation").open(str(tmp_path), None, None)
    assert (task.train, task.test, task.classes) == (2, 1, 21)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda r: (r / "masks" / "03.png").unlink(), "03.png has no mask 03.png"),
        (lambda r: save(r / "masks" / "03.png", np.zeros((24, 32, 3), np.uint8)), "is a picture of mode RGB; give class numbers"),
        (lambda r: (r / "masks" / "03.png").write_bytes(b"no image"), "03.png cannot be read"),
        (lambda r: save(r / "masks" / "03.png", np.zeros((9, 9), np.uint8)), "differ in size"),
        (lambda r: (r / "images" / "03.png").write_bytes(b"\x89PNG\r\n\x1a\n torn"), "03.png cannot be read as an image"),
        (lambda r: [save(p, np.zeros((24, 32), np.uint8)) for p in (r / "masks").iterdir()], "one class beside void=11"),
        (lambda r: (r / "masks").rename(r / "mask"), "has no masks to learn from"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(tmp_path, spoil, sentence):
    spoil(masked(tmp_path))
    call = command("evaluate", "random:small-w8", tmp_path, "--protocol", TINY)
    assert call.code == 2
    assert sentence in " ".join(call.err.split())
    assert "Traceback" not in call.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["random:small-w8", "DATA", "--protocol", "segmentation:void=11,crops=3"], "has no setting 'crops=3' (did you mean crop?)"),
        (["random:small-w8", "DATA", "--protocol", "segmentation:lr=0"], "lr=0.0 is not possible"),
        (["random:small-w8", "DATA", "--protocol", "segmentation:mode=thawed"], "mode=thawed is not known"),
        (["random:small-w8", "DATA", "--protocol", "segmentation", "knn"], "needs class labels and segmentation something else"),
        (["random:small-w8", "DATA", "--protocol", "segmentation", "--batch-size", "4"], "segmentation:batch_size=N"),
        (["random:small-w8", "DATA", "--protocol", "segmentation", "--labels", "0.5"], "--labels is for class labels"),
        (["pixels", "DATA", "--protocol", "segmentation"], "pixels has no feature map"),
        (["random:small-w8", "nowhere", "--protocol", "segmentation"], "nowhere is no folder"),
    ],
)
def test_a_wrong_command_is_said_in_one_sentence(tmp_path, words, sentence):
    masked(tmp_path)
    call = command("evaluate", *(tmp_path if w == "DATA" else w for w in words))
    assert call.code == 2
    assert sentence in " ".join(call.err.split())


def test_several_processes_are_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as a launcher leaves it, ours or torch's
    call = command("evaluate", "random:small-w8", masked(tmp_path), "--protocol", TINY)
    assert call.code == 2
    assert "segmentation runs in one process and there are 2; start it without --devices or torchrun" in " ".join(call.err.split())
    with pytest.raises(ValueError, match=r"--devices is for class labels, not for segmentation.*leave it out"):
        evaluate(parse(["evaluate", "random:small-w8", str(tmp_path), "--protocol", "segmentation", "--devices", "2"]), Screen(json=False))


def test_the_defaults_are_the_papers():
    s = dense.load("segmentation")
    assert (s.iterations, s.batch_size, s.crop, s.scale_min, s.scale_max, s.weight_decay) == (30_000, 16, 513, 0.5, 2.0, 1e-4)
    assert s.lr == pytest.approx(np.logspace(-3, -1, 5)[2])


@pytest.mark.parametrize(("crop", "side"), [(64, 64), (65, 32), (20, 20)])
def test_crops_are_smaller_only_where_images_at_twice_their_size_are(tmp_path, crop, side):
    task = dense.load(f"segmentation:void=11,crop={crop}").open(str(masked(tmp_path, 3)), None, None)
    assert task.facts["crop"] == side


def test_the_command_shows_published_numbers_apart_on_data_of_a_known_name(tmp_path):
    root = masked(tmp_path / "VOC2012", 5)
    for i, path in enumerate(sorted((root / "masks").iterdir())):
        mask = read_mask(path)
        mask[1] = i % 2 * 20  # the class 20, so that there are 21
        save(path, mask)
    words = "segmentation:iterations=1,batch_size=2,void=11,mode=frozen"
    call = command("evaluate", "random:small-w8", root, "--protocol", words, "--no-baselines", "--json")
    assert call.code == 0, call.err
    lines = call.err.splitlines()
    (at,) = [i for i, line in enumerate(lines) if "Published, for scale, not measured here" in line]
    assert "    BYOL resnet50: mIoU 76.3" in lines[at:]
    assert "10,582 train / 1,449 test" in " ".join(" ".join(lines[at:]).split())
    assert [r["value"] for r in json.loads(call.out)["published"]] == [76.3, 75.2, 74.4, 72.5]
    assert all(len(line) <= 80 for line in lines[at:] if str(root) not in line)


def test_the_table_gives_mean_and_deviation_of_the_seeds():
    scores = [dense.DenseScore(name="random x", mode="frozen", metrics={"mIoU": [0.2, 0.3], "pixel accuracy": [0.5, 0.7]})]
    facts = {"protocol": "segmentation", "description": "d", "settings": {}, "facts": {}, "train": 1, "test": 1, "split": "s"}
    lines = dense.DenseResult(**facts, scores=scores).lines()
    deviation = np.std([20, 30], ddof=1), np.std([50, 70], ddof=1)
    assert lines[2].split() == ["random", "x", "frozen", "25.0", "+-", f"{deviation[0]:.1f}", "60.0", "+-", f"{deviation[1]:.1f}"]
