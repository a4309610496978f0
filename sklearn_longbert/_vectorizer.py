"""LongBertVectorizer, which turns each text into one embedding."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin, _fit_context
from sklearn.preprocessing import normalize
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from sklearn_longbert._encoding.encoder import (
    ChunkEncoder,
    encoder_from_state,
    encoder_state,
    quantized_from_state,
)
from sklearn_longbert._encoding.leader import leader_of, sharing
from sklearn_longbert._encoding.memory import own_modes
from sklearn_longbert._encoding.passes import Passes, document_embeddings
from sklearn_longbert._encoding.poolings import EMBEDDING_CONSTRAINTS
from sklearn_longbert._encoding.progress import Bar
from sklearn_longbert._fit_tasks import FitTask
from sklearn_longbert._plain import plain
from sklearn_longbert._pretrained.devices import (
    INFERENCE_CONSTRAINTS,
    available_devices,
    select_autocast,
    select_devices,
    select_inference,
)
from sklearn_longbert._pretrained.hub import DEFAULT_MODEL, find_folder
from sklearn_longbert._pretrained.loading import load_encoder
from sklearn_longbert._provenance import warn_of_another_version
from sklearn_longbert._saving.saved import Saved
from sklearn_longbert._saving.vectorizer import load, save
from sklearn_longbert._shared_docs import with_shared_docs
from sklearn_longbert._texts.chunker import TextChunker
from sklearn_longbert._texts.reader import Inputs, TextReader
from sklearn_longbert._texts.stretches import STREAM_TEXTS


@with_shared_docs(
    {
        "chunk_selection": """Which chunks are kept where `max_chunks` cuts, as in
        :class:`TextChunker`; "random" is "even" here.""",
        "micro_batch_tokens": """Most tokens, padding counted, that are encoded at once; never
        less than one chunk. "auto" is 2048 on a CPU and 32768 elsewhere. What does not fit is
        halved.""",
        "precision": """Type of the encoder's products: "bfloat16" is autocast, "auto" takes it
        where the hardware multiplies it natively: CUDA from Ampere on, CPUs with AVX512-BF16 or
        AMX. "int8" needs ``inference="openvino"`` and is calibrated on the first texts that are
        transformed, at least 32 different chunks.""",
        "verbose": "1 shows a progress bar where there are many texts.",
    }
)
class LongBertVectorizer(TransformerMixin, TextReader):
    """Turn texts of any length into embeddings of a pretrained encoder.

    The embedding of a text is the mean of its chunks' embeddings. Nothing is trained. Use it for
    linear models on frozen embeddings, for clustering and search, or beside other features in a
    FeatureUnion or ColumnTransformer. Any number of texts is encoded in bounded memory.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    chunker_ : TextChunker
        The chunker that cuts the texts.
    encoder_ : ChunkEncoder
        The encoder with its token pooling, on `device_`.
    device_ : str
        Device of the encoder.

    See Also
    --------
    LongBertClassifier : Train the encoder, too.

    Examples
    --------
    >>> from sklearn_longbert import LongBertVectorizer
    >>> vectorizer = LongBertVectorizer(norm="l2").fit()
    >>> cat, kitten, tax = vectorizer.transform(["A cat. " * 300, "A kitten.", "Income tax."])
    >>> bool(cat @ kitten > cat @ tax)
    True
    >>> vectorizer.get_feature_names_out()[:2]
    array(['longbertvectorizer_layer6_mean_0',
           'longbertvectorizer_layer6_mean_1'], dtype=object)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        **TextChunker._parameter_constraints,
        **EMBEDDING_CONSTRAINTS,
        "micro_batch_tokens": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "device": [str, torch.device, list, tuple],
        **INFERENCE_CONSTRAINTS,
        "verbose": ["verbose"],
        "norm": [StrOptions({"l2"}), None],
    }

    def __init__(
        self,
        model_name: str | PathLike[str] = DEFAULT_MODEL,
        *,
        chunk_size: int | None = None,
        chunk_overlap: int = 0,
        max_chunks: int | None = None,
        chunk_selection: str = "head",
        missing: str = "error",
        token_pooling: str = "auto",
        layers: str | tuple[int, ...] = "last",
        norm: str | None = None,
        micro_batch_tokens: int | str = "auto",
        device: str | torch.device | Sequence[str | torch.device] = "auto",
        precision: str = "auto",
        inference: str = "torch",
        revision: str | None = None,
        local_files_only: bool = False,
        verbose: int = 0,
    ) -> None:
        self.model_name = model_name
        self.chunk_size = chunk_size
        self.chunk_overlap = chunk_overlap
        self.max_chunks = max_chunks
        self.chunk_selection = chunk_selection
        self.missing = missing
        self.token_pooling = token_pooling
        self.layers = layers
        self.norm = norm
        self.micro_batch_tokens = micro_batch_tokens
        self.device = device
        self.precision = precision
        self.inference = inference
        self.revision = revision
        self.local_files_only = local_files_only
        self.verbose = verbose

    @property
    def device_(self) -> str:
        """Device of the encoder."""
        return str(self.encoder_.device)

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike | None = None, y: object = None) -> Self:
        """Load encoder and tokenizer; nothing is learned from the texts.

        Parameters
        ----------
        X : array-like of shape (n_samples,), default=None
            Texts, or documents that TextChunker made of them, whose settings are then taken over.
        y : object, default=None
            Ignored.

        Returns
        -------
        self : LongBertVectorizer

        Raises
        ------
        ValueError
            If `X` or the parameters are not as described, or the encoder cannot be loaded.
        TypeError
            If `X` is not an array-like of str.
        OSError
            If the Hub is needed and cannot be reached.
        """
        task = FitTask.of(self, X, y)
        inputs: Inputs = [""] if X is None else self._check_input(X)
        chunker = self._chunker_for(inputs).fit()
        self._check_token_pooling(self.token_pooling, chunker)
        if X is not None and not isinstance(inputs, list):
            self._chunk(inputs[:1], chunker, "X")  # all are cut alike
        devices = select_devices(plain(self.device))
        self._select_inference(devices)
        folder = find_folder(self.model_name, self.revision, self.local_files_only)
        token_pooling = self._token_pooling_of(folder, chunker)
        encoder = load_encoder(folder, 0.0, 0.0)
        network = ChunkEncoder(encoder, token_pooling, plain(self.layers))
        self._set_fitted(network, chunker, devices)
        task.end(dict)
        return self

    def _set_fitted(
        self, network: ChunkEncoder, chunker: TextChunker, devices: list[torch.device]
    ) -> Self:
        """Set every fitted attribute. No other method sets any."""
        self.encoder_ = network.to(devices[0]).eval()
        self.chunker_ = chunker
        self._devices = [str(device) for device in devices]
        return self

    def _select_inference(self, devices: list[torch.device]) -> str:
        return select_inference(plain(self.inference), plain(self.precision), devices)

    def _passes(self) -> Passes:
        """Return the passes of the present parameters, which may have changed since the fit."""
        self._validate_params()
        device = self.encoder_.device
        return Passes(
            plain(self.micro_batch_tokens),
            device,
            select_autocast(plain(self.precision), device),
            inference=self._select_inference([torch.device(name) for name in self._devices]),
        )

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the embedding of each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts: a list, tuple, NumPy array, or pandas, polars or pyarrow column of str; or
            documents or a TokenStore that TextChunker made of them.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, n_features), dtype float32

        Raises
        ------
        ValueError, TypeError
            If `X` is not an array of texts; the message names the index.
        """
        check_is_fitted(self)
        inputs = self._check_input(X)
        passes = self._passes()
        embeddings = np.empty((len(inputs), self.encoder_.embedding_size), dtype=np.float32)
        is_short = not self.verbose or len(inputs) <= STREAM_TEXTS
        with (
            sharing(self._devices, self.encoder_, passes.autocast),
            Bar(total=len(inputs), desc="transform", disable=is_short) as bar,
        ):
            passes = replace(passes, leader=leader_of(self.encoder_))
            for rows, documents in self._stretches(inputs, self.chunker_):
                with own_modes(passes.device):
                    part = document_embeddings(self.encoder_, documents, passes)
                embeddings[rows] = part.numpy()
                bar.update(rows.stop - rows.start)
        if self.norm is None:
            return embeddings
        parts = embeddings.reshape(-1, self.encoder_.encoder.config.hidden_size)
        scaled = normalize(parts, norm=self.norm, copy=False).reshape(embeddings.shape)
        return scaled / np.float32(np.sqrt(len(self.encoder_.blocks)))

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Return the names of the features, each of which tells its layer and kind of pooling.

        Parameters
        ----------
        input_features : object
            Ignored.

        Returns
        -------
        names : ndarray of shape (n_features,), dtype object
            Such as "longbertvectorizer_layer6_mean_0", where layer 0 is the embeddings.
        """
        check_is_fitted(self)
        prefix, size = type(self).__name__.lower(), self.encoder_.encoder.config.hidden_size
        names = [
            f"{prefix}_layer{layer}_{kind}_{column}"
            for layer, kind in self.encoder_.blocks
            for column in range(size)
        ]
        return np.array(names, dtype=object)

    # Saving

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Save the fitted vectorizer as a folder that :meth:`from_pretrained` reads.

        The folder holds safetensors, the tokenizer and JSON, and nothing that is run when it is
        read. transformers' AutoModel opens the encoder in it. The folder is written beside its
        place, loaded again, and then renamed. :meth:`LongBertClassifier.save_pretrained` says
        which files of git and the Hub are carried over.

        Parameters
        ----------
        folder : str or path-like
            Folder to save in. Missing parent folders are made. If it exists, it must hold nothing
            but what was saved before, which is replaced, and files of git and the Hub, which are
            carried over.

        Raises
        ------
        NotFittedError
            If the vectorizer is not fitted.
        FileExistsError
            If the folder holds anything else.
        OSError
            If it cannot be written, for instance because the disk is full, or what was written
            cannot be loaded again. What was there before is unchanged.
        TypeError
            If a parameter has no form in JSON.
        """
        check_is_fitted(self)
        save(
            folder,
            self.encoder_,
            self.chunker_,
            plain(self.get_params(deep=False)),
            check=lambda saved: saved.make(type(self), {}),
        )

    @classmethod
    @torch.inference_mode(False)
    def from_pretrained(cls, model_name: str | PathLike[str], **parameters: Any) -> Self:
        """Return a fitted vectorizer that was saved by :meth:`save_pretrained`.

        Its embeddings are the same, to the last bit. Nothing in the folder is run, and every file
        is compared with its checksum.

        Parameters
        ----------
        model_name : str or path-like
            Folder of :meth:`save_pretrained`, or its Hub id.
        **parameters : dict
            Parameters that replace the saved ones, such as `device` or `norm`. Those that shape
            the chunks, and `token_pooling`, must keep their values. `revision` and
            `local_files_only` say how the Hub is asked for the folder.

        Returns
        -------
        vectorizer : LongBertVectorizer
            On the device of "auto" if its own device is missing.

        Raises
        ------
        ValueError
            If the folder holds no vectorizer, or one that is damaged or of another format; or if
            a parameter is not as described.
        OSError
            If the Hub is needed and cannot be reached.

        Examples
        --------
        >>> from tempfile import mkdtemp
        >>> from sklearn_longbert import LongBertVectorizer
        >>> vectorizer, folder = LongBertVectorizer(chunk_size=64).fit(), mkdtemp()
        >>> vectorizer.save_pretrained(folder)
        >>> again = LongBertVectorizer.from_pretrained(folder)
        >>> bool((again.transform(["A cat. "]) == vectorizer.transform(["A cat. "])).all())
        True
        """
        saved = load(model_name)
        if saved is None:
            vectorizer = cls(model_name, **parameters)
            vectorizer._validate_params()
            revision, local = vectorizer.revision, vectorizer.local_files_only
            folder = find_folder(model_name, revision, local)
            saved = load(folder)
            if saved is None:
                raise ValueError(
                    f"The folder {folder} holds no saved vectorizer: to make one of its encoder, "
                    f"fit {cls.__name__}(model_name={str(model_name)!r})."
                )
        return cls._from_saved(saved, parameters)

    @classmethod
    def _from_saved(cls, saved: Saved, parameters: dict[str, Any]) -> Self:
        vectorizer = saved.make(cls, parameters)
        warn_of_another_version(cls.__name__, saved.version)
        choose_devices = select_devices if "device" in parameters else available_devices
        devices = choose_devices(plain(vectorizer.device))
        return vectorizer._set_fitted(saved.network, saved.chunker, devices)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "encoder_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        tags.transformer_tags.preserves_dtype = []  # the input holds texts
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Keep plain values, and weights as NumPy arrays, on no device."""
        state = super().__getstate__()
        if "encoder_" in state:
            # from fit; the parameters may be new
            names = ("token_pooling", "layers")
            settings = {name: getattr(self.encoder_, name) for name in names}
            state["encoder_"] = {**encoder_state(self.encoder_), "settings": settings}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "encoder_" in state:
            devices = available_devices(state["_devices"])
            encoder, weights = encoder_from_state(state["encoder_"])
            network = ChunkEncoder(encoder, **state["encoder_"]["settings"])
            network.load_state_dict(weights, assign=True)
            network.quantized = quantized_from_state(state["encoder_"])
            state["encoder_"] = network.to(devices[0]).eval()
            state["_devices"] = [str(device) for device in devices]
        super().__setstate__(state)
