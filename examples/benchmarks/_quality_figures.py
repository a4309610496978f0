"""The figures of quality.py: of one fit, and of all fits together."""

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

LONG = 510  # tokens that an encoder of 512 positions reads at once
LEAST = 1e-7  # probability in the log loss, for float32 and float64 alike
KEYS = ["data", "row", "seed"]


def log_losses(y, probabilities, classes):
    """Return the log loss of each text."""
    probabilities = np.maximum(probabilities.astype(np.float64), LEAST)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return -np.log(probabilities[np.arange(len(y)), np.searchsorted(classes, y)])


def ece(y, probabilities, classes, n_bins=15):
    """Return the expected calibration error (Guo et al., 2017) of the predicted class."""
    confidence = probabilities.max(axis=1)
    is_right = classes[probabilities.argmax(axis=1)] == y
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = [
        abs(is_right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()
        for b in np.unique(bins)
    ]
    return float(np.sum(gaps))


def figures(y, probabilities, classes, n_tokens):
    """Return the figures of one fit, and those of its long test texts alone."""
    predicted = classes[probabilities.argmax(axis=1)]
    is_right, losses = predicted == y, log_losses(y, probabilities, classes)
    is_long = n_tokens > LONG
    return {
        "accuracy": is_right.mean(),
        "f1": f1_score(y, predicted, average="macro", zero_division=0.0),
        "nll": losses.mean(),
        "ece": ece(y, probabilities, classes),
        "accuracy_long": is_right[is_long].mean() if is_long.any() else np.nan,
        "nll_long": losses[is_long].mean() if is_long.any() else np.nan,
        "n_long": int(is_long.sum()),
    }


def standard_error(values):
    """Return the standard error of the mean, with n - 1; NaN of a single value."""
    return np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan


def summary(fits):
    """Return means over seeds, a line for each set and row in order of their appearance."""
    columns = [column for column in fits.columns if column not in KEYS]
    by_row = fits.groupby(["data", "row"], sort=False)
    table = by_row[columns].mean()
    table.insert(1, "accuracy_se", by_row["accuracy"].agg(standard_error))
    table["seeds"] = by_row["seed"].nunique()
    return table


def best_row(fits, rows):
    """Return that of `rows` with the largest mean accuracy, or None if the fits have none.

    The least log loss decides between equals.
    """
    means = fits[fits["row"].isin(rows)].groupby("row", sort=False)[["accuracy", "nll"]].mean()
    means = means.sort_values(["accuracy", "nll"], ascending=[False, True])
    return None if means.empty else means.index[0]


def paired_differences(fits, references, columns=("accuracy", "nll")):
    """Return what rows have more than the best of the rows `references` on the same seeds.

    Parameters
    ----------
    fits : DataFrame with columns data, row, seed and `columns`
    references : collection of str
        The best of them, by mean accuracy, is chosen for each set of data.
    columns : sequence of str

    Returns
    -------
    differences : DataFrame indexed by data and row
        The reference, the mean difference and its standard error for each column, and the number
        of seeds that both have.
    """
    lines = []
    for data, of_data in fits.groupby("data", sort=False):
        reference = best_row(of_data, references)
        if reference is None:
            continue
        other = of_data[of_data["row"] == reference].set_index("seed")
        for row, of_row in of_data.groupby("row", sort=False):
            mine = of_row.set_index("seed")
            seeds = mine.index.intersection(other.index)
            if row == reference or seeds.empty:
                continue
            line = {"data": data, "row": row, "against": reference}
            for column in columns:
                differences = (mine.loc[seeds, column] - other.loc[seeds, column]).to_numpy()
                line[column] = differences.mean()
                line[f"{column}_se"] = standard_error(differences)
            lines.append({**line, "seeds": len(seeds)})
    names = [name for column in columns for name in (column, f"{column}_se")]
    table = pd.DataFrame(lines, columns=["data", "row", "against", *names, "seeds"])
    return table.set_index(["data", "row"])


def average_ranks(fits, rows):
    """Return the mean rank of `rows` over the sets that all of them have, and these sets.

    The least is the best. Only seeds that all the rows have are counted, and equal means share
    the mean of their ranks.
    """
    fits = fits[fits["row"].isin(rows)]
    ranks = {}
    for column, ascending in (("accuracy", False), ("nll", True)):
        of_seed = fits.pivot_table(index=["data", "seed"], columns="row", values=column, sort=False)
        of_data = of_seed.reindex(columns=rows).dropna().groupby("data", sort=False).mean()
        ranks[column] = of_data.rank(axis=1, ascending=ascending).mean()
    return pd.DataFrame(ranks), list(of_data.index)
