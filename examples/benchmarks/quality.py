"""How well does it learn? Few labels, long texts, and what one would otherwise reach for.

    python examples/benchmarks/quality.py                          # everything: many hours
    python examples/benchmarks/quality.py --data bbc-50 --rows tfidf frozen mean
    python examples/benchmarks/quality.py --table                  # of what is done

Each finished fit is a line of ``quality.csv`` in the current folder, and a file of probabilities
in ``quality``; a second call reads them and runs only what is missing. ``quality.png`` shows
accuracy against the number of labels.

Rows. tfidf: TF-IDF and logistic regression, C by inner cross-validation, of newsgroups C=30.
frozen:
LongBertVectorizer and logistic regression, likewise. truncated: LongBertClassifier that reads the
first chunk only. belt: belt-nlp 1.1.0 with the same encoder, epochs, batch size and learning
rate. mean, max, logsumexp, attention: LongBertClassifier with that pooling, otherwise as it comes.
random-head: with head_init="random". stack: mean and tfidf, stacked by a logistic regression.
vote: the mean of the probabilities of mean and tfidf, which are run before it. one-epoch,
one-epoch-truncated, one-epoch-vote: mean, truncated and vote with max_epochs=1,
learning_rate=1e-4, where there are thousands of texts. Run only if named: max_epochs=6 and the
like, which is mean with that parameter; spread, with embeddings of several layers; words, which
is spread with baseline="words"; words-frozen, which is words without training of the encoder.

Data. bbc-N: N training texts of BBC news, the others are the test. books, conventions: excerpts
of books and speeches, five folds, in which no book and no speaker is on both sides. newsgroups:
by date; newsgroups-long: its test texts of more than 510 tokens alone. needle-2k, needle-8k: one
sentence in texts of 2000 and 8000 tokens, 200 to learn from and 200 to test; there, chunks of 64
tokens.

NLL and ECE (15 bins) are of one half of the test texts; "calibrated" after scikit-learn's
temperature, fitted on the other half.
"""

import argparse
import platform
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import (
    load_bbc_news,
    load_book_excerpts,
    load_conventions,
    load_newsgroups,
    make_needles,
)
from _peer import make_belt

from sklearn_longbert import LongBertClassifier, LongBertVectorizer, TextChunker

# Data: from a seed to (name, training texts, labels, test texts, labels) of each fit


def bbc(n_train, seed):
    texts, labels = load_bbc_news()
    X, X_test, y, y_test = train_test_split(
        texts, labels, train_size=n_train, stratify=labels, random_state=seed
    )
    yield "", X, y, X_test, y_test


def grouped(load, seed):
    texts, labels, groups = load()
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for number, (train, test) in enumerate(folds.split(texts, labels, groups)):
        yield f"fold {number}", texts[train], labels[train], texts[test], labels[test]


def newsgroups(seed):
    yield "", *load_newsgroups("train"), *load_newsgroups("test")


def needle(n_words, seed):
    X, y = make_needles(200, n_words, seed)
    yield "", X, y, *make_needles(200, n_words, 1000 + seed)


DATA = {f"bbc-{n}": partial(bbc, n) for n in (25, 50, 100, 200)} | {
    "books": partial(grouped, load_book_excerpts),
    "conventions": partial(grouped, load_conventions),
    "newsgroups": newsgroups,
    "needle-2k": partial(needle, 1540),
    "needle-8k": partial(needle, 6150),
}

# Rows: from the name of the data and a seed to an estimator


def inner_search(model, y):
    n_folds = int(min(5, np.unique(y, return_counts=True)[1].min()))
    grid = {"logisticregression__C": np.logspace(-3, 3, 7)}
    return GridSearchCV(model, grid, cv=n_folds, scoring="neg_log_loss")


def tfidf(data, seed, y):
    if data == "newsgroups":  # thousands of texts in twenty classes: a search would take an hour
        return make_pipeline(
            TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=30, max_iter=100)
        )
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    return inner_search(make_pipeline(words, LogisticRegression(max_iter=1000)), y)


