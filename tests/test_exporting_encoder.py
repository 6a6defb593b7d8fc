import contextlib
import io
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from byol import exporting
from byol.encoders import Encoder, Input, SoundInput, load, wrap
from byol.exporting import load_encoder, save_encoder
from byol.logmel import FrontEnd

DOCS = Path(__file__).parents[1] / "docs" / "encoders.md"


def of(size, channels=3):
    return Input(channels=channels, size=size, mean=(0.5,) * channels, std=(0.25,) * channels, resize=size + 4)


def trained(name, input):
    """An encoder whose statistics have moved, so that eval mode is no identity."""
    encoder = load(name, input=input, seed=3)
    with torch.no_grad():
        encoder(torch.linspace(-2, 2, 4 * input.channels * input.size**2).view(4, input.channels, input.size, input.size).sin())
    return encoder.eval()


def batch(encoder, size):
    i = encoder.input
    return torch.randn(size, i.channels, i.size, i.size, generator=torch.Generator().manual_seed(size))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("name", ["small-w8", "small-w8-s2-d2", "resnet18", "resnet18-stem7", "test_vit", "mobilenetv3_small_050"])
def test_an_encoder_comes_back_bit_for_bit(name, tmp_path):
    encoder = trained(name, of(32))
    save_encoder(encoder, tmp_path / "a.safetensors", extra={"run": "runs/photos", "step": 7})
    back = load_encoder(tmp_path / "a.safetensors")
    assert same(back.net.state_dict(), encoder.net.state_dict())
    assert (back.name, back.dim, back.input, back.training) == (encoder.name, encoder.dim, encoder.input, False)
    with torch.no_grad():
        assert torch.equal(back(batch(back, 2)), encoder(batch(encoder, 2)))


def test_a_run_folder_is_read_like_its_encoder_file(tmp_path):
    encoder = trained("small-w8", of(16))
    save_encoder(encoder, tmp_path / "run" / "encoder.safetensors", extra={})
    assert same(load_encoder(tmp_path / "run").net.state_dict(), encoder.net.state_dict())
    with pytest.raises(ValueError, match=r"no encoder.safetensors.*byol resume"):
        load_encoder(tmp_path)


def test_the_description_says_what_there_is_to_know(tmp_path):
    encoder = trained("small-w8", of(16, channels=4))
    save_encoder(encoder, tmp_path / "a.safetensors", extra={"step": 7})
    facts = json.loads((tmp_path / "a.json").read_text())
    assert facts["name"] == "small-w8"
    assert facts["dim"] == 64
    assert facts["provenance"] == {"step": 7}
    assert Input.from_json(facts["input"]) == encoder.input
    assert facts["weights"] == "a.safetensors"
    assert set(facts) == {"format", "name", "custom", "dim", "input", "byol", "provenance", "weights", "sha256"}


def test_where_weights_come_from_survives_a_second_export(tmp_path):
    save_encoder(trained("small-w8", of(16)), tmp_path / "a.safetensors", extra={"step": 7, "network": "?"})
    back = load_encoder(tmp_path / "a.safetensors")
    save_encoder(back, tmp_path / "b.safetensors", extra={"network": "online"})
    assert load_encoder(tmp_path / "b.safetensors").provenance == {"step": 7, "network": "online"}


def test_the_keys_are_those_of_timm_and_torchvision(tmp_path):
    for name, theirs in (("resnet18", torchvision.models.resnet18()), ("test_vit", timm.create_model("test_vit", img_size=32))):
        save_encoder(trained(name, of(32)), tmp_path / "a.safetensors", extra={})
        assert set(load_file(tmp_path / "a.safetensors")) == {k for k in theirs.state_dict() if not k.startswith(("fc.", "head."))}


def test_a_loaded_encoder_is_not_redrawn(tmp_path):
    save_encoder(trained("small-w8", of(16)), tmp_path / "a.safetensors", extra={})
    assert not hasattr(load_encoder(tmp_path / "a.safetensors"), "reset_parameters")


