"""Pins the built-in baseline: its n-grams, its models, and the exact share of every occurrence."""

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import all_estimators

from sklearn_longbert._baselines import sparse_linear
from sklearn_longbert._baselines.ngrams import ROW_LENGTH, TfidfColumns, characters, words
from sklearn_longbert._baselines.words import WordsBaseline
from sklearn_longbert._targets import linear_models
from sklearn_longbert._targets.folds import inner_folds, join_groups
from sklearn_longbert._targets.scales import fit_scales, scaled_sum
from sklearn_longbert._targets.targets import Classes, Labels, Numbers

CLASSES = Classes(np.array(["a", "b", "c"]))
WORDS = [f"{first}{second}{mark}" for first in "bdfk" for second in "aeiou" for mark in ("", "!")]


def make_texts(y: np.ndarray, seed: int = 0, n_words: int = 12) -> list[str]:
    """Texts whose words are drawn from overlapping parts of a vocabulary, one a class."""
    rng = np.random.RandomState(seed)
    return [" ".join(rng.choice(WORDS[10 * kind : 10 * kind + 20], n_words)) for kind in y]


Y = np.arange(45) % 3
TEXTS = make_texts(Y)
ONES = np.ones(45)


@pytest.fixture(scope="module")
def fitted() -> WordsBaseline:
    baseline = WordsBaseline()
    baseline.fit(TEXTS, CLASSES, Y, ONES)
    return baseline


def test_words_and_marks_are_tokens_with_their_case() -> None:
    assert list(words("No, No")) == [(0, "No"), (2, ","), (0, "No ,"), (4, "No"), (2, ", No")]
    assert list(words(" \n")) == []


def test_characters_lie_inside_of_words_and_their_spaces() -> None:
    found = list(characters("Ab c"))
    assert {ngram for place, ngram in found if place == 3} == {" c", " c ", "c "}
    assert [place for place, ngram in found if ngram == "b "] == [1]
    assert [place for place, ngram in found if ngram == " Ab "] == [0]
    text = "It's a well-kept word, 日本語 😀."
    ours = sorted(ngram for _, ngram in characters(text) if len(ngram) == 2)
    theirs = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 2), lowercase=False)
    assert ours == sorted(theirs.build_analyzer()(text))


@pytest.fixture
def penalty(monkeypatch: pytest.MonkeyPatch) -> float:
    """The only penalty to choose."""
    monkeypatch.setattr(linear_models, "PENALTIES", np.array([0.01]))
    return 0.01


def scikit_learns(analyzer: Any, penalty: float) -> Pipeline:
    """Our features and our model, by scikit-learn's own classes and with a vocabulary."""
    return make_pipeline(
        TfidfVectorizer(
            analyzer=lambda text: [ngram for _, ngram in analyzer(text)],
            sublinear_tf=True,
            min_df=2,
        ),
        FunctionTransformer(lambda X: ROW_LENGTH * X),
        LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=10_000),
    )


@pytest.mark.parametrize(("name", "analyzer"), [("words", words), ("characters", characters)])
def test_is_scikit_learns_model(name: str, analyzer: Any, penalty: float) -> None:
    """Without collisions of hashes, which these few n-grams have not."""
    baseline = WordsBaseline()
    baseline.fit(TEXTS, CLASSES, Y, ONES)
    model = scikit_learns(analyzer, penalty)
    model.fit(TEXTS, Y, logisticregression__sample_weight=ONES / 45)
    new = make_texts(Y, seed=1)
    ours = softmax(baseline.parts(new)[baseline.names.index(name)], axis=1)
    np.testing.assert_allclose(ours, model.predict_proba(new), atol=2e-3)
    assert len(baseline.models[name].columns.idf) == len(model[0].vocabulary_)


