import numpy as np
import pytest
import torch

from byol.studies import feature_decoupling as fd
from byol.studies.feature_decoupling import Network, Size, World

SMALL = Size(d=8, d1=128, neurons=16, batch=64, steps=250, tested=1000, threshold=0.5, noise=0.5, rates=(0.0, 0.25, 0.5))


def test_the_columns_are_orthonormal_and_the_codes_sparse():
    world = World.of(Size(), 0)
    torch.testing.assert_close(world.columns.T @ world.columns, torch.eye(24), atol=1e-5, rtol=0)
    z, sparse, noise = world.draw(4000)
    assert set(z.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert float((z != 0).float().mean()) == pytest.approx(1.5 * np.log(np.log(24)) / 24, rel=0.05)
    assert abs(float(z.mean())) < 0.01
    torch.testing.assert_close(sparse @ world.columns, z, atol=1e-5, rtol=0)
    assert float(noise.var()) == pytest.approx(np.sqrt(np.log(24)) / 24, rel=0.02)
    assert float(noise.square().sum() / sparse.square().sum()) > 10  # dense noise is much longer


@pytest.mark.parametrize(("rate", "shared"), [(0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (0.75, 0.0)])
def test_masks_lack_their_share_of_different_coordinates(rate, shared):
    a, b = World.of(Size(), 1).masks(200, rate)
    for mask in (a, b):
        assert float((mask == 0).float().mean()) == pytest.approx(rate, abs=0.01)
        assert float(mask.mean()) == pytest.approx(1, abs=0.03)
    assert float((a * b > 0).float().mean()) == pytest.approx(shared, abs=0.01)


def test_half_is_the_mask_of_the_theory():
    a, b = World.of(Size(), 2).masks(5, 0.5)
    torch.testing.assert_close(a + b, torch.full_like(a, 2))
    assert set(a.unique().tolist()) == {0.0, 2.0}


def test_a_neuron_is_a_soft_threshold_in_units_of_its_weight():
    network = Network(torch.tensor([[3.0, 4.0]]))
    network.threshold = 0.5  # times 5
    x = torch.tensor([[1.0, 0.0], [0.5, 0.25], [-1.0, -1.0]])
    torch.testing.assert_close(network(x), torch.tensor([[0.5], [0.0], [-4.5]]))


def test_info_nce_is_the_cross_entropy_of_finding_the_other_view():
    f, g = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    s = f.detach().numpy() @ g.detach().numpy().T
    expected = np.mean([np.log(np.exp(s[i]).sum()) - s[i, i] for i in range(5)])
    loss = fd.info_nce(f, g)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert g.grad is None


def test_a_network_of_the_columns_themselves_measures_as_decoupled():
    found = fd.untrained(Size(tested=2000), 0, columns=True)
    assert found.noise == pytest.approx(0, abs=1e-4)
    assert (found.top, found.cols, found.cover) == pytest.approx((1, 1, 1), abs=1e-4)
    assert found.hit > 0.9 > 0.1 > found.false


def test_random_weights_have_as_much_noise_as_there_are_dimensions_of_it():
    found = fd.untrained(Size(tested=500), 0, columns=False)
    assert found.noise == pytest.approx(1 - 24 / 576, abs=0.01)
    assert found.cover == 0
    assert abs(found.sparse) < 0.05  # the halves of a sparse part are orthogonal


def test_the_probe_reads_codes_and_not_noise():
    rng = torch.Generator().manual_seed(0)
    z = torch.randint(-1, 2, (4000, 6), generator=rng).float()
    z = z[z.abs().sum(1) > 0]
    assert fd.probe(z, z, rng) > 0.9
    assert fd.probe(torch.randn(len(z), 6, generator=rng), z, rng) == pytest.approx(0.5, abs=0.05)


def test_shares_are_squared_cosines():
    w, m = torch.randn(4, 10), torch.linalg.qr(torch.randn(10, 3))[0]
    expected = torch.cosine_similarity(w[:, None], m.T[None], dim=2) ** 2
    torch.testing.assert_close(fd.shares(w, m), expected)


@pytest.mark.parametrize("loss", ["InfoNCE", "SimSiam"])
def test_masks_take_noise_out_of_the_weights_of_a_small_network(loss):
    masked, plain = (fd.train(loss, rate, SMALL, seed=0).end for rate in (0.5, 0.0))
    assert masked.noise < 0.6 * plain.noise
    assert masked.sparse > 0.6 > 0.2 > plain.sparse


def test_a_run_is_the_same_each_time():
    size = Size(d=8, d1=64, neurons=8, batch=16, steps=10, tested=100)
    assert fd.train("BYOL", 0.5, size, seed=3) == fd.train("BYOL", 0.5, size, seed=3)


def test_simsiam_has_no_network_but_its_own_as_target():
    network = Network(torch.randn(6, 10))
    byol, simsiam = (fd._method(loss, network, Size()) for loss in ("BYOL", "SimSiam"))
    assert (byol.config.target, simsiam.config.target) == ("ema", "stop-gradient")
    torch.testing.assert_close(byol.predictor.weight, torch.eye(6))
    assert fd._method("InfoNCE", network, Size()) is None


def test_a_tiny_run_judges_every_claim():
    told = []
    size = Size(d=8, d1=64, neurons=8, batch=16, steps=4, tested=100)
    outcome = fd.run((0, 1), lambda *said: told.append(said), size)
    assert [f.claim for f in outcome.findings] == list(fd.CLAIMS)
    assert not any(f.held for f in outcome.findings[:3])  # after four steps nothing is learned
    assert {len(row) for row in outcome.rows} == {len(outcome.columns)}
    assert [done for _, done, _ in told] == list(range(told[0][2]))
