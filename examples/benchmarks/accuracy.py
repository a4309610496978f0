"""Accuracy on BBC news from 50 and 200 labelled texts, over five seeds.

The question: with few labels, how does ``LongBertClassifier`` with its defaults compare with
TF-IDF and logistic regression, and with belt-nlp on the same encoder, texts, epochs, batch
size and learning rate? The row "longbert 2e-4" has four times the default learning rate.

    python examples/benchmarks/accuracy.py            # all rows: hours on two cores
    python examples/benchmarks/accuracy.py --methods tfidf longbert --seeds 1

Each finished run is a line of ``accuracy.csv`` beside the current folder; a second call
reads it and runs only what is missing. The table is printed at the end.
"""

import argparse
import platform
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news
from _peer import make_belt

EPOCHS, BATCH_SIZE, LEARNING_RATE = 3, 8, 5e-5  # LongBertClassifier's defaults, given to both
N_TEST = 400


def run_tfidf(X_train, y_train, X_test, seed):
    pipeline = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10))
    return pipeline.fit(X_train, y_train).predict(X_test)


def run_longbert(X_train, y_train, X_test, seed, learning_rate=LEARNING_RATE):
    from sklearn_longbert import LongBertClassifier

    classifier = LongBertClassifier(
        max_epochs=EPOCHS, batch_size=BATCH_SIZE, learning_rate=learning_rate, random_state=seed
    )
    return classifier.fit(X_train, y_train).predict(X_test)


def run_belt(X_train, y_train, X_test, seed):
    import torch

    torch.manual_seed(seed)
    classes = sorted(set(y_train))
    belt = make_belt(
        len(classes), batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE, epochs=EPOCHS
    )
    belt.fit(list(X_train), [classes.index(label) for label in y_train])
    return [classes[index] for index in belt.predict(list(X_test)).tolist()]


METHODS = {
    "tfidf": run_tfidf,
    "longbert": run_longbert,
    "longbert 2e-4": partial(run_longbert, learning_rate=2e-4),
    "belt": run_belt,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--sizes", nargs="+", type=int, default=[50, 200])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("accuracy.csv"))
    options = parser.parse_args()

    columns = ["method", "n_train", "seed", "accuracy", "seconds"]
    done = (
        pd.read_csv(options.output)
        if options.output.exists()
        else pd.DataFrame([], columns=columns)
    )
    finished = set(zip(done["method"], done["n_train"], done["seed"], strict=True))
    texts, labels = load_bbc_news()
    for seed in range(options.seeds):
        for n_train in options.sizes:
            X_train, X_test, y_train, y_test = train_test_split(
                texts,
                labels,
                train_size=n_train,
                test_size=N_TEST,
                stratify=labels,
                random_state=seed,
            )
            for method in options.methods:
                if (method, n_train, seed) in finished:
                    continue
                start = time.perf_counter()
                accuracy = (METHODS[method](X_train, y_train, X_test, seed) == y_test).mean()
                row = [method, n_train, seed, accuracy, time.perf_counter() - start]
                print(*row, flush=True)
                header = not options.output.exists()
                pd.DataFrame([row], columns=columns).to_csv(
                    options.output, mode="a", header=header, index=False
                )
    print(f"\n{N_TEST} test texts, {platform.processor() or platform.machine()}")
    print(
        pd.read_csv(options.output)
        .groupby(["n_train", "method"])
        .agg(
            mean=("accuracy", "mean"),
            std=("accuracy", "std"),
            seeds=("seed", "count"),
            seconds=("seconds", "mean"),
        )
        .round(3)
    )


if __name__ == "__main__":
    main()
