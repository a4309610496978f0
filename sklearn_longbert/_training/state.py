"""The state of a net in a file: plain values, and weights as NumPy arrays, on no device.

Invariant: nothing in it is a class, a function or an object of torch, so that skops takes it, too.
Nothing that only training needs is in it.
"""

from typing import Any

from sklearn_longbert._encoding.network import LongBertNetwork, network_from_state, network_state
from sklearn_longbert._plain import plain
from sklearn_longbert._pretrained.devices import available_devices, precision_of, select_autocast
from sklearn_longbert._targets.targets import CRITERIA

# Settings that are kept. The next training brings the others.
SETTINGS = ("lr", "batch_size", "weight_decay", "max_grad_norm", "micro_batch_tokens", "seed")


def net_state(net: Any) -> dict[str, Any]:
    """Return the state of a net that has a network."""
    return {
        "settings": {name: getattr(net, name) for name in SETTINGS},
        "criterion": net.criterion.__name__,
        "precision": precision_of(net.autocast),
        "devices": net.devices,
        "history": [plain(dict(epoch)) for epoch in net.history],
        "best_epoch": net.best_epoch_,
        "baseline_scales": net.baseline_scales,
        "network": network_state(net.module_),
    }


def network_and_settings(state: dict[str, Any]) -> tuple[LongBertNetwork, dict[str, Any]]:
    """Return the network of a state, and all other arguments of its net."""
    devices = available_devices(state["devices"])
    return network_from_state(state["network"]), {
        "criterion": CRITERIA[state["criterion"]],
        "autocast": select_autocast(state["precision"], devices[0]),
        "devices": [str(device) for device in devices],
        "warmup_fraction": None,
        "progress": False,
        "baseline_scales": state["baseline_scales"],
        **state["settings"],
    }
