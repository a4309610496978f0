"""Pins what the head starts at: a cross-validated linear model of frozen embeddings.

Exactly the pooled head, of mean embeddings under mean pooling and of chunks under max and
logsumexp; indifferent to copies, order and scale of weights; defined for every kind of target,
and for classes with few texts or none.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.utils import all_estimators

from sklearn_longbert import LongBertClassifier, LongBertRegressor, LongBertVectorizer
from sklearn_longbert._targets import linear_models as module
from sklearn_longbert._targets import linear_probe
from sklearn_longbert._targets.folds import inner_folds
from sklearn_longbert._targets.linear_probe import (
    FittedProbe,
    _rows_of,
    _shares,
    classification_probe,
    multilabel_probe,
    regression_probe,
)
from sklearn_longbert._targets.pooled_linear import Embeddings
from sklearn_longbert._targets.scales import PRIOR_GROUPS, fit_scales

STILL = 1e-30  # a learning rate that no float32 weight can feel


def blobs(n: int = 60, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings around centres, of which one feature is constant and one very large."""
    rng = np.random.RandomState(seed)
    y = np.arange(n) % n_classes
    X = rng.normal(size=(n_classes, 6))[y] + rng.normal(size=(n, 6))
    return np.column_stack([X, np.full(n, 3.0), 1e4 * rng.normal(size=n)]), y


whole = Embeddings.of_means


def logits_of(linear: FittedProbe, X: np.ndarray) -> np.ndarray:
    return X @ linear[0].T + linear[1]


def choose(
    kind: module.LinearKind,
    X: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray | None = None,
) -> Any:
    folds = [_rows_of(whole(X), fold) for fold in inner_folds(y, groups)]
    return module.choose_penalty(folds, y, weights, kind)[0]


def test_is_scikit_learns_model_of_scaled_features() -> None:
    X, y = blobs()
    weights = np.linspace(1, 2, 60)
    linear = classification_probe(whole(X), y, weights, 3)
    center = np.average(X, axis=0, weights=weights)
    variances = np.average((X - center) ** 2, axis=0, weights=weights)
    Z = (X - center) / np.sqrt(variances + 1e-4 * variances.mean())
    of_penalty = {
        penalty: LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10_000).fit(
            Z, y, sample_weight=weights / weights.sum()
        )
        for penalty in module.PENALTIES
    }
    ours = softmax(logits_of(linear, X), axis=1)
    closest = min(np.abs(ours - model.predict_proba(Z)).max() for model in of_penalty.values())
    assert closest < 1e-3


def test_the_penalty_is_the_one_that_predicts_best() -> None:
    """Where features tell nothing it is the largest, where they tell all a small one."""
    rng = np.random.RandomState(0)
    noise, y = rng.normal(size=(80, 20)), np.arange(80) % 2
    weights = np.ones(80) / 80
    kind = module.softmax_model(2)
    assert choose(kind, noise, y, weights) == module.PENALTIES.max()
    assert choose(kind, noise + 9 * y[:, None], y, weights) <= 1e-2


