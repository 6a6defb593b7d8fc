"""The studies collapse, batch-norm and orthogonality: what they calculate, and that each claim of theirs can fail."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch

from byol import ablation, api, demonstration
from byol.studies import _digits, _linear, _pages, load
from byol.studies._digits import Run, Runs

collapse, batch_norm, orthogonality = load("collapse"), load("batch-norm"), load("orthogonality")
NOTHING = lambda what, done, total: None  # noqa: E731


def logged(steps=12, **ends):
    """A log in which every number goes in a straight line from its start to its end."""
    keys = {"spread": (0.9, 0.8), "rank": (9, 6), "positive_cosine": (0.4, 0.9), "negative_cosine": (0.3, 0.3)} | ends
    rows = [{k: a + (b - a) * i / (steps - 1) for k, (a, b) in keys.items()} for i in range(steps)]
    return [row | {"step": i, "epoch": float(i), "verdict": "OK"} for i, row in enumerate(rows)]


def a_run(knn=0.9, linear=0.9, collapsed=False, **ends):
    records = logged(**ends)
    records[-1]["verdict"] = "COLLAPSED" if collapsed else "OK"
    return Run(records, {"knn": knn, "linear": linear})


def verdicts(findings):
    return [f.held for f in findings]


def trained_as(monkeypatch, of):
    """`_digits.train` without training: every setting gets a run for every seed; returns what was asked of it."""
    asked = {}

    def train(wanted, seeds, progress, **options):
        asked.update(wanted)
        return Runs({name: [of(name) for _ in seeds] for name in wanted}, [{"knn": 0.5, "linear": 0.5} for _ in seeds], {"epochs": 1})

    monkeypatch.setattr(_digits, "train", train)
    return asked


# What all runs have in common.


def test_a_run_of_a_study_is_that_of_byol_train_with_the_same_settings(monkeypatch, tmp_path):
    monkeypatch.setattr(_digits, "BATCH", 512)
    told = []
    found = _digits.train({"sg": ("target=stop-gradient",)}, [3], lambda *at: told.append(at), epochs=1, protocols=("knn",))
    files = demonstration.prepare(tmp_path / "data", 3)
    run = tmp_path / "run"
    settings = {
        "encoder": _digits.ENCODER,
        "epochs": 1,
        "batch_size": 512,
        "image_size": 8,
        "precision": "fp32",
        "device": "cpu",
        "seed": 3,
    }
    api.train(files.train, run, set=(*_digits.SETTINGS, "target=stop-gradient"), **settings)
    theirs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (ours,) = found.of["sg"]
    for key in ("loss", "spread", "negative_cosine"):
        assert ours.curve(key) == [r[key] for r in theirs]
    (score,) = api.evaluate(run, files.train, test=files.test, protocols=("knn",), seed=3, baselines=False, device="cpu")[0].scores
    assert ours.scores == {"knn": score.top1}
    assert found.untrained[0]["knn"] > 0.2
    assert told[-1][1:] == (2, 2)


def test_band_and_span_are_of_all_seeds():
    band = _digits.line("a", [a_run(spread=(0, 1)), a_run(spread=(0, 3))], "spread")
    assert (band.y[-1], band.low[-1], band.high[-1]) == (2, 1, 3)
    assert [_digits.span(v) for v in ([0.5, 0.25], [0.5], [])] == ["0.25 to 0.5", "0.5", "-"]
    assert _digits.mean([0.5, 0.7], 1, 100) == "60.0 ± 14.1"


# collapse.


def of_parts(**changed):
    """Runs of every setting of the study as the theory has it, but for those that are changed."""
    fine = {"ema", "stop-gradient"}
    found = {}
    for predictor in ("mlp", "none"):
        for target in ("ema", "stop-gradient", "online"):
            falls = predictor == "none" or target not in fine
            knn = 0.5 if falls else 0.9 if target == "ema" else 0.8
            run = a_run(knn, collapsed=falls, spread=(0.9, 0.01 if falls else 0.8), rank=(9, 1 if falls else 6))
            found[predictor, target] = [run]
    return found | {tuple(k.split("_")): [v] for k, v in changed.items()}


def test_every_claim_of_collapse_can_hold_and_can_fail():
    assert verdicts(collapse.judged(of_parts())) == [True] * 7
    healthy, fallen = a_run(0.95), a_run(0.95, collapsed=True, spread=(0.9, 0.01), rank=(9, 30))
    stop = "mlp_stop-gradient"
    for changed, broken in (
        ({"mlp_ema": a_run(0.9, collapsed=True)}, {0}),
        ({"none_ema": healthy}, {1}),
        ({"mlp_online": healthy}, {2}),
        ({stop: a_run(0.8, collapsed=True, rank=(9, 1))}, {3}),
        ({stop: healthy}, {4}),
        ({"none_online": fallen}, {5, 6}),
    ):
        found = verdicts(collapse.judged(of_parts(**changed)))
        assert {i for i, held in enumerate(found) if not held} == broken, changed
    none_fell = {parts: [healthy] for parts in of_parts()}
    assert verdicts(collapse.judged(none_fell))[5:] == [None, None]


def test_collapse_says_when_the_spread_was_first_that_of_collapse():
    run = a_run(spread=(1.1, 0.0))  # by 0.1 an epoch: below 0.1 at the eleventh measurement or the twelfth
    first = next(i for i, v in enumerate(run.curve("spread")) if v < 0.1)
    assert f"after {first} epochs" in collapse.judged(of_parts(mlp_ema=run))[0].evidence


def test_the_studies_of_ablations_train_the_settings_of_byol_ablate_and_show_what_was_published(monkeypatch):
    asked = trained_as(monkeypatch, lambda name: a_run())
    rows = collapse.run([0, 1], NOTHING).rows
    target = ablation.load("target")
    assert list(asked.values()) == [target.pairs(v) for v in target.values if v.endswith("beta=0")]
    assert [row[-1] for row in rows] == ["72.5", "5.5", "0.3", "0.2", "0.1", "0.1", ""]
    asked.clear()
    rows = batch_norm.run([0, 1], NOTHING).rows
    norm = ablation.load("norm")
    assert list(asked.values()) == [norm.pairs(v) for v in norm.values]
    assert [row[2] for row in rows] == ["57.7", "55.3", "48", "28.3", "29.4", "44.1", "28.8"]
    assert [row[0] for row in rows][:3] == ["batch/batch", "batch/none", "none/batch"]


# batch-norm.

PUBLISHED = {"batch/batch": 57.7, "batch/none": 55.3, "none/batch": 48, "none/none": 28.3, "layer/layer": 29.4, "contrastive": 44.1}


def of_norms(**changed):
    alike, apart = {"positive_cosine": (0.9, 0.9999), "negative_cosine": (0.9, 0.9998)}, {}
    names = dict.fromkeys(PUBLISHED, apart) | {"none/none": alike, "layer/layer": alike}
    return {name: [a_run(**cosines)] for name, cosines in (names | changed).items()}


def test_every_claim_of_batch_norm_can_hold_and_can_fail():
    as_published = {name: [value / 100] for name, value in PUBLISHED.items()}
    assert verdicts(batch_norm.judged(of_norms(), as_published, PUBLISHED)) == [True] * 6
    apart, near = {"positive_cosine": (0.9, 0.98)}, {"positive_cosine": (0.9, 0.95), "negative_cosine": (0.9, 0.9)}
    for name, changed, broken in (
        ("none/none", apart, 0), ("layer/layer", apart, 1), ("batch/batch", near, 2), ("none/batch", near, 3), ("contrastive", near, 4),
    ):  # fmt: skip
        found = verdicts(batch_norm.judged(of_norms(**{name: changed}), as_published, PUBLISHED))
        assert [i for i, held in enumerate(found) if not held] == [broken]
    turned = as_published | {"none/batch": [0.6]}
    last = batch_norm.judged(of_norms(), turned, PUBLISHED)[-1]
    assert not last.held
    assert "batch/batch (57.7) and none/batch (60.0)" in last.evidence
    # 28.3 and 29.4 are too near to be an order.
    assert batch_norm.judged(of_norms(), as_published | {"none/none": [0.3]}, PUBLISHED)[-1].held


def test_cosines_that_are_not_finite_are_not_apart():
    run = a_run(positive_cosine=(0.9, math.nan))
    found = batch_norm.judged(of_norms() | {"batch/batch": [run]}, {n: [v / 100] for n, v in PUBLISHED.items()}, PUBLISHED)
    assert found[2].held is False


# orthogonality: what is calculated.


def test_the_optimal_predictor_of_the_study_is_least_squares():
    z, t = (np.random.default_rng(i).standard_normal((30, 4)) for i in range(2))
    np.testing.assert_allclose(_linear.optimal(z, t), np.linalg.lstsq(z, t, rcond=None)[0], atol=1e-12)


def test_a_predictor_that_is_not_optimal_fails_the_first_three_claims(monkeypatch):
    draw = np.random.default_rng(0)
    z = draw.standard_normal((60, 5)) * np.logspace(0, -1, 5)
    t, right = z + draw.standard_normal(z.shape), _linear.optimal
    assert max(_linear.projected(z, t)) < 1e-12
    assert max(_linear.to_pca(z)) < 1e-12
    monkeypatch.setattr(_linear, "optimal", lambda z, t: right(z, t) * 1.01)
    assert min(_linear.projected(z, t)) > 1e-5
    assert _linear.to_identity(z, draw)[-1] > 0.005
    monkeypatch.setattr(_linear, "optimal", lambda z, t: right(z, t) + 1e-3 * np.ones((z.shape[1], t.shape[1])))
    assert max(_linear.to_pca(z)) > 1e-5


def test_the_distance_to_the_identity_is_what_the_inverse_moments_say():
    """P - I = (Z'Z)^-1 Z' sigma G: its expected square is sigma^2 D trace (Z'Z)^-1."""
    z = np.random.default_rng(0).standard_normal((400, 8))
    found = [_linear.to_identity(z, np.random.default_rng(i)) for i in range(1, 21)]
    expected = np.array(_linear.NOISES) * math.sqrt(np.trace(np.linalg.inv(z.T @ z)))
    np.testing.assert_allclose(np.sqrt(np.square(found).mean(axis=0)), expected, rtol=0.05)


def test_the_weights_balance_with_the_decay_asked_for_and_without_decay_what_they_differ_by_stays(monkeypatch):
    monkeypatch.setattr(_linear, "TIME", 2.0)
    misses = {}
    for decay in (0.1, 0.0):
        monkeypatch.setattr(_linear, "DECAY", decay)
        for rate in (0.04, 0.02):
            line, misses[rate] = _linear.balanced(rate, 1)
            assert line.y[-1] == pytest.approx(math.exp(-2 * decay * line.x[-1]), abs=0.04)
        assert misses[0.02] / misses[0.04] == pytest.approx(0.5, abs=0.05)


# orthogonality: what is seen.


def test_the_rank_correlation_is_scipys():
    values = np.random.default_rng(0).standard_normal(30).tolist()
    assert orthogonality.correlation(values) == pytest.approx(scipy.stats.spearmanr(values, range(30)).statistic)
    assert orthogonality.correlation([1.0, 1.0]) == 0


def test_between_and_large_are_shares_of_singular_values_over_the_largest():
    method = torch.nn.Module()
    method.predictor, method.predictor_matrix = None, torch.diag(torch.tensor([-2.0, 1.9, 1.0, 0.1]))
    assert orthogonality.between(method) == {"between": 0.25, "large": 0.5}
    method.predictor = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.eye_(method.predictor.weight)
    assert orthogonality.between(method) == {"between": 0.0, "large": 1.0}


def of_predictors(**changed):
    rises = {
        "predictor_stable_rank": (0.1, 0.5), "predictor_trace": (0.1, 0.5), "predictor_polar_distance": (0.9, 0.3), "between": (0.5, 0.1),
        "large": (0.1, 0.5),
    }  # fmt: skip
    taus = {f"trained, {tau:g}": rises | {"predictor_polar_distance": (0.9, 0.5 - tau / 10)} for tau in orthogonality.TAUS}
    return {name: [a_run(**(ends | changed)) for _ in range(2)] for name, ends in (taus | {"ns, 0.99": rises}).items()}


def test_every_claim_about_training_can_hold_and_can_fail():
    assert verdicts(orthogonality.seen(of_predictors())) == [True] * 5
    for key, changed, broken in (
        ("predictor_trace", (0.5, 0.1), {0}),
        ("predictor_stable_rank", (0.5, 0.1), {0, 1}),
        ("between", (0.1, 0.5), {2}),
        ("predictor_polar_distance", (0.3, 0.9), {3, 4}),
    ):
        found = verdicts(orthogonality.seen(of_predictors(**{key: changed})))
        assert {i for i, held in enumerate(found) if not held} == broken


def test_one_seed_that_goes_the_other_way_with_tau_is_enough_to_fail():
    found = of_predictors()
    found["trained, 0.9"][1] = found["trained, 0.99"][1]
    assert verdicts(orthogonality.seen(found))[4] is False


@pytest.mark.parametrize("name", ["collapse", "batch-norm", "orthogonality"])
def test_the_study_has_a_finding_for_each_claim_in_order_and_a_table_that_fits(name, monkeypatch):
    study = load(name)
    polar = {"predictor_polar_distance": (0.9, 0.5), "predictor_stable_rank": (0.3, 0.1), "predictor_trace": (0.3, 0.1)}
    trained_as(monkeypatch, lambda setting: a_run(**polar, between=(0.5, 0.2), large=(0.0, 0.1)))
    for name, value in (("TIME", 0.1), ("FEATURES", 3), ("SPECTRUM", np.logspace(0, -1, 3))):
        monkeypatch.setattr(_linear, name, value)
    outcome = study.run([0, 1, 2], NOTHING)
    assert [f.claim for f in outcome.findings] == list(study.CLAIMS)
    assert all(len(row) == len(outcome.columns) for row in outcome.rows)
    assert max(map(len, _pages.lines(outcome))) <= 80
    assert all(plot.lines for plot in outcome.plots)
