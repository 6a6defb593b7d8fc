"""The code blocks of README.md and docs/: what can be run here is run, and every other `byol` line is one that the program takes.

Run, in their order, in a folder of its own for each page, with small data of the test's own: the ```bash and ```python blocks of every page
that has them, so of README.md, of the first page and of docs/howto/. They run as they stand, but: `byol train` that says no length
gets `--epochs 1`; a page that trains no `runs/photos` itself finds one; and the lines of `only_read` are not run, nor what imports a
package that is not here. A line that is meant to fail says so behind it: `# exit code 1`. The ```slurm scripts run with programs in place
of the cluster's and of byol that write down what they were called with.

Only read by the parser, with the names of settings and protocols: indented `byol` lines, which are of data that took hours.
"""

import ast
import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
from cli_calls import byol
from PIL import Image
from sound_files import tones

from byol import evaluation, families, methods, modalities, others
from byol.cli.options import PROTOCOLS, Ablate, Evaluate, Train
from byol.cli.usage import parse
from byol.config import Settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.M | re.S)
WITH_BLOCKS = [p for p in PAGES if BLOCK.search(p.read_text(encoding="utf-8"))]

# What a page writes for something of the reader's, where the parser wants a number or one of its own words.
STAND_INS = {
    "N": "1",
    "S": "1",
    "B": "8",
    "D": "1",
    "MS": "40",
    "REV": "1",
    "METHOD": "byol",
    "alpha=A": "alpha=1",
    "predictor=NAME": "predictor=mlp",
}


def named(page):
    return str(page.relative_to(ROOT))


def commands(text):
    """The lines of a shell block, comments apart, and the exit code that each says it ends with."""
    for line in text.splitlines():
        words, _, comment = line.partition(" #")
        if words.strip() and not words.startswith("#"):
            told = re.search(r"exit code (\d+)", comment)
            yield words.strip(), int(told[1]) if told else 0