def test_copies_are_weights_and_scale_and_order_do_not_matter() -> None:
    X, y = blobs()
    counts = np.arange(60) % 4
    rows = np.random.RandomState(1).permutation(np.repeat(np.arange(60), counts))
    weighted = classification_probe(whole(X[counts > 0]), y[counts > 0], counts[counts > 0], 3)
    copied = classification_probe(whole(X[rows]), y[rows], np.full(len(rows), 7.0), 3)
    for one, other in zip(weighted[:2], copied[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
    plain = classification_probe(whole(X), y, np.ones(60), 3)
    assert np.abs(plain[0] - weighted[0]).max() > 1e-3


@pytest.mark.parametrize(
    "y",
    [
        np.zeros(8, dtype=int),  # one class
        np.array([0, 0, 0, 0, 0, 0, 0, 1]),  # one text of a class
        np.arange(8),  # one text a class
        np.array([0, 0, 0, 0, 1, 1, 3, 3]),  # none of two classes
    ],
)
def test_rare_and_absent_classes(y: np.ndarray) -> None:
    X = np.random.RandomState(0).normal(size=(8, 3)) + np.eye(8)[:, :3] + y[:, None]
    n = max(y.max() + 1, 2) + 1
    coefficients, intercepts = classification_probe(whole(X), y, np.ones(8), n)[:2]
    assert coefficients.shape == (n, 3)
    assert np.isfinite(coefficients).all()
    assert np.isfinite(intercepts).all()
    absent = np.setdiff1d(np.arange(n), y)
    chosen = logits_of((coefficients, intercepts), X).argmax(axis=1)
    assert not np.isin(chosen, absent).any()


def test_one_text_a_class_is_known_but_not_for_certain() -> None:
    """Where nothing can be cross-validated, the penalty is neither the largest nor none."""
    X = np.random.RandomState(0).normal(size=(4, 6))
    linear = classification_probe(whole(X), np.arange(4), np.ones(4), 4)
    of_classes = np.diag(softmax(logits_of(linear, X), axis=1))
    linear = multilabel_probe(whole(X[:2]), np.eye(2), np.ones(2), 2)
    of_labels = np.diag(expit(logits_of(linear, X[:2])))
    for probabilities in (of_classes, of_labels):
        assert (probabilities > 0.9).all()
        assert (probabilities < 0.999).all()


def test_one_text() -> None:
    coefficients, intercepts, out_of_fold, _ = classification_probe(
        whole(np.ones((1, 3))), np.array([1]), np.ones(1), 2
    )
    assert np.isnan(out_of_fold).all()
    assert np.isfinite(coefficients).all()
    assert intercepts[1] > intercepts[0]
    coefficients, intercepts = regression_probe(
        whole(np.ones((1, 3))), np.ones((1, 1)), np.ones(1)
    )[:2]
    np.testing.assert_allclose(intercepts + coefficients.sum(axis=1), [1])


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1])
def test_equal_texts_tell_nothing(value: float) -> None:
    """Means of equal rows differ from them by rounding, which must not become coefficients."""
    X = np.random.RandomState(0).normal(size=(1, 8)).repeat(10, axis=0) * value
    new = X + np.random.RandomState(1).normal(size=X.shape)
    y = np.array([0] * 7 + [1] * 3)
    linear = classification_probe(whole(X), y, np.linspace(0.1, 1, 10), 2)
    assert np.abs(logits_of(linear, new)).max() < 3
    table = np.column_stack([y, 1 - y])
    linear = multilabel_probe(whole(X[:1]), table[:1], np.ones(1), 2)
    assert np.abs(logits_of(linear, new)).max() < 3
    linear = regression_probe(whole(X), y[:, None] - 0.3, np.ones(10))
    np.testing.assert_allclose(logits_of(linear, new), 0, atol=1e-9)


