"""The documentation of parameters and attributes, written once for all classes.

Invariant: the names and defaults of parameters come from the signature of a class.
"""

import inspect
from collections.abc import Callable
from typing import TypeVar

ClassType = TypeVar("ClassType", bound=type)

# type and meaning of each parameter
PARAMETERS = {
    "model_name": (
        "str or path-like",
        "Hub id or local folder of any encoder that transformers' AutoModel loads.",
    ),
    "chunk_size": (
        "int",
        """Most tokens of a chunk, special tokens included. None is the encoder's limit, at most
        512. A text whose chunks are all kept is cut into chunks of about equal length. They end
        where a paragraph, else a sentence, else a word ends.""",
    ),
    "chunk_overlap": (
        "int",
        """Tokens that a chunk repeats from the one before. New text begins where that one ends.""",
    ),
    "max_chunks": (
        "int",
        """Most chunks of a text that are kept; None keeps all. 1 is the usual truncation. A text
        that it cuts has chunks as full as whole words allow.""",
    ),
    "chunk_selection": (
        '{"head", "tail", "head_tail", "even", "random"}',
        """Chunks that are kept where `max_chunks` cuts. "head" keeps the first and "tail" the last.
        "head_tail" keeps half of them from each end, and an odd one from the head. "even" keeps
        the middle chunks of equal stretches. "random" draws chunks anew in each epoch of
        training, and is "even" in prediction.""",
    ),
    "missing": (
        '{"error", "empty"}',
        """What a missing text is: an error that names its index, or an empty text. Missing are
        None, NaN, pd.NA, NaT, masked elements and nulls.""",
    ),
    "pooling": (
        '{"mean", "max", "logsumexp", "attention"}',
        """How the logits of a text's chunks become the logits of the text. "mean" suits a
        property of the whole text, such as its topic. "max", taken class by class, suits a
        property that a single place in the text decides. "logsumexp", the logarithm of the mean
        of the chunks' exponentials, lies between them: larger logits have larger shares, and K
        equal chunks have the logits of one. "attention" is a mean with one weight per chunk. The
        weights begin equal and are learned from the embeddings (gated attention, Ilse et al.,
        2018, https://arxiv.org/abs/1802.04712).""",
    ),
    "token_pooling": (
        '{"auto", "mean", "max", "mean_max", "cls"}',
        """How hidden states become the embedding of a chunk: their mean over the real tokens, their
        maximum column by column, both side by side, or the hidden state of the first token.
        "auto" is mean and maximum unless `layers` is "last". Then it takes what a folder of
        sentence-transformers states in its file 1_Pooling/config.json, and the mean where there
        is none. A saved estimator keeps the pooling that its fit has used.""",
    ),
    "layers": (
        '{"last", "spread"} or tuple of int',
        """The layers whose hidden states become the embedding of a chunk. Their embeddings stand
        side by side, so that several layers make a larger embedding, by the same pass of the
        encoder. "spread" is the token embeddings, the middle layer and the last one. In a tuple 0
        is the token embeddings, 1 the first layer, and negative numbers count from the end.""",
    ),
    "baseline": (
        '"words", estimator or None',
        """A model of the raw texts on whose logits the encoder builds, as boosting builds on a base
        margin. "words" is a linear model of words and punctuation marks, and one of characters,
        both with their case. Any estimator of texts with `predict_proba` or `decision_function`
        (of a regressor, `predict`) may stand in its place. What it says of texts that it was not
        fitted on is added to the logits in training, so the encoder learns what the baseline
        leaves unexplained. In prediction a baseline that is fitted on all training texts is
        added. It and the linear probe are scaled, each model by a factor that is not negative, so
        that the loss of the sum on texts that they were not fitted on is least. Few texts, or few
        groups of them, hardly move the factors from equal ones. It reads the whole text, whatever
        `max_chunks` says. `predict` needs the texts, which documents of TextChunker keep.
        `partial_fit` and `warm_start` keep the baseline of the first fit: later calls of
        `partial_fit` need other texts, of which the baseline has seen no labels. For an estimator,
        the first call needs texts of at least two classes.""",
    ),
    "head_init": (
        '{"linear_probe", "random"}',
        """Where the head starts. "random" starts it at random weights, scaled so that each layer
        and kind of pooling has the same say. "linear_probe" starts it at a linear model of the
        encoder's own embeddings of the training texts (Kumar et al., 2022,
        https://arxiv.org/abs/2202.10054). Cross-validation chooses the regularisation of this
        model, first by 2,000 texts if there are more. With `pooling` "mean" and "attention" it is
        a model of the mean embeddings of texts. With "max" and "logsumexp" it is a model of
        chunks, fitted to the loss of the pooled logits: it finds a passage that decides even where
        the mean would hide it. Where an embedding has several parts, a second model is of the
        highest layer alone (its mean, with "mean_max"). The head starts at a mixture of both, by
        what they say of texts that they were not fitted on; where "max" or "logsumexp" pools
        several chunks, at the better one. The logits are scaled so that the loss of such texts is
        least: so the head is no more certain than it may be. The first call of `partial_fit`
        starts at the linear model of its own texts. A fit with `warm_start` goes on from the
        present head.""",
    ),
    "freeze_encoder": (
        "bool",
        """Whether to train only the head, and the attention of `pooling` if any. Each chunk is then
        encoded once per fit, without dropout. Inputs of the head are dropped anew in each epoch.
        A process remembers the embeddings: the latest 512 MB of them, and at most
        256 MB of one set of texts, such as 29,000 chunks of the default encoder. So a grid
        search over parameters of the head encodes each fold once. Each process of `n_jobs`
        remembers its own embeddings.""",
    ),
    "fine_tuning_share": (
        'float or "auto"',
        """Share of the way from the weights before training to those after it at which the fitted
        weights are, above 0 and at most 1 (WiSE-FT, Wortsman et al., 2022,
        https://arxiv.org/abs/2109.01903). A few dozen texts move an encoder farther than they tell
        it where to go: less than the whole way keeps most of the gain, and probabilities stay
        honest. "auto" takes the share with the least loss of the validation texts: 0 (the weights
        before training), a quarter, a half, three quarters or the whole, which costs five
        predictions of them. Unless `pooling` is "logsumexp", the logits are then
        multiplied by the scale, 1 at most, at which this loss is least (temperature scaling, Guo
        et al., 2017, https://arxiv.org/abs/1706.04599); a few texts hardly move it from 1. Of more
        than 500 training texts without validation texts, "auto" holds out a tenth for this, 500
        at most, which do not train. With fewer, or if rare classes leave nothing to hold out, the
        share is n / (n + 50 c) with n training texts and c classes, labels or targets, and .6 at
        most: a half with 50 texts a class, .6 from 75 on. Equal texts count once, and so do the
        texts of a group. Only a first fit whose head starts at the linear probe is averaged. With
        ``head_init="random"``, `warm_start` and `partial_fit` the weights are those after
        training. `fine_tuning_share_` is the share that was taken.""",
    ),
    "max_epochs": ("int", "Number of passes over the training texts."),
    "batch_size": ("int", "Number of texts per optimizer step, whatever their length."),
    "learning_rate": (
        "float",
        "Highest learning rate of AdamW: it rises linearly, then falls linearly.",
    ),
    "weight_decay": ("float", "AdamW's weight decay; biases and norms are spared."),
    "warmup_fraction": ("float", "Share of the steps in which the learning rate rises."),
    "max_grad_norm": (
        "float",
        "Gradients of a larger norm are scaled down to it. None never scales them.",
    ),
    "dropout": (
        "float",
        "Probability with which hidden states and inputs of the head are dropped in training.",
    ),
    "attention_dropout": (
        "float",
        """Probability with which attention weights are dropped in training. 0 keeps the fused
        attention kernels, which are much faster. With another value, if the encoder takes padded
        chunks, the dropped weights depend on `micro_batch_tokens`.""",
    ),
    "micro_batch_tokens": (
        'int or "auto"',
        """Most tokens, padding counted, that are encoded at once, and whose graphs training keeps
        at once; never less than one chunk. It bounds memory and changes results by rounding
        only: the chunks of a batch that go beyond it are encoded twice, once for the loss and
        once for their gradients (Gao et al., 2021, https://arxiv.org/abs/2101.06983). "auto"
        keeps the graphs of as many tokens as fit into half of the free memory, at most 16384 on
        a CPU and 65536 elsewhere. It encodes at most 2048 or 32768 at once. A micro-batch that
        still does not fit is halved. In prediction a change takes effect without another fit.""",
    ),
    "early_stopping": (
        "bool",
        """Whether to score held-out texts after each epoch, to stop when the score has not
        risen by `tol` for more than `n_iter_no_change` epochs in a row, and to keep the
        weights of the best epoch: they are the end of the way of `fine_tuning_share`.""",
    ),
    "scoring": (
        "str, callable or None",
        """What scores the validation texts after each epoch. None is {score_name}, and "loss" the
        negative loss. Otherwise it is the name of a scorer of scikit-learn, such as "f1_macro",
        or a callable with the signature ``scoring(estimator, X, y)``. A scorer gets the labels as
        they were passed, and the `sample_weight` of the texts if it takes weights. It is
        also called once before the first epoch, so that a scoring that fails ends no long fit.""",
    ),
    "validation_fraction": (
        "float",
        """Share of the training texts, or of their groups, that early stopping holds out, unless
        fit is given `X_val` and `y_val`.""",
    ),
    "n_iter_no_change": ("int", "Number of epochs without a gain that early stopping allows."),
    "tol": ("float", "Least gain of the score that counts."),
    "class_weight": (
        'dict, list of dict, "balanced" or None',
        """Weight of each class, multiplied with `sample_weight`. "balanced" weights classes
        inversely to their share of the (weighted) training texts. If texts may have several
        labels, the classes are 0 and 1, for each label by itself; a list has one dict for each
        column of `y`.""",
    ),
    "warm_start": ("bool", "Whether fit goes on from the weights of the last fit."),
    "norm": (
        '{"l2"} or None',
        """"l2" scales embeddings to length 1. The parts of several layers, or of mean and maximum,
        get equal lengths.""",
    ),
    "device": (
        "str, torch.device or list of these",
        """Device that computes; "auto" is CUDA where there is one, else the CPU. With a list, such
        as ["cuda:0", "cuda:1"], all of them encode. This process computes on the first one, and
        starts a worker process for each other one.""",
    ),
    "precision": (
        '{"auto", "float32", "bfloat16", "int8"}',
        """Type of the numbers that the encoder multiplies. "bfloat16" is autocast. "auto" chooses
        it where the hardware multiplies it natively: on CUDA from Ampere on, and on CPUs with
        AVX512-BF16 or AMX. "int8" needs ``inference="openvino"``: training is as with "auto", and
        the encoder without gradients multiplies integers, whose ranges are calibrated on chunks of
        the training texts, or of the first texts that are predicted if the fit had another
        precision. In prediction a change takes effect without another fit. Weights and the head
        stay float32.""",
    ),
    "inference": (
        '{"torch", "openvino"}',
        """What computes the encoder where no gradients are needed: in prediction, in explanations
        and for a frozen encoder. "openvino" makes a graph of it for CPUs, which is faster, and
        needs the extra ``openvino``. A change takes effect without another fit.""",
    ),
    "callbacks": (
        "list",
        """Callbacks of skorch, which run inside the fit. A fit uses them themselves, and so do
        the fits of clones: what they hold, such as a writer or a trial, is never copied. An
        LRScheduler is refused. Callbacks of scikit-learn 1.9, such as its ProgressBar, are given
        to `set_callbacks` instead. `fit` reports its epochs and their batches to them.""",
    ),
    "checkpoint_folder": (
        "str or path-like",
        """Folder in which a fit writes how far it has come. If it is killed, the same call of fit,
        in another process, goes on from there and ends at the same weights, bit for bit. Each fit
        has a sub-folder of its own, named by a digest of its parameters, texts, targets and
        weights, which is deleted when the fit has ended. A fit of other texts or parameters
        starts anew; `device`, `micro_batch_tokens`, `verbose` and `callbacks` may change.
        `random_state` must be an int. A file is three to five times as large as the weights that
        are trained. What `callbacks` have counted is not kept.""",
    ),
    "checkpoint_interval": (
        "float",
        """Seconds between two writes into `checkpoint_folder`. The end of each epoch is always
        written.""",
    ),
    "revision": ("str", "Branch, tag or commit of `model_name` on the Hub."),
    "local_files_only": ("bool", "Whether to use local files only, and never ask the Hub."),
    "random_state": (
        "int, RandomState instance or None",
        """Decides the head's first weights, dropout, the order, the drawn chunks and the held-out
        part of the texts. Two fits with the same int, on the same machine, give the same weights
        bit for bit. On GPUs they do so with torch's deterministic algorithms only.""",
    ),
    "verbose": (
        "int",
        """1 shows one progress bar per fit and per long prediction, and warns if `max_chunks` cuts
        training texts.""",
    ),
}