def test_out_of_fold_logits_are_of_models_without_the_text(penalty: float) -> None:
    """Columns and their weights, too, are those of the other texts."""
    order = np.argsort(TEXTS)
    texts, y = np.array(TEXTS)[order], Y[order]  # as they are sorted inside
    logits = WordsBaseline().fit(texts.tolist(), CLASSES, y, ONES)[0]
    for train, test in inner_folds(y):
        model = scikit_learns(words, penalty)
        weights = np.full(len(train), 1 / len(train))
        model.fit(texts[train], y[train], logisticregression__sample_weight=weights)
        ours = softmax(logits[test], axis=1)
        np.testing.assert_allclose(ours, model.predict_proba(texts[test]), atol=2e-3)


@given(st.text(alphabet=st.sampled_from("baBA !?.\n日本😀é\t"), max_size=60))
def test_occurrences_add_up(text: str) -> None:
    for part, found in zip(SMALL.parts([text]), SMALL.occurrences(text), strict=True):
        summed = found.contributions.sum(axis=0) + found.intercepts
        np.testing.assert_allclose(summed, part[0], atol=1e-9)
        assert (np.diff(found.positions) > 0).all()
        assert not any(text[position].isspace() for position in found.positions)


SMALL = WordsBaseline()
SMALL.fit(
    ["ba! ba", "BA ab.", "ba BA", "日本 ba!", "😀 ab. ab", "日本 BA"] * 2,
    CLASSES,
    Y[:12],
    ONES[:12],
)


def test_a_contribution_is_divided_among_occurrences() -> None:
    texts = ["good film", "good book", "bad film", "bad book"] * 3
    texts = [f"{text} {number % 3}" for number, text in enumerate(texts)]
    baseline = WordsBaseline()
    y = np.array([1, 1, 0, 0] * 3)
    baseline.fit(texts, Classes(np.array([0, 1])), y, np.ones(12))
    (found, _) = baseline.occurrences("good x good x good unseen")
    assert found.positions.tolist() == [0, 7, 14]
    np.testing.assert_allclose(found.contributions, found.contributions[[0]].repeat(3, axis=0))
    assert found.contributions[0, 1] > 0 > found.contributions[0, 0]


def test_weights_are_copies_and_their_scale_and_the_order_do_not_matter() -> None:
    counts = 1 + np.arange(45) % 3
    rows = np.random.RandomState(0).permutation(np.repeat(np.arange(45), counts))
    labels, numbers = Labels(np.arange(3)), Numbers.of(Y * 1.0, counts)
    for targets, y in (
        (CLASSES, Y),
        (labels, np.eye(3)[Y]),
        (numbers, numbers.to_tensor(Y * 1.0).numpy()),
    ):
        weighted, copied = WordsBaseline(), WordsBaseline()
        one = weighted.fit(TEXTS, targets, y, counts)
        other = copied.fit([TEXTS[row] for row in rows], targets, y[rows], np.full(len(rows), 7.0))
        for first, second in zip(one, other, strict=True):
            np.testing.assert_allclose(first[rows], second, atol=1e-3)
        for first, second in zip(weighted.parts(TEXTS), copied.parts(TEXTS), strict=True):
            np.testing.assert_allclose(first, second, atol=1e-3)


def test_weights_are_respected() -> None:
    """Of equal texts with two labels, the one of more weight is predicted."""
    y = np.concatenate([Y, (Y + 1) % 3])
    baseline = WordsBaseline()
    baseline.fit(TEXTS * 2, CLASSES, y, np.repeat([1.0, 9.0], 45))
    for part in baseline.parts(TEXTS):
        assert (part.argmax(axis=1) == (Y + 1) % 3).mean() > 0.9


