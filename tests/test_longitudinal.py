import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import byol
from byol import encoders, families, longitudinal, reporting
from byol.data import aging_shapes, open_source
from byol.encoders import Encoder, Input
from byol.longitudinal.directions import first_component, mean_change
from byol.longitudinal.measures import centred, measured, pairs_in_order, ranks
from byol.longitudinal.protocols import folds_of


def visits(seed=0, subjects=7, most=6):
    """Projection, times, series and subjects; two series each, of different lengths, with ties in both."""
    u = np.random.default_rng(seed)
    lengths = u.integers(3, most + 1, 2 * subjects)
    series = np.repeat(np.arange(2 * subjects), lengths)
    times = u.integers(0, 3, len(series)) * 30.0 + 100 * (np.arange(len(series)) % 2)  # never all alike in a series
    projection = np.round(0.02 * times + u.normal(0, 1, len(series)) + 3 * u.normal(0, 1, 2 * subjects)[series], 1)
    return projection, times, series, series // 2


def test_the_measures_are_those_of_scipy_on_centred_values():
    p, t, series, subjects = visits()
    m = measured(p, t, series, subjects).values
    flat = [np.concatenate([v[series == s] - v[series == s].mean() for s in np.unique(series)]) for v in (p, t)]
    assert m["r"] == pytest.approx(stats.pearsonr(*flat)[0], abs=1e-12)
    assert m["rho"] == pytest.approx(stats.spearmanr(*flat)[0], abs=1e-12)
    of_each = [stats.pearsonr(p[series == s], t[series == s])[0] for s in np.unique(series)]
    assert m["mean r"] == pytest.approx(np.mean(np.reshape(of_each, (-1, 2)).mean(1)), abs=1e-12)


def test_pairs_in_order_are_counted_one_by_one_and_follow_kendall():
    p, t, series, _ = visits(1)
    right = every = 0.0
    for i in range(len(p)):
        for j in range(len(p)):
            if series[i] == series[j] and t[i] < t[j]:
                every += 1
                right += 1.0 if p[i] < p[j] else 0.5 if p[i] == p[j] else 0.0
    assert pairs_in_order(p, t, series) == (right, every)
    u = np.random.default_rng(2).permutation(20).astype(float)
    found, count = pairs_in_order(u, np.arange(20.0), np.zeros(20, int))
    assert 2 * found / count - 1 == pytest.approx(stats.kendalltau(u, np.arange(20))[0], abs=1e-12)


def test_ranks_share_ties_as_scipy_does():
    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0, 1.0])
    np.testing.assert_array_equal(ranks(values), stats.rankdata(values))


def test_what_subjects_differ_in_does_not_count():
    p, t, series, subjects = visits(3)
    apart = measured(p + 100 * series, t + 1000 * series, series, subjects)
    for name, value in measured(p, t, series, subjects).values.items():
        # Ties may be told apart by the rounding of a difference, which moves ranks by halves.
        assert apart.values[name] == pytest.approx(value, abs=1e-3 if name == "rho" else 1e-9), name


def test_a_projection_that_never_changes_has_no_correlation_and_orders_half_of_the_pairs():
    _, t, series, subjects = visits(4)
    m = measured(series.astype(float), t, series, subjects)
    assert m.values == {"r": 0.0, "rho": 0.0, "mean r": 0.0, "ordered": 0.5}


def test_intervals_are_over_subjects_and_hold_what_most_draws_of_subjects_give():
    found = [measured(*visits(seed, subjects=30)) for seed in range(20)]
    middle = np.mean([m.values["r"] for m in found])
    inside = [m.intervals["r"][0] <= middle <= m.intervals["r"][1] for m in found]
    assert np.mean(inside) >= 0.8
    assert all(low <= m.values[k] <= high for m in found for k, (low, high) in m.intervals.items())
    p, t, series, _ = visits()
    assert set(measured(p, t, series, np.zeros(len(p), int)).intervals.values()) == {None}, "one subject has no interval"


