"""The arithmetic of the crop and of every op a second time, sample by sample, compiled by numba; the torch version says what each is.

All in one file, though it is long: numba keeps what it compiled beside the file, and asks for changes of that file alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from byol.views import channels, ops

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Places = NDArray[np.uint64]  # unsigned: numba then need not look out for places counted from the end
_Function = TypeVar("_Function", bound=Callable[..., object])

# What the compiled loop does to a sample; 0 is nothing.
ADD, SCALE, CONTRAST, CONTRAST_OF_GRAY, BLEND, SATURATION, HUE, BLUR, BLUR_REFLECTED, SOLARIZE, GAMMA, STRETCH = range(1, 13)

_BAND = 16  # rows that are resized at a time: one line of the cache, and one register where they are widest


def _jit(function: _Function, fastmath: set[str]) -> _Function:
    """Compiled at its first call, free of Python's lock, and kept on the disk for the next process where there is a place to write."""
    try:
        return cast(_Function, numba.njit(nogil=True, cache=True, fastmath=fastmath)(function))
    except RuntimeError:  # neither beside this file nor in the user's cache
        return cast(_Function, numba.njit(nogil=True, fastmath=fastmath)(function))


def _exact(function: _Function) -> _Function:
    """Compiled as written."""
    return _jit(function, set())


def _fast(function: _Function) -> _Function:
    """Compiled with sums in any order and fused multiplications; NaN stays NaN."""
    return _jit(function, {"reassoc", "contract", "nsz"})


# Numbers below are float32 by name: a plain 1.0 would turn the arithmetic into float64.
_ZERO, _HALF, _ONE, _TWO, _SIX = (np.float32(v) for v in (0, 0.5, 1, 2, 6))
_1, _2, _3 = (np.uint64(n) for n in (1, 2, 3))
_TINY = np.float32(ops.TINY)
_FLAT = np.float32(channels.FLAT)


