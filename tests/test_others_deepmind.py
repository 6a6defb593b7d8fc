"""DeepMind's BYOL networks: names, SAME padding, and a reader of pickles in which nothing runs.

`haiku_byol.pkl.gz` was written by dill (protocol 2) from a small network of dm-haiku 0.0.17, built of the blocks and named as in the
released code, with random weights and statistics; FEATURES are Haiku's own outputs. The released files were not at hand.
"""

import collections
import gzip
import os
import pickle
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import byol
from byol.encoders.resnet import DEPTHS, STEM_LARGE, ResNet, Shape, resnet, same_padding
from byol.others import deepmind, pickles

pytestmark = pytest.mark.filterwarnings("ignore::byol.others.Notice")
FIXTURE = Path(__file__).parent / "haiku_byol.pkl.gz"
FEATURES = {  # pixels -> of the image sin(0.37 i), i counting along (H, W, C)
    20: [0, 0, 0.229402, 0.037787, 0.015207, 0.294885, 0, 0, 0, 0.266467, 0.218229, 0.450581, 0.432725, 0.375802, 0.408364, 0.09562],
    17: [0, 0, 0.241714, 0.032539, 0.02308, 0.322257, 0, 0, 0, 0.270111, 0.223115, 0.4305, 0.435771, 0.346168, 0.395336, 0.095713],
}


# -- the padding


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "pads"),
    [
        (224, 7, 2, (2, 3)), (225, 7, 2, (3, 3)), (112, 3, 2, (0, 1)), (56, 3, 2, (0, 1)),
        (55, 3, 2, (1, 1)), (56, 3, 1, (1, 1)), (56, 1, 2, (0, 0)),
    ],
)  # fmt: skip
def test_pads_are_those_of_same(n, kernel, stride, pads):
    assert same_padding(n, kernel, stride) == pads


def test_at_225_pixels_both_paddings_are_the_same_and_at_224_they_are_not():
    draw = torch.Generator().manual_seed(0)
    theirs = torchvision.models.resnet18().eval()
    theirs.fc = nn.Identity()
    encoder = byol.encoders.load("resnet18-stem7-same", input=byol.encoders.Input(channels=3, size=225, mean=(0.5,) * 3, std=(0.5,) * 3))
    encoder.net.load_state_dict(theirs.state_dict())
    encoder.eval()
    with torch.no_grad():
        for size, alike in ((225, True), (224, False)):
            x = torch.randn(1, 3, size, size, generator=draw)
            assert torch.allclose(encoder(x), theirs(x), rtol=1e-5, atol=1e-5) == alike


# -- the names


