import pytest
import torch

from byol import rng

# Known answers of the Random123 distribution (philox4x32, 10 rounds): counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_the_published_known_answers(counter, key, result):
    out = rng.philox(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(int(o) for o in out) == result


def test_a_row_depends_on_its_own_id_alone():
    ids = torch.tensor([7, 123456789012, 3])
    whole = rng.uniforms(1, 2, 3, ids, 9)
    for row, i in zip(whole, ids, strict=True):
        assert torch.equal(row, rng.uniforms(1, 2, 3, i[None], 9)[0])


@pytest.mark.parametrize("other", [(2, 2, 3), (1 + 2**32, 2, 3), (1, 3, 3), (1, 2, 4)])
def test_seed_epoch_and_stream_each_change_the_numbers(other):
    ids = torch.arange(64)
    ours, theirs = rng.uniforms(1, 2, 3, ids, 8).flatten(), rng.uniforms(*other, ids, 8).flatten()
    assert abs(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) < 0.15


def test_uniforms_are_uniform_and_draws_are_uncorrelated():
    u = rng.uniforms(0, 0, 0, torch.arange(20000), 6).double()
    assert u.min() >= 0
    assert u.max() < 1
    # Kolmogorov-Smirnov at the 1e-4 level for 120,000 draws: 2.2 / sqrt(n).
    gap = (u.flatten().sort().values - torch.arange(u.numel(), dtype=torch.float64) / u.numel()).abs().max()
    assert gap < 2.2 / u.numel() ** 0.5
    assert (torch.corrcoef(u.T) - torch.eye(6)).abs().max() < 4.5 / 20000**0.5


def test_a_permutation_holds_every_id_once_and_differs_between_epochs():
    a, b = rng.permutation(5, 0, 1000), rng.permutation(5, 1, 1000)
    assert torch.equal(a.sort().values, torch.arange(1000))
    assert (a == b).float().mean() < 0.02