@_exact
def _taps(length: int, size: int) -> int:
    """How many pixels of a line the filter reaches, in fours: those too many have no weight."""
    return 4 if length <= size else 4 * (math.ceil(4 * length / size) // 4 + 1)


@_exact
def _weights(length: int, size: int, mirrored: bool, first: Places, weight: Floats) -> int:
    """`crop.weights` of one line, rounded alike: where each of `size` pixels starts to read, and its (size, taps) weights -> taps."""
    scale = np.float32(length) / np.float32(size)
    wide = max(scale, _ONE)
    taps = _taps(length, size)
    for j in range(size):
        centre = (np.float32(size - 1 - j if mirrored else j) + _HALF) * scale
        start = max(math.ceil(centre - _TWO * wide - _HALF), 0)
        first[j] = start
        total = _ZERO
        for k in range(taps):
            t = min(abs((np.float32(start + k) + (_HALF - centre)) / wide), _TWO)
            rest = max(_ONE - t, _ZERO)
            w = (_TWO - t) * (_TWO - t) * ((_ONE - t) * _HALF) + rest * rest * (_TWO * t - _ONE)
            weight[j, k] = w if start + k < length else _ZERO
            total += weight[j, k]
        for k in range(taps):
            weight[j, k] /= total
    return taps


@_fast
def cut(x: Floats, boxes: Ints, mirrored: NDArray[np.bool_], low: np.float32, factor: np.float32, out: Floats) -> None:
    """`crop.resize_batch` and `Input.scale`: across the rows of a box first, and then down its columns."""
    size, height, width = out.shape[3], x.shape[2], x.shape[3]
    most = max(_taps(height, size), _taps(width, size))
    first, weight = np.empty(size, np.uint64), np.empty((size, most), np.float32)
    first_row, row_weight = np.empty(size, np.uint64), np.empty((size, most), np.float32)
    columns, band = np.zeros((width + most, _BAND), np.float32), np.zeros((size, _BAND), np.float32)
    rows = np.zeros((height + most, size), np.float32)
    for b in range(len(x)):
        top, left, high, wide = boxes[b]
        if high == size and wide == size:
            _copy(x[b], top, left, mirrored[b], low, factor, out[b])
            continue
        taps = _weights(wide, size, mirrored[b], first, weight)
        row_taps = _weights(high, size, False, first_row, row_weight)
        # What lies beyond the box has no weight, and must be no number left from before, which might be NaN.
        _clear(columns, wide, wide + most)
        _clear(rows, high, high + most)
        for c in range(x.shape[1]):
            for start in range(0, high, _BAND):
                count = min(_BAND, high - start)
                for i in range(count):
                    line = x[b, c, top + start + i]
                    for j in range(wide):
                        columns[j, i] = np.float32(line[left + j])
                _across(columns, first, weight, taps, band)
                for i in range(count):
                    line = rows[start + i]
                    for j in range(size):
                        line[j] = band[j, i]
            _down(rows, first_row, row_weight, row_taps, low, factor, out[b, c])


@_fast
def _clear(rows: Floats, start: int, stop: int) -> None:
    for i in range(start, stop):
        line = rows[i]
        for j in range(len(line)):
            line[j] = _ZERO


@_fast
def _copy(x: Floats, top: int, left: int, mirrored: bool, low: np.float32, factor: np.float32, out: Floats) -> None:
    """A box that is as large as the view."""
    size = out.shape[2]
    for c in range(len(out)):
        for i in range(size):
            to, of = out[c, i], x[c, top + i]
            if mirrored:
                for j in range(size):
                    to[j] = _clipped((np.float32(of[left + size - 1 - j]) - low) * factor)
            else:
                for j in range(size):
                    to[j] = _clipped((np.float32(of[left + j]) - low) * factor)


@_fast
def _across(columns: Floats, first: Places, weight: Floats, taps: int, band: Floats) -> None:
    """A few rows of the box resized; they are turned over, so that neighbours in memory are treated alike."""
    for j in range(len(first)):
        for k in range(0, taps, 4):
            at = first[j] + np.uint64(k)
            wa, wb, wc, wd = weight[j, k], weight[j, k + 1], weight[j, k + 2], weight[j, k + 3]
            if k == 0:
                for i in range(_BAND):
                    band[j, i] = wa * columns[at, i] + wb * columns[at + _1, i] + wc * columns[at + _2, i] + wd * columns[at + _3, i]
            else:
                for i in range(_BAND):
                    band[j, i] += wa * columns[at, i] + wb * columns[at + _1, i] + wc * columns[at + _2, i] + wd * columns[at + _3, i]


@_fast
def _down(rows: Floats, first: Places, weight: Floats, taps: int, low: np.float32, factor: np.float32, out: Floats) -> None:
    """All columns resized, and their values in [0, 1]."""
    for i in range(len(first)):
        for k in range(0, taps, 4):
            at = first[i] + np.uint64(k)
            wa, wb, wc, wd = weight[i, k], weight[i, k + 1], weight[i, k + 2], weight[i, k + 3]
            if k == 0:
                for j in range(len(out)):
                    out[i, j] = wa * rows[at, j] + wb * rows[at + _1, j] + wc * rows[at + _2, j] + wd * rows[at + _3, j]
            else:
                for j in range(len(out)):
                    out[i, j] += wa * rows[at, j] + wb * rows[at + _1, j] + wc * rows[at + _2, j] + wd * rows[at + _3, j]
        for j in range(len(out)):
            out[i, j] = _clipped((out[i, j] - low) * factor)


@_fast
def _clipped(v: np.float32) -> np.float32:
    """In [0, 1]; NaN stays."""
    v = _ZERO if v < _ZERO else v
    return _ONE if v > _ONE else v


@_fast
def change(codes: NDArray[np.uint8], values: Floats, gray: Floats, mean: Floats, factor: Floats, out: Floats) -> None:
    """All ops of each sample, in place, and the normalisation."""
    count, size = out.shape[1], out.shape[2]
    spare, one, shift = np.empty((3 * size, size), np.float32), np.ones(count, np.float32), np.zeros(count, np.float32)
    for b in range(len(out)):
        x = out[b].reshape(count, size * size)
        for place in range(codes.shape[1]):
            code, v = codes[b, place], values[b, place]
            if code == ADD:
                _affine(x, one, v)
            elif code == SCALE:
                for c in range(count):
                    shift[c] = _ZERO
                _affine(x, v, shift)
            elif code in (CONTRAST, CONTRAST_OF_GRAY):
                _centres(out[b], gray, code == CONTRAST_OF_GRAY, shift)
                for c in range(count):
                    shift[c] *= _ONE - v[c]
                _affine(x, v, shift)
            elif code == BLEND:
                _blend(x, v[0], gray)
            elif code == SATURATION:
                _saturation(x[0], x[1], x[2], v[0])
            elif code == HUE:
                _hue(x[0], x[1], x[2], v[0])
            elif code in (BLUR, BLUR_REFLECTED):
                _blur(out[b], v[0], int(v[1]), code == BLUR_REFLECTED, spare)
            elif code == SOLARIZE:
                _solarize(x)
            elif code == GAMMA:
                _gamma(x, v[0])
            elif code == STRETCH:
                _stretch(x)
        for c in range(count):
            for p in range(x.shape[1]):
                x[c, p] = (_clipped(x[c, p]) - mean[c]) * factor[c]


@_fast
def _affine(x: Floats, factor: Floats, shift: Floats) -> None:
    for c in range(len(x)):
        for p in range(x.shape[1]):
            x[c, p] = _clipped(x[c, p] * factor[c] + shift[c])


@_fast
def _centres(x: Floats, gray: Floats, of_gray: bool, mean: Floats) -> None:
    """The mean of each channel, or that of the gray image for all of them."""
    size = x.shape[1]
    for c in range(len(x)):
        total = np.float64(0)  # rows are added up in float32, and their sums in float64
        for i in range(size):
            row = _ZERO
            for j in range(size):
                row += x[c, i, j]
            total += row
        mean[c] = np.float32(total / (size * size))
    if of_gray:
        luma = _ZERO
        for c in range(len(x)):
            luma += mean[c] * gray[c]
        for c in range(len(x)):
            mean[c] = luma


@_fast
def _blend(x: Floats, factor: np.float32, gray: Floats) -> None:
    """f x + (1-f) gray(x); with f = 0 the gray image."""
    count = len(x)
    if count == 3:
        r, g, b = x[0], x[1], x[2]
        for p in range(len(r)):
            rest = (_ONE - factor) * (r[p] * gray[0] + g[p] * gray[1] + b[p] * gray[2])
            r[p], g[p], b[p] = (
                _clipped(r[p] * factor + rest),
                _clipped(g[p] * factor + rest),
                _clipped(b[p] * factor + rest),
            )
    else:
        for p in range(x.shape[1]):
            rest = _ZERO
            for c in range(count):
                rest += x[c, p] * gray[c]
            for c in range(count):
                x[c, p] = _clipped(x[c, p] * factor + (_ONE - factor) * rest)


@_fast
def _saturation(red: Floats, green: Floats, blue: Floats, factor: np.float32) -> None:
    """`ops.saturation_hsv`."""
    for p in range(len(red)):
        r, g, b = red[p], green[p], blue[p]
        high, low = max(r, max(g, b)), min(r, min(g, b))
        f = min(high / max(high - low, _TINY), factor)
        red[p], green[p], blue[p] = (r - high) * f + high, (g - high) * f + high, (b - high) * f + high


@_fast
def _hue(red: Floats, green: Floats, blue: Floats, turn: np.float32) -> None:
    """`ops.hue`: `turn` in sixths."""
    for p in range(len(red)):
        r, g, b = red[p], green[p], blue[p]
        high, low = max(r, max(g, b)), min(r, min(g, b))
        chroma = high - low
        angle = (g + b - r + high - _TWO * low) / max(chroma, _TINY)
        angle = (angle if g >= b else -angle) + turn
        angle -= _SIX * np.floor(angle / _SIX)
        red[p] = _clipped(low - chroma + chroma * _between(abs(angle - np.float32(3))))
        green[p] = _clipped(low + chroma * (_TWO - _between(abs(angle - _TWO))))
        blue[p] = _clipped(low + chroma * (_TWO - _between(abs(angle - np.float32(4)))))


@_fast
def _between(v: np.float32) -> np.float32:
    """In [1, 2]."""
    v = _ONE if v < _ONE else v
    return _TWO if v > _TWO else v


@_fast
def _blur(x: Floats, sigma: np.float32, reach: int, reflect: bool, spare: Floats) -> None:
    """`blur.blur`: across the rows into `spare` (3 S, S), and down its columns back into x (C, S, S)."""
    size = x.shape[1]
    half, total = np.empty(reach + 1, np.float32), -_ONE
    for d in range(reach + 1):
        half[d] = math.exp(-_HALF * np.float32(d * d) / (sigma * sigma))
        total += _TWO * half[d]
    for d in range(reach + 1):
        half[d] /= total
    last = reach + size - 1
    line = np.zeros(size + 2 * reach, np.float32)  # zero beyond the border, or reflected
    for c in range(len(x)):
        for i in range(size):
            of = x[c, i]
            for j in range(size):
                line[reach + j] = of[j]
            if reflect:
                for d in range(1, reach + 1):
                    line[reach - d], line[last + d] = of[d], of[size - 1 - d]
            _blur_row(line, half, reach, spare[reach + i])
        if reflect:
            for d in range(1, reach + 1):
                _weigh(spare[reach + d], _ONE, spare[reach - d])
                _weigh(spare[last - d], _ONE, spare[last + d])
        else:
            _clear(spare, 0, reach)
            _clear(spare, last + 1, last + 1 + reach)
        _blur_columns(spare, half, reach, x[c])


@_fast
def _weigh(a: Floats, weight: np.float32, out: Floats) -> None:
    for j in range(len(out)):
        out[j] = weight * a[j]


@_fast
def _blur_row(line: Floats, half: Floats, reach: int, out: Floats) -> None:
    _weigh(line[reach:], half[0], out)
    for d in range(1, reach + 1):
        w, a, b = half[d], line[reach - d :], line[reach + d :]
        for j in range(len(out)):
            out[j] += w * (a[j] + b[j])


@_fast
def _blur_columns(rows: Floats, half: Floats, reach: int, out: Floats) -> None:
    n = out.shape[1]
    for i in range(len(out)):
        to = out[i]
        _weigh(rows[reach + i], half[0], to)
        for d in range(1, reach + 1):
            w, a, b = half[d], rows[reach + i - d], rows[reach + i + d]
            for j in range(n):
                to[j] += w * (a[j] + b[j])


@_fast
def _solarize(x: Floats) -> None:
    for c in range(len(x)):
        for p in range(x.shape[1]):
            x[c, p] = min(_ONE - x[c, p], x[c, p])


@_fast
def _gamma(x: Floats, power: np.float32) -> None:
    for c in range(len(x)):
        for p in range(x.shape[1]):
            x[c, p] = x[c, p] ** power


@_fast
def _stretch(x: Floats) -> None:
    """Each channel by itself, as `channels.stretch`."""
    for c in range(len(x)):
        low, high = x[c, 0], x[c, 0]
        for p in range(x.shape[1]):
            low, high = min(low, x[c, p]), max(high, x[c, p])
        if high - low > _FLAT:
            for p in range(x.shape[1]):
                x[c, p] = (x[c, p] - low) / (high - low)
