import json
import os
import re
import subprocess
import sys
import textwrap

import pytest
import timm
import torch
import torchvision
from cli_calls import TINY, TINY_SET, byol, stripes
from hub_server import COMMIT, serving
from safetensors.torch import load_file
from torch import nn

import byol as package
from byol import foreign, hub
from byol.encoders import Encoder, Input, load, wrap

FILES = ["README.md", "config.json", "model.json", "model.safetensors"]


def trained(name, size, channels=3):
    """An encoder whose statistics have moved, so that eval mode is no identity."""
    seen = Input(channels=channels, size=size, mean=(0.5,) * channels, std=(0.25,) * channels, resize=size + 4)
    encoder = load(name, input=seen, seed=3)
    with torch.no_grad():
        encoder(batch(encoder, 4))
    return encoder.eval()


def batch(encoder, n):
    return torch.randn(n, *encoder.input.shape, generator=torch.Generator().manual_seed(n))


@torch.no_grad()
def assert_same_features(net, encoder):
    for n in (1, 6):
        torch.testing.assert_close(net.eval()(batch(encoder, n)), encoder(batch(encoder, n)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "channels", "plain"),
    [
        ("resnet18", 96, 3, {"model_name": "resnet18"}),
        ("resnet18-stem7", 40, 4, {"model_name": "resnet18", "in_chans": 4}),
        ("test_vit", 48, 1, {"model_name": "test_vit", "img_size": 48, "in_chans": 1}),
        ("timm:mobilenetv3_small_050", 64, 3, {"model_name": "mobilenetv3_small_050"}),
    ],
)
def test_plain_timm_loads_the_file_strictly_and_gives_the_same_features(name, size, channels, plain, tmp_path):
    encoder = trained(name, size, channels)
    package.export(encoder, tmp_path / "a.safetensors", format="timm")
    net = timm.create_model(**plain, num_classes=0)
    net.load_state_dict(load_file(tmp_path / "a.safetensors"), strict=True)
    assert_same_features(net, encoder)


@pytest.mark.parametrize(("name", "size", "channels"), [("resnet18", 96, 3), ("resnet18", 32, 3), ("resnet18-stem7", 40, 2)])
def test_plain_torchvision_loads_the_file_strictly_and_gives_the_same_features(name, size, channels, tmp_path):
    encoder = trained(name, size, channels)
    package.export(encoder, tmp_path / "a.safetensors", format="torchvision")
    net = torchvision.models.resnet18()
    net.fc = nn.Identity()
    if size == 32:
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    elif channels != 3:
        net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    net.load_state_dict(load_file(tmp_path / "a.safetensors"), strict=True)
    assert_same_features(net, encoder)


@pytest.mark.parametrize(("library", "size"), [("timm", 96), ("torchvision", 96), ("torchvision", 32)])
def test_the_lines_that_are_shown_build_the_network(library, size):
    encoder = trained("resnet18", size)
    names = {}
    exec("\n".join(foreign.plain(encoder, library).lines), names)
    names["net"].load_state_dict(encoder.net.state_dict())
    assert_same_features(names["net"], encoder)


@pytest.mark.parametrize(
    ("name", "library", "sentence"),
    [
        ("resnet18", "timm", r"resnet18 for 32 px is built otherwise than timm's resnet18 \(size mismatch for conv1.weight"),
        ("small-w8", "timm", "timm has no network small-w8"),
        ("resnet18+gn", "torchvision", r"resnet18\+gn is not built as plain torchvision builds resnet18"),
        ("test_vit", "torchvision", "torchvision has no network timm:test_vit"),
        ("audio", "timm", "takes log-mels of sound"),
    ],
)
def test_what_a_library_does_not_have_is_refused_and_nothing_is_written(name, library, sentence, tmp_path):
    heard = package.encoders.SoundInput(mean=-5.0, std=4.0)
    encoder = load("audio-small", input=heard) if name == "audio" else trained(name, 32)
    with pytest.raises(ValueError, match=sentence):
        package.export(encoder, tmp_path / "a.safetensors", format=library)
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_the_same_names_and_other_features_is_refused(tmp_path):
    class Louder(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return 1.001 * self.net(x)

        def state_dict(self, **how):
            return self.net.state_dict(**how)

    encoder = trained("resnet18", 96)
    other = Encoder(Louder(encoder.net), dim=512, input=encoder.input, name="resnet18")
    with pytest.raises(ValueError, match="timm's resnet18 does not give the features"):
        package.export(other, tmp_path / "a.safetensors", format="timm")


@pytest.mark.parametrize(("name", "size", "channels"), [("resnet18", 96, 3), ("test_vit", 48, 4), ("resnet18-stem7", 32, 1)])
def test_timm_loads_a_folder_for_the_hub_with_the_same_features_and_preprocessing(name, size, channels, tmp_path):
    encoder = trained(name, size, channels)
    package.export(encoder, tmp_path / "net", format="hub")
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == FILES
    net = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True)
    assert_same_features(net, encoder)
    config = timm.data.resolve_model_data_config(net)
    assert tuple(config["input_size"]) == encoder.input.shape
    assert (tuple(config["mean"]), tuple(config["std"])) == (encoder.input.mean, encoder.input.std)
    assert int(size / config["crop_pct"]) == size + 4


