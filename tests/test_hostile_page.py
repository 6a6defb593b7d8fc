"""Names, classes, reasons and log values that would be markup, script or terminal commands where they were shown as they are."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from cli_calls import byol as command
from data_files import pixels, write

import byol
from byol import reporting, run
from byol.cli.screen import harmless, json_line

EVIL = [
    "<script>parent.evil=1;document.title='OWNED'</script>",
    '"><img src=x onerror="document.title=\'OWNED\'">',
    "'><svg onload='document.title=&quot;OWNED&quot;'>",
    "</title></style></script><b onclick=x>",
    "]]><!--",
    "javascript:alert(1)",
    "&lt;script&gt;",
    "\u202egnp.exe",
    "\x1b]0;OWNED\x07\x1b[2J\x9b31m",
    "{{7*7}}${7*7}\u2028\u2029",
]
TINY = {"encoder": "small-w1-n2", "epochs": 1, "batch_size": 4, "image_size": 8, "precision": "fp32", "device": "cpu", "workers": 0}


ALLOWED = """html head meta title style body main script header h1 h2 h3 p span a nav div section article dl dt dd b small output figure
figcaption svg g line text path rect circle i code pre button details summary table thead tbody tr th td ul li img label input footer br"""


class Page(HTMLParser):
    """The tags and the attributes that a browser would see."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.words = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A run with evil in every name: files, classes, the folder of the data, the run's own."""
    root = tmp_path_factory.mktemp("evil")
    data = root / "<img src=x onerror=alert(1)> photos"
    for i, text in enumerate(EVIL):
        name = text.replace("/", "_")
        for k in range(2):
            write(data / f"{name[:60]}{i % 3}" / f"{k}{name}.png", pixels(10, 10 + k, seed=2 * i + k))
        (data / f"{name[:60]}{i % 3}" / f"broken {name}.jpg").write_bytes(b"<html>")
    out = root / "run\"><script>document.title='OWNED'<"
    byol.train(data, out, set=("hidden=4", "dim=2", "channels_last=true"), **TINY)
    byol.evaluate(out, data, protocols=("knn",), draws=1, device="cpu")
    return out


def poisoned(value, text):
    if isinstance(value, dict):
        return {k: poisoned(v, text) for k, v in value.items()} | {text: text}
    return text if isinstance(value, str) else [poisoned(v, text) for v in value] if isinstance(value, list) else value


def harmless_page(text):
    page = Page(text)
    assert {t for t, _ in page.tags} <= set(ALLOWED.split())
    assert sum(t == "script" for t, _ in page.tags) == 1
    for tag, attributes in page.tags:
        assert not [k for k in attributes if k.startswith("on") or k in ("srcdoc", "formaction", "xlink:href")], attributes
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert attributes.get("href", "#").startswith("#")
        assert tag != "meta" or attributes.get("http-equiv") in (None, "Content-Security-Policy")
        if "data-chart" in attributes:
            json.loads(attributes["data-chart"])
        if tag != "div" or "map" not in attributes.get("class", ""):
            assert "url(" not in attributes.get("style", "")
    assert not [c for c in text if not (c.isprintable() or c in "\n\u00a0")]
    return page


def test_no_name_of_a_file_a_class_or_a_run_becomes_markup(evil, tmp_path):
    out = byol.report(evil, out=tmp_path / "page.html")
    page = harmless_page(out.read_text(encoding="utf-8"))
    said = "".join(page.words) + "".join(str(v) for _, a in page.tags for v in a.values())
    for text in EVIL[:7]:
        assert text.replace("/", "_") in said  # shown, as text


@pytest.mark.parametrize("text", [EVIL[0], EVIL[1], EVIL[8]])
def test_no_value_of_a_run_becomes_markup(evil, tmp_path, monkeypatch, text):
    for extent in ("ONE", "MANY"):
        monkeypatch.setattr(reporting, extent, reporting.Extent(6, 2))
    copy = tmp_path / "run"
    shutil.copytree(evil, copy)
    for name in ("plan.json", "config.json", "data.json", "encoder.json", "evaluations/knn.json"):
        run.write_json(copy / name, poisoned(run.read_json(copy / name), text))
    lines = [json.loads(line) | {"verdict": text, "reason": text, text: 1.0} for line in (copy / "metrics.jsonl").read_text().splitlines()]
    (copy / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    harmless_page(byol.report(copy, out=tmp_path / "page.html").read_text(encoding="utf-8"))
    harmless_page(byol.report(copy, evil, out=tmp_path / "page.html").read_text(encoding="utf-8"))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_a_browser_runs_nothing_of_it(evil, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "ONE", reporting.Extent(6, 2))
    page = byol.report(evil, out=tmp_path / "page.html")
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=2000", f"file://{page}"]
    done = subprocess.run([*words, f"--user-data-dir={tmp_path}/profile"], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or "<html" not in done.stdout:
        pytest.skip("the browser does not start here")
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    assert title.startswith("run")  # a script would have put OWNED in its place
    assert 'class="theme"' in done.stdout
    assert "hidden" not in done.stdout.partition('class="theme"')[2].partition(">")[0]  # our own script ran


def test_nothing_that_is_printed_steers_the_terminal(evil, tmp_path):
    data = next(p for p in evil.parent.iterdir() if "photos" in p.name)
    shutil.copytree(data, tmp_path / EVIL[8].replace("/", "_"))
    spec = tmp_path / EVIL[8].replace("/", "_")
    calls = [
        command("doctor", spec, "--limit", 6, "--json"),
        command("doctor", str(spec) + "\x1b[31mnone"),
        command("evaluate", evil, spec, "--protocol", "none\x1b[31m", "--json"),
        command("embed", "random:small-w1-n2", spec, "--out", tmp_path / "e.npy"),
        command("report", tmp_path / "\x1b[31m\x9b"),
        command("train\x1b[31m", spec),
    ]
    for call in calls:
        printed = call.out + call.err
        assert printed
        assert not [c for c in printed if not (c.isprintable() or c == "\n")], printed


def test_harmless_text_is_left_as_it_is_and_the_rest_is_shown():
    assert harmless("Grüße 猫, τ −1\nnext") == "Grüße 猫, τ −1\nnext"
    assert harmless("a\x1b[31m\x9b\x07\u202e\udcff") == "a\\x1b[31m\\x9b\\x07\\u202e\\udcff"
    assert json.loads(json_line({"a": "\x1b\x9b\u202eü"})) == {"a": "\x1b\x9b\u202eü"}
    assert json_line({"a": "\x9bü"}) == '{"a": "\\u009bü"}'
    assert json.loads(json_line({"a": np.inf, "b": "\udcff"})) == {"a": None, "b": "\udcff"}
    assert reporting.html.printable("\x1b") == "\\x1b"
