"""Pins the inner folds: no group on both sides, no class untrained, the same every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_longbert._targets.folds import inner_folds, join_groups, merge_equal

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=40)


@given(ROWS)
def test_groups_are_whole_and_tested_classes_are_trained(rows: list[tuple[int, int]]) -> None:
    y, groups = np.array(rows).T
    folds = inner_folds(y, groups)
    tested = np.concatenate([test for _, test in folds]) if folds else np.array([], dtype=int)
    assert len(np.unique(tested)) == len(tested)
    for train, test in folds:
        assert not np.isin(groups[train], groups[test]).any()
        assert np.isin(y[test], y[train]).all()
    in_one_group = [c for c in np.unique(y) if len(np.unique(groups[y == c])) == 1]
    assert not np.isin(y[tested], in_one_group).any()
    again = inner_folds(y, np.array(["c", "z", "a", "g", "b", "k", "m"])[groups])
    assert [test.tolist() for _, test in again] == [test.tolist() for _, test in folds]


def test_folds_keep_the_shares_of_classes() -> None:
    y = np.random.RandomState(1).permutation(np.repeat([0, 1, 2], [50, 25, 2]))
    folds = inner_folds(y)
    counts = np.array([np.bincount(y[test], minlength=3) for _, test in folds])
    assert counts[:, :2].tolist() == [[10, 5]] * 5
    assert sorted(counts[:, 2]) == [0, 0, 0, 1, 1]
    of_groups = inner_folds(np.arange(200) % 2, np.arange(200) // 4)
    assert [np.bincount(np.arange(200)[test] % 2).tolist() for _, test in of_groups] == [
        [20, 20]
    ] * 5


def test_a_class_of_one_row_is_in_training_rows_only() -> None:
    y = np.array([0, 0, 0, 0, 1])
    folds = inner_folds(y)
    assert len(folds) == 4
    assert all(4 in train for train, _ in folds)


def test_numbers_and_labels_have_folds_of_equal_size() -> None:
    folds = inner_folds(np.zeros((23, 2)))
    assert sorted(len(test) for _, test in folds) == [4, 4, 5, 5, 5]
    assert [len(test) for _, test in inner_folds(np.zeros((2, 1)))] == [1, 1]


def test_two_groups_make_two_folds_and_one_makes_none() -> None:
    y = np.arange(8) % 2
    groups = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    tested = [test.tolist() for _, test in inner_folds(y, groups)]
    assert sorted(tested) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert inner_folds(y, np.zeros(8)) == []
    assert inner_folds(y[:1]) == []
    assert inner_folds(np.zeros((1, 1))) == []


def test_global_random_state_is_neither_used_nor_changed() -> None:
    y = np.arange(30) % 3
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the caller's
    first = inner_folds(y)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    for (_, one), (_, other) in zip(first, inner_folds(y), strict=True):
        np.testing.assert_array_equal(one, other)


def test_texts_and_groups_are_joined() -> None:
    """The first and third text are equal; the third and fifth are of one author."""
    texts = ["a", "b", "a", "c", "d", "e"]
    authors = np.array([1, 2, 3, 4, 3, 2])
    assert join_groups(texts, authors).tolist() == [0, 1, 0, 2, 0, 1]
    assert join_groups(texts, None).tolist() == [0, 1, 0, 2, 3, 4]
    assert join_groups(None, authors).tolist() == [0, 1, 2, 3, 2, 1]


@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_equal_rows_are_merged_and_their_weights_added(shape: tuple[int, ...]) -> None:
    table = np.array([[2, 0], [1, 0], [2, 0], [2, 1]])
    weights = np.array([1.0, 2, 3, 4]).reshape(-1, *[1] * (len(shape) - 1)) * np.ones(shape)
    first, inverse, summed = merge_equal(table, weights)
    assert first.tolist() == [1, 0, 3]
    assert inverse.tolist() == [1, 0, 1, 2]
    np.testing.assert_allclose(summed.reshape(3, -1)[:, 0], [0.2, 0.4, 0.4])


def test_outputs_keep_their_weights_beside_each_other() -> None:
    table, weights = np.array([[1], [1], [2]]), np.array([[1.0, 9], [2, 18], [1, 9]])
    summed = merge_equal(table, weights)[2]
    np.testing.assert_allclose(summed, [[0.15, 1.35], [0.05, 0.45]])
    np.testing.assert_allclose(summed.sum(axis=0).mean(), 1)
