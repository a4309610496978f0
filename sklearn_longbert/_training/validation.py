"""Held-out texts: how they are drawn, how they are scored, and when their score stops training."""

from collections.abc import Callable
from inspect import signature
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupShuffleSplit, train_test_split
from skorch.callbacks import Callback

from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._training.averaging import Weights, copy_weights, set_weights
from sklearn_longbert._training.callbacks import StopTraining

MOST_SPLITS = 100  # of groups, until both parts have texts of each class
Score = Callable[[Any, NDArray[Any]], float]


class ValidationMonitor(Callback):
    """Score held-out documents after each epoch; optionally stop early with the best weights.

    Stopping follows scikit-learn's MLPClassifier: training ends when the score has not risen
    by `tol` over the best one for more than `n_iter_no_change` epochs in a row.

    Parameters
    ----------
    dataset : DocumentDataset
        The documents, which the net takes for its validation.
    score : callable
        Maps (net, logits of the documents) to a float; higher is better.
    is_tried : bool
        Whether to call `score` before the first epoch, because it may fail.
    early_stopping : bool
    n_iter_no_change : int
    tol : float
    """

    def __init__(
        self,
        dataset: DocumentDataset,
        score: Score,
        is_tried: bool,
        early_stopping: bool,
        n_iter_no_change: int,
        tol: float,
    ) -> None:
        self.dataset = dataset
        self.score = score
        self.is_tried = is_tried
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        self.best_score_ = -np.inf
        self.best_weights_: Weights | None = None
        self.n_without_gain_ = 0
        if self.is_tried:
            self.score(net, net.predict_logits(self.dataset.documents, self.dataset.parts))

    def on_batch_end(
        self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        if not training:  # all documents are one batch
            self.logits_ = kwargs["y_pred"].numpy()

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        score = self.score(net, self.logits_)
        net.history.record("valid_score", score)
        net.history.record("valid_score_best", score > self.best_score_)  # for skorch's Checkpoint
        gained = score >= self.best_score_ + self.tol
        self.n_without_gain_ = 0 if gained else self.n_without_gain_ + 1
        if score > self.best_score_:
            self.best_score_ = score
            if self.early_stopping:
                self._keep(net)
        if self.early_stopping and self.n_without_gain_ > self.n_iter_no_change:
            raise StopTraining

    def _keep(self, net: Any) -> None:
        net.best_epoch_ = len(net.history)
        self.best_weights_ = copy_weights(net.module_)

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        if self.best_weights_ is not None:
            set_weights(net.module_, self.best_weights_)
        self.best_weights_ = None


def loss_score(net: Any, logits: NDArray[Any]) -> float:
    """Return the negative loss of the held-out documents, which the net has recorded."""
    return -net.history[-1, "valid_loss"]


def score_of_scorer(
    scorer: Callable[..., float], X: Any, y: NDArray[Any], weights: NDArray[np.float64]
) -> Score:
    """Return a function of a net and its logits that calls a scorer of scikit-learn.

    Parameters
    ----------
    scorer : callable
        A scorer. It gets the weights, unless they are all equal or it takes none.
    X : list of str or ndarray
        The held-out texts.
    y : ndarray
        Their targets, as the caller names them.
    weights : ndarray of shape (n_texts,)
    """
    is_weighted = weights.min() < weights.max() and _takes_weights(scorer)
    arguments = {"sample_weight": weights} if is_weighted else {}

    def score(net: Any, logits: NDArray[Any]) -> float:
        value = scorer(net.estimator_of(X, logits), X, y, **arguments)
        if not (isinstance(value, Real) and np.isfinite(value)):
            raise ValueError(
                f"scoring by {scorer!r} gave {value!r} for the {len(y)} validation texts, where a "
                f"finite number is expected: choose another scoring, or other validation texts."
            )
        return float(value)

    return score


def _takes_weights(scorer: Any) -> bool:
    if hasattr(scorer, "_accept_sample_weight"):  # scikit-learn's: the signature admits all
        return scorer._accept_sample_weight()
    return "sample_weight" in signature(scorer).parameters


def hold_out(
    n_texts: int,
    fraction: float,
    strata: NDArray[Any] | None,
    groups: NDArray[np.intp] | None,
    seed: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows that train and those that early stopping holds out.

    Parameters
    ----------
    n_texts : int
    fraction : float
        Share of the texts that is held out.
    strata : ndarray of shape (n_texts,) or None
        Classes whose proportions both parts keep.
    groups : ndarray of shape (n_texts,) or None
        Groups, none of which is in both parts. The share is then one of groups, and classes are
        kept as well as groups allow.
    seed : int
    """
    try:
        if groups is not None:
            return _hold_out_groups(n_texts, fraction, strata, groups, seed)
        return train_test_split(
            np.arange(n_texts), test_size=fraction, stratify=strata, random_state=seed
        )
    except ValueError as error:
        whole = "" if groups is None else f", and no part of one of {len(np.unique(groups))} groups"
        raise ValueError(
            f"early_stopping=True cannot hold out validation_fraction={fraction} of {n_texts} "
            f"texts, with some of each class{whole}: change it, or pass texts of your own as X_val "
            f"and y_val. ({error})"
        ) from error


def _hold_out_groups(
    n_texts: int,
    fraction: float,
    strata: NDArray[Any] | None,
    groups: NDArray[np.intp],
    seed: int,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return, of several random splits of groups, the first that holds out the most classes.

    All classes are in its training part.
    """
    splits = GroupShuffleSplit(MOST_SPLITS, test_size=fraction, random_state=seed)
    best, most = None, 0
    for rows, others in splits.split(np.arange(n_texts), groups=groups):
        if strata is None:
            return rows, others
        n_classes, n_held_out = (len(np.unique(strata[part])) for part in (slice(None), others))
        if len(np.unique(strata[rows])) == n_classes and n_held_out > most:
            best, most = (rows, others), n_held_out
            if n_held_out == n_classes:
                break
    if best is None:
        raise ValueError("without the groups that are held out, texts of a class are missing")
    return best
