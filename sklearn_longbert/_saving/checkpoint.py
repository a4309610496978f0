"""Make networks of checkpoints that somebody else fine-tuned for sequence classification.

Invariant: the network gives each chunk the same logits as transformers' own class does.
"""

from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._pretrained.loading import (
    load_config,
    load_sequence_classifier,
    without_pooler,
)
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._targets.targets import Classes, Labels, Numbers

# For each architecture, the layers of the head, whose input is the hidden state of the first token:
# first layer, activation (None is the config's pooler_hidden_act), last layer.
HEADS: dict[str, tuple[str, str | None, str]] = {
    "bert": ("bert.pooler.dense", "tanh", "classifier"),
    "roberta": ("classifier.dense", "tanh", "classifier.out_proj"),
    "xlm-roberta": ("classifier.dense", "tanh", "classifier.out_proj"),
    "camembert": ("classifier.dense", "tanh", "classifier.out_proj"),
    "mpnet": ("classifier.dense", "tanh", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "relu", "classifier"),
    "electra": ("classifier.dense", "gelu", "classifier.out_proj"),
    "albert": ("albert.pooler", "tanh", "classifier"),
    "deberta-v2": ("pooler.dense", None, "classifier"),
}

# parameters of an estimator that has such a head
TAKEN_BY_HEADS = {"token_pooling": "cls", "layers": "last", "baseline": None}


def targets_of_checkpoint(config: Any, kind: str) -> tuple[Targets, list[int]]:
    """Return the targets of a checkpoint, and the numbers of its outputs in their order.

    Parameters
    ----------
    config : transformers.PretrainedConfig
    kind : str
        The estimator that asks, "classifier" or "regressor".

    Raises
    ------
    ValueError
        If the checkpoint predicts another kind of target, or does not name its labels.
    """
    if _is_regression(config) != (kind == "regressor"):
        found = "labels" if kind == "regressor" else "numbers"
        right = "LongBertClassifier" if kind == "regressor" else "LongBertRegressor"
        raise ValueError(
            f"The checkpoint predicts {config.num_labels} {found} (problem_type="
            f"{config.problem_type!r}): use {right}.from_pretrained."
        )
    numbers = list(range(config.num_labels))
    if kind == "regressor":
        shape = (config.num_labels,) if config.num_labels > 1 else ()
        return Numbers(np.zeros(shape), np.ones(shape)), numbers
    names = _label_names(config)
    if config.problem_type == "multi_label_classification":
        return Labels(names), numbers
    classes, order = np.unique(names, return_index=True)
    return Classes(classes), order.tolist()


def _label_names(config: Any) -> Any:
    labels = [config.id2label.get(index) for index in range(config.num_labels)]
    if not all(isinstance(label, str) for label in labels):
        raise ValueError(
            f"The checkpoint's id2label must name its outputs, 0 to {len(labels) - 1}, got "
            f"{config.id2label}: mend its config.json."
        )
    if len(set(labels)) < len(labels):
        raise ValueError(
            f"The checkpoint's id2label repeats a label, {config.id2label}: mend its config.json."
        )
    return np.array(labels)


def _is_regression(config: Any) -> bool:
    """Return whether a checkpoint predicts numbers, as a single output does by default."""
    return config.problem_type == "regression" or (
        config.problem_type is None and config.num_labels == 1
    )


def check_known_head(config: Any, folder: Path) -> None:
    """Raise ValueError unless the head of this architecture is known."""
    if config.model_type not in HEADS:
        raise ValueError(
            f"{folder} holds a {config.model_type}, whose head for sequence classification cannot "
            f"be read: pass a checkpoint of {', '.join(sorted(HEADS))}; or pass it as model_name "
            f"to an estimator, and fit a new head."
        )


def network_from_checkpoint(
    folder: Path, dropouts: tuple[float, float], order: list[int], pooling: str, frozen: bool
) -> LongBertNetwork:
    """Return a network with the encoder and the head of a checkpoint.

    Parameters
    ----------
    folder : Path
    dropouts : tuple of float
        dropout and attention_dropout.
    order : list of int
        Numbers of the head's outputs, in the order of the network's outputs.
    pooling : str
    frozen : bool
        See :class:`LongBertNetwork`.
    """
    config = load_config(folder)
    dense_name, activation, last_name = HEADS[config.model_type]
    model = load_sequence_classifier(folder, (dense_name, last_name), *dropouts)
    dense, last = attrgetter(dense_name)(model), attrgetter(last_name)(model)
    with torch.random.fork_rng(devices=[]):  # first weights are drawn, then replaced
        network = LongBertNetwork(
            without_pooler(model.base_model),
            n_outputs=len(order),
            pooling=pooling,
            token_pooling="cls",
            dropout=dropouts[0],
            hidden_layer=(dense.out_features, activation or config.pooler_hidden_act),
            frozen=frozen,
        )
    # NumPy copies in this thread: torch would start its threads, see _saving.encoder_files
    head = {
        name: torch.from_numpy(weight.numpy()[order]) for name, weight in last.state_dict().items()
    }
    network.transform.get_submodule("0").load_state_dict(dense.state_dict(), assign=True)
    network.head.load_state_dict(head, assign=True)
    return network