@pytest.mark.parametrize("shape", [(30, 5), (12, 40)])
def test_the_first_component_is_that_of_a_singular_value_decomposition_and_grows_with_time(shape):
    u = np.random.default_rng(0)
    x, series, times = u.normal(size=shape) * np.linspace(1, 3, shape[1]), np.arange(shape[0]) // 3, u.normal(size=shape[0])
    found = first_component(x, times, series)
    axis = np.linalg.svd(x - x.mean(0))[2][0]
    assert abs(found @ axis) == pytest.approx(1, abs=1e-9)
    assert stats.pearsonr(centred(x @ found, series), centred(times, series))[0] > 0
    np.testing.assert_allclose(first_component(x, -times, series), -found)


def test_the_mean_change_is_later_less_earlier_over_all_pairs_of_different_times():
    u = np.random.default_rng(1)
    x, series, times = u.normal(size=(20, 4)), np.arange(20) // 5, u.integers(0, 4, 20).astype(float)
    total = sum(x[j] - x[i] for i in range(20) for j in range(20) if series[i] == series[j] and times[i] < times[j])
    np.testing.assert_allclose(mean_change(x, times, series), total / np.linalg.norm(total), atol=1e-12)
    assert not mean_change(x, np.zeros(20), series).any()


def test_folds_keep_subjects_whole_and_test_each_once():
    subjects = np.array([3, 3, 9, 5, 5, 5, 9, 7])
    assert len(np.unique(folds_of(subjects, 0))) == 4
    folds = folds_of(subjects, 2)
    assert all(len(np.unique(folds[subjects == s])) == 1 for s in np.unique(subjects))
    assert len(np.unique(folds)) == 2
    with pytest.raises(ValueError, match="one subject alone"):
        folds_of(np.zeros(4, int), 5)


@pytest.mark.parametrize("setting", ["folds=1", "dates=1", "k=1"])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=setting):
        longitudinal.load(f"progression:{setting}")


def test_shapes_are_the_same_by_seed_and_what_does_not_age_stays_with_the_subject():
    a, b = aging_shapes.draw(5, seed=3), aging_shapes.draw(5, seed=3)
    assert np.array_equal(a.images, b.images)
    assert not np.array_equal(a.images, aging_shapes.draw(5, seed=4).images)
    for s in range(5):
        of = a.subjects == s
        assert all(np.ptp(value[of]) == 0 for value in a.nuisances.values())
        assert (np.diff(a.days[of]) > 0).all()
        assert (np.diff(a.attribute[of]) > 0).all()