def frozen(data, seed, y):
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return make_pipeline(LongBertVectorizer(), inner_search(model, y))


def longbert(data, seed, y, **settings):
    if data.startswith("needle"):
        settings["chunk_size"] = 64
    return LongBertClassifier(random_state=seed, **settings)


def stack(data, seed, y):
    models = [("tfidf", tfidf(data, seed, y)), ("longbert", longbert(data, seed, y))]
    return StackingClassifier(models, LogisticRegression(), cv=3)


class Belt:
    """belt-nlp behind fit and predict, with the epochs and so on of LongBertClassifier."""

    def __init__(self, data, seed, y):
        ours = LongBertClassifier()
        self.seed, self.classes_ = seed, np.unique(y)
        self.model = make_belt(
            len(self.classes_),
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


ROWS: dict[str, Any] = {
    "tfidf": tfidf,
    "frozen": frozen,
    "truncated": partial(longbert, max_chunks=1),
    "belt": Belt,
    "mean": longbert,
    "max": partial(longbert, pooling="max"),
    "logsumexp": partial(longbert, pooling="logsumexp"),
    "attention": partial(longbert, pooling="attention"),
    "random-head": partial(longbert, head_init="random"),
    "stack": stack,
    "one-epoch": partial(longbert, max_epochs=1, learning_rate=1e-4),
    "one-epoch-truncated": partial(longbert, max_epochs=1, learning_rate=1e-4, max_chunks=1),
    "vote": ("tfidf", "mean"),
    "one-epoch-vote": ("tfidf", "one-epoch"),
}
# mean with one parameter away from its default; run where --rows names them
VARIATIONS = {
    f"{name}={value}": partial(longbert, **{name: value})
    for name, values in {
        "learning_rate": (2e-5, 1e-4),
        "max_epochs": (1, 6),
        "token_pooling": ("cls",),
        "chunk_size": (128, 256),
    }.items()
    for value in values
}
SPREAD = {"layers": "spread", "token_pooling": "mean_max"}
VARIATIONS |= {
    "spread": partial(longbert, **SPREAD),
    "words": partial(longbert, baseline="words", **SPREAD),
    "words-frozen": partial(longbert, baseline="words", freeze_encoder=True, **SPREAD),
}

COLUMNS = [
    "data", "row", "seed", "fold", "accuracy", "seconds", "nll", "ece", "calibrated_nll",
    "calibrated_ece",
]  # fmt: skip


def ece(y, probabilities, classes, n_bins=15):
    """Expected calibration error (Guo et al., 2017) of the predicted class."""
    confidence = probabilities.max(axis=1)
    is_right = classes[probabilities.argmax(axis=1)] == y
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = [
        abs(is_right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps))


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose X are the logits that another one has given."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, X):
        return X[:, 1] if len(self.classes_) == 2 else X

    def predict(self, X):
        return self.classes_[X.argmax(axis=1)]


def calibration(y, probabilities, classes):
    """Return NLL and ECE before and after a temperature that is fitted on the other half."""
    logits = np.log(np.maximum(probabilities.astype(np.float64), 1e-30))
    if len(classes) == 2:
        logits -= logits[:, :1]
    try:
        X_fit, X, y_fit, y = train_test_split(logits, y, test_size=0.5, stratify=y, random_state=0)
    except ValueError:  # a class with a single text
        return [np.nan] * 4
    if set(y_fit) != set(classes):
        return [np.nan] * 4
    given = FrozenEstimator(Given().fit(X_fit, y_fit))
    calibrated = CalibratedClassifierCV(given, method="temperature").fit(X_fit, y_fit)
    figures = []
    for after in (softmax(X, axis=1), calibrated.predict_proba(X)):
        figures += [log_loss(y, after, labels=classes), ece(y, after, classes)]
    return figures


def probabilities_file(folder, *names):
    return folder / f"{'-'.join(str(name) for name in names)}.npy"


def vote(data, row, seed, fold, folder):
    """Return the mean of the probabilities that the voters have given."""
    paths = [probabilities_file(folder, data, voter, seed, fold) for voter in ROWS[row]]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise SystemExit(f"{row} needs {missing[0]}: run --rows {' '.join(ROWS[row])} {row}")
    return np.mean([np.load(path) for path in paths], axis=0)


def run(data, row, seed, fold, X, y, X_test, y_test, folder):
    """Yield one line a set of test texts."""
    start = time.perf_counter()
    figures = [np.nan] * 4
    make = (ROWS | VARIATIONS)[row]
    if isinstance(make, tuple):
        probabilities = vote(data, row, seed, fold, folder)
    else:
        model = make(data, seed, y).fit(X, y)
        probabilities = model.predict_proba(X_test)
        folder.mkdir(exist_ok=True)
        np.save(probabilities_file(folder, data, row, seed, fold), probabilities)
    is_right = np.unique(y)[probabilities.argmax(axis=1)] == y_test
    seconds = np.nan if isinstance(make, tuple) else time.perf_counter() - start
    if row in ("mean", "spread", "words", "words-frozen") and len(y_test) >= 50:
        figures = calibration(y_test, probabilities, np.unique(y))
    yield [data, row, seed, fold, is_right.mean(), seconds, *figures]
    if data == "newsgroups":
        lengths = np.array([d.n_tokens for d in TextChunker().fit_transform(X_test)])
        is_long = lengths > 510
        yield [f"{data}-long", row, seed, fold, is_right[is_long].mean(), seconds] + [np.nan] * 4


def show(path):
    lines = pd.read_csv(path, keep_default_na=False, na_values=[""])
    by_seed = lines.groupby(["data", "row", "seed"])[COLUMNS[4:]].mean()
    table = by_seed.groupby(["data", "row"]).agg(
        accuracy=("accuracy", "mean"),
        std=("accuracy", "std"),
        seeds=("accuracy", "count"),
        seconds=("seconds", "mean"),
        nll=("nll", "mean"),
        ece=("ece", "mean"),
        calibrated_nll=("calibrated_nll", "mean"),
        calibrated_ece=("calibrated_ece", "mean"),
    )
    print(f"{platform.processor() or platform.machine()}\n{table.round(3).to_string()}")
    few = table[table.index.get_level_values("data").str.startswith("bbc-")].reset_index()
    if few.empty:
        return
    few["labels"] = few["data"].str.removeprefix("bbc-").astype(int)
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for row in [row for row in ROWS | VARIATIONS if row in set(few["row"])]:
        line = few[few["row"] == row].sort_values("labels")
        axes.errorbar(line["labels"], line["accuracy"], line["std"].fillna(0), label=row, capsize=2)
    axes.set(xscale="log", xlabel="training texts", ylabel="accuracy", title="BBC news, 5 classes")
    ticks = sorted(set(few["labels"]))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(path.with_suffix(".png"), dpi=150, bbox_inches="tight")
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS | VARIATIONS)
    parser.add_argument("--seeds", type=int, default=5, help="of newsgroups always one")
    parser.add_argument("--output", type=Path, default=Path("quality.csv"))
    parser.add_argument("--table", action="store_true", help="only show what is done")
    options = parser.parse_args()
    if options.table:
        show(options.output)
        return
    done = set()
    if options.output.exists():
        lines = pd.read_csv(options.output, keep_default_na=False)
        done = set(zip(lines["data"], lines["row"], lines["seed"], lines["fold"], strict=True))
    seeds = {data: 1 if data == "newsgroups" else options.seeds for data in options.data}
    pairs = [(d, row, s) for d in options.data for s in range(seeds[d]) for row in options.rows]
    with tqdm(pairs) as bar:
        for data, row, seed in bar:
            bar.set_description(f"{data} {row} {seed}")
            for fold, *texts in DATA[data](seed):
                if (data, row, seed, fold) in done:
                    continue
                for line in run(data, row, seed, fold, *texts, options.output.with_suffix("")):
                    header = not options.output.exists()
                    pd.DataFrame([line], columns=COLUMNS).to_csv(
                        options.output, mode="a", header=header, index=False
                    )
    show(options.output)


if __name__ == "__main__":
    main()
