"""Pins the scales of several models: the least loss, none below zero, by weight."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from sklearn.linear_model import LinearRegression

from sklearn_longbert._targets.linear_models import (
    LinearKind,
    sigmoid_models,
    softmax_model,
    square_models,
)
from sklearn_longbert._targets.scales import fit_scales, scaled_sum

RNG = np.random.RandomState(0)
Y = np.arange(90) % 3
GOOD = np.eye(3)[Y] * 2 + RNG.normal(size=(90, 3))
NOISE = RNG.normal(size=(90, 3))
ONES = np.ones(90)


def test_the_scale_of_one_part_has_the_least_loss() -> None:
    weights = np.linspace(0.5, 2, 90)

    def loss(scale: float) -> float:
        logits = scale * GOOD
        losses = -log_softmax(logits, axis=1)[np.arange(90), Y]
        return float(weights @ (losses + 5e-4 * (logits**2).sum(axis=1)) / weights.sum())

    (scale,) = fit_scales([GOOD], Y, weights, softmax_model(3))
    assert scale == pytest.approx(minimize_scalar(loss, bounds=(0, 9), method="bounded").x, 1e-4)
    (twice,) = fit_scales([2 * GOOD], Y, weights * 7, softmax_model(3))
    assert twice == pytest.approx(scale / 2, 1e-4)


def test_squares_are_ordinary_least_squares() -> None:
    y = RNG.normal(size=(90, 2))
    parts = [y + RNG.normal(size=(90, 2)), y + 2 * RNG.normal(size=(90, 2))]
    expected = LinearRegression(fit_intercept=False, positive=True).fit(
        np.column_stack([part.ravel() for part in parts]), y.ravel()
    )
    scales = fit_scales(parts, y, ONES, square_models(2))
    np.testing.assert_allclose(scales, expected.coef_, rtol=5e-3)


def test_a_prior_draws_squares_to_the_average() -> None:
    """The normal equations have the prior on their diagonal."""
    y = RNG.normal(size=(90, 2))
    parts = [y + RNG.normal(size=(90, 2)), y + 2 * RNG.normal(size=(90, 2))]
    flat = np.column_stack([part.ravel() for part in parts])
    for prior in (0.1, 3.0, 1e6):
        expected = np.linalg.solve(
            2 * flat.T @ flat / 180 + prior * np.eye(2), 2 * flat.T @ y.ravel() / 180 + prior / 2
        )
        scales = fit_scales(parts, y, ONES, square_models(2), prior=prior)
        np.testing.assert_allclose(scales, expected, rtol=5e-3)
    assert scales == pytest.approx([0.5, 0.5], abs=1e-5)


def test_a_text_weighs_the_same_by_itself_and_by_each_of_its_outputs() -> None:
    """Beside a prior, too: the loss of a text is the sum of those of its outputs."""
    weights = np.linspace(0.5, 2, 90)
    kind, y = sigmoid_models(3), np.eye(3)[Y]
    scales = fit_scales([GOOD, NOISE], y, weights, kind, prior=0.5)
    of_outputs = np.repeat(weights[:, None], 3, axis=1)
    np.testing.assert_allclose(fit_scales([GOOD, NOISE], y, of_outputs, kind, prior=0.5), scales)


def test_a_useless_part_has_scale_zero() -> None:
    kind = softmax_model(3)
    assert (
        fit_scales([GOOD, -GOOD[::-1], -NOISE * (NOISE.argmax(1) == Y)[:, None]], Y, ONES, kind)[2]
        == 0
    )
    assert fit_scales([-GOOD], Y, ONES, kind).tolist() == [0.0]
    assert fit_scales([GOOD, -GOOD], Y, ONES, kind, prior=0.1)[1] == 0
    assert fit_scales([-GOOD], Y, ONES, kind, 0.1).tolist() == [0.1]
    assert fit_scales([GOOD, -GOOD], Y, ONES, kind, [0.0, 0.2])[1] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("kind", "y", "weights"),
    [
        (softmax_model(3), Y, ONES),
        (sigmoid_models(3), np.eye(3)[Y], ONES),
        (sigmoid_models(3), np.eye(3)[Y], np.linspace(1, 2, 270).reshape(90, 3)),
        (square_models(3), np.eye(3)[Y], ONES),
    ],
)
def test_weights_are_copies_and_the_sum_beats_each_part(
    kind: LinearKind, y: np.ndarray, weights: np.ndarray
) -> None:
    counts = 1 + np.arange(90) % 3
    rows = np.repeat(np.arange(90), counts)
    other = np.eye(3)[Y] + RNG.normal(size=(90, 3))
    times = weights * counts.reshape(-1, *[1] * (weights.ndim - 1))
    scales = fit_scales([GOOD, other], y, times, kind)
    copied = fit_scales([GOOD[rows], other[rows]], y[rows], weights[rows], kind)
    np.testing.assert_allclose(scales, copied, rtol=1e-4)
    assert (scales > 0).all()

    def loss(logits: np.ndarray) -> float:
        return float((times.reshape(90, -1) * kind.losses(logits, y).reshape(90, -1)).sum())

    for part in (GOOD, other):
        (scale,) = fit_scales([part], y, times, kind)
        assert loss(scaled_sum([GOOD, other], scales)) < loss(scale * part)


def test_a_useless_part_changes_no_bit_of_the_others() -> None:
    kind, other = softmax_model(3), -GOOD + 0.1 * NOISE
    other[:5] = np.nan
    expected = fit_scales([GOOD, NOISE], Y, ONES, kind, [0.1, 0.0])
    scales = fit_scales([GOOD, other, NOISE], Y, ONES, kind, [0.1, 0.0, 0.0])
    assert scales.tolist() == [expected[0], 0.0, expected[1]]
    (alone,) = fit_scales([GOOD], Y, ONES, kind)
    assert alone not in (0.0, 1.0)
    assert fit_scales([other, GOOD], Y, ONES, kind).tolist() == [0.0, alone]


def test_rows_that_no_fold_tests_get_a_weighted_mean() -> None:
    """A weight of k is k copies."""
    part, counts = GOOD.copy(), 1 + np.arange(90) % 4
    part[:30] = np.nan
    rows = np.repeat(np.arange(90), counts)
    copied = scaled_sum([part[rows]], np.array([2.0]))
    for weights in (counts * 1.0, np.repeat(counts[:, None], 3, axis=1) * [1.0, 2.0, 0.5]):
        summed = scaled_sum([part], np.array([2.0]), weights)
        np.testing.assert_allclose(summed[rows], copied)
    assert not scaled_sum([part], np.array([2.0]), np.zeros((90, 3)))[:30].any()


def test_without_error_the_scale_is_finite() -> None:
    (scale,) = fit_scales([np.eye(3)[Y]], Y, ONES, softmax_model(3))
    assert 3 < scale < 30
    logits = scale * np.array([0.5, -0.5])
    assert expit(logits[0] - logits[1]) > 0.9


def test_rows_that_no_fold_tests_do_not_count() -> None:
    part = GOOD.copy()
    part[:30] = np.nan
    kind = softmax_model(3)
    expected = fit_scales([GOOD[30:]], Y[30:], ONES[30:], kind)
    np.testing.assert_allclose(fit_scales([part], Y, ONES, kind), expected)
    summed = scaled_sum([part, NOISE], np.array([2.0, 1.0]))
    np.testing.assert_allclose(summed[30:], 2 * GOOD[30:] + NOISE[30:])
    np.testing.assert_allclose(summed[:30], np.tile(summed[30:].mean(axis=0), (30, 1)))
    unknown = np.full((90, 3), np.nan)
    assert fit_scales([unknown, unknown], Y, ONES, kind).tolist() == [0.5, 0.5]
    assert not scaled_sum([unknown, unknown], np.array([0.5, 0.5])).any()