def test_copies_are_weights_where_a_class_is_absent() -> None:
    X, y = blobs()
    counts = 1 + np.arange(60) % 3
    copies = np.repeat(np.arange(60), counts)
    for probe, targets in (
        (classification_probe, y),
        (multilabel_probe, np.column_stack([y == 0, y == 1, y == 2, np.zeros(60)])),
    ):
        weighted = probe(whole(X), targets, counts, 4)
        copied = probe(whole(X[copies]), targets[copies], np.ones(len(copies)), 4)
        for one, other in zip(weighted[:2], copied[:2], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


def test_a_rare_class_counts_by_weight_in_the_choice_of_the_penalty() -> None:
    """Where nearly all weight is on texts that features tell nothing of, it is the largest."""
    rng = np.random.RandomState(0)
    y = np.arange(120) % 2
    X = rng.normal(size=(120, 20))
    X[:60] += 9 * y[:60, None]
    kind = module.softmax_model(2)
    of_noise = choose(kind, X, y, np.repeat([1e-6, 1.0], 60) / 60)
    assert of_noise > choose(kind, X, y, np.repeat([1.0, 1e-6], 60) / 60)


def test_each_label_is_a_model_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs()
    table = np.column_stack([y == 0, y >= 1, np.zeros(60)]).astype(np.float32)
    weights = np.linspace(1, 2, 60)
    monkeypatch.setattr(module, "PENALTIES", np.array([1e-2]))  # of all labels together
    coefficients, intercepts = multilabel_probe(whole(X), table, weights, 3)[:2]
    for column in range(2):
        alone = classification_probe(whole(X), table[:, column].astype(int), weights, 2)
        expected = softmax(logits_of(alone, X), axis=1)[:, 1]
        ours = expit(X @ coefficients[column] + intercepts[column])
        np.testing.assert_allclose(ours, expected, rtol=0.05, atol=2e-3)
    never = expit(X @ coefficients[2] + intercepts[2])
    assert never.max() < 0.1


def test_few_labels_have_a_penalty_each_and_many_share_one() -> None:
    rng = np.random.RandomState(0)
    noise, told = rng.normal(size=(80, 20)), np.arange(80) % 2
    luck = rng.randint(2, size=(80, 20))
    X = noise + 9 * told[:, None]

    def choose_of(table: np.ndarray) -> Any:
        weights = np.ones(table.shape) / 80
        return choose(module.sigmoid_models(table.shape[1]), X, table, weights)

    of_told, of_luck = choose_of(np.column_stack([told, luck[:, 0]]))
    assert of_told <= 1e-2
    assert of_luck == module.PENALTIES.max()
    of_all = choose_of(np.column_stack([told, luck]))
    assert np.ndim(of_all) == 0
    assert of_all > of_told


def test_many_labels_are_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four hundred labels cost a few fits more than one, and not as many times as there are."""
    calls = []
    fit = module.fit_linear
    monkeypatch.setattr(module, "fit_linear", lambda *args: calls.append(args[4]) or fit(*args))
    X, y = blobs()
    table = (np.arange(400)[None] + y[:, None]) % 3 == 0
    coefficients = multilabel_probe(whole(X), table.astype(int), np.ones(60), 400).coefficients
    assert coefficients.shape == (400, 8)
    assert calls == [module.MOST_LABELS] * 35 + [400] * 6


def test_no_estimator_of_scikit_learn_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools that log each call of fit, as mlflow does, take an inner one for the user's own."""
    fitted = []
    for name, cls in all_estimators():
        if "fit" in vars(cls):
            monkeypatch.setattr(cls, "fit", lambda self, *_, name=name, **__: fitted.append(name))
    X, y = blobs()
    classification_probe(whole(X), y, np.ones(60), 3)
    classification_probe(whole(X), y % 2, np.ones(60), 2)
    multilabel_probe(whole(X), np.eye(3)[y], np.ones(60), 3)
    regression_probe(whole(X), y[:, None] * 1.0, np.ones(60))
    assert fitted == []


def test_regression_recovers_a_line() -> None:
    rng = np.random.RandomState(0)
    X = rng.normal(size=(200, 4)) * [1, 10, 0.1, 1]
    true = rng.normal(size=(2, 4))
    y = X @ true.T + [1, -2] + 1e-3 * rng.normal(size=(200, 2))
    coefficients, intercepts = regression_probe(whole(X), y, np.ones(200))[:2]
    np.testing.assert_allclose(coefficients, true, atol=1e-2)
    np.testing.assert_allclose(intercepts, [1, -2], atol=1e-2)


def scikit_learns_out_of_fold(
    Z: np.ndarray, y: np.ndarray, weights: np.ndarray, folds: Any, penalty: float
) -> tuple[float, np.ndarray]:
    """Return the loss of scikit-learn's models, and what they say of rows they have not seen."""
    said = np.full((len(y), 3), np.nan)
    for train, test in folds:
        model = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10_000)
        model.fit(Z[train], y[train], sample_weight=weights[train] / weights[train].sum())
        said[test] = model.predict_proba(Z[test])
    return float(weights @ -np.log(said[np.arange(len(y)), y])), said


