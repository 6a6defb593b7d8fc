"""Pairs of RGB-D frames: which frames they are, that memory and files give the same, and runs on them."""

import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from rgbd_files import plain, seven_scenes
from test_dist import free_port
from together import start

import byol
from byol import modalities, rng, run, views
from byol.config import Request
from byol.data import HostBatches, PairPlan, load_memory, open_source
from byol.encoders import Input
from byol.feeds import HostFeed
from byol.run import deciding
from byol.views.rgbd import Pipeline, load

SMALL = {"encoder": "small-w16", "image_size": 16, "batch_size": 4, "device": "cpu", "precision": "fp32"}
SETS = ("apart=2,3", "hidden=16", "dim=8", "log_steps=1", "channels_last=false", "checkpoint_minutes=0")


@pytest.fixture
def rooms(tmp_path):
    """Two sequences of 7 frames, of which one has a gap."""
    root = seven_scenes(tmp_path / "rooms", frames=7)
    (root / "seq-02" / "frame-000003.color.png").unlink()
    return root


def made(source, size=16, **changes):
    modality = modalities.of("rgbd")
    plan = modality.plan("frames", source, size, takes=None, compiled=None, changes=changes)
    return plan, modality.input_of(plan, source, size, modality.measured(source))


def test_the_second_view_is_each_frame_of_the_sequence_at_that_distance(rooms):
    s = open_source(rooms)
    plan, _ = made(s, apart=(2, 3))
    assert isinstance(plan, views.MemoryPlan)
    assert isinstance(plan, views.HostPlan)
    assert isinstance(plan, PairPlan)
    seen = [set() for _ in s.names]
    for epoch in range(60):
        first, second = plan.partners(torch.arange(len(s)), 0, epoch)
        assert first.tolist() == list(range(len(s)))
        for i, j in enumerate(second.tolist()):
            seen[i].add(j)
    for i, found in enumerate(seen):
        near = {j for j in range(len(s)) if s.groups[i] == s.groups[j] and 2 <= abs(s.times[i] - s.times[j]) <= 3}
        assert found == (near or {i})
    assert torch.equal(plan.partners(torch.tensor([5]), 0, 3), plan.partners(torch.arange(len(s)), 0, 3)[:, 5:6])


