"""LongBertEstimator, the methods of fitted estimators: report, explain, save and load."""

from functools import partial
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, Self
from warnings import warn

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted

from sklearn_longbert._base import BaseLongBert
from sklearn_longbert._baselines.choose import baseline_from_state, baseline_state, check_same
from sklearn_longbert._encoding.hidden_states import layer_numbers
from sklearn_longbert._explaining.explain import explain
from sklearn_longbert._explaining.explanation import DocumentExplanation
from sklearn_longbert._plain import plain
from sklearn_longbert._pretrained.hub import find_folder
from sklearn_longbert._pretrained.loading import load_config
from sklearn_longbert._provenance import warn_of_another_version
from sklearn_longbert._saving.checkpoint import (
    TAKEN_BY_HEADS,
    check_known_head,
    network_from_checkpoint,
    targets_of_checkpoint,
)
from sklearn_longbert._saving.estimator import load, save
from sklearn_longbert._saving.saved import SavedEstimator
from sklearn_longbert._targets.targets import targets_from_state, targets_state
from sklearn_longbert._texts.documents import chunk_report
from sklearn_longbert._texts.reader import texts_of
from sklearn_longbert._training.net import LongBertNet
from sklearn_longbert._training.user_callbacks import check_callbacks


class LongBertEstimator(BaseLongBert):
    """Both estimators with all but their targets and outputs."""

    def chunk_report(self, X: ArrayLike) -> dict[str, Any]:
        """Report how long texts are, and how much of them is kept for a prediction.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or documents or a TokenStore that TextChunker made of them.

        Returns
        -------
        report : dict
            Numbers of texts and tokens: `n_texts`; `n_long_texts`, those of more than one chunk;
            `chunks_per_text`, a dict of the quantiles min, median, 90 % and max; `n_tokens`,
            special tokens not counted; `n_cut_texts`, the texts that `max_chunks` cuts;
            `n_skipped_tokens`, the tokens that are in no kept chunk; `n_unknown_tokens`, the
            tokens that stand for anything that the tokenizer does not know; `unknown_share`, the
            share of the characters under them.

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
        (302, 177)
        """
        check_is_fitted(self)
        return chunk_report(self._chunk(self._check_input(X), self.chunker_, "X"))

    def explain(
        self, X: ArrayLike, *, level: str = "chunk", max_sentences: int | None = None
    ) -> list[DocumentExplanation]:
        """Explain which passages of each text decided, and by how much.

        At the level of chunks an explanation encodes each chunk once and is exact: contributions
        and `base_value` add up to the text's logits, or to a regressor's prediction. The n-grams of
        the baseline "words" contribute where they stand; what another baseline says has no place in
        the text and is in `base_value`. With `pooling` "mean" and "attention", a chunk contributes
        its own logits times its weight. With "max", the chunk with the largest logit of a class
        contributes all of it. With "logsumexp", the text's logit is divided among the chunks by the
        softmax of their logits. Passages do not overlap: tokens that two chunks share belong to the
        earlier one. If a class is recognised by what is missing, as one of two classes may be under
        "max", no passage speaks for it. If `y` has a column of zeros and ones for each class, each
        class needs a passage of its own.

        At the level of sentences, each sentence is left out in turn. The chunks that hold a part of
        it are encoded again without it, and its contribution is by how much the encoder's logits
        fall, and what its n-grams contribute. Under "mean" the contribution depends on these chunks
        alone. Masked sampling (Stremmel et al., 2022, https://arxiv.org/abs/2203.11201) leaves out
        many random spans at once and averages; here each sentence is judged with all others in
        place. A sentence ends at ``.``, ``!``, ``?`` or ``…`` before white space or a tag, at the
        full stops of other scripts such as ``。``, ``।`` and ``؟``, and at a line break. Closing
        quotation marks, brackets and tags after the mark belong to it.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or documents or a TokenStore that TextChunker made of them.
        level : {"chunk", "sentence"}, default="chunk"
            Kind of the passages.
        max_sentences : int, default=None
            Most sentences of each text that are left out in turn and shown: those of the chunks
            that contribute most to the class with the largest logit. None is all sentences.

        Returns
        -------
        explanations : list of DocumentExplanation
            One explanation per text.

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
        >>> total = explanation.base_value + explanation.contributions.sum(0)
        >>> bool(abs(total - explanation.logits).max() < 1e-5)
        True
        """
        check_is_fitted(self)
        constraints = {
            "level": [StrOptions({"chunk", "sentence"})],
            "max_sentences": [Interval(Integral, 1, None, closed="left"), None],
        }
        given = {"level": level, "max_sentences": max_sentences}
        validate_parameter_constraints(constraints, given, f"{type(self).__name__}.explain")
        inputs = self._check_input(X, needs_texts=True)
        if not isinstance(inputs, list):
            documents = self._chunk(inputs, self.chunker_, "X")
        if not isinstance(inputs, np.ndarray):  # a store does not keep the places of tokens
            documents = self.chunker_._cut(texts_of(inputs), with_spans=True)
        self._set_passes()
        how = (level, plain(max_sentences), bool(self.verbose))
        with self.net_.sharing():
            return explain(
                texts_of(inputs), documents, self.net_, self._baseline, self._targets, *how
            )

    # Saving

    def __getstate__(self) -> dict[str, Any]:
        """Keep plain values and NumPy arrays, which skops takes as well as pickle."""
        state = super().__getstate__()
        if "net_" in state:
            state["net_"] = self.net_.__getstate__()
            state["_targets"] = targets_state(self._targets)
            if self._baseline is not None:
                state["_baseline"] = baseline_state(self._baseline, in_pickle=True)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "net_" in state:
            net = LongBertNet.__new__(LongBertNet)
            net.__setstate__(state["net_"])
            targets = targets_from_state(state["_targets"])
            state.update(net_=net, _targets=targets)
            if state["_baseline"] is not None:
                state["_baseline"] = baseline_from_state(state["_baseline"], targets)
        super().__setstate__(state)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Save the fitted estimator as a folder that :meth:`from_pretrained` reads.

        The folder holds safetensors, the tokenizer and JSON, and nothing that is run when it is
        read. transformers' AutoModel opens the encoder in it. The folder is written beside its
        place, as ``.<name>.<random>.partial``, and then renamed: whatever happens, the folder that
        was there before stays readable until the new one is complete and was loaded again.
        Parameters are saved as plain values: NumPy's float32 as a float, for instance.
        `callbacks`, a callable `scoring`, metadata requests and the optimizer are not saved.

        A clone of a repository stays one. These files and folders are carried over into the new
        folder, as hard links where the file system has them: ``.git*``, ``.cache``,
        ``.huggingface``, ``README*``, ``LICENSE*`` and ``NOTICE*``. Let no git command run there
        while the folder is saved.

        Parameters
        ----------
        folder : str or path-like
            Folder to save in. Missing parent folders are made. If it exists, it must hold nothing
            but what was saved before, which is replaced, and the files that are carried over.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        FileExistsError
            If the folder holds anything else.
        OSError
            If it cannot be written, for instance because the disk is full, or what was written
            cannot be loaded again. What was there before is unchanged.
        TypeError
            If a parameter or a class label has no form in JSON.
        """
        check_is_fitted(self)
        unsaved = ["callbacks"] if self.callbacks else []
        unsaved += ["scoring"] if callable(self.scoring) else []
        for name in unsaved:
            warn(
                f"The parameter {name} is not saved: pass it again, set_params({name}=...), to "
                f"what from_pretrained returns, or set {name}=None before saving.",
                UserWarning,
                stacklevel=2,
            )
        # without an int, the state is the parameter's own or NumPy's global one
        keeps_random_state = isinstance(self.random_state, Integral)
        save(
            folder,
            _kind_of(type(self)),
            self.net_.module_,
            self.chunker_,
            self._targets,
            self._baseline,
            parameters=plain({**self.get_params(deep=False), **dict.fromkeys(unsaved)}),
            fitted={
                "history": self.history_,
                "best_epoch": self.best_epoch_,
                "fine_tuning_share": self.fine_tuning_share_,
                "n_chunks": self.n_chunks_,
                "chunk_report": self.chunk_report_,
                "encoder_name": self._encoder_name,
                "random_state": self._random_state if keeps_random_state else None,
                "baseline_scales": self.net_.baseline_scales,
            },
            check=lambda saved: self._made_of(saved, {}),
        )

    @classmethod
    @torch.inference_mode(False)  # the caller's would make weights that cannot be trained
    def from_pretrained(cls, model_name: str | PathLike[str], **parameters: Any) -> Self:
        """Return a fitted estimator: a saved one, or somebody else's fine-tuned checkpoint.

        An estimator saved by :meth:`save_pretrained` predicts as before, and is trained further in
        the same ways. Nothing in the folder is run, and every file is compared with its checksum.

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
            Parameters of the estimator. For a saved estimator they replace the saved ones, such
            as `device`. Those that shape the chunks and the network must keep their values.
            `revision` and `local_files_only` say how the Hub is asked for the folder. For a
            checkpoint, `token_pooling` is "cls" and `layers` is "last", because these heads take
            the last layer's first token. `baseline` is None, because nobody has fitted one.

        Returns
        -------
        estimator : LongBertClassifier or LongBertRegressor
            The saved estimator, on the device of "auto" if its own device is missing; or an
            estimator of the checkpoint's labels, or of numbers in the checkpoint's own unit.

        Raises
        ------
        ValueError
            If the folder holds neither, or one for another kind of target; if a saved estimator
            is damaged or of another format; or if a parameter is not as described.
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
        kind = _kind_of(cls)
        saved = load(model_name, kind)
        if saved is None:
            estimator = cls(model_name, **{**TAKEN_BY_HEADS, **parameters})
            estimator._validate_params()
            folder = find_folder(model_name, estimator.revision, estimator.local_files_only)
            saved = load(folder, kind)
            if saved is None:
                return estimator._start_at_checkpoint(folder)
        return cls._from_saved(saved, parameters)

    @classmethod
    def _made_of(cls, saved: SavedEstimator, parameters: dict[str, Any]) -> Self:
        """Return an estimator that is not fitted yet, whose parameters suit what was fitted."""
        estimator: Self = saved.make(cls, parameters)
        check_callbacks(estimator.callbacks)
        check_same(estimator.baseline, saved.fitted["baseline"], saved.targets)
        return estimator

    @classmethod
    def _from_saved(cls, saved: SavedEstimator, parameters: dict[str, Any]) -> Self:
        estimator = cls._made_of(saved, parameters)
        warn_of_another_version(cls.__name__, saved.version)
        random_state = saved.fitted.pop("random_state") or check_random_state(
            estimator.random_state
        )
        net = estimator._make_net(
            saved.chunker,
            saved.targets,
            np.random.RandomState(0),  # its seed has no effect here
            anywhere="device" not in parameters,
            warmup_fraction=None,
            baseline_scales=saved.fitted.pop("baseline_scales"),
        )
        net.start(lambda: saved.network)
        return estimator._set_fitted(net, saved.chunker, saved.targets, random_state, saved.fitted)

    def _start_at_checkpoint(self, folder: Path) -> Self:
        """Take over the encoder and the head that somebody else fine-tuned."""
        config = load_config(folder)
        n_layers = config.num_hidden_layers
        takes_last = layer_numbers(self.layers, n_layers) == (n_layers,)
        if self.token_pooling not in ("auto", "cls") or not takes_last:
            raise ValueError(
                "Heads for sequence classification take the last layer's first token: leave "
                'token_pooling="cls" and layers="last".'
            )
        check_known_head(config, folder)
        targets, order = targets_of_checkpoint(config, _kind_of(type(self)))
        if self.baseline is not None:
            raise ValueError(
                "A checkpoint has no baseline: leave baseline=None, or pass the checkpoint as "
                "model_name to an estimator and fit it."
            )
        random_state = check_random_state(self.random_state)
        chunker = self._chunker_for([""]).fit()
        net = self._make_net(chunker, targets, random_state, warmup_fraction=None)
        dropouts = (plain(self.dropout), plain(self.attention_dropout))
        net.start(
            partial(
                network_from_checkpoint,
                folder,
                dropouts,
                order,
                plain(self.pooling),
                plain(self.freeze_encoder),
            )
        )
        learned = self._learned(net, np.array([], dtype=object), None)
        return self._set_fitted(net, chunker, targets, random_state, learned)


def _kind_of(cls: type) -> str:
    return "classifier" if issubclass(cls, ClassifierMixin) else "regressor"
