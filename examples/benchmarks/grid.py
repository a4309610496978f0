"""What a sequence of fits costs beside the work itself, and whether it leaves memory behind.

The question: in a grid search, how many seconds pass outside of tokenizing, encoding and
optimizing, and does memory grow from fit to fit? A grid of ``--candidates`` learning rates, two
folds each, over BBC news and MiniLM; after each fit the resident memory of the process is read,
and on CUDA the memory that tensors hold. One fit before it warms up.

    python examples/benchmarks/grid.py

With ``--frozen`` the question is another one: what does it spare that a process remembers the
embeddings of a frozen encoder? A grid of learning rates and poolings over parameters of the head,
three folds, is searched with and without it, both with the ``memory`` of a pipeline that keeps the
tokens; the scores must be equal.

    python examples/benchmarks/grid.py --frozen --texts 120
"""

import argparse
import gc
import platform
import sys
import tempfile
import time
from functools import wraps
from pathlib import Path

import numpy as np
import psutil
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news

from sklearn_longbert import LongBertClassifier, TextChunker
from sklearn_longbert._encoding import remembered
from sklearn_longbert._training.net import LongBertNet

PARTS = {
    "tokenizing": (TextChunker, "_cut"),
    "training": (LongBertNet, "train_step"),  # encoding, backward and optimizer
    "predicting": (LongBertNet, "infer"),
}


def watch(seconds):
    """Add to `seconds` what each of the parts, none of which calls another, takes."""
    for part, (cls, name) in PARTS.items():
        method = getattr(cls, name)
        seconds[part] = 0.0

        @wraps(method)
        def timed(*args, method=method, part=part, **kwargs):
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                seconds[part] += time.perf_counter() - start

        setattr(cls, name, timed)


def search_frozen(texts, labels, device):
    """Time a grid over parameters of the head, with embeddings remembered and without."""
    grid = {
        "longbertclassifier__learning_rate": [1e-4, 1e-3, 1e-2],
        "longbertclassifier__pooling": ["mean", "attention"],
    }
    classifier = LongBertClassifier(
        layers="last", baseline=None, freeze_encoder=True, device=device, random_state=0
    )
    classifier.fit(["a b c", "d e f"], [0, 1])  # what a process loads once
    most_bytes, scores = remembered.MOST_BYTES, {}
    for what, limit in (("remembered", most_bytes), ("not remembered", 0)):
        remembered.MOST_BYTES = limit
        with tempfile.TemporaryDirectory() as folder:
            pipeline = make_pipeline(TextChunker(), classifier, memory=folder)
            search = GridSearchCV(pipeline, grid, cv=3, refit=False)
            start = time.perf_counter()
            scores[what] = search.fit(texts, labels).cv_results_["mean_test_score"]
            print(f"18 fits, {what}: {time.perf_counter() - start:.1f} s")
    remembered.MOST_BYTES = most_bytes
    assert np.array_equal(*scores.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frozen", action="store_true")
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    texts, labels = load_bbc_news()
    rows = np.random.RandomState(0).permutation(len(texts))[: options.texts]
    if options.frozen:
        search_frozen(list(texts[rows]), list(labels[rows]), options.device)
        return
    seconds = {}
    watch(seconds)
    memory = []
    fit = LongBertClassifier.fit

    def fit_and_weigh(self, *args, **kwargs):
        fit(self, *args, **kwargs)
        gc.collect()
        resident = psutil.Process().memory_info().rss / 1e6
        if options.device == "cuda":
            import torch

            memory.append((resident, torch.cuda.memory_allocated() / 1e6))
        else:
            memory.append((resident,))
        return self

    LongBertClassifier.fit = fit_and_weigh
    search = GridSearchCV(
        LongBertClassifier(
            layers="last", baseline=None, max_epochs=1, device=options.device, random_state=0
        ),
        {"learning_rate": np.geomspace(2e-5, 2e-4, options.candidates).tolist()},
        cv=2,
        refit=False,
    )
    fit(search.estimator, ["a b c", "d e f"], [0, 1])  # what a process loads once
    seconds.update(dict.fromkeys(seconds, 0.0))
    start = time.perf_counter()
    search.fit(list(texts[rows]), list(labels[rows]))
    total = time.perf_counter() - start
    seconds["rest"] = total - sum(seconds.values())
    print(f"{platform.processor() or platform.machine()}, {options.device}")
    print(f"{len(memory)} fits, {total:.1f} s:", end=" ")
    print(*(f"{part} {share:.1f} s ({share / total:.1%})" for part, share in seconds.items()))
    print("MB after each fit:", *(" + ".join(f"{part:.0f}" for part in one) for one in memory))


if __name__ == "__main__":
    main()
