"""Images and volumes of subjects on several dates: what names and lists say, pairs of visits, and cubes, against loops and closed forms."""

from datetime import date
from itertools import pairwise

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from data_files import folder

from byol import modalities, views
from byol.api import evaluate
from byol.config import Request
from byol.data import doctor, ids_at, open_source, statistics
from byol.data.dated import day_of
from byol.encoders import Input
from byol.evaluation import splits
from byol.run import prepare

PLANTS = [
    *(f"a/2018-06-{d:02d}_{v}.png" for d in (1, 3, 10) for v in (0, 90)),
    *(f"b/201806{d:02d}_0.png" for d in (2, 3, 4, 9)),
    "c/2018-06-09T12-30.png",
]


@pytest.fixture
def plants(tmp_path):
    return folder(tmp_path / "plants", PLANTS, (16, 16))


def test_names_say_subjects_series_and_days(plants):
    s = open_source(plants)
    assert s.names == sorted(PLANTS)
    assert s.classes == ["a", "b", "c"]
    np.testing.assert_array_equal(s.labels, [0] * 6 + [1] * 4 + [2])
    np.testing.assert_array_equal(s.dated.subjects, s.labels)
    assert s.times.tolist() == [0, 0, 2, 2, 9, 9, 1, 2, 3, 8, 8]
    by_series = {}
    for name, group in zip(s.names, s.groups.tolist(), strict=True):
        by_series.setdefault(group, set()).add((name[0], name.rpartition("_")[2] if "_" in name else ""))
    assert [len(found) for found in by_series.values()] == [1] * 4
    assert len({next(iter(found)) for found in by_series.values()}) == 4
    assert "3 subjects, 2018-06-01 to 2018-06-10; what follows the date stays with itself, 4 series" in s.notes[0]
    some = s.subset([7, 0])
    assert (some.times.tolist(), some.dated.subjects.tolist(), some.dated.known.tolist()) == ([2, 0], [1, 0], [True, True])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2018-06-09", ("2018-06-09", "")), ("20180609_45", ("2018-06-09", "_45")), ("2018_06_09x", ("2018-06-09", "x")),
        ("2018-06-09T12-30", ("2018-06-09", "")), ("20180609_123015", ("2018-06-09", "")),
        ("2018-06-09T123015Z_left", ("2018-06-09", "_left")),
        ("2018-02-30", None), ("2018-0609", None), ("20180609123", None), ("12018-06-09", None),
        ("0001-01-01", None), ("img2018-06-09", None),
        ("2018-06-09_993015", ("2018-06-09", "_993015")),
    ],
)  # fmt: skip
def test_a_date_is_a_day_of_the_calendar_and_a_time_of_day_is_no_view(text, wanted):
    found = day_of(text)
    assert (found and (date.fromordinal(found[0]).isoformat(), found[1])) == wanted


@pytest.mark.parametrize(
    "names",
    [
        ["s1/2018-01-02/scan.png", "s1/2018-01-09/scan.png", "s2/2018-01-02/scan.png", "s2/2018-02-02/scan.png"],
        ["s1/20180102/IMG_1.png", "s1/20180109/IMG_7.png", "s2/20180102/IMG_2.png", "s2/20180202/IMG_5.png"],
        ["sub-1/ses-20180102/anat/sub-1_ses-20180102_T1w.png", "sub-1/ses-20180109/anat/sub-1_ses-20180109_T1w.png",
         "sub-2/ses-20180102/anat/sub-2_ses-20180102_T1w.png", "sub-2/ses-20180202/anat/sub-2_ses-20180202_T1w.png"],
        ["cats/20180102_101112.png", "cats/20180109_131415.png", "dogs/20180102_161718.png", "dogs/20180202_192021.png"],
    ],
)  # fmt: skip
def test_folders_of_dates_sessions_and_numbered_pictures_are_series_of_their_subject(tmp_path, names):
    s = open_source(folder(tmp_path, names))
    assert s.times.tolist() == [0, 7, 0, 31]
    assert s.groups[0] == s.groups[1] != s.groups[2] == s.groups[3]


