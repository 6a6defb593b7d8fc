"""Pictures on the page: what the networks saw, which images the features call alike, and a map of all of them."""

from __future__ import annotations

import base64
from collections import Counter

from byol.reporting.clips import Clips
from byol.reporting.html import Markup, join, number, percent, short, tag
from byol.reporting.look import Features, Look, Sample
from byol.reporting.map import cells, nearest, same_class
from byol.reporting.pictures import RGB, encoded, sheet, square
from byol.reporting.run import Run

NEIGHBOURS = 6
COLUMNS = 26  # of the grid of pictures on the map
COLOURED = 10  # classes with a colour of their own
_LARGEST = 4 << 20  # bytes of a picture that is taken over as it is


def picture(image: RGB, name: str, hear: int | None = None) -> Markup:
    """An image with its name; small ones keep their pixels visible. `hear`: the number of its clip."""
    return tag(
        "img", src=encoded(image), alt=name, title=name, class_="pixels" if image.shape[0] < 64 else None, loading="lazy", data_hear=hear
    )


def views(rows: list[list[RGB]], count: int, shown: Sample, run: Run) -> Markup:
    """A row for each image: the original, and the views of two epochs."""
    names = [shown.source.names[place] for place in shown.whole]
    heads = [shown.data.words.one, *(f"epoch {epoch}, view {v}" for epoch in (1, 2) for v in range(1, count + 1))]
    grid = [tag("span", h, class_="column") for h in heads]
    for name, row in zip(names, rows, strict=True):
        grid += [picture(image, name if i == 0 else f"{name}: {heads[i]}") for i, image in enumerate(row)]
    lines = run.plan.get("describe")
    described = (
        tag("div", *(tag("p", line) for line in _joined([str(x) for x in lines])), class_="words")
        if isinstance(lines, list)
        else Markup("")
    )
    w = shown.data.words
    said = f"Exactly what was drawn for these {w.many} in the first two epochs: it follows from the seed, the epoch and the {w.one}."
    if shown.changed:
        said = f"Drawn as in the first two epochs, by the seed, the epoch and the {w.one}'s place in the data."
    table = tag("div", *grid, class_="views", style=f"--columns:{len(heads)}")
    return join([tag("p", said, " ", shown.note, class_="note"), tag("div", tag("div", table, class_="scroll"), described, class_="seen")])


def drawn_before(run: Run) -> Markup:
    """The picture of the views that a dry run left in the folder, for when the images are gone; nothing if there is none."""
    path = run.path / "views.png"
    if not path.is_file() or path.stat().st_size > _LARGEST or not (content := path.read_bytes()).startswith(b"\x89PNG"):
        return Markup("")
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return tag("img", src=uri, alt="views of a few images, drawn when the run was planned", class_="drawn")


def _joined(lines: list[str]) -> list[str]:
    """Lines of at most 80 columns with indented continuations -> one text for each."""
    whole: list[str] = []
    for line in lines:
        if line.startswith(" ") and whole:
            whole[-1] += f" {line.strip()}"
        else:
            whole.append(line)
    return whole


def neighbours(found: Look, queries: int, clips: Clips) -> Markup:
    """Some images, each with its nearest neighbours under the trained and under the random network; sounds can be heard."""
    chosen = _spread(found.sample, queries)
    ways: list[tuple[str, Features]] = [("trained", found.trained)]
    ways += [("random", found.random)] if found.random is not None else []
    answers = [(name, *nearest(x, chosen, NEIGHBOURS)) for name, x in ways]
    cards = []
    for q, place in enumerate(chosen):
        rows = [
            _answer(found.sample, clips, place, name, [int(i) for i in which[q]], [float(c) for c in cosines[q]])
            for name, which, cosines in answers
        ]
        query = tag(
            "figure",
            picture(found.sample.pictures[place], found.sample.source.names[place], clips(place)),
            tag("figcaption", _caption(found.sample, place)),
        )
        cards.append(tag("div", query, tag("div", *rows, class_="answers"), class_="card"))
    return join([_said(found, clips), tag("div", *cards, class_="cards")])


def _said(found: Look, clips: Clips) -> Markup:
    n, s = len(found.sample.ids), found.sample
    twin = "; below it, the same network with random weights (seed 0)" if found.random is not None else ""
    many = s.data.words.many
    text = f"Left one of the {many}, right of it the {NEIGHBOURS} nearest of {number(n)} by the cosine of their features as seen from "
    text += f"the mean (below each) under the trained network ({found.encoder}){twin}. "
    text += f"The {number(n)} are drawn from all {number(s.total)} by a fixed seed." if n < s.total else f"These are all the {many}."
    text += " A click on a picture plays its sound." if len(clips) else ""
    return join([tag("p", text, " ", s.note, class_="note"), _shares(found)])


def _shares(found: Look) -> Markup:
    """How often neighbours share the class, if there are classes; the labels had no part in the training."""
    labels = found.sample.source.labels
    if labels is None:
        return Markup("")
    ways = [("trained", found.trained), *([("random", found.random)] if found.random is not None else [])]
    shares = [(name, same_class(x, [int(y) for y in labels], 5)) for name, x in ways]
    said = [f"{percent(v, 0)} {'under the trained' if n == 'trained' else 'under a random'} network" for n, v in shares if v is not None]
    if not said:
        return Markup("")
    classes = len({int(y) for y in labels if y >= 0})
    one = found.sample.data.words.one
    start = f"Neighbours of the same class are marked. Of the 5 nearest neighbours of every labelled {one} here ({classes} classes), "
    return tag("p", start, " and ".join(said), " are of the same class. The labels had no part in the training.", class_="note")


