"""How much memory do many texts take: as strings, as documents, in a fit, in a token store?

    python examples/benchmarks/sizes.py

20,000 texts of 487 tokens, made of sentences of BBC news, and scaled to a million. Memory is what
the resident size of the process grows by; the store's is the size of its files.
"""

import argparse
import gc
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


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=20_000)
    n_texts = parser.parse_args().texts
    print(platform.processor() or platform.machine(), n_texts, "texts; GB for a million:")

    def show(what, n_bytes):
        print(f"{what:45} {n_bytes * 1e6 / n_texts / 1e9:.1f}")

    chunker = TextChunker().fit()
    chunker.transform(["warm up"])
    make_texts(1)
    before = resident()
    texts = make_texts(n_texts)
    show("strings", resident() - before)
    before = resident()
    documents = chunker.transform(texts)
    show("documents of TextChunker", resident() - before)
    del documents
    before = resident()
    kept = LongBertClassifier()._chunk(texts, chunker, "X")
    show("the same inside of a fit", resident() - before)
    del kept
    for keep_texts in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            chunker.transform_to(Path(folder) / "store", texts, keep_texts=keep_texts)
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            show(f"store, keep_texts={keep_texts}", sum(path.stat().st_size for path in files))


if __name__ == "__main__":
    main()
