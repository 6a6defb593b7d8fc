import gc
import hashlib
import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from data_files import damaged, encoded, pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from shard_files import make_shards, make_tar, picture, served
from torch.utils.data import DataLoader

import byol
from byol import api, views
from byol.data import HostBatches, Unreadable, ids_at, open_source, present, remote, statistics, steps_per_epoch
from byol.data.shard_cache import Cache, open_cache
from byol.data.windows import Windows
from byol.run import notes

fsspec = pytest.importorskip("fsspec", reason="remote shards are read through fsspec, which is not installed")
pytest.importorskip("aiohttp", reason="fsspec reads http through aiohttp, which is not installed")

COUNTS = (6, 5, 7, 6)
ALL = "t-{000..003}.tar"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and no waiting between tries."""
    monkeypatch.setenv("BYOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAIT", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def shards(tmp_path):
    return make_shards(tmp_path / "shards", COUNTS)


@pytest.fixture
def web(shards):
    with served(shards) as (url, server):
        yield f"{url}/{ALL}", server


def order_of(source, epoch=0, *, batch=4, seed=1):
    steps = steps_per_epoch(len(source), batch)
    return [ids_at(epoch * steps + s, n=len(source), batch=batch, seed=seed, order=source.order).tolist() for s in range(steps)]


def chained(lists):
    return [i for part in lists for i in part]


def batches_of(source, steps, *, workers=0, batch=4):
    plan = views.load("crop", size=8)
    loader = DataLoader(HostBatches(source, plan, n=len(source), batch=batch, seed=3), batch_size=None, sampler=steps, num_workers=workers)
    return [(b.ids.tolist(), b.crops, b.bad) for b in loader]


def assert_same_batches(ours, theirs):
    for (ids, crops, bad), (other_ids, other_crops, other_bad) in zip(ours, theirs, strict=True):
        assert ids == other_ids
        assert torch.equal(crops, other_crops)
        assert bad == other_bad


# What a spec stands for


def test_braces_a_pattern_and_the_folder_are_the_same_data(shards):
    names = [f"t-{k:03d}.tar/{i:04d}.png" for k, n in enumerate(COUNTS) for i in range(n)]
    for spec in (shards, f"{shards}/", shards / ALL, shards / "t-*.tar", shards / "t-{000,001,002,003}.tar", shards / "t-00{0,1,2,3}.tar"):
        source = open_source(spec)
        assert source.names == names
        assert source.kind == "shards"
        assert source.order is None
        for seed in (0, 7, 23):
            np.testing.assert_array_equal(source.read(seed), picture(seed))


def test_a_range_in_braces_keeps_its_zeros_and_several_braces_are_taken_in_turn(tmp_path):
    for name in ("a-08", "a-09", "a-10", "b-08", "b-09", "b-10"):
        make_tar(tmp_path / f"{name}.tar", {"x.png": encoded(pixels(), "PNG")})
    source = open_source(tmp_path / "{a,b}-{08..10}.tar")
    assert source.names == [f"{n}.tar/x.png" for n in ("a-08", "a-09", "a-10", "b-08", "b-09", "b-10")]


def test_shards_of_one_name_in_several_folders_are_told_apart(tmp_path):
    for folder in "ab":
        make_tar(tmp_path / folder / "0.tar", {"x.png": encoded(pixels(), "PNG")})
    assert open_source(tmp_path / "{a,b}" / "0.tar").names == ["a/0.tar/x.png", "b/0.tar/x.png"]


def test_a_folder_with_anything_but_tars_is_a_folder_of_images(shards):
    (shards / "photo.png").write_bytes(encoded(pixels(), "PNG"))
    assert open_source(shards).names == ["photo.png"]
    assert len(open_source(shards / "t-*.tar")) == 24


def test_a_file_whose_name_holds_braces_is_that_file(tmp_path):
    make_tar(tmp_path / "{0..3}.tar", {"x.png": encoded(pixels(), "PNG")})
    assert open_source(tmp_path / "{0..3}.tar").kind == "archive"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("t-{3..1}.tar", "count down, from 3 to 1"),
        ("none-*.tar", "no file matches"),
        ("t-{0..99999999}.tar", "more than 100,000 shards"),
        ("memory://t-{0..1}.tar#shuffle", "window=N"),
        ("nothing://t-{0..1}.tar", "cannot be read"),
        ("memory://none-{0..1}.tar", r"none of them can be read as an image \(first: none-0.tar: missing\)"),
    ],
)
def test_a_spec_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch, spec, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        open_source(spec)


def test_a_package_that_is_missing_is_named(monkeypatch):
    if "s3fs" in fsspec.available_protocols() and __import__("importlib").util.find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(ValueError, match="pip install s3fs"):
        open_source("s3://bucket/t-{0..1}.tar")


# What a shard holds


def test_labels_come_from_cls_or_json_of_the_same_key(tmp_path):
    image = encoded(pixels(), "PNG")
    make_tar(
        tmp_path / "0.tar", {"a.png": image, "a.cls": b"7\n", "b.json": b'{"label": 10}', "b.png": image, "c.json": b"[1]", "c.png": image}
    )
    make_tar(tmp_path / "1.tar", {"d.png": image, "d.json": b'{"label": 1}', "d.cls": b"7", "d.txt": b"a caption"})
    source = open_source(tmp_path)
    assert source.classes == ["7", "10"]
    assert source.labels.tolist() == [0, 1, -1, 0]


def test_without_labels_the_folders_within_the_shards_count(tmp_path):
    image = encoded(pixels(), "PNG")
    for k in range(2):
        make_tar(tmp_path / f"{k}.tar", {f"cat/{k}.png": image, f"dog/{k}.png": image})
    source = open_source(tmp_path)
    assert source.classes == ["cat", "dog"]
    assert source.labels.tolist() == [0, 1, 0, 1]


def test_a_picture_about_another_one_is_no_sample_of_its_own(tmp_path):
    image = encoded(pixels(), "PNG")
    make_tar(tmp_path / "0.tar", {"a.png": image, "a.seg.png": image, "b.1.png": image, "b.2.png": image})
    source = open_source(tmp_path / "0*.tar")
    assert source.names == ["0.tar/a.png", "0.tar/b.1.png", "0.tar/b.2.png"]
    assert source.ignored == 1


def test_members_that_leave_the_archive_links_and_claims_of_size_are_never_followed(tmp_path):
    good = encoded(pixels(), "PNG")
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name in ("/etc/a.png", "../b.png", "C:\\c.png", "ok.png", "inner.tar", ".hidden.png"):
            info = tarfile.TarInfo(name)
            info.size = len(good)
            archive.addfile(info, io.BytesIO(good if name != "inner.tar" else b"\0" * len(good)))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"link{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        huge = tarfile.TarInfo("huge.png")
        huge.size = 1 << 40
        archive.addfile(huge)
    source = open_source(tmp_path / "0*.tar")
    assert source.names == ["0.tar/ok.png"]
    assert "huge.png" in {s.name.split("/")[-1] for s in source.skipped}


def test_a_shard_whose_sizes_lead_backwards_ends(tmp_path):
    make_shards(tmp_path, (2, 2))
    with open(tmp_path / "t-001.tar", "r+b") as file:
        header = bytearray(file.read(512))
        header[124:136] = b"\xff" * 8 + (-512).to_bytes(4, "big", signed=True)  # the base-256 form of a negative size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        file.seek(0)
        file.write(header)
    source = open_source(str(tmp_path))
    assert len(source) == 2
    assert [s.name for s in source.skipped] == ["t-001.tar"]


def test_a_header_that_claims_gigabytes_ends_the_shard_there(tmp_path):
    path = make_tar(tmp_path / "0.tar", {"a.png": encoded(pixels(), "PNG")})
    info = tarfile.TarInfo("PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 1 << 33
    path.write_bytes(path.read_bytes().rstrip(b"\0").ljust(-(-len(path.read_bytes().rstrip(b"\0")) // 512) * 512, b"\0") + info.tobuf())
    source = open_source(tmp_path / "0*.tar")
    assert source.names == ["0.tar/a.png"]
    assert "ends early" in source.skipped[0].reason


def test_a_cut_shard_a_compressed_one_and_a_damaged_image_are_listed_and_the_rest_is_read(shards):
    cut = shards / "t-001.tar"
    cut.write_bytes(cut.read_bytes()[: 512 + 600])
    with tarfile.open(shards / "t-002.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x.png"))
    make_tar(shards / "t-003.tar", {"a.png": damaged(), "b.png": encoded(pixels(), "PNG"), "c.png": b"<html>"})
    source = open_source(shards / "t-{000..004}.tar")
    assert len(source) == 6 + 2
    reasons = {s.name: s.reason for s in source.skipped}
    assert "truncated" in reasons["t-001.tar/0000.png"]
    assert "compressed" in reasons["t-002.tar"]
    assert reasons["t-003.tar/c.png"] == 'not a PNG (starts with "<html>")'
    assert reasons["t-004.tar"] == "missing"


def test_a_shard_that_was_cut_after_the_look_costs_the_samples_behind_the_cut(shards):
    source = open_source(shards)
    (shards / "t-000.tar").write_bytes((shards / "t-000.tar").read_bytes()[: 512 + 600])
    with pytest.raises(Unreadable, match=r"truncated: \d+ of"):
        source.read(0)
    np.testing.assert_array_equal(source.read(6), picture(6))


# The index


def test_the_next_start_reads_no_header_and_finds_the_same(shards, monkeypatch):
    for path in shards.iterdir():
        os.utime(path, (1e9, 1e9))
    first = open_source(shards)
    with monkeypatch.context() as patch:
        patch.setattr("byol.data.shard_index.plain_tar", None)  # calling it would fail
        again = open_source(shards)
    for source in (again, open_source(shards, fresh=True)):
        assert source.fingerprint() == first.fingerprint()
        assert source.labels.tolist() == first.labels.tolist()
        np.testing.assert_array_equal(source.headers.height, first.headers.height)
        np.testing.assert_array_equal(source.read(13), first.read(13))


def test_a_shard_that_changed_and_a_damaged_index_are_read_anew(shards, cache):
    for path in shards.iterdir():
        os.utime(path, (1e9, 1e9))
    before = open_source(shards).fingerprint()
    kept = sorted((cache / "index").glob("*.npz"))
    assert len(kept) == len(COUNTS)
    kept[0].write_bytes(kept[0].read_bytes()[:-40])
    kept[1].write_bytes(b"")
    assert open_source(shards).fingerprint() == before
    make_tar(shards / "t-000.tar", {"x.png": encoded(pixels(), "PNG")})
    assert len(open_source(shards)) == sum(COUNTS[1:]) + 1


# The order


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(lambda c: sum(c) > 0),
    st.integers(1, 6),
    st.integers(1, 12),
    st.integers(0, 3),
)
def test_every_sample_has_exactly_one_position_in_an_epoch_of_windows(counts, window, batch, epoch):
    n = sum(counts)
    windows = Windows(np.concatenate([[0], np.cumsum(counts)]), window)
    ids = windows.ids(5, epoch, torch.arange(n), batch)
    assert sorted(ids.tolist()) == list(range(n))
    # Position by position and in any order, it is the same.
    back = [int(Windows(windows.starts, window).ids(5, epoch, torch.tensor([p]), batch)) for p in reversed(range(0, n, 3))]
    assert back[::-1] == ids[::3].tolist()


def test_only_one_window_of_shards_is_open_at_a_time_and_every_batch_draws_from_all_of_it():
    count, each, size, batch = 32, 100, 4, 20
    windows = Windows(np.arange(count + 1) * each, size)
    for epoch in range(2):
        shards = windows.ids(0, epoch, torch.arange(count * each), batch).numpy() // each
        for start in range(0, count * each, size * each):
            inside = shards[start : start + size * each]
            assert len(set(inside)) == size
            for at in range(0, len(inside), batch):
                assert np.bincount(inside[at : at + batch]).max() == batch // size


def test_the_order_within_a_shard_is_random_and_another_in_every_shard_and_epoch():
    count, each = 8, 200
    windows = Windows(np.arange(count + 1) * each, 4)
    orders = []
    for epoch in range(2):
        ids = windows.ids(0, epoch, torch.arange(count * each), 40).numpy()
        orders += [ids[ids // each == k] % each for k in range(count)]
    correlations = np.corrcoef(np.array([*orders, np.arange(each)]))
    assert abs(correlations[~np.eye(len(correlations), dtype=bool)]).max() < 5 / np.sqrt(each)


def test_a_process_that_takes_a_stretch_of_every_batch_needs_its_share_of_the_shards():
    counts = np.random.default_rng(0).integers(80, 120, 48)
    starts = np.concatenate([[0], np.cumsum(counts)])
    windows, batch = Windows(starts, 16), 64
    for processes in (2, 4, 8):
        for rank in range(processes):
            rows = slice(rank * batch // processes, (rank + 1) * batch // processes)
            ids = torch.cat([windows.ids(0, 0, torch.arange(s * batch, (s + 1) * batch), batch)[rows] for s in range(starts[-1] // batch)])
            met = np.bincount(np.searchsorted(starts, ids.numpy(), "right") - 1, minlength=48) / counts
            # Shards of which it reads an eighth or more, and so fetches whole.
            assert (met >= 1 / 8).sum() <= 48 / processes + 2 * 3 * 2  # 3 windows, and 2 neighbours on either side


def test_the_order_over_other_data_is_what_it_was():
    # From before sources could have an order of their own.
    assert ids_at(5, n=1000, batch=8, seed=3).tolist() == [982, 498, 632, 243, 680, 669, 602, 861]
    assert ids_at(2, n=50, batch=8, seed=1).tolist() == ids_at(2, n=50, batch=8, seed=1, order=None).tolist()


def test_the_order_in_windows_stays_what_it_is(web):
    source = open_source(web[0] + "#window=2")
    assert order_of(source)[:2] == [[7, 9, 1, 4], [0, 8, 2, 5]]


def test_window_all_is_a_full_permutation(web):
    source = open_source(web[0] + "#window=all")
    assert order_of(source) == order_of(open_source(np.zeros((24, 2, 2))))


def test_a_part_of_remote_shards_keeps_windows_and_each_sample_once(web):
    source = open_source(web[0] + "#window=2", limit=13)
    assert sorted(chained(order_of(source, batch=1))) == list(range(13))
    few = source.subset([2, 3, 5, 8])
    assert sorted(chained(order_of(few, batch=1))) == [0, 1, 2, 3]
    np.testing.assert_array_equal(few.read(2), source.read(5))
    assert few.subset([3, 0]).order.window == 0


# Reading from afar


def test_remote_shards_are_the_same_data_as_local_ones(web, shards):
    here = open_source(shards)
    for spec in (web[0], f"file://{shards}/{ALL}"):
        there = open_source(spec)
        assert there.fingerprint() == here.fingerprint()
        for i in (0, 11, 23):
            np.testing.assert_array_equal(there.read(i), here.read(i))


def test_memory_and_patterns_of_fsspec_are_read_too(shards):
    files = fsspec.filesystem("memory")
    for path in shards.iterdir():
        files.pipe(f"/bucket/{path.name}", path.read_bytes())
    try:
        sources = [open_source(f"memory://bucket/{name}") for name in (ALL, "t-*.tar")]
        assert {s.fingerprint() for s in sources} == {open_source(shards).fingerprint()}
    finally:
        files.rm("/bucket", recursive=True)


def test_any_number_of_workers_and_any_start_give_the_same_batches(web):
    source = open_source(web[0] + "#window=2")
    alone = batches_of(source, range(9))
    assert_same_batches(alone, batches_of(source, range(9), workers=2))
    assert_same_batches(alone[5:], batches_of(open_source(web[0] + "#window=2"), range(5, 9)))
    assert {i for ids, _, _ in alone[:6] for i in ids} == set(range(24))


def test_batches_are_the_same_whether_shards_or_single_samples_come(web, cache):
    whole = batches_of(open_source(web[0]), range(6))
    for path in cache.glob("*.tar"):
        path.unlink()
    source = open_source(web[0])
    object.__setattr__(source.reader.blobs, "fetches", False)
    assert_same_batches(whole, batches_of(source, range(6)))
    assert list(cache.glob("*.tar")) == []
    assert sum(web[1].parts.values()) == 24


def test_a_resumed_run_asks_for_nothing_that_is_behind_it(tmp_path, cache):
    make_shards(tmp_path / "many", (8,) * 12)
    with served(tmp_path / "many") as (url, server):
        spec = f"{url}/t-{{000..011}}.tar#window=2"
        source = open_source(spec)
        behind = {i // 8 for ids in order_of(source, batch=8, seed=3)[:6] for i in ids}
        assert len(behind) == 6
        for path in cache.glob("*.tar"):
            path.unlink()
        server.whole.clear()
        batches_of(open_source(spec), range(6, 8), batch=8)
        asked = {int(name[2:5]) for name in (*server.whole, *server.parts)}
        assert asked
        assert not asked & behind


def read_and_collect(shard):
    remote.read(shard, 0, 100)
    gc.collect()


def test_connections_outlive_a_worker_that_is_forked(web, monkeypatch):
    monkeypatch.setattr(remote, "_SILENT", 10)
    monkeypatch.setattr(remote, "TRIES", 1)
    shard = remote.found(web[0].replace(ALL, "t-000.tar"))
    first = remote.read(shard, 0, 100)
    worker = multiprocessing.get_context("fork").Process(target=read_and_collect, args=(shard,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert remote.read(shard, 0, 100) == first


def test_a_few_samples_drawn_from_everywhere_fetch_no_whole_shard(tmp_path, cache):
    make_shards(tmp_path / "large", (40, 40))
    with served(tmp_path / "large") as (url, server):
        source = open_source(f"{url}/t-{{000..001}}.tar")
        for path in cache.glob("*.tar"):
            path.unlink()
        server.whole.clear()
        statistics(source, sample=6)
        assert sum(server.whole.values()) == 0
        assert sum(server.parts.values()) == 6


def test_a_server_that_gives_only_whole_files_is_read_whole(web, cache, shards):
    web[1].ranges = False
    source = open_source(web[0])
    for path in cache.glob("*.tar"):
        path.unlink()
    for i in (0, 1, 11):
        np.testing.assert_array_equal(source.read(i), open_source(shards).read(i))


def test_what_fails_now_and_then_is_tried_again(web, shards):
    web[1].fails.update({"t-000.tar": 3, "t-002.tar": 2})
    web[1].short["t-001.tar"] = 2
    source = open_source(web[0])
    assert source.skipped == []
    assert source.fingerprint() == open_source(shards).fingerprint()


def test_a_shard_that_fails_every_time_is_skipped_with_its_reason(web):
    web[1].fails["t-000.tar"] = -1
    web[1].short["t-002.tar"] = -1
    source = open_source(web[0].replace("003", "004"))
    assert len(source) == 5 + 6
    reasons = {s.name: s.reason for s in source.skipped}
    assert "503" in reasons["t-000.tar"]
    assert "4 times" in reasons["t-002.tar"]
    assert reasons["t-004.tar"] == "missing"


def test_a_shard_that_fails_while_training_is_named_once_and_the_next_ones_samples_take_its_place(web, cache):
    source = open_source(web[0])
    for path in cache.glob("*.tar"):
        path.unlink()
    web[1].fails["t-001.tar"] = -1
    batches = batches_of(source, range(6))
    lost = range(6, 11)
    for ids, _, bad in batches:
        assert not set(ids) & set(lost)
        assert {s.name for s in bad} <= {"t-001.tar"}
        assert all("503" in s.reason for s in bad)
    wanted = chained(order_of(source, seed=3))
    assert [i if i not in lost else 11 for i in wanted] == chained(ids for ids, _, _ in batches)


# The cache


def test_the_cache_stays_below_its_size_and_keeps_what_was_used_last(web, shards, cache):
    size = max(p.stat().st_size for p in shards.iterdir())
    found = [remote.found(web[0].replace(ALL, f"t-{k:03d}.tar")) for k in range(4)]
    small = Cache(str(cache), 2 * size)
    cache.mkdir()
    small.fetch(found[0])
    small.fetch(found[1])
    os.utime(small.fetch(found[1]), (1e9, 1e9))
    assert small.get(found[0]) is not None
    small.fetch(found[2])
    assert small.get(found[1]) is None
    assert [small.get(f) is not None for f in found] == [True, False, True, False]
    assert sum(p.stat().st_size for p in cache.glob("*.tar")) <= 2 * size
    assert sorted(p.suffix for p in cache.iterdir() if p.name != ".lock") == [".tar", ".tar"]
    with pytest.raises(Unreadable, match="more than the cache may hold"):
        Cache(str(cache), size // 2).fetch(found[3])


def test_a_copy_of_another_size_or_of_an_older_file_is_not_used(web, shards, cache):
    cache.mkdir()
    store, url = Cache(str(cache), 1 << 30), web[0].replace(ALL, "t-000.tar")
    first = remote.found(url)
    store.fetch(first).write_bytes(b"cut")
    assert store.fetch(first).read_bytes() == (shards / "t-000.tar").read_bytes()
    os.utime(shards / "t-000.tar", (2e9, 2e9))
    second = remote.found(url)
    assert store.get(second) is None
    os.utime(shards / "t-000.tar", (1e9, 1e9))
    with pytest.raises(Unreadable, match="changed since it was indexed"):
        store.fetch(second)
    assert len(list(cache.glob("*.tar"))) == 1


FETCH = """
import hashlib, sys
from byol.data.shard_cache import Cache
from byol.data.remote import Remote
url, size, mark, folder = sys.argv[1:]
print(hashlib.sha256(Cache(folder, 1 << 30).fetch(Remote(url, int(size), mark)).read_bytes()).hexdigest())
"""


def test_processes_that_want_the_same_shard_fetch_it_once(web, shards, cache):
    cache.mkdir()
    shard = remote.found(web[0].replace(ALL, "t-000.tar"))
    command = [sys.executable, "-c", FETCH, shard.url, str(shard.size), shard.mark, str(cache)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    got = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert got == {hashlib.sha256((shards / "t-000.tar").read_bytes()).hexdigest()}
    assert web[1].whole["t-000.tar"] == 1
    assert len(list(cache.iterdir())) == 2  # the copy and the lock


def test_what_a_killed_process_left_behind_is_cleared_away(web, cache):
    cache.mkdir()
    (cache / f"{'0' * 32}.123.partial").write_bytes(b"half")
    Cache(str(cache), 1 << 30).fetch(remote.found(web[0].replace(ALL, "t-000.tar")))
    assert list(cache.glob("*.partial")) == []


@pytest.mark.parametrize(("text", "bytes_"), [("1000", 1000), ("2.5 kB", 2500), ("3M", 3_000_000), ("0.001gb", 1_000_000)])
def test_the_limit_of_the_cache_is_read_from_the_environment(monkeypatch, text, bytes_):
    monkeypatch.setenv("BYOL_CACHE_LIMIT", text)
    assert open_cache().limit == bytes_


def test_a_limit_that_is_none_and_one_too_small_for_two_windows_are_one_sentence(web, monkeypatch):
    monkeypatch.setenv("BYOL_CACHE_LIMIT", "much")
    with pytest.raises(ValueError, match="BYOL_CACHE_LIMIT=much is no size"):
        open_source(web[0])
    monkeypatch.setenv("BYOL_CACHE_LIMIT", "60 KB")
    with pytest.raises(ValueError, match=r"windows of 16 shards.*set BYOL_CACHE_LIMIT"):
        open_source(web[0])
    assert len(open_source(web[0] + "#window=all")) == 24  # samples one by one need no room


def test_what_a_worker_gets_is_small(web):
    source = open_source(web[0])
    source.read(3)
    assert len(pickle.dumps(source)) < 20_000


# Whole runs


def test_a_run_is_named_by_what_comes_before_the_numbers_and_found_from_another_folder(shards, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(api.default_out("shards/train-{000000..000146}.tar")) == "runs/train"
    assert str(api.default_out("s3://bucket/photos-*.tar#window=4")) == "runs/photos"
    monkeypatch.chdir(tmp_path / "shards")
    data = f"shards/{ALL}"
    assert not present(data)
    assert notes._found(data, str(tmp_path)) == str(tmp_path / data)
    assert notes._found(f"s3://bucket/{ALL}", str(tmp_path)) == f"s3://bucket/{ALL}"


class Halt:
    """Somebody who presses Ctrl-C after three steps."""

    def step(self, done):
        if done == 3:
            signal.raise_signal(signal.SIGINT)

    def log(self, record):
        pass


def test_a_run_over_remote_shards_continues_bit_for_bit_and_is_evaluated(web, tmp_path):
    spec = web[0] + "#window=2"
    assert not present(spec)
    asked = {"encoder": "small-w16", "epochs": 2, "batch_size": 8, "image_size": 16, "workers": 0, "precision": "fp32", "device": "cpu"}
    asked["set"] = ("hidden=16", "dim=8", "log_steps=1", "channels_last=true", "checkpoint_minutes=0")
    assert byol.train(spec, tmp_path / "whole", **asked).outcome.step == 6
    assert byol.train(spec, tmp_path / "halted", watcher=Halt(), **asked).outcome.ended == "interrupted"
    assert byol.resume(tmp_path / "halted").outcome.step == 6
    ours, theirs = (load_file(tmp_path / name / "last.safetensors") for name in ("halted", "whole"))
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    (result,) = byol.evaluate(tmp_path / "whole", spec, protocols=["knn"], baselines=False)
    assert result.scores
    assert byol.embed(tmp_path / "whole", spec, tmp_path / "e.npz").images == 24
    assert byol.doctor(spec).images == 24
