"""Pins how estimators build on a baseline: in training, prediction, explanations and files."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import skops.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from torch.nn.functional import cross_entropy

from sklearn_longbert import LongBertClassifier, LongBertRegressor, TextChunker
from sklearn_longbert._baselines.words import WordsBaseline
from sklearn_longbert._targets.scales import scaled_sum
from sklearn_longbert._texts.documents import ChunkedDocument
from sklearn_longbert._training.validation import hold_out

STILL = 1e-30  # a learning rate that no float32 weight can feel
FILLERS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "story", "time")
RNG = np.random.RandomState(0)
LABELS = np.array(["bad", "good"] * 12)
TEXTS = [" ".join([*RNG.choice(FILLERS, 30), *[label] * RNG.randint(3)]) for label in LABELS]
NUMBERS = 1e6 + np.array([len(text) for text in TEXTS])
SEVERAL = np.column_stack([LABELS == "good", RNG.randint(2, size=24)]).astype(int)
SETTINGS: dict[str, Any] = {"layers": "last", "chunk_size": 16, "max_epochs": 1, "random_state": 0}


class Contrary(ClassifierMixin, BaseEstimator):
    """Knows the classes, and says the opposite."""

    def fit(self, X: Any, y: Any) -> "Contrary":
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        right = 0.9 * np.array(["good" in text for text in X]) + 0.05
        return np.column_stack([right, 1 - right])


def own(target: str = "classes") -> BaseEstimator:
    return make_pipeline(
        CountVectorizer(), Ridge() if target == "numbers" else LogisticRegression()
    )


def fitted(tiny_bert: str, target: str, baseline: Any, **parameters: Any) -> Any:
    cls = LongBertRegressor if target == "numbers" else LongBertClassifier
    y = {"classes": LABELS, "labels": SEVERAL, "numbers": NUMBERS}[target]
    estimator = cls(tiny_bert, baseline=baseline, **{**SETTINGS, **parameters})
    return estimator.fit(TEXTS, y)


def outputs(estimator: Any, X: Any) -> np.ndarray:
    return getattr(estimator, "decision_function", estimator.predict)(X)


CASES = [("classes", "words"), ("labels", "words"), ("numbers", "words"), ("classes", "own"),
         ("numbers", "own")]  # fmt: skip


def case(tiny_bert: str, target: str, kind: str, **parameters: Any) -> Any:
    baseline = own(target) if kind == "own" else kind
    return fitted(tiny_bert, target, baseline, **parameters)


@pytest.mark.parametrize("head_init", ["linear_probe", "random"])
def test_the_loss_and_the_logits_are_those_of_the_sum(tiny_bert: str, head_init: str) -> None:
    """In training the baseline is out of fold, in prediction it is fitted on all texts."""
    model = fitted(
        tiny_bert,
        "classes",
        "words",
        learning_rate=STILL,
        dropout=0.0,
        batch_size=24,
        head_init=head_init,
        precision="float32",
    )
    documents, scales = model.chunker_._cut(TEXTS, with_spans=False), model.net_.baseline_scales
    of_chunks = model.net_.predict_chunks(documents)
    of_network = np.array([logits.numpy().mean(axis=0) for logits in of_chunks])
    y = (LABELS == "good").astype(int)
    twin = WordsBaseline()
    out_of_fold = scaled_sum(twin.fit(TEXTS, model._targets, y, np.ones(24)), scales)
    logits = torch.from_numpy(of_network + out_of_fold)
    expected = cross_entropy(logits, torch.from_numpy(y)).item()
    assert model.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-5)
    of_all = of_network + scaled_sum(twin.parts(TEXTS), scales)
    np.testing.assert_allclose(
        model.decision_function(TEXTS), of_all[:, 1] - of_all[:, 0], atol=1e-5
    )
    assert scales.max() > 0.1
    assert np.abs(out_of_fold - scaled_sum(twin.parts(TEXTS), scales)).max() > 0.01


def test_a_baseline_that_is_wrong_has_no_effect(tiny_bert: str) -> None:
    with_it, without = (fitted(tiny_bert, "classes", b) for b in (Contrary(), None))
    assert with_it.net_.baseline_scales.tolist() == [0.0]
    np.testing.assert_array_equal(outputs(with_it, TEXTS), outputs(without, TEXTS))


def test_what_words_know_helps(tiny_bert: str) -> None:
    """The tiny encoder is random, and the words tell the labels of two texts in three."""
    with_it, without = (fitted(tiny_bert, "classes", b) for b in ("words", None))
    told = [text for text in TEXTS if text.endswith(("good", "bad"))]
    labels = [text.split()[-1] for text in told]
    assert with_it.score(told, labels) == 1.0
    assert with_it.score(told, labels) > without.score(told, labels)


@pytest.mark.parametrize(("target", "kind"), CASES)
def test_files_and_documents(tiny_bert: str, tmp_path: Path, target: str, kind: str) -> None:
    model = case(tiny_bert, target, kind)
    expected = outputs(model, TEXTS)
    model.save_pretrained(tmp_path)
    data = skops.io.dumps(model)
    trusted = skops.io.get_untrusted_types(data=data)
    assert all(name.startswith("sklearn_longbert.") for name in trusted)
    for twin in (
        pickle.loads(pickle.dumps(model)),
        skops.io.loads(data, trusted=trusted),
        type(model).from_pretrained(tmp_path),
    ):
        np.testing.assert_array_equal(outputs(twin, TEXTS), expected)
        assert str(twin.baseline) == str(model.baseline)
        assert repr(twin.baseline_) == repr(model.baseline_)
        y = {"classes": LABELS, "labels": SEVERAL, "numbers": NUMBERS}[target]
        clone(twin).fit(TEXTS, y)
        twin.partial_fit(TEXTS, y)
        assert not np.array_equal(outputs(twin, TEXTS), expected)
    documents = TextChunker(tiny_bert, chunk_size=16).fit_transform(TEXTS)
    np.testing.assert_allclose(outputs(model, documents), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("target", "kind"), CASES)
@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp", "attention"])
def test_contributions_add_up(tiny_bert: str, target: str, kind: str, pooling: str) -> None:
    model = case(tiny_bert, target, kind, pooling=pooling)
    documents = TextChunker(tiny_bert, chunk_size=16).fit_transform(TEXTS)
    for explanation, again in zip(model.explain(TEXTS), model.explain(documents), strict=True):
        total = explanation.contributions.sum(axis=0) + explanation.base_value
        np.testing.assert_allclose(total, explanation.logits, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(again.contributions, explanation.contributions, atol=1e-4)
    shown = np.array([explanation.logits for explanation in model.explain(TEXTS)])
    if target == "classes":
        np.testing.assert_allclose(shown[:, 1] - shown[:, 0], outputs(model, TEXTS), atol=1e-5)
    else:
        np.testing.assert_allclose(
            shown.reshape(outputs(model, TEXTS).shape), outputs(model, TEXTS)
        )


@settings(max_examples=25)
@given(text=st.text(alphabet="ab é.\n漢😀", max_size=80), max_chunks=st.sampled_from([None, 1]))
def test_contributions_of_any_text_add_up(
    text: str, max_chunks: int | None, tiny_bert: str
) -> None:
    if max_chunks not in MODELS:
        MODELS[max_chunks] = fitted(tiny_bert, "classes", "words", max_chunks=max_chunks)
    (explanation,) = MODELS[max_chunks].explain([text])
    total = explanation.contributions.sum(axis=0) + explanation.base_value
    np.testing.assert_allclose(total, explanation.logits, atol=1e-5)


MODELS: dict[int | None, Any] = {}


@pytest.mark.parametrize("level", ["chunk", "sentence"])
def test_the_word_that_decides_is_in_the_passage(tiny_bert: str, level: str) -> None:
    model = fitted(tiny_bert, "classes", "words")
    filler = "The quick brown fox jumps over the lazy dog. " * 3
    (explanation,) = model.explain([filler + "It is good, good! " + filler], level=level)
    best = explanation.contributions[:, 1].argmax()
    assert "good" in explanation.passages[best]


def test_later_fits_keep_the_baseline(tiny_bert: str) -> None:
    model = fitted(tiny_bert, "classes", "words", warm_start=True)
    baseline, scales = model.baseline_, model.net_.baseline_scales
    for train in (model.fit, model.partial_fit):
        before = outputs(model, TEXTS)
        train(TEXTS[:12], LABELS[:12])
        assert model.baseline_ is baseline
        np.testing.assert_array_equal(model.net_.baseline_scales, scales)
        assert not np.array_equal(outputs(model, TEXTS), before)


def test_partial_fit_may_come_first(tiny_bert: str) -> None:
    model = LongBertClassifier(tiny_bert, baseline="words", **SETTINGS)
    model.partial_fit(TEXTS, LABELS, classes=["bad", "good", "ugly"])
    assert model.predict_proba(TEXTS).shape == (24, 3)
    assert isinstance(model.baseline_, WordsBaseline)


def test_a_first_partial_fit_of_one_class_starts_as_without_words(tiny_bert: str) -> None:
    """Each model says the one class, and the sum is about as certain as the probe alone."""
    of_one, ways = LABELS[1::2], []
    for baseline in ("words", None):
        model = LongBertClassifier(tiny_bert, baseline=baseline, **SETTINGS)
        model.partial_fit(TEXTS[1::2], of_one, classes=["bad", "good"])
        ways.append(model.decision_function(TEXTS))
        model.partial_fit(TEXTS, LABELS)
    with_words, without = ways
    assert (without > 0).all()
    assert ((0.5 * without < with_words) & (with_words < 2 * without)).all()


def test_a_first_partial_fit_of_one_class_needs_more_for_an_estimator(tiny_bert: str) -> None:
    """Later calls would keep a baseline that knows nothing."""
    model = LongBertClassifier(tiny_bert, baseline=own(), **SETTINGS)
    with pytest.raises(ValueError, match=r"are of the class 'good', and the baseline, Pipeline, "):
        model.partial_fit(TEXTS[1::2], LABELS[1::2], classes=["bad", "good"])
    assert not hasattr(model, "net_")
    model.partial_fit(TEXTS, LABELS, classes=["bad", "good"])
    model.partial_fit(TEXTS[1::2], LABELS[1::2])


def test_documents_without_their_texts_are_refused_by_index(tiny_bert: str) -> None:
    documents = TextChunker(tiny_bert, chunk_size=16).fit_transform(TEXTS)
    bare = documents.copy()
    bare[5] = ChunkedDocument(documents[5].tokens, documents[5].layout)
    unfitted = LongBertClassifier(tiny_bert, baseline="words", **SETTINGS)
    model, without = (fitted(tiny_bert, "classes", b) for b in ("words", None))
    message = "at index 5 is a document without its text, which a baseline and explain need"
    with pytest.raises(ValueError, match=f"X {message}"):
        unfitted.fit(bare, LABELS, sample_weight=[0.0, *np.ones(23)])
    with pytest.raises(ValueError, match=f"X {message}"):
        unfitted.partial_fit(bare, LABELS, classes=["bad", "good"])
    with pytest.raises(ValueError, match=f"X_val {message}"):
        unfitted.fit(documents, LABELS, X_val=bare, y_val=LABELS)
    for call in (model.predict, model.predict_proba, model.explain, without.explain):
        with pytest.raises(ValueError, match=f"X {message}"):
            call(bare)
    np.testing.assert_array_equal(without.predict(bare), without.predict(TEXTS))


def test_groups_of_documents_without_their_texts(tiny_bert: str) -> None:
    """Documents without a text are not equal for that."""
    documents = TextChunker(tiny_bert, chunk_size=16).fit_transform(TEXTS)
    bare = documents.copy()
    bare[:] = [ChunkedDocument(document.tokens, document.layout) for document in documents]
    model = LongBertClassifier(tiny_bert, baseline=None, **SETTINGS)
    one, two = (
        model.fit(X, OF_GROUPS, groups=GROUPS).decision_function(X) for X in (documents, bare)
    )
    np.testing.assert_array_equal(one, two)


def test_searches(tiny_bert: str) -> None:
    grid = [{"baseline": [None, "words"]}, {"baseline": [own()]}]
    model = LongBertClassifier(tiny_bert, baseline=None, **SETTINGS)
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(TEXTS, LABELS)
    assert len(search.cv_results_["mean_test_score"]) == 3
    nested = {"baseline__logisticregression__C": [1e-9, 10.0]}
    model.set_params(baseline=own(), freeze_encoder=True)
    search = GridSearchCV(model, nested, cv=2, error_score="raise").fit(TEXTS, LABELS)
    assert search.best_params_.popitem()[1] == search.best_estimator_.baseline_[-1].C


# Groups: the name of each group tells its label, and no other group has that name.

GROUPS = np.repeat(np.arange(8), 3)
OF_GROUPS = np.repeat(["bad", "good"] * 4, 3)
NAMED = [f"{text} name{group} name{group}" for text, group in zip(TEXTS, GROUPS, strict=True)]


def test_groups_keep_the_baseline_honest(tiny_bert: str) -> None:
    """Without groups, names seem to tell the labels of other texts."""
    model = LongBertClassifier(tiny_bert, baseline="words", **SETTINGS)
    model.set_params(learning_rate=STILL, dropout=0.0)
    trusted = model.fit(NAMED, OF_GROUPS).history_[0]["train_loss"]
    honest = model.fit(NAMED, OF_GROUPS, groups=GROUPS).history_[0]["train_loss"]
    assert honest > 2 * trusted


@given(seed=st.integers(0, 1000))
def test_no_group_is_held_out_in_part(seed: int) -> None:
    strata = (OF_GROUPS == "good").astype(int)
    rows, others = hold_out(24, 0.3, strata, GROUPS, seed)
    assert not set(GROUPS[rows]) & set(GROUPS[others])
    assert sorted([*rows, *others]) == list(range(24))
    assert set(strata[rows]) == {0, 1}
    assert set(strata[others]) == {0, 1}


def test_groups_without_a_way_to_hold_some_out(tiny_bert: str) -> None:
    model = LongBertClassifier(tiny_bert, baseline=None, early_stopping=True, **SETTINGS)
    with pytest.raises(ValueError, match=r"hold out validation_fraction=0\.1 of 24 .*of 2 groups"):
        model.fit(TEXTS, LABELS, groups=(LABELS == "good"))


@pytest.mark.parametrize("baseline", [None, "words"])
def test_groups_that_leave_no_folds_are_warned_of(tiny_bert: str, baseline: Any) -> None:
    """A constant column, or the labels themselves."""
    model = LongBertClassifier(tiny_bert, baseline=baseline, **SETTINGS)
    regressor = LongBertRegressor(tiny_bert, baseline=baseline, **SETTINGS)
    for groups in (np.zeros(24), LABELS):
        with pytest.warns(UserWarning, match="groups puts the texts of each class into one group"):
            model.fit(TEXTS, LABELS, groups=groups)
    with pytest.warns(UserWarning, match="groups puts all texts into one group"):
        regressor.fit(TEXTS, NUMBERS, groups=np.zeros(24))
    regressor.fit(TEXTS, NUMBERS, groups=LABELS)
    model.fit(TEXTS, LABELS, groups=np.arange(24) // 4)  # warnings are errors here


def test_groups_are_routed(tiny_bert: str) -> None:
    with sklearn.config_context(enable_metadata_routing=True):
        model = LongBertClassifier(tiny_bert, baseline=None, **SETTINGS).set_fit_request(
            groups=True
        )
        found = cross_validate(
            model, NAMED, OF_GROUPS, cv=StratifiedGroupKFold(2), params={"groups": GROUPS},
            error_score="raise",
        )  # fmt: skip
    assert len(found["test_score"]) == 2


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 2], "groups has shape"),
        ([*range(23), None], "groups contains NaN or another missing value, None, at index 23"),
        ([*range(23), np.nan], "groups contains NaN or another missing value, nan, at index 23"),
    ],
)
def test_wrong_groups(tiny_bert: str, groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LongBertClassifier(tiny_bert, baseline=None, **SETTINGS).fit(TEXTS, LABELS, groups=groups)


@pytest.mark.parametrize(
    ("baseline", "error", "message"),
    [
        ("tfidf", ValueError, "baseline='tfidf' where None, 'words' or an estimator"),
        (LogisticRegression, TypeError, r"pass LogisticRegression\(\)"),
        (3, TypeError, "baseline=3 where"),
        (CountVectorizer(), TypeError, "has no predict_proba or decision_function"),
    ],
)
def test_wrong_baselines(tiny_bert: str, baseline: Any, error: type, message: str) -> None:
    model = LongBertClassifier(tiny_bert, baseline=baseline, **SETTINGS)
    with pytest.raises(error, match=message):
        model.fit(TEXTS, LABELS)
    assert not hasattr(model, "net_")


def test_an_estimator_that_skops_does_not_trust(tiny_bert: str, tmp_path: Path) -> None:
    model = fitted(tiny_bert, "classes", Contrary())
    with pytest.raises(TypeError, match=r"baseline=Contrary holds .*Contrary"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


class Duck:
    """An estimator without scikit-learn's base, whose fit returns nothing."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {}

    def fit(self, X: Any, y: Any) -> None:
        self.classes_ = np.unique(y)

    def predict_proba(self, X: Any) -> np.ndarray:
        right = 0.9 * np.array(["good" in text for text in X]) + 0.05
        return np.column_stack([1 - right, right])


