"""Pins baselines of the caller's own: any estimator of raw texts, and clear errors for others."""

import builtins
import copy
import pickle
from typing import Any

import numpy as np
import pytest
import sklearn
from scipy.special import logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.svm import SVC, LinearSVC

from sklearn_longbert._baselines.choose import (
    baseline_from_state,
    baseline_state,
    new_baseline,
)
from sklearn_longbert._baselines.estimator import EstimatorBaseline
from sklearn_longbert._baselines.words import WordsBaseline
from sklearn_longbert._targets.folds import inner_folds, join_groups
from sklearn_longbert._targets.targets import LEAST_PROBABILITY, Classes, Labels, Numbers, Targets

WORDS = [f"{first}{second}" for first in "bdfkmn" for second in "aeiou"]
CLASSES = Classes(np.array(["x", "y", "z"]))
BINARY = Classes(np.array([False, True]))
Y = np.arange(45) % 3
ONES = np.ones(45)
RNG = np.random.RandomState(0)
TEXTS = [" ".join(RNG.choice(WORDS[8 * kind : 8 * kind + 14], 12)) for kind in Y]
NEW = TEXTS[::-2]


def tfidf(model: BaseEstimator) -> Pipeline:
    return make_pipeline(TfidfVectorizer(), model)


def test_probabilities_become_logarithms() -> None:
    model = tfidf(LogisticRegression())
    baseline = EstimatorBaseline(model)
    (out_of_fold,) = baseline.fit(TEXTS, CLASSES, Y, ONES)
    names = CLASSES.classes[Y]
    for train, test in inner_folds(Y):
        texts = [TEXTS[index] for index in train]
        expected = clone(model).fit(texts, names[train])
        np.testing.assert_allclose(
            out_of_fold[test],
            expected.predict_log_proba([TEXTS[index] for index in test]),
            rtol=1e-6,
        )
    whole = clone(model).fit(TEXTS, names)
    np.testing.assert_allclose(baseline.parts(NEW)[0], whole.predict_log_proba(NEW), rtol=1e-6)
    assert not hasattr(model[0], "vocabulary_")
    assert baseline.occurrences("text") is None


def test_decisions_are_logits() -> None:
    baseline = EstimatorBaseline(tfidf(LinearSVC()))
    baseline.fit(TEXTS, CLASSES, Y, ONES)
    decisions = baseline.estimator.decision_function(NEW)
    np.testing.assert_array_equal(baseline.parts(NEW)[0], decisions)
    baseline = EstimatorBaseline(tfidf(LinearSVC()))
    baseline.fit(TEXTS, BINARY, (Y > 0).astype(int), ONES)
    (logits,) = baseline.parts(NEW)
    decisions = baseline.estimator.decision_function(NEW)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], decisions)
    assert baseline.estimator.classes_.tolist() == [False, True]


def test_classes_that_a_fold_lacks_are_unlikely() -> None:
    """All texts of class z are of one author, so a fold is trained without any."""
    groups = np.where(Y == 2, 5, np.arange(45) % 4)
    groups[:2] = 5
    for model, lowest in (
        (LogisticRegression(), np.log(LEAST_PROBABILITY)),
        (LinearSVC(), None),
    ):
        (logits,) = EstimatorBaseline(tfidf(model)).fit(TEXTS, CLASSES, Y, ONES, groups)
        assert np.isnan(logits[Y == 2]).all()
        without = logits[:2]
        assert (without.argmax(axis=1) < 2).all()
        np.testing.assert_allclose(
            without[:, 2], without[:, :2].min(axis=1) if lowest is None else lowest
        )


def test_a_fold_of_one_class_is_left_out() -> None:
    y, groups = np.array([0, 0, 0, 1, 1, 0]), np.array([0, 0, 1, 2, 2, 2])
    model = EstimatorBaseline(tfidf(LogisticRegression()))
    (logits,) = model.fit(TEXTS[:6], BINARY, y, np.ones(6), groups)
    assert np.isfinite(logits[:3]).all()
    assert np.isnan(logits[3:]).all()


