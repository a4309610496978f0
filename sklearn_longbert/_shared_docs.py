"""The documentation of parameters and attributes, written once for all classes.

A class names its parameters in its signature; their defaults are taken from there.
"""

import inspect
from collections.abc import Callable
from typing import TypeVar

ClassType = TypeVar("ClassType", bound=type)

# the type of each parameter, and what it means
PARAMETERS = {
    "model_name": (
        "str or path-like",
        "Hub id or local folder of any encoder that transformers' AutoModel loads.",
    ),
    "chunk_size": (
        "int",
        """Most tokens of a chunk, special tokens included. None is the encoder's limit, at most
        512. A text whose chunks are all kept is cut into equally long ones.""",
    ),
    "chunk_overlap": ("int", "Tokens that a chunk repeats from the one before."),
    "max_chunks": (
        "int",
        """At most this many chunks of a text are kept; None keeps all. 1 is the usual truncation.
        Where it cuts, chunks are full.""",
    ),
    "chunk_selection": (
        '{"head", "tail", "head_tail", "even", "random"}',
        """Which chunks are kept where `max_chunks` cuts: the first; the last; half of them
        from each end, the odd one from the head; the middle ones of equal stretches; or
        drawn anew in each epoch of training, and "even" in prediction.""",
    ),
    "pooling": (
        '{"mean", "max", "logsumexp", "attention"}',
        """How the logits of a text's chunks become the logits of the text. "mean" suits a
        property of the whole text, such as its topic; "max", class by class, one that a
        single place in it decides. "logsumexp", the logarithm of the mean of the chunks'
        exponentials, lies between them: larger logits have larger shares, and K equal chunks
        have the logits of one. "attention" is a mean whose weights, one a chunk, are learned
        from the embeddings (gated, Ilse et al., 2018, https://arxiv.org/abs/1802.04712); it
        begins with equal ones.""",
    ),
    "token_pooling": (
        '{"mean", "cls"}',
        """How hidden states become the embedding of a chunk: their mean over the real tokens,
        or the hidden state of the first token.""",
    ),
    "head_init": (
        '{"linear_probe", "random"}',
        """Where the head starts: at a linear model, its regularisation chosen by cross-validation,
        of the encoder's own embeddings of the training texts (Kumar et al., 2022,
        https://arxiv.org/abs/2202.10054); or at random. With `pooling` "mean" and "attention"
        it is a model of their means over the chunks, with "max" and "logsumexp" one of the
        chunks, fitted to the loss of the pooled logits, which finds a passage that decides
        where the mean hides it. Where the encoder is trained and a logistic model's loss on the
        training texts is less than half of guessing's, its logits are shrunk towards guessing
        until it is half, since without a loss the encoder would have nothing to learn from. The
        first call of `partial_fit` starts at the model of its texts; a fit with `warm_start`
        goes on from the present head.""",
    ),
    "freeze_encoder": (
        "bool",
        """Whether to train the head alone, and attention if there is any. Each chunk is then
        encoded once per fit, without dropout; the head's inputs are dropped in each epoch.
        A process remembers the embeddings, the latest 256 MB of them and at most 64 MB of one
        set of texts, so that a grid over parameters of the head encodes each fold once; every
        process of `n_jobs` remembers for itself.""",
    ),
    "max_epochs": ("int", "Passes over the training texts."),
    "batch_size": ("int", "Texts, whatever their length, per optimizer step."),
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
        """The same for attention weights; 0 keeps the fused, much faster attention kernels.
        Otherwise, where an encoder takes padded chunks, what is dropped depends on
        `micro_batch_tokens`.""",
    ),
    "micro_batch_tokens": (
        'int or "auto"',
        """Most tokens, padding counted, that are encoded at once, and whose graphs training keeps
        at once; never less than one chunk. It bounds memory and changes results by rounding
        only: the chunks of a batch that go beyond it are encoded twice, once for the loss and
        once for their gradients (Gao et al., 2021, https://arxiv.org/abs/2101.06983). "auto"
        keeps what half of the free memory holds, at most 16384 on a CPU and 65536 elsewhere,
        and encodes at most 2048 or 32768 at once. What does not fit nevertheless is halved. In
        prediction a change takes effect without another fit.""",
    ),
    "early_stopping": (
        "bool",
        """Whether to score held-out texts after each epoch, to stop when the score has not
        risen by `tol` for more than `n_iter_no_change` epochs in a row, and to keep the
        weights of the best epoch. {score_name} is the score.""",
    ),
    "validation_fraction": (
        "float",
        """Share of the training texts that early stopping holds out, unless fit is given
        `X_val` and `y_val`.""",
    ),
    "n_iter_no_change": ("int", "Epochs without a gain that early stopping bears."),
    "tol": ("float", "The least gain of the score that counts."),
    "class_weight": (
        'dict, "balanced" or None',
        """Weight of each class, multiplied with `sample_weight`. "balanced" weights classes
        inversely to their share of the (weighted) training texts. With several labels a text
        the classes are 0 and 1, for each label by itself.""",
    ),
    "warm_start": ("bool", "Whether fit goes on from the weights of the last fit."),
    "norm": ('{"l2"} or None', "Whether embeddings are scaled to length 1."),
    "device": (
        "str or torch.device",
        'Where to compute: "auto" is CUDA where there is one, else the CPU.',
    ),
    "precision": (
        '{"auto", "float32", "bfloat16"}',
        """What the encoder multiplies in: "bfloat16" is autocast, "auto" takes it where the
        hardware multiplies it natively: CUDA from Ampere on, CPUs with AVX512-BF16 or AMX.
        Weights and the head stay float32.""",
    ),
    "callbacks": (
        "list",
        """Callbacks of skorch, run inside the fit. Each fit uses clones of them. Those of
        scikit-learn 1.9, such as its ProgressBar, are given to `set_callbacks` instead; `fit`
        tells them of its epochs and their batches.""",
    ),
    "revision": ("str", "Branch, tag or commit of `model_name` on the Hub."),
    "local_files_only": ("bool", "Never ask the Hub."),
    "random_state": (
        "int, RandomState instance or None",
        """Decides the head's first weights, dropout, the order and the drawn chunks of the texts.
        With an int, and on the same machine, two fits give the same weights bit for bit.""",
    ),
    "verbose": (
        "int",
        """1 shows one progress bar per fit and per long prediction, and warns if `max_chunks` cuts
        training texts.""",
    ),
}

ATTRIBUTES = """chunker_ : TextChunker
        Cuts the texts that come to predict.
    net_ : LongBertNet
        The skorch net that holds the network, on `device_`.
    history_ : list of dict
        One per epoch: `epoch`, `train_loss`, `learning_rate` (at the last step), `seconds`,
        and with validation texts `valid_loss` and `valid_score`.
    n_iter_ : int
        Epochs run.
    best_epoch_ : int
        The epoch, counted from 1, whose weights are kept.
    device_ : str
        Where the network is.
    n_chunks_ : ndarray of shape (n_samples,)
        Chunks that are kept of each training text; texts of weight 0 are left out.
    chunk_report_ : dict
        What :meth:`chunk_report` says of the training texts."""


def with_shared_docs(
    changed: dict[str, str] | None = None, **words: str
) -> Callable[[ClassType], ClassType]:
    """Fill {parameters}, {attributes} and then `words` in the docstring of a class.

    Parameters
    ----------
    changed : dict, default=None
        What parameters mean where the class differs from `PARAMETERS`.
    **words : str
        What is filled in for further names in braces.
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
            if cls.__doc__ is not None:  # as under python -OO
                cls.__doc__ = cls.__doc__.replace("{" + name + "}", text)
        return cls

    return decorate
