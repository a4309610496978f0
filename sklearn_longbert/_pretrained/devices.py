"""Choose the device and the precision that an encoder computes in."""

from typing import Any

import torch
from sklearn.utils._param_validation import StrOptions

INFERENCE_CONSTRAINTS: dict[str, list[Any]] = {
    "precision": [StrOptions({"auto", "float32", "bfloat16", "int8"})],
    "inference": [StrOptions({"torch", "openvino"})],
}


def select_device(device: str) -> torch.device:
    """Return the torch device of that name; "auto" is CUDA where there is one, else the CPU.

    Raises
    ------
    ValueError
        If torch knows no such device, or this machine has none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        selected = torch.device(device)
        torch.empty(0, device=selected)
        if selected.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} cannot be used on this machine ({reason}): pass 'auto', 'cpu', or "
            f"a device that torch finds here, such as 'cuda' or 'cuda:1'."
        ) from error
    return selected


def select_devices(device: Any) -> list[torch.device]:
    """Return the torch devices of a parameter: of one name, or of a list of names.

    Raises
    ------
    ValueError
        If torch knows no such device, this machine has none, or a list holds unlike ones.
    """
    if not isinstance(device, list | tuple):
        return [select_device(str(device))]
    if len(device) == 0 or "auto" in map(str, device):
        raise ValueError(
            f"device={device!r} is not a list of devices: name each of them, such as ['cuda:0', "
            f"'cuda:1'], or pass 'auto' alone for one."
        )
    # "cuda" becomes "cuda:0", which another process takes for the same one
    selected = [torch.empty(0, device=select_device(str(each))).device for each in device]
    if len({each.type for each in selected}) > 1:
        raise ValueError(f"device={device!r} holds devices of several types: pass one type.")
    return selected


def available_devices(device: Any) -> list[torch.device]:
    """Return the torch devices of a parameter, or that of "auto" if this machine lacks one."""
    try:
        return select_devices(device)
    except ValueError:
        return [select_device("auto")]


def select_autocast(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype of autocast, None for plain float32.

    "auto" follows what the processor reports of itself, not a timing: a timing could differ
    between two runs on one machine, and the weights would then differ too.
    """
    if precision in ("auto", "int8"):  # of what is not in int8
        precision = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None


def select_inference(inference: str, precision: str, devices: list[torch.device]) -> str:
    """Return what computes hidden states without gradients on these devices.

    Returns
    -------
    inference : {"torch", "openvino", "openvino_int8"}

    Raises
    ------
    ValueError
        If `precision` or the devices are not for `inference`.
    """
    if inference == "torch":
        if precision == "int8":
            raise ValueError(
                "precision='int8' needs inference='openvino', because torch does not compute it: "
                "pass both, or precision='auto'."
            )
        return inference
    if len(devices) > 1 or devices[0].type != "cpu":
        raise ValueError(
            f"inference='openvino' takes one CPU, with all its cores, and the device is "
            f"{', '.join(map(str, devices))}: pass device='cpu', or inference='torch'."
        )
    return "openvino_int8" if precision == "int8" else "openvino"


def precision_of(autocast: torch.dtype | None) -> str:
    """Return the precision for which :func:`select_autocast` returns this type."""
    return "float32" if autocast is None else "bfloat16"


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
