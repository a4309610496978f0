"""What do explanations cost, and do they find the sentence that decides?

    python examples/benchmarks/explanations.py                 # about a quarter of an hour
    python examples/benchmarks/explanations.py --parts cost

cost: processor time of explain against that of predict_proba, 100 BBC texts, medians of five in
turn, without a baseline and with the baseline "words". needle: texts of 2000 tokens in which one
sentence tells the label, under max pooling; how often the passage that contributes most to the
right label holds the middle of that sentence, among texts that are classified rightly; with one
label of two, and with a column of zeros and ones for each label.
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


def cost():
    texts, topics = load_bbc_news()
    X_train, X, y_train, _ = train_test_split(
        texts, topics, train_size=50, test_size=100, stratify=topics, random_state=0
    )
    for baseline in (None, "words"):
        classifier = LongBertClassifier(
            layers="last", baseline=baseline, chunk_size=128, max_epochs=1, random_state=0
        )  # it is trained, because embeddings of a frozen encoder are remembered
        classifier.fit(X_train, y_train)
        seconds = {"predict_proba": [], "explain": []}
        for _ in tqdm(range(5), desc=f"cost, {baseline}"):
            for name, durations in seconds.items():
                start = time.process_time()
                getattr(classifier, name)(X)
                durations.append(time.process_time() - start)
        ratio = np.median(seconds["explain"]) / np.median(seconds["predict_proba"])
        print(f"{baseline}: explain takes {ratio:.3f} times the processor time of predict_proba")


def needle():
    X, y = make_needles(200, 1540, 0)
    X_test, y_test = make_needles(100, 1540, 1000)
    names = np.array(sorted(NEEDLES))
    for kind, targets in (("one label", y), ("columns", (y[:, None] == names).astype(int))):
        classifier = LongBertClassifier(
            layers="last", baseline=None, chunk_size=64, pooling="max", random_state=0
        )
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


PARTS = {"cost": cost, "needle": needle}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    for part in parser.parse_args().parts:
        PARTS[part]()


if __name__ == "__main__":
    main()
