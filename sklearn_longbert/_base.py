"""What classifier and regressor share: parameters, fit, forward, tags, documentation."""

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from os import PathLike
from typing import Any, Self, TypeVar
from warnings import warn

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, clone, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import Tags, check_random_state, get_tags
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklearn_longbert import _pretrained
from sklearn_longbert._batching import DocumentDataset
from sklearn_longbert._callbacks import TaskReporter, ValidationMonitor, check_callbacks
from sklearn_longbert._checkpoint import check_known_head, network_from_checkpoint
from sklearn_longbert._chunking import ChunkedDocument, TextChunker
from sklearn_longbert._coverage import chunk_report, warn_of_cut_texts
from sklearn_longbert._explanation import (
    WEIGHTS_OWN_LOGITS,
    DocumentExplanation,
    choose_sentences,
    chunk_weights,
    occlusion_contributions,
    passage_bounds,
    sentence_bounds,
    without_sentences,
)
from sklearn_longbert._fit_tasks import FitTask
from sklearn_longbert._net import DivergedError, LongBertNet, Probe
from sklearn_longbert._network import LongBertNetwork, network_from_state, network_state
from sklearn_longbert._persistence import Saved, load, save
from sklearn_longbert._pooling import POOLINGS, TOKEN_POOLINGS
from sklearn_longbert._progress import Bar
from sklearn_longbert._provenance import warn_of_another_version
from sklearn_longbert._reading import Inputs, TextReader, take
from sklearn_longbert._validation import check_lengths, check_weights

PARAMETERS = """model_name : str or path-like, default="sentence-transformers/all-MiniLM-L6-v2"
        Hub id or local folder of any encoder that transformers' AutoModel loads.
    chunk_size : int, default=None
        Most tokens of a chunk, special tokens included; a text that is read whole is cut into
        equally long ones. None is the encoder's limit, at most 512.
    chunk_overlap : int, default=0
        Tokens that a chunk repeats from the one before.
    max_chunks : int, default=None
        At most this many chunks of a text; None reads it whole. 1 is the usual truncation.
    chunk_selection : {"head", "tail", "head_tail", "even", "random"}, default="head"
        Which chunks are read where `max_chunks` cuts: the first; the last; half of them
        from each end, the odd one from the head; the middle ones of equal stretches; or
        drawn anew in each epoch of training, and "even" in prediction.
    pooling : {"mean", "max", "logsumexp", "attention"}, default="mean"
        How the logits of a text's chunks become the logits of the text. "mean" suits a
        property of the whole text, such as its topic; "max", class by class, one that a
        single place in it decides. "logsumexp", the logarithm of the mean of the chunks'
        exponentials, lies between them: the larger logits tell more, and K equal chunks have
        the logits of one. "attention" is a mean whose weights, one a chunk, are learned from
        the embeddings (gated, Ilse et al., 2018, https://arxiv.org/abs/1802.04712); it begins
        with equal ones.
    token_pooling : {"mean", "cls"}, default="mean"
        How hidden states become the embedding of a chunk: their mean over the real tokens,
        or that of the first token.
    head_init : {"linear_probe", "random"}, default="linear_probe"
        Where the head starts: at a linear model, its regularisation chosen by cross-validation,
        of the encoder's own embeddings of the training texts (Kumar et al., 2022,
        https://arxiv.org/abs/2202.10054); or at random. With `pooling` "mean" and "attention"
        it is a model of their means over the chunks, with "max" and "logsumexp" one of the
        chunks, fitted to the loss of the pooled logits, which finds a passage that decides
        where the mean hides it. Where the encoder is trained and a logistic model's loss on the
        training texts is less than half of guessing's, its logits are shrunk towards guessing
        until it is half, since without a loss the encoder would have nothing to learn from. The
        first call of `partial_fit` starts at the model of its texts; a fit with `warm_start`
        goes on from the present head.
    freeze_encoder : bool, default=False
        Whether to train the head alone, and attention if there is any. Each chunk is then
        encoded once per fit, without dropout; the head's inputs are dropped in each epoch.
        What a process has read so is remembered, the latest 256 MB of embeddings and at most
        64 MB of one set of texts, so that a grid over parameters of the head encodes each fold
        once; every process of `n_jobs` remembers for itself.
    max_epochs : int, default=3
        Passes over the training texts.
    batch_size : int, default=8
        Texts, whatever their length, per optimizer step.
    learning_rate : float, default=5e-5
        Highest learning rate of AdamW: it rises linearly, then falls linearly.
    weight_decay : float, default=0.01
        Of AdamW; biases and norms are spared.
    warmup_fraction : float, default=0.1
        Share of the steps in which the learning rate rises.
    max_grad_norm : float, default=1.0
        Gradients of a larger norm are scaled down to it. None never does.
    dropout : float, default=0.1
        Probability with which hidden states and inputs of the head are dropped in training.
    attention_dropout : float, default=0.0
        The same for attention weights; 0 keeps the fused, much faster attention kernels.
        Otherwise, where an encoder reads padded chunks, what is dropped depends on
        `micro_batch_tokens`.
    micro_batch_tokens : int or "auto", default="auto"
        Most tokens, padding counted, that are encoded at once, and whose graphs training keeps
        at once; never less than one chunk. It bounds memory and changes results by rounding
        only: the chunks of a batch that go beyond it are encoded twice, once for the loss and
        once for their gradients (Gao et al., 2021, https://arxiv.org/abs/2101.06983). "auto"
        keeps what half of the free memory holds, at most 16384 on a CPU and 65536 elsewhere,
        and encodes at most 2048 or 32768 at once. What does not fit nevertheless is halved. In
        prediction a change takes effect without another fit.
    early_stopping : bool, default=False
        Whether to score held-out texts after each epoch, to stop when the score has not
        risen by `tol` for more than `n_iter_no_change` epochs in a row, and to keep the
        weights of the best epoch. {score_name} is the score.
    validation_fraction : float, default=0.1
        Share of the training texts that early stopping holds out, unless fit is given
        `X_val` and `y_val`.
    n_iter_no_change : int, default=2
        Epochs without a gain that early stopping bears.
    tol : float, default=1e-4
        The least gain of the score that counts.
    {class_weight}warm_start : bool, default=False
        Whether fit goes on from the weights of the last fit.
    device : str or torch.device, default="auto"
        Where to compute: "auto" is CUDA where there is one, else the CPU.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        What the encoder multiplies in: "bfloat16" is autocast, "auto" takes it where the
        hardware multiplies it natively: CUDA from Ampere on, CPUs with AVX512-BF16 or AMX.
        Weights and the head stay float32.
    callbacks : list, default=None
        Callbacks of skorch, run inside the fit. Each fit uses clones of them. Those of
        scikit-learn 1.9, such as its ProgressBar, are given to `set_callbacks` instead; `fit`
        tells them of its epochs and their batches.
    revision : str, default=None
        Branch, tag or commit of `model_name` on the Hub.
    local_files_only : bool, default=False
        Never ask the Hub.
    random_state : int, RandomState instance or None, default=None
        Of the head's first weights, dropout, the order and the drawn chunks of the texts.
        With an int, and on the same machine, two fits give the same weights bit for bit.
    verbose : int, default=0
        1 shows one progress bar per fit and per long prediction, and warns if `max_chunks` cuts
        training texts."""