def test_channels_last_and_tied_weights_are_stored(tmp_path):
    encoder = trained("small-w8", of(16)).to(memory_format=torch.channels_last)
    save_encoder(encoder, tmp_path / "a.safetensors", extra={})
    assert same(load_encoder(tmp_path / "a.safetensors").net.state_dict(), encoder.net.state_dict())
    tied = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))
    tied[1].weight = tied[0].weight
    save_encoder(wrap(tied, input=of(16)), tmp_path / "b.safetensors", extra={})
    assert same(
        load_encoder(tmp_path / "b.safetensors", net=nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1))).net.state_dict(),
        tied.state_dict(),
    )


def test_a_module_of_ones_own_comes_back_with_net_and_says_so_without(tmp_path):
    encoder = wrap(nn.Conv2d(3, 7, 3), input=of(8), name="resnet18")  # a name that is also ours
    save_encoder(encoder, tmp_path / "a.safetensors", extra={})
    with pytest.raises(ValueError, match=r"module of your own \(resnet18\); pass that module as net="):
        load_encoder(tmp_path / "a.safetensors")
    back = load_encoder(tmp_path / "a.safetensors", net=nn.Conv2d(3, 7, 3))
    assert same(back.net.state_dict(), encoder.net.state_dict())
    assert (back.custom, back.dim, back.name) == (True, 7, "resnet18")
    with pytest.raises(ValueError, match="does not fit"):
        load_encoder(tmp_path / "a.safetensors", net=nn.Conv2d(3, 8, 3))
    with pytest.raises(ValueError, match="does not fit"):
        load_encoder(tmp_path / "a.safetensors", net=nn.Sequential(nn.Conv2d(3, 7, 3)))


@pytest.fixture
def saved(tmp_path):
    save_encoder(trained("small-w8", of(16)), tmp_path / "a.safetensors", extra={})
    return tmp_path / "a.safetensors"


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def edit(key, value):
    def change(path):
        facts = json.loads(path.with_suffix(".json").read_text())
        facts[key] = value
        path.with_suffix(".json").write_text(json.dumps(facts))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "truncated or was changed"),
        (flip_a_bit, "truncated or was changed"),
        (lambda p: p.write_bytes(b""), "truncated or was changed"),
        (lambda p: p.unlink(), "there is no file"),
        (lambda p: p.with_suffix(".json").unlink(), r"no a\.json beside it"),
        (lambda p: p.with_suffix(".json").write_text('{"format": '), "damaged"),
        (lambda p: p.with_suffix(".json").write_text("[]"), "holds no JSON object"),
        (lambda p: p.with_suffix(".json").write_text("{}"), "does not describe an encoder"),
        (edit("name", "small-w16"), "does not fit small-w16"),
        (edit("name", "smal"), "no encoder 'smal'"),
        (edit("dim", 65), "65 features"),
        (edit("input", None), "does not describe an encoder"),
        (edit("input", {"channels": 3}), "does not describe an encoder"),
        (edit("format", "another 1"), "does not describe an encoder"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_sentence(saved, damage, message):
    damage(saved)
    with pytest.raises(ValueError, match=message) as caught:
        load_encoder(saved)
    assert "\n" not in str(caught.value)
    assert str(saved.parent) in str(caught.value)


def test_a_pickled_module_is_never_opened(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(ValueError, match=r"cannot be read without running what is in it: it asks for torch\.nn"):
        load_encoder(path)


def test_a_failed_export_leaves_the_old_files_and_no_others(saved):
    before = {p.name: p.read_bytes() for p in saved.parent.iterdir()}
    with pytest.raises(TypeError):
        save_encoder(load("small-w16", input=of(16)), saved, extra={"not JSON": object()})
    assert {p.name: p.read_bytes() for p in saved.parent.iterdir()} == before


def test_an_unknown_ending_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"'\.pth'; give one of \.safetensors, \.onnx, \.pt2"):
        save_encoder(load("small-w8", input=of(16)), tmp_path / "a.pth", extra={})
    with pytest.raises(ValueError, match="no ending"):
        save_encoder(load("small-w8", input=of(16)), tmp_path / "a", extra={})


# Graphs


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """One encoder as photos.onnx and photos.pt2, exported once: it takes seconds."""
    folder = tmp_path_factory.mktemp("graphs")
    encoder = trained("small-w8", of(32)).train()  # exported in eval mode all the same
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for name in ("photos.onnx", "photos.pt2"):
            save_encoder(encoder, folder / name, extra={"step": 7})
    assert encoder.training
    assert printed.getvalue() == ""  # standard output is the command line's
    assert sorted(p.name for p in folder.iterdir()) == ["photos.onnx", "photos.pt2"]
    return folder, encoder.eval()


def test_onnx_equals_the_encoder_at_every_batch_size(graphs):
    import onnx
    import onnxruntime

    folder, encoder = graphs
    onnx.checker.check_model(str(folder / "photos.onnx"))
    session = onnxruntime.InferenceSession(str(folder / "photos.onnx"), providers=["CPUExecutionProvider"])
    for size in (1, 5, 64):
        with torch.no_grad():
            expected = encoder(batch(encoder, size)).numpy()
        (features,) = session.run(["features"], {"images": batch(encoder, size).numpy()})
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-4)
    about = json.loads(session.get_modelmeta().custom_metadata_map["byol"])
    assert (about["name"], about["dim"], about["provenance"]) == ("small-w8", 64, {"step": 7})