def test_impossible_probabilities_are_clipped() -> None:
    baseline = EstimatorBaseline(tfidf(KNeighborsClassifier(1)))
    (logits,) = baseline.fit(TEXTS, CLASSES, Y, ONES)
    assert set(np.round(np.unique(logits), 6)) == {0.0, np.round(np.log(LEAST_PROBABILITY), 6)}


@pytest.mark.parametrize(
    "model",
    [OneVsRestClassifier(LogisticRegression()), RandomForestClassifier(20, random_state=0)],
    ids=["matrix", "list"],
)
def test_labels(model: BaseEstimator) -> None:
    table = np.column_stack([Y == 0, Y >= 1]).astype(np.float32)
    baseline = EstimatorBaseline(tfidf(model))
    (logits,) = baseline.fit(TEXTS, Labels(np.arange(2)), table, np.ones((45, 2)))
    assert ((logits > 0) == table).mean() > 0.8
    probabilities = baseline.estimator.predict_proba(NEW)
    if isinstance(probabilities, list):
        probabilities = np.column_stack([of_label[:, 1] for of_label in probabilities])
    clipped = np.clip(probabilities, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    np.testing.assert_allclose(baseline.parts(NEW)[0], logit(clipped))


OF_LABELS = {
    "forest": tfidf(RandomForestClassifier(5, random_state=0)),
    "multi-output": tfidf(MultiOutputClassifier(LogisticRegression())),
    "outside": MultiOutputClassifier(tfidf(LogisticRegression())),
    "rest": tfidf(OneVsRestClassifier(LogisticRegression())),
    "decisions": tfidf(OneVsRestClassifier(LinearSVC())),
}


@pytest.mark.parametrize("columns", [[0, 1, 2, 3], [1, 2, 0]], ids=["two", "one"])
@pytest.mark.parametrize("model", OF_LABELS.values(), ids=OF_LABELS)
def test_a_label_that_all_texts_have_or_none(model: BaseEstimator, columns: list[int]) -> None:
    """Its logit is constant, and what is left, even if one label, is learned."""
    table = np.column_stack([Y == 0, Y < 3, Y > 3, Y == 1])[:, columns].astype(float)
    targets, kinds = Labels(np.arange(len(columns))), np.array([1, 1, -1, 1])[columns]
    baseline = EstimatorBaseline(model)
    (out_of_fold,) = baseline.fit(TEXTS, targets, table, ONES)
    told = np.isin(columns, [0, 3])
    assert ((out_of_fold > 0) == table)[:, told].mean() > 0.8
    for logits, n_texts in ((out_of_fold, 36), (baseline.parts(NEW)[0], 45)):
        sure = np.tile(np.log(2 * n_texts) * kinds, (len(logits), 1))
        np.testing.assert_allclose(logits[:, ~told], sure[:, ~told])
    in_pickle = model is OF_LABELS["forest"]  # skops does not trust its trees
    again = baseline_from_state(baseline_state(baseline, in_pickle), targets)
    np.testing.assert_array_equal(again.parts(NEW)[0], baseline.parts(NEW)[0])


@pytest.mark.parametrize("model", OF_LABELS.values(), ids=OF_LABELS)
def test_a_label_of_one_text_is_constant_in_a_fold(model: BaseEstimator) -> None:
    table = np.column_stack([Y == 0, np.arange(45) == 7, Y == 1]).astype(float)
    baseline = EstimatorBaseline(model)
    (out_of_fold,) = baseline.fit(TEXTS, Labels(np.arange(3)), table, ONES)
    test = next(test for _, test in inner_folds(table, join_groups(TEXTS)) if 7 in test)
    np.testing.assert_allclose(out_of_fold[test, 1], -np.log(2 * (45 - len(test))))
    assert ((out_of_fold > 0) == table)[:, [0, 2]].mean() > 0.8
    assert np.ptp(baseline.parts(NEW)[0][:, 1]) > 0  # of all texts it is learned


def test_labels_that_all_texts_have_alone() -> None:
    baseline = EstimatorBaseline(OF_LABELS["outside"])
    (logits,) = baseline.fit(TEXTS, Labels(np.arange(2)), np.ones((45, 2)), ONES)
    np.testing.assert_allclose(logits, np.log(2 * 36))
    np.testing.assert_allclose(baseline.parts(NEW)[0], np.log(2 * 45))


@pytest.mark.parametrize("n_targets", [1, 2])
def test_numbers_are_standardised(n_targets: int) -> None:
    values = np.column_stack([Y * 10.0 + 100, -Y * 1.0])[:, :n_targets].squeeze()
    targets = Numbers.of(values, ONES)
    baseline = EstimatorBaseline(tfidf(Ridge()))
    (logits,) = baseline.fit(TEXTS, targets, targets.to_tensor(values).numpy(), ONES)
    assert logits.shape == (45, n_targets)
    expected = tfidf(Ridge()).fit(TEXTS, values).predict(NEW)
    np.testing.assert_allclose(targets.predictions(baseline.parts(NEW)[0]), expected, rtol=1e-6)


WEIGHTS = np.where(Y == 0, 20.0, 1.0)


class TwoDecisions(ClassifierMixin, BaseEstimator):
    """Has two values a text, whatever its classes."""

    def fit(self, X: Any, y: Any) -> "TwoDecisions":
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        return np.zeros((len(X), 2))


class OwnClassifier(ClassifierMixin, BaseEstimator):
    """Takes weights by itself, and keeps them."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "OwnClassifier":
        self.classes_, self.weights_ = np.unique(y), sample_weight
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


def test_weights_reach_the_estimator() -> None:
    baseline = EstimatorBaseline(OwnClassifier())
    baseline.fit(TEXTS, CLASSES, Y, WEIGHTS)
    np.testing.assert_array_equal(baseline.estimator.weights_, WEIGHTS)
    baseline.fit(TEXTS, CLASSES, Y, ONES * 3)  # of equal weights nothing is said
    assert baseline.estimator.weights_ is None
    baseline = EstimatorBaseline(tfidf(LogisticRegression()))
    baseline.fit(TEXTS, CLASSES, Y, WEIGHTS)
    expected = tfidf(LogisticRegression()).fit(
        TEXTS, CLASSES.classes[Y], logisticregression__sample_weight=WEIGHTS
    )
    np.testing.assert_allclose(
        baseline.parts(NEW)[0], expected.predict_log_proba(NEW), rtol=1e-6, atol=1e-9
    )


def test_weights_are_routed() -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        inner = LogisticRegression().set_fit_request(sample_weight=True)
        inner.set_score_request(sample_weight=True)
        search = GridSearchCV(tfidf(inner), {"logisticregression__C": [1.0]}, cv=2)
        baseline = EstimatorBaseline(search)
        baseline.fit(TEXTS, CLASSES, Y, WEIGHTS)
    expected = tfidf(LogisticRegression()).fit(
        TEXTS, CLASSES.classes[Y], logisticregression__sample_weight=WEIGHTS
    )
    np.testing.assert_allclose(
        baseline.parts(NEW)[0], expected.predict_log_proba(NEW), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(
    "model",
    [tfidf(KNeighborsClassifier()), GridSearchCV(tfidf(LogisticRegression()), {}, cv=2)],
    ids=["none", "meta"],
)
def test_an_estimator_without_weights_is_refused(model: BaseEstimator) -> None:
    with pytest.raises(ValueError, match=f"baseline={type(model).__name__} takes no sample_weight"):
        EstimatorBaseline(model).fit(TEXTS, CLASSES, Y, WEIGHTS)
    EstimatorBaseline(model).fit(TEXTS, CLASSES, Y, ONES)


def test_groups_are_on_one_side() -> None:
    rng = np.random.RandomState(0)
    authors = np.arange(60) // 5
    y = rng.permutation(np.arange(12) % 2)[authors]
    texts = [f"author{author} " * 3 + " ".join(rng.choice(WORDS, 8)) for author in authors]
    leaky, honest = (
        EstimatorBaseline(tfidf(LogisticRegression())).fit(texts, BINARY, y, np.ones(60), groups)[0]
        for groups in (None, authors)
    )
    assert (leaky.argmax(axis=1) == y).mean() > 0.95
    assert (honest.argmax(axis=1) == y).mean() < 0.7


@pytest.mark.parametrize(
    ("baseline", "targets", "error", "message"),
    [
        ("tfidf", CLASSES, ValueError, "baseline='tfidf' where None, 'words' or an estimator"),
        (LogisticRegression, CLASSES, TypeError, r"pass LogisticRegression\(\)"),
        (3, CLASSES, TypeError, "baseline=3 .* lacks fit"),
        (TfidfVectorizer(), CLASSES, TypeError, "TfidfVectorizer has no predict_proba or decision"),
        (Ridge(), CLASSES, TypeError, "baseline=Ridge has no predict_proba"),
        (CountVectorizer(), Numbers.of(ONES, ONES), TypeError, "has no predict:"),
        (LogisticRegression(), Numbers.of(ONES, ONES), TypeError, "is a classifier where"),
    ],
)
def test_what_is_no_baseline_is_refused_by_name(
    baseline: Any, targets: Targets, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        new_baseline(baseline, targets)


def test_what_is_a_baseline() -> None:
    assert new_baseline(None, CLASSES) is None
    assert isinstance(new_baseline("words", CLASSES), WordsBaseline)
    assert isinstance(new_baseline(tfidf(SVC()), CLASSES), EstimatorBaseline)
    assert isinstance(new_baseline(tfidf(Ridge()), Numbers.of(ONES, ONES)), EstimatorBaseline)


def test_outputs_of_another_shape_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"decision_function of baseline=TwoDecisions .* shape \(\d, 2\)"
    ):
        EstimatorBaseline(TwoDecisions()).fit(TEXTS, CLASSES, Y, ONES)


class Fixed(ClassifierMixin, BaseEstimator):
    """Says the same of every text."""

    def __init__(self, probabilities: Any, classes: Any = None) -> None:
        self.probabilities = probabilities
        self.classes = classes

    def fit(self, X: Any, y: Any) -> "Fixed":
        self.classes_ = np.unique(y) if self.classes is None else np.array(self.classes)
        return self

    def predict(self, X: Any) -> Any:  # MultiOutputClassifier takes no model without it
        return self.classes_[np.argmax(self.predict_proba(X), axis=1)]

    def predict_proba(self, X: Any) -> Any:
        return np.array([self.probabilities] * len(X))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Fixed([0.2, 0.3, np.nan]), "of baseline=Fixed returned values that are not finite"),
        (Fixed([0.0, 0.0, np.inf]), "of baseline=Fixed returned .* not between 0 and 1"),
        (Fixed([-0.5, 1.0, 0.5]), "of baseline=Fixed returned .* not between 0 and 1"),
        (Fixed([1.0, 2.0, 3.0]), "of baseline=Fixed returned .* not between 0 and 1"),
        (Fixed([0.5, 0.5]), r"of baseline=Fixed returned values of shape \(\d+, 2\)"),
        (Fixed(0.5), r"of baseline=Fixed returned values of shape \(\d+,\) for"),
        (Fixed([0.2, 0.3, 0.5], ["x", "y", "w"]), "classes_ holds 'w', which is not among"),
        (Fixed(["a", "b", "c"]), "could not convert string to float"),
    ],
)
def test_what_are_no_probabilities_is_refused(model: BaseEstimator, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        EstimatorBaseline(model).fit(TEXTS, CLASSES, Y, ONES)
    said = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any("predict_proba of baseline=Fixed" in text for text in said)


def test_probabilities_of_labels_are_checked() -> None:
    y = np.column_stack([Y > 0, Y > 1]).astype(int)
    with pytest.raises(ValueError, match=r"of baseline=Fixed returned .* not between 0 and 1"):
        EstimatorBaseline(Fixed([0.5, 60.0])).fit(TEXTS, Labels(np.arange(2)), y, ONES)
    of_each = MultiOutputClassifier(Fixed([-0.5, 1.5]))  # it returns a list
    with pytest.raises(ValueError, match=r"of baseline=MultiOutputClassifier .* between 0 and 1"):
        EstimatorBaseline(of_each).fit(TEXTS, Labels(np.arange(2)), y, ONES)
    rounded = EstimatorBaseline(Fixed([-1e-9, 1 + 1e-9])).fit(TEXTS, Labels(np.arange(2)), y, ONES)
    assert np.isfinite(rounded[0]).all()


PAIRS = SVC(decision_function_shape="ovo")
OF_PAIRS = {
    "pipeline": tfidf(PAIRS),
    "search": GridSearchCV(tfidf(PAIRS), {}, cv=2),
    "found": GridSearchCV(tfidf(SVC()), {"svc__decision_function_shape": ["ovo"]}, cv=2),
    "search inside": tfidf(GridSearchCV(PAIRS, {}, cv=2)),
}


@pytest.mark.parametrize("n_classes", [3, 4])
@pytest.mark.parametrize("model", OF_PAIRS.values(), ids=OF_PAIRS)
def test_decisions_between_pairs_are_refused(model: BaseEstimator, n_classes: int) -> None:
    """Three classes have three pairs, so their shape tells nothing."""
    y, targets = np.arange(45) % n_classes, Classes(np.arange(n_classes))
    with pytest.raises(ValueError, match=r"baseline=SVC\(decision_function_shape='ovo'\), in "):
        EstimatorBaseline(model).fit(TEXTS, targets, y, ONES)


def test_pairs_that_give_one_value_for_each_class_are_taken() -> None:
    two = EstimatorBaseline(tfidf(PAIRS)).fit(TEXTS, BINARY, (Y > 0).astype(int), ONES)
    assert np.isfinite(two[0]).all()
    votes = EstimatorBaseline(tfidf(OneVsOneClassifier(LinearSVC()))).fit(TEXTS, CLASSES, Y, ONES)
    assert (votes[0].argmax(axis=1) == Y).mean() > 0.8


@pytest.mark.parametrize("baseline", ["words", tfidf(LogisticRegression())], ids=["words", "own"])
def test_state_and_copies(baseline: Any) -> None:
    fitted = new_baseline(baseline, CLASSES)
    assert fitted is not None
    fitted.fit(TEXTS, CLASSES, Y, ONES)
    state = baseline_state(fitted)
    assert all(isinstance(value, np.ndarray | int | str) for value in state.values())
    for other in (
        baseline_from_state(state, CLASSES),
        pickle.loads(pickle.dumps(fitted)),
        copy.deepcopy(fitted),
    ):
        assert repr(other) == repr(fitted)
        for one, two in zip(fitted.parts(NEW), other.parts(NEW), strict=True):
            np.testing.assert_array_equal(one, two)


def test_what_skops_does_not_trust_is_refused_by_name() -> None:
    fitted = EstimatorBaseline(OwnClassifier())
    fitted.fit(TEXTS, CLASSES, Y, ONES)
    with pytest.raises(
        TypeError, match=r"baseline=OwnClassifier holds .*OwnClassifier, which skops"
    ):
        fitted.state()


def test_wrong_states() -> None:
    with pytest.raises(ValueError, match="unknown kind of baseline 'trees'"):
        baseline_from_state({"kind": "trees"}, CLASSES)
    with pytest.raises(ValueError, match="lacks its estimator"):
        baseline_from_state({"kind": "estimator"}, CLASSES)
    for agreed in (None, np.zeros(2), "none"):
        state = {"kind": "estimator", "estimator": DummyClassifier(), "agreed": agreed}
        with pytest.raises(ValueError, match="which labels all its texts had"):
            baseline_from_state(state, CLASSES)


def test_without_skops_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = EstimatorBaseline(DummyClassifier())
    fitted.fit(TEXTS, CLASSES, Y, ONES)
    real_import = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("skops"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install sklearn-longbert"):
        fitted.state()
