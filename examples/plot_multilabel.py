"""
Which labels does a text carry, and where?
==========================================

A newsletter speaks of sports and of politics: which labels are those, and which part says so? A
matrix of zeros and ones, with a column a label, makes ``LongBertClassifier`` predict several
labels a text. Under max pooling, the passage that speaks loudest for a label decides it.
"""

# %%
# Newsletters
# -----------
# One to three articles of BBC news, joined; the labels are their topics.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from _data import load_bbc_news
from sklearn.metrics import classification_report, f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from sklearn_longbert import LongBertClassifier

articles, topics = load_bbc_news()
is_short = np.array([len(article) < 2000 for article in articles])
rng = np.random.RandomState(0)
order = rng.permutation(np.flatnonzero(is_short))


def make_newsletters(numbers, n_letters):
    """Join one to three articles, each used at most once."""
    letters, labels = [], []
    for _ in range(n_letters):
        chosen, numbers = np.split(numbers, [rng.randint(1, 4)])
        letters.append("\n\n".join(articles[chosen]))
        labels.append(set(topics[chosen].tolist()))
    return np.array(letters, dtype=object), labels, numbers


X_train, labels_train, order = make_newsletters(order, 80)
X_test, labels_test, order = make_newsletters(order, 80)
binarizer = MultiLabelBinarizer()
y_train = binarizer.fit_transform(labels_train)
y_test = binarizer.transform(labels_test)
print(f"labels a newsletter: {y_train.sum(axis=1).mean():.2f} of {y_train.shape[1]}")

# %%
# Fit and predict
# ---------------
# Nothing but ``y`` says that there are several labels.

classifier = LongBertClassifier(chunk_size=128, pooling="max", random_state=0)
classifier.fit(X_train, y_train)
y_pred = classifier.predict(X_test)
print(classification_report(y_test, y_pred, target_names=binarizer.classes_, zero_division=0))
print(f"F1, averaged over newsletters: {f1_score(y_test, y_pred, average='samples'):.3f}")

# %%
# Where does a label come from?
# -----------------------------
# A newsletter of three topics: each label points to a passage of its own.

longest = max(np.flatnonzero(y_test.sum(axis=1) == 3), key=lambda row: len(X_test[row]))
(explanation,) = classifier.explain([X_test[longest]])
for column in np.flatnonzero(explanation.predicted):
    (passage,) = explanation.top(1, label=column).passages
    print(f"{binarizer.classes_[column]:14} {passage.strip()[:70]!r} ...")

# %%
# The picture
# -----------
# The probability of each label, chunk by chunk, along that newsletter.

figure, ax = plt.subplots(figsize=(8, 3), layout="constrained")
probabilities = 1 / (1 + np.exp(-explanation.chunk_logits))
edges = np.append(explanation.start, explanation.end[-1])
image = ax.pcolormesh(edges, np.arange(6), probabilities.T, cmap="cividis", vmin=0, vmax=1)
ax.set_yticks(np.arange(5) + 0.5, binarizer.classes_)
title = "labels: " + ", ".join(sorted(labels_test[longest]))
ax.set(xlabel="character of the newsletter", title=title)
figure.colorbar(image, label="probability")
figure.savefig(Path(sys.argv[0]).with_name("multilabel.png"), dpi=150)
