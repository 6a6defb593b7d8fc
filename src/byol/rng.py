"""Random numbers as a pure function of (seed, epoch, stream, sample): nothing to save, the same on every device.

Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), written with 64-bit integer tensors,
because torch's own generators give other numbers on another device, batch size or number of workers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_Words: TypeAlias = npt.NDArray[np.uint64]

# Streams 0 to 99 are the views of a sample; the others keep clear of them.
STREAM_VIEWS = 0
STREAM_ORDER = 100
STREAM_SPLIT = 101
STREAM_SAMPLE = 102
STREAM_SHARDS = 103
STREAM_METHOD = 104
STREAM_OPERATIONS = 128  # and on: operations of the views

_MASK = 0xFFFFFFFF
_ROUND = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four int64 tensors of 32-bit words, two key words -> four of random 32-bit words (Philox-4x32, 10 rounds)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key[0] & _MASK, key[1] & _MASK
    for _ in range(10):
        # The product wraps round in int64, which leaves its 64 bits right; the mask makes the shift a logical one.
        p0, p1 = c0 * _ROUND[0], c2 * _ROUND[1]
        c0, c1, c2, c3 = ((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def words(seed: int, epoch: int, stream: int, ids: Tensor, k: int) -> Tensor:
    """(B,) int64 ids -> (B, k) int64 random 32-bit words; row b depends on (seed, epoch, stream, ids[b]) alone."""
    ids = ids.to(torch.int64)
    blocks = torch.arange((k + 3) // 4, device=ids.device)
    shape = (len(ids), len(blocks))
    low, high = (part[:, None].expand(shape) for part in (ids & _MASK, (ids >> 32) & _MASK))
    c0 = blocks[None, :].expand(shape)
    # 2^8 streams and 2^24 draws share a counter word; seed and epoch are the key.
    out = philox((c0 | (stream << 24), low, high, torch.full_like(low, epoch & _MASK)), (seed & _MASK, (seed >> 32) & _MASK))
    return torch.stack(out, dim=-1).flatten(1)[:, :k]


def uniforms(seed: int, epoch: int, stream: int, ids: Tensor, k: int) -> Tensor:
    """(B,) int64 ids -> (B, k) float32 in [0, 1), multiples of 2^-24; the same numbers on every device."""
    return (words(seed, epoch, stream, ids, k) >> 8).to(torch.float32) * 2.0**-24


def permutation(seed: int, epoch: int, n: int, stream: int = STREAM_ORDER) -> Tensor:
    """A random order of 0 .. n-1, (n,) int64: the ids sorted by a random 63-bit key each. Not the order of `permuted`."""
    pair = words(seed, epoch, stream, torch.arange(n), 2)
    return torch.argsort(((pair[:, 0] >> 1) << 32) | pair[:, 1], stable=True)


# With 8 rounds, pairs of samples in an order of 6 are measurably uneven; with 12 they are not, for any size that was tried.
_ROUNDS: Final = 12
_LARGEST: Final = 2**62  # so that every step of the arithmetic stays below 2^63


def permuted(seed: int, epoch: int, n: int, positions: Tensor, stream: int = STREAM_ORDER) -> Tensor:
    """(B,) int64 positions in a random order of 0 .. n-1 -> (B,) int64 ids there; costs the same for every n.

    A generalised Feistel network over a x b >= n with cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary finite
    domains"): each id comes at exactly one position. ValueError for a position outside 0 .. n-1.
    """
    x = positions.to("cpu", torch.int64).numpy()
    if not 0 <= n <= _LARGEST:
        raise ValueError(f"an order of {n} samples is not possible; give 0 to 2^62")
    if x.size and (x.min() < 0 or x.max() >= n):
        raise ValueError(f"the order has the positions 0 to {n - 1}, not {x.min()} to {x.max()}")
    return torch.from_numpy(_feistel_below(n, x.astype(np.uint64), _round_keys(seed, epoch, stream)).astype(np.int64))


def _feistel_below(n: int, x: _Words, keys: _Words) -> _Words:
    """Values below n -> values below n, one to one."""
    a = max(1, math.isqrt(max(0, n - 1)) + 1)
    b = max(1, -(-n // a))
    out = _feistel(x, a, b, keys)
    # a x b exceeds n by less than a: few values leave the range, and going on from where they landed leads back into it.
    while (outside := out >= n).any():
        out[outside] = _feistel(out[outside], a, b, keys)
    return out


def _feistel(x: _Words, a: int, b: int, keys: _Words) -> _Words:
    """Values below a b -> values below a b, one to one whatever the keys are."""
    sides = (np.uint64(a), np.uint64(b))
    left, right = x % sides[0], x // sides[0]
    for j, key in enumerate(keys):
        side = sides[j % 2]
        left, right = right, (left + _mixed(right + key) % side) % side
    return left + sides[0] * right  # an even number of rounds: left is below a again, right below b


def _mixed(z: _Words) -> _Words:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the input changes half of the output's bits."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=8)  # drawing them costs more than a step's ids; all steps of an epoch share them
def _round_keys(seed: int, epoch: int, stream: int) -> _Words:
    pair = words(seed, epoch, stream, torch.arange(_ROUNDS), 2).numpy().astype(np.uint64)
    keys: _Words = pair[:, 0] << np.uint64(32) | pair[:, 1]
    return keys
