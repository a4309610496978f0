"""
How far do a few labels go?
===========================

Somebody has to read and label each text. With twenty labels, is a transformer worth its minutes,
or does TF-IDF do as well? A learning curve tells, on BBC news in five topics.
"""

# %%
# Three contenders
# ----------------
# TF-IDF with logistic regression; a linear model of words with a linear head of the frozen encoder,
# which reads each chunk once; and the encoder trained end to end, which starts there.

import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from _data import load_bbc_news
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from sklearn_longbert import LongBertClassifier

models = {
    "TF-IDF": make_pipeline(
        TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=1000)
    ),
    "frozen encoder": LongBertClassifier(freeze_encoder=True, random_state=0),
    "trained encoder": LongBertClassifier(random_state=0),
}

# %%
# The curve
# ---------
# The training texts of a smaller number are among those of a larger one; 150 other texts judge.

texts, topics = load_bbc_news()
X_rest, X_test, y_rest, y_test = train_test_split(
    texts, topics, test_size=150, stratify=topics, random_state=0
)
order = np.random.RandomState(0).permutation(len(X_rest))
by_topic = [order[y_rest[order] == topic] for topic in np.unique(topics)]
counts = [2, 4, 10]  # of each topic
curves = {name: [] for name in models}
for count in counts:
    rows = np.concatenate([of_topic[:count] for of_topic in by_topic])
    for name, model in models.items():
        start = time.perf_counter()
        accuracy = model.fit(X_rest[rows], y_rest[rows]).score(X_test, y_test)
        curves[name].append(accuracy)
        seconds = time.perf_counter() - start
        print(f"{len(rows):4} texts, {name:15} {accuracy:.3f} in {seconds:3.0f} s", flush=True)

# %%
# The picture
# -----------

figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, accuracies), marker in zip(curves.items(), "osD", strict=True):
    ax.plot([5 * count for count in counts], accuracies, marker=marker, label=name)
ax.set(xscale="log", xlabel="labelled texts", ylabel=f"accuracy on {len(X_test)} others")
ax.set_xticks([5 * count for count in counts], [str(5 * count) for count in counts])
ax.minorticks_off()
ax.legend()
figure.savefig(Path(sys.argv[0]).with_name("few_labels.png"), dpi=150)