ATTRIBUTES = """chunker_ : TextChunker
        Cuts the texts that come to predict.
    net_ : LongBertNet
        The skorch net that holds the network, on `device_`.
    history_ : list of dict
        One per epoch: `epoch`, `train_loss`, `learning_rate` (of the last step), `seconds`,
        and with validation texts `valid_loss` and `valid_score`.
    n_iter_ : int
        Epochs run.
    best_epoch_ : int
        The epoch, counted from 1, whose weights are kept.
    device_ : str
        Where the network is.
    n_chunks_ : ndarray of shape (n_samples,)
        Chunks read of each training text; those of weight 0 are left out.
    chunk_report_ : dict
        What :meth:`chunk_report` says of them."""

# What from_pretrained asks the Hub with, which a saved estimator keeps of its own.
LOOKUPS = {"revision", "local_files_only"}

EstimatorType = TypeVar("EstimatorType", bound=type)


def with_shared_docs(**words: str) -> Callable[[EstimatorType], EstimatorType]:
    """Fill {parameters}, {attributes} and then `words` in a class docstring."""

    def decorate(cls: EstimatorType) -> EstimatorType:
        assert cls.__doc__ is not None
        texts = {"parameters": PARAMETERS, "attributes": ATTRIBUTES, **words}
        for name, text in texts.items():
            cls.__doc__ = cls.__doc__.replace("{" + name + "}", text)
        return cls

    return decorate


