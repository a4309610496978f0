"""NetFactory, which makes nets as the parameters say."""

import re
import sys
from collections.abc import Callable
from functools import partial
from numbers import Integral
from pathlib import Path
from pickle import PicklingError
from typing import Any

import joblib
import numpy as np
from torch import nn

from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._encoding.network import LongBertNetwork, network_from_state, network_state
from sklearn_longbert._encoding.remembered import digest
from sklearn_longbert._folders import absolute
from sklearn_longbert._parameters import BaseParameters
from sklearn_longbert._plain import plain
from sklearn_longbert._pretrained.devices import (
    available_devices,
    select_autocast,
    select_devices,
    select_inference,
)
from sklearn_longbert._pretrained.hub import find_folder
from sklearn_longbert._pretrained.loading import load_encoder
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._texts.chunker import TextChunker
from sklearn_longbert._training.head_start import Start
from sklearn_longbert._training.labelled import Labelled
from sklearn_longbert._training.net import LongBertNet
from sklearn_longbert._training.resume import FitCheckpoint
from sklearn_longbert._training.validation import ValidationMonitor
from sklearn_longbert._version import __version__

# parameters on which the weights of a fit do not depend, or only by those of the encoder
NOT_IN_KEY = {
    "callbacks",
    "checkpoint_folder",
    "checkpoint_interval",
    "device",
    "local_files_only",
    "micro_batch_tokens",
    "model_name",
    "revision",
    "verbose",
}


class NetFactory(BaseParameters):
    """Base of both estimators, with their nets."""

    _encoder_name: tuple[Any, Any]  # of the last fit

    def _make_net(
        self,
        chunker: TextChunker,
        targets: Targets,
        random_state: np.random.RandomState,
        start: Start | None = None,
        monitor: ValidationMonitor | None = None,
        held_out: DocumentDataset | None = None,
        previous: LongBertNet | None = None,
        anywhere: bool = False,
        **settings: Any,
    ) -> LongBertNet:
        """Return a net that makes its network when it starts or trains.

        If `anywhere` is set and a device is missing, the net is on the device of "auto".
        """
        self._check_token_pooling(self.token_pooling, chunker)
        devices = (available_devices if anywhere else select_devices)(plain(self.device))
        scales = None if previous is None else previous.baseline_scales
        defaults = {"warmup_fraction": plain(self.warmup_fraction), "baseline_scales": scales}
        settings = {**defaults, "share": plain(self.fine_tuning_share), **settings}
        return LongBertNet(
            self._network_factory(targets.n_outputs, chunker, previous),
            targets.criterion,
            autocast=select_autocast(plain(self.precision), devices[0]),
            inference=select_inference(plain(self.inference), plain(self.precision), devices),
            seed=draw_seed(random_state),
            monitor=monitor,
            held_out=held_out,
            start=start,
            devices=[str(device) for device in devices],
            **self._training_settings(),
            **settings,
        )

    def _training_settings(self) -> dict[str, Any]:
        """Return the settings of a net that may change from one training to the next."""
        return {
            "lr": float(self.learning_rate),
            "batch_size": min(int(self.batch_size), sys.maxsize),  # torch takes no more
            "weight_decay": float(self.weight_decay),
            "max_grad_norm": plain(self.max_grad_norm),
            "micro_batch_tokens": plain(self.micro_batch_tokens),
            "progress": bool(self.verbose),
            "callbacks": list(self.callbacks or []),
        }

    def _network_factory(
        self, n_outputs: int, chunker: TextChunker, previous: LongBertNet | None
    ) -> Callable[[], LongBertNetwork]:
        """Return a function that makes a network: skorch would train a given network itself."""
        dropouts = (plain(self.dropout), plain(self.attention_dropout))
        settings = {name: plain(getattr(self, name)) for name in ("pooling", "layers", "dropout")}
        settings["frozen"] = plain(self.freeze_encoder)
        if previous is not None:
            if self._encoder_name != (plain(self.model_name), plain(self.revision)):
                name, revision = self._encoder_name
                raise ValueError(
                    f"warm_start=True goes on from the weights of {name!r}, revision={revision!r}, "
                    f"but the parameters are now model_name={self.model_name!r}, "
                    f"revision={self.revision!r}: set warm_start=False."
                )
            if self.token_pooling != "auto":
                settings["token_pooling"] = plain(self.token_pooling)
            state = network_state(previous.module_)  # the previous net may go on to predict
            return partial(network_from_state, state, dropouts, **settings)

        def make_network() -> LongBertNetwork:
            folder = find_folder(self.model_name, self.revision, self.local_files_only)
            token_pooling = self._token_pooling_of(folder, chunker)
            encoder = self._load_encoder(folder, dropouts)
            return LongBertNetwork(encoder, n_outputs, token_pooling=token_pooling, **settings)

        return make_network

    def _load_encoder(self, folder: Path, dropouts: tuple[float, float]) -> nn.Module:
        return load_encoder(folder, *dropouts)

    def _check_checkpoints(self) -> None:
        """Raise ValueError if a fit could not be found again, or OSError if not be written."""
        if self.checkpoint_folder is None:
            return
        if not isinstance(plain(self.random_state), Integral):
            raise ValueError(
                f"checkpoint_folder needs a random_state that is the same when the fit goes on, "
                f"and random_state={self.random_state!r} is none: pass an int."
            )
        folder = absolute(plain(self.checkpoint_folder))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"checkpoint_folder={self.checkpoint_folder!r} cannot be made ({error}): pass a "
                f"folder that you may write to."
            ) from error

    def _make_checkpoint(
        self, targets: Targets, data: Labelled, validation: Labelled | None
    ) -> FitCheckpoint | None:
        """Return where the progress of a fit of these texts is written."""
        if self.checkpoint_folder is None:
            return None
        key = self._fit_key(targets, data, validation)
        return FitCheckpoint(
            absolute(plain(self.checkpoint_folder)), float(self.checkpoint_interval), key
        )

    def _fit_key(
        self,
        targets: Targets,
        data: Labelled,
        validation: Labelled | None,
        left_out: frozenset[str] = frozenset(),
    ) -> bytes:
        """Return a digest of a fit: of its parameters but those left out, texts and targets."""
        parameters = {
            name: _described(plain(value))
            for name, value in sorted(self.get_params(deep=False).items())
            if name not in NOT_IN_KEY | left_out
        }
        texts = [each.digest() for each in (data, validation) if each is not None]
        names = _described(getattr(targets, "names", None))
        return digest(__version__, type(self).__name__, parameters, names, *texts)


def draw_seed(random_state: np.random.RandomState) -> int:
    return int(random_state.randint(np.iinfo(np.int32).max))


def _described(value: Any) -> str:
    """Return what is the same for a parameter's value in another process."""
    try:
        return str(joblib.hash(value))
    except (PicklingError, AttributeError, TypeError):  # such as a lambda's
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