def test_any_object_with_the_methods_is_a_baseline(tiny_bert: str) -> None:
    model = fitted(tiny_bert, "classes", Duck())
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(outputs(twin, TEXTS), outputs(model, TEXTS))


def test_an_error_of_the_baseline_says_so(tiny_bert: str) -> None:
    with pytest.raises(ValueError, match="could not convert string to float") as caught:
        fitted(tiny_bert, "classes", LogisticRegression())
    (note,) = caught.value.__notes__
    assert "baseline=LogisticRegression.fit, which gets raw texts" in note
    assert "targets of shape (" in note


def test_the_baseline_cannot_be_exchanged(tiny_bert: str, tmp_path: Path) -> None:
    model = fitted(tiny_bert, "classes", "words", warm_start=True)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is kept, but the parameter is now baseline=None"):
        LongBertClassifier.from_pretrained(tmp_path, baseline=None)
    model.set_params(baseline=None)
    for train in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="is kept, but the parameter is now baseline=None"):
            train(TEXTS, LABELS)
    other = fitted(tiny_bert, "classes", None, warm_start=True).set_params(baseline="words")
    with pytest.raises(ValueError, match="The baseline of the first fit, None, is kept"):
        other.fit(TEXTS, LABELS)


def test_the_sentences_that_words_know_are_chosen(tiny_bert: str) -> None:
    model = fitted(tiny_bert, "classes", "words")
    filler = "the quick brown fox jumps over the lazy dog. " * 6
    (explanation,) = model.explain(
        [filler + "good good good good good. " + filler], level="sentence", max_sentences=2
    )
    assert any("good" in passage for passage in explanation.passages)


def test_groups_of_one_class_each_are_held_out(tiny_bert: str) -> None:
    """The training part has all classes, and the held-out part as many as it can."""
    model = LongBertClassifier(tiny_bert, baseline=None, early_stopping=True, **SETTINGS)
    assert model.fit(NAMED, OF_GROUPS, groups=GROUPS).history_[0]["valid_score"] >= 0
    with pytest.raises(TypeError, match="groups at index 0 is"):
        model.fit(NAMED, OF_GROUPS, groups=np.array([{}] * 24))