@pytest.mark.parametrize(
    "names",
    [
        ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"],
        ["2018-01-02.png", "2018-01-03.png", "2018-01-04.png"],  # whose they are is not said
        ["one/2018-01-02.png", "one/2018-01-03.png"],  # a folder of one is no set of subjects
        ["a/2018-01-02.png", "b/2018-01-03.png", "c/2018-01-04.png"],  # nobody was seen twice
        ["a/2018-01-02.png", "a/2018-01-09.png", "b/2018-01-02.png", "b/front.png"],
        ["n01440764/10026.png", "n01440764/10040.png", "n01443537/20003.png"],
        ["2018-01-02/a.png", "2018-01-03/a.png"],
    ],
)
def test_other_folders_stay_as_they_were(tmp_path, names):
    s = open_source(folder(tmp_path, names))
    assert (s.groups, s.times, s.dated, s.notes) == (None, None, None, ())
    assert doctor(s).visits is None


def test_a_file_without_a_date_among_many_is_told_and_in_no_series(tmp_path):
    names = [f"s{i}/2018-01-{d:02d}.png" for i in range(3) for d in range(1, 11)] + ["s1/front.png"]
    report = doctor(open_source(folder(tmp_path, names)))
    s = open_source(tmp_path)
    at = s.names.index("s1/front.png")
    assert (s.groups[at], s.times[at], s.dated.known[at], (s.groups >= 0).sum()) == (-1, 0, False, 30)
    assert report.visits.undated == ("s1/front.png",)
    assert "no date of 1 can be read (first: s1/front.png)" in s.notes[0]
    assert "  undated    1      s1/front.png" in report.lines()