def test_views_say_what_they_are_and_refuse_what_cannot_be(rooms):
    s = open_source(rooms)
    load_frames = partial(load, "frames", s.groups, s.times, size=8)
    plan = load_frames(apart=(2, 2))
    assert plan.pipelines == (Pipeline(apart=(0, 0)), Pipeline(apart=(2, 2)))
    assert plan.describe()[1:] == ["view 1: the frame itself", "view 2: the frame 2 before or after it in its sequence"]
    assert load_frames(takes=[(0, False), (1, True)]).describe()[-1] == "both views: the frame itself"
    for changes, sentence in (
        ({}, "no two frames of a sequence are 20 apart; give --set apart="),
        ({"apart": (3, 2)}, "apart 3, 2 is no distance in frames"),
        ({"apart": (0, 2)}, "apart 0, 2 is no distance in frames"),
        ({"view1.apart": (2, 2)}, "the first view is the frame itself"),
        ({"crop": 1.0}, "views have no setting 'crop'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            load_frames(**changes)
    with pytest.raises(ValueError, match="image_size=256 is more than the 128 px that frames are read at"):
        made(s, 256)


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_that_are_read_as_they_are_needed_give_the_same_views_as_memory(rooms, workers):
    s = open_source(rooms)
    plan, seen = made(s, apart=(2, 3))
    memory, _ = load_memory(s)
    feed = HostFeed(s, plan, seen, batch=4, seed=3, device="cpu", workers=workers, rows={"groups": s.groups})
    for step, (found, rows) in enumerate(feed(0, 6)):
        ids = HostBatches(s, plan, n=len(s), batch=4, seed=3)[step].ids
        expected = plan.from_memory(torch.from_numpy(memory), ids, 3, step // 3, seen)
        assert all(map(torch.equal, found, expected))
        assert rows["groups"].tolist() == s.groups[ids].tolist()
    other = plan.partners(ids, 3, 1)[1]
    np.testing.assert_allclose(expected[1][:, 5], memory[other][:, 5, 4::8, 4::8], atol=2e-6)


def test_a_damaged_partner_gives_its_place_to_the_next_frame(rooms):
    s = open_source(rooms)
    plan, _ = made(s, apart=(2, 2))
    steps = rooms / "seq-01" / "frame-000002.depth.png"
    data = bytearray(steps.read_bytes())
    data[len(data) // 2] ^= 255
    steps.write_bytes(bytes(data))
    batches = HostBatches(s, plan, n=len(s), batch=len(s), seed=0)
    batch = batches[0]
    assert [(b.name, b.reason[:11]) for b in batch.bad] == [("seq-01/000002", "its depth: ")]
    wanted = rng.permuted(0, 0, len(s), torch.arange(len(s)))
    assert batch.ids.tolist() == [3 if i == 2 else i for i in wanted.tolist()]
    for crop, j in zip(batch.crops[1], plan.partners(wanted, 0, 0)[1].tolist(), strict=True):
        x = s.read(3 if j == 2 else j)
        np.testing.assert_array_equal(crop[5], x[4::8, 4::8, 5])


def test_any_plan_for_the_host_may_say_which_samples_its_views_are_of(tmp_path):
    noise = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(noise.integers(0, 256, (20 + i, 30 - i, 3), np.uint8)).save(tmp_path / f"{i}.png")
    s = open_source(tmp_path)
    plain_plan = views.load("crop", size=8)

    class Next:
        """The second view is of the next image."""

        boxes, shrinks = plain_plan.boxes, plain_plan.shrinks
        cut = views.load("crop", size=8, takes=[(0, False)]).cut  # one view at a time, each of its own image

        def partners(self, ids, seed, epoch):
            return torch.stack([ids, (ids + 1) % 8])

    batch = HostBatches(s, Next(), n=8, batch=4, seed=1)[1]
    for view in (0, 1):
        images = [s.read((i + view) % 8) for i in batch.ids.tolist()]
        assert torch.equal(batch.crops[view], plain_plan.host(images, batch.ids, 1, 0)[view])


def test_pictures_of_views_show_the_partners(rooms):
    s = open_source(rooms)
    plan, seen = made(s, apart=(2, 3))
    ids = torch.tensor([0, 9])
    pictures = modalities.of("rgbd").seen(plan, s, [s.read(i) for i in ids.tolist()], ids, 0, 0, seen)
    assert pictures.shape == (2, 2, 3, 32, 32)
    memory, _ = load_memory(s)
    expected = plan.from_memory(torch.from_numpy(memory), ids, 0, 0, seen)[1]
    black = pictures[1][:, :, 8:24, 16:].sum(1) == 0
    assert torch.equal(black, expected[:, 5] == 0)


class Stop:
    def step(self, done):
        if done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    def log(self, record): ...
    def note(self, text): ...


def weights(path):
    return byol.load(path).state_dict()


def test_a_run_on_frames_resumes_bit_for_bit_and_is_the_same_from_files(rooms, tmp_path, monkeypatch):
    asked = SMALL | {"set": SETS, "epochs": 3}
    byol.train(rooms, tmp_path / "whole", **asked)
    monkeypatch.setattr(deciding, "load_memory", partial(load_memory, max_bytes=1))
    assert byol.train(rooms, tmp_path / "cut", watcher=Stop(), **asked).outcome.step == 4
    assert byol.resume(tmp_path / "cut").outcome.ended == "finished"
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    assert byol.load(tmp_path / "cut").input.points == 3
    with Image.open(tmp_path / "cut" / "views.png") as image:
        assert image.width > 700


def test_two_processes_end_where_one_does(rooms, tmp_path):
    words = [w for s in SETS for w in ("--set", s)]
    words += [w for key, value in SMALL.items() for w in (f"--{key.replace('_', '-')}", value)]
    words = ["-m", "byol", "train", rooms, "--out", tmp_path / "two", "--epochs", "2", *words]
    assert [p.wait(240) for p in start(2, words, port=free_port())] == [0, 0]
    byol.train(rooms, tmp_path / "one", set=SETS, epochs=2, **SMALL)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one.items():  # sums in another order, in float32
        torch.testing.assert_close(two[key].double(), value.double(), rtol=1e-3, atol=1e-3)


def test_features_of_frames_are_those_of_the_views_that_are_the_frames_themselves(rooms, tmp_path):
    byol.train(rooms, tmp_path / "run", set=SETS, epochs=1, **SMALL)
    encoder = byol.load(tmp_path / "run")
    s = open_source(rooms)
    plan, _ = made(s, apart=(2, 3))
    memory, _ = load_memory(s)
    assert isinstance(encoder.input, Input)
    view, _ = plan.from_memory(torch.from_numpy(memory), torch.arange(len(s)), 0, 0, encoder.input)
    byol.embed(tmp_path / "run", rooms, tmp_path / "f.npy", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / "f.npy")), encoder(view), atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(encoder(encoder.preprocess(s.read(2))), encoder(view)[2:3], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"recipe": "imagenet-r50-100"}, "recipe imagenet-r50-100 is for images, and these data are RGB-D frames"),
        ({"set": ("views=small",)}, "no view plan 'small'; there are: frames"),
        ({"set": ("mean=1,2,3,4", SETS[0])}, "mean and std are of red, green and blue; give three numbers, not 4 and 3"),
        ({}, "no two frames of a sequence are 20 apart"),
        ({"image_size": 200, "set": SETS[:1]}, "image_size=200 is more than the 128 px"),
    ],
)
def test_what_frames_cannot_be_asked_is_one_sentence(tmp_path, asked, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        run.prepare(Request(data=str(plain(tmp_path, 8)), **asked))
    assert "\n" not in str(error.value)


def test_an_encoder_of_images_is_not_taken_for_one_of_frames(rooms, tmp_path):
    noise = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / f"{i}.png")
    encoder = byol.encoders.load("small-w16", input=Input(channels=3, size=16, mean=(0.5,) * 3, std=(0.2,) * 3))
    with pytest.raises(ValueError, match=r"is no encoder of RGB-D frames, which .* has"):
        byol.embed(encoder, rooms, tmp_path / "f.npy")
