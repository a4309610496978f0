"""Do explanations tell the truth, and what do they cost?

    python examples/benchmarks/explanations.py                 # half an hour on one core
    python examples/benchmarks/explanations.py --parts cost deletion

cost: processor time of explain against that of predict_proba, 200 BBC texts, medians of five in
turn. deletion: BBC texts of three chunks (of 128 tokens) or more, that were not trained on; how
often the logit of the predicted class falls by more without the passage that contributes most
than without another one, drawn at random. needle: texts of 2000 tokens in which one sentence
tells the label, under max pooling; how often the passage that contributes most to the right
label holds the middle of that sentence, among texts that are classified rightly; with one label
of two, and with a column of zeros and ones for each label.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import NEEDLES, load_bbc_news, make_needles

from sklearn_longbert import LongBertClassifier


def news(n_test):
    texts, topics = load_bbc_news()
    X, X_test, y, _ = train_test_split(
        texts, topics, train_size=100, test_size=n_test, stratify=topics, random_state=0
    )
    return LongBertClassifier(chunk_size=128, max_epochs=2, random_state=0).fit(X, y), X_test


def cost():
    classifier, X = news(200)
    seconds = {"predict_proba": [], "explain": []}
    for _ in tqdm(range(5), desc="cost"):
        for name, durations in seconds.items():
            start = time.process_time()
            getattr(classifier, name)(X)
            durations.append(time.process_time() - start)
    ratio = np.median(seconds["explain"]) / np.median(seconds["predict_proba"])
    print(f"explain takes {ratio:.3f} times the processor time of predict_proba")


def deletion():
    classifier, X = news(1000)
    rng = np.random.RandomState(0)
    with_top, with_other, classes, logits = [], [], [], []
    for one in classifier.explain(X):
        if len(one) >= 3:
            top = one.top(1)
            other = one[rng.choice(np.setdiff1d(np.arange(len(one)), top.chunk))]
            for shorter, passage in ((with_top, top), (with_other, other)):
                shorter.append(one.text[: passage.start[0]] + one.text[passage.end[0] :])
            classes.append(one.main_class)
            logits.append(one.logits[one.main_class])
    rows = np.arange(len(classes))
    of_top = np.array(logits) - classifier.decision_function(with_top)[rows, classes]
    of_other = np.array(logits) - classifier.decision_function(with_other)[rows, classes]
    print(f"{len(rows)} texts: the top passage weighs more in {(of_top > of_other).mean():.1%}")
    print(f"the logit falls without it in {(of_top > 0).mean():.1%}")


def needle():
    X, y = make_needles(200, 1540, 0)
    X_test, y_test = make_needles(100, 1540, 1000)
    names = np.array(sorted(NEEDLES))
    for kind, targets in (("one label", y), ("columns", (y[:, None] == names).astype(int))):
        classifier = LongBertClassifier(chunk_size=64, pooling="max", random_state=0)
        explanations = classifier.fit(X, targets).explain(X_test)
        found = {name: [] for name in names}
        for one, label in zip(explanations, y_test, strict=True):
            index = int(np.flatnonzero(names == label)[0])
            expected = label if kind == "one label" else (names == label).astype(int)
            if np.all(one.predicted == expected):
                start, sentence = next(
                    (one.text.find(text), text) for text in NEEDLES[label] if text in one.text
                )
                top = one.top(1, label=one.classes[index])
                middle = start + len(sentence) / 2
                found[label].append(top.start[0] <= middle < top.end[0])
        shares = ", ".join(f"{name} {np.mean(of):.2f}" for name, of in found.items())
        every = np.concatenate(list(found.values()))
        print(f"{kind}: {len(every)} of {len(y_test)} right, {every.mean():.2f} found: {shares}")


PARTS = {"cost": cost, "deletion": deletion, "needle": needle}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    for part in parser.parse_args().parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
