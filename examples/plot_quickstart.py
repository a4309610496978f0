"""
How does one train a classifier of long texts?
==============================================

Articles of news are often longer than the encoder takes.
``LongBertClassifier`` takes the raw texts: it cuts each into chunks, gives each chunk its logits,
and learns from one pooled prediction a text. Here it sorts BBC news into five topics, and
scikit-learn's own tools judge it on texts it has not seen.
"""

# %%
# The texts
# ---------
# One hundred and fifty of the 2,127 distinct articles, so that this takes a minute or two on a
# laptop. The encoder is all-MiniLM-L6-v2, which takes at most 512 tokens at once.

import sys
import time
from pathlib import Path

import numpy as np
from _data import load_bbc_news
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, classification_report
from sklearn.model_selection import train_test_split

from sklearn_longbert import LongBertClassifier, TextChunker

texts, topics = load_bbc_news()
X_train, X_test, y_train, y_test = train_test_split(
    texts, topics, train_size=50, test_size=100, stratify=topics, random_state=0
)

# %%
# How long are they?
# ------------------
# ``TextChunker`` is the step that cuts. Truncation would drop everything after the first
# chunk of these texts without a word.

chunker = TextChunker()
documents = chunker.fit_transform(np.concatenate([X_train, X_test]))
n_tokens = np.array([document.n_tokens for document in documents])
n_chunks = np.array([document.n_chunks for document in documents])
print(f"{len(documents)} texts, median {np.median(n_tokens):.0f} tokens, longest {n_tokens.max()}")
print(f"{(n_chunks > 1).sum()} of them exceed the encoder's {chunker.chunk_size_} tokens")
sizes, counts = np.unique(n_chunks, return_counts=True)
print("chunks per text:", dict(zip(sizes.tolist(), counts.tolist(), strict=True)))

# %%
# Fit and predict
# ---------------
# The head starts at a linear model of the encoder's own embeddings; then head and encoder are
# trained together on whole articles.

classifier = LongBertClassifier(random_state=0, verbose=1)
start = time.perf_counter()
classifier.fit(X_train, y_train)
fitted = time.perf_counter()
y_pred = classifier.predict(X_test)
predicted = time.perf_counter()

print(f"trained on {len(X_train)} texts in {fitted - start:.0f} s")
print(f"predicted {len(X_test)} texts in {predicted - fitted:.0f} s")
print(f"accuracy on held-out texts: {accuracy_score(y_test, y_pred):.3f}")
print(classification_report(y_test, y_pred, digits=3))

# %%
# Which topics are confused?
# --------------------------

display = ConfusionMatrixDisplay.from_predictions(
    y_test, y_pred, cmap="Blues", colorbar=False, xticks_rotation=30
)
display.figure_.set_layout_engine("constrained")
display.ax_.set_title(f"{len(X_test)} held-out BBC articles, {len(X_train)} to learn from")
picture = Path(sys.argv[0]).with_name("quickstart.png")
display.figure_.savefig(picture, dpi=150, bbox_inches="tight")
print(f"saved {picture.name}")