class BaseLongBert(TextReader):
    """Parameters and training of both estimators, which add targets and outputs."""

    _parameter_constraints: dict[str, list[Any]] = {
        **TextChunker._parameter_constraints,
        "pooling": [StrOptions(set(POOLINGS))],
        "token_pooling": [StrOptions(set(TOKEN_POOLINGS))],
        "head_init": [StrOptions({"linear_probe", "random"})],
        "freeze_encoder": ["boolean"],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warmup_fraction": [Interval(Real, 0, 1, closed="both")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "attention_dropout": [Interval(Real, 0, 1, closed="left")],
        "micro_batch_tokens": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "callbacks": [list, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    _saved_attributes = frozenset(  # of a fit, beside the network and the chunker
        {
            "history_",
            "n_iter_",
            "best_epoch_",
            "n_chunks_",
            "chunk_report_",
            "_encoder_name",
            "_random_state",
        }
    )

    def __init__(
        self,
        model_name: str | PathLike[str] = _pretrained.DEFAULT_MODEL,
        *,
        chunk_size: int | None = None,
        chunk_overlap: int = 0,
        max_chunks: int | None = None,
        chunk_selection: str = "head",
        pooling: str = "mean",
        token_pooling: str = "mean",
        head_init: str = "linear_probe",
        freeze_encoder: bool = False,
        max_epochs: int = 3,
        batch_size: int = 8,
        learning_rate: float = 5e-5,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        max_grad_norm: float | None = 1.0,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        micro_batch_tokens: int | str = "auto",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        tol: float = 1e-4,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        callbacks: list[Any] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model_name = model_name
        self.chunk_size = chunk_size
        self.chunk_overlap = chunk_overlap
        self.max_chunks = max_chunks
        self.chunk_selection = chunk_selection
        self.pooling = pooling
        self.token_pooling = token_pooling
        self.head_init = head_init
        self.freeze_encoder = freeze_encoder
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.max_grad_norm = max_grad_norm
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.micro_batch_tokens = micro_batch_tokens
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.callbacks = callbacks
        self.revision = revision
        self.local_files_only = local_files_only
        self.random_state = random_state
        self.verbose = verbose

    # What the subclasses add: the loss, the linear probe, how targets are checked and become
    # tensors, and how validation texts are scored.
    _check_targets: Callable[..., NDArray[Any]]

    def _criterion(self) -> type[nn.Module]:
        raise NotImplementedError

    def _probe(self) -> Probe:
        raise NotImplementedError

    def _n_outputs(self) -> int:
        raise NotImplementedError

    def _encode_targets(self, y: NDArray[Any], name: str = "y") -> Tensor:
        raise NotImplementedError

    @staticmethod
    def _score_logits(logits: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any]) -> float:
        raise NotImplementedError

    @property
    def device_(self) -> str:
        """Where the network is."""
        return str(self.net_.device)

    def _check_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[Inputs, NDArray[Any], NDArray[np.float64]]:
        """Return inputs, targets and weights of the texts whose weight is not zero."""
        check_callbacks(self.callbacks)
        inputs = self._check_input(X)
        targets = self._check_targets(y)
        check_lengths(inputs, targets, "X", "y")
        weights = check_weights(sample_weight, inputs)
        kept = np.flatnonzero(weights)
        return take(inputs, kept), targets[kept], weights[kept]

    def _continues(self) -> bool:
        """Whether fit goes on from the last one.

        If not, the last one is forgotten, so that a fit that fails leaves an unfitted estimator
        and not the classes of one fit with the network of another.
        """
        if self.warm_start and hasattr(self, "net_"):
            return True
        self.__dict__.pop("net_", None)
        return False

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Save the fitted estimator as a folder that :meth:`from_pretrained` reads.

        The folder holds safetensors, the tokenizer and JSON, and nothing that is run when it is
        read; transformers' AutoModel opens the encoder in it. It is written beside its place, as
        ``.<name>.<random>.partial``, and renamed: whatever happens, what was saved there before
        stays readable until the new one is complete. Not kept are `callbacks`, metadata requests
        and the optimizer.

        Parameters
        ----------
        folder : str or path-like
            Its parents are made where they are missing. If it exists, it must be empty or hold
            nothing but what was saved there before, which is replaced.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        FileExistsError
            If the folder holds anything else.
        OSError
            If it cannot be written, for instance because the disk is full.
        TypeError
            If a parameter or a class label has no form in JSON.
        """
        check_is_fitted(self)
        if self.callbacks:
            warn(
                "callbacks are not saved: pass them again, set_params(callbacks=...), to what "
                "from_pretrained returns, or set callbacks=None before saving.",
                UserWarning,
                stacklevel=2,
            )
        fitted = {name: getattr(self, name) for name in self._saved_attributes}
        if not isinstance(self.random_state, Integral):
            del fitted["_random_state"]  # the parameter's own, or NumPy's global one
        save(
            folder,
            self.net_.module_,
            self.chunker_,
            estimator=get_tags(self).estimator_type,
            parameters={**self.get_params(deep=False), "callbacks": None},
            fitted=fitted,
        )

    @classmethod
    def from_pretrained(cls, model_name: str | PathLike[str], **parameters: Any) -> Self:
        """Return a fitted estimator: a saved one, or somebody else's fine-tuned checkpoint.

        What :meth:`save_pretrained` has saved predicts as it did, and is trained further in the
        same ways. Nothing in the folder is run, and every file is compared with its checksum.

        A checkpoint that was fine-tuned for sequence classification of short texts is applied to
        each chunk, and the logits are pooled, without training. Further training, by
        `partial_fit` or with ``warm_start=True``, starts there.

        Parameters
        ----------
        model_name : str or path-like
            Folder of :meth:`save_pretrained`; or Hub id or local folder of a checkpoint that
            transformers' AutoModelForSequenceClassification loads, of BERT, RoBERTa, XLM-RoBERTa,
            CamemBERT, MPNet, DistilBERT, ELECTRA, ALBERT or DeBERTa-v2 and -v3.
        **parameters : dict
            Of the estimator. Of a saved one, those that replace the saved parameters, such as
            `device`; what shapes the chunks and the network must stay what it was, and `revision`
            and `local_files_only` say how the Hub is asked for the folder. Of a checkpoint,
            `token_pooling` is "cls", which these heads read.

        Returns
        -------
        estimator : LongBertClassifier or LongBertRegressor
            The saved one, on the CPU where the device it was on is missing; or one with the
            checkpoint's labels, or numbers in its own unit.

        Raises
        ------
        ValueError
            If it holds neither, one for another kind of target, a saved estimator that is damaged
            or of another format, or a parameter is not as described.
        OSError
            If the Hub is needed and cannot be reached.

        Examples
        --------
        >>> from tempfile import mkdtemp
        >>> from sklearn_longbert import LongBertClassifier
        >>> texts, labels = ["A dull film. " * 40, "A lovely film. " * 40] * 4, [0, 1] * 4
        >>> classifier = LongBertClassifier(chunk_size=64, random_state=0).fit(texts, labels)
        >>> folder = mkdtemp()
        >>> classifier.save_pretrained(folder)
        >>> again = LongBertClassifier.from_pretrained(folder)
        >>> bool((again.decision_function(texts) == classifier.decision_function(texts)).all())
        True
        """
        saved = load(model_name)
        if saved is not None:
            return cls._from_saved(saved, parameters)
        estimator = cls(model_name, **{"token_pooling": "cls", **parameters})
        estimator._validate_params()
        folder = _pretrained.find_folder(model_name, estimator.revision, estimator.local_files_only)
        saved = load(folder)
        if saved is not None:
            return cls._from_saved(saved, parameters)
        if estimator.token_pooling != "cls":
            raise ValueError(
                'Heads for sequence classification read the first token: leave token_pooling="cls".'
            )
        config = _pretrained.load_config(folder)
        check_known_head(config, folder)
        order = estimator._take_labels(config)
        estimator._random_state = check_random_state(estimator.random_state)
        chunker = estimator._chunker_for([""]).fit()
        net = estimator._make_net(chunker, None, None, warmup_fraction=None)
        net.start(
            partial(
                network_from_checkpoint,
                folder,
                (estimator.dropout, estimator.attention_dropout),
                order,
                estimator.pooling,
                estimator.freeze_encoder,
            )
        )
        no_documents = np.array([], dtype=object)
        report = chunk_report(no_documents)
        estimator.__dict__.update(estimator._fitted(net, chunker, no_documents, report))
        return estimator

    @classmethod
    def _from_saved(cls, saved: Saved, parameters: dict[str, Any]) -> Self:
        kind = "classifier" if issubclass(cls, ClassifierMixin) else "regressor"
        if kind != saved.estimator:
            raise ValueError(
                f"The folder {saved.folder} holds a {saved.estimator}, which {cls.__name__} is "
                f"not: use LongBertClassifier.from_pretrained or LongBertRegressor.from_pretrained."
            )
        new = {name: value for name, value in parameters.items() if name not in LOOKUPS}
        unknown = new.keys() - cls._get_param_names()
        if unknown:
            raise TypeError(f"{cls.__name__} has no parameter {min(unknown)!r}.")
        try:
            estimator = cls(**{**saved.parameters, **new})
        except TypeError as error:
            raise ValueError(
                f"The estimator saved in {saved.folder} has other parameters than {cls.__name__} "
                f"({error}): load it with the class and the version that saved it, {saved.version}."
            ) from error
        estimator._validate_params()
        check_callbacks(estimator.callbacks)
        for name in saved.used.keys() & new.keys():
            if new[name] != saved.used[name]:
                raise ValueError(
                    f"{name}={new[name]!r}, but the saved estimator was fitted with {name}="
                    f"{saved.used[name]!r}, which shapes its chunks or its network: leave it out, "
                    f"or fit a new one."
                )
        warn_of_another_version(cls.__name__, saved.version)
        return estimator._restore(saved, anywhere="device" not in new)

    def _restore(self, saved: Saved, anywhere: bool) -> Self:
        """Take over what a fit of this estimator, which was saved, has learned."""
        try:
            self._check_saved(saved.fitted, saved.network.head.out_features)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise saved.damaged(f"what was fitted is wrong: {error}") from error
        self.__dict__.update(saved.fitted)
        self._random_state = np.random.RandomState(0)  # whose seed nobody will ask for
        chunker = saved.chunker
        net = self._make_net(chunker, None, None, warmup_fraction=None, anywhere=anywhere)
        net.start(lambda: saved.network)
        self.net_, self.chunker_ = net, chunker
        self._random_state = saved.fitted.get("_random_state") or check_random_state(
            self.random_state
        )
        return self

    def _check_saved(self, fitted: dict[str, Any], n_outputs: int) -> None:
        """Raise an error unless these could be attributes of a fit with so many outputs."""
        random_state = fitted.get("_random_state")
        if {"_random_state", *fitted} != self._saved_attributes or not (
            random_state is None or isinstance(random_state, np.random.RandomState)
        ):
            raise ValueError(f"it has the attributes {sorted(fitted)}")
        name, revision = fitted["_encoder_name"]
        history, counts = fitted["history_"], [fitted["n_iter_"], fitted["best_epoch_"]]
        if not (
            isinstance(name, str | PathLike)
            and isinstance(revision, str | None)
            and all(type(count) is int and 0 <= count < 2**31 for count in counts)
            and isinstance(history, list)
            and all(isinstance(value, int | float) for epoch in history for value in epoch.values())
            and isinstance(fitted["chunk_report_"], dict)
        ):
            raise ValueError("an attribute is of the wrong type")

    def _take_labels(self, config: Any) -> list[int]:
        """Take over what a checkpoint predicts; return the order of its outputs here."""
        raise NotImplementedError

    def _fit(
        self,
        task: FitTask,
        inputs: Inputs,
        y: NDArray[Any],
        weights: NDArray[np.float64],
        validation: tuple[Inputs, NDArray[Any]] | None,
        class_weights: NDArray[np.float64] | None = None,
    ) -> Self:
        """Train on checked inputs of which no weight is zero.

        Held-out texts are scored with `weights`; `class_weights`, of each text or of
        each of its labels, enter the training loss only.
        """
        # A name of its own, so that partial_fit draws on.
        self._random_state = check_random_state(self.random_state)
        previous = self.net_ if self.warm_start and hasattr(self, "net_") else None
        chunker = self._chunker_for(inputs)
        # The old one, because what was unpickled goes on where the folder does not exist.
        if previous is not None and chunker.get_params() == self.chunker_.get_params():
            chunker = self.chunker_
        else:
            chunker.fit()
        documents = self._chunk(inputs, chunker, "X")
        report = chunk_report(documents)
        if self.verbose:
            warn_of_cut_texts(report, chunker.max_chunks)
        rows: NDArray[np.intp] | slice = slice(None)
        held_out = None
        if validation is not None:
            X_val, y_val = validation
            chunked = self._chunk(X_val, chunker, "X_val")
            held_out = DocumentDataset(chunked, *self._tensors(y_val, np.ones(len(y_val)), "y_val"))
        elif self.early_stopping:
            rows, others = self._split(y)
            held_out = DocumentDataset(
                documents[others], *self._tensors(y[others], weights[others])
            )
        loss_weights = weights if class_weights is None else (class_weights.T * weights).T
        training = DocumentDataset(documents[rows], *self._tensors(y[rows], loss_weights[rows]))
        if held_out is not None and len(held_out) < 2 and not is_classifier(self):
            raise ValueError(
                "The coefficient of determination needs at least two held-out texts, got one: "
                "raise validation_fraction, or pass more X_val and y_val."
            )
        net = self._make_net(chunker, held_out, previous)

        def as_if_fitted(net: LongBertNet) -> dict[str, Any]:
            """Return what a copy of this estimator predicts with, whatever becomes of this one."""
            attributes = self._fitted(deepcopy(net), chunker, documents, report)
            return {**attributes, "_random_state": deepcopy(self._random_state)}

        # in training, the weights are those of the last epoch and not of the best
        reporter = TaskReporter(
            task, lambda net: {**as_if_fitted(net), "best_epoch_": len(net.history)}
        )
        net.callbacks = [*(net.callbacks or []), reporter]
        try:
            net.train(training, self.max_epochs)
        except BaseException:  # Ctrl-C, too: the traceback holds the net, and would its weights
            net.release()
            raise
        net.drop_optimizer()
        self.__dict__.update(self._fitted(net, chunker, documents, report))
        task.end(lambda: as_if_fitted(net))
        return self

    def _partial_fit(self, inputs: Inputs, y: NDArray[Any], weights: NDArray[np.float64]) -> Self:
        """Run one epoch at the full learning rate, going on from the present weights."""
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True: set it to False.")
        if not hasattr(self, "_random_state"):
            self._random_state = check_random_state(self.random_state)
        chunker = self.chunker_ if hasattr(self, "net_") else self._chunker_for(inputs).fit()
        documents = self._chunk(inputs, chunker, "X")
        training = DocumentDataset(documents, *self._tensors(y, weights))
        if hasattr(self, "net_"):
            net = self.net_
            net.__dict__.update(
                **self._training_settings(), warmup_fraction=None, seed=self._draw_seed()
            )
        else:
            net = self._make_net(chunker, None, None, warmup_fraction=None)
        try:
            net.train(training, 1)
        except BaseException as error:
            # what diverged would predict NaN, and so would every further training
            if isinstance(error, DivergedError) or not hasattr(self, "net_"):
                self.__dict__.pop("net_", None)
                net.release()
            raise
        self.__dict__.update(self._fitted(net, chunker, documents, chunk_report(documents)))
        return self

    def _tensors(
        self, y: NDArray[Any], weights: NDArray[np.float64], name: str = "y"
    ) -> tuple[Tensor, Tensor]:
        """Return targets, and weights scaled to mean 1 so that a batch's loss is a mean."""
        return self._encode_targets(y, name), torch.from_numpy(weights / weights.mean())

    def _split(self, y: NDArray[Any]) -> list[NDArray[np.intp]]:
        """Return the rows that train and those that early stopping holds out."""
        try:
            return train_test_split(
                np.arange(len(y)),
                test_size=self.validation_fraction,
                stratify=y if is_classifier(self) and y.ndim == 1 else None,
                random_state=self._draw_seed(),
            )
        except ValueError as error:
            raise ValueError(
                f"early_stopping=True cannot hold out validation_fraction="
                f"{self.validation_fraction} of {len(y)} texts, with some of each class: change "
                f"it, or pass texts of your own as X_val and y_val. ({error})"
            ) from error

    def _draw_seed(self) -> int:
        return int(self._random_state.randint(np.iinfo(np.int32).max))

    def _make_net(
        self,
        chunker: TextChunker,
        held_out: DocumentDataset | None,
        previous: LongBertNet | None,
        anywhere: bool = False,
        **settings: Any,
    ) -> LongBertNet:
        """Return a net that makes its network when it starts or trains.

        Where `anywhere` is set and the device is missing, it is on the one that "auto" is.
        """
        self._check_token_pooling(chunker)
        select_device = _pretrained.available_device if anywhere else _pretrained.select_device
        device = select_device(str(self.device))
        monitor = None
        if held_out is not None:
            monitor = ValidationMonitor(
                held_out, self._score_logits, self.early_stopping, self.n_iter_no_change, self.tol
            )
        settings = {"warmup_fraction": self.warmup_fraction, **settings}
        is_new = previous is None
        return LongBertNet(
            self._network_factory(previous),
            self._criterion(),
            autocast=_pretrained.select_autocast(self.precision, device),
            seed=self._draw_seed(),
            monitor=monitor,
            probe=self._probe() if is_new and self.head_init == "linear_probe" else None,
            device=str(device),
            **self._training_settings(),
            **settings,
        )

    def _training_settings(self) -> dict[str, Any]:
        """Return what a net in training takes over from the parameters at any time."""
        return {
            "lr": float(self.learning_rate),
            "batch_size": min(int(self.batch_size), sys.maxsize),  # torch takes no NumPy integer
            "weight_decay": float(self.weight_decay),
            "max_grad_norm": self.max_grad_norm,
            "micro_batch_tokens": self.micro_batch_tokens,
            "progress": bool(self.verbose),
            "callbacks": clone(self.callbacks, safe=False),
        }

    def _network_factory(self, previous: LongBertNet | None) -> Callable[[], LongBertNetwork]:
        """Return a function, because skorch would train a network itself on and on."""
        dropouts = (self.dropout, self.attention_dropout)
        settings: dict[str, Any] = {
            "pooling": self.pooling,
            "token_pooling": self.token_pooling,
            "dropout": self.dropout,
            "frozen": self.freeze_encoder,
        }
        if previous is not None:
            if self._encoder_name != (self.model_name, self.revision):
                name, revision = self._encoder_name
                raise ValueError(
                    f"warm_start=True goes on from the weights of {name!r}, revision={revision!r}, "
                    f"but the parameters are now model_name={self.model_name!r}, "
                    f"revision={self.revision!r}: set warm_start=False."
                )
            state = network_state(previous.module_)  # which may go on to predict
            return partial(network_from_state, state, dropouts, **settings)

        n_outputs = self._n_outputs()

        def make_network() -> LongBertNetwork:
            folder = _pretrained.find_folder(self.model_name, self.revision, self.local_files_only)
            encoder = self._load_encoder(folder, dropouts)
            return LongBertNetwork(encoder, n_outputs=n_outputs, **settings)

        return make_network

    def _load_encoder(self, folder: Any, dropouts: tuple[float, float]) -> nn.Module:
        return _pretrained.load_encoder(folder, *dropouts)

    def _fitted(
        self,
        net: LongBertNet,
        chunker: TextChunker,
        documents: NDArray[np.object_],
        report: dict[str, Any],
    ) -> dict[str, Any]:
        """Return the attributes of an estimator that these make a fitted one."""
        history = net.epochs()
        return {
            "net_": net,
            "chunker_": chunker,
            "n_chunks_": np.array([document.n_chunks for document in documents], dtype=np.intp),
            "chunk_report_": report,
            "_encoder_name": (self.model_name, self.revision),
            "history_": history,
            "n_iter_": len(history),
            "best_epoch_": net.best_epoch_ or len(history),
        }

    def _predict_logits(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the logits of texts, of shape (n_samples, n_outputs), in the caller's order."""
        check_is_fitted(self)
        inputs = self._check_input(X)
        dataset = DocumentDataset(self._chunk(inputs, self.chunker_, "X"))
        logits = self._ready_net().predict_logits(dataset, progress=bool(self.verbose))
        is_finite = np.isfinite(logits).all(axis=1)
        if not is_finite.all():
            raise ValueError(
                f"The logits of X at index {int(np.argmin(is_finite))} are NaN or infinite: the "
                f"weights of {type(self).__name__} are not those of a fit, or too large for "
                f"float32."
            )
        return logits

    def _ready_net(self) -> LongBertNet:
        """Return the net, with what of the parameters a prediction goes by."""
        # No fit is needed to lower it, so none has checked it.
        name, value = "micro_batch_tokens", self.micro_batch_tokens
        validate_parameter_constraints(
            {name: self._parameter_constraints[name]}, {name: value}, type(self).__name__
        )
        self.net_.micro_batch_tokens = value
        return self.net_

    def chunk_report(self, X: ArrayLike) -> dict[str, Any]:
        """Tell how long texts are, and how much of them a prediction reads.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or what TextChunker makes of them.

        Returns
        -------
        report : dict
            `n_texts`; `n_long_texts`, of more than one chunk; `chunks_per_text`, a dict of the
            quantiles min, median, 90 % and max; `n_tokens`, special ones not counted;
            `n_cut_texts`, that `max_chunks` cuts; `n_skipped_tokens`, that no chunk reads.

        Raises
        ------
        ValueError, TypeError
            If `X` is not an array of texts; the message names the index.

        Examples
        --------
        >>> from sklearn_longbert import LongBertClassifier
        >>> texts, labels = ["A dull film. " * 40, "A lovely film. " * 40] * 4, [0, 1] * 4
        >>> classifier = LongBertClassifier(chunk_size=64, max_chunks=2, random_state=0)
        >>> report = classifier.fit(texts, labels).chunk_report(["Short.", "Much longer. " * 100])
        >>> report["n_texts"], report["n_long_texts"], report["n_cut_texts"]
        (2, 1, 1)
        >>> report["n_tokens"], report["n_skipped_tokens"]
        (302, 176)
        """
        check_is_fitted(self)
        return chunk_report(self._chunk(self._check_input(X), self.chunker_, "X"))

    def explain(
        self, X: ArrayLike, *, level: str = "chunk", max_sentences: int | None = None
    ) -> list[DocumentExplanation]:
        """Tell which passages of each text decided, and by how much.

        At the level of chunks it costs one prediction and is exact: contributions add up to the
        text's logits. With `pooling` "mean" and "attention" a chunk contributes its own logits
        times its weight; with "max" the chunk with the largest logit of a class contributes all
        of it; with "logsumexp" the text's logit is divided in the shares of the softmax over the
        chunks. Passages do not overlap: of tokens that two chunks read the first half belongs to
        the earlier one. Where a class is recognised by what is missing, as one of two may be under
        "max", no passage speaks for it; with a column of zeros and ones for each class as `y`,
        each needs a passage of its own.

        At the level of sentences, each is left out in turn, the chunks that hold a part of it are
        encoded again without it, and its contribution is by how much the text's logits fall. Under
        "mean" that depends on these chunks alone. Other than with masked sampling (Stremmel et
        al., 2022, https://arxiv.org/abs/2203.11201), which leaves out many random spans at once
        and averages, each sentence is judged with all others in place. A sentence ends at
        ``.``, ``!``, ``?`` or ``…`` before white space, at ``。！？`` and at a line break.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts themselves, not what TextChunker makes of them.
        level : {"chunk", "sentence"}, default="chunk"
            What a passage is.
        max_sentences : int, default=None
            Of each text, at most so many sentences are left out in turn and shown: those of the
            chunks that contribute most to the class with the largest logit. None are all.

        Returns
        -------
        explanations : list of DocumentExplanation
            One a text.

        Raises
        ------
        ValueError, TypeError
            If `X` is not an array of texts, or a parameter is not as described.

        Examples
        --------
        >>> from sklearn_longbert import LongBertClassifier
        >>> texts, labels = ["A dull film. " * 40, "A lovely film. " * 40] * 4, [0, 1] * 4
        >>> classifier = LongBertClassifier(chunk_size=64, random_state=0).fit(texts, labels)
        >>> (explanation,) = classifier.explain(["A dull film. " * 40])
        >>> len(explanation), bool(explanation.passages[0].startswith("A dull film."))
        (3, True)
        >>> bool(abs(explanation.contributions.sum(0) - explanation.logits).max() < 1e-5)
        True
        """
        check_is_fitted(self)
        constraints = {
            "level": [StrOptions({"chunk", "sentence"})],
            "max_sentences": [Interval(Integral, 1, None, closed="left"), None],
        }
        given = {"level": level, "max_sentences": max_sentences}
        validate_parameter_constraints(constraints, given, f"{type(self).__name__}.explain")
        inputs = self._check_input(X)
        if isinstance(inputs, np.ndarray):
            raise TypeError(
                "X holds chunked documents, which do not know their texts: pass the texts "
                "themselves, whose passages explain shows."
            )
        documents = self.chunker_._cut(inputs, with_spans=True)
        net = self._ready_net()
        outputs = net.predict_chunks(DocumentDataset(documents), progress=bool(self.verbose))
        explained = [
            self._explain_chunks(text, document, rows.numpy())
            for text, document, rows in zip(inputs, documents, outputs, strict=True)
        ]
        if level == "chunk":
            return explained
        shows_one = bool(self.verbose) and len(explained) == 1
        shows_texts = bool(self.verbose) and not shows_one
        parts = zip(explained, documents, outputs, strict=True)
        with Bar(parts, total=len(explained), desc="explain", disable=not shows_texts) as bar:
            return [
                self._explain_sentences(one, document, rows, max_sentences, shows_one)
                for one, document, rows in bar
            ]

    def _explain_chunks(
        self, text: str, document: ChunkedDocument, outputs: NDArray[Any]
    ) -> DocumentExplanation:
        pooling = self.net_.module_.pooling
        pooled = POOLINGS[pooling](torch.from_numpy(outputs)).numpy()
        logits, probabilities, predicted = self._outcome(pooled)
        weights, chunk_logits = chunk_weights(outputs.astype(np.float64), pooling)
        chunk_logits = self._in_unit(chunk_logits)
        weighted = chunk_logits if pooling in WEIGHTS_OWN_LOGITS else logits
        bounds = passage_bounds(document, len(text))
        return DocumentExplanation(
            text=text,
            start=bounds[:, 0],
            end=bounds[:, 1],
            classes=self._explained_classes(),
            contributions=weights * weighted,
            logits=logits,
            probabilities=probabilities,
            predicted=predicted,
            chunk_logits=chunk_logits.astype(np.float32),
            chunk=np.arange(len(bounds)),
            level="chunk",
        )

    def _explain_sentences(
        self,
        explained: DocumentExplanation,
        document: ChunkedDocument,
        outputs: Tensor,
        most: int | None,
        is_shown: bool,
    ) -> DocumentExplanation:
        sentences = sentence_bounds(explained.text)
        passages = np.column_stack([explained.start, explained.end])
        of_passages = explained.contributions[:, explained.main_class]
        numbers = choose_sentences(sentences, passages, of_passages, most)
        chunks, owners = without_sentences(document, sentences[numbers])
        changed = np.empty((0, outputs.shape[1]))
        if chunks:
            array = np.empty(len(chunks), dtype=object)
            array[:] = chunks
            rows = self.net_.predict_chunks(DocumentDataset(array), progress=is_shown)
            changed = torch.cat(rows).numpy()
        falls = occlusion_contributions(
            outputs.numpy(), changed, owners, len(numbers), self.net_.module_.pooling
        )
        return replace(
            explained,
            start=sentences[numbers, 0],
            end=sentences[numbers, 1],
            contributions=falls * self._unit(),
            chunk_logits=None,
            chunk=numbers,
            level="sentence",
        )

    # What the subclasses add: the logits, probabilities and prediction of a text of these pooled
    # outputs, what is explained, and the unit of a logit.

    def _outcome(self, pooled: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None, Any]:
        raise NotImplementedError

    def _explained_classes(self) -> NDArray[Any]:
        raise NotImplementedError

    def _in_unit(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return logits

    def _unit(self) -> float | NDArray[np.float64]:
        return 1.0

    def _check_validation(
        self, X_val: ArrayLike | None, y_val: ArrayLike | None
    ) -> tuple[Inputs, NDArray[Any]] | None:
        if (X_val is None) != (y_val is None):
            given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
            raise ValueError(f"{given} was passed without {missing}: pass both or none.")
        if X_val is None:
            return None
        inputs = self._check_input(X_val, "X_val")
        targets = self._check_targets(y_val, "y_val")
        check_lengths(inputs, targets, "X_val", "y_val")
        return inputs, targets

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
