"""One page about one run or several: what was trained, whether it worked, what the features are worth, how to do it again.

Reads the run folders, the data if it is still there, and the encoders; trains nothing. The same runs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from byol.files import write_text
from byol.reporting.clips import Clips
from byol.reporting.curves import curves, legend, timeline
from byol.reporting.exhibits import exhibits, has_exhibits
from byol.reporting.gallery import atlas, drawn_before, neighbours, views
from byol.reporting.html import Markup, command, join, missing, tag
from byol.reporting.look import Missing, Progress, look, sample, views_of
from byol.reporting.page import contents, header, page, section
from byol.reporting.record import data, differences, facts, plan, repeat
from byol.reporting.run import Run, read_all
from byol.reporting.scores import finding
from byol.reporting.verdict import comparison, headline, mood, verdict
from byol.reporting.worth import side_by_side, worth


@dataclass(frozen=True)
class Extent:
    """How much is looked at in each run."""

    images: int  # on the map, and searched for neighbours
    queries: int  # images whose neighbours are shown
    sound: int = 2_500_000  # bytes of the page for clips of sounds


ONE, MANY = Extent(1000, 12), Extent(400, 6, 600_000)


def write(runs: Sequence[Path], out: Path, progress: Progress = lambda what, done, total: None) -> None:
    """Write the page; ValueError if a folder is no run. What is missing in a run is said on the page, in a sentence."""
    found = read_all(list(runs))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, one(found[0], progress) if len(found) == 1 else many(found, progress))


def one(run: Run, progress: Progress) -> str:
    """The page of a single run."""
    parts = _parts(run, ONE, progress)
    links = contents([(key, key.capitalize()) for key, _, _ in parts])
    body = join([_header(run, links), facts(run), *(section(key, title, content) for key, title, content in parts), _footer([run])])
    return page(f"{run.name}: {headline(run)}", body)


def many(runs: list[Run], progress: Progress) -> str:
    """The page of several runs, side by side first, then one after the other."""
    said = comparison(runs)
    moods = {mood(r) for r in runs}
    compared = [
        ("worth", "What the features are worth", side_by_side(runs)),
        ("training", "Training", join([legend(runs), curves(runs)])),
        ("differences", "Settings that differ", differences(runs)),
    ]
    links = [(key, key.capitalize()) for key, _, _ in compared] + [(f"run-{i}", r.name) for i, r in enumerate(runs)]
    top = header(f"byol report of {len(runs)} runs", said, moods.pop() if len(moods) == 1 else "doubt", [contents(links)])
    articles = (_article(i, r, progress) for i, r in enumerate(runs))
    body = join([top, *(section(key, title, content) for key, title, content in compared), *articles, _footer(runs)])
    return page(said, body)


def _header(run: Run, links: Markup) -> Markup:
    v, found = verdict(run), finding(run)
    rest = [tag("p", found.protocol(), class_="lead")] if found else []
    rest += [tag("p", v.detail, *([" ", command(v.cure)] if v.cure else []), class_="lead")] if v.detail or v.cure else []
    rest += [missing(f"{name} is damaged and left out.") for name in run.damaged]
    return header(f"byol report of {run.path}", headline(run), mood(run), [*rest, links])


def _article(i: int, run: Run, progress: Progress) -> Markup:
    v = verdict(run)
    said = tag("p", headline(run), *([" ", v.detail] if v.detail else []), *([" ", command(v.cure)] if v.cure else []), class_="lead")
    parts = _parts(run, MANY, progress)
    sections = (_folded(key, title, content) for key, title, content in parts if key != "training")
    return tag("article", tag("h2", run.name), said, facts(run), *sections, id=f"run-{i}")


def _folded(key: str, title: str, content: Markup) -> Markup:
    """A part of one run among several; what is long and seldom read is closed at first."""
    if key in ("plan", "data", "repeat"):
        return tag("details", tag("summary", title), content)
    return tag("section", tag("h3", title), content)


def _parts(run: Run, extent: Extent, progress: Progress) -> list[tuple[str, str, Markup]]:
    """(key, title, content) of everything about one run, in the order in which a person asks."""
    seen = _pictures(run, extent, progress)
    return [
        ("worth", "What the features are worth", worth(run)),
        *([("exhibits", f"What {run.settings.get('method')} shows", _exhibits(run))] if has_exhibits(run) else []),
        ("neighbours", f"What {'sounds' if run.words.one == 'sound' else 'looks'} alike to the network", seen["neighbours"]),
        ("map", "Map of the features", seen["map"]),
        ("health", "Health", timeline(run)),
        ("training", "Training", curves([run])),
        ("views", "What the network saw", seen["views"]),
        ("plan", "Plan, and why", plan(run)),
        ("data", "Data", data(run)),
        ("repeat", "Do it again", repeat(run)),
    ]


def _exhibits(run: Run) -> Markup:
    """The method's own pictures; where they cannot be made, a sentence says why."""
    try:
        return exhibits(run)
    except Missing as why:
        return missing(why.sentence, why.cure)


def _pictures(run: Run, extent: Extent, progress: Progress) -> dict[str, Markup]:
    """The parts that need the images; where one cannot be made, a sentence says why."""
    try:
        shown = sample(run, extent.images, progress)
    except Missing as why:
        gone = missing(why.sentence, why.cure)
        return {"neighbours": gone, "map": gone, "views": join([gone, drawn_before(run)])}
    changed = [missing(shown.changed)] if shown.changed else []
    try:
        parts = {"views": join([*changed, views(*views_of(run, shown), shown, run)])}
    except Missing as why:
        parts = {"views": missing(why.sentence, why.cure)}
    try:
        found = look(run, shown, progress)
    except Missing as why:
        return parts | dict.fromkeys(("neighbours", "map"), missing(why.sentence, why.cure))
    clips = Clips(found.sample.source, extent.sound)
    return parts | {"neighbours": join([*changed, neighbours(found, extent.queries, clips)]), "map": atlas(found, clips)}


def _footer(runs: Sequence[Run]) -> Markup:
    trained = ", ".join(sorted({f"byol {r.config.get('byol', '')}".strip() for r in runs}))
    return tag("footer", tag("small", f"Trained by {trained}. Nothing on this page is loaded from elsewhere."))
