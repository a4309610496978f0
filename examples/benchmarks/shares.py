"""How far should training go? The figures of weights on the way from its start to its end.

    python examples/benchmarks/shares.py --data bbc-50 newsgroups-rare --seeds 2

Data and divisions are those of ``quality.py``, and each fit is that of ``LongBertClassifier`` with
``fine_tuning_share=1.0``. Its weights are then put at several shares of the way, and the test
texts, at most ``--most-test`` of them, are predicted with each. Shown are the means of accuracy,
log loss and expected calibration error.
"""

import argparse
import platform

import numpy as np
import pandas as pd
from _quality_data import DATA
from _quality_figures import ece, log_losses
from _quality_rows import longbert
from skorch.callbacks import Callback

from sklearn_longbert._training.averaging import copy_weights, set_between

SHARES = (0.0, 0.2, 0.4, 0.6, 0.85, 1.0)


class Start(Callback):
    """Keeps the weights from which training starts."""

    def on_train_begin(self, net, **_):
        self.weights = copy_weights(net.module_)


def at_shares(split, most_test):
    """Yield the figures of one fit at each share."""
    start = Start()
    model = longbert(split, None, fine_tuning_share=1.0, callbacks=[start])
    model.fit(split.X, split.y, groups=split.groups)
    network = model.net_.module_
    end = copy_weights(network)
    rows = np.random.default_rng(split.seed).permutation(len(split.X_test))[:most_test]
    X, y = np.asarray(split.X_test)[rows], np.asarray(split.y_test)[rows]
    for share in SHARES:
        set_between(network, start.weights, end, share)
        given = y, model.predict_proba(X), model.classes_
        yield {
            "share": share,
            "accuracy": (given[1].argmax(1) == model.classes_.searchsorted(y)).mean(),
            "nll": log_losses(*given).mean(),
            "ece": ece(*given),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--most-test", type=int, default=500)
    options = parser.parse_args()
    rows = [
        {"data": name, "seed": seed, **row}
        for name in options.data
        for seed in range(options.seeds)
        for row in at_shares(DATA[name](seed), options.most_test)
    ]
    table = pd.DataFrame(rows).groupby(["data", "share"], sort=False)
    print(table[["accuracy", "nll", "ece"]].mean().round(3).to_string())
    print(platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
