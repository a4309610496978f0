"""How far should training go? The figures of weights on the way from its start to its end.

    python examples/benchmarks/shares.py --data bbc-50 newsgroups-rare --seeds 2

Data and divisions are those of ``quality.py``, and each fit is that of ``LongBertClassifier`` with
``fine_tuning_share=1.0``. Its weights are then put at several shares of the way, and the test
texts, at most ``--most-test`` of them, are predicted with each of ``--shares``. Shown are the means
of accuracy, log loss and expected calibration error, and the first two of the texts of more than
510 tokens alone. ``--max-epochs``, ``--learning-rate`` and ``--pooling`` are those of the fit.

With ``--judges 500``, that many of the test texts tell the scale of the logits at which their loss
is least, 1 at most. All figures are of the other test texts then. ``nll_scaled`` and ``ece_scaled``
are those of the scaled logits.

Three ways to train more gently can be tried, which are no defaults. ``--honest 1`` lets each
training text begin with the logits of linear models that were fitted without it, and less than 1
with a part of the difference. ``--layer-decay 0.8`` multiplies the learning rate of each layer by
that of the layer above and 0.8. ``--dropout`` is that of the head's inputs.
"""

import argparse
import platform
import re

import numpy as np
import pandas as pd
import torch
from _quality_data import DATA
from _quality_figures import LEAST, figures
from _quality_rows import longbert
from scipy.special import softmax
from skorch.callbacks import Callback

from sklearn_longbert import TextChunker
from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._encoding.passes import document_embeddings
from sklearn_longbert._targets.linear_models import softmax_model
from sklearn_longbert._targets.pooled_linear import Embeddings
from sklearn_longbert._training.averaging import copy_weights, set_between
from sklearn_longbert._training.evidence import least_loss

SHARES = (0.0, 0.2, 0.4, 0.6, 0.85, 1.0)
SHOWN = ["accuracy", "nll", "ece", "accuracy_long", "nll_long", "scale", "nll_scaled", "ece_scaled"]


class Start(Callback):
    """Keeps the weights from which training starts."""

    def on_train_begin(self, net, **_):
        self.weights = copy_weights(net.module_)


class HonestStart(Callback):
    """Adds to each text's logits what linear models fitted without it say differently of it."""

    def __init__(self, part):
        self.part = part

    def on_train_begin(self, net, X, **_):
        head, start = net.module_.head, net.first_start
        means = document_embeddings(net.module_, X.documents, net._passes)
        embeddings = Embeddings.of_means(means.numpy(), net.module_.highest_part)
        targets, weights = X.targets.numpy(), X.weights.numpy()
        fitted = start.probe(embeddings, targets, weights, groups=start.groups)
        weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
        scale = np.linalg.norm(weight) / np.linalg.norm(fitted.coefficients)
        differences = scale * fitted.out_of_fold - embeddings.outputs((weight, bias))
        X.offsets = X.offsets + self.part * torch.from_numpy(differences).float().nan_to_num(0.0)


def depth_of(name, n_layers):
    """Return how far below the head a weight is: the head 0, embeddings below all layers."""
    if name.startswith("head."):
        return 0
    layer = re.search(r"layer\.(\d+)\.", name)
    return n_layers - int(layer[1]) if layer else n_layers + 1


class LayerDecay(Callback):
    """Trains each layer more slowly than the one above it."""

    def __init__(self, factor):
        self.factor = factor

    def on_train_begin(self, net, **_):
        names = {weight: name for name, weight in net.module_.named_parameters()}
        n_layers = net.module_.encoder.config.num_hidden_layers
        groups, self.factors_ = [], []
        for group in net.optimizer_.param_groups:
            by_depth = {}
            for weight in group["params"]:
                depth = depth_of(names[weight], n_layers)
                by_depth.setdefault(depth, []).append(weight)
            groups += [{**group, "params": weights} for weights in by_depth.values()]
            self.factors_ += [self.factor**depth for depth in by_depth]
        net.optimizer_.param_groups[:] = groups

    def on_batch_begin(self, net, training=False, **_):
        if training:  # the schedule has set the rate of this step
            for group, factor in zip(net.optimizer_.param_groups, self.factors_, strict=True):
                group["lr"] *= factor


def judged(y, probabilities, classes, n_tokens, n_judges):
    """Return the figures of all texts but the first ones, which tell the scale of the logits."""
    others = slice(n_judges, None)
    found = figures(y[others], probabilities[others], classes, n_tokens[others])
    if not n_judges:
        return found
    targets = torch.from_numpy(classes.searchsorted(y[:n_judges]))
    judges = DocumentDataset(list(range(n_judges)), targets, np.ones(n_judges))
    logits = np.log(np.maximum(probabilities.astype(float), LEAST))
    scale = least_loss(logits[:n_judges], judges, softmax_model(len(classes)), scalable=True)[1]
    scaled = figures(y[others], softmax(scale * logits[others], axis=1), classes, n_tokens[others])
    return {**found, "scale": scale, "nll_scaled": scaled["nll"], "ece_scaled": scaled["ece"]}


def at_shares(split, options):
    """Yield the figures of one fit at each share."""
    start = Start()
    callbacks = [start]
    if options.honest:
        callbacks.append(HonestStart(options.honest))
    if options.layer_decay < 1:
        callbacks.append(LayerDecay(options.layer_decay))
    named = ("dropout", "learning_rate", "max_epochs", "pooling")
    settings = {name: value for name in named if (value := getattr(options, name)) is not None}
    model = longbert(split, None, fine_tuning_share=1.0, callbacks=callbacks, **settings)
    model.fit(split.X, split.y, groups=split.groups)
    network = model.net_.module_
    end = copy_weights(network)
    rows = np.random.default_rng(split.seed).permutation(len(split.X_test))[: options.most_test]
    X, y = np.asarray(split.X_test)[rows], np.asarray(split.y_test)[rows]
    n_tokens = np.array([document.n_tokens for document in TextChunker().fit_transform(X)])
    for share in options.shares:
        set_between(network, start.weights, end, share)
        given = y, model.predict_proba(X), model.classes_, n_tokens
        yield {"share": share, **judged(*given, options.judges)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--most-test", type=int, default=500)
    parser.add_argument("--judges", type=int, default=0, metavar="TEXTS")
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--honest", type=float, default=0.0, metavar="PART")
    parser.add_argument("--layer-decay", type=float, default=1.0, metavar="FACTOR")
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--max-epochs", type=int)
    parser.add_argument("--pooling")
    options = parser.parse_args()
    rows = [
        {"data": name, "seed": seed, **row}
        for name in options.data
        for seed in range(options.seeds)
        for row in at_shares(DATA[name](seed), options)
    ]
    table = pd.DataFrame(rows)
    shown = [column for column in SHOWN if column in table]
    table = table.groupby(["data", "share"], sort=False)
    print(table[shown].mean().round(3).to_string())
    print(platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
