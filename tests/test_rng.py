import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, spearmanr

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


def order(seed, epoch, n):
    return rng.permuted(seed, epoch, n, torch.arange(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 10, 11, 16, 17, 97, 100, 101, 1009, 99_991, 100_000])
def test_every_id_has_exactly_one_position(n):
    for seed, epoch in ((0, 0), (1, 0), (0, 1), (2**63 - 1, 2**31), (-1, 7)):
        assert torch.equal(order(seed, epoch, n).sort().values, torch.arange(n))


def test_a_position_has_its_id_whatever_is_asked_with_it():
    n, positions = 10**8 + 7, torch.tensor([99_999_999, 0, 5, 0, 10**8 + 6])
    whole = rng.permuted(3, 4, n, positions)
    assert whole.dtype == torch.int64
    assert [int(rng.permuted(3, 4, n, p[None])) for p in positions] == whole.tolist()
    assert whole.tolist() == [one_id(3, 4, n, int(p)) for p in positions]


def one_id(seed, epoch, n, position, rounds=12):
    """The same network in Python's unbounded integers, one position at a time."""
    pairs = rng.words(seed, epoch, rng.STREAM_ORDER, torch.arange(rounds), 2).tolist()
    a = math.ceil(math.sqrt(n))
    sides = a, math.ceil(n / a)
    while True:
        right, left = divmod(position, a)
        for j, (high, low) in enumerate(pairs):
            z = (right + high * 2**32 + low) % 2**64
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
                z = (z ^ z >> shift) * factor % 2**64
            left, right = right, (left + z) % sides[j % 2]
        position = left + a * right
        if position < n:
            return position


@pytest.mark.parametrize("n", [10**8, 2**32 + 15, 10**12 + 39, 2**62])
def test_large_orders_have_distinct_ids_in_range(n):
    positions = torch.cat([torch.arange(20_000), torch.arange(n - 20_000, n)])
    ids = rng.permuted(1, 0, n, positions)
    assert ids.min() >= 0
    assert ids.max() < n
    assert len(ids.unique()) == len(positions)
    # Uniform over the range: Kolmogorov-Smirnov at the 1e-4 level.
    gap = (ids.double().sort().values / n - torch.arange(len(ids)) / len(ids)).abs().max()
    assert gap < 2.2 / len(ids) ** 0.5


def test_positions_outside_the_order_are_refused():
    for n, position in ((10, 10), (10, -1), (0, 0), (2**32, 2**32)):
        with pytest.raises(ValueError, match="positions 0 to"):
            rng.permuted(0, 0, n, torch.tensor([position]))
    with pytest.raises(ValueError, match="not possible"):
        rng.permuted(0, 0, 2**62 + 1, torch.tensor([0]))
    assert rng.permuted(0, 0, 10, torch.tensor([], dtype=torch.int64)).tolist() == []


def not_even(counts):
    """The probability that even chances give counts this far from even (chi-square; the expected count is at least 20)."""
    counts = np.asarray(counts, np.float64).reshape(-1)
    return chi2.sf(((counts - counts.mean()) ** 2 / counts.mean()).sum(), len(counts) - 1)


@pytest.mark.parametrize("n", [2, 3, 5, 6, 10, 50])
def test_every_sample_is_equally_likely_at_every_place(n):
    orders = np.stack([order(seed, epoch, n).numpy() for seed in range(20) for epoch in range(max(50, 2 * n))])
    for place in range(n):
        assert not_even(np.bincount(orders[:, place], minlength=n)) > 1e-5, place


@pytest.mark.parametrize("n", [3, 6, 10])
def test_every_pair_of_samples_is_equally_likely_at_neighbouring_places(n):
    orders = np.stack([order(seed, 0, n).numpy() for seed in range(2500)])
    for place in range(n - 1):
        counts = np.bincount(orders[:, place] * n + orders[:, place + 1], minlength=n * n).reshape(n, n)
        assert counts.trace() == 0
        assert not_even(counts[~np.eye(n, dtype=bool)]) > 1e-5, place


def test_every_order_of_four_is_equally_likely():
    counts = np.unique([order(seed, 0, 4).numpy() for seed in range(2400)], axis=0, return_counts=True)[1]
    assert len(counts) == math.factorial(4)
    assert not_even(counts) > 1e-5


@pytest.mark.parametrize("n", [1000, 99_991])
def test_neighbours_epochs_and_seeds_are_uncorrelated(n):
    first = order(0, 0, n).numpy()
    bound = 4.5 / n**0.5  # 4.5 standard deviations of a rank correlation of independent orders
    for other in (np.arange(n), order(0, 1, n).numpy(), order(1, 0, n).numpy(), order(2**32, 0, n).numpy()):
        assert abs(spearmanr(first, other).statistic) < bound
    for lag in (1, 2, 3, math.isqrt(n - 1) + 1, n // 2):
        assert abs(spearmanr(first[:-lag], first[lag:]).statistic) < 4.5 / (n - lag) ** 0.5, lag
    # No stretch of the data comes at a certain time: the means of 20 parts of an epoch are those of random draws.
    parts = np.array_split(first, 20)
    assert max(abs(p.mean() - (n - 1) / 2) for p in parts) < 4.5 * n / 12**0.5 / len(parts[0]) ** 0.5