def _answer(shown: Sample, clips: Clips, query: int, way: str, which: list[int], cosines: list[float]) -> Markup:
    labels = shown.source.labels
    figures = []
    for i, cosine in zip(which, cosines, strict=True):
        same = labels is not None and labels[i] >= 0 and labels[i] == labels[query]
        caption = tag("figcaption", f"{cosine:.3f}", *([tag("span", "✓", title="same class")] if same else []), data_cosine=repr(cosine))
        figures.append(tag("figure", picture(shown.pictures[i], _named(shown, i), clips(i)), caption, class_="same" if same else None))
    return tag("div", tag("span", way, class_="way"), *figures, class_="answer")


def _named(shown: Sample, place: int) -> str:
    """The name, and the class if there is one."""
    name = _class(shown, place)
    return shown.source.names[place] + (f" ({name})" if name else "")


def _class(shown: Sample, place: int) -> str:
    labels = shown.source.labels
    return shown.source.classes[int(labels[place])] if labels is not None and labels[place] >= 0 else ""


def _caption(shown: Sample, place: int) -> str:
    return _class(shown, place) or shown.source.names[place].rsplit("/", 1)[-1]


def _spread(shown: Sample, count: int) -> list[int]:
    """Places of `count` images: the classes in turn where there are labels, else evenly over the sample."""
    labels, n = shown.source.labels, len(shown.ids)
    if labels is None or len(set(labels.tolist())) < 2:
        return [n * k // min(count, n) for k in range(min(count, n))]
    seen: Counter[int] = Counter()
    turns = []
    for place, label in enumerate(int(y) for y in labels):
        turns.append((seen[label], label, place))
        seen[label] += 1
    return [place for _, _, place in sorted(turns)[:count]]


def atlas(found: Look, clips: Clips) -> Markup:
    """The map: a picture where there is room for one, else a dot; the colour is the class. Sounds with a picture can be heard."""
    s = found.sample
    colours = _colours(s)
    size = min(48, max(p.shape[0] for p in s.pictures))
    uri, columns = sheet([square(p, size, grow=True) for p in s.pictures])
    rows = -(-len(s.pictures) // columns)
    framed = cells(found.flat, COLUMNS)
    for i in _evenly(list(framed)):
        clips(i)
    points = []
    for i, (x, y) in enumerate(found.flat.xy):
        u, v = framed.get(i, (x, y))
        at = _percent(i % columns, columns), _percent(i // columns, rows)
        style = f"--x:{short(100 * x)}%;--y:{short(100 * y)}%;--u:{short(100 * u)}%;--v:{short(100 * v)}%;--p:{at[0]}% {at[1]}%"
        kind = f"k{colours[i]}" + (" framed" if i in framed else "")
        points.append(tag("i", title=_named(s, i), style=style, class_=kind, data_hear=clips.has(i)))
    frame = (
        f"--sheet:url({uri});--size:{columns * 100}% {rows * 100}%;--cell:{short(100 / COLUMNS)}%;aspect-ratio:{short(found.flat.aspect)}"
    )
    kind = "map" + (" pixels" if size < 32 else "") + (" heard" if len(clips) else "")
    # An image has no parts that could be pressed.
    shape = tag("div", *points, class_=kind, style=frame, role="group" if len(clips) else "img", aria_label=_spoken(found))
    switch = tag("label", tag("input", type="checkbox", class_="dots"), " dots")
    return join(
        [
            tag("p", _words(found), " ", s.note, " ", clips.said(), class_="note"),
            tag("div", tag("div", _legend(s, colours), switch, class_="bar-over"), shape, class_="atlas"),
            clips.listed({i: _named(s, i) for i in range(len(s.ids))}),
        ]
    )


def _evenly(places: list[int]) -> list[int]:
    """The same in an order whose beginning is spread over all of them, for what may run out."""
    return [place for first in range(8) for place in places[first::8]]


def _percent(index: int, count: int) -> str:
    return short(100 * index / max(1, count - 1))


def _spoken(found: Look) -> str:
    return f"Map of {len(found.sample.ids)} {found.sample.data.words.many} by their features, {found.flat.method}"


def _words(found: Look) -> str:
    many = f"{number(len(found.sample.ids))} {found.sample.data.words.many}"
    said = f"{many}, placed so that those with similar features are near each other: {found.flat.method}."
    said += " Near is meaningful; the distance between far groups, and their size, is not."
    return said + " A picture stands for all in its square; dots show every one, and grow into its picture under the pointer."


def _colours(shown: Sample) -> list[int]:
    """A colour number for every image: the largest classes get their own, all else is number COLOURED (grey)."""
    labels = shown.source.labels
    if labels is None:
        return [COLOURED] * len(shown.ids)
    most = [label for label, _ in sorted(Counter(int(y) for y in labels if y >= 0).items(), key=lambda kv: (-kv[1], kv[0]))[:COLOURED]]
    order = sorted(most)
    return [order.index(int(y)) if int(y) in order else COLOURED for y in labels]


def _legend(shown: Sample, colours: list[int]) -> Markup:
    labels = shown.source.labels
    if labels is None:
        return Markup("")
    names = {c: shown.source.classes[int(y)] for c, y in zip(colours, labels, strict=True) if c < COLOURED}
    keys = [tag("span", tag("b", class_=f"key k{c}"), name) for c, name in sorted(names.items())]
    others = len({int(y) for y, c in zip(labels, colours, strict=True) if c == COLOURED and y >= 0})
    if others:
        keys.append(tag("span", tag("b", class_=f"key k{COLOURED}"), f"{others} other classes"))
    return tag("p", *keys, class_="legend")
