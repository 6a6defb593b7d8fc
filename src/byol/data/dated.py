"""Images of the same subjects on several dates: which belong together, and when each was made, from names or from a list.

SUBJECT/DATE.png, SUBJECT/DATE_VIEW.png and SUBJECT/DATE/NAME.png are known by themselves when nearly all names are so, of two
subjects or more; a date is 2018-06-09, 20180609 or 2018-06-09T12-30. A list has the columns subject and date, age or time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from byol.data.labels import from_values
from byol.data.source import Dated, Ids, Source, shown

Unit = Literal["date", "age", "time"]  # a day of the calendar; years; days
YEAR: Final = 365.25  # days

_ENOUGH: Final = 0.95  # of the names that have to hold a date
_FIRST: Final = 1_000  # names that are looked at before all are
_DATE: Final = re.compile(r"(\d{4})([-_.]?)(\d{2})\2(\d{2})(?!\d)")
# 2018-06-09T12-30, and what cameras write: 20180609_123015
_CLOCK: Final = re.compile(r"[Tt]([01]\d|2[0-3])[-:.]?[0-5]\d([-:.]?[0-5]\d)?Z?(?!\d)|[_ -]([01]\d|2[0-3])[0-5]\d[0-5]\d(\d{3})?(?!\d)")
_SUFFIX: Final = re.compile(r"(\.nii\.gz|\.[^./]*)$", re.IGNORECASE)
_SESSION: Final = "ses-"  # of BIDS


@dataclass(frozen=True)
class _Named:
    """What a name says."""

    subject: str
    day: int  # of the calendar, from 1 January of the year 1
    view: str  # what follows the date


@dataclass(frozen=True)
class Said:
    """What a list says of each of its rows."""

    subjects: list[object]
    when: list[object]
    unit: Unit
    views: list[object] | None = None  # what stays with itself within a subject, such as an angle


def day_of(text: str) -> tuple[int, str] | None:
    """A text that begins with a date -> the day, and what follows date and time of day; None for any other."""
    found = _DATE.match(text)
    if found is None or not "1800" <= found[1] <= "2199":
        return None
    try:
        day = date(int(found[1]), int(found[3]), int(found[4])).toordinal()
    except ValueError:
        return None
    rest = text[found.end() :]
    clock = _CLOCK.match(rest)
    return day, rest[clock.end() :] if clock else rest


def by_names(source: Source) -> Source:
    """The source with `groups`, `times` and `dated` where nearly all of its names are those of subjects and dates; else as it was."""
    n = len(source)
    first = np.arange(min(n, _FIRST)) * n // max(1, min(n, _FIRST))
    if not named_by_dates([source.names[int(i)] for i in first]):
        return source
    found = [_named(name) for name in source.names]
    if not _nearly_all(found):
        return source
    subjects = [one.subject if one else "" for one in found]
    days = np.array([one.day if one else -1 for one in found], np.int64)
    views = [one.view if one else "" for one in found]
    if len(set(subjects) - {""}) < 2:
        return source
    kept = _repeated(subjects, views, days)
    if 2 * kept.sum() < n:  # what follows the date is a number of the picture, say, and no view that comes again
        views = [""] * n
        kept = _repeated(subjects, views, days)
    if 2 * kept.sum() < n:
        return source
    return _with(source, subjects, days, days >= 0, views, "date", "SUBJECT/DATE in the names")


def named_by_dates(names: Sequence[str]) -> bool:
    """Whether nearly all of these paths are of subjects and dates."""
    return len(names) > 0 and _nearly_all([_named(name) for name in names])


def by_list(source: Source, said: Said) -> Source:
    """The source, whose rows are those of `said`, with what the list says; ValueError where it says nothing of use.

    Without labels of its own it has those of the subjects.
    """
    days = [_day(value, said.unit) for value in said.when]
    subjects = [_text(value) for value in said.subjects]
    known = np.array([day is not None and bool(subject) for day, subject in zip(days, subjects, strict=True)], bool)
    if not known.any():
        first = next((shown(_text(value)) for value in said.when), "")
        wanted = {"date": "dates such as 2018-06-09", "age": "years", "time": "days"}[said.unit]
        raise ValueError(f"{source.spec} has a column {said.unit} without anything that can be read (first: {first!r}); give {wanted}")
    views = ["" for _ in days] if said.views is None else [_text(value) for value in said.views]
    if source.labels is None:
        found = from_values(subjects)
        source = replace(source, labels=found.values, classes=list(found.classes))
    whole = np.array([-1 if day is None else day for day in days], np.int64)
    return _with(source, subjects, whole, known, views, said.unit, f"the columns subject and {said.unit}")


@dataclass(frozen=True)
class Visits:
    """What a person should know of dated samples."""

    subjects: int
    series: int
    first: str  # 2018-06-09, 70.2 years, or day 0
    last: str
    dates: tuple[int, int, int]  # of a series: fewest, median, most
    gaps: tuple[int, int, int] | None  # days from a date of a series to the next: least, median, most; None: no series has two
    near: tuple[int, int]  # days: what counts as the usual gap
    pairs: int  # samples of one series so far apart
    undated: tuple[str, ...]  # names without a date


def visits(source: Source) -> Visits | None:
    """Subjects, series, dates, gaps and pairs of a dated source; None of another, and where no sample has a date."""
    dated, groups, times = source.dated, source.groups, source.times
    if dated is None or groups is None or times is None or not dated.known.any():
        return None
    of_each = [np.sort(times[groups == g]) for g in np.unique(groups[dated.known])]
    days = [np.unique(t) for t in of_each]
    gaps = np.concatenate([np.diff(d) for d in days])
    usual = float(np.percentile(gaps, 50, method="lower")) if len(gaps) else 0.0
    low, high = max(1, int(np.ceil(0.75 * usual))), int(1.25 * usual)
    pairs = sum(int((np.searchsorted(t, t + high, "right") - np.searchsorted(t, t + low)).sum()) for t in of_each) if len(gaps) else 0
    return Visits(
        subjects=len(np.unique(dated.subjects[dated.known])),
        series=len(days),
        first=when(dated, int(times[dated.known].min())),
        last=when(dated, int(times[dated.known].max())),
        dates=_three([len(d) for d in days]),
        gaps=_three(gaps) if len(gaps) else None,
        near=(low, high),
        pairs=pairs,
        undated=tuple(source.names[int(i)] for i in np.flatnonzero(~dated.known)),
    )


def _three(values: Sequence[int] | Ids) -> tuple[int, int, int]:
    return int(np.min(values)), int(np.percentile(values, 50, method="lower")), int(np.max(values))


def when(dated: Dated, time: int) -> str:
    """A time of the source in words."""
    if dated.unit == "date":
        return (date.fromisoformat(dated.origin) + timedelta(days=time)).isoformat()
    return f"{time / YEAR:.1f} years" if dated.unit == "age" else f"day {time:,}"


def _nearly_all(found: Sequence[_Named | None]) -> bool:
    return sum(one is not None for one in found) >= _ENOUGH * len(found)


def _named(name: str) -> _Named | None:
    """A path with "/" -> subject, day and view; None where it holds no date, or no subject before it."""
    *folders, last = name.split("/")
    stem = _SUFFIX.sub("", last)
    found = day_of(stem)
    if found is not None:
        return _Named("/".join(folders), found[0], found[1].strip("_-. ")) if folders else None
    for at in range(len(folders) - 1, 0, -1):
        found = day_of(folders[at].removeprefix(_SESSION))
        if found is not None and not found[1]:
            # Files that are called after the session say its date once more.
            below = "/".join([*folders[at + 1 :], stem]).replace(folders[at], "")
            return _Named("/".join(folders[:at]), found[0], below.strip("_-. "))
    return None


def _repeated(subjects: Sequence[str], views: Sequence[str], days: Ids) -> NDArray[np.bool_]:
    """(N,) whether a sample's series has another date."""
    series = _codes([f"{subject}\0{view}" for subject, view in zip(subjects, views, strict=True)])
    first, last = np.full(series.max() + 1, 1 << 40), np.full(series.max() + 1, -1)
    there = days >= 0
    np.minimum.at(first, series[there], days[there])
    np.maximum.at(last, series[there], days[there])
    found: NDArray[np.bool_] = there & (last > first)[series]
    return found


