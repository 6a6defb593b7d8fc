"""A Hugging Face Hub of this process: as much of its protocol as pushing and pulling small files takes."""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serving(repos):
    """(address) of a Hub with {OWNER/NAME: {file: bytes}}, which pushing changes."""

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *words):
            pass

        def answer(self, content, status=200, **headers):
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_POST(self):
            asked = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/api/repos/create":
                if "authorization" not in {k.lower() for k in self.headers}:
                    return self.answer({"error": "Invalid username or password."}, 401)
                fields = json.loads(asked)
                name = f"{fields['organization']}/{fields['name']}" if fields.get("organization") else fields["name"]
                repos.setdefault(name, {})
                return self.answer({"url": f"{address()}/{name}", "name": name, "id": "1"})
            if "/preupload/" in self.path:
                files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(asked)["files"]]
                return self.answer({"files": files})
            if "/commit/" in self.path:
                name = re.fullmatch(r"/api/models/(.+)/commit/main", self.path.partition("?")[0])[1]
                for line in asked.decode().splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        repos[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                return self.answer({"commitUrl": f"{address()}/{name}/commit/{COMMIT}", "commitOid": COMMIT})
            return self.answer({"warnings": [], "errors": []})  # validate-yaml

        def do_GET(self):
            path = self.path.partition("?")[0]
            found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+)?", path)
            if found and found[1] in repos:
                files = [{"rfilename": f} for f in repos[found[1]]]
                return self.answer({"id": found[1], "sha": COMMIT, "siblings": files, "private": False, "tags": [], "downloads": 0})
            found = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path)
            if found and found[1] in repos:
                return self.answer([{"type": "file", "path": f, "size": len(d), "oid": COMMIT} for f, d in repos[found[1]].items()])
            found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
            if found and found[2] in repos.get(found[1], {}):
                data = repos[found[1]][found[2]]
                etag = '"' + hashlib.sha1(data).hexdigest() + '"'
                return self.answer(data, ETag=etag, X_Repo_Commit=COMMIT)
            code = "EntryNotFound" if found and found[1] in repos else "RepoNotFound"
            return self.answer({"error": "not found"}, 404, X_Error_Code=code)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)

    def address():
        return f"http://127.0.0.1:{server.server_port}"

    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
