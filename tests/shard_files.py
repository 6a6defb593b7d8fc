"""Makes tar shards for tests, and serves them from localhost with ranges, counts and faults."""

import contextlib
import io
import re
import tarfile
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from data_files import encoded, pixels


def make_tar(path, files):
    """A plain tar of {name: bytes}, in that order; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def picture(number):
    """No two are alike; they are of two sizes, so that they are not kept in memory."""
    return pixels(*((20, 24) if number % 2 else (24, 20)), seed=number)


def make_shards(root, counts=(6, 5, 7, 6)):
    """Shards t-000.tar, ... of so many pictures each, numbered through, with labels beside them; returns the folder."""
    seed = 0
    for k, count in enumerate(counts):
        files = {}
        for i in range(count):
            files[f"{i:04d}.png"] = encoded(picture(seed), "PNG")
            files[f"{i:04d}.cls"] = str(seed % 2).encode()
            seed += 1
        make_tar(Path(root) / f"t-{k:03d}.tar", files)
    return Path(root)


class Server:
    """Serves a folder over HTTP; what is asked for is counted, and faults can be switched on."""

    def __init__(self, root):
        self.root = Path(root)
        self.ranges = True  # False: whole files only
        self.fails = Counter()  # {name: answers 503 so many times more}; a name with -1 fails for ever
        self.short = Counter()  # {name: ends in the middle so many times more}
        self.whole, self.parts = Counter(), Counter()  # {name: transfers}
        self.bytes = 0
        self.lock = threading.Lock()

    def fails_now(self, name, faults):
        with self.lock:
            if faults[name] > 0:
                faults[name] -= 1
                return True
            return faults[name] < 0


@contextlib.contextmanager
def served(root):
    """(URL of the folder, Server)."""
    state = Server(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        name, state = self.path.lstrip("/"), self.state
        path = state.root / name
        if not path.exists() or state.fails_now(name, state.fails):
            self.send_response(404 if not path.exists() else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, match = path.read_bytes(), re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        whole = len(data)
        if match and state.ranges:
            start, end = int(match[1]), min(int(match[2] or whole - 1), whole - 1)
            data = data[start : end + 1]
        self.send_response(206 if match and state.ranges else 200)
        if match and state.ranges:
            self.send_header("Content-Range", f"bytes {start}-{end}/{whole}")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if not body:
            return
        with state.lock:
            (state.parts if match else state.whole)[name] += 1
            state.bytes += len(data)
        if state.fails_now(name, state.short):
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        with contextlib.suppress(ConnectionError):
            self.wfile.write(data)
