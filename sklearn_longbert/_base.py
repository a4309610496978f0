"""BaseLongBert, what both estimators share: fit and prediction."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import check_scoring, get_scorer
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted

from sklearn_longbert._baselines.choose import Baseline, check_same, new_baseline
from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._encoding.follower import LeaderFailedError, follow
from sklearn_longbert._encoding.leader import Leader, leading
from sklearn_longbert._encoding.progress import Bar
from sklearn_longbert._fit_tasks import FitTask
from sklearn_longbert._net_factory import NetFactory, draw_seed
from sklearn_longbert._plain import plain
from sklearn_longbert._pretrained.devices import select_devices
from sklearn_longbert._ranks.distributed import active_group, fitting_alone
from sklearn_longbert._ranks.group import RankError
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._targets.checks import (
    check_groups,
    check_lengths,
    check_logits,
    check_weights,
)
from sklearn_longbert._texts.chunker import TextChunker
from sklearn_longbert._texts.documents import chunk_report
from sklearn_longbert._texts.reader import Inputs
from sklearn_longbert._texts.stretches import STREAM_TEXTS
from sklearn_longbert._training.callbacks import TaskReporter, epochs_of
from sklearn_longbert._training.evidence import some_of_many
from sklearn_longbert._training.labelled import (
    Labelled,
    held_out_dataset,
    out_of_fold,
    parts_of,
    start_of,
)
from sklearn_longbert._training.losses import DivergedError
from sklearn_longbert._training.net import LongBertNet
from sklearn_longbert._training.scored_net import Naming
from sklearn_longbert._training.user_callbacks import check_callbacks, check_history_keys
from sklearn_longbert._training.validation import (
    ValidationMonitor,
    hold_out,
    loss_score,
    score_of_scorer,
)

FITTED = (  # all attributes that a fit sets; `classes_` and `device_` follow from them
    "net_",
    "chunker_",
    "history_",
    "n_iter_",
    "best_epoch_",
    "fine_tuning_share_",
    "n_chunks_",
    "chunk_report_",
    "_baseline",
    "_targets",
    "_encoder_name",
    "_random_state",
)
PREDICTING = ("micro_batch_tokens", "precision", "inference")  # they act in predictions, too


class BaseLongBert(NetFactory):
    """Base of both estimators with their fit and their prediction."""

    _check_targets: Callable[..., NDArray[Any]]  # set by the subclasses
    _known: tuple[Any, NDArray[Any]] | None = None  # texts with their logits, for scorers

    @property
    def device_(self) -> str:
        """Device of the network."""
        return str(self.net_.device)

    @property
    def baseline_(self) -> Any:
        """The fitted baseline, None if there is none."""
        check_is_fitted(self)
        return None if self._baseline is None else self._baseline.shown

    def _check_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None = None,
        is_validated: bool = False,
    ) -> Labelled:
        """Return the texts whose weight is not zero, with targets that are not indexed yet."""
        check_callbacks(self.callbacks)
        check_history_keys(self.callbacks, is_validated or self.early_stopping)
        self._check_checkpoints()
        self._scorer()
        inputs, y = self._check_pair(X, y, "X", "y")
        weights, numbers = check_weights(sample_weight, inputs), check_groups(groups, len(inputs))
        return Labelled(inputs, y, weights, numbers).select(np.flatnonzero(weights))

    def _check_pair(
        self, X: ArrayLike, y: ArrayLike | None, X_name: str, y_name: str
    ) -> tuple[Inputs, NDArray[Any]]:
        inputs = self._check_input(X, X_name, needs_texts=self.baseline is not None)
        targets = self._check_targets(y, y_name)
        check_lengths(inputs, targets, X_name, y_name)
        return inputs, targets

    def _check_validation(
        self, X_val: ArrayLike | None, y_val: ArrayLike | None
    ) -> Labelled | None:
        if (X_val is None) != (y_val is None):
            given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
            raise ValueError(f"{given} was passed without {missing}: pass both or none.")
        if X_val is None:
            return None
        inputs, y = self._check_pair(X_val, y_val, "X_val", "y_val")
        return Labelled(inputs, y, np.ones(len(y)))

    def _is_warm(self) -> bool:
        """Return whether fit goes on from the weights of the last fit."""
        return self.warm_start and hasattr(self, "net_")

    def _fit(
        self, task: FitTask, targets: Targets, data: Labelled, validation: Labelled | None
    ) -> Self:
        """Train on checked texts, none of which has a weight of zero."""
        train = partial(self._train, task, targets, data, validation)
        return self._on_all_ranks(train, targets, data, validation)

    def _on_all_ranks(
        self,
        train: Callable[[Leader | None], Self],
        targets: Targets,
        data: Labelled,
        validation: Labelled | None = None,
    ) -> Self:
        """Train, or follow the rank that trains the same, and take over what it has learned."""
        group = active_group()
        if group is None:
            return train(None)
        devices = [str(device) for device in select_devices(plain(self.device))]
        if len(devices) > 1:
            raise ValueError(
                f"device={self.device!r} in distributed(), where each rank has one device: leave "
                f"it at 'auto'."
            )
        key = self._fit_key(targets, data, validation, left_out=frozenset({"random_state"}))
        if group.rank > 0:
            try:
                self._take_over(follow(group, devices[0], key), devices)
            except LeaderFailedError as error:
                self._take_over(error.args[1], devices)
                raise RankError(error.args[0]) from error
            return self
        with leading(group) as leader:
            leader.meet(key)
            try:
                with fitting_alone():
                    train(leader)
            finally:
                leader.last_message = self._handed_over()
        return self

    def _handed_over(self) -> dict[str, Any]:
        """Return what the other ranks take over from this one: what is fitted, and the seeds."""
        state = self.__getstate__()
        fitted = {name: state[name] for name in FITTED if name in state}
        is_generator = isinstance(self.random_state, np.random.RandomState)
        return {**fitted, "generator": self.random_state if is_generator else None}

    def _take_over(self, learned: dict[str, Any] | None, devices: list[str]) -> None:
        """Become what another rank has become; None changes nothing."""
        if learned is None:
            return
        generator = learned.pop("generator")
        if generator is not None and isinstance(self.random_state, np.random.RandomState):
            self.random_state.set_state(generator.get_state())
        self._forget_fit()
        if learned:
            learned["net_"]["devices"] = devices
            self.__setstate__({**self.__getstate__(), **learned})

    def _train(
        self,
        task: FitTask,
        targets: Targets,
        data: Labelled,
        validation: Labelled | None,
        leader: Leader | None,
    ) -> Self:
        if validation is not None:
            validation = replace(validation, y=targets.index(validation.y, "y_val"))
        checkpoint = self._make_checkpoint(targets, data, validation)
        previous, baseline = None, new_baseline(self.baseline, targets)
        if self._is_warm():
            previous, baseline = self.net_, self._baseline
            check_same(self.baseline, baseline, targets)
        else:  # so that a failed fit leaves an unfitted estimator
            self._forget_fit()
        random_state = check_random_state(self.random_state)
        chunker = self._training_chunker(data.inputs)
        held_out = None if validation is None else validation.inputs
        documents, of_held_out = self._chunk_to_train(data.inputs, held_out, chunker)
        is_scored = self.early_stopping or validation is not None
        rows, validation, of_held_out = self._hold_out(
            targets, data, documents, validation, of_held_out, random_state
        )
        data = data.select(rows)
        training = data.dataset(documents[rows], targets)
        training.parts = out_of_fold(baseline, targets, data, training, keep=previous is not None)
        judges = held_out_dataset(validation, of_held_out, targets, baseline)
        monitor = self._make_monitor(targets, validation if is_scored else None, judges)
        start = start_of(self.head_init, targets, data) if previous is None else None
        net = self._make_net(
            chunker, targets, random_state, start, monitor, judges, previous, checkpoint=checkpoint
        )

        def as_if_fitted(net: LongBertNet, **changed: Any) -> dict[str, Any]:
            """Return the attributes of a fitted copy, which does not change with this estimator."""
            learned = {**self._learned(net, documents, baseline), **changed}
            fitted = net.snapshot(), chunker, targets, deepcopy(random_state), learned
            return {name: getattr(self._copy(*fitted), name) for name in FITTED}

        # During training, the weights are those of the last epoch and not of the best.
        reporter = TaskReporter(task, lambda net: as_if_fitted(net, best_epoch=len(net.history)))
        # the checkpoint comes last, so that it holds what the others have recorded
        net.callbacks = [*(net.callbacks or []), reporter, *([checkpoint] if checkpoint else [])]
        try:
            naming = self._naming(chunker, targets, random_state, documents, baseline)
            net.train(training, plain(self.max_epochs), naming, leader)
        except BaseException:  # Ctrl-C, too: the traceback would keep the weights of the net
            net.release()
            raise
        net.drop_optimizer()
        learned = self._learned(net, documents, baseline)
        self._set_fitted(net, chunker, targets, random_state, learned)
        task.end(lambda: as_if_fitted(net))
        return self

    def _scorer(self) -> Callable[..., float] | None:
        """Return the scorer of validation texts, None for their loss, or raise an error."""
        if self.scoring == "loss":
            return None
        if isinstance(self.scoring, str):
            return get_scorer(self.scoring)
        return check_scoring(self, self.scoring)

    def _naming(
        self,
        chunker: TextChunker,
        targets: Targets,
        random_state: np.random.RandomState,
        documents: NDArray[np.object_],
        baseline: Baseline | None,
    ) -> Naming:
        """Return what scorers need to know of a fit of these documents."""

        def estimator_of(net: LongBertNet, X: Any, logits: NDArray[Any]) -> BaseLongBert:
            learned = self._learned(net, documents, baseline)
            copy = self._copy(net, chunker, targets, random_state, learned)
            copy._known = X, logits
            return copy

        return Naming(lambda tensor: targets.originals(tensor.numpy()), estimator_of)

    def _hold_out(
        self,
        targets: Targets,
        data: Labelled,
        documents: NDArray[np.object_],
        validation: Labelled | None,
        of_validation: NDArray[np.object_] | None,
        random_state: np.random.RandomState,
    ) -> tuple[NDArray[np.intp], Labelled | None, NDArray[np.object_] | None]:
        """Return the rows that train, and the texts that are held out, with their documents."""
        rows: NDArray[np.intp] = np.arange(len(documents))
        if validation is not None:
            return rows, validation, of_validation
        if self.early_stopping:
            seed, strata = draw_seed(random_state), targets.strata(data.y)
            share = plain(self.validation_fraction)
            rows, others = hold_out(len(documents), share, strata, data.groups, seed)
            return rows, replace(data.select(others), loss_weights=None), documents[others]
        is_averaged = self.head_init == "linear_probe" and not self._is_warm()
        if is_averaged and self.fine_tuning_share == "auto":
            others = some_of_many(data, targets, random_state)
            if len(others):
                return np.setdiff1d(rows, others), data.select(others), documents[others]
        return rows, None, None

    def _make_monitor(
        self,
        targets: Targets,
        held_out: Labelled | None,
        dataset: DocumentDataset | None,
    ) -> ValidationMonitor | None:
        if held_out is None or dataset is None:
            return None
        if self.scoring is None:
            targets.check_scored(len(dataset))
        scorer, weights = self._scorer(), held_out.weights
        named = targets.originals(dataset.targets.numpy())
        return ValidationMonitor(
            dataset,
            score_of_scorer(scorer, held_out.inputs, named, weights) if scorer else loss_score,
            is_tried=self.scoring not in (None, "loss"),
            early_stopping=plain(self.early_stopping),
            n_iter_no_change=plain(self.n_iter_no_change),
            tol=plain(self.tol),
        )

    def _partial_fit(self, targets: Targets, data: Labelled) -> Self:
        """Run one epoch at the full learning rate, going on from the present weights."""
        return self._on_all_ranks(partial(self._train_on, targets, data), targets, data)

    def _train_on(self, targets: Targets, data: Labelled, leader: Leader | None) -> Self:
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True: set it to False.")
        if self.checkpoint_folder is not None:
            raise ValueError("partial_fit does not support checkpoint_folder: set it to None.")
        is_first = not hasattr(self, "net_")
        random_state = check_random_state(self.random_state) if is_first else self._random_state
        baseline = new_baseline(self.baseline, targets) if is_first else self._baseline
        chunker = self._chunker_for(data.inputs).fit() if is_first else self.chunker_
        documents = self._chunk_and_warn(data.inputs, chunker)
        training = data.dataset(documents, targets)
        if is_first:
            training.parts = out_of_fold(baseline, targets, data, training)
            start = start_of(self.head_init, targets, data)
            net = self._make_net(
                chunker, targets, random_state, start, warmup_fraction=None, share=1.0
            )
        else:
            check_same(self.baseline, baseline, targets)
            training.parts = parts_of(baseline, data.inputs)
            net = self.net_
            self._set_passes()
            net.prepare(seed=draw_seed(random_state), **self._training_settings())
        try:
            naming = self._naming(chunker, targets, random_state, documents, baseline)
            net.train(training, 1, naming, leader)
        except BaseException as error:
            # Diverged weights would predict NaN, and so would all weights trained from them.
            if isinstance(error, DivergedError) or is_first:
                self._forget_fit()
                net.release()
            raise
        learned = self._learned(net, documents, baseline)
        return self._set_fitted(net, chunker, targets, random_state, learned)

    def _training_chunker(self, inputs: Inputs) -> TextChunker:
        """Return a fitted chunker: the old one if fit goes on with the same settings."""
        chunker = self._chunker_for(inputs)
        # the old one, because an unpickled estimator may lack the folder to load a new one
        if self._is_warm() and chunker.get_params() == self.chunker_.get_params():
            return self.chunker_
        return chunker.fit()

    def _learned(
        self, net: LongBertNet, documents: NDArray[np.object_], baseline: Baseline | None
    ) -> dict[str, Any]:
        """Return what a fit has learned beside its net, its chunker and its targets."""
        history = epochs_of(net.history, net.lr)
        return {
            "history": history,
            "best_epoch": net.best_epoch_ or len(history),
            "fine_tuning_share": net.average.taken,
            "n_chunks": np.array([document.n_chunks for document in documents], dtype=np.intp),
            "chunk_report": chunk_report(documents),
            "baseline": baseline,
            "encoder_name": (plain(self.model_name), plain(self.revision)),
        }

    def _set_fitted(
        self,
        net: LongBertNet,
        chunker: TextChunker,
        targets: Targets,
        random_state: np.random.RandomState,
        learned: dict[str, Any],
    ) -> Self:
        """Set every fitted attribute. No other method sets any."""
        self.net_, self.chunker_, self._targets = net, chunker, targets
        self.history_, self.best_epoch_ = learned["history"], learned["best_epoch"]
        self.n_iter_, self.n_chunks_ = len(self.history_), learned["n_chunks"]
        self.chunk_report_, self._encoder_name = learned["chunk_report"], learned["encoder_name"]
        self._baseline, self._random_state = learned["baseline"], random_state
        self.fine_tuning_share_ = learned["fine_tuning_share"]
        return self

    def _copy(
        self,
        net: LongBertNet,
        chunker: TextChunker,
        targets: Targets,
        random_state: np.random.RandomState,
        learned: dict[str, Any],
    ) -> Self:
        """Return an estimator with the same parameters, fitted like this."""
        copy = type(self)(**self.get_params(deep=False))
        return copy._set_fitted(net, chunker, targets, random_state, learned)

    def _forget_fit(self) -> None:
        """Delete every fitted attribute."""
        for name in FITTED:
            if hasattr(self, name):
                delattr(self, name)

    def _predict_logits(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the logits of texts, of shape (n_samples, n_outputs), in the caller's order."""
        check_is_fitted(self)
        if self._known is not None and X is self._known[0]:
            return self._known[1]
        inputs = self._check_input(X, needs_texts=self._baseline is not None)
        self._set_passes()
        logits = np.empty((len(inputs), self._targets.n_outputs), dtype=np.float32)
        is_short = len(inputs) <= STREAM_TEXTS
        hidden = is_short or not self.verbose
        with self.net_.sharing(), Bar(total=len(inputs), desc="predict", disable=hidden) as bar:
            for rows, documents in self._stretches(inputs, self.chunker_):
                parts = parts_of(self._baseline, inputs[rows])
                progress = is_short and bool(self.verbose)
                logits[rows] = self.net_.predict_logits(documents, parts, progress)
                bar.update(len(documents))
        check_logits(logits, type(self).__name__)
        return logits

    def _set_passes(self) -> None:
        """Set what may be changed without another fit: how the net computes predictions."""
        values = {name: plain(getattr(self, name)) for name in PREDICTING}
        known = {name: self._parameter_constraints[name] for name in PREDICTING}
        validate_parameter_constraints(known, values, type(self).__name__)  # fit had others
        self.net_.compute_with(**values)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
