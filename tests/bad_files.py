"""A corpus of awkward files and data sets, made anew each time, each with what the library documents to make of it.

The names and outcomes here are the rows of the table in docs/reliability.md.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from data_files import EXIF_ORIENTATION, damaged, encoded, folder, noise, pixels
from PIL import Image


@dataclass(frozen=True)
class File:
    """One file among good ones. The outcome begins with used, skipped or ignored; of skipped, the rest is part of the reason."""

    what: str
    outcome: str
    name: str
    content: bytes | Callable[[Path], None]
    size: tuple[int, int] | None = None  # height and width when it is used

    def make(self, root: Path) -> None:
        path = root / self.name
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)


@dataclass(frozen=True)
class Data:
    """A whole data set. The outcome begins with used, refused or doubt; the rest is part of what is said."""

    what: str
    outcome: str
    ask: str  # open, train, evaluate or doctor
    make: Callable[[Path], Path]


def png(width, height, *, rows=b"", bits=8, colour=2, chunks=()):
    """A PNG by hand: its header may claim any size."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [chunk(b"IHDR", struct.pack(">2I5B", width, height, bits, colour, 0, 0, 0)), *(chunk(n, d) for n, d in chunks)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_png(height=6, width=5):
    """16-bit RGB, which Pillow cannot write."""
    row = b"\0" + struct.pack(f">{3 * width}H", *range(3 * width))
    return png(width, height, bits=16, rows=row * height)


def turned(way):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = way
    return encoded(pixels(12, 20), "JPEG", exif=exif.tobytes(), quality=95)


def frames(form):
    first, *more = (Image.fromarray(pixels(12, 16, seed=s)) for s in range(3))
    return encoded(first, form, save_all=True, append_images=more)


