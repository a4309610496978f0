"""How much memory do many texts take: as strings, as documents, in a fit, in a token store?

    python examples/benchmarks/sizes.py

20,000 texts of 487 tokens, made of sentences of BBC news, and scaled to a million. Memory is what
the resident size of the process grows by; the store's is the size of its files.
"""

import argparse
import gc
import multiprocessing
import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news

from sklearn_longbert import LongBertClassifier, TextChunker

N_TOKENS = 487


def resident():
    gc.collect()
    return psutil.Process(os.getpid()).memory_info().rss


def make_texts(n_texts):
    """Return texts of the same length in tokens, each with words in an order of its own."""
    articles, _ = load_bbc_news()
    words = np.array(" ".join(articles[:200]).split(), dtype=object)
    random, chunker = np.random.RandomState(0), TextChunker().fit()
    texts = []
    while len(texts) < n_texts:
        drawn = [" ".join(random.choice(words, size=N_TOKENS)) for _ in range(1000)]
        for text, document in zip(drawn, chunker.transform(drawn), strict=True):
            texts.append(text[: document.spans[N_TOKENS - 1, 1]])
    return texts[:n_texts]


def bytes_of(what, n_texts):
    """Return the bytes that the texts take in one form."""
    chunker = TextChunker().fit()
    chunker.transform(["warm up"])
    make_texts(1)
    before = resident()
    texts = make_texts(n_texts)
    if what == "strings":
        return resident() - before
    if what.startswith("a store"):
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            chunker.transform_to(store, texts, keep_texts=what == "a store with texts")
            return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    before = resident()
    if what == "documents of TextChunker":
        kept = chunker.transform(texts)
    else:
        kept = LongBertClassifier()._chunk(texts, chunker, "X")
    assert len(kept) == n_texts
    return resident() - before


FORMS = (
    "strings",
    "documents of TextChunker",
    "documents inside of a fit",
    "a store",
    "a store with texts",
)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=20_000)
    n_texts = parser.parse_args().texts
    print(platform.processor() or platform.machine(), n_texts, "texts; GB for a million:")
    for form in FORMS:  # each in a process of its own, because memory is used again
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            n_bytes = pool.apply(bytes_of, (form, n_texts))
        print(f"{form:28} {n_bytes * 1e6 / n_texts / 1e9:.1f}")


if __name__ == "__main__":
    main()
