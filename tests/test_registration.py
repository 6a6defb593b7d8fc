"""Registration in closed cases: known motions of a room, features that are exact, files that are read back."""

import dataclasses
import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from test_reporting import Page
from test_reporting_verdict import run as logged
from torch import nn

from byol import registration, rng
from byol.api import evaluating
from byol.data import Names, Source, Unreadable, open_source
from byol.encoders import Input, wrap
from byol.registration import classical, metrics, subjects, task
from byol.reporting import clouds
from byol.reporting.html import tag
from byol.reporting.verdict import headline
from byol.reporting.worth import side_by_side, worth

SIZE = 24
FOCAL = 20.0
INPUT = Input(channels=6, size=SIZE, low=-16, high=16, mean=(0.5,) * 6, std=(1 / 32,) * 6, points=3)
OPEN3D = pytest.mark.skipif(find_spec("open3d") is None, reason="open3d is not installed")


def poses(n, degrees=3.0, metres=0.05):
    """Camera to world: every frame so many degrees about the vertical and so many metres to the right of the last."""
    out = np.tile(np.eye(4), (n, 1, 1))
    for i in range(n):
        out[i, :3, :3] = Rotation.from_rotvec([0, np.radians(degrees * i), 0]).as_matrix()
        out[i, :3, 3] = [metres * i, 0.01 * i, 0]
    return out


def seen(pose, size=SIZE):
    """What the camera sees of a room with a wavy wall and a floor: (S, S, 6), each pixel exact, its colour by its place in the world."""
    rows, columns = np.mgrid[:size, :size]
    focal = FOCAL * size / SIZE
    rays = np.stack([(columns - (size - 1) / 2) / focal, (rows - (size - 1) / 2) / focal, np.ones((size, size))], -1)
    world = rays @ pose[:3, :3].T
    depth = np.full((size, size), 2.0)
    for _ in range(60):  # the distance to the wall z = 3 + 0.2 sin 2x + 0.2 cos 3y
        p = pose[:3, 3] + depth[..., None] * world
        depth += 0.7 * (3 + 0.2 * np.sin(2 * p[..., 0]) + 0.2 * np.cos(3 * p[..., 1]) - p[..., 2]) / world[..., 2]
    points = rays * depth[..., None]
    p = points @ pose[:3, :3].T + pose[:3, 3]
    colours = 0.5 + p * [0.2, 0.2, 0.1]
    frame = np.concatenate([colours, points], -1).astype(np.float32)
    frame[:2, :3, 3:] = 0  # no depth in a corner
    return frame


@dataclasses.dataclass(frozen=True)
class Room:
    poses: np.ndarray
    bad: tuple[int, ...] = ()
    size: int = SIZE

    def read(self, index, shrink=1):
        if index in self.bad:
            raise Unreadable("cut short")
        return seen(self.poses[index], self.size)


def room(n=9, known=None, groups=None, times=None, bad=(), size=SIZE, **motion):
    where = poses(n, **motion)
    return Source(
        spec="room/", names=Names.of(f"{i:04d}" for i in range(n)), reader=Room(where, bad, size), channels=6, dtype="float32", labels=None,
        classes=[], skipped=[], kind="folder", groups=np.zeros(n, np.int64) if groups is None else np.array(groups),
        times=np.arange(n) if times is None else np.array(times), poses=where if known is None else known, modality="rgbd",
    )  # fmt: skip


class World(nn.Module):
    """Features that are the place in the world: exact wherever both frames see the same, whatever camera sees it."""

    def __init__(self, noise=0.0):
        super().__init__()
        self.noise = noise

    def forward(self, x):
        return x.mean((2, 3))

    def visual(self, x):
        """By the colour, which in this room says the place."""
        return nn.functional.normalize(torch.cat([x[:, :3], torch.ones_like(x[:, :1])], 1), dim=1)

    def geometric(self, points):
        """Nothing that a motion keeps: the place before the camera."""
        return [nn.functional.normalize(torch.cat([p, torch.ones(len(p), 1)], 1), dim=1) for p in points]


def opened(source, apart=2, stride=1):
    return task.task_of(source, source, apart=apart, stride=stride)


def scored(source=None, text="registration:apart=2,stride=1", **more):
    encoder = wrap(World(), input=INPUT, name="world")
    protocol = registration.load(text)
    return registration.evaluate("world", encoder, protocol, opened(source or room(), protocol.apart, protocol.stride), **more)