def test_pt2_equals_the_encoder_at_every_batch_size(graphs):
    folder, encoder = graphs
    inside = {"byol": ""}
    net = torch.export.load(folder / "photos.pt2", extra_files=inside).module()
    for size in (1, 5, 64):
        with torch.no_grad():
            torch.testing.assert_close(net(batch(encoder, size)), encoder(batch(encoder, size)), rtol=0, atol=1e-4)
    assert json.loads(inside["byol"])["provenance"] == {"step": 7}


def test_a_graph_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_write_pt2", lambda form, path, about: path.touch() or (lambda x: form.net(x) + 2e-4))
    with pytest.raises(ValueError, match=r"a\.pt2 was not written: .* 0\.0002"):
        save_encoder(wrap(nn.Conv2d(3, 7, 3), input=of(8)), tmp_path / "a.pt2", extra={})
    assert list(tmp_path.iterdir()) == []


HEARD = {
    "audio-small-c4-d16": SoundInput(mean=-8.0, std=5.0),
    "byol-a-v1-d512": SoundInput.of(FrontEnd.at(8000), mean=-8.0, std=5.0, frames=96),
    "byol-a-v2": SoundInput(mean=-8.0, std=5.0),
}
SOUNDS = [
    ("audio-small-c4-d16", "onnx", "waveform"),
    ("audio-small-c4-d16", "pt2", "waveform"),
    ("audio-small-c4-d16", "onnx", "log-mel"),
    ("audio-small-c4-d16", "pt2", "log-mel"),
    ("byol-a-v1-d512", "onnx", "waveform"),
    ("byol-a-v2", "pt2", "waveform"),
]


def graph(path):
    """What a file computes, read as its users read it, and its description."""
    if path.suffix == ".pt2":
        inside = {"byol": ""}
        net = torch.export.load(path, extra_files=inside).module()
        return lambda x: net(x), json.loads(inside["byol"])
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    about = json.loads(session.get_modelmeta().custom_metadata_map["byol"])
    assert about["takes"] == {given.name: given.shape}
    return lambda x: torch.from_numpy(session.run(None, {given.name: x.numpy()})[0]), about


def chirps(count, samples, rate):
    """(count, samples): rising tones in noise, of very different levels, the last of several silent."""
    t = torch.arange(samples) / rate
    tones = (2 * math.pi * (200 * torch.arange(1, count + 1)[:, None] + 300 * t) * t).sin()
    noise = 0.05 * torch.randn(count, samples, generator=torch.Generator().manual_seed(samples))
    levels = torch.logspace(-0.2, -4, count) * (torch.arange(count) < max(1, count - 1))
    return levels[:, None] * (tones + noise)