def tree(depth, width, make=lambda *shape: torch.empty(shape, device="meta")):
    """Parameters and statistics under Haiku's names, written down from the released code, in its order of dimensions."""
    params, state, net = {}, {}, f"res_net{depth}/~/"

    def conv(name, size, inputs, outputs):
        params[net + name] = {"w": make(size, size, inputs, outputs)}

    def norm(name, channels):
        params[net + name] = {"scale": make(1, 1, 1, channels), "offset": make(1, 1, 1, channels)}
        for which in ("mean_ema", "var_ema"):
            state[f"{net}{name}/~/{which}"] = {"average": make(1, 1, 1, channels), "hidden": make(1, 1, 1, channels), "counter": make()}

    conv("initial_conv", 7, 3, 64 * width)
    norm("initial_batchnorm", 64 * width)
    inputs = 64 * width
    for g, blocks in enumerate(DEPTHS[depth]):
        outputs = 256 * 2**g * width
        for b in range(blocks):
            start = f"block_group_{g}/~/block_{b}/~/"
            for k, (size, i, o) in enumerate([(1, inputs, outputs // 4), (3, outputs // 4, outputs // 4), (1, outputs // 4, outputs)]):
                conv(f"{start}conv_{k}", size, i, o)
                norm(f"{start}batchnorm_{k}", o)
            if b == 0:
                conv(f"{start}shortcut_conv", 1, inputs, outputs)
                norm(f"{start}shortcut_batchnorm", outputs)
            inputs = outputs
    for head, i in (("projector", inputs), ("predictor", 256)):
        params |= {f"{head}/linear": {"w": make(i, 8), "b": make(8)}, f"{head}/linear_1": {"w": make(8, 256)}}
        params[f"{head}/batch_norm"] = {"scale": make(1, 8), "offset": make(1, 8)}
        state[f"{head}/batch_norm/~/mean_ema"] = {"average": make(1, 8)}
    return params | {"classifier": {"w": make(inputs, 10), "b": make(10)}}, state


@pytest.mark.parametrize(("depth", "width", "parameters"), [(50, 1, 23_508_032), (200, 2, 250_128_512)])
def test_every_name_has_its_place_and_every_place_its_shape(depth, width, parameters):
    params, state = tree(depth, width)
    found, heads = deepmind.torch_names(params, state)
    with torch.device("meta"):
        wanted = resnet(depth, width).state_dict()
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}
    assert sum(v.numel() for k, v in found.items() if not k.endswith(("mean", "var", "tracked"))) == parameters
    assert heads == ["classifier", "predictor", "projector"]
    assert (depth == 200) == ("layer3.35.conv2.weight" in found)


@pytest.mark.parametrize("name", ["res_net50/~/final_batchnorm", "res_net50/~/block_group_0/~/block_0/~/conv", "other"])
def test_a_leaf_without_a_place_is_refused(name):
    params, state = tree(50, 1)
    with pytest.raises(ValueError, match=f"{name}/scale of shape .* has no place"):
        deepmind.torch_names(params | {name: {"scale": torch.empty(3)}}, state)


# -- whole files


def test_the_features_of_a_small_network_are_haikus_own(tmp_path):
    (tmp_path / "x.pkl").write_bytes(gzip.decompress(FIXTURE.read_bytes()))
    found, heads = deepmind.torch_names(*deepmind.online(pickles.read(tmp_path / "x.pkl")))
    net = ResNet(Shape((1, 2), True, 2, STEM_LARGE, same=True)).eval()
    net.load_state_dict(found)
    assert heads == ["classifier", "predictor", "projector"]
    for size, features in FEATURES.items():
        x = torch.sin(0.37 * torch.arange(size * size * 3, dtype=torch.float64)).float().reshape(1, size, size, 3).permute(0, 3, 1, 2)
        with torch.no_grad():
            torch.testing.assert_close(net(x)[0], torch.tensor(features), rtol=1e-5, atol=2e-6)


@pytest.fixture
def classes(monkeypatch):
    """The classes of a released file, in modules that are there only while it is written."""
    state = collections.namedtuple("_ByolExperimentState", deepmind.FIELDS, module="byol.byol_experiment")

    class FlatMapping(dict):
        def __reduce__(self):
            return FlatMapping, (dict(self),)

    FlatMapping.__module__, FlatMapping.__qualname__ = "haiku._src.data_structures", "FlatMapping"
    for name, held in (("byol.byol_experiment", state), ("haiku._src.data_structures", FlatMapping)):
        module = types.ModuleType(name)
        setattr(module, held.__name__, held)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "haiku", types.ModuleType("haiku"))
    monkeypatch.setitem(sys.modules, "haiku._src", types.ModuleType("haiku._src"))
    return state, FlatMapping


def test_a_resnet_50_is_an_encoder_with_its_licence(tmp_path, classes, monkeypatch):
    state, mapping = classes
    draw = np.random.default_rng(0)

    def make(*shape):
        if not shape:
            return np.asarray(7, np.int32)
        scale = 0.05 if len(shape) == 4 and shape[0] > 0 and shape[2] > 1 else 1
        return draw.uniform(0.5, 1, shape).astype(np.float32) if shape[:3] == (1, 1, 1) else scale * draw.standard_normal(shape, np.float32)

    online = [mapping({k: mapping(v) for k, v in part.items()}) for part in tree(50, 1, make)]
    content = {
        "experiment_state": state(online[0], online[0], online[1], online[1], ()),
        "step": np.int64(5),
        "rng": np.zeros(2, np.uint32),
    }
    (tmp_path / "res50.pkl").write_bytes(pickle.dumps(content, protocol=2))
    monkeypatch.undo()
    found = byol.load(tmp_path / "res50.pkl")
    assert (found.name, found.dim, found.input.size, found.input.mean) == ("resnet50-stem7-same", 2048, 224, (0.485, 0.456, 0.406))
    assert found.provenance["licence"].startswith("CC BY-NC 4.0")
    assert found.provenance["assumed"] == []
    assert found.provenance["left_out"][:3] == ["classifier", "predictor", "projector"]
    theirs = torchvision.models.resnet50().eval()
    theirs.fc = nn.Identity()
    theirs.load_state_dict(found.net.state_dict())
    w = online[0]["res_net50/~/block_group_2/~/block_5/~/conv_1"]["w"]
    np.testing.assert_array_equal(theirs.layer3[5].conv2.weight.detach(), w.transpose(3, 2, 0, 1))
    x = torch.randn(1, 3, 225, 225)
    with torch.no_grad():
        torch.testing.assert_close(found(x), theirs(x), rtol=1e-5, atol=1e-5)


# -- nothing runs


class Reduced:
    def __init__(self, *made):
        self.made = made

    def __reduce__(self):
        return self.made


SYSTEM = (os.system, ("touch pickle-was-executed",))
HOSTILE = {
    "a call": pickle.dumps(Reduced(*SYSTEM), 2),
    "a call by STACK_GLOBAL": pickle.dumps(Reduced(*SYSTEM), 4),
    "a call inside a list inside a dict": pickle.dumps({"a": [(Reduced(*SYSTEM),)]}, 2),
    "a call of eval": pickle.dumps(Reduced(eval, ("__import__('os').system('touch pickle-was-executed')",)), 2),
    "a call of exec": pickle.dumps(Reduced(exec, ("open('pickle-was-executed', 'w')",)), 4),
    "a state for what has __setstate__": b"\x80\x02cfunctools\npartial\ncos\nsystem\n\x85R}b.",
    "a state for a name": b"\x80\x02cbyol.others.pickles\nread\n}X\x0c\x00\x00\x00__defaults__K\x01sb.",
    "an instance of protocol 0": b"(S'touch pickle-was-executed'\nios\nsystem\n.",
    "an object of protocol 1": b"(cos\nsystem\nS'touch pickle-was-executed'\no.",
    "a persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "an extension": b"\x80\x02\x82\x01.",
    "text of petabytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 50) + b"abc",
    "bytes of exabytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"abc",
    "a bytearray of exabytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"abc",
    "a frame of petabytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 50) + b".",
    "a place far away": b"\x80\x02Nr\xff\xff\xff\x7fj\xff\xff\xff\x7e.",
    "an empty stack": b"\x80\x02R.",
    "no mark": b"\x80\x02Nt.",
    "no end": b"\x80\x02}",
    "a tuple of two to the forty as a key": b"\x80\x02}" + b"N" + b"2\x86" * 40 + b"Ns.",
    "a tuple of two to the forty as a name": b"\x80\x04" + b"N" + b"2\x86" * 40 + b"2\x93.",
    "a list as a key": b"\x80\x02}]Ns.",
    "text that is a number": b"\x80\x02I1x\n.",
    "a number of a million digits": b"\x80\x02I" + b"9" * 1_000_000 + b"\n.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_pickle_is_one_sentence_and_runs_nothing(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    Path("x.pkl").write_bytes(HOSTILE[what])
    with pytest.raises(ValueError, match=r"\S") as told:
        byol.load("x.pkl")
    assert type(told.value) is ValueError
    assert "x.pkl" in str(told.value)
    assert "\n" not in str(told.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def test_a_call_beside_good_weights_is_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = gzip.decompress(FIXTURE.read_bytes())
    assert good[:3] == b"\x80\x02}"
    # The first value on the stack is called away, and then the file goes on as it was.
    Path("x.pkl").write_bytes(b"\x80\x02cos\nsystem\nX\x19\x00\x00\x00touch pickle-was-executed\x85R0" + good[2:])
    with pytest.raises(ValueError, match=r"names os\.system, .* nothing of it was run"):
        byol.load("x.pkl")
    assert [p.name for p in tmp_path.iterdir()] == ["x.pkl"]


def test_a_file_that_ends_anywhere_is_one_sentence(tmp_path):
    good = gzip.decompress(FIXTURE.read_bytes())
    for end in range(0, len(good), 997):
        (tmp_path / "x.pkl").write_bytes(good[:end])
        with pytest.raises(ValueError, match=r"x\.pkl") as told:
            byol.load(tmp_path / "x.pkl")
        assert "\n" not in str(told.value)


def made(shape, code="f4", raw=bytes(16), order="<"):
    dtype = pickles.Made(pickles.Named("numpy", "dtype"), (code, False, True), state=(3, order, None, None, None, -1, -1, 0))
    rebuild = pickles.Named("numpy.core.multiarray", "_reconstruct")
    return pickles.Made(rebuild, (pickles.Named("numpy", "ndarray"), (0,), b"b"), state=(1, shape, dtype, False, raw))


def test_arrays_are_their_bytes():
    x = np.arange(4, dtype=">f4")
    np.testing.assert_array_equal(pickles.array(made((2, 2), raw=x.tobytes(), order=">")), x.reshape(2, 2))


@pytest.mark.parametrize(
    ("shape", "code", "said"),
    [((1 << 40,), "f4", "has 16 bytes"), ((-4, -1), "f4", "not made of sizes"), ((4,), "O8", "else than numbers"), ((2,), "V8", "numbers")],
)  # fmt: skip
def test_arrays_whose_sizes_are_not_theirs_are_refused(shape, code, said):
    with pytest.raises(ValueError, match=said):
        pickles.array(made(shape, code))