def test_grouped_logits_are_honest() -> None:
    """Each author has a word of their own, which tells nothing of another author's texts."""
    rng = np.random.RandomState(0)
    authors = np.arange(60) // 5
    y = rng.permutation(np.arange(12) % 2)[authors]
    texts = [f"author{author} " * 3 + " ".join(rng.choice(WORDS, 8)) for author in authors]
    targets = Classes(np.array(["x", "y"]))
    leaky = WordsBaseline().fit(texts, targets, y, np.ones(60))
    honest = WordsBaseline().fit(texts, targets, y, np.ones(60), authors)

    def loss(logits: np.ndarray) -> float:
        return float(-log_softmax(logits, axis=1)[np.arange(60), y].mean())

    for of_leaky, of_honest in zip(leaky, honest, strict=True):
        assert loss(of_leaky) < 0.4 < 0.6 < loss(of_honest)
    scales = fit_scales(honest, y, np.ones(60), targets.linear_kind)
    assert (scales * np.abs(honest).max(axis=(1, 2)) < 1).all()


def test_equal_texts_do_not_leak() -> None:
    """Copies with other labels are known to be of one text."""
    texts = [f"{text} only{number}" for number, text in enumerate(["same words"] * 20)] * 2
    y = np.tile(np.random.RandomState(0).permutation(np.arange(20) % 2), 2)
    y[:3] = 1 - y[:3]
    logits = WordsBaseline().fit(texts, Classes(np.array([0, 1])), y, np.ones(40))[0]
    assert ((logits.argmax(axis=1) == y).mean()) < 0.7
    folds = inner_folds(y, join_groups(texts))
    assert all(not {texts[i] for i in train} & {texts[i] for i in test} for train, test in folds)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_numbers(n_targets: int) -> None:
    values = np.column_stack([Y * 10.0 + 100, -Y * 1.0])[:, :n_targets].squeeze()
    targets = Numbers.of(values, ONES)
    y = targets.to_tensor(values).numpy()
    baseline = WordsBaseline()
    parts = baseline.fit(TEXTS, targets, y, ONES)
    scales = fit_scales(parts, y, ONES, targets.linear_kind)
    assert ((scaled_sum(parts, scales) - y) ** 2).mean() < 0.3
    new = targets.predictions(scaled_sum(baseline.parts(make_texts(Y, 1)), scales))
    assert np.abs(new - values).mean(axis=0).max() < 5


def test_labels() -> None:
    table = np.column_stack([Y == 0, Y >= 1, np.zeros(45)]).astype(float)
    baseline = WordsBaseline()
    parts = baseline.fit(TEXTS, Labels(np.arange(3)), table, np.ones((45, 3)))
    for part in (*parts, *baseline.parts(TEXTS)):
        assert ((part > 0) == table).mean() > 0.9
        assert (part[:, 2] < 0).all()