def test_the_doctor_counts_as_loops_do(plants):
    found = doctor(open_source(plants)).visits
    days = {("a", 0): [1, 3, 10], ("a", 90): [1, 3, 10], ("b", 0): [2, 3, 4, 9], ("c", 0): [9]}
    gaps = sorted(b - a for d in days.values() for a, b in pairwise(d))
    assert (found.subjects, found.series, found.first, found.last) == (3, 4, "2018-06-01", "2018-06-10")
    assert (found.dates, found.gaps) == ((1, 3, 4), (gaps[0], gaps[(len(gaps) - 1) // 2], gaps[-1]))
    low, high = found.near
    assert low <= found.gaps[1] <= high
    assert found.pairs == sum(low <= b - a <= high for d in days.values() for a in d for b in d)
    lines = doctor(open_source(plants)).lines()
    assert all(len(line) <= 80 for line in lines)
    assert any("3 with 4 series, 1 to 4 dates each" in line for line in lines)


LIST = "path,subject,{0},sex\nx/0.png,p1,{1},f\nx/1.png,p1,{2},f\nx/2.png,p2,{3},m\nx/3.png,p2,{4},m\n"


@pytest.mark.parametrize(
    ("column", "cells", "times", "first"),
    [
        ("date", ("2001-02-03", "2001-02-13", "20010205", "2002-02-05"), [0, 10, 2, 367], "2001-02-03"),
        ("age", ("70.5", "71.0", "60", "61"), [25750, 25933, 21915, 22280], "60.0 years"),
        ("time", ("5", "6", "-3", "7.0"), [5, 6, -3, 7], "day -3"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_list_says_subject_and_date_age_or_days(tmp_path, column, cells, times, first, form):
    folder(tmp_path, [f"x/{i}.png" for i in range(4)])
    path = tmp_path / f"l.{form}"
    if form == "csv":
        path.write_text(LIST.format(column, *cells))
    else:
        when = [float(c) for c in cells] if column != "date" else [date.fromisoformat(c) for c in cells]
        names, subjects = [f"x/{i}.png" for i in range(4)], ["p1", "p1", "p2", "p2"]
        pyarrow.parquet.write_table(pyarrow.table({"path": names, "subject": subjects, column: when}), path)
    s = open_source(path)
    assert (s.times.tolist(), s.groups.tolist(), s.classes, s.labels.tolist()) == (times, [0, 0, 1, 1], ["p1", "p2"], [0, 0, 1, 1])
    assert doctor(s).visits.first == first


def test_a_list_keeps_its_labels_skips_its_missing_files_and_has_views(tmp_path):
    folder(tmp_path, [f"{i}.png" for i in range(5)])
    rows = "path,subject,date,label,view\n"
    rows += "0.png,p,2001-01-01,ill,l\ngone.png,p,2001-01-02,ill,l\n1.png,p,2001-01-03,ill,r\n2.png,q,2001-01-04,well,l\n"
    (tmp_path / "l.csv").write_text(rows + "3.png,q,soon,well,l\n4.png,,2001-01-09,well,l\n")
    s = open_source(tmp_path / "l.csv")
    assert (s.names, s.classes, s.labels.tolist()) == ([f"{i}.png" for i in range(5)], ["ill", "well"], [0, 0, 1, 1, 1])
    assert (s.dated.subjects.tolist(), s.times.tolist()) == ([1, 1, 2, -1, -1], [0, 2, 3, 0, 0])
    assert len(set(s.groups[:3].tolist())) == 3
    assert s.groups[3:].tolist() == [-1, -1]
    assert "no date of 2 can be read (first: 3.png)" in s.notes[0]
    assert open_source(tmp_path / "l.csv", limit=2).times.shape == (2,)
    (tmp_path / "bad.csv").write_text("path,subject,date\n0.png,p,soon\n1.png,q,\n")
    with pytest.raises(ValueError, match=r"a column date without anything that can be read \(first: 'soon'\); give dates such as"):
        open_source(tmp_path / "bad.csv")
    (tmp_path / "plain.csv").write_text("path,date\n0.png,2001-01-01\n1.png,2001-01-02\n")
    assert open_source(tmp_path / "plain.csv").groups is None


def test_parts_keep_subjects_whole_unless_they_are_the_classes(plants, tmp_path):
    s = open_source(plants)
    assert splits.ties_of(s) is splits.FREE  # a fifth of each subject's own images test, as in any folder of classes
    train, test = splits.stratified(s.labels, 0.2, seed=0, ties=splits.ties_of(s))
    assert set(s.labels[test]) == {0, 1}
    rows = [f"{n},{n[0]},{n[2:12]},{'xy'[i % 2]}" for i, n in enumerate(sorted(PLANTS)) if n[0] == "a"]
    rows += [f"b/201806{d:02d}_0.png,b,2018-06-{d:02d},{y}" for d, y in ((2, "x"), (3, "y"))]
    (plants / "l.csv").write_text("path,subject,date,label\n" + "\n".join(rows) + "\n")
    listed = open_source(plants / "l.csv")
    ties = splits.ties_of(listed)
    train, test = splits.stratified(listed.labels, 0.5, seed=0, ties=ties)
    assert not set(listed.dated.subjects[train]) & set(listed.dated.subjects[test])
    assert "neighbouring images are alike" in " ".join(evaluate("pixels", plants, protocols=("knn",))[0].notes)


def plan_of(source, **changes):
    return modalities.of(source.modality).plan("visits", source, 16, takes=None, compiled=False, changes=changes)


INPUT = Input(channels=3, size=16, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_a_pair_is_the_earlier_and_the_later_of_one_series_so_far_apart(plants):
    s = open_source(plants)
    plan = plan_of(s, apart=(2, 7))
    ids = torch.arange(len(s))
    allowed = [
        {(i, j) if s.times[i] < s.times[j] else (j, i)
         for j in range(len(s)) if s.groups[j] == s.groups[i] and 2 <= abs(s.times[i] - s.times[j]) <= 7} or {(i, i)}
        for i in range(len(s))
    ]  # fmt: skip
    seen = [set() for _ in range(len(s))]
    for epoch in range(80):
        early, late = plan.partners(ids, 3, epoch).tolist()
        for i, pair in enumerate(zip(early, late, strict=True)):
            seen[i].add(pair)
    assert seen == allowed
    assert plan_of(s).partners(ids, 3, 5).equal(plan_of(s, apart=(1, 0)).partners(ids, 3, 5))  # the default: a day or more
    some = torch.tensor([4, 9])
    np.testing.assert_array_equal(plan.partners(some, 3, 5), plan.partners(ids, 3, 5)[:, some])


def memory_of(source):
    return torch.from_numpy(np.stack([source.read(i).transpose(2, 0, 1) for i in range(len(source))]))


def test_views_are_the_whole_images_and_what_is_asked_for_is_drawn_once_for_both(plants):
    s = open_source(plants)
    x, ids = memory_of(s), torch.arange(len(s))
    plan = plan_of(s)
    for view, of in zip(plan.from_memory(x, ids, 0, 1, INPUT), plan.partners(ids, 0, 1), strict=True):
        torch.testing.assert_close(view, x[of] / 255, atol=1e-6, rtol=0)
    changed = plan_of(s, flip=0.5, min_area=0.3, jitter=1.0)
    same = torch.full_like(x, 7) + torch.arange(16, dtype=torch.uint8)  # one picture for all: only the draws can differ
    early, late = changed.from_memory(same, ids, 0, 1, INPUT)
    assert early.equal(late)
    assert len({row.numpy().tobytes() for row in early}) > 5
    with pytest.raises(ValueError, match="apart is of both views of a pair"):
        plan_of(s, **{"view2.apart": (3, 0)})
    with pytest.raises(ValueError, match="apart is not for them; give --set views=visits too"):
        views.load("crop", size=16, apart=(1, 0))


def test_views_on_the_host_are_those_in_memory(plants):
    s = open_source(plants)
    plan, ids = plan_of(s, flip=0.5, min_area=0.5), torch.tensor([3, 0, 8])
    of = plan.partners(ids, 0, 2)
    boxes = plan.boxes(torch.tensor([[16, 16]] * 3), ids, 0, 2)
    crops = torch.stack([
        torch.cat([plan.cut(s.read(i), boxes[b, v : v + 1], (16, 16)) for b, i in enumerate(row)]) for v, row in enumerate(of.tolist())
    ])  # fmt: skip
    for host, memory in zip(plan.device(crops, ids, 0, 2, INPUT), plan.from_memory(memory_of(s), ids, 0, 2, INPUT), strict=True):
        torch.testing.assert_close(host, memory, atol=1.1 / 255, rtol=0)  # crops of 8 bit are rounded on the host


def test_images_of_several_sizes_are_read_as_pairs(tmp_path):
    for i, name in enumerate(["a/2018-01-01", "a/2018-01-05", "b/2018-01-01", "b/2018-02-01"]):
        folder(tmp_path, [f"{name}.png"], (12 + 2 * i, 16))
    asked = Request(data=str(tmp_path), encoder="small-w8", image_size=8, batch_size=2, epochs=1, precision="fp32", set=("views=visits",))
    session = prepare(asked)
    assert session.memory is None
    source, plan = session.source, session.views
    (early, late), _ = next(iter(session.feed()(0, 1)))
    ids = ids_at(0, n=4, batch=2, seed=asked.seed)
    for view, of in zip((early, late), plan.partners(ids, asked.seed, 0).tolist(), strict=True):
        alone = [plan.plans[0].host([source.read(i)], ids[b : b + 1], asked.seed, 0) for b, i in enumerate(of)]
        wanted = plan.plans[0].device(torch.cat(alone, 1), ids, asked.seed, 0, session.input)[0]
        torch.testing.assert_close(view, wanted, atol=1e-5, rtol=0)


def test_what_cannot_be_paired_is_one_sentence(plants, tmp_path):
    with pytest.raises(ValueError, match=r"no two visits of a series are 400 days or more apart \(at most 9 here\)"):
        plan_of(open_source(plants), apart=(400, 0))
    with pytest.raises(ValueError, match="name files SUBJECT/DATE, or give a list with the columns path, subject and date"):
        plan_of(open_source(folder(tmp_path / "p", ["a.png", "b.png"])))
    with pytest.raises(ValueError, match="is no range of days"):
        plan_of(open_source(plants), apart=(5, 2))


def test_visits_are_evaluated_as_they_are_seen(plants):
    s = open_source(plants)
    stats = statistics(s)
    images = modalities.of("image")
    assert images.input_of(plan_of(s), s, 8, stats).resize == 8
    assert images.input_of(plan_of(s, min_area=0.5), s, 8, stats).resize == 9
    picture = images.seen(plan_of(s), s, [s.read(2)], torch.tensor([2]), 0, 0, INPUT)
    of = plan_of(s).partners(torch.tensor([2]), 0, 0)[:, 0].tolist()
    np.testing.assert_allclose(picture[:, 0].permute(0, 2, 3, 1), np.stack([s.read(i) for i in of]) / 255, atol=1e-6)