@pytest.mark.parametrize("n_choosing", [60, 40])
@pytest.mark.parametrize("grouped", [False, True])
def test_out_of_fold_logits_are_of_models_without_the_text(
    monkeypatch: pytest.MonkeyPatch, n_choosing: int, grouped: bool
) -> None:
    """Refitted by hand, with the penalty that all choose, or some and then the folds of all."""
    monkeypatch.setattr(linear_probe, "N_CHOOSING", n_choosing)
    X, y = blobs()
    weights = np.random.RandomState(1).uniform(0.1, 3, 60)
    weights /= weights.sum()
    groups = np.arange(60) // 5 if grouped else np.arange(60)
    probe = classification_probe(whole(X), y, weights, 3, groups)
    order = np.lexsort([y, *X.T[::-1]])  # documents are sorted by content
    center = weights @ X
    variances = weights @ (X - center) ** 2
    Z = ((X - center) / np.sqrt(variances + 1e-4 * variances.mean()))[order]
    y, weights, groups = y[order], weights[order], groups[order]
    if n_choosing == 60:
        folds = inner_folds(y, groups)
        penalty = choose(module.softmax_model(3), Z, y, weights, groups)
        _, expected = scikit_learns_out_of_fold(Z, y, weights, folds, penalty)
    else:
        some = np.random.RandomState(0).permutation(60)[:n_choosing]
        penalty = choose(module.softmax_model(3), Z[some], y[some], weights[some], groups[some])
        folds = inner_folds(y, groups, 3)
        loss, expected = scikit_learns_out_of_fold(Z, y, weights, folds, penalty)
        while (lower := scikit_learns_out_of_fold(Z, y, weights, folds, penalty / 10))[0] < loss:
            penalty, (loss, expected) = penalty / 10, lower
    np.testing.assert_allclose(softmax(probe.out_of_fold[order], axis=1), expected, atol=3e-3)


def lower(
    kind: module.LinearKind, X: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: Any
) -> tuple[Any, np.ndarray]:
    folds = inner_folds(y)
    rows = whole(X)
    return module.lower_penalty(
        lambda: (_rows_of(rows, fold) for fold in folds), y, weights, kind, penalty
    )


def test_a_penalty_that_is_too_large_is_lowered_for_each_label_alone() -> None:
    """To the one that a search of the whole grid finds, however far that is."""
    X, y = blobs(300)
    weights = np.full(300, 1 / 300)
    kind = module.softmax_model(3)
    folds = [_rows_of(whole(X), fold) for fold in inner_folds(y)]
    best, out_of_fold = module.choose_penalty(folds, y, weights, kind)
    assert best < 1
    found, of_found = lower(kind, X, y, weights, 10.0)
    assert found == pytest.approx(best)
    np.testing.assert_allclose(of_found, out_of_fold, atol=1e-3)

    rng = np.random.RandomState(0)
    told = np.arange(80) % 2
    X = rng.normal(size=(80, 20)) + 9 * told[:, None]
    table = np.column_stack([told, rng.randint(2, size=80)])
    weights = np.full(table.shape, 1 / 80)
    (of_told, of_luck), of_both = lower(
        module.sigmoid_models(2), X, table, weights, np.array([10.0, 10.0])
    )
    assert of_told <= 1e-2
    assert of_luck == 10
    folds = [_rows_of(whole(X), fold) for fold in inner_folds(table)]
    expected = module.choose_penalty(folds, table, weights, module.sigmoid_models(2))[1]
    np.testing.assert_allclose(of_both[:, 1], expected[:, 1], atol=1e-3)
    np.testing.assert_array_equal(of_both[:, 0] > 0, told)