def test_many_texts_are_fitted_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse rows of all texts, and a penalty chosen on some of them."""
    y = np.arange(300) % 3
    texts, new = make_texts(y, 2), make_texts(y, 3)
    table = np.eye(3)[y]
    for targets, targets_of in ((CLASSES, y), (Numbers.of(table, np.ones(300)), 3 * table - 1)):
        few, many = WordsBaseline(), WordsBaseline()
        few.fit(texts, targets, targets_of, np.ones(300))
        with monkeypatch.context() as patch:
            patch.setattr(sparse_linear, "MOST_DENSE", 100)
            patch.setattr(sparse_linear, "N_CHOOSING", 100)
            parts = many.fit(texts, targets, targets_of, np.ones(300))
        for one, other, out_of_fold in zip(few.parts(new), many.parts(new), parts, strict=True):
            assert (one.argmax(axis=1) == other.argmax(axis=1)).mean() > 0.95
            assert np.isfinite(out_of_fold).all()
            assert (out_of_fold.argmax(axis=1) == y).mean() > 0.85


def test_a_class_of_few_texts_or_none() -> None:
    targets = Classes(np.arange(5))
    y = Y.copy()
    y[0] = 3  # and none of 4
    baseline = WordsBaseline()
    parts = baseline.fit(TEXTS, targets, y, ONES)
    for part in parts:
        assert np.isnan(part[0]).all()
        assert np.isfinite(part[1:]).all()
        assert (part[1:].argmax(axis=1) < 3).all()
    for part in baseline.parts(TEXTS):
        assert np.isfinite(part).all()
    for part in baseline.parts(["unseen", ""]):
        assert (part.argmax(axis=1) < 3).all()
        assert (softmax(part, axis=1)[:, 4] < 0.02).all()


@pytest.mark.parametrize(
    "texts",
    [
        ["", "", ""],
        ["same"] * 6,
        ["a", "b"],
        ["word", "", "other"],
        ["日本語のテキスト", "日本語", "中文", "😀😀 😀"],
        [" \n\t", "!?", "..."],
    ],
)
def test_odd_texts(texts: list[str]) -> None:
    y = np.arange(len(texts)) % 2
    baseline = WordsBaseline()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baseline.fit(texts, Classes(np.array([0, 1])), y, np.ones(len(texts)))
        for text in [*texts, "", "new", "新しい 😀", " "]:
            parts = baseline.parts([text])
            assert np.isfinite(parts).all()
            assert np.abs(parts).max() < 20
            for part, found in zip(parts, baseline.occurrences(text), strict=True):
                summed = found.contributions.sum(axis=0) + found.intercepts
                np.testing.assert_allclose(summed, part[0], atol=1e-9)


def test_predictions_do_not_depend_on_each_other(
    fitted: WordsBaseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = fitted.parts(TEXTS)
    monkeypatch.setattr("sklearn_longbert._baselines.ngrams.STRETCH", 50)
    for one, other in zip(together, fitted.parts(TEXTS), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def same_parts(one: WordsBaseline, other: WordsBaseline) -> None:
    for first, second in zip(one.parts(TEXTS), other.parts(TEXTS), strict=True):
        np.testing.assert_array_equal(first, second)


def test_state_copies_and_repr(fitted: WordsBaseline) -> None:
    state = fitted.state()
    assert all(isinstance(value, np.ndarray | int) for value in state.values())
    same_parts(fitted, WordsBaseline.from_state(state, CLASSES))
    same_parts(fitted, pickle.loads(pickle.dumps(fitted)))
    same_parts(fitted, copy.deepcopy(fitted))
    assert repr(WordsBaseline()) == "WordsBaseline()"
    assert repr(fitted).startswith("WordsBaseline(words: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"words.idf": None}, "lacks"),
        ({"words.idf": np.ones(2)}, "words do not fit"),
        ({"characters.intercepts": np.ones(4)}, "characters do not fit"),
        ({"n_columns": 8}, "of 8 columns"),
    ],
)
def test_wrong_state(fitted: WordsBaseline, change: dict[str, Any], message: str) -> None:
    state = {name: value for name, value in (fitted.state() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        WordsBaseline.from_state(state, CLASSES)


def test_no_predictor_of_scikit_learn_is_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for name, cls in all_estimators(type_filter=["classifier", "regressor", "cluster"]):
        if "fit" in vars(cls):
            monkeypatch.setattr(cls, "fit", lambda self, *_, name=name, **__: made.append(name))
    WordsBaseline().fit(TEXTS, CLASSES, Y, ONES)
    assert made == []


def test_pandas_output_changes_nothing(fitted: WordsBaseline) -> None:
    with sklearn.config_context(transform_output="pandas"):
        again = WordsBaseline()
        again.fit(TEXTS, CLASSES, Y, ONES)
        same_parts(fitted, again)


def test_of_too_many_columns_those_of_the_most_texts_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sklearn_longbert._baselines.ngrams.MOST_FEATURES", 2)
    counts = sparse_linear.csr_array(np.array([[1.0, 1, 0, 1], [1, 0, 1, 1], [1, 1, 0, 1]]))
    assert TfidfColumns.of(counts).columns.tolist() == [0, 3]


def test_columns_that_one_text_has_are_left_out() -> None:
    counts = sparse_linear.csr_array(np.array([[1.0, 2, 0, 0], [3, 0, 1, 0]]))
    columns = TfidfColumns.of(counts)
    assert columns.columns.tolist() == [0]
    np.testing.assert_allclose(columns.rows(counts).toarray(), [[ROW_LENGTH], [ROW_LENGTH]])