@pytest.mark.parametrize(("name", "ending", "takes"), SOUNDS)
def test_a_graph_of_sound_equals_the_encoder_at_every_length_and_batch_size(name, ending, takes, tmp_path):
    heard = HEARD[name]
    encoder = load(name, input=heard, seed=3)
    with torch.no_grad():
        encoder(encoder.preprocess(chirps(6, 2 * heard.rate, heard.rate)))  # in train mode: its statistics move
    save_encoder(encoder.eval(), tmp_path / f"a.{ending}", extra={"step": 7}, takes=takes)
    run, about = graph(tmp_path / f"a.{ending}")
    assert (about["input"], about["provenance"]) == (heard.to_json(), {"step": 7})
    assert about["takes"] == {"waveforms": ["batch", "samples"]} if takes == "waveform" else {"log_mels": ["batch", 1, 64, "frames"]}
    for count, seconds in ((4, 0.3), (1, 0.95), (2, 4.1)):
        waves = chirps(count, int(seconds * heard.rate), heard.rate)
        x = encoder.preprocess(waves)
        with torch.no_grad():
            torch.testing.assert_close(run(waves if takes == "waveform" else x), encoder(x), rtol=0, atol=1e-4)
    if takes == "log-mel":
        with torch.no_grad():
            torch.testing.assert_close(run(x[..., :8].contiguous()), encoder(x[..., :8]), rtol=0, atol=1e-4)


def test_waveforms_are_for_graphs_of_sound_alone_and_the_default_of_these(tmp_path):
    heard, seen = load("audio-small-c4-d16", input=HEARD["audio-small-c4-d16"]), load("small-w8", input=of(16))
    for encoder, name, why in ((heard, "a.safetensors", "weights, which take both"), (seen, "a.onnx", "small-w8 takes images")):
        with pytest.raises(ValueError, match=f"{why}; leave --takes out") as caught:
            save_encoder(encoder, tmp_path / name, extra={}, takes="log-mel")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    save_encoder(heard, tmp_path / "a.pt2", extra={})
    assert "waveforms" in graph(tmp_path / "a.pt2")[1]["takes"]


def test_a_network_for_images_of_one_size_is_refused_for_sounds_of_any_length(tmp_path):
    encoder = load("test_vit", input=SoundInput(mean=-8.0, std=5.0, frames=64))
    with pytest.raises(ValueError, match=r"torch cannot write timm:test_vit as \.pt2: .*; export \.safetensors") as caught:
        save_encoder(encoder, tmp_path / "a.pt2", extra={})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Undecided(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_a_module_that_torch_cannot_export_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"torch cannot write custom as \.pt2") as caught:
        save_encoder(wrap(Undecided(), input=of(8)), tmp_path / "a.pt2", extra={})
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_onnx_packages_are_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=re.escape('pip install "byol[onnx]"')):
        save_encoder(load("small-w8", input=of(16)), tmp_path / "a.onnx", extra={})


# The page about it


def test_the_examples_of_the_page_run_and_read_our_weights(graphs, monkeypatch):
    folder, small = graphs
    monkeypatch.chdir(folder)
    large, tiny = trained("resnet18", of(96)), trained("resnet18", of(32))
    save_encoder(large, Path("runs/photos/encoder.safetensors"), extra={})
    save_encoder(tiny, Path("runs/tiny/encoder.safetensors"), extra={})
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    changed, *seen = [run(block) for block in blocks if "clip.wav" not in block]  # tests/test_docs_blocks.py runs that one
    assert isinstance(changed["net"][1], torch.nn.GroupNorm)
    assert isinstance(seen[0]["encoder"], Encoder)
    for space, encoder in zip(seen[1:4], (large, large, tiny), strict=True):
        with torch.no_grad():
            torch.testing.assert_close(space["net"].eval()(batch(encoder, 2)), encoder(batch(encoder, 2)), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        expected = small(torch.zeros(2, 3, 32, 32))
    for space in seen[4:]:
        torch.testing.assert_close(torch.as_tensor(space["features"]), expected, rtol=0, atol=1e-4)
    assert len(seen) == 6


def run(code):
    space = {}
    exec(code, space)
    return space
