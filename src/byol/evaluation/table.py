"""An evaluation as lines for people: the protocol, a row for everything compared, a column for every share of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from byol.evaluation.intervals import deviation
from byol.evaluation.result import Evaluation, Score
from byol.published.beside import Beside, by_method, said

WIDTH = 80
_CELL = 14
_LONGEST = 30  # of a name; longer ones lose their beginning
_GAIN = "over best baseline"


def lines(e: Evaluation) -> list[str]:
    """The protocol, the table in top-1 with the gain over the best baseline, top-5 where there is one, what +- is, and the notes."""
    names = list(dict.fromkeys(s.name for s in e.scores))
    shares = list(dict.fromkeys(s.labels for s in e.scores))
    width = max(len(_GAIN), *(len(_short(name)) for name in names)) + 2
    at_once = (WIDTH - 2 - width) // _CELL
    out = _wrapped(f"{e.description}, {e.train:,} train / {e.test:,} test ({e.split}), {e.metric} %", "")
    for start in range(0, len(shares), at_once):
        out += _block(e, names, shares[start : start + at_once], width)
        out += _others(e, names, shares[start : start + at_once], width)
    for text in (_legend(e), *e.notes):
        out += _wrapped(text, "  ")
    return out


def published_lines(e: Evaluation) -> list[str]:
    """What was published on the same data, told apart from what was measured; nothing for data without a known name."""
    out = []
    for group in e.published():
        out += _wrapped(f"Published, for scale, not measured here ({group.differences}):", "  ")
        out += [f"    {said(r)}" for r in group.rows]
        out += _wrapped(f"Source: {group.source}", "    ")
    return out


def dense_published_lines(group: Beside | None) -> list[str]:
    """The same for segmentation, depth and detection, a line for each method."""
    if group is None:
        return []
    numbers = [line for text in by_method(group) for line in _wrapped(text, "    ")]
    head = _wrapped(f"Published, for scale, not measured here ({group.differences}):", "  ")
    return [*head, *numbers, *_wrapped(f"Source: {group.source}", "    ")]


def _wrapped(text: str, indent: str) -> list[str]:
    """Lines that never begin with a % sign."""
    joined = text.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = wrap(joined, WIDTH, initial_indent=indent, subsequent_indent="    ")
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _block(e: Evaluation, names: Sequence[str], shares: Sequence[float], width: int) -> list[str]:
    """The rows for as many label shares as fit beside each other."""
    columns = [{s.name: s for s in e.scores if s.labels == share} for share in shares]
    titles = [f"{100 * share:g} %" for share in shares]
    rows = [_row("", [titles[0] + " labels", *titles[1:]], width)]
    rows += [_row(_short(name), [_top1(c[name]) for c in columns], width) for name in names]
    gains = [_gain(list(c.values())) for c in columns]
    if len(shares) == 1 and gains[0] and not columns[0][names[-1]].baseline:
        rows[-1] += f"   {gains[0]} over" if gains[0][0] == "+" else f"   {gains[0][1:]} below"
        rows[-1] += " the best baseline"
    elif any(gains):
        rows.append(_row(_GAIN, gains, width))
    if any(c[name].top5 is not None for c in columns for name in names):
        rows.append("  top-5 %")
        rows += [_row(_short(name), [_percent(c[name].top5) for c in columns], width) for name in names]
    return rows


def _others(e: Evaluation, names: Sequence[str], shares: Sequence[float], width: int) -> list[str]:
    """The rows of every other metric of the protocol."""
    out = []
    for metric in dict.fromkeys(m for s in e.scores for m in s.also):
        found = {(s.name, s.labels): s.also.get(metric) for s in e.scores}
        out.append(f"  {metric} %")
        out += [_row(_short(name), [_percent(found.get((name, share))) for share in shares], width) for name in names]
    return out


def _row(name: str, cells: Sequence[str], width: int) -> str:
    return f"  {name:<{width}}{''.join(f'{cell:<{_CELL}}' for cell in cells)}".rstrip()


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else "..." + name[3 - _LONGEST :]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _top1(s: Score) -> str:
    """The mean and its deviation over draws; of one draw that over folds, and without folds half the 95 % interval."""
    half = s.std if len(s.draws) > 1 else s.fold_std if s.folds else _half(s)
    return f"{_percent(s.top1)} +- {_percent(half)}"


def _half(s: Score) -> float:
    return (s.interval[1] - s.interval[0]) / 2


def _gain(scores: Sequence[Score]) -> str:
    """The best encoder less the best baseline, in points, with the deviation of the difference over draws, or folds; empty without both."""
    ours = max((s for s in scores if not s.baseline), key=lambda s: s.top1, default=None)
    best = max((s for s in scores if s.baseline), key=lambda s: s.top1, default=None)
    if ours is None or best is None:
        return ""
    # Draw i gave both the same labels, and fold i the same samples, so the difference varies less than either.
    paired = (ours.draws, best.draws) if len(ours.draws) > 1 else (ours.folds, best.folds)
    differences = [a - b for a, b in zip(*paired, strict=True)]
    spread = f" +- {_percent(deviation(differences))}" if len(differences) > 1 else ""
    return f"{100 * (ours.top1 - best.top1):+.1f}{spread}"


def _legend(e: Evaluation) -> str:
    draws, folds = (max(len(found) for found in each) for each in ([s.draws for s in e.scores], [s.folds for s in e.scores]))
    whole = max((_half(s) for s in e.scores if len(s.draws) == 1), default=None)
    interval = f"half the 95 % interval of {f'all {e.test:,}' if folds else f'{e.test:,}'} test {e.samples}"
    if whole is None:
        return f"+- deviation over {draws} draws of labels" + (f", each the mean of {folds} folds" if folds else "")
    of_one = f"over {folds} folds; {interval}: {_percent(whole)} at most" if folds else ""
    if draws == 1:
        return f"+- deviation {of_one}" if folds else f"+- {interval}"
    return f"+- deviation over {draws} draws of labels; with all of them {of_one or 'half the 95 % interval'}"
