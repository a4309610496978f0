"""
Which chunk size, which pooling?
================================

How long should chunks be, and how should their logits become one prediction? That depends on the
texts, so let a grid search answer. ``TextChunker`` is a step of its own: cached by the pipeline's
``memory``, it tokenizes the training texts of a fold once for all candidates that share its
settings.
"""

# %%
# Texts in which one sentence decides
# -----------------------------------
# Among 700 words of news stands one sentence of the kitchen or of astronomy, one of four each.

import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from _data import make_needles
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

from sklearn_longbert import LongBertClassifier, TextChunker

X, y = make_needles(60, 700, random_state=0, beyond=200)

# %%
# The search
# ----------
# With ``freeze_encoder=True`` the head alone is trained, and what the encoder made of a chunk is
# remembered: poolings of the same chunks cost next to nothing. Leave it out to train the encoder
# of each candidate. ``baseline=None`` leaves out the model of words, which reads whole texts and
# would know the eight sentences by heart, whatever the chunks are.

pipeline = make_pipeline(
    TextChunker(),
    LongBertClassifier(freeze_encoder=True, baseline=None, random_state=0),
    memory=tempfile.mkdtemp(),
)
grid = {
    "textchunker__chunk_size": [64, 128, 512],
    "longbertclassifier__pooling": ["mean", "logsumexp", "max"],
}
folds = StratifiedKFold(3, shuffle=True, random_state=0)
search = GridSearchCV(pipeline, grid, cv=folds)
start = time.perf_counter()
search.fit(X, y)
n_fits = len(search.cv_results_["params"]) * search.n_splits_ + 1
print(f"{n_fits} fits in {time.perf_counter() - start:.0f} s")
print("best:", search.best_params_)
print(f"accuracy in cross-validation: {search.best_score_:.3f}")

# %%
# Fresh texts
# -----------
# The best of nine candidates is fitted to all texts. Others judge it, though with the same eight
# sentences in them.

X_new, y_new = make_needles(40, 700, random_state=1, beyond=200)
print(f"accuracy on new texts: {search.score(X_new, y_new):.3f}")

# %%
# The picture
# -----------

sizes, poolings = grid["textchunker__chunk_size"], grid["longbertclassifier__pooling"]
results = search.cv_results_
scores = np.empty((len(poolings), len(sizes)))
for parameters, score in zip(results["params"], results["mean_test_score"], strict=True):
    row = poolings.index(parameters["longbertclassifier__pooling"])
    scores[row, sizes.index(parameters["textchunker__chunk_size"])] = score
figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
image = ax.imshow(scores, cmap="cividis", vmin=0.5, vmax=1, aspect="auto")
for row, column in np.ndindex(scores.shape):
    color = "white" if scores[row, column] < 0.75 else "black"
    ax.text(column, row, f"{scores[row, column]:.2f}", ha="center", va="center", color=color)
ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
ax.set_yticks(range(len(poolings)), poolings)
ax.set(xlabel="chunk_size", ylabel="pooling", title="accuracy in cross-validation")
figure.colorbar(image)
figure.savefig(Path(sys.argv[0]).with_name("grid_search.png"), dpi=150)