def test_standing_still_is_off_by_the_motion_of_the_camera():
    pairs = opened(room()).pairs
    frame = task.frame_of(seen(np.eye(4)), INPUT, SIZE)
    measured = [metrics.measure(subjects.still(frame, frame, 0)["none"], p, frame, frame, torch.arange(9)) for p in pairs]
    found = {name: [m[name] for m in measured] for name in measured[0]}
    true = poses(3)
    turn = np.degrees(np.linalg.norm(Rotation.from_matrix(true[2, :3, :3].T @ true[0, :3, :3]).as_rotvec()))
    np.testing.assert_allclose(found["rotation"], turn, rtol=1e-9)
    expected = [100 * np.linalg.norm((np.linalg.inv(poses(9)[i + 2]) @ poses(9)[i])[:3, 3]) for i in range(7)]
    np.testing.assert_allclose(found["translation"], expected, rtol=1e-9)
    assert "inliers" not in found


def test_matches_of_the_same_points_register_exactly():
    """Points of the world as both cameras have them, matched by what they are: the fit is the motion."""
    where = poses(3)
    world = torch.rand(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 + torch.tensor([0, 0, 3])
    frames = []
    for pose in where[[0, 2]]:
        R, t = torch.from_numpy(pose[:3, :3]), torch.from_numpy(pose[:3, 3])
        frames.append(task.Frame(torch.zeros(6, 8, 8), (world - t) @ R, torch.zeros(500, 3), torch.arange(500), (20.0, 20.0, 4.0, 4.0)))
    features = nn.functional.normalize(torch.cat([world, world.square()], 1), dim=1)
    subject = subjects.ByFeatures(lambda frame: {"visual": features}, registration.Registration(subsets=20), 0)
    (pair,) = opened(dataclasses.replace(room(3), poses=where)).pairs
    found = subject(*frames, 0)["visual"]
    measured = metrics.measure(found, pair, *frames, torch.arange(100))
    assert measured["rotation"] < 1e-5
    assert measured["translation"] < 1e-5
    assert measured["chamfer"] < 1e-5
    assert measured["inliers"] == measured["kept inliers"] == measured["within 1 px"] == measured["recalled"] == 1


def test_features_that_know_the_place_beat_standing_still_and_those_of_the_camera_do_not(monkeypatch):
    monkeypatch.setattr("byol.registration.subjects.find_spec", lambda name: None)
    result = scored(text="registration:apart=2,stride=1,keep=50")
    found = {(s.name, s.features): s.metrics for s in result.scores}
    still, visual, geometric = (found[k] for k in (("identity", "none"), ("world", "visual"), ("world", "geometric")))
    assert visual["rotation mean"] < 1.5 < still["rotation mean"]
    assert visual["translation mean"] < 0.5 * still["translation mean"]
    assert visual["inliers"] > 0.7
    assert visual["feature-match recall"] == 1
    assert geometric["rotation mean"] > 3 * visual["rotation mean"]  # the place before the camera says that nothing moved
    assert visual["within 1 px"] <= visual["within 2 px"] <= visual["within 5 px"]
    assert visual["within 5 px"] > 0.9


def test_a_result_is_the_same_again_and_other_with_another_seed():
    first, again, other = (scored(seed=s, baselines=False).to_json() | {"seconds": 0} for s in (0, 0, 1))
    assert first == again
    assert first["scores"] != other["scores"]
    json.dumps(first, allow_nan=False)


def test_only_matches_that_both_pictures_show_are_measured_in_pixels():
    where = np.stack([np.eye(4), np.eye(4)])
    where[1, 0, 3] = 0.1  # the second camera stands 0.1 m to the right
    (pair,) = opened(dataclasses.replace(room(2), poses=where), apart=1).pairs
    frame = task.Frame(torch.zeros(6, 20, 20), torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), (10.0, 10.0, 9.5, 9.5))
    p = torch.tensor([[0.0, 0, 1], [0.0, 0, 1], [-0.95, 0, 1], [0.0, 0, 1]])
    q = torch.tensor([[-0.1, 0, 1], [0.05, 0, 1], [-1.05, 0, 1], [0.3, 0, 1]])  # right, 1.5 px off, right but outside the second, 4 px off
    found = metrics.within(metrics.Matches(p, q), pair, frame, frame)
    assert found == pytest.approx([3 / 7, 5 / 7, 1])  # the first picture has all four, the second three
    assert metrics.inliers(metrics.Matches(p, q), pair).tolist() == [True, False, True, False]
    assert metrics.within(metrics.Matches(p[:0], q[:0]), pair, frame, frame) == [0, 0, 0]


