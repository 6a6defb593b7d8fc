import math

from test_benchmarks import last_line


def test_a_closed_form_and_the_trained_predictor_are_trained_scored_and_measured():
    found = last_line("predictors.py")["predictors"]
    assert list(found) == ["stiefel, 0.3", "trainable"]
    for outcome in found.values():
        assert 0.1 < outcome["knn"] <= 1
        assert 0.1 < outcome["linear"] <= 1
        for key in ("stable_rank", "trace", "polar_distance"):
            assert all(math.isfinite(value) and -1 <= value <= 1 for value in outcome[key])
    assert found["stiefel, 0.3"]["stable_rank"][0] > 0.9, "the first predictor is the polar factor of a moment, nearly"
