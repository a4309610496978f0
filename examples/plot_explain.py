"""
Which passage decided?
======================

A classifier says "business". Which part of the article made it say so? The logits of a text are
pooled from those of its chunks, so ``explain`` can tell exactly: under mean pooling they are the
sum of what the chunks contribute. Sentences are examined one by one, by leaving them out.
"""

# %%
# A classifier of short chunks
# ----------------------------
# Chunks of 128 tokens make passages of a paragraph or so. A hundred articles to learn from.

import sys
from pathlib import Path

import numpy as np
from _data import load_bbc_news
from sklearn.model_selection import train_test_split

from sklearn_longbert import LongBertClassifier, PassageDisplay

texts, topics = load_bbc_news()
X_train, X_test, y_train, y_test = train_test_split(
    texts, topics, train_size=100, test_size=300, stratify=topics, random_state=0
)
classifier = LongBertClassifier(chunk_size=128, max_epochs=2, random_state=0)
classifier.fit(X_train, y_train)

# %%
# A text of two subjects
# ----------------------
# Between the halves of a long article on business stands one on sports.

business = max(X_test[y_test == "business"], key=len)
sports = max((text for text in X_test[y_test == "sports"] if len(text) < 1500), key=len)
middle = business.index(" ", len(business) // 2)
text = business[:middle] + "\n\n" + sports + "\n\n" + business[middle:]

(explanation,) = classifier.explain([text])
print(explanation)
added_up = explanation.contributions.sum(axis=0)
print("contributions, added up, are the logits:", np.allclose(added_up, explanation.logits))

# %%
# What speaks for sports?
# -----------------------
# ``top`` orders the passages by what they contribute to a class; ``to_frame`` makes a pandas
# DataFrame of them; in a notebook, an explanation shows the text itself, tinted.

for passage in explanation.top(2, label="sports").passages:
    print(f"- {passage.strip()[:90]!r} ...")

# %%
# Finer than a chunk
# ------------------
# The sentences of the passages that count most, each by how much the logits fall without it.

(sentences,) = classifier.explain([text], level="sentence", max_sentences=20)
print(sentences.top(3))

# %%
# Does it tell the truth?
# -----------------------
# Without its top passage, the logit of the predicted class should fall by more than without
# another one, drawn at random: texts of the test set with three passages or more.

rng = np.random.RandomState(0)
with_top, with_other, classes, logits = [], [], [], []
for one in classifier.explain(X_test):
    if len(one) >= 3:
        top = one.top(1)
        other = one[rng.choice(np.setdiff1d(np.arange(len(one)), top.chunk))]
        for shorter, passage in ((with_top, top), (with_other, other)):
            shorter.append(one.text[: passage.start[0]] + one.text[passage.end[0] :])
        classes.append(one.main_class)
        logits.append(one.logits[one.main_class])
rows = np.arange(len(classes))
fall_top = np.array(logits) - classifier.decision_function(with_top)[rows, classes]
fall_other = np.array(logits) - classifier.decision_function(with_other)[rows, classes]
print(f"{len(rows)} texts: the top passage weighs more in {(fall_top > fall_other).mean():.1%}")
print(f"the logit falls without the top passage in {(fall_top > 0).mean():.1%}")
print(f"and without another one in {(fall_other > 0).mean():.1%}")

# %%
# The picture
# -----------
# Blue bars are contributions to the predicted class, orange ones speak against it.

display = PassageDisplay.from_explanation(explanation, n_others=1)
picture = Path(sys.argv[0]).with_name("explain.png")
display.figure_.savefig(picture, dpi=150, bbox_inches="tight")
print(f"saved {picture.name}")