def test_the_area_of_a_shape_does_not_change_with_age_and_its_width_does():
    shapes = aging_shapes.draw(40, seed=0)
    light = shapes.images / 255 - 0.1
    across = np.array([image.max(0) > 0.5 * image.max() for image in light]).sum(1)
    down = np.array([image.max(1) > 0.5 * image.max() for image in light]).sum(1)
    assert stats.pearsonr(across / down, np.exp(shapes.attribute))[0] > 0.9
    area = light.sum((1, 2)) / shapes.nuisances["contrast"] / light[0].size
    assert abs(area / shapes.nuisances["area"] - 1).max() < 0.2


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder SUBJECT/DATE.png of six subjects, one of them seen twice alone."""
    root = tmp_path_factory.mktemp("visits")
    drawn = aging_shapes.draw(6, 5, seed=1)
    for s in range(6):
        (root / f"s{s}").mkdir()
        for k, i in enumerate(np.flatnonzero(drawn.subjects == s)[: 2 if s == 5 else None]):
            Image.fromarray(drawn.images[i]).save(root / f"s{s}" / f"20{10 + k}-03-0{1 + s}.png")
    return root


def test_raw_data_are_a_subject_of_their_own_and_subjects_of_too_few_dates_are_named(shapes):
    found = byol.evaluate_task("pixels", shapes, protocol="progression", device="cpu")
    assert [(s.name, s.direction) for s in found.scores] == [("pixels", "PCA"), ("pixels", "change")]
    assert (found.subjects, found.series, found.test) == (5, 5, 25)
    assert any("s5" in note for note in found.notes)
    assert all(len(line) <= 80 for line in found.lines())
    assert json.loads(json.dumps(found.to_json()))["scores"][0]["direction"] == "PCA"


class Wide(torch.nn.Module):
    """Features: how wide the shape is, and noise that is larger."""

    def forward(self, x):
        return torch.stack([x.amax((1, 2)).sum(1), 40 * torch.sin(100 * x.sum((1, 2, 3)))], 1)


def test_a_direction_that_is_kept_is_tried_beside_the_fitted_ones(shapes):
    source = open_source(str(shapes))
    plain = Input(channels=1, size=32, mean=(0.0,), std=(1.0,))
    encoder = Encoder(Wide(), dim=2, input=plain, name="wide", custom=True)
    encoder.provenance = {"kept": {"direction": [1.0, 0.0]}, "data": source.fingerprint()}
    found = byol.evaluate_task(encoder, shapes, protocol="progression:folds=0", device="cpu", baselines=False)
    r = {s.direction: s.values["r"] for s in found.scores}
    assert r["tau"] > 0.7 > abs(r["PCA"])
    assert found.shown == "wide, tau"
    assert found.split == "each subject in turn"
    assert any("trained on these subjects" in note for note in found.notes)
    track = found.tracks[0]
    assert len(track.days) == len(track.projection) == 5
    assert np.mean(track.projection) == pytest.approx(0, abs=1e-3)
    encoder.provenance["kept"] = {"direction": [1.0]}
    with pytest.raises(ValueError, match="1 numbers for 2 features"):
        byol.evaluate_task(encoder, shapes, protocol="progression", device="cpu")
    encoder.provenance["kept"] = {"direction": "up"}
    with pytest.raises(ValueError, match="kept"):
        byol.evaluate_task(encoder, shapes, protocol="progression", device="cpu")


def test_data_without_dates_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="SUBJECT/DATE") as told:
        byol.evaluate_task("random:small-w8", "digits", protocol="progression", device="cpu")
    assert "\n" not in str(told.value)


def test_the_name_of_the_synthetic_data_has_other_subjects_to_test():
    train, test = (open_source(spec, limit=60) for spec in ("aging-shapes", "aging-shapes:test"))
    assert train.dated is not None
    assert train.fingerprint() != test.fingerprint()
    with pytest.raises(ValueError, match="no split 'val'"):
        open_source("aging-shapes:val")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    out, drawn = folder / "run", aging_shapes.draw(12, 4)
    np.savez(folder / "train.npz", x=drawn.images, groups=drawn.subjects, times=drawn.days)
    byol.train(
        folder / "train.npz", out, method="lssl", epochs=1, batch_size=16, device="cpu", precision="fp32",
        set=("hidden=16", "channels_last=false"),
    )  # fmt: skip
    return out


def test_what_a_method_keeps_is_found_again_on_the_loaded_encoder_and_in_what_is_exported(run, tmp_path):
    direction = byol.load(run).kept["direction"]
    assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-6)
    byol.export(run, tmp_path / "e.safetensors")
    assert byol.load(tmp_path / "e.safetensors").kept["direction"] == direction
    assert encoders.load("small-w8", input=byol.load(run).input).kept == {}


def test_the_report_shows_lines_over_time_and_decoded_walks(run):
    found = byol.evaluate_task(run, run.parent / "train.npz", protocol="progression:dates=2", device="cpu")
    assert [s.direction for s in found.scores if s.name == str(run)] == ["tau", "PCA", "change"]
    page = byol.report(run).read_text()
    assert "Projection against time" in page
    assert "Walks along the direction" in page
    assert page.count('alt="+2"') == 6
    reporting.write([run, run], run / "two.html")
    assert "in order, tau" in (run / "two.html").read_text()


def test_the_family_knows_its_protocol():
    assert families.of("progression:folds=3").load("progression:folds=3").folds == 3