@pytest.mark.parametrize("channels", [3, 1])
def test_transformers_loads_a_folder_for_the_hub_by_the_code_of_the_card(channels, tmp_path, monkeypatch):
    encoder = trained("resnet18", 96, channels)
    package.export(encoder, tmp_path / "net", format="hub")
    blocks = re.findall(r"```python\n(.*?)```", (tmp_path / "net" / "README.md").read_text(), re.S)
    [code] = [block for block in blocks if "transformers" in block]
    assert ("AutoImageProcessor" in code) == (channels == 3)
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path / "net")
    names = {}
    exec(code, names)
    for n in (1, 6):
        with torch.no_grad():
            torch.testing.assert_close(names["model"](batch(encoder, n)).pooler_output, encoder(batch(encoder, n)), rtol=1e-5, atol=1e-5)


def test_a_classifier_can_be_put_on_a_folder_for_the_hub(tmp_path):
    encoder = trained("resnet18", 96)
    package.export(encoder, tmp_path / "net", format="hub")
    net = timm.create_model(f"local-dir:{tmp_path / 'net'}", pretrained=True, num_classes=7).eval()
    with torch.no_grad():
        assert net(batch(encoder, 2)).shape == (2, 7)
        torch.testing.assert_close(net.forward_head(net.forward_features(batch(encoder, 2)), pre_logits=True), encoder(batch(encoder, 2)))


def test_an_encoder_that_timm_does_not_have_is_in_a_folder_for_byol(tmp_path):
    encoder = trained("small-w8", 16)
    package.export(encoder, tmp_path / "net", format="hub")
    assert_same_features(package.load(tmp_path / "net"), encoder)
    assert "architecture" not in json.loads((tmp_path / "net" / "config.json").read_text())
    card = (tmp_path / "net" / "README.md").read_text()
    assert "library_name: byol" in card
    assert "import timm" not in card


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is there already; give a new folder"):
        package.export(trained("small-w8", 16), tmp_path, format="hub")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_module_of_ones_own_goes_to_the_hub_with_a_word_on_how_to_load_it(tmp_path):
    seen = Input(channels=3, size=16, mean=(0.5,) * 3, std=(0.2,) * 3)
    own = wrap(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), input=seen)
    package.export(own, tmp_path / "net", format="hub")
    assert 'byol.load(".", net=YOUR_MODULE)' in (tmp_path / "net" / "README.md").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    data = stripes(folder / "stripes|`x`")
    options = [*TINY, "--encoder", "test_vit", "--image-size", "32", "--epochs", "1", *TINY_SET]
    assert byol("train", data, "--out", folder / "run", *options).code == 0
    assert byol("evaluate", folder / "run", data, "--protocol", "knn").code == 0
    return folder / "run"


def test_the_card_says_data_recipe_health_worth_and_licence(run, tmp_path):
    done = byol("export", run, "--out", tmp_path / "net", "--format", "hub")
    assert done.code == 0, done.err
    card = (tmp_path / "net" / "README.md").read_text()
    fingerprint = json.loads((run / "data.json").read_text())["fingerprint"]
    assert "Data: `stripes  x`, 64 images" in card  # nothing of a name is Markdown
    assert fingerprint in card
    assert str(run.parent) not in card.replace("stripes|", "")  # nor are the folders of this machine anybody's business
    assert "| encoder | test_vit |" in card
    assert "byol train DATA --encoder test_vit" in card
    assert "Health at the end: " in card
    knn = json.loads((run / "evaluations" / "knn.json").read_text())
    assert knn["description"].split(",")[0] in card
    assert "random test_vit" in card or "random timm:test_vit" in card
    assert "Licence of the data: unknown" in card
    assert byol("export", run, "--out", tmp_path / "b", "--format", "hub", "--data-licence", "CC BY 4.0").code == 0
    assert "Licence of the data: CC BY 4.0." in (tmp_path / "b" / "README.md").read_text()


