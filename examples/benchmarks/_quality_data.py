"""The data sets of quality.py: DATA has a function from a seed to one Split for each of them."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import (
    NEEDLES,
    load_bbc_news,
    load_book_excerpts,
    load_comments,
    load_conventions,
    load_friends,
    load_friends_seasons,
    load_news_outlets,
    load_newsgroups,
    load_reuters,
    load_tales,
    make_needles,
)


@dataclass
class Split:
    """Texts to learn from and texts to test on; `groups` are those of the training texts."""

    data: str
    seed: int
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    groups: np.ndarray | None = None

    @property
    def is_needle(self):
        return self.data.startswith("needle")

    @property
    def is_large(self):
        """Thousands of texts in twenty classes, where a search would take hours."""
        return self.data == "newsgroups"


def drawn(load, n_train, n_test, name, seed):
    """Return a random stratified split."""
    texts, labels = load()
    X, X_test, y, y_test = train_test_split(
        texts, labels, train_size=n_train, test_size=n_test, stratify=labels, random_state=seed
    )
    return Split(name, seed, X, y, X_test, y_test)


def grouped(load, name, seed):
    """Return a split of two thirds and one third, with no group on both sides."""
    texts, labels, groups = load()
    labels = labels.astype(str)
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=seed)
    train, test = next(folds.split(texts, labels, groups))
    return Split(name, seed, texts[train], labels[train], texts[test], labels[test], groups[train])


def of_groups(load, n_train, n_test, name, seed):
    """Return parts of the sides of :func:`grouped`."""
    whole, random = grouped(load, name, seed), np.random.default_rng(seed)
    train = random.permutation(len(whole.X))[:n_train]
    test = random.permutation(len(whole.X_test))[:n_test]
    return Split(
        name,
        seed,
        whole.X[train],
        whole.y[train],
        whole.X_test[test],
        whole.y_test[test],
        whole.groups[train],
    )


def reuters(n_train, n_test, name, seed):
    """Return a random part of the texts by date, of the topics that have five to learn from."""
    random = np.random.default_rng(seed)
    (X, y), (X_test, y_test) = load_reuters("train"), load_reuters("test")
    train, test = random.permutation(len(X))[:n_train], random.permutation(len(X_test))
    topics, counts = np.unique(y[train], return_counts=True)
    train = train[np.isin(y[train], topics[counts >= 5])]
    test = test[np.isin(y_test[test], y[train])][:n_test]
    return Split(name, seed, X[train], y[train], X_test[test], y_test[test])


def newsgroups(name, seed):
    return Split(name, seed, *load_newsgroups("train"), *load_newsgroups("test"))


def part_of_newsgroups(n_train, n_test, name, seed):
    whole, sizes = newsgroups(name, seed), (n_train, n_test)
    sides = [(whole.X, whole.y), (whole.X_test, whole.y_test)]
    parts = []
    for (texts, labels), size in zip(sides, sizes, strict=True):
        part, _, labels_of_part, _ = train_test_split(
            texts, labels, train_size=size, stratify=labels, random_state=seed
        )
        parts += [part, labels_of_part]
    return Split(name, seed, *parts)


def rare(n_train, n_test, name, seed):
    """Return a part of newsgroups whose seven classes have from 2 in 5 texts to 1 in 25."""
    whole, random = newsgroups(name, seed), np.random.default_rng(seed)
    classes = random.choice(np.unique(whole.y), 7, replace=False)
    shares = np.array([0.4, 0.2, 0.12, 0.1, 0.08, 0.06, 0.04])
    parts = []
    for texts, labels, size in ((whole.X, whole.y, n_train), (whole.X_test, whole.y_test, n_test)):
        kept = np.concatenate(
            [
                random.choice(np.flatnonzero(labels == label), round(share * size), replace=False)
                for label, share in zip(classes, shares, strict=True)
            ]
        )
        kept = random.permutation(kept)
        parts += [texts[kept], labels[kept]]
    return Split(name, seed, *parts)


def needle(n_words, name, seed):
    """Return texts whose deciding sentences are others in training than in test texts."""
    X, y = make_needles(200, n_words, seed, sentences=range(6))
    test = make_needles(200, n_words, 1000 + seed, sentences=range(6, 12))
    sentences = [
        next(sentence for sentence in NEEDLES[label] if sentence in text)
        for text, label in zip(X, y, strict=True)
    ]
    return Split(name, seed, X, y, *test, groups=np.array(sentences))


MAKERS = {f"bbc-{n}": partial(drawn, load_bbc_news, n, 500) for n in (25, 50, 100, 200)} | {
    "conventions": partial(grouped, load_conventions),
    "books": partial(grouped, load_book_excerpts),
    "news-300": partial(drawn, load_news_outlets, 300, 450),
    "news-600": partial(drawn, load_news_outlets, 600, 450),
    "newsgroups-1000": partial(part_of_newsgroups, 1000, 1500),
    "newsgroups-2500": partial(part_of_newsgroups, 2500, 1500),
    "newsgroups-rare": partial(rare, 200, 400),
    "newsgroups": newsgroups,
    "friends": partial(of_groups, load_friends, 200, 300),
    "friends-seasons": partial(drawn, load_friends_seasons, 120, 100),
    "reuters": partial(reuters, 400, 500),
    "reuters-1000": partial(reuters, 1000, 1000),
    "reuters-3000": partial(reuters, 3000, 1500),
    "comments": partial(of_groups, load_comments, 400, 500),
    "tales": partial(drawn, load_tales, 22, 22),
    "needle-2k": partial(needle, 1540),
    "needle-8k": partial(needle, 6150),
}
DATA = {name: partial(make, name) for name, make in MAKERS.items()}
ONE_SEED = {"newsgroups"}  # what has no chance in it