def _with(
    source: Source, subjects: Sequence[str], days: Ids, known: NDArray[np.bool_], views: Sequence[str], unit: Unit, how: str
) -> Source:
    """The source with these columns, and with a note that says what was read."""
    first = int(days[known].min()) if unit == "date" else 0
    whose = np.where(known, _codes(subjects), -1)
    series = _codes([f"{subject}\0{view}" for subject, view in zip(subjects, views, strict=True)])
    origin = date.fromordinal(first).isoformat() if unit == "date" else ""
    dated = Dated(subjects=whose, known=known, unit=unit, origin=origin)
    source = replace(source, groups=np.where(known, series, -1), times=np.where(known, days - first, 0), dated=dated)
    many, lines = (len(np.unique(column[known])) for column in (whose, series))
    last = int(days[known].max()) - first
    said = f"{how}: {many:,} subject{'s' * (many != 1)}, {when(dated, int(days[known].min()) - first)} to {when(dated, last)}"
    if lines != many:
        said += f"; what follows the date stays with itself, {lines:,} series"
    lost = np.flatnonzero(~known)
    if len(lost):
        said += f"; no date of {len(lost):,} can be read (first: {shown(source.names[int(lost[0])])}), and they are in no series"
    return replace(source, notes=(*source.notes, said))


def _codes(texts: Sequence[str]) -> Ids:
    """Texts -> (N,) their place among the different ones, in the order of their bytes."""
    known = {text: i for i, text in enumerate(sorted(set(texts), key=lambda t: t.encode("utf-8", "surrogateescape")))}
    return np.array([known[text] for text in texts], np.int64)


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None or value != value else str(value).strip()


def _day(value: object, unit: Unit) -> int | None:
    """A cell -> its day; None where there is none."""
    text = _text(value)
    if unit == "date":
        found = day_of(text)
        return None if found is None else found[0]
    try:
        days = float(text) * (YEAR if unit == "age" else 1)
    except ValueError:
        return None
    return round(days) if abs(days) < 1e9 else None
