"""DocumentExplanation, the contributions of passages to the prediction of a text."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sklearn_longbert._explaining.html import to_html

LONGEST_SHOWN = 60  # characters of a passage in a repr


@dataclass(frozen=True, eq=False)
class DocumentExplanation:
    """Contributions of the passages of a text to its prediction.

    It is returned by ``explain`` of the estimators. Its length is the number of passages. Indexing
    it with a slice, or with an array of indices, gives an explanation of these passages only.

    Parameters
    ----------
    text : str
        The caller's own text.
    start : ndarray of shape (n_passages,), dtype int
        First character of each passage.
    end : ndarray of shape (n_passages,), dtype int
        End of each passage, which is ``text[start:end]``.
    classes : ndarray of shape (n_classes,)
        The labels; a regressor has the numbers of its targets here.
    contributions : ndarray of shape (n_passages, n_classes), dtype float64
        Contributions of chunks and `base_value` add up to `logits`. The contribution of a sentence
        is by how much the encoder's logits fall if the sentence is left out, and that of its
        n-grams to the baseline "words".
    base_value : ndarray of shape (n_classes,), dtype float64
        The part of `logits` that no passage contributes: the means of a regressor's targets, and
        of the baseline "words" the intercepts and the n-grams outside of all passages, of any other
        baseline the logits. Else zeros.
    logits : ndarray of shape (n_classes,), dtype float32, float64 for a regressor
        The logits of the text; a regressor has its prediction here.
    probabilities : ndarray of shape (n_classes,), dtype float32, or None
        The probabilities of the text; a regressor has None.
    predicted : object
        The result of ``predict`` for the text.
    chunk_logits : ndarray of shape (n_passages, n_classes), of the dtype of `logits`, or None
        The logits that encoder and head give each chunk; None for sentences.
    chunk : ndarray of shape (n_passages,), dtype int
        Number of each passage in the text, counted from 0.
    level : {"chunk", "sentence"}
        The kind of passage.

    See Also
    --------
    LongBertClassifier.explain : Returns one for each text.
    PassageDisplay : Shows it as a picture.

    Examples
    --------
    >>> from sklearn_longbert import LongBertClassifier
    >>> texts, labels = ["A dull film. " * 40, "A lovely film. " * 40] * 4, [0, 1] * 4
    >>> classifier = LongBertClassifier(chunk_size=64, random_state=0).fit(texts, labels)
    >>> (explanation,) = classifier.explain(["A dull film. " * 40])
    >>> len(explanation), explanation.level, explanation.predicted.item()
    (3, 'chunk', 0)
    >>> explanation.passages[0][:12]
    'A dull film.'
    """

    text: str
    start: NDArray[np.intp]
    end: NDArray[np.intp]
    classes: NDArray[Any]
    contributions: NDArray[np.float64]
    base_value: NDArray[np.float64]
    logits: NDArray[np.floating[Any]]
    probabilities: NDArray[np.float32] | None
    predicted: Any
    chunk_logits: NDArray[np.floating[Any]] | None
    chunk: NDArray[np.intp]
    level: str

    @property
    def passages(self) -> list[str]:
        """The text of each passage."""
        return [self.text[start:end] for start, end in zip(self.start, self.end, strict=True)]

    @property
    def main_class(self) -> int:
        """Index of the class with the largest logit: the predicted class, if one is predicted."""
        return int(np.argmax(self.logits))

    def top(self, n: int = 3, label: Any = None) -> Self:
        """Return the explanation of the passages that contribute most.

        Parameters
        ----------
        n : int, default=3
            Number of passages. The largest contribution comes first.
        label : object, default=None
            The class that they contribute to; None is the one with the largest logit.

        Returns
        -------
        explanation : DocumentExplanation

        Raises
        ------
        ValueError
            If `label` is not among the classes, or `n` is no whole number of at least 1.
        """
        if not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n={n!r} where a whole number of at least 1 is expected.")
        of_class = self.contributions[:, self.index_of(label)]
        return self[np.argsort(-of_class, kind="stable")[:n]]

    def index_of(self, label: Any = None) -> int:
        """Return the index of a label among `classes`, or `main_class` for None.

        Parameters
        ----------
        label : object, default=None
            One of `classes`, or None.

        Returns
        -------
        index : int

        Raises
        ------
        ValueError
            If `label` is not among the classes.
        """
        if label is None:
            return self.main_class
        classes = self.classes.tolist()
        if label not in classes:
            raise ValueError(f"label={label!r} is not among the classes {classes}.")
        return classes.index(label)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each passage and class.

        Returns
        -------
        frame : DataFrame
            Its columns are chunk, start, end, passage, class and contribution. For sentences,
            the first is called sentence. No row holds `base_value`.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas as pd

        n_classes = len(self.classes)
        return pd.DataFrame(
            {
                self.level: np.repeat(self.chunk, n_classes),
                "start": np.repeat(self.start, n_classes),
                "end": np.repeat(self.end, n_classes),
                "passage": np.repeat(np.array(self.passages, dtype=object), n_classes),
                "class": np.tile(self.classes, len(self)),
                "contribution": self.contributions.ravel(),
            }
        )

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: Any) -> Self:
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        return replace(
            self,
            start=self.start[chosen],
            end=self.end[chosen],
            contributions=self.contributions[chosen],
            chunk_logits=None if self.chunk_logits is None else self.chunk_logits[chosen],
            chunk=self.chunk[chosen],
        )

    def __iter__(self) -> Iterator[Self]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        index = self.main_class
        head = (
            f"<DocumentExplanation: {len(self)} passages, predicted "
            f"{np.asarray(self.predicted).tolist()!r}{self._target_of(index)}{self._base_of(index)}>"
        )
        lines = [
            f"  {contribution:+9.4f}  [{start}:{end}]  {_shortened(passage)!r}"
            for contribution, start, end, passage in zip(
                self.contributions[:, index], self.start, self.end, self.passages, strict=True
            )
        ]
        if len(lines) > 10:
            lines[5:-5] = [f"  ... {len(lines) - 10} more"]
        return "\n".join([head, *lines])

    def _target_of(self, index: int) -> str:
        """Return what contributions are shown to; the one number of a regressor has no name."""
        if self.probabilities is None and len(self.classes) == 1:
            return ""
        kind = "" if self.probabilities is not None else "target "
        return f", contributions to {kind}{self.classes.tolist()[index]!r}"

    def _base_of(self, index: int) -> str:
        """Return to what contributions are added, nothing for a classifier without a baseline."""
        if self.probabilities is not None and not self.base_value.any():
            return ""
        return f", base value {self.base_value[index]:.4g}"

    def _repr_html_(self) -> str:
        return to_html(self)


def _shortened(passage: str) -> str:
    if len(passage) <= LONGEST_SHOWN:
        return passage
    half = LONGEST_SHOWN // 2
    return f"{passage[:half]} ... {passage[-half:]}"
