"""The crop and the ops of `chain`, compiled for a CPU: one sample after the other, which stays in the cache through all of them.

The same boxes, draws and order as the torch version; only the arithmetic is written a second time, and the tests hold the two
together (tests/test_views_compiled.py). Needs numba; the torch version says what each op is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar, cast

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol.encoders import Input
from byol.views import channels, ops
from byol.views.blur import blur
from byol.views.chain import Round
from byol.views.palette import Drawn

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Places = NDArray[np.uint64]  # unsigned: numba then need not look out for places counted from the end
_Function = TypeVar("_Function", bound=Callable[..., object])

_PART = 1 << 16  # values that are worked on between two calls: 256 KiB, so that a view is still in the cache when it is changed

_BAND = 16  # rows that are resized at a time: one line of the cache, and one register where they are widest

# What the compiled loop does to a sample; 0 is nothing.
_ADD, _SCALE, _CONTRAST, _CONTRAST_OF_GRAY, _BLEND, _SATURATION, _HUE, _BLUR, _BLUR_REFLECTED, _SOLARIZE, _GAMMA, _STRETCH = range(1, 13)
_CODES: dict[Callable[..., Tensor], int] = {
    ops.brightness_added: _ADD,
    ops.brightness_scaled: _SCALE,
    channels.gain: _SCALE,
    ops.contrast_of_channels: _CONTRAST,
    ops.contrast_of_gray: _CONTRAST_OF_GRAY,
    ops.saturation_blended: _BLEND,
    ops.grayscale: _BLEND,
    channels.towards_mean: _BLEND,
    channels.mean_everywhere: _BLEND,
    ops.saturation_hsv: _SATURATION,
    ops.hue: _HUE,
    blur: _BLUR,
    ops.solarize: _SOLARIZE,
    channels.gamma: _GAMMA,
    channels.stretch: _STRETCH,
}


class Program(NamedTuple):
    """What is done to every sample: the ops in their order, and the numbers of each."""

    gray: Floats  # (C,) weights of the channels in the gray image
    mirrored: NDArray[np.bool_]  # (B,)
    codes: NDArray[np.uint8]  # (B, R)
    values: Floats  # (B, R, max(C, 2))


def supports(x: Tensor) -> bool:
    """Whether these images are what the compiled version reads; for all others there is the torch version."""
    return x.device.type == "cpu" and x.dtype in (torch.uint8, torch.float32)


def program(rounds: list[Round], u: Tensor, gray: Sequence[float]) -> Program:
    """The rounds of `chain.rounds_of` and the (B, k) draws -> the same for the compiled loop; `gray`: a weight for each channel."""
    batch, width = len(u), max(len(gray), 2)
    mirrored = np.zeros(batch, np.bool_)
    codes, values = np.zeros((batch, len(rounds)), np.uint8), np.zeros((batch, len(rounds), width), np.float32)
    draw = u.numpy()
    for place, groups in enumerate(rounds):
        for rows, drawn in groups:
            if drawn.op is ops.flip:  # no op knows left from right, so it may as well come first: the crop then reads backwards
                mirrored[rows] = True
            else:
                codes[rows, place], values[rows, place] = _instruction(drawn, draw[rows, drawn.columns], width)
    return Program(np.array(gray, np.float32), mirrored, codes, values)


def _instruction(drawn: Drawn, u: Floats, width: int) -> tuple[int, Floats]:
    """The code of an op, and its numbers for (n, k) draws: (n, width)."""
    function, settings = (drawn.op.func, drawn.op.keywords) if isinstance(drawn.op, partial) else (drawn.op, {})
    code = _CODES[function]
    out = np.zeros((len(u), width), np.float32)
    if code == _BLUR:
        low, high = settings["sigma"]
        out[:, 0], out[:, 1] = (low + (high - low) * u)[:, 0], settings["reach"]
        return (_BLUR_REFLECTED if settings["border"] == "reflect" else _BLUR), out
    if "strength" in settings:  # what has none takes all colour away, or draws nothing
        middle, reach = {_ADD: (0, 1), _HUE: (0, 6)}.get(code, (1, 1))
        low, high = middle - reach * settings["strength"], middle + reach * settings["strength"]
        out[:, : max(u.shape[1], 1)] = low + (high - low) * u
        if u.shape[1] == 1:
            out[:] = out[:, :1]
    return code, out


def views(x: Tensor, boxes: Tensor, program: Program, input: Input, out: Tensor) -> None:
    """(B, C, H, W) images that it `supports`, (B, 4) boxes -> normalised views in out (B, C, S, S), float32.

    With as many threads as torch uses. They are started anew in every call: a pool that waits would not survive a fork.
    """
    raw, cut_at, seen = x.detach().contiguous().numpy(), boxes.contiguous().numpy(), out.numpy()
    values = np.float32(input.low), np.float32(1 / (input.high - input.low))
    last = np.array(input.mean, np.float32), (1 / np.array(input.std)).astype(np.float32)

    def part(rows: slice) -> None:
        _cut(raw[rows], cut_at[rows], program.mirrored[rows], *values, seen[rows])
        _change(program.codes[rows], program.values[rows], program.gray, *last, seen[rows])

    step = max(1, _PART // out[0].numel())
    parts = [slice(start, start + step) for start in range(0, len(x), step)]
    threads = min(torch.get_num_threads(), len(parts))
    if threads < 2:
        for rows in parts:
            part(rows)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, parts))


def _exact(function: _Function) -> _Function:
    """Compiled as written, and kept on the disk for the next process."""
    return cast(_Function, numba.njit(nogil=True, cache=True)(function))


def _fast(function: _Function) -> _Function:
    """Compiled with sums in any order and fused multiplications; NaN stays NaN."""
    return cast(_Function, numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})(function))


# Numbers below are float32 by name: a plain 1.0 would turn the arithmetic into float64.
_ZERO, _HALF, _ONE, _TWO, _SIX = (np.float32(v) for v in (0, 0.5, 1, 2, 6))
_1, _2, _3 = (np.uint64(n) for n in (1, 2, 3))
_TINY = np.float32(ops.TINY)
_FLAT = np.float32(channels.FLAT)


@_exact
def _weights(length: int, size: int, mirrored: bool, first: Places, weight: Floats) -> int:
    """`crop.weights` of one line, rounded alike: where each of `size` pixels starts to read, and its (size, taps) weights -> taps."""
    scale = np.float32(length) / np.float32(size)
    wide = max(scale, _ONE)
    # As many as the filter reaches, in fours; those too many have no weight.
    taps = 4 if length <= size else 4 * (math.ceil(4 * length / size) // 4 + 1)
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
def _cut(x: Floats, boxes: Ints, mirrored: NDArray[np.bool_], low: np.float32, factor: np.float32, out: Floats) -> None:
    """`crop.resize_batch` and `Input.scale`: across the rows of a box first, and then down its columns."""
    size, height, width = out.shape[3], x.shape[2], x.shape[3]
    most = 4 * (math.ceil(4 * max(1.0, max(height, width) / size)) // 4 + 1)
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
def _change(codes: NDArray[np.uint8], values: Floats, gray: Floats, mean: Floats, factor: Floats, out: Floats) -> None:
    """All ops of each sample, in place, and the normalisation."""
    count, size = out.shape[1], out.shape[2]
    spare, one, shift = np.empty((3 * size, size), np.float32), np.ones(count, np.float32), np.zeros(count, np.float32)
    for b in range(len(out)):
        x = out[b].reshape(count, size * size)
        for place in range(codes.shape[1]):
            code, v = codes[b, place], values[b, place]
            if code == _ADD:
                _affine(x, one, v)
            elif code == _SCALE:
                for c in range(count):
                    shift[c] = _ZERO
                _affine(x, v, shift)
            elif code in (_CONTRAST, _CONTRAST_OF_GRAY):
                _centres(out[b], gray, code == _CONTRAST_OF_GRAY, shift)
                for c in range(count):
                    shift[c] *= _ONE - v[c]
                _affine(x, v, shift)
            elif code == _BLEND:
                _blend(x, v[0], gray)
            elif code == _SATURATION:
                _saturation(x[0], x[1], x[2], v[0])
            elif code == _HUE:
                _hue(x[0], x[1], x[2], v[0])
            elif code in (_BLUR, _BLUR_REFLECTED):
                _blur(out[b], v[0], int(v[1]), code == _BLUR_REFLECTED, spare)
            elif code == _SOLARIZE:
                _solarize(x)
            elif code == _GAMMA:
                _gamma(x, v[0])
            elif code == _STRETCH:
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
