"""BaseLongBert, the fit of classifier and regressor."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils import _safe_indexing, check_random_state

from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._fit_tasks import FitTask
from sklearn_longbert._fitted import FITTED, FittedLongBert
from sklearn_longbert._parameters import draw_seed
from sklearn_longbert._targets.checks import check_lengths, check_weights
from sklearn_longbert._targets.targets import Targets
from sklearn_longbert._texts.chunker import TextChunker
from sklearn_longbert._texts.documents import chunk_report, warn_of_cut_texts
from sklearn_longbert._texts.reader import Inputs
from sklearn_longbert._training.callbacks import (
    TaskReporter,
    check_callbacks,
)
from sklearn_longbert._training.net import DivergedError, LongBertNet

Validation = tuple[Inputs, NDArray[Any]]


class BaseLongBert(FittedLongBert):
    """Base of both estimators with their fit; subclasses add targets and outputs."""

    _check_targets: Callable[..., NDArray[Any]]  # set by the subclasses

    # Checks

    def _check_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[Inputs, NDArray[Any], NDArray[np.float64]]:
        """Return inputs, targets and weights of the texts whose weight is not zero."""
        check_callbacks(self.callbacks)
        inputs = self._check_input(X)
        y = self._check_targets(y)
        check_lengths(inputs, y, "X", "y")
        weights = check_weights(sample_weight, inputs)
        kept = np.flatnonzero(weights)
        return _safe_indexing(inputs, kept), y[kept], weights[kept]

    def _check_validation(
        self, X_val: ArrayLike | None, y_val: ArrayLike | None
    ) -> Validation | None:
        if (X_val is None) != (y_val is None):
            given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
            raise ValueError(f"{given} was passed without {missing}: pass both or none.")
        if X_val is None:
            return None
        inputs = self._check_input(X_val, "X_val")
        y = self._check_targets(y_val, "y_val")
        check_lengths(inputs, y, "X_val", "y_val")
        return inputs, y

    # Training

    def _fit(
        self,
        task: FitTask,
        targets: Targets,
        inputs: Inputs,
        y: NDArray[Any],
        weights: NDArray[np.float64],
        validation: Validation | None,
        loss_weights: NDArray[np.float64] | None = None,
    ) -> Self:
        """Train on checked inputs, none of which has a weight of zero.

        Held-out texts are scored with `weights`. The training loss uses `loss_weights`, one for
        each text or for each of its labels, or `weights` if they are None.
        """
        previous = self.net_ if self._is_warm() else None
        chunker = self._training_chunker(inputs)
        if previous is None:  # so that a failed fit leaves an unfitted estimator
            self._forget_fit()
        random_state = check_random_state(self.random_state)
        documents = self._chunk(inputs, chunker, "X")
        report = chunk_report(documents)
        if self.verbose:
            warn_of_cut_texts(report, chunker.max_chunks)
        train: NDArray[np.intp] | slice = slice(None)
        held_out = None
        if validation is not None:
            y_val = targets.index(validation[1], "y_val")
            of_validation = self._chunk(validation[0], chunker, "X_val")
            held_out = _dataset(targets, of_validation, y_val, np.ones(len(y_val)))
        elif self.early_stopping:
            train, test = self._split(targets.strata(y), len(y), draw_seed(random_state))
            held_out = _dataset(targets, documents[test], y[test], weights[test])
        if held_out is not None:
            targets.check_scored(len(held_out))
        loss_weights = weights if loss_weights is None else loss_weights
        training = _dataset(targets, documents[train], y[train], loss_weights[train])
        net = self._make_net(chunker, targets, random_state, held_out, previous)

        def as_if_fitted(net: LongBertNet, **changed: Any) -> dict[str, Any]:
            """Return the attributes of a fitted copy, which does not change with this estimator."""
            copy = type(self)(**self.get_params(deep=False))
            learned = {**self._learned(net, documents, report), **changed}
            copy._set_fitted(deepcopy(net), chunker, targets, deepcopy(random_state), **learned)
            return {name: getattr(copy, name) for name in FITTED}

        # During training, the weights are those of the last epoch and not of the best.
        reporter = TaskReporter(task, lambda net: as_if_fitted(net, best_epoch=len(net.history)))
        net.callbacks = [*(net.callbacks or []), reporter]
        try:
            net.train(training, self.max_epochs)
        except BaseException:  # Ctrl-C, too: the traceback would keep the weights of the net
            net.release()
            raise
        net.drop_optimizer()
        learned = self._learned(net, documents, report)
        self._set_fitted(net, chunker, targets, random_state, **learned)
        task.end(lambda: as_if_fitted(net))
        return self

    def _partial_fit(
        self,
        targets: Targets,
        inputs: Inputs,
        y: NDArray[Any],
        weights: NDArray[np.float64],
    ) -> Self:
        """Run one epoch at the full learning rate, going on from the present weights."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True: set it to False.")
        is_first = not hasattr(self, "net_")
        random_state = check_random_state(self.random_state) if is_first else self._random_state
        chunker = self._chunker_for(inputs).fit() if is_first else self.chunker_
        documents = self._chunk(inputs, chunker, "X")
        training = _dataset(targets, documents, y, weights)
        if is_first:
            net = self._make_net(chunker, targets, random_state, warmup_fraction=None)
        else:
            net = self.net_
            net.prepare(seed=draw_seed(random_state), **self._training_settings())
        try:
            net.train(training, 1)
        except BaseException as error:
            # Diverged weights would predict NaN, and so would all weights trained from them.
            if isinstance(error, DivergedError) or is_first:
                self._forget_fit()
                net.release()
            raise
        learned = self._learned(net, documents, chunk_report(documents))
        self._set_fitted(net, chunker, targets, random_state, **learned)
        return self

    def _training_chunker(self, inputs: Inputs) -> TextChunker:
        """Return a fitted chunker: the old one if fit goes on with the same settings."""
        chunker = self._chunker_for(inputs)
        # the old one, because an unpickled estimator may lack the folder to load a new one
        if self._is_warm() and chunker.get_params() == self.chunker_.get_params():
            return self.chunker_
        return chunker.fit()

    def _split(
        self, strata: NDArray[Any] | None, n_texts: int, seed: int
    ) -> list[NDArray[np.intp]]:
        """Return the rows that train and those that early stopping holds out."""
        try:
            return train_test_split(
                np.arange(n_texts),
                test_size=self.validation_fraction,
                stratify=strata,
                random_state=seed,
            )
        except ValueError as error:
            raise ValueError(
                f"early_stopping=True cannot hold out validation_fraction="
                f"{self.validation_fraction} of {n_texts} texts, with some of each class: change "
                f"it, or pass texts of your own as X_val and y_val. ({error})"
            ) from error


def _dataset(
    targets: Targets,
    documents: NDArray[np.object_],
    y: NDArray[Any],
    weights: NDArray[np.float64],
) -> DocumentDataset:
    """Return documents with targets, and weights scaled to mean 1, as a batch's loss is a mean."""
    scaled = torch.from_numpy(weights / weights.mean())
    return DocumentDataset(documents, targets.to_tensor(y), scaled)