@pytest.mark.parametrize("honest_by", ["groups", "weights"])
def test_groups_and_weights_count_where_some_choose(
    monkeypatch: pytest.MonkeyPatch, honest_by: str
) -> None:
    """Of groups that are known by a feature, and of heavy noise beside light rows that tell all."""
    monkeypatch.setattr(linear_probe, "N_CHOOSING", 400)
    found = []
    choose_of_some = module.penalty_of_some

    def recorded(*args: Any) -> Any:
        found.append(choose_of_some(*args))
        return found[-1]

    monkeypatch.setattr(linear_probe, "penalty_of_some", recorded)
    rng = np.random.RandomState(0)
    groups, weights = np.arange(800), np.ones(800)
    if honest_by == "groups":
        groups = np.arange(800) // 40
        y = rng.permutation(np.arange(20) % 2)[groups]
        X = np.column_stack([np.eye(20)[groups] * 5, rng.normal(size=(800, 3))])
    else:
        y, X = np.arange(800) % 2, rng.normal(size=(800, 5))
        is_light = rng.rand(800) < 0.8
        X[is_light, 0] += 9 * (2 * y[is_light] - 1)
        weights[is_light] = 1e-6
    classification_probe(whole(X), y, weights, 2, groups)
    classification_probe(whole(X), y, np.ones(800), 2)
    honest, other = found
    assert honest >= 1
    assert other <= 0.1


def test_the_least_penalty_is_not_lowered() -> None:
    X, y = blobs()
    least = float(module.PENALTIES.min())
    weights = np.full(60, 1 / 60)
    assert lower(module.softmax_model(3), 9 * X, y, weights, least)[0] == least


def test_of_many_documents_the_model_is_as_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = blobs(300)
    table = np.eye(3)[y]
    for probe, targets in (
        (partial(classification_probe, n=3), y),
        (partial(multilabel_probe, n=3), table),
        (regression_probe, table),
    ):
        few = probe(whole(X), targets, np.ones(300))
        with monkeypatch.context() as patch:
            patch.setattr(linear_probe, "N_CHOOSING", 100)
            many = probe(whole(X), targets, np.ones(300))
            lone = probe(whole(X), targets, np.ones(300), groups=np.zeros(300))
        agree = logits_of(few, X).argmax(axis=1) == logits_of(many, X).argmax(axis=1)
        assert agree.mean() > 0.95
        assert np.isfinite(many.out_of_fold).all()
        assert np.isnan(lone.out_of_fold).all()