def byol_lines(page):
    """Every `byol` line of a page, fenced or indented by four spaces, as words."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = [body for kind, body in BLOCK.findall(text) if kind == "bash"]
    indented = "\n".join(re.findall(r"^    (\S.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M))
    for line, _ in commands("\n".join([*fenced, indented])):
        found = re.match(r"(?:\$ |uv run |torchrun .* -m )?byol (?=[a-z])(.*)", line)
        if found:
            yield [STAND_INS.get(w, w) for w in shlex.split(found[1])]


@pytest.mark.parametrize("page", [p for p in PAGES if list(byol_lines(p))], ids=named)
def test_every_byol_line_is_one_that_the_program_takes(page):
    for words in byol_lines(page):
        words = ["tau_base" if w == "NAME" and words[0] == "ablate" else w for w in words]
        asked = parse(words)
        if isinstance(asked, (Train, Ablate)):
            assert {pair.partition("=")[0].split(".")[-1] for pair in asked.set} <= settings(), words
        if isinstance(asked, Evaluate):
            assert {p.partition(":")[0] for p in asked.protocol} <= set(PROTOCOLS), words
            for protocol in asked.protocol:
                family = families.of(protocol) if protocol.partition(":")[0] in families.names() else evaluation
                family.load(protocol)  # ValueError for a setting that it has not


def settings():
    """The names that `--set` takes, of any method and any kind of data."""
    kinds = [Settings, *(methods.load(m).Config for m in methods.names())]
    kinds += [modalities.of(m).Pipeline for m in ("image", "sound", "recording", "rgbd", "volume")]
    return {f.name for kind in kinds for f in dataclasses.fields(kind)}


def only_read(line):
    """What is not run here: what changes the environment, takes minutes, starts processes of its own, or needs a network."""
    others = ("pip install", "uv run", "pytest", "torchrun", "byol demo", "byol push", "byol pull")  # demo: tests/test_demo.py
    return line.startswith(others) or "--devices" in line or "--pretrained" in line  # --devices: tests/test_dist.py


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """photos/ of two kinds that a network can tell apart, more/ of the same, sounds/ of two kinds, and a run on photos/."""
    folder, noise = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for place, n in (("photos", 32), ("more", 16)):
        for kind, colour in (("daisy", (220, 200, 40)), ("rose", (200, 30, 60))):
            (folder / place / kind).mkdir(parents=True)
            for i in range(n):
                picture = np.clip(noise.normal(colour, 40, (32, 40, 3)), 0, 255).astype("uint8")
                Image.fromarray(picture).save(folder / place / kind / f"{i:03}.png")
    tones(folder / "sounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert byol("train", "photos/", "--out", "runs/photos", "--epochs", "1").code == 0
    return folder


def trains_photos(text):
    """Whether a page makes `runs/photos` itself: by name, or as what `byol train photos/` makes where there is none."""
    return re.search(r"--out runs/photos\n|^byol train photos/$", re.sub(" *#.*", "", text), re.M)


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=named)
def test_the_blocks_of_a_page_run_in_their_order(page, data, tmp_path, monkeypatch):
    text = page.read_text(encoding="utf-8")
    here = tmp_path / "here"
    shutil.copytree(data, here, ignore=shutil.ignore_patterns("runs") if trains_photos(text) else None)
    monkeypatch.chdir(here)
    PREPARED.get(named(page), lambda: None)()
    names = {"__name__": "docs"}
    for kind, block in BLOCK.findall(text):
        if kind == "python":
            if not all(importlib.util.find_spec(package) for package in imported(block)):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", others.Notice)  # that weights of others have a licence is no mistake of a page
                exec(compile(block, str(page), "exec"), names)
            continue
        for line, code in commands(block):
            if only_read(line):
                continue
            words = shlex.split(line)
            assert words[0] == "byol", f"{line}: neither a byol command nor one of `only_read`"
            lengths = {"--epochs", "--minutes", "--dry-run"}
            words += ["--epochs", "1"] if words[1] == "train" and not lengths & {*words} else []
            call = byol(*words[1:])
            assert call.code == code, f"{line}\n{call.err}"


def imported(block):
    """The packages that a block imports; SyntaxError where it is no Python."""
    for node in ast.walk(ast.parse(block)):
        names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names] if isinstance(node, ast.Import) else []
        yield from (name.partition(".")[0] for name in names)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_is_fenced_so_that_it_is_run(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert re.findall(r"^    (?:import \w|from \w+ import |\w+ = \w+[.(]).*$", text, re.M) == []


def for_encoders():
    """docs/encoders.md loads what others wrote: residual nets as a run stores them, of large and of small images, graphs, and a sound."""
    from byol import encoders, exporting

    shutil.copy(next(Path("sounds").rglob("*.wav")), "clip.wav")
    for run, size in (("photos", 96), ("tiny", 32)):
        net = encoders.load("resnet18", input=encoders.Input(channels=3, size=size, mean=(0.5,) * 3, std=(0.25,) * 3))
        os.makedirs(f"runs/{run}", exist_ok=True)
        exporting.save_encoder(net, Path(f"runs/{run}/encoder.safetensors"), extra={})
    small = encoders.load("small-w8", input=encoders.Input(channels=3, size=32, mean=(0.5,) * 3, std=(0.25,) * 3))
    for name in ("photos.onnx", "photos.pt2"):
        exporting.save_encoder(small, Path(name), extra={})


def for_sharing():
    """docs/sharing.md opens a folder for the Hub, of an encoder that timm has."""
    from byol import encoders, exporting

    net = encoders.load("resnet18-stem7", input=encoders.Input(channels=3, size=40, mean=(0.5,) * 3, std=(0.25,) * 3))
    exporting.save_encoder(net, Path("encoder.safetensors"), extra={})
    assert byol("export", "encoder.safetensors", "--out", "photos-encoder", "--format", "hub").code == 0


def for_sound():
    """docs/sound.md has a run on sounds."""
    Path("sounds/dog").mkdir()
    shutil.copy(next(Path("sounds").rglob("*.wav")), "sounds/dog/1.wav")
    assert byol("train", "sounds/", "--out", "runs/sounds", "--epochs", "1").code == 0


PREPARED = {"docs/encoders.md": for_encoders, "docs/sharing.md": for_sharing, "docs/sound.md": for_sound}


SCRIPT = re.compile(r"^```slurm\n(.*?)^```", re.M | re.S)
CLUSTER = {  # in place of what a cluster has: each writes down what it was called with
    "srun": 'while [[ $1 == --* ]]; do shift; done; "$@"',
    "scontrol": 'echo "scontrol $*" >> calls; if [ $1 = show ]; then echo node-a; fi',
    "byol": 'echo "byol $*" >> calls; exit 75',
    "torchrun": 'echo "torchrun $*" >> calls; exit 1',
}


@pytest.mark.parametrize("page", [p for p in PAGES if SCRIPT.search(p.read_text(encoding="utf-8"))], ids=named)
@pytest.mark.parametrize("begun", [False, True])
def test_a_script_for_slurm_trains_or_goes_on_and_asks_to_be_started_again(page, begun, tmp_path):
    for name, does in CLUSTER.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/bash\n{does}\n")
        program.chmod(0o755)
    (tmp_path / "RUN").mkdir()
    if begun:
        (tmp_path / "RUN" / "plan.json").touch()
    (tmp_path / "RUN" / "last.safetensors").touch()
    (script,) = SCRIPT.findall(page.read_text(encoding="utf-8"))
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_NNODES": "4", "SLURM_NODEID": "2"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode in (1, 75), done.stderr
    *_, call, last = (tmp_path / "calls").read_text().splitlines()
    assert last == "scontrol requeue 7"
    words = call.partition("-m byol " if "torchrun" in call else "byol ")[2].split()
    assert words[:2] == (["resume", "RUN"] if begun else ["train", "photos/"])
    parse(words)
    if call.startswith("torchrun"):
        assert "--nnodes 4 --node-rank 2 --nproc-per-node 8 --master-addr node-a" in call