ATTRIBUTES = """chunker_ : TextChunker
        The chunker that cuts texts in prediction.
    net_ : LongBertNet
        The skorch net that holds the network, on `device_`.
    history_ : list of dict
        One dict per epoch: `epoch`, `train_loss`, `learning_rate` (at the last step), `seconds`,
        and with validation texts `valid_loss` and `valid_score`. What other callbacks record is
        in ``net_.history``.
    n_iter_ : int
        Number of epochs run.
    best_epoch_ : int
        The epoch, counted from 1, whose weights are kept: the end of the way of
        `fine_tuning_share`. `history_` tells what weights on that way's end have reached.
    fine_tuning_share_ : float
        Share of the way, from the weights before the last training to those after it, at which the
        weights are. It is 1.0 where they were not moved back, so after each `partial_fit` and each
        fit with `warm_start` that goes on. With `freeze_encoder` only the head moves.
    baseline_ : WordsBaseline, estimator or None
        The fitted baseline. Labels that all training texts have, or none, are left out of what an
        estimator is fitted to: their logits are constant.
    device_ : str
        Device of the network.
    n_chunks_ : ndarray of shape (n_samples,)
        Number of chunks that are kept of each training text, held-out ones included; texts of
        weight 0 are left out.
    chunk_report_ : dict
        Result of :meth:`chunk_report` for the training texts."""


def with_shared_docs(
    changed: dict[str, str] | None = None, **words: str
) -> Callable[[ClassType], ClassType]:
    """Fill {parameters}, {attributes} and then `words` in the docstring of a class.

    Parameters
    ----------
    changed : dict, default=None
        Meanings of parameters where the class differs from `PARAMETERS`.
    **words : str
        Texts to fill in for further names in braces.
    """

    def decorate(cls: ClassType) -> ClassType:
        entries = []
        for name, parameter in inspect.signature(cls).parameters.items():
            kind, meaning = PARAMETERS[name]
            default = parameter.default
            shown = f'"{default}"' if isinstance(default, str) else repr(default)
            meaning = (changed or {}).get(name, meaning)
            entries.append(f"{name} : {kind}, default={shown}\n        {meaning}")
        filled = {"parameters": "\n    ".join(entries), "attributes": ATTRIBUTES, **words}
        for name, text in filled.items():
            if cls.__doc__ is not None:  # it is None under python -OO
                cls.__doc__ = cls.__doc__.replace("{" + name + "}", text)
        return cls

    return decorate
