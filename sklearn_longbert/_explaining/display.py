"""PassageDisplay, a picture of the contributions along a text."""

from typing import Any, Self

import numpy as np

from sklearn_longbert._explaining.explanation import DocumentExplanation

# Colours of Okabe and Ito, which colour-blind people can tell apart.
FOR, AGAINST = "#0072B2", "#D55E00"
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class PassageDisplay:
    """Contributions of passages along a text.

    Bars show the contributions to one class over the characters of their passages: blue for it,
    orange against it. Lines show the contributions to other classes. Use :meth:`from_estimator` or
    :meth:`from_explanation` to make one.

    Parameters
    ----------
    explanation : DocumentExplanation
        Explanation of a text, from ``explain`` of an estimator.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the picture.
    figure_ : matplotlib Figure
        Figure of these axes.
    bars_ : matplotlib BarContainer
        One bar per passage.
    lines_ : list of matplotlib StepPatch
        One line for each other class that is shown.

    See Also
    --------
    LongBertClassifier.explain : Return the numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> from sklearn_longbert import LongBertClassifier, PassageDisplay
    >>> texts, labels = ["A dull film. " * 40, "A lovely film. " * 40] * 4, [0, 1] * 4
    >>> classifier = LongBertClassifier(chunk_size=64, random_state=0).fit(texts, labels)
    >>> display = PassageDisplay.from_estimator(classifier, texts[0] + texts[1])
    >>> len(display.bars_)
    6
    """

    def __init__(self, explanation: DocumentExplanation) -> None:
        self.explanation = explanation

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        text: str,
        *,
        level: str = "chunk",
        max_sentences: int | None = None,
        label: Any = None,
        n_others: int = 2,
        ax: Any = None,
    ) -> Self:
        """Explain a text and show it.

        Parameters
        ----------
        estimator : LongBertClassifier or LongBertRegressor
            A fitted estimator.
        text : str
            One text.
        level : {"chunk", "sentence"}, default="chunk"
            Kind of the passages.
        max_sentences : int, default=None
            Most sentences, as in :meth:`LongBertClassifier.explain`.
        label : object, default=None
            The class of the bars; None is the one with the largest logit.
        n_others : int, default=2
            Number of other classes shown as lines: those with the largest logits, at most 5.
        ax : matplotlib Axes, default=None
            Axes to draw in; a new figure if None.

        Returns
        -------
        display : PassageDisplay

        Raises
        ------
        ValueError, TypeError
            If `text` is not a text, or a parameter is not as described.
        """
        if not isinstance(text, str):
            raise TypeError(f"text is a {type(text).__name__} where one str is expected.")
        (explanation,) = estimator.explain([text], level=level, max_sentences=max_sentences)
        return cls.from_explanation(explanation, label=label, n_others=n_others, ax=ax)

    @classmethod
    def from_explanation(
        cls,
        explanation: DocumentExplanation,
        *,
        label: Any = None,
        n_others: int = 2,
        ax: Any = None,
    ) -> Self:
        """Show an explanation.

        Parameters
        ----------
        explanation : DocumentExplanation
            Explanation of a text, from ``explain`` of an estimator.
        label : object, default=None
            The class of the bars; None is the one with the largest logit.
        n_others : int, default=2
            Number of other classes shown as lines: those with the largest logits, at most 5.
        ax : matplotlib Axes, default=None
            Axes to draw in; a new figure if None.

        Returns
        -------
        display : PassageDisplay
        """
        return cls(explanation).plot(ax=ax, label=label, n_others=n_others)

    def plot(self, ax: Any = None, *, label: Any = None, n_others: int = 2) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw in; a new figure if None.
        label : object, default=None
            The class of the bars; None is the one with the largest logit.
        n_others : int, default=2
            Number of other classes shown as lines: those with the largest logits, at most 5.

        Returns
        -------
        display : PassageDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `label` is not among the classes.
        """
        import matplotlib.pyplot as plt
        from matplotlib.patches import Patch

        explanation = self.explanation
        main = explanation.index_of(label)
        if ax is None:
            _, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
        order = np.argsort(explanation.start, kind="stable")
        start, end = explanation.start[order], explanation.end[order]
        contributions = explanation.contributions[order]
        heights = contributions[:, main]
        self.bars_ = ax.bar(
            start,
            heights,
            end - start,
            align="edge",
            color=np.where(heights >= 0, FOR, AGAINST),
            edgecolor="white",
            linewidth=0.8 if len(order) < 100 else 0,
        )
        others = [
            index for index in np.argsort(-explanation.logits, kind="stable") if index != main
        ]
        edges = np.append(start, end[-1])
        self.lines_ = self._plot_others(ax, others[:n_others], contributions, edges)
        ax.axhline(0, color="0.4", linewidth=0.8)
        ax.set(
            xlabel=f"character of the text ({explanation.level}s)",
            ylabel="contribution",
            xlim=(0, max(len(explanation.text), 1)),
            title=f"predicted: {explanation.predicted}",
        )
        of_bars = Patch(color=FOR, label=str(explanation.classes[main]))
        handles = [of_bars, *self.lines_]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _plot_others(
        self, ax: Any, classes: list[int], contributions: Any, edges: Any
    ) -> list[Any]:
        """Draw a line for each class, as far as there are colours."""
        return [
            ax.stairs(
                contributions[:, index],
                edges,
                color=color,
                linewidth=1.5,
                baseline=None,
                label=str(self.explanation.classes[index]),
            )
            for index, color in zip(classes, OTHERS, strict=False)
        ]
