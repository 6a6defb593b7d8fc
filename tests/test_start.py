import json

import pytest
import torch

import byol
from byol import exporting
from byol.cli import main
from byol.config import Request
from byol.run import prepare


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    out = tmp_path_factory.mktemp("init") / "first"
    byol.train("digits", out, encoder="small-w8", epochs=1, limit=64, batch_size=32, device="cpu", precision="fp32")
    return out


def asked(init, **more):
    common = {"data": "digits", "epochs": 1, "limit": 64, "batch_size": 32, "device": "cpu", "precision": "fp32"}
    return Request(**(common | {"init": str(init)} | more))


def test_training_starts_from_the_weights_and_the_target_too(first):
    method = prepare(asked(first)).method()
    theirs = exporting.load_encoder(first).net.state_dict()
    for name, weight in theirs.items():
        assert torch.equal(method.encoder.net.state_dict()[name], weight)
        assert torch.equal(method.target_encoder.net.state_dict()[name], weight)


def test_the_data_are_normalised_as_the_weights_were_trained(first):
    session = prepare(asked(first, limit=40, batch_size=20))
    assert session.input.mean == exporting.load_encoder(first).input.mean
    assert prepare(asked(first, set=("mean=0.25",))).input.mean == (0.25,)


def test_a_run_that_was_started_so_is_resumed_without_the_weights_it_began_with(first, tmp_path):
    kept = tmp_path / "kept"
    byol.export(first, tmp_path / "kept.safetensors")
    out = tmp_path / "second"
    byol.train("digits", out, init=str(tmp_path / "kept.safetensors"), epochs=1, limit=64, batch_size=32, device="cpu", precision="fp32")
    for path in tmp_path.glob("kept.*"):
        path.unlink()
    assert not kept.exists()
    assert byol.resume(out).outcome.ended == "finished"
    assert json.loads((out / "plan.json").read_text())["notes"][0].startswith("weights: small-w8 of ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--encoder", "resnet18"], "holds small-w8, not resnet18; leave --encoder out"),
        (["--init", "nowhere"], "there is no file|is no .safetensors"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_sentence(first, tmp_path, capsys, words, said):
    code = main(["train", "digits", "--out", str(tmp_path / "x"), "--device", "cpu", "--init", str(first), *words])
    err = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert any(part in err for part in said.split("|")), err
    assert not (tmp_path / "x").exists()


def test_weights_for_other_channels_are_refused(first, tmp_path):
    import numpy as np

    np.save(tmp_path / "x.npy", np.zeros((40, 16, 16, 3), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None])
    with pytest.raises(ValueError, match="takes samples of 1 channel, and these data are samples of 3 channels"):
        prepare(asked(first, data=str(tmp_path / "x.npy"), limit=None))
