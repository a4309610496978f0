"""What does bfloat16 change? The same weights predict in both precisions.

    python examples/benchmarks/precision.py

A classifier of five classes is fitted on 200 texts of BBC news, in float32 and in bfloat16; each
predicts 500 others in both. Shown are the share of equal labels, the largest difference of a
probability, and the accuracies; then how far bfloat16 depends on what is predicted together.
"""

import argparse
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news

from sklearn_longbert import LongBertClassifier


def in_precision(model, precision, folder):
    """Return the same fitted classifier, computing in another precision."""
    model.save_pretrained(folder)
    return LongBertClassifier.from_pretrained(folder, precision=precision)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=500, help="that are predicted")
    options = parser.parse_args()
    texts, labels = load_bbc_news()
    X, X_test, y, y_test = train_test_split(
        texts, labels, train_size=200, test_size=options.texts, stratify=labels, random_state=0
    )
    for fitted_in in ("float32", "bfloat16"):
        model = LongBertClassifier(
            layers="last", baseline=None, precision=fitted_in, random_state=0
        ).fit(X, y)
        found = {}
        with tempfile.TemporaryDirectory() as folder:
            for precision in ("float32", "bfloat16"):
                again = in_precision(model, precision, Path(folder, "model"))
                found[precision] = again.predict_proba(X_test)
                if precision == "bfloat16":
                    alone = np.vstack([again.predict_proba([text]) for text in X_test[:100]])
        one, two = found["float32"], found["bfloat16"]
        is_equal = one.argmax(axis=1) == two.argmax(axis=1)
        accuracies = [(model.classes_[p.argmax(axis=1)] == y_test).mean() for p in (one, two)]
        print(
            f"fitted in {fitted_in}: {is_equal.mean():.4f} of {len(X_test)} labels equal, largest "
            f"difference of a probability {np.abs(one - two).max():.4f}, mean "
            f"{np.abs(one - two).mean():.5f}; accuracy {accuracies[0]:.4f} in float32, "
            f"{accuracies[1]:.4f} in bfloat16; bfloat16, alone or together: largest difference "
            f"{np.abs(alone - two[:100]).max():.4f} of 100 texts"
        )
    print(platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
