"""
How does a classifier get to those that serve it?
=================================================

How does a fitted classifier get from the machine that trained it to those that serve it, and can
that be trusted? ``save_pretrained`` writes a folder that holds no code, and that is checked when
it is read; a pickle of joblib, mapped into memory, lets several processes share its weights.
"""

# %%
# A fitted classifier
# -------------------

import sys
import tempfile
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
from _data import load_bbc_news
from sklearn.model_selection import train_test_split

from sklearn_longbert import LongBertClassifier

texts, topics = load_bbc_news()
X_train, X_test, y_train, y_test = train_test_split(
    texts, topics, train_size=40, test_size=60, stratify=topics, random_state=0
)
classifier = LongBertClassifier(max_epochs=1, random_state=0).fit(X_train, y_train)
expected = classifier.predict_proba(X_test)

# %%
# A folder of safetensors and JSON
# --------------------------------
# It is written beside its place and renamed, so that an interrupted save leaves the old one.

folder = Path(tempfile.mkdtemp())
classifier.save_pretrained(folder / "news")
sizes = {path.name: path.stat().st_size / 1e6 for path in sorted((folder / "news").iterdir())}
for name, size in sizes.items():
    print(f"{name:25} {size:8.3f} MB")

# %%
# Loaded, it predicts the same to the last bit, without the Hub and without the encoder's folder.
# Parameters that no fit has used up can be replaced: ``micro_batch_tokens=4096`` bounds the memory
# of the machine that serves it, and changes probabilities by rounding.

served = LongBertClassifier.from_pretrained(folder / "news")
print("the same probabilities:", np.array_equal(served.predict_proba(X_test), expected))
smaller = LongBertClassifier.from_pretrained(folder / "news", micro_batch_tokens=4096)
print(f"largest difference: {np.abs(smaller.predict_proba(X_test) - expected).max():.4f}")

# %%
# What was damaged says so
# ------------------------

weights = folder / "news" / "model.safetensors"
content = bytearray(weights.read_bytes())
content[len(content) // 2] ^= 1
weights.write_bytes(content)
try:
    LongBertClassifier.from_pretrained(folder / "news")
except ValueError as error:
    print(error)
classifier.save_pretrained(folder / "news")  # replaces it

# %%
# A pickle, mapped into memory
# ----------------------------
# Only for files you trust, as pickles run code. Several workers share one copy of the weights.


def predict(path, part):
    return joblib.load(path, mmap_mode="r").predict(part)


joblib.dump(classifier, folder / "news.joblib")
parts = np.array_split(X_test, 2)
task = joblib.delayed(predict)
labels = joblib.Parallel(n_jobs=2)(task(folder / "news.joblib", part) for part in parts)
accuracy = (np.concatenate(labels) == y_test).mean()
print(f"accuracy of two workers: {accuracy:.3f}")

# %%
# Training goes on from there
# ---------------------------

again = LongBertClassifier.from_pretrained(folder / "news")
for _ in range(2):
    again.partial_fit(X_train, y_train)
print(f"accuracy after two epochs more: {again.score(X_test, y_test):.3f}")

# %%
# Nearly all of the folder are weights
# ------------------------------------

figure, ax = plt.subplots(figsize=(6, 2.5), layout="constrained")
ax.barh(list(sizes), list(sizes.values()), color="#0072B2")
ax.set(xlabel="MB", title="What save_pretrained writes")
picture = Path(sys.argv[0]).with_name("serving.png")
figure.savefig(picture, dpi=150)
print(f"saved {picture.name}")