def cmyk(adobe):
    """Adobe's CMYK is stored inverted, and says so in a marker; Pillow writes it so."""
    data = encoded(Image.new("CMYK", (16, 12), (0, 255, 255, 0)), "JPEG", quality=95)
    at = data.index(b"\xff\xee")
    return data if adobe else data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def many_scans():
    data = encoded(pixels(), "JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    return data[:at] + data[at:-2] * 200 + data[-2:]


def npy(array):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def npy_claiming(shape):
    text = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def spoilt(value):
    array = np.ones((4, 5, 3), np.float32)
    array[1, 2, 0] = value
    return npy(array)


class Evil:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return (os.system, ("touch pickle-was-executed",))


def sparse(path):
    with open(path, "wb") as file:
        file.write(encoded(pixels(), "TIFF"))
        file.truncate((1 << 30) + 1)


def link(to):
    return lambda path: path.symlink_to(to)


def folder_called_so(path):
    path.mkdir()
    (path / "notes.txt").write_text("no image")


def folder_loop(path):
    path.mkdir()
    (path / "up").symlink_to("..")


GOOD = [f"good{i}.png" for i in range(8)]
TEXT = b"<html><body>404 Not Found</body></html>" + b" " * 60
JPEG = encoded(noise(48), "JPEG", quality=95)
WHOLE = {form: encoded(noise(48), form, **({"lossless": True} if form == "WEBP" else {})) for form in ("PNG", "WEBP", "TIFF", "GIF", "BMP")}
ALPHA = np.dstack([pixels(12, 16), np.full((12, 16), 128, np.uint8)])
TWO_PAGES = encoded(Image.fromarray(pixels(12, 16)), "TIFF", save_all=True, append_images=[Image.fromarray(pixels(5, 5))])

FILES = [
    File("JPEG cut off", "skipped: truncated", "cut.jpg", JPEG[: len(JPEG) * 6 // 10]),
    *(File(f"{f} cut off", "skipped: truncated", f"cut.{f.lower()}", d[: len(d) * 6 // 10]) for f, d in WHOLE.items()),
    File("no bytes at all", "skipped: 0 bytes", "empty.jpg", b""),
    File("HTML called .jpg", "skipped: not a JPEG", "error.jpg", TEXT),
    File("a PDF called .png", "skipped: not a PNG", "paper.png", b"%PDF-1.7" + bytes(80)),
    File("a video called .jpg", "skipped: not a JPEG", "film.jpg", b"\0\0\0\x18ftypisom" + bytes(80)),
    File("text called .txt", "ignored", "readme.txt", b"hello"),
    File("a PNG called .jpg", "used", "wrong.jpg", encoded(pixels(), "PNG"), (12, 16)),
    File("an image without an ending", "used", "no_ending", encoded(pixels(), "PNG"), (12, 16)),
    File("bytes after the end of a JPEG", "used", "tail.jpg", JPEG + b"tail" * 9, (48, 48)),
    File("damaged pixels behind a good header", "skipped: damaged PNG", "inside.png", damaged()),
    File("animated GIF", "used, the first frame", "a.gif", frames("GIF"), (12, 16)),
    File("animated WebP", "used, the first frame", "a.webp", frames("WEBP"), (12, 16)),
    File("animated PNG", "used, the first frame", "a.apng", frames("PNG"), (12, 16)),
    File("CMYK JPEG, Adobe's inverted", "used, as RGB", "adobe.jpg", cmyk(adobe=True), (12, 16)),
    File("CMYK JPEG without Adobe's marker", "used, as RGB", "cmyk.jpg", cmyk(adobe=False), (12, 16)),
    File("progressive JPEG", "used", "progressive.jpg", encoded(pixels(), "JPEG", progressive=True), (12, 16)),
    File("JPEG of more than 500 scans", "skipped: more than 500 scans", "scans.jpg", many_scans()),
    File("palette with transparency", "used, laid on white", "p.png", encoded(Image.fromarray(ALPHA).quantize(16), "PNG"), (12, 16)),
    File("half transparent", "used, laid on white", "rgba.png", encoded(ALPHA, "PNG"), (12, 16)),
    File("grey with alpha", "used, laid on white", "la.png", encoded(Image.fromarray(ALPHA).convert("LA"), "PNG"), (12, 16)),
    File("1 bit", "used, as 0 and 255", "bit.png", encoded(Image.fromarray(pixels(channels=1)).convert("1"), "PNG"), (12, 16)),
    File("16-bit grey", "used, 16 bit kept", "deep.png", encoded(pixels(channels=1, dtype=np.uint16), "PNG"), (12, 16)),
    File("16-bit RGB PNG", "used, as 8 bit", "deep_rgb.png", deep_png(), (6, 5)),
    File("float TIFF", "used, float kept", "float.tif", encoded(pixels(channels=1, dtype=np.float32), "TIFF"), (12, 16)),
    File("32-bit integers", "used, as float", "int.tif", encoded(Image.fromarray(pixels(channels=1).astype(np.int32)), "TIFF"), (12, 16)),
    File("TIFF of several pages", "used, the first page", "pages.tif", TWO_PAGES, (12, 16)),
    *(
        File(f"EXIF orientation {way}", "used, upright", f"exif{way}.jpg", turned(way), (20, 12) if way >= 5 else (12, 20))
        for way in range(1, 9)
    ),
    File("broken EXIF", "used, as stored", "exif.jpg", encoded(pixels(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff"), (12, 16)),
    File("broken colour profile", "used", "icc.jpg", encoded(pixels(), "JPEG", icc_profile=b"not a profile" * 9), (12, 16)),
    File("colour profile that unpacks to 1,000 times its size", "skipped: damaged PNG", "bomb_icc.png",
         png(4, 4, rows=(b"\0" + bytes(12)) * 4, chunks=[(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 24), 9))])),
    File("1x1", "used", "dot.png", encoded(pixels(1, 1), "PNG"), (1, 1)),
    File("1x20,000", "used", "line.png", encoded(pixels(20_000, 1), "PNG"), (20_000, 1)),
    File("20,000x1", "used", "row.png", encoded(pixels(1, 20_000), "PNG"), (1, 20_000)),
    File("20,000x20,000", "skipped: more pixels than are safe", "large.png", png(20_000, 20_000)),
    File("50,000x50,000", "skipped: more pixels than are safe", "huge.png", png(50_000, 50_000)),
    File("0 pixels wide", "skipped: PNG", "flat.png", png(0, 10)),
    File("a file of 1 GiB and more", "skipped: bytes, and an image may have", "sparse.tif", sparse),
    File("a file that may not be read", "skipped: no permission", "forbidden.png", encoded(pixels(), "PNG")),
    File("HEIC, damaged", "skipped: HEIC", "a.heic", b"\0\0\0\x18ftypheic" + bytes(80)),
    File("unicode name", "used", "żółć 猫 🐈.png", encoded(pixels(), "PNG"), (12, 16)),
    File("right-to-left name", "used", "\u202egnp.exe.png", encoded(pixels(), "PNG"), (12, 16)),
    File("line break in the name", "used", "two\nlines.png", encoded(pixels(), "PNG"), (12, 16)),
    File("quotes and markup in the name", "used", "\"'><b onclick=x>&.png", encoded(pixels(), "PNG"), (12, 16)),
    File("terminal escapes in the name", "used", "\x1b]0;title\x07\x1b[31m.png", encoded(pixels(), "PNG"), (12, 16)),
    File("name of 255 bytes", "used", "n" * 251 + ".png", encoded(pixels(), "PNG"), (12, 16)),
    File("name that is no UTF-8", "used", os.fsdecode(b"caf\xe9.png"), encoded(pixels(), "PNG"), (12, 16)),
    File("unreadable, with a name that is no UTF-8", "skipped: not a JPEG", os.fsdecode(b"\xff\xfe.jpg"), TEXT),
    File("hidden file", "ignored", ".hidden.png", encoded(pixels(), "PNG")),
    File("Thumbs.db", "ignored", "Thumbs.db", encoded(pixels(), "PNG")),
    File("link to a file", "used", "link.png", link("good0.png"), (12, 16)),
    File("link to nothing", "skipped: a link to nothing", "gone.png", link("nothing")),
    File("link to itself", "skipped: a link to nothing", "self.png", link("self.png")),
    File("folder with a link to its parent", "used once", "loop", folder_loop),
    File("pipe", "ignored", "pipe.jpg", lambda path: os.mkfifo(path)),
    File("link to a device", "skipped: a link to a pipe or a device", "zero.jpg", link("/dev/zero")),
    File("folder called .jpg", "used as a folder", "folder.jpg", folder_called_so),
    File("NaN in an .npy", "skipped: NaN or infinite", "nan.npy", spoilt(np.nan)),
    File("infinity in an .npy", "skipped: NaN or infinite", "inf.npy", spoilt(np.inf)),
    File("numbers beyond float32 in an .npy", "skipped: NaN or infinite", "wide.npy", npy(np.full((4, 5, 3), 1e300))),
    File("integers in an .npy", "used, as float", "int.npy", npy(np.ones((4, 5, 3), np.int64)), (4, 5)),
    File("booleans in an .npy", "used, as 0 and 255", "bool.npy", npy(np.eye(6, dtype=bool)), (6, 6)),
    File("complex numbers in an .npy", "skipped: are no pixels", "complex.npy", npy(np.ones((4, 5, 3), complex))),
    File("Python objects in an .npy", "skipped: could run code", "object.npy", npy(np.array([Evil()], object))),
    File(".npy without a pixel", "skipped: is no image", "none.npy", npy(np.zeros((0, 5), np.float32))),
    File(".npy that claims 4 TB", "skipped: truncated", "claims.npy", npy_claiming((1_000_000, 1_000_000))),
    File(".npy whose size overflows", "skipped: truncated", "overflow.npy", npy_claiming((2**40, 2**40, 4))),
]  # fmt: skip


def saved(root, **arrays):
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "x.npz", **arrays)
    return root / "x.npz"


def listed(text, name="list.csv", n=8):
    def make(root):
        folder(root, [f"{i}.png" for i in range(n)], size=(12, 12))
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return root / name

    return make


def same(value):
    def make(root):
        root.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(np.full((12, 12, 3), value + i * (value == 0), np.uint8)).save(root / f"{i}.png")
        return root

    return make


def with_pipe(root):
    path = listed("path\n" + "\n".join(f"{i}.png" for i in range(8)) + "\npipe.jpg\n")(root)
    os.mkfifo(root / "pipe.jpg")
    return path


def classes(names):
    return lambda root: folder(root, names, size=(12, 12))


X = np.random.default_rng(0).integers(0, 255, (8, 12, 12, 3), np.uint8)
ROWS = "".join(f"{i}.png,{'' if i % 2 else 'cat'}\n" for i in range(8))

DATA = [
    Data("half of the labels missing", "used, these are unknown", "train", listed("path,label\n" + ROWS)),
    Data("a list with a pipe in it", "used, the pipe is skipped", "train", with_pipe),
    Data("a list with a zero byte in a name", "used, the row is skipped", "train", listed("path\n0.png\n1.png\n2.png\n3.png\na\0b.png\n")),
    Data("a list with a device in it", "used, the device is skipped", "train", listed("path\n/dev/zero\n0.png\n1.png\n2.png\n3.png\n")),
    Data("a list that is no UTF-8", "refused: is not UTF-8 text", "open", listed(b"path\n\xff.png\n")),
    Data("a cell of 200,000 letters", "refused: cannot be read as CSV", "open", listed("path\n" + '"' + "a" * 200_000 + '"\n')),
    Data("images of one colour each", "doubt: of nearly one colour", "doctor", same(0)),
    Data("the same image eight times", "doubt: copies", "doctor", same(7)),
    Data("one image", "refused: do not fill a batch", "train", classes(["0.png"])),
    Data("fewer images than a batch", "refused: do not fill a batch", "train", classes(["0.png", "1.png"])),
    Data("one class only", "refused: class", "evaluate", classes([f"cat/{i}.png" for i in range(8)])),
    Data("no labels", "refused: no labels", "evaluate", classes([f"{i}.png" for i in range(8)])),
    Data("an empty folder", "refused: is empty", "open", lambda root: (root.mkdir(parents=True), root)[1]),
    Data("NaN in some images of an .npz", "used, these are skipped", "train",
         lambda root: saved(root, x=np.where(np.arange(8)[:, None, None] < 2, np.nan, X[..., 0] / 255.0))),
    Data("only NaN in an .npz", "refused: can be decoded", "train", lambda root: saved(root, x=np.full((8, 12, 12), np.nan))),
    Data("integers in an .npz", "used, by their range", "train", lambda root: saved(root, x=X.astype(np.int64))),
    Data("booleans in an .npz", "used, as 0 and 255", "train", lambda root: saved(root, x=X[..., 0] > 99)),
    Data("complex numbers in an .npz", "refused: images are arrays of integers or floats", "open", lambda root: saved(root, x=X * 1j)),
    Data("Python objects in an .npz", "refused: could run code", "open", lambda root: saved(root, x=np.array([Evil()] * 8))),
    Data("no image in an .npz", "refused: images are", "open", lambda root: saved(root, x=X[:0])),
    Data("one number in an .npz", "refused: a single number", "open", lambda root: saved(root, x=3)),
    Data("other labels than images", "refused: give one class per image", "open", lambda root: saved(root, x=X, y=np.arange(7))),
    Data("fractions as labels", "refused: fractions as classes", "open", lambda root: saved(root, x=X, y=np.arange(8) / 7)),
    Data("constant images in an .npz", "used, and cannot be told apart", "train", lambda root: saved(root, x=np.full_like(X, 5))),
]  # fmt: skip
