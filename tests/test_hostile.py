"""Files made to run code, to leave their folder, to wait for ever or to take all memory: each is one sentence or one skipped sample."""

import gzip
import hashlib
import io
import os
import pickle
import resource
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from bad_files import Evil, png
from data_files import encoded, folder, pixels

import byol
from byol import checkpoint, encoders, run
from byol.data import Unreadable, arrays, doctor, open_source, read_image

GOOD = encoded(pixels(), "PNG")
MARK = Path("pickle-was-executed")  # what Evil makes


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path, monkeypatch):
    """No pickle is loaded, and no test takes more than 4 GB."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("a pickle was loaded"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert not MARK.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kB: 1 GB


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path, members, mode="w", **fields):
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return path


def one_sentence(work):
    with pytest.raises(ValueError, match=r"\S") as told:
        work()
    assert type(told.value) is ValueError
    assert "\n" not in str(told.value)
    return str(told.value)


# -- nothing runs


def test_a_pickle_called_weights_is_refused_unread(tmp_path):
    seen = encoders.Input(channels=1, size=8, mean=(0.5,), std=(0.5,))
    encoders.save_weights(encoders.load("small-w1-n2", input=seen), tmp_path / "e.safetensors", extra={})
    about = run.read_json(tmp_path / "e.json")
    (tmp_path / "e.safetensors").write_bytes(pickle.dumps(Evil()))
    assert "was changed" in one_sentence(lambda: byol.load(tmp_path / "e.safetensors"))
    # Even with the right checksum.
    about["sha256"] = hashlib.sha256((tmp_path / "e.safetensors").read_bytes()).hexdigest()
    run.write_json(tmp_path / "e.json", about)
    assert "does not fit" in one_sentence(lambda: byol.load(tmp_path / "e.safetensors"))
    method = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(method.parameters(), lr=1.0)
    assert "checkpoint" in one_sentence(lambda: checkpoint.restore(tmp_path / "e.safetensors", method=method, optimizer=optimizer))


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_pickles_in_arrays_are_refused_unread(tmp_path, name):
    evil = np.array([Evil()] * 3, object)
    np.savez(tmp_path / name, x=evil) if name == "x.npz" else np.save(tmp_path / name, evil)
    assert "could run code" in one_sentence(lambda: open_source(tmp_path / name))
    np.savez(tmp_path / "y.npz", x=np.zeros((3, 4, 4), np.uint8), y=evil)
    assert "could run code" in one_sentence(lambda: open_source(tmp_path / "y.npz"))


# -- archives


def test_an_archive_writes_nothing_and_reads_nothing_outside(tmp_path):
    (tmp_path / "secret.png").write_bytes(GOOD)
    names = ["../secret.png", "/etc/x.png", "a/../../secret.png", "C:\\x.png", "..\\x.png", "fine.png"]
    inside = tmp_path / "inside"
    inside.mkdir()
    for path in (zipped(inside / "a.zip", dict.fromkeys(names, GOOD)), tarred(inside / "a.tar", dict.fromkeys(names, GOOD))):
        source = open_source(path)
        assert source.names == ["fine.png"]
        assert source.ignored == 5
        source.read(0)
    links = tarred(inside / "l.tar", {"link.png": b""}, type=tarfile.SYMTYPE, linkname="../secret.png")
    assert "holds 1 file" in one_sentence(lambda: open_source(links))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inside", "secret.png"]


def test_a_zip_member_that_claims_petabytes_is_skipped(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": GOOD, "huge.png": GOOD})
    data = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = data.rindex(mark)
        data[place + at : place + at + 4] = b"\xfe\xff\xff\xff"
    path.write_bytes(data)
    source = open_source(path)
    assert source.names == ["a.png"]
    assert "unpacks to 4,294,967,294 bytes" in source.skipped[0].reason


def test_a_zip_bomb_is_skipped_and_never_unpacked(tmp_path):
    bomb = GOOD[:60] + bytes(60 << 20)
    source = open_source(zipped(tmp_path / "a.zip", {"a.png": GOOD, "bomb.png": bomb}))
    assert source.names == ["a.png"]
    assert "as no photo does" in source.skipped[0].reason


def test_a_large_member_is_read_without_being_unpacked_whole(tmp_path):
    """A stream of noise, which no ratio refuses: its header is read from a small part."""
    large = encoded(np.random.default_rng(0).integers(0, 256, (2500, 2500, 3), np.uint8), "BMP")
    source = open_source(zipped(tmp_path / "a.zip", {"a.bmp": large}))
    assert source.read(0).shape == (2500, 2500, 3)


def test_a_zip_whose_members_share_their_bytes_is_refused(tmp_path):
    path = zipped(tmp_path / "a.zip", {"0.png": GOOD})
    data = path.read_bytes()
    start = data.index(b"PK\x01\x02")
    entry, end = data[start : data.index(b"PK\x05\x06")], bytearray(data[data.index(b"PK\x05\x06") :])
    many = b"".join(entry.replace(b"0.png", f"{i}.png".encode()) for i in range(10) for _ in range(20))
    end[8:12] = struct.pack("<2H", 200, 200)
    end[12:16] = struct.pack("<I", len(many))
    path.write_bytes(data[:start] + many + end)
    assert "packed bytes" in one_sentence(lambda: open_source(path))


def test_a_gzip_bomb_is_refused_on_the_way(tmp_path, monkeypatch):
    from byol.data import archive

    monkeypatch.setattr(archive, "_STREAM", 1 << 20)
    with gzip.open(tmp_path / "b.tar.gz", "wb") as file:
        info = tarfile.TarInfo("zeros")
        info.size = 64 << 20
        file.write(info.tobuf() + bytes(64 << 20))
    assert "more than 200 times its size" in one_sentence(lambda: open_source(tmp_path / "b.tar.gz"))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_tar_header_of_gigabytes_is_refused_before_it_is_read(tmp_path, kind):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 8 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert "a header of 8,589,934,592 bytes" in one_sentence(lambda: open_source(tmp_path / "a.tar"))


def test_a_tar_that_leads_backwards_ends(tmp_path):
    """A size below zero, in the header or in the text before it, which tarfile follows round and round."""
    info = tarfile.TarInfo("a.png")
    info.size = len(GOOD)
    whole = info.tobuf() + GOOD.ljust(1024, b"\0")
    back = tarfile.TarInfo("b.png").tobuf()
    size = struct.pack(">q", -2048).rjust(12, b"\xff")
    header = bytearray(back[:124] + size + back[136:])
    header[148:156] = f"{256 + sum(header[:148]) + sum(header[156:512]):06o}\0 ".encode()
    (tmp_path / "a.tar").write_bytes(whole + header + bytes(1024))
    assert "damaged" in one_sentence(lambda: open_source(tmp_path / "a.tar"))
    pax = tarfile.TarInfo("b.png")
    pax.pax_headers = {"size": "-2048"}
    (tmp_path / "b.tar").write_bytes(whole + pax.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    assert "damaged" in one_sentence(lambda: open_source(tmp_path / "b.tar"))


def test_a_tar_member_that_claims_more_than_there_is_is_skipped(tmp_path):
    info = tarfile.TarInfo("huge.png")
    info.size = 1 << 50
    (tmp_path / "a.tar").write_bytes(tarred(tmp_path / "b.tar", {"a.png": GOOD}).read_bytes()[:1024] + info.tobuf(tarfile.GNU_FORMAT))
    source = open_source(tmp_path / "a.tar")
    assert source.names == ["a.png"]


# -- arrays and lists


def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((50, 1000, 1000), np.uint8))
    monkeypatch.setattr(arrays, "memory_limit", lambda: 10 << 20)
    assert "unpacks to 50,000,128 bytes" in one_sentence(lambda: open_source(tmp_path / "x.npz"))


def test_an_npz_that_claims_more_than_it_has_takes_no_memory(tmp_path):
    text = repr({"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**4, 100)}).ljust(117) + "\n"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    zipped(tmp_path / "x.npz", {"x.npy": header + bytes(100)})
    assert "of 1,000,000,000,128 bytes" in one_sentence(lambda: open_source(tmp_path / "x.npz"))


def test_a_parquet_list_of_too_many_rows_or_too_long_a_text_is_refused(tmp_path, monkeypatch):
    from byol.data import lists

    pyarrow.parquet.write_table(pyarrow.table({"path": ["a" * (1 << 17)] * 100}), tmp_path / "x.parquet")
    assert "a text of more than 65,536" in one_sentence(lambda: open_source(tmp_path / "x.parquet"))
    monkeypatch.setattr(lists, "_ROWS", 10)
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a.png"] * 100}), tmp_path / "x.parquet")
    assert "claims 100 rows" in one_sentence(lambda: open_source(tmp_path / "x.parquet"))


def test_a_csv_with_one_very_long_row_takes_the_memory_of_its_cells(tmp_path):
    folder(tmp_path, ["0.png"])
    (tmp_path / "l.csv").write_text("path\n" + "0.png\n" * 3000 + "," * 100_000 + "\n")
    assert len(open_source(tmp_path / "l.csv")) == 3000  # as a table: 300 million cells


# -- nothing waits


def test_no_pipe_or_device_is_waited_for(tmp_path):
    folder(tmp_path, ["0.png", "1.png"])
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "l.txt").write_text("0.png\npipe.png\nzero.png\n/dev/zero\n")
    assert {s.reason for s in open_source(tmp_path / "l.txt").skipped} == {"no regular file (a pipe or a device)"}
    assert doctor(tmp_path).images == 2
    for name in ("plan.json", "config.json", "data.json", "metrics.jsonl"):
        (tmp_path / "run").mkdir(exist_ok=True)
        os.mkfifo(tmp_path / "run" / name)
    assert "no regular file" in one_sentence(lambda: byol.resume(tmp_path / "run"))
    assert "is not a run" in one_sentence(lambda: byol.report(tmp_path / "run"))
    seen = encoders.Input(channels=1, size=8, mean=(0.5,), std=(0.5,))
    encoders.save_weights(encoders.load("small-w1-n2", input=seen), tmp_path / "e.safetensors", extra={})
    (tmp_path / "e.json").unlink()
    os.mkfifo(tmp_path / "e.json")
    assert "no regular file" in one_sentence(lambda: byol.load(tmp_path / "e.safetensors"))


def test_a_file_that_became_a_pipe_is_unreadable(tmp_path):
    source = open_source(folder(tmp_path, ["0.png", "1.png"]))
    (tmp_path / "0.png").unlink()
    os.mkfifo(tmp_path / "0.png")
    with pytest.raises(Unreadable, match="a pipe"):
        source.read(0)


# -- memory of images


def test_a_picture_that_claims_to_be_huge_is_refused_by_its_header():
    for side in (20_000, 50_000, 2**31 - 1):
        with pytest.raises(Unreadable, match="more pixels than are safe"):
            read_image(png(side, side))


def test_large_images_are_decoded_one_at_a_time(tmp_path, monkeypatch):
    from byol.data import decode

    monkeypatch.setattr(decode, "_LARGE", 100)
    inside = most = 0
    real = decode._pixels

    def watched(image, kind):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            return real(image, kind)
        finally:
            inside -= 1

    monkeypatch.setattr(decode, "_pixels", watched)
    assert doctor(folder(tmp_path, [f"{i:03}.png" for i in range(300)])).images == 300
    assert most == 1


def test_an_array_file_that_shrinks_during_a_run_is_unreadable_not_the_end_of_the_process(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4000, 8, 8), np.uint8))
    source = open_source(tmp_path / "x.npy")
    source.read(3000)
    os.truncate(tmp_path / "x.npy", 5000)
    with pytest.raises(Unreadable, match="shorter"):
        source.read(3001)
    tarred(tmp_path / "a.tar", {f"{i}.png": GOOD for i in range(9)})
    source = open_source(tmp_path / "a.tar")
    source.read(8)
    os.truncate(tmp_path / "a.tar", 2000)
    with pytest.raises(Unreadable, match="truncated"):
        source.read(8)


@pytest.mark.parametrize("name", ["photo.jpg", "photo.npz", "list.parquet"])
def test_what_cannot_be_read_as_data_of_a_run_says_so_in_one_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(range(256)) * 4)
    one_sentence(lambda: open_source(tmp_path / name))