@pytest.mark.parametrize("n_choosing", [60, 40])
def test_out_of_fold_logits_are_in_the_callers_order_and_the_same_for_copies(
    monkeypatch: pytest.MonkeyPatch, n_choosing: int
) -> None:
    monkeypatch.setattr(linear_probe, "N_CHOOSING", n_choosing)
    X, y = blobs()
    rows = np.random.RandomState(1).permutation(np.repeat(np.arange(60), 2))
    once = classification_probe(whole(X), y, np.ones(60), 3).out_of_fold
    twice = classification_probe(whole(X[rows]), y[rows], np.ones(120), 3).out_of_fold
    np.testing.assert_allclose(twice, once[rows], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n_choosing", [80, 40])
def test_groups_are_on_one_side_of_every_split(
    monkeypatch: pytest.MonkeyPatch, n_choosing: int
) -> None:
    """Where a feature tells the group, and the group the class, only splits by group are honest."""
    monkeypatch.setattr(linear_probe, "N_CHOOSING", n_choosing)
    rng = np.random.RandomState(0)
    groups = np.arange(80) // 4
    y = rng.permutation(np.arange(20) % 2)[groups]
    X = np.column_stack([np.eye(20)[groups] * 5, rng.normal(size=(80, 3))])
    for probe, targets in (
        (partial(classification_probe, n=2), y),
        (partial(multilabel_probe, n=2), np.eye(2)[y]),
    ):
        leaky, honest = (
            probe(whole(X), targets, np.ones(80), groups=g).out_of_fold.argmax(axis=1) == y
            for g in (None, groups)
        )
        assert leaky.mean() > 0.9
        assert honest.mean() < 0.7
    leaky, honest = (
        ((regression_probe(whole(X), y[:, None] - 0.5, np.ones(80), g).out_of_fold[:, 0] > 0) == y)
        for g in (None, groups)
    )
    assert leaky.mean() > 0.9
    assert honest.mean() < 0.7


def test_of_one_group_nothing_is_out_of_fold() -> None:
    X, y = blobs()
    probe = classification_probe(whole(X), y, np.ones(60), 3, groups=np.zeros(60))
    assert np.isnan(probe.out_of_fold).all()
    assert np.isfinite(probe.coefficients).all()


PART = slice(2, 5)
WEIGHTS = np.linspace(1, 2, 60)
KINDS_OF_PROBES = {
    "classes": (partial(classification_probe, n=3), lambda y: y, WEIGHTS),
    "labels": (partial(multilabel_probe, n=3), lambda y: np.eye(3)[y], WEIGHTS),
    "uneven labels": (
        partial(multilabel_probe, n=3),
        lambda y: np.column_stack([y == 0, np.arange(60) % 2, np.arange(60) % 4 == 0]),
        WEIGHTS[:, None] * np.array([20.0, 1.0, 1.0]),
    ),
    "numbers": (regression_probe, lambda y: np.column_stack([y - 1.0, y == 2]), WEIGHTS),
}


def in_parts(n: int, telling: slice, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of 60 columns, of which those that are telling tell the class."""
    rng = np.random.RandomState(seed)
    X, y = rng.normal(size=(n, 60)), np.arange(n) % 3
    X[:, telling] += 1.5 * np.eye(3)[y]
    return X, y


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", KINDS_OF_PROBES)
def test_a_part_has_a_model_of_its_own_and_a_share(kind: str, grouped: bool) -> None:
    probe, targets_of, weights = KINDS_OF_PROBES[kind]
    X, y = in_parts(60, PART, 0)
    X[:, 0] = X[:, PART.start]  # folds follow the order of the first columns
    targets = targets_of(y)
    groups = np.arange(60) // 5 if grouped else None
    mixed = probe(whole(X, PART), targets, weights, groups=groups)
    models = [probe(whole(Z), targets, weights, groups=groups) for Z in (X, X[:, PART])]
    logits = [model.out_of_fold for model in models]
    prior = PRIOR_GROUPS / (12 if grouped else 60)
    scales = fit_scales(logits, targets, weights, mixed.kind, prior=prior)
    shares = scales / scales.sum()
    assert 0 < shares[0] < shares[1]
    of_all, of_part = (
        share * logits_of(model, Z)
        for share, model, Z in zip(shares, models, (X, X[:, PART]), strict=True)
    )
    np.testing.assert_allclose(logits_of(mixed, X), of_all + of_part, rtol=1e-4, atol=1e-5)
    expected = shares[0] * logits[0] + shares[1] * logits[1]
    np.testing.assert_allclose(mixed.out_of_fold, expected, rtol=1e-4, atol=1e-5)


def loss_of_others(telling: slice, part: slice | None) -> float:
    """The mean loss of new texts, of five draws."""
    losses = []
    for seed in range(5):
        X, y = in_parts(60, telling, seed)
        new, new_y = in_parts(300, telling, 100 + seed)
        linear = classification_probe(whole(X, part), y, np.ones(60), 3)
        losses.append(module.softmax_losses(logits_of(linear, new), new_y).mean())
    return float(np.mean(losses))


def test_a_part_that_tells_all_is_heard_and_one_that_tells_nothing_does_little_harm() -> None:
    assert loss_of_others(PART, part=PART) < 0.8 * loss_of_others(PART, part=None)
    elsewhere = slice(10, 13)
    assert loss_of_others(elsewhere, part=PART) < 1.02 * loss_of_others(elsewhere, part=None)


@pytest.mark.parametrize("known", [True, False])
def test_models_that_are_wrong_or_unknown_are_averaged(known: bool) -> None:
    y = np.arange(60) % 3
    wrong = np.where(known, -20 * np.eye(3)[y], np.nan)
    model = FittedProbe(np.zeros((3, 2)), np.zeros(3), wrong, module.softmax_model(3))
    shares = _shares([model, model], y, np.full(60, 1 / 60), 60, adds_up=True)
    np.testing.assert_array_equal(shares, [0.5, 0.5])


def test_what_does_not_add_up_is_chosen_by_weight_and_without_unknown_rows() -> None:
    y = np.array([0, 0, 1, 1])
    said = 3 * np.eye(2)[y]
    right_early, right_late = said.copy(), said.copy()
    right_early[2:], right_late[:2] = -said[2:], -said[:2]
    right_early[3] = right_late[3] = np.nan
    models = [
        FittedProbe(np.zeros((2, 2)), np.zeros(2), logits, module.softmax_model(2))
        for logits in (right_early, right_late)
    ]
    for weights, expected in (([1, 1, 1, 9], [1, 0]), ([1, 1, 3, 0], [0, 1])):
        shares = _shares(models, y, np.array(weights) / 12, 4, adds_up=False)
        np.testing.assert_array_equal(shares, expected)


def test_copies_are_weights_of_the_shares_too() -> None:
    X, y = in_parts(60, PART, 0)
    counts = 1 + np.arange(60) % 3
    rows = np.random.RandomState(1).permutation(np.repeat(np.arange(60), counts))
    weighted = classification_probe(whole(X, PART), y, counts, 3)
    copied = classification_probe(whole(X[rows], PART), y[rows], np.ones(len(rows)), 3)
    for one, other in zip(weighted[:2], copied[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)


# In the estimators, on real texts with the real encoder


@pytest.fixture(scope="module")
def news(bbc_news: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    texts, labels = (part[:24] for part in bbc_news)
    return np.array([" ".join(text.split()[:60]) for text in texts], dtype=object), labels


real: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
    "chunk_size": 32,
    "max_epochs": 1,
    "learning_rate": STILL,
    "precision": "float32",
    "device": "cpu",
    "random_state": 0,
}


@pytest.mark.parametrize("freeze_encoder", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_the_pooled_head_is_the_linear_model_of_mean_embeddings(
    news: tuple[np.ndarray, np.ndarray], pooling: str, freeze_encoder: bool
) -> None:
    X, y = news
    vectorizer = LongBertVectorizer(chunk_size=32, precision="float32", device="cpu").fit()
    embeddings = vectorizer.transform(X)
    model = LongBertClassifier(pooling=pooling, freeze_encoder=freeze_encoder, **real).fit(X, y)
    assert model.n_chunks_.min() > 1
    indices = np.searchsorted(model.classes_, y)
    linear = classification_probe(whole(embeddings), indices, np.ones(24), len(model.classes_))
    prior = PRIOR_GROUPS / 24
    scale = fit_scales([linear.out_of_fold], indices, np.ones(24), linear.kind, prior=prior)
    np.testing.assert_allclose(
        model.decision_function(X), scale * logits_of(linear, embeddings), rtol=1e-3, atol=1e-3
    )


def test_frozen_encoder_keeps_its_weights(news: tuple[np.ndarray, np.ndarray]) -> None:
    X, y = news
    model = LongBertClassifier(freeze_encoder=True, **{**real, "learning_rate": 1e-2}).fit(X, y)
    untouched = LongBertClassifier(freeze_encoder=True, **real).fit(X, y)
    one, other = (m.net_.module_.state_dict() for m in (model, untouched))
    changed = {name for name in one if (one[name] != other[name]).any()}
    assert changed == {"head.weight", "head.bias"}


def test_regression_starts_at_the_ridge(news: tuple[np.ndarray, np.ndarray]) -> None:
    X, _ = news
    y = np.array([[len(text), text.count("e")] for text in X], dtype=float)
    model = LongBertRegressor(**real).fit(X, y)
    guessing = ((y - y.mean(axis=0)) ** 2).mean(axis=0)
    assert model.predict(X).shape == (24, 2)
    assert (((model.predict(X) - y) ** 2).mean(axis=0) < guessing).all()
    at_random = LongBertRegressor(head_init="random", **real).fit(X, y)
    assert model.score(X, y) > at_random.score(X, y)
