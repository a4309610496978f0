"""Report the tasks of a fit, their order and their ends to the callbacks of scikit-learn.

A fit is one task. If the estimator has epochs, each epoch is a subtask of it, and each batch is a
subtask of its epoch. Before scikit-learn 1.9, which introduced callbacks, nothing is reported.
"""

from collections.abc import Callable
from typing import Any, Self

from sklearn_longbert._ranks.distributed import follows

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupportMixin
except ImportError:  # scikit-learn 1.8

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stand-in for scikit-learn's class, without callbacks."""


class FitTask:
    """A fit, or a part of it. The task begins when this object is made.

    Parameters
    ----------
    estimator : CallbackSupportMixin
        The estimator that is fitted.
    context : CallbackContext or None
        Context of scikit-learn; None before 1.9.
    **data : dict
        Data that callbacks get if they ask for it: `X`, `y`, `metadata`.
    """

    def __init__(self, estimator: Any, context: Any, **data: Any) -> None:
        self.estimator = estimator
        self.context = context
        self.data = data
        if context is not None:
            context.call_on_fit_task_begin(estimator=estimator, **data)

    @classmethod
    def of(
        cls, estimator: Any, X: Any, y: Any = None, sample_weight: Any = None, n_subtasks: int = 0
    ) -> Self:
        """Begin the fit of an estimator, once per fit."""
        begin = getattr(estimator, "_init_callback_context", None)
        if follows():  # rank 0 reports
            begin = None
        context = None if begin is None else begin(max_subtasks=n_subtasks)
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        return cls(estimator, context, X=X, y=y, metadata=metadata)

    def subtask(self, name: str, n_subtasks: int = 0) -> Self:
        """Begin a part of this task."""
        context = self.context
        if context is not None:
            context = context.subcontext(task_name=name, max_subtasks=n_subtasks)
        return type(self)(self.estimator, context, **self.data)

    def end(self, fitted: Callable[[], dict[str, Any]] | None = None) -> bool:
        """Report the end of this task, and return whether a callback asks to stop.

        Parameters
        ----------
        fitted : callable, default=None
            Returns the attributes with which a copy of the estimator predicts. It is
            called if a callback asks for that copy.
        """
        if self.context is None:
            return False
        return self.context.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=fitted, **self.data
        )