def test_the_header_of_the_card_is_what_the_hub_reads(run, tmp_path):
    from huggingface_hub import ModelCard

    package.export(run, tmp_path / "net", format="hub")
    header = ModelCard.load(tmp_path / "net" / "README.md").data
    assert header.library_name == "timm"
    assert header.pipeline_tag == "image-feature-extraction"
    assert header.tags == ["self-supervised-learning", "byol"]


def in_a_new_process(code, address, home, **more):
    env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    env = {k: v for k, v in env.items() if k not in ("HF_TOKEN", "HF_HUB_OFFLINE")} | more
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True, timeout=300)


def test_what_is_pushed_is_pulled_and_loaded_by_timm_without_byol(run, tmp_path):
    repos = {}
    encoder = package.load(run)
    torch.save(batch(encoder, 3), tmp_path / "x.pt")
    with serving(repos) as address:
        done = in_a_new_process(
            f"""
            from byol.cli import main
            assert main(["push", {str(run)!r}, "me/stripes", "--data-licence", "CC0"]) == 0
            assert main(["pull", "me/stripes", "--out", {str(tmp_path / "net")!r}]) == 0
            assert main(["pull", "me/nothing", "--out", {str(tmp_path / "other")!r}]) == 2
            assert main(["pull", "me", "--out", {str(tmp_path / "other")!r}]) == 2
            """,
            address,
            tmp_path / "home",
            HF_TOKEN="hf_x",
        )
        assert done.returncode == 0, done.stderr
        assert f"/me/stripes/commit/{COMMIT}" in done.stdout
        assert "me/nothing: " in done.stderr
        assert "there is no such repository" in done.stderr
        assert "me is no repository of the Hub; give OWNER/NAME" in done.stderr
        assert sorted(repos["me/stripes"]) == FILES
        theirs = in_a_new_process(
            f"""
            import sys
            sys.modules["byol"] = None
            import timm, torch
            net = timm.create_model("hf-hub:me/stripes", pretrained=True).eval()
            with torch.no_grad():
                torch.save(net(torch.load({str(tmp_path / "x.pt")!r})), {str(tmp_path / "y.pt")!r})
            """,
            address,
            tmp_path / "home",
        )
        assert theirs.returncode == 0, theirs.stderr
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "y.pt"), encoder(batch(encoder, 3)), rtol=1e-5, atol=1e-5)
    assert sorted(p.name for p in (tmp_path / "net").iterdir()) == FILES
    assert_same_features(package.load(tmp_path / "net"), encoder)
    assert 'timm.create_model("hf-hub:me/stripes", pretrained=True)' in repos["me/stripes"]["README.md"].decode()


def test_a_push_without_a_token_says_how_to_log_in(tmp_path):
    package.export(trained("small-w8", 16), tmp_path / "net", format="hub")
    with serving({}) as address:
        code = f"from byol.cli import main; raise SystemExit(main(['push', {str(tmp_path / 'net')!r}, 'me/net']))"
        done = in_a_new_process(code, address, tmp_path / "home")
    assert done.returncode == 2
    assert "hf auth login" in done.stderr
    assert "Traceback" not in done.stderr


def test_weights_that_were_changed_on_the_way_are_refused(tmp_path, monkeypatch):
    package.export(trained("small-w8", 16), tmp_path / "net", format="hub")
    weights = bytearray((tmp_path / "net" / "model.safetensors").read_bytes())
    weights[-1] ^= 1

    def fetched(repo, *, local_dir, **how):
        for name in FILES:
            data = bytes(weights) if name == "model.safetensors" else (tmp_path / "net" / name).read_bytes()
            (type(tmp_path)(local_dir) / name).write_bytes(data)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    with pytest.raises(ValueError, match="SHA-256"):
        hub.pull("me/net", tmp_path / "out")
    assert not (tmp_path / "out").exists()