def test_chamfer_distance_is_that_of_a_tree():
    g = torch.Generator().manual_seed(0)
    p, q = (torch.rand(n, 3, dtype=torch.float64, generator=g) for n in (211, 97))
    there, back = cKDTree(q.numpy()).query(p.numpy())[0].mean(), cKDTree(p.numpy()).query(q.numpy())[0].mean()
    assert metrics.chamfer(p, q) == pytest.approx((there + back) / 2, rel=1e-12)
    assert metrics.chamfer(p, p) == 0


def test_the_camera_is_found_from_the_points():
    found = task.frame_of(seen(np.eye(4)), INPUT, SIZE)
    assert found.camera == pytest.approx((FOCAL, FOCAL, (SIZE - 1) / 2, (SIZE - 1) / 2), abs=1e-3)
    assert len(found.points) == SIZE * SIZE - 6
    smaller = task.frame_of(seen(np.eye(4)), INPUT, SIZE // 2)
    uv = metrics.project(smaller.points.double(), smaller)
    columns = torch.stack([smaller.pixels % smaller.size, smaller.pixels // smaller.size], 1)
    assert (uv - columns).abs().max() < 0.51


def test_pairs_are_strided_and_stay_within_a_sequence():
    source = room(12, groups=[0] * 6 + [1] * 6, times=[0, 1, 2, 3, 4, 5, 10, 11, 12, 14, 15, 16])
    assert [(p.first, p.second) for p in opened(source, apart=2, stride=2).pairs] == [(0, 2), (2, 4), (6, 8), (8, 9), (9, 11)]
    assert [(p.first, p.second) for p in opened(source, apart=2, stride=1).pairs][-3:] == [(6, 8), (8, 9), (9, 11)]


def test_what_cannot_be_scored_is_one_sentence():
    unknown = np.full((9, 4, 4), np.nan)
    with pytest.raises(ValueError, match=r"room/ has no poses of the camera.*add pose/NAME.txt"):
        opened(room(known=unknown))
    with pytest.raises(ValueError, match="no two frames 20 apart, its longest sequence is of 9; give apart=N"):
        opened(room(), apart=20)
    with pytest.raises(ValueError, match="sounds, and registration is of RGB-D frames"):
        opened(dataclasses.replace(room(), modality="sound"))
    with pytest.raises(ValueError, match="has no features of single points"):
        registration.evaluate("x", wrap(nn.AvgPool2d(SIZE), input=INPUT), registration.load("registration"), opened(room()))
    with pytest.raises(ValueError, match="features=depth is not known"):
        registration.load("registration:features=depth")
    with pytest.raises(ValueError, match="share=0 is not possible"):
        registration.load("registration:share=0")


def test_pairs_without_a_pose_or_a_picture_are_left_out_and_said():
    known = poses(9)
    known[3] = np.nan
    result = scored(room(known=known, bad=(8,)), baselines=False)
    assert len(result.pairs) == 7 - 2 - 1
    assert "2 of 7 pairs left out: a frame without a pose" in result.notes
    assert any("1 pairs left out: frames that cannot be read (first: 0008: cut short)" in n for n in result.notes)


def test_without_open3d_a_note_says_so(monkeypatch):
    monkeypatch.setattr("byol.registration.subjects.find_spec", lambda name: None)
    result = scored()
    assert not {"icp", "fpfh"} & {s.name for s in result.scores}
    assert any("pip install 'byol[open3d]'" in n for n in result.notes)
    assert max(map(len, result.lines())) <= 80


@OPEN3D
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_icp_finds_a_small_motion_and_fpfh_gives_the_same_matches_again():
    (pair,) = opened(room(2, size=64), apart=1).pairs
    a, b = (task.frame_of(seen(pose, 64), INPUT, 64) for pose in poses(2))
    rows = torch.arange(0, len(a.points), 50)
    still, icp = (metrics.measure(next(iter(s(a, b, 0).values())), pair, a, b, rows) for s in (subjects.still, classical.icp))
    assert icp["translation"] < 0.5 * still["translation"]
    assert icp["rotation"] < 0.5 * still["rotation"]
    first, again = (classical.fpfh(a, b, 0)["geometric"] for _ in range(2))
    assert torch.equal(first.R, again.R)
    assert 0 <= metrics.measure(first, pair, a, b, rows)["inliers"] <= 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_registered_clouds_are_read_back_from_their_files(tmp_path):
    result = scored(text=f"registration:apart=2,stride=7,ply={tmp_path / 'clouds'}", baselines=False)
    files = sorted((tmp_path / "clouds").iterdir())
    assert [f.name for f in files] == ["0000-0002.ply"]
    assert len(result.pairs) == 1
    content = files[0].read_bytes()
    head, body = content.split(b"end_header\n")
    assert b"format binary_little_endian 1.0" in head
    whole = 2 * (SIZE * SIZE - 6)
    assert f"element vertex {whole}".encode() in head
    rows = np.frombuffer(body, np.dtype([("p", "<f4", 3), ("c", "u1", 3)]))
    second = task.frame_of(seen(poses(9)[2]), INPUT, SIZE)
    np.testing.assert_array_equal(rows["p"][whole // 2 :], second.points.numpy())
    np.testing.assert_array_equal(rows["c"][whole // 2 :], np.rint(255 * second.colours.numpy()))
    if find_spec("open3d") is None:
        return
    import open3d

    cloud = open3d.io.read_point_cloud(str(files[0]))
    np.testing.assert_array_equal(np.asarray(cloud.points).astype(np.float32), rows["p"])
    np.testing.assert_allclose(np.asarray(cloud.colors), rows["c"] / 255, atol=1e-6)


def test_frames_that_a_run_was_trained_on_are_said(tmp_path):
    folder = tmp_path / "room"
    for part, kind in (("color", np.uint8), ("depth", np.uint16)):
        (folder / part).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(np.full((24, 24), 1000).astype(kind)).save(folder / part / f"{i:04d}.png")
    np.savetxt(folder / "intrinsics.txt", [[20, 0, 12], [0, 20, 12], [0, 0, 1]])
    run = tmp_path / "run"
    run.mkdir()
    (run / "data.json").write_text(json.dumps({"spec": f"{folder}#0:5"}))
    (note,) = evaluating._met(run, open_source(f"{folder}#3:8"))
    assert note == "the encoder was trained on 2 of the 5 frames that test it; --test takes others"
    assert evaluating._met(run, open_source(f"{folder}#5:8")) == []
    (run / "data.json").write_text(json.dumps({"spec": str(tmp_path / "gone")}))
    assert evaluating._met(run, open_source(str(folder))) == []


def test_a_page_shows_every_metric_beside_the_baselines_and_says_why_clouds_are_missing(monkeypatch):
    encoder = wrap(World(), input=INPUT, name="world")
    monkeypatch.setattr("byol.registration.subjects.find_spec", lambda name: None)
    result = registration.evaluate("runs/a", encoder, registration.load("registration:apart=2,stride=3"), opened(room(), 2, 3))
    result = dataclasses.replace(result, asked={"protocol": "registration:apart=2,stride=3", "data": "gone/", "test": None})
    run = dataclasses.replace(logged(["OK"], name="a"), evaluations=[json.loads(json.dumps(result.to_json()))])
    page = Page(tag("main", worth(run)))
    found = [float(v) for v in page.attributes("data-mean")]
    for score in result.scores:
        assert set(score.metrics.values()) <= set(found)
        assert score.name in page.said
    assert "The registered clouds cannot be drawn" in page.said
    own = next(s for s in result.scores if s.name == "runs/a").metrics["rotation <= 5"]
    assert f"Registration: {100 * own:.0f}\u00a0% of 3 pairs within 5 degrees (best baseline: " in headline(run)
    beside = Page(tag("main", side_by_side([run, dataclasses.replace(run, name="b", path=run.path / "b")]))).said
    assert "rotation ≤ 5°" in beside


def test_a_picture_has_the_nearest_point_in_front():
    cloud = clouds.Cloud(np.array([[0.0, 0, 3], [0, 0, 1], [0, 0, 2]]), np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]))
    picture = clouds.drawn(cloud, clouds.VIEWS[0], 32)
    assert picture[16, 16].tolist() == [0, 255, 0]
    assert picture[0, 0].tolist() == [245, 245, 245]
    empty = clouds.drawn(clouds.Cloud(np.zeros((0, 3)), np.zeros((0, 3))), clouds.VIEWS[1], 8)
    assert (empty == 245).all()


def test_draws_are_a_function_of_the_seed_and_the_pair():
    rows = subjects.drawn(0, 3, 1, 1000, 10)
    assert len(set(rows.tolist())) == 10
    assert rows.tolist() == subjects.drawn(0, 3, 1, 1000, 10).tolist()
    assert rows.tolist() != subjects.drawn(0, 4, 1, 1000, 10).tolist()
    assert subjects.drawn(0, 3, 1, 7, 10).tolist() == list(range(7))
    assert rng.uniforms(0, 1, rng.STREAM_SAMPLE, torch.arange(2) + (3 << 20), 1).shape == (2, 1)


def test_importing_registration_imports_no_open3d():
    assert "byol.registration" in sys.modules
    assert registration.RAW
