"""HistoryDisplay, a picture of how training went."""

from typing import Any, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from sklearn_longbert._base import BaseLongBert

TRAINING, VALIDATION = "#0072B2", "#D55E00"  # colours of Okabe and Ito, for the colour-blind


class HistoryDisplay:
    """Loss, validation score and learning rate, epoch by epoch.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    history : list of dict
        The ``history_`` of an estimator.
    best_epoch : int, default=None
        The epoch, counted from 1, whose weights are kept. It is marked if there is a validation
        score.
    score_name : str, default="score"
        Name of the validation score.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Axes one above the other: losses; the validation score, if there is one; the learning rate.
    figure_ : matplotlib Figure
        Figure of these axes.
    lines_ : dict of str to matplotlib Line2D
        Lines of `train_loss`, `valid_loss`, `valid_score` and `learning_rate`, as far as they are
        in `history`.

    See Also
    --------
    PassageDisplay : Show which passages of a text decided.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from sklearn_longbert import HistoryDisplay, LongBertClassifier
    >>> texts, labels = ["A dull film. " * 40, "A lovely film. " * 40] * 4, [0, 1] * 4
    >>> classifier = LongBertClassifier(chunk_size=64, random_state=0).fit(texts, labels)
    >>> display = HistoryDisplay.from_estimator(classifier)
    >>> list(display.lines_)
    ['train_loss', 'learning_rate']
    """

    def __init__(
        self,
        history: list[dict[str, Any]],
        *,
        best_epoch: int | None = None,
        score_name: str = "score",
    ) -> None:
        self.history = history
        self.best_epoch = best_epoch
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator: Any, *, axes: Any = None) -> Self:
        """Show how an estimator was trained.

        Parameters
        ----------
        estimator : LongBertClassifier or LongBertRegressor
            A fitted estimator.
        axes : array-like of matplotlib Axes, default=None
            Axes to draw in; a new figure if None.

        Returns
        -------
        display : HistoryDisplay

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If it is another kind of estimator.
        ValueError
            If it was never trained, or the number of axes is wrong.
        """
        if not isinstance(estimator, BaseLongBert):
            raise TypeError(
                f"estimator is a {type(estimator).__name__} where a LongBertClassifier or "
                f"LongBertRegressor is expected: of a Pipeline pass its last step, pipeline[-1], "
                f"of a search that of its best_estimator_."
            )
        check_is_fitted(estimator)
        score_name = "accuracy" if is_classifier(estimator) else "R²"
        if estimator.scoring is not None:
            name = estimator.scoring if isinstance(estimator.scoring, str) else "score"
            score_name = "negative loss" if name == "loss" else name
        display = cls(estimator.history_, best_epoch=estimator.best_epoch_, score_name=score_name)
        return display.plot(axes)

    def plot(self, axes: Any = None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        axes : array-like of matplotlib Axes, default=None
            Axes to draw in: two, or three with a validation score; a new figure if None.

        Returns
        -------
        display : HistoryDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If there is no epoch to show, or the number of axes is wrong.
        """
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator

        if not self.history:
            raise ValueError("history holds no epoch: the estimator was loaded and never trained.")
        has_score = any("valid_score" in epoch for epoch in self.history)
        panels = ["loss", *(["score"] if has_score else []), "learning rate"]
        if axes is None:
            _, axes = plt.subplots(
                len(panels), sharex=True, figsize=(6, 2 * len(panels)), layout="constrained"
            )
        self.axes_ = np.ravel(axes)
        if len(self.axes_) != len(panels):
            raise ValueError(
                f"{len(self.axes_)} axes where {len(panels)} are needed, for {', '.join(panels)}."
            )
        self.figure_ = self.axes_[0].figure
        of_panel = dict(zip(panels, self.axes_, strict=True))
        self.lines_: dict[str, Any] = {}
        self._line(of_panel["loss"], "train_loss", TRAINING, "training")
        self._line(of_panel["loss"], "valid_loss", VALIDATION, "validation")
        of_panel["loss"].set(ylabel="loss", ylim=(0, None))
        if has_score:
            self._line(of_panel["score"], "valid_score", VALIDATION, "validation")
            of_panel["score"].set_ylabel(f"validation {self.score_name}")
        self._line(of_panel["learning rate"], "learning_rate", TRAINING, "at the end of the epoch")
        of_panel["learning rate"].set(ylabel="learning rate", ylim=(0, None))
        if has_score and self.best_epoch is not None:
            for ax in self.axes_:
                ax.axvline(self.best_epoch, color="0.5", linestyle=":", label="weights kept")
        for ax in self.axes_:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        shares_x = self.axes_[0].get_shared_x_axes().joined(*self.axes_[[0, -1]])
        for ax in self.axes_[-1:] if shares_x else self.axes_:
            ax.set_xlabel("epoch")
        of_panel["loss"].legend(frameon=False)
        self.figure_.align_ylabels(self.axes_)
        return self

    def _line(self, ax: Any, name: str, color: str, label: str) -> None:
        """Draw a value over the epochs that have it; some may lack a validation score."""
        points = [(row["epoch"], row[name]) for row in self.history if name in row]
        if points:
            epochs, values = zip(*points, strict=True)
            (line,) = ax.plot(epochs, values, color=color, marker="o", label=label)
            self.lines_[name] = line
