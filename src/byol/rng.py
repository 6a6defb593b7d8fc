"""Random numbers as a pure function of (seed, epoch, stream, sample): nothing to save, the same on every device.

Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), written with 64-bit integer tensors,
because torch's own generators give other numbers on another device, batch size or number of workers.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Streams 0 to 99 are the views of a sample; the others keep clear of them.
STREAM_VIEWS = 0
STREAM_ORDER = 100
STREAM_SPLIT = 101
STREAM_SAMPLE = 102

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
    """A random order of 0 .. n-1, (n,) int64: the ids sorted by a random 63-bit key each."""
    pair = words(seed, epoch, stream, torch.arange(n), 2)
    return torch.argsort(((pair[:, 0] >> 1) << 32) | pair[:, 1], stable=True)
