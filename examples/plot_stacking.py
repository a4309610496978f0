"""
How do texts go together with other columns?
============================================

Beside the text there are often numbers, and TF-IDF sees words that an encoder overlooks. How are
they joined? By scikit-learn's own means: a stack lets each model predict from its columns, and a
logistic regression weighs what they say.
"""

# %%
# A table
# -------
# BBC news, with three columns of numbers beside the text: how long an article is, how much of it
# are figures, and how often money is mentioned.

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from _data import load_bbc_news
from sklearn.compose import make_column_transformer
from sklearn.ensemble import StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sklearn_longbert import LongBertClassifier, LongBertVectorizer

texts, topics = load_bbc_news()
table = pd.DataFrame({"text": texts})
table["n_words"] = table["text"].str.split().str.len()
table["figures"] = table["text"].str.count(r"\d") / table["text"].str.len()
table["money"] = table["text"].str.count("[£$€]")
numbers = ["n_words", "figures", "money"]
X_train, X_test, y_train, y_test = train_test_split(
    table, topics, train_size=60, test_size=150, stratify=topics, random_state=0
)

# %%
# The models
# ----------
# Each takes the whole table and picks its columns.


def text_of(frame):
    return frame["text"]


def of_text(model):
    return make_pipeline(FunctionTransformer(text_of), model)


models = {
    "numbers": make_pipeline(
        make_column_transformer((StandardScaler(), numbers)), LogisticRegression()
    ),
    "TF-IDF": of_text(
        make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10, max_iter=1000))
    ),
    "encoder": of_text(LongBertClassifier(max_epochs=1, random_state=0)),
}
stack = StackingClassifier(list(models.items()), LogisticRegression(), cv=3)

# %%
# Or side by side
# ---------------
# ``LongBertVectorizer`` makes embeddings without training: columns among other columns, for one
# linear model of them all.

columns = make_column_transformer(
    (make_pipeline(LongBertVectorizer(), StandardScaler()), "text"),
    (TfidfVectorizer(sublinear_tf=True), "text"),
    (StandardScaler(), numbers),
)
contenders = models | {
    "columns side by side": make_pipeline(columns, LogisticRegression(C=0.01, max_iter=1000)),
    "stack": stack,
}

# %%
# Who knows best?
# ---------------

accuracy = {}
for name, model in contenders.items():
    accuracy[name] = model.fit(X_train, y_train).score(X_test, y_test)
    print(f"{name:21} {accuracy[name]:.3f}", flush=True)

# %%
# The picture
# -----------

figure, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
bars = ax.barh(list(accuracy), list(accuracy.values()), color="#0072B2")
ax.bar_label(bars, fmt="%.3f")
ax.set(xlabel=f"accuracy on {len(y_test)} texts, {len(y_train)} to learn from", xlim=(0, 1.12))
figure.savefig(Path(sys.argv[0]).with_name("stacking.png"), dpi=150)
