import math

import numpy as np
import pytest

from byol.reporting.map import cells, flatten, nearest, same_class


def brute_force(x, query, k):
    """The k nearest other rows by cosine around the mean, one pair at a time in plain Python."""
    mean = [math.fsum(column) / len(x) for column in zip(*x, strict=True)]
    rows = [[v - m for v, m in zip(row, mean, strict=True)] for row in x]

    def cosine(a, b):
        return math.fsum(p * q for p, q in zip(a, b, strict=True)) / math.sqrt(math.fsum(p * p for p in a) * math.fsum(q * q for q in b))

    found = sorted(((cosine(rows[query], row), -i) for i, row in enumerate(rows) if i != query), reverse=True)[:k]
    return [-i for _, i in found], [c for c, _ in found]


def test_nearest_neighbours_equal_a_brute_force_search():
    x = np.abs(np.random.default_rng(0).normal(1, 1, (40, 7))).astype(np.float32)
    queries = [0, 3, 39]
    which, cosines = nearest(x, queries, 5)
    for row, query in enumerate(queries):
        expected, values = brute_force(x.tolist(), query, 5)
        assert which[row].tolist() == expected
        np.testing.assert_allclose(cosines[row], values, rtol=0, atol=1e-12)


def test_an_image_is_never_its_own_neighbour_even_beside_its_copy():
    x = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    which, cosines = nearest(x, [0, 1, 2, 3], 3)
    assert all(i not in row for i, row in enumerate(which.tolist()))
    assert which[0, 0] == 1
    assert cosines[0, 0] == pytest.approx(1)


def test_asking_for_more_neighbours_than_there_are_gives_all_others():
    assert nearest(np.eye(3, dtype=np.float32), [1], 10)[0].tolist() == [[0, 2]]


def test_the_share_of_a_class_among_neighbours_is_counted_without_unlabelled_images():
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(-1, 3, 30).tolist()
    known = [i for i, label in enumerate(labels) if label >= 0]
    shares = [[labels[known[j]] == labels[known[i]] for j in brute_force(x[known].tolist(), i, 5)[0]] for i in range(len(known))]
    assert same_class(x, labels, 5) == pytest.approx(np.mean(shares), abs=1e-12)


def test_too_few_labels_give_no_share():
    assert same_class(np.eye(4, dtype=np.float32), [0, 1, -1, -1], 5) is None


def test_the_map_keeps_groups_apart_and_is_the_same_twice():
    rng = np.random.default_rng(2)
    centres = rng.normal(0, 10, (3, 16))
    x = (centres.repeat(20, axis=0) + rng.normal(0, 1, (60, 16))).astype(np.float32)
    flat, again = flatten(x), flatten(x)
    np.testing.assert_array_equal(flat.xy, again.xy)
    group = np.repeat(range(3), 20)
    distance = np.linalg.norm(flat.xy[:, None] - flat.xy[None], axis=2) + 10 * np.eye(60)
    assert (group[distance.argmin(axis=1)] == group).all()
    assert "t-SNE" in flat.method
    assert "seed 0" in flat.method


@pytest.mark.parametrize(
    "x", [np.ones((1, 4)), np.ones((30, 4)), np.eye(3), np.zeros((2, 1)), np.random.default_rng(0).normal(size=(13, 2))]
)
def test_any_features_have_a_map_inside_its_frame(x):
    flat = flatten(x.astype(np.float32))
    assert flat.xy.shape == (len(x), 2)
    assert ((flat.xy >= 0) & (flat.xy <= 1)).all()


def test_each_square_of_the_map_shows_the_point_nearest_to_its_centre():
    flat = flatten(np.random.default_rng(3).normal(size=(80, 5)).astype(np.float32))
    columns, rows = 6, round(6 / flat.aspect)
    best = {}
    for i, (x, y) in enumerate(flat.xy.tolist()):
        square = min(int(x * columns), columns - 1), min(int(y * rows), rows - 1)
        far = math.hypot(x * columns - square[0] - 0.5, y * rows - square[1] - 0.5)
        best[square] = min(best.get(square, (math.inf, -1)), (far, i))
    found = cells(flat, columns)
    assert sorted(found) == sorted(i for _, i in best.values())
    assert {(round(x * columns - 0.5), round(y * rows - 0.5)) for x, y in found.values()} == set(best)
