"""Labelled, the texts that a fit is given with all that belongs to each of them."""

from dataclasses import dataclass
from typing import Any, Self
from warnings import warn

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import _safe_indexing

from sklearn_longbert._baselines.choose import Baseline
from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._encoding.remembered import digest
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._targets.folds import inner_folds, join_groups
from sklearn_longbert._texts.reader import Inputs, keys_of, texts_of
from sklearn_longbert._training.head_start import Start


@dataclass(frozen=True)
class Labelled:
    """Texts with their targets, weights and groups.

    Attributes
    ----------
    inputs : list of str or ndarray of ChunkedDocument
    y : ndarray of shape (n_texts,) or (n_texts, n_outputs)
    weights : ndarray of shape (n_texts,)
    groups : ndarray of int, of shape (n_texts,), or None
        Texts of one group are on one side of every inner split.
    loss_weights : ndarray of shape (n_texts,) or (n_texts, n_outputs), default=None
        Weights in the training loss where they differ from `weights`, such as those of classes.
    """

    inputs: Inputs
    y: NDArray[Any]
    weights: NDArray[np.float64]
    groups: NDArray[np.intp] | None = None
    loss_weights: NDArray[np.float64] | None = None

    def select(self, rows: NDArray[np.intp]) -> Self:
        """Return the texts of these rows."""
        return type(self)(
            _safe_indexing(self.inputs, rows),
            self.y[rows],
            self.weights[rows],
            None if self.groups is None else self.groups[rows],
            None if self.loss_weights is None else self.loss_weights[rows],
        )

    def digest(self) -> bytes:
        """Return a digest of the texts and of all that belongs to them."""
        texts = [key if isinstance(key, bytes) else key.encode() for key in keys_of(self.inputs)]
        if not isinstance(self.inputs, list):
            texts += [document.cuts.tobytes() for document in self.inputs]
        arrays = [self.weights, self.y, self.groups, self.loss_weights]
        return digest(*texts, *(None if array is None else array.tobytes() for array in arrays))

    def dataset(self, documents: NDArray[np.object_], targets: Targets) -> DocumentDataset:
        """Return the documents of these texts for training; `y` must be indexed."""
        weights = self.weights if self.loss_weights is None else self.loss_weights
        return DocumentDataset(documents, targets.to_tensor(self.y), weights)


def out_of_fold(
    baseline: Baseline | None,
    targets: Targets,
    data: Labelled,
    dataset: DocumentDataset,
    keep: bool = False,
) -> list[NDArray[np.float64]]:
    """Fit the baseline, if there is one, and return its out-of-fold logits of each model.

    If `keep`, it is fitted already and stays as it is: models like it are fitted in its place.

    Raises
    ------
    ValueError
        If all texts are of one class, and the baseline is an estimator.
    """
    if baseline is None:
        return []
    strata = None if baseline.takes_one_class else targets.strata(data.y)
    if strata is not None and (strata == strata[0]).all():
        raise ValueError(
            f"All texts are of the class {targets.originals(data.y).tolist()[0]!r}, and the "
            f"baseline, {type(baseline.shown).__name__}, which later calls of partial_fit keep, is "
            f"fitted to them: pass texts of at least two classes in the first call, or set "
            f"baseline=None."
        )
    fitted = baseline.unfitted() if keep else baseline
    # an estimator of the caller's weighs classes as its own parameters say
    weights = dataset.weights.numpy() if fitted.weighs_classes else data.weights
    return fitted.fit(texts_of(data.inputs), targets, dataset.targets.numpy(), weights, data.groups)


def parts_of(baseline: Baseline | None, inputs: Inputs) -> list[NDArray[np.float64]]:
    """Return the logits of each model of a fitted baseline, none if there is none."""
    return [] if baseline is None else baseline.parts(texts_of(inputs))


def held_out_dataset(
    held_out: Labelled | None,
    documents: NDArray[np.object_] | None,
    targets: Targets,
    baseline: Baseline | None,
) -> DocumentDataset | None:
    """Return held-out documents with the logits of a fitted baseline, None if there are none."""
    if held_out is None or documents is None:
        return None
    dataset = held_out.dataset(documents, targets)
    dataset.parts = parts_of(baseline, held_out.inputs)
    return dataset


def start_of(head_init: str, targets: Targets, data: Labelled) -> Start:
    """Return how a training of these texts starts."""
    keys, groups = keys_of(data.inputs), data.groups
    if groups is not None:
        _warn_without_folds(groups, targets.strata(data.y))
        groups = join_groups(keys, groups)
    return Start(
        targets.probe if head_init == "linear_probe" else None,
        targets.linear_kind,
        groups,
        len(set(keys if groups is None else groups.tolist())),
    )


def _warn_without_folds(groups: NDArray[np.intp], strata: NDArray[Any] | None) -> None:
    """Warn if no text can be held out, because no class has texts of two groups."""
    y = np.zeros(len(groups), dtype=np.intp) if strata is None else strata
    if len(groups) > 1 and not inner_folds(y, groups):
        what = "all texts" if strata is None else "the texts of each class"
        n_groups = len(np.unique(groups))
        warn(
            f"groups puts {what} into one group: nothing can be cross-validated, and training goes "
            f"only as far as with as many texts as there are groups, {n_groups}. Pass what texts "
            f"share by their origin, such as their author, or no groups.",
            UserWarning,
            stacklevel=2,
        )
