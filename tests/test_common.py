"""scikit-learn's own estimator checks, all of them.

Of an estimator that takes texts scikit-learn checks next to nothing. So the estimators are also
checked through subclasses that take rows of numbers: one input hook spells each row in words,
and everything behind it is the package's own. Their encoder is tiny and reads eight tokens, so
that a row of more than six features is a text of several chunks.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pytest
import sklearn.utils.estimator_checks as checks
import torch
import transformers
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sklearn_longbert import LongBertClassifier, LongBertRegressor, LongBertVectorizer, TextChunker

N_FEATURES = 30  # the most that a check brings
LEVELS = np.arange(-3.75, 4, 0.5)  # a number becomes the level below it, as a word of its feature
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


class NumericRows:
    """Rows of numbers, checked as any estimator checks them, become texts."""

    encoder_dtype = torch.float32

    def _check_input(self, X: Any, name: str = "X", needs_texts: bool = False) -> list[str]:
        rows = validate_data(self, X, reset=not hasattr(self, "n_features_in_"))
        levels = np.digitize(rows, LEVELS)
        texts = [" ".join(f"f{j}_{k}" for j, k in enumerate(row)) for row in levels]
        return super()._check_input(texts)

    def _load_encoder(self, *args: Any) -> torch.nn.Module:
        return super()._load_encoder(*args).to(self.encoder_dtype)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags


class NumericClassifier(NumericRows, LongBertClassifier):
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        vars(self).pop("n_features_in_", None)
        return super().fit(X, y, sample_weight)


class NumericRegressor(NumericRows, LongBertRegressor):
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        vars(self).pop("n_features_in_", None)
        return super().fit(X, y, sample_weight)


class NumericChunker(NumericRows, TextChunker):
    def fit(self, X: Any = None, y: Any = None) -> Self:
        vars(self).pop("n_features_in_", None)
        return super().fit(X, y)

    def transform(self, X: Any) -> np.ndarray:
        """Return the ids of a text's chunks side by side: the checks compare numbers."""
        return np.array([np.concatenate(list(row.chunks())) for row in super().transform(X)])


class NumericVectorizer(NumericRows, LongBertVectorizer):
    def fit(self, X: Any = None, y: Any = None) -> Self:
        vars(self).pop("n_features_in_", None)
        return super().fit(X, y)


# One step an epoch, without dropout: a weight of k is then the same as k copies.
TRAINING = {
    "layers": "last",
    "baseline": None,
    "fine_tuning_share": 1.0,
    "batch_size": 1000,
    "learning_rate": 0.05,
    "dropout": 0.0,
}
TRAINING |= {"device": "cpu", "precision": "float32"}
NUMERIC = [
    NumericClassifier(**TRAINING, max_epochs=10),
    NumericRegressor(**TRAINING, max_epochs=40),
    NumericVectorizer(device="cpu", precision="float32"),
    NumericChunker(),
]
# Checks that compare to seven digits. In float32, a CPU may round a row differently among others.
TO_SEVEN_DIGITS = ("_invariance", "sample_weight_equivalence")
REAL = [LongBertClassifier(), LongBertRegressor(), LongBertVectorizer(), TextChunker()]


@pytest.fixture(scope="session")
def row_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny BERT with a word for each level of each feature."""
    words = [f"f{j}_{k}" for j in range(N_FEATURES) for k in range(len(LEVELS) + 1)]
    # "a" is for the chunker, which finds the special tokens around a word that it knows
    vocab = {word: index for index, word in enumerate([*SPECIALS, "a", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIALS, strict=True))
    config = transformers.BertConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    folder = tmp_path_factory.mktemp("row_encoder")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(
        folder
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


@checks.parametrize_with_checks(NUMERIC)
def test_numeric_view(
    estimator: BaseEstimator,
    check: Callable[[BaseEstimator], None],
    row_encoder: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if any(name in check.func.__name__ for name in TO_SEVEN_DIGITS):
        monkeypatch.setattr(NumericRows, "encoder_dtype", torch.float64)
    check(clone(estimator).set_params(model_name=row_encoder))


@pytest.mark.parametrize(
    ("estimator", "at_least"), list(zip(NUMERIC, (55, 50, 40, 40), strict=True))
)
def test_numeric_view_gets_the_full_set(estimator: BaseEstimator, at_least: int) -> None:
    """A tag amiss would leave one check, and the test above would pass all the same."""
    found = {check.func for _, check in checks.estimator_checks_generator(estimator)}
    assert len(found) >= at_least


def test_numeric_view_spells_rows(row_encoder: str) -> None:
    """Without known words, or with all texts of one chunk, the checks would say little."""
    chunker = NumericChunker(model_name=row_encoder)
    ids = chunker.fit_transform([[-9.0] * 10, [9.0] * 10, np.linspace(-4, 4, 10)])
    assert chunker.layout_.chunk_size == 8
    assert ids.shape == (3, 10 + 2 * 2)  # two chunks, each with two special tokens
    assert SPECIALS.index("[UNK]") not in ids
    assert len(np.unique(ids, axis=0)) == 3


@pytest.mark.parametrize("estimator", REAL, ids=lambda estimator: type(estimator).__name__)
@pytest.mark.parametrize(
    "check",
    [
        checks.check_estimator_cloneable,
        checks.check_estimator_repr,
        checks.check_estimator_tags_renamed,
        checks.check_estimators_unfitted,
        checks.check_do_not_raise_errors_in_init_or_set_params,
        checks.check_get_params_invariance,
        checks.check_mixin_order,
        checks.check_no_attributes_set_in_init,
        checks.check_param_validation,  # which scikit-learn keeps to itself
        checks.check_parameters_default_constructible,
        checks.check_set_params,
        checks.check_valid_tag_types,
    ],
    ids=lambda check: check.__name__,
)
def test_real_class(estimator: BaseEstimator, check: Callable[..., None]) -> None:
    """What needs no numbers holds of the classes themselves."""
    check(type(estimator).__name__, estimator)


@pytest.mark.parametrize("transformer", [TextChunker(), LongBertVectorizer()])
def test_unfitted_transformers(transformer: BaseEstimator) -> None:
    checks.check_transformers_unfitted(type(transformer).__name__, transformer)
