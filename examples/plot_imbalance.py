"""
A rare class: where to draw the line?
=====================================

One text in twenty is of the kind that is sought: when should a classifier say so? One that never
does is right in nineteen of twenty, and useless. One may weigh the rare class, calibrate the
probabilities, choose the threshold for the purpose, and judge by scores that count the rare class.
All are scikit-learn's own, around ``LongBertClassifier``.
"""

# %%
# One in twenty
# -------------
# BBC news: articles on politics among those on business, their nearest kin.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from _data import load_bbc_news
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
)
from sklearn.model_selection import TunedThresholdClassifierCV, train_test_split

from sklearn_longbert import LongBertClassifier

texts, topics = load_bbc_news()
is_politics = topics == "politics"
rng = np.random.RandomState(0)
rare = rng.choice(np.flatnonzero(is_politics), 22, replace=False)
others = rng.choice(np.flatnonzero(topics == "business"), 418, replace=False)
chosen = np.concatenate([rare, others])
X_train, X_test, y_train, y_test = train_test_split(
    texts[chosen], is_politics[chosen], train_size=220, stratify=is_politics[chosen], random_state=0
)
print(
    f"{y_train.sum()} of {len(y_train)} to learn from, {y_test.sum()} of {len(y_test)} to judge by"
)

# %%
# Four classifiers
# ----------------
# The frozen encoder, so that each fit of the inner cross-validation takes seconds.
# ``class_weight="balanced"`` lets the rare texts count as much as all others. The calibrator fits
# a sigmoid to the logits of held-out texts; the tuner looks there for the threshold with the best
# F1.

plain = LongBertClassifier(freeze_encoder=True, random_state=0)
balanced = LongBertClassifier(freeze_encoder=True, class_weight="balanced", random_state=0)
models = {
    "plain": plain,
    "balanced": balanced,
    "calibrated": CalibratedClassifierCV(plain, method="sigmoid", cv=4, ensemble=False),
    "threshold tuned": TunedThresholdClassifierCV(plain, scoring="f1", cv=4),
}
probabilities = {}
print(f"\n{'':16} recall  precision  F1     average precision  log loss")
for name, model in models.items():
    y_pred = model.fit(X_train, y_train).predict(X_test)
    probabilities[name] = model.predict_proba(X_test)[:, 1]
    print(
        f"{name:16} {recall_score(y_test, y_pred):.3f}   "
        f"{precision_score(y_test, y_pred, zero_division=0):.3f}      "
        f"{f1_score(y_test, y_pred):.3f}  "
        f"{average_precision_score(y_test, probabilities[name]):.3f}              "
        f"{log_loss(y_test, probabilities[name]):.3f}",
        flush=True,
    )
threshold = models["threshold tuned"].best_threshold_
print(f"\nthe threshold: {threshold:.3f} instead of 0.5")

# %%
# The picture
# -----------
# Left: are texts with a probability of 30 % of the rare class in 30 % of the cases? Eleven of them
# are too few to tell how much calibration gains. Right: where the threshold lies among the
# probabilities of both classes.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
for name in ("plain", "balanced", "calibrated"):
    CalibrationDisplay.from_predictions(
        y_test, probabilities[name], n_bins=5, strategy="uniform", name=name, ax=axes[0]
    )
bins = np.linspace(0, 1, 21)
for is_rare, color, label in ((False, "#0072B2", "others"), (True, "#D55E00", "politics")):
    of_class = probabilities["threshold tuned"][y_test == is_rare]
    axes[1].hist(of_class, bins, color=color, alpha=0.7, label=label)
axes[1].axvline(threshold, color="black", linestyle=":", label="threshold")
axes[1].set(yscale="log", xlabel="probability of politics", ylabel="texts")
axes[1].legend()
figure.savefig(Path(sys.argv[0]).with_name("imbalance.png"), dpi=150)
