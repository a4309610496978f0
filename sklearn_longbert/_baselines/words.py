"""The built-in baseline "words": a linear model of words and one of characters.

Invariants: the models are fitted without a public ``fit`` of scikit-learn, which tools such as
mlflow would take for the user's own; equal texts are on one side of every inner split, and a
weight of k equals k copies; and the contributions of the occurrences of n-grams add up to the
logits.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sklearn_longbert._baselines.ngrams import (
    ANALYZERS,
    N_COLUMNS,
    TfidfColumns,
    columns_of,
    count_ngrams,
    counts_of,
    stretches,
)
from sklearn_longbert._baselines.sparse_linear import LinearNgrams, fit_ngrams
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._targets.folds import join_groups, merge_equal
from sklearn_longbert._targets.pooled_linear import Floats


class Occurrences(NamedTuple):
    """What a model's n-grams contribute to the logits of a text, by place.

    Attributes
    ----------
    positions : ndarray of int, of shape (n_positions,)
        Characters of the text at which known n-grams begin, sorted.
    contributions : ndarray of shape (n_positions, n_outputs)
        Sum of those of the n-grams that begin there. An n-gram's contribution is divided equally
        among its occurrences.
    intercepts : ndarray of shape (n_outputs,)
        They and all contributions add up to the logits.
    """

    positions: NDArray[np.intp]
    contributions: Floats
    intercepts: Floats


class WordsBaseline:
    """Two linear models of a text's n-grams, with their case and with punctuation marks.

    Attributes
    ----------
    models : dict of str to LinearNgrams
        "words", which has words, punctuation marks and their pairs, and "characters", which has
        two to four characters inside of words and their spaces.
    """

    names = tuple(ANALYZERS)
    weighs_classes = True  # by the weights that it gets
    takes_one_class = True  # whose logits are then constant, as those of the linear probe are

    def __init__(self, models: dict[str, LinearNgrams] | None = None) -> None:
        self.models = {} if models is None else models

    @property
    def shown(self) -> Self:
        """What the user is shown: itself."""
        return self

    def unfitted(self) -> Self:
        """Return a new baseline like this one."""
        return type(self)()

    def fit(
        self,
        texts: Sequence[str],
        targets: Targets,
        y: NDArray[Any],
        weights: NDArray[Any],
        groups: NDArray[Any] | None = None,
    ) -> list[Floats]:
        """Fit the models, and return what models say of texts that they were not fitted on.

        Parameters
        ----------
        texts : sequence of str
        targets : Targets
        y : ndarray of shape (n_texts,) or (n_texts, n_outputs)
            Targets, as the loss takes them.
        weights : ndarray of shape (n_texts,) or (n_texts, n_outputs)
        groups : ndarray of shape (n_texts,) or None
            Texts of one group are on one side of every inner split.

        Returns
        -------
        out_of_fold : list of ndarray of shape (n_texts, n_outputs)
            Logits of each model. NaN in rows of texts that no fold tests.
        """
        kind = targets.linear_kind
        number_of = {text: number for number, text in enumerate(sorted(set(texts)))}
        numbers = np.array([number_of[text] for text in texts])
        first, inverse, weights = merge_equal(
            np.column_stack([numbers, y]), kind.of_outputs(weights)
        )
        groups, y = join_groups(numbers, groups)[first], y[first]
        distinct = [texts[index] for index in first]
        out_of_fold = []
        for name in self.names:
            counts = count_ngrams(distinct, name)
            self.models[name], logits = fit_ngrams(counts, y, weights, groups, kind)
            out_of_fold.append(logits[inverse])
        return out_of_fold

    def parts(self, texts: Sequence[str]) -> list[Floats]:
        """Return the logits of each model for new texts, of shape (n_texts, n_outputs)."""
        parts: dict[str, list[Floats]] = {name: [] for name in self.models}
        for stretch in stretches(texts):
            for name, model in self.models.items():
                parts[name].append(model.logits(count_ngrams(stretch, name)))
        return [np.concatenate(logits) for logits in parts.values()]

    def occurrences(self, text: str) -> list[Occurrences]:
        """Return, for each model, what n-grams contribute to its logits of a text."""
        return [_occurrences(text, name, model) for name, model in self.models.items()]

    def state(self) -> dict[str, Any]:
        """Return all that a file keeps: arrays by their names, and the number of hashes."""
        state: dict[str, Any] = {"n_columns": N_COLUMNS}
        for name, model in self.models.items():
            state[f"{name}.columns"] = model.columns.columns
            state[f"{name}.idf"] = model.columns.idf
            state[f"{name}.coefficients"] = model.coefficients
            state[f"{name}.intercepts"] = model.intercepts
        return state

    def pickled(self) -> dict[str, Any]:
        """Return what a pickle keeps, which is what a file keeps."""
        return self.state()

    @classmethod
    def from_state(cls, state: dict[str, Any], targets: Targets) -> Self:
        """Return the baseline whose :meth:`state` this is.

        Raises
        ------
        ValueError
            If values are missing or do not fit each other.
        """
        try:
            models = {name: _model_from(state, name, targets.n_outputs) for name in cls.names}
        except KeyError as error:
            raise ValueError(f"the baseline lacks {error}") from error
        if state.get("n_columns") != N_COLUMNS:
            raise ValueError(f"n-grams of {state.get('n_columns')} columns, not of {N_COLUMNS}")
        return cls(models)

    def __repr__(self) -> str:
        sizes = (f"{name}: {len(model.columns.idf):,}" for name, model in self.models.items())
        return f"WordsBaseline({', '.join(sizes)} n-grams)" if self.models else "WordsBaseline()"


def _model_from(state: dict[str, Any], name: str, n_outputs: int) -> LinearNgrams:
    columns, idf, coefficients, intercepts = (
        np.asarray(state[f"{name}.{key}"])
        for key in ("columns", "idf", "coefficients", "intercepts")
    )
    if not (
        columns.ndim == 1
        and columns.shape == idf.shape
        and coefficients.shape == (n_outputs, len(columns))
        and intercepts.shape == (n_outputs,)
    ):
        raise ValueError(f"arrays of the baseline's {name} do not fit each other")
    return LinearNgrams(TfidfColumns(columns, idf), coefficients, intercepts)


def _occurrences(text: str, name: str, model: LinearNgrams) -> Occurrences:
    number_of: dict[str, int] = {}
    places, numbers = [], []
    for place, ngram in ANALYZERS[name](text):
        places.append(place)
        numbers.append(number_of.setdefault(ngram, len(number_of)))
    columns = columns_of(number_of)[np.array(numbers, dtype=np.intp)]
    row = model.columns.rows(counts_of(columns))
    found = model.columns.columns[row.indices]
    known = np.isin(columns, found)
    positions, owners = np.unique(np.array(places, dtype=np.intp)[known], return_inverse=True)
    features = np.searchsorted(found, columns[known])
    counts = np.bincount(features, minlength=len(found))
    of_each = model.coefficients[:, row.indices] * (row.data / counts)  # (n_outputs, n_found)
    table = csr_array(
        (np.ones(len(features)), (owners, features)), shape=(len(positions), len(found))
    )
    return Occurrences(positions, table @ of_each.T, model.intercepts)
