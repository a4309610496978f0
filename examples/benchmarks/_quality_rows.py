"""The rows of quality.py: each is a function from a Split and an encoder to an unfitted model.

The encoder is the folder of one, or None for the default.
"""

from functools import partial

import numpy as np
from _peer import make_belt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Freezer

from sklearn_longbert import LongBertClassifier, LongBertVectorizer, TextChunker


def inner_folds(y, groups=None):
    """Return up to five folds of the training texts, with no group on both sides of one.

    Folds that lack a class in their training part are left out.
    """
    units = np.arange(len(y)) if groups is None else groups
    fewest = min(len(np.unique(units[y == label])) for label in np.unique(y))
    n_folds = min(5, max(2, fewest))
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = kind(n_folds).split(y, y, groups)
    return [(train, test) for train, test in folds if len(set(y[train])) == len(set(y))]


def tuned(model, split):
    """Return a search for the C of least log loss in inner cross-validation."""
    scoring = make_scorer(
        log_loss,
        response_method="predict_proba",
        greater_is_better=False,
        labels=np.unique(split.y),
    )
    grid = {"logisticregression__C": np.logspace(-3, 3, 7)}
    return GridSearchCV(model, grid, cv=inner_folds(split.y, split.groups), scoring=scoring)


def tfidf(split, encoder, *, of_many, **settings):
    """Return a linear model of n-grams; thousands of texts get a fixed C and `of_many`."""
    if split.is_large:
        vectorizer = TfidfVectorizer(sublinear_tf=True, **settings | of_many)
        return make_pipeline(vectorizer, LogisticRegression(C=30, max_iter=100))
    vectorizer = TfidfVectorizer(sublinear_tf=True, **settings)
    return tuned(make_pipeline(vectorizer, LogisticRegression(max_iter=1000)), split)


def for_encoder(split, encoder, settings):
    """Return the settings of an encoder's estimator, which reads needles in short chunks."""
    if split.is_needle:
        settings = {"chunk_size": 64, **settings}
    return settings if encoder is None else {"model_name": encoder, **settings}


def frozen(split, encoder, **settings):
    vectorizer = LongBertVectorizer(**for_encoder(split, encoder, settings))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return make_pipeline(vectorizer, tuned(model, split))


class Truncated(LongBertClassifier):
    """Gets the first chunk of each text only, and so does its baseline."""

    def fit(self, X, y, groups=None):
        return super().fit(self.beginnings(X), y, groups=groups)

    def predict_proba(self, X):
        return super().predict_proba(self.beginnings(X))

    def beginnings(self, X):
        """Return the texts as far as their first chunk goes."""
        chunker = TextChunker(self.model_name, chunk_size=self.chunk_size, max_chunks=1)
        documents = chunker.fit_transform(X)
        ends = [document.spans[document.bounds()[0, 1] - 1, 1] for document in documents]
        return [text[:end] for text, end in zip(X, ends, strict=True)]


def longbert(split, encoder, kind=LongBertClassifier, **settings):
    return kind(random_state=split.seed, **for_encoder(split, encoder, settings))


def upper_half(split, encoder):
    """Return a classifier that trains the upper three of the default encoder's six layers."""
    if encoder is not None:
        raise ValueError("all-upper-half names layers of the default encoder")
    lower_half = Freezer(["encoder.embeddings.*", "encoder.encoder.layer.[0-2].*"])
    return longbert(split, encoder, callbacks=[lower_half])


class Belt:
    """belt-nlp behind fit and predict_proba, with the epochs and so on of LongBertClassifier."""

    def __init__(self, split, encoder):
        ours = LongBertClassifier()
        self.seed, self.classes_ = split.seed, np.unique(split.y)
        self.model = make_belt(
            len(self.classes_),
            folder=encoder,
            batch_size=ours.batch_size,
            learning_rate=ours.learning_rate,
            epochs=ours.max_epochs,
        )

    def fit(self, X, y):
        import torch

        torch.manual_seed(self.seed)
        self.model.fit(list(X), np.searchsorted(self.classes_, y).tolist())
        return self

    def predict_proba(self, X):
        scores = self.model.predict_scores(list(X))
        return scores.softmax(dim=1).numpy()


LAST = {"layers": "last", "token_pooling": "mean"}
SPREAD = {"layers": "spread", "token_pooling": "mean_max"}
BEFORE = {
    **LAST,
    "baseline": None,
    "fine_tuning_share": 1.0,
    "learning_rate": 5e-5,
    "max_epochs": 3,
}

TFIDF_ROWS = {
    "words": partial(tfidf, ngram_range=(1, 2), of_many={"ngram_range": (1, 1)}),
    "cased-words": partial(
        tfidf,
        token_pattern=r"\w+|[^\w\s]",
        lowercase=False,
        ngram_range=(1, 2),
        of_many={"ngram_range": (1, 1)},
    ),
    "characters": partial(
        tfidf, analyzer="char_wb", lowercase=False, ngram_range=(2, 5), of_many={"min_df": 5}
    ),
}
ENCODER_ROWS = {
    "frozen": partial(frozen, **LAST),
    "frozen-spread": partial(frozen, **SPREAD),
    "before": partial(longbert, **BEFORE),
    "share": partial(longbert, **BEFORE | {"fine_tuning_share": "auto"}),
    "layers": partial(longbert, **BEFORE | SPREAD),
    "baseline": partial(longbert, **BEFORE | {"baseline": "words"}),
    "all": longbert,
    "all-frozen": partial(longbert, freeze_encoder=True),
    "all-truncated": partial(longbert, kind=Truncated),
    "belt": Belt,
}
ROWS = TFIDF_ROWS | ENCODER_ROWS
ONE_SEED_ROWS = {"belt"}  # it takes many times as long as the others

# "all" with something else; run where --rows names them
VARIATIONS = {
    "all-max": partial(longbert, pooling="max"),
    "all-logsumexp": partial(longbert, pooling="logsumexp"),
    "all-attention": partial(longbert, pooling="attention"),
    "all-frozen-alone": partial(longbert, freeze_encoder=True, baseline=None),
    "all-frozen-max": partial(longbert, freeze_encoder=True, pooling="max"),
    "all-random-head": partial(longbert, head_init="random"),
    "all-upper-half": upper_half,
    "all-early-stopping": partial(longbert, early_stopping=True, scoring="loss", max_epochs=6),
    "all-one-epoch": partial(longbert, max_epochs=1, learning_rate=1e-4),
} | {
    f"all-{name}={value}": partial(longbert, **{name: value})
    for name, values in {
        "learning_rate": (2e-5, 1e-4),
        "max_epochs": (1, 6),
        "token_pooling": ("cls", "mean"),
        "chunk_size": (128, 256),
        "fine_tuning_share": (0.25, 0.6, 1.0),
        "dropout": (0.3,),
        "baseline": (None,),
        "layers": ("last",),
    }.items()
    for value in values
}
